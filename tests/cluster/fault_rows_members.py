"""Rows of the table of faults whose members are programs of their own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from fault_log import MEMBER
from fault_rig import Found, Rig
from fault_tools import kill, small_disk, wait_for
from fault_traces import losses

import ensemblerl as erl

MPIEXEC = Path(sys.executable).parent / "mpiexec"  # of the wheel: the queue brings another
ONLY_X = erl.Space(x=erl.Real(0.0, 1.0))
WALLTIME = 60
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
RANKS = """\
#!/bin/sh
[ "$SLURM_PROCID" != 0 ] || echo "start {{ number }} {{ attempt }} $$" >> {{ log }}
for i in $(seq 1 {{ 200 if number == 10 and attempt == 1 else 1 }}); do
    echo "$SLURMD_NODENAME $SLURM_PROCID {{ number }} {{ attempt }}" >> {{ beat }}
    sleep 0.2
done
[ "$SLURM_PROCID" != 0 ] || echo "end {{ number }} {{ attempt }} $$" >> {{ log }}
[ "$SLURM_PROCID" != 0 ] || echo "y = {{ x }}"
"""
"""What each rank of a member runs; the first speaks for all."""


def too_long(rig: Rig) -> Found:
    """Members longer than the walltime, without checkpoints: the error, in bounded time."""
    space = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(300.0, 600.0))
    cluster = rig.cluster(walltime=WALLTIME)
    began = time.monotonic()
    handle = rig.launch(cluster, 100, space=space)
    try:
        handle.wait(400)
        said = "nothing"
    except RuntimeError as error:
        said = str(error)
    rig.recovery = time.monotonic() - began
    assert "walltime" in said, said
    assert rig.recovery < 2.5 * WALLTIME, f"the error came after {rig.recovery:.0f} s"
    starts = max(rig.starts().values())
    assert starts <= 2, f"a member was started {starts} times"
    found = rig.count(100, f"after {rig.recovery:.0f} s, {starts} starts a member at most: {said}")
    assert found.acknowledged == handle.campaign.ledger.n_settled, "the store lacks some"
    return found._replace(lost=None)


def checkpoints(rig: Rig) -> Found:
    """The same with checkpoints: they complete, over several jobs."""
    space = erl.Space(x=erl.Real(0.0, 1.0), steps=erl.Integer(0, 1))
    long = {3, 31, 62, 70}
    text = STEPS.replace("'%d' % steps", f"75 if number in {sorted(long)} else steps")
    cluster = rig.cluster(walltime=WALLTIME)
    program = rig.program(text, checkpoint=True)
    handle = rig.launch(cluster, 100, program, space)
    rig.recovery = 0.0
    found = rig.finish(handle, 100, timeout=500)
    starts = rig.starts()
    assert all(starts[i] > 1 for i in long), starts
    return found._replace(remarks=f"starts of the long ones: {[starts[i] for i in sorted(long)]}")


def misbehaving(rig: Rig) -> Found:
    """Members that hang, segfault, exit 1, take too much memory, write half a file, fill a disk."""
    quota = rig.directory / "quota"
    with small_disk(quota, 4):
        program = erl.Command(
            ["./member.py"],
            templates={"member.py": MISBEHAVES},
            constants={"log": str(rig.log), "quota": str(quota)},
            reads=erl.readers.Json("out.json"),
            timeout=6.0,
            memory="150 MB",
        )
        handle = rig.launch(rig.cluster(), 100, program)
        rig.recovery = 0.0
        found = rig.finish(handle)
    fates = erl.open(rig.store).fate.values.tolist()
    for fate, digits in WANTED.items():
        wrong = {i: f for i, f in enumerate(fates) if i % 10 in digits and f != fate}
        assert not wrong, (fate, wrong)
    counts = {fate: fates.count(fate) for fate in WANTED}
    return found._replace(remarks=f"every fate is right: {counts}")


def mpi_over_nodes(rig: Rig) -> Found:
    """An MPI member over two nodes loses its supervisor: no rank writes afterwards."""
    beat = rig.directory / "ranks.log"
    beat.touch()
    program = rig.program(
        RANKS, launcher="srun --overlap -n {cores}", cores=4, constants={"beat": str(beat)}
    )
    cluster = rig.cluster(n_jobs=1, nodes=2, cores=4)
    handle = rig.launch(cluster, 100, program, ONLY_X)
    # all four ranks, on both nodes, have written twice
    wait_for(lambda: beat.read_text().count(" 10 1\n") >= 8 or handle.done, "all ranks", 120)
    lines = [line.split() for line in beat.read_text().splitlines()]
    places = {(node, rank) for node, rank, number, _ in lines if number == "10"}
    assert len(places) == 4, places
    kill([rig.supervisor(10, 1)])
    began = time.monotonic()
    wait_for(lambda: any(e[1] == 10 and e[2] == 2 for e in rig.events()), "its next attempt", 60)
    rig.recovery = time.monotonic() - began
    silent = beat.read_text().count(" 10 1\n")
    time.sleep(3)
    assert beat.read_text().count(" 10 1\n") == silent, "a rank goes on writing"
    found = rig.finish(handle)
    causes = [outcome.cause for outcome in losses(handle)]
    assert len(causes) == 1, causes
    assert "supervisor of the member ended" in causes[0], causes
    nodes = sorted({node for node, _ in places})
    return found._replace(remarks=f"4 ranks on {' and '.join(nodes)}, none wrote afterwards")


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
    beside = [(a, b) for a in times for b in times if a[1] < b[1] and abs(a[0] - b[0]) < 0.5]
    assert len(beside) > 50, "members did not run side by side"
    shared = [(a, b) for a, b in beside if a[2] == b[2]]
    assert not shared, shared[:3]
    return found._replace(
        remarks=f"core/GPU of members side by side: {' and '.join(sorted(used))}; the machine has "
        "two processors, so both ranks of a member are on its one core"
    )
