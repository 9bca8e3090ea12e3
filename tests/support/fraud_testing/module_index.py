"""Writes docs/module-index.md: every module of the platform with what it is for and the names that it defines.

python -m fraud_testing.module_index (``make reference``)
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = ROOT / "docs" / "module-index.md"
_HEAD: Final = """# Index of modules

Every module with the first sentence of its docstring and what it defines: constants, functions, classes with their methods.
`make reference` writes this page from the sources. [The code map](architecture.md#code-map) goes from a concept to its files.
"""


def page() -> str:
    """The page's text, by package."""
    parts = [_HEAD]
    for source in sorted(ROOT.glob("*/src/*")):
        modules = sorted(path for path in source.rglob("*.py") if _names(path) or path.name == "__main__.py")
        if modules:
            parts.append(
                f"\n## {source.relative_to(ROOT)}\n\n| module | what for | defines |\n|---|---|---|\n"
            )
            parts += [
                f"| `{path.relative_to(source)}` | {_purpose(path)} | {_names(path)} |\n" for path in modules
            ]
    return "".join(parts)


def _purpose(path: Path) -> str:
    """First sentence of the module's docstring, on one line; a pipe would end the cell."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    return text.replace("|", "\\|").partition(". ")[0].rstrip(".:")


def _names(path: Path) -> str:
    return ", ".join(_defined(ast.parse(path.read_text())))


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"`{node.name}`"
        elif isinstance(node, ast.ClassDef):
            methods = [
                line.name
                for line in node.body
                if isinstance(line, ast.FunctionDef | ast.AsyncFunctionDef) and not line.name.startswith("__")
            ]
            yield f"`{node.name}` ({', '.join(methods)})" if methods else f"`{node.name}`"
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield f"`{node.target.id}`"
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield f"`{node.targets[0].id}`"


if __name__ == "__main__":
    PAGE.write_text(page())
