"""Where a command's files may go, judged before its work: nothing of somebody else's is in the way or in danger."""

from __future__ import annotations

from pathlib import Path


def in_the_way(path: Path) -> Path | None:
    """What stands where a folder above ``path`` would have to be: a file, or a link that leads to no folder."""
    ancestor = next(folder for folder in path.absolute().parents if folder.is_symlink() or folder.exists())
    return None if ancestor.is_dir() else ancestor
