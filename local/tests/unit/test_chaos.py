"""Which Pods a fault hits, and which processes belong to them: on made-up objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fraud_local.demo import chaos


def pod(name: str, container: str, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [{"ready": ready, "containerID": f"containerd://{container}"}],
        },
    }


class OnePlace:
    """A cluster that has these Pods."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = list(pods)

    def get(self, *_: str) -> dict[str, Any]:
        return {"items": self.pods}


def test_a_jobmanager_is_told_from_its_taskmanagers(tmp_path: Path) -> None:
    """Its name begins theirs."""
    place = OnePlace(pod("p-f-1-abc", "jm"), pod("p-f-1-taskmanager-abc", "tm"))
    one = chaos.Chaos(place, "p", "ns", "platform", print)  # type: ignore[arg-type]  # a fake of Kubectl
    killed = {
        fault.name: [item["metadata"]["name"] for item in one._pods(fault)]
        for fault in chaos.faults("p", "ns", "platform", "p-f-1")[:2]
    }
    assert killed == {"taskmanager": ["p-f-1-taskmanager-abc"], "jobmanager": ["p-f-1-abc"]}


def test_a_victim_is_back_when_another_container_of_it_is_ready() -> None:
    """The old container still shown as ready is not a recovery."""
    fault = chaos.PodKill("worker", "ns", "p-worker-")
    place = OnePlace(pod("p-worker-0", "old"))
    one = chaos.Chaos(place, "p", "ns", "platform", print)  # type: ignore[arg-type]  # a fake of Kubectl
    before = one._pods(fault)
    assert not one._back(fault, 1, before)
    place.pods = [pod("p-worker-0", "new", ready=False)]
    assert not one._back(fault, 1, before)
    place.pods = [pod("p-worker-0", "new")]
    assert one._back(fault, 1, before)


def test_one_of_several_is_back_while_the_others_never_went() -> None:
    """The containers of those that weren't killed are the same as before."""
    fault = chaos.PodKill("one broker of several", "ns", "p-nodes-", alone=True)
    place = OnePlace(pod("p-nodes-0", "a"), pod("p-nodes-1", "b"))
    one = chaos.Chaos(place, "p", "ns", "platform", print)  # type: ignore[arg-type]  # a fake of Kubectl
    victims = one._pods(fault)[:1]
    assert not one._back(fault, 2, victims)
    place.pods = [pod("p-nodes-0", "c"), pod("p-nodes-1", "b")]
    assert one._back(fault, 2, victims)


def test_processes_are_found_by_their_container(tmp_path: Path) -> None:
    """A process without a container, or of another one, is left alone."""
    for pid, group in (("11", "/kubepods/poda/c1"), ("12", "/kubepods/poda/c2"), ("13", "/user")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cgroup").write_text(f"0::{group}\n")
    (tmp_path / "self").mkdir()
    assert chaos.members(["c1"], tmp_path) == [11]
