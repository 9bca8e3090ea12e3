"""The id that a topic got when it was made: one that is made anew under its name has another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient


def topic_id(settings: Mapping[str, Any], topic: str, seconds: float) -> str:
    """In base64; the zero UUID from a broker without ids (before Kafka 2.8).

    ``settings`` are those of any client. KafkaException where the topic isn't there, or Kafka gives no answer in time.
    """
    admin = AdminClient(dict(settings))  # kept by a name until the answer is there
    described = admin.describe_topics(TopicCollection([topic]), request_timeout=seconds)
    return str(described[topic].result(seconds + 1).topic_id)
