"""The supervisor: starts the program, has it watched, reads, hands over, clears up.

It belongs to no worker and no driver: nobody's end is its own. A request to end it is a file in
the store (`ensemblerl.store.running`), or SIGTERM.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import select
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from ensemblerl.records import Fate, Outcome, Program
from ensemblerl.simulations.pipes import TAKEN, receive, send
from ensemblerl.store.reading import is_store
from ensemblerl.store.running import Running
from ensemblerl.supervisor.keeping import drop, shorten
from ensemblerl.supervisor.tree import Tree
from ensemblerl.supervisor.watch import Watch

PAGES = 8192
"""Bytes: a disk with less is full."""
FULL = "no space left on the disk of the working directory"
PATIENCE = 60.0
"""Seconds to wait for that word."""


class Supervisor:
    """One attempt of one member.

    Parameters
    ----------
    given : see `ensemblerl.supervisor.start`
    worker : the pipe to the worker
    """

    def __init__(self, given: dict[str, Any], worker: int) -> None:
        self.given, self.worker = given, worker
        self.directory = Path(given["directory"])
        self.key = given["number"], given["attempt"]
        self.running = Running(given["store"]) if given["store"] else None
        self.watch: Watch | None = None
        self.error: Exception | None = None
        self.terminated = False
        self.inputs: set[Path] = set()

    def start(self) -> None:
        """Start the program: before anything heavy is imported, that happens while it runs."""
        if self.running is not None:
            with contextlib.suppress(OSError):
                self.running.begin(*self.key)
        self.inputs = set(self.directory.rglob("*"))
        program = Program(tuple(self.given["arguments"]), self.given["environment"])
        try:
            tree = Tree(program, self.directory, self.given["mark"])
        except Exception as error:
            self.error = error
            return
        self.watch = Watch(self.given, tree, self.worker)
        self.watch.terminated = self.terminated
        self.watch.start()

    def terminate(self, *_: object) -> None:
        """SIGTERM: end the program, and say so."""
        self.terminated = True
        if self.watch is not None:
            self.watch.terminated = True

    def interrupt(self, *_: object) -> None:
        """SIGUSR1 of our own watch: stop reading."""
        if self.watch is not None and self.watch.interruptible and self.watch.reason is not None:
            self.watch.interruptible = False
            raise self.watch.reason

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

        watch = self.watch
        if watch is None:
            assert self.error is not None
            raise self.error
        watch.ended.wait()
        if watch.reason is not None:
            raise watch.reason
        if watch.code != 0:
            failed = ProgramFailed(watch.code or 0, self.directory)
            # then its own words about that may have found no place either
            raise OSError(errno.ENOSPC, f"{FULL}; {failed}") if _full(self.directory) else failed
        watch.interruptible = True
        try:
            return simulation.read(self.directory)
        finally:
            watch.interruptible = False
            watch.tree.end()  # what the reading may have started

    def keep(self, fate: str) -> str:
        """Move what is wanted of the working directory into the store; where it is now."""
        wanted, store = self.given["keep"], self.given["store"]
        unwanted = fate == Fate.stopped or (fate == Fate.ok and wanted != "all")
        if unwanted or wanted == "nothing" or store is None or not is_store(Path(store)):
            return ""
        logs = [self.directory / name for name in ("stdout", "stderr")]
        if wanted != "all":  # results may be large: inputs and logs are what tells of a failure
            drop(self.directory, self.inputs.union(logs))
            for path in logs:
                shorten(path)
        kept = Path(store) / "kept" / f"{self.key[0]}-{self.key[1]}"
        try:
            kept.parent.mkdir(exist_ok=True)
            shutil.move(self.directory, kept)
        except OSError:
            return ""
        return str(kept)

    def clear(self) -> None:
        """Remove the working directory and the sign of life."""
        if self.watch is not None:
            self.watch.done.set()
            self.watch.tree.end()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.running is not None:
            self.running.over(*self.key)


def supervise() -> None:
    """Run one member to its end: what the process does."""
    given, parcel = json.loads(receive(0)), receive(0)
    supervisor = Supervisor(given, _pipes())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, supervisor.terminate)
    signal.signal(signal.SIGUSR1, supervisor.interrupt)
    supervisor.start()
    try:
        _hand_over(_finished(supervisor, parcel), supervisor)
    finally:
        supervisor.clear()


def _finished(supervisor: Supervisor, parcel: bytes) -> Any:
    from ensemblerl.finishing import Finished, finish
    from ensemblerl.simulations.causes import cause_of
    from ensemblerl.simulations.points import Task

    given, watch = supervisor.given, supervisor.watch
    try:
        job = pickle.loads(parcel)
        call = partial(supervisor.result, job.simulation)
        began = time.monotonic() if watch is None else watch.began
        ran = time.monotonic() - began
        task = Task(*supervisor.key, {}, 0, {})
        finished = finish(job, task, call, worker=given["worker"], ran=ran)
    except BaseException as error:  # a package that is missing here, anything
        cause = f"the supervisor cannot load the simulation or the goal: {cause_of(error)}"
        return Finished(Outcome(*supervisor.key, str(Fate.failed), cause, worker=given["worker"]))
    outcome = finished.outcome
    if watch is not None and watch.ended.is_set():
        outcome = outcome._replace(runtime=watch.ran)
    kept = supervisor.keep(outcome.fate)
    if kept and outcome.fate != Fate.ok:
        outcome = outcome._replace(cause=f"{outcome.cause}\nits files: {kept}")
    return finished._replace(outcome=outcome)


def _pipes() -> int:
    """The pipe to the worker; standard output is then empty."""
    worker = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    sys.stdout = sys.stderr
    return worker


def _hand_over(finished: Any, supervisor: Supervisor) -> None:
    """Give outcome and record to the worker; write the record where there is no worker any more."""
    from ensemblerl.finishing import encoded
    from ensemblerl.store.codec import dumps, outcome_fields

    record = encoded(finished)
    told = {"outcome": outcome_fields(finished.outcome), "layout": finished.layout}
    try:
        send(supervisor.worker, dumps(told).encode())
        send(supervisor.worker, record)
        ready, _, _ = select.select([0], [], [], PATIENCE)
        if ready and os.read(0, 1) == TAKEN:
            return
    except OSError:
        pass
    if supervisor.given["store"]:
        _write(supervisor.given["segments"], record)


def _write(segments: str, record: bytes) -> None:
    from ensemblerl.store.segments import get_writer

    if is_store(Path(segments).parent):  # one that is gone is not to be made anew
        writer = get_writer(segments)
        with contextlib.suppress(OSError):
            writer.write_raw(record)
            writer.close()


def _full(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(directory).free < PAGES
    return False
