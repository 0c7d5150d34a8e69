"""``note.json``: why workers are missing, as the driver says, for whoever looks at the store."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import NamedTuple

from ensemblerl.store.files import write_aside
from ensemblerl.store.reading import is_store

NAME = "note.json"


class Said(NamedTuple):
    """What a driver said last.

    Parameters
    ----------
    text : a sentence
    host, pid : of the driver, as in its lock
    since : time of the file: since when it is so, by the clock of the file system
    """

    text: str
    host: str
    pid: int
    since: float


class Note:
    """The sentence of one driver; a file as long as there is one.

    Parameters
    ----------
    segments : directory of the store's segment files; "" where there is no store
    """

    def __init__(self, segments: str) -> None:
        self._store = Path(segments).parent if segments else None
        self._text: str | None = None  # another driver's may be there

    def say(self, text: str) -> None:
        """From now on it is this; "" removes it. Costs nothing while it stays the same."""
        if text == self._text or self._store is None:
            return
        self._text = text
        with contextlib.suppress(OSError):  # a full disk is no reason to stop
            if not text:
                (self._store / NAME).unlink(missing_ok=True)
            elif is_store(self._store):  # one that is gone stays so
                about = {"host": socket.gethostname(), "pid": os.getpid(), "text": text}
                write_aside(self._store / NAME, json.dumps(about).encode(), sync=False)


def said(store: Path) -> Said | None:
    """What the file says, whoever wrote it; None where there is none that can be read."""
    try:
        # open first: then NFS asks the server for the time, and does not answer from memory
        with (store / NAME).open("rb") as file:
            about, since = json.load(file), os.fstat(file.fileno()).st_mtime
        return Said(str(about["text"]), str(about["host"]), int(about["pid"]), since)
    except (OSError, ValueError, KeyError, TypeError):
        return None
