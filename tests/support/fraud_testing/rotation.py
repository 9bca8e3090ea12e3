"""What a test that changes credentials under load has at hand, and what it asks of every change: that no client notices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from fraud_contracts import names
from fraud_testing import client_load
from fraud_testing.client_pod import ClientPod
from fraud_testing.live import SOON, Live, within

# Payments a second, and for so long it goes on after a change.
RATE: Final = 50
QUIET: Final = 15
SCOPES: Final = ("Decide", "Label", "Read")


def client_secrets(detector: str, spec: Mapping[str, Any]) -> dict[str, str]:
    """The Secret with each client's keys, by the client's name."""
    return {
        client["name"]: (client.get("secretRef") or {}).get("name") or names.client(detector, client["name"])
        for client in spec["clients"]
    }


def who_may(spec: Mapping[str, Any], scope: str) -> str:
    """The first client that the scope is open to. One that may do everything is taken where there is no other."""
    for wanted in (scope, "Admin"):
        for client in spec["clients"]:
            if wanted in client["scopes"]:
                return str(client["name"])
    raise AssertionError(f"no client of the detector may {scope}")


def changed(before: Mapping[str, Any], after: Mapping[str, Any], new: Sequence[str]) -> dict[str, Any]:
    """What of Pods isn't as it was, but for those whose names begin with one of ``new``."""
    names_of = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(names_of)
        if not name.startswith(tuple(new))
    }


@dataclass
class Stand:
    """``old``: addresses that are to be refused some time after their successors came, by their key in the Secret."""

    live: Live
    client: ClientPod
    spec: Mapping[str, Any]
    old: dict[str, str] = field(default_factory=dict)

    def payments(self) -> int:
        return int(self.client.status()["counts"].get(client_load.DECIDE.path, 0))

    @contextmanager
    def unnoticed(self, what: str, *, new: Sequence[str] = ()) -> Iterator[None]:
        """What the block changes costs no client an attempt, and no Pod its life but those whose names begin with one of ``new``.

        Afterwards the detector is whole, and the load goes on for a while.
        """
        self.live.settle()
        lives, status, failures = self.live.lives(), self.client.status(), len(self.client.failures())
        begun = self.payments()
        yield
        self.live.settle()
        enough = self.payments() + RATE * QUIET
        within(SOON, f"{enough} payments", lambda: self.payments() >= enough)
        after = self.client.status()
        marks = {
            mark: count - status["degraded"].get(mark, 0)
            for mark, count in after["degraded"].items()
            if count != status["degraded"].get(mark, 0)
        }
        print(f"\n{what}: {self.payments() - begun:,} payments, degraded {marks or 'none'}")
        assert self.client.failures()[failures:] == []
        assert changed(lives, self.live.lives(), new) == {}
