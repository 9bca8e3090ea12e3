"""What the native node needs of this machine; each missing thing is named with its remedy before any work starts.

Standard library only: this runs before any environment exists.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fraud_local import paths
from fraud_local.shell import LocalError

# Build products and module caches when everything is built here; a node with everything built needs little.
DISK_TO_BUILD_GIB = 20
DISK_TO_RUN_GIB = 5
MEMORY_GIB = 8
APT_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "ipset": "ipset",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "ethtool": "ethtool",
    "openssl": "openssl",
    "cc": "gcc",
    "redis-server": "redis-server",
    "/usr/lib/postgresql/15/bin/postgres": "postgresql-15",
    "prometheus": "prometheus",
    "/usr/lib/jvm/java-17-openjdk-amd64/bin/java": "openjdk-17-jre-headless",
    "mvn": "maven",
}


@dataclass(frozen=True)
class Missing:
    """One thing that is not there, and what to do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}\n      remedy: {self.remedy}"


@dataclass(frozen=True)
class Machine:
    """The facts that the checks look at, gathered once, so that the checks are plain functions."""

    system: str
    uid: int
    python: tuple[int, int]
    filesystems: frozenset[str]
    namespaces: frozenset[str]
    cgroups: frozenset[str]
    bridge_filter: bool
    disk_gib: float
    memory_gib: float
    go: tuple[int, int] | None
    apt: bool
    programs: frozenset[str]
    networks: tuple[str, ...]
    built: bool
    cache: Path


def check(machine: Machine) -> list[Missing]:
    """Everything that is missing, all at once."""
    checks: list[Callable[[Machine], list[Missing]]] = [
        _system, _kernel, _size, _cache, _languages, _packages, _addresses,
    ]  # fmt: skip
    return [missing for one in checks for missing in one(machine)]


def _system(machine: Machine) -> list[Missing]:
    missing = []
    if machine.system != "linux":
        missing.append(
            Missing(
                f"Linux (this is {machine.system})", "run it in a Linux machine, or install Docker for kind"
            )
        )
    if machine.uid != 0:
        missing.append(
            Missing(
                "root",
                "run it as root (a node makes namespaces, mounts and cgroups), or start Docker for kind",
            )
        )
    return missing


def _kernel(machine: Machine) -> list[Missing]:
    missing = []
    if "overlay" not in machine.filesystems:
        missing.append(Missing("the overlay filesystem", "modprobe overlay"))
    if not machine.bridge_filter:
        missing.append(
            Missing(
                "br_netfilter in the kernel, by which NetworkPolicies are enforced", "modprobe br_netfilter"
            )
        )
    for kind in ("net", "mnt", "pid", "ipc", "uts"):
        if kind not in machine.namespaces:
            missing.append(
                Missing(
                    f"{kind} namespaces in the kernel", "boot a kernel with CONFIG_NAMESPACES and its kinds"
                )
            )
    for controller in ("cpu", "memory", "pids", "cpuset"):
        if controller not in machine.cgroups:
            missing.append(
                Missing(
                    f"the cgroup controller {controller!r} under /sys/fs/cgroup",
                    "mount cgroups (v1 or v2) with it switched on",
                )
            )
    return missing


def _size(machine: Machine) -> list[Missing]:
    missing = []
    disk = DISK_TO_RUN_GIB if machine.built else DISK_TO_BUILD_GIB
    if machine.disk_gib < disk:
        missing.append(
            Missing(
                f"{disk} GiB of free disk at {paths.CACHE} ({machine.disk_gib:.0f} there)",
                "free some, or set FRAUD_CACHE to a larger disk",
            )
        )
    if machine.memory_gib < MEMORY_GIB:
        missing.append(
            Missing(f"{MEMORY_GIB} GiB of memory ({machine.memory_gib:.0f} there)", "use a larger machine")
        )
    return missing


def _cache(machine: Machine) -> list[Missing]:
    if not machine.cache.is_relative_to("/tmp"):
        return []
    what = f"a place for what is built that isn't below /tmp ({machine.cache}): Pods have a /tmp of their own"
    return [Missing(what, "set FRAUD_CACHE to another folder")]


def _languages(machine: Machine) -> list[Missing]:
    missing = []
    if machine.python != (3, 11):
        version = ".".join(str(part) for part in machine.python)
        missing.append(Missing(f"Python 3.11 (this is {version})", "start it with python3.11"))
    if not machine.built and (machine.go is None or machine.go < (1, 25)):
        missing.append(
            Missing("Go 1.25 or newer", "install Go and put it on PATH; it compiles the node's programs")
        )
    return missing


def _packages(machine: Machine) -> list[Missing]:
    absent = missing_packages(machine.programs)
    if absent and not machine.apt:
        return [
            Missing(
                f"Debian packages {' '.join(absent)}",
                "install their equivalents; apt-get is not here to do it",
            )
        ]
    return []


def _addresses(machine: Machine) -> list[Missing]:
    wanted = [
        ipaddress.ip_network(text) for text in (paths.NODE_NETWORK, paths.POD_NETWORK, paths.SERVICE_NETWORK)
    ]
    taken = [
        net for net in machine.networks if any(ipaddress.ip_network(net).overlaps(one) for one in wanted)
    ]
    return [
        Missing(f"free addresses: a route to {net} is in the node's way", f"ip route del {net}, or use kind")
        for net in taken
    ]


def missing_packages(programs: frozenset[str], table: Mapping[str, str] = APT_PACKAGES) -> list[str]:
    """Debian packages of a table whose program is not here."""
    return [package for program, package in table.items() if program not in programs]


def find_programs(table: Mapping[str, str] = APT_PACKAGES) -> frozenset[str]:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return frozenset(
        program
        for program in table
        if (Path(program).exists() if program.startswith("/") else shutil.which(program, path=path))
    )


def inspect(built: bool) -> Machine:
    """Look at this machine; ``built`` says whether the node's programs are already there."""
    return Machine(
        system=sys.platform,
        uid=os.geteuid(),
        python=sys.version_info[:2],
        filesystems=_filesystems(),
        namespaces=frozenset(entry.name for entry in _entries("/proc/self/ns")),
        cgroups=_cgroups(),
        bridge_filter=_bridge_filter(),
        disk_gib=_free_disk() / 2**30,
        memory_gib=_memory() / 2**30,
        go=_go(),
        apt=shutil.which("apt-get") is not None,
        programs=find_programs(),
        networks=_networks(),
        built=built,
        cache=paths.CACHE,
    )


def require(built: bool) -> None:
    """LocalError that lists what is missing; nothing when the machine will do."""
    lacking = check(inspect(built))
    if lacking:
        lines = "\n".join(f"  - {one}" for one in lacking)
        raise LocalError(f"this machine can't become a node yet; missing:\n{lines}")


def _entries(folder: str) -> list[Path]:
    path = Path(folder)
    return list(path.iterdir()) if path.is_dir() else []


def _load(module: str) -> None:
    if os.geteuid() == 0 and shutil.which("modprobe"):
        subprocess.run(["modprobe", module], check=False, capture_output=True)


def _bridge_filter() -> bool:
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not setting.exists():
        _load("br_netfilter")
    return setting.exists()


def _filesystems() -> frozenset[str]:
    if "overlay" not in Path("/proc/filesystems").read_text():
        _load("overlay")
    return frozenset(
        line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines() if line.strip()
    )


def _cgroups() -> frozenset[str]:
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists():
        return frozenset(unified.read_text().split())
    return frozenset(entry.name for entry in _entries("/sys/fs/cgroup"))


def _free_disk() -> int:
    folder = paths.CACHE
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _memory() -> int:
    match = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(match[1]) * 1024 if match else 0


def _go() -> tuple[int, int] | None:
    go = shutil.which("go")
    if not go:
        return None
    match = re.search(
        r"go(\d+)\.(\d+)", subprocess.run([go, "version"], check=False, capture_output=True, text=True).stdout
    )
    return (int(match[1]), int(match[2])) if match else None


def _networks() -> tuple[str, ...]:
    """Networks that this machine routes to, but for the default route and the node's own link."""
    lines = Path("/proc/net/route").read_text().splitlines()[1:]
    networks = []
    for line in lines:
        link, destination, _, _, _, _, _, mask = line.split()[:8]
        if destination == "00000000" or link == paths.HOST_LINK:
            continue
        address = socket.inet_ntoa(bytes.fromhex(destination)[::-1])
        bits = bin(int(mask, 16)).count("1")
        networks.append(str(ipaddress.ip_network(f"{address}/{bits}", strict=False)))
    return tuple(networks)
