"""What a worker process knows of the queue's job it is in, and deals out to its members."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ensemblerl.records import Place

WALLTIME, BEGAN = "ENSEMBLERL_WALLTIME", "ENSEMBLERL_BEGAN"
"""What our job scripts say: the walltime in seconds, and what ``/proc/uptime`` said when the job
began. Seconds of uptime do not move with anybody's clock."""
LEAST, SHARE, MOST = 10.0, 0.02, 60.0
"""Seconds before the end of a job by which members are to be over: a share of what was left when
the worker came, within bounds. Results are written then, and checkpoints moved."""
SEVERAL = re.compile(r"-(?:r|e)?\d+-(\d+)$")
"""End of the name of a Dask worker that shares its job: number of the job, and its own in that."""


class Allocation:
    """The job of one worker process: when it ends, and what each of its slots may use.

    Parameters
    ----------
    slots : members that run side by side in this process
    cores : processor cores of one member
    environment : of the process
    left : seconds until the job ends; None: from the environment, unknown where it says nothing
    name : of the Dask worker; tells which of several processes in its job this is
    """

    def __init__(
        self,
        slots: int,
        cores: int = 1,
        environment: Mapping[str, str] | None = None,
        *,
        left: float | None = None,
        name: str = "",
    ) -> None:
        environment = os.environ if environment is None else environment
        left = time_left(environment) if left is None else left
        self.until: float | None = None
        if left is not None:
            margin = min(MOST, max(LEAST, SHARE * left))
            self.until = time.monotonic() + max(left - margin, 0.0)
        self.began = _number(environment.get(BEGAN))
        self.draining = False
        self._lock = threading.Lock()
        self._free = list(range(slots))
        of_several = SEVERAL.search(name)
        index = int(of_several[1]) if of_several else None
        self._cores = _shared_cores(slots, cores, environment, index or 0)
        self._devices = _shared_devices(slots, environment, index)

    @property
    def left(self) -> float | None:
        """Seconds for members, None where the end is not known."""
        return None if self.until is None else self.until - time.monotonic()

    def told(self) -> dict[str, Any]:
        """What the head is told with every heartbeat: JSON."""
        told = {"left": self.left, "draining": self.draining}
        return told if self.began is None else {**told, "ran": uptime() - self.began}

    def claim(self) -> None:
        """Keep this process to the GPU of its slot, where it has one slot in a job of several
        processes: what runs in the process itself is told of no place.
        """
        if self._devices is not None and len(self._devices) == 1:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(self._devices[0])

    @contextlib.contextmanager
    def place(self, needed: float) -> Iterator[Place]:
        """A slot of its own for whoever runs members in this thread."""
        with self._lock:
            slot = self._free.pop(0) if self._free else None
        try:
            yield Place(
                self.until,
                needed,
                self._cores[slot] if self._cores and slot is not None else (),
                self._devices[slot] if self._devices is not None and slot is not None else None,
            )
        finally:
            if slot is not None:
                with self._lock:
                    self._free = sorted([*self._free, slot])


def job_id(environment: Mapping[str, str]) -> str:
    """Of the queue's job that this process is in; "" where it is in none."""
    return environment.get("SLURM_JOB_ID") or environment.get("PBS_JOBID") or ""


def time_left(environment: Mapping[str, str]) -> float | None:
    """Seconds until the job ends, by what its script noted at its beginning."""
    walltime, began = _number(environment.get(WALLTIME)), _number(environment.get(BEGAN))
    return None if walltime is None or began is None else began + walltime - uptime()


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def uptime() -> float:
    """Seconds since this machine was started (proc(5))."""
    return float(Path("/proc/uptime").read_text().split()[0])


def _shared_cores(
    slots: int, cores: int, environment: Mapping[str, str], index: int
) -> list[tuple[int, ...]] | None:
    """Processors for each slot of the process with this index in its job; None where the queue
    does not confine the job to its own: then whoever else is on the node would be given the same.
    """
    mine = sorted(os.sched_getaffinity(0))
    told = environment.get("SLURM_CPUS_ON_NODE") or environment.get("NCPUS") or ""
    own = mine[index * slots * cores : (index + 1) * slots * cores]
    if not told.isdigit() or len(mine) > int(told) or len(own) < slots * cores:
        return None
    return [tuple(own[k * cores : (k + 1) * cores]) for k in range(slots)]


def _shared_devices(
    slots: int, environment: Mapping[str, str], index: int | None
) -> list[tuple[str, ...]] | None:
    """GPUs for each slot, in equal shares; where there are fewer than slots, one is shared. Of
    several processes (with an index) each slot has one: how many others there are, none knows.
    """
    devices = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if not devices or (slots < 2 and index is None):
        return None
    each = max(1, len(devices) // slots) if index is None else 1
    first = (index or 0) * slots * each
    return [
        tuple(devices[(first + k * each + i) % len(devices)] for i in range(each))
        for k in range(slots)
    ]
