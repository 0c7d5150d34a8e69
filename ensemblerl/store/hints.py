"""The hints that a campaign was begun with: one npz file of three arrays, no pickle."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ensemblerl.records import Hints
from ensemblerl.store.errors import failure
from ensemblerl.store.files import write_aside
from ensemblerl.store.reading import read_provenance

NAME = "warm_start.npz"
_ARRAYS = ("unit", "weight", "first")
_DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError, OSError),
    *(NotImplementedError, RuntimeError, MemoryError),
)
"""What is raised on the way from bytes to arrays, where they are not what was written."""


def save(root: Path, hints: Hints) -> None:
    """Write aside and rename.

    Raises
    ------
    StoreError
        when it cannot be written
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: getattr(hints, name) for name in _ARRAYS})
    write_aside(root / NAME, buffer.getvalue())


def load(root: Path) -> Hints | None:
    """The hints; None, with a warning, when their file is lost, damaged, or of other hints than
    the provenance tells of: a campaign can go on.

    Raises
    ------
    StoreError
        when the file is there and cannot be read
    """
    found = _found(root)
    if not isinstance(found, str):
        return found
    warnings.warn(
        f"warm_start: the hints that this campaign was begun with are lost: {found}. It goes on "
        "without them. Its members and their densities are kept, and an agent with a checkpoint "
        "goes on as before; one without learns from the members anew, from the prior on. If you "
        "have a copy of the file, put it back first",
        stacklevel=2,
    )
    return None


def _found(root: Path) -> Hints | str:
    """The hints, or in words why there are none."""
    file = root / NAME
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return f"{file} is not there"
    except OSError as error:
        raise failure(error, file, "read the hints") from error
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            hints = Hints(*(arrays[name] for name in _ARRAYS))
    except _DAMAGES:
        return f"{file} is damaged"
    begun = read_provenance(root)["warm_start"].get("checksum")
    if begun not in (None, now := checksum(hints)):
        return f"{file} holds others (checksum {now}, wanted {begun})"
    return hints


def checksum(hints: Hints) -> str:
    """16 hex digits of all three arrays."""
    digest = hashlib.sha256()
    for array in vars(hints).values():
        digest.update(repr(array.shape).encode() + array.tobytes())
    return digest.hexdigest()[:16]
