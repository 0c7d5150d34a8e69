"""The supervisor: starts the program, watches time and memory, reads, writes, clears up.

It belongs to no worker and no driver: nobody's end is its own. A request to end it is a file in
the store (`ensemblerl.store.running`), or SIGTERM.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from ensemblerl.records import Fate, Outcome, Program
from ensemblerl.simulations.pipes import receive, send
from ensemblerl.store.running import BEAT, Running
from ensemblerl.supervisor.tree import Tree

FULL = "no space left on the disk of the working directory"
LOOK = 0.5
"""Seconds between looks at memory and requests."""
PAGES = 8192
"""Bytes: a disk with less is full."""


class Supervisor:
    """One attempt of one member.

    Parameters
    ----------
    given : see `ensemblerl.supervisor.start`
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.directory = Path(given["directory"])
        self.key = given["number"], given["attempt"]
        self.running = Running(given["store"]) if given["store"] else None
        self.tree: Tree | None = None
        self.error: OSError | None = None
        self.terminated = False
        self.inputs: set[Path] = set()

    def start(self) -> None:
        """Start the program: before anything heavy is imported, that happens while it runs."""
        if self.running is not None:
            with contextlib.suppress(OSError):
                self.running.begin(*self.key)
        self.inputs = set(self.directory.rglob("*"))
        self.began = time.monotonic()
        try:
            program = Program(tuple(self.given["arguments"]), self.given["environment"])
            self.tree = Tree(program, self.directory)
        except OSError as error:
            self.error = error

    def result(self, simulation: Any) -> Any:
        """Wait for the program, and read what it left; all its processes are gone then.

        Raises
        ------
        TimedOut, Stopped, MemoryError
            when it was ended, saying why
        ProgramFailed
            when it failed
        """
        from ensemblerl.simulations.program import ProgramFailed

        if self.tree is None:
            assert self.error is not None
            raise self.error
        try:
            code = self._wait(self.tree)
        finally:
            self.tree.end()
        if code != 0:
            failed = ProgramFailed(code, self.directory)
            # then its own words about that may have found no place either
            raise OSError(errno.ENOSPC, f"{FULL}; {failed}") if _full(self.directory) else failed
        return simulation.read(self.directory)

    def _wait(self, tree: Tree) -> int:
        """The program's exit code."""
        from ensemblerl.simulations.processes import Stopped, TimedOut

        timeout, beat = self.given["timeout"], time.monotonic()
        while True:
            left = LOOK if timeout is None else self.began + timeout - time.monotonic()
            if (code := tree.wait(min(LOOK, left))) is not None:
                return code
            if timeout is not None and time.monotonic() >= self.began + timeout:
                raise TimedOut(f"the member took longer than {timeout:g} s and was ended")
            if self._asked():
                raise Stopped("stopped while it ran")
            self._weigh(tree)
            if time.monotonic() - beat > BEAT and self.running is not None:
                self.running.beat(*self.key)
                beat = time.monotonic()

    def _asked(self) -> bool:
        return self.terminated or (self.running is not None and self.running.asked(*self.key))

    def _weigh(self, tree: Tree) -> None:
        most = self.given["memory"]
        if most is not None and (used := tree.memory()) > most:
            raise MemoryError(
                f"the processes of the member held {used / 1e6:.0f} MB, more than its memory of "
                f"{most / 1e6:.0f} MB, and were ended"
            )

    def keep(self, ok: bool) -> str:
        """Move what is wanted of the working directory into the store; where it is now."""
        wanted = self.given["keep"]
        if self.running is None or wanted == "nothing" or (ok and wanted != "all"):
            return ""
        if wanted != "all":  # results may be large: inputs and logs are what tells of a failure
            _drop(self.directory, self.inputs | {self.directory / n for n in ("stdout", "stderr")})
        kept = Path(self.given["store"]) / "kept" / f"{self.key[0]}-{self.key[1]}"
        try:
            kept.parent.mkdir(exist_ok=True)
            shutil.move(self.directory, kept)
        except OSError:
            return ""
        return str(kept)

    def clear(self) -> None:
        """Remove the working directory and the sign of life."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.running is not None:
            self.running.over(*self.key)


def supervise() -> None:
    """Run one member to its end: what the process does."""
    given = json.loads(receive(0))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    supervisor = Supervisor(given)
    signal.signal(signal.SIGTERM, lambda *_: setattr(supervisor, "terminated", True))
    parcel, worker = _pipes()
    supervisor.start()
    try:
        _tell(_finished(supervisor, parcel), given, worker)
    finally:
        supervisor.clear()


def _finished(supervisor: Supervisor, parcel: bytes) -> Any:
    from ensemblerl.finishing import Finished, finish
    from ensemblerl.simulations.causes import cause_of
    from ensemblerl.simulations.points import Task

    given = supervisor.given
    try:
        job = pickle.loads(parcel)
    except BaseException as error:  # a missing package, anything
        if supervisor.tree is not None:
            supervisor.tree.end()
        cause = f"the supervisor cannot load simulation or goal: {cause_of(error)}"
        return Finished(Outcome(*supervisor.key, str(Fate.failed), cause, worker=given["worker"]))
    task = Task(*supervisor.key, {}, 0, {})
    call = partial(supervisor.result, job.simulation)
    ran = time.monotonic() - supervisor.began
    finished = finish(job, task, call, worker=given["worker"], ran=ran)
    outcome = finished.outcome
    kept = supervisor.keep(outcome.fate == "ok")
    if kept and outcome.fate != "ok":
        outcome = outcome._replace(cause=f"{outcome.cause}\nits files: {kept}")
    return finished._replace(outcome=outcome)


def _pipes() -> tuple[bytes, int]:
    """(the job, the pipe to the worker); standard input and output are then empty."""
    parcel = receive(0)
    worker = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nothing, fd)
    os.close(nothing)
    sys.stdout = sys.stderr
    return parcel, worker


def _tell(finished: Any, given: dict[str, Any], worker: int) -> None:
    """Write the record, then tell the worker, who gets the record where it could not be written."""
    from ensemblerl.finishing import encoded
    from ensemblerl.store.codec import dumps, outcome_fields

    record = encoded(finished)
    if given["store"] and _written(given["segments"], record):
        record = b""
    told = {"outcome": outcome_fields(finished.outcome), "layout": finished.layout}
    with contextlib.suppress(BrokenPipeError):  # the worker is gone: the record is in the store
        send(worker, dumps(told).encode())
        send(worker, record)


def _written(segments: str, record: bytes) -> bool:
    from ensemblerl.store.segments import get_writer

    if not Path(segments).parent.is_dir():  # a store that is gone is not to be made anew
        return False
    writer = get_writer(segments)
    try:
        writer.write_raw(record)
        writer.close()
    except OSError:
        return False
    return True


def _full(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(directory).free < PAGES
    return False


def _drop(directory: Path, but: set[Path]) -> None:
    """Remove all files but these."""
    for path in sorted(directory.rglob("*"), reverse=True):
        if path not in but:
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
