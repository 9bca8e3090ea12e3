"""A real Redis with a replica and the Sentinels that watch them, on free loopback ports, for tests of a master that moves."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

from fraud_contracts.names import Identity
from fraud_testing import redis
from fraud_testing.certificates import Certificates
from fraud_testing.ending import end
from fraud_testing.kafka import free_port, wait_for
from fraud_testing.redis import Server, asked, listening

NAME = "tests"
# All that a Sentinel's user needs, as docs/stores.md has it.
READER_RIGHTS = (
    "-@all", "+auth", "+hello", "+ping", "+sentinel|get-master-addr-by-name", "+sentinel|master", "+sentinel|slaves",
)  # fmt: skip
# After so long without an answer a Sentinel holds a master for down.
DOWN_MS = 1_000
# One that was held up itself for two seconds, as on a machine that is busy, decides nothing for thirty.
MOVED_SECONDS = 90


@dataclass
class Sentinel:
    """One that watches a master, which it calls ``name``, and has ``quorum - 1`` others agree before it promotes a replica."""

    folder: Path
    master: Server
    quorum: int
    name: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.port}.log"

    def start(self) -> None:
        settings = [
            f"sentinel monitor {NAME} {self.name} {self.master.port} {self.quorum}",
            f"sentinel down-after-milliseconds {NAME} {DOWN_MS}",
            f"sentinel failover-timeout {NAME} 2000",
        ]
        file = self.folder / f"{self.port}.conf"
        file.write_text("\n".join(settings) + "\n")
        listen = listening(self.port, self.master.certificates)
        with self.log.open("ab") as log:
            command = ["redis-server", str(file), "--sentinel", *listen, "--dir", str(self.folder)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self, how: Signals = SIGTERM) -> None:
        if self.process is not None:
            end(self.process, how, 10)
        self.process = None


@dataclass
class Group:
    """``servers[0]`` is the master at first, the others are its replicas."""

    servers: list[Server]
    sentinels: list[Sentinel]

    @property
    def url(self) -> str:
        return self._address("", self.sentinels)

    def login(self, identity: Identity, by: list[Sentinel] | None = None) -> str:
        """The address by which a detector's processes log in, whichever server is the master; ``by`` are other Sentinels."""
        logins = [server.login(identity) for server in self.servers]
        own = logins[0].partition("://")[2].rpartition("@")[0]
        return self._address(f"{own}@", by or self.sentinels)

    def with_reader(self, address: str) -> str:
        """That address with a user of the Sentinels' own, the only one that they let in then."""
        for one in self.sentinels:
            asked(
                one.port, one.master.certificates, "ACL", "SETUSER", "reader", "on", ">read", *READER_RIGHTS
            )
            asked(one.port, one.master.certificates, "ACL", "SETUSER", "default", "off")
        return f"{address}&sentinel_username=reader&sentinel_password=read"

    def _address(self, login: str, sentinels: list[Sentinel]) -> str:
        scheme = "redis" if self.servers[0].certificates is None else "rediss"
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        nodes = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"{scheme}+sentinel://{login}{hosts}/{NAME}/0?nodes={nodes}"

    def master(self) -> Server | None:
        """The server that takes writes, where just one does."""
        masters = [server for server in self.servers if server.process is not None and _is_master(server)]
        return masters[0] if len(masters) == 1 else None

    def failover(self) -> None:
        """Has a Sentinel promote the replica while the master lives."""
        one = self.sentinels[0]

        def taken() -> bool:
            try:
                asked(one.port, one.master.certificates, "SENTINEL", "FAILOVER", NAME)
            except RuntimeError as error:  # it hasn't heard enough of the replica yet
                assert "NOGOODSLAVE" in str(error)
                return False
            return True

        wait_for(taken, 20, f"the Sentinel, see {one.log}")

    def replicated(self) -> bool:
        """Whether the replica has all that the master has."""
        return len({_offset(server) for server in self.servers}) == 1

    def end_master(self) -> Server:
        """Kills it once the replica has all that it has; -> the server that follows it."""
        former = self.master()
        assert former is not None
        wait_for(self.replicated, 20, "the replica")
        former.stop(SIGKILL)
        return wait_for(self.master, MOVED_SECONDS, f"a new master, see {self.sentinels[0].log}")


def _offset(server: Server) -> str:
    """How far it is in the stream of writes."""
    return server.text("INFO", "replication").partition("master_repl_offset:")[2].split()[0]


def _is_master(server: Server) -> bool:
    return "role:master" in server.text("INFO", "replication")


def missing() -> str | None:
    return redis.missing()


@contextmanager
def watcher(master: Server, name: str) -> Iterator[Sentinel]:
    """A Sentinel that knows the master by another name than the others do, for the block."""
    with tempfile.TemporaryDirectory(prefix="fraud-sentinel-") as folder:
        one = Sentinel(Path(folder), master, 1, name)
        one.start()
        try:
            yield one
        finally:
            one.stop()


@contextmanager
def group(sentinels: int = 1, certificates: Certificates | None = None) -> Iterator[Group]:
    """A fresh master with one replica that has its data, and Sentinels that know both and one another, for the block."""
    folder = Path(tempfile.mkdtemp(prefix="fraud-sentinel-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        master = stack.enter_context(redis.server(certificates=certificates))
        replica = stack.enter_context(redis.server(certificates=certificates, primary=master))
        watchers = [Sentinel(folder, master, sentinels // 2 + 1) for _ in range(sentinels)]
        for one in watchers:
            stack.callback(one.stop)
            one.start()
        wait_for(lambda: "master_link_status:up" in replica.text("INFO", "replication"), 20, "the replica")
        for one in watchers:
            wait_for(partial(_knows, one.log, sentinels - 1), 30, f"the Sentinel, see {one.log}")
        yield Group([master, replica], watchers)


def _knows(log: Path, others: int) -> bool:
    """Whether a Sentinel says that it has found the replica and the other Sentinels."""
    said = log.read_text()
    return "+slave slave" in said and said.count("+sentinel sentinel") >= others
