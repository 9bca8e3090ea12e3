"""Development images and the mounts that fill them."""

import io
import json
import tarfile

from fraud_local import images, paths


def _open(data: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(data))


def _config(data: bytes) -> dict:
    with _open(data) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))
        return json.load(tar.extractfile(manifest[0]["Config"]))


def test_archive_is_reproducible_and_small():
    """An image's bytes depend on its inputs alone, and stay under 100 kB."""
    for image in images.development_images():
        data = images.archive(image)
        assert data == images.archive(image)
        assert len(data) < 100_000


def test_archive_names_its_layer_by_digest():
    """The manifest, the configuration and the layer agree about the layer's digest."""
    data = images.archive(images.Image("x"))
    with _open(data) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        config = json.load(tar.extractfile(manifest["Config"]))
        assert manifest["RepoTags"] == ["docker.io/fraud-platform/x:dev"]
        assert config["rootfs"]["diff_ids"] == [f"sha256:{manifest['Layers'][0].removesuffix('.tar')}"]


def test_layer_lets_any_user_write_where_a_program_must():
    """Home and the temporary folders are writable for every user; passwd knows the accounts."""
    data = images.archive(images.Image("x"))
    with _open(data) as tar:
        layer = json.load(tar.extractfile("manifest.json"))[0]["Layers"][0]
        with _open(tar.extractfile(layer).read()) as root:
            assert root.getmember("home/app").mode == 0o777
            assert root.getmember("tmp").mode == 0o1777
            assert root.getmember("bin").linkname == "usr/bin"
            assert b"fraud:x:10001:10001" in root.extractfile("etc/passwd").read()


def test_environment_finds_the_component_first():
    """The environment's programs come first on PATH, and our code comes from the clone, never from the work folder."""
    serving = next(image for image in images.development_images() if image.name == "serving")
    variables = dict(entry.split("=", 1) for entry in _config(images.archive(serving))["config"]["Env"])
    assert variables["PATH"].startswith(f"{paths.ENVS}/serving/bin:")
    assert variables["PYTHONPATH"].split(":")[0] == "/opt/fraud/contracts/src"
    assert variables["PYTHONSAFEPATH"] == "1"


def test_flink_sees_its_environment_along_pythonpath():
    """Flink's JVM looks for the Python bridge along PYTHONPATH only, so the environment's packages are on it."""
    flink = next(image for image in images.development_images() if image.name == "flink")
    variables = images.environment(flink)
    assert variables["PYTHONPATH"].endswith("/site-packages")
    assert "EXTRA_PYTHONPATH" not in variables
    assert variables["JAVA_HOME"]


def test_runtime_spec_adds_read_only_mounts_and_leaves_the_default_alone():
    """Every mount is read-only, the low limit on open files goes, and the input is not changed."""
    default = {"process": {"rlimits": [1]}, "mounts": [{"destination": "/proc"}]}
    spec = images.runtime_spec(default, {"/usr": "/usr", "/opt/fraud": "/somewhere"})
    assert default == {"process": {"rlimits": [1]}, "mounts": [{"destination": "/proc"}]}
    assert "rlimits" not in spec["process"]
    assert [mount["destination"] for mount in spec["mounts"]] == ["/proc", "/usr", "/opt/fraud"]
    assert all("ro" in mount["options"] for mount in spec["mounts"][1:])


def test_no_mount_lies_where_pods_mount_over():
    """A Pod's emptyDir on /tmp must not hide an environment."""
    assert not any(destination.startswith("/tmp") for destination in images.mounts())
