"""The supervisor: starts the program, has it watched, reads, hands over, clears up.

It belongs to no worker and no driver: nobody's end is its own. A request to end it is a file in
the store (`ensemblerl.store.running`), or SIGTERM.
"""

from __future__ import annotations

import contextlib
import errno
import json
import pickle
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

from ensemblerl.records import Fate, Outcome, Program
from ensemblerl.simulations.pipes import receive
from ensemblerl.store.reading import is_store
from ensemblerl.store.running import Running
from ensemblerl.supervisor import oom
from ensemblerl.supervisor.directories import forget, leave
from ensemblerl.supervisor.handover import hand_over, pipes
from ensemblerl.supervisor.keeping import FULL, full, keep
from ensemblerl.supervisor.steps import end_steps
from ensemblerl.supervisor.tree import Tree
from ensemblerl.supervisor.watch import LATE, Watch


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
        self.store = Path(given["store"]) if given["store"] else None
        self.running = Running(self.store) if self.store else None
        self.watch: Watch | None = None
        self.error: Exception | None = None
        self.terminated = self.handed = False

    def start(self) -> None:
        """Start the program: before anything heavy is imported, that happens while it runs."""
        if self.running is not None:
            with contextlib.suppress(OSError):
                self.running.begin(*self.key, checkpoint=self.given["checkpoint"])
        program = Program(tuple(self.given["arguments"]), self.given["environment"])
        kills = oom.kills()
        try:
            tree = Tree(program, self.directory, self.given["mark"], self.given["cores"])
        except Exception as error:
            self.error = error
            return
        self.watch = Watch(self.given, tree, self.worker, kills)
        if self.terminated:
            self.watch.terminate()
        self.watch.start()

    def terminate(self, *_: object) -> None:
        """SIGTERM: end the program, and say so."""
        self.terminated = True
        if self.watch is not None:
            self.watch.terminate()

    def interrupt(self, *_: object) -> None:
        """SIGUSR1 of our own watch: stop reading."""
        if self.watch is not None and self.watch.interruptible and self.watch.reason is not None:
            self.watch.interruptible = False
            raise self.watch.reason

    def result(self, simulation: Any) -> Any:
        """Wait for the program, and read what it left; all its processes are gone then.

        Raises
        ------
        TimedOut, Stopped, CutOff, NodeFull, MemoryError
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
            raise OSError(errno.ENOSPC, f"{FULL}; {failed}") if full(self.directory) else failed
        return self._read(simulation, watch)

    def _read(self, simulation: Any, watch: Watch) -> Any:
        watch.interruptible = True
        try:
            return simulation.read(self.directory)
        except Exception:
            watch.interruptible = False
            if watch.reason is None and (reason := watch.called_off(late=LATE)):
                raise reason from None
            raise
        finally:
            watch.interruptible = False
            watch.tree.end()  # what the reading may have started

    def settle(self, outcome: Outcome) -> Outcome:
        """Make of the working directory what its fate wants, before anybody hears of that: the
        next attempt may begin then.
        """
        self._end()
        there = self.store is not None and is_store(self.store)
        if self.watch is not None:
            self.watch.directory = None  # nobody has taken it away
        if there and self.given["checkpoint"] and outcome.fate in (Fate.lost, Fate.stopped):
            assert self.store is not None
            leave(self.directory, self.key, self.store)
            self.handed = True
            return outcome
        innocent = outcome.fate == Fate.stopped or outcome.blameless
        kept = ""
        if there and self.store is not None and not innocent:
            kept = keep(self.given, outcome.fate)
        if outcome.fate != Fate.ok:
            self._forget()
        if kept and outcome.fate != Fate.ok:
            return outcome._replace(cause=f"{outcome.cause}\nits files: {kept}")
        return outcome

    def clear(self) -> None:
        """Remove the working directory and the sign of life."""
        if self.watch is not None:
            self.watch.done.set()
        self._end()
        if not self.handed:
            self._forget()
            shutil.rmtree(self.directory, ignore_errors=True)
        if self.running is not None:
            self.running.over(*self.key)

    def _forget(self) -> None:
        if self.given["checkpoint"] and self.store is not None:
            forget(self.key, self.store)

    def _end(self) -> None:
        if self.watch is None:
            return
        self.watch.tree.end()
        if not self.watch.ended.is_set():  # it did not come to its own end
            end_steps()


def supervise() -> None:
    """Run one member to its end: what the process does."""
    given, parcel = json.loads(receive(0)), receive(0)
    supervisor = Supervisor(given, pipes())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, supervisor.terminate)
    signal.signal(signal.SIGUSR1, supervisor.interrupt)
    supervisor.start()
    try:
        segments = given["segments"] if given["store"] else None
        finished = _finished(supervisor, parcel)
        hand_over(finished, supervisor.worker, segments, lambda: supervisor.terminated)
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
        outcome = Outcome(*supervisor.key, str(Fate.failed), cause, worker=given["worker"])
        return Finished(supervisor.settle(outcome))
    outcome = finished.outcome
    if watch is not None and watch.ended.is_set():
        outcome = outcome._replace(runtime=watch.ran)
    return finished._replace(outcome=supervisor.settle(outcome))
