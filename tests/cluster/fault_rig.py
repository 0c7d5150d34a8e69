"""What every row of the table of faults uses: a campaign on a private Slurm, and what it counts."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from slurm import PrivateSlurm, until

import ensemblerl as erl

SPACE = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(0.4, 1.6))
MEMBER = """\
#!/bin/sh
echo "start {{ number }} {{ attempt }} $$" >> {{ log }}
sleep {{ seconds }}
echo "end {{ number }} {{ attempt }} $$" >> {{ log }}
echo "y = {{ x }}"
"""


class Found(NamedTuple):
    """One row of the table, and what else there is to say."""

    acknowledged: int
    lost: int
    again: int
    recovery: float
    left: int
    remarks: str = ""


class Rig:
    """A place for one row: store, log of the members, cluster.

    Parameters
    ----------
    slurm : the queue, with whose variables this process' environment is filled
    directory : empty
    scheduler : "slurm" or "pbs"
    """

    def __init__(self, slurm: PrivateSlurm, directory: Path, scheduler: str = "slurm") -> None:
        self.slurm, self.directory, self.scheduler = slurm, directory, scheduler
        directory.mkdir(parents=True, exist_ok=True)
        self.log, self.store = directory / "members.log", directory / "store"
        self.log.touch()
        self.recovery = float("nan")

    def cluster(self, **arguments: Any) -> erl.Cluster:
        """Three jobs of two members each, unless said otherwise."""
        usual = {"n_jobs": 3, "cores": 2, "memory": "1 GB", "walltime": "00:20:00"}
        return erl.Cluster(self.scheduler, **{**usual, **arguments})

    def program(self, text: str = MEMBER, **arguments: Any) -> erl.Command:
        """A member that says when it starts and ends."""
        return erl.Command(
            ["./member.sh"],
            templates={"member.sh": text},
            constants={"log": str(self.log), **arguments.pop("constants", {})},
            reads=erl.readers.Regex("stdout", r"y = (?P<y>\S+)"),
            **arguments,
        )

    def launch(
        self,
        cluster: Any,
        n: int = 100,
        program: Any = None,
        space: Any = SPACE,
        goal: Any = None,
        **more: Any,
    ) -> Any:
        """A campaign that runs beside this thread."""
        given = {"sampler": "sobol", "seed": 7, "store": str(self.store), "progress": False}
        return erl.launch(
            program or self.program(),
            space,
            goal or erl.Minimize("y"),
            n_members=n,
            cluster=cluster,
            **{**given, **more},
        )

    # ---- what members wrote

    def events(self) -> list[tuple[str, int, int, int]]:
        """(what, number, attempt, process) in order."""
        out = []
        for line in self.log.read_text().splitlines():
            what, *numbers = line.split()
            out.append((what, *(int(n) for n in numbers)))
        return out

    def running(self) -> list[tuple[int, int, int]]:
        """(number, attempt, process) of members that have begun and not ended, and live."""
        begun = {}
        for what, number, attempt, pid in self.events():
            if what == "start":
                begun[number, attempt] = pid
            else:
                begun.pop((number, attempt), None)
        return [(*key, pid) for key, pid in begun.items() if Path(f"/proc/{pid}").exists()]

    def newest(self) -> int | None:
        """Process of the member that began last, if it still runs: its supervisor has yet to wait
        for it, so that nothing finished goes with that.
        """
        events = self.events()
        what, _, _, pid = events[-1] if events else ("", 0, 0, 0)
        return pid if what == "start" and Path(f"/proc/{pid}").exists() else None

    def job_in_use(self, draw: random.Random) -> str:
        """A job that runs a member just now."""
        while True:
            with suppress(OSError, IndexError, AssertionError):
                return self.job_of(draw.choice(self.running())[2])
            time.sleep(0.05)

    def again(self) -> int:
        """Members that were started after they had come to their end."""
        ended: set[int] = set()
        again: set[int] = set()
        for what, number, _, _ in self.events():
            if what == "end":
                ended.add(number)
            elif number in ended:
                again.add(number)
        return len(again)

    # ---- waiting

    def after(self, handle: Any, settled: int, timeout: float = 120.0) -> None:
        """Wait until so many members are settled and some are running."""
        done = lambda: handle.campaign.ledger.n_settled >= settled  # noqa: E731
        until(lambda: handle.done or (done() and self.running()), f"{settled} settled", timeout)

    def workers(self, cluster: erl.Cluster) -> set[str]:
        """Addresses of the workers that take members."""
        pool = cluster._pool
        found = [] if pool is None else pool.reconciler.workers()
        return {worker.address for worker in found if not worker.draining}

    @contextmanager
    def fault(self, handle: Any, cluster: erl.Cluster, notice: float = 30.0) -> Iterator[None]:
        """Around an injected fault: measures how long it is until as many workers are there."""
        before, began = self.workers(cluster), time.monotonic()
        yield
        until(
            lambda: (
                handle.done or before - self.workers(cluster) or time.monotonic() - began > notice
            ),
            "the fault is felt",
            notice + 5,
        )
        if not before - self.workers(cluster):
            self.recovery = 0.0
            return
        back = lambda: len(self.workers(cluster)) >= len(before)  # noqa: E731
        until(lambda: handle.done or back(), "all workers are back", 180)
        self.recovery = time.monotonic() - began if back() else float("nan")

    # ---- the end

    def finish(self, handle: Any, n: int = 100, timeout: float = 300.0, remarks: str = "") -> Found:
        """Wait for the campaign, and count."""
        handle.wait(timeout)
        if not handle.done:
            raise TimeoutError(f"the campaign did not end in {timeout:g} s: {handle!r}")
        return self.count(n, remarks)

    def count(self, n: int = 100, remarks: str = "") -> Found:
        """What the store says, and what is left in the queue and on the nodes."""
        ds = erl.open(self.store)
        settled = int((ds.fate != "pending").sum())
        return Found(settled, n - settled, self.again(), self.recovery, self.left(), remarks)

    def left(self, patience: float = 20.0) -> int:
        """Jobs and processes that are there still, a while after the end."""
        with suppress(TimeoutError):
            until(lambda: not self.slurm.left_behind(), "nothing is left", patience)
        there = self.slurm.left_behind()
        if there:
            print("LEFT BEHIND", there, file=sys.stderr)
        keys = list(self.store.glob("jobs/keys-*")) + list(self.store.glob("jobs/jobs-*.json"))
        print(*(f"LEFT BEHIND {path}" for path in keys), sep="\n", end="", file=sys.stderr)
        return len(there.jobs) + len(there.processes) + len(keys)

    def fates(self) -> dict[str, int]:
        """How many members have which fate."""
        values, counts = np_unique(erl.open(self.store).fate.values)
        return dict(zip(values, counts, strict=True))

    def jobs_used(self) -> int:
        """Jobs that the queue has started for this campaign."""
        text = (self.store / "ledger.jsonl").read_text()
        return len(set(re.findall(r'"job":"?(\d+)', text.replace(": ", ":"))))

    @contextmanager
    def small_disk(self, path: Path, megabytes: int) -> Iterator[None]:
        """A file system of its own that is soon full."""
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
        subprocess.run(command, check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(path)], check=False)

    def job_of(self, pid: int) -> str:
        """The queue's job that a process belongs to."""
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        found = re.search(r"SLURM_JOB_ID=(\d+)", text)
        assert found, "the process is in no job"
        return found[1]

    def dask(self, job: str, what: str) -> list[int]:
        """Process ids of a job's Dask nanny ("nanny") or worker ("worker")."""
        sign = {"nanny": "distributed.cli.dask_worker", "worker": "multiprocessing.spawn"}[what]
        out = []
        for pid in self.slurm.job_processes(job):
            with suppress(OSError):
                if sign in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                    out.append(pid)
        return out

    def cancel(self, job: str) -> None:
        """What a user or an operator does to a job."""
        command = ["scancel", job] if self.scheduler == "slurm" else ["qdel", job]
        self.slurm.run(*command)

    @contextmanager
    def shim(self, command: str, script: str) -> Iterator[None]:
        """A script in the place of a command, in which {real} is the command."""
        real = shutil.which(command)
        folder = self.directory / f"shim-{command}"
        folder.mkdir()
        path = folder / command
        path.write_text("#!/bin/bash\n" + script.replace("{real}", str(real)))
        path.chmod(0o755)
        old = os.environ["PATH"]
        os.environ["PATH"] = f"{folder}:{old}"
        try:
            yield
        finally:
            os.environ["PATH"] = old


def np_unique(values: Any) -> tuple[list[str], list[int]]:
    """Values and how often they are there."""
    import numpy as np

    names, counts = np.unique(values, return_counts=True)
    return names.tolist(), counts.tolist()


def parent(pid: int | None) -> int:
    """Of a process: of a member it is the supervisor."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def kill(pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to each that lives."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_for(condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    """As `slurm.until`."""
    until(condition, what, timeout)
