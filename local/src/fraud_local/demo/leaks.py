"""Searches for planted card numbers where none may be: the search itself, and files.

A number counts as found in any form that a program makes of it by accident: its digits in a row or in fours with spaces or
dashes between, as UTF-16, in hexadecimal, in base64 (also within base64), in gzip or zip files. What is reported says where and
how, never the number. ``leaks_stores`` looks inside the cluster's stores, ``leaks_cluster`` at what kubectl shows.

Outside the search, since they hold the numbers by right: the clients' raw ``transactions`` topic with its log segments,
and the files that the user gives (the history, and here the demo's own traffic file).
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ahocorasick_rs import BytesAhoCorasick, Implementation

# A number by itself: a run of digits in a hexadecimal id is none.
_CARD = re.compile(r"(?<![0-9A-Za-z.])[0-9]{12,19}(?![0-9A-Za-z.])")
_NUMBER = re.compile(r"[0-9](?:[ .-]?[0-9]){11,18}")
_CHUNK = 8 * 2**20
_OVERLAP = 256
_FEWEST = 12
_MOST_WHERE = 50


def _base64(text: bytes) -> list[bytes]:
    """What base64 makes of the text wherever it starts in its groups of three bytes, without the ends that depend on neighbours."""
    encodings = []
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + text)
        encodings.append(encoded[-(-shift * 8 // 6) : (shift + len(text)) * 8 // 6])
    return encodings


def forms(number: str) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each form in which a number of decimal digits is looked for."""
    text = number.encode()
    groups = [number[at : at + 4] for at in range(0, len(number), 4)]
    yield "plain", text
    for gap in " -":
        yield "plain", gap.join(groups).encode()
    yield "utf-16", b"\0".join(text[at : at + 1] for at in range(len(text)))
    yield "hex", text.hex().encode()
    for once in _base64(text):
        yield "base64", once
        for twice in _base64(once):
            yield "base64", twice


class Needles:
    """The planted numbers, as text of digits."""

    def __init__(self, numbers: Iterable[str]) -> None:
        self.numbers = frozenset(n for n in numbers if n.isdecimal() and len(n) >= _FEWEST)
        patterns = [form for number in sorted(self.numbers) for form in forms(number)]
        self._names = [name for name, _ in patterns]
        # The fastest but for a full table, which takes six times the memory.
        self._automaton = BytesAhoCorasick(
            [data for _, data in patterns], implementation=Implementation.ContiguousNFA
        )

    def find(self, data: bytes) -> str | None:
        """How a number is written in the bytes: ``plain``, ``utf-16``, ``hex``, ``base64``; None where there is none."""
        matches = self._automaton.find_matches_as_indexes(data)
        return self._names[matches[0][0]] if matches else None


@dataclass
class LeakReport:
    """``searched``: bytes by place. ``unread``: what couldn't be looked at, which is no proof of anything.

    ``gaps``: logs that the cluster forgot when their container ended, before they were read.
    """

    searched: dict[str, int] = field(default_factory=dict)
    hits: list[dict[str, str]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    count: int = 0
    gaps: list[str] = field(default_factory=list)

    def search(self, needles: Needles, place: str, where: str, data: bytes) -> None:
        self.searched[place] = self.searched.get(place, 0) + len(data)
        form = needles.find(data)
        if form is not None:
            self.count += 1
            if len(self.hits) < _MOST_WHERE:
                self.hits.append({"place": place, "where": mask(where), "form": form})

    def search_all(self, needles: Needles, place: str, items: list[tuple[str, bytes]]) -> None:
        """Many small pieces in one go; one by one only where something is found."""
        whole = b"\n".join(data for _, data in items)
        if needles.find(whole) is None:
            self.searched[place] = self.searched.get(place, 0) + len(whole)
            return
        for where, data in items:
            self.search(needles, place, where, data)

    def visit(self, place: str) -> None:
        """A place that was looked into, though it may be empty."""
        self.searched.setdefault(place, 0)

    def miss(self, place: str, error: Exception) -> None:
        self.visit(place)
        self.unread.append(mask(f"{place}: {type(error).__name__}: {error}")[:300])

    def gap(self, place: str) -> None:
        self.visit(place.partition("/")[0])
        self.gaps.append(mask(f"{place}: ended before its log was read"))

    def join(self, other: LeakReport) -> LeakReport:
        """Both as one."""
        for place, size in other.searched.items():
            self.searched[place] = self.searched.get(place, 0) + size
        self.hits += other.hits
        self.unread += other.unread
        self.count += other.count
        self.gaps += other.gaps
        return self

    def document(self) -> dict[str, Any]:
        return {
            "searched": dict(sorted(self.searched.items())),
            "count": self.count,
            "hits": self.hits,
            "unread": self.unread,
            "gaps": self.gaps,
        }

    @classmethod
    def of(cls, document: dict[str, Any]) -> LeakReport:
        return cls(**{key: document[key] for key in ("searched", "hits", "unread", "count", "gaps")})


def mask(text: str) -> str:
    """The text without long numbers: a report of leaks must be none."""
    return _NUMBER.sub("…", text)


def luhn(digits: str) -> bool:
    total = 0
    for at, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + at % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def planted(live: Path, most: int | None = None) -> Needles:
    """The card numbers (12 to 19 digits, by Luhn's rule) in the demo's traffic file, those in damaged records included."""
    numbers: dict[str, None] = {}
    with gzip.open(live, "rt", encoding="utf-8") as stream:
        for line in stream:
            for match in _CARD.finditer(json.loads(line)["raw"]):
                # Times of milliseconds have thirteen digits, and some of them pass by chance.
                if len(match[0]) != 13 and luhn(match[0]):
                    numbers[match[0]] = None
                    if most is not None and len(numbers) >= most:
                        return Needles(numbers)
    return Needles(numbers)


def pieces(stream: Any) -> Iterator[bytes]:
    """A stream in chunks that overlap, so that a number across an edge is whole in one of them."""
    tail = b""
    while chunk := stream.read(_CHUNK):
        yield tail + chunk
        tail = chunk[-_OVERLAP:]


def contents(opened: Callable[[], Any]) -> Iterator[bytes]:
    """A file's bytes as they lie there, and what is packed in them. ``opened`` gives it, as a binary stream that can seek."""
    with opened() as stream:
        head = stream.read(4)
        stream.seek(0)
        yield from pieces(stream)
        stream.seek(0)
        if head[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield from pieces(unpacked)
        elif head == b"PK\x03\x04":
            with zipfile.ZipFile(stream) as members:
                for name in members.namelist():
                    with members.open(name) as member:
                        yield from pieces(member)


def files(needles: Needles, place: str, root: Path) -> LeakReport:
    """Every file below a folder. Files that vanish meanwhile are none."""
    report = LeakReport()
    report.visit(place)

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            report.miss(place, error)

    folders = os.walk(root, onerror=note)
    for path in sorted(Path(folder) / name for folder, _, names in folders for name in names):
        if path.is_symlink() or not path.is_file():
            continue
        where = str(path.relative_to(root))
        report.search(needles, place, where, where.encode())
        try:
            for data in contents(partial(path.open, "rb")):
                report.search(needles, place, where, data)
        except FileNotFoundError:
            continue
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            report.miss(f"{place}/{where}", error)
    return report
