"""The demo's Pod: sends traffic through both doors, waits until all of it has ended, and dumps the evidence.

Runs inside the cluster, with the detector's own configuration and Secrets. It prints one JSON object a line, which the
terminal shows as progress. Loads only the detector it is given, for as many records as the file holds.

    python -m fraud_local.demo.drive --folder s3://fraud-platform/demo --rate 200 --url http://payments-decision:8080
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import aiohttp
from confluent_kafka import KafkaException, Producer
from pyarrow import fs

from fraud_contracts.config import DetectorConfig, load_config
from fraud_local.demo import data, evidence, leaks_objects, leaks_stores, places
from fraud_process.kafka import KafkaAccess

# Seconds between tries of one transaction, longer each time, and after which the caller gives up.
RETRY = (0.5, 5.0)
PATIENCE = 300.0
# Seconds from a mistaken label to the right one.
LABEL_CORRECTED = 2.0
FRAUD = ("1", "true", "True")


def say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Traffic:
    """Open-loop traffic: each record has its time, whatever the answers to the earlier ones do."""

    def __init__(
        self,
        config: DetectorConfig,
        url: str,
        rate: float,
        out: Path,
        stop: Path | None,
        hold: Path | None,
        resend: int,
    ) -> None:
        self.url, self.rate, self.resend = url.rstrip("/"), rate, resend
        self.stop, self.hold = stop, hold
        self.topic = config.identity.topic("transactions")
        self.producer = Producer(
            {
                **KafkaAccess.of(config.kafka).producer_settings(linger_ms=2),
                # A killed broker would fill the progress; what wasn't delivered is counted.
                "log_level": 2,
            }
        )
        self.sent = gzip.open(out / "sent.jsonl.gz", "wt", compresslevel=3)  # noqa: SIM115 - closed in run()
        self.answers = gzip.open(out / "answers.jsonl.gz", "wt", compresslevel=3)  # noqa: SIM115
        self.counts = {
            "inline": 0,
            "stream": 0,
            "malformed": 0,
            "answered": 0,
            "review": 0,
            "decline": 0,
            "undelivered": 0,
            "resent": 0,
        }
        self.example: dict[str, Any] | None = None
        self.undelivered: list[tuple[str, bytes, bytes]] = []
        # When what wasn't delivered may be sent again.
        self._again = 0.0
        # What was really sent: ids that must reach a final state, malformed records that must become dead letters.
        self.good: set[str] = set()
        self.bad_streamed = self.streamed = 0
        # Ids of frauds, each reported once it is known, some before the transaction itself has come.
        self.reported: set[str] = set()
        self.sources = [source.name for source in config.spec.labels.sources]
        self.reports = config.identity.topic("label-reports")

    async def run(self, lines: list[dict[str, Any]]) -> None:
        # No limit: calls of different customers don't wait for one another, however long one takes.
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=15)
        start, spoken, number = time.monotonic(), 0.0, 0
        tasks: set[asyncio.Task[None]] = set()
        held: list[dict[str, Any]] = []
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            for number, line in enumerate(lines):
                if self.stop is not None and number % 100 == 0 and self.stop.exists():
                    break
                await self._until(start + number / self.rate)
                hold = self.hold if self.hold is not None and self.hold.exists() else None
                if hold is not None:
                    self._tell_sent(hold)
                for one in data.due(line, held, on_hold=hold is not None):
                    self._send(session, tasks, one)
                if (elapsed := time.monotonic() - start) - spoken >= 5:
                    spoken = elapsed
                    say(
                        event="traffic",
                        seconds=round(elapsed, 1),
                        rate=round((number + 1) / elapsed, 1),
                        **self.counts,
                    )
            for one in held:
                self._send(session, tasks, one)
            while tasks:
                await asyncio.wait(tasks)
            await self._send_again(session, [line for line in lines if line["id"] in self.good])
        until = time.monotonic() + PATIENCE
        while (self.producer.flush(RETRY[1]) or self.undelivered) and time.monotonic() < until:
            self._produce_again()
        self.sent.close()
        self.answers.close()
        seconds = time.monotonic() - start
        say(
            event="traffic-done",
            seconds=round(seconds, 1),
            rate=round((number + 1) / seconds, 1),
            **self.counts,
        )
        if self.example:
            say(event="example", answer=self.example)

    def _send(
        self, session: aiohttp.ClientSession, tasks: set[asyncio.Task[None]], line: dict[str, Any]
    ) -> None:
        raw = line["raw"].encode("latin-1")
        self._log_sent(line)
        if line["label"] in FRAUD:
            self._start(tasks, self._report(session, line["id"], len(self.reported)))
        if line["door"] == "inline":
            self._start(tasks, self._ask(session, line, raw))
        else:
            self._produce(self.topic, line["key"].encode(), raw)

    async def _until(self, due: float) -> None:
        while (wait := due - time.monotonic()) > 0:
            self.producer.poll(0)
            if self.undelivered and time.monotonic() > self._again:
                self._again = time.monotonic() + RETRY[0]
                self._produce_again()
            await asyncio.sleep(min(wait, 0.05))

    async def _send_again(self, session: aiohttp.ClientSession, lines: list[dict[str, Any]]) -> None:
        """The first ``resend`` sound transactions once more, each by both doors, as a payment system that has lost its answers does."""
        start, tasks = time.monotonic(), set[asyncio.Task[None]]()
        for number, line in enumerate(lines[: self.resend]):
            await self._until(start + number / self.rate)
            raw = line["raw"].encode("latin-1")
            self._produce(self.topic, line["key"].encode(), raw)
            self._start(tasks, self._ask(session, line, raw, resent=True))
            self.counts["resent"] += 1
        while tasks:
            await asyncio.wait(tasks)

    def _tell_sent(self, hold: Path) -> None:
        """Writes into the file how many sound transactions its topic has by then, once."""
        if not hold.stat().st_size and not self.producer.flush(RETRY[1]) and not self.undelivered:
            hold.write_text(str(self.streamed))

    def _produce(self, topic: str, key: bytes, raw: bytes) -> None:
        """What isn't delivered is sent again, as a payment system does: its topic may be away for a moment."""

        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                self._keep(topic, key, raw)

        try:
            self.producer.produce(topic, raw, key, on_delivery=delivered)
        except (BufferError, KafkaException):
            self._keep(topic, key, raw)

    def _keep(self, topic: str, key: bytes, raw: bytes) -> None:
        self.counts["undelivered"] += 1
        self.undelivered.append((topic, key, raw))

    def _produce_again(self) -> None:
        kept, self.undelivered = self.undelivered, []
        for one in kept:
            self._produce(*one)

    def _log_sent(self, line: dict[str, Any]) -> None:
        self.counts[line["door"]] += 1
        if line["malformed"]:
            self.counts["malformed"] += 1
            self.bad_streamed += line["door"] == "stream"
        else:
            self.good.add(line["id"])
            self.streamed += line["door"] == "stream"
        record = {
            "id": line["id"],
            "door": line["door"],
            "malformed": line["malformed"],
            "sent": int(time.time() * 1000),
        }
        self.sent.write(json.dumps(record | {"label": line["label"]}) + "\n")

    @staticmethod
    def _start(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _post(self, session: aiohttp.ClientSession, path: str, key: str, raw: bytes) -> dict[str, Any]:
        """The final answer; until there is one the same is sent again, as a payment system does."""
        headers = {"X-API-Key": key}
        begun = time.perf_counter()
        record: dict[str, Any] = {"at": int(time.time() * 1000), "attempts": 0}
        while True:
            record["attempts"] += 1
            try:
                async with session.post(self.url + path, data=raw, headers=headers) as response:
                    body = await response.read()
                    record |= {"status": response.status, "answer": json.loads(body), "error": None}
            except (TimeoutError, aiohttp.ClientError, ValueError) as error:
                record |= {"status": 0, "error": f"{type(error).__name__}: {error}"}
            final = record["status"] != 0 and record["status"] < 500
            if final or time.perf_counter() - begun > PATIENCE:
                break
            await asyncio.sleep(min(RETRY[1], RETRY[0] * record["attempts"]))
        return record | {"latency_ms": round((time.perf_counter() - begun) * 1000, 3)}

    async def _report(self, session: aiohttp.ClientSession, event_id: str, number: int) -> None:
        """Says that a transaction was fraud: at once or later, through the API or the topic, every third after a mistake."""
        self.reported.add(event_id)
        await asyncio.sleep(number % 4 * 3.0)
        labels = ["legitimate", "fraud"] if number % 3 == 0 else ["fraud"]
        for turn, label in enumerate(labels):
            raw = json.dumps(
                {"id": event_id, "label": label, "source": self.sources[turn % len(self.sources)]}
            ).encode()
            if number % 2:
                self._produce(self.reports, event_id.encode(), raw)
            else:
                await self._post(session, "/v1/labels", os.environ[places.LABELS_KEY], raw)
            await asyncio.sleep(LABEL_CORRECTED)

    async def _ask(
        self, session: aiohttp.ClientSession, line: dict[str, Any], raw: bytes, *, resent: bool = False
    ) -> None:
        record = {"id": line["id"], "malformed": line["malformed"], "resent": resent}
        record |= await self._post(session, "/v1/decisions", os.environ[places.PAYMENTS_KEY], raw)
        self.answers.write(json.dumps(record) + "\n")
        if resent:
            return
        self.counts["answered"] += 1
        answer = record.get("answer") or {}
        if record["status"] == 200 and answer.get("action") in ("review", "decline"):
            self.counts[answer["action"]] += 1
            if self.example is None or (answer.get("score") or 0) > (self.example.get("score") or 0):
                self.example = answer


async def warm_up(url: str) -> None:
    """Waits until the service answers, so that the first measured call meets no cold connection."""
    deadline = time.monotonic() + 120
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(
                    url.rstrip("/") + "/readyz", timeout=aiohttp.ClientTimeout(total=5)
                ) as response:
                    if response.status == 200:
                        return
            except (TimeoutError, aiohttp.ClientError) as error:
                say(event="waiting", what=f"decision service: {type(error).__name__}")
            if time.monotonic() > deadline:
                raise SystemExit("the decision service wasn't ready within 120 s")
            await asyncio.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder",
        required=True,
        help=f"in the object store: it holds {places.INPUT} and gets {places.EVIDENCE}/",
    )
    parser.add_argument("--url", required=True)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--stop", type=Path, help="send until this file is there, though records are left")
    parser.add_argument("--hold", type=Path, help="send nothing by the topic while this file is there")
    parser.add_argument(
        "--resend", type=int, default=0, help="so many of the first transactions once more, by both doors"
    )
    parser.add_argument(
        "--settle", type=float, default=180.0, help="seconds to wait for the last record's final state"
    )
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    live, out = work / places.INPUT, work / places.EVIDENCE
    out.mkdir()
    system, root = leaks_objects.file_system(options.folder, os.environ)
    here = fs.LocalFileSystem()
    fs.copy_files(f"{root}/{live.name}", str(live), system, here)
    config = load_config()
    with gzip.open(live, "rt", encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    asyncio.run(warm_up(options.url))
    say(event="start", records=len(lines), rate=options.rate)
    traffic = Traffic(config, options.url, options.rate, out, options.stop, options.hold, options.resend)
    asyncio.run(traffic.run(lines))
    evidence.collect(config, out, traffic.good, traffic.bad_streamed, traffic.reported, options.settle, say)
    say(event="searching", what="card numbers in every store")
    leaks = leaks_stores.scan(config, live)
    (out / "leaks.json").write_text(json.dumps(leaks, indent=1))
    fs.copy_files(str(out), f"{root}/{out.name}", here, system)
    say(event="done")


if __name__ == "__main__":
    main()
