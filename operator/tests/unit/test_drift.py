"""What the operator does when hands or other managers change what is its own, or take away what only it can know."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from fraud_contracts import names
from fraud_contracts.child_kinds import CHILD_KINDS, Kind
from fraud_contracts.config import RELEASE_KEY
from fraud_contracts.detector import parse_spec
from fraud_contracts.release import ModelPackage, Release
from fraud_contracts.tokens import token
from fraud_operator.apply import FIGHT, Applier, ApplyReport
from fraud_operator.child_status import SILENT_MS, STUCK_MS, Level, flink, kafka
from fraud_operator.desired.child import Child
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts
from fraud_operator.kube import ConflictError
from fraud_operator.memory import DetectorMemory
from fraud_operator.releases import with_tokens
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_operator.settings import Platform
from fraud_testing.child_edits import EDITS, LABEL_ONLY

SPEC = {
    "event": {"id": {"field": "i"}, "time": {"field": "t"}, "amount": {"field": "a"}, "sensitive": ["card"]},
    "entities": [{"name": "customer", "field": "card"}, {"name": "shop", "field": "shop_id"}],
}
BODY: dict[str, Any] = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": {"replicas": 2}}  # fmt: skip


class FakeKube:
    """Answers as the API server does; every call is written down."""

    def __init__(self, conflict: str = "") -> None:
        self.conflict = conflict
        self.calls: list[tuple[str, Any]] = []
        self.objects: dict[tuple[str, str], Any] = {}

    def apply(self, kind: Kind, body: Any, *, force: bool = False) -> Any:
        self.calls.append(("force" if force else "apply", body["metadata"]["name"]))
        if self.conflict and not force:
            causes = [{"field": ".spec.replicas", "message": self.conflict}]
            raise ConflictError(409, "conflict", {"causes": causes})
        return {**body, "metadata": {**body["metadata"], "resourceVersion": str(len(self.calls))}}

    def create(self, kind: Kind, body: Any) -> Any:
        self.calls.append(("create", body["metadata"]["name"]))
        return {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}

    def merge(self, kind: Kind, namespace: str, name: str, body: Any, part: str = "") -> Any:
        self.calls.append(("merge", body))
        return body

    def get(self, kind: Kind, namespace: str, name: str) -> Any:
        return self.objects.get((kind.kind, name))

    refresh = get


def applied(kube: FakeKube, times: int = 1) -> ApplyReport:
    applier, report = Applier(kube), ApplyReport()  # type: ignore[arg-type]  # a fake of Kube
    live = {**BODY, "spec": {"replicas": 7}, "metadata": {**BODY["metadata"], "resourceVersion": "0"}}
    for _ in range(times):
        report = ApplyReport()
        applier.apply(Child(BODY), live, report)
    return report


def test_a_field_changed_by_hand_is_put_back() -> None:
    """An edit (no declared owner) is taken back by force, and the report names who made it."""
    kube = FakeKube('conflict with "kubectl-edit" using apps/v1 at 2026-01-01T00:00:00Z')
    report = applied(kube)
    assert [verb for verb, _ in kube.calls] == ["apply", "force"]
    assert report.repaired == ["Deployment d: .spec.replicas (by kubectl-edit)"] and not report.conflicts


@pytest.mark.parametrize(
    "owner", ['"another-controller"', '"hpa" with subresource "scale" using autoscaling/v1']
)
def test_a_declared_field_is_left_to_its_owner(owner: str) -> None:
    """What another manager applies, or an autoscaler scales, is not forced; field and manager are named."""
    kube = FakeKube(f"conflict with {owner}")
    report = applied(kube)
    assert [verb for verb, _ in kube.calls] == ["apply"]
    message = report.conflicts["Deployment", "d"]
    assert ".spec.replicas" in message and owner.split('"')[1] in message


def test_a_fight_is_given_up_and_told() -> None:
    """Something that sets a field again each time is no slip of a hand: after some repairs a person has to decide."""
    kube = FakeKube('conflict with "script" using apps/v1')
    report = applied(kube, FIGHT + 1)
    assert [verb for verb, _ in kube.calls].count("force") == FIGHT
    assert "script" in report.conflicts["Deployment", "d"]


def test_what_is_made_once_keeps_its_content_and_its_owner() -> None:
    """Of a child that is made once only labels and owners are repaired; our owner reference goes where it must outlive us."""
    kube = FakeKube()
    wanted = {**BODY, "metadata": {**BODY["metadata"], "labels": {"a": "b"}}}
    owner = {"kind": names.KIND, "name": "d"}
    live = {
        **BODY,
        "spec": {"replicas": 7},
        "metadata": {"name": "d", "namespace": "n", "ownerReferences": [owner]},
    }
    Applier(kube).apply(Child(wanted, once=True), live, ApplyReport())  # type: ignore[arg-type]  # a fake of Kube
    assert kube.calls == [("merge", {"metadata": {"ownerReferences": []}}), ("apply", "d")]


def make_detector(**spec: Any) -> Detector:
    meta = {"name": "d", "namespace": "n", "uid": "u"}
    return Detector.parse({"metadata": meta, "spec": {**SPEC, **spec}}, Platform())


def _secret(**values: str) -> dict[str, Any]:
    return {
        "metadata": {"resourceVersion": "1"},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


KEYS = {"TOKEN_KEY": "ab" * 32, "DEAD_LETTER_KEY": "k", "API_KEY": "k"}


def test_keys_and_rollout_are_remembered() -> None:
    """Keys that are gone come back as they were, a changed token key is put back, and the rollout is as it was left."""
    kube, detector = FakeKube(), make_detector()
    memory = DetectorMemory(kube)  # type: ignore[arg-type]  # a fake of Kube
    kube.objects["Secret", "d-keys"] = _secret(**KEYS)
    memory.restore(detector, Facts(0), {})
    release, state = (
        Release(name="r", policy=detector.spec.policy, policy_revision=3),
        RolloutState(phase=RolloutPhase.SHADOW),
    )
    memory.keep_rollout(detector, release, state)
    del kube.objects["Secret", "d-keys"]
    restored = memory.restore(detector, Facts(0), {})
    assert memory.keys(detector) == KEYS and (restored.release, restored.state) == (release, state)
    kube.objects["Secret", "d-keys"] = _secret(**{**KEYS, "TOKEN_KEY": "cd" * 32, "API_KEY": "new"})
    memory.restore(detector, Facts(0), {})
    put_back = kube.calls[-1][1]["data"]["TOKEN_KEY"]
    assert base64.b64decode(put_back).decode() == KEYS["TOKEN_KEY"]
    assert memory.keys(detector) == {**KEYS, "API_KEY": "new"}
    kube.objects["Secret", "d-keys"] = _secret(TOKEN_KEY="no key")
    memory.restore(detector, Facts(0), {})
    assert set(kube.calls[-1][1]["data"]) == set(KEYS) and memory.keys(detector) == {**KEYS, "API_KEY": "new"}
    memory.forget("n", "d")
    assert memory.keys(detector) is None


def test_an_operator_that_starts_anew_goes_on_from_the_live_release() -> None:
    """With the pointer gone and no memory, what the status names as live stays live."""
    kube, detector = FakeKube(), make_detector()
    kube.objects["Secret", "d-keys"] = _secret(**KEYS)
    live = ModelPackage(
        name="m",
        version="4",
        digest="sha256:x",
        feature_set="f" * 64,
        slot="b",
        url="u",
        score_map=[(0.0, 0.0)],
    )
    release = Release(name="d-release-x", stable=live, policy=detector.spec.policy, policy_revision=2)
    kube.objects["ConfigMap", "d-release-x"] = {"data": {RELEASE_KEY: release.to_json()}}
    memory = DetectorMemory(kube)  # type: ignore[arg-type]  # a fake of Kube
    restored = memory.restore(detector, Facts(0), {"release": {"name": "d-release-x"}})
    assert (
        restored.release == release
        and restored.state.stable == live
        and restored.state.phase is RolloutPhase.PROMOTED
    )


def test_lists_of_sensitive_fields_are_tokenised() -> None:
    """A list's values of a sensitive field become the tokens that events carry; tokens and other fields' values stay."""
    ready = "t_" + "0" * 32
    lists = [
        {
            "name": "cards",
            "field": "customer",
            "action": "Decline",
            "entries": [{"value": "4539"}, {"value": ready}],
        },
        {"name": "shops", "field": "shop", "action": "Review", "entries": [{"value": "4539"}]},
    ]
    spec = parse_spec({**SPEC, "policy": {"lists": lists}})
    policy = with_tokens(spec, KEYS["TOKEN_KEY"])
    values = [[entry.value for entry in tokenised.entries] for tokenised in policy.lists]
    assert values == [[token(bytes.fromhex(KEYS["TOKEN_KEY"]), "card", "4539"), ready], ["4539"]]
    assert "4539" not in make_detector(policy={"lists": lists[:1]}).config.to_json()


def test_a_changed_spec_that_nobody_looks_at_is_told() -> None:
    """An operator that has stopped since leaves a status of an older generation: after a while the condition says so."""
    created, now = "2026-01-01T00:00:00Z", 1_767_225_600_000
    meta = {
        "generation": 2,
        "creationTimestamp": created,
        "managedFields": [{"manager": "m", "time": created}],
    }
    for judge, status, who in (
        (kafka, {"conditions": [{"type": "Ready", "status": "True"}], "observedGeneration": 1}, "Strimzi"),
        (
            flink,
            {"lifecycleState": "STABLE", "jobStatus": {"state": "RUNNING"}, "observedGeneration": 1},
            "Flink",
        ),
    ):
        child = {"metadata": meta, "status": status}
        assert judge(child, now + STUCK_MS - 1).level is Level.PROGRESSING
        stuck = judge(child, now + STUCK_MS)
        assert stuck.level is Level.SILENT and who in stuck.message and created in stuck.message


def test_a_silent_childs_message_never_changes() -> None:
    """An age would change the status in each pass; the message names the moment instead."""
    child = {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}
    now = 1_767_225_600_000 + SILENT_MS
    assert kafka(child, now) == kafka(child, now + 3_600_000)


def test_every_kind_of_child_says_what_a_hand_may_change() -> None:
    """test_hard.py edits each child; of a kind without an entry it would change the label alone."""
    assert {*EDITS, *LABEL_ONLY, "ConfigMap"} == {kind.kind for kind in CHILD_KINDS if not kind.former}
