"""Results, row by row from wherever they lie: lazily, while the head may be compacting them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from ensemblerl.records import AnyArray, BoolArray, IntArray
from ensemblerl.store.columns import Field
from ensemblerl.store.errors import StoreError
from ensemblerl.store.index import Files, SegmentIndex
from ensemblerl.store.manifest import Manifest

TRIES = 4


class Results:
    """The rows of the results as they stood when the store was opened.

    Parameters
    ----------
    root : directory of the store
    manifest : as it was read before anything else
    ok : (n,) members that have a result
    attempt : (n,) attempts that gave them
    layout : of the results
    """

    def __init__(
        self, root: Path, manifest: Manifest, *, ok: BoolArray, attempt: IntArray, layout: Any
    ) -> None:
        self.root, self.ok, self._attempt, self._layout = root, ok, attempt, layout
        self._manifest = manifest
        self._index = SegmentIndex(root / "segments", verify=False)

    def read(self, name: str, field: Field, rows: IntArray, inner: tuple[Any, ...]) -> AnyArray:
        """(rows, ...) of a variable; ``inner`` indexes its own dimensions, one after the other."""
        out = _cut(field.spec.empty(1), inner).repeat(len(rows), axis=0)
        left = np.flatnonzero(self.ok[rows])
        for _ in range(TRIES):
            left = self._from_shards(name, rows, inner, out, left)
            left = self._from_segments(field, rows, inner, out, left)
            if not len(left):
                return out
            self._manifest = Manifest.load(self.root)  # compacted while we looked?
        told = ", ".join(map(str, rows[left][:5]))
        warnings.warn(f"{self.root}: no results of members {told} are left", stacklevel=2)
        return out

    def _from_shards(
        self, name: str, rows: IntArray, inner: tuple[Any, ...], out: AnyArray, left: IntArray
    ) -> IntArray:
        """Fill in the rows of complete blocks; which are left."""
        size, blocks = self._manifest.block, self._manifest.blocks
        if not blocks or not len(left):
            return left
        there = np.isin(rows[left] // size, list(blocks))
        if there.any():
            import zarr

            array = zarr.open_array(self.root / name, mode="r")
            for block in np.unique(rows[left[there]] // size):
                here = left[there & (rows[left] // size == block)]
                numbers = rows[here]
                first, stop = int(numbers.min()), int(numbers.max()) + 1
                part = np.asarray(array[(slice(first, stop), *_covering(inner))])
                out[here] = _cut(part[numbers - first], _within(inner))
        return left[~there]

    def _from_segments(
        self, field: Field, rows: IntArray, inner: tuple[Any, ...], out: AnyArray, left: IntArray
    ) -> IntArray:
        """Fill in the rows whose records are found; which are left."""
        if not len(left):
            return left
        self._index.refresh()
        missed = []
        with Files(self._index.directory) as files:
            for i in left.tolist():
                result = self._result(int(rows[i]), files)
                if result is None:
                    missed.append(i)
                else:
                    out[i] = _cut(result[field.source][None], inner)[0]
        return np.array(missed, dtype=np.int64)

    def _result(self, number: int, files: Files) -> dict[str, AnyArray] | None:
        """The arrays of a member from its record, None where it is not found."""
        place = self._index.find(number, int(self._attempt[number]))
        if place is None or not place.digest:
            return None
        try:
            return self._index.arrays(place, self._layout, files)
        except (FileNotFoundError, StoreError):
            return None


class FieldArray(BackendArray):
    """One variable of the results, for xarray to index lazily."""

    def __init__(self, results: Results, name: str, field: Field) -> None:
        self._results, self._name, self._field = results, name, field
        self.shape = (len(results.ok), *field.spec.shape)
        self.dtype = field.spec.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """The part asked for, with outer indexing."""
        outer = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, outer, self._get)

    def _get(self, key: tuple[Any, ...]) -> AnyArray:
        scalar = tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)
        indices = [_indices(k, size) for k, size in zip(key, self.shape, strict=True)]
        rows, inner = indices[0], tuple(indices[1:])
        return self._results.read(self._name, self._field, rows, inner)[scalar]


def _indices(key: Any, size: int) -> IntArray:
    if isinstance(key, slice):
        return np.arange(size)[key]
    return np.atleast_1d(np.arange(size)[key])


def _cut(data: AnyArray, inner: tuple[Any, ...]) -> AnyArray:
    """(rows, ...) with each dimension but the first indexed on its own."""
    for axis, indices in enumerate(inner, start=1):
        if len(indices) != data.shape[axis] or (np.diff(indices) != 1).any():
            data = data.take(indices, axis=axis)
    return data


def _covering(inner: tuple[Any, ...]) -> tuple[slice, ...]:
    """Slices that hold all of these indices: what has to be read."""
    return tuple(slice(int(i.min()), int(i.max()) + 1) if len(i) else slice(0, 0) for i in inner)


def _within(inner: tuple[Any, ...]) -> tuple[Any, ...]:
    """The indices as counted in what `_covering` reads."""
    return tuple(i - i.min() if len(i) else i for i in inner)
