"""The conditions: what they say while a detector comes up, when it is well, and when something is missing."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from fraud_contracts import names
from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector import parse_spec
from fraud_contracts.errors import SpecError
from fraud_contracts.training_end import EndReason, TrainingFailure
from fraud_operator import readiness, status
from fraud_operator.conditions import Trouble
from fraud_operator.desired.child import Wanted
from fraud_operator.desired.children import build_children
from fraud_operator.detector import Detector, check
from fraud_operator.facts import Facts, Lags, Models, Replica
from fraud_operator.releases import make_release, with_tokens
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_operator.settings import Platform
from fraud_testing.healthy import NOW, SPEC, conditions_of, healthy_facts, make_detector


def without(facts: Facts, **changed: Any) -> Facts:
    return Facts(**{**vars(facts), **changed})


def test_a_fresh_detector_tells_what_it_waits_for() -> None:
    """Right after apply nothing is Ready, everything is progressing and nothing is called broken."""
    detector = make_detector()
    conditions = conditions_of(detector, Facts(now=NOW, revision="0" * 16))
    assert conditions["Ready"]["status"] == "False" and conditions["Ready"]["reason"] == "NotKafkaReady"
    assert conditions["Progressing"]["status"] == "True"
    assert conditions["Degraded"]["status"] == "False"
    assert list(conditions) == [name for name in status.ORDER if name != "ValidationFailed"]


def test_all_well() -> None:
    """With everything ready each condition is in its good state and Ready names version and address."""
    detector = make_detector()
    conditions = conditions_of(detector, healthy_facts(detector))
    bad = {
        name
        for name, c in conditions.items()
        if c["status"] != ("False" if name in ("Progressing", "Degraded", "Paused") else "True")
    }
    assert bad == set(), {name: conditions[name] for name in bad}
    assert (
        "version 7" in conditions["Ready"]["message"]
        and "http://d-decision.n.svc:8080" in conditions["Ready"]["message"]
    )


def test_a_missing_operator_is_named_with_the_remedy() -> None:
    """Where the API server doesn't know a kind, the condition says what to install."""
    detector = make_detector()
    conditions = conditions_of(detector, without(healthy_facts(detector), missing=frozenset({"Kafka"})))
    assert (
        conditions["KafkaReady"]["reason"] == "OperatorMissing"
        and "Strimzi" in conditions["KafkaReady"]["message"]
    )
    assert conditions["Degraded"]["status"] == "True" and conditions["Ready"]["status"] == "False"


def test_a_replica_that_lags_holds_propagation() -> None:
    """One replica with another release, or without an answer, is enough for ReleasePropagated to be False."""
    detector = make_detector()
    facts = healthy_facts(detector)
    assert facts.release is not None
    old = without(facts, replicas=(Replica("p0", facts.release.name), Replica("p1", "d-release-old")))
    assert conditions_of(detector, old)["ReleasePropagated"]["status"] == "False"
    mute = conditions_of(detector, without(facts, replicas=(Replica("p0", None),)))["ReleasePropagated"]
    assert mute["status"] == "False" and "p0" in mute["message"]
    assert conditions_of(detector, without(facts, replicas=()))["ReleasePropagated"]["status"] == "False"


def test_seeds_on_their_way_keep_features_cold() -> None:
    """FeaturesWarm waits for every seed and says how many are left."""
    detector = make_detector()
    conditions = conditions_of(detector, without(healthy_facts(detector), lags=Lags(12, 0, 40)))
    assert (
        conditions["FeaturesWarm"]["reason"] == "SeedsLag"
        and "12 seeds" in conditions["FeaturesWarm"]["message"]
    )
    assert conditions["Ready"]["status"] == "True", (
        "a live model goes on answering while newer seeds are taken in"
    )


def test_an_unreachable_registry_degrades_and_stops_nothing() -> None:
    """Without the registry what is live goes on: Degraded, but Ready."""
    detector = make_detector()
    facts = without(
        healthy_facts(detector), models=Models(problem=("RegistryUnavailable", "mlflow: no answer"))
    )
    conditions = conditions_of(
        detector, without(facts, models=Models(problem=facts.models.problem, trained="7"))
    )
    assert conditions["ModelResolved"]["status"] == "False" and conditions["Degraded"]["status"] == "True"
    assert conditions["Ready"]["status"] == "True"


def test_a_failed_training_says_how_to_go_on() -> None:
    """A failed run gives the job's own words and the annotation that starts another one."""
    detector = make_detector()
    facts = healthy_facts(detector)
    assert facts.revision is not None
    job = {
        "status": {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "no rows in history/"}
    }
    children = {**facts.children, ("RayJob", names.ray_job("d", facts.revision)): job}
    failed = conditions_of(detector, without(facts, children=children, models=Models()))["TrainingSucceeded"]
    assert failed["reason"] == "TrainingFailed" and "no rows in history/" in failed["message"]
    assert names.TRAIN_ANNOTATION in failed["message"]


def test_training_without_enough_labels_holds_and_degrades_nothing() -> None:
    """Too few mature labels are waited for: the condition counts them, and nothing is Degraded."""
    detector = make_detector()
    facts = healthy_facts(detector)
    assert facts.revision is not None
    message = "7 fraud labels are mature; model.train.minLabels asks for 500"
    failure = TrainingFailure(reason=EndReason.TOO_FEW_LABELS, message=message, ended=NOW)
    job = {
        "status": {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "the end of the log"}
    }
    children = {**facts.children, ("RayJob", names.ray_job("d", facts.revision)): job}
    conditions = conditions_of(detector, without(facts, children=children, models=Models(failure=failure)))
    waiting = conditions["TrainingSucceeded"]
    assert waiting["reason"] == "WaitingForLabels" and "7 fraud labels are mature" in waiting["message"]
    assert conditions["Degraded"]["status"] == "False"


def test_a_conflict_degrades() -> None:
    """Another manager's field is told, with the remedy."""
    detector = make_detector()
    conditions = conditions_of(
        detector,
        healthy_facts(detector),
        Trouble(conflicts={("Deployment", "d-decision"): "another manager owns .spec.replicas"}),
    )
    assert (
        conditions["Degraded"]["reason"] == "ApplyConflict"
        and "d-decision" in conditions["Degraded"]["message"]
    )


def test_times_move_only_with_the_status() -> None:
    """A message may change without the condition's transition time moving; an unchanged status isn't written."""
    detector = make_detector()
    first = status.compute(detector, healthy_facts(detector), Trouble(), {})
    later = without(healthy_facts(detector), now=NOW + 60_000)
    second = status.compute(detector, later, Trouble(), first)
    assert second["conditions"] == first["conditions"]
    assert not status.changed(second, first)
    third = status.compute(detector, without(later, replicas=()), Trouble(), second)
    before = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    after = {c["type"]: c["lastTransitionTime"] for c in third["conditions"]}
    assert {name for name in after if after[name] != before[name]} == {
        "Ready",
        "Progressing",
        "ReleasePropagated",
    }
    assert status.changed(third, second)


def test_rules_alone_can_be_ready() -> None:
    """A detector that wants no model is Ready with rules."""
    detector = make_detector(model={"none": {}})
    facts = without(healthy_facts(detector), state=RolloutState(), revision=None, models=Models())
    facts = without(facts, release=make_release(detector, RolloutState(), None, detector.spec.policy))
    assert facts.release is not None
    facts = without(facts, replicas=(Replica("p", facts.release.name),))
    conditions = conditions_of(detector, facts)
    assert conditions["Ready"]["message"].startswith("rules alone")
    assert (conditions["ModelLive"]["status"], conditions["ModelLive"]["reason"]) == ("True", "NotUsed")


@pytest.mark.parametrize(
    ("changed", "reason", "message"),
    [
        ({}, "NoModelYet", "the first version is about to go live"),
        ({"lags": Lags(12, 0, 40)}, "NoModelYet", "FeaturesWarm: 12 seeds"),
        (
            {"models": Models(problem=("NoVersionYet", "none"), trained="7")},
            "NoModelYet",
            "ModelResolved: none",
        ),
        ({"missing": frozenset({"InferenceService"})}, "OperatorMissing", "install KServe"),
        (
            {"state": RolloutState(phase=RolloutPhase.ROLLED_BACK, rejected=("7",))},
            "RolledBack",
            "version 7 was taken back",
        ),
    ],
)
def test_the_doors_are_ready_before_there_is_a_model(
    changed: dict[str, Any], reason: str, message: str
) -> None:
    """Rules answer while the first model is trained, or where it was taken back: Ready is True, and ModelLive says why it isn't."""
    detector = make_detector()
    release = make_release(detector, RolloutState(), None, detector.spec.policy)
    facts = without(
        healthy_facts(detector), state=RolloutState(), release=release, replicas=(Replica("p", release.name),)
    )
    conditions = conditions_of(detector, without(facts, **changed))
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("True", "RulesOnly")
    live = conditions["ModelLive"]
    assert (live["status"], live["reason"]) == ("False", reason) and message in live["message"]


def test_a_lost_model_leaves_the_doors_ready() -> None:
    """Without a replica of the live predictor policy.fallback.onModelLoss answers: Ready, not ModelLive, and Degraded."""
    detector = make_detector()
    facts = healthy_facts(detector)
    lost = copy.deepcopy(facts.children["Deployment", "d-a-predictor"])
    lost["status"]["availableReplicas"] = 0
    children = {**facts.children, ("Deployment", "d-a-predictor"): lost}
    conditions = conditions_of(detector, without(facts, children=children))
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("True", "ModelLost")
    assert (conditions["ModelLive"]["status"], conditions["ModelLive"]["reason"]) == (
        "False",
        "PredictorGone",
    )
    assert (conditions["Degraded"]["status"], conditions["Degraded"]["reason"]) == ("True", "PredictorGone")


def test_a_model_that_is_rolled_stays_the_one_that_answers() -> None:
    """While one of the predictor's replicas is replaced another answers: Ready by the model, ModelLive in progress."""
    detector = make_detector()
    facts = healthy_facts(detector)
    rolling = copy.deepcopy(facts.children["Deployment", "d-a-predictor"])
    rolling["status"]["updatedReplicas"] = 0
    children = {**facts.children, ("Deployment", "d-a-predictor"): rolling}
    conditions = conditions_of(detector, without(facts, children=children))
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("True", "Serving")
    assert (conditions["ModelLive"]["status"], conditions["ModelLive"]["reason"]) == ("False", "Progressing")
    assert conditions["Degraded"]["status"] == "False"


def test_validation_names_each_fault() -> None:
    """A spec that can't be built gives ValidationFailed with every path, and Ready is False."""
    computed = status.invalid([SpecError("spec.a", "x"), SpecError("spec.b", "y")], 4, {}, NOW)
    conditions = {c["type"]: c for c in computed["conditions"]}
    assert conditions["ValidationFailed"]["message"] == "spec.a: x; spec.b: y"
    assert conditions["Ready"]["observedGeneration"] == 4


def test_a_refused_spec_stands_beside_what_the_last_valid_one_is() -> None:
    """Ready of the spec at work keeps its generation; ValidationFailed and Degraded carry the newest one's and its fault."""
    detector = make_detector()
    computed = status.compute(detector, healthy_facts(detector), Trouble(), {})
    status.add_refusal(computed, [SpecError("spec.a", "x; write y")], 4, {}, NOW)
    conditions = {c["type"]: c for c in computed["conditions"]}
    assert computed["observedGeneration"] == 3
    assert (conditions["Ready"]["status"], conditions["Ready"]["observedGeneration"]) == ("True", 3)
    for name in ("ValidationFailed", "Degraded"):
        assert conditions[name]["status"] == "True" and conditions[name]["observedGeneration"] == 4
        assert "spec.a: x; write y" in conditions[name]["message"]
    assert list(conditions) == list(status.ORDER)


def test_the_documents_hold_the_whole_valid_spec() -> None:
    """The configuration and the release give the spec back as it was, with tokens in the policy's lists: the children are the same."""
    lists = [{"name": "bad", "field": "customer", "action": "Decline", "entries": [{"value": "4000001"}]}]
    detector = make_detector(
        policy={"lists": lists, "rules": [{"name": "r", "when": "event.amount > 3", "action": "Review"}]},
        rollout={"steps": [5, 50], "paused": True},
        model={"train": {"trials": 7}, "pin": "3"},
        components=[{"name": "Worker", "replicas": 3}],
        deletionPolicy="Delete",
    )
    policy = with_tokens(detector.spec, "ab" * 32)
    read = DetectorConfig.model_validate_json(detector.config.to_json()).spec
    again = replace(detector, spec=read.model_copy(update={"policy": policy}))
    assert again.spec == detector.spec.model_copy(update={"policy": policy})
    assert with_tokens(again.spec, "ab" * 32) == policy
    release = make_release(detector, RolloutState(), None, policy)
    assert build_children(again, Wanted(release, RolloutState(), "r" * 16)) == build_children(
        detector, Wanted(release, RolloutState(), "r" * 16)
    )


def test_what_cel_and_the_schema_cannot_say_is_checked() -> None:
    """Rules over unknown variables, lists over unknown fields, falling steps and a bad schedule are all found."""
    detector = make_detector(
        policy={
            "rules": [{"name": "r", "when": "customer.age > 3", "action": "Review"}],
            "lists": [{"name": "l", "field": "nowhere", "action": "Decline"}],
        },
        rollout={"steps": [50, 5]},
        model={"train": {"schedule": "0 99 * * *"}},
    )
    assert [error.path for error in check(detector)] == [
        "spec.policy.rules[0].when",
        "spec.policy.lists[0].field",
        "spec.model.train.schedule",
        "spec.rollout.steps",
    ]


def test_stores_and_storage_must_come_from_somewhere() -> None:
    """Without platform defaults each store that the spec leaves out is named."""
    bare = Detector("n", "d", "u", 1, 0, {}, parse_spec(SPEC), Platform())
    assert [error.path for error in check(bare)] == [
        "spec.storage.uri", "spec.stores.redis", "spec.stores.postgres", "spec.stores.mlflow",
    ]  # fmt: skip


def test_policy_revision_rises_with_the_policy_only() -> None:
    """The same policy keeps its revision and name; another one gets the next number."""
    detector = make_detector()
    first = make_release(detector, RolloutState(), None, detector.spec.policy)
    assert make_release(detector, RolloutState(), first, detector.spec.policy) == first
    other = make_detector(policy={"bands": {"review": 1, "decline": 2}})
    second = make_release(other, RolloutState(), first, other.spec.policy)
    assert second.policy_revision == first.policy_revision + 1 and second.name != first.name


@pytest.mark.parametrize("state", ["CREATED", "INITIALIZING", "RECONCILING", "RESTARTING", None])
@pytest.mark.parametrize("lifecycle", ["STABLE", "ROLLED_BACK"])
def test_a_job_that_does_not_run_is_not_ready(lifecycle: str, state: str | None) -> None:
    """While a lost JobManager or TaskManager keeps the job from running, nobody who waits for Ready gets it; it is Degraded."""
    detector = make_detector()
    facts = healthy_facts(detector)
    key = next(key for key in facts.children if key[0] == "FlinkDeployment")
    job = copy.deepcopy(facts.children[key])
    job["status"] |= {"lifecycleState": lifecycle, "jobStatus": {"state": state}}
    conditions = conditions_of(detector, without(facts, children={**facts.children, key: job}))
    streaming = conditions["StreamingReady"]
    assert (streaming["status"], streaming["reason"]) == ("False", "JobNotRunning")
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("False", "NotStreamingReady")
    assert (conditions["Degraded"]["status"], conditions["Degraded"]["reason"]) == ("True", "JobNotRunning")


def test_a_version_that_waits_for_a_slot_is_told() -> None:
    """While the version before is kept both slots are in use: who wants a third one reads for how long."""
    detector = make_detector()
    facts = healthy_facts(detector)
    assert facts.state.stable is not None and facts.models.resolved is not None
    before = facts.state.stable.model_copy(update={"version": "6", "slot": "b"})
    kept = facts.state.model_copy(update={"previous": before, "previous_until": NOW})
    models = replace(facts.models, resolved=replace(facts.models.resolved, version="8"))
    rollout = conditions_of(detector, without(facts, state=kept, models=models))["RolloutHealthy"]
    assert (
        rollout["status"] == "True" and "version 8 waits for a slot: version 6 is kept" in rollout["message"]
    )
    assert "waits" not in conditions_of(detector, facts)["RolloutHealthy"]["message"]


def test_a_spent_rollback_annotation_is_told() -> None:
    """Where it names the live version and was obeyed before that went live again: how to roll back all the same."""
    detector = replace(make_detector(), annotations={names.ROLLBACK_ANNOTATION: "7"})
    facts = healthy_facts(detector)
    spent = without(facts, state=facts.state.model_copy(update={"rollback": "7"}))
    assert "remove it and set it again" in conditions_of(detector, spent)["RolloutHealthy"]["message"]


@pytest.mark.parametrize(("component", "refused"), [("Predictor", True), ("LakeSink", False)])
def test_a_predictor_without_replicas_is_refused(component: str, refused: bool) -> None:
    """No version could ever answer there: a candidate would be taken back for good for what the spec asks for."""
    spec = {**SPEC, "components": [{"name": component, "replicas": 0}]}
    errors = [
        error
        for error in check(replace(make_detector(), spec=parse_spec(spec)))
        if "components" in error.path
    ]
    assert [error.path for error in errors] == (["spec.components[0].replicas"] if refused else [])
    assert all("spec.model.none" in error.message for error in errors)


def test_an_empty_order_is_none() -> None:
    """An annotation that was emptied asks for nothing, and nothing is told of it."""
    detector = replace(make_detector(), annotations={names.ROLLBACK_ANNOTATION: ""})
    assert readiness.rollout_facts(detector, healthy_facts(detector)).rollback is None
