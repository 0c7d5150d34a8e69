"""The campaign as one `xarray.Dataset`, from ledger, shards and segments together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemblerl.ledger import Ledger
from ensemblerl.records import AnyArray, Fate
from ensemblerl.store.attributes import attributes
from ensemblerl.store.columns import TIMES, Layout, Points, Series, columns, text
from ensemblerl.store.fields import FieldArray, Results
from ensemblerl.store.manifest import Manifest
from ensemblerl.store.reading import build, read_provenance
from ensemblerl.store.shards import DIM, Spec

if TYPE_CHECKING:
    import xarray as xr

WIDE_BYTES = 2**26
"""Text of fixed width up to this size in all; longer texts become objects."""


def read_dataset(root: Path) -> xr.Dataset:
    """What the store holds now; small columns in memory, results lazily.

    Raises
    ------
    StoreError, StoreFormatError
        where there is no store, or one of another format
    """
    import xarray as xr
    from xarray.core import indexing

    provenance = read_provenance(root)
    points = Points(provenance)
    manifest, ledger, small = _consistent(root, provenance, points)
    layout = Layout(ledger.schema.layout if ledger.schema else None, points)
    results = Results(
        root,
        manifest,
        ok=small["fate"].data == str(Fate.ok),
        attempt=small["attempt"].data,
        layout=ledger.schema.layout if ledger.schema else None,
    )
    data = {
        name: xr.Variable(
            field.spec.dims,
            indexing.LazilyIndexedArray(FieldArray(results, name, field)),
            field.spec.attrs,
        )
        for name, field in layout.fields.items()
    }
    every = {**small, **layout.statics}
    data |= {name: _variable(name, s) for name, s in every.items() if not s.coord}
    coords = {name: _variable(name, s) for name, s in every.items() if s.coord}
    return xr.Dataset(data, coords, attributes(root, provenance, ledger))


def _consistent(
    root: Path, provenance: Mapping[str, Any], points: Points
) -> tuple[Manifest, Ledger, dict[str, Series]]:
    """Manifest, ledger and small columns; again when shards were given up meanwhile."""
    while True:
        manifest = Manifest.load(root)  # before the ledger: what is in neither would be lost to us
        try:
            ledger = build(root, provenance, manifest)
            small = _small(root, manifest, ledger, points)
        except Exception:
            if Manifest.load(root).rewritten == manifest.rewritten:
                raise
            continue
        if Manifest.load(root).rewritten == manifest.rewritten:
            return manifest, ledger, small


def _small(root: Path, manifest: Manifest, tail: Ledger, points: Points) -> dict[str, Series]:
    """The small columns: complete blocks from their shards, the rest from the ledger."""
    rest = columns(tail, slice(0, tail.n), points, first=manifest.first)
    if not manifest.first:
        return rest
    return {name: _joined(root, manifest, name, series) for name, series in rest.items()} | {
        name: _alone(root, manifest, name, tail.n) for name in manifest.arrays if name not in rest
    }


def _joined(root: Path, manifest: Manifest, name: str, rest: Series) -> Series:
    if name not in manifest.arrays:  # noted for the first time after the shards were written
        before = rest.spec.empty(manifest.first)
    else:
        before = _shards(root, name)[: manifest.first]
    parts = [before, rest.data]  # the wider dtype of the two, as the whole ledger has it
    if {part.dtype.kind for part in parts} > {"T"}:
        parts = [text(part) for part in parts]
    data = np.concatenate(parts)
    return rest._replace(spec=replace(rest.spec, dtype=data.dtype), data=data)


def _alone(root: Path, manifest: Manifest, name: str, n: int) -> Series:
    """A note that no member after the shards has."""
    array = _shards(root, name)
    spec = Spec(array.metadata.dimension_names, array.shape[1:], array.dtype, dict(array.attrs))
    return Series(spec, np.concatenate([array[: manifest.first], spec.empty(n)]))


def _shards(root: Path, name: str) -> Any:
    import zarr

    return zarr.open_array(root / name, mode="r")


def _variable(name: str, series: Series) -> xr.Variable:
    """As a user sees it: text as text, times as times."""
    import xarray as xr

    data = plain_text(series.data) if series.data.dtype.kind == "T" else series.data
    variable = xr.Variable(series.spec.dims, data, dict(series.spec.attrs))
    ours = name in TIMES and series.spec.dims == (DIM,)
    if ours or (series.coord and DIM not in series.spec.dims):
        return xr.conventions.decode_cf_variable(name, variable)
    return variable


def plain_text(data: AnyArray) -> AnyArray:
    """Text of fixed width where that is not wasteful, else Python strings."""
    width = max(1, int(np.strings.str_len(data).max(initial=0)))
    if 4 * width * data.size > WIDE_BYTES:
        return data.astype(object)
    return data.astype(f"U{width}")
