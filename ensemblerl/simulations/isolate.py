"""Runs a member in a process of its own, which is used again for the next one.

One child a worker thread. A time-out ends the child with all it started; a crash costs the
member and nothing else.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from ensemblerl.simulations.child import PATH
from ensemblerl.simulations.pipes import answered, receive, send
from ensemblerl.simulations.processes import ProcessDied, Stopped, TimedOut, end_group, how_it_ended

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
LOADING = 300.0
"""Seconds that importing the simulation's modules may take at most."""


class Raised(RuntimeError):
    """The simulation raised in its process; ``cause`` says what and where."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause.split("\n", 1)[0])
        self.cause = cause


class Child:
    """A process that runs members of one simulation after the other.

    Parameters
    ----------
    cores : threads that numerical libraries in it may use
    """

    def __init__(self, cores: int) -> None:
        self.cores, self.stopped = cores, False
        self._owner = os.getpid()
        self._loaded: Any = None
        life, self._life = os.pipe()
        try:
            self._process = _spawn(cores, life)
        except BaseException:
            os.close(self._life)
            raise
        finally:
            os.close(life)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin.fileno()
        self._answers = self._process.stdout.fileno()
        self._close = weakref.finalize(self, _end, self._process, self._life, self._owner)

    @property
    def pid(self) -> int:
        """Process id, and that of its group and session."""
        return self._process.pid

    def usable(self, cores: int) -> bool:
        """Whether it can take another member (a forked copy of its owner must not use it)."""
        return (
            self._close.alive
            and self._owner == os.getpid()
            and self.cores == cores
            and not self._gone()
        )

    def load(self, simulation: Any) -> None:
        """Send the simulation, unless it is the one the child has."""
        if self._loaded is not simulation:
            payload = _pickled(simulation)
            self._loaded = None
            self._ask(("load", payload), LOADING, "loading the simulation")
            self._loaded = simulation

    def run(self, request: tuple[Any, ...], timeout: float | None) -> Any:
        """Run one member; its result."""
        return self._ask(("run", request), timeout, "the member")

    def stop(self) -> None:
        """End it, from any thread: whoever waits for its answer gets `Stopped`."""
        self.stopped = True
        if self._close.alive:
            end_group(self.pid)

    def close(self) -> None:
        """End the process and all it started."""
        self._close()

    def _ask(self, request: tuple[str, Any], timeout: float | None, what: str) -> Any:
        try:
            send(self._requests, pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL))
            if not answered(self._answers, timeout, self._gone):
                raise TimedOut(f"{what} took longer than {timeout:g} s and was ended")
            kind, content = pickle.loads(receive(self._answers))
        except (EOFError, BrokenPipeError):
            raise self._death() from None
        except BaseException:
            self.close()
            raise
        if kind == "memory":
            raise _with_cause(MemoryError(content), content)
        if kind == "raised":
            raise Raised(content)
        return content

    def _gone(self) -> bool:
        """Whether it ended; does not reap it, so that its id stays its own."""
        if self._process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self.pid, flags) is not None
        except ChildProcessError:
            return True

    def _death(self) -> RuntimeError:
        self.close()
        if self.stopped:
            return Stopped("stopped while it ran")
        how = how_it_ended(self._process.returncode)
        return ProcessDied(f"the process of the member ended: {how}")


def _pickled(simulation: Any) -> bytes:
    import cloudpickle

    try:
        content: bytes = cloudpickle.dumps(simulation)
    except Exception as error:
        raise TypeError(
            "simulation: wanted one that can be pickled, to run it in a process of its own "
            f"(isolate=True, or a timeout), got {simulation!r}: {error}"
        ) from error
    return content


def _with_cause(error: MemoryError, cause: str) -> MemoryError:
    error.cause = cause  # type: ignore[attr-defined]
    return error


def _spawn(cores: int, life: int) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)  # noqa: PTH109
    environment = {
        **os.environ,
        **dict.fromkeys(THREADS, str(cores)),
        PATH: os.environ.get("PYTHONPATH", ""),
        "PYTHONPATH": path,
    }
    command = [sys.executable, "-P", "-m", "ensemblerl.simulations.child"]
    return subprocess.Popen(
        [*command, str(os.getpid()), str(life)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=environment,
        pass_fds=(life,),
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes], life: int, owner: int) -> None:
    """End a child; in a forked copy of its owner only let go of the pipes."""
    if owner == os.getpid():
        if process.returncode is None:
            end_group(process.pid)
        process.wait()
    os.close(life)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


_local = threading.local()
_running: dict[tuple[int, int], Child] = {}


def run(
    simulation: Any, point: Mapping[str, Any], seed: int, member: Mapping[str, Any] | None
) -> Any:
    """Run ``simulation.here(point, seed=, member=)`` in this thread's child.

    Raises
    ------
    Raised
        the simulation raised; ``cause`` holds type, message and traceback
    MemoryError
        it raised that
    TimedOut
        it took longer than ``simulation.timeout`` seconds
    ProcessDied
        the process ended without an answer
    Stopped
        `stop` was called
    """
    child = _child(simulation.cores)
    key = (id(simulation), int((member or {}).get("number", -1)))
    _running[key] = child
    try:
        child.load(simulation)
        return child.run((dict(point), seed, dict(member or {})), simulation.timeout)
    finally:
        del _running[key]


def stop(simulation: Any, number: int) -> None:
    """End this member's process if it runs in this process's care."""
    child = _running.get((id(simulation), number))
    if child is not None:
        child.stop()


def _child(cores: int) -> Child:
    child: Child | None = getattr(_local, "child", None)
    if child is None or not child.usable(cores):
        if child is not None:
            child.close()
        child = _local.child = Child(cores)
    return child
