"""What a check found, line by line, with remedies."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ensemblerl.cli.checking import CRASHED, Examined
from ensemblerl.cli.costs import alone, memory, on_worker, output, timeout
from ensemblerl.cli.disk import disk
from ensemblerl.cli.errors import flat
from ensemblerl.cli.finding import BAD, GOOD, NOTE, WARN, Finding
from ensemblerl.cli.trial import Trial
from ensemblerl.cli.units import amount, seconds
from ensemblerl.records import Fate

LARGE_JOB = 2**20
"""Bytes of a job that are worth a word: it travels to every worker."""
REMEDY = {
    Fate.failed: "mend it, then check again; the traceback is below",
    Fate.invalid: "return numbers, arrays or a Dataset, and finite numbers where the goal looks",
    Fate.timeout: "see timeout",
    Fate.out_of_memory: "give it more memory=, or make it smaller",
    Fate.lost: "give it a process of its own, then a crash costs one member and no worker",
}


def findings(examined: Examined) -> list[Finding]:
    """All lines, in the order in which one would ask."""
    here, there = examined.here, examined.there
    out = [_went("here", here, examined)]
    if there:
        out.append(_went("worker", there, examined))
    out += _same(examined)
    if examined.trials:
        out += output(examined, examined.trials[0])
    if isinstance(there, Trial):
        out += on_worker(examined, there)
    elif isinstance(here, Trial):
        out += [*alone(examined, here), *memory(here)]
    for trial in examined.trials[:1]:
        out.append(timeout(examined, trial))
    return [*out, _job(examined), *disk(examined)]


def _went(where: str, trial: Trial | str, examined: Examined) -> Finding:
    if isinstance(trial, str):
        if isinstance(examined.job_bytes, str) and "pickled" in trial:
            return Finding(BAD, where, "not run: it cannot be pickled, see job")
        return Finding(NOTE if trial == CRASHED else BAD, where, flat(trial))
    cause = trial.cause.splitlines()[0] if trial.cause else "no cause is known"
    if trial.died:
        return Finding(BAD, where, f"{trial.fate}: {cause}", REMEDY[Fate.lost])
    ran = seconds(trial.runtime) + (f" on {trial.worker}" if where == "worker" else "")
    if trial.ok:
        return Finding(GOOD, where, f"ok in {ran}")
    remedy = REMEDY.get(Fate(trial.fate), "")
    if "ModuleNotFoundError" in cause and where == "worker":
        remedy = "install it where the workers run, or put it beside the workflow"
    return Finding(BAD, where, f"{trial.fate} after {ran}: {cause}", remedy)


def _unpicklable(why: str) -> str:
    if "pickled" in why:
        return "keep open files, locks and the like out of it: make them inside the function"
    return ""


def _same(examined: Examined) -> Iterator[Finding]:
    here, there, what = examined.here, examined.there, "same result"
    if not (isinstance(here, Trial) and isinstance(there, Trial) and here.ok and there.ok):
        return
    if not examined.differs:
        yield Finding(GOOD, what, "bit for bit the same here and on the worker")
        return
    by = f" by {examined.by:.1g} of its size" if math.isfinite(examined.by) else ""
    found = f"{examined.differs} differs{by} between here and the worker"
    seeded, alike = "take all random numbers from the argument seed", "compare versions and threads"
    if examined.repeats is None:
        yield Finding(WARN, what, found, f"{seeded}, {alike}")
    elif examined.repeats:
        yield Finding(WARN, what, f"{found}; two runs here agree", f"{alike} there and here")
    else:
        yield Finding(WARN, what, f"{found}, and between two runs here", seeded)


def _job(examined: Examined) -> Finding:
    size = examined.job_bytes
    if isinstance(size, str):
        if examined.given.executor.in_process:
            return Finding(NOTE, "job", "cannot be pickled; not needed: members run right here")
        return Finding(BAD, "job", flat(size), _unpicklable(size))
    found = f"{amount(size)} pickled, once to each worker"
    if size <= LARGE_JOB:
        return Finding(GOOD, "job", found)
    remedy = "it carries data along: read them from a file inside the function"
    return Finding(WARN, "job", found, remedy)
