"""Whole messages through a pipe: eight bytes of length, then the message."""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Callable

LENGTH = struct.Struct(">Q")
PIECE = 1 << 20
TAKEN = b"t"
"""The word to a supervisor that its record is in good hands."""
LOOK = 0.2
"""Seconds between looks whether the other side is alive, where its end of the pipe is not
closed by its death because a process that it started holds it too."""


def send(fd: int, message: bytes) -> None:
    """Write a message; raises BrokenPipeError when nobody reads."""
    rest = memoryview(LENGTH.pack(len(message)) + message)
    while rest:
        rest = rest[os.write(fd, rest[:PIECE]) :]


def receive(fd: int) -> bytes:
    """Wait for the next message; raises EOFError when the other side is gone."""
    (length,) = LENGTH.unpack(_exactly(fd, LENGTH.size))
    return _exactly(fd, length)


def _exactly(fd: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.read(fd, min(size, PIECE))
        if not part:
            raise EOFError("the other side is gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def answered(fd: int, timeout: float | None, gone: Callable[[], bool]) -> bool:
    """Wait until there is something to read; False when the time (seconds) is over.

    Raises
    ------
    EOFError
        when the other side is gone and there is nothing left to read
    """
    look = select.poll()
    look.register(fd, select.POLLIN)
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        rest = LOOK if end is None else min(LOOK, end - time.monotonic())
        if look.poll(1000.0 * max(0.0, rest)):
            return True
        if gone() and not look.poll(0.0):
            raise EOFError("the other side is gone")
        if end is not None and time.monotonic() >= end:
            return False
