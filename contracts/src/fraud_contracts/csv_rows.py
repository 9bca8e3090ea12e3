"""CSV files of labelled transactions. A row that can't be read is refused; its cells never shift into other columns.

A file has a header of different names, commas, and quotes that are doubled inside quoted cells (RFC 4180). The columns that
a reader needs are checked first: a file of another delimiter or encoding would otherwise be refused row by row.
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
    """``count`` lines that gave no row. Where an open quote swallowed rows, there are as many lines as rows."""

    reason: str
    message: str
    count: int


def check_columns(names: Sequence[str], needed: Iterable[str]) -> None:
    """TableError where the header has a column twice (which one is meant?) or lacks needed ones."""
    for name, count in Counter(names).items():
        if count > 1 and name:
            raise TableError(f"has the column {name} twice")
    lacking = [name for name in needed if name not in names]
    if lacking:
        shown = ", ".join(names)
        raise TableError(f"lacks the columns {', '.join(lacking)}; its header is {shown[:200]!r}")


def _holds_rows(cells: Sequence[str]) -> bool:
    """Whether a cell of several lines may have swallowed rows: it has as many commas as a row, or up to two less.

    Wherever the two quotes lie, the rest of the first row and the beginning of the last one have about as many commas as a
    row. Up to two may be missing where the row's width still fits. An address has fewer commas, in all but the narrowest
    tables.
    """
    return any(cell.count(",") >= max(1, len(cells) - 3) for cell in cells if "\n" in cell or "\r" in cell)


def rows(lines: Iterable[str], needed: Iterable[str]) -> Iterator[tuple[int, dict[str, str] | RefusedLines]]:
    """For each row (number of its first line, its cells by name or why it is refused); TableError as ``check_columns``.

    ``lines`` keep their ends (``newline=""``). Empty lines are skipped; before the header also lines of spaces and commas.
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
