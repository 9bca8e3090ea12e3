"""The ledger as the doors read it: decisions by their ids, and how far it is. It is asked only where Redis has lost claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_process.postgres import address_of, bounded, described
from fraud_process.store_address import StoreAddress

_CONNECT_SECONDS: Final = 2
# Whoever asked has gone on long before; this frees the thread that asks.
_SILENCE_SECONDS: Final = 2.0
# In one statement, hence of one moment: what the progress covers is among the rows.
_LOOK: Final = sql.SQL("""
SELECT NULL AS id, NULL AS record, NULL::bytea AS raw, lineage, partition, following FROM {schema}.progress WHERE topic = %(topic)s
UNION ALL
SELECT id, record::text, raw, NULL, NULL, NULL FROM {schema}.decisions WHERE id = ANY(%(ids)s)
""")
_LINEAGES: Final = sql.SQL("SELECT topic_id, lineage FROM {schema}.topics WHERE topic = %(topic)s")
_OLDER: Final = sql.SQL("SELECT EXISTS (SELECT FROM {schema}.decisions WHERE decided < %(before)s)")


class Look(NamedTuple):
    """``decisions``: the JSON of those ids that the ledger has. ``reached``: by (lineage, partition) of ``decisions`` the offset after its last record."""

    decisions: dict[str, bytes]
    reached: dict[tuple[int, int], int]


class LedgerLink:
    """One connection, opened by the first question. Of one thread at a time."""

    def __init__(self, address: StoreAddress, of: Identity) -> None:
        self._address = address
        self._schema = sql.Identifier(of.database_schema)
        self._topic = of.topic("decisions")
        self._connection: psycopg.Connection[Any] | None = None
        self._connected_to = ""

    def look(self, ids: Sequence[str]) -> Look:
        """StoreError where the ledger doesn't answer, or isn't there."""
        decisions: dict[str, bytes] = {}
        reached: dict[tuple[int, int], int] = {}
        for event_id, record, raw, lineage, partition, following in self._rows(
            _LOOK, {"topic": self._topic, "ids": list(ids)}
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
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _rows(self, query: sql.SQL, values: dict[str, Any]) -> list[Any]:
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
                return self._rows(query, values)
            raise StoreError("postgres", described(error)) from error

    def _connect(self) -> psycopg.Connection[Any]:
        dsn = address_of(self._address)
        if dsn != self._connected_to or self._connection is None or self._connection.closed:
            self.close()
            # No prepared statements: a pooler between us and the server may give each statement another backend.
            self._connection = psycopg.connect(
                dsn, autocommit=True, connect_timeout=_CONNECT_SECONDS, prepare_threshold=None
            )
            self._connected_to = dsn
        return self._connection
