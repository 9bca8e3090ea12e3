"""What the test of rotations is made of, as far as no cluster is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fraud_testing import client_pod, in_pods, trial_accounts, wrapping
from fraud_testing.rotation import changed, client_secrets, who_may

SPEC: dict[str, Any] = {
    "clients": [
        {"name": "admin", "scopes": ["Admin"]},
        {"name": "payments", "scopes": ["Decide"]},
        {"name": "labels", "scopes": ["Label"], "secretRef": {"name": "ours"}},
    ]
}


def test_a_clients_keys_are_where_its_spec_says() -> None:
    """In the Secret that it names, else in the one that the operator makes."""
    assert client_secrets("cards", SPEC) == {
        "admin": "cards-client-admin",
        "payments": "cards-client-payments",
        "labels": "ours",
    }


def test_who_may_everything_stands_in_for_who_is_lacking() -> None:
    """A client with the very scope comes first."""
    assert [who_may(SPEC, scope) for scope in ("Decide", "Label", "Read")] == ["payments", "labels", "admin"]


def test_a_pod_that_came_went_or_started_anew_is_told() -> None:
    """But for those that are to."""
    before = {"n/a-1": ("u1", 0), "n/b-1": ("u2", 0), "n/c-1": ("u3", 0), "n/d-1": ("u4", 0)}
    after = {"n/a-1": ("u1", 0), "n/b-1": ("u2", 1), "n/c-2": ("u5", 0), "n/d-2": ("u6", 0)}
    assert changed(before, after, ["n/d-"]) == {
        "n/b-1": (("u2", 0), ("u2", 1)),
        "n/c-1": (("u3", 0), None),
        "n/c-2": (None, ("u5", 0)),
    }
    assert set(changed(before, after, [])) > set(changed(before, after, ["n/d-"]))


@pytest.mark.parametrize("name", [name for name in vars(in_pods) if name.isupper()])
def test_what_runs_in_pods_is_a_program(name: str) -> None:
    """No Pod is the first to find a fault of syntax."""
    compile(getattr(in_pods, name), name, "exec")


def test_the_clients_pod_is_admitted_by_the_strictest_level() -> None:
    """As the namespace of a demo asks."""
    config, pod = client_pod.objects("cards", "pay", SPEC, "any:1", 50, "run-")
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {Path(word).name for word in container["command"] if word.startswith(client_pod.PLACE)} <= set(
        config["data"]
    )


def test_the_api_server_gets_one_configuration() -> None:
    """In the place of an earlier one, with the rest of its command as it is."""
    command = ["kube-apiserver", f"{wrapping.OPTION}=/old", "--secure-port=6443"]
    assert wrapping.with_configuration(command, Path("/new")) == [
        "kube-apiserver",
        "--secure-port=6443",
        f"{wrapping.OPTION}=/new",
    ]


def test_secrets_are_written_by_the_first_key() -> None:
    """And read in clear only while that is asked for."""
    (resource,) = wrapping.configuration([("b", "2"), ("a", "1")], plain=True)["resources"]
    wrapped, plain = resource["providers"]
    assert [key["name"] for key in wrapped["aescbc"]["keys"]] == ["b", "a"]
    assert plain == {"identity": {}}
    (resource,) = wrapping.configuration([("b", "2")], plain=False)["resources"]
    assert len(resource["providers"]) == 1


def test_the_trials_object_store_is_told_of_keys_as_it_reads_them() -> None:
    """Each by its access key, with the rights to every bucket."""
    one = trial_accounts.new_account("cards-1")
    account = {"access": "cards-1", "secret": one["AWS_SECRET_ACCESS_KEY"], "role": "admin"}
    assert trial_accounts.document(one) == {"accessAccounts": {"cards-1": account}}
    assert one["AWS_ENDPOINT_URL"] == "http://fraud-platform-objects.fraud-platform.svc:9000"
