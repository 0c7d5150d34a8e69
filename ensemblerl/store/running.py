"""Attempts with a process of their own, in ``running/`` of a store: which live, which shall end.

``NUMBER-ATTEMPT`` is a file of JSON while the process lives: host, process id and when that was
born, or an empty one from before it was born. It is touched every few seconds: that is what hosts
can see of each other's processes. ``NUMBER-ATTEMPT.end`` asks the process to end.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from ensemblerl.store.errors import failure
from ensemblerl.store.segments import host_name

NAME = "running"
BEAT = 5.0
"""Seconds between two signs of life."""
SILENT = 60.0
"""Seconds without one after which a process of another host, or one not born yet, is dead."""
ASKED = ".end"


class Running:
    """The attempts of one store.

    Parameters
    ----------
    store : its directory
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.directory = Path(store) / NAME

    def expect(self, number: int, attempt: int) -> None:
        """A process will be there in a moment: from now on the attempt counts as running.

        Raises
        ------
        StoreError
            when that cannot be written
        """
        self._write(number, attempt, b"")

    def begin(self, number: int, attempt: int) -> None:
        """Say that it is run by the process that calls this.

        Raises
        ------
        StoreError
            when that cannot be written
        """
        about = {"host": host_name(), "pid": os.getpid(), "born": _born(os.getpid())}
        self._write(number, attempt, json.dumps(about).encode())

    def beat(self, number: int, attempt: int) -> None:
        """It still lives."""
        with contextlib.suppress(OSError):
            os.utime(self._path(number, attempt))

    def over(self, number: int, attempt: int) -> None:
        """It runs no more: what it found is in the segments."""
        for path in (self._path(number, attempt), self._asked(number, attempt)):
            with contextlib.suppress(OSError):
                path.unlink()

    def end(self, number: int, attempt: int) -> None:
        """Ask the process to end, wherever it is."""
        if self._path(number, attempt).exists():
            with contextlib.suppress(OSError):
                self._asked(number, attempt).touch()

    def asked(self, number: int, attempt: int) -> bool:
        """Whether somebody wants it to end."""
        return self._asked(number, attempt).exists()

    def all(self) -> set[tuple[int, int]]:
        """(number, attempt) of those whose process lives; traces of dead ones are removed."""
        found = set()
        for path in self._files():
            number, _, attempt = path.name.partition("-")
            if number.isdigit() and attempt.isdigit():
                key = int(number), int(attempt)
                if _lives(path):
                    found.add(key)
                else:
                    self.over(*key)
        return found

    def _files(self) -> list[Path]:
        try:
            return sorted(self.directory.iterdir())
        except OSError:
            return []

    def _path(self, number: int, attempt: int) -> Path:
        return self.directory / f"{number}-{attempt}"

    def _asked(self, number: int, attempt: int) -> Path:
        return self.directory / f"{number}-{attempt}{ASKED}"

    def _write(self, number: int, attempt: int, content: bytes) -> None:
        path = self._path(number, attempt)
        try:
            self.directory.mkdir(exist_ok=True)  # not its parents: a store that is gone stays so
            path.write_bytes(content)
        except OSError as error:
            raise failure(error, path, "say that a member runs") from error


def _lives(path: Path) -> bool:
    try:
        silent = time.time() - path.stat().st_mtime
        about = json.loads(path.read_bytes() or b"{}")
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # being written just now
        return True
    if about.get("host") == host_name():
        return bool(_born(about["pid"]) == about["born"])
    return silent < SILENT


def _born(pid: int) -> float | None:
    """When the process began, so that a number used again is not taken for it; None for none."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
