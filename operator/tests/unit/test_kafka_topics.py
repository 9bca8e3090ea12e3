"""The topics of a managed Kafka: how long each keeps its records, and that all of them together leave room on a broker's volume."""

from __future__ import annotations

from typing import Any

import pytest

from fraud_contracts import names
from fraud_contracts.detector import parse_spec
from fraud_operator.desired.child import Wanted
from fraud_operator.desired.kafka_topics import SHARES, build_kafka_topics, byte_bounds
from fraud_operator.detector import Detector
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutState
from fraud_testing.healthy import SPEC, make_detector

DAY = 86_400_000
GIB = 1 << 30


def settings(detector: Detector, beside: Detector | None = None) -> dict[str, dict[str, str]]:
    """By noun."""
    release = make_release(detector, RolloutState(), None, detector.spec.policy)
    wanted = Wanted(release, RolloutState(), None, beside=beside)
    return {
        child.name.removeprefix("d-"): child.body["spec"]["config"]
        for child in build_kafka_topics(detector, wanted)
    }


def windowed(window: str) -> Detector:
    extra = {"name": "n", "entity": "customer", "aggregate": "Count", "window": window}
    return make_detector(features={"preset": "none", "extra": [extra]})


@pytest.mark.parametrize("partitions", [1, 3, 12, 120])
@pytest.mark.parametrize("volume", [20 * GIB, 100 * GIB, 4096 * GIB])
def test_all_topics_leave_a_fifth_of_a_brokers_volume(volume: int, partitions: int) -> None:
    """Also while each partition holds a segment more than it is to keep. Of a topic that must be whole nothing goes for want of room."""
    bounds = byte_bounds(volume, partitions)
    assert set(bounds) == set(names.TOPICS)
    assert sum(SHARES.values()) == 80
    for noun, bound in bounds.items():
        segment, kept = int(bound["segment.bytes"]), int(bound.get("retention.bytes", 0))
        assert (kept == 0) is (noun in ("labels", "seeds", "profiles"))
        assert segment <= max(kept, volume * SHARES[noun] // 100 // partitions)
        assert partitions * (kept + segment) <= volume * SHARES[noun] // 100


def test_a_volume_that_is_too_small_gets_settings_that_kafka_takes() -> None:
    """It takes no segments below 1 MiB; then the topics may outgrow the volume."""
    for bound in byte_bounds(GIB, 120).values():
        assert min(map(int, bound.values())) == 1 << 20


def test_a_larger_volume_is_a_longer_memory() -> None:
    small, large = (
        settings(make_detector(kafka={**SPEC["kafka"], "managed": {"replicas": 1, "storage": storage}}))
        for storage in ("10Gi", "20Gi")
    )
    assert int(large["accepted"]["retention.bytes"]) == 2 * int(small["accepted"]["retention.bytes"])
    assert small["accepted"]["retention.ms"] == large["accepted"]["retention.ms"] == str(7 * DAY)


def test_profiles_go_once_no_value_depends_on_them() -> None:
    """The longest window of both sets that are at work counts: a job's profiles must be there for as long as it runs."""
    short, long = windowed("2d"), windowed("90d")
    kept = {
        name: int(settings(*views)["profiles"]["retention.ms"])
        for name, views in {"short": (short,), "long": (long,), "both": (short, long)}.items()
    }
    assert 2 * DAY < kept["short"] < 14 * DAY
    assert kept["both"] == kept["long"] == kept["short"] + 88 * DAY
    assert settings(short)["profiles"]["cleanup.policy"] == "compact,delete"


def test_labels_stay_for_ever_and_seeds_for_a_month() -> None:
    """A new generation reads all labels; seeds are of no use once the inputs have lost what came after them."""
    config = settings(make_detector())
    assert config["labels"]["retention.ms"] == "-1"
    assert config["seeds"]["retention.ms"] == str(30 * DAY)
    assert config["seeds"]["cleanup.policy"] == "compact,delete"


def test_a_kafka_of_ones_own_gets_none_of_it() -> None:
    spec: dict[str, Any] = {**SPEC, "kafka": {"external": {"bootstrapServers": "k:9092"}, "partitions": 1}}
    assert parse_spec(spec).kafka.external is not None
    assert settings(make_detector(kafka=spec["kafka"])) == {}
