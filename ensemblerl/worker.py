"""Runs a bundle of members where they land: on a worker, in a child process, or right here."""

from __future__ import annotations

from dataclasses import dataclass

from ensemblerl.protocols import Goal, Simulation
from ensemblerl.records import Answer, Members


@dataclass(frozen=True)
class Job:
    """All that a worker needs besides the members.

    Parameters
    ----------
    simulation, goal : the two that run on the worker
    segments : directory of the store's segment files, as seen from the worker
    driver : process id of the driver; a worker in another process ignores SIGINT
    """

    simulation: Simulation
    goal: Goal
    segments: str
    driver: int = 0


def run_bundle(job: Job, members: Members) -> Answer:
    """Run members one after the other; each result is on disk before the next one starts.

    Never raises for what a simulation does: that is an outcome.
    """
    raise NotImplementedError
