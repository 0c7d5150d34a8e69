"""Attempts with a process of their own, in ``running/`` of a store: which live, which shall end.

``NUMBER-ATTEMPT`` is a file of JSON that says which process runs it; before that is there, which
worker is about to start it. It is touched every few seconds: that is what hosts can see of each
other's processes. ``NUMBER-ATTEMPT.end`` asks for the end of the attempt, also of one that has
not begun yet.

Clocks of nodes and file servers disagree, by an hour where somebody set one wrong. So no time of
a file is compared with a clock: a file is silent for as long as this process has seen its time
not change, by its own clock. Who comes anew has to watch before it may hold anything for dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from ensemblerl.store.errors import failure
from ensemblerl.store.reading import is_store
from ensemblerl.store.segments import host_name

NAME, WORK, ASKED, OWNER = "running", "work", ".end", "driver"
BEAT = 5.0
"""Seconds between two signs of life."""
SILENT = 60.0
"""Seconds of watching without one after which a process of another host is dead."""
BIRTH = 30.0
"""Seconds that a supervisor may take to appear when the worker that started it is gone."""


class Running:
    """The attempts of one store.

    Parameters
    ----------
    store : its directory
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.store = Path(store)
        self.directory = self.store / NAME
        self._seen: dict[str, tuple[int, float]] = {}

    def expect(self, number: int, attempt: int, *, checkpoint: bool = False) -> bool:
        """Count the attempt as running from now on: this process starts another one for it.

        Parameters
        ----------
        number, attempt : which
        checkpoint : should its process end, its working directory is for the next attempt

        Returns
        -------
        bool
            False when it runs already

        Raises
        ------
        StoreError
            when that cannot be written
        """
        path = self._path(number, attempt)
        while True:
            try:
                # not its parents: a store that is gone stays so
                self.directory.mkdir(exist_ok=True)
                with path.open("x") as file:
                    json.dump({**process(checkpoint), "expected": True}, file)
                return True
            except FileExistsError:
                if (number, attempt) in self.all():
                    return False
            except OSError as error:
                self.over(number, attempt)
                raise failure(error, path, "say that a member runs") from error

    def begin(self, number: int, attempt: int, *, checkpoint: bool = False) -> None:
        """Say that it is run by the process that calls this; for ``checkpoint`` see `expect`.

        Raises
        ------
        OSError
            when that cannot be written
        """
        path = self._path(number, attempt)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(process(checkpoint)))
        part.replace(path)

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
        """Ask for its end, wherever it is; one that has not begun will not begin."""
        with contextlib.suppress(OSError):
            if is_store(self.store):
                self.directory.mkdir(exist_ok=True)
                self._asked(number, attempt).touch()

    def asked(self, number: int, attempt: int) -> bool:
        """Whether somebody wants it to end."""
        return self._asked(number, attempt).exists()

    def all(self) -> set[tuple[int, int]]:
        """(number, attempt) of those whose process lives; what dead ones left is removed.

        But for working directories that are for the next attempt.
        """
        found, before = set(), self._seen
        self._seen = {}
        for path in _inside(self.directory):
            key = _key(path.name)
            if key is None:
                continue
            try:
                about, silent = self._looked(path, before)
            except FileNotFoundError:
                continue
            if _lives(about, silent):
                found.add(key)
            else:
                # of one that had not yet said so: it is removed when all is settled
                if about is not None and not about.get("checkpoint"):
                    shutil.rmtree(self.store / WORK / path.name, ignore_errors=True)
                self.over(*key)
        return found

    def clear(self) -> None:
        """Forget what is not of attempts that run, and their working directories: all members
        are settled.
        """
        living = self.all()
        for path in _inside(self.directory):
            if _key(path.name.removesuffix(ASKED)) not in living:
                with contextlib.suppress(OSError):
                    path.unlink()
        for path in _inside(self.store / WORK):
            if _key(path.name) not in living:
                shutil.rmtree(path, ignore_errors=True)

    def _looked(
        self, path: Path, before: dict[str, tuple[int, float]]
    ) -> tuple[dict[str, Any] | None, float]:
        """What it says, None for what cannot be read, and the seconds without a sign of life."""
        now = time.monotonic()
        try:
            # open first: then NFS asks the server for the times, and does not answer from memory
            with path.open("rb") as file:
                text, stamp = file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            raise
        except OSError:  # a server that does not answer says nothing about its clients' processes
            return None, 0.0
        known = before.get(path.name)
        self._seen[path.name] = known = known if known and known[0] == stamp else (stamp, now)
        try:
            about = json.loads(text)
        except ValueError:
            about = None
        return about if isinstance(about, dict) else None, now - known[1]

    def _path(self, number: int, attempt: int) -> Path:
        return self.directory / f"{number}-{attempt}"

    def _asked(self, number: int, attempt: int) -> Path:
        return self.directory / f"{number}-{attempt}{ASKED}"


def _inside(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _key(name: str) -> tuple[int, int] | None:
    """(number, attempt) that a file or directory is named after."""
    number, _, attempt = name.partition("-")
    return (int(number), int(attempt)) if number.isdigit() and attempt.isdigit() else None


def process(checkpoint: bool = False) -> dict[str, Any]:
    """Host, process id, and when it was born, of the process that calls this."""
    about = {"host": host_name(), "pid": os.getpid(), "born": born(os.getpid())}
    return {**about, "checkpoint": True} if checkpoint else about


def lives(about: dict[str, Any]) -> bool:
    """Whether a `process` of this host still does."""
    return bool(born(int(about["pid"])) == about["born"])


def gone(about: dict[str, Any], *, alone: bool) -> bool:
    """Whether a `process` of any host has ended; what others run nobody can see from here, but
    there is none where this one is alone at work.
    """
    return not lives(about) if about["host"] == host_name() else alone


def own(temporary: Path) -> None:
    """Note that what runs for a store in this directory is to end with this process."""
    (temporary / OWNER).write_text(json.dumps(process()))


def orphaned(store: Path) -> bool:
    """Whether the store is a temporary one whose driver is gone."""
    try:
        about = json.loads((store.parent / OWNER).read_text())
        return gone(about, alone=False)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _lives(about: dict[str, Any] | None, silent: float) -> bool:
    if about is None:  # being written just now
        return silent < BIRTH
    if about.get("host") != host_name():
        return silent < SILENT
    return lives(about) or (bool(about.get("expected")) and silent < BIRTH)


def born(pid: int) -> str | None:
    """Boot of the machine and clock ticks since then: tells a number used again; None for none.

    Seconds since the epoch would move with every correction of the clock (proc(5), field 22).
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else f"{_boot()}:{fields[19]}"


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
