"""A program with all the processes that come of it: started, looked at, ended to the last one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ensemblerl.records import Program

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE = 0.7
"""Seconds between SIGTERM and SIGKILL."""
STUBBORN = 10.0
"""Seconds after which a process that SIGKILL does not end (it waits for a disk) is given up."""
POLL = 0.02
"""Seconds between looks, where the kernel cannot tell of a process's end (before Linux 5.3)."""
PAGE = os.sysconf("SC_PAGE_SIZE")
MARK = "ENSEMBLERL_MEMBER"
"""In the environment of all processes of a member: finds them when their supervisor is gone."""


class Tree:
    """The processes of one program; this process must have no other children.

    Its methods may be called from any thread.

    Parameters
    ----------
    program : what to start
    directory : where; ``stdout`` and ``stderr`` become files there, or go on
    mark : put into the environment, for `end_marked`
    cores : processors to keep to, of those that there are for this process; all when empty

    Raises
    ------
    OSError, ValueError
        when it cannot be started
    """

    def __init__(
        self, program: Program, directory: Path, mark: str, cores: Collection[int] = ()
    ) -> None:
        self._lock = threading.RLock()
        self._code: int | None = None
        _adopt_orphans()
        with _log(directory / "stdout") as out, _log(directory / "stderr") as err:
            self._process = subprocess.Popen(
                program.arguments,
                cwd=directory,
                env={**program.environment, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=partial(_as_from_a_shell, _ours(cores)),
            )
        try:
            self._handle = os.pidfd_open(self._process.pid)
        except (OSError, AttributeError):
            self._handle = -1

    def wait(self, seconds: float, nudge: int | None = None) -> int | None:
        """The exit code of the program itself, negative for a signal; None: it runs on.

        Does not wait longer once there is something to read from ``nudge``.
        """
        until = time.monotonic() + seconds
        if self._handle >= 0 and self._code is None:
            look = select.poll()
            for handle in (self._handle, nudge):
                if handle is not None:
                    look.register(handle, select.POLLIN)
            look.poll(1000.0 * max(0.0, seconds))
        while self._reap() is None and self._handle < 0 and time.monotonic() < until:
            time.sleep(POLL)
        return self._code

    def heeds(self, number: int, before: bool = False) -> bool:
        """Whether the program itself has a handler for a signal, or ignores it (proc(5)): its end
        may then be an answer to it. ``before`` where that cannot be seen.
        """
        try:
            text = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return before
        masks = re.findall(r"^Sig(?:Cgt|Ign):\s*([0-9a-f]+)", text, re.MULTILINE)
        return any(int(mask, 16) >> (number - 1) & 1 for mask in masks) if masks else before

    def memory(self) -> int:
        """Resident bytes of all processes; shared pages count in each of them."""
        total = 0
        for pid in descendants():
            with contextlib.suppress(OSError, IndexError):
                total += PAGE * int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return total

    def end(self, grace: float = GRACE) -> None:
        """End all processes, those too that left the session or ignore SIGTERM.

        Parameters
        ----------
        grace : seconds between SIGTERM and SIGKILL
        """
        with self._lock:
            _signal(descendants(), signal.SIGTERM)
            until = time.monotonic() + grace
            while self._left() and time.monotonic() < until:
                time.sleep(0.01)
            until = time.monotonic() + STUBBORN
            # again and again, and at once: one of them may have forked before it got the signal
            while (left := self._left()) and time.monotonic() < until:
                _signal(left, signal.SIGKILL)

    def _left(self) -> list[int]:
        self._reap()
        return descendants()

    def _reap(self) -> int | None:
        """Take note of ended children, adopted ones too; the program's exit code if it is there."""
        with self._lock, contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                if pid == self._process.pid:
                    self._code = self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._code


def descendants(root: int | None = None) -> list[int]:
    """Process ids of all that come of a process, this one when None."""
    found, waiting = [], [os.getpid() if root is None else root]
    while waiting:
        children = _children(waiting.pop())
        found += children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    """Read straight from the kernel: a snapshot of all processes comes too late for one that
    forks quickly (proc(5), ``/proc/PID/task/TID/children``).
    """
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(n) for task in tasks for n in (task / "children").read_text().split()]
    except OSError:
        return _children_of_all(pid) if not Path("/proc/self/task").is_dir() else []


def _children_of_all(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_marked(mark: str) -> None:
    """Kill the processes of a member whose supervisor was killed: they are nobody's children."""
    wanted = f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                _signal([int(path.parent.name)], signal.SIGKILL)


def _adopt_orphans() -> None:
    """Processes whose parent ends become children of this one, not of init (Linux 3.4)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _log(path: Path) -> BinaryIO:
    """What an earlier attempt printed stays, and its last line is no part of the next one."""
    file = path.open("ab+")
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def _ours(cores: Collection[int]) -> set[int]:
    """Those of these processors that this process may use."""
    return set(cores) & os.sched_getaffinity(0) if cores else set()


def _as_from_a_shell(cores: set[int]) -> None:
    """Signals as a program expects them, its processors; and the kernel ends it should this
    process be killed.
    """
    if cores:
        os.sched_setaffinity(0, cores)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
