"""Stores that make any login at once, for tests of what has nothing to do with stores."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

from fraud_contracts.names import Identity
from fraud_operator.detector import Detector
from fraud_operator.store_login import StoreAdmin, StoreLogin
from fraud_operator.store_logins import STORES, StoreLogins


class AtOnce(Executor):
    """What is asked is answered before the call is back."""

    def submit(self, call: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*arguments, **named))
        return future


def _agree(admin: StoreAdmin, detector: Detector, login: StoreLogin, settled: bool) -> None:
    """Nobody is asked."""


def _part(admin: StoreAdmin, identity: Identity) -> None:
    """Nobody is asked."""


def willing() -> StoreLogins:
    return StoreLogins(tuple(replace(store, ensure=_agree, remove=_part) for store in STORES))
