"""What the command over dead letters decides without a broker."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_contracts.errors import Reason
from fraud_pipelines.events import EventSchema
from fraud_serving.dead_letters.__main__ import line, parser
from fraud_serving.dead_letters.redrive import field_text, obstacle, refused
from fraud_serving.dead_letters.topic import MAX_METADATA, Position, pack, read_letter, unpack
from fraud_testing import detectors

CONFIG = detectors.detector("unused:9092")
OF = CONFIG.identity
SCHEMA = EventSchema(CONFIG.spec.event, CONFIG.spec.entities)


def letter(noun: str = "transactions", reason: str = Reason.TIME_IN_FUTURE, **more: Any) -> Any:
    source = {"topic": OF.topic(noun), "partition": 1, "offset": 7}
    whole = {"id": "a", "reason": str(reason), "message": "m", "stage": "stream", "source": source}
    return {**whole, "appended": 1_795_000_000_000, "payload": "x", **more}


@given(st.integers(0, 10**9), st.sets(st.integers(0, 3000)))
@settings(max_examples=100)
def test_what_is_packed_comes_back(base: int, steps: set[int]) -> None:
    """The memory of redriven letters survives its text form exactly."""
    offsets = {base + step for step in steps}
    assert unpack(base, pack(base, offsets)) == offsets


def test_expired_offsets_are_forgotten_and_long_runs_stay_short() -> None:
    """What lies before the base is dropped; a hundred thousand letters in a row fit into one commit."""
    assert unpack(10, pack(10, {3, 9, 10, 12})) == {10, 12}
    assert len(pack(0, set(range(100_000)))) < MAX_METADATA


@pytest.mark.parametrize("text", ["latest", "AAAA", "%"])
def test_foreign_metadata_is_an_error(text: str) -> None:
    """A commit that another program made isn't taken for an empty memory."""
    with pytest.raises(ValueError, match="didn't write"):
        unpack(0, text)


def test_a_commit_without_metadata_remembers_nothing() -> None:
    """No text is the empty set."""
    assert unpack(5, "") == set()


@pytest.mark.parametrize("noun", ["accepted", "features", "labels", "label-reports", "dead-letters"])
def test_only_transactions_go_again(noun: str) -> None:
    """A letter of any other topic is refused, by name too."""
    assert obstacle(letter(noun), OF, named=False)
    assert obstacle(letter(noun), OF, named=True)


def test_the_transactions_of_another_detector_are_refused() -> None:
    """The whole topic name counts, not its noun."""
    foreign = letter()
    foreign["source"]["topic"] = "other.cards.transactions.v1"
    assert obstacle(foreign, OF, named=True)


def test_a_cut_record_never_goes_again_and_a_reused_id_only_by_name() -> None:
    """too_large holds no whole record; id_reused is a second payment that a person must have looked at."""
    assert obstacle(letter(reason=Reason.TOO_LARGE), OF, named=True)
    assert obstacle(letter(reason=Reason.ID_REUSED), OF, named=False)
    assert obstacle(letter(reason=Reason.ID_REUSED), OF, named=True) is None
    assert obstacle(letter(), OF, named=False) is None


def test_what_the_spec_refuses_is_skipped_before_it_is_sent() -> None:
    """A record in the future is refused until its time has come; broken bytes always."""
    now = int(time.time() * 1000)
    raw = orjson.dumps({"id": "a", "time": now + 3_600_000, "amount": 1, "card": "4", "merchant": "m"})
    assert refused(SCHEMA, raw, now) == "would be refused again: time_in_future"
    assert refused(SCHEMA, raw, now + 3_600_000) is None
    assert refused(SCHEMA, b"{", now) == "would be refused again: invalid_json"


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b'{"card":"4111"}', "4111"),
        (b'{"card":4111}', "4111"),
        (b'{"card":true}', None),
        (b'{"card":""}', None),
        (b'{"other":1}', None),
        (b"{", None),
        (b"[1]", None),
    ],
)
def test_the_key_is_the_raw_entity(raw: bytes, key: str | None) -> None:
    """Text and integers make a key, as they make an entity; nothing else does."""
    assert field_text(raw, "card") == key


def test_a_letter_is_one_line_of_seven_columns() -> None:
    """Position, time, id, reason, stage, source and message, without the payload."""
    columns = line(Position(0, 3), letter(id=None)).split("\t")
    assert columns == [
        "0:3",
        "2026-11-18T11:06:40.000Z",
        "-",
        "time_in_future",
        "stream",
        "tests.cards.transactions.v1 1:7",
        "m",
    ]


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"3", b'{"source":{}}', b'{"source":null}'])
def test_bytes_that_are_no_letter_are_no_error(value: bytes | None) -> None:
    """A foreign record in the topic gives None instead of an exception."""
    assert read_letter(value) is None


@pytest.mark.parametrize(
    "change",
    [
        {"id": 7},
        {"reason": None},
        {"appended": 10**20},
        {"appended": -1},
        {"source": {"topic": "t", "partition": -1, "offset": 0}},
        {"source": {"topic": "t", "partition": 0, "offset": 2**63}},
    ],
)
def test_a_letter_that_no_command_could_show_is_none(change: dict[str, Any]) -> None:
    """An id that is no text, a time that can't be printed and a place that no topic has must not end a listing."""
    assert read_letter(orjson.dumps(letter())) is not None
    assert read_letter(json.dumps({**letter(), **change}).encode()) is None
    without = letter()
    del without["id"]
    assert read_letter(orjson.dumps(without)) is None


def test_a_position_is_two_numbers() -> None:
    """PARTITION:OFFSET and nothing else."""
    assert Position.parse("2:40") == Position(2, 40)
    for text in ("2", "2:", ":4", "-1:4", "a:b", "1:2:3", "²:1"):
        with pytest.raises(argparse.ArgumentTypeError):
            Position.parse(text)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["list", "--reason", "nonsense"],
        ["list", "--since", "1 hour"],
        ["list", "--limit", "0"],
        ["explain", "3"],
        ["redrive", "--reason", "id_reused", "--only", "0:1"],
    ],
)
def test_wrong_arguments_end_with_2(arguments: list[str]) -> None:
    """A mistake on the command line does nothing."""
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(arguments)
    assert ended.value.code == 2
