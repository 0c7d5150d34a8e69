"""What the Dask tests need: small simulations, scripts run as a user would, processes watched."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ensemblerl.protocols import Executor, Job
from ensemblerl.records import Answer, Members, Proposals
from ensemblerl.testing.rehearsal import numbered
from ensemblerl.testing.toys import Least


class Calls:
    """A simulation made of any function of x."""

    cores, timeout, retries, version, max_result_bytes = 1, None, 0, None, 2**20

    def __init__(self, f: Callable[[float], float]) -> None:
        self.f = f

    def __call__(
        self, point: Mapping[str, Any], *, seed: int, member: Mapping[str, Any] | None = None
    ) -> float:
        return self.f(float(point["x"]))

    def describe(self) -> dict[str, Any]:
        return {}


def crash_at_13(x: float) -> float:
    """Segmentation fault at 13."""
    time.sleep(0.02)
    if x == 13:
        ctypes.string_at(0)
    return x


def process_id(x: float) -> float:
    time.sleep(x)
    return float(os.getpid())


def import_torch(x: float) -> float:
    try:
        import torch  # noqa: F401
    except ImportError:
        return 0.0
    return 1.0


def members(first: int, x: Sequence[float]) -> Members:
    """Members numbered from ``first`` with one parameter, x."""
    made = numbered(Proposals(np.full((len(x), 1), 0.5)), first, "test")
    return Members(**{**vars(made), "points": {"x": np.array(x, dtype=np.float64)}})


def job(f: Callable[[float], float], segments: Path) -> Job:
    return Job(Calls(f), Least(), str(segments), os.getpid())


def collected(
    executor: Executor, futures: Sequence[Future[Answer]], patience: float = 30.0
) -> None:
    """Wait until all these are back."""
    back: set[Future[Answer]] = set()
    until = time.monotonic() + patience
    while not back.issuperset(futures):
        assert time.monotonic() < until, f"{len(set(futures) - back)} futures never came"
        back.update(executor.wait(1.0))


def values(futures: Sequence[Future[Answer]]) -> list[float]:
    """One value a member."""
    return [outcome.value[0] for future in futures for outcome in future.result().outcomes]


def script(text: str, *, stdin: bool = False, path: Path | None = None) -> subprocess.Popen[str]:
    """Run a script in a session of its own, from a file or from standard input."""
    command = [sys.executable, "-u", "-" if stdin else str(path)]
    if path is not None:
        path.write_text(text)
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    if stdin:
        process.stdin.write(text)
    process.stdin.close()
    process.stdin = None
    return process


def alive(pids: Sequence[int]) -> list[int]:
    """Those of these processes that still run."""
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found


def gone(pids: Sequence[int], patience: float = 15.0) -> bool:
    """Whether all of them end in time."""
    until = time.monotonic() + patience
    while alive(pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pids)
