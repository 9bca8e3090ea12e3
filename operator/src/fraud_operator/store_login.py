"""A detector's own login to a store of the platform's, and what can go wrong in making one.

The name of a login ends in a stamp, the second of its making: a rotated password is another login, whose stamp says since when
its predecessors are past use. So two are good while Pods change over, and nothing but the Secret and the store is remembered.
"""

from __future__ import annotations

import re
import secrets
import tempfile
from dataclasses import dataclass
from functools import cache
from typing import Final

from fraud_contracts.errors import StoreError

_STAMP: Final = re.compile("[0-9a-f]{8}")
# How long an earlier login stays good: the kubelet renews a Pod's files about once a minute, and clients read them every few seconds.
GRACE_SECONDS: Final = 600


class LoginRefusedError(StoreError):
    """The store answers, and the platform's login may not do what a detector's own takes."""


@dataclass(frozen=True)
class StoreAdmin:
    """The platform's own address of a store; ``certificate`` is the authority's that certified the server (PEM), if any."""

    address: str
    certificate: str = ""

    @property
    def authority(self) -> str | None:
        """The certificate as a file, which clients ask for."""
        return _file(self.certificate) if self.certificate else None


@cache
def _file(text: str) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="authority-", suffix=".pem", delete=False) as file:
        file.write(text)
    return file.name


@dataclass(frozen=True)
class StoreLogin:
    user: str
    password: str

    @property
    def outlasts(self) -> int:
        """The UTC second from which logins that are older than this one are past use."""
        return int(self.user[-8:], 16) + GRACE_SECONDS


def new_login(prefix: str, now: int) -> StoreLogin:
    """``prefix`` is what the names of all the detector's logins begin with; ``now`` is in UTC seconds."""
    return StoreLogin(f"{prefix}{now:08x}", secrets.token_hex(16))


def is_login(prefix: str, user: str) -> bool:
    """Whether ``user`` is the name of a login with that prefix."""
    return user.startswith(prefix) and bool(_STAMP.fullmatch(user[len(prefix) :]))


def past_use(prefix: str, users: list[str], login: StoreLogin, now: int) -> list[str]:
    """The logins that ``login`` has followed for long enough."""
    others = [user for user in users if is_login(prefix, user) and user != login.user]
    return others if now >= login.outlasts else []
