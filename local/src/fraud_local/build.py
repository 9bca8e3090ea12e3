"""Everything that the node runs, built or fetched once and kept outside the clone.

Each step is keyed by a hash of its inputs and leaves a stamp; a second run does nothing. Programs come from Go modules,
jars from Maven, environments from each component's lock, the rest from Debian. Standard library only.

    python -m fraud_local.build all | node | jars | env COMPONENT...
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from fraud_local import images, paths, prerequisites
from fraud_local.shell import LocalError, main, run, say

# Each component with a lock and an image of its own, and its folder.
COMPONENTS = {
    "operator": "operator", "flink": "flink", "ray": "ray", "serving": "serving", "mlflow": "serving/mlflow",
}  # fmt: skip
# Packages of the pinned module, and the name of each program where its own says too little.
PROGRAMS = {
    "k8s.io/kubernetes/cmd/kube-apiserver": "kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager": "kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-scheduler": "kube-scheduler",
    "k8s.io/kubernetes/cmd/kubelet": "kubelet",
    "k8s.io/kubernetes/cmd/kube-proxy": "kube-proxy",
    "k8s.io/kubernetes/cmd/kubectl": "kubectl",
    "helm.sh/helm/v3/cmd/helm": "helm",
    "go.etcd.io/etcd/server/v3": "etcd",
    "./coredns": "coredns",
    "./netpol": "netpol",
    "github.com/ray-project/kuberay/ray-operator": "ray-operator",
    "github.com/kserve/kserve/cmd/manager": "kserve-manager",
}
# A module of its own: it shares next to nothing with the cluster's programs, whose versions it would raise.
OBJECTS = {"github.com/versity/versitygw/cmd/versitygw": "versitygw"}
KUBERNETES_VERSION = "1.34.4"


def linker_flags() -> str:
    """No debugger's tables, and the version that the programs would otherwise not know: charts ask the server for it."""
    major, minor, _ = KUBERNETES_VERSION.split(".")
    values = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(
        ["-s -w", *(f"-X {package}.{name}={value}" for package in packages for name, value in values.items())]
    )


def digest(*parts: str | bytes | Path) -> str:
    """Hash of a step's inputs; a Path counts by its content."""
    total = hashlib.sha256()
    for part in parts:
        data = (
            part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        )
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time does a step; the others wait and then find it done."""
    folder = paths.CACHE / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def step(name: str, what: str, key: str, present: Path, action: Callable[[], None]) -> bool:
    """Do ``action`` unless its stamp carries ``key`` and ``present`` exists; True when it was done."""
    stamps = paths.CACHE / "stamps"
    stamps.mkdir(parents=True, exist_ok=True)
    stamp = stamps / name
    with locked(name):
        if present.exists() and stamp.exists() and stamp.read_text() == key:
            return False
        say(f"{what} ...")
        stamp.unlink(missing_ok=True)
        action()
        stamp.write_text(key)
        say(f"{what}: done")
        return True


def packages(table: Mapping[str, str] = prerequisites.APT_PACKAGES) -> None:
    """Debian packages of the table's programs that are missing, with none of their services started."""
    absent = prerequisites.missing_packages(prerequisites.find_programs(table), table)
    if not absent:
        return
    if not shutil.which("apt-get"):
        raise LocalError(f"{' '.join(absent)}: install their equivalents; apt-get is not here to do it")
    say(f"Debian packages: {' '.join(absent)} ...")
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    policy = Path("/usr/sbin/policy-rc.d")
    own_policy = not policy.exists()
    if own_policy:
        # 101: "not allowed"; asked by every package script before it starts a service.
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        run("apt-get", "update", "-q", env=quiet)
        run("apt-get", "install", "-y", "-q", "--no-install-recommends", *absent, env=quiet)
    finally:
        if own_policy:
            policy.unlink()
    still = prerequisites.missing_packages(prerequisites.find_programs(table), table)
    if still:
        raise LocalError(f"installed, but their programs are not here: {' '.join(still)}")
    say("Debian packages: done")


def node_key() -> str:
    folder = paths.LOCAL / "node"
    files = [
        *(folder / name for name in ("go.mod", "go.sum", "tools.go", "pause.c")),
        *(folder / program / "main.go" for program in ("coredns", "netpol")),
    ]
    return digest(*files, linker_flags())


def objects_key() -> str:
    folder = paths.LOCAL / "objects"
    return digest(*(folder / name for name in ("go.mod", "go.sum", "tools.go")))


def node_built() -> bool:
    """Whether every program that Go compiles is there."""
    return all(
        target.exists() and stamp.exists() and stamp.read_text() == key
        for target, stamp, key in (
            (paths.NODE_BIN, paths.CACHE / "stamps" / "node", node_key()),
            (paths.OBJECTS_BIN, paths.CACHE / "stamps" / "objects", objects_key()),
        )
    )


def _go_name(package: str) -> str:
    """The name that ``go build`` gives a package's program: its last part that isn't a major version."""
    parts = package.split("/")
    return parts[-2] if re.fullmatch(r"v\d+", parts[-1]) else parts[-1]


def _compile(module: str, target: Path, programs: Mapping[str, str], flags: str) -> tuple[Path, Path]:
    """The programs of a pinned Go module below ``local``: (a folder beside ``target`` with them, the copy of the module)."""
    work, fresh = target.with_name("module"), target.with_name("bin.new")
    for folder in (work, fresh):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(paths.LOCAL / module, work)
    fresh.mkdir(parents=True)
    # Two cores build all of it cold: one call links the programs side by side, tables of a debugger that the linker would
    # drop aren't made at all, and a compiler of short life collects less garbage.
    quiet = {"GOFLAGS": "-buildvcs=false -mod=readonly", "CGO_ENABLED": "0", "GOGC": "400"}
    say(f"  compiling {', '.join(programs.values())}")
    run(
        "nice", "-n", "5", "go", "build", "-gcflags=all=-dwarf=false", "-ldflags", flags, "-o", f"{fresh}/", *programs,
        cwd=work, env=quiet,
    )  # fmt: skip
    for package, name in programs.items():
        (fresh / _go_name(package)).rename(fresh / name)
    return fresh, work


def _put_in_place(fresh: Path, target: Path) -> None:
    old = target.with_name("bin.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def node_programs() -> None:
    """The cluster's own programs, from one pinned Go module, and the pause program; then the trial object store."""

    def build() -> None:
        fresh, work = _compile("node", paths.NODE_BIN, PROGRAMS, linker_flags())
        run("cc", "-O2", "-static", "-o", fresh / "pause", work / "pause.c")
        _put_in_place(fresh, paths.NODE_BIN)

    def build_objects() -> None:
        fresh, _ = _compile("objects", paths.OBJECTS_BIN, OBJECTS, "-s -w")
        _put_in_place(fresh, paths.OBJECTS_BIN)

    step("node", "node programs (Go; minutes the first time)", node_key(), paths.NODE_BIN, build)
    step("objects", "object store (Go)", objects_key(), paths.OBJECTS_BIN, build_objects)


def uv() -> Path:
    """The uv program that builds the images, too, in an environment of its own."""
    lock = paths.CLONE / "requirements-build.txt"

    def install() -> None:
        run(sys.executable, "-m", "venv", paths.CACHE / "uv")
        pip = (paths.CACHE / "uv" / "bin" / "python", "-m", "pip")
        run(*pip, "install", "-q", "--require-hashes", "-r", lock)

    step("uv", "uv", digest(lock), paths.UV, install)
    return paths.UV


def locks(component: str) -> list[Path]:
    """What a component's environment holds: its image's packages, and on top of them those of its tests."""
    if component == "dev":
        return [paths.CLONE / "requirements-dev.txt"]
    if component not in COMPONENTS:
        raise LocalError(f"no component {component!r}; there are dev, {', '.join(COMPONENTS)}")
    folder = paths.CLONE / COMPONENTS[component]
    names = ("requirements.txt", "requirements-test.txt")
    return [folder / name for name in names if (folder / name).exists()]


def environment(component: str) -> None:
    """One component's environment from its locks, third-party packages only, compiled because Pods can't write .pyc."""
    files = locks(component)
    python = paths.env_python(component)
    tool = uv()

    def install() -> None:
        if not python.exists():
            run(tool, "venv", "-q", "--clear", "--python", sys.executable, paths.ENVS / component)
        run(
            "nice", "-n", "5", tool, "pip", "sync", "-q", "--require-hashes", "--compile-bytecode", "--python", python,
            *files,
        )  # fmt: skip

    step(f"env-{component}", f"environment {component}", digest(*files, sys.version), python, install)


def jars(name: str, target: Path) -> None:
    """The jars that ``local/maven/<name>/pom.xml`` names, with what they need."""
    pom = paths.LOCAL / "maven" / name / "pom.xml"
    key = digest(pom)
    stamp = paths.CACHE / "stamps" / f"jars-{name}"

    def fetch() -> None:
        if stamp.exists():
            shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True, exist_ok=True)
        run(
            "mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={target}",
            "-DincludeScope=runtime",
        )  # fmt: skip

    step(f"jars-{name}", f"jars of {name} (Maven)", key, target, fetch)


def flink_home() -> None:
    """A Flink home made of the PyFlink wheel and the connectors.

    ``bin`` and ``opt`` are real: a linked ``bin`` resolves back into the wheel, and a linked ``opt`` hides the Python jar.
    ``conf``, ``artifacts``, ``usrlib`` and ``pod-template`` are empty mount points, which a read-only bind can't get later.
    """
    wheel = paths.site_packages("flink") / "pyflink"

    def assemble() -> None:
        fresh = paths.FLINK_HOME.with_name("flink-home.new")
        shutil.rmtree(fresh, ignore_errors=True)
        for name in ("conf", "artifacts", "usrlib", "pod-template", "log", "plugins", "opt", "lib"):
            (fresh / name).mkdir(parents=True)
        shutil.copytree(wheel / "bin", fresh / "bin")
        for script in (fresh / "bin").iterdir():
            script.chmod(0o755)
        for jar in (wheel / "lib").glob("*.jar"):
            (fresh / "lib" / jar.name).symlink_to(jar)
        for jar in paths.FLINK_JARS.glob("*.jar"):
            (fresh / "lib" / jar.name).symlink_to(jar)
        # Reporters and file systems are loaded as plugins; without this reporter Flink logs a warning and shows no metrics.
        reporter = wheel / "plugins" / "metrics-prometheus"
        for name, source in ((reporter.name, reporter), ("s3-fs-hadoop", paths.FLINK_S3_JARS)):
            (fresh / "plugins" / name).mkdir()
            for jar in source.glob("*.jar"):
                (fresh / "plugins" / name / jar.name).symlink_to(jar)
        python_jar = next((wheel / "opt").glob("flink-python-*.jar"))
        # In lib, so that the bridge to Python is loaded once for all jobs of a process.
        (fresh / "lib" / python_jar.name).symlink_to(python_jar)
        # One name for every version, for jarURI; Flink refuses to start when it finds two jars of that name's beginning.
        (fresh / "opt" / "flink-python.jar").symlink_to(python_jar)
        shutil.rmtree(paths.FLINK_HOME, ignore_errors=True)
        fresh.rename(paths.FLINK_HOME)

    # Its own code counts, the rest of this file doesn't.
    recipe = inspect.getsource(flink_home)
    poms = [paths.LOCAL / "maven" / name / "pom.xml" for name in ("flink", "flink-s3")]
    key = digest(locks("flink")[0], *poms, recipe)
    step("flink-home", "Flink home", key, paths.FLINK_HOME, assemble)


def image_archives() -> None:
    """The development images and the sandbox image as archives."""
    paths.IMAGES.mkdir(parents=True, exist_ok=True)
    for image in images.development_images():
        _write(paths.IMAGES / f"{image.name}.tar", images.archive(image))
    _write(paths.IMAGES / "pause.tar", images.pause_archive((paths.NODE_BIN / "pause").read_bytes()))


def _write(target: Path, data: bytes) -> None:
    if not target.exists() or target.read_bytes() != data:
        fresh = target.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.rename(target)


def everything() -> None:
    """All that ``up`` needs: Debian packages, then Go beside environments beside jars."""
    packages()
    paths.FLINK_HOME.mkdir(parents=True, exist_ok=True)

    def environments() -> None:
        for component in COMPONENTS:
            environment(component)

    def maven() -> None:
        jars("kafka", paths.KAFKA_LIBS)
        jars("flink", paths.FLINK_JARS)
        jars("flink-s3", paths.FLINK_S3_JARS)
        jars("crds", paths.CACHE / "crds-jars")

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(one) for one in (node_programs, environments, maven)]:
            future.result()
    flink_home()
    image_archives()


def command() -> None:
    os.umask(0o022)
    match sys.argv[1:]:
        case ["all"]:
            everything()
        case ["node"]:
            packages()
            node_programs()
            image_archives()
        case ["jars"]:
            jars("kafka", paths.KAFKA_LIBS)
            jars("flink", paths.FLINK_JARS)
            jars("flink-s3", paths.FLINK_S3_JARS)
        case ["env", *components] if components:
            for component in components:
                environment(component)
        case _:
            raise LocalError("usage: python -m fraud_local.build all | node | jars | env COMPONENT...")


if __name__ == "__main__":
    main(command)
