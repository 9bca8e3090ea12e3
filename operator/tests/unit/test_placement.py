"""Where Pods run: what the platform gives each of them, how two of a component keep apart, how many may be moved at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fraud_operator.desired.child import Wanted
from fraud_operator.desired.children import build_children
from fraud_operator.desired.placement import HOST, LOST, ZONE
from fraud_operator.detector import Detector
from fraud_operator.releases import make_release
from fraud_operator.settings import Scheduling
from fraud_testing.healthy import make_detector
from fraud_testing.rollout_states import shadowing

TOLERATION = {"key": "dedicated", "operator": "Equal", "value": "fraud", "effect": "NoSchedule"}
COMPONENTS = (
    "DecisionService", "Worker", "Features", "Predictor", "ProfileSink", "LedgerSink", "LakeSink", "Console",
)  # fmt: skip


def detector(replicas: int, **platform: Any) -> Detector:
    """One with so many of everything."""
    one = make_detector(
        kafka={"managed": {"replicas": replicas}, "partitions": 4},
        components=[{"name": name, "replicas": replicas} for name in COMPONENTS],
    )
    return replace(one, platform=one.platform.model_copy(update=platform))


def children(detector: Detector) -> dict[tuple[str, str], dict[str, Any]]:
    state = shadowing()
    release = make_release(detector, state, None, detector.spec.policy)
    wanted = Wanted(release, state, "0" * 16, logins="{}" if detector.platform.pull_secrets else None)
    return {(child.kind, child.name): child.body for child in build_children(detector, wanted)}


def pods(detector: Detector) -> dict[str, dict[str, Any]]:
    """The part of a Pod's spec that other projects' operators take from us, or the whole one, by what it is of."""
    built = children(detector)
    flink = next(body for (kind, _), body in built.items() if kind == "FlinkDeployment")["spec"]
    ray = next(body for (kind, _), body in built.items() if kind == "RayJob")["spec"]
    kafka = built["Kafka", "d"]["spec"]
    return {
        **{
            name: body["spec"]["template"]["spec"]
            for (kind, name), body in built.items()
            if kind == "Deployment"
        },
        "d-a": built["InferenceService", "d-a"]["spec"]["predictor"],
        "d-b": built["InferenceService", "d-b"]["spec"]["predictor"],
        "flink": flink["podTemplate"]["spec"],
        "ray head": ray["rayClusterSpec"]["headGroupSpec"]["template"]["spec"],
        "ray submitter": ray["submitterPodTemplate"]["spec"],
        "broker": kafka["kafka"]["template"].get("pod", {}),
        "topic operator": kafka["entityOperator"]["template"].get("pod", {}),
    }


def test_every_pod_gets_what_the_platform_gives() -> None:
    """Pull secret, tolerations and priority are in each Pod of a detector, Flink's, Ray's, KServe's and Strimzi's among them."""
    scheduling = Scheduling(tolerations=(TOLERATION,), priority_class="high")
    built = pods(detector(2, pull_secrets=("registry",), scheduling=scheduling))
    assert len(built) == 13
    for name, pod in built.items():
        assert pod["imagePullSecrets"] == [{"name": "d-pull"}], name
        assert (pod["tolerations"][0], pod["priorityClassName"]) == (TOLERATION, "high"), name


def test_nothing_is_added_where_the_platform_gives_nothing() -> None:
    """A platform without such settings leaves the service account's pull secrets, and Strimzi's own defaults, as they are."""
    built = pods(detector(1))
    keys = {"imagePullSecrets", "priorityClassName", "affinity", "topologySpreadConstraints"}
    assert {name: set(pod) & keys for name, pod in built.items() if set(pod) & keys} == {}
    assert built["broker"] == built["topic operator"] == {}


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ((), [30, 30]),
        ((TOLERATION,), [30, 30]),
        (({"operator": "Exists"},), []),
        (({"key": LOST[0], "operator": "Exists", "tolerationSeconds": 5},), [5, 30]),
    ],
)
def test_pods_of_ours_leave_a_lost_node(given: tuple[dict[str, Any], ...], seconds: list[int]) -> None:
    """After half a minute, unless the platform says how long; a predictor does, too."""
    built = pods(detector(1, scheduling=Scheduling(tolerations=given)))
    for name in ("d-decision", "d-worker", "d-a"):
        found = [one["tolerationSeconds"] for one in built[name]["tolerations"] if "tolerationSeconds" in one]
        assert found == seconds, name


def test_two_of_a_component_keep_apart() -> None:
    """Different nodes by a constraint, different zones by a preference: in a cluster without zones a constraint on them would undo both."""
    built = pods(detector(2))
    apart = {
        name: pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]
        for name, pod in built.items()
        if "topologySpreadConstraints" in pod
    }
    assert set(apart) == {name for name in built if name.startswith("d-")} | {"broker"}
    for name in apart:
        (constraint,) = built[name]["topologySpreadConstraints"]
        (preference,) = built[name]["affinity"]["podAntiAffinity"][
            "preferredDuringSchedulingIgnoredDuringExecution"
        ]
        assert (constraint["topologyKey"], constraint["whenUnsatisfiable"]) == (HOST, "ScheduleAnyway")
        assert preference["podAffinityTerm"]["topologyKey"] == ZONE
        assert preference["podAffinityTerm"]["labelSelector"] == constraint["labelSelector"]
    assert apart["d-a"] != apart["d-b"] and len({str(labels) for labels in apart.values()}) == len(apart)


def test_task_managers_keep_apart_from_each_other_only() -> None:
    """The JobManager's Pod has the same labels but for Flink's own, and may lie beside one of them."""
    built = children(detector(2))
    flink = next(body for (kind, _), body in built.items() if kind == "FlinkDeployment")["spec"]
    (constraint,) = flink["taskManager"]["podTemplate"]["spec"]["topologySpreadConstraints"]
    assert constraint["labelSelector"]["matchLabels"]["component"] == "taskmanager"


def test_a_release_names_where_each_predictor_is() -> None:
    """A headless Service of ours, of the Pods of one slot, which is applied before the release; the state keeps KServe's own address."""
    one = detector(1)
    state = shadowing()
    release = make_release(one, state, None, one.spec.policy)
    wanted = Wanted(release, state, "0" * 16)
    order = [(child.kind, child.name) for child in build_children(one, wanted)]
    for package, kept in ((release.stable, state.stable), (release.candidate, state.candidate)):
        assert package is not None
        name = f"d-{package.slot}-pods"
        assert package.url == f"http://{name}.{one.namespace}.svc:8080"
        assert kept is not None and kept.url == f"http://{package.slot}"
        spec = children(one)["Service", name]["spec"]
        assert spec["clusterIP"] == "None"
        labels = children(one)["InferenceService", f"d-{package.slot}"]["spec"]["predictor"]["labels"]
        assert spec["selector"].items() <= labels.items()
        assert order.index(("Service", name)) < order.index(("ConfigMap", "d-release"))


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_of_two_may_be_moved_at_once(replicas: int) -> None:
    """Each component of two or more has a budget that selects its own Pods; one alone has none, or no node could be emptied."""
    budgets = {
        name: body["spec"]
        for (kind, name), body in children(detector(replicas)).items()
        if kind == "PodDisruptionBudget"
    }
    if replicas == 1:
        assert budgets == {}
        return
    flink = next(name for name in budgets if "-f-" in name)
    assert budgets.pop(flink)["minAvailable"] == 1
    assert set(budgets) == {
        "d-decision", "d-worker", "d-profile-sink", "d-ledger-sink", "d-lake-sink", "d-console", "d-a-predictor",
        "d-b-predictor",
    }  # fmt: skip
    assert {budget["maxUnavailable"] for budget in budgets.values()} == {1}
    selected = [str(budget["selector"]) for budget in budgets.values()]
    assert len(set(selected)) == len(selected)
