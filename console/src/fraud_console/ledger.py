"""Reads the ledger's schema. One short connection a request: analysts are few, and a pool would outlive a failover."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from fraud_contracts.errors import NotReadyError, StoreError
from fraud_process.postgres import address_of, bounded, described
from fraud_process.store_address import StoreAddress

AT_ONCE: Final = 8
STATEMENT_MS: Final = 5_000
WAIT_SECONDS: Final = 5.0  # for a turn
# The server's own limit ends a slow statement; this one ends waiting for a server that says nothing at all.
SILENCE_SECONDS: Final = 8.0

_ALERTS: Final = """
SELECT id, decided, time, action, score, amount, currency, entity, door, arm, release, reasons, fraud, label_source
FROM alerts WHERE (decided, id) < (%s, %s) ORDER BY decided DESC, id DESC LIMIT %s
"""
_DECISION: Final = "SELECT record, raw IS NOT NULL AS altered FROM decisions WHERE id = %s"
_LABEL: Final = "SELECT fraud, source, claimed, known FROM labels WHERE id = %s"
_REPORTS: Final = """
SELECT fraud, source, claimed, known FROM label_reports WHERE id = %s ORDER BY known, topic, partition, "offset" LIMIT 100
"""
_CONFLICTS: Final = """
SELECT kind, record FROM decision_conflicts WHERE id = %s ORDER BY topic, partition, "offset" LIMIT 20
"""


class Ledger:
    def __init__(self, address: StoreAddress, schema: str) -> None:
        self._address, self._schema = address, schema
        self._slots = threading.BoundedSemaphore(AT_ONCE)

    def alerts(self, limit: int, before: tuple[int, str]) -> list[dict[str, Any]]:
        """The newest first; ``before`` is the (decided, id) of the last one that was seen."""
        with self._cursor() as cursor:
            alerts: list[dict[str, Any]] = cursor.execute(_ALERTS, (*before, limit)).fetchall()
            return alerts

    def transaction(self, event_id: str) -> dict[str, Any] | None:
        """All that is known of an id; None where there is neither a decision nor a report."""
        with self._cursor() as cursor:
            decision = cursor.execute(_DECISION, (event_id,)).fetchone()
            reports = cursor.execute(_REPORTS, (event_id,)).fetchall()
            if decision is None and not reports:
                return None
            return {
                "id": event_id,
                "decision": decision and decision["record"],
                "altered": bool(decision and decision["altered"]),
                "label": cursor.execute(_LABEL, (event_id,)).fetchone(),
                "reports": reports,
                "conflicts": cursor.execute(_CONFLICTS, (event_id,)).fetchall(),
            }

    def check(self) -> None:
        """Raises unless the ledger can be read."""
        with self._cursor() as cursor:
            cursor.execute("SELECT 1 FROM decisions LIMIT 1")

    @contextmanager
    def _cursor(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        """One read-only snapshot."""
        if not self._slots.acquire(timeout=WAIT_SECONDS):
            raise StoreError("postgres", f"{AT_ONCE} requests are waiting for it already")
        try:
            with self._connected() as cursor:
                yield cursor
        finally:
            self._slots.release()

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        try:
            connection = psycopg.connect(
                address_of(self._address), connect_timeout=3, prepare_threshold=None, row_factory=dict_row
            )
            with bounded(connection, SILENCE_SECONDS), connection, connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}")
                cursor.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(self._schema)))
                yield cursor
        except psycopg.errors.UndefinedTable as error:
            raise NotReadyError("LedgerMissing", "the ledger sink has not made its tables yet") from error
        except psycopg.Error as error:
            raise StoreError("postgres", described(error)) from error
