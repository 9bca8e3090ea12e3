"""Runs in a Pod of the operator's image, by ``python -c``: tries with all that the Pod holds what some or none may, and prints what came off.

Standard input is a JSON order: where everything is, and for which of two detectors it acts. What it writes it takes away again.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import psycopg
import redis
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from fraud_contracts import object_store
from fraud_contracts.config import KAFKA_LOGIN_PATH, POSTGRES_DSN, REDIS_URL, STORES_ENV, STORES_PATH
from fraud_contracts.names import Identity
from fraud_process.kafka import USERNAME, KafkaAccess
from fraud_process.postgres import completed
from fraud_process.redis_store import connected
from fraud_process.store_address import StoreAddress, store_address

SECONDS: Final = 3
REDIS_OWN: Final = "Redis: its detector's keys"
REDIS_OTHER: Final = "Redis: another detector's keys"
REDIS_SERVER: Final = "Redis: the server itself"
REDIS_OPEN: Final = "Redis: anything without a login"
POSTGRES_OWN: Final = "PostgreSQL: its detector's ledger"
POSTGRES_OTHER: Final = "PostgreSQL: another detector's ledger"
POSTGRES_SERVER: Final = "PostgreSQL: the server itself"
POSTGRES_OPEN: Final = "PostgreSQL: anything without a login"
MLFLOW_READ: Final = "MLflow: read its detector's model"
MLFLOW_WRITE: Final = "MLflow: write its detector's model"
MLFLOW_READ_OTHER: Final = "MLflow: read another detector's model"
MLFLOW_WRITE_OTHER: Final = "MLflow: write another detector's model"
MLFLOW_OPEN: Final = "MLflow: anything without a login"
OBJECTS_OWN: Final = "object store: its detector's folder"
OBJECTS_OTHER: Final = "object store: another folder of the platform's"
OBJECTS_OPEN: Final = "object store: anything without keys"
KAFKA_OPEN: Final = "Kafka: anything without a login"
FLINK_READ: Final = "Flink: state of the job"
FLINK_PROGRAM: Final = "Flink: a program of one's own"
RAY_OPEN: Final = "Ray: jobs without the run's token"
API_TOKEN: Final = "API server: a token"
API_OPEN: Final = "API server: Secrets without a token"

_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# What every account may ask about itself.
_EVERYBODYS: Final = ("authentication.k8s.io", "authorization.k8s.io")
_LOGINS: Final = ("fraud", "postgres")
_UNVERIFIED: Final = ssl._create_unverified_context()

Order = dict[str, Any]


def comes_off(errors: tuple[type[Exception], ...], *acts: Callable[[], Any]) -> bool:
    """Whether any of the acts ends without one of these errors; another error is a fault of ours, and raised."""
    for act in acts:
        try:
            act()
        except errors:
            continue
        return True
    return False


def status(url: str, headers: dict[str, str] | None = None, data: Any = None, method: str = "") -> int:
    """Of the answer; 0 where nobody answered."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **(headers or {})})
    request.method = method or ("GET" if body is None else "POST")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS, context=_UNVERIFIED) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def _held(key: str) -> StoreAddress | None:
    try:
        return store_address(key)
    except KeyError:
        return None


def redis_deeds(order: Order) -> set[str]:
    errors, deeds = (redis.RedisError, OSError), set()
    host, port = order["redis"]
    bare = connected(f"rediss://{host}:{port}/0?ssl_cert_reqs=none&ssl_check_hostname=false", None, SECONDS)
    if comes_off(errors, lambda: bare.execute_command("GET", "x")):
        deeds.add(REDIS_OPEN)
    address = _held(REDIS_URL)
    if address is None:
        return deeds
    client = connected(address.read(), address.authority, SECONDS)

    def send(*command: str) -> Callable[[], Any]:
        return lambda: client.execute_command(*command)

    own, other = f"{order['own']}:probe", f"{order['other']}:probe"

    def write_read_and_delete() -> None:
        client.set(own, "x", ex=60)
        client.get(own)
        client.delete(own)

    others = (
        send("GET", other),
        send("SET", other, "x", "EX", "60"),
        send("DEL", other),
        send("EVAL", "return redis.call('GET', KEYS[1])", "1", other),
        send("EVAL", f"return redis.call('SET', '{other}', 'x', 'EX', '60')", "0"),
    )
    server = (
        send("CONFIG", "GET", "maxmemory"),
        send("ACL", "LIST"),
        send("CLIENT", "LIST"),
        send("INFO"),
        send("KEYS", "*"),
        send("SCAN", "0"),
        send("DBSIZE"),
        send("MODULE", "LIST"),
        send("PUBLISH", "probe", "x"),
        send("SLOWLOG", "GET"),
    )
    found = ((REDIS_OWN, (write_read_and_delete,)), (REDIS_OTHER, others), (REDIS_SERVER, server))
    return deeds | {deed for deed, acts in found if comes_off(errors, *acts)}


def postgres_deeds(order: Order) -> set[str]:
    deeds = set()
    host, port = order["postgres"]

    def enter(user: str) -> Callable[[], Any]:
        address = {"host": host, "port": port, "user": user, "dbname": "postgres", "sslmode": "require"}
        return lambda: psycopg.connect(**address, connect_timeout=SECONDS).close()

    if comes_off((psycopg.Error,), *map(enter, _LOGINS)):
        deeds.add(POSTGRES_OPEN)
    address = _held(POSTGRES_DSN)
    if address is None:
        return deeds
    dsn = completed(address.read(), address.authority)

    def run(statement: str) -> list[Any]:
        """Undone at once."""
        with (
            psycopg.connect(dsn, connect_timeout=SECONDS) as connection,
            connection.transaction(force_rollback=True),
        ):
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def runs(*statements: str) -> bool:
        return comes_off((psycopg.Error,), *(lambda text=text: run(text) for text in statements))

    own, other = Identity.parse(order["own"]), Identity.parse(order["other"])
    if not runs(f"CREATE TABLE {own.database_schema}.probe (a int)"):
        return deeds
    tables = run(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE n.nspname = '{other.database_schema}' AND c.relkind IN ('r', 'p', 'v')"
    )
    others = (
        f"CREATE TABLE {other.database_schema}.probe (a int)",
        f"SET ROLE {other.database_owner}",
        *(f"SELECT 1 FROM {table} LIMIT 1" for (table,) in tables),
    )
    server = (
        "CREATE ROLE probe",
        "CREATE SCHEMA probe",
        "CREATE TABLE public.probe (a int)",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('PG_VERSION')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    )
    found = ((POSTGRES_OTHER, others), (POSTGRES_SERVER, server))
    return {*deeds, POSTGRES_OWN} | {deed for deed, statements in found if runs(*statements)}


def _mlflow_login() -> dict[str, str]:
    """The header of the login in the mounted address, in files beside it, or in variables; none where there is no login."""
    folder = Path(os.environ.get(STORES_ENV, STORES_PATH))

    def held(name: str) -> str:
        file = folder / f"MLFLOW_TRACKING_{name}"
        return file.read_text().strip() if file.exists() else os.environ.get(file.name, "")

    address, token = urlsplit(held("URI")), held("TOKEN")
    user, password = address.username or held("USERNAME"), address.password or held("PASSWORD")
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user and password:
        encoded = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        return {"Authorization": f"Basic {encoded}"}
    return {}


def mlflow_deeds(order: Order) -> set[str]:
    """A tag is put on a model and taken off again; of a detector without a model nothing is asked."""
    base, login, deeds = f"{order['mlflow']}/api/2.0/mlflow/registered-models", _mlflow_login(), set()
    if status(f"{base}/search?max_results=1") == 200:
        deeds.add(MLFLOW_OPEN)
    for whose, read, write in (
        ("model", MLFLOW_READ, MLFLOW_WRITE),
        ("other_model", MLFLOW_READ_OTHER, MLFLOW_WRITE_OTHER),
    ):
        name = order[whose]
        if name is None:
            continue
        if status(f"{base}/get?name={name}", login) == 200:
            deeds.add(read)
        if status(f"{base}/set-tag", login, {"name": name, "key": "probe", "value": "x"}) == 200:
            deeds.add(write)
            status(f"{base}/delete-tag", login, {"name": name, "key": "probe"}, "DELETE")
    return deeds


def object_deeds(order: Order) -> set[str]:
    place = object_store.place(order["folder"])
    bucket = place.bucket if place is not None else "fraud-platform"
    deeds = {OBJECTS_OPEN} if status(f"{order['objects']}/{bucket}?list-type=2") == 200 else set()
    credentials = {key: os.environ[key] for key in object_store.KEYS if os.environ.get(key)}
    if all(key in credentials for key in object_store.REQUIRED_KEYS):
        # Here, since it takes a second that most Pods needn't spend.
        from fraud_operator.buckets import Bucket, ask

        for deed, folder in ((OBJECTS_OWN, order["folder"]), (OBJECTS_OTHER, order["other_folder"])):
            if ask(Bucket(folder, "probe", "probe", credentials)).ready:
                deeds.add(deed)
    return deeds


def kafka_deeds(order: Order) -> set[str]:
    """By the brokers' own word which operations on which topics, and on the brokers, this login may."""
    if order["kafka"] is None:
        return set()
    quiet = {"log_level": 0, "socket.timeout.ms": SECONDS * 1000}
    bare = AdminClient({"bootstrap.servers": order["kafka"], **quiet})
    deeds = {KAFKA_OPEN} if comes_off((KafkaException,), lambda: bare.list_topics(timeout=SECONDS)) else set()
    folder = Path(KAFKA_LOGIN_PATH)
    if not (folder / USERNAME).exists():
        return deeds
    admin = AdminClient({**KafkaAccess(order["kafka"], folder).settings(), **quiet})
    wait = {"include_authorized_operations": True, "request_timeout": 3 * SECONDS}
    answers = admin.describe_topics(TopicCollection(order["topics"]), **wait)
    for name, answer in {**answers, "the brokers": admin.describe_cluster(**wait)}.items():
        try:
            operations = answer.result(4 * SECONDS).authorized_operations or []
        except KafkaException:
            continue
        deeds |= {f"Kafka: {operation.name} {name}" for operation in operations}
    return deeds


def engine_deeds(order: Order) -> set[str]:
    deeds = set()
    if order["flink"] is not None:
        if status(f"{order['flink']}/jobs/overview") == 200:
            deeds.add(FLINK_READ)
        # Flink refuses an empty one by 400, and knows no such path where programs are switched off.
        if status(f"{order['flink']}/jars/upload", data={}) not in (0, 404, 405):
            deeds.add(FLINK_PROGRAM)
    if order["ray"] is not None and status(f"{order['ray']}/api/jobs/") == 200:
        deeds.add(RAY_OPEN)
    return deeds


def api_deeds(order: Order) -> set[str]:
    """By the API server's own word what the account of this Pod's token may do, in each namespace."""
    server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    secrets = f"{server}/api/v1/namespaces/{order['namespaces'][0]}/secrets"
    deeds = {API_OPEN} if status(secrets) == 200 else set()
    if not (_TOKEN / "token").exists():
        return deeds
    deeds.add(API_TOKEN)
    trusted = ssl.create_default_context(cafile=str(_TOKEN / "ca.crt"))
    headers = {
        "Authorization": f"Bearer {(_TOKEN / 'token').read_text()}",
        "Content-Type": "application/json",
    }
    for namespace in order["namespaces"]:
        body = json.dumps({"spec": {"namespace": namespace}}).encode()
        url = f"{server}/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        request = urllib.request.Request(url, body, headers)
        with urllib.request.urlopen(request, timeout=2 * SECONDS, context=trusted) as answer:
            rules = json.load(answer)["status"]["resourceRules"]
        deeds |= {right(namespace, verb, *what) for verb, *what in _granted(rules)}
    return deeds


def _granted(rules: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Verb, resource with its group, and the one name, empty for every name."""
    return [
        (verb, f"{resource}.{group}".rstrip("."), name)
        for rule in rules
        for group in rule.get("apiGroups") or [""]
        if group not in _EVERYBODYS
        for resource in rule.get("resources") or []
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or [""]
    ]


def right(namespace: str, verb: str, resource: str, name: str) -> str:
    """The deed of a right at the API server; ``name`` is empty for every name."""
    return f"API server: {verb} {resource} {name or '(any)'} in {namespace}"


def door_answers(order: Order) -> dict[str, int]:
    """The status of each request with each key, by the key's name and the request: ``payments POST decision/v1/decisions``."""
    calls = {
        f"{name} {method} {door}{path}": (f"{order['doors'][door]}{path}", key, method)
        for name, key in order["keys"].items()
        for method, door, path in order["calls"]
    }

    def ask(call: tuple[str, str, str]) -> int:
        url, key, method = call
        return status(url, {"X-API-Key": key} if key else {}, {} if method == "POST" else None, method)

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(calls, pool.map(ask, calls.values()), strict=True))


GROUPS: Final = (
    redis_deeds,
    postgres_deeds,
    mlflow_deeds,
    object_deeds,
    kafka_deeds,
    engine_deeds,
    api_deeds,
)


def main() -> None:
    order = json.load(sys.stdin)
    if "doors" in order:
        print(json.dumps(door_answers(order)))
        return
    # At once: what is closed gives no answer, and each waits for that.
    with ThreadPoolExecutor(len(GROUPS)) as pool:
        deeds = set().union(*pool.map(lambda group: group(order), GROUPS))
    print(json.dumps(sorted(deeds)))


if __name__ == "__main__":
    main()
