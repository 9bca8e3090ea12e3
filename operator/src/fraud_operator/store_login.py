"""A detector's own login to a store of the platform's, and what can go wrong in making one.

The name of a login ends in a stamp, the second of its making: a rotated password is another login. Two are good while Pods change
over. When the older one is past use the stamp doesn't say: a Secret may get its successor much later, or never.
"""

from __future__ import annotations

import atexit
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final
from urllib.parse import quote, urlsplit

from fraud_contracts.errors import StoreError
from fraud_process.store_address import split_login

_STAMP: Final = re.compile("[0-9a-f]{8}")
# How long an earlier login stays good once the Secret has its successor: the kubelet renews a Pod's files about once a minute, and
# clients read them every few seconds.
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
def _folder() -> str:
    """For as long as the process runs."""
    folder = tempfile.mkdtemp(prefix="authorities-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _file(text: str) -> str:
    with tempfile.NamedTemporaryFile("w", dir=_folder(), suffix=".pem", delete=False) as file:
        file.write(text)
    return file.name


@dataclass(frozen=True)
class StoreLogin:
    user: str
    password: str


def login_in(address: str) -> StoreLogin | None:
    """The login in a URL; None where there is none, or no URL."""
    _, user, password = split_login(address)
    return StoreLogin(user, password) if user and password else None


def with_login(address: str, login: StoreLogin) -> str:
    """A URL with this login in place of its own."""
    parts = urlsplit(split_login(address)[0])
    own = f"{quote(login.user, safe='')}:{quote(login.password, safe='')}"
    return parts._replace(netloc=f"{own}@{parts.netloc}").geturl()


def new_login(prefix: str, now: int) -> StoreLogin:
    """``prefix`` is what the names of all the detector's logins begin with; ``now`` is in UTC seconds."""
    return StoreLogin(f"{prefix}{now:08x}", secrets.token_hex(16))


def is_login(prefix: str, user: str) -> bool:
    """Whether ``user`` is the name of a login with that prefix."""
    return user.startswith(prefix) and bool(_STAMP.fullmatch(user[len(prefix) :]))


def others(prefix: str, users: Iterable[str], login: StoreLogin) -> list[str]:
    """The detector's logins but for ``login``."""
    return [user for user in users if is_login(prefix, user) and user != login.user]
