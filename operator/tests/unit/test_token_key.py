"""A detector's token key stays the one that its tokens were made with, also for an operator that knows nothing of the last one."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from fraud_contracts.config import CONFIG_KEY, DetectorConfig
from fraud_contracts.tokens import key_digest
from fraud_operator.desired.child import Wanted
from fraud_operator.desired.documents import build_config, build_release_pointer
from fraud_operator.detector_keys import TOKEN_KEY_DIGEST, fault
from fraud_operator.memory import DetectorMemory
from fraud_testing.healthy import conditions_of, healthy_facts, make_detector

KEYS = {"TOKEN_KEY": "ab" * 32, "DEAD_LETTER_KEY": "k", "API_KEY": "k"}
DIGEST = key_digest(bytes.fromhex(KEYS["TOKEN_KEY"]))


def _data(**values: str) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


class SecretsOnly:
    """Knows one Secret, and writes down what is merged into it."""

    def __init__(self, data: dict[str, str] | None) -> None:
        self.data = data
        self.merged: list[Any] = []

    def get(self, kind: Any, namespace: str, name: str) -> Any:
        if kind.kind != "Secret" or self.data is None:
            return None
        return {"metadata": {"name": name}, "data": self.data}

    def merge(self, kind: Any, namespace: str, name: str, body: Any) -> None:
        self.merged.append(body)
        assert self.data is not None
        self.data |= body["data"]


@pytest.mark.parametrize(
    ("values", "recorded", "has_release", "reason"),
    [
        (None, None, False, None),
        (None, DIGEST, True, "KeysMissing"),
        (_data(**KEYS), None, True, None),
        (_data(**KEYS), DIGEST, True, None),
        (_data(**KEYS | {"TOKEN_KEY": "cd" * 32}), DIGEST, True, "TokenKeyChanged"),
        (_data(**KEYS | {"API_KEY": "another"}), DIGEST, True, None),
        (_data(TOKEN_KEY="ab" * 32), DIGEST, True, "KeysBroken"),
        (_data(**KEYS | {"TOKEN_KEY": "no key"}), None, False, "KeysBroken"),
    ],
)
def test_keys_are_taken_only_if_they_are_the_detectors(
    values: dict[str, str] | None, recorded: str | None, has_release: bool, reason: str | None
) -> None:
    """Another token key than the recorded one is refused, as is a Secret that is gone or broken; the other keys may change."""
    answer = fault("d", values, recorded, has_release=has_release)
    assert (answer and answer[0]) == reason
    assert answer is None or "d-keys" in answer[1]


def test_an_operator_that_starts_anew_takes_no_other_token_key() -> None:
    """It neither uses nor overwrites a key that isn't the recorded one, and says so in KeysReady and Degraded."""
    detector, kube = make_detector(), SecretsOnly(_data(**KEYS | {"TOKEN_KEY": "cd" * 32}))
    memory = DetectorMemory(kube)  # type: ignore[arg-type]  # a fake of Kube
    facts = memory.restore(detector, replace(healthy_facts(detector), token_key=DIGEST), {})
    assert memory.keys(detector) is None and kube.merged == [] and facts.token_key == DIGEST
    conditions = conditions_of(detector, facts)
    assert (conditions["KeysReady"]["status"], conditions["KeysReady"]["reason"]) == (
        "False",
        "TokenKeyChanged",
    )
    assert conditions["Degraded"]["message"].startswith("KeysReady: Secret d-keys has another TOKEN_KEY")
    kube.data = _data(**KEYS)
    facts = memory.restore(detector, replace(healthy_facts(detector), token_key=DIGEST), {})
    assert memory.keys(detector) == KEYS and conditions_of(detector, facts)["KeysReady"]["status"] == "True"


def test_the_first_key_seen_is_recorded() -> None:
    """A pointer of an operator that recorded none yet takes the digest of the key that is there."""
    detector, kube = make_detector(), SecretsOnly(_data(**KEYS))
    memory = DetectorMemory(kube)  # type: ignore[arg-type]  # a fake of Kube
    assert memory.restore(detector, healthy_facts(detector), {}).token_key == DIGEST


def test_an_emptied_secret_is_filled_again() -> None:
    """While the operator lives, keys that were taken out of their Secret come back into it."""
    detector, kube = make_detector(), SecretsOnly(_data(**KEYS))
    memory = DetectorMemory(kube)  # type: ignore[arg-type]  # a fake of Kube
    memory.restore(detector, healthy_facts(detector), {})
    kube.data = {}
    memory.restore(detector, healthy_facts(detector), {})
    assert kube.data == _data(**KEYS)


def test_processes_and_the_next_operator_learn_the_digest() -> None:
    """It stands in the configuration that Pods mount and in the pointer, and the key itself in neither."""
    detector, facts = make_detector(), healthy_facts(make_detector())
    assert facts.release is not None
    wanted = Wanted(facts.release, facts.state, None, keys=KEYS, token_key=DIGEST)
    [config], [pointer] = build_config(detector, wanted), build_release_pointer(detector, wanted)
    assert DetectorConfig.model_validate_json(config.body["data"][CONFIG_KEY]).token_key == DIGEST
    assert pointer.body["data"][TOKEN_KEY_DIGEST] == DIGEST
    assert KEYS["TOKEN_KEY"] not in str((config.body, pointer.body))
