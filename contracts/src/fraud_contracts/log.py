"""One way to log: a JSON object a line on standard output, with fields bound by ``extra={"data": {...}}``.

Never log an event, a request body or a token key: log lines leave the detector. An exception's message may quote the value
that couldn't be read, so quotes and long numbers are blotted out of traces.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from types import TracebackType

_QUOTED = re.compile(r"""(['"])(?![A-Z_]+\1)(?:(?!\1).)+\1""")
_NUMBER = re.compile(r"[0-9](?:[ .-]?[0-9]){5,}")


def blot(trace: str) -> str:
    """A formatted trace whose frames are whole, and whose messages have lost their quotes and long numbers.

    A quoted name in capitals, such as that of a missing environment variable, stays.
    """
    lines = []
    for line in trace.splitlines():
        if not line.startswith(('  File "', "    ")):
            line = _NUMBER.sub("…", _QUOTED.sub("'…'", line))
        lines.append(line)
    return "\n".join(lines)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        data = getattr(record, "data", None)
        if isinstance(data, dict):
            line.update(data)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        return blot(super().formatException(ei))


def setup() -> None:
    """Send all logging of this process to standard output; call once, at start."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
