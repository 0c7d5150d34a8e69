"""From settings to a running dask-jobqueue cluster with its keys, its scheduler and no job yet."""

from __future__ import annotations

import math
import os
import warnings
import weakref
from pathlib import Path
from typing import Any

import dask

from ensemblerl.cluster.certificates import Certificates
from ensemblerl.cluster.jobqueue import JobQueue, cluster_classes
from ensemblerl.cluster.pool import Pool
from ensemblerl.cluster.queues.base import queue_of, require
from ensemblerl.cluster.quiet import quiet
from ensemblerl.cluster.reachable import check_dashboard, check_interface, unreachable
from ensemblerl.cluster.script import LOGS, OUTSIDE, cluster_arguments, job_text, named
from ensemblerl.cluster.settings import Settings
from ensemblerl.cluster.wish import Wish

SETTINGS = {
    # Bundles wait at the scheduler: a worker that dies, or whose time is over, takes none along.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.active-memory-manager.start": False,
    # Silence is no death: a function may hold the GIL for hours. The queue says which nodes failed.
    "distributed.scheduler.worker-ttl": None,
}


def opened(
    settings: Settings,
    shape: tuple[int, int, int],
    directory: Path,
    *,
    alone: bool,
    commands: tuple[str, ...] | None = None,
) -> Pool:
    """Start scheduler and keys; jobs are submitted when a campaign begins.

    Parameters
    ----------
    settings : of the jobs
    shape : members side by side in a job, processor cores of one, worker processes in a job
    directory : for scripts, logs and keys, on a disk that the nodes see
    alone : nobody else can be at work in the directory
    commands : that must be here; None: those of the queue

    Raises
    ------
    NoQueue
        where one of the commands is not here
    ValueError
        for an interface, a host, a directory or a dashboard that cannot be had here
    """
    require(*(queue_of(settings.scheduler).commands if commands is None else commands))
    check_interface(settings)
    check_dashboard(settings)
    slots = shape[0]
    keys = _keys(settings, directory, alone)
    silence = quiet()
    silence.__enter__()

    def clear() -> None:
        if keys is not None:
            keys.remove()
        silence.__exit__(None, None, None)

    try:
        cluster = _cluster(settings, shape, directory, keys)
    except BaseException:
        clear()
        raise
    wish = Wish(
        n_jobs=settings.n_jobs,
        slots=slots,
        cores=settings.cores,
        walltime=math.nan if settings.walltime_s is None else settings.walltime_s,
        limit=settings.retry_limit,
        edit=lambda script, title: named(job_text(script, settings), title, settings.scheduler),
        alone=alone,
    )
    return Pool(JobQueue(cluster), directory, wish, owned=True, clear=clear)


def _cluster(
    settings: Settings, shape: tuple[int, int, int], directory: Path, keys: Certificates | None
) -> Any:
    slots, cores, processes = shape
    kinds = cluster_classes()
    arguments = cluster_arguments(
        settings,
        slots=slots,
        member_cores=cores,
        processes=processes,
        directory=directory,
        security=None if keys is None else keys.worker,
    )
    with dask.config.set(SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a port that is taken, and the like
        try:
            return kinds[settings.scheduler](**arguments)
        except (RuntimeError, ValueError, OSError) as error:
            raise unreachable(settings, error) from error


def _keys(settings: Settings, directory: Path, alone: bool) -> Certificates | None:
    try:
        _private(directory)
        (directory / LOGS).mkdir(exist_ok=True)
        return Certificates(directory, alone=alone) if settings.encrypted else None
    except OSError as error:
        raise ValueError(
            "directory: wanted one for job scripts, logs and keys, got "
            f"{str(directory)!r}, which is not to be used: {error.strerror or error}; give "
            "directory= on a disk that all nodes share and where you may write"
        ) from error


def _private(directory: Path) -> None:
    """Job scripts name addresses, and keys lie beside them: nobody else's business."""
    if not directory.exists():
        directory.mkdir(parents=True)
        os.chmod(directory, 0o700)  # noqa: PTH101


_TAKEN: weakref.WeakKeyDictionary[Any, Pool] = weakref.WeakKeyDictionary()
"""Clusters that somebody brought: there is one that looks after each, for all campaigns on it."""


def taken(cluster: Any) -> Pool:
    """A dask-jobqueue cluster that somebody brought, to be looked after; it stays theirs."""
    known = _TAKEN.get(cluster)
    if known is not None and not known.closed:
        return known
    jobqueue = JobQueue(cluster)
    directory = Path(jobqueue.logs or Path.cwd() / OUTSIDE)
    wish = Wish(n_jobs=None, slots=jobqueue.cores, cores=jobqueue.cores)
    pool = _TAKEN[cluster] = Pool(jobqueue, directory, wish, owned=False)
    return pool


def given(pool: Pool) -> None:
    """The last campaign on a cluster that somebody brought is over."""
    if not pool.users:
        pool.close()
        _TAKEN.pop(pool.cluster, None)
