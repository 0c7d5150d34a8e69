"""Zarr v3 arrays along members, written whole shard by whole shard.

Zarr encodes each shard in memory; the file then appears in one rename. So nothing is ever read
back to be changed, and neither a kill nor a reader meets half a shard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ensemblerl.ledger import missing
from ensemblerl.records import AnyArray
from ensemblerl.store.files import write_aside

CHUNK_BYTES = 2**20
_KEYS: Any = {"name": "default", "configuration": {"separator": "."}}
"""No directory below an array: each shard costs one inode."""
TEXT = np.dtypes.StringDType()
DIM = "member"


@dataclass(frozen=True)
class Spec:
    """An array on disk.

    Parameters
    ----------
    dims : of the array; along members when the first is ``"member"``
    shape : without the members
    dtype : `TEXT`, or one of kinds b, i, u, f, c
    attrs : JSON
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: Any
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fill(self) -> Any:
        """What stands where nothing was written."""
        if self.dtype.kind == "c":
            return complex(np.nan, np.nan)
        return "" if self.dtype.kind == "T" else missing(self.dtype)

    def empty(self, rows: int) -> AnyArray:
        """(rows, *shape) of ``fill``."""
        return np.full((rows, *self.shape), self.fill, dtype=self.dtype)


def chunk(shape: tuple[int, ...], itemsize: int, rows: int) -> tuple[int, ...]:
    """(1 + dims,) of a chunk of about 1 MiB: whole rows, or parts of one where it is larger.

    Examples
    --------
    >>> chunk((), 8, 16384), chunk((100, 100), 8, 256), chunk((2048, 1024), 8, 8)
    ((16384,), (8, 100, 100), (1, 256, 512))
    """
    inner = list(shape)
    while (size := itemsize * int(np.prod(inner, dtype=np.int64))) > CHUNK_BYTES:
        largest = int(np.argmax(inner))
        inner[largest] = -(-inner[largest] // 2)
    many = max(1, min(rows, CHUNK_BYTES // max(1, size)))
    return (1 << (many.bit_length() - 1), *(max(1, i) for i in inner))


def encode(spec: Spec, data: AnyArray, rows: int) -> tuple[bytes | None, dict[str, Any]]:
    """A shard of so many rows, of which ``data`` holds the first, and the array's metadata.

    The shard is None when all of it is ``fill``.
    """
    import zarr

    inner = chunk(spec.shape, max(spec.dtype.itemsize, 1), rows)
    outer = (rows, *(-(-s // c) * c for s, c in zip(spec.shape, inner[1:], strict=True)))
    files: dict[str, Any] = {}
    array = zarr.create_array(
        zarr.storage.MemoryStore(files),
        shape=(rows, *spec.shape),
        dtype=spec.dtype,
        chunks=inner,
        shards=tuple(max(1, s) for s in outer),
        fill_value=spec.fill,
        dimension_names=spec.dims,
        attributes=dict(spec.attrs),
        chunk_key_encoding=_KEYS,
    )
    if data.size:
        array[: len(data)] = data
    meta = json.loads(files.pop("zarr.json").to_bytes())
    shard = next(iter(files.values()), None)
    return (None if shard is None else shard.to_bytes()), meta


def write_shard(
    root: Path, name: str, spec: Spec, number: int, data: AnyArray, *, rows: int, sync: bool
) -> dict[str, Any]:
    """Put shard ``number`` of an array in its place; the array's metadata."""
    content, meta = encode(spec, data, rows)
    path = root / name / ".".join(["c", str(number), *("0" for _ in spec.shape)])
    if content is None:
        path.unlink(missing_ok=True)
    else:
        write_aside(path, content, sync=sync)
    return meta


def write_meta(root: Path, name: str, meta: dict[str, Any], n: int, *, sync: bool) -> None:
    """Say how many rows an array has."""
    meta["shape"][0] = n
    write_aside(root / name / "zarr.json", json.dumps(meta).encode(), sync=sync)


def write_static(root: Path, name: str, spec: Spec, data: AnyArray) -> dict[str, Any]:
    """An array that has no members: a coordinate of the results; its metadata."""
    import zarr

    files: dict[str, Any] = {}
    array = zarr.create_array(
        zarr.storage.MemoryStore(files),
        shape=spec.shape,
        dtype=spec.dtype,
        fill_value=spec.fill,
        chunks=tuple(max(1, s) for s in spec.shape),
        dimension_names=spec.dims,
        attributes=dict(spec.attrs),
        chunk_key_encoding=_KEYS,
    )
    array[...] = data
    for key, content in files.items():
        write_aside(root / name / key, content.to_bytes(), sync=False)
    meta: dict[str, Any] = json.loads(files["zarr.json"].to_bytes())
    return meta


def write_group(root: Path, attrs: Mapping[str, Any], metas: Mapping[str, Any]) -> None:
    """The group that holds the arrays, with their metadata consolidated."""
    inline = {"kind": "inline", "must_understand": False, "metadata": dict(metas)}
    group = {"zarr_format": 3, "node_type": "group", "attributes": dict(attrs)}
    content = {**group, "consolidated_metadata": inline}
    write_aside(root / "zarr.json", json.dumps(content, allow_nan=False).encode())
