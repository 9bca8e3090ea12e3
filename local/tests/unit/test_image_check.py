"""What is looked for in an image, on made-up ones."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fraud_local import paths
from fraud_local.real_images import archive, confined, on_debian, roots, sbom
from fraud_local.real_images.recipes import RECIPES, Recipe

RECIPE = Recipe("serving", "serving", ("contracts",), ("fraud_contracts",), (), ("opt/plugins/*.jar",))
SITE = "opt/serving-env/lib/python3.11/site-packages"
LOCK = "Some_Package==1.0 \\\n    --hash=sha256:0\nother[extra]==2 \\\n    --hash=sha256:1\n"
GOOD: dict[str, bytes] = {
    f"{SITE}/some_package-1.0.dist-info/METADATA": b"",
    f"{SITE}/other-2.dist-info/METADATA": b"",
    f"{SITE}/fraud_contracts-0.1.0.dist-info/METADATA": b"",
    f"{SITE}/other/tests/server.key": b"-----BEGIN RSA PRIVATE KEY-----",
    f"{SITE}/other/.env": b"",
    "opt/plugins/s3.jar": b"",
}
SETTINGS: dict[str, Any] = {"User": "1000", "Env": ["PATH=/bin", "HOME=/tmp"]}


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def image(tmp_path: Path, *layers: Mapping[str, bytes], **settings: Any) -> archive.ImageContent:
    """The content of an image of those layers, from the lowest."""
    names = [f"{number}.tar" for number in range(len(layers))]
    history = [{"created_by": command} for command in settings.pop("history", [])]
    config = {"config": {**SETTINGS, **settings}, "history": history}
    manifest = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": names}]
    members = {name: _tar(layer) for name, layer in zip(names, layers, strict=True)}
    members |= {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    file = tmp_path / "image.tar"
    file.write_bytes(_tar(members))
    return archive.read(file)


def faults(content: archive.ImageContent, **environ: str) -> list[str]:
    return archive.problems(RECIPE, content, LOCK, environ)


def test_an_image_as_it_must_be_has_no_fault(tmp_path: Path) -> None:
    """Packages as the lock and the recipe say, a numbered user, and keys only where packages bring them for their tests."""
    content = image(tmp_path, GOOD, {"etc/passwd": b"12345"})
    assert faults(content) == []
    assert content.distributions == {"some-package", "other", "fraud-contracts"}
    assert content.layers == [31, 5]


@pytest.mark.parametrize(
    ("files", "settings", "sentence"),
    [
        ({}, {"User": ""}, "its user is root, not a number"),
        ({}, {"User": "fraud"}, "its user is fraud, not a number"),
        ({}, {"User": "0:0"}, "its user is 0:0, not a number"),
        ({f"{SITE}/pytest-8.4.2.dist-info/METADATA": b""}, {}, "packages that its lock doesn't name: pytest"),
        ({f"{SITE}/.wh.other-2.dist-info": b""}, {}, "it lacks packages of its lock: other"),
        ({"opt/plugins/.wh.s3.jar": b""}, {}, "it has no opt/plugins/*.jar"),
        ({f"{SITE}/fraud_contracts/.env": b""}, {}, "fraud_contracts/.env may hold credentials"),
        (
            {f"{SITE}/fraud_contracts/k.py": b"-----BEGIN PRIVATE KEY-----"},
            {},
            "fraud_contracts/k.py holds a private key",
        ),
        ({"root/.netrc": b""}, {}, "/root/.netrc may hold credentials"),
        ({"etc/pip.conf": b""}, {}, "/etc/pip.conf may hold credentials"),
        ({"srv/k": b"-----BEGIN PRIVATE KEY-----\n"}, {}, "/srv/k holds a private key"),
        ({}, {"Env": ["REGISTRY_TOKEN=abc"]}, "its environment sets REGISTRY_TOKEN"),
        ({}, {"history": ["RUN pip install --index-url https://me:word@host/"]}, "has a login"),
        ({}, {"history": ["RUN x hunter2hunter2"]}, "has this machine's MY_PASSWORD"),
    ],
)
def test_each_fault_is_told(
    tmp_path: Path, files: dict[str, bytes], settings: dict[str, Any], sentence: str
) -> None:
    """One fault makes one sentence, which begins with the image's name."""
    content = image(tmp_path, GOOD, files, **settings)
    told = faults(content, MY_PASSWORD="hunter2hunter2", HOME="/root")
    assert len(told) == 1
    assert told[0].startswith("serving: ")
    assert sentence in told[0]


def test_what_a_later_layer_takes_away_is_still_seen(tmp_path: Path) -> None:
    """A secret of a lower layer is in the image for ever; a package of one isn't."""
    lower = {"root/.netrc": b"", f"{SITE}/pytest-8.4.2.dist-info/METADATA": b""}
    upper = {"root/.wh..wh..opq": b"", f"{SITE}/.wh.pytest-8.4.2.dist-info": b""}
    content = image(tmp_path, {**GOOD, **lower}, upper)
    assert "root/.netrc" not in content.files
    assert faults(content) == ["serving: /root/.netrc may hold credentials"]


def test_a_program_is_confined_as_by_a_strict_pod() -> None:
    """runc and the engines get the same: the image's user, a read-only root, no capability, no network, /tmp in memory."""
    config = {"User": "1000", "Entrypoint": ["/e"], "Env": ["PATH=/bin"], "WorkingDir": "/tmp"}
    document = confined.runtime_document(config, Path("/mounted"), ["python", "-V"])
    process = document["process"]
    assert process["args"] == ["/e", "python", "-V"]
    assert process["user"] == {"uid": 1000, "gid": 1000}
    assert process["noNewPrivileges"] is True
    assert "capabilities" not in process
    assert document["root"] == {"path": "/mounted", "readonly": True}
    assert {"type": "network"} in document["linux"]["namespaces"]
    command = confined.engine_arguments("x:1", ["python", "-V"])
    assert {"--read-only", "--cap-drop=ALL", "--network=none"} <= set(command)
    assert command[-3:] == ["x:1", "python", "-V"]


def test_components_are_counted_by_kind() -> None:
    """Python packages, Debian packages and jars are told apart by their identifiers; files have none."""
    purls = ["pkg:pypi/a@1", "pkg:pypi/b@1", "pkg:deb/debian/c@1?arch=amd64", "pkg:maven/d/e@1"]
    components: list[dict[str, str]] = [*({"purl": purl} for purl in purls), {"name": "a file"}]
    assert sbom.counts(json.dumps({"components": components})) == {"pypi": 2, "deb": 1, "maven": 1}


def test_only_the_root_of_a_build_knows_this_machine() -> None:
    """What images are made on top of gets no authority, address or setting of this machine."""
    assert {root.argument for root in roots.ROOTS if not root.machine} == {"PYTHON_IMAGE"}
    plain, build_root = roots.ROOTS[0], roots.ROOTS[1]
    files = {Path("/usr/local/share/ca-certificates/own.crt"): "/usr/local/share/ca-certificates"}
    assert not any("own.crt" in option for option in roots.options(plain, files))
    assert any("own.crt" in option for option in roots.options(build_root, files))
    environ = {"https_proxy": "http://p", "PIP_INDEX_URL": "http://i", "HOME": "/root", "A_TOKEN": "x"}
    assert roots.machine_variables(environ).keys() == {"https_proxy", "PIP_INDEX_URL", *roots.TRUST}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_an_image_is_made_of_its_sources_and_locks(recipe: Recipe) -> None:
    """A change of code, lock, version or Dockerfile makes it anew; one of a test doesn't."""
    files = {str(path.relative_to(paths.CLONE)) for path in on_debian.inputs(recipe)}
    wanted = {f"{recipe.folder}/Dockerfile", f"{recipe.folder}/requirements.txt", "requirements-build.txt"}
    assert wanted <= files
    assert all(f"{source}/pyproject.toml" in files for source in recipe.sources)
    assert not any("/tests/" in path for path in files)


def test_what_tools_leave_in_a_clone_changes_no_image() -> None:
    """Their folders and files are told by .dockerignore, wherever they lie."""
    assert all(
        on_debian.ignored(paths.CLONE / path)
        for path in ("ray/.pytest_cache/v/x", "contracts/src/a/__pycache__/b.pyc", "ray/a.egg-info/PKG-INFO")
    )
    assert not on_debian.ignored(paths.CLONE / "ray" / "Dockerfile")
