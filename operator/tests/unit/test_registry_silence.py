"""A registry that gives no answer holds up one pass, not one for each detector."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from fraud_contracts.errors import StoreError
from fraud_operator.registry import SILENCE, Registry


class Session:
    """``away`` gives no answer."""

    def __init__(self) -> None:
        self.asked, self.away = 0, True

    def request(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        if self.away:
            raise requests.ConnectTimeout
        answer = requests.Response()
        answer.status_code, answer._content = 200, b'{"model_version": {"version": "7"}}'
        return answer


def test_a_silent_server_is_left_alone_for_a_while() -> None:
    """Whoever asks meanwhile gets the same error at once; afterwards it is asked again."""
    session, now = Session(), [100.0]
    registry = Registry("http://mlflow", session, lambda: now[0])  # type: ignore[arg-type]  # all that it uses of a session
    messages = set()
    for _ in range(200):
        with pytest.raises(StoreError) as error:
            registry.alias("m", "challenger")
        messages.add(str(error.value))
    assert session.asked == 1 and len(messages) == 1
    session.away = False
    now[0] += SILENCE
    assert registry.alias("m", "challenger") == "7" and session.asked == 2
