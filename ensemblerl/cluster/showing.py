"""A job script to be looked at: the text that a campaign submits, with nothing started for it."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

from ensemblerl.cluster.certificates import FILES
from ensemblerl.cluster.jobqueue import cluster_classes
from ensemblerl.cluster.script import LOGS, cluster_arguments, job_text, named
from ensemblerl.cluster.settings import Settings

STORE = "/path/of/the/store/jobs"
DRIVER = "DRIVER:PORT"
KEYS = "keys-RUN"
"""In place of what is known when a campaign begins."""
CLUSTER_ONLY = ("n_workers", "scheduler_options", "shared_temp_directory", "silence_logs")
"""Arguments that dask-jobqueue's cluster keeps from its jobs."""


def shown(settings: Settings, shape: tuple[int, int, int]) -> str:
    """Text of a job script, by dask-jobqueue's own class for a job.

    Parameters
    ----------
    settings : of the jobs
    shape : members side by side in a job, processor cores of one, worker processes in a job
    """
    from distributed import Security

    slots, cores, processes = shape
    root = settings.directory or STORE
    files = {name: f"{root}/{KEYS}/{name}.pem" for name in FILES}
    make: Any = Security
    security = make(require_encryption=True, **files) if settings.encrypted else None
    protocol = "tls://" if settings.encrypted else None
    arguments = cluster_arguments(
        settings,
        slots=slots,
        member_cores=cores,
        processes=processes,
        directory=root,
        security=security,
    )
    for name in CLUSTER_ONLY:
        del arguments[name]
    title = f"{settings.name}-1"
    address, name = f"{protocol or 'tcp://'}{DRIVER}", f"{title}-r$(date +%s)"
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = f"{scratch}/{LOGS}"  # it is made for each job that is
        kind = cluster_classes()[settings.scheduler].job_cls
        arguments |= {"log_directory": logs, "job_name": title}
        job = kind(address, name=name, protocol=protocol, **arguments)
        text = str(job.job_script()).replace(logs, str(Path(root) / LOGS))
    return named(job_text(text, settings), title, settings.scheduler)
