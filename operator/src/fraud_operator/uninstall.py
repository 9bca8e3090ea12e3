"""Says whether the operator may go: ``python -m fraud_operator.uninstall COMMAND``, which helm runs before it uninstalls the chart.

A detector that is there when the operator goes can't be deleted any more: nobody takes its finalizer off, and it and its
namespace hang. To take the finalizers off here would be no way out: a streaming job whose detector is then deleted loses its
account before its savepoint, and hangs in its place.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from fraud_contracts import names
from fraud_contracts.child_kinds import DETECTOR
from fraud_contracts.errors import FraudError
from fraud_operator.kube import Kube, UnknownKindError, load_client
from fraud_operator.objects import Json


def refusal(detectors: Iterable[Json], back: str) -> str:
    """Why the operator can't go yet and what to do, for people; empty where no detector holds our finalizer.

    ``back`` is the command that keeps the release: helm takes one that it didn't uninstall for half uninstalled, and
    upgrades it no more.
    """
    holding = sorted(
        (body["metadata"]["namespace"], body["metadata"]["name"])
        for body in detectors
        if names.FINALIZER in (body["metadata"].get("finalizers") or [])
    )
    if not holding:
        return ""
    commands = "".join(
        f"  kubectl -n {namespace} delete {names.PLURAL} {name}\n" for namespace, name in holding
    )
    return (
        f"{len(holding)} FraudDetector(s) are there, and without the operator none of them could be deleted. "
        f"Delete them first; what their deletionPolicy retains stays:\n{commands}"
        f"Then uninstall again. Or keep the platform:\n  {back}\n"
        "To leave the detectors running without an operator: helm uninstall --no-hooks\n"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fraud_operator.uninstall", description=__doc__)
    parser.add_argument("command", help="that keeps the release")
    parser.add_argument(
        "--namespace", action="append", default=[], help="look in this namespace only; may be repeated"
    )
    options = parser.parse_args(arguments)
    try:
        kube = Kube(load_client())
        detectors = [body for scope in options.namespace or (None,) for body in kube.list(DETECTOR, scope)]
        message = refusal(detectors, options.command)
    except UnknownKindError:  # the CRD is gone, and with it every detector
        return 0
    except FraudError as error:
        message = f"the FraudDetectors can't be listed: {error}\n"
    sys.stdout.write(message)
    return 1 if message else 0


if __name__ == "__main__":
    sys.exit(main())
