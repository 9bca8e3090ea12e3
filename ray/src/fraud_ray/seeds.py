"""Seeds to Kafka: each key's profile at the end of history, from which a streaming job starts warm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from fraud_contracts.names import seed_key
from fraud_contracts.training_end import EndReason
from fraud_process.kafka import KafkaAccess
from fraud_ray.errors import TrainingError

_TIMEOUT_S: Final = 120


class KafkaSeeds:
    """Writes (profile key, profile) pairs under the run's name; -> how many were acknowledged by all replicas.

    ``run`` is what ``names.training_run`` gives.
    """

    def __init__(self, kafka: KafkaAccess, topic: str, run: str) -> None:
        self._topic, self._run = topic, run
        self._kafka = kafka

    def __call__(self, profiles: Iterable[tuple[str, bytes]]) -> int:
        producer = Producer(self._kafka.producer_settings(linger_ms=50, message_timeout_ms=_TIMEOUT_S * 1000))
        failures: list[str] = []
        done = 0

        def delivered(error: Any, message: Any) -> None:
            nonlocal done
            if error is None:
                done += 1
            else:
                failures.append(str(error))

        sent = 0
        for key, profile in profiles:
            while True:
                try:
                    producer.produce(
                        self._topic,
                        key=seed_key(key, self._run).encode(),
                        value=profile,
                        on_delivery=delivered,
                    )
                    break
                except BufferError:  # the queue is full; wait for acknowledgements
                    producer.poll(1.0)
                except KafkaException as error:
                    raise TrainingError(EndReason.SEEDS_NOT_WRITTEN, f"{self._topic}: {error}") from error
            sent += 1
            producer.poll(0)
            if failures:
                break
        left = producer.flush(_TIMEOUT_S)
        if failures or left or done != sent:
            first = failures[0] if failures else "no acknowledgement in time; does the broker answer?"
            raise TrainingError(
                EndReason.SEEDS_NOT_WRITTEN, f"{self._topic}: {done} of {sent} seeds were written: {first}"
            )
        return done
