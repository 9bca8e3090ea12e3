"""Answers other than a decision. Each has its HTTP status and a stable code; the tree:

RequestRefusedError
├── UnknownIdError        404  no decision of this id
├── IdReusedError         409  the id was claimed with another body
├── NoReleaseError        503  no release has arrived yet
├── OverloadedError       503  it wouldn't be answered in time, so it isn't begun
├── NotRecalledError      503  decided, and the ledger, which alone has the answer, doesn't give it now
└── NotRecordedError      503  decided, but the log didn't acknowledge it in time

Bad input is ``fraud_contracts.errors.EventError``: 413 where it is too large, else 400. Of keys tells its ``AccessError``: 401, 403, 429.
"""

from __future__ import annotations

from fraud_contracts.errors import Degraded, Reason


class RequestRefusedError(Exception):
    """``field`` is the field at fault, if one is. ``retry_after`` in seconds, where the same request may be sent again."""

    def __init__(
        self, status: int, code: str, message: str, field: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field = status, code, message, field
        self.retry_after = 1 if retry_after is None and status == 503 else retry_after


class UnknownIdError(RequestRefusedError):
    def __init__(self) -> None:
        super().__init__(404, "not_found", "no decision of this id, or it is older than a day")


class IdReusedError(RequestRefusedError):
    """``field`` is the transaction's id field."""

    def __init__(self, field: str) -> None:
        super().__init__(409, Reason.ID_REUSED, "this id was used with another body before", field)


class NoReleaseError(RequestRefusedError):
    def __init__(self) -> None:
        super().__init__(503, "no_release", "no release has arrived yet; retry in a moment")


class OverloadedError(RequestRefusedError):
    def __init__(self) -> None:
        super().__init__(503, "overloaded", "too many requests at once; retry in a moment")


class NotRecalledError(RequestRefusedError):
    """The claim says that the id is decided and published; its answer is to be had once the ledger has it."""

    def __init__(self) -> None:
        message = "decided a while ago, but the ledger doesn't give the decision now; repeat the request"
        super().__init__(503, "ledger_unavailable", message)


class NotRecordedError(RequestRefusedError):
    """The claim stands: the same request again is answered from it, once the record is in the log."""

    def __init__(self) -> None:
        message = "decided, but not recorded in time; repeat the request to complete it"
        super().__init__(503, Degraded.KAFKA_UNAVAILABLE, message)
