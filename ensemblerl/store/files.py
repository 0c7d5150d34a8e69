"""Whole files or none: written aside, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from ensemblerl.store.errors import failure


def write_aside(path: Path, data: bytes, *, sync: bool = True, mode: int | None = None) -> None:
    """Replace a file in one step: a reader sees the old one or the new one, whole.

    The name of the part is fixed, so that one left by a kill is overwritten by the next writer
    (the lock sees to it that there is one).

    Parameters
    ----------
    path : of the file
    data : its content
    sync : bring it to disk before it gets its name
    mode : permissions; the usual ones when None

    Raises
    ------
    StoreError
        when the file cannot be written; the old one is still there
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode is not None:
            part.unlink(missing_ok=True)  # it may be read-only itself
        _write(part, data, sync, mode)
        part.replace(path)
        if sync:
            sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise failure(error, path, "write") from error


def _write(path: Path, data: bytes, sync: bool, mode: int | None) -> None:
    with path.open("wb") as file:
        file.write(data)
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make renames in a directory last; where a file system cannot, that is no error."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_json(path: Path, content: Any, *, sync: bool = True) -> None:
    """Replace a file by strict JSON, readable by people."""
    text = json.dumps(content, allow_nan=False, indent=1)
    write_aside(path, text.encode() + b"\n", sync=sync)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises
    ------
    StoreError
        when it cannot be read
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise failure(error, path, "read") from error
