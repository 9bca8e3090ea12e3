"""The node's own processes: how they start, and how every one of them is found again.

Each is put into a cgroup of the node before it runs, and what it starts stays there or in a Pod's cgroup below the same
root, however it detaches itself. So ownership is membership, and no process is ever chosen by its name. Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fraud_local import paths
from fraud_local.shell import LocalError

CGROUPS = Path("/sys/fs/cgroup")
NETNS_FILE = Path("/run/netns") / paths.NETNS


def hierarchies() -> list[Path]:
    """Roots of the mounted cgroup trees: one with cgroup v2, one per controller with v1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [
        entry
        for entry in CGROUPS.iterdir()
        if entry.is_dir() and not entry.is_symlink() and (entry / "cgroup.procs").exists()
    ]


def make_cgroups() -> None:
    """The node's root in every tree, with a leaf for its host processes; the kubelet puts Pods beside that leaf."""
    for tree in hierarchies():
        root = tree / paths.CGROUP
        for folder in (root, root / "host"):
            folder.mkdir(exist_ok=True)
            # With v1, a new cpuset is empty and takes no process until it has been given what its parent has.
            for name in ("cpuset.cpus", "cpuset.mems"):
                own, parent = folder / name, folder.parent / name
                if tree.name == "cpuset" and not own.read_text().strip():
                    own.write_text(parent.read_text())
        if tree == CGROUPS:
            wanted = " ".join(f"+{name}" for name in (tree / "cgroup.controllers").read_text().split())
            (tree / "cgroup.subtree_control").write_text(wanted)
            (root / "cgroup.subtree_control").write_text(wanted)


def joining(command: Sequence[str | Path], rest: str = 'exec "$@"') -> list[str]:
    """The command, in the node's cgroups before it runs: nothing of ours outlives the node, not even a killed tool's child."""
    joins = "".join(
        f'echo $$ > "{tree / paths.CGROUP / "host" / "cgroup.procs"}"; ' for tree in hierarchies()
    )
    return ["sh", "-ec", f"{joins}{rest}", "sh", *(str(part) for part in command)]


def start(
    name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None, resolver: bool = False
) -> int:
    """Start a host process in the node's network namespace and cgroups; its log and pid lie under the state folder.

    ``resolver`` gives it the cluster's DNS by a private mount over /etc/resolv.conf.
    """
    if resolver:
        inner = f'mount --bind "{paths.CONF / "resolv-host.conf"}" /etc/resolv.conf; exec "$@"'
        wrapper = ["nsenter", f"--net={NETNS_FILE}", "unshare", "--mount", "sh", "-ec", inner, "sh"]
    else:
        wrapper = ["nsenter", f"--net={NETNS_FILE}"]
    full = joining([*wrapper, *command])
    with (paths.LOGS / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            full,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    (paths.RUN / f"{name}.pid").write_text(f"{process.pid} {start_time(process.pid)}")
    return process.pid


def start_time(pid: int) -> str | None:
    """When a process began, in clock ticks: with the pid it names one process for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def recorded(name: str) -> int | None:
    """The pid of a process that we started and that still runs; a recycled pid is not it."""
    file = paths.RUN / f"{name}.pid"
    if not file.exists():
        return None
    pid, _, began = file.read_text().partition(" ")
    if not pid.isdigit() or start_time(int(pid)) != began or state(int(pid)) == "Z":
        return None
    return int(pid)


def require_alive(name: str) -> None:
    """LocalError with the end of its log if the process is gone."""
    if recorded(name) is None:
        log = paths.LOGS / f"{name}.log"
        tail = log.read_text(errors="replace").strip()[-1500:] if log.exists() else "(no log)"
        raise LocalError(f"{name} has ended; the end of {log}:\n{tail}")


def stop(name: str, seconds: float = 5) -> None:
    """End one recorded process: asked first, killed after ``seconds``."""
    pid = recorded(name)
    if pid is not None:
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while recorded(name) is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        if recorded(name) is not None:
            _signal(pid, signal.SIGKILL)
    (paths.RUN / f"{name}.pid").unlink(missing_ok=True)


def members() -> set[int]:
    """Every process of the node: by cgroup, by network namespace, and by record."""
    pids = {pid for pid in (recorded(file.stem) for file in paths.RUN.glob("*.pid")) if pid}
    for tree in hierarchies():
        # os.walk leaves out a folder that goes while it looks; rglob would fail on it.
        for folder, _, _ in os.walk(tree / paths.CGROUP):
            try:
                pids.update(int(line) for line in Path(folder, "cgroup.procs").read_text().split())
            except OSError:
                continue  # the cgroup went while we looked, and its processes with it
    node = _namespace(NETNS_FILE)
    if node and node != _namespace(Path("/proc/self/ns/net")):
        processes = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
        pids.update(int(entry.name) for entry in processes if _namespace(entry / "ns" / "net") == node)
    return {pid for pid in pids if pid not in (0, 1, os.getpid())}


def _namespace(file: Path) -> tuple[int, int] | None:
    """Which namespace a file stands for: device and inode, for an inode number alone recurs on other file systems."""
    try:
        status = file.stat()
    except OSError:
        return None  # not there, ended meanwhile, or another's process that we may not look at
    return status.st_dev, status.st_ino


def kill(pids: set[int]) -> None:
    for pid in pids:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
