"""Events, and what is left of one that can't be written."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fraud_operator.events import Recorder
from fraud_operator.kube import RefusedError


class Terminating:
    """A namespace that is being deleted takes no event."""

    def create(self, kind: object, body: Any) -> Any:
        raise RefusedError(403, "namespace is being terminated")


def test_an_event_that_cannot_be_written_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The log line holds which object, the reason and the whole message, not only why it wasn't written."""
    recorder = Recorder(Terminating())  # type: ignore[arg-type]  # a fake of Kube
    with caplog.at_level(logging.WARNING):
        recorder.post_for({"metadata": {"name": "d", "namespace": "n"}}, "NotDeleted", "Kafka d is left over")
    [record] = caplog.records
    assert record.__dict__["data"] == {
        "detector": "n.d",
        "reason": "NotDeleted",
        "message": "Kafka d is left over",
        "error": "namespace is being terminated",
    }
