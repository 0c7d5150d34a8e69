"""Moves settled members from ledger and segments into whole shards, and removes what is needless.

The order makes it safe at any moment: shards, then the arrays' metadata, then the manifest, and
only then segments go. The ledger stays whole, always.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ensemblerl.ledger import Ledger
from ensemblerl.records import AnyArray, Fate
from ensemblerl.store.attributes import attributes
from ensemblerl.store.columns import Layout, Points, Series, columns, note_dtypes
from ensemblerl.store.errors import StoreError
from ensemblerl.store.files import read_json
from ensemblerl.store.index import Files, Place, SegmentIndex
from ensemblerl.store.manifest import ROWS, Manifest, block_rows
from ensemblerl.store.shards import Spec, write_group, write_meta, write_shard, write_static

WAIT = 64
"""Members settled until a block is tried again of which a record was not visible yet."""


class History(Protocol):
    """What the compactor asks of the ledger's file."""

    def offset(self, number: int) -> int:
        """Byte of the launch that holds this member, or of the last one before it."""

    def preamble(self, offset: int) -> tuple[str, ...]:
        """Sessions and schema told before this byte."""


class Compactor:
    """The one writer of shards, at the head of a campaign.

    Parameters
    ----------
    root : directory of the store
    provenance : of the campaign
    history : of the ledger's file
    """

    def __init__(self, root: Path, provenance: Mapping[str, Any], history: History) -> None:
        self._root, self._provenance, self._history = root, provenance, history
        self._index = SegmentIndex(root / "segments")
        self._manifest = Manifest.load(root)
        self._layout = Layout(None, None)
        self._points: Points | None = None
        self._metas: dict[str, dict[str, Any]] = {}
        self._dtypes: dict[str, np.dtype[Any]] | None = None
        self._due = 0

    def compact(self, ledger: Ledger, *, final: bool) -> None:
        """Move complete blocks; write all there is, pending rows too, when ``final``."""
        if not final and (ledger.schema is None or ledger.n_settled < self._due):
            return
        self._prepare(ledger)
        fields = self._fields(ledger, final)
        done = self._columns(ledger, final)
        self._publish(ledger, fields, done, final)
        self._remove(ledger)
        self._due = ledger.n_settled + self._distance(ledger)

    def unfinished(self, ledger: Ledger) -> bool:
        """Whether a final compaction of this ledger is missing."""
        written = self._manifest.rows, self._manifest.settled
        there = (self._root / "zarr.json").is_file()
        return not there or written != (ledger.n, ledger.n_settled)

    def _prepare(self, ledger: Ledger) -> None:
        """Know space, layout, and the rows to a shard; see what the segments hold."""
        if self._points is None:
            self._points = Points(self._provenance)
        if ledger.schema is None:
            self._layout = Layout(None, self._points)
        elif not self._layout.fields:
            self._layout = Layout(ledger.schema.layout, self._points)
            rows = self._manifest.block or block_rows(self._layout.member_bytes)
            self._manifest = replace(self._manifest, block=rows)
        if self._layout.fields:
            self._index.refresh()

    def _fields(self, ledger: Ledger, final: bool) -> set[int]:
        """Write blocks of the fields; numbers of those complete."""
        rows = self._manifest.block
        if not self._layout.fields:
            return set()
        settled, done = _complete(ledger, rows), set()
        for block in range(-(-ledger.n // rows)):
            if block in self._manifest.blocks or not (final or block in settled):
                continue
            arrays, whole = self._gather(ledger, block, rows)
            complete = whole and block in settled
            if complete or final:
                for name, field in self._layout.fields.items():
                    self._write(name, field.spec, block, arrays[name], rows, complete)
            if complete:
                done.add(block)
        return done

    def _gather(self, ledger: Ledger, block: int, rows: int) -> tuple[dict[str, AnyArray], bool]:
        """Name -> (rows, ...) of a block, and whether every ok member's record was there."""
        first, stop = block * rows, min((block + 1) * rows, ledger.n)
        fields = self._layout.fields
        arrays = {name: field.spec.empty(stop - first) for name, field in fields.items()}
        good = first + np.flatnonzero(ledger.fates(slice(first, stop)) == Fate.ok)
        whole = True
        with Files(self._index.directory) as files:
            for number in good.tolist():
                result = self._result(ledger, number, files)
                whole &= result is not None
                for name, field in fields.items():
                    if result:
                        arrays[name][number - first] = result[field.source]
        return arrays, whole

    def _result(self, ledger: Ledger, number: int, files: Files) -> dict[str, AnyArray] | None:
        place = self._index.find(number, int(ledger["attempt"][number]))
        if place is None or not place.digest:
            return None
        layout = ledger.schema.layout if ledger.schema else None
        try:
            return self._index.arrays(place, layout, files)
        except (FileNotFoundError, StoreError):
            return None

    def _columns(self, ledger: Ledger, final: bool) -> int:
        """Write blocks of the small columns; how many leading ones are complete."""
        self._give_up(ledger)
        settled, done = _complete(ledger, ROWS), self._manifest.columns
        while done in settled:
            self._write_columns(ledger, done, complete=True)
            done += 1
        if final:
            for block in range(done, max(-(-ledger.n // ROWS), done + 1)):
                self._write_columns(ledger, block, complete=False)
        return done

    def _give_up(self, ledger: Ledger) -> None:
        """Where a note got a wider dtype, have readers take all from the ledger until the shards
        of the small columns are written again.
        """
        was, now = self._noted(), note_dtypes(ledger)
        if any(now.get(name, dtype) != dtype for name, dtype in was.items()):
            (self._root / "zarr.json").unlink(missing_ok=True)  # it tells the old dtype
            self._manifest = replace(
                self._manifest,
                columns=0,
                ledger_offset=0,
                preamble=(),
                rows=None,
                rewritten=self._manifest.rewritten + 1,
            )
            self._manifest.save(self._root)

    def _noted(self) -> dict[str, np.dtype[Any]]:
        """Name -> dtype of the notes in complete shards."""
        if not self._manifest.columns:
            return {}
        if self._dtypes is None:
            import zarr

            names = self._manifest.arrays
            opened = {name: zarr.open_array(self._root / name, mode="r") for name in names}
            self._dtypes = {name: array.dtype for name, array in opened.items()}
        return self._dtypes

    def _write_columns(self, ledger: Ledger, block: int, *, complete: bool) -> None:
        assert self._points is not None
        start = min(block * ROWS, ledger.n)
        rows = slice(start, min((block + 1) * ROWS, ledger.n))
        series = columns(ledger, rows, self._points)
        for name, one in series.items():
            self._write(name, one.spec, block, one.data, ROWS, complete)
        self._manifest = replace(self._manifest, arrays=tuple(series))
        self._dtypes = note_dtypes(ledger)

    def _write(
        self, name: str, spec: Spec, block: int, data: AnyArray, rows: int, sync: bool
    ) -> None:
        path = self._root
        self._metas[name] = write_shard(path, name, spec, block, data, rows=rows, sync=sync)

    def _publish(self, ledger: Ledger, fields: set[int], done: int, final: bool) -> None:
        """Metadata first, then the manifest that lets readers in."""
        new = bool(fields) or done != self._manifest.columns
        for name, meta in self._metas.items():
            write_meta(self._root, name, meta, ledger.n, sync=new)
        if final:
            self._consolidate(ledger)
        if new or final:
            offset = self._history.offset(done * ROWS) if done else 0
            self._manifest = replace(
                self._manifest,
                blocks=self._manifest.blocks | fields,
                columns=done,
                ledger_offset=offset,
                preamble=self._history.preamble(offset),
                rows=ledger.n if final else self._manifest.rows,
                settled=ledger.n_settled if final else self._manifest.settled,
            )
            self._manifest.save(self._root)

    def _consolidate(self, ledger: Ledger) -> None:
        assert self._points is not None
        metas = {}
        for name in (*self._layout.fields, *self._manifest.arrays):
            path = self._root / name / "zarr.json"
            metas[name] = self._metas.get(name) or read_json(path)
            if metas[name]["shape"][0] != ledger.n:
                write_meta(self._root, name, metas[name], ledger.n, sync=False)
        statics = self._layout.statics
        for name, series in statics.items():
            metas[name] = write_static(self._root, name, series.spec, series.data)
        coords = [*self._points.names, *_aside(statics)]
        attrs = attributes(self._root, self._provenance, ledger)
        if coords:
            attrs["coordinates"] = " ".join(coords)
        write_group(self._root, attrs, metas)

    def _remove(self, ledger: Ledger) -> None:
        """Remove segments in which nothing is left that is not in shards."""
        rows, blocks = self._manifest.block, self._manifest.blocks
        if not blocks:
            return

        def needless(number: int, place: Place) -> bool:
            if number // rows not in blocks:
                return False
            return not place.digest or bool(ledger.fates(number) == Fate.ok)

        for path in self._index.forget(needless):
            path.unlink(missing_ok=True)

    def _distance(self, ledger: Ledger) -> int:
        """Members that have to be settled before another block can be complete."""
        done = self._manifest.blocks
        left = _left(ledger, self._manifest.block or ROWS, done)
        first = self._manifest.columns * ROWS  # they go in order: only the next one counts
        left.append(ROWS - int(ledger.settled[first : first + ROWS].sum()))
        return min(left) or WAIT


def _left(ledger: Ledger, rows: int, done: Container[int]) -> list[int]:
    """Members that each block not done waits for; the last entry is for one not begun."""
    counts = _counts(ledger, rows).tolist()
    return [rows - count for block, count in enumerate(counts) if block not in done] + [rows]


def _aside(statics: Mapping[str, Series]) -> list[str]:
    """Coordinates that are not the index of their own dimension; xarray splits at spaces."""
    return [n for n, s in statics.items() if s.spec.dims != (n,) and " " not in n]


def _counts(ledger: Ledger, rows: int) -> AnyArray:
    """(blocks,) members settled in each block of so many rows."""
    blocks = np.flatnonzero(ledger.settled) // rows
    return np.bincount(blocks, minlength=-(-ledger.n // rows))


def _complete(ledger: Ledger, rows: int) -> set[int]:
    """Blocks of so many rows in which every member is settled."""
    return set(np.flatnonzero(_counts(ledger, rows) == rows).tolist())
