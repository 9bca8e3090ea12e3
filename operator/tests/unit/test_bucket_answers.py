"""When a bucket is asked, and what a pass reads meanwhile."""

from __future__ import annotations

import itertools
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

import pytest

from fraud_operator.buckets import CHECKED, LONGEST_RETRY, Bucket, Buckets
from fraud_operator.facts import StorageFact

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
        self.fact, self.count, self.now = fact, 0, 0.0

    def __call__(self, bucket: Bucket) -> StorageFact:
        self.count += 1
        return self.fact


def test_a_good_bucket_is_asked_once() -> None:
    """After a good answer no pass asks again, whatever time goes by; other keys are another question."""
    asked = _Asked(CHECKED)
    buckets, bucket = Buckets(asked, lambda: asked.now, _AtOnce()), Bucket("s3://bank", "f", "o", KEYS)
    assert buckets.look(bucket) == CHECKED
    asked.now = 1e6
    assert buckets.look(bucket) == CHECKED and asked.count == 1
    buckets.look(replace(bucket, credentials={**KEYS, "AWS_ACCESS_KEY_ID": "other"}))
    assert asked.count == 2


def test_a_bad_bucket_is_asked_again_with_patience() -> None:
    """Passes in between read the last answer; the pauses double up to a minute, and a mended bucket is taken up."""
    bad = StorageFact(False, "BucketAbsent", "m")
    asked = _Asked(bad)
    buckets, bucket = Buckets(asked, lambda: asked.now, _AtOnce()), Bucket("s3://bank", "f", "o", KEYS)
    times = []
    for second in range(400):
        asked.now = float(second)
        before = asked.count
        assert buckets.look(bucket) == bad
        times += [second] if asked.count > before else []
    assert (
        times[:5] == [0, 10, 30, 70, 130]
        and max(b - a for a, b in itertools.pairwise(times)) == LONGEST_RETRY
    )
    asked.fact, asked.now = CHECKED, 500.0
    buckets.look(bucket)
    assert buckets.look(bucket) == CHECKED


class _Panic(BaseException):
    """As the client's panics: no Exception."""


@pytest.mark.parametrize("fault", [RuntimeError, _Panic])
def test_a_check_that_breaks_is_told(fault: type[BaseException]) -> None:
    """A fault of ours, or a panic of the client's, is a bad answer that points to the log, and isn't tried in every pass."""
    asked = _Asked(CHECKED)

    def broken(bucket: Bucket) -> StorageFact:
        asked.count += 1
        raise fault("no")

    buckets, bucket = Buckets(broken, lambda: asked.now, _AtOnce()), Bucket("s3://bank", "f", "o", KEYS)
    facts = [buckets.look(bucket) for _ in range(5)]
    assert [(fact.ready, fact.reason) for fact in facts] == [(False, "CheckFailed")] * 5
    assert asked.count == 1 and "the operator's log" in facts[0].message
