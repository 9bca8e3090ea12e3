"""The search for planted card numbers finds them in every form, and tells of none."""

from __future__ import annotations

import base64
import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fraud_local.demo.leaks import Needles, Report, cluster, files, luhn, mask, planted

CARD, OTHER = "4539578763621486", "4539578763721486"
NEEDLES = Needles([CARD])
TEXT = CARD.encode()


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b'{"card": "' + TEXT + b'"}', "plain"),
        (b"no such value: 4539 5787 6362 1486", "plain"),
        (b"4539-5787-6362-1486", "plain"),
        (b"99" + TEXT + b"7", "plain"),
        (CARD.encode("utf-16-le"), "utf-16"),
        (TEXT.hex().encode(), "hex"),
        *[(b'{"p":"' + base64.b64encode(b"xyz"[:shift] + TEXT + b"tail") + b'"}', "base64") for shift in range(4)],
        (base64.b64encode(base64.b64encode(b"{" * 60 + TEXT + b"}" * 60)), "base64"),
        (b'{"card": "' + OTHER.encode() + b'"}', None),
        (base64.b64encode(OTHER.encode()), None),
        (TEXT[:15], None),
        (b"", None),
    ],
)  # fmt: skip
def test_a_number_is_found_however_it_is_written(data: bytes, form: str | None) -> None:
    """Digits, groups, UTF-16, hexadecimal and base64 at each shift are found; another number and a part of one are not."""
    assert NEEDLES.find(data) == form


def test_a_report_holds_no_number() -> None:
    """The place of a finding is told with long numbers masked, and the report's text holds none."""
    report = Report()
    report.look(NEEDLES, "redis", f"key {CARD}", TEXT)
    report.miss("kafka", ValueError(f"bad value {CARD}"))
    assert report.count == 1 and report.hits == [{"place": "redis", "where": "key …", "form": "plain"}]
    assert CARD not in json.dumps(report.document())
    assert mask("4539 5787 6362 1486 at 12:00") == "… at 12:00"


def test_many_pieces_are_told_apart() -> None:
    """Of pieces searched in one go the one at fault is named, and two halves of a number in two pieces are no finding."""
    report = Report()
    report.look_at_all(NEEDLES, "t", [("a", b"x"), ("b", TEXT), ("c", b"y")])
    assert [hit["where"] for hit in report.hits] == ["b"]
    halves = Report()
    halves.look_at_all(NEEDLES, "t", [("a", TEXT[:8]), ("b", TEXT[8:])])
    assert halves.count == 0 and halves.searched["t"] > 0


def test_files_are_unpacked(tmp_path: Path) -> None:
    """A number is found in a plain file, across the edge of two chunks, in gzip, in zip and in a name; not beside them."""
    (tmp_path / "plain").write_bytes(b"x" * (8 * 2**20 - 8) + TEXT)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(TEXT))
    with zipfile.ZipFile(tmp_path / "model.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inner", b"a" * 100 + TEXT)
    (tmp_path / CARD).touch()
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "rows.csv").write_bytes(TEXT)
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b"z" * 5000)[:20])
    report = files(NEEDLES, "storage", tmp_path, beside=[tmp_path / "history"])
    assert sorted({hit["where"] for hit in report.hits}) == ["model.npz", "packed.gz", "plain", "…"]
    assert len(report.unread) == 1 and "torn.gz" in report.unread[0]


def test_what_is_planted_is_read_from_the_traffic(tmp_path: Path) -> None:
    """The numbers are those of good and damaged records alike; times, ids and amounts are none."""
    lines = [
        {"raw": json.dumps({"card": CARD, "timestamp": 1764000000000, "transaction_id": "x1"})},
        {"raw": '{"card": "4111111111111111", "amou'},
        {"raw": json.dumps({"id": f"0b7{CARD}e1", "card": OTHER})},
        {"raw": json.dumps({"card": OTHER, "amount": 0.4539578763621486})},
    ]
    live = tmp_path / "live.jsonl.gz"
    live.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    assert planted(live).numbers == {CARD, "4111111111111111"}
    assert planted(live, 1).numbers == {CARD}
    assert luhn(CARD) and not luhn(OTHER)


def test_logs_and_objects_are_searched() -> None:
    """Objects, the log of a running and of a restarted container are searched; a log that can't be read is told."""
    pod: dict[str, Any] = {
        "metadata": {"namespace": "n", "name": "p"},
        "status": {
            "containerStatuses": [
                {"name": "c", "restartCount": 1, "state": {"running": {}}},
                {"name": "d", "restartCount": 0, "state": {"terminated": {}}},
                {"name": "e", "restartCount": 0, "state": {"waiting": {}}},
            ]
        },
    }
    event = {"metadata": {"namespace": "n", "name": "e"}, "message": f"bad value {CARD}"}

    def kubectl(*arguments: str) -> str:
        if arguments[0] == "get":
            return json.dumps({"items": {"pods": [pod], "events": [event]}.get(arguments[1], [])})
        if "d" in arguments:
            raise OSError("gone")
        return f"card {CARD}" if "--previous" in arguments else "all well"

    report = cluster(NEEDLES, kubectl)
    assert {(hit["place"], hit["where"]) for hit in report.hits} == {
        ("objects", "events n/e"),
        ("logs", "n/p/c before its restart"),
    }
    assert len(report.unread) == 1 and "n/p/d" in report.unread[0]


def test_reports_join() -> None:
    """What the Pod found and what the host found are one report."""
    inside, outside = Report(), Report()
    inside.look(NEEDLES, "redis", "k", TEXT)
    outside.look(NEEDLES, "logs", "p", b"clean")
    both = Report.of(json.loads(json.dumps(inside.document()))).join(outside).document()
    assert both["count"] == 1 and set(both["searched"]) == {"redis", "logs"}
