"""Small things that rows of the table of faults do to a machine, and ask it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from slurm import PrivateSlurm, until


def wait_for(condition: object, what: str, timeout: float = 60.0) -> None:
    """As `slurm.until`."""
    assert callable(condition)
    until(condition, what, timeout)


def kill(pids: Sequence[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to each; one may have ended meanwhile.

    Raises
    ------
    RuntimeError
        when there is none to send it to: then nothing would be injected
    """
    if not pids:
        raise RuntimeError(f"nobody to send {number.name} to: the fault was not injected")
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


def job_of(pid: int) -> str:
    """The queue's job that a process belongs to."""
    return _told(pid, "SLURM_JOB_ID")


def node_of(pid: int) -> str:
    """The node of the queue that a process runs on."""
    return _told(pid, "SLURMD_NODENAME")


def _told(pid: int, name: str) -> str:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    found = re.search(rf"(?:^|\0){name}=([^\0]*)", text)
    if not found:
        raise ProcessLookupError(f"process {pid} is in no job")
    return found[1]


def dask(slurm: PrivateSlurm, job: str, what: str) -> list[int]:
    """Process ids of a job's Dask nanny ("nanny") or worker ("worker")."""
    sign = {"nanny": "distributed.cli.dask_worker", "worker": "multiprocessing.spawn"}[what]
    out = []
    for pid in slurm.job_processes(job):
        with suppress(OSError):
            if sign in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                out.append(pid)
    return out


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own that is soon full."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


@contextmanager
def shim(folder: Path, command: str, script: str) -> Iterator[None]:
    """A script in the place of a command, in which {real} is the command."""
    real = shutil.which(command)
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
