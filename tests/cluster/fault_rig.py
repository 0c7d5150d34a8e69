"""What every row of the table of faults uses: a campaign on a private Slurm, and what it counts."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from fault_log import MEMBER, MemberLog
from fault_tools import node_of, wait_for
from fault_traces import NoFault
from slurm import PrivateSlurm, until

import ensemblerl as erl

SPACE = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(0.4, 1.6))


class Found(NamedTuple):
    """One row of the table, and what else there is to say.

    ``lost`` is None where the campaign had to end by an error: members without a fate are right
    then.
    """

    members: int
    acknowledged: int
    lost: int | None
    again: int
    recovery: float
    left: int
    remarks: str = ""

    @property
    def wrong(self) -> str:
        """What is not as it must be; "" when all is."""
        whole = self.acknowledged == self.members or self.lost is None
        parts = {
            f"acknowledged {self.acknowledged} of {self.members}": not whole,
            f"lost {self.lost}": bool(self.lost),
            f"again {self.again}": bool(self.again),
            f"left {self.left}": bool(self.left),
            "no recovery was seen": math.isnan(self.recovery),
        }
        return ", ".join(text for text, bad in parts.items() if bad)


class Rig(MemberLog):
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
        super().__init__(directory / "members.log")
        self.store = directory / "store"
        self.recovery = math.nan
        self.handles: list[Any] = []

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
        goal = goal or erl.Minimize("y")
        program = program or self.program()
        told = {**given, **more}
        handle = erl.launch(program, space, goal, n_members=n, cluster=cluster, **told)
        self.handles.append(handle)
        return handle

    def supervisor(self, number: int, attempt: int) -> int:
        """Process id of the supervisor of an attempt."""
        about = json.loads((self.store / "running" / f"{number}-{attempt}").read_text())
        return int(about["pid"])

    # ---- waiting

    def going(self, handle: Any) -> bool:
        """Whether members are left to settle."""
        campaign = handle.campaign
        return not handle.done and campaign.ledger.n_settled < campaign.n_members

    def after(self, handle: Any, settled: int, timeout: float = 120.0) -> None:
        """Wait until so many members are settled and some are running; raises when all is over."""
        done = lambda: handle.campaign.ledger.n_settled >= settled  # noqa: E731
        until(lambda: handle.done or (done() and self.running()), f"{settled} settled", timeout)
        if handle.done:
            handle.wait()
            raise NoFault("the campaign was over before its fault")

    def workers(self, cluster: erl.Cluster) -> set[str]:
        """Addresses of the workers that take members."""
        pool = cluster._pool
        found = [] if pool is None else pool.reconciler.workers()
        return {worker.address for worker in found if not worker.draining}

    @contextmanager
    def fault(
        self, handle: Any, cluster: erl.Cluster, notice: float = 30.0, *, loses: bool = True
    ) -> Iterator[None]:
        """Around an injected fault: measures how long it is until as many workers are there.

        Parameters
        ----------
        notice : seconds in which the loss of a worker must be noticed
        loses : whether the fault takes a worker

        Raises
        ------
        NoFault
            when it should and did not, while there were members left
        """
        wanted = cluster.settings.n_jobs
        there = lambda: len(self.workers(cluster)) >= wanted  # noqa: E731
        until(lambda: handle.done or there(), "all workers are there", 120)
        before, began, felt = self.workers(cluster), time.monotonic(), False
        yield
        injected = time.monotonic()
        # going is asked last: at the end of a campaign all workers are gone
        while not felt and self.going(handle) and time.monotonic() < injected + notice:
            felt = bool(before - self.workers(cluster)) and self.going(handle)
            time.sleep(0.05)
        if not felt and loses:
            raise NoFault("no worker was lost, so there was no fault")
        self.recovery = math.nan if felt else 0.0
        while felt and math.isnan(self.recovery) and self.going(handle):
            if len(self.workers(cluster)) >= len(before) and self.going(handle):
                self.recovery = time.monotonic() - began
            time.sleep(0.05)

    def hold(self, node: str, seconds: float = 1.0) -> None:
        """Before a node is cut off: nobody there is at its end for the moment.

        A supervisor that is killed between the end of its program and the record on disk is the
        only one who knows that there is a result, and nobody could save that. So programs are
        stopped (SIGSTOP) long enough for those that had ended to be recorded.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for _, _, pid in self.running():
                with suppress(OSError):
                    if node_of(pid) == node:
                        os.kill(pid, signal.SIGSTOP)
            time.sleep(0.02)

    # ---- the end

    def finish(self, handle: Any, n: int = 100, timeout: float = 300.0, remarks: str = "") -> Found:
        """Wait for the campaign, and count."""
        handle.wait(timeout)
        found = self.count(n, remarks)
        if found.again:
            print("ATTEMPTS", handle.campaign.ledger.attempts, file=sys.stderr)
        return found

    def end(self) -> None:
        """Stop what a row that failed has left running."""
        for handle in self.handles:
            if not handle.done:
                handle.stop()
                with suppress(Exception):
                    handle.wait(60)

    def count(self, n: int = 100, remarks: str = "") -> Found:
        """What the store says, and what is left in the queue and on the nodes."""
        settled = int((erl.open(self.store).fate != "pending").sum())
        return Found(n, settled, n - settled, self.again(), self.recovery, self.left(), remarks)

    def left(self, patience: float = 20.0, jobs: Path | None = None) -> int:
        """Jobs, processes, keys and lists of jobs that are there still, a while after the end.

        Parameters
        ----------
        jobs : directory of job scripts, where it is not that in the store
        """
        with suppress(TimeoutError):
            wait_for(lambda: not self.slurm.left_behind(), "nothing is left", patience)
        there = self.slurm.left_behind()
        folder = jobs or self.store / "jobs"
        keys = [*folder.glob("keys-*"), *folder.glob("jobs-*.json")]
        for path in [*there.jobs, *there.processes, *keys]:
            print(f"LEFT BEHIND {path}", file=sys.stderr)
        return len(there.jobs) + len(there.processes) + len(keys)

    def jobs_used(self) -> int:
        """Jobs that the queue has started for this campaign."""
        text = (self.store / "ledger.jsonl").read_text()
        return len(set(re.findall(r'"job":"?(\d+)', text.replace(": ", ":"))))

    def cancel(self, job: str) -> None:
        """What a user or an operator does to a job."""
        command = ["scancel", job] if self.scheduler == "slurm" else ["qdel", job]
        self.slurm.run(*command)
