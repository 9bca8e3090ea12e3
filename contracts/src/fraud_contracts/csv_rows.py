"""CSV files of labelled transactions, read as they are meant: a row that can't be is refused, never shifted.

A file has a header of different names, commas, and quotes that are doubled inside quoted cells (RFC 4180). Whoever reads
one checks the columns that it needs at once: a file of another delimiter or encoding would otherwise be refused row by row.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

# A byte order mark, as spreadsheets write one, belongs to the encoding and not to the first name.
ENCODING: Final = "utf-8-sig"


class TableError(ValueError):
    """A file that can't be read as a table; the message goes on after the file's name."""


@dataclass(frozen=True, slots=True)
class RefusedLines:
    """``count`` lines that made no row. Where a quote swallowed rows, there are as many lines as rows."""

    reason: str
    message: str
    count: int


def check_columns(names: Sequence[str], needed: Iterable[str]) -> None:
    """TableError names a column that is there twice (which one is meant?) or the needed ones that aren't there."""
    for name, count in Counter(names).items():
        if count > 1 and name:
            raise TableError(f"has the column {name} twice")
    lacking = [name for name in needed if name not in names]
    if lacking:
        shown = ", ".join(names)
        raise TableError(f"lacks the columns {', '.join(lacking)}; its header is {shown[:200]!r}")


def _holds_rows(cells: Sequence[str]) -> bool:
    """Whether a cell of several lines may have swallowed rows: it has as many commas as a row, or up to two less.

    The end of the first row and the beginning of the last make a whole row's together, wherever the quotes lie; cells may
    be lacking, or the widths wouldn't fit. An address has fewer commas, in all but the narrowest tables.
    """
    return any(cell.count(",") >= max(1, len(cells) - 3) for cell in cells if "\n" in cell or "\r" in cell)


def rows(lines: Iterable[str], needed: Iterable[str]) -> Iterator[tuple[int, dict[str, str] | RefusedLines]]:
    """(number of its first line, cells by name) of each row, or why there is none; TableError as ``check_columns``.

    ``lines`` keep their ends (``newline=""``). Empty lines are passed over, before the header also those of spaces and commas.
    """
    raw_lines: list[str] = []

    def recorded() -> Iterator[str]:
        for line in lines:
            raw_lines.append(line)
            yield line

    reader = csv.reader(recorded(), strict=True)
    try:
        header = next((cells for cells in reader if any(cell.strip() for cell in cells)), None)
    except csv.Error as error:
        raise TableError(f"has a header that can't be read: {error}") from error
    if header is None:
        raise TableError("is empty: it has no header")
    check_columns(header, needed)
    width = len(header)
    while True:
        raw_lines.clear()
        first = reader.line_num + 1
        problem: tuple[str, str] | None = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = "broken_quotes", str(error)
        else:
            if not cells:
                continue
            if any("\0" in line for line in raw_lines):
                problem = "nul_byte", "it holds a NUL byte"
            elif len(cells) != width:
                reason = "surplus_cells" if len(cells) > width else "missing_cells"
                problem = reason, f"{len(cells)} cells where the header has {width}"
            elif len(raw_lines) > 1 and _holds_rows(cells):
                problem = "broken_quotes", "a quoted cell holds what may be whole rows"
        if problem is None:
            yield first, dict(zip(header, cells, strict=True))
        else:
            yield first, RefusedLines(*problem, max(1, len(raw_lines)))
