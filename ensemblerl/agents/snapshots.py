"""Versions of a policy as another process reads them: numpy only, once for each host."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ensemblerl.policyfile import FOLDER, SnapshotError, file_name
from ensemblerl.policyfile import load as load
from ensemblerl.records import Cube

KEPT = 64
"""Copies of one store's snapshots on a host; older ones make room."""


def latest(store: str | Path) -> Path:
    """The file of the newest version in a store's directory, also while the campaign runs.

    Raises
    ------
    SnapshotError
        when there is none
    """
    folder = Path(store) / FOLDER
    found = re.compile(r"\d{6,}\.npz").fullmatch
    there = [path.name for path in folder.iterdir() if found(path.name)] if folder.is_dir() else []
    if not there:
        raise SnapshotError(f"{folder}: no policy was published here")
    return folder / file_name(max(int(name.removesuffix(".npz")) for name in there))


def cached(path: str | Path) -> Path:
    """A copy of a snapshot's file on this host, made once for all processes of this user.

    So thousands of workers ask the shared file system for its size and time, and one of them for
    its content. The copies are in ``ensemblerl-<user id>`` in the directory for temporary files;
    where that cannot be used, it is the file itself.

    Raises
    ------
    SnapshotError
        for a file that is not there
    """
    source = Path(path).resolve()
    try:
        about = source.stat()
    except OSError as error:
        raise SnapshotError(f"{path}: no such snapshot ({error.strerror})") from error
    folder = _ours(Path(tempfile.gettempdir()) / f"ensemblerl-{os.getuid()}")
    if folder is None:
        return source
    folder = folder / _digest(str(source.parent))
    name = f"{source.stem}-{_digest(f'{about.st_ino} {about.st_size} {about.st_mtime_ns}')}.npz"
    copy = folder / name
    try:
        if not copy.exists():
            _copy_once(source, copy)
    except OSError:  # no space, no locks: the original is as good
        return source
    return copy


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _ours(folder: Path) -> Path | None:
    """The folder, when it is this user's alone: others might have put something else there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError:
        return None
    mine = about.st_uid == os.getuid() and not about.st_mode & 0o022
    return folder if mine and not folder.is_symlink() else None


def _copy_once(source: Path, copy: Path) -> None:
    """Copy unless another process did so meanwhile; a file appears whole."""
    copy.parent.mkdir(exist_ok=True)
    with (copy.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if copy.exists():
            return
        part = copy.with_name(f"{secrets.token_hex(4)}.part")
        try:
            part.write_bytes(source.read_bytes())
            part.replace(copy)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _make_room(copy.parent)


def _make_room(folder: Path) -> None:
    """Remove the oldest copies, and what a kill left of others."""
    copies = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    for old in [*copies[:-KEPT], *folder.glob("*.part")]:
        with contextlib.suppress(OSError):
            old.unlink()


def cube_meta(cube: Cube) -> dict[str, Any]:
    """The cube as JSON, for ``Snapshot.meta``: all but its constraint, which is code."""
    return {
        "kinds": list(cube.kinds),
        "levels": list(cube.levels),
        "edges": [None if edges is None else edges.tolist() for edges in cube.edges],
        "parents": [[[i, list(cells)] for i, cells in one] for one in cube.parents],
    }


def cube_of(meta: dict[str, Any]) -> Cube:
    """The cube of `cube_meta`, without a constraint."""
    return Cube(
        kinds=tuple(meta["kinds"]),
        levels=tuple(meta["levels"]),
        edges=tuple(None if edges is None else np.array(edges) for edges in meta["edges"]),
        parents=tuple(tuple((i, tuple(cells)) for i, cells in one) for one in meta["parents"]),
    )
