"""What training holds in memory a row, of history files and of the lake, and how long import and replay take.

    python -m fraud_bench.training

Each figure is from processes of their own of two sizes: what the larger one's peak has more, a row that it has more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow
from deltalake import write_deltalake

from fraud_bench import measure
from fraud_contracts import lake as places
from fraud_contracts.config import DetectorConfig
from fraud_pipelines import simulator
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_pipelines.replay import replay
from fraud_pipelines.simulated_payments import Row
from fraud_ray import dataset, history, lake
from fraud_sinks.lake_tables import DECISIONS, LABELS
from fraud_sinks.records import Record
from fraud_testing import detectors

ROWS = int(os.environ.get("BENCH_ROWS", 200_000))
SIZES = (ROWS // 2, ROWS)
DAYS = 90
DAY = 86_400_000
START = 1_780_000_000_000
AS_OF = START + (DAYS + 60) * DAY
TOKENS = Tokeniser(bytes(32))


def config(folder: Path) -> DetectorConfig:
    return detectors.document(detectors.SIMULATED, storage_uri=f"file://{folder}")


def write_lake(by: DetectorConfig, rows: list[Row]) -> None:
    """The rows as decisions with their vectors, as the sink's table has them, and a label of each fraud."""
    features, schema = compile_detector(by.spec), EventSchema(by.spec.event, by.spec.entities)

    def record(kind: str, offset: int, value: dict[str, Any]) -> Record:
        return Record(by.identity.topic(kind), 0, offset, AS_OF, None, orjson.dumps(value))

    def decisions() -> Iterator[dict[str, Any]]:
        events = (schema.canonical(dict(row), TOKENS, AS_OF) for row in rows)
        for n, (event, vector) in enumerate(replay(features, events)):
            yield DECISIONS.row(
                record(
                    "decisions",
                    n,
                    {
                        "id": event["id"],
                        "hash": schema.hash(event),  # type: ignore[arg-type]  # an event it is
                        "door": "stream",
                        "event": event,
                        "set": features.hash,
                        "vector": vector,
                        "action": "approve",
                        "score": 17,
                        "probability": 0.01,
                        "reasons": [{"code": name, "text": name} for name in features.names[:4]],
                        "release": "r",
                        "degraded": [],
                        "decided": event["time"] + 5,
                        "source": {"topic": by.identity.topic("accepted"), "partition": 0, "offset": n},
                        "appended": event["time"] + 1,
                    },
                )
            )

    def labels() -> Iterator[dict[str, Any]]:
        for n, row in enumerate(row for row in rows if row["is_fraud"]):
            event = schema.canonical(dict(row), TOKENS, AS_OF)
            known = event["time"] + 3 * DAY
            about = {"id": event["id"], "time": event["time"], "entities": event["entities"]}
            told = {"fraud": True, "source": "chargeback", "claimed": known, "known": known}
            yield LABELS.row(record("labels", n, {**about, **told}))

    for kind, table_rows in ((DECISIONS, decisions()), (LABELS, labels())):
        table = pyarrow.Table.from_pylist(list(table_rows), kind.schema)
        topic, group = by.identity.topic(kind.name), by.identity.group("lake-sink")
        write_deltalake(
            places.table(by.storage_uri, kind.name),
            table,
            partition_by=["date"],
            commit_properties=_committed(f"{group}/{topic}/0", len(table)),
        )


def _committed(application: str, offset: int) -> Any:
    from deltalake import CommitProperties, Transaction

    return CommitProperties(app_transactions=[Transaction(application, offset)])


def _memory(name: str) -> int:
    """Bytes of this process by /proc: VmRSS now, VmHWM at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def run(folder: Path) -> None:
    """Import and replay of what lies in ``folder``, in this process; the figures go to standard output."""
    by = config(folder)
    features = compile_detector(by.spec)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
    before, start = _memory("VmRSS"), time.process_time()
    past = history.load(by.spec, by.storage_uri, TOKENS, AS_OF, required=False)
    past.add_lake(lake.read(by, AS_OF))
    imported, peak = time.process_time(), _memory("VmHWM")
    data, seeds = dataset.build(by.spec, features, past, AS_OF, 1, lambda profiles: sum(1 for _ in profiles))
    figures = {
        "rows": len(data.y),
        "import_bytes": peak - before,
        "bytes": _memory("VmHWM") - before,
        "matrix": data.x.nbytes,
        "import_s": round(imported - start, 2),
        "replay_s": round(time.process_time() - imported, 2),
        "seeds": seeds,
        "vectors": data.vectors,
        "digest": data.digest,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def main() -> None:
    if len(sys.argv) > 1:
        run(Path(sys.argv[1]))
        return
    measure.begin()
    for kind in ("files", "lake"):
        figures = []
        for size in SIZES:
            measure.note(f"training's memory, {size} rows of {kind}")
            with tempfile.TemporaryDirectory(prefix="fraud-bench-") as folder:
                by = config(Path(folder))
                rows = simulator.simulate(size, 7, DAYS, START)
                if kind == "files":
                    simulator.write_csv(rows, Path(folder) / "history" / "h.csv.gz")
                else:
                    write_lake(by, rows)
                del rows
                done = subprocess.run(
                    [sys.executable, "-m", "fraud_bench.training", folder], stdout=subprocess.PIPE, check=True
                )
                figures.append(json.loads(done.stdout.splitlines()[-1]))
        small, large = figures
        more = large["rows"] - small["rows"]
        matrix = (large["matrix"] - small["matrix"]) / more
        measure.report(
            f"training_{kind}",
            rows=large["rows"],
            bytes_a_row=round((large["bytes"] - small["bytes"]) / more),
            beside_matrix=round((large["bytes"] - small["bytes"]) / more - matrix),
            import_bytes_a_row=round((large["import_bytes"] - small["import_bytes"]) / more),
            import_per_s=round(large["rows"] / large["import_s"]),
            replay_per_s=round(large["rows"] / large["replay_s"]),
            digest=large["digest"],
            vectors=large["vectors"],
            seeds=large["seeds"],
        )


if __name__ == "__main__":
    main()
