"""What a campaign's worker time was spent on: useful, repeated, lost, failed, waiting.

Jobs of a queue give the total: all their slots, from their beginning to their end. Run times of
attempts are measured where they ran. The time of an attempt that was lost is known to nobody: it
is taken from its launch, or the connection of its job where that came later, to its end, and
never more than what the other parts leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ensemblerl.events import Held
from ensemblerl.ledger import FATE_CODE, Ledger
from ensemblerl.records import Fate, FloatArray, Outcome

CUT, LOST = "lost to walltime", "lost otherwise"
PARTS = ("useful", "repeated", CUT, LOST, "failed", "stopped", "starting", "waiting")
_CUT_OFF = ("cut off", "walltime", "ended: timeout")
"""What a cause says of an attempt that the end of its job ended."""
_NEAR = 120.0
"""Seconds between the end of an attempt and that of the job that is taken for its own: a queue
looks at its limits now and then, and waits between SIGTERM and SIGKILL."""
_UNFINISHED = (Fate.lost, Fate.stopped)


class Spent(NamedTuple):
    """Worker time by what became of it.

    Parameters
    ----------
    seconds : part -> seconds of one slot, for each of `PARTS`; ``total`` is their sum
    cores : of a slot, on average; NaN where that is not known
    measured : whether the total is known, with what waited
    beyond : seconds in the total that no known job accounts for: members of jobs that have not
        ended
    """

    seconds: dict[str, float]
    cores: float
    measured: bool
    beyond: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of worker time."""
        return sum(self.seconds.values())


def runs(held: Iterable[Held]) -> list[Held]:
    """One for each run of a job: the last that was told of it."""
    last: dict[str, list[Held]] = {}
    for told in held:
        its = last.setdefault(told.job, [])
        if its and not _began(told) >= its[-1].ended:
            its.pop()
        its.append(told)
    return [run for its in last.values() for run in its]


def _began(run: Held) -> float:
    """When it began to cost, as far as known; one that never began has no cost."""
    known = [when for when in (run.began, run.connected, run.ended) if np.isfinite(when)]
    return known[0] if known else np.nan


def spent(ledger: Ledger, *, n_workers: int | None = None) -> Spent:
    """Where the worker time went.

    Parameters
    ----------
    ledger : of the campaign
    n_workers : members side by side, for a campaign without jobs of a queue: then its total is
        that of its sessions. None: the total is the run time alone.
    """
    jobs = runs(ledger.held)
    times = _Times(ledger, jobs)
    seconds = dict.fromkeys(PARTS, 0.0) | times.known
    guessed = times.guessed()
    total = cores = np.nan
    if jobs:
        total = sum(run.slots * _length(run) for run in jobs)
        seconds["starting"] = sum(run.slots * _startup(run) for run in jobs)
        cores = sum(run.cores * _length(run) for run in jobs) / total if total else np.nan
    elif n_workers is not None:
        total = n_workers * _sessions(ledger)
    measured = bool(np.isfinite(total))
    left = total - sum(seconds.values()) if measured else np.inf
    share = min(1.0, max(left, 0.0) / sum(guessed.values())) if any(guessed.values()) else 0.0
    for part, guess in guessed.items():
        seconds[part] += share * guess
        left -= share * guess
    if measured:
        seconds["waiting"] = max(left, 0.0)
    return Spent(seconds, cores, measured, max(-left, 0.0) if measured else 0.0)


def _length(run: Held) -> float:
    return max(0.0, run.ended - _began(run)) if np.isfinite(run.ended) else 0.0


def _startup(run: Held) -> float:
    """Seconds without a worker at the beginning; all of them where none came."""
    came = run.connected - _began(run) if np.isfinite(run.connected) else np.inf
    return float(np.clip(came, 0.0, _length(run)))


def _sessions(ledger: Ledger) -> float:
    """Seconds from the beginning of each session to the last sign of its members."""
    out = 0.0
    for i, session in enumerate(ledger.sessions):
        its = ledger["session"] == i
        signs = np.array([*ledger["launch"][its], *ledger["end"][its], session.time])
        out += float(np.nanmax(signs)) - session.time
    return out


class _Times:
    """Run times of all attempts by part: those that are known, and spans of the others."""

    def __init__(self, ledger: Ledger, jobs: Sequence[Held]) -> None:
        self.known = dict.fromkeys(PARTS, 0.0)
        self._spans: list[tuple[str, float, float]] = []
        self._came = [run for run in jobs if run.connected <= run.ended]
        self._ended = np.array([run.ended for run in self._came])
        self._settled(ledger)
        for number, outcomes in ledger.attempts.items():
            for outcome, span in zip(outcomes, ledger.spans[number], strict=True):
                self._add(outcome, span)

    def _settled(self, ledger: Ledger) -> None:
        runtime, code = np.nan_to_num(ledger["runtime"]), ledger["fate_code"]
        for fate in Fate:
            part = "useful" if fate == Fate.ok else part_of(Outcome(0, 1, fate))
            self.known[part] += float(runtime[code == FATE_CODE[fate]].sum())
        untold = (code == FATE_CODE[Fate.failed]) & (runtime == 0) & (ledger["worker_code"] == 0)
        for i in np.flatnonzero(untold):  # no worker told of it: lost once too often
            self._spans.append(("failed", float(ledger["launch"][i]), float(ledger["end"][i])))

    def _add(self, outcome: Outcome, span: tuple[float, float]) -> None:
        part, job = part_of(outcome), self._job(span[1])
        if part == LOST and job and job.cause == "timeout" and abs(job.ended - span[1]) < _NEAR:
            part = CUT
        if outcome.runtime > 0:
            self.known[part] += outcome.runtime
        elif outcome.fate == Fate.lost:
            self._spans.append((part, *span))

    def _job(self, end: float) -> Held | None:
        """The one that ended nearest to this time."""
        return self._came[int(np.abs(self._ended - end).argmin())] if self._came else None

    def guessed(self) -> dict[str, float]:
        """Part -> seconds of the attempts whose run time nobody told."""
        out = dict.fromkeys(PARTS, 0.0)
        for part, launched, end in self._spans:
            job = self._job(end)
            begun = max(launched, job.connected) if job and job.connected <= end else launched
            out[part] += max(0.0, end - begun) if begun <= end else 0.0
        return out


def part_of(outcome: Outcome) -> str:
    """Where the time of an attempt goes that did not settle its member well."""
    if outcome.fate == Fate.ok:
        return "repeated"  # another one had settled it
    if outcome.fate in (Fate.stopped, Fate.pending):
        return "stopped"
    if outcome.fate == Fate.lost:
        return CUT if any(word in outcome.cause for word in _CUT_OFF) else LOST
    return "failed"


def runtimes(ledger: Ledger) -> FloatArray:
    """(m,) the last known run time of each member that has one, in launch order."""
    out = np.nan_to_num(ledger["runtime"])
    for number, outcomes in ledger.attempts.items():
        told = [o.runtime for o in outcomes if o.runtime > 0 and o.fate not in _UNFINISHED]
        if told and not out[number] > 0:
            out[number] = told[-1]
    return out[out > 0]
