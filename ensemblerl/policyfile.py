"""A version of a policy as a file: a plain npz of its arrays, and what they are as JSON.

The arrays stand under their names; ``meta.json`` is an array of bytes (uint8) that holds a JSON
text: ``format``, ``version``, and what the agent says of its policy. Nothing is pickled, and the
same snapshot is always the same bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ensemblerl.records import AnyArray, Snapshot

FORMAT = 1
FOLDER = "policy"
META = "meta.json"
_KINDS = "biufc"


class SnapshotError(ValueError):
    """A file that is no snapshot, or not a whole one; names the path."""


def file_name(version: int) -> str:
    """Name of the file of a version, in the folder `FOLDER` of a store.

    Examples
    --------
    >>> file_name(17)
    '000017.npz'
    """
    return f"{version:06d}.npz"


def pack(snapshot: Snapshot) -> bytes:
    """The bytes of the file.

    Raises
    ------
    ValueError
        for a version below 0, names that are taken, or meta that is no JSON
    TypeError
        for weights that are not arrays of numbers
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in {**_checked(snapshot), META: _meta(snapshot)}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def _checked(snapshot: Snapshot) -> dict[str, AnyArray]:
    if META in snapshot.weights:
        raise ValueError(f"weights: wanted names other than {META!r}, which is the file's own")
    for name, array in snapshot.weights.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in _KINDS:
            came = getattr(array, "dtype", type(array).__name__)
            raise TypeError(f"weights[{name!r}]: wanted an array of numbers, got {came}")
    return snapshot.weights


def _meta(snapshot: Snapshot) -> AnyArray:
    version, taken = snapshot.version, {"format", "version"} & set(snapshot.meta)
    if isinstance(version, bool) or int(version) != version or version < 0:
        raise ValueError(f"version: wanted a whole number >= 0, got {version!r}")
    if taken:
        raise ValueError(f"meta: wanted names other than {sorted(taken)}, which are the file's own")
    content = {"format": FORMAT, "version": int(version), **snapshot.meta}
    try:
        text = json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"meta: wanted what JSON can say, got {error}") from error
    return np.frombuffer(text.encode(), dtype=np.uint8)


def load(path: str | Path) -> Snapshot:
    """The snapshot in a file.

    Raises
    ------
    SnapshotError
        for a file that is not there, is cut off or damaged, is something else, or has another
        format
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                name.removesuffix(".npy"): _array(archive, name) for name in archive.namelist()
            }
        meta: dict[str, Any] = json.loads(arrays.pop(META).tobytes())
        found, version = meta.pop("format"), int(meta.pop("version"))
    except FileNotFoundError as error:
        raise SnapshotError(f"{path}: no such snapshot") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SnapshotError(
            f"{path}: not a whole snapshot ({error}); copy it again from its store"
        ) from error
    except (KeyError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise SnapshotError(f"{path}: not a snapshot of a policy ({error!r})") from error
    if found != FORMAT:
        raise SnapshotError(f"{path}: format {found!r} is not known here (known: {FORMAT})")
    return Snapshot(version, arrays, meta)


def _array(archive: zipfile.ZipFile, name: str) -> AnyArray:
    with archive.open(name) as member:
        array: AnyArray = np.lib.format.read_array(member, allow_pickle=False)
        if member.read():
            raise ValueError(f"{name} goes on after its array")
    return array
