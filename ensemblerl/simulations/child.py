"""The other side of an isolated run: ``python -m ensemblerl.simulations.child PARENT LIFE``.

Reads a request from its standard input, runs the member, writes the answer to its standard
output; what the simulation prints goes to standard error. Lives as long as its parent does.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import sys
from typing import Any

from ensemblerl.simulations.causes import cause_of
from ensemblerl.simulations.pipes import receive, send

PR_SET_PDEATHSIG = 1
PATH = "ENSEMBLERL_CHILD_PYTHONPATH"
"""Where the parent's own PYTHONPATH is kept while ours finds the parent's modules."""


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    parent, life = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _guard(life)
    _die_with(parent)
    requests, answers = _private_pipes()
    _restore_path()
    with contextlib.suppress(EOFError, BrokenPipeError):
        _serve(requests, answers)


def _serve(requests: int, answers: int) -> None:
    simulation: Any = None
    while True:
        kind, content = pickle.loads(receive(requests))
        if kind == "load":
            simulation, answer = _attempt(pickle.loads, content)
        else:
            point, seed, member = content
            _, answer = _attempt(simulation.here, point, seed=seed, member=member, kept=True)
        send(answers, answer)


def _attempt(call: Any, *args: Any, kept: bool = False, **kwargs: Any) -> tuple[Any, bytes]:
    """The call's result, and the answer to send: with the result in it when ``kept``."""
    try:
        result = call(*args, **kwargs)
        return result, _packed(("ok", result if kept else None))
    except BaseException as error:
        kind = "memory" if isinstance(error, MemoryError) else "raised"
        return None, _packed((kind, cause_of(error)))


def _packed(answer: tuple[str, Any]) -> bytes:
    try:
        return pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(
            f"the result ({type(answer[1]).__name__}) cannot be sent back from the isolated "
            f"process, wanted numbers, arrays or a Dataset: {error}"
        ) from error


def _private_pipes() -> tuple[int, int]:
    """(requests, answers); standard input is then empty, standard output standard error."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with contextlib.suppress(Exception):
        faulthandler.enable()
    return requests, answers


def _guard(life: int) -> None:
    """Leave a process in this group that ends the whole group when the parent dies.

    So executables that the simulation started end too. Twice forked: it is nobody's child that
    the simulation might wait for.
    """
    if first := os.fork():
        os.waitpid(first, 0)
        os.close(life)
        return
    if os.fork():
        os._exit(0)
    os.closerange(0, life)
    os.closerange(life + 1, 4096)
    with contextlib.suppress(OSError):
        os.read(life, 1)
    os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _die_with(parent: int) -> None:
    """For the case that the guard is gone: the kernel ends this process with its parent."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _restore_path() -> None:
    before = os.environ.pop(PATH, "")
    os.environ.pop("PYTHONPATH", None)
    if before:
        os.environ["PYTHONPATH"] = before


if __name__ == "__main__":
    main()
