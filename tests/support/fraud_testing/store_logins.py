"""Stores that make any login at once, for tests of what has nothing to do with stores."""

from __future__ import annotations

from dataclasses import replace

from fraud_contracts.names import Identity
from fraud_operator.store_login import StoreAdmin, StoreLogin
from fraud_operator.store_logins import STORES, StoreLogins


def _agree(admin: StoreAdmin, identity: Identity, login: StoreLogin, now: int) -> None:
    """Nobody is asked."""


def _part(admin: StoreAdmin, identity: Identity) -> None:
    """Nobody is asked."""


def willing() -> StoreLogins:
    return StoreLogins(tuple(replace(store, ensure=_agree, remove=_part) for store in STORES))
