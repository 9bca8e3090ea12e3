"""When a bucket is asked, and what a pass reads meanwhile."""

from __future__ import annotations

import itertools
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

import pytest

from fraud_operator.buckets import AGAIN, CHECKED, FIRST_RETRY, LONGEST_RETRY, Bucket, Buckets
from fraud_operator.facts import StorageFact

KEY = ("payments", "cards")
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}


class _AtOnce(Executor):
    """Runs what it is given before it returns."""

    def submit(self, work: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*arguments, **named))
        return future


class _Asked:
    """A bucket check that answers what a test sets, and counts."""

    def __init__(self, fact: StorageFact) -> None:
        self.fact, self.now = fact, 0.0
        self.again: list[bool] = []

    def __call__(self, bucket: Bucket, again: bool) -> StorageFact:
        self.again.append(again)
        return self.fact

    @property
    def count(self) -> int:
        return len(self.again)


@pytest.fixture
def asked() -> _Asked:
    return _Asked(CHECKED)


@pytest.fixture
def buckets(asked: _Asked) -> Buckets:
    return Buckets(asked, lambda: asked.now, _AtOnce())


BUCKET = Bucket("s3://bank", "f", "o", KEYS)
AWAY = StorageFact(False, "Unreachable", "m")


def test_a_good_bucket_is_looked_at_once_a_minute(asked: _Asked, buckets: Buckets) -> None:
    """Passes in between read the last answer; it is written to only the first time. Other keys are another question."""
    for second in range(181):
        asked.now = float(second)
        assert buckets.look(KEY, BUCKET) == CHECKED
    assert asked.again == [False, True, True, True]
    buckets.look(KEY, replace(BUCKET, credentials={**KEYS, "AWS_ACCESS_KEY_ID": "other"}))
    assert asked.again[-1] is False


def test_a_good_bucket_is_bad_when_two_looks_say_so(asked: _Asked, buckets: Buckets) -> None:
    """One look without an answer says nothing; the second comes soon, and a good one takes the doubt away."""
    assert buckets.look(KEY, BUCKET) == CHECKED
    for second in (CHECKED, AWAY):
        asked.fact, asked.now = AWAY, asked.now + AGAIN
        buckets.look(KEY, BUCKET)
        assert buckets.look(KEY, BUCKET) == CHECKED
        asked.fact, asked.now = second, asked.now + FIRST_RETRY
        buckets.look(KEY, BUCKET)
        assert buckets.look(KEY, BUCKET) == second


def test_a_bucket_that_comes_back_is_checked_whole(asked: _Asked, buckets: Buckets) -> None:
    """What was bad may be another one now: it is written to again before it will do."""
    buckets.look(KEY, BUCKET)
    asked.fact = AWAY
    for pause in (AGAIN, FIRST_RETRY):
        asked.now += pause
        buckets.look(KEY, BUCKET)
    asked.fact = CHECKED
    asked.now += FIRST_RETRY
    buckets.look(KEY, BUCKET)
    assert buckets.look(KEY, BUCKET) == CHECKED
    assert asked.again == [False, True, True, False]


def test_an_answer_that_turns_leads_to_one_pass(asked: _Asked, buckets: Buckets) -> None:
    """Glances ask again, too; of an answer that the last pass hasn't read one of them says so, and of a detector that is gone none."""
    assert not buckets.turned(KEY)
    buckets.look(KEY, BUCKET)
    asked.fact = AWAY
    turned = []
    for _ in range(2 * round(AGAIN)):
        asked.now += 1
        turned.append(buckets.turned(KEY))
    assert turned.count(True) == 1 and buckets.look(KEY, BUCKET) == AWAY
    buckets.forget(KEY)
    asked.fact = CHECKED
    asked.now += LONGEST_RETRY
    assert not buckets.turned(KEY)


def test_a_bad_bucket_is_asked_again_with_patience(asked: _Asked, buckets: Buckets) -> None:
    """Passes in between read the last answer; the pauses double up to a minute, and a mended bucket is taken up."""
    asked.fact = bad = StorageFact(False, "BucketAbsent", "m")
    times = []
    for second in range(400):
        asked.now = float(second)
        before = asked.count
        assert buckets.look(KEY, BUCKET) == bad
        times += [second] if asked.count > before else []
    assert (
        times[:5] == [0, 10, 30, 70, 130]
        and max(b - a for a, b in itertools.pairwise(times)) == LONGEST_RETRY
    )
    asked.fact, asked.now = CHECKED, 500.0
    buckets.look(KEY, BUCKET)
    assert buckets.look(KEY, BUCKET) == CHECKED


class _Panic(BaseException):
    """As the client's panics: no Exception."""


@pytest.mark.parametrize("fault", [RuntimeError, _Panic])
def test_a_check_that_breaks_is_told(asked: _Asked, fault: type[BaseException]) -> None:
    """A fault of ours, or a panic of the client's, is a bad answer that points to the log, and isn't tried in every pass."""

    def broken(bucket: Bucket, again: bool) -> StorageFact:
        asked(bucket, again)
        raise fault("no")

    buckets = Buckets(broken, lambda: asked.now, _AtOnce())
    facts = [buckets.look(KEY, BUCKET) for _ in range(5)]
    assert [(fact.ready, fact.reason) for fact in facts] == [(False, "CheckFailed")] * 5
    assert asked.count == 1 and "the operator's log" in facts[0].message
