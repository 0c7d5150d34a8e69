"""Rows of the table of faults in which jobs, nodes and the queue misbehave."""

from __future__ import annotations

import time

from fault_log import some_long
from fault_rig import Found, Rig
from fault_tools import dask, kill, shim, wait_for
from fault_traces import ended_as, lost_attempts, started_again, went_on

import ensemblerl as erl

LONG = 6
"""Seconds of every tenth member: a queue that is slow takes its job before it ends."""
TAKEN = r"SIGTERM|the process that the member had of its own is gone|ended: "
"""How members end whose job is taken from them."""


def cancelled(rig: Rig) -> Found:
    """A job is cancelled under a running member."""
    cluster = rig.cluster()
    handle = rig.launch(cluster, 100, rig.program(some_long(LONG)))
    rig.after(handle, 15)
    with rig.fault(handle, cluster):
        job = rig.job_in_use()
        rig.cancel(job)
        ended_as(rig.slurm, job, "CANCELLED")
    return rig.finish(handle)._replace(remarks=lost_attempts(handle, TAKEN))


def dies_before_connecting(rig: Rig) -> Found:
    """Three jobs die before they connect, then they work."""
    marks = rig.directory / "died"
    marks.mkdir()
    fail = 'echo "no such module"; exit 1'
    line = f"for i in 1 2 3; do mkdir {marks}/$i 2>/dev/null && {{ {fail}; }}; done; :"
    cluster = rig.cluster(n_jobs=1, cores=6, prologue=[line])
    began = time.monotonic()
    handle = rig.launch(cluster)
    said = set[str]()
    while not rig.workers(cluster) and rig.going(handle):
        said.add(handle.campaign.executor.note)
        time.sleep(0.2)
    rig.recovery = time.monotonic() - began
    failed = [job.id for job in rig.slurm.squeue("all") if job.state == "FAILED"]
    assert len(failed) == len(list(marks.iterdir())) == 3, f"the fault did not happen: {failed}"
    assert any("died before connecting" in s and "see " in s for s in said), said
    return rig.finish(handle)


def not_submitted(rig: Rig) -> Found:
    """sbatch (qsub) fails three times in a row."""
    marks = rig.directory / "refused"
    marks.mkdir()
    command = {"slurm": "sbatch", "pbs": "qsub"}[rig.scheduler]
    script = (
        f"for i in 1 2 3; do mkdir {marks}/$i 2>/dev/null && "
        '{ echo "error: Batch job submission failed: Slurm temporarily unable" >&2; exit 1; }; '
        'done\nexec {real} "$@"\n'
    )
    with shim(rig.directory / "shim", command, script):
        cluster = rig.cluster()
        began = time.monotonic()
        handle = rig.launch(cluster)
        wait_for(lambda: handle.done or len(rig.workers(cluster)) >= 3, "three workers", 120)
        rig.recovery = time.monotonic() - began
        assert len(list(marks.iterdir())) == 3, "the fault did not happen"
        return rig.finish(handle)


def node_down(rig: Rig) -> Found:
    """A node is set down under its jobs, and comes back."""
    cluster = rig.cluster()
    handle = rig.launch(cluster, 120, rig.program(some_long(LONG)))
    rig.after(handle, 15)
    with rig.fault(handle, cluster):
        job = rig.job_in_use()
        node = rig.slurm.job(job)["NodeList"]
        rig.hold(node)
        rig.slurm.scontrol("update", f"nodename={node}", "state=down", "reason=fault")
        time.sleep(5)
        rig.slurm.scontrol("update", f"nodename={node}", "state=resume")
        started_again(rig.slurm, job)
    return rig.finish(handle, 120)._replace(remarks=lost_attempts(handle, TAKEN))


def slurmd_killed(rig: Rig) -> Found:
    """kill -9 of a slurmd and all on its node; Slurm gives it up, and starts its jobs elsewhere."""
    cluster = rig.cluster()
    handle = rig.launch(cluster, 150, rig.program(some_long(LONG)))
    rig.after(handle, 15)
    with rig.fault(handle, cluster, notice=45):
        job = rig.job_in_use()
        node = rig.slurm.job(job)["NodeList"]
        rig.hold(node)
        rig.slurm.kill_node(node, jobs=True)
    started_again(rig.slurm, job)
    rig.slurm.start_node(node)
    return rig.finish(handle, 150)._replace(remarks=lost_attempts(handle, TAKEN))


def generations(rig: Rig) -> Found:
    """The walltime is shorter than the campaign: several generations of workers."""
    space = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(3.0, 9.0))
    cluster = rig.cluster(walltime=60)
    handle = rig.launch(cluster, 120, space=space)
    rig.recovery = 0.0
    found = rig.finish(handle, 120, timeout=500)
    hours = erl.open(rig.store).erl.hours()
    assert rig.jobs_used() > 3, "one generation was enough"
    cut = [o for a in handle.campaign.ledger.attempts.values() for o in a if o.fate == "lost"]
    assert all(outcome.blameless for outcome in cut), cut
    remark = f"{rig.jobs_used()} jobs, {len(cut)} attempts cut off; {hours.attrs['verdict']}"
    return found._replace(remarks=remark)


def killed_worker(rig: Rig) -> Found:
    """kill -9 of a Dask worker, then of a nanny with its worker."""
    cluster = rig.cluster()
    handle = rig.launch(cluster, 150, rig.program(some_long(LONG)))
    rig.after(handle, 15)
    ran, recoveries = list[int](), list[str]()
    for kinds in (("worker",), ("nanny", "worker")):
        with rig.fault(handle, cluster):
            job = rig.job_in_use()
            ran += rig.members_in(job)
            kill([pid for kind in kinds for pid in dask(rig.slurm, job, kind)])
        recoveries.append(f"{kinds[0]} {rig.recovery:.0f} s")
    found = rig.finish(handle, 150)
    return found._replace(remarks=f"recovery: {', '.join(recoveries)}; {went_on(handle, ran)}")


def controller_stopped(rig: Rig) -> Found:
    """slurmctld does not answer for 30 s, and a worker and its nanny die meanwhile."""
    space = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(1.0, 4.0))
    cluster = rig.cluster()
    handle = rig.launch(cluster, 140, rig.program(some_long(LONG)), space)
    rig.after(handle, 10)
    said = set[str]()
    with rig.fault(handle, cluster):
        job = rig.job_in_use()
        ran = rig.members_in(job)
        rig.slurm.pause_controller(30)
        kill(dask(rig.slurm, job, "nanny") + dask(rig.slurm, job, "worker"))
        began = time.monotonic()
        while time.monotonic() - began < 25 and rig.going(handle):
            said.add(handle.campaign.executor.note)
            time.sleep(0.5)
    assert any("does not answer" in note for note in said), said
    found = rig.finish(handle, 140)
    return found._replace(remarks=f"it said so; {went_on(handle, ran)}")


def preempted(rig: Rig) -> Found:
    """Preemption: scontrol requeue of a running job."""
    cluster = rig.cluster()
    handle = rig.launch(cluster, 120, rig.program(some_long(LONG)))
    rig.after(handle, 15)
    with rig.fault(handle, cluster):
        job = rig.job_in_use()
        rig.slurm.scontrol("requeue", job)
        started_again(rig.slurm, job)
    return rig.finish(handle, 120)._replace(remarks=lost_attempts(handle, TAKEN))
