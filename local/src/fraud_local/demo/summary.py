"""A demo's numbers from its evidence alone: ``python -m fraud_local.demo.summary DIR`` computes and checks them again.

Pure but for reading the folder. What can't be taken from traffic (Pods, conditions, wall times) lies in the folder too, as
``cluster.json``, so nothing in the summary comes from elsewhere.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fraud_local.demo.checks import demo_checks, demo_passes

# What a caller is told, and what of a decision the summary looks at.
ANSWERED = ("id", "action", "score", "probability", "reasons", "release", "model_version", "model_digest", "arm", "decided", "degraded")  # fmt: skip
DECIDED = ("id", "action", "door", "decided", "appended", "degraded", "parity")
UNGUARDED = "idempotency"


def lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def quantile(values: list[float], q: float) -> float | None:
    """Nearest-rank quantile; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[max(0, math.ceil(q * len(ordered)) - 1)], 3)


def histogram_quantile(buckets: dict[float, float], q: float) -> float | None:
    """Upper bound of the bucket that holds the quantile; buckets are cumulative, as Prometheus writes them."""
    total = buckets.get(math.inf, 0.0)
    if not total:
        return None
    for bound in sorted(buckets):
        if buckets[bound] >= q * total:
            return bound
    return None


def read_histogram(text: str, name: str) -> dict[float, float]:
    """Buckets of a metric in Prometheus' text form, all label sets added up."""
    buckets: dict[float, float] = {}
    pattern = re.compile(rf'^{re.escape(name)}_bucket\{{.*le="([^"]+)".*\}} (\S+)$')
    for line in text.splitlines():
        if sample := pattern.match(line):
            bound, count = float(sample[1]), float(sample[2])
            buckets[bound] = buckets.get(bound, 0.0) + count
    return buckets


def duplicates(records: Iterable[dict[str, Any]]) -> set[str]:
    return {event_id for event_id, count in Counter(record["id"] for record in records).items() if count > 1}


def agrees(answer: dict[str, Any], row: dict[str, Any] | None) -> bool:
    """Whether a caller was told what the ledger holds. An id without a row is counted as lost, not here."""
    return row is None or all(answer.get(key) == row.get(key) for key in ANSWERED if key != "degraded")


def unguarded(answer: dict[str, Any], row: dict[str, Any]) -> bool:
    """One of the two was decided while the claims were away, and says so."""
    return UNGUARDED in (answer.get("degraded") or []) or UNGUARDED in (row.get("degraded") or [])


def labels(folder: Path) -> dict[str, Any]:
    """Frauds that were reported, and whether the ledger and the topic say so: the last label of an id stands."""
    reported = set(json.loads((folder / "reported.json").read_text()))
    ledger = {row["id"] for row in lines(folder / "ledger_labels.jsonl.gz") if row["fraud"]}
    topic: dict[str, bool] = {}
    for label in sorted(lines(folder / "labels.jsonl.gz"), key=lambda label: label["at"]):
        topic[label["id"]] = label["fraud"]
    published = {event_id for event_id, fraud in topic.items() if fraud}
    return {"reported": len(reported), "missing": sorted(reported - (ledger & published))}


def outages(
    folder: Path, decisions: list[dict[str, Any]], answers: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Each fault: how long its victim was away, what ``degraded`` said until the next one, what callers saw."""
    path = folder / "faults.json"
    victims = []
    for fault in json.loads(path.read_text()) if path.exists() else []:

        def within(moment: int | None, fault: dict[str, Any] = fault) -> bool:
            return moment is not None and fault["at"] <= moment < fault["until"]

        decided = [record for record in decisions if within(record["decided"])]
        asked = [a for a in answers if within(a.get("at")) and not a["malformed"]]
        waits = [r["decided"] - r["appended"] for r in decided if r["door"] == "stream" and r["appended"]]
        victims.append(
            {
                "fault": fault["fault"],
                "away_s": fault["seconds"],
                "decided": dict(Counter(record["door"] for record in decided)),
                "degraded": dict(Counter(flag for record in decided for flag in record["degraded"])),
                "repeated_calls": sum(1 for a in asked if a["attempts"] > 1),
                "slowest_answer_s": round(max((a["latency_ms"] for a in asked), default=0.0) / 1000, 1),
                "slowest_stream_s": round(max(waits, default=0) / 1000, 1),
            }
        )
    return victims


def summarise(folder: Path) -> dict[str, Any]:
    """The summary of one evidence folder."""
    cluster = json.loads((folder / "cluster.json").read_text())
    sent = list(lines(folder / "sent.jsonl.gz"))
    answers = list(lines(folder / "answers.jsonl.gz"))
    decisions: list[dict[str, Any]] = [
        {key: record.get(key) for key in DECIDED} for record in lines(folder / "decisions.jsonl.gz")
    ]
    # Whole records three times over would not fit small machines.
    ledger = [{key: record.get(key) for key in ANSWERED} for record in lines(folder / "ledger.jsonl.gz")]
    lake = [{"id": record["id"]} for record in lines(folder / "lake.jsonl.gz")]
    # Written at least once: the place that a letter came from tells it from its repeat after a restore.
    dead = list(
        {
            tuple(letter["source"].values()): letter for letter in lines(folder / "dead_letters.jsonl.gz")
        }.values()
    )
    good = {record["id"]: record["door"] for record in sent if not record["malformed"]}
    decided = {record["id"]: record for record in decisions}
    in_ledger, in_lake = {record["id"]: record for record in ledger}, {record["id"] for record in lake}
    dead_ids = {record["id"] for record in dead if record.get("id")}
    refused = {a["id"] for a in answers if a["id"] and 400 <= a["status"] < 500}
    told = [(a["id"], a["answer"]) for a in answers if a["id"] and a["status"] == 200]
    answered = {a["id"] for a in answers if a["id"] and a["status"] == 200 and not a.get("resent")}
    lost = sorted(
        event_id
        for event_id in good
        if event_id not in refused
        and event_id not in dead_ids
        and not (event_id in decided and event_id in in_ledger and event_id in in_lake)
    )
    differing = [(one, answer) for one, answer in told if not agrees(answer, in_ledger.get(one))]
    conflicting = sorted({one for one, answer in differing if not unguarded(answer, in_ledger[one])})
    marked = {one for one, _ in differing} - set(conflicting)
    doubled = sorted(duplicates(decisions) | duplicates(ledger) | duplicates(lake))
    latencies = [a["latency_ms"] for a in answers if a["status"] == 200]
    bad_sent = [record for record in sent if record["malformed"]]
    bad_refused = sum(1 for a in answers if a["malformed"] and 400 <= a["status"] < 500 and _reason(a))
    bad_dead = [record for record in dead if record["id"] is None or record["id"] not in good]
    parity = Counter(record.get("parity", "none") for record in decisions if record["door"] == "inline")
    freshness = read_histogram(
        (folder / "profile_sink_metrics.txt").read_text(), "fraud_profile_freshness_seconds"
    )
    audit = json.loads((folder / "audit.json").read_text())
    compared = parity["equal"] + parity["stale"] + parity["mismatch"]
    fresh_p50, fresh_p99 = histogram_quantile(freshness, 0.5), histogram_quantile(freshness, 0.99)
    return {
        "pods": cluster["pods"],
        "operators": cluster["operators"],
        "conditions": cluster["conditions"],
        "children": cluster["children"],
        "sent": len(good),
        "sent_inline": sum(1 for door in good.values() if door == "inline"),
        "sent_stream": sum(1 for door in good.values() if door == "stream"),
        "answered": len(answered),
        "decided_inline": sum(1 for record in decided.values() if record["door"] == "inline"),
        "decided_stream": sum(1 for record in decided.values() if record["door"] == "stream"),
        "ledger_rows": len(ledger),
        "lake_rows": len(lake),
        "lost": lost,
        "duplicated": doubled,
        "sound_but_refused": sorted(good.keys() & (refused | dead_ids)),
        "resent": sum(1 for a in answers if a.get("resent")),
        "resent_answered": sum(1 for a in answers if a.get("resent") and a["status"] == 200),
        "answers_unlike_ledger": conflicting,
        "answers_unlike_ledger_marked": len(marked),
        "dead_letters": dict(Counter(record["reason"] for record in dead)),
        "malformed_sent": len(bad_sent),
        "malformed_refused": bad_refused,
        "malformed_dead_lettered": len(bad_dead),
        "refusals": dict(Counter(_reason(a) for a in answers if a["status"] >= 400)),
        "errors": dict(
            Counter(
                str(a.get("error") or a["status"]) for a in answers if a["status"] == 0 or a["status"] >= 500
            )
        ),
        "alerts": sum(1 for record in decided.values() if record["action"] != "approve"),
        "actions": dict(Counter(record["action"] for record in decided.values())),
        "degraded": dict(Counter(flag for record in decided.values() for flag in record["degraded"])),
        "latency_ms": {
            "p50": quantile(latencies, 0.5),
            "p99": quantile(latencies, 0.99),
            "p99.9": quantile(latencies, 0.999),
        },
        "freshness_ms": {
            "p50": None if fresh_p50 is None else fresh_p50 * 1000,
            "p99": None if fresh_p99 is None else fresh_p99 * 1000,
        },
        "parity": {
            "compared": compared,
            "equal": parity["equal"],
            "stale": parity["stale"],
            "mismatches": parity["mismatch"],
            "staleness_rate": round(parity["stale"] / compared, 5) if compared else None,
        },
        "labels": labels(folder),
        "leaks": json.loads((folder / "leaks.json").read_text()),
        "outages": outages(folder, decisions, answers),
        "warm": audit,
        "model": cluster["model"],
        "wall_s": cluster["wall_s"],
        "memory_mib": cluster["memory_mib"],
    }


def _reason(answer: dict[str, Any]) -> str:
    error = (answer.get("answer") or {}).get("error") or {}
    return str(error.get("code", "")) if isinstance(error, dict) else str(error)


def main() -> None:
    """Exits 0 where every check holds."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo/evidence")
    summary = summarise(folder)
    summary["checks"] = demo_checks(summary, json.loads((folder / "cluster.json").read_text())["least"])
    json.dump(summary, sys.stdout, indent=1)
    sys.stdout.write("\n")
    sys.exit(0 if demo_passes(summary["checks"]) else 1)


if __name__ == "__main__":
    main()
