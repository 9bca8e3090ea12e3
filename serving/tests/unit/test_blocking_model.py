"""The worker's client of a predictor that says nothing."""

from __future__ import annotations

import socket
import time

import pytest

from fraud_contracts.errors import StoreError
from fraud_serving.clients.blocking_model import BlockingModelClient
from fraud_testing.packages import release_package


def test_a_silent_predictor_costs_its_time_limit() -> None:
    """A server that accepts and never answers: StoreError after the call's own seconds, not the client's thirty."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        package = release_package("sha256:1", "set", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(StoreError):
            BlockingModelClient(30.0).score(package, "cards-b", [[1.0]], seconds=0.2)
        assert time.monotonic() - start < 10
