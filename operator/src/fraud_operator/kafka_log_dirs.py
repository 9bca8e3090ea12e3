"""How large brokers' disks are, and what is left of them: Kafka's request DescribeLogDirs, which librdkafka doesn't have.

Four requests of Kafka's own protocol over a short-lived connection to each broker. Brokers answer them since Kafka 3.3.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from fraud_contracts.errors import StoreError
from fraud_operator.capacity import Volume
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.store_login import LoginRefusedError
from fraud_process.kafka import PLAIN, KafkaLogin

# For connecting, and for each answer.
SECONDS: Final = 3.0
# An answer to what is asked here is a few hundred bytes for each broker and disk.
_LONGEST: Final = 1 << 20
_ITERATIONS: Final = 1_000_000
_METADATA, _HANDSHAKE, _LOG_DIRS, _AUTHENTICATE = 3, 17, 35, 36
_CLIENT: Final = b"fraud-operator"
_HASHES: Final = {"SCRAM-SHA-512": "sha512", "SCRAM-SHA-256": "sha256"}
# Kafka's own numbers.
_REFUSALS: Final = {
    31: "to tell of its disks",
    33: "this SASL mechanism",
    34: "this login now",
    58: "this login",
}


class _Place(NamedTuple):
    number: int
    host: str
    port: int


@dataclass
class _Answer:
    """Reads an answer from its front; ValueError where it is cut."""

    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if count < 0 or len(part) < count:
            raise ValueError("a broker's answer is cut")
        self.at += count
        return part

    def int16(self) -> int:
        return int(struct.unpack(">h", self.take(2))[0])

    def int32(self) -> int:
        return int(struct.unpack(">i", self.take(4))[0])

    def int64(self) -> int:
        return int(struct.unpack(">q", self.take(8))[0])

    def text(self) -> str:
        length = self.int16()
        return self.take(length).decode(errors="replace") if length >= 0 else ""

    def block(self) -> bytes:
        length = self.int32()
        return self.take(length) if length >= 0 else b""

    def varint(self) -> int:
        value = shift = 0
        while shift < 35:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise ValueError("a broker's answer holds no number")

    def compact_text(self) -> str:
        return self.take(max(0, self.varint() - 1)).decode(errors="replace")

    def skip_tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            self.take(self.varint())


class _Wire:
    """One connection; each request waits for its answer."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire, self._number = wire, 0

    def ask(self, api: int, version: int, body: bytes, *, flexible: bool = False) -> _Answer:
        self._number += 1
        head = struct.pack(">hhih", api, version, self._number, len(_CLIENT)) + _CLIENT
        message = head + (b"\0" if flexible else b"") + body
        self._wire.sendall(struct.pack(">i", len(message)) + message)
        (length,) = struct.unpack(">i", self._read(4))
        if not 4 <= length <= _LONGEST:
            raise ValueError("no answer of Kafka's")
        answer = _Answer(self._read(length))
        if answer.int32() != self._number:
            raise ValueError("an answer to another question")
        if flexible:
            answer.skip_tags()
        return answer

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._wire.recv(count - len(data))
            if not part:
                # What a broker does that doesn't know the request's version, or speaks TLS where this doesn't.
                raise ConnectionResetError("it closed the connection")
            data += part
        return data


def volumes(target: KafkaTarget) -> dict[str, Volume]:
    """Of each broker's disks that say it, by broker and folder. StoreError, or LoginRefusedError where the login may not ask."""
    found: dict[str, Volume] = {}
    for place in _brokers(target):
        with _connected(place.host, place.port, target.login) as wire:
            for folder, volume in _log_dirs(wire):
                found[f"broker {place.number}, {folder}"] = volume
    return found


def _brokers(target: KafkaTarget) -> list[_Place]:
    """By the first bootstrap server that answers."""
    failure = StoreError("kafka", f"{target.bootstrap} names no broker")
    for address in target.bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if not (port.isdigit() and 0 < int(port) < 65_536):
            continue
        try:
            with _connected(host.strip("[]"), int(port), target.login) as wire:
                # No topics, all brokers.
                answer = wire.ask(_METADATA, 1, struct.pack(">i", 0))
                places = []
                for _ in range(answer.int32()):
                    places.append(_Place(answer.int32(), answer.text(), answer.int32()))
                    answer.text()  # rack
                return places
        except LoginRefusedError:
            raise
        except StoreError as error:
            failure = error
    raise failure


def _log_dirs(wire: _Wire) -> Iterator[tuple[str, Volume]]:
    """An empty list of topics: the disks, and nothing of what lies on them."""
    answer = wire.ask(_LOG_DIRS, 4, b"\x01\0", flexible=True)
    answer.int32()  # throttled for so long
    _check(answer.int16())
    for _ in range(answer.varint() - 1):
        fault, folder = answer.int16(), answer.compact_text()
        for _ in range(answer.varint() - 1):
            _skip_topic(answer)
        total, usable = answer.int64(), answer.int64()
        answer.skip_tags()
        if fault == 0 and total > 0 and usable >= 0:
            yield folder, Volume(max(0, total - usable), total)


def _skip_topic(answer: _Answer) -> None:
    answer.compact_text()
    for _ in range(answer.varint() - 1):
        answer.take(4 + 8 + 8 + 1)  # partition, size, lag, whether it moves
        answer.skip_tags()
    answer.skip_tags()


def _check(code: int) -> None:
    if code in _REFUSALS:
        raise LoginRefusedError("kafka", f"it refuses {_REFUSALS[code]}")
    if code:
        raise StoreError("kafka", f"it answers with error {code}")


@contextmanager
def _connected(host: str, port: int, login: KafkaLogin | None) -> Iterator[_Wire]:
    """Logged in; what goes wrong while it is used is a StoreError, too."""
    try:
        with socket.create_connection((host, port), SECONDS) as plain:
            if login is None:
                yield _Wire(plain)
                return
            context = ssl.create_default_context(cadata=login.authority or None)
            with context.wrap_socket(plain, server_hostname=host) as wire:
                connection = _Wire(wire)
                _log_in(connection, login)
                yield connection
    except (OSError, ValueError, struct.error) as error:
        raise StoreError("kafka", f"{host}:{port}: {error}") from error


def _log_in(wire: _Wire, login: KafkaLogin) -> None:
    mechanism = login.mechanism.encode()
    _check(wire.ask(_HANDSHAKE, 1, struct.pack(">h", len(mechanism)) + mechanism).int16())
    if login.mechanism == PLAIN:
        _authenticate(wire, f"\0{login.username}\0{login.password}".encode())
        return
    if login.mechanism not in _HASHES:
        raise LoginRefusedError("kafka", "its SASL mechanism isn't spoken here")
    nonce = secrets.token_hex(16)
    first = client_first(login, nonce)
    said = _authenticate(wire, b"n,," + first)
    final, signature = client_final(login, nonce, first, said)
    if not hmac.compare_digest(_authenticate(wire, final), b"v=" + signature):
        raise LoginRefusedError("kafka", "who answers doesn't know the login's password")


def _authenticate(wire: _Wire, part: bytes) -> bytes:
    answer = wire.ask(_AUTHENTICATE, 0, struct.pack(">i", len(part)) + part)
    code = answer.int16()
    answer.text()  # what it says of an error may hold the user's name
    _check(code)
    return answer.block()


def client_first(login: KafkaLogin, nonce: str) -> bytes:
    """SCRAM's first message, without its header."""
    user = login.username.replace("=", "=3D").replace(",", "=2C")
    return f"n={user},r={nonce}".encode()


def client_final(login: KafkaLogin, nonce: str, first: bytes, said: bytes) -> tuple[bytes, bytes]:
    """SCRAM's last message, and the signature that the server must answer with. ValueError where ``said`` is no first message."""
    parts = dict(part.split("=", 1) for part in said.decode().split(",") if "=" in part)
    both, iterations = parts.get("r", ""), parts.get("i", "")
    if not both.startswith(nonce) or not iterations.isdigit() or not 0 < int(iterations) <= _ITERATIONS:
        raise ValueError("no message of SCRAM's")
    name = _HASHES[login.mechanism]
    salt = base64.b64decode(parts.get("s", ""), validate=True)
    salted = hashlib.pbkdf2_hmac(name, login.password.encode(), salt, int(iterations))
    bare = f"c=biws,r={both}".encode()
    signed = b",".join((first, said, bare))
    own = hmac.digest(salted, b"Client Key", name)
    proved = hmac.digest(hashlib.new(name, own).digest(), signed, name)
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(own, proved, strict=True)))
    signature = hmac.digest(hmac.digest(salted, b"Server Key", name), signed, name)
    return bare + b",p=" + proof, base64.b64encode(signature)
