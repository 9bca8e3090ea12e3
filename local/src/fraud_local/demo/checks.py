"""What makes the demo pass or fail: each check of its summary, and that every one must hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def demo_checks(summary: dict[str, Any], least: int) -> dict[str, bool]:
    """What must hold for the demo to have shown the platform working: each check's sentence, and whether it holds.

    ``summary`` is what ``summary.summarise`` gives, ``least`` how many transactions had to be sent.
    """
    stated = summary["malformed_refused"] + summary["malformed_dead_lettered"]
    leaks = summary["leaks"]
    ready = {c["type"]: c["status"] for c in summary["conditions"]}
    return {
        f"at least {least} transactions sent": summary["sent"] >= least,
        "half of them on each door": abs(summary["sent_inline"] - summary["sent_stream"]) <= 1,
        "every inline transaction answered": summary["answered"] == summary["sent_inline"],
        "every id decided, in ledger and lake": not summary["lost"],
        "no sound transaction refused or dead-lettered": not summary["sound_but_refused"],
        "no id decided or written twice": not summary["duplicated"],
        "every transaction that was sent again answered": summary["resent"] == summary["resent_answered"],
        "every answer is the ledger's row, but for those marked as unguarded": not summary[
            "answers_unlike_ledger"
        ],
        "every reported label stands in the ledger and on its topic": not summary["labels"]["missing"],
        f"none of {leaks['planted']} card numbers anywhere but in raw transactions": leaks["planted"] > 0
        and not leaks["count"]
        and not leaks["unread"],
        "every malformed record refused or dead-lettered, with a reason": stated == summary["malformed_sent"],
        "no inline vector differs from the streamed one of the same events": summary["parity"]["mismatches"]
        == 0,
        "inline vectors were compared": summary["parity"]["compared"] > 0,
        "no vector differs from the offline replay of the events that it saw": summary["warm"]["differing"]
        == 0,
        "no approval without a mark stands on a profile that stood still": not summary["warm"]["frozen"],
        "the feature set of every vector is known": not summary["warm"]["other_feature_set"],
        # A killed stage may have applied events whose records were never written, so that an inline vector's set is lost.
        "every vector was made again, but for one in a thousand after a fault": summary["warm"][
            "unreproducible"
        ]
        <= (summary["warm"]["compared"] / 1000 if summary["outages"] else 0),
        "every decision stands on the first emission": set(summary["warm"]["first_emission"]) <= {"kept"},
        "the detector is Ready, and its model live": ready.get("Ready") == ready.get("ModelLive") == "True",
        "a trained model answered": summary["model"]["version"] is not None
        and not summary["degraded"].get("no_model"),
        "KubeRay and KServe are the real operators": all(
            any(o["name"] == name and o["kind"] == "real" for o in summary["operators"])
            for name in ("kuberay", "kserve")
        ),
    }


def demo_passes(checks: Mapping[str, bool]) -> bool:
    """Whether the demo passes: one check that doesn't hold fails it."""
    return all(checks.values())
