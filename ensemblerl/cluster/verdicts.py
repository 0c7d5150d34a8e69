"""What a probe reported, judged: one function for each thing that can be wrong on a node."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from ensemblerl.cluster.allocation import LEAST, MOST, SHARE
from ensemblerl.cluster.finding import BAD, GOOD, NOTE, WARN, Finding
from ensemblerl.cluster.probe import THREADS
from ensemblerl.cluster.settings import Settings
from ensemblerl.cluster.walltime import clock

FEW, MANY = 1_000, 20_000
"""Files that still fit on the disk: too few, and enough for a campaign's scripts and logs."""
NARROW, WIDE = 10**8, 10**9
"""The same in bytes."""
SKEW = 5.0
"""Seconds by which two clocks may seem to differ because a report takes its time."""
SLACK = 120.0
"""Seconds of a job that may be gone when the probe looks, and Slurm's rounding."""


class Asked(NamedTuple):
    """What the cluster is to be used for.

    Parameters
    ----------
    settings : of the jobs
    member_cores : processor cores of a member
    runtime : seconds that a member takes, as far as that is known
    directory : for job scripts, logs and keys
    store : where members' results go, where that is elsewhere
    """

    settings: Settings
    member_cores: int
    runtime: float | None
    directory: str
    store: str


def unfit(settings: Settings, member_cores: int) -> Finding | None:
    """Members that have no room in a job; None where they have."""
    try:
        settings.slots(member_cores)
    except ValueError as error:
        return Finding(BAD, "cores", str(error).removeprefix("cores: "))
    return None


def same_environment(report: dict[str, Any], ours: dict[str, Any]) -> Iterator[Finding]:
    """Python and the packages that members travel through."""
    differ, broken, worse = [], [], False
    if report["python"] != ours["python"]:
        differ.append(f"Python {report['python']} there, {ours['python']} here")
        worse = report["python"].split(".")[:2] != ours["python"].split(".")[:2]
    for name, mine in ours["versions"].items():
        theirs = report["versions"].get(name, "missing")
        if "Error" in theirs:
            broken.append(f"{name} cannot be imported there ({theirs})")
        elif theirs != mine:
            differ.append(f"{name} {theirs} there, {mine} here")
            worse = worse or name == "ensemblerl"
    if broken or differ:
        remedy = "give python= of the same environment as here, or prologue= that loads it"
        mark = BAD if broken or worse else WARN
        found = f"{'; '.join(broken + differ)} ({report['executable']})"
        yield Finding(mark, "environment", found, remedy)
    else:
        versions = ", ".join(f"{name} {v}" for name, v in report["versions"].items())
        yield Finding(GOOD, "environment", f"the same: Python {report['python']}, {versions}")
    if report["path"] != ours["path"]:
        found = f"ensemblerl comes from {report['path']} there, {ours['path']} here"
        yield Finding(NOTE, "environment", found)


def directory(report: dict[str, Any], shared: bool, asked: Asked) -> Iterator[Finding]:
    """Whether the node sees our directory and the store, and can write there."""
    shares = "on a disk that all nodes share and where you may write"
    if report["unwritten"]:
        found = f"{report['node']} cannot write in {asked.directory}: {report['unwritten']}"
        yield Finding(BAD, "directory", found, f"give directory= {shares}")
    elif not shared:
        found = f"{asked.directory} of {report['node']} is another disk than here"
        yield Finding(BAD, "directory", found, f"give directory= {shares}")
    else:
        yield Finding(
            GOOD, "directory", f"{report['node']} sees {asked.directory} and writes there"
        )
    if not asked.store:
        return
    if report["marked"]:
        found = f"{report['node']} cannot use {asked.store}: {report['marked']}"
        remedy = f"fine for small results, which travel through here; else give store= {shares}"
        yield Finding(WARN, "store", found, remedy)
    else:
        yield Finding(GOOD, "store", f"{report['node']} sees {asked.store} and writes there")


def processors(report: dict[str, Any], asked: Asked) -> Iterator[Finding]:
    """What the job may really use, and what the site tells numerical libraries."""
    wanted, has = asked.settings.cores // asked.settings.nodes, report["affinity"]
    told = report["variables"].get("SLURM_CPUS_ON_NODE") or report["variables"].get("NCPUS") or ""
    queue = f", {told} by the queue's word" if told else ""
    found = f"{has} of {report['processors']} processors of {report['node']}{queue}"
    least = min(has, int(told)) if told.isdigit() else has
    if least < wanted:
        found = f"{found}; cores= asks for {wanted} there"
        remedy = "ask for fewer, or look which of options= and queue= takes them away"
        yield Finding(WARN, "processors", found, remedy)
    else:
        free = told.isdigit() and has > int(told)
        yield Finding(GOOD, "processors", found + "; the job is not kept to its own" * free)
    set_ = {name: report["variables"][name] for name in THREADS if name in report["variables"]}
    many = [n for n, v in set_.items() if v.isdigit() and int(v) > asked.member_cores]
    found = ", ".join(f"{name}={value}" for name, value in set_.items())
    if many:
        remedy = f'give prologue=["export {many[0]}={asked.member_cores}"]'
        found = f"{found} in the job, where a member has {asked.member_cores} of the cores"
        yield Finding(WARN, "threads", found, remedy)
    else:
        yield Finding(
            GOOD, "threads", found or "set by nobody: functions get one each, programs their cores"
        )


def gpus(report: dict[str, Any], asked: Asked) -> Iterator[Finding]:
    """Whether the job was given what it asked for."""
    wanted = asked.settings.gpus // asked.settings.nodes
    if not wanted:
        return
    told = report["variables"].get("CUDA_VISIBLE_DEVICES")
    n = report["devices"] if told is None else len([d for d in told.split(",") if d])
    found = f"{n} of {wanted} on {report['node']}"
    if n < wanted:
        remedy = "look in your site's pages for the directive that asks for GPUs: options=, queue="
        yield Finding(BAD, "GPUs", found, remedy)
    elif told is None:
        remedy = "members side by side would all take the first: members_per_job=1 keeps it simple"
        yield Finding(WARN, "GPUs", f"{found}, but CUDA_VISIBLE_DEVICES is not set", remedy)
    else:
        yield Finding(GOOD, "GPUs", f"{found} (CUDA_VISIBLE_DEVICES={told})")


def walltime(report: dict[str, Any], queue_left: float | None, asked: Asked) -> Iterator[Finding]:
    """How long a member may run there; the shorter of what job and queue say counts."""
    told = [left for left in (report["left"], queue_left) if left is not None]
    needed = [t for t in (asked.runtime, asked.settings.max_runtime) if t is not None]
    if not told:
        remedy = "give walltime=: without it members are begun in jobs that will end before them"
        yield Finding(WARN, "walltime", "neither the job nor the queue says when it ends", remedy)
        return
    left, wanted = min(told), asked.settings.walltime_s
    most = left - min(MOST, max(LEAST, SHARE * left))
    found = f"{clock(left)} left for the job as it began"
    if needed and max(needed) > most:
        found = f"{found}: a member of {clock(max(needed))} would be cut off"
        remedy = f"give walltime= of more than {clock(max(needed) + left - most)}"
        yield Finding(BAD, "walltime", found, remedy)
    elif wanted is not None and left < wanted - SLACK:
        found = f"{found}, asked for were {clock(wanted)}: the queue cuts it"
        yield Finding(WARN, "walltime", found, f'give walltime="{clock(left)}", or another queue=')
    else:
        n = int(most // max(needed)) if needed else 0
        yield Finding(GOOD, "walltime", found + f": {n} members one after the other" * (n > 0))


def clocks(report: dict[str, Any], now: float) -> Iterator[Finding]:
    """Whose clock is wrong does not matter, but it surprises in logs."""
    ahead = report["now"] - now
    if abs(ahead) <= SKEW:
        yield Finding(GOOD, "clock", f"that of {report['node']} agrees with the one here")
        return
    way = "ahead of" if ahead > 0 else "behind"
    found = f"that of {report['node']} is {clock(abs(ahead))} {way} the one here"
    yield Finding(NOTE, "clock", f"{found}: harmless, nothing is computed from it")


def room(report: dict[str, Any], asked: Asked) -> Iterator[Finding]:
    """What still fits on the disk and in the node's place for temporary files."""
    files, size = report["room"]["files"], report["room"]["bytes"]
    counted = "an unknown number of files" if files < 0 else f"{files} files"
    found = f"{counted} and {_gb(size)} fit in {asked.directory}; your own quota may be less"
    low, high = _short(files, size, FEW, NARROW), _short(files, size, MANY, WIDE)
    remedy = "make room, or give directory= and store= on another disk" if high else ""
    yield Finding(BAD if low else WARN if high else GOOD, "files", found, remedy)
    there, wanted = report["temporary"], report["variables"].get("TMPDIR")
    found = f"{there['path']} on {report['node']}, {_gb(there['bytes'])} free"
    if wanted and os.path.normpath(wanted) != os.path.normpath(there["path"]):
        remedy = f'give prologue=["mkdir -p {wanted}"], or "export TMPDIR=..." in it'
        yield Finding(WARN, "TMPDIR", f"{wanted} cannot be used there: {found}", remedy)
    elif 0 <= there["bytes"] < WIDE:
        remedy = 'give prologue=["export TMPDIR=..."] with a larger place'
        yield Finding(WARN, "TMPDIR", found, remedy)
    else:
        yield Finding(GOOD, "TMPDIR", found)


def _short(files: int, size: int, least_files: int, least_size: int) -> bool:
    return 0 <= files < least_files or 0 <= size < least_size


def _gb(size: int) -> str:
    return "an unknown amount of" if size < 0 else f"{size / 1e9:.1f} GB"
