"""Each rule is written once: what two packages share lies in a package that both may import."""

from __future__ import annotations

import ast
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = 10
# (package, file, line number) of each line.
Place = tuple[str, Path, int]


def code_lines(path: Path) -> list[tuple[int, str]]:
    """A file's lines with their numbers: whitespace normalised, without blank lines, comments and imports."""
    text = path.read_text()
    imports = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = ((number, " ".join(line.split())) for number, line in enumerate(text.splitlines(), 1))
    return [(n, line) for n, line in lines if line and not line.startswith("#") and n not in imports]


def shared_runs(files: list[tuple[str, Path]]) -> list[str]:
    """Where ``RUN`` like lines stand in two packages, one entry for each pair of files and their first such lines."""
    places: dict[tuple[str, ...], list[Place]] = {}
    for package, path in files:
        lines = code_lines(path)
        for start in range(len(lines) - RUN + 1):
            run = tuple(line for _, line in lines[start : start + RUN])
            places.setdefault(run, []).append((package, path, lines[start][0]))
    first: dict[tuple[Path, Path], tuple[int, int]] = {}
    for alike in places.values():
        for (package, path, line), (other, other_path, other_line) in combinations(alike, 2):
            if package != other:
                pair = (path, other_path)
                first[pair] = min(first.get(pair, (line, other_line)), (line, other_line))
    return sorted(f"{a}:{at} and {b}:{other}" for (a, b), (at, other) in first.items())


def test_no_ten_lines_are_alike_in_two_packages() -> None:
    """No run of ten or more like lines stands in two of our packages."""
    packages = [path for path in ROOT.glob("*/src/fraud_*") if path.is_dir()]
    assert len(packages) == 10
    files = [(package.name, path) for package in packages for path in sorted(package.rglob("*.py"))]
    assert shared_runs(files) == []


def test_like_lines_are_seen_whatever_stands_between_them(tmp_path: Path) -> None:
    """Indentation, comments, blank lines and imports hide nothing; one line fewer is no run."""
    lines = [f"name_{number} = {number}" for number in range(RUN)]
    (tmp_path / "one.py").write_text("\n".join(lines))
    (tmp_path / "two.py").write_text(
        "import os\nif os:\n" + "\n\n".join(f"    {x}\n    # why" for x in lines)
    )
    (tmp_path / "short.py").write_text("\n".join(lines[1:]))
    files = [("a", tmp_path / "one.py"), ("b", tmp_path / "two.py"), ("c", tmp_path / "short.py")]
    assert shared_runs(files) == [f"{tmp_path}/one.py:1 and {tmp_path}/two.py:3"]
    assert shared_runs([("a", tmp_path / "one.py"), ("a", tmp_path / "two.py")]) == []
