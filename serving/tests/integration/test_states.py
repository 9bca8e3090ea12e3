"""Where each id ends, over a real broker and a real worker: refused, mended, sent again twice, decided once."""

from __future__ import annotations

import io
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import orjson
import pytest

from fraud_contracts.config import DetectorConfig
from fraud_pipelines.dead_letter_cipher import DeadLetterCipher
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_serving.dead_letters.__main__ import main
from fraud_testing import detectors, serving
from fraud_testing.kafka import wait_for

pytestmark = pytest.mark.integration
FLINK = Path(__file__).parents[3] / "flink" / "src"
NOW = int(time.time() * 1000)
CIPHER = DeadLetterCipher(serving.DEAD_LETTER_KEY)


class Door:
    """The stream's part: its own first step for transactions, and the engine that Flink runs, in this process."""

    def __init__(self, stack: Any) -> None:
        self.stack, self.config = stack, stack.config
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(FLINK))
            from fraud_flink.intake import DeadLetterRow, Intake
        self.dead_letter_row, self.make_intake = DeadLetterRow, Intake
        self.engine = compile_detector(self.config.spec)
        self.taken_places: set[tuple[int, int]] = set()
        self.taken_ids: set[str] = set()

    def topic(self, noun: str) -> str:
        return str(self.config.identity.topic(noun))

    def run(self, config: DetectorConfig) -> None:
        """Takes what is new in transactions under a spec, as the job would."""
        intake = self.make_intake(config, Tokeniser.from_hex(serving.TOKEN_KEY), CIPHER)
        letters, records = [], []
        for message in self.stack.broker.read(self.topic("transactions")):
            place = (message.partition(), message.offset())
            if place in self.taken_places:
                continue
            self.taken_places.add(place)
            source: Any = {"topic": message.topic(), "partition": place[0], "offset": place[1]}
            outcome = intake.take(
                "transactions", message.key(), message.value(), source, message.timestamp()[1]
            )
            if isinstance(outcome, self.dead_letter_row):
                letters.append((outcome.key.decode(), outcome.value))
                continue
            [element] = outcome
            event = element.event
            vector, _, saw = self.engine.observe(dict.fromkeys(event["entities"]), event, 1)
            record = {
                "event": event,
                "hash": element.hash,
                "set": self.engine.hash,
                "vector": vector,
                "reason": element.reason,
                "degraded": element.degraded,
                "saw": {e: (epoch, seq, f"{digest:016x}") for e, (epoch, seq, digest) in saw.items()},
                "run": "test",
                "repeat": event["id"] in self.taken_ids,
                "source": element.source,
                "appended": element.appended,
                "decision": element.decision,
            }
            self.taken_ids.add(event["id"])
            records.append((event["entities"]["customer"], orjson.dumps(record)))
        self.stack.broker.produce(self.topic("dead-letters"), letters)
        self.stack.broker.produce(self.topic("features"), records)

    def command(self, *arguments: str, ids: str | None = None) -> tuple[int, str]:
        """-> exit code and standard output of ``python -m fraud_serving.dead_letters``."""
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
            patch.setenv("FRAUD_CONFIG", str(self.stack.folder / "detector.json"))
            patch.setenv("DEAD_LETTER_KEY", serving.DEAD_LETTER_KEY)
            patch.setattr("sys.stdin", io.StringIO(ids or ""))
            code = main(list(arguments))
        return code, out.getvalue()

    def states(self, ids: str | None = None, *more: str) -> dict[str, int]:
        code, out = self.command("states", *(() if ids is None else ("--ids", "-")), *more, ids=ids)
        assert code == 0, out
        rows = [line.split() for line in out.splitlines() if line[:8].strip().isdigit()]
        return {row[1]: int(row[0]) for row in rows if int(row[0])}


def raw(event_id: str, **changes: Any) -> tuple[str, bytes]:
    event = {"id": event_id, "time": NOW, "amount": 12.34, "card": f"c-{event_id}", "merchant": "m1"}
    return f"c-{event_id}", orjson.dumps({**event, "category": "travel", **changes})


def test_every_id_has_one_end_and_the_ends_add_up(stack: Any) -> None:
    """20 good, 10 refused by a spec that is mended later, 5 broken for ever; what was sent again, even twice, is decided once."""
    door = Door(stack)
    good = [raw(f"good-{n}") for n in range(20)]
    mended = [raw(f"mended-{n}", amount=1.234) for n in range(10)]  # three decimals, under a scale of two
    broken = [raw(f"broken-{n}", amount="much") for n in range(5)]
    stack.broker.produce(door.topic("transactions"), [*good, *mended, *broken, ("k", b"{no id")])
    ids = "\n".join([*(orjson.loads(v)["id"] for _, v in [*good, *mended, *broken]), "never-sent"])
    detectors.write(door.config, stack.folder)
    assert door.states(ids) == {"under_way": 35, "nowhere": 1, "ids": 36}
    with serving.worker(stack.config, stack.folder, stack.redis.url):
        door.run(door.config)

        def ends(want: dict[str, int]) -> None:
            assert door.states(ids) == {**want, "nowhere": 1, "ids": 36}

        def decided() -> list[dict[str, Any]]:
            return [
                orjson.loads(m.value()) for m in stack.broker.read(door.topic("decisions"), committed=True)
            ]

        wait_for(lambda: len(decided()) >= 20, 60, "the good ones")
        ends({"decided": 20, "dead_lettered": 15})
        letters = {
            orjson.loads(m.value())["id"]: (f"{m.partition()}:{m.offset()}", orjson.loads(m.value()))
            for m in stack.broker.read(door.topic("dead-letters"), committed=True)
        }
        assert "sent: 0" in door.command("redrive")[1]  # under the same spec they would be refused again

        event = door.config.spec.event
        wider = event.model_copy(update={"amount": event.amount.model_copy(update={"scale": 3})})
        spec = door.config.spec.model_copy(update={"event": wider})
        fixed = door.config.model_copy(update={"spec": spec})
        detectors.write(fixed, stack.folder)
        assert "sent: 10" in door.command("redrive")[1]
        assert "sent: 0" in door.command("redrive")[1]
        one = letters["mended-3"][0]
        assert "sent: 1" in door.command("redrive", "--only", one)[1]  # by name, a second time
        ends({"decided": 20, "redriven_dead_lettered": 10, "dead_lettered": 5})
        door.run(fixed)
        wait_for(lambda: len(decided()) >= 30, 60, "those sent again")
        ends({"decided": 20, "redriven_decided": 10, "dead_lettered": 5})
        decided_ids = [d["id"] for d in decided()]
    assert len([event_id for event_id in decided_ids if event_id.startswith("mended")]) == 10
    assert len(set(decided_ids)) == len(decided_ids)
    # The letter is as it was: its reason, and the place of the client's own record.
    position, letter = letters["mended-3"]
    code, out = door.command("explain", position)
    assert code == 0
    assert letter["reason"] == "invalid_amount"
    source = letter["source"]
    assert f"source      {source['topic']} {source['partition']}:{source['offset']}" in out
    assert "redriven    yes" in out
    first = next(
        m
        for m in stack.broker.read(source["topic"])
        if (m.partition(), m.offset()) == (source["partition"], source["offset"])
    )
    assert orjson.loads(first.value())["id"] == "mended-3"
    code, out = door.command("states", "--show", "dead_lettered")
    shown = {line.split("\t")[1] for line in out.splitlines() if "\t" in line}
    assert shown == {f"broken-{n}" for n in range(5)}
    assert "1  without a readable id: invalid_json" in out
