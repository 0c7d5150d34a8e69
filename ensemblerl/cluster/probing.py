"""One small job through the queue that runs `ensemblerl.cluster.probe`, and no trace of it."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ensemblerl.cluster.interfaces import Listener
from ensemblerl.cluster.queues.base import NoQueue, Queue, Queued, QueueSilent, Refused
from ensemblerl.cluster.scratch import tail
from ensemblerl.cluster.script import RUN, named

TICK, EVERY = 0.2, 2.0
"""Seconds between two looks for the report, and between two questions to the queue."""
SETTLING = 10.0
"""Seconds after which what a node wrote is to be seen here too, and a job that the queue took is
to be known to it."""
ENDING = 20.0
"""Seconds for the job to be gone once it was cancelled."""
WORKER = re.compile(rf"^{RUN} (?P<python>.+?) -m distributed\.cli\.dask_worker .*$", re.MULTILINE)
INTERFACE = re.compile(r"\s--interface[ =](\S+)")


def script_of(text: str, title: str, scheduler: str, command: Sequence[str]) -> str:
    """The script of a job in which another command runs in place of the worker.

    Parameters
    ----------
    text : as it would be submitted, with a worker
    title : name of the job
    scheduler : "slurm" or "pbs"
    command : what the interpreter of the job is to run, after ``-m``

    Raises
    ------
    ValueError
        for a script that starts no worker
    """
    if WORKER.search(text) is None:
        raise ValueError("script: wanted one that starts a Dask worker, this one does not")
    words = shlex.join(command)
    text = WORKER.sub(lambda found: f"{found['python']} -m {words}", text)
    return named(text, title, scheduler)


def interface_of(text: str) -> str:
    """The interface that the worker of a script is told to use; "" where it is told none."""
    worker = WORKER.search(text)
    found = INTERFACE.search(worker[0]) if worker else None
    return found[1] if found else ""


class Probing:
    """The job of one probe.

    Parameters
    ----------
    queue : that it goes through
    title : its name, which no other job of the user has
    directory : for script, log and report: its own
    listener : hears a report from nodes that do not see the directory
    timeout : seconds for it to start, and as many for its report
    say : is told what is being waited for

    Attributes
    ----------
    id : of the job; "" where the queue never told
    seen : the job as the queue saw it last, before it was ended
    refused, silence : why it could not be submitted, what else the queue did not answer
    report : of the probe; None where there is none
    shared : whether the report's file was seen here
    log : end of what the job printed, where it told nothing
    waited : seconds until it ran, NaN: it never did
    arrived, heard : when the report came: on the monotonic clock, and of the day
    stuck : why it could not be ended
    """

    def __init__(
        self,
        queue: Queue,
        title: str,
        directory: Path,
        listener: Listener,
        timeout: float,
        say: Callable[[str], None],
    ) -> None:
        self._queue, self.title, self._directory = queue, title, directory
        self._listener, self._timeout, self._say = listener, timeout, say
        self.file = directory / "report.json"
        self.id, self.seen = "", Queued("", title, "pending")
        self.refused = self.silence = self.log = self.stuck = ""
        self.report: dict[str, Any] | None = None
        self.shared, self.waited, self.arrived = False, math.nan, math.nan
        self.heard = math.nan

    def run(self, script: str) -> None:
        """Submit, wait, end; the answers are the attributes."""
        try:
            self._submit(script)
            if not self.refused:
                self._follow()
            if self.report is None:
                self.log = tail(self._directory, self.title)
        finally:
            self._end()

    def _submit(self, script: str) -> None:
        self._say("the queue takes a job")
        self._began = time.monotonic()
        try:
            self.id = self._queue.submit(script, self._directory)
        except (Refused, NoQueue) as error:
            self.refused = str(error)
        except QueueSilent as error:
            self.silence = str(error)

    def _follow(self) -> None:
        until, asked, over = self._began + self._timeout, -math.inf, math.inf
        while not self._told():
            now = time.monotonic()
            if now >= asked + EVERY:
                self._look(now)
                asked = time.monotonic()
            if self.seen.state == "running" and math.isnan(self.waited):
                self.waited = now - self._began
                until = now + self._timeout
            if self.seen.state == "ended":
                over = min(over, now + SETTLING)
            if now > min(until, over):
                return
            time.sleep(TICK)
        if math.isnan(self.waited):
            self.waited = self.arrived - self._began
        self._look(time.monotonic())

    def _told(self) -> bool:
        """Whether the report is there; a file has time to come, where the node wrote one."""
        now = time.monotonic()
        with contextlib.suppress(OSError, ValueError):
            self.report = json.loads(self.file.read_text()) | {"unwritten": ""}
            self.shared = True
        if self.report is None and self._listener.report is not None:
            self.report = dict(self._listener.report)
        if self.report is None:
            return False
        if math.isnan(self.arrived):
            self.arrived, self.heard = now, time.time()
        return self.shared or bool(self.report["unwritten"]) or now > self.arrived + SETTLING

    def _look(self, now: float) -> None:
        try:
            found = self._ask()
            self.silence = ""
        except QueueSilent as error:
            self.silence = str(error)
            return
        if found is not None:
            self.id, self.seen = found.id, found
            waits = f" ({found.reason})" if found.reason and found.state == "pending" else ""
            self._say(f"job {found.id} is {found.state}{waits}")
        elif self.seen.id or now > self._began + SETTLING:
            self.seen = Queued(self.id, self.title, "ended", "unknown")

    def _ask(self) -> Queued | None:
        if self.id:
            return self._queue.jobs([self.id]).get(self.id)
        return self._queue.find([self.title]).get(self.title)

    def _end(self) -> None:
        """Cancel it, and wait until it is gone: whoever is still there may write a log."""
        until, asked = time.monotonic() + ENDING, False
        while not self.refused:
            try:
                now = self._ask()
                if now is None or now.state == "ended":
                    self.stuck = ""
                    return
                self.id = now.id
                if not asked:
                    self._queue.cancel([now.id])
                    asked = True
                self.stuck = f"it is still {now.state}"
            except (QueueSilent, Refused) as error:
                self.stuck = str(error)
            if time.monotonic() > until:
                return
            time.sleep(TICK if asked else EVERY)
