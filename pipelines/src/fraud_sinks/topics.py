"""The ids of topics (KIP-516). A topic that was deleted and recreated has the same name, but another id."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from fraud_contracts.errors import StoreError
from fraud_sinks.records import Place, TopicRecreatedError

log = logging.getLogger(__name__)

SECONDS: Final = 10
NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # the zero UUID: a broker without ids says it of every topic


class TopicIds:
    """The ids of the topics that one loop reads. They are fixed for its life: another id ends it (TopicRecreatedError)."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._ids: dict[str, str] = {}
        self._requests: dict[str, Future[Any]] = {}

    def place(self, topic: str, partition: int) -> Place:
        return Place(topic, partition, self._ids.get(topic, ""))

    def ask(self, topics: Collection[str]) -> Mapping[str, str]:
        """The ids by name, "" where there is none. KafkaException where the broker doesn't know a topic or doesn't answer."""
        self._requests = {}
        for topic, future in self._describe(topics).items():
            self._note(topic, future)
        return {topic: self._ids[topic] for topic in topics}

    def check(self) -> None:
        """Checks that all topics are still the same. Never waits: it reads the answers to the requests of its last call."""
        if not all(future.done() for future in self._requests.values()):
            return
        answers, self._requests = self._requests, {}
        for topic, future in answers.items():
            try:
                self._note(topic, future)
            except (KafkaException, StoreError) as error:
                if isinstance(error, TopicRecreatedError):
                    raise
                log.warning("no topic id", extra={"data": {"topic": topic, "error": str(error)}})
        self._requests = self._describe(self._ids)

    def _describe(self, topics: Collection[str]) -> dict[str, Future[Any]]:
        if not topics:
            return {}
        collection = TopicCollection(sorted(topics))
        return dict(self._admin.describe_topics(collection, request_timeout=SECONDS))

    def _note(self, topic: str, future: Future[Any]) -> None:
        try:
            topic_id = str(future.result(SECONDS + 1).topic_id)
        except TimeoutError as error:
            raise StoreError("kafka", f"no answer about topic {topic}") from error
        topic_id = "" if topic_id == NO_ID else topic_id
        if self._ids.setdefault(topic, topic_id) != topic_id:
            raise TopicRecreatedError(
                "kafka", f"topic {topic} was made anew: it was {self._ids[topic]}, is {topic_id}"
            )
