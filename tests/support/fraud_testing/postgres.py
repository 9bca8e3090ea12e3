"""A real PostgreSQL server in a temporary folder on a free loopback port, for tests.

PostgreSQL refuses to run as root, so there it runs as ``postgres``, else as ``nobody``. Nothing is made durable: the data
live as long as the test.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fraud_testing.certificates import Certificates
from fraud_testing.ending import end
from fraud_testing.kafka import free_port, wait_for

_INITDB = ("--username=fraud", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")


def program_folder() -> Path | None:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if programs:
        return programs[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def missing() -> str | None:
    return None if program_folder() else "PostgreSQL is not installed"


def server_user() -> str | None:
    """The user to run as; None where we are no root and run as ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@dataclass
class Server:
    """A running PostgreSQL; ``stop`` and ``start`` keep its port and data."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    # Whether it asks everybody but its own user for a password.
    passwords: bool = False
    # With these it speaks TLS and nothing else.
    certificates: Certificates | None = None

    @property
    def dsn(self) -> str:
        return f"postgresql://fraud@127.0.0.1:{self.port}/postgres"

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    def _start(self, *command: str, output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        """One of PostgreSQL's programs as the user that it accepts; both its outputs go to ``output``."""
        user = server_user()
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
            extra_groups=None if user is None else [],
        )

    def _run(self, program: str, *arguments: str) -> None:
        binaries = program_folder()
        assert binaries is not None
        process = self._start(str(binaries / program), *arguments, output=subprocess.PIPE)
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{program} failed: {output.decode()}")

    def _own_folder(self) -> str | None:
        user = server_user()
        if user is not None:
            shutil.chown(self.folder, user)
        return user

    def copy(self, primary: Server) -> None:
        """The data of a primary that runs, whose standby this server then is until it is promoted."""
        self._own_folder()
        source = ("--host=127.0.0.1", f"--port={primary.port}", "--username=fraud")
        self._run(
            "pg_basebackup", f"--pgdata={self.folder}/data", *source,
            "--write-recovery-conf", "--checkpoint=fast", "--no-sync",
        )  # fmt: skip

    def promote(self) -> None:
        """Makes a standby the primary."""
        self._run("pg_ctl", "promote", "--wait", "-D", f"{self.folder}/data")

    def format(self) -> None:
        user = self._own_folder()
        self._run("initdb", f"--pgdata={self.folder}/data", *_INITDB)
        if self.passwords:
            rules = "host all fraud 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
            self._rules(rules)
        if self.certificates is not None:
            self._rules("hostssl all all 127.0.0.1/32 trust\n")
            for file in (self.certificates.server, self.certificates.key):
                # It refuses a key that others could read.
                own = self.folder / "data" / file.name
                shutil.copyfile(file, own)
                own.chmod(0o600)
                if user is not None:
                    shutil.chown(own, user)

    def _rules(self, rules: str) -> None:
        (self.folder / "data/pg_hba.conf").write_text(rules)

    def start(self) -> None:
        binaries = program_folder()
        assert binaries is not None
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "max_connections": 30,
            **({} if self.certificates is None else {"ssl": "on"}),
        }
        arguments = [f"-c{name}={value}" for name, value in settings.items()]
        with self.log.open("ab") as log:
            self.process = self._start(
                str(binaries / "postgres"), "-D", str(self.folder / "data"), *arguments, output=log
            )
        wait_for(self._answers, 30, f"PostgreSQL on port {self.port}, see {self.log}")

    def _answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended:\n{self.log.read_text()[-2000:]}")
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", self.port)):
                return False
        said = self.log.read_text().rsplit("starting PostgreSQL", 1)[-1]
        return "ready to accept connections" in said or "ready to accept read-only connections" in said

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is PostgreSQL's fast shutdown; SIGQUIT its crash."""
        if self.process is not None:
            end(self.process, how, 20)
        self.process = None


def either(*servers: Server) -> str:
    """The address of several servers, of which one takes writes."""
    return f"postgresql://fraud@{','.join(f'127.0.0.1:{one.port}' for one in servers)}/postgres"


@contextmanager
def standby(primary: Server) -> Iterator[Server]:
    """A fresh standby of that primary for the block."""
    folder = Path(tempfile.mkdtemp(prefix="fraud-postgres-"))
    running = Server(folder)
    try:
        running.copy(primary)
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server(passwords: bool = False, certificates: Certificates | None = None) -> Iterator[Server]:
    """A fresh PostgreSQL for the block."""
    folder = Path(tempfile.mkdtemp(prefix="fraud-postgres-"))
    running = Server(folder, passwords=passwords, certificates=certificates)
    try:
        running.format()
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)
