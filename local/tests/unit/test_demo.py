"""The demo's data and its judgement: pure parts, on made-up evidence."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from fraud_contracts import names
from fraud_local.demo import checks, data, pod, summary
from fraud_testing.network_policies import Pod, connects

SPEC: dict[str, Any] = {
    "event": {
        "id": {"field": "id"},
        "time": {"field": "at", "unit": "s"},
        "amount": {"field": "amt", "scale": 2},
        "fields": [{"name": "age", "type": "integer"}, {"name": "kind", "type": "string"}],
    },
    "entities": [{"name": "customer", "field": "card"}, {"name": "counterparty", "field": "shop"}],
}
SHAPE = data.Shape.of(SPEC)


def row(number: int) -> data.CsvRow:
    return {"id": f"t{number}", "at": str(1_700_000_000 + number * 60), "amt": "8.27", "card": "0042", "shop": "s1", "age": "7", "kind": "x", "is_fraud": "0"}  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in rows)


def test_a_shift_moves_all_times_by_one_constant_so_that_the_last_is_now() -> None:
    """Gaps stay as they were, and nothing lies in the future."""
    rows = [row(number) for number in range(5)]
    data.shift(rows, SHAPE, 1_800_000_000_999)
    times = [data.time_ms(r, SHAPE) for r in rows]
    assert times[-1] == 1_800_000_000_000
    assert [b - a for a, b in itertools.pairwise(times)] == [60_000] * 4


def test_a_payload_is_typed_and_holds_no_label() -> None:
    """Numbers are numbers, ids keep their zeros, and the label stays out."""
    assert data.payload(row(1), SHAPE) == {
        "id": "t1",
        "at": 1_700_000_060,
        "amt": 8.27,
        "card": "0042",
        "shop": "s1",
        "age": 7,
        "kind": "x",
    }


def test_an_empty_cell_is_absent_from_the_payload() -> None:
    """As in training: a number or a counterparty that nobody gave is sent as none."""
    sent = data.payload({**row(1), "age": "", "shop": ""}, SHAPE)
    assert set(sent) == {"id", "at", "amt", "card", "kind"}


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    """A file that lacks what the spec names is refused with the column's name."""
    path = tmp_path / "h.csv"
    path.write_text("id,at,amt,card,is_fraud\n")
    with pytest.raises(data.DataError, match="shop"):
        data.read_rows(path, SHAPE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,at,amt,card,shop,is_fraud\nt1,1,2,3,a, b,1\n", "h.csv line 2: 7 cells"),
        ("id,at,amt,card,shop,amt,is_fraud\n", "h.csv has the column amt twice"),
        ("", "h.csv is empty"),
        ("id,at,amt,card,shop,is_fraud\nt1,1,2,3,a,1\nt2,soon,2,3,a,1\n", "h.csv line 3: at is no time"),
        ("id,at,amt,card,shop,is_fraud\nt1,,2,3,a,1\n", "h.csv line 2: at is empty"),
        (f"id,at,amt,card,shop,is_fraud\nt1,{'9' * 5_000},2,3,a,1\n", "h.csv line 2: at is no time"),
        ("id,at,amt,card,shop,is_fraud\n,1,2,3,a,1\n", "h.csv line 2: id is empty"),
        ("id,at,amt,card,shop,is_fraud\nt1,1,2,,a,1\n", "h.csv line 2: card is empty"),
        ("id,at,amt,card,shop,is_fraud\nt1,1,$2,3,a,1\n", "h.csv line 2: amt is no number"),
        ("id,at,amt,card,shop,age,is_fraud\nt1,1,2,3,a,old,1\n", "h.csv line 2: age is no number"),
    ],
)
def test_a_file_is_read_as_training_reads_it_or_refused(tmp_path: Path, text: str, message: str) -> None:
    """No cell moves to another column in what goes live; the error names the line or the column."""
    path = tmp_path / "h.csv"
    path.write_text(text)
    with pytest.raises(data.DataError, match=message):
        data.read_rows(path, SHAPE)


def test_the_demo_never_deletes_its_history(tmp_path: Path) -> None:
    """A file in the folder that the demo empties, as its own simulated history is, can't be given as HISTORY."""
    with pytest.raises(data.DataError, match="is emptied"):
        data.check_outside(tmp_path / "demo" / "simulated.csv.gz", tmp_path / "demo")
    data.check_outside(tmp_path / "demo.csv", tmp_path / "demo")


def test_live_traffic_takes_the_doors_in_turn_and_spreads_every_kind_of_damage(tmp_path: Path) -> None:
    """Half of the rows go to each door, and each kind of malformed record goes through both."""
    path = tmp_path / "live.jsonl.gz"
    data.write_live([row(number) for number in range(400)], SHAPE, 100, 400, path)
    lines = list(summary.lines(path))
    good = [line for line in lines if not line["malformed"]]
    assert [sum(line["door"] == door for line in good) for door in ("inline", "stream")] == [200, 200]
    assert {(line["malformed"], line["door"]) for line in lines if line["malformed"]} == {
        (kind, door) for kind in data.MALFORMED_KINDS for door in ("inline", "stream")
    }


def test_a_histogram_gives_the_bound_of_the_bucket_that_holds_the_quantile() -> None:
    """The text form of several label sets is added up."""
    text = 'm_bucket{a="1",le="0.1"} 5\nm_bucket{a="1",le="+Inf"} 10\nm_bucket{a="2",le="0.1"} 5\nm_bucket{a="2",le="+Inf"} 5\n'
    buckets = summary.read_histogram(text, "m")
    assert (summary.histogram_quantile(buckets, 0.5), summary.histogram_quantile(buckets, 0.99)) == (
        0.1,
        float("inf"),
    )


AUDIT = {
    "differing": 0,
    "compared": 2,
    "unreproducible": 0,
    "first_emission": {"kept": 2},
    "other_feature_set": 0,
    "frozen": 0,
}


def evidence(folder: Path, **changes: list[dict[str, Any]]) -> dict[str, Any]:
    """Evidence of two good transactions and one malformed record, with parts replaced."""
    decision = {"score": 10, "action": "approve", "degraded": [], "parity": "equal"}
    both = [{"id": "a", "door": "inline", **decision}, {"id": "b", "door": "stream", **decision}]
    parts: dict[str, list[dict[str, Any]]] = {
        "sent": [
            {"id": "a", "door": "inline", "malformed": None},
            {"id": "b", "door": "stream", "malformed": None},
            {"id": None, "door": "stream", "malformed": "cut_json"},
        ],
        "answers": [{"id": "a", "malformed": None, "status": 200, "latency_ms": 3.0, "answer": both[0]}],
        "decisions": both,
        "ledger": both,
        "lake": both,
        "labels": [
            {"id": "a", "fraud": True, "at": [2, 0, 1]},
            {"id": "a", "fraud": False, "at": [1, 0, 0]},
        ],
        "dead_letters": [{"id": None, "reason": "invalid_json", "source": {"partition": 0, "offset": 7}}] * 2,
        **changes,
    }
    for name, rows in parts.items():
        write(folder / f"{name}.jsonl.gz", rows)
    labels = parts["labels"]
    model = {"version": "1", "digest": "sha256:0", "metrics": {}}
    operators = [{"name": name, "version": "1", "kind": "real"} for name in ("kuberay", "kserve")]
    conditions = [{"type": kind, "status": "True"} for kind in ("Ready", "ModelLive")]
    cluster = {
        "pods": [],
        "operators": operators,
        "conditions": conditions,
        "children": [],
        "model": model,
        "wall_s": {},
        "memory_mib": {},
    }
    (folder / "cluster.json").write_text(json.dumps(cluster))
    (folder / "profile_sink_metrics.txt").write_text("")
    (folder / "reported.json").write_text(json.dumps(["a"]))
    write(folder / "ledger_labels.jsonl.gz", [{"id": "a", "fraud": True, "source": "analyst"}])
    write(folder / "labels.jsonl.gz", labels)
    leaks = {"planted": 2, "searched": {}, "count": 0, "hits": [], "unread": [], "gaps": ["logs/n/p/c"]}
    (folder / "leaks.json").write_text(json.dumps(leaks))
    (folder / "audit.json").write_text(json.dumps(AUDIT))
    return summary.summarise(folder)


def test_whole_evidence_passes_every_check(tmp_path: Path) -> None:
    """Nothing lost, nothing doubled, all malformed records accounted for; a log that ended before it was read is no fault."""
    result = evidence(tmp_path)
    assert (result["lost"], result["duplicated"]) == ([], [])
    assert all(checks.demo_checks(result, 2).values())


@pytest.mark.parametrize("store", ["decisions", "ledger", "lake"])
def test_an_id_missing_from_any_store_is_lost(tmp_path: Path, store: str) -> None:
    """A transaction has ended only when topic, ledger and lake hold it."""
    only_a = [
        {"id": "a", "door": "inline", "score": 10, "action": "approve", "degraded": [], "parity": "equal"}
    ]
    assert evidence(tmp_path, **{store: only_a})["lost"] == ["b"]


@pytest.mark.parametrize("store", ["decisions", "ledger", "lake"])
def test_an_id_held_twice_is_duplicated(tmp_path: Path, store: str) -> None:
    """A second decision, ledger row or lake row of one id is shown."""
    rows = [
        {"id": i, "door": "stream", "score": 10, "action": "approve", "degraded": [], "parity": "none"}
        for i in ("a", "b", "b")
    ]
    assert evidence(tmp_path, **{store: rows})["duplicated"] == ["b"]


def test_an_answer_that_differs_from_the_ledger_is_shown(tmp_path: Path) -> None:
    """The client acted on the answer, so it must be the ledger's row, unless one of them says that it was unguarded."""
    answer = {
        "id": "a",
        "malformed": None,
        "status": 200,
        "latency_ms": 3.0,
        "answer": {"id": "a", "score": 900, "action": "decline"},
    }
    assert evidence(tmp_path, answers=[answer])["answers_unlike_ledger"] == ["a"]
    answer["answer"]["degraded"] = ["idempotency"]
    marked = evidence(tmp_path, answers=[answer])
    assert (marked["answers_unlike_ledger"], marked["answers_unlike_ledger_marked"]) == ([], 1)


def test_a_transaction_that_was_sent_again_gets_the_answer_that_stands(tmp_path: Path) -> None:
    """Whichever door it came by first; the answer to a resend is compared, and never taken for the first one."""
    row = {"score": 10, "action": "approve"}
    told = [("a", {"id": "a", **row}, False), ("b", {"id": "b", "score": 900, "action": "decline"}, True)]
    answers = [
        {"id": one, "malformed": None, "status": 200, "latency_ms": 3.0, "answer": answer, "resent": resent}
        for one, answer, resent in told
    ]
    found = evidence(tmp_path, answers=answers)
    assert (found["answered"], found["resent"], found["resent_answered"]) == (1, 1, 1)
    assert found["answers_unlike_ledger"] == ["b"]


def test_the_last_label_on_the_topic_stands(tmp_path: Path) -> None:
    """A correction that never reached the stream is missing."""
    assert evidence(tmp_path)["labels"] == {"reported": 1, "missing": []}
    late = [{"id": "a", "fraud": False, "at": [3, 0, 2]}]
    assert evidence(tmp_path, labels=late)["labels"]["missing"] == ["a"]


def test_an_outage_tells_what_was_degraded_and_how_long_callers_waited(tmp_path: Path) -> None:
    """Only what was decided or asked between the fault and the next one counts."""
    decision = {"id": "a", "door": "stream", "score": 10, "action": "approve", "parity": "none"}
    rows = [
        {**decision, "decided": 1_500, "appended": 1_100, "degraded": ["idempotency"]},
        {**decision, "id": "b", "decided": 5_000, "appended": 4_000, "degraded": []},
    ]
    answer = {"id": "c", "malformed": None, "status": 200, "latency_ms": 2_000.0, "at": 1_200, "attempts": 3}
    (tmp_path / "faults.json").write_text(
        json.dumps([{"fault": "redis", "at": 1_000, "ready": 2_000, "seconds": 1.0, "until": 4_900}])
    )
    assert summary.outages(tmp_path, rows, [answer]) == [
        {
            "fault": "redis",
            "away_s": 1.0,
            "decided": {"stream": 1},
            "degraded": {"idempotency": 1},
            "repeated_calls": 1,
            "slowest_answer_s": 2.0,
            "slowest_stream_s": 0.4,
        }
    ]


def test_a_sound_transaction_that_became_a_dead_letter_is_shown(tmp_path: Path) -> None:
    """It isn't lost, but nobody decided it."""
    letters = [{"id": "b", "reason": "invalid_json", "source": {"partition": 0, "offset": 1}}]
    result = evidence(tmp_path, dead_letters=letters)
    assert result["sound_but_refused"] == ["b"]
    assert not checks.demo_checks(result, 2)["no sound transaction refused or dead-lettered"]


def test_a_malformed_record_without_a_trace_fails_the_check(tmp_path: Path) -> None:
    """Silence about a bad record is a failure."""
    result = evidence(tmp_path, dead_letters=[])
    assert not checks.demo_checks(result, 2)["every malformed record refused or dead-lettered, with a reason"]


def test_the_demos_pod_has_the_image_that_decides_and_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever image the decision service has, the Pod imports the search for leaks from a ConfigMap."""
    service = {"spec": {"template": {"spec": {"containers": [{"image": "registry/serving:1"}]}}}}

    passwords = {
        "REDIS_PASSWORD": "cg==",
        "POSTGRES_PASSWORD": "cA==",
        "MLFLOW_PASSWORD": "bQ==",
        "CA_CERT": "Yw==",
    }

    class Cluster:
        def get(self, *words: str) -> dict[str, Any]:
            return {"data": passwords} if "secret" in words else service

    folder = "s3://bank/demo"
    monkeypatch.setattr(pod, "package_files", lambda: {"__init__.py": b"", "search.so": b"\x7fELF"})
    kube: Any = Cluster()
    made_objects = pod.objects(kube, "platform", "payments", "pay", folder, 200, 180, False, 0)["items"]
    code, package, stores, user, *_, made = made_objects
    container = made["spec"]["containers"][0]
    assert (user["kind"], user["metadata"]["name"]) == ("KafkaUser", made["metadata"]["name"])
    assert container["image"] == "registry/serving:1" and folder in container["command"]
    assert base64.b64decode(package["binaryData"]["search.so"]) == b"\x7fELF"
    volumes = {volume["configMap"]["name"] for volume in made["spec"]["volumes"] if "configMap" in volume}
    assert {code["metadata"]["name"], package["metadata"]["name"]} < volumes
    address = "rediss://:r@platform-redis.platform.svc:6379/0?ssl_ca_certs=/etc/demo/CA_CERT"
    assert stores["stringData"]["REDIS_URL"] == address
    assert container["envFrom"][-1] == {"secretRef": {"name": stores["metadata"]["name"]}}


def test_the_demos_pod_is_let_in_by_policies_of_its_own() -> None:
    """To the detector's brokers and the trial's stores, and a Pod of that name in another namespace to neither."""
    policies = pod.policies("payments", "pay", "platform")
    broker = Pod.of("pay", {"strimzi.io/cluster": "payments"})
    stores = [
        Pod.of("platform", {names.COMPONENT_LABEL: one}) for one in ("redis", "postgres", "mlflow", "objects")
    ]
    demo = {"app.kubernetes.io/name": pod.NAME}
    for target in (broker, *stores):
        assert connects(policies, Pod.of("pay", demo), target, 1)
        assert not connects(policies, Pod.of("pay", {}), target, 1)
        assert not connects(policies, Pod.of("foreign", demo), target, 1)


def test_a_topic_on_hold_gets_nothing() -> None:
    """Payments go inline meanwhile; what was held is sent first afterwards, in its order."""
    lines: list[dict[str, Any]] = [{"id": n, "door": "inline" if n % 2 else "stream"} for n in range(6)]
    held: list[dict[str, Any]] = []
    sent = [data.due(line, held, on_hold=line["id"] < 4) for line in lines]
    assert [[one["id"] for one in some] for some in sent] == [[], [1], [], [3], [0, 2, 4], [5]]
