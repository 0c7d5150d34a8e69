"""What a member costs that is a program, beside its own run: template, supervisor, reader, record.

The program is `echo`, which takes a millisecond. Beside it `subprocess.run` of the same program,
and a Python function on the same loop, one member after the other. Processor time is that of all
processes. Memory is what a supervisor alone uses (USS), looked at while its program sleeps.

    python benchmarks/programs.py [--members 100] [--repeats 5] [--json PATH] [--quick]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable

import psutil
from _report import median_and_spread, save, show

import ensemblerl as erl

SPACE = erl.Space(x=erl.Real(0.0, 1.0))
READ = erl.readers.Regex("stdout", r"(?P<value>\S+)")
ECHO = erl.Command(["echo", "{{ x }}"], reads=READ)
SLEEP = erl.Command(["sh", "-c", "echo {{ x }}; sleep 2"], reads=READ)
SEED = 7


def campaign(simulation: object, n: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        ds = erl.explore(
            simulation,
            SPACE,
            erl.Minimize(),
            n_members=n,
            store=f"{name}/store",
            sampler="sobol",
            seed=SEED,
            cluster="serial",
            progress=False,
        )
        assert (ds.fate == "ok").all(), ds.cause.values[0]


def plain(n: int) -> None:
    for i in range(n):
        done = subprocess.run(["echo", str(i)], capture_output=True, text=True, check=True)
        float(done.stdout)


WAYS: dict[str, Callable[[int], None]] = {
    "subprocess.run": plain,
    "campaign, function": lambda n: campaign(lambda x: x, n),
    "campaign, program": lambda n: campaign(ECHO, n),
}


def processor() -> float:
    """Seconds, of this process and of those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def measured(way: Callable[[int], None], n: int) -> tuple[float, float]:
    """Milliseconds a member: on the clock, and of processors."""
    began, used = time.perf_counter(), processor()
    way(n)
    return 1e3 * (time.perf_counter() - began) / n, 1e3 * (processor() - used) / n


def memory() -> float:
    """MB that a supervisor uses alone while its program runs."""
    thread = threading.Thread(target=campaign, args=(SLEEP, 1))
    thread.start()
    time.sleep(1.5)
    mine = [p for p in psutil.Process().children() if "supervisor" in " ".join(p.cmdline())]
    used = sum(p.memory_full_info().uss for p in mine) / max(len(mine), 1)
    thread.join()
    return used / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    n, repeats = (4, 2) if given.quick else (given.members, given.repeats)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    campaign(ECHO, 1)  # imports
    for _ in range(repeats):
        for way, run in WAYS.items():
            found[way].append(measured(run, n))
    figures = {
        way: {
            "clock_ms": median_and_spread([one[0] for one in runs]),
            "processor_ms": median_and_spread([one[1] for one in runs]),
        }
        for way, runs in found.items()
    }
    rows = [[way, *f["clock_ms"], *f["processor_ms"]] for way, f in figures.items()]
    show("A member", ["way", "ms", "+-", "processor ms", "+-"], rows)
    used = memory()
    print(f"a supervisor uses {used:.0f} MB")
    if given.json:
        save(
            given.json,
            {"members": n, "repeats": repeats, "ways": figures, "supervisor_mb": used},
            seeds={"campaign": SEED},
        )


if __name__ == "__main__":
    main()
