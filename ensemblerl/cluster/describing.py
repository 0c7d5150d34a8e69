"""A cluster in a few lines: what is asked for, and how its jobs are."""

from __future__ import annotations

from ensemblerl.cluster.reconciler import Reconciler
from ensemblerl.cluster.settings import Settings


def number(n: int, what: str) -> str:
    """A count in words.

    Examples
    --------
    >>> number(1, "job"), number(3, "job")
    ('1 job', '3 jobs')
    """
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def asked(settings: Settings) -> str:
    """The cluster in a few words."""
    return f"{number(settings.n_jobs, 'job')} of {settings.scheduler}"


def description(settings: Settings, reconciler: Reconciler | None, link: str = "") -> str:
    """What a person wants to know before, and while, jobs are in the queue.

    Parameters
    ----------
    settings : of the jobs
    reconciler : looks after them; None while nothing is queued
    link : to Dask's dashboard
    """
    s = settings
    each = [number(s.cores, "core"), f"{s.memory / 1e9:.3g} GB"]
    each += [number(s.gpus, "GPU")] if s.gpus else []
    each += [f"over {s.nodes} nodes"] if s.nodes > 1 else []
    each += [s.walltime or "the queue's own walltime"]
    where = ", ".join(
        f"{name} {value}" for name, value in (("queue", s.queue), ("account", s.account)) if value
    )
    side = str(s.slots(1)) + ("" if s.members_per_job or s.nodes > 1 else " of one core")
    lines = [
        asked(s) + (f", {where}" if where else ""),
        f"  each: {', '.join(each)}; members side by side: {side}",
        f"  connections: {'encrypted' if s.encrypted else 'NOT encrypted'}; "
        + ("no dashboard" if not s.dashboard else f"dashboard {link or 'when it runs'}"),
    ]
    if reconciler is None:
        return "\n".join([*lines, "  nothing is in the queue now"])
    for job in reconciler.jobs():
        words = [job.id or "-", job.state, job.reason if job.state == "waiting" else job.node]
        lines.append("  " + " ".join(filter(None, words)))
    return "\n".join([*lines, f"  {reconciler.sentence or 'all jobs are up'}"])
