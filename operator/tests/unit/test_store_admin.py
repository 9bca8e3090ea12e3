"""The certificate of a store's authority as a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from pathlib import Path
from fraud_operator.store_login import StoreAdmin
first, again, other = (StoreAdmin("redis://x", text).authority for text in ("one", "one", "other"))
assert first == again != other and Path(first).read_text() == "one", first
print(first)
"""


def test_an_authoritys_file_goes_with_the_process() -> None:
    """There is one for each certificate, and neither it nor its folder is left over."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    file = Path(done.stdout.strip())
    assert file.is_absolute()
    assert not file.parent.exists()
