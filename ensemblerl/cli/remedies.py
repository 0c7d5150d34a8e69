"""What to do about a member that is not ok, by its cause."""

from __future__ import annotations

from ensemblerl.cli.trial import Trial
from ensemblerl.records import Fate

NO_PROGRAM = "wanted an executable"
SEARCHED = " PATH: "
ENDED = "what ended the supervisor? Look at the errors of the worker, and at its memory"
LOST = "give it a process of its own, then a crash costs one member and no worker"


def brief(cause: str) -> str:
    r"""A cause in a row; the last line of a log, where the first line announces a log.

    Examples
    --------
    >>> brief("got no match; its last lines:\none\ntwo")
    'got no match; its last line: two'
    """
    if not cause:
        return "no cause is known"
    first, *rest = cause.splitlines()
    if NO_PROGRAM in first:
        return first.partition(SEARCHED)[0].partition("; ")[0]
    return f"{first.removesuffix('s:')}: {rest[-1]}" if rest and first.endswith("lines:") else first


def detail(cause: str) -> str:
    """What is too long for the row; "" where the row has it all."""
    if NO_PROGRAM in cause:
        path = cause.partition(SEARCHED)[2]
        return f"PATH: {path}" if path else ""
    return cause if "\n" in cause else ""


def remedy(trial: Trial, *, worker: bool, program: bool) -> str:
    """What to do.

    Parameters
    ----------
    trial : not ok
    worker : whether it was on a worker
    program : whether the simulation is one
    """
    first = trial.cause.partition("\n")[0]
    if trial.died or trial.fate == Fate.lost:
        return ENDED if program else LOST
    if worker and "ModuleNotFoundError" in first:
        return "install it where the workers run, or put it beside the workflow"
    if NO_PROGRAM in first:
        told = first.partition(SEARCHED)[0].partition("; ")[2]
        return told.rstrip(".") or "give the path of a file that is there and may be executed"
    match trial.fate:
        case Fate.failed:
            return f"mend it, then check again{_below(trial.cause)}"
        case Fate.invalid if first.startswith(("file ", "reads:")):
            return f"mend reads=, or what the program writes{_below(trial.cause)}"
        case Fate.invalid:
            finite = "finite numbers where the goal looks"
            what = "readers that find" if program else "return"
            return f"{what} numbers, arrays or a Dataset, and {finite}"
        case Fate.timeout:
            return "see timeout"
        case Fate.out_of_memory:
            return "see memory" if program else "make it smaller, or run fewer at a time"
    return ""


def _below(cause: str) -> str:
    if "\n" not in cause:
        return ""
    what = "the traceback" if '  File "' in cause else "what was printed last"
    return f"; {what} is below"
