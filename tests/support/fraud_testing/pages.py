"""The shell commands of README and docs. What runs a block stands after the block's language, as in ```sh cluster."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
# Who runs a block, and the test that does.
RUNNERS: Final = {
    "cluster": "tests/e2e/test_pages.py",
    "doors": "tests/doors/test_examples.py",
    "demo": "tests/e2e/test_demo.py",
    "backups": "pipelines/tests/integration/test_backups.py",
    "here": "serving/tests/integration/test_pages.py",
    "make": "tests/architecture/test_docs.py",
    "elsewhere": "tests/architecture/commands-elsewhere.txt",
}
# The order in which one cluster runs the pages' blocks: each may use what an earlier one made.
ON_A_CLUSTER: Final = (
    "README.md", "docs/integrate.md", "docs/investigate.md", "docs/dead-letters.md", "docs/stores.md", "docs/install.md",
)  # fmt: skip
_BLOCK: Final = re.compile(r"^```(?:sh|bash|shell|console)\b[ ]*(\S*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block of commands. ``page`` is its path from the root."""

    page: str
    runner: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its lines without comments; lines that go on are one."""
        whole = self.text.replace("\\\n", " ")
        lines = (re.sub(r"\s+#.*", "", line).strip() for line in whole.splitlines())
        return [" ".join(line.split()) for line in lines if line]


def pages() -> list[Path]:
    """All pages for people."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(runner: str | None = None, page: str | None = None) -> list[Block]:
    """The blocks of commands in all pages, or in one; of all runners, or of one."""
    return [
        Block(str(path.relative_to(ROOT)), match[1], match[2])
        for path in pages()
        for match in _BLOCK.finditer(path.read_text())
        if runner in (None, match[1]) and page in (None, str(path.relative_to(ROOT)))
    ]


def run(blocks_of_page: list[Block], environ: Mapping[str, str], seconds: float, cwd: Path = ROOT) -> str:
    """Standard output of the blocks as one script, which ends at the first failure; what it left running is ended too."""
    script = "set -euo pipefail\n" + "\n".join(block.text for block in blocks_of_page)
    # Files and not pipes: a program that the script left in the background would keep a pipe open.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=cwd,
            env={**os.environ, **environ},
            stdout=out,
            stderr=error,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        out.seek(0)
        error.seek(0)
        printed = out.read()
        assert process.returncode == 0, f"{blocks_of_page[0].page}: {printed[-4000:]}{error.read()[-4000:]}"
        return printed
