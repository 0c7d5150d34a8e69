"""What members cost: time, memory, threads, room."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ensemblerl.cli.checking import Examined, settings_of
from ensemblerl.cli.finding import BAD, GOOD, NOTE, WARN, Finding
from ensemblerl.cli.trial import Trial
from ensemblerl.cli.units import amount, seconds
from ensemblerl.cluster.verdicts import unfit
from ensemblerl.loop.bundling import TARGET, Bundling
from ensemblerl.progress import duration
from ensemblerl.records import Fate

SHORT = 0.05
"""Seconds of a member below which what a Dask task costs shows."""
TASK = 0.003
"""Seconds that a Dask task costs, one after the other: 2 to 4 ms, see ``loop/bundling.py``."""
MANY = 1000
"""Members from which on it is worth a word."""
TIGHT = 0.5
"""Share of the timeout that the one member tried may take before there is a word about it."""
FULL = 0.8
"""The same of the memory."""
SHOWN = 8
"""Variables listed."""


def on_worker(examined: Examined, trial: Trial) -> Iterator[Finding]:
    """What follows from how it went on a worker."""
    if trial.ok:
        yield _wall_clock(examined, trial)
        yield from _bundles(examined, trial)
    yield from memory(examined, trial)
    yield from _threads(examined, trial)


def alone(examined: Examined, trial: Trial) -> Iterator[Finding]:
    """How long it all takes, when no worker was tried; of a queue's jobs it is known how many."""
    if not trial.ok:
        return
    given, settings = examined.given, settings_of(examined.given)
    n, cores = given.n_members, max(1, given.simulation.cores)
    if settings is None or unfit(settings, cores) is not None:
        found = f"{_about(trial.runtime * n)} for {n} members one by one: divide by the workers"
        yield Finding(NOTE, "wall-clock", found)
        return
    slots = settings.slots(cores)
    at_once = min(settings.n_jobs * slots, given.n_pending or n, n)
    expected = _about(trial.runtime * math.ceil(n / at_once))
    found = (
        f"{expected} for {n} members, {at_once} at a time in {settings.n_jobs} jobs of {slots}, "
        "once these run"
    )
    yield Finding(NOTE, "wall-clock", found)


def output(examined: Examined, trial: Trial) -> Iterator[Finding]:
    """What a member leaves."""
    if not trial.ok:
        return
    n = examined.given.n_members
    total = n * trial.member_bytes
    yield Finding(
        GOOD, "output", f"{amount(trial.member_bytes)} a member, {amount(total)} for {n} members"
    )
    names = list(trial.dims)
    shown = "; ".join(f"{name}: {trial.dims[name]}" for name in names[:SHOWN])
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    yield Finding(NOTE, "variables", shown + more)


def _wall_clock(examined: Examined, trial: Trial) -> Finding:
    given, workers = examined.given, trial.n_workers
    at_once = min(workers, given.n_pending or workers)
    running = trial.runtime * math.ceil(given.n_members / at_once)
    tasks = 0.0
    if not given.executor.in_process:
        tasks = TASK * math.ceil(given.n_members / _bundle(examined, trial)[0])
    found = (
        f"{_about(running + tasks)} for {given.n_members} members, {at_once} at a time, if all "
        "take as long as this one"
    )
    if tasks > 0.1 * running:
        found += f"; {seconds(TASK)} for each task are in it"
    if at_once < workers:
        remedy = (
            f"{workers - at_once} workers would have nothing to do: n_pending={workers} or more"
        )
        return Finding(WARN, "wall-clock", found, remedy)
    return Finding(GOOD, "wall-clock", found)


def _about(expected: float) -> str:
    return "under 1 s" if expected < 1.0 else f"about {duration(expected)}"


def _bundles(examined: Examined, trial: Trial) -> Iterator[Finding]:
    """Short members on Dask: do they travel together?"""
    given, workers = examined.given, trial.n_workers
    if given.executor.in_process or trial.runtime >= SHORT or given.n_members < MANY:
        return
    size, pending = _bundle(examined, trial)
    found = f"{size} to a task, with n_pending = {pending}"
    if size * trial.runtime >= SHORT:
        yield Finding(GOOD, "bundles", found)
        return
    wanted = max(2, int(TARGET / max(trial.runtime, TARGET / 100)))
    how = f"n_pending={2 * workers * wanted}" if given.bundle == "auto" else f"bundle={wanted}"
    remedy = f"a task costs 2 to 4 ms beside it: {how} lets {wanted} travel together"
    yield Finding(WARN, "bundles", found, remedy)


def _bundle(examined: Examined, trial: Trial) -> tuple[int, int]:
    """(members to a task, members pending) as the campaign would choose them."""
    given, workers = examined.given, trial.n_workers
    pending = given.n_pending or -(-11 * workers // 10)
    bundling = Bundling(given.bundle)
    bundling.runtime = trial.runtime
    return bundling.size(pending, workers), pending


def memory(examined: Examined, trial: Trial) -> Iterator[Finding]:
    """What it holds while it runs, its limit, and whether all of them fit."""
    notes = trial.notes
    if not notes:
        return
    peak, total = notes["peak"], notes["total"]
    limit = getattr(examined.given.simulation, "memory", None)
    if "program" in notes:
        yield _limited(notes["program"], limit, trial)
    found = f"peak {amount(peak)}, {amount(max(0, peak - notes['before']))} more than before"
    found += " the member (sampled)"
    if "program" in notes:
        found = f"with its worker and supervisor {amount(peak)}"
    all_at_once = trial.n_workers * peak
    if all_at_once <= total:
        yield Finding(GOOD, "memory", f"{found}; {notes['host']} has {amount(total)}")
        return
    most = max(1, int(total / peak))
    yield Finding(
        WARN,
        "memory",
        f"{found}; {trial.n_workers} at once are {amount(all_at_once)}, {notes['host']} has "
        f"{amount(total)}",
        f"run {most} at a time there: fewer workers, or cores= to make room",
    )


def _limited(held: int, limit: int | None, trial: Trial) -> Finding:
    """What all processes of a program hold, beside the limit of that."""
    limits = "" if limit is None else f", memory={amount(limit)}"
    if trial.fate == Fate.out_of_memory:
        return Finding(BAD, "memory", f"{amount(held)} when it was ended{limits}", "give it more")
    if not held:
        return Finding(NOTE, "memory", f"the program ended before it was looked at{limits}")
    found = f"{amount(held)} of the program (sampled){limits}"
    if limit is not None and held > limit:
        return Finding(BAD, "memory", found, "it would be ended for that: memory= wants more")
    if limit is not None and held > FULL * limit:
        return Finding(WARN, "memory", found, "other points may hold more: memory= wants some room")
    return Finding(GOOD, "memory", found)


def _threads(examined: Examined, trial: Trial) -> Iterator[Finding]:
    notes, cores = trial.notes, examined.given.simulation.cores
    if not notes:
        return
    threads, cpus = str(notes["threads"]), notes["cpus"]
    found = f"OMP_NUM_THREADS={threads or '(not set)'}, cores={cores}, {cpus} processors there"
    set_it = f"set OMP_NUM_THREADS={cores} where the workers start"
    if not threads and cpus > cores and trial.n_workers > 1:
        remedy = f"numerical libraries take all {cpus} processors each: {set_it}"
        yield Finding(WARN, "threads", found, remedy)
    elif threads.isdigit() and int(threads) > cores:
        remedy = f"it takes more than it was given: {set_it}, or cores={threads}"
        yield Finding(WARN, "threads", found, remedy)
    elif threads.isdigit() and int(threads) < cores:
        remedy = f"libraries that count on OpenMP use {threads} of {cores} cores: {set_it}"
        yield Finding(WARN, "threads", found, remedy)
    else:
        yield Finding(GOOD, "threads", found)


def timeout(examined: Examined, trial: Trial) -> Finding:
    """Whether the limit leaves room."""
    limit = examined.given.simulation.timeout
    if limit is None:
        return Finding(NOTE, "timeout", "none: a member that hangs keeps its worker for good")
    found = f"{seconds(limit)}, the member took {seconds(trial.runtime)}"
    if trial.fate == Fate.timeout:
        return Finding(BAD, "timeout", found, "give it more: timeout=")
    if trial.runtime > TIGHT * limit:
        longer = "other points may take longer: give it some times what one member takes"
        return Finding(WARN, "timeout", found, longer)
    return Finding(GOOD, "timeout", found)
