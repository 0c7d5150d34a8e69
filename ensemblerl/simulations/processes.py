"""Ending a process with all it started, and saying how one ended."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

GONE = (ProcessLookupError, PermissionError)


class ProcessDied(RuntimeError):
    """The process that ran a member ended without an answer; the message says how."""


class TimedOut(TimeoutError):
    """A member ran longer than its simulation's ``timeout``; its processes were ended."""


class Stopped(RuntimeError):
    """A member was stopped from outside."""


class CutOff(RuntimeError):
    """The infrastructure ended a member: its job's time was over, or a queue's SIGTERM came."""


class NodeFull(RuntimeError):
    """The node ran out of memory, and the kernel ended a member for it."""


def how_it_ended(code: int) -> str:
    """Words for a return code as `subprocess` gives it (negative: a signal).

    >>> how_it_ended(-11)
    'segmentation fault (signal 11, SIGSEGV)'
    >>> how_it_ended(3)
    'exit code 3'
    """
    if code >= 0:
        return f"exit code {code}"
    number = -code
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    words = f"{(signal.strsignal(number) or name).lower()} (signal {number}, {name})"
    if number == signal.SIGKILL:
        words += "; it may have been the out-of-memory killer"
    return words


def end_group(leader: int) -> None:
    """Kill a process group by its leader's id, and descendants that left the group.

    Call it before the leader is reaped: its id is not used again as long.
    """
    others = _descendants(leader)
    with contextlib.suppress(*GONE):
        os.killpg(leader, signal.SIGKILL)
    for process in others:
        with contextlib.suppress(Exception):
            process.kill()


def _descendants(pid: int) -> list[Any]:
    import psutil

    try:
        found: list[Any] = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    return found
