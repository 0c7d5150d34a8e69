"""Looks after one attempt from its first moment to its last, whatever its supervisor is doing."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import Any

from ensemblerl.store.reading import is_store
from ensemblerl.store.running import BEAT, Running, orphaned
from ensemblerl.supervisor import oom
from ensemblerl.supervisor.steps import end_steps
from ensemblerl.supervisor.tree import GRACE, Tree

LOOK = 0.5
"""Seconds between looks at memory and requests."""
PATIENCE = 5.0
"""Seconds for the reading of results to stop; then the whole supervisor does."""
LATE = 0.5
"""Seconds by which SIGTERM may come later to this process than to the program: a queue sends it to
all processes of a job, one after the other.
"""
READING = 2.5
"""Seconds beyond its time, or SIGTERM, for which the results of a member that came to its end may
still be read.
"""
BRIEF = 0.02
"""The same after a program has ended well that heeds SIGTERM."""
SAVING = 2.0
"""Seconds between SIGTERM and SIGKILL for programs that write checkpoints: many do so then."""
QUEUES = ("SLURM_JOB_ID", "PBS_JOBID", "ENSEMBLERL_JOB")
"""Variables of which a queue's job has at least one."""


class Watch(threading.Thread):
    """Ends the program when its time is over, its memory used up, or somebody wants it.

    Parameters
    ----------
    given : see `ensemblerl.supervisor.start`
    tree : the program's processes
    worker : the pipe to the worker
    kills : what `oom.kills` said before the program began

    Attributes
    ----------
    code : exit code of the program, None for one that was ended
    ran : seconds that the program took
    reason : why it was ended, or is not to be judged by its end; None where it is
    directory : its working directory, where that may be handed on while it seems dead, else None
    """

    def __init__(self, given: dict[str, Any], tree: Tree, worker: int, kills: int = 0) -> None:
        super().__init__(daemon=True)
        self.tree, self.worker, self.kills = tree, worker, kills
        self.timeout: float | None = given["timeout"]
        self.until: float | None = given["until"]
        self.most: int | None = given["memory"]
        self.key = given["number"], given["attempt"]
        self.store = Path(given["store"]) if given["store"] else None
        self.running = Running(self.store) if self.store else None
        self.kept = self.store is not None and is_store(self.store)
        self.directory = Path(given["directory"]) if given["checkpoint"] else None
        self.queued = any(name in os.environ for name in QUEUES)
        self.began = self.beaten = time.monotonic()
        self.code: int | None = None
        self.ran = 0.0
        self.ended, self.done = threading.Event(), threading.Event()
        self.interruptible = False
        self.reason: BaseException | None = None
        self._terminated = self._heeds = self._judged = False
        self._told = 0.0
        self._nudge = os.eventfd(0, os.EFD_NONBLOCK)

    def terminate(self) -> None:
        """SIGTERM came to this process; may be called from a handler of signals."""
        self._terminated, self._told = True, time.monotonic()
        os.eventfd_write(self._nudge, 1)

    def run(self) -> None:
        """Until ``done`` is set."""
        while not self.ended.is_set():
            self._heeds = self.tree.heeds(signal.SIGTERM, self._heeds)
            self.code = self.tree.wait(self._pause(), self._nudge)
            self.ran = time.monotonic() - self.began
            self.reason = self._reason() if self.code is None else self._behind(self.code)
            if self.code is not None or self.reason is not None:
                self._end()
                self.ended.set()
            self._beat()
        while not self.done.wait(LOOK):
            self._beat()
            if self.reason is None and (reason := self._reason()) is not None:
                self._interrupt(reason)

    def called_off(self, *, late: float = 0.0) -> BaseException | None:
        """Why nothing of this attempt is to be judged, if SIGTERM came, or comes in so many
        seconds.
        """
        until = time.monotonic() + (late if self.queued else 0.0)
        while not self._terminated and time.monotonic() < until:
            time.sleep(0.01)
        from ensemblerl.simulations.processes import CutOff, Stopped

        if not self._terminated:
            return None
        if self._unwanted():
            return Stopped("stopped while it ran")
        return CutOff("ended by SIGTERM, as queues do")

    def _pause(self) -> float:
        wait = LOOK
        if self.timeout is not None:
            wait = min(wait, self.began + self.timeout - time.monotonic())
        if self.until is not None:
            wait = min(wait, self.until - time.monotonic())
        return max(0.0, wait)

    def _end(self) -> None:
        from ensemblerl.simulations.processes import CutOff, Stopped

        saves = self.directory is not None and isinstance(self.reason, CutOff | Stopped)
        self.tree.end(SAVING if saves else GRACE)
        if self.reason is not None or self.code:
            end_steps()

    def _interrupt(self, reason: BaseException) -> None:
        """End the reading of results, which happens in the main thread."""
        self.reason = reason
        self.tree.end()
        if self.interruptible:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        if not self.done.wait(PATIENCE):
            if self.running is not None:
                self.running.over(*self.key)
            os._exit(1)

    def _behind(self, code: int) -> BaseException | None:
        """What was behind the end of the program, where it was not its own."""
        # with exit code 0, too: a program may save what it has at SIGTERM, and end well; one that
        # does not heed SIGTERM ended before that came
        late = LATE if code else BRIEF if self._heeds else 0.0
        if (code or self._heeds) and (reason := self.called_off(late=late)):
            return reason
        self._judged = code == 0
        if code in oom.KILLED and oom.kills() > self.kills:
            from ensemblerl.simulations.processes import NodeFull

            return NodeFull(
                f"the node ran out of memory, and the kernel killed the program after "
                f"{self.ran:.0f} s: give the job more memory, or let fewer members run side by "
                "side (cores=); memory= ends a member that takes more than its share"
            )
        return None

    def _reason(self) -> BaseException | None:
        """Why it has to end now, if it has to."""
        from ensemblerl.simulations.processes import CutOff, Stopped, TimedOut

        ran = time.monotonic() - self.began
        if self.timeout is not None and ran >= self.timeout:
            doing = ", of which its results were being read," if self.ended.is_set() else ""
            return TimedOut(f"the member took longer than {self.timeout:g} s{doing} and was ended")
        more = READING if self._judged else 0.0
        if self._terminated and time.monotonic() >= self._told + more:
            return self.called_off()
        if self._unwanted():
            return Stopped("stopped while it ran")
        if self.until is not None and self.began + ran >= self.until + more:
            return CutOff(f"cut off after {ran:.0f} s: its job ended")
        if self.most is not None and (used := self.tree.memory()) > self.most:
            return MemoryError(
                f"the processes of the member held {used / 1e6:.0f} MB, more than its memory of "
                f"{self.most / 1e6:.0f} MB, and were ended"
            )
        return None

    def _unwanted(self) -> bool:
        """Somebody asked for its end, nobody is left who could take its result, or the next
        attempt has its directory: it was held for dead.
        """
        if self.running is None or self.store is None:
            return _hung_up(self.worker)
        try:
            removed = self.kept and not is_store(self.store)
            taken = self.directory is not None and not self.directory.is_dir()
            return removed or taken or self.running.asked(*self.key) or orphaned(self.store)
        except OSError:  # a file server that does not answer asks for nothing
            return False

    def _beat(self) -> None:
        if self.running is not None and time.monotonic() - self.beaten > BEAT:
            self.running.beat(*self.key)
            self.beaten = time.monotonic()


def _hung_up(pipe: int) -> bool:
    look = select.poll()
    look.register(pipe, 0)
    return bool(look.poll(0))
