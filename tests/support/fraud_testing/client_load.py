"""The client of a detector's API that goes on while credentials change: the whole program of a Pod, so it imports nothing of ours.

Payments are sent at their times, whatever the answers to earlier ones do; some are reported, read again, and asked of the console.
It repeats what docs/integrate.md says is to be repeated, and writes down each attempt that got no 2xx, repeated or not.
Its keys are a file that is read again when it changes: that is how it is moved to another key.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import signal
import time
from collections import Counter, deque
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp

FOLDER: Final = Path("/tmp/client")  # a Pod's own
KEYS: Final = "keys.json"
STATUS: Final = "status.json"
FAILURES: Final = "failures.jsonl"
ANSWERS: Final = "answers.jsonl.gz"
STOP: Final = "stop"
# What is sent again: the same request, after Retry-After or a growing pause, and where no answer came in time.
AGAIN: Final = (0, 429, 500, 503)
TRIES: Final = 20
PAUSES: Final = (0.5, 5.0)
ANSWER_SECONDS: Final = 10.0
# One payment in so many is reported, and read again, with a look at the console. A report is of a payment that is some seconds old.
REPORTED: Final = 10
READ: Final = 50
OLD: Final = 100
CUSTOMERS: Final = 500
MERCHANTS: Final = 60


class Role(NamedTuple):
    """One use of the API: which of the keys it needs, and the way there."""

    key: str
    method: str
    path: str


DECIDE: Final = Role("Decide", "POST", "/v1/decisions")
REPORT: Final = Role("Label", "POST", "/v1/labels")
READ_AGAIN: Final = Role("Read", "GET", "/v1/decisions/{id}")
LOOK: Final = Role("Read", "GET", "/api/alerts?limit=1")


def transaction(spec: Mapping[str, Any], event_id: str, number: int, now_ms: int) -> dict[str, Any]:
    """A good one, as the detector's spec writes them: the first entity is one of CUSTOMERS in turn, the others of MERCHANTS."""
    event = spec["event"]
    values = {"integer": number % 100, "number": 1.5, "boolean": True}
    body: dict[str, Any] = {
        field["name"]: values.get(field.get("type", "string"), "rotation")
        for field in event.get("fields", [])
    }
    first, *others = [entity["field"] for entity in spec["entities"]]
    body |= dict.fromkeys(others, f"m-{number % MERCHANTS}")
    amount = event["amount"]
    if "currencyField" in amount:
        body[amount["currencyField"]] = amount["currency"]
    times = {"ms": now_ms, "s": now_ms // 1000}
    unit = event["time"].get("unit", "ms")
    return body | {
        first: f"40000{number % CUSTOMERS:011d}",
        amount["field"]: 1 + number % 400,
        event["time"]["field"]: times.get(unit) or datetime.fromtimestamp(now_ms // 1000, UTC).isoformat(),
        event["id"]["field"]: event_id,
    }


def sources(spec: Mapping[str, Any]) -> list[str]:
    """Who may report labels, by the spec."""
    return [source["name"] for source in spec.get("labels", {}).get("sources", [])]


def pause_of(retry_after: str | None, attempt: int) -> float:
    """Seconds until the same request is sent again."""
    if retry_after is not None and retry_after.isdigit():
        return float(retry_after)
    return float(min(PAUSES[1], PAUSES[0] * 2 ** (attempt - 1)))


class Load:
    """``run`` is the prefix of its ids. What it finds out is in FOLDER, for whoever looks into the Pod."""

    def __init__(self, url: str, console: str, rate: int, spec: Mapping[str, Any], run: str) -> None:
        self._url, self._console, self._rate, self._spec, self._run = url, console, rate, spec, run
        self._keys: dict[str, str] = {}
        self._stamp: object = None
        self._digest = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._decided: deque[str] = deque(maxlen=OLD)
        self._counts: Counter[str] = Counter()
        self._degraded: Counter[str] = Counter()
        self._failures = (FOLDER / FAILURES).open("a")
        self._answers = gzip.open(FOLDER / ANSWERS, "at", compresslevel=3)  # noqa: SIM115 - closed by go()

    async def go(self) -> None:
        """Until the file STOP is there; then until every answer has come."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            start, number = time.monotonic(), 0
            while not (FOLDER / STOP).exists():
                await asyncio.sleep(max(0.0, start + number / self._rate - time.monotonic()))
                self._read_keys()
                self._begin(session, number)
                number += 1
                if number % self._rate == 0:
                    self._tell()
            while self._tasks:
                await asyncio.wait(self._tasks)
        self._answers.close()
        self._tell(done=True)

    def _begin(self, session: aiohttp.ClientSession, number: int) -> None:
        self._start(self._decide(session, number))
        names = sources(self._spec)
        if number % REPORTED == 0 and names and len(self._decided) == OLD:
            self._start(self._report(session, self._decided.popleft(), names[0]))
        if number % READ == 0 and self._decided:
            self._start(self._read(session, self._decided[-1]))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide(self, session: aiohttp.ClientSession, number: int) -> None:
        event_id = f"{self._run}-{number}"
        body = json.dumps(transaction(self._spec, event_id, number, int(time.time() * 1000))).encode()
        status, text = await self._ask(session, DECIDE, self._url + DECIDE.path, body)
        if status == 200:
            answer = json.loads(text)
            self._degraded.update(answer["degraded"])
            self._answers.write(json.dumps(answer) + "\n")
            # One that was decided without its claim can't be read again.
            if "idempotency" not in answer["degraded"]:
                self._decided.append(event_id)

    async def _report(self, session: aiohttp.ClientSession, event_id: str, source: str) -> None:
        body = json.dumps({"id": event_id, "label": "legitimate", "source": source}).encode()
        await self._ask(session, REPORT, self._url + REPORT.path, body)

    async def _read(self, session: aiohttp.ClientSession, event_id: str) -> None:
        await self._ask(session, READ_AGAIN, self._url + READ_AGAIN.path.format(id=event_id))
        await self._ask(session, LOOK, self._console + LOOK.path)

    async def _ask(
        self, session: aiohttp.ClientSession, role: Role, url: str, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Status and text of the last answer; the status is 0 where none came."""
        for attempt in range(1, TRIES + 1):
            status, text, error, after = 0, b"", "", None
            headers = {"X-API-Key": self._keys[role.key]}
            if role is LOOK:
                # The console closes a connection that was silent for five seconds, maybe while the next request is on its way.
                headers["Connection"] = "close"
            try:
                async with session.request(role.method, url, data=body, headers=headers) as response:
                    status, text = response.status, await response.read()
                    after = response.headers.get("Retry-After")
            except (TimeoutError, aiohttp.ClientError) as failure:
                status, error = 0, f"{type(failure).__name__}: {failure}"
            if 200 <= status < 300:
                break
            final = status not in AGAIN or attempt == TRIES
            self._note(role, status, error or text.decode(errors="replace")[:300], attempt, final)
            if final:
                break
            await asyncio.sleep(pause_of(after, attempt))
        self._counts[role.path] += 1
        return status, text

    def _note(self, role: Role, status: int, error: str, attempt: int, final: bool) -> None:
        self._counts["failures"] += 1
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "what": f"{role.method} {role.path}",
            "status": status,
            "error": error,
            "attempt": attempt,
            "final": final,
        }
        self._failures.write(json.dumps(line) + "\n")
        self._failures.flush()

    def _read_keys(self) -> None:
        file = FOLDER / KEYS
        state = file.stat()
        if (state.st_ino, state.st_mtime_ns) == self._stamp:
            return
        text = file.read_bytes()
        self._stamp = (state.st_ino, state.st_mtime_ns)
        self._keys, self._digest = json.loads(text), hashlib.sha256(text).hexdigest()
        self._tell()

    def _tell(self, done: bool = False) -> None:
        """Keys by a digest alone."""
        status = {
            "counts": self._counts,
            "degraded": self._degraded,
            "keys": self._digest,
            "done": done,
        }
        part = FOLDER / f"{STATUS}.part"
        part.write_text(json.dumps(status))
        part.replace(FOLDER / STATUS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--console", required=True)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--spec", type=Path, required=True, help="the detector's spec as JSON")
    parser.add_argument("--run", required=True, help="what the ids of its payments begin with")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    while not (FOLDER / KEYS).exists():
        time.sleep(0.2)
    spec = json.loads(options.spec.read_text())
    asyncio.run(Load(options.url, options.console, options.rate, spec, options.run).go())
    # Whoever started it fetches the answers and then deletes the Pod.
    signal.pause()


if __name__ == "__main__":
    main()
