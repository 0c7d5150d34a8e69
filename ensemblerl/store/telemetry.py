"""Telemetry of learners as JSON lines, appended while a campaign runs.

It is no part of the truth: not synced, and a torn last line is passed over.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ensemblerl.store.codec import dumps
from ensemblerl.store.errors import failure

NAME = "learning.jsonl"


class Once:
    """Leaves out the rows of a replay that are kept already.

    Parameters
    ----------
    kept : ``n_events`` of the rows that an earlier driver kept, in order
    """

    def __init__(self, kept: Iterable[int] = ()) -> None:
        self._last, self._count = -1, 0
        for n_events in kept:
            self._count = self._count + 1 if n_events == self._last else 1
            self._last = n_events
        self._at, self._seen = -1, 0

    def __call__(self, rows: Iterable[Mapping[str, Any]], n_events: int) -> list[dict[str, Any]]:
        """Those that are new, with ``n_events``."""
        came = [{**row, "n_events": n_events} for row in rows]
        if n_events != self._at:
            self._at, self._seen = n_events, 0
        before, self._seen = self._seen, self._seen + len(came)
        if n_events < self._last:
            return []
        return came[max(0, self._count - before) :] if n_events == self._last else came


class LearningLog:
    """The file, open for appending by one driver.

    Parameters
    ----------
    path : of the file, made at the first row
    n_events : in the ledger: rows of more were lost with their events, and come again
    """

    def __init__(self, path: Path, n_events: int) -> None:
        self.path, self._fd, self._size = path, -1, 0
        try:
            self._once = Once(self._kept(n_events))
        except OSError as error:
            raise failure(error, path, "read the telemetry") from error

    def _kept(self, n_events: int) -> list[int]:
        """``n_events`` of the rows there, once what is torn or too new is cut off."""
        if not self.path.exists():
            return []
        data = self.path.read_bytes()
        lines = data.splitlines(keepends=True)
        while lines and not _number(lines[-1]) <= n_events:
            lines.pop()
        self._size = sum(map(len, lines))
        if self._size < len(data):
            os.truncate(self.path, self._size)
        last = _number(lines[-1]) if lines else -1
        many = 1
        while many < len(lines) and _number(lines[-many - 1]) == last:
            many += 1
        return [int(last)] * many if lines else []

    def append(self, rows: Iterable[Mapping[str, Any]], n_events: int) -> None:
        """Write the rows that are new, at once.

        Raises
        ------
        TypeError
            for entries that are not numbers, text, or lists of numbers
        StoreError
            when they cannot be written; then none of them is in the file
        """
        fresh = self._once(rows, n_events)
        if not fresh:
            return
        data = b"".join(dumps(_plain(row)).encode() + b"\n" for row in fresh)
        try:
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._fd = os.open(self.path, flags, 0o644)
            if os.write(self._fd, data) != len(data):
                os.ftruncate(self._fd, self._size)
                raise OSError(errno.ENOSPC, "only a part could be written")
        except OSError as error:
            raise failure(error, self.path, "write telemetry") from error
        self._size += len(data)

    def close(self) -> None:
        """Let go of the file; again does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _number(line: bytes) -> float:
    """``n_events`` of a line; more than any where it is not whole."""
    row = _row(line)
    return float(row.get("n_events", 0)) if row is not None else float("inf")


def _row(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> number, text or list of numbers."""
    return {name: _entry(name, value) for name, value in row.items()}


def _entry(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.ndim > 1:
        raise TypeError(
            f"telemetry[{name!r}]: wanted a number, text or a list of numbers, got {value!r}"
        )
    return array.tolist()


def read_rows(root: Path) -> Iterator[dict[str, Any]]:
    """Every whole row of a store's telemetry, in order."""
    path = root / NAME
    if path.exists():
        with path.open("rb") as file:
            yield from (row for line in file if (row := _row(line)) is not None)
