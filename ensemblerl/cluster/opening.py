"""From settings to a running dask-jobqueue cluster with its keys, its scheduler and no job yet."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

import dask

from ensemblerl.cluster.certificates import Certificates
from ensemblerl.cluster.jobqueue import JobQueue, cluster_classes
from ensemblerl.cluster.pool import Pool
from ensemblerl.cluster.quiet import quiet
from ensemblerl.cluster.script import cluster_arguments, job_text, named
from ensemblerl.cluster.settings import Settings
from ensemblerl.cluster.wish import Wish

SETTINGS = {
    # Bundles wait at the scheduler: a worker that dies, or whose time is over, takes none along.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.active-memory-manager.start": False,
    # A worker comes again by itself, or is replaced; nobody is to be called lost any sooner.
    "distributed.scheduler.worker-ttl": "5 minutes",
}


def opened(
    settings: Settings, shape: tuple[int, int, int], directory: Path, *, alone: bool
) -> Pool:
    """Start scheduler and keys; jobs are submitted when a campaign begins.

    Parameters
    ----------
    settings : of the jobs
    shape : members side by side in a job, processor cores of one, worker processes in a job
    directory : for scripts, logs and keys, on a disk that the nodes see
    alone : nobody else can be at work in the directory
    """
    slots = shape[0]
    _private(directory)
    keys = Certificates(directory, alone=alone) if settings.encrypted else None
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
    return Pool(cluster, directory, wish, owned=True, clear=clear)


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
        return kinds[settings.scheduler](**arguments)


def _private(directory: Path) -> None:
    """Job scripts name addresses, and keys lie beside them: nobody else's business."""
    if not directory.exists():
        directory.mkdir(parents=True)
        os.chmod(directory, 0o700)  # noqa: PTH101


def written(settings: Settings, slots: int, cores: int, program: bool, directory: Path) -> str:
    """Text of a job script as it would be submitted."""
    shape = (slots, cores, 1 if program else slots)
    pool = opened(settings, shape, directory, alone=True)
    try:
        name = pool.jobqueue.add()
        text = pool.jobqueue.script(name, f"{settings.name}-0")
        return job_text(text, settings)
    finally:
        pool.jobqueue.drop(name)
        pool.close()


def taken(cluster: Any) -> Pool:
    """A dask-jobqueue cluster that somebody brought, to be looked after; it stays theirs."""
    queue = JobQueue(cluster)
    options = cluster.new_spec["options"]
    directory = Path(options.get("log_directory") or Path.cwd() / "ensemblerl-jobs")
    job = queue.make("example")
    slots = int(job.worker_cores)
    wish = Wish(n_jobs=None, slots=slots, cores=slots)
    return Pool(cluster, directory, wish, owned=False)
