"""Rows of the table of faults that need programs of their own."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np
from fault_rig import MEMBER, Found, Rig, kill, parent, wait_for
from network import new_network

import ensemblerl as erl

MPIEXEC = Path(sys.executable).parent / "mpiexec"  # of the wheel: the queue brings another
ONLY_X = erl.Space(x=erl.Real(0.0, 1.0))
STEPS = """\
#!/bin/sh
echo "start {{ number }} {{ attempt }} $$" >> {{ log }}
n=$(cat steps 2>/dev/null || echo 0)
while [ "$n" -lt {{ '%d' % steps }} ]; do
    sleep 1
    n=$((n + 1))
    echo "$n" > steps.new && mv steps.new steps
done
echo "end {{ number }} {{ attempt }} $$" >> {{ log }}
echo "y = {{ x }}"
"""
MISBEHAVES = """\
#!/usr/bin/env python3
import os, sys, time
def say(what):
    fd = os.open("{{ log }}", os.O_WRONLY | os.O_APPEND)
    os.write(fd, f"{what} {{ number }} {{ attempt }} {os.getpid()}\\n".encode())
say("start")
kind = {{ number }} % 10
if kind == 1: time.sleep(600)
if kind == 2: os.kill(os.getpid(), 11)
if kind == 3: sys.exit(1)
if kind == 4:
    held = [bytearray(2**20) for _ in range(400)]
    time.sleep(600)
if kind == 5:
    open("out.json", "w").write('{"y": 1.')
    say("end"); sys.exit(0)
if kind == 6:
    with open("{{ quota }}/{{ number }}", "wb") as file:
        file.write(os.urandom(2**23)); file.flush()
time.sleep({{ seconds }})
say("end")
open("out.json", "w").write('{"y": {{ x }}}')
"""
WANTED = {
    "ok": {0, 7, 8, 9},
    "timeout": {1},
    "failed": {2, 3, 6},
    "out_of_memory": {4},
    "invalid": {5},
}
"""Fate -> last digits of the numbers of members that have it."""


def too_long(rig: Rig) -> Found:
    """Members longer than the walltime, without checkpoints: the error, in bounded time."""
    space = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(300.0, 600.0))
    cluster = rig.cluster(walltime=60)
    began = time.monotonic()
    handle = rig.launch(cluster, 100, space=space)
    try:
        handle.wait(400)
        said = "nothing"
    except RuntimeError as error:
        said = str(error)
    rig.recovery = time.monotonic() - began
    assert "walltime" in said, said
    starts = max(attempt for _, _, attempt, _ in rig.events())
    found = rig.count(100, f"after {rig.recovery:.0f} s, {starts} starts a member at most: {said}")
    # it ended by an error: lost would be what was acknowledged and is not in the store
    return found._replace(lost=handle.campaign.ledger.n_settled - found.acknowledged)


def checkpoints(rig: Rig) -> Found:
    """The same with checkpoints: they complete, over several jobs."""
    space = erl.Space(x=erl.Real(0.0, 1.0), steps=erl.Integer(0, 1))
    long = {3, 31, 62, 70}
    text = STEPS.replace("'%d' % steps", f"75 if number in {sorted(long)} else steps")
    cluster = rig.cluster(walltime=60)
    program = rig.program(text, checkpoint=True)
    handle = rig.launch(cluster, 100, program, space)
    rig.recovery = 0.0
    found = rig.finish(handle, 100, timeout=500)
    starts = {}
    for what, number, _, _ in rig.events():
        starts[number] = starts.get(number, 0) + (what == "start")
    assert all(starts[i] > 1 for i in long), starts
    return found._replace(remarks=f"starts of the long ones: {[starts[i] for i in sorted(long)]}")


def misbehaving(rig: Rig) -> Found:
    """Members that hang, segfault, exit 1, take too much memory, write half a file, fill a disk."""
    quota = rig.directory / "quota"
    with rig.small_disk(quota, 4):
        program = erl.Command(
            ["./member.py"],
            templates={"member.py": MISBEHAVES},
            constants={"log": str(rig.log), "quota": str(quota)},
            reads=erl.readers.Json("out.json"),
            timeout=6.0,
            memory="150 MB",
        )
        cluster = rig.cluster()
        handle = rig.launch(cluster, 100, program)
        rig.recovery = 0.0
        found = rig.finish(handle)
    fates = erl.open(rig.store).fate.values
    for fate, digits in WANTED.items():
        for number in range(100):
            if number % 10 in digits:
                assert fates[number] == fate, (number, fates[number], fate)
    return found._replace(remarks=f"every fate is right: {rig.fates()}")


def mpi_over_nodes(rig: Rig) -> Found:
    """An MPI member over two nodes loses its supervisor: no rank writes afterwards."""
    beat = rig.directory / "ranks.log"
    beat.touch()
    text = MEMBER.replace(
        "sleep {{ seconds }}",
        """srun -n 4 --overlap sh -c '
    for i in $(seq 1 {{ 200 if number == 10 and attempt == 1 else 1 }}); do
        echo "$SLURMD_NODENAME $SLURM_PROCID {{ number }} {{ attempt }}" >> {{ beat }}
        sleep 0.2
    done'""",
    )
    cluster = rig.cluster(n_jobs=1, nodes=2, cores=4)
    program, space = rig.program(text, cores=4, constants={"beat": str(beat)}), ONLY_X
    handle = rig.launch(cluster, 100, program, space)
    wait_for(lambda: "10 1" in beat.read_text() or handle.done, "the member over two nodes", 120)
    wait_for(lambda: beat.read_text().count(" 10 1\n") >= 8, "all ranks", 20)
    pid = next(p for number, _, p in rig.running() if number == 10)
    kill([parent(pid)])
    began = time.monotonic()
    wait_for(lambda: any(e[1] == 10 and e[2] == 2 for e in rig.events()), "its next attempt", 60)
    rig.recovery = time.monotonic() - began
    silent = beat.read_text().count(" 10 1\n")
    time.sleep(3)
    assert beat.read_text().count(" 10 1\n") == silent, "a rank goes on writing"
    nodes = {line.split()[0] for line in beat.read_text().splitlines()}
    assert len(nodes) == 2, nodes
    return rig.finish(handle, remarks=f"ranks on {sorted(nodes)}, none wrote afterwards")


def random_kills(rig: Rig) -> Found:
    """Ten random kills over 300 members: the same dataset as an undisturbed run."""
    calm = Rig(rig.slurm, rig.directory / "calm", rig.scheduler)
    plain = erl.explore(
        _value,
        calm_space(),
        erl.Minimize("y"),
        n_members=300,
        sampler="sobol",
        seed=7,
        cluster=erl.Serial(),
        store=str(calm.store),
        progress=False,
    )
    cluster = rig.cluster()
    handle = rig.launch(cluster, 300, rig.program(), calm_space())
    draw = random.Random(5)
    done, slowest = [], 0.0
    for k in range(10):
        rig.after(handle, 20 + 24 * k, 300)
        if handle.done or not rig.running():
            break
        job = rig.job_in_use(draw)
        kind = draw.choice(["cancel", "worker", "nanny", "requeue", "node", "supervisor"])
        began = time.monotonic()
        if kind == "cancel":
            rig.cancel(job)
        elif kind == "worker":
            kill(rig.dask(job, "worker"))
        elif kind == "nanny":
            kill(rig.dask(job, "nanny"))
        elif kind == "requeue":
            rig.slurm.scontrol("requeue", job)
        elif kind == "node":
            node = rig.slurm.job(job)["NodeList"]
            rig.slurm.scontrol("update", f"nodename={node}", "state=down", "reason=fault")
            time.sleep(2)
            rig.slurm.scontrol("update", f"nodename={node}", "state=resume")
        else:
            wait_for(lambda: rig.newest() is not None, "a member that has just begun")
            kill([parent(rig.newest())])
        done.append(kind)
        wait_for(lambda: handle.done or len(rig.workers(cluster)) >= 2, "workers", 120)
        slowest = max(slowest, time.monotonic() - began)
    rig.recovery = slowest
    found = rig.finish(handle, 300, timeout=500)
    assert len(done) == 10, done
    ds = erl.open(rig.store)
    for name in ("x", "seconds", "y", "fate", "reward"):
        np.testing.assert_array_equal(ds[name].values, plain[name].values, err_msg=name)
    return found._replace(remarks=f"{', '.join(done)}: dataset equal to an undisturbed run's")


def calm_space() -> erl.Space:
    """Short members."""
    return erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(0.4, 1.6))


def _value(x: float, seconds: float) -> dict[str, float]:
    return {"y": float(str(x))}


def interfaces(rig: Rig) -> Found:
    """The first interface cannot be reached from nodes: preflight names the one that works."""
    with new_network() as network:
        python = network.command(sys.executable)
        first = rig.cluster(python=python, host=network.outside_address).preflight()
        told = next(finding for finding in first.findings if finding.what == "network")
        assert not first.ok
        assert told.remedy == f"give interface={network.inside!r}", str(first)
        rig.recovery = 0.0
        handle = rig.launch(rig.cluster(python=python, interface=network.inside))
        return rig.finish(handle, remarks="as it said, all members ran through that one")


def cores_and_devices(rig: Rig) -> Found:
    """Two MPI members of two ranks on one node share no core; each has its own GPU."""
    seen = rig.directory / "seen.log"
    seen.touch()
    rank = rig.directory / "rank.sh"
    rank.write_text(
        "core=$(taskset -cp $$); "
        f'echo "$1 ${{core##*: }} $CUDA_VISIBLE_DEVICES $(date +%s.%N)" >> {seen}; sleep 0.7\n'
    )
    call = f"{MPIEXEC} -n 2 sh {rank} {{{{ number }}}}"
    text = MEMBER.replace("sleep {{ seconds }}", call)
    cluster = rig.cluster(n_jobs=1, cores=2, gpus=2)
    handle = rig.launch(cluster, 100, rig.program(text), ONLY_X)
    rig.recovery = 0.0
    found = rig.finish(handle)
    lines = [line.split() for line in seen.read_text().splitlines()]
    cores: dict[str, set[str]] = {}
    for number, core, device, _ in lines:
        cores.setdefault(number, set()).add(f"{core}/{device}")
    assert len(lines) == 200, len(lines)
    assert all(len(places) == 1 for places in cores.values()), "ranks of a member differ"
    used = {next(iter(places)) for places in cores.values()}
    assert used == {"0/0", "1/1"}, used
    times = sorted((float(t), n, next(iter(cores[n]))) for n, _, _, t in lines)
    overlap = [
        (a, b)
        for a in times
        for b in times
        if a[1] < b[1] and abs(a[0] - b[0]) < 0.5 and a[2] == b[2]
    ]
    assert not overlap, overlap[:3]
    return found._replace(remarks=f"core/GPU of members side by side: {sorted(used)}")


def wrong_clock(rig: Rig) -> Found:
    """The clock of a node is an hour ahead."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    line = (
        f'[ "$SLURMD_NODENAME" != n1 ] || export LD_PRELOAD={library} FAKETIME=+3600 '
        "DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1"
    )
    cluster = rig.cluster(prologue=[line], cores=4, n_jobs=3)
    handle = rig.launch(cluster)
    rig.after(handle, 30)
    job = rig.job_of(rig.running()[0][2])
    with rig.fault(handle, cluster):
        rig.cancel(job)
    found = rig.finish(handle)
    starts = erl.open(rig.store)["start_time"].values
    ahead = int((starts > np.datetime64(round(time.time()) + 1800, "s")).sum())
    assert ahead > 0, "no member ran on the node whose clock is wrong"
    return found._replace(remarks=f"{ahead} members ran on it")
