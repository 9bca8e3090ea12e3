"""Redis loses claims under both doors, as processes over real Kafka, Redis and PostgreSQL; the test does the stream's part."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from confluent_kafka import TopicPartition

from fraud_contracts.config import POSTGRES_DSN, STORES_ENV
from fraud_serving import wholeness
from fraud_serving.wholeness import Mark
from fraud_testing import kafka, postgres, redis, serving
from fraud_testing.detectors import replace_whole
from fraud_testing.feature_stream import Stream
from fraud_testing.kafka import wait_for
from fraud_testing.ledger import Ledger, ledger_sink
from fraud_testing.required import require
from fraud_testing.stack import Stack, running

pytestmark = pytest.mark.integration
EACH = 100
ANSWERED = ("action", "score", "release", "decided", "degraded", "latency_ms", "reasons")


class Doors(Stream):
    """Both doors, the ledger and its sink; ``flow`` is the stream."""

    def __init__(
        self, stack: Stack, database: postgres.Server, service: serving.Process, address: Path
    ) -> None:
        super().__init__(stack)
        self.database, self.service, self.address = database, service, address
        self.flowed: Counter[int] = Counter()
        self.paid = 0

    @property
    def mark(self) -> Mark | None:
        value = self.stack.redis.text("GET", self.of.redis_whole).split("\r\n")
        return wholeness.read(value[1].encode()) if len(value) > 2 else None

    def settled(self) -> Mark:
        """The mark once the ledger holds all of before the loss; meanwhile payments come, and checkpoints with them."""

        def known() -> Mark | None:
            self.paid += 1
            self.decide([self.stack.transaction(f"meanwhile-{self.paid}")])
            self.flow()
            return self.mark if self.mark is not None and self.mark.ledger else None

        return wait_for(known, 60, "the ledger to hold what was decided before the loss", pause=1.0)

    def decide(self, bodies: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Answers by id."""

        async def run() -> list[dict[str, Any]]:
            async with aiohttp.ClientSession(headers={"X-API-Key": serving.API_KEY}) as session:

                async def one(body: dict[str, Any]) -> dict[str, Any]:
                    async with session.post(self.service.url + "/v1/decisions", json=body) as answer:
                        assert answer.status == 200, await answer.text()
                        return dict(orjson.loads(await answer.read()))

                return [await one(body) for body in bodies]

        return {answer["id"]: answer for answer in asyncio.run(run())}

    def flow(self) -> None:
        """Makes feature records of what was accepted, then commits, as the job does."""
        topic, records, ends = self.of.topic("accepted"), [], []
        for message in self.stack.broker.read(topic):
            partition, offset = message.partition(), message.offset()
            if offset < self.flowed[partition]:
                continue
            accepted = orjson.loads(message.value())
            whole = self.record(accepted["event"]["id"])
            records.append({**whole, **accepted, "vector": accepted["decision"]["vector"]})
            self.flowed[partition] = offset + 1
        self.send(*records)
        consumer = self.stack.broker.consumer(self.of.features_group(self.stack.config.stream))
        ends = [TopicPartition(topic, partition, offset) for partition, offset in self.flowed.items()]
        consumer.commit(offsets=ends, asynchronous=False)
        consumer.close()

    def ledger(self, prefix: str) -> dict[str, dict[str, Any]]:
        rows = Ledger(self.database, self.stack.config).rows("SELECT id, record FROM decisions")
        return {event_id: record for event_id, record in rows if event_id.startswith(prefix)}

    def kept(self, prefix: str, count: int) -> dict[str, dict[str, Any]]:
        """The ledger's rows once there are so many."""
        return wait_for(
            lambda: rows if len(rows := self.ledger(prefix)) >= count else None, 60, "rows of the ledger"
        )

    def published_once(self, prefix: str) -> None:
        counted = Counter(one["id"] for one in self.committed() if one["id"].startswith(prefix))
        assert set(counted.values()) == {1}


def shown(decision: dict[str, Any]) -> dict[str, Any]:
    """What a caller hears of a decision, as a JSON reader sees it."""
    return {name: decision[name] for name in ANSWERED}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    require(kafka.missing() or redis.missing() or postgres.missing())
    folder = tmp_path_factory.mktemp("doors")
    with running(folder) as stack, postgres.server() as database:
        stack.redis.command("DEL", stack.config.identity.redis_whole)
        url, addresses = stack.redis.login(stack.config.identity), folder / "addresses"
        addresses.mkdir()
        more = {STORES_ENV: str(addresses)}
        with (
            ledger_sink(stack.config, folder, database) as sink,
            serving.decision_service(stack.config, folder, url, **more) as service,
            serving.worker(stack.config, folder, url, **more),
        ):
            sink.start()
            sink.await_ready()
            yield Doors(stack, database, service, addresses / POSTGRES_DSN)


def decided_by_both(doors: Doors, prefix: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(the requests, the feature records) of as many ids at each door, all of them in the ledger."""
    bodies = [doors.stack.transaction(f"{prefix}-inline-{i}") for i in range(EACH)]
    records = [doors.record(f"{prefix}-stream-{i}", card=f"card-{i}") for i in range(EACH)]
    answers = doors.decide(bodies)
    doors.flow()
    doors.send(*records)
    rows = doors.kept(prefix, 2 * EACH)
    assert all(shown(rows[event_id]) == shown(answer) for event_id, answer in answers.items())
    return bodies, records


def resend(doors: Doors, prefix: str, bodies: list[dict[str, Any]], records: list[dict[str, Any]]) -> int:
    """All of it again; -> how many answers were marked, as those are that a busy ledger doesn't give in time. Any other is the
    ledger's, and nothing is published twice."""
    rows = doors.ledger(prefix)
    doors.send(*records)
    answers = doors.decide(bodies)
    doors.flow()
    last = doors.record(f"{prefix}-last")
    doors.send(last)
    doors.wait(f"{prefix}-last")
    doors.published_once(prefix)
    marked = [one for one in answers.values() if "idempotency" in one["degraded"]]
    assert all(
        shown(rows[event_id]) == shown(answer) for event_id, answer in answers.items() if answer not in marked
    )
    return len(marked)


def test_doors_decide_without_the_ledgers_address(doors: Doors) -> None:
    """Both started without it: Redis has no mark, and decisions say so. Once the file is there it is read, without a restart."""
    [answer] = doors.decide([doors.stack.transaction("no-address")]).values()
    doors.send(doors.record("no-address-stream"))
    decision = doors.wait("no-address-stream")["no-address-stream"]
    assert "idempotency" in answer["degraded"] and "idempotency" in decision["degraded"]
    replace_whole(doors.address, doors.database.dsn)


def test_a_new_detector_has_lost_nothing(doors: Doors) -> None:
    """Its worker finds that nothing was decided before: from the first payment on no ledger is asked."""
    wait_for(lambda: doors.mark == Mark(0), 60, "the mark of a new detector")
    [answer] = doors.decide([doors.stack.transaction("first")]).values()
    assert "idempotency" not in answer["degraded"]
    doors.flow()
    doors.kept("first", 1)


def test_claims_of_an_emptied_redis_are_known_by_the_ledger(doors: Doors) -> None:
    """Ids of both doors, sent again: each answer is the ledger's; new ids are marked until the ledger holds all of before."""
    bodies, records = decided_by_both(doors, "emptied")
    doors.stack.redis.command("FLUSHALL")
    assert resend(doors, "emptied", bodies, records) < EACH / 2
    doors.settled()
    [answer] = doors.decide([doors.stack.transaction("after")]).values()
    assert "idempotency" not in answer["degraded"]
    doors.send(doors.record("after-stream"))
    assert "idempotency" not in doors.wait("after-stream")["after-stream"]["degraded"]


def test_what_the_ledger_lacks_yet_is_marked(doors: Doors) -> None:
    """Decided inline and still on its way when Redis is emptied: a retry says that it may have got another answer."""
    body = doors.stack.transaction("under-way")
    first = doors.decide([body])["under-way"]
    doors.stack.redis.command("FLUSHALL")
    second = doors.decide([body])["under-way"]
    assert "idempotency" in second["degraded"]
    assert doors.mark is not None and not doors.mark.ledger
    doors.flow()
    assert shown(doors.kept("under-way", 1)["under-way"]) == shown(first)
    doors.published_once("under-way")
    doors.settled()


def test_claims_that_a_restart_from_an_older_dump_lacks(doors: Doors, tmp_path: Path) -> None:
    """Noticed by the processes that made them, which live on; what was decided before the dump and after it is known."""
    before = decided_by_both(doors, "dump-before")
    data = doors.stack.redis.folder / "appendonlydir"
    shutil.copytree(data, tmp_path / "older")
    since = doors.mark
    after = decided_by_both(doors, "dump-after")
    doors.stack.redis.stop(signal.SIGKILL)
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "older", data)
    doors.stack.redis.start()
    wait_for(lambda: doors.mark not in (None, since), 30, "a mark of the loss")
    assert resend(doors, "dump-before", *before) < EACH / 2
    assert resend(doors, "dump-after", *after) < EACH / 2
    doors.settled()
