"""Errors and reason codes that a caller, a dead letter or a condition shows.

FraudError
├── EventError            a record that can't become a canonical event: code, field, message
├── SpecError             a custom resource that the schema let pass but that can't be built: path, message
├── NotReadyError         not there yet: reason, message
├── StoreError            a store answered with an error or not in time: store
│   └── StoreFullError    it takes no more: store
└── AccessError           a request that isn't answered because of its key: status, code, message, retry_after
    ├── UnauthenticatedError  401  the key is missing or nobody's
    ├── ForbiddenError        403  the key doesn't open what was asked for
    └── RateLimitedError      429  the key asks more often than its client may
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a record is refused or dead-lettered. The values are public: API answers, dead letters and metrics carry them."""

    INVALID_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_KEY = "duplicate_key"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    INVALID_ID = "invalid_id"
    INVALID_TIME = "invalid_time"
    TIME_IN_FUTURE = "time_in_future"
    INVALID_AMOUNT = "invalid_amount"
    WRONG_CURRENCY = "wrong_currency"
    INVALID_ENTITY = "invalid_entity"
    CARRIES_DECISION = "carries_decision"
    ID_REUSED = "id_reused"


class Degraded(StrEnum):
    """What a decision did without. The values are public: ``degraded`` in answers, records and metrics."""

    NO_MODEL = "no_model"
    MODEL_UNAVAILABLE = "model_unavailable"
    CANDIDATE_UNAVAILABLE = "candidate_unavailable"
    PROFILES_UNAVAILABLE = "profiles_unavailable"
    PROFILES_INCOMPLETE = "profiles_incomplete"
    PROFILES_STALE = "profiles_stale"
    IDEMPOTENCY = "idempotency"
    KAFKA_UNAVAILABLE = "kafka_unavailable"
    FEATURES_FAILED = "features_failed"
    OTHER_FEATURE_SET = "other_feature_set"


class Access(StrEnum):
    """Why a key isn't let in. The values are public: answers of service and console, and metrics, carry them."""

    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"


class FraudError(Exception):
    """Base of the platform's own errors."""


class EventError(FraudError):
    """A record that can't become a canonical event. ``message`` names the field and never holds its value."""

    def __init__(
        self, reason: Reason, message: str, field: str | None = None, event_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.reason, self.message, self.field, self.event_id = reason, message, field, event_id


class SpecError(FraudError):
    """A spec that can't be built; permanent until it is changed. ``path`` is like ``spec.features.extra[0].window``."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path, self.message = path, message


class NotReadyError(FraudError):
    """Something that we need isn't there yet."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class StoreError(FraudError):
    """A store (``redis``, ``kafka``, ``predictor``, ``postgres``, ``mlflow``, ``prometheus``, ``lake``) failed or was late."""

    def __init__(self, store: str, message: str) -> None:
        super().__init__(f"{store}: {message}")
        self.store, self.message = store, message


class StoreFullError(StoreError):
    """The store has no room for what is to be written, until somebody makes some; what it holds can be read as ever."""


class AccessError(FraudError):
    """``status`` is HTTP's; ``retry_after`` in seconds, where the same request may be sent again."""

    def __init__(self, status: int, code: Access, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


class UnauthenticatedError(AccessError):
    def __init__(self) -> None:
        super().__init__(401, Access.UNAUTHENTICATED, "X-API-Key is missing or wrong")


class ForbiddenError(AccessError):
    def __init__(self, client: str, scope: str) -> None:
        message = f"this key of the client {client!r} doesn't have the scope {scope}"
        super().__init__(403, Access.FORBIDDEN, message)
        self.client, self.scope = client, scope


class RateLimitedError(AccessError):
    def __init__(self, client: str, per_second: int, retry_after: int) -> None:
        message = f"the client {client!r} may send {per_second} requests a second with this key"
        super().__init__(429, Access.RATE_LIMITED, message, retry_after)
        self.client = client
