"""What lies where in the segments: read as they grow, file by file."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from ensemblerl.records import AnyArray, Outcome
from ensemblerl.store.codec import outcome
from ensemblerl.store.errors import StoreError
from ensemblerl.store.segments import Frame, host_name, read_arrays, scan

ABANDONED_SECONDS = 86400.0
"""A file without end mark, of another host, is in use for so long after its last record."""


class Place(NamedTuple):
    """Where a record lies."""

    file: str
    offset: int
    digest: str

    @property
    def rank(self) -> tuple[bool, str, int]:
        """Of several records of one attempt the least counts: first those with arrays."""
        return not self.digest, self.file, self.offset


class Files:
    """Segments open for reading, one at a time; a context that closes it."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._name = directory, ""
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def __getitem__(self, name: str) -> BinaryIO:
        """The file of this name; FileNotFoundError when it was compacted away meanwhile."""
        if self._file is None or name != self._name:
            opened = (self._directory / name).open("rb")
            self.__exit__()
            self._file, self._name = opened, name
        return self._file


class SegmentIndex:
    """Records by (number, attempt).

    Of several of one, one with arrays counts before one without; then the first by name of the
    file and place in it, whatever the order in which they were met.

    Parameters
    ----------
    directory : of the segments; it may come into being later
    verify : check the arrays while indexing (else when they are read)
    keep : remember places for `find`; without it, `poll` only tells what is new

    Attributes
    ----------
    layouts : digest -> layout, of those met
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, verify: bool = True, keep: bool = True
    ) -> None:
        self.directory = Path(directory)
        self.layouts: dict[str, dict[str, Any]] = {}
        self._verify, self._keep = verify, keep
        self._places: dict[tuple[int, int], Place] = {}
        self._offsets: dict[str, int] = {}
        self._ended: set[str] = set()

    def poll(self) -> Iterator[tuple[Outcome, str]]:
        """(outcome, file) of the records that came since the last call."""
        for name, header in self._new():
            yield outcome(header), name

    def refresh(self) -> None:
        """Take in what is new, telling nothing."""
        for _ in self._new():
            pass

    def _new(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, size in self._files():
            if size > self._offsets.get(name, 0):
                with contextlib.suppress(FileNotFoundError):
                    yield from self._read(name)

    def _files(self) -> list[tuple[str, int]]:
        try:
            with os.scandir(self.directory) as entries:
                found = [(e.name, e.path) for e in entries if e.name.endswith(".seg")]
        except FileNotFoundError:
            return []
        out = []
        for name, path in sorted(found):
            with contextlib.suppress(FileNotFoundError):
                out.append((name, Path(path).stat().st_size))
        return out

    def _read(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        start = self._offsets.get(name, 0)
        for frame in scan(self.directory / name, start, verify=self._verify):
            self._offsets[name] = frame.stop
            if "number" in frame.header:
                self._place(name, frame)
                yield name, frame.header
            elif "layout" in frame.header:
                self.layouts.setdefault(frame.header["digest"], frame.header["layout"])
            elif "end" in frame.header:
                self._ended.add(name)

    def _place(self, name: str, frame: Frame) -> None:
        if self._keep:
            header = frame.header
            place = Place(name, frame.offset, header.get("schema", ""))
            key = header["number"], header["attempt"]
            self._places[key] = min(self._places.get(key, place), place, key=lambda p: p.rank)

    def find(self, number: int, attempt: int) -> Place | None:
        """Where the record of this attempt lies, if it was met."""
        return self._places.get((number, attempt))

    def arrays(
        self, place: Place, known: Mapping[str, Any] | None, files: Files
    ) -> dict[str, AnyArray]:
        """The arrays of a record; ``known`` is the layout to take when none was met.

        Raises
        ------
        FileNotFoundError
            when the segment is gone
        StoreError
            when record or layout are damaged
        """
        layout = self.layouts.get(place.digest, known)
        if layout is None:
            raise StoreError(5, f"no layout {place.digest}", str(self.directory / place.file))
        return read_arrays(files[place.file], place.offset, layout)

    def forget(self, needless: Callable[[int, Place], bool]) -> list[Path]:
        """Drop records, and tell the files in which no needed one is left and none will come."""
        self._places = {
            key: place for key, place in self._places.items() if not needless(key[0], place)
        }
        needed = {place.file for place in self._places.values()}
        return [
            self.directory / name
            for name, size in self._files()
            if name not in needed and size == self._offsets.get(name) and self._over(name)
        ]

    def _over(self, name: str) -> bool:
        """Whether nobody writes to this file any more."""
        if name in self._ended:
            return True
        host, pid, _ = name.rsplit("-", 2)
        if host == host_name():
            return not _alive(int(pid))
        age = time.time() - (self.directory / name).stat().st_mtime
        return age > ABANDONED_SECONDS


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
