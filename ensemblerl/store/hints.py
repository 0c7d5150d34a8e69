"""The hints that a campaign was begun with: one npz file of three arrays, no pickle."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import numpy as np

from ensemblerl.records import Hints
from ensemblerl.store.errors import failure
from ensemblerl.store.files import write_aside

NAME = "warm_start.npz"
_ARRAYS = ("unit", "weight", "first")


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
    """The hints; None, with a warning, when their file is lost or damaged: a campaign can go on."""
    try:
        with np.load(root / NAME, allow_pickle=False) as file:
            return Hints(*(file[name] for name in _ARRAYS))
    except (FileNotFoundError, zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        warnings.warn(
            f"{root / NAME}: the campaign goes on without the hints that it was begun with: "
            f"{error}",
            stacklevel=2,
        )
        return None
    except OSError as error:
        raise failure(error, root / NAME, "read the hints") from error
