"""Sends transactions to Kafka, one JSON object a line of standard input: python producer.py BOOTSTRAP TOPIC KEY_FIELD

Needs confluent-kafka. KEY_FIELD is the field of the first entity: a customer's transactions then stay in order.
"""

import json
import os
import sys

from confluent_kafka import Producer

bootstrap, topic, key_field = sys.argv[1:]
# Where the listener wants a login: a managed Kafka's does.
login = {}
if "KAFKA_USERNAME" in os.environ:
    login = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": os.environ["KAFKA_USERNAME"],
        "sasl.password": os.environ["KAFKA_PASSWORD"],
        "ssl.ca.location": os.environ["KAFKA_CA_FILE"],
    }
producer = Producer(
    {
        "bootstrap.servers": bootstrap,
        **login,
        "acks": "all",
        "enable.idempotence": True,
        # librdkafka's default hashes keys in another way than the Java client does.
        "partitioner": "murmur2_random",
    }
)
failed = []


def delivered(error, _message):
    if error is not None:
        failed.append(str(error))


for line in sys.stdin:
    key = str(json.loads(line)[key_field])
    while True:
        try:
            producer.produce(topic, line.encode(), key.encode(), on_delivery=delivered)
            break
        except BufferError:  # the queue is full: wait for acknowledgements
            producer.poll(1)
left = producer.flush(60)
if left or failed:
    sys.exit(f"{left + len(failed)} transactions were not acknowledged; send them again: {failed[:1]}")
