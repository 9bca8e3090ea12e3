"""A registry that gives no answer holds up one pass, not one for each detector; one that sends elsewhere sends nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
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


@contextmanager
def sending_elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A server each of whose answers leads to another path of its own; its address, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.partition("?")[0])
            self.send_response(302)
            self.send_header("Location", "/internal")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_redirect_is_not_followed() -> None:
    """The operator reaches more than whoever names a registry; the error says what to write."""
    with sending_elsewhere() as (uri, asked), pytest.raises(StoreError, match="aren't followed"):
        Registry(uri).alias("m", "challenger")
    assert asked == ["/api/2.0/mlflow/registered-models/alias"]
