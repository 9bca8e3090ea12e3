"""Prints decisions as they come: python consumer.py BOOTSTRAP TOPIC GROUP

Needs confluent-kafka. Ends when none came for five seconds; a service would go on.
"""

import os
import sys

from confluent_kafka import Consumer

bootstrap, topic, group = sys.argv[1:]
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
consumer = Consumer(
    {
        "bootstrap.servers": bootstrap,
        **login,
        "group.id": group,
        "auto.offset.reset": "earliest",
        # Decisions are written in transactions; anything else would show those that were taken back, too.
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
    }
)
consumer.subscribe([topic])
last = None
try:
    # The first wait is longer: the group has to be formed.
    while (message := consumer.poll(5 if last else 30)) is not None:
        if message.error():
            sys.exit(str(message.error()))
        last = message
        print(message.value().decode(), flush=True)
        consumer.commit(message, asynchronous=False)  # after the work, so that nothing is skipped
finally:
    consumer.close()
