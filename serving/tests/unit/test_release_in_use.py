"""A process keeps a model that it can read until another process, which reads the next one, has taken its place."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from fraud_contracts import metrics
from fraud_contracts.detector_policy import Action, Policy, Rule
from fraud_contracts.release import ModelPackage, Release
from fraud_pipelines.events import Tokeniser
from fraud_process.instruments import Instruments
from fraud_serving.release_in_use import ReleaseInUse
from fraud_testing import detectors

CONFIG = detectors.detector("none:9092")


def in_use(registry: CollectorRegistry | None = None) -> ReleaseInUse:
    instruments = Instruments(registry or CollectorRegistry(), detector=str(CONFIG.identity))
    return ReleaseInUse(CONFIG, ("amount",), Tokeniser(b"0" * 32), instruments, "inline")


def release(name: str, feature_set: str | None, rule: str | None = None) -> Release:
    stable = None
    if feature_set is not None:
        stable = ModelPackage(
            name="n.d", version=name, digest="sha256:" + "1" * 64, feature_set=feature_set, slot="a", url="u",
            score_map=[(0.0, 0.0), (1.0, 1000.0)],
        )  # fmt: skip
    rules = [Rule(name="new", when=rule, action=Action.DECLINE)] if rule is not None else []
    return Release(name=name, stable=stable, policy=Policy(rules=rules), policy_revision=1)


def live(process: ReleaseInUse) -> tuple[str | None, list[str]]:
    """The version that answers, and the rules in force."""
    ruling = process.ruling
    assert ruling is not None
    return ruling.stable and ruling.stable.version, [rule.name for rule in ruling.release.policy.rules]


def test_of_a_release_of_the_next_feature_set_the_policy_is_taken() -> None:
    """The model is left to the next process, which may be long in coming: this one goes on with the one that it can read."""
    process = in_use()
    process.take(release("1", CONFIG.feature_set))
    process.take(release("2", "f" * 64, "event.amount > 5"))
    assert live(process) == ("1", ["new"])
    process.take(release("3", "f" * 64))
    assert live(process) == ("1", [])
    process.take(release("4", CONFIG.feature_set))
    assert live(process) == ("4", []) and process.name == "4"


def test_a_policy_that_names_what_this_feature_set_lacks_stays_out() -> None:
    """Whole, as the operator leaves it out: the one before was made for this set."""
    process = in_use()
    process.take(release("1", CONFIG.feature_set, "event.amount > 5"))
    process.take(release("2", "f" * 64, "features.of_the_next_set > 1.0"))
    assert live(process) == ("1", ["new"]) and process.name == "1"
    assert process.ruling is not None and not process.ruling.problems


def test_no_release_is_in_use_that_is_taken_in_part() -> None:
    """A process names both releases, so nobody takes either for propagated; only what it decides by is shown as in use."""
    registry = CollectorRegistry()
    process = in_use(registry)
    process.take(release("1", CONFIG.feature_set))
    for name in ("2", "3"):
        process.take(release(name, "f" * 64))
        assert process.name == f"1+{name}"
    shown = {
        sample.labels["release"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == metrics.RELEASE_INFO.name
    }
    assert shown == {"1": 0, "1+2": 0, "1+3": 1}


def test_a_candidate_of_the_set_that_is_left_is_left_out() -> None:
    """With the next release nobody compares it any more."""
    process = in_use()
    candidate = release("9", CONFIG.feature_set).stable
    process.take(release("1", CONFIG.feature_set).model_copy(update={"candidate": candidate}))
    process.take(release("2", "f" * 64))
    assert process.ruling is not None and process.ruling.candidate is None


def test_a_version_that_is_taken_back_is_left_at_once() -> None:
    """A release without a model is for every process; so is any where there is no model to keep."""
    process = in_use()
    process.take(release("1", CONFIG.feature_set))
    process.take(release("2", None))
    assert process.name == "2"
    process.take(release("3", "f" * 64))
    assert process.name == "3" and process.ruling is not None and process.ruling.stable is None
