"""Working directories: made, taken over from an earlier attempt, left for the next one.

Where the program writes checkpoints, the directory of an attempt that was lost is not removed. It
stays in ``work/`` of the store as ``NUMBER-ATTEMPT``, until the next attempt takes it over. One on
a disk of the node is copied there, and from there to the next node.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ensemblerl.protocols import Detached
from ensemblerl.simulations.workdir import scratch_directory
from ensemblerl.store.running import WORK

PART = ".part"
"""Ends the name of a copy that is not whole yet."""

Key = tuple[int, int]
"""(number, attempt) of a member."""


def take(simulation: Detached, key: Key, store: Path | None) -> Path:
    """A directory for this attempt, empty or as the last one left it.

    Raises
    ------
    OSError, ValueError
        when it cannot be made
    """
    left = list(_left(store, key)) if simulation.checkpoint and store is not None else []
    if simulation.scratch is None and store is not None:
        path = _place(store, key)
        _take_here(path, left)
        for old in left[1:]:
            shutil.rmtree(old, ignore_errors=True)
        return path
    root = None if simulation.scratch is None else scratch_directory(simulation.scratch)
    path = Path(tempfile.mkdtemp(prefix=f"ensemblerl-{key[0]}-{key[1]}-", dir=root))
    try:
        if left:  # the copy in the store stays: the node may go before it gives anything back
            _copy(left[0], path)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path


def _take_here(path: Path, left: list[Path]) -> None:
    if left and left[0] == path:
        return
    shutil.rmtree(path, ignore_errors=True)
    if left:
        left[0].rename(path)
    else:
        path.mkdir(parents=True)


def leave(directory: Path, key: Key, store: Path) -> None:
    """Put the directory of a lost attempt where the next one finds it.

    Where that cannot be done (a full disk), what an earlier attempt left there stays.
    """
    path = _place(store, key)
    if directory == path:
        return
    part = path.with_name(path.name + PART)
    with contextlib.suppress(OSError):
        if directory.is_dir():
            path.parent.mkdir(exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            _copy(directory, part)
            shutil.rmtree(path, ignore_errors=True)
            part.rename(path)
            for old in [left for left in _left(store, key) if left != path]:
                shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)


def forget(key: Key, store: Path) -> None:
    """Remove what this and earlier attempts have left in the store."""
    for path in _left(store, key):
        shutil.rmtree(path, ignore_errors=True)


def stamps(directory: Path) -> dict[str, tuple[int, int]]:
    """Name -> what changes when it is written, of all in a directory."""
    found = {}
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            about = path.lstat()
            found[str(path.relative_to(directory))] = about.st_mtime_ns, about.st_ino
    return found


def _left(store: Path, key: Key) -> Iterator[Path]:
    """Directories of this and earlier attempts, the newest first.

    Asked for one by one: a listing of a file system on the network may be old.
    """
    number, attempt = key
    for earlier in range(attempt, 0, -1):
        path = _place(store, (number, earlier))
        if path.is_dir():
            yield path


def _place(store: Path, key: Key) -> Path:
    return store / WORK / f"{key[0]}-{key[1]}"


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, ignore=_special, dirs_exist_ok=True)


def _special(directory: str, names: list[str]) -> list[str]:
    """Pipes and sockets, which cannot be copied and are nobody's any more."""
    return [n for n in names if not _plain(os.lstat(Path(directory) / n).st_mode)]


def _plain(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
