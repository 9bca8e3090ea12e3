"""SCRAM as the standard has it, and answers that are no answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fraud_contracts.errors import StoreError
from fraud_operator import kafka_log_dirs
from fraud_operator.kafka_log_dirs import client_final, client_first
from fraud_operator.kafka_target import KafkaTarget
from fraud_process.kafka import KafkaLogin

# RFC 7677, 3.
LOGIN = KafkaLogin("user", "pencil", "SCRAM-SHA-256")
NONCE = "rOprNGfwEbeRWgbNEkqO"
SAID = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"


def test_scram_is_as_the_standards_example() -> None:
    """Proof and signature of RFC 7677."""
    first = client_first(LOGIN, NONCE)
    assert first == b"n=user,r=rOprNGfwEbeRWgbNEkqO"
    final, signature = client_final(LOGIN, NONCE, first, SAID)
    assert final.endswith(b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    assert signature == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"r=another,s=W22Z,i=4096",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=0",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=4000000000",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=no base64,i=4096",
        b"\xff\xfe",
    ],
)
def test_a_message_that_is_none_is_refused(said: bytes) -> None:
    """Also one that would keep us computing for hours."""
    with pytest.raises(ValueError):
        client_final(LOGIN, NONCE, client_first(LOGIN, NONCE), said)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address of a server that says this to each connection, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    wire, _ = server.accept()
                except OSError:
                    return
                with wire:
                    wire.recv(1_000)
                    wire.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\1x",
        b"\x7f\xff\xff\xff",
        b"\0\0\0\x08\0\0\0\x01\0\0\0\x05",
        b"\0\0\0\x08\0\0\0\x09\0\0\0\x00",
    ],
)
def test_what_answers_otherwise_than_a_broker_is_no_answer(answer: bytes) -> None:
    """A StoreError, whatever the bytes."""
    with answering(answer) as address, pytest.raises(StoreError):
        kafka_log_dirs.volumes(KafkaTarget(address))


@pytest.mark.parametrize("bootstrap", ["", "nowhere", "127.0.0.1:1", "host:port"])
def test_an_address_where_no_broker_is_is_no_answer(bootstrap: str) -> None:
    """Nor does it break anything."""
    with pytest.raises(StoreError):
        kafka_log_dirs.volumes(KafkaTarget(bootstrap))
