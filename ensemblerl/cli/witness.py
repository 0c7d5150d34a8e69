"""A simulation that also notes, where it runs, how much memory that takes and how many threads."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ensemblerl.protocols import Detached, Simulation
from ensemblerl.records import Program

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

    @property
    def cores(self) -> int:
        """Of the simulation, like all that follows."""
        return int(self._inner.cores)

    @property
    def timeout(self) -> float | None:
        """Seconds."""
        timeout: float | None = self._inner.timeout
        return timeout

    @property
    def retries(self) -> int:
        """None: a member that fails by chance is worth knowing of."""
        return 0

    @property
    def version(self) -> str | None:
        """Of the code."""
        version: str | None = self._inner.version
        return version

    @property
    def max_result_bytes(self) -> int:
        """Larger results are invalid."""
        return int(self._inner.max_result_bytes)

    def __call__(
        self, point: Mapping[str, Any], *, seed: int, member: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the member."""
        with _watched(self._directory):
            return self._inner(point, seed=seed, member=member)

    def describe(self) -> dict[str, Any]:
        """JSON."""
        described: dict[str, Any] = self._inner.describe()
        return described

    def __repr__(self) -> str:
        return repr(self._inner)


class DetachedWitness(Witness):
    """The same of a simulation that is a program."""

    @property
    def memory(self) -> int | None:
        """Bytes."""
        memory: int | None = self._inner.memory
        return memory

    @property
    def scratch(self) -> str | None:
        """Directory for working directories."""
        scratch: str | None = self._inner.scratch
        return scratch

    @property
    def keep(self) -> str:
        """What is left of them."""
        return str(self._inner.keep)

    def prepare(
        self, point: Mapping[str, Any], *, seed: int, member: Mapping[str, Any], directory: Path
    ) -> Program:
        """On the worker, whose child the program will be: look until the check is over."""
        program: Program = self._inner.prepare(point, seed=seed, member=member, directory=directory)
        threads = program.environment.get("OMP_NUM_THREADS", "")
        Notes(self._directory, threads).start()
        return program

    def read(self, directory: Path) -> Any:
        """In the supervisor."""
        return self._inner.read(directory)


def witness(simulation: Simulation, directory: Path) -> Witness:
    """The simulation with a witness."""
    kind = DetachedWitness if isinstance(simulation, Detached) else Witness
    return kind(simulation, str(directory))


class Notes(threading.Thread):
    """Looks at the memory of this process and all below it, and writes the most it saw.

    Ends when told, or when the directory is gone.
    """

    def __init__(self, directory: Path, threads: str) -> None:
        super().__init__(name="ensemblerl-witness", daemon=True)
        self._directory, self._over, self._peak = directory, threading.Event(), 0
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
        if (now := _resident()) > self._peak:
            self._peak = now
            self._write()

    def _write(self) -> None:
        part = self._directory / f"{NOTES}.{os.getpid()}"
        with contextlib.suppress(OSError):
            part.write_text(json.dumps({**self._known, "peak": self._peak}))
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

    total, here = 0, psutil.Process()
    with contextlib.suppress(psutil.Error):
        for process in [here, *here.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def _total() -> int:
    import psutil

    return int(psutil.virtual_memory().total)
