"""The one command for a cluster: ``python -m fraud_local.cluster up|down|status``.

kind where a Docker engine answers (or with ``--kind``), else this machine as a node (or with ``--native``). Starts with any
Python 3.11 and goes on in the operator's environment once that is there.
"""

from __future__ import annotations

import argparse
import os
import sys

from fraud_local import build, down, kind, node, paths, prerequisites, processes
from fraud_local.shell import LocalError, main, run, say


def up(native: bool) -> None:
    if not native:
        kind.up()
        return
    prerequisites.require(build.node_built())
    build.everything()
    with down.exclusive():
        node.up()
        sources = f"{paths.LOCAL / 'src'}:{paths.CLONE / 'contracts' / 'src'}"
        # In the operator's environment: the CRDs and webhooks are YAML, which the standard library can't read.
        code = os.spawnve(
            os.P_WAIT,
            str(paths.env_python("operator")),
            [str(paths.env_python("operator")), "-m", "fraud_local.operators"],
            {**os.environ, "PYTHONPATH": sources, "PYTHONSAFEPATH": "1"},
        )
        if code:
            raise LocalError("the operators did not start; see above")
    say("the cluster is up")
    print(f"  export KUBECONFIG={paths.KUBECONFIG}")
    print(f"  export PATH={paths.NODE_BIN}:$PATH        # kubectl, helm")


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
    parser.add_argument("action", choices=("up", "down", "status"))
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--kind", action="store_true", help="use kind even where no Docker engine was found")
    where.add_argument("--native", action="store_true", help="make this machine a node even where Docker runs")
    chosen = parser.parse_args()
    native = chosen.native or not (chosen.kind or kind.docker_answers())
    if chosen.action == "up":
        up(native)
    elif chosen.action == "status":
        status(native)
    else:
        down.command()


if __name__ == "__main__":
    sys.exit(main(command))
