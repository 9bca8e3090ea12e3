"""Which passwords are made in the chart's Secret, and that none is made twice."""

from __future__ import annotations

import base64
from typing import Any, cast

import pytest

from fraud_operator.kube import ApiError, ConflictError, Kube
from fraud_operator.passwords import TRIES, SecretMissingError, fill_in, new_password

KEYS = ("REDIS_PASSWORD", "POSTGRES_PASSWORD")


class Server:
    """One Secret; ``others`` are writes of somebody else, one before each of ours."""

    def __init__(self, data: dict[str, str] | None, others: list[dict[str, str]] | None = None) -> None:
        self.data, self.version, self.others = data, 1, others or []

    def get(self, *_: object) -> dict[str, Any] | None:
        if self.data is None:
            return None
        return {"metadata": {"resourceVersion": str(self.version)}, "data": dict(self.data)}

    def merge(self, kind: object, namespace: str, name: str, body: dict[str, Any]) -> None:
        assert self.data is not None
        if self.others:
            self.data |= self.others.pop(0)
            self.version += 1
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise ConflictError(409, "the object has been modified")
        self.data |= body["data"]
        self.version += 1


def fill(server: Server, keys: tuple[str, ...] = KEYS) -> list[str]:
    return fill_in(cast(Kube, server), "fraud-platform", "fraud-platform-stores", keys, lambda: "made")


def test_what_lacks_is_made_and_the_rest_stays() -> None:
    """A key without a value gets one; one that has a value keeps it, whoever made it."""
    server = Server({"REDIS_PASSWORD": "b2xk", "POSTGRES_PASSWORD": "", "REDIS_URL": "eA=="})
    assert fill(server) == ["POSTGRES_PASSWORD"]
    made = base64.b64encode(b"made").decode()
    assert server.data == {"REDIS_PASSWORD": "b2xk", "POSTGRES_PASSWORD": made, "REDIS_URL": "eA=="}


def test_a_full_secret_is_not_written() -> None:
    """A second start of the operator changes nothing."""
    server = Server({})
    assert fill(server) == list(KEYS)
    version = server.version
    assert fill(server) == []
    assert server.version == version


def test_two_at_once_make_one_password() -> None:
    """Where somebody else was faster, their password is the one that stays."""
    server = Server({}, [{"REDIS_PASSWORD": "dGhlaXJz"}])
    assert fill(server) == ["POSTGRES_PASSWORD"]
    assert server.data is not None and server.data["REDIS_PASSWORD"] == "dGhlaXJz"


def test_a_secret_that_others_write_all_the_time_is_given_up() -> None:
    """After some tries it ends with an error, and Kubernetes starts the container again."""
    with pytest.raises(ApiError, match="all the time"):
        fill(Server({}, [{"other": "eA=="}] * (TRIES + 1)))


def test_a_missing_secret_is_named() -> None:
    """The chart makes the Secret; without it there is nothing to fill in."""
    with pytest.raises(SecretMissingError, match="no Secret fraud-platform-stores in fraud-platform"):
        fill(Server(None))


def test_a_password_is_whole_in_a_url_and_in_a_command() -> None:
    """Thirty-two letters and digits, another one each time."""
    one, other = new_password(), new_password()
    assert one.isalnum() and len(one) == 32
    assert one != other
