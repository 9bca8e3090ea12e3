"""Asks the ledger, once a batch, for the ids whose claims may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fraud_contracts.errors import Degraded
from fraud_contracts.records import Decision
from fraud_serving.past_decisions import PastDecisions
from fraud_serving.wholeness import Mark
from fraud_serving.worker.batch import Incoming

_SECONDS: Final = 0.25


class PastBatches:
    def __init__(self, past: PastDecisions) -> None:
        self._past = past

    def find(self, batch: Sequence[Incoming], mark: Mark) -> list[Decision]:
        """Fills in what the ledger has published of ids, as their claims; -> those decisions, whose claims are to be made again.

        A record that is yet to be decided says so where the ledger doesn't know for certain. A record whose claim couldn't be
        asked for says it already.
        """
        asked = [incoming for incoming in batch if _doubtful(incoming, mark)]
        if not asked:
            return []
        look = self._past.wait([incoming.id for incoming in asked], _SECONDS)
        found: list[Decision] = []
        for incoming in asked:
            claim, certain = self._past.read(incoming.id, look, mark)
            if claim is not None and claim.decision is not None:
                incoming.claim = claim
                found.append(claim.decision)
            elif not certain and incoming.claim is None and incoming.decision is None:
                incoming.degraded.append(Degraded.IDEMPOTENCY)
        return found


def _doubtful(incoming: Incoming, mark: Mark) -> bool:
    """Redis has no claim of it, or one from before the loss that doesn't say whether it was published: that may be lost as well."""
    if incoming.instead_of is None:
        return False
    if incoming.claim is None:
        return True
    decision = incoming.claim.decision
    return decision is not None and not incoming.claim.published and decision["decided"] < mark.since
