"""Where the demo's own files lie in the object store. Known on both sides, so this imports nothing."""

from __future__ import annotations

from typing import Final

# Below the platform's storage. No detector's folder is called so, since theirs hold a dot.
FOLDER: Final = "demo"
INPUT: Final = "live.jsonl.gz"
EVIDENCE: Final = "evidence"
