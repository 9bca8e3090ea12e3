"""Development images: nothing but links, accounts and environment variables, 30 kB each.

Everything else reaches the container through read-only bind mounts that containerd adds to every Pod of the node
(``mounts``): the machine's /usr, the interpreter, the cache with the environments, and this clone. A changed line of code
needs a Pod restart and no build. Standard library only.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fraud_local import paths
from fraud_local.version import project_version

ACCOUNTS = {
    "root": (0, "/root"),
    "postgres": (999, "/home/app"),
    "app": (1000, "/home/app"),
    "kafka": (1001, "/home/app"),
    "flink": (9999, "/home/app"),
    "fraud": (10001, "/home/app"),
    "nobody": (65534, "/nonexistent"),
}
FOLDERS = (
    "etc",
    "root",
    "home",
    "var",
    "var/tmp",
    "var/lib",
    "var/log",
    "opt",
    "usr",
    "proc",
    "sys",
    "dev",
    "run",
    "mnt",
    "srv",
)
LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True)
class Image:
    """One development image: its name, the components whose code it runs, and the files of its own."""

    name: str
    env: str | None = None
    sources: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    # The user of a Pod that names none; Strimzi's names none.
    user: str = ""
    # What of this machine it needs besides Debian's programs, wherever that isn't mounted.
    brings: tuple[Path, ...] = ()
    tag: str = "dev"

    @property
    def reference(self) -> str:
        return f"docker.io/fraud-platform/{self.name}:{self.tag}"


def development_images() -> list[Image]:
    """The chart's images, by the chart's names."""
    java = {"JAVA_HOME": str(paths.java_home())}
    flink_site = str(paths.site_packages("flink"))
    return [
        Image("operator", env="operator", sources=("contracts", "operator")),
        Image(
            "ray",
            env="ray",
            sources=("contracts", "pipelines", "ray"),
            # A model's tag says which code trained it: whatever the clone held.
            variables={"FRAUD_CODE_VERSION": f"{project_version()}+clone"},
        ),
        Image("serving", env="serving", sources=("contracts", "pipelines", "serving", "console")),
        Image("mlflow", env="mlflow"),
        Image(
            "flink",
            env="flink",
            sources=("contracts", "pipelines", "flink"),
            path=(f"{paths.POD_FLINK}/bin",),
            # The JVM starts Python itself and looks for pemja along PYTHONPATH only.
            variables={
                **java,
                "FLINK_HOME": paths.POD_FLINK,
                "FLINK_LOG_DIR": "/tmp/flink-log",
                "EXTRA_PYTHONPATH": flink_site,
            },
            files={"docker-entrypoint.sh": (paths.CLONE / "flink" / "docker-entrypoint.sh").read_bytes()},
            entrypoint=("/docker-entrypoint.sh",),
        ),
        Image(
            "kafka",
            variables={**java, "KAFKA_LIBS": str(paths.KAFKA_LIBS)},
            user="1001",
            brings=(paths.KAFKA_LIBS,),
        ),
        Image("redis"),
        Image("postgres", path=("/usr/lib/postgresql/15/bin",)),
        Image("prometheus"),
        Image("objects", path=(str(paths.OBJECTS_BIN),), brings=(paths.OBJECTS_BIN,)),
    ]


def environment(image: Image) -> dict[str, str]:
    """The image's environment variables."""
    folders = [*([str(paths.ENVS / image.env / "bin")] if image.env else []), *image.path]
    variables = {
        "PATH": ":".join(
            [*folders, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        ),
        "HOME": "/home/app",
        "LANG": "C.UTF-8",
        **image.variables,
    }
    extra = variables.pop("EXTRA_PYTHONPATH", None)
    if image.env:
        sources = [f"{paths.POD_CLONE}/{source}/src" for source in image.sources]
        variables["PYTHONPATH"] = ":".join([*sources, *([extra] if extra else [])])
        variables["PYTHONSAFEPATH"] = "1"
        # The clone and the environments are read-only in a Pod; a failed write of each .pyc costs time.
        variables["PYTHONDONTWRITEBYTECODE"] = "1"
        variables["PYTHONUNBUFFERED"] = "1"
    return variables


def archive(image: Image) -> bytes:
    """The image as a docker-archive, which ``ctr images import`` reads; equal inputs give equal bytes."""
    return _docker_archive(image.reference, layer(image.files), configuration(image))


def configuration(image: Image) -> dict[str, Any]:
    """How a container of the image starts: the part of its document that people set."""
    config: dict[str, Any] = {
        "Env": [f"{key}={value}" for key, value in environment(image).items()],
        "WorkingDir": "/home/app",
    }
    if image.user:
        config["User"] = image.user
    if image.entrypoint:
        config["Entrypoint"] = list(image.entrypoint)
    else:
        config["Cmd"] = ["/bin/bash"]
    return config


def pause_archive(program: bytes) -> bytes:
    """The sandbox image: one static program that waits."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _file(tar, "pause", program, 0o755)
    config = {"Entrypoint": ["/pause"], "User": "65535:65535"}
    return _docker_archive("localhost/pause:3.9", out.getvalue(), config)


def document(config: dict[str, Any], layers: Sequence[str]) -> dict[str, Any]:
    """An image's whole document; ``layers`` are digests, the lowest first."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in layers]},
    }


def _docker_archive(reference: str, content: bytes, config: dict[str, Any]) -> bytes:
    layer_id = hashlib.sha256(content).hexdigest()
    text = json.dumps(document(config, [layer_id])).encode()
    config_id = hashlib.sha256(text).hexdigest()
    manifest = [{"Config": f"{config_id}.json", "RepoTags": [reference], "Layers": [f"{layer_id}.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _file(tar, f"{layer_id}.tar", content)
        _file(tar, f"{config_id}.json", text)
        _file(tar, "manifest.json", json.dumps(manifest).encode())
    return out.getvalue()


def layer(files: Mapping[str, bytes]) -> bytes:
    """The folders, links and accounts that every program expects, and the files of one image."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in FOLDERS:
            _folder(tar, name, 0o755)
        for name in ("run/postgresql", "data"):
            _folder(tar, name, 0o777)
        for name in ("tmp", "var/tmp"):
            _folder(tar, name, 0o1777)
        _folder(tar, "home/app", 0o777)
        for name in LINKS:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
        passwd = "".join(
            f"{name}:x:{uid}:{uid}::{home}:/bin/bash\n" for name, (uid, home) in ACCOUNTS.items()
        )
        group = "".join(f"{name}:x:{uid}:\n" for name, (uid, _) in ACCOUNTS.items())
        _file(tar, "etc/passwd", passwd.encode())
        _file(tar, "etc/group", group.encode())
        _file(tar, "etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
        for name, data in files.items():
            _file(tar, name, data, 0o755)
    return out.getvalue()


def _folder(tar: tarfile.TarFile, name: str, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    tar.addfile(info)


def _file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def mounts() -> dict[str, str]:
    """Folders of this machine that every Pod sees read-only: destination in the Pod to source here.

    None may lie below a path that Pods mount over, or the Pod starts without them: hence nothing under /tmp.
    """
    same = [
        Path("/usr"), Path("/etc/ssl"), Path("/etc/alternatives"), Path("/etc/ld.so.cache"), Path("/etc/java-17-openjdk"),
        paths.CACHE,
    ]  # fmt: skip
    prefix = paths.base_prefix()
    if not prefix.is_relative_to("/usr"):
        same.append(prefix)
    table = {str(path): str(path) for path in same if path.exists()}
    return {**table, paths.POD_CLONE: str(paths.CLONE), paths.POD_FLINK: str(paths.FLINK_HOME)}


def runtime_spec(default: dict[str, Any], table: Mapping[str, str]) -> dict[str, Any]:
    """containerd's ``base_runtime_spec``: its default plus our bind mounts, less the low limit on open files."""
    spec = json.loads(json.dumps(default))
    spec["process"].pop("rlimits", None)
    options = ["rbind", "ro", "nosuid", "nodev"]
    spec["mounts"] += [
        {"destination": destination, "type": "bind", "source": source, "options": options}
        for destination, source in table.items()
    ]
    return dict(spec)
