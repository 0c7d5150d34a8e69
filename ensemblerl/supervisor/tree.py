"""A program with all the processes that come of it: started, looked at, ended to the last one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time
from pathlib import Path

import psutil

from ensemblerl.records import Program

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE = 0.7
"""Seconds between SIGTERM and SIGKILL."""
STUBBORN = 10.0
"""Seconds after which a process that SIGKILL does not end (it waits for a disk) is given up."""


class Tree:
    """The processes of one program; this process must have no other children.

    Parameters
    ----------
    program : what to start
    directory : where; ``stdout`` and ``stderr`` become files there

    Raises
    ------
    OSError
        when it cannot be started
    """

    def __init__(self, program: Program, directory: Path) -> None:
        _adopt_orphans()
        with (directory / "stdout").open("wb") as out, (directory / "stderr").open("wb") as err:
            self._process = subprocess.Popen(
                program.arguments,
                cwd=directory,
                env=program.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._handle = os.pidfd_open(self._process.pid)

    def wait(self, seconds: float) -> int | None:
        """The exit code of the program itself, negative for a signal; None: it runs on."""
        look = select.poll()
        look.register(self._handle, select.POLLIN)
        look.poll(1000.0 * max(0.0, seconds))
        return self._process.poll()

    def memory(self) -> int:
        """Resident bytes of all processes; shared pages count in each of them."""
        total = 0
        for process in _descendants():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def end(self) -> None:
        """End all processes, those too that left the session or ignore SIGTERM."""
        _signal(_descendants(), signal.SIGTERM)
        self._gone(GRACE)
        until = time.monotonic() + STUBBORN
        while not self._gone(0.05) and time.monotonic() < until:
            # again and again: one of them may have forked before it got the signal
            _signal(_descendants(), signal.SIGKILL)

    def _gone(self, seconds: float) -> bool:
        """Whether no process is left, at the latest after so many seconds."""
        until = time.monotonic() + seconds
        while self._living():
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)
        return True

    def _living(self) -> list[psutil.Process]:
        self._process.poll()
        left = []
        for process in _descendants():
            if process.pid != self._process.pid:
                with contextlib.suppress(ChildProcessError):  # not ours yet
                    os.waitpid(process.pid, os.WNOHANG)
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
        return left


def _descendants() -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process().children(recursive=True)
    return []


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _adopt_orphans() -> None:
    """Processes whose parent ends become children of this one, not of init (Linux 3.4)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with_parent() -> None:
    """Should this process be killed, the kernel ends the program."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
