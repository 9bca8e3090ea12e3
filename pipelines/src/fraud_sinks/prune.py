"""``python -m fraud_sinks.prune --older-than 400d``: takes old rows out of the ledger, for a CronJob or by hand.

A decision goes with its label and its conflicts; a report goes when its own age and its decision's absence allow it.
The lake keeps everything. Safe beside a running sink: each batch is a short transaction under the ledger's lock.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from typing import Final

from psycopg import sql

from fraud_contracts import durations
from fraud_contracts import log as logs
from fraud_contracts.config import POSTGRES_DSN, load_config
from fraud_contracts.errors import StoreError
from fraud_process.postgres import address_of
from fraud_process.store_address import store_address
from fraud_sinks.database import Database, migrate

log = logging.getLogger(__name__)

BATCH: Final = 2_000
# A rebuild would bring back younger rows: the topic keeps decisions for that long.
LEAST: Final = "30d"

_OLD: Final = {
    "decisions": "SELECT ctid FROM decisions WHERE decided < %(before)s",
    # A report may wait for a decision that comes late; one whose decision stays is needed for its next correction.
    "label_reports": "SELECT ctid FROM label_reports r WHERE known < %(before)s"
    " AND NOT EXISTS (SELECT FROM decisions d WHERE d.id = r.id)",
    "rejected": "SELECT ctid FROM rejected WHERE written < to_timestamp(%(before)s / 1000.0)",
}
_COUNT: Final = sql.SQL("SELECT count(*) FROM ({}) AS old")
_DELETE: Final = sql.SQL("DELETE FROM {} WHERE ctid = ANY(ARRAY({} LIMIT %(batch)s))")


def prune(database: Database, before: int, dry_run: bool = False, batch: int = BATCH) -> dict[str, int]:
    """Deletes, table by table, the rows older than ``before`` (UTC ms); -> how many of each. ``dry_run`` only counts."""
    counts = dict.fromkeys(_OLD, 0)
    for table, old in _OLD.items():
        last = batch
        while last == batch:
            with database.transaction() as cursor:
                values = {"before": before, "batch": batch}
                if dry_run:
                    cursor.execute(_COUNT.format(sql.SQL(old)), values)
                    row = cursor.fetchone()
                    counts[table], last = (row[0] if row else 0), 0
                else:
                    cursor.execute(_DELETE.format(sql.Identifier(table), sql.SQL(old)), values)
                    counts[table], last = counts[table] + cursor.rowcount, cursor.rowcount
    return counts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fraud_sinks.prune")
    parser.add_argument(
        "--older-than", required=True, metavar="DURATION", help=f"such as 400d; at least {LEAST}"
    )
    parser.add_argument("--dry-run", action="store_true", help="count only")
    options = parser.parse_args(argv)
    logs.setup()
    try:
        age = durations.to_ms(options.older_than)
        if age < durations.to_ms(LEAST):
            raise ValueError(f"--older-than must be at least {LEAST}: a rebuild would bring those rows back")
        address, schema = store_address(POSTGRES_DSN), load_config().identity.database_schema
        migrate(address_of(address), schema)
        counts = prune(Database(address, schema), int(time.time() * 1000) - age, options.dry_run)
    except (ValueError, StoreError) as error:
        log.error("not pruned", extra={"data": {"error": str(error)}})
        return 1
    log.info("would prune" if options.dry_run else "pruned", extra={"data": counts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
