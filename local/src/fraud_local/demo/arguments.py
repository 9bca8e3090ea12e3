"""What `make demo` can be told."""

from __future__ import annotations

import argparse


def parse(description: str | None) -> argparse.Namespace:
    """The options of the command line; ends the process where one of them can't be."""
    parser = argparse.ArgumentParser(
        prog="make demo", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cr", default="manifests/examples/payments.yaml", help="FraudDetector to apply")
    parser.add_argument(
        "--history",
        default="",
        help="CSV (or .csv.gz) of labelled transactions; the simulator's where absent",
    )
    parser.add_argument(
        "--rate", type=float, default=200.0, help="transactions a second, both doors together"
    )
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of live traffic")
    parser.add_argument(
        "--timeout", type=float, default=900.0, help="seconds to wait for Ready and ModelLive"
    )
    events = parser.add_mutually_exclusive_group()
    events.add_argument(
        "--chaos",
        action="store_true",
        help="kill every process of the platform in turn while the traffic runs, which lasts as long",
    )
    events.add_argument(
        "--lives",
        action="store_true",
        help="lead the detector through deletions, topics made anew and stores put back while the traffic runs, which lasts as long",
    )
    parser.add_argument(
        "--images",
        choices=("development", "built"),
        default="development",
        help="what the native node's Pods run",
    )
    parser.add_argument(
        "--once", action="store_true", help="tear down at the end and exit with the checks' result"
    )
    return parser.parse_args()
