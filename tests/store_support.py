"""A campaign without a loop: launches, runs and settles members straight into a store."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemblerl.events import Closed, Event, Launched, Opened, SchemaFixed, Settled
from ensemblerl.ledger import Ledger
from ensemblerl.parameters import Choice, Integer, Real
from ensemblerl.records import Fate, Members, Outcome
from ensemblerl.simulations.layouts import digest_of
from ensemblerl.space import Space
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.reading import is_store
from ensemblerl.store.segments import SegmentWriter

SPACE = Space(
    depth=Real(1.0, 5.0, units="m", long_name="water depth"),
    solver=Choice("rk4", "euler"),
    steps=Integer(1, 9, when={"solver": "rk4"}),
)
PROVENANCE: dict[str, Any] = {
    "space": SPACE.to_json(),
    "goal": {"kind": "minimize", "k": 1},
    "seed": 7,
}
SCALAR: dict[str, Any] = {
    "variables": {"value": {"dims": [], "dtype": "<f8", "shape": [], "attrs": {"units": "m"}}},
    "coords": {},
    "attrs": {},
}


def variable(dims: list[str], dtype: str, shape: list[int], **attrs: Any) -> dict[str, Any]:
    """The entry of a variable in a layout."""
    return {"dims": dims, "dtype": dtype, "shape": shape, "attrs": attrs}


def attach(path: str | Path, provenance: dict[str, Any] | None = None) -> DirectoryStore:
    """The store at this path, made when it is not there."""
    if is_store(path):
        return DirectoryStore.resume(path)
    return DirectoryStore.create(path, PROVENANCE if provenance is None else provenance)


def members(first: int, n: int, ndim: int = 3) -> Members:
    """Launched members with points that are a function of their number."""
    number = np.arange(first, first + n)
    unit = (np.outer(number + 0.5, [0.618033988749895, 0.754877666, 0.569840291][:ndim])) % 1.0
    zero = np.zeros(n, dtype=np.int64)
    return Members(
        number=number,
        unit=np.clip(unit, 1e-6, 1 - 1e-6),
        points={},
        seed=number + 1,
        notes={
            "log_prob": np.where(number % 2, -1.0 / (number + 1), np.nan),
            "version": number % 3,
            "proposer": np.array(["sobol", "agent"])[number % 2],
            "score": number * 0.5,
        },
        attempt=zero + 1,
        group=zero,
        cycle=zero,
        task=zero,
        fidelity=zero,
        parent=zero - 1,
        state=np.full(n, ""),
    )


def arrays_of(number: int, layout: dict[str, Any]) -> dict[str, np.ndarray]:
    """Results of a member: functions of its number."""
    out = {}
    for j, (name, about) in enumerate(layout["variables"].items()):
        shape = tuple(about["shape"])
        ramp = np.arange(int(np.prod(shape))).reshape(shape)
        out[name] = (number + 0.25 * j + ramp).astype(about["dtype"])
    return out


def fate_of(number: int) -> Fate:
    """Every seventh member fails."""
    return Fate.failed if number % 7 == 3 else Fate.ok


class Rehearsed:
    """A driver with a store and a ledger; its worker writes segments in this process.

    Parameters
    ----------
    path : of the store; taken up when there is one
    layout : of the results
    """

    def __init__(
        self,
        path: str | Path,
        layout: dict[str, Any] | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.store = attach(path, provenance)
        self.layout = SCALAR if layout is None else layout
        self.digest = digest_of(self.layout)
        known = self.store.provenance
        self.ledger = Ledger(3, known["goal"]["k"])
        for event in self.store.events():
            self.ledger.apply(event)
        self.writer = SegmentWriter(self.store.segments)
        self.keep(Opened(1e9, "v1", 100))

    def keep(self, *events: Event) -> None:
        """Store first, then the ledger."""
        self.store.append(*events)
        for event in events:
            self.ledger.apply(event)

    def launch(self, n: int, batch: int = 256) -> None:
        """New members."""
        for first in range(self.ledger.n, self.ledger.n + n, batch):
            some = min(batch, self.ledger.n + n - first)
            self.keep(Launched(1e9 + first, members(first, some)))
            n -= some

    def outcome(self, number: int) -> Outcome:
        """What becomes of a member."""
        fate = fate_of(number)
        if fate != Fate.ok:
            cause = f"ValueError: {number}"
            return Outcome(number, 1, str(fate), cause, (), 1e9 + number, 0.5, "w1")
        value = float(next(iter(arrays_of(number, self.layout).values())).ravel()[0].real)
        return Outcome(
            number, 1, "ok", "", (value,), 1e9 + number, 0.5, "w0", self.digest, reward=-value
        )

    def run(self, numbers: Any) -> list[Outcome]:
        """Write the records of these members, as their worker would."""
        out = []
        for number in numbers:
            told = self.outcome(int(number))
            if told.schema:
                arrays = arrays_of(told.number, self.layout)
                self.writer.write(told, arrays, self.layout, self.digest)
            else:
                self.writer.write(told, {})
            out.append(told)
        return out

    def settle(self, numbers: Any, batch: int = 256) -> None:
        """Run and settle these members."""
        numbers = list(numbers)
        for first in range(0, len(numbers), batch):
            told = self.run(numbers[first : first + batch])
            if self.ledger.schema is None and any(o.schema for o in told):
                self.keep(SchemaFixed(self.digest, self.layout))
            self.keep(Settled(2e9 + first, tuple(told)))

    def compact(self, *, final: bool = False) -> None:
        """Compact as the campaign does now and then."""
        self.store.compact(self.ledger, final=final)

    def close(self, reason: str = "budget") -> None:
        """Leave in good order."""
        self.keep(Closed(3e9, reason))
        self.writer.close()
        self.compact(final=True)
        self.store.close()


def check_rows(ds: Any, layout: dict[str, Any], *, settled: Any, n: int) -> None:
    """Every row is what its member's number says, every settled one is there."""
    assert ds.sizes["member"] == n
    np.testing.assert_array_equal(ds["member"].values, np.arange(n))
    done = np.zeros(n, dtype=bool)
    done[list(settled)] = True
    fates = [str(fate_of(i)) if done[i] else "pending" for i in range(n)]
    assert ds["fate"].values.tolist() == fates
    ok = np.array(fates) == "ok"
    points = SPACE.to_points(members(0, n).unit)
    for name, wanted in points.items():
        assert ds[name].values.tolist() == wanted.tolist() or np.array_equal(
            ds[name].values, wanted, equal_nan=True
        )
    for name, about in layout["variables"].items():
        kept = ds[name].values
        wanted = np.full((n, *about["shape"]), np.nan, dtype=kept.dtype)
        for i in np.flatnonzero(ok):
            wanted[i] = arrays_of(int(i), layout)[name]
        np.testing.assert_array_equal(kept, wanted)
    values = [
        -float(next(iter(arrays_of(i, layout).values())).ravel()[0].real) if ok[i] else np.nan
        for i in range(n)
    ]
    np.testing.assert_array_equal(ds["reward"].values, values)
    np.testing.assert_array_equal(ds["note_score"].values, np.arange(n) * 0.5)
    np.testing.assert_array_equal(ds["seed"].values, np.arange(n) + 1)


def small_blocks(monkeypatch: Any, rows: int = 16) -> None:
    """Shards of so many rows, so that a test needs no thousands of members."""
    monkeypatch.setattr("ensemblerl.store.manifest.ROWS", rows)
    monkeypatch.setattr("ensemblerl.store.compactor.ROWS", rows)


@contextmanager
def full_disk(tmp_path: Path, size: str = "256k") -> Iterator[Path]:
    """A small file system in memory; the test is skipped where none can be mounted."""
    point = tmp_path / "disk"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(point)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here: disk-full behaviour is NOT tested")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=False, capture_output=True)


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked child; its exit status (negative: the signal that ended it)."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
