"""Rows of the table of faults in which a driver is killed, or is not alone."""

from __future__ import annotations

import time
from typing import Any

import fault_driver
from fault_log import EVERY
from fault_rig import Found, Rig
from fault_tools import wait_for
from fault_traces import NoFault, cancelled_waiting, losses

import ensemblerl as erl

WHOLE = {"n_jobs": 4, "cores": 8, "members_per_job": 2}
"""A job takes a whole node, of which there are three: one has to wait."""


def killed_driver(rig: Rig) -> Found:
    """kill -9 of the driver while members run; the same script again."""
    given = {"n": 100, "seconds": (0.5, 5.0), "long": True, "cluster": WHOLE, "there": 3}
    running, told = killed_and_called_again(rig, given, begun=30)
    n = len(told["adopted"])
    remark = f"{len(running)} ran when it was killed, {n} adopted running, waiting jobs cancelled"
    assert n > 0, "no member was adopted while it ran"
    return rig.count(100, remark)


def killed_driver_epilog(rig: Rig) -> Found:
    """The same where the queue kills every process that carries the id of an ended job."""
    return killed_driver(rig)


def two_campaigns(rig: Rig) -> Found:
    """Two campaigns, one directory=: one is killed and called again, the other goes on."""
    jobs = rig.directory / "common"
    live = Rig(rig.slurm, rig.directory / "live", rig.scheduler)
    space = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(2.0, 6.0))
    cluster = live.cluster(n_jobs=2, directory=str(jobs))
    handle = live.launch(cluster, 150, space=space)
    rig.handles.append(handle)
    live.after(handle, 4)
    wait_for(lambda: len(live.workers(cluster)) == 2, "both workers", 60)
    before = {job.id for job in cluster._pool.reconciler.jobs()}
    keys = set(jobs.glob("keys-*/*"))
    assert keys, "there are no keys"
    own = {**WHOLE, "directory": str(jobs)}
    given = {"n": 100, "seconds": (0.5, 3.0), "long": True, "cluster": own, "there": 2}
    _, told = killed_and_called_again(rig, given, begun=10)
    assert live.going(handle), "the other campaign was too short to tell"
    assert {job.id for job in cluster._pool.reconciler.jobs()} == before, "it lost jobs"
    states = {rig.slurm.job(job)["JobState"] for job in before}
    assert states == {"RUNNING"}, states
    assert set(jobs.glob("keys-*/*")) == keys, "keys are missing, or left behind"
    rig.recovery = told["ready"]
    handle.wait(300)
    assert not losses(handle), losses(handle)
    one, two = rig.count(100), live.count(150)
    return Found(
        one.members + two.members,
        one.acknowledged + two.acknowledged,
        (one.lost or 0) + (two.lost or 0),
        one.again + two.again,
        rig.recovery,
        one.left + rig.left(0.0, jobs),
        f"100 of one, 150 of the other, whose jobs {', '.join(sorted(before))} ran on",
    )


def killed_and_called_again(
    rig: Rig, given: dict[str, Any], begun: int
) -> tuple[list[tuple[int, int, int]], dict[str, Any]]:
    """Kill a driver that has jobs running and a job waiting, and call the same script again.

    Parameters
    ----------
    given : see `fault_driver`
    begun : members that have begun when it is killed

    Returns
    -------
    tuple
        members that ran when it was killed, and what the second driver said
    """
    first = fault_driver.start(rig, **given)

    def long_begun() -> bool:
        newest = rig.newest()
        return len(rig.starts()) > begun and newest is not None and newest[0] % EVERY == 0

    try:
        wait_for(lambda: first.poll() is not None or long_begun(), "a long member", 120)
        assert first.poll() is None, (rig.directory / "driver.err").read_text()[-3000:]
    finally:
        # so that what waits is not let in where a job of the killed driver ends
        rig.slurm.scontrol("update", "partitionname=main", "state=down")
        first.kill()
        first.communicate()
    running = rig.running()
    waiting = [job.id for job in rig.slurm.squeue() if job.state == "PENDING"]
    if not (running and waiting):
        raise NoFault(f"{len(running)} members ran and {len(waiting)} jobs waited at the kill")
    time.sleep(4)  # workers notice, and leave; what they started goes on
    begun_by_first = rig.starts()
    second = fault_driver.start(rig, **given)
    try:
        there = lambda: {job.id for job in rig.slurm.squeue()} & set(waiting)  # noqa: E731
        wait_for(lambda: second.poll() is not None or not there(), "an end of what waited", 60)
    finally:
        rig.slurm.scontrol("update", "partitionname=main", "state=up")
    told = fault_driver.report(rig, second)
    for job in waiting:
        cancelled_waiting(rig.slurm, job)
    adopted = {number for number, _ in told["adopted"]}
    assert adopted <= begun_by_first.keys(), adopted - begun_by_first.keys()
    twice = {number for number in adopted if rig.starts()[number] != 1}
    assert not twice, f"adopted, and started again: {twice}"
    rig.recovery = told["ready"]
    return running, told
