"""What a rebuild from the topics must give again, and rows that can be taken out by age.

- A conflict holds the digest of its decision, so that an id has one conflict for each other decision, whatever the order of arrival.
- A label's ``revision`` is the number of its reports; it was a count of changes, which depended on how batches fell.
- What hangs on a decision goes with it; reports and rejected records are found by age: ``python -m fraud_sinks.prune``.
- ``written`` comes from the record from now on: when the log took it in. Rows from before keep the moment of writing.
"""

from __future__ import annotations

from alembic import op

revision = "v0002"
down_revision = "v0001"
branch_labels = None
depends_on = None

UPGRADE = (
    "ALTER TABLE decision_conflicts ADD COLUMN content bytea",
    # No digest can be made of what PostgreSQL made of the JSON: the place tells old conflicts from each other.
    """
    UPDATE decision_conflicts SET content = sha256(convert_to(topic || '/' || partition || '/' || "offset", 'UTF8'))
    """,
    "ALTER TABLE decision_conflicts ALTER COLUMN content SET NOT NULL",
    """
    UPDATE labels l SET revision = greatest(r.reports, 1)
    FROM (SELECT id, count(*) AS reports FROM label_reports GROUP BY id) r WHERE r.id = l.id
    """,
    *(
        statement
        for table in ("labels", "decision_conflicts")
        for statement in (
            f"ALTER TABLE {table} DROP CONSTRAINT {table}_id_fkey",
            f"ALTER TABLE {table} ADD CONSTRAINT {table}_id_fkey FOREIGN KEY (id) REFERENCES decisions ON DELETE CASCADE",
        )
    ),
    "CREATE INDEX label_reports_known ON label_reports (known)",
    "CREATE INDEX rejected_written ON rejected (written)",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError(
        "the ledger has no way back; it can be rebuilt from the topics into a new schema"
    )
