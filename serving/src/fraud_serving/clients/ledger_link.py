"""The ledger as the doors read it: decisions by their ids, and how far it is. It is asked only where Redis has lost claims, or shrunk one that is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from fraud_contracts.background import thread
from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_process.postgres import address_of, bounded, described
from fraud_process.store_address import StoreAddress
from fraud_serving.claims import TTL_SECONDS

_CONNECT_SECONDS: Final = 2
# Whoever asked has gone on long before; this frees the thread that asks.
_SILENCE_SECONDS: Final = 2.0
# The login's connections are few, and the ledger's sink has the same: one that nobody uses is given back.
_IDLE_SECONDS: Final = 5.0
# A claim lives for a day from its publishing, so no older decision stands for one; clocks may be an hour apart.
_AGE_SECONDS: Final = TTL_SECONDS + 3_600
# In one statement, hence of one moment: what the progress covers is among the rows.
_LOOK: Final = sql.SQL("""
SELECT NULL AS id, NULL AS record, NULL::bytea AS raw, lineage, partition, following FROM {schema}.progress WHERE topic = %(topic)s
UNION ALL
SELECT id, record::text, raw, NULL, NULL, NULL FROM {schema}.decisions
WHERE id = ANY(%(ids)s) AND written > now() - %(age)s * interval '1 second'
""")
_LINEAGES: Final = sql.SQL("SELECT topic_id, lineage FROM {schema}.topics WHERE topic = %(topic)s")
_OLDER: Final = sql.SQL("SELECT EXISTS (SELECT FROM {schema}.decisions WHERE decided < %(before)s)")


class Look(NamedTuple):
    """``decisions``: the JSON of those ids that the ledger has. ``reached``: by (lineage, partition) of ``decisions`` the offset after its last record."""

    decisions: dict[str, bytes]
    reached: dict[tuple[int, int], int]


class LedgerLink:
    """One connection, opened by a question and closed once it is idle. Questions may come from several threads."""

    def __init__(self, address: StoreAddress, of: Identity) -> None:
        self._address = address
        self._schema = sql.Identifier(of.database_schema)
        self._topic = of.topic("decisions")
        self._connection: psycopg.Connection[Any] | None = None
        self._connected_to = ""
        self._used = 0.0
        self._lock = threading.RLock()

    def look(self, ids: Sequence[str]) -> Look:
        """Of decisions whose claims would still live; StoreError where the ledger doesn't answer, or isn't there."""
        decisions: dict[str, bytes] = {}
        reached: dict[tuple[int, int], int] = {}
        for event_id, record, raw, lineage, partition, following in self._rows(
            _LOOK, {"topic": self._topic, "ids": list(ids), "age": _AGE_SECONDS}
        ):
            if event_id is None:
                reached[lineage, partition] = following
            else:
                decisions[event_id] = record.encode() if raw is None else bytes(raw)
        return Look(decisions, reached)

    def lineages(self) -> dict[str, int]:
        """By the id of each topic ``decisions`` that the ledger has read: its number."""
        return {str(topic_id): lineage for topic_id, lineage in self._rows(_LINEAGES, {"topic": self._topic})}

    def has_older(self, before: int) -> bool:
        """Whether it holds a decision from before then, UTC ms."""
        return bool(self._rows(_OLDER, {"before": before})[0][0])

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _rows(self, query: sql.SQL, values: dict[str, Any]) -> list[Any]:
        with self._lock:
            try:
                return self._asked(query, values)
            finally:
                self._used = time.monotonic()

    def _asked(self, query: sql.SQL, values: dict[str, Any]) -> list[Any]:
        """Once more over a new connection where an earlier one turns out to be broken."""
        reused = self._connection is not None
        try:
            connection = self._connect()
            with bounded(connection, _SILENCE_SECONDS):
                rows: list[Any] = connection.execute(query.format(schema=self._schema), values).fetchall()
                return rows
        except (psycopg.Error, ValueError, OSError) as error:
            self.close()
            if reused and isinstance(error, psycopg.OperationalError):
                return self._asked(query, values)
            raise StoreError("postgres", described(error)) from error

    def _connect(self) -> psycopg.Connection[Any]:
        dsn = self._address_now()
        if dsn != self._connected_to or self._connection is None or self._connection.closed:
            self.close()
            # No prepared statements: a pooler between us and the server may give each statement another backend.
            self._connection = psycopg.connect(
                dsn, autocommit=True, connect_timeout=_CONNECT_SECONDS, prepare_threshold=None
            )
            self._connected_to = dsn
            thread("ledger idle", partial(self._close_when_idle, self._connection))
        return self._connection

    def _address_now(self) -> str:
        """Where there is none, the last one: the kubelet takes its file away while a login is replaced, and the old one is good for that long."""
        try:
            return address_of(self._address)
        except StoreError:
            if not self._connected_to:
                raise
            return self._connected_to

    def _close_when_idle(self, connection: psycopg.Connection[Any]) -> None:
        while True:
            time.sleep(_IDLE_SECONDS)
            with self._lock:
                if self._connection is not connection:
                    return
                if time.monotonic() - self._used >= _IDLE_SECONDS:
                    self.close()
                    return
