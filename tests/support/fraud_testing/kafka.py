"""A real Kafka broker (KRaft, one node) on free loopback ports, for tests of every component.

It runs from the jars in ``$FRAUD_CACHE/kafka/libs``; where they or Java are missing, ``missing()`` says so and a test
skips by that name. Producers here hash keys as the platform does (``murmur2_random``, the Java clients' default):
librdkafka's own default would put an entity's records on another partition.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from fraud_testing.ending import end

CACHE = Path(os.environ.get("FRAUD_CACHE", Path.home() / ".cache" / "fraud-platform"))
LIBS = CACHE / "kafka" / "libs"
CLUSTER_ID = "ZnJhdWQtdGVzdC1rYWZrYQ"
START_SECONDS = 90.0
T = TypeVar("T")
# Answers of a fresh broker whose offsets topic is still being made.
_LOADING = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
)

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{behind}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{before}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=16777216
"""
_LOG4J = """\
<Configuration><Appenders><Console name="c"><PatternLayout pattern="%d %p %c{1} %m%n"/></Console></Appenders>
<Loggers><Root level="WARN"><AppenderRef ref="c"/></Root></Loggers></Configuration>
"""
_HANDED_OUT: set[int] = set()


def missing() -> str | None:
    """What keeps a broker from starting on this machine; None where nothing does."""
    if shutil.which("java") is None:
        return "java is not installed"
    if not any(LIBS.glob("kafka_2.13-*.jar")):
        return f"no Kafka in {LIBS}: make programs"
    return None


def free_port() -> int:
    """A port on which nobody listens. None comes twice, since the server that is to have it may not have begun yet."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _HANDED_OUT:
            _HANDED_OUT.add(port)
            return port


def wait_for(condition: Callable[[], T | None], seconds: float, what: str, pause: float = 0.05) -> T:
    """Polls until the condition gives something true, ``pause`` seconds between looks; TimeoutError names what was awaited."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(pause)


@dataclass
class Broker:
    """A running broker; ``stop`` and ``start`` keep its ports and its data, so a test can take it away for a while.

    ``proxy_port``: where a proxy stands before the broker's second listener ``behind``, which tells clients that port.
    ``properties`` are further settings, which count where they say another thing than the usual ones.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    controller: int = field(default_factory=free_port)
    proxy_port: int | None = None
    behind: int = field(default_factory=free_port)
    properties: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "broker.log"

    def format(self) -> None:
        """Writes the settings and formats the data folder: once, before the first start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        properties = self.folder / "server.properties"
        proxied = self.proxy_port is not None
        properties.write_text(
            _PROPERTIES.format(
                port=self.port,
                controller=self.controller,
                folder=self.folder,
                behind=f",PROXIED://127.0.0.1:{self.behind}" if proxied else "",
                before=f",PROXIED://127.0.0.1:{self.proxy_port}" if proxied else "",
            )
            + self.properties
        )
        (self.folder / "log4j2.xml").write_text(_LOG4J)
        process = subprocess.run(
            [
                *("java", "-Xshare:auto", "-cp", f"{LIBS}/*", "kafka.tools.StorageTool", "format"),
                *("--standalone", "-t", CLUSTER_ID, "-c", str(properties)),
            ],
            capture_output=True,
            text=True,
        )
        if process.returncode:
            raise RuntimeError(f"formatting Kafka's storage failed: {process.stdout}{process.stderr}")

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("java", "-Xmx384m", "-Xms128m", "-XX:MaxDirectMemorySize=128m"),
                    *("-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={self.folder}/log4j2.xml"),
                    *("-cp", f"{LIBS}/*", "kafka.Kafka", str(self.folder / "server.properties")),
                ],
                stdout=log,
                stderr=log,
            )
        wait_for(self._answers, START_SECONDS, f"Kafka on {self.bootstrap}, see {self.log}")

    def _answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"Kafka ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", self.port)):
                return False
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=2).brokers)
        except Exception:  # a broker that listens but isn't registered yet; asked again until the deadline
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            end(self.process, how, 30)
        self.process = None

    def create(
        self, topics: Iterable[str], partitions: int = 1, config: Mapping[str, str] | None = None
    ) -> None:
        """Creates topics and waits until the broker lists them."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        wanted = [NewTopic(t, partitions, 1, config=dict(config or {})) for t in topics]
        for future in admin.create_topics(wanted).values():
            future.result(30)
        names = {topic.topic for topic in wanted}
        wait_for(lambda: names <= set(admin.list_topics(timeout=5).topics), 30, f"topics {sorted(names)}")

    def remake(self, topic: str, partitions: int = 1) -> None:
        """Deletes a topic and makes one of its name."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for future in admin.delete_topics([topic]).values():
            future.result(30)
        wait_for(lambda: topic not in admin.list_topics(timeout=5).topics, 30, f"{topic} to go")
        self.create([topic], partitions)

    def create_detector_topics(self, identity: str, partitions: int = 1) -> None:
        """The ten topics of a detector, with the settings that matter to a reader."""
        stamped = {"message.timestamp.type": "LogAppendTime"}
        compacted = {"cleanup.policy": "compact"}
        for nouns, config in (
            (("transactions", "accepted", "label-reports"), stamped),
            (("labels", "features", "dead-letters", "decisions", "alerts"), {}),
            (("profiles", "seeds"), compacted),
        ):
            self.create([f"{identity}.{noun}.v1" for noun in nouns], partitions, config)

    def producer(self, **settings: object) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 0,
                **{name.replace("_", "."): value for name, value in settings.items()},
            }
        )

    def produce(
        self,
        topic: str,
        records: Iterable[tuple[bytes | str | None, bytes | str | None]],
        partition: int | None = None,
    ) -> None:
        """Sends (key, value) pairs in order and returns when the broker has them all."""
        producer = self.producer()
        failed: list[object] = []

        def delivered(error: object, _: object) -> None:
            if error is not None:
                failed.append(error)

        for key, value in records:
            more = {} if partition is None else {"partition": partition}
            while True:
                try:
                    producer.produce(topic, value, key, on_delivery=delivered, **more)
                    break
                except BufferError:
                    producer.poll(0.1)
        left = producer.flush(60)
        if left or failed:
            raise RuntimeError(f"{left} records to {topic} not delivered; errors {failed[:3]}")

    def read(self, topic: str, committed: bool = False) -> list[Message]:
        """Everything in a topic now, partition by partition, each in order."""
        consumer = self.consumer("reader", committed=committed)
        try:
            messages: list[Message] = []
            for partition in consumer.list_topics(topic, 10).topics[topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)
                if high == low:
                    continue
                consumer.assign([TopicPartition(topic, partition, low)])
                while True:
                    message = consumer.poll(1.0)
                    if message is not None and message.error() is None:
                        messages.append(message)
                    # Position, not the last record's offset: transaction markers and compaction leave holes.
                    position = consumer.position([TopicPartition(topic, partition)])[0].offset
                    if position >= high:
                        break
            return messages
        finally:
            consumer.close()

    def count(self, topic: str) -> int:
        """Sum of the end offsets: how many records were ever appended."""
        consumer = self.consumer("counter")
        try:
            partitions = consumer.list_topics(topic, 10).topics[topic].partitions
            return sum(consumer.get_watermark_offsets(TopicPartition(topic, p), 10)[1] for p in partitions)
        finally:
            consumer.close()

    def consumer(self, group: str, committed: bool = True, **settings: object) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.partition.eof": False,
                "isolation.level": "read_committed" if committed else "read_uncommitted",
                **{name.replace("_", "."): value for name, value in settings.items()},
            }
        )

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """A group's committed offset by partition; -1001 where there is none."""
        consumer = self.consumer(group)
        try:
            partitions = consumer.list_topics(topic, 10).topics[topic].partitions
            asked = [TopicPartition(topic, p) for p in partitions]

            def ask() -> list[TopicPartition] | None:
                try:
                    places: list[TopicPartition] = consumer.committed(asked, 10)
                    return places
                except KafkaException as error:
                    if error.args[0].code() not in _LOADING:
                        raise
                    return None

            places = wait_for(ask, 30, "the group coordinator")
            return {place.partition: place.offset for place in places}
        finally:
            consumer.close()


@contextmanager
def broker(folder: Path | None = None, proxy_port: int | None = None) -> Iterator[Broker]:
    """A fresh broker for the block; its folder goes with it unless one is given."""
    own = folder is None
    where = Path(tempfile.mkdtemp(prefix="fraud-kafka-")) if folder is None else folder
    running = Broker(where, proxy_port=proxy_port)
    try:
        running.format()
        running.start()
        yield running
    finally:
        running.stop()
        if own:
            shutil.rmtree(where, ignore_errors=True)
