"""The follower of container logs keeps every line, whatever the kubelet does with its files: on real files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud_local.demo.container_logs import Follower
from fraud_local.shell import wait_for


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    (tmp_path / "kubelet").mkdir()
    follower = Follower(tmp_path / "kubelet", tmp_path / "kept", 0.01)
    follower.start()
    yield follower
    follower.stop()


def _log(tmp_path: Path, number: int = 0) -> Path:
    path = tmp_path / "kubelet" / "n_p_u" / "c" / f"{number}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _kept(tmp_path: Path, number: int = 0) -> str:
    path = tmp_path / "kept" / "n_p_u" / "c" / f"{number}.log"
    return path.read_text() if path.exists() else ""


def test_a_log_outlives_its_pod(follower: Follower, tmp_path: Path) -> None:
    """Lines from the first to the last are there after the kubelet has removed the Pod's folder."""
    log = _log(tmp_path)
    with log.open("w") as stream:
        stream.write("first\n")
        stream.flush()
        wait_for("the log is followed", lambda: _kept(tmp_path) == "first\n", 10)
        shutil.rmtree(log.parents[1])
        stream.write("last\n")
    follower.stop()
    assert _kept(tmp_path) == "first\nlast\n"


def test_a_rotated_log_goes_on(follower: Follower, tmp_path: Path) -> None:
    """The kubelet renames a full log, and the runtime opens a new one by the same name."""
    log = _log(tmp_path)
    with log.open("w") as stream:
        stream.write("one\n")
        stream.flush()
        wait_for("the log is followed", lambda: _kept(tmp_path) == "one\n", 10)
        log.rename(log.with_name("0.log.20261129-010203"))
        stream.write("two\n")
    log.write_text("three\n")
    follower.stop()
    assert _kept(tmp_path) == "one\ntwo\nthree\n"


def test_each_start_of_a_container_has_its_own_log(follower: Follower, tmp_path: Path) -> None:
    """The restart's number is the file's name, as it is with the kubelet."""
    _log(tmp_path, 0).write_text("before\n")
    _log(tmp_path, 1).write_text("after\n")
    follower.stop()
    assert (_kept(tmp_path, 0), _kept(tmp_path, 1)) == ("before\n", "after\n")


def test_a_follower_that_failed_says_so(tmp_path: Path) -> None:
    """Logs that could not be kept are no kept logs."""
    (tmp_path / "kept").write_text("no folder")
    _log(tmp_path).write_text("x")
    follower = Follower(tmp_path / "kubelet", tmp_path / "kept", 0.01)
    follower.start()
    with pytest.raises(OSError, match="kept"):
        follower.stop()


def test_nothing_is_followed_where_the_node_keeps_its_logs_elsewhere(tmp_path: Path) -> None:
    """A kind cluster's logs lie in its own container."""
    follower = Follower(tmp_path / "none", tmp_path / "kept", 0.01)
    follower.start()
    follower.stop()
    assert not (tmp_path / "kept").exists()
