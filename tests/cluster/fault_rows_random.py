"""The row of the table of faults with ten random ones."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
from fault_rig import Found, Rig
from fault_tools import dask, kill
from fault_traces import ended_as, losses, started_again

import ensemblerl as erl

SPACE = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(2.0, 6.0))
"""A campaign of minutes: after each fault all workers are to be back before the next."""
KINDS = ("cancel", "worker", "nanny", "requeue", "node", "supervisor")
TIMES = {"runtime", "launch_time", "start_time", "end_time", "worker", "attempt", "cause"}
"""What a dataset says about where and when members ran, which is not to be the same."""


def random_kills(rig: Rig) -> Found:
    """Ten random kills over 300 members: the same dataset as an undisturbed run."""
    cluster = rig.cluster()
    handle = rig.launch(cluster, 300, space=SPACE)
    draw, done, slowest = random.Random(5), list[str](), 0.0
    for k in range(10):
        rig.after(handle, 10 + 20 * k, 300)
        kind = draw.choice(KINDS)
        before = len(losses(handle))
        with rig.fault(handle, cluster, loses=kind != "supervisor"):
            inject(rig, kind, draw)
        if kind == "supervisor":
            rig.after(handle, handle.campaign.ledger.n_settled + 6)
            assert len(losses(handle)) > before, "the supervisor was not missed"
        slowest = max(slowest, rig.recovery)
        done.append(kind)
    rig.recovery = slowest
    found = rig.finish(handle, 300, timeout=500)
    same_as_undisturbed(rig)
    kinds = ", ".join(done)
    return found._replace(remarks=f"{kinds}: dataset equal to that of the function, run serially")


def inject(rig: Rig, kind: str, draw: random.Random) -> None:
    """One fault, in a job that runs a member; returns when the queue has taken note."""
    if kind == "supervisor":
        # The member that has just begun: a supervisor whose program is at its end may be the
        # only one who knows the result, and nobody could save that. Once it is on disk it counts.
        number, attempt, _ = rig.just_begun()
        time.sleep(0.2)
        kill([rig.supervisor(number, attempt)])
        return
    job = rig.job_in_use(draw)
    if kind in ("worker", "nanny"):
        kill(dask(rig.slurm, job, kind))
    elif kind == "cancel":
        rig.cancel(job)
        ended_as(rig.slurm, job, "CANCELLED")
    elif kind == "requeue":
        rig.slurm.scontrol("requeue", job)
        started_again(rig.slurm, job)
    else:
        node = rig.slurm.job(job)["NodeList"]
        rig.hold(node)
        rig.slurm.scontrol("update", f"nodename={node}", "state=down", "reason=fault")
        time.sleep(2)
        rig.slurm.scontrol("update", f"nodename={node}", "state=resume")
        started_again(rig.slurm, job)


def same_as_undisturbed(rig: Rig) -> None:
    """The same points, seeds, notes, results, rewards and fates as without jobs and faults.

    What is compared with is the function that the program computes, in this process: an
    undisturbed campaign of the program on the same cluster would take as long once more.
    """
    plain: Any = erl.explore(
        _value,
        SPACE,
        erl.Minimize("y"),
        n_members=300,
        sampler="sobol",
        seed=7,
        cluster=erl.Serial(),
        store=str(rig.directory / "calm"),
        progress=False,
    )
    ds: Any = erl.open(rig.store)
    names = sorted((set(ds.variables) | set(plain.variables)) - TIMES - {"simulation_version"})
    assert {"x", "seconds", "y", "fate", "reward", "seed", "note_design_index"} <= set(names)
    for name in names:
        np.testing.assert_array_equal(ds[name].values, plain[name].values, err_msg=name)
    assert (ds.fate == "ok").all()


def _value(x: float, seconds: float) -> dict[str, float]:
    return {"y": x}
