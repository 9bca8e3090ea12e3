"""A page of the docs with a part that a command writes, between two marks."""

from __future__ import annotations


def with_part(page: str, begin: str, part: str, end: str) -> str:
    """The page with ``part`` between its marks, each a line; ValueError where it lacks one of them."""
    before, mark, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not mark or not last:
        raise ValueError(f"the page lacks the lines {begin.strip()} and, after it, {end.strip()}")
    return f"{before}{begin}\n{part}\n{end}{after}"
