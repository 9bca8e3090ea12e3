"""A second detector beside a real one: all its credentials and hardly a Pod, so that a small cluster can have it for a test.

Its own components have no replicas. Its storage's key is a wrong one, so the operator makes neither streaming job nor training; its Kafka
is nowhere.
"""

from __future__ import annotations

from typing import Final

from fraud_contracts import object_store
from fraud_contracts.detector import Component
from fraud_operator.first_decision import rules_detector
from fraud_operator.objects import Json

NAMESPACE: Final = "probe-second"
NAME: Final = "second"
BUCKET_SECRET: Final = "probe-bucket"
# A run of training has no replicas, and a predictor may not be without any: both wait for a storage that never will do.
_LEFT_OUT: Final = (Component.TRAINING, Component.PREDICTOR)
# No other rule names it, so it opens no way that a probe would find.
KAFKA_PORT: Final = 19093


def second_detector(bucket: str) -> Json:
    """``bucket`` is the platform's own, in which it has a folder of its own in name only."""
    body = rules_detector(NAMESPACE, NAME)
    body["spec"] |= {
        # Which gives it logins to MLflow; it never trains, as its storage is none.
        "model": {"train": {}},
        "kafka": {
            "external": {"bootstrapServers": f"kafka.invalid:{KAFKA_PORT}"},
            "partitions": 1,
        },
        "storage": {
            "uri": f"s3://{bucket}/{NAMESPACE}.{NAME}",
            "secretRef": {"name": BUCKET_SECRET},
        },
        "components": [{"name": one, "replicas": 0} for one in Component if one not in _LEFT_OUT],
    }
    return body


def bucket_secret(endpoint: str) -> Json:
    """Keys that open nothing, at the platform's object store."""
    values = {
        object_store.ACCESS_KEY: "probe",
        object_store.SECRET_KEY: "opens-nothing",
        object_store.ENDPOINT: endpoint,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": BUCKET_SECRET, "namespace": NAMESPACE},
        "stringData": values,
    }
