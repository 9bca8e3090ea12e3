"""Every metric of the platform, defined once. Components build their prometheus-client objects from these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Metric:
    """``kind`` decides the prometheus-client class; ``buckets`` only for histograms, in the name's base unit."""

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"] = "counter"
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_FAST: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)
_MODEL: Final = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25)
_AGE: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)

DECISIONS: Final = Metric(
    "fraud_decisions_total",
    "Decisions made, by door, action and arm.",
    labels=("detector", "door", "action", "arm"),
)
DECISION_SECONDS: Final = Metric(
    "fraud_decision_seconds", "Time to answer one transaction inline.", "histogram", ("detector",), _FAST
)
STEP_SECONDS: Final = Metric(
    "fraud_decision_step_seconds",
    "Time of one step of an inline decision.",
    "histogram",
    ("detector", "step"),
    _FAST,
)
DEGRADED: Final = Metric(
    "fraud_decisions_degraded_total",
    "Decisions that did without something.",
    labels=("detector", "door", "degraded"),
)
REFUSED: Final = Metric(
    "fraud_requests_refused_total", "Requests refused, by reason.", labels=("detector", "reason")
)
UNDER_WAY: Final = Metric(
    "fraud_decisions_under_way", "Requests for a decision that a replica works at.", "gauge", ("detector",)
)
UNDER_WAY_BOUND: Final = Metric(
    "fraud_decisions_under_way_bound",
    "How many of them a replica begins at once: fewer while requests wait for it too long.",
    "gauge",
    ("detector",),
)
CLIENT_REQUESTS: Final = Metric(
    "fraud_client_requests_total",
    "Requests with a client's key, to the decision service and the console: admitted, forbidden, rate_limited.",
    labels=("detector", "client", "result"),
)
CLIENTS_STALE: Final = Metric(
    "fraud_clients_stale",
    "1 while the file of the clients' keys can't be read, so that the keys read last go on holding.",
    "gauge",
    ("detector",),
)
REPEATS: Final = Metric(
    "fraud_repeats_total", "Ids seen again with the same body.", labels=("detector", "door")
)
CONFLICTS: Final = Metric(
    "fraud_id_conflicts_total",
    "Ids seen again with another body; the ledger also counts the same body decided otherwise. The worker counts all as stream.",
    labels=("detector", "door"),
)
SUPERSEDED: Final = Metric(
    "fraud_answers_superseded_total",
    "Inline answers that weren't published, as another decision of the id was: its claim had been lost or couldn't be asked for.",
    labels=("detector",),
)
LEDGER_LOOKUPS: Final = Metric(
    "fraud_ledger_lookups_total",
    "Ids looked up in the ledger, within a day of a loss of claims or as their claims are shrunk: found, absent (never decided before), behind (it may lack it yet), away.",
    labels=("detector", "door", "result"),
)
RULES_FAILED: Final = Metric(
    "fraud_rules_failed_total",
    "Times that a policy rule couldn't be evaluated, so that it matched nothing.",
    labels=("detector", "door", "rule"),
)
UNREADABLE: Final = Metric(
    "fraud_unreadable_total",
    "Stored bytes that weren't what they should be and were taken for missing: claim, whole, profile, pending, release, decision.",
    labels=("detector", "what"),
)
RELEASE_INFO: Final = Metric(
    "fraud_release_info", "1 for the release in use.", "gauge", ("detector", "release", "model_version")
)
PARITY: Final = Metric(
    "fraud_parity_total",
    "Inline vectors compared with the streamed ones: equal, stale (other events seen), mismatch.",
    labels=("detector", "result"),
)
STREAM_SECONDS: Final = Metric(
    "fraud_stream_decision_seconds",
    "Append of the transaction to its committed decision.",
    "histogram",
    ("detector",),
    _AGE,
)
PROFILES_AGE: Final = Metric(
    "fraud_profiles_age_seconds",
    "How long ago the last moment was of which a replica knows that all that was accepted before is in the profiles.",
    "gauge",
    ("detector",),
)
DEAD_LETTERS: Final = Metric(
    "fraud_dead_letters_total",
    "Dead letters written by the worker, by reason; the stream's are counted on the topic.",
    labels=("detector", "reason"),
)
PREDICT_SECONDS: Final = Metric(
    "fraud_predictor_seconds",
    "Time of one inference inside the predictor.",
    "histogram",
    ("model_version",),
    _MODEL,
)
PREDICT_ROWS: Final = Metric("fraud_predictor_rows_total", "Rows scored.", labels=("model_version",))
PREDICT_ERRORS: Final = Metric(
    "fraud_predictor_errors_total", "JSON inference requests answered with an error.", labels=("reason",)
)
SINK_ROWS: Final = Metric(
    "fraud_sink_rows_total", "Records written to the store.", labels=("detector", "sink")
)
SINK_REFUSED: Final = Metric(
    "fraud_sink_refused_total",
    "Records that the store can't take, or that another one of the id keeps out. The ledger keeps a decision's bytes; all others are logged by their place.",
    labels=("detector", "sink"),
)
SINK_RETRIES: Final = Metric(
    "fraud_sink_retries_total",
    "Calls of the store or of Kafka that failed and were tried again.",
    labels=("detector", "sink"),
)
SINK_LOSSES: Final = Metric(
    "fraud_sink_store_losses_total",
    "Times that the store had lost data and was written anew from the topics.",
    labels=("detector", "sink"),
)
SINK_REREADS: Final = Metric(
    "fraud_sink_rereads_total",
    "Times that a topic was found made anew, or shorter than what had been read of it, and was read from its beginning.",
    labels=("detector", "sink"),
)
SINK_LAG: Final = Metric("fraud_sink_lag_records", "Records not yet written.", "gauge", ("detector", "sink"))
FRESHNESS_SECONDS: Final = Metric(
    "fraud_profile_freshness_seconds",
    "Event's append to its profile in Redis.",
    "histogram",
    ("detector",),
    _AGE,
)
CONSOLE_REQUESTS: Final = Metric(
    "fraud_console_requests_total",
    "Requests answered by the console, by route and status.",
    labels=("detector", "route", "status"),
)
CONSOLE_SECONDS: Final = Metric(
    "fraud_console_request_seconds",
    "Time of one answer of the console's API.",
    "histogram",
    ("detector", "route"),
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
)
RECONCILES: Final = Metric("fraud_operator_reconciles_total", "Passes, by result.", labels=("result",))
RECONCILE_SECONDS: Final = Metric(
    "fraud_operator_reconcile_seconds",
    "Time of one pass.",
    "histogram",
    (),
    (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0),
)
APPLIED: Final = Metric(
    "fraud_operator_writes_total", "Children created, changed or deleted.", labels=("kind", "verb")
)
DETECTOR_READY: Final = Metric("fraud_operator_detector_ready", "1 while Ready.", "gauge", ("detector",))

ALL: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
