"""A request's age, of which the process alone knows only a part."""

from __future__ import annotations

import select
import socket

import pytest

from fraud_serving.decision.arrival import seconds_in_kernel
from fraud_testing.kafka import wait_for

pytestmark = pytest.mark.integration


def test_the_kernel_tells_how_long_data_have_lain_unread() -> None:
    """Also after later data were read, and of a connection that nobody has accepted yet."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as caller,
    ):
        caller.sendall(b"first")
        select.select([server], [], [], 5)
        connection, _ = server.accept()
        with connection:
            wait_for(lambda: seconds_in_kernel(connection) >= 0.1, 5, "the first data to be old")
            assert connection.recv(100) == b"first"
            caller.sendall(b"second")
            select.select([connection], [], [], 5)
            assert seconds_in_kernel(connection) < 0.1
    assert seconds_in_kernel(connection) == 0.0
