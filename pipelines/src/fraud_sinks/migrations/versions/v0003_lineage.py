"""A topic that was made anew begins at offset 0 again: which topic of the name a place is of belongs to the place.

``lineage`` counts the topics of one name: 0 is the one that the ledger read first, or read when it came to this version.
So rows from before need not be written again. ``topics`` says whose lineage it is; a broker without topic ids has none there.
"""

from __future__ import annotations

from alembic import op

revision = "v0003"
down_revision = "v0002"
branch_labels = None
depends_on = None

KEYS = {
    "decision_conflicts": 'topic, lineage, partition, "offset"',
    "label_reports": 'topic, lineage, partition, "offset"',
    "rejected": 'topic, lineage, partition, "offset"',
    "progress": "topic, lineage, partition",
}
UPGRADE = (
    """
    CREATE TABLE topics (
        topic    text NOT NULL,
        lineage  integer NOT NULL,
        topic_id text NOT NULL,
        PRIMARY KEY (topic, lineage),
        UNIQUE (topic, topic_id)
    )
    """,
    *(f"ALTER TABLE {table} ADD COLUMN lineage integer NOT NULL DEFAULT 0" for table in ("decisions", *KEYS)),
    *(
        f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, ADD PRIMARY KEY ({key})"
        for table, key in KEYS.items()
    ),
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError(
        "the ledger has no way back; it can be rebuilt from the topics into a new schema"
    )
