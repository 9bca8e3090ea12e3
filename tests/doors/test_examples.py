"""The programs of docs/examples, run as their pages say, against a whole platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fraud_testing import kafka, pages
from fraud_testing.kafka import wait_for
from fraud_testing.platform import Platform
from fraud_testing.serving import API_KEY

pytestmark = pytest.mark.integration
EXAMPLES = Path(__file__).parents[2] / "docs/examples"
JAVA = ["java", "-cp", f"{kafka.LIBS}/*", str(EXAMPLES / "Producer.java")]


def transactions(prefix: str, count: int = 20) -> str:
    now = int(time.time() * 1000)
    lines = (
        {"id": f"{prefix}-{i}", "time": now, "amount": 10.0, "card": f"card-{i % 5}", "merchant": "shop-1"}
        for i in range(count)
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


def run(command: list[str], text: str = "", **environ: str) -> str:
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def decided(platform: Platform, prefix: str) -> dict[str, dict[str, Any]]:
    return {d["id"]: d for d in platform.read("decisions") if d["id"].startswith(prefix)}


@pytest.mark.parametrize(
    "command", [[sys.executable, str(EXAMPLES / "producer.py")], JAVA], ids=["python", "java"]
)
def test_what_a_producer_sends_is_decided(platform: Platform, command: list[str], request: Any) -> None:
    """Each transaction that a producer of the page sends ends as one decision of the stream's door."""
    prefix = f"example-{request.node.callspec.id}"
    run([*command, platform.broker.bootstrap, platform.topic("transactions"), "card"], transactions(prefix))
    wait_for(lambda: len(decided(platform, prefix)) == 20, 90, "a decision for each transaction")
    assert {d["door"] for d in decided(platform, prefix).values()} == {"stream"}


def test_both_producers_send_a_key_to_the_same_partition(platform: Platform) -> None:
    """A customer's transactions are on one partition, whichever of the two languages sent them."""
    where: dict[bytes, set[int]] = {}
    for message in platform.broker.read(platform.topic("transactions")):
        if message.key() is not None:
            where.setdefault(message.key(), set()).add(message.partition())
    mine = {key: partitions for key, partitions in where.items() if key.startswith(b"card-")}
    assert len(mine) == 5
    assert {len(partitions) for partitions in mine.values()} == {1}
    assert len(set.union(*mine.values())) > 1


def test_the_http_client_gets_a_decision_and_the_same_one_again(platform: Platform) -> None:
    """A request that is sent twice gets the same bytes twice."""
    text, command = transactions("example-http", 3), [sys.executable, str(EXAMPLES / "decide.py")]
    first = run([*command, platform.service.url], text, API_KEY=API_KEY)
    assert run([*command, platform.service.url], text, API_KEY=API_KEY) == first
    assert [json.loads(line)["id"] for line in first.splitlines()] == [f"example-http-{i}" for i in range(3)]


def test_the_consumer_reads_the_decisions(platform: Platform) -> None:
    """A committed reader of the page sees every decision, each once."""
    platform.settled()
    command = [sys.executable, str(EXAMPLES / "consumer.py")]
    lines = run([*command, platform.broker.bootstrap, platform.topic("decisions"), "docs"]).splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(
        d["id"] for d in platform.read("decisions")
    )


def test_the_pages_commands_run(platform: Platform, tmp_path: Path) -> None:
    """Each command of the pages that starts an example runs as it stands."""
    (tmp_path / "docs").symlink_to(EXAMPLES.parent)
    (tmp_path / "transactions.jsonl").write_text(transactions("example-page", 3))
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "URL": platform.service.url,
        "API_KEY": API_KEY,
        "BOOTSTRAP": platform.broker.bootstrap,
        "KAFKA_LIBS": str(kafka.LIBS),
        "TRANSACTIONS": platform.topic("transactions"),
        "DECISIONS": platform.topic("decisions"),
    }
    assert "example-page-0" in pages.run(pages.blocks("doors"), environ, 120, tmp_path)
