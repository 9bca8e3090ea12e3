"""The search for planted card numbers finds them in every form, and tells of none."""

from __future__ import annotations

import base64
import gzip
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fraud_local.demo.leaks import LeakReport, Needles, files, luhn, mask, planted
from fraud_local.demo.leaks_cluster import cluster

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
    report = LeakReport()
    report.search(NEEDLES, "redis", f"key {CARD}", TEXT)
    report.miss("kafka", ValueError(f"bad value {CARD}"))
    assert report.count == 1 and report.hits == [{"place": "redis", "where": "key …", "form": "plain"}]
    assert CARD not in json.dumps(report.document())
    assert mask("4539 5787 6362 1486 at 12:00") == "… at 12:00"


def test_many_pieces_are_told_apart() -> None:
    """Of pieces searched in one go the one at fault is named, and two halves of a number in two pieces are no finding."""
    report = LeakReport()
    report.search_all(NEEDLES, "t", [("a", b"x"), ("b", TEXT), ("c", b"y")])
    assert [hit["where"] for hit in report.hits] == ["b"]
    halves = LeakReport()
    halves.search_all(NEEDLES, "t", [("a", TEXT[:8]), ("b", TEXT[8:])])
    assert halves.count == 0 and halves.searched["t"] > 0


def test_files_are_unpacked(tmp_path: Path) -> None:
    """A number is found in a plain file, across the edge of two chunks, in gzip, in zip and in a name."""
    (tmp_path / "plain").write_bytes(b"x" * (8 * 2**20 - 8) + TEXT)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(TEXT))
    with zipfile.ZipFile(tmp_path / "model.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inner", b"a" * 100 + TEXT)
    (tmp_path / CARD).touch()
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b"z" * 5000)[:20])
    report = files(NEEDLES, "storage", tmp_path)
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


def _pod(*statuses: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "n", "name": "p", "uid": "u"},
        "status": {"containerStatuses": [{"restartCount": 0, **status} for status in statuses]},
    }


class Cluster:
    """What kubectl shows of one Pod: as it was listed, and as it is when it is asked for again."""

    def __init__(self, listed: dict[str, Any], later: dict[str, Any] | None, *unreadable: str) -> None:
        self.listed, self.later, self.unreadable = listed, later, unreadable

    def kubectl(self, *arguments: str) -> str:
        if arguments[:2] == ("get", "pods"):
            return json.dumps({"items": [self.listed]})
        if arguments[2:4] == ("get", "pod"):
            return json.dumps(self.later) if self.later else ""
        if arguments[0] == "get":
            event = {"metadata": {"namespace": "n", "name": "e"}, "message": f"bad value {CARD}"}
            return json.dumps({"items": [event] if arguments[1] == "events" else []})
        if any(name in arguments for name in self.unreadable):
            raise OSError("not found")
        return f"card {CARD}" if "--previous" in arguments else "all well"


def test_logs_and_objects_are_searched(tmp_path: Path) -> None:
    """Objects, the log of a running and of a restarted container are searched; a running one's that can't be read is told."""
    pod = _pod(
        {"name": "c", "restartCount": 1, "state": {"running": {}}, "containerID": "c1"},
        {"name": "d", "state": {"running": {}}, "containerID": "d0"},
        {"name": "e", "state": {"waiting": {}}},
    )
    report = cluster(NEEDLES, Cluster(pod, pod, "d").kubectl, tmp_path)
    assert {(hit["place"], hit["where"]) for hit in report.hits} == {
        ("objects", "events n/e"),
        ("logs", "n/p/c before its restart"),
    }
    assert len(report.unread) == 1 and "n/p/d" in report.unread[0]
    assert report.gaps == []


RUNNING = {"name": "d", "state": {"running": {}}, "containerID": "d0"}


@pytest.mark.parametrize(
    "later",
    [
        None,
        {**_pod(RUNNING), "metadata": {"uid": "another"}},
        _pod({**RUNNING, "state": {"terminated": {}}}),
        _pod({**RUNNING, "restartCount": 1, "containerID": "d1"}),
    ],
    ids=["the Pod is gone", "another Pod has its name", "it has ended", "it was started again"],
)
def test_a_log_that_went_with_its_container_is_a_gap(later: dict[str, Any] | None, tmp_path: Path) -> None:
    """A container that ends between the listing and the reading takes its log with it: told, and no failure."""
    report = cluster(NEEDLES, Cluster(_pod(RUNNING), later, "d").kubectl, tmp_path)
    assert report.unread == []
    assert len(report.gaps) == 1 and "n/p/d" in report.gaps[0]


def test_nothing_is_a_gap_while_nobody_can_say_that_it_ended(tmp_path: Path) -> None:
    """An API server that doesn't answer proves no end."""
    place = Cluster(_pod(RUNNING), None, "d")

    def kubectl(*arguments: str) -> str:
        if arguments[2:4] == ("get", "pod"):
            raise OSError("connection refused")
        return place.kubectl(*arguments)

    report = cluster(NEEDLES, kubectl, tmp_path)
    assert len(report.unread) == 1 and report.gaps == []


def test_a_log_that_was_followed_is_no_gap(tmp_path: Path) -> None:
    """What the follower has kept of a container is searched with the files; the cluster may forget it."""
    kept = tmp_path / "n_p_u" / "d"
    kept.mkdir(parents=True)
    (kept / "0.log").write_text("all well")
    report = cluster(NEEDLES, Cluster(_pod(RUNNING), None, "d").kubectl, tmp_path)
    assert (report.unread, report.gaps) == ([], [])


def test_what_vanishes_during_the_search_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flink removes folders of old checkpoints while the storage is searched; the rest is searched all the same."""
    (tmp_path / "chk-1").mkdir()
    (tmp_path / "kept").write_bytes(TEXT)
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("chk-1"):
            (tmp_path / "chk-1").rmdir()
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = files(NEEDLES, "storage", tmp_path)
    assert [hit["where"] for hit in report.hits] == ["kept"]
    assert report.unread == []


def test_reports_join() -> None:
    """What the Pod found and what the host found are one report."""
    inside, outside = LeakReport(), LeakReport()
    inside.search(NEEDLES, "redis", "k", TEXT)
    outside.search(NEEDLES, "logs", "p", b"clean")
    both = LeakReport.of(json.loads(json.dumps(inside.document()))).join(outside).document()
    assert both["count"] == 1 and set(both["searched"]) == {"redis", "logs"}
