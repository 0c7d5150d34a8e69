"""Segments: where workers put results, one file a process, framed records, torn tails tolerated.

A record is ``<u32 length><u32 crc32><payload>``, little-endian; the payload is ``<u32 header
length><header, JSON><arrays, one after the other in the layout's order>``. The header holds the
fields of an `Outcome`, or a layout with its digest (then no arrays follow), or ``{"end": true}``
when the writer went on to another file. Every file holds the layouts of its own records.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import socket
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ensemblerl.records import AnyArray, Outcome
from ensemblerl.store.codec import dumps, outcome_fields
from ensemblerl.store.errors import StoreError, failure

MAX_BYTES = 2**26
MAX_RECORDS = 2**14
"""A writer goes on to a new file after so much, so that the head can remove what it compacted."""

_FRAME = struct.Struct("<II")
_LENGTH = struct.Struct("<I")


class Frame(NamedTuple):
    """One record of a file: bytes ``offset`` to ``stop``, of which the arrays begin at ``data``."""

    offset: int
    header: dict[str, Any]
    data: int
    stop: int


def encode(outcome: Outcome, arrays: Mapping[str, AnyArray], layout_order: Sequence[str]) -> bytes:
    """The record of an outcome; ``arrays`` are written in the order of its layout."""
    parts = [_raw(arrays[name]) for name in layout_order]
    return _framed(outcome_fields(outcome), parts)


def encode_layout(digest: str, layout: Mapping[str, Any]) -> bytes:
    """The record of a layout."""
    return _framed({"layout": layout, "digest": digest}, [])


def _raw(array: AnyArray) -> bytes:
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _framed(header: Mapping[str, Any], parts: Sequence[bytes]) -> bytes:
    text = dumps(header).encode()
    payload = b"".join([_LENGTH.pack(len(text)), text, *parts])
    if len(payload) >= 2**32:
        raise ValueError(f"result: wanted less than 4 GiB in one record, got {len(payload)} bytes")
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def host_name() -> str:
    """Name of the host as it stands in names of files."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", socket.gethostname())


class SegmentWriter:
    """Appends records to a file of its own; threads may share one, and a fork starts a new file.

    Parameters
    ----------
    directory : made, like the file, at the first write
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self._lock = threading.RLock()
        self._pid = self._fd = -1
        self._path = self.directory
        self._size = self._count = 0
        self._layouts: set[str] = set()

    def write(
        self,
        outcome: Outcome,
        arrays: Mapping[str, AnyArray],
        layout: Mapping[str, Any] | None = None,
        digest: str = "",
    ) -> None:
        """Append one result; on return it survives the process.

        Parameters
        ----------
        outcome : its ``record`` is not written
        arrays : variable name -> array; none for a member that is not ok
        layout, digest : layout of the arrays; written itself once a file

        Raises
        ------
        StoreError
            when it could not be written: then nothing of it is in the file
        """
        record = encode(outcome, arrays, list(layout["variables"]) if layout else ())
        with self._lock:
            self._ready()
            if layout is not None and digest not in self._layouts:
                self._append(encode_layout(digest, layout))
                self._layouts.add(digest)
            self.write_raw(record)

    def write_raw(self, record: bytes) -> None:
        """Append a record made by `encode` (or several, one after the other)."""
        with self._lock:
            self._ready()
            self._append(record)
            if os.fstat(self._fd).st_nlink == 0:  # taken for a dead process's, and removed
                self._leave()
                self._ready()
                self._append(record)
            self._count += 1
            if self._size >= MAX_BYTES or self._count >= MAX_RECORDS:
                self.close()

    def close(self) -> None:
        """Mark the file as ended; a later write goes to a new one."""
        with self._lock:
            if self._fd >= 0 and self._pid == os.getpid():
                with contextlib.suppress(StoreError):  # the records before it are whole
                    self._append(_framed({"end": True}, []))
                if self._fd >= 0:
                    self._leave()

    def _ready(self) -> None:
        """Have a file that is this process's and still there."""
        if self._pid != os.getpid():
            self._fd, self._layouts = -1, set()
        elif self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
            self._leave()
        if self._fd < 0:
            self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        name = f"{host_name()}-{self._pid}-{secrets.token_hex(4)}.seg"
        self._path = self.directory / name
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o644)
        except OSError as error:
            raise failure(error, self._path, "begin a segment") from error
        self._size = self._count = 0

    def _append(self, data: bytes) -> None:
        try:
            if os.write(self._fd, data) != len(data):
                raise OSError(errno.ENOSPC, "only a part could be written")
        except OSError as error:
            self._cut()
            raise failure(error, self._path, "write a result") from error
        self._size += len(data)

    def _cut(self) -> None:
        """Back to the last whole record; if even that fails, no more goes into this file."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._leave()

    def _leave(self) -> None:
        fd, self._fd, self._layouts = self._fd, -1, set()  # first: closing may fail
        os.close(fd)


_writers: dict[tuple[int, str], SegmentWriter] = {}
_writers_lock = threading.Lock()


def get_writer(directory: str | os.PathLike[str]) -> SegmentWriter:
    """The one writer of this process for this directory."""
    key = (os.getpid(), str(Path(directory).absolute()))
    with _writers_lock:
        if key not in _writers:
            _writers[key] = SegmentWriter(directory)
        return _writers[key]


def _unlocked() -> None:  # a fork may have happened while another thread held the lock
    global _writers_lock
    _writers_lock = threading.Lock()


os.register_at_fork(after_in_child=_unlocked)


def scan(path: Path, offset: int = 0, *, verify: bool = True) -> Iterator[Frame]:
    """Every whole record from here on, without its arrays.

    A torn tail ends it. A damaged record in the middle is passed over by its length where a
    whole record follows, else it ends there.

    Parameters
    ----------
    verify : check the arrays too, which reads them; else only what the header says
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while (stop := _stop(file, offset, size)) is not None:
            frame = _frame(file, offset, stop, verify)
            if frame is not None:
                yield frame
            elif not _whole(file, stop, size):
                return
            offset = stop


def _stop(file: BinaryIO, offset: int, size: int) -> int | None:
    """Where the record that begins here ends, None when that is not in the file."""
    file.seek(offset)
    head = file.read(_FRAME.size)
    if len(head) < _FRAME.size:
        return None
    length = int(_FRAME.unpack(head)[0])
    stop = offset + _FRAME.size + length
    return stop if length >= _LENGTH.size and stop <= size else None


def _whole(file: BinaryIO, offset: int, size: int) -> bool:
    stop = _stop(file, offset, size)
    return stop is not None and _frame(file, offset, stop, True) is not None


def _frame(file: BinaryIO, offset: int, stop: int, verify: bool) -> Frame | None:
    file.seek(offset)
    length, crc = _FRAME.unpack(file.read(_FRAME.size))
    if verify and zlib.crc32(payload := file.read(length)) != crc:
        return None
    text = payload if verify else file.read(min(length, 4096))
    (header,) = _LENGTH.unpack_from(text)
    if header > len(text) - _LENGTH.size:
        text += file.read(header + _LENGTH.size - len(text)) if not verify else b""
    try:
        fields = json.loads(text[_LENGTH.size : _LENGTH.size + header])
    except ValueError:
        return None
    data = offset + _FRAME.size + _LENGTH.size + header
    return Frame(offset, fields, data, stop) if isinstance(fields, dict) else None


def read_arrays(file: BinaryIO, offset: int, layout: Mapping[str, Any]) -> dict[str, AnyArray]:
    """The arrays of the record at ``offset``, checked.

    Raises
    ------
    StoreError
        when the record is damaged
    """
    file.seek(offset)
    length, crc = _FRAME.unpack(file.read(_FRAME.size))
    payload = file.read(length)
    if zlib.crc32(payload) != crc:
        raise StoreError(errno.EIO, f"the record at byte {offset} is damaged", str(file.name))
    (header,) = _LENGTH.unpack_from(payload)
    start, out = _LENGTH.size + header, {}
    for name, about in layout["variables"].items():
        dtype, shape = np.dtype(about["dtype"]), tuple(about["shape"])
        count = math.prod(shape)
        out[name] = np.frombuffer(payload, dtype, count, start).reshape(shape)
        start += count * dtype.itemsize
    return out
