"""What a check found, line by line, with remedies."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ensemblerl.cli.checking import CRASHED, Examined
from ensemblerl.cli.costs import alone, memory, on_worker, output, timeout
from ensemblerl.cli.disk import disk
from ensemblerl.cli.errors import flat
from ensemblerl.cli.finding import BAD, GOOD, NOTE, WARN, Finding
from ensemblerl.cli.remedies import brief, detail, remedy
from ensemblerl.cli.trial import Trial
from ensemblerl.cli.units import amount, seconds
from ensemblerl.protocols import Detached

LARGE_JOB = 2**20
"""Bytes of a job that are worth a word: it travels to every worker."""


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
        out += [*alone(examined, here), *memory(examined, here)]
    for trial in examined.trials[:1]:
        out.append(timeout(examined, trial))
    return [*out, _job(examined), *disk(examined)]


def _went(where: str, trial: Trial | str, examined: Examined) -> Finding:
    if isinstance(trial, str):
        if isinstance(examined.job_bytes, str) and "pickled" in trial:
            return Finding(BAD, where, "not run: it cannot be pickled, see job")
        return Finding(NOTE if trial == CRASHED else BAD, where, flat(trial))
    ran = seconds(trial.runtime) + (f" on {trial.worker}" if where == "worker" else "")
    if trial.ok:
        return Finding(GOOD, where, f"ok in {ran}")
    found = trial.fate if trial.died else f"{trial.fate} after {ran}"
    program = isinstance(examined.given.simulation, Detached)
    todo = remedy(trial, worker=where == "worker", program=program)
    return Finding(BAD, where, f"{found}: {brief(trial.cause)}", todo)


def details(examined: Examined) -> dict[str, str]:
    """What is too long for the lines, each once -> where it came from."""
    out: dict[str, str] = {}
    for where, trial in (("here", examined.here), ("on the worker", examined.there)):
        if isinstance(trial, Trial) and (text := detail(trial.cause)):
            out[text] = f"{out[text]} and {where}" if text in out else where
    return out


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
    lighter = "it carries data along: read them from a file inside the function"
    return Finding(WARN, "job", found, lighter)
