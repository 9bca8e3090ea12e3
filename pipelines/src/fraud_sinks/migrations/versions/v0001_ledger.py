"""The ledger: decisions, label reports, labels, what conflicted and what could not be stored, two views.

Columns beside ``record`` are generated from it, so they can't disagree with it. Times are UTC milliseconds.
"""

from __future__ import annotations

from alembic import op

revision = "v0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = (
    """
    CREATE TABLE decisions (
        id            text PRIMARY KEY,
        content       bytea NOT NULL,
        record        jsonb NOT NULL,
        raw           bytea,
        entity        text,
        topic         text NOT NULL,
        partition     integer NOT NULL,
        "offset"      bigint NOT NULL,
        written       timestamptz NOT NULL DEFAULT now(),
        hash          text GENERATED ALWAYS AS (record ->> 'hash') STORED,
        door          text GENERATED ALWAYS AS (record ->> 'door') STORED,
        action        text NOT NULL GENERATED ALWAYS AS (record ->> 'action') STORED,
        score         integer GENERATED ALWAYS AS ((record ->> 'score')::integer) STORED,
        probability   double precision GENERATED ALWAYS AS ((record ->> 'probability')::double precision) STORED,
        release       text GENERATED ALWAYS AS (record ->> 'release') STORED,
        model_version text GENERATED ALWAYS AS (record ->> 'model_version') STORED,
        model_digest  text GENERATED ALWAYS AS (record ->> 'model_digest') STORED,
        arm           text GENERATED ALWAYS AS (record ->> 'arm') STORED,
        bucket        integer GENERATED ALWAYS AS ((record ->> 'bucket')::integer) STORED,
        degraded      jsonb GENERATED ALWAYS AS (record -> 'degraded') STORED,
        parity        text GENERATED ALWAYS AS (record ->> 'parity') STORED,
        latency_ms    double precision GENERATED ALWAYS AS ((record ->> 'latency_ms')::double precision) STORED,
        decided       bigint NOT NULL GENERATED ALWAYS AS ((record ->> 'decided')::bigint) STORED,
        time          bigint NOT NULL GENERATED ALWAYS AS ((record #>> '{event,time}')::bigint) STORED,
        amount        bigint NOT NULL GENERATED ALWAYS AS ((record #>> '{event,amount}')::bigint) STORED,
        currency      text GENERATED ALWAYS AS (record #>> '{event,currency}') STORED,
        entities      jsonb NOT NULL GENERATED ALWAYS AS (record #> '{event,entities}') STORED
    )
    """,
    "CREATE INDEX decisions_decided ON decisions (decided)",
    "CREATE INDEX decisions_alerts ON decisions (decided DESC, id DESC) WHERE action IN ('review', 'decline')",
    "CREATE INDEX decisions_entity ON decisions (entity, decided)",
    """
    CREATE TABLE decision_conflicts (
        topic     text NOT NULL,
        partition integer NOT NULL,
        "offset"  bigint NOT NULL,
        id        text NOT NULL REFERENCES decisions (id),
        kind      text NOT NULL CHECK (kind IN ('body', 'decision')),
        record    jsonb NOT NULL,
        raw       bytea,
        written   timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (topic, partition, "offset")
    )
    """,
    "CREATE INDEX decision_conflicts_id ON decision_conflicts (id)",
    """
    CREATE TABLE label_reports (
        topic     text NOT NULL,
        partition integer NOT NULL,
        "offset"  bigint NOT NULL,
        id        text NOT NULL,
        fraud     boolean NOT NULL,
        source    text NOT NULL,
        claimed   bigint NOT NULL,
        known     bigint NOT NULL,
        joined    boolean NOT NULL DEFAULT false,
        PRIMARY KEY (topic, partition, "offset")
    )
    """,
    "CREATE INDEX label_reports_id ON label_reports (id)",
    "CREATE INDEX label_reports_waiting ON label_reports (id) WHERE NOT joined",
    """
    CREATE TABLE labels (
        id        text PRIMARY KEY REFERENCES decisions (id),
        fraud     boolean NOT NULL,
        source    text NOT NULL,
        claimed   bigint NOT NULL,
        known     bigint NOT NULL,
        time      bigint NOT NULL,
        entities  jsonb NOT NULL,
        revision  integer NOT NULL DEFAULT 1,
        published boolean NOT NULL DEFAULT false
    )
    """,
    "CREATE INDEX labels_outbox ON labels (known) WHERE NOT published",
    "CREATE INDEX labels_known ON labels (known)",
    """
    CREATE TABLE rejected (
        topic     text NOT NULL,
        partition integer NOT NULL,
        "offset"  bigint NOT NULL,
        reason    text NOT NULL,
        payload   bytea,
        written   timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (topic, partition, "offset")
    )
    """,
    """
    CREATE TABLE progress (
        topic     text NOT NULL,
        partition integer NOT NULL,
        following bigint NOT NULL,
        PRIMARY KEY (topic, partition)
    )
    """,
    """
    CREATE VIEW alerts AS
    SELECT d.id, d.decided, d.time, d.action, d.score, d.probability, d.amount, d.currency, d.entity, d.door, d.arm,
           d.release, d.model_version, d.record -> 'reasons' AS reasons, l.fraud, l.source AS label_source,
           l.known AS label_known
    FROM decisions d LEFT JOIN labels l USING (id)
    WHERE d.action IN ('review', 'decline')
    """,
    """
    CREATE VIEW outcomes AS
    SELECT d.id, d.entity, d.arm, d.bucket, d.release, d.model_version, d.action, d.score, d.probability, d.amount,
           d.time, d.decided, d.record -> 'shadow' AS shadow, l.fraud, l.source AS label_source, l.claimed, l.known
    FROM decisions d LEFT JOIN labels l USING (id)
    """,
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    """There is none: a ledger isn't thrown away by a command line. It can be rebuilt from the topics into a new schema."""
    raise NotImplementedError("the ledger has no way back before its first version")
