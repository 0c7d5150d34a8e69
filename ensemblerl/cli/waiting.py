"""A sign of life on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CLEAR = "\r\x1b[2K"

Say = Callable[[str], None]


@contextmanager
def waiting() -> Iterator[Say]:
    """Says what is being waited for, on the error stream where that is a terminal; gone after."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    stream = sys.stderr

    def say(text: str) -> None:
        stream.write(f"{CLEAR}{text} ...")
        stream.flush()

    try:
        yield say
    finally:
        stream.write(CLEAR)
        stream.flush()
