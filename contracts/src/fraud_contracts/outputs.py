"""Whether a command may write its files where it should, checked before its work: it never overwrites anything."""

from __future__ import annotations

from pathlib import Path


def in_the_way(path: Path) -> Path | None:
    """The file, or the link to no folder, that is in the place of a folder above ``path``; None where there is none."""
    ancestor = next(folder for folder in path.absolute().parents if folder.is_symlink() or folder.exists())
    return None if ancestor.is_dir() else ancestor
