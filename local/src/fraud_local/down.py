"""The node goes, whatever state it is in: up, half up, or left by a killed ``up``.

    python -m fraud_local.down

Standard library only. What belongs to the node is found by its cgroups, its network namespace, its recorded pids and its
mounts; running it twice, or with nothing there, is harmless.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fraud_local import paths, processes
from fraud_local.shell import LocalError, main, say

# The controllers first: nothing may start Pods again while they are being ended.
ORDERLY = (
    "strimzi-standin", "flink-standin", "kserve", "kuberay", "coredns", "kubelet", "kube-proxy", "kube-scheduler",
    "kube-controller-manager",
)  # fmt: skip


@contextmanager
def exclusive() -> Iterator[None]:
    """``up`` and ``down`` never overlap. The lock goes with its process, so a killed one leaves none."""
    paths.LOCK.parent.mkdir(parents=True, exist_ok=True)
    with paths.LOCK.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LocalError("another up or down of the node is running") from error
        yield


def down() -> None:
    """Take everything of the node away; LocalError that names what could not be."""
    for name in ORDERLY[:6]:
        processes.stop(name, seconds=2)
    _end_processes()
    _unmount()
    _network()
    _remove_cgroups()
    shutil.rmtree(paths.STATE, ignore_errors=True)
    left = leftovers()
    if left:
        raise LocalError("the node is not wholly gone:\n" + "\n".join(f"  - {one}" for one in left))


def _end_processes(seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while members := processes.members():
        if all(processes.state(pid) in ("Z", None) for pid in members):
            break  # only zombies, whose parents (killed too) are being reaped
        if time.monotonic() > deadline:
            raise LocalError(f"processes of the node do not end: {sorted(members)}")
        processes.kill(members)
        time.sleep(0.2)


def node_mounts() -> list[str]:
    """Mount points below the state folder, the deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return sorted(
        (point for point in points if f"{point}/".startswith(f"{paths.STATE}/")), key=len, reverse=True
    )


def _unmount() -> None:
    for point in node_mounts():
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)


def _network() -> None:
    if processes.NETNS_FILE.exists():
        subprocess.run(["ip", "netns", "del", paths.NETNS], check=False, capture_output=True)
    # Deleting the namespace took the pair of links with it, unless the second end was never moved into it.
    if (Path("/sys/class/net") / paths.HOST_LINK).exists():
        subprocess.run(["ip", "link", "del", paths.HOST_LINK], check=False, capture_output=True)


def _remove_cgroups(seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while roots := [
        tree / paths.CGROUP for tree in processes.hierarchies() if (tree / paths.CGROUP).exists()
    ]:
        for root in roots:
            for folder, _, _ in os.walk(root, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:
                    continue  # a process in it has not been reaped yet: next round
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)


def leftovers() -> list[str]:
    """What is still there of the node, in words."""
    left = [f"process {pid}" for pid in processes.members() if processes.state(pid) not in ("Z", None)]
    left += [f"mount {point}" for point in node_mounts()]
    left += [
        f"cgroup {tree / paths.CGROUP}" for tree in processes.hierarchies() if (tree / paths.CGROUP).exists()
    ]
    if processes.NETNS_FILE.exists():
        left.append(f"network namespace {paths.NETNS}")
    if (Path("/sys/class/net") / paths.HOST_LINK).exists():
        left.append(f"link {paths.HOST_LINK}")
    if paths.STATE.exists():
        left.append(f"folder {paths.STATE}")
    return left


def command() -> None:
    if sys.platform != "linux" or os.geteuid() != 0 or not leftovers():
        # Without root there was never a node here; a kind cluster is deleted by the same command.
        from fraud_local import kind

        kind.delete()
        say("no node is here")
        return
    with exclusive():
        down()
    say("the node is gone: no process, mount, cgroup, link or file of it is left")


if __name__ == "__main__":
    main(command)
