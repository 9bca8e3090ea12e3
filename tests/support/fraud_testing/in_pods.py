"""Short programs that a test runs in Pods of the platform, by kubectl exec: with the Pod's own files, logins and packages.

A secret comes by standard input, since a command line is shown to more than one who asks.
"""

from __future__ import annotations

from typing import Final

# The serial number of the certificate that a server shows, once it is completed. Host, port, store, the authority's file.
CERTIFICATE: Final = """
import socket, ssl, struct, sys
host, port, store, authority = sys.argv[1:]
plain = socket.create_connection((host, int(port)), 5)
if store == "postgres":
    plain.sendall(struct.pack("!ii", 8, 80877103))
    assert plain.recv(1) == b"S"
with ssl.create_default_context(cafile=authority).wrap_socket(plain, server_hostname=host) as wire:
    print(wire.getpeercert()["serialNumber"])
"""
# Whether an address of a store lets in: in, refused, or away. Its key in the Secret.
STORE: Final = """
import sys
import psycopg, redis
from fraud_process.postgres import completed, refusal
from fraud_process.redis_store import connected
from fraud_process.store_address import store_address
key, address = sys.argv[1], sys.stdin.read()
authority = store_address(key).authority
try:
    if key == "REDIS_URL":
        connected(address, authority, 5).ping()
    else:
        psycopg.connect(completed(address, authority), connect_timeout=5).close()
    print("in")
except redis.AuthenticationError:
    print("refused")
except psycopg.OperationalError as error:
    print("refused" if refusal(error) else "away")
except redis.RedisError:
    print("away")
"""
# Whether the trial's MLflow, asked in its own Pod, lets the platform's user in by a password. It stands between single quotes.
MLFLOW: Final = """
import base64, sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen
login = base64.b64encode(b"fraud:" + sys.stdin.buffer.read()).decode()
try:
    urlopen(Request("http://127.0.0.1:5000/api/2.0/mlflow/users/list", headers={"Authorization": "Basic " + login}), timeout=10)
    print("in")
except HTTPError:
    print("refused")
"""
# Whether Kafka lets the Pod's user in with a password: in, refused, or away.
KAFKA: Final = """
import sys
from dataclasses import replace
from pathlib import Path
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from fraud_contracts.config import load_config
from fraud_process.kafka import KafkaLogin, client_settings
address, said = load_config().kafka, []
login = replace(KafkaLogin.read(Path(address.login)), password=sys.stdin.read())
settings = client_settings(address.bootstrap_servers, login)
admin = AdminClient({**settings, "error_cb": lambda error: said.append(error.name()), "log_level": 0})
try:
    admin.list_topics(timeout=8)
    print("in")
except KafkaException:
    admin.poll(1)
    print("refused" if "_AUTHENTICATION" in said else "away")
"""
# What the ledger has of decisions whose ids begin so: gzip in base64, one JSON object a line, with these fields of each.
LEDGER: Final = """
import base64, gzip, io, json, sys
import psycopg
from fraud_contracts.config import load_config
from fraud_process.postgres import address_of
from fraud_process.store_address import store_address
schema, run, fields = load_config().identity.database_schema, sys.argv[1], sys.argv[2:]
packed, query = io.BytesIO(), f'SELECT record FROM "{schema}".decisions WHERE starts_with(id, %s)'
with psycopg.connect(address_of(store_address("POSTGRES_DSN"))) as connection, connection.cursor("run") as cursor:
    with gzip.open(packed, "wt") as out:
        for (record,) in cursor.execute(query, (run,)):
            out.write(json.dumps({field: record.get(field) for field in fields}) + "\\n")
print(base64.b64encode(packed.getvalue()).decode())
"""
# How many decisions whose ids begin so are in the ledger, and how many came again as another one.
COUNT: Final = """
import json, sys
import psycopg
from fraud_contracts.config import load_config
from fraud_process.postgres import address_of
from fraud_process.store_address import store_address
schema, counts = load_config().identity.database_schema, []
with psycopg.connect(address_of(store_address("POSTGRES_DSN"))) as connection:
    for table in ("decisions", "decision_conflicts"):
        query = f'SELECT count(*) FROM "{schema}".{table} WHERE starts_with(id, %s)'
        counts.append(connection.execute(query, (sys.argv[1],)).fetchone()[0])
print(json.dumps(counts))
"""
# How many rows of the lake's decisions have ids that begin so, and how many ids these are.
LAKE: Final = """
import json, os, sys
from deltalake import DeltaTable
from fraud_contracts import lake
from fraud_contracts.config import load_config
uri = lake.table(load_config().storage_uri, lake.DECISIONS)
rows, ids = 0, set()
table = DeltaTable(uri, storage_options=lake.storage_options(uri, os.environ))
for batch in table.to_pyarrow_dataset().to_batches(columns=["id"]):
    found = [one for one in batch.column("id").to_pylist() if one.startswith(sys.argv[1])]
    rows += len(found)
    ids.update(found)
print(json.dumps([rows, len(ids)]))
"""
# Whether the trial's object store takes a key: in, refused, or away. Host and port, bucket, access key; its secret by standard input.
OBJECTS: Final = """
import sys
from pyarrow import fs
endpoint, bucket, access = sys.argv[1:]
store = fs.S3FileSystem(
    access_key=access, secret_key=sys.stdin.read(), endpoint_override=endpoint, scheme="http", region="us-east-1",
    retry_strategy=fs.AwsDefaultS3RetryStrategy(max_attempts=1),
)
try:
    store.get_file_info(fs.FileSelector(bucket))
    print("in")
except OSError as error:
    said = str(error).upper()
    print("refused" if any(word in said for word in ("INVALID_ACCESS_KEY_ID", "ACCESS_DENIED", "SIGNATURE")) else "away")
"""
