"""The one command for a cluster: ``python -m fraud_local.cluster check|up|down|status``.

kind where a Docker engine answers (or with ``--kind``), else this machine as a node (or with ``--native``). Starts with any
Python 3.11 and goes on in the operator's environment once that is there.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

from fraud_local import build, down, kind, node, paths, prerequisites, processes
from fraud_local.real_images import on_debian, stores
from fraud_local.shell import LocalError, main, run, say


def missing() -> list[str]:
    """What keeps this machine from becoming a node, in words; for tests that need one."""
    return [one.what for one in prerequisites.check(prerequisites.inspect(build.node_built()))]


def up(native: bool, built: bool = False) -> None:
    """``built``: the images that are shipped, not those that this clone fills; on kind there are no others."""
    if not native:
        kind.up()
        return
    prerequisites.require(build.node_built())
    build.everything()
    archives = [*on_debian.ensure().values(), stores.ensure()] if built else []
    with down.exclusive():
        node.up(archives)
        _operators()
    say("the cluster is up")
    print(f"  export KUBECONFIG={paths.KUBECONFIG}")
    print(f"  export PATH={paths.NODE_BIN}:$PATH        # kubectl, helm")


def _operators() -> None:
    """In the operator's environment: the CRDs and webhooks are YAML, which the standard library can't read."""
    python = paths.env_python("operator")
    if Path(sys.prefix).resolve() == paths.ENVS / "operator":
        from fraud_local import operators

        operators.up()
        return
    sources = f"{paths.LOCAL / 'src'}:{paths.CLONE / 'contracts' / 'src'}"
    done = subprocess.run(
        [str(python), "-m", "fraud_local.operators"],
        check=False,
        env={**os.environ, "PYTHONPATH": sources, "PYTHONSAFEPATH": "1"},
        preexec_fn=_end_with_parent,
    )
    if done.returncode:
        raise LocalError("the operators did not start; see above")


def _end_with_parent() -> None:
    """A killed ``up`` must not go on in its child, while a ``down`` takes the node away."""
    death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)


def status(native: bool) -> None:
    if not native:
        print(f"kind cluster {kind.NAME}: {'there' if kind.exists() else 'not there'}")
        return
    if not down.leftovers():
        print("no node is here")
        return
    for name in (*node.PROCESSES, "kuberay", "kserve", "strimzi-standin", "flink-standin"):
        pid = processes.recorded(name)
        print(f"  {name:<24} {'pid ' + str(pid) if pid else 'not running'}")
    if node.succeeds("get", "--raw", "/readyz"):
        print(run(node.BIN / "kubectl", f"--kubeconfig={paths.KUBECONFIG}", "get", "nodes"))
        print(run(node.BIN / "kubectl", f"--kubeconfig={paths.KUBECONFIG}", "get", "pods", "-A"))


def command() -> None:
    parser = argparse.ArgumentParser(prog="python -m fraud_local.cluster", description=__doc__)
    parser.add_argument("action", choices=("check", "up", "down", "status"))
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--kind", action="store_true", help="use kind even where no Docker engine was found")
    where.add_argument(
        "--native", action="store_true", help="make this machine a node even where Docker runs"
    )
    parser.add_argument("--images", choices=("development", "built"), default="development")
    chosen = parser.parse_args()
    native = chosen.native or not (chosen.kind or kind.docker_answers())
    if chosen.action == "check":
        # Before anything is built or downloaded, so that what is missing is named at the start.
        if native:
            prerequisites.require(build.node_built())
    elif chosen.action == "up":
        up(native, chosen.images == "built")
    elif chosen.action == "status":
        status(native)
    else:
        down.command()


if __name__ == "__main__":
    main(command)
