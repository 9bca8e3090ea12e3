"""Where the demo's own files lie in the object store, and the keys of its Pod. Known on both sides, so this imports nothing."""

from __future__ import annotations

from typing import Final

# Below the platform's storage. No detector's folder is called so, since theirs hold a dot.
FOLDER: Final = "demo"
INPUT: Final = "live.jsonl.gz"
EVIDENCE: Final = "evidence"

# Variables of the Pod with the key of a client each, as a payment system and the sender of labels have.
PAYMENTS_KEY: Final = "PAYMENTS_KEY"
LABELS_KEY: Final = "LABELS_KEY"
CLIENT_KEYS: Final = {PAYMENTS_KEY: "payments", LABELS_KEY: "labels"}
