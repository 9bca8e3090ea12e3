"""A real Redis server on a free loopback port, for tests. ``missing()`` says what keeps it from starting."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fraud_contracts.names import Identity
from fraud_contracts.store_rights import redis_rules
from fraud_testing.certificates import Certificates
from fraud_testing.ending import end
from fraud_testing.kafka import free_port, wait_for


def missing() -> str | None:
    return None if shutil.which("redis-server") else "redis-server is not installed"


@dataclass
class Server:
    """A running Redis without eviction, as the platform asks for; ``stop`` and ``start`` keep its port and, with ``append_only``, its data.

    Its data whole, also after SIGKILL: while an fsync is slow, ``appendfsync everysec`` answers before it has written, and a
    killed Redis has then lost up to two seconds; with ``no`` it writes first, and only a machine that dies loses anything.
    Tests of a loss take the data away themselves.
    """

    folder: Path
    append_only: bool = False
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    # With these it speaks TLS and nothing else.
    certificates: Certificates | None = None

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/0"

    @property
    def _scheme(self) -> str:
        return "redis" if self.certificates is None else "rediss"

    @property
    def log(self) -> Path:
        return self.folder / "redis.log"

    @property
    def users(self) -> Path:
        """Its ACL file: users outlive a restart."""
        return self.folder / "users.acl"

    def login(self, identity: Identity, user: str = "", password: str = "own") -> str:
        """The address by which a detector's processes log in, with the rights that the operator gives them."""
        name = user or f"{identity.redis_logins}00000000"
        self.command("ACL", "SETUSER", name, *redis_rules(identity, password))
        self.command("ACL", "SAVE")
        return f"{self._scheme}://{name}:{password}@127.0.0.1:{self.port}/0"

    def command(self, *words: str) -> str:
        """The first line of the reply to a command of the server's own user; its error as RuntimeError."""
        with self._connect(5) as wire:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            wire.sendall("".join([f"*{len(words)}\r\n", *parts]).encode())
            reply = wire.recv(4096).decode().split("\r\n")[0]
        if reply.startswith("-"):
            raise RuntimeError(reply)
        return reply

    def start(self) -> None:
        self.users.touch()
        port = ["--port", str(self.port)]
        if self.certificates is not None:
            files = self.certificates
            port = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            port += ["--tls-cert-file", str(files.server), "--tls-key-file", str(files.key)]
            port += ["--tls-ca-cert-file", str(files.authority)]
        arguments = [*port, "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        arguments += ["--appendonly", "yes" if self.append_only else "no", "--appendfsync", "no"]
        arguments += ["--maxmemory-policy", "noeviction", "--aclfile", str(self.users)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(["redis-server", *arguments], stdout=log, stderr=log)
        wait_for(self._answers, 20, f"Redis on {self.url}, see {self.log}")

    def _answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"Redis ended with {self.process.returncode}:\n{self.log.read_text()[-2000:]}")
        try:
            with self._connect(0.5) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def _connect(self, seconds: float) -> socket.socket:
        wire = socket.create_connection(("127.0.0.1", self.port), seconds)
        if self.certificates is None:
            return wire
        context = ssl.create_default_context(cafile=self.certificates.authority)
        return context.wrap_socket(wire, server_hostname="127.0.0.1")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            end(self.process, how, 10)
        self.process = None


@contextmanager
def server(append_only: bool = False, certificates: Certificates | None = None) -> Iterator[Server]:
    """A fresh Redis for the block."""
    folder = Path(tempfile.mkdtemp(prefix="fraud-redis-"))
    running = Server(folder, append_only, certificates=certificates)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)
