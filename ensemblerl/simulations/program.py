"""Runs a prepared program here and now, and says how one ended that did not end well."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from ensemblerl.records import Program
from ensemblerl.simulations.processes import TimedOut, end_group, how_it_ended
from ensemblerl.simulations.workdir import last_lines

LINES = 10
"""Last lines of what the program printed that go into the message."""
LONGEST = 700
"""Characters of them: a cause in the ledger is short."""
SIGNALS = range(129, 193)
"""Exit codes by which shells and launchers tell of a signal."""


class ProgramFailed(RuntimeError):
    """A program ended with another exit code than 0, or by a signal.

    Parameters
    ----------
    code : as `subprocess` gives it, negative for a signal
    directory : where it ran, with the files ``stdout`` and ``stderr``
    """

    def __init__(self, code: int, directory: Path) -> None:
        super().__init__(failure(code, directory))
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (self.code, str(self))


def _again(code: int, message: str) -> ProgramFailed:
    """An unpickled one: its directory may be gone."""
    error = ProgramFailed.__new__(ProgramFailed)
    RuntimeError.__init__(error, message)
    error.code = code
    return error


def failure(code: int, directory: Path) -> str:
    """How it ended, and the last lines of ``stderr``, else of ``stdout``.

    The first line also has the last one of them that speaks of an error: failures are told apart,
    and counted, by their first line.
    """
    how = how_it_ended(code)
    if code in SIGNALS:
        how += f", a shell's or launcher's word for {how_it_ended(128 - code)}"
    for log in ("stderr", "stdout"):
        if lines := last_lines(directory / log, LINES):
            if len(lines) == 1:
                return f"{how}: {lines[0].strip()}"
            errors = [line for line in lines if "error" in line.lower()]
            text = "\n".join(lines)[-LONGEST:]
            return f"{how}: {(errors or lines)[-1].strip()}\nthe end of its {log}:\n{text}"
    return f"{how}; the program printed nothing"


def run_program(program: Program, directory: Path, timeout: float | None) -> None:
    """Run it in the directory and wait for it.

    Whatever happens, it is ended then, with all processes of its group and, unless it ended by
    itself, all below it. What is not found: a process that left the group (``setsid``, as daemons
    do) and whose parent has ended. A campaign's supervisor adopts such orphans and ends them too.

    Raises
    ------
    ProgramFailed
        unless it ended with exit code 0
    TimedOut
        it took longer than ``timeout`` seconds
    OSError
        it cannot be started
    """
    with (directory / "stdout").open("wb") as out, (directory / "stderr").open("wb") as err:
        process = subprocess.Popen(
            program.arguments,
            cwd=directory,
            env=program.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        in_time = _ends(process.pid, timeout)
    finally:  # before it is reaped: until then its id, and that of its group, are its own
        end_group(process.pid)
        code = process.wait()
    if not in_time:
        raise TimedOut(f"the program took longer than {timeout:g} s and was ended")
    if code:
        raise ProgramFailed(code, directory)


def _ends(pid: int, timeout: float | None) -> bool:
    """Wait for its end, without reaping it; False when the time (seconds) is over."""
    flags = os.WEXITED | os.WNOWAIT
    if timeout is None:
        return os.waitid(os.P_PID, pid, flags) is not None
    end, pause = time.monotonic() + timeout, 0.001
    while os.waitid(os.P_PID, pid, flags | os.WNOHANG) is None:
        rest = end - time.monotonic()
        if rest <= 0.0:
            return False
        time.sleep(min(pause, rest))
        pause = min(2.0 * pause, 0.05)
    return True
