"""One open loop as a process of its own, so that what measures a server doesn't wait for its own tests. Writes what came back as JSON.

Loads only the address that it is given, at the rate and for the seconds that it is given:

    python -m fraud_bench.open_loop --url http://127.0.0.1:8080 --rate 500 --seconds 10 --prefix a --out answers.json
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from typing import Any

import orjson
import uvloop

from fraud_bench import load, stack

# As many as a payment system's Pods may keep; who finds none free waits, and its time runs.
CONNECTIONS = 512


def run(url: str, rate: float, seconds: float, prefix: str) -> dict[str, Any]:
    """``answers``: per request its number, seconds since it was due, the status, and what the answer lacks or the code of the refusal."""
    answers: list[tuple[int, float, int, list[str]]] = []

    def told(number: int, late: float, status: str, body: bytes) -> None:
        document = orjson.loads(body)
        notes = document["degraded"] if status == "200" else [document["error"]["code"]]
        answers.append((number, late, int(status), notes))

    async def whole() -> load.Load:
        headers = stack.HEADERS
        client = load.Load(
            url, "/v1/decisions", headers, lambda i: stack.body(f"{prefix}-{i}"), CONNECTIONS, told
        )
        await client.run(rate, seconds, 0.0)
        return client

    gc.disable()
    client = uvloop.run(whole())
    return {"answers": answers, "unanswered": client.answers.lost}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.write_bytes(orjson.dumps(run(options.url, options.rate, options.seconds, options.prefix)))


if __name__ == "__main__":
    main()
