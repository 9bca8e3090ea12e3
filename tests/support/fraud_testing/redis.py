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

# The second is another name of the first, which no certificate has.
_HOSTS = ("127.0.0.1", "127.0.0.2")


def missing() -> str | None:
    return None if shutil.which("redis-server") else "redis-server is not installed"


def listening(port: int, certificates: Certificates | None) -> list[str]:
    """What a server or a Sentinel is told of its port; with certificates it speaks TLS alone, also to its like."""
    if certificates is None:
        return ["--port", str(port), "--bind", *_HOSTS]
    files = ["--tls-cert-file", str(certificates.server), "--tls-key-file", str(certificates.key)]
    files += ["--tls-ca-cert-file", str(certificates.authority), "--tls-auth-clients", "no"]
    return ["--port", "0", "--tls-port", str(port), "--bind", *_HOSTS, "--tls-replication", "yes", *files]


def connection(port: int, certificates: Certificates | None, seconds: float) -> socket.socket:
    wire = socket.create_connection(("127.0.0.1", port), seconds)
    if certificates is None:
        return wire
    context = ssl.create_default_context(cafile=certificates.authority)
    return context.wrap_socket(wire, server_hostname="127.0.0.1")


def asked(port: int, certificates: Certificates | None, *words: str) -> str:
    """What the server or Sentinel there replies to a command, up to 4 kB of it; its error as RuntimeError."""
    with connection(port, certificates, 5) as wire:
        parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
        wire.sendall("".join([f"*{len(words)}\r\n", *parts]).encode())
        reply = wire.recv(4096).decode()
    if reply.startswith("-"):
        raise RuntimeError(reply)
    return reply


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
    # Of which it is a replica from its start.
    primary: Server | None = None

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
        return self.text(*words).split("\r\n")[0]

    def text(self, *words: str) -> str:
        """The whole reply, up to 4 kB of it."""
        return asked(self.port, self.certificates, *words)

    def fill(self) -> None:
        """From here on there is no room for anything; what is there stays, and can be read."""
        self.command("CONFIG", "SET", "maxmemory", "1")

    def make_room(self) -> None:
        self.command("CONFIG", "SET", "maxmemory", "0")

    def start(self) -> None:
        self.users.touch()
        arguments = [*listening(self.port, self.certificates), "--dir", str(self.folder), "--save", ""]
        # A first copy at once, not five seconds later.
        arguments += ["--repl-diskless-sync-delay", "0"]
        if self.primary is not None:
            arguments += ["--replicaof", "127.0.0.1", str(self.primary.port)]
        arguments += ["--appendonly", "yes" if self.append_only else "no", "--appendfsync", "no"]
        arguments += ["--maxmemory-policy", "noeviction", "--aclfile", str(self.users)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(["redis-server", *arguments], stdout=log, stderr=log)
        wait_for(self._answers, 20, f"Redis on {self.url}, see {self.log}")

    def _answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"Redis ended with {self.process.returncode}:\n{self.log.read_text()[-2000:]}")
        try:
            with connection(self.port, self.certificates, 0.5) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            end(self.process, how, 10)
        self.process = None


def claims_whole(server: Server, identity: Identity) -> None:
    """Says that no claim of that detector was ever lost, as its worker finds out where there is a ledger."""
    server.command("SET", identity.redis_whole, "0")


@contextmanager
def server(
    append_only: bool = False, certificates: Certificates | None = None, primary: Server | None = None
) -> Iterator[Server]:
    """A fresh Redis for the block, or a replica of ``primary``."""
    folder = Path(tempfile.mkdtemp(prefix="fraud-redis-"))
    running = Server(folder, append_only, certificates=certificates, primary=primary)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)
