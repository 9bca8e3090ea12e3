"""`make release-check`: a release's steps without a forge, against a registry that this machine runs as long as they take.

    python -m fraud_local.real_images.release_check

The images are those of `make images-check`, for this machine's processor alone. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from fraud_local import build
from fraud_local.real_images import chart_package, on_debian, publish, roots
from fraud_local.real_images.recipes import RECIPES
from fraud_local.shell import LocalError, main, run, say, wait_for
from fraud_local.version import CHART, project_version

PROGRAMS = {"docker-registry": "docker-registry"}
CONFIGURATION = """version: 0.1
storage: {filesystem: {rootdirectory: FOLDER}}
http: {addr: "ADDRESS"}
log: {level: warn}
"""


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """The address of a registry that nobody else has, and that goes with all that it holds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        text = CONFIGURATION.replace("FOLDER", str(folder / "data")).replace("ADDRESS", address)
        (folder / "config.yml").write_text(text)
        process = subprocess.Popen(
            ["docker-registry", "serve", folder / "config.yml"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for("the registry answers", lambda: _answers(address), 30)
            yield address
        finally:
            process.terminate()
            process.wait(10)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:  # not up yet; wait_for says so in the end
        return False


def rendered_images(package: Path) -> set[str]:
    """Every image that the packaged chart asks for with its own values, those that it tells the operator among them."""
    command = (chart_package.helm(), "template", CHART.name, package, "--namespace", CHART.name)
    text = run(*command, "--kube-version", build.KUBERNETES_VERSION)
    platform = re.findall(r'\\"(?:flink|ray|serving|sinks|console)\\": \\"([^"\\]+[:@][^"\\]+)\\"', text)
    return {*re.findall(r"^ +image: (\S+)$", text, re.M), *platform}


def require_whole(release: publish.Release, package: Path) -> None:
    """LocalError unless the chart in the registry asks for the published images, by digest, and each has its SBOM.

    That the registry has each image by its digest is seen already: its SBOM was made from there.
    """
    published = set(json.loads((publish.OUT / "images.json").read_text())["images"].values())
    with tempfile.TemporaryDirectory() as folder:
        insecure = ["--plain-http"] if release.local else []
        chart = f"oci://{release.registry}/charts/{CHART.name}"
        run(
            chart_package.helm(),
            "pull",
            chart,
            "--version",
            project_version(),
            "--destination",
            folder,
            *insecure,
        )
        asked = rendered_images(Path(folder) / package.name)
    if absent := published - asked:
        raise LocalError(f"the published chart doesn't ask for {', '.join(sorted(absent))}")
    names = {path.name.partition("-")[0] for path in publish.OUT.glob("*.cdx.json")}
    if names != {recipe.name for recipe in RECIPES}:
        raise LocalError(f"SBOMs are of {', '.join(sorted(names))} alone")


def command() -> None:
    build.packages(PROGRAMS)
    tool = on_debian.tool()
    bases = roots.ensure(tool)
    platform = run("dpkg", "--print-architecture").strip()
    with registry() as address:
        release = publish.Release(
            tool, f"{address}/fraud-platform", f"linux/{platform}", bases, on_debian.OPTIONS
        )
        try:
            package = publish.publish(release)
            require_whole(release, package)
        finally:
            # By names of this one run; the layers are those of make images-check.
            for recipe in RECIPES:
                publish.forget(release, recipe)
    say(
        "the release's steps: as they must be; the registry is gone, what it was told of lies in build/release"
    )


if __name__ == "__main__":
    main(command)
