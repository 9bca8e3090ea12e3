"""Detectors that can't be meant: a real API server refuses them, or they are ValidationFailed; field and remedy are named.

`test_operator.py` holds the first few; these are the rest of what a hand-written resource gets wrong.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts.child_kinds import DETECTOR
from fraud_operator.events import Recorder
from fraud_operator.kube import Kube, RefusedError
from fraud_operator.observe import Observer
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform, StorageSettings, StoreAddresses
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
NAMESPACE = "refusals"
# As kubectl asks by default; without it the API server drops what it doesn't know and only warns.
STRICT = {"fieldValidation": "Strict"}
Change = dict[str, Any]


def base() -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = NAMESPACE
    return body


def changed(change: Change) -> dict[str, Any]:
    """The example with some paths set, like ``{"spec.kafka.partitions": 0}``; a number in a path is a list's index."""
    body = base()
    for path, value in change.items():
        *parents, leaf = (int(part) if part.isdigit() else part for part in path.split("."))
        at: Any = body
        for parent in parents:
            at = at.setdefault(parent, {}) if isinstance(parent, str) else at[parent]
        if value is ABSENT:
            del at[leaf]
        else:
            at[leaf] = copy.deepcopy(value)
    return body


ABSENT = object()
EVENT, EXTRA, POLICY = "spec.event", "spec.features.extra", "spec.policy"
COUNT = {"name": "mine", "entity": "customer", "aggregate": "Count", "window": "2h"}
SUM = {"name": "mine", "entity": "customer", "aggregate": "Sum", "of": "amount", "window": "2h"}
LIST = {"name": "bad", "field": "category", "action": "Decline"}
CLIENTS, CLIENT = "spec.clients", {"name": "shop", "scopes": ["Decide"]}
DURATION = "write a positive number and ms, s, m, h or d"


def feature(base: Change, **change: Any) -> Change:
    whole = {**base, **change}
    return {EXTRA: [{key: value for key, value in whole.items() if value is not ABSENT}]}


def entities(*names: str) -> Change:
    return {"spec.entities": [{"name": name, "field": f"{name}_id"} for name in names]}


# what is wrong: (change, field in the answer, remedy in the answer)
REFUSED: dict[str, tuple[Change, str, str]] = {
    # types and bounds
    "text for a number": ({"spec.kafka.partitions": "two"}, "spec.kafka.partitions", "must be of type integer"),
    "text for a list": ({f"{EVENT}.sensitive": "card"}, f"{EVENT}.sensitive", "must be of type array"),
    "number for text": ({f"{EVENT}.id.field": 7}, f"{EVENT}.id.field", "must be of type string"),
    "text for a boolean": ({"spec.paused": "yes"}, "spec.paused", "must be of type boolean"),
    "no id": ({f"{EVENT}.id": ABSENT}, f"{EVENT}.id", "Required value"),
    "negative trials": ({"spec.model.train.trials": -1}, "spec.model.train.trials", "greater than or equal to 1"),
    "no partitions": ({"spec.kafka.partitions": 0}, "spec.kafka.partitions", "greater than or equal to 1"),
    "too many partitions": ({"spec.kafka.partitions": 121}, "spec.kafka.partitions", "less than or equal to 120"),
    "step of 100": ({"spec.rollout.steps": [5, 100]}, "spec.rollout.steps[1]", "less than or equal to 99"),
    "score over 1000": ({f"{POLICY}.bands.decline": 1001}, f"{POLICY}.bands.decline", "less than or equal to 1000"),
    "unknown algorithm": ({"spec.model.train.algorithm": "XGBoost"}, "spec.model.train.algorithm", '"LightGBM"'),
    "unknown fallback": ({f"{POLICY}.fallback.onKafkaLoss": "Pray"}, f"{POLICY}.fallback.onKafkaLoss", '"Refuse"'),
    "unknown preset": ({"spec.features.preset": "payments/v9"}, "spec.features.preset", '"payments/v1"'),
    "unknown component": ({"spec.components": [{"name": "Oracle"}]}, "spec.components[0].name", '"Worker"'),
    # fields that nobody knows
    "misspelt part": ({"spec.polcy": {}}, "spec.polcy", "unknown field"),
    "misspelt leaf": ({f"{POLICY}.bands.refuse": 950}, f"{POLICY}.bands.refuse", "unknown field"),
    # names and forms
    "name with capitals": ({"metadata.name": "Payments"}, "metadata.name", "lower case"),
    "name with a dot": ({"metadata.name": "pay.ments"}, "metadata.name", "lower-case letters, digits and dashes only"),
    "name from a digit": ({"metadata.name": "1pay"}, "metadata.name", "must start with a letter"),
    "entity with capitals": (entities("Customer"), "spec.entities[0].name", "start with a lower-case letter"),
    "entity's long name": (entities("c" * 31), "spec.entities[0].name", "may not be more than 30"),
    "rule with a space": (
        {f"{POLICY}.rules.0.name": "big night"}, f"{POLICY}.rules[0].name", "lower-case letters, digits and dashes",
    ),
    "small currency": ({f"{EVENT}.amount.currency": "usd"}, f"{EVENT}.amount.currency", "three capital letters"),
    "storage without scheme": ({"spec.storage": {"uri": "/var/x"}}, "spec.storage.uri", "write s3://bucket/folder or file://"),
    "mlflow without scheme": ({"spec.stores.mlflow": {"uri": "ml:5000"}}, "spec.stores.mlflow.uri", "write http://"),
    "mlflow with a login": (
        {"spec.stores.mlflow": {"uri": "https://u:p@ml"}}, "spec.stores.mlflow.uri", "a login belongs into the Secret",
    ),
    "cron of four fields": (
        {"spec.model.train.schedule": "0 3 * *"}, "spec.model.train.schedule", "minute hour day month weekday",
    ),
    "history outside storage": (
        {"spec.model.train.history.path": "/etc"}, "spec.model.train.history.path", "below storage.uri",
    ),
    "end without a zone": (
        {f"{POLICY}.lists": [{**LIST, "entries": [{"value": "x", "expires": "2027-01-31"}]}]},
        f"{POLICY}.lists[0].entries[0].expires", "write RFC 3339",
    ),
    "pin that is no version": ({"spec.model.pin": "v3"}, "spec.model.pin", "write a model version"),
    "volume without unit": ({"spec.kafka.managed.storage": "20"}, "spec.kafka.managed.storage", "as in 20Gi"),
    "deadline of nothing": ({f"{POLICY}.fallback.deadline": "0ms"}, f"{POLICY}.fallback.deadline", DURATION),
    # one of several
    "train and registered": (
        {"spec.model.registered": {"name": "m"}}, "spec.model", "exactly one of train, registered, none",
    ),
    "no model at all": ({"spec.model": {}}, "spec.model", "exactly one of train, registered, none"),
    "no kafka at all": ({"spec.kafka": {"partitions": 2}}, "spec.kafka", "exactly one of managed, external"),
    "currency field without a currency": (
        {f"{EVENT}.amount": {"field": "amount", "currencyField": "cur"}}, f"{EVENT}.amount",
        "give event.amount.currency too",
    ),
    # lists
    "entity twice": (entities("customer", "customer"), "spec.entities[1]", "Duplicate value"),
    "field twice": ({f"{EVENT}.fields.1.name": "category"}, f"{EVENT}.fields[1]", "Duplicate value"),
    "sensitive twice": ({f"{EVENT}.sensitive": ["channel"] * 2}, f"{EVENT}.sensitive[1]", "Duplicate value"),
    "feature twice": ({EXTRA: [COUNT, SUM]}, f"{EXTRA}[1]", "Duplicate value"),
    "label source twice": ({"spec.labels.sources.1.name": "chargeback"}, "spec.labels.sources[1]", "Duplicate value"),
    "five entities": (entities(*"abcde"), "spec.entities", "at most 4 items"),
    "no step": ({"spec.rollout.steps": []}, "spec.rollout.steps", "at least 1 items"),
    # features
    "window of zero": (feature(COUNT, window="0h"), f"{EXTRA}[0].window", DURATION),
    "window below zero": (feature(COUNT, window="-2h"), f"{EXTRA}[0].window", DURATION),
    "window without unit": (feature(COUNT, window="24"), f"{EXTRA}[0].window", DURATION),
    "window as a number": (feature(COUNT, window=24), f"{EXTRA}[0].window", "must be of type string"),
    "no window": (feature(COUNT, window=ABSENT), f"{EXTRA}[0]", "needs window, as in 7d"),
    "no of": (feature(SUM, of=ABSENT), f"{EXTRA}[0]", "needs of: write amount"),
    "no entity": (feature(COUNT, entity=ABSENT), f"{EXTRA}[0]", "needs entity: name one of entities"),
    "unknown entity": (feature(COUNT, entity="shop"), "features.extra: entity", "name a listed one"),
    "unknown aggregate": (feature(COUNT, aggregate="Median"), f"{EXTRA}[0].aggregate", '"Mean"'),
    "aggregate and transform": (feature(COUNT, transform="Hour"), f"{EXTRA}[0]", "aggregate or transform, exactly one"),
    "neither": ({EXTRA: [{"name": "mine"}]}, f"{EXTRA}[0]", "aggregate or transform, exactly one"),
    "ratio of one": (
        {EXTRA: [{"name": "mine", "transform": "Ratio", "args": ["amount"]}]}, f"{EXTRA}[0]", "two args: amount or",
    ),
    "equals nothing": (
        {EXTRA: [{"name": "mine", "transform": "Equals"}]}, f"{EXTRA}[0]", "needs where: write field and equals",
    ),
    "sensitive where": (
        feature(COUNT, where={"field": "card", "equals": "7"}), "features.extra: where.field", "leave where out",
    ),
    "sensitive of": (feature(SUM, of="card"), "features.extra: of", "write amount or another field"),
    # across parts
    "sensitive amount": ({f"{EVENT}.sensitive": ["amount"]}, "event.amount.field", "take it out of event.sensitive"),
    "sensitive currency": (
        {f"{EVENT}.amount.currencyField": "cur", f"{EVENT}.sensitive": ["cur"]},
        "event.amount.currencyField",
        "take it out of event.sensitive",
    ),
    "sensitive id": ({f"{EVENT}.sensitive": ["transaction_id"]}, "event.id.field", "take it out of event.sensitive"),
    "unlisted label source": (
        {"spec.model.train.history.labelSource": "police"}, "model.train.history.labelSource", "name a listed one",
    ),
    # clients
    "a client twice": ({CLIENTS: [CLIENT, CLIENT]}, f"{CLIENTS}[1]", "Duplicate value"),
    "a scope twice": ({CLIENTS: [{**CLIENT, "scopes": ["Read", "Read"]}]}, f"{CLIENTS}[0].scopes[1]", "Duplicate value"),
    "no scope": ({CLIENTS: [{**CLIENT, "scopes": []}]}, f"{CLIENTS}[0].scopes", "should have at least 1 items"),
    "an unknown scope": (
        {CLIENTS: [{**CLIENT, "scopes": ["Write"]}]}, f"{CLIENTS}[0].scopes[0]", '"Decide", "Label", "Read", "Admin"',
    ),
    "a limit of nothing": ({CLIENTS: [{**CLIENT, "requestsPerSecond": 0}]}, f"{CLIENTS}[0].requestsPerSecond", "greater than or equal to 1"),
    "a client's name": ({CLIENTS: [{**CLIENT, "name": "Web_Shop"}]}, f"{CLIENTS}[0].name", "dashes between, as in web-shop"),
    "a client named as a Secret of ours": ({CLIENTS: [{**CLIENT, "name": "keys"}]}, f"{CLIENTS}[0]", "give the client another one"),
    "too many clients": (
        {CLIENTS: [{**CLIENT, "name": f"c{i}"} for i in range(21)]}, CLIENTS, "must have at most 20 items",
    ),
}  # fmt: skip

# Of an object that is there: (merge patch of the spec, field in the answer, remedy in the answer)
IMMUTABLE: dict[str, tuple[Change, str, str]] = {
    "fewer partitions": ({"kafka": {"partitions": 1}}, "kafka.partitions", "make a new detector"),
    "another id": ({"event": {"id": {"field": "uuid"}}}, "event.id.field", "make a new detector"),
    "renamed entity": (
        {"entities": [{"name": "client", "field": "card"}, {"name": "counterparty", "field": "merchant_id"}]},
        "entities' names and fields", "make a new detector",
    ),
    "entity's other field": (
        {"entities": [{"name": "customer", "field": "iban"}, {"name": "counterparty", "field": "merchant_id"}]},
        "entities' names and fields", "make a new detector",
    ),
    "another kafka": (
        {"kafka": {"managed": None, "external": {"bootstrapServers": "k:9092"}}}, "kafka.managed", "make a new detector",
    ),
    "fewer brokers": ({"kafka": {"managed": {"replicas": 2}}}, "kafka.managed.replicas", "make a new detector"),
    "another scale": ({"event": {"amount": {"scale": 0}}}, "event.amount.scale", "make a new detector"),
    "another currency": ({"event": {"amount": {"currency": "JPY"}}}, "event.amount.scale and currency", "make a new detector"),
    "no token any more": ({"event": {"sensitive": []}}, "event.sensitive", "make a new detector"),
    "another storage": ({"storage": {"uri": "file:///elsewhere"}}, "storage.uri", "make a new detector"),
    "entity taken away": (
        {"entities": [{"name": "customer", "field": "card"}]}, "entities' names and fields", "make a new detector",
    ),
}  # fmt: skip

# What no schema can say: (change, path in the condition, remedy in the condition)
INVALID: dict[str, tuple[Change, str, str]] = {
    "rule that is no CEL": ({f"{POLICY}.rules.0.when": "event.amount > 5 and"}, f"{POLICY}.rules[0].when", "no CEL"),
    "rule reads the world": ({f"{POLICY}.rules.0.when": "world.ends"}, f"{POLICY}.rules[0].when", "may read event"),
    "rule reads an unknown feature": (
        {f"{POLICY}.rules.0.when": "features.customer_cnt_1d > 5.0"}, f"{POLICY}.rules[0].when", "customer_count_1d",
    ),
    "rule that is no truth": ({f"{POLICY}.rules.0.when": "event.amount"}, f"{POLICY}.rules[0].when", "compare it"),
    "list of nothing known": (
        {f"{POLICY}.lists": [{"name": "bad", "field": "shoe", "action": "Decline"}]},
        f"{POLICY}.lists[0].field", "name one, or add it to spec.event.fields",
    ),
    "end in month 13": (
        {f"{POLICY}.lists": [{**LIST, "entries": [{"value": "x", "expires": "2027-13-31T00:00:00Z"}]}]},
        f"{POLICY}.lists[0].entries[0].expires", "write RFC 3339",
    ),
    "minute 61": (
        {"spec.model.train.schedule": "61 3 * * *"}, "spec.model.train.schedule", "write minute hour day month weekday",
    ),
    "steps that shrink": ({"spec.rollout.steps": [25, 5]}, "spec.rollout.steps", "must be larger than the one before"),
    "fraud without delay": (
        feature(COUNT, aggregate="FraudRate"), f"{EXTRA}[0].aggregate", "needs labelDelay on the entity 'customer'",
    ),
    "undeclared where": (
        feature(COUNT, where={"field": "shoe", "equals": "7"}), f"{EXTRA}[0].where.field", "add it to spec.event.fields",
    ),
    "sum of text": (feature(SUM, of="category"), f"{EXTRA}[0].of", "write amount or a declared integer field"),
    "distinct of nothing": (feature(SUM, aggregate="Distinct"), f"{EXTRA}[0].of", "add it to spec.event.fields"),
    "count of something": (feature(SUM, aggregate="Count"), f"{EXTRA}[0].of", "leave it out"),
    "window of years": (feature(COUNT, window="401d"), f"{EXTRA}[0].window", "can't be longer than 400d"),
    "the preset's name": (feature(COUNT, name="customer_count_7d"), f"{EXTRA}[0].name", "choose another"),
    "operand from nowhere": (
        {EXTRA: [{"name": "mine", "transform": "Ratio", "args": ["amount", "theirs"]}]},
        f"{EXTRA}[0].args", "neither amount nor a feature declared before",
    ),
    "transform with a window": (
        {EXTRA: [{"name": "mine", "transform": "Hour", "window": "1h"}]}, f"{EXTRA}[0].window", "leave it out",
    ),
    "id declared again": ({f"{EVENT}.fields.0.name": "transaction_id"}, f"{EVENT}.fields[0].name", "leave it out"),
    "one field, two entities": ({"spec.entities.1.field": "card"}, "spec.entities[1].field", "give each its own"),
    "no storage anywhere": ({}, "spec.storage.uri", "give s3://bucket/folder"),
    "the node's own files": (
        {"spec.storage": {"uri": "file:///etc/kubernetes"}}, "spec.storage.uri", "write file:///s/",
    ),
    "out of the node's folder": ({"spec.storage": {"uri": "file:///s/../etc"}}, "spec.storage.uri", "write file:///s/"),
    "a bucket without keys": (
        {"spec.storage": {"uri": "s3://theirs/x"}}, "spec.storage.secretRef", "name a Secret with AWS_ACCESS_KEY_ID",
    ),
    "a bucket that can't be": ({"spec.storage": {"uri": "s3://My_Bucket/x"}}, "spec.storage.uri", "lower-case letters"),
}  # fmt: skip


@pytest.fixture(scope="module")
def kube(server: Any) -> Kube:
    """One namespace for all, with one good detector that the changes of IMMUTABLE are tried on."""
    server.post(
        "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    )
    kube: Kube = server.kube()
    whole = {"spec.kafka.managed": {"replicas": 3}, "spec.storage": {"uri": "file:///s/x"}}
    kube._call("POST", DETECTOR.path(NAMESPACE), STRICT, changed(whole))
    return kube


def causes(error: RefusedError) -> list[str]:
    """Each cause with its field; the message where the answer has no causes, as for an unknown field."""
    entries = error.details.get("causes") or []
    return [f"{cause.get('field')}: {cause['message']}" for cause in entries] or [error.message]


@pytest.mark.parametrize("case", REFUSED)
def test_the_api_server_names_field_and_remedy(kube: Kube, case: str) -> None:
    """A detector that breaks the schema is not stored, and one cause of the answer names both field and remedy."""
    change, field, remedy = REFUSED[case]
    body = changed({"metadata.name": "never", **change})
    with pytest.raises(RefusedError) as refused:
        kube._call("POST", DETECTOR.path(NAMESPACE), STRICT, body)
    listed = causes(refused.value)
    assert any(field in cause and remedy in cause for cause in listed), listed


@pytest.mark.parametrize("case", IMMUTABLE)
def test_what_others_are_keyed_by_stays(kube: Kube, case: str) -> None:
    """A change that would leave profiles, claims or order behind is refused and the stored object stays as it was."""
    change, field, remedy = IMMUTABLE[case]
    before = kube.get(DETECTOR, NAMESPACE, "payments")
    with pytest.raises(RefusedError) as refused:
        kube.merge(DETECTOR, NAMESPACE, "payments", {"spec": change})
    listed = causes(refused.value)
    assert any(field in cause and remedy in cause for cause in listed), listed
    assert kube.get(DETECTOR, NAMESPACE, "payments") == before


@pytest.mark.parametrize("case", INVALID)
def test_the_operator_names_field_and_remedy(kube: Kube, case: str) -> None:
    """A detector that the schema lets pass becomes ValidationFailed, with its path and what to write, and isn't ready."""
    change, path, remedy = INVALID[case]
    name = f"invalid-{list(INVALID).index(case)}"
    kube._call("POST", DETECTOR.path(NAMESPACE), STRICT, changed({"metadata.name": name, **change}))
    # No default storage of the platform's own, so that a detector without any has none.
    platform = Platform(
        storage=StorageSettings(node_folder="/s"),
        stores=StoreAddresses(
            redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://x"
        ),
    )
    outcome = Reconciler(kube, platform, Observer(kube, logins=willing()), Recorder(kube)).reconcile(
        NAMESPACE, name
    )
    assert outcome.written == ()
    body = kube.get(DETECTOR, NAMESPACE, name)
    assert body is not None
    conditions = {condition["type"]: condition for condition in body["status"]["conditions"]}
    failed = conditions["ValidationFailed"]
    assert failed["status"] == "True" and conditions["Ready"]["status"] == "False"
    faults = failed["message"].split("; spec.")
    assert any(f"{path}: ".removeprefix("spec.") in part and remedy in part for part in faults), faults
