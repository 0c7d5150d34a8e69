"""Runs a workflow until it calls `explore`, and looks at what it was about to do."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from ensemblerl.front import WATCHING, Given

T = TypeVar("T")


class Reached(BaseException):
    """Ends the script: an `Exception` might be caught by it."""


class ScriptError(RuntimeError):
    """A workflow did not come as far as `explore`."""


class Look(Generic[T]):
    """Called in place of the campaign, in the script's own stack: its clusters are still open.

    Parameters
    ----------
    then : what to do with what was given
    """

    def __init__(self, then: Callable[[Given], T]) -> None:
        self._then = then
        self.found: list[T] = []
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether the script came so far."""
        return bool(self.found) or self.error is not None

    def __call__(self, given: Given) -> NoReturn:
        """Do it, the first time, and end the script."""
        token = WATCHING.set(None)
        try:
            if not self.done:
                self.found.append(self._then(given))
        except BaseException as error:  # the script may catch what comes through it
            self.error = error
        finally:
            WATCHING.reset(token)
            given.executor.close()
        raise Reached


def at_explore(path: Path, arguments: Sequence[str], then: Callable[[Given], T]) -> T:
    """What ``then`` makes of the first call of explore, launch or prepare in a script.

    The script runs as ``__main__``, with its directory first among those that modules are
    imported from.

    Raises
    ------
    ScriptError
        when it ends, in whatever way, before it calls one of these
    """
    look = Look(then)
    ended = ""
    with _as_its_own(path, arguments):
        token = WATCHING.set(look)
        try:
            runpy.run_path(str(path), run_name="__main__")
        except Reached:
            pass
        except SystemExit as error:
            ended = f" but exit({error.code!r})"
        except Exception as error:
            if not look.done:
                raise ScriptError(f"{_place(error, path)}: {_what(error)}") from error
        finally:
            WATCHING.reset(token)
    if look.error is not None:
        raise look.error
    if not look.found:
        raise ScriptError(
            f"{path}: wanted a script that calls explore, launch or prepare, it called none of "
            f"them{ended}; its own arguments go after --"
        )
    return look.found[0]


@contextmanager
def _as_its_own(path: Path, arguments: Sequence[str]) -> Iterator[None]:
    """``sys.argv`` and ``sys.path`` as the script would find them."""
    argv, places = sys.argv, list(sys.path)
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    try:
        yield
    finally:
        sys.argv = argv
        sys.path[:] = places


def _place(error: BaseException, path: Path) -> str:
    """File and, where known, the line of the script that it came through last."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename) == path]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _what(error: BaseException) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
