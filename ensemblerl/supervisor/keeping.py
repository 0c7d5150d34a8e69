"""What stays of a working directory: files that tell of a failure, none of them large."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MOST = 2**20
"""Bytes that are kept of a log's beginning, and as many of its end."""


def drop(directory: Path, but: set[Path]) -> None:
    """Remove all files but these."""
    for path in sorted(directory.rglob("*"), reverse=True):
        if path not in but:
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def shorten(path: Path) -> None:
    """Cut out the middle of a long log, and say so in its place."""
    with contextlib.suppress(OSError), path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if size > 2 * MOST:
            file.seek(size - MOST)
            end = file.read(MOST)
            file.seek(MOST)
            file.write(f"\n[... {size - 2 * MOST} bytes are left out here ...]\n".encode() + end)
            file.truncate()
