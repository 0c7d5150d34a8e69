"""What a reconciler is told to see to, and what it says of a worker that is gone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

BLAMELESS = frozenset(
    {"cancelled", "timeout", "node_fail", "preempted", "requeued", "closed", "unknown"}
)
"""Ends of a job that say nothing about the members in it."""


class Death(NamedTuple):
    """Why a worker is gone: in words, and whether no member of it can have been to blame.

    ``cut`` when its job was at its end.
    """

    cause: str
    blameless: bool
    cut: bool = False


@dataclass
class Wish:
    """What a reconciler is to see to.

    Parameters
    ----------
    n_jobs : wanted; None: as many as the cluster wants, which somebody scaled
    slots, cores : members side by side in a job, its processor cores
    walltime : seconds of a job, NaN: not known
    limit : failures in a row after which it gives up, where no job is left
    needed : gives the seconds that the next member is expected to need
    load : gives the number of members on their way
    edit : makes the script to submit of the one that dask-jobqueue writes, and of the job's name
    alone : nobody but this driver may be at work in the directory
    """

    n_jobs: int | None = None
    slots: int = 1
    cores: int = 1
    walltime: float = math.nan
    limit: int = 6
    needed: Callable[[], float] = lambda: 0.0
    load: Callable[[], int] = lambda: 1
    edit: Callable[[str, str], str] = lambda script, title: script
    alone: bool = False
