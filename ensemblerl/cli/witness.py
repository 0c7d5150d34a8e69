"""A simulation that also notes, where it runs, how much memory that takes and how many threads."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from ensemblerl.protocols import Detached, Simulation
from ensemblerl.records import Program
from ensemblerl.supervisor.start import BOOT

EVERY = 0.05
"""Seconds between looks at the memory, at least."""
SHARE = 0.05
"""Share of the time that looking may take: it is the simulation's time."""
NOTES = "witness.json"


class Witness:
    """Does what a simulation does, and leaves notes in a directory of the check.

    Parameters
    ----------
    simulation : runs the member
    directory : where notes go, as seen from the worker; where there is none, there are no notes
    """

    def __init__(self, simulation: Simulation, directory: str) -> None:
        self._inner: Any = simulation
        self._directory = Path(directory)

    retries = 0  # a member that fails by chance is worth knowing of
    cores = property(attrgetter("_inner.cores"))
    timeout = property(attrgetter("_inner.timeout"))
    version = property(attrgetter("_inner.version"))
    max_result_bytes = property(attrgetter("_inner.max_result_bytes"))
    describe = property(attrgetter("_inner.describe"))

    def __call__(
        self, point: Mapping[str, Any], *, seed: int, member: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the member."""
        with _watched(self._directory):
            return self._inner(point, seed=seed, member=member)

    def __repr__(self) -> str:
        return repr(self._inner)


class DetachedWitness(Witness):
    """The same of a simulation that is a program."""

    keep = "nothing"  # the check's store is gone before anybody could look
    checkpoint = False  # and nothing is tried twice
    memory = property(attrgetter("_inner.memory"))
    scratch = property(attrgetter("_inner.scratch"))
    read = property(attrgetter("_inner.read"))

    def prepare(
        self, point: Mapping[str, Any], *, seed: int, member: Mapping[str, Any], directory: Path
    ) -> Program:
        """On the worker, whose child the program will be: look until the check is over."""
        program: Program = self._inner.prepare(point, seed=seed, member=member, directory=directory)
        threads = program.environment.get("OMP_NUM_THREADS", "")
        Notes(self._directory, threads, program=True).start()
        return program


def witness(simulation: Simulation, directory: Path) -> Witness:
    """The simulation with a witness."""
    kind = DetachedWitness if isinstance(simulation, Detached) else Witness
    return kind(simulation, str(directory))


class Notes(threading.Thread):
    """Looks at the memory of this process and all below it, and writes the most it saw.

    Ends when told, or when the directory is gone.

    Parameters
    ----------
    directory : where notes go
    threads : OMP_NUM_THREADS of the simulation
    program : whether it is a program under a supervisor: its own memory is then noted besides
    """

    def __init__(self, directory: Path, threads: str, *, program: bool = False) -> None:
        super().__init__(name="ensemblerl-witness", daemon=True)
        self._directory, self._over, self._peak = directory, threading.Event(), 0
        self._program = 0 if program else None
        self._known: dict[str, Any] = {
            "host": platform.node(),
            "cpus": len(os.sched_getaffinity(0)),
            "total": _total(),
            "threads": threads,
            "before": _resident(),
        }

    def run(self) -> None:
        """Until it is over."""
        while not self._over.is_set() and self._directory.is_dir():
            began = time.perf_counter()
            self.look()
            self._over.wait(max(EVERY, (time.perf_counter() - began) / SHARE))

    def look(self) -> None:
        """Write what is resident now, if it is more than before."""
        before = self._peak, self._program
        self._peak = max(self._peak, _resident())
        if self._program is not None:
            self._program = max(self._program, _of_program())
        if (self._peak, self._program) != before:
            self._write()

    def _write(self) -> None:
        part = self._directory / f"{NOTES}.{os.getpid()}"
        known = {**self._known, "peak": self._peak}
        known |= {} if self._program is None else {"program": self._program}
        with contextlib.suppress(OSError):
            part.write_text(json.dumps(known))
            part.replace(self._directory / NOTES)

    def end(self, seconds: float) -> None:
        """Look once more, note how long the simulation ran without us, and stop."""
        self._over.set()
        self.join()
        self.look()
        self._known["seconds"] = seconds
        self._write()


@contextlib.contextmanager
def _watched(directory: Path) -> Iterator[None]:
    notes = Notes(directory, os.environ.get("OMP_NUM_THREADS", ""))
    notes.start()
    began = time.perf_counter()
    try:
        yield
    finally:
        notes.end(time.perf_counter() - began)


def _resident() -> int:
    """Bytes that this process and all below it hold; shared pages count in each of them."""
    import psutil

    here = psutil.Process()
    with contextlib.suppress(psutil.Error):
        return _held([here, *here.children(recursive=True)])
    return 0


def _of_program() -> int:
    """Bytes of all that is below the supervisor of a program: what its ``memory`` limits."""
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if BOOT in process.cmdline():
                    total += _held(process.children(recursive=True))
    return total


def _held(processes: Iterable[Any]) -> int:
    import psutil

    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def _total() -> int:
    import psutil

    return int(psutil.virtual_memory().total)
