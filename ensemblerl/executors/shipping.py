"""A job on its way to other processes: pickled once, unpickled once in each of them."""

from __future__ import annotations

import hashlib
import pickle
from typing import NamedTuple

from ensemblerl.executors.guard import leave_with
from ensemblerl.protocols import Job
from ensemblerl.records import Answer, Members
from ensemblerl.worker import run_bundle

REMEMBERED = 4


class Parcel(NamedTuple):
    """A pickled job and what tells it from others."""

    digest: str
    content: bytes


def packed(job: Job) -> Parcel:
    """The job as bytes.

    Raises
    ------
    TypeError
        naming what cannot be pickled, and what would work
    """
    import cloudpickle

    for name in ("simulation", "goal"):
        part = getattr(job, name)
        try:
            cloudpickle.dumps(part)
        except Exception as error:
            raise TypeError(
                f"{name}: wanted one that can be pickled for other processes, got {part!r}: "
                f"{error}; threads (ThreadPoolExecutor) or Serial() run it as it is"
            ) from error
    content = cloudpickle.dumps(job)
    return Parcel(hashlib.sha256(content).hexdigest(), content)


_jobs: dict[str, Job] = {}


def unpacked(parcel: Parcel) -> Job:
    """The job; the same object for the same parcel in one process."""
    job = _jobs.get(parcel.digest)
    if job is None:
        job = pickle.loads(parcel.content)
        while len(_jobs) >= REMEMBERED:
            _jobs.pop(next(iter(_jobs)), None)
        job = _jobs.setdefault(parcel.digest, job)
    return job


def run_parcel(parcel: Parcel, bundle: Members) -> Answer:
    """`run_bundle` in another process, which ends with its driver."""
    job = unpacked(parcel)
    leave_with(job.driver)
    return run_bundle(job, bundle)
