"""The trial's Redis and PostgreSQL as the chart starts them: by TLS alone, with passwords and certificates that change under whoever is connected."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import redis
from cryptography import x509
from psycopg import conninfo

from fraud_contracts.config import CA_CERT
from fraud_contracts.names import Identity
from fraud_operator import certificates, postgres_logins, redis_logins
from fraud_operator.certificates import CA_KEY, SETTLED
from fraud_operator.store_login import StoreAdmin, new_login
from fraud_testing import postgres as postgres_server
from fraud_testing import redis as redis_server
from fraud_testing.ending import end
from fraud_testing.kafka import free_port, wait_for
from fraud_testing.operator_process import find, render
from fraud_testing.required import require

pytestmark = pytest.mark.integration
DETECTOR = Identity("pay", "cards")
# How a client of PostgreSQL asks for TLS.
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@dataclass
class Trial:
    """A store of the trial in a folder of its own. ``secret`` has what the release's Secret has of it beside the password."""

    store: str
    folder: Path
    password: str
    user: str | None = None
    port: int = field(default_factory=free_port)
    secret: dict[str, str] = field(default_factory=dict)

    def write(self, now: datetime) -> None:
        """The chart's files, the password, and a certificate as it is due at ``now``, as the kubelet brings them."""
        server = self.store.upper()
        self.secret |= certificates.lacking(self.secret, {server: (f"trial-{self.store}",)}, now)
        files = {
            f"config/{name}": self._moved(text)
            for name, text in find(render(), "ConfigMap", f"fraud-platform-{self.store}")["data"].items()
        }
        files |= {
            "own/password": self.password,
            "own/tls.crt": self.secret[f"{server}_TLS_CERT"],
            "own/tls.key": self.secret[f"{server}_TLS_KEY"],
        }
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            part = path.with_name(f"{path.name}.part")
            part.write_text(text)
            part.chmod(0o600)
            if self.user is not None:
                shutil.chown(part, self.user)
            part.replace(path)
        (self.folder / "data").mkdir(exist_ok=True)
        if self.user is not None:
            subprocess.run(["chown", "-R", self.user, str(self.folder)], check=True)

    def _moved(self, text: str) -> str:
        """The chart's text with this test's paths, address and port."""
        here = str(self.folder)
        places = {
            "/etc/fraud-server": f"{here}/own",
            "/etc/fraud": f"{here}/config",
            "/tmp": here,
            "/data": f"{here}/data",
            "listen_addresses='*'": "listen_addresses=127.0.0.1",
            "0.0.0.0": "127.0.0.1",
            "6379": str(self.port),
            "5432": str(self.port),
            "sleep 10": "sleep 0.2",
        }
        return re.sub("|".join(map(re.escape, places)), lambda match: places[match[0]], text)

    @contextmanager
    def running(self, answers: Callable[[], bool]) -> Iterator[None]:
        env = dict(os.environ)
        if self.store == "postgres":
            env["PATH"] = f"{postgres_server.program_folder()}:{env['PATH']}"
        command = ["sh", str(self.folder / "config/start.sh")]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command, env=env, cwd=self.folder, user=self.user, extra_groups=None if self.user is None else [],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            wait_for(answers, 40, f"the trial's {self.store}, see {self.folder}/log")
            yield
        finally:
            end(process, signal.SIGINT, 20)
            os.killpg(process.pid, signal.SIGKILL)  # what looks for another password or certificate

    def shows_its_own(self) -> bool:
        """Whether the server shows the Secret's certificate, which is verified."""
        own = x509.load_pem_x509_certificate(self.secret[f"{self.store.upper()}_TLS_CERT"].encode())
        context = ssl.create_default_context(cadata=self.secret[CA_CERT])
        with socket.create_connection(("127.0.0.1", self.port), 5) as plain:
            if self.store == "postgres":
                plain.sendall(SSL_REQUEST)
                assert plain.recv(1) == b"S"
            try:
                with context.wrap_socket(plain, server_hostname="localhost") as wire:
                    shown = wire.getpeercert()
            except ssl.SSLCertVerificationError:  # the former one, by an authority that is gone
                return False
        assert shown is not None
        return int(str(shown["serialNumber"]), 16) == own.serial_number

    def renew(self) -> None:
        """A new certificate by another authority, which is told beside the former first; returns once the server shows it."""
        former = self.secret[CA_CERT]
        del self.secret[CA_KEY]
        self.write(datetime.now(UTC) - 2 * SETTLED)
        assert self.secret[CA_CERT].endswith(former) and self.secret[CA_CERT] != former
        wait_for(self.shows_its_own, 60, "the new certificate")
        self.write(datetime.now(UTC))
        wait_for(self.shows_its_own, 60, "the new certificate")

    def change(self, password: str, lets_in: Callable[[str], bool]) -> None:
        """Another password, with the certificate that is there; returns once the server takes it, and no earlier one any more."""
        before, self.password = self.password, password
        self.write(datetime.now(UTC))
        wait_for(lambda: lets_in(password), 60, "the new password")
        assert not lets_in(before)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Outside of pytest's own, into which PostgreSQL's user can't look."""
    made = Path(tempfile.mkdtemp(prefix="fraud-trial-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_the_trials_redis(folder: Path) -> None:
    """Nobody gets in without TLS or a password; users outlive a restart with another password, connections a renewed certificate and another password.

    Its data take three quarters of the container's memory at most, and none of them is thrown out.
    """
    require(redis_server.missing())
    trial, login = Trial("redis", folder, "first"), new_login(DETECTOR.redis_logins, 1)
    trial.write(datetime.now(UTC) - timedelta(days=300))

    def admin(password: str) -> StoreAdmin:
        return StoreAdmin(f"rediss://:{password}@127.0.0.1:{trial.port}/0", trial.secret[CA_CERT])

    def connect(url: str) -> redis.Redis:
        tls = {"ssl_ca_certs": admin("").authority} if url.startswith("rediss") else {}
        return redis.Redis.from_url(url, **tls)

    def lets_in(url: str) -> bool:
        with closing(connect(url)) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    with trial.running(lambda: lets_in(admin("first").address)):
        redis_logins.ensure(admin("first"), DETECTOR, login, settled=True)
        own = redis_logins.address(admin("first").address, login)
        assert not lets_in(f"rediss://127.0.0.1:{trial.port}/0")
        assert not lets_in(own.replace("rediss", "redis"))
        assert "first" not in (folder / "data/users.acl").read_text()
        with closing(connect(admin("first").address)) as client:
            held = client.config_get("maxmemory*")
        [container] = find(render(), "Deployment", "fraud-platform-redis")["spec"]["template"]["spec"][
            "containers"
        ]
        assert container["resources"]["limits"]["memory"] == "1Gi"
        assert (held["maxmemory"], held["maxmemory-policy"]) == (str(3 * 2**30 // 4), "noeviction")
        with closing(connect(own)) as client:
            before = client.execute_command("PING"), client.connection_pool
            trial.renew()
            trial.change("second", lambda password: lets_in(admin(password).address))
            assert (client.ping(), client.connection_pool) == before
        # What the probes log in with.
        assert (folder / "password").read_text() == "second"
    trial.password = "third"
    trial.write(datetime.now(UTC))
    with trial.running(lambda: lets_in(admin("third").address)):
        assert lets_in(own)
        assert not lets_in(admin("second").address)


def test_the_trials_postgres(folder: Path) -> None:
    """Nobody gets in without TLS or a password; a session outlives a renewed certificate and another password, the data a restart with one."""
    require(postgres_server.missing())
    trial, login = (
        Trial("postgres", folder, "secret", postgres_server.server_user()),
        new_login(DETECTOR.database_logins, 1),
    )
    trial.write(datetime.now(UTC) - timedelta(days=300))

    def admin(password: str) -> StoreAdmin:
        file = StoreAdmin("", trial.secret[CA_CERT]).authority
        address = f"postgresql://fraud@127.0.0.1:{trial.port}/postgres?sslmode=verify-full&sslrootcert={file}"
        return StoreAdmin(conninfo.make_conninfo(address, password=password), trial.secret[CA_CERT])

    def lets_in(dsn: str) -> bool:
        try:
            with psycopg.connect(dsn, connect_timeout=3):
                return True
        except psycopg.OperationalError:
            return False

    def own() -> str:
        return postgres_logins.address(admin("").address, login)

    odd = 'it\'s \\ "odd" %s :now'
    with trial.running(lambda: lets_in(admin("secret").address)):
        postgres_logins.ensure(admin("secret"), DETECTOR, login, settled=True)
        assert not lets_in(own().replace("sslmode=verify-full", "sslmode=disable"))
        assert not lets_in(own().replace(login.password, "wrong"))
        with psycopg.connect(own(), autocommit=True) as session:
            session.execute(f"CREATE TABLE {DETECTOR.database_schema}.t AS SELECT 1 AS x")
            trial.renew()
            trial.change(odd, lambda password: lets_in(admin(password).address))
            assert session.execute(f"SELECT x FROM {DETECTOR.database_schema}.t").fetchone() == (1,)
    trial.password = f"{odd} too"
    trial.write(datetime.now(UTC))
    with trial.running(lambda: lets_in(own())), psycopg.connect(own()) as session:
        assert session.execute(f"SELECT x FROM {DETECTOR.database_schema}.t").fetchone() == (1,)
        assert lets_in(admin(trial.password).address)
        assert not lets_in(admin(odd).address)
    log = (folder / "log").read_text()
    assert "ALTER ROLE" not in log
