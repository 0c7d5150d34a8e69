"""What stays of a working directory: files that tell of a failure, none of them large."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from ensemblerl.records import Fate

MOST = 2**20
"""Bytes that are kept of a log's beginning, and as many of its end."""
PAGES = 8192
"""Bytes: a disk with less is full."""
FULL = "no space left on the disk of the working directory"


def keep(given: dict[str, Any], fate: str) -> str:
    """Move what is wanted of a working directory into the store; where it is now, "" for nowhere.

    Parameters
    ----------
    given : see `ensemblerl.supervisor.start`
    fate : of the attempt
    """
    wanted, directory = given["keep"], Path(given["directory"])
    if wanted == "nothing" or (fate == Fate.ok and wanted != "all"):
        return ""
    logs = [directory / name for name in ("stdout", "stderr")]
    if wanted != "all":  # results may be large: inputs and logs are what tells of a failure
        drop(directory, {*(directory / name for name in given["inputs"]), *logs})
        for path in logs:
            shorten(path)
    kept = Path(given["store"]) / "kept" / f"{given['number']}-{given['attempt']}"
    try:
        kept.parent.mkdir(exist_ok=True)
        shutil.move(directory, kept)
    except OSError:
        return ""
    return str(kept)


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


def full(directory: Path) -> bool:
    """Whether its disk has no space left."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(directory).free < PAGES
    return False
