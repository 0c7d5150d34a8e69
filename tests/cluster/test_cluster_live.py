"""Clusters as people use them, on a real Slurm: theirs, ours, several campaigns on one."""

import asyncio
import time
import warnings
from collections import Counter

import pytest
from fault_rig import Rig
from fault_tools import dask, job_of, kill, wait_for

import ensemblerl as erl
from ensemblerl.cluster.gathering import Gathering
from ensemblerl.store.index import SegmentIndex

SHORT = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(0.1, 0.4))


def brought(tmp_path):
    """A cluster as somebody makes it without us, with two jobs on their way."""
    from ensemblerl.cluster.jobqueue import cluster_classes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = cluster_classes()["slurm"](
            cores=2, processes=1, memory="1GB", log_directory=str(tmp_path / "logs")
        )
    cluster.scale(jobs=2)
    return cluster


@pytest.mark.timeout(180)
def test_a_cluster_that_somebody_brought_is_looked_after_and_stays_theirs(slurm, tmp_path):
    rig, cluster = Rig(slurm, tmp_path / "row"), brought(tmp_path)
    try:
        handle = rig.launch(cluster, 120)
        rig.after(handle, 6)
        job = job_of(rig.running()[0][2])
        slurm.run("scancel", job)
        wait_for(lambda: handle.done or len(cluster.scheduler.workers) < 2, "its end", 30)
        wait_for(lambda: handle.done or len(cluster.scheduler.workers) == 2, "another", 60)
        assert not handle.done, "the campaign was too short to tell"
        ds = handle.wait(120)
        assert (ds.fate == "ok").all()
        assert rig.again() == 0
        living = {j.id for j in slurm.squeue() if j.state == "RUNNING"}
        assert len(living) == 2
        assert job not in living
        cluster.scale(jobs=1)
        wait_for(lambda: len(slurm.squeue()) == 1, "one job less", 30)
    finally:
        cluster.close()
    assert rig.left() == 0


@pytest.mark.timeout(180)
def test_members_that_are_done_when_their_job_is_cancelled_are_not_run_again(slurm, tmp_path):
    """A job that somebody brought ends without grace, just after one of its members has."""
    rig, cluster = Rig(slurm, tmp_path / "row"), brought(tmp_path)
    try:
        handle = rig.launch(cluster, 60, space=SHORT)
        rig.after(handle, 4)
        for _ in range(3):
            slurm.run("scancel", rig.job_of_the_next_end())
            wait_for(lambda: len(cluster.scheduler.workers) < 2, "its end", 30)
            wait_for(lambda: len(cluster.scheduler.workers) == 2, "another", 60)
        assert not handle.done, "the campaign was too short to tell"
        assert (handle.wait(120).fate == "ok").all()
        index = SegmentIndex(rig.store / "segments")
        records = Counter((o.number, o.attempt) for o, _ in index.poll())
        assert not [attempt for attempt, n in records.items() if n > 1]
    finally:
        cluster.close()
    assert rig.left() == 0


@pytest.mark.timeout(180)
def test_campaigns_share_the_jobs_of_an_open_cluster(slurm, tmp_path):
    rig, again = Rig(slurm, tmp_path / "one"), Rig(slurm, tmp_path / "two")
    with rig.cluster(n_jobs=1) as cluster:
        one = rig.launch(cluster, 8, space=SHORT)
        assert (one.wait(90).fate == "ok").all()
        jobs = [j.id for j in slurm.squeue()]
        two = again.launch(cluster, 8, space=SHORT)
        assert (two.wait(90).fate == "ok").all()
        assert [j.id for j in slurm.squeue()] == jobs
    assert rig.left() == 0


@pytest.mark.timeout(120)
def test_functions_run_each_in_a_process_of_their_own(slurm, tmp_path):
    def who(x: float) -> dict[str, float]:
        import os

        time.sleep(0.3)
        return {"value": x, "pid": float(os.getpid())}

    rig = Rig(slurm, tmp_path / "row")
    space = erl.Space(x=erl.Real(0.0, 1.0))
    cluster = rig.cluster(n_jobs=1, cores=3, members_per_job=3)
    handle = rig.launch(cluster, 24, who, space, erl.Minimize("value"))
    ds = handle.wait(90)
    assert (ds.fate == "ok").all()
    assert len(set(ds.pid.values.tolist())) == 3
    assert rig.left() == 0


@pytest.mark.timeout(180)
def test_a_bundle_whose_answer_goes_with_its_worker_is_not_run_again(slurm, tmp_path, monkeypatch):
    settle = Gathering._settle

    async def late(gathering, batch):  # so that workers are killed in between
        await asyncio.sleep(0.6)
        await settle(gathering, batch)

    monkeypatch.setattr(Gathering, "_settle", late)
    rig = Rig(slurm, tmp_path / "row")
    handle = rig.launch(rig.cluster(), 80)
    for k in range(4):
        rig.after(handle, 8 + 14 * k)
        kill(dask(slurm, rig.job_in_use(), "worker"))
        time.sleep(2)
    assert (handle.wait(120).fate == "ok").all()
    assert rig.again() == 0
    assert rig.left() == 0
