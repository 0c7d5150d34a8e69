"""The append-only file of events: one write an append, a checksum a line, fsync behind it.

A line is ``<crc32 of the text, 8 hex digits> <text>`` and a line end. What a kill left of a
line at the end is no line; it is cut off when the file is next opened for writing.
"""

from __future__ import annotations

import errno
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ensemblerl.store.errors import StoreError, failure

SYNC_SECONDS = 1.0
HEARTBEAT_SECONDS = 10.0


def line(text: str) -> bytes:
    """A text as a line of the file."""
    data = text.encode()
    return b"%08x %s\n" % (zlib.crc32(data), data)


def whole(data: bytes) -> bool:
    """Whether these bytes are a line as `line` makes them."""
    if not data.endswith(b"\n") or data[8:9] != b" ":
        return False
    try:
        return int(data[:8], 16) == zlib.crc32(memoryview(data)[9:-1])
    except ValueError:
        return False


def scan(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset, text) of every whole line from here on, up to the first that is not."""
    with path.open("rb") as file:
        file.seek(offset)
        for data in file:
            if not whole(data):
                return
            yield offset, data[9:-1]
            offset += len(data)


def repair(path: Path, stop: int) -> None:
    """Cut off what follows the last whole line, which ends at ``stop``.

    Raises
    ------
    StoreError
        when whole lines come after the broken one: that is no kill but a damaged file, and
        cutting would lose them
    """
    with path.open("rb+") as file:
        file.seek(stop)
        rest = file.read()
        if not rest:
            return
        good = sum(whole(data) for data in rest.splitlines(keepends=True)[1:])
        if good:
            raise StoreError(
                errno.EIO,
                f"damaged at byte {stop}, with {good} whole events after it; restore the file "
                "from a copy, or cut out the damaged line by hand",
                str(path),
            )
        file.truncate(stop)


class LogFile:
    """The file, open for appending by one process.

    Parameters
    ----------
    path : file, made when it is not there
    heartbeat : called about every ten seconds, and after each fsync, by the background thread
    """

    def __init__(self, path: Path, heartbeat: Callable[[], None] = lambda: None) -> None:
        self.path, self._heartbeat = path, heartbeat
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.size = os.fstat(self._fd).st_size
        self._broken: StoreError | None = None
        self._lock = threading.Lock()
        self._dirty, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._sync, name="ensemblerl-fsync", daemon=True)
        self._thread.start()

    def append(self, texts: Sequence[str]) -> list[int]:
        """Write lines at once; their offsets. On return they survive the process.

        Raises
        ------
        StoreError
            when they could not be written, or the file was closed: then nothing of them is in it
        """
        lines = [line(text) for text in texts]
        with self._lock:
            if self._broken:
                raise self._broken
            if self._fd < 0:  # its number may be another file's by now
                raise StoreError(errno.EBADF, "the store is closed", str(self.path))
            offsets = [self.size]
            for data in lines:
                offsets.append(offsets[-1] + len(data))
            self._write(b"".join(lines))
            self.size = offsets.pop()
        self._dirty.set()
        return offsets

    def _write(self, data: bytes) -> None:
        try:
            if os.write(self._fd, data) != len(data):
                raise OSError(errno.ENOSPC, "only a part could be written")
        except OSError as error:
            told = failure(error, self.path, "append to the ledger")
            try:
                os.ftruncate(self._fd, self.size)
            except OSError:
                self._broken = told  # a torn line stands at the end: no good line may follow it
            raise told from error

    def _sync(self) -> None:
        while not self._leave.is_set():
            if self._dirty.wait(HEARTBEAT_SECONDS) and not self._leave.is_set():
                self._flush()
                self._leave.wait(SYNC_SECONDS)
            try:
                self._heartbeat()
            except StoreError as error:  # not ours any more: nothing more is written
                self._broken = error
            except OSError:
                continue

    def _flush(self) -> None:
        self._dirty.clear()
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._broken = failure(error, self.path, "bring the ledger to disk")

    def close(self) -> None:
        """Bring everything to disk and let go of the file; again does nothing."""
        if self._leave.is_set():
            return
        self._leave.set()
        self._dirty.set()
        self._thread.join()
        self._flush()
        with self._lock:
            fd, self._fd = self._fd, -1
            os.close(fd)
        if self._broken:
            raise self._broken
