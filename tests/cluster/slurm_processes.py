"""Which processes belong to a private Slurm and to its jobs, read from /proc by their environment.

A process belongs to the Slurm whose ``SLURM_CONF`` it carries. A job's processes also carry
``PRIVATE_SLURM=<configuration>:<job>:<node>``, which the task prolog sets, so that they are
recognised when a program has dropped its ``SLURM_*`` variables. Only the standard library is used:
the epilog runs this file on its own (``python slurm_processes.py CONFIGURATION JOB NODE``).
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MARK = "PRIVATE_SLURM"
DAEMONS = ("slurmctld", "slurmscriptd", "slurmd", "slurmstepd")
WAITING = ("srun", "salloc", "sbatch")  # commands that would wait for a controller that is gone


class Daemon(NamedTuple):
    """A process of Slurm itself; `node` is empty unless it is a slurmd."""

    pid: int
    kind: str
    node: str


class Carrier(NamedTuple):
    """A living process that carries the id of a job."""

    pid: int
    job: str
    node: str
    command: str


def environment_of(pid: int) -> dict[str, str]:
    """What the process started with; empty for one that is gone, a zombie or somebody else's."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if entry)
    return {name: value for name, _, value in pairs}


def words_of(pid: int) -> list[str]:
    """The command line of a process."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).rstrip("\0").split("\0")
    except OSError:
        return []


def kind_of(pid: int) -> str:
    """The short name of a process (comm); whoever runs may change it, so not for jobs."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    """The parent's process id; 0 when there is none any more."""
    try:
        # the command in brackets may hold anything, so count from the last bracket
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _environments() -> Iterator[tuple[int, dict[str, str]]]:
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if pid != os.getpid() and (environment := environment_of(pid)):
            yield pid, environment


def daemons(configuration: str | Path, kinds: tuple[str, ...] = DAEMONS) -> list[Daemon]:
    """The living processes of these kinds that use this configuration file."""
    found = []
    for pid, environment in _environments():
        kind = kind_of(pid)
        if kind in kinds and environment.get("SLURM_CONF") == str(configuration):
            words = words_of(pid)
            found.append(Daemon(pid, kind, words[words.index("-N") + 1] if "-N" in words else ""))
    return found


def _job_of(environment: dict[str, str], configuration: str) -> tuple[str, str] | None:
    """Job and node, if this is the environment of a job's process under this configuration."""
    mark = environment.get(MARK, "").rsplit(":", 2)
    if len(mark) == 3 and mark[0] == configuration:
        return mark[1], mark[2]
    if environment.get("SLURM_CONF") != configuration or "SLURM_JOB_ID" not in environment:
        return None
    if environment.get("SLURM_SCRIPT_CONTEXT", "").startswith("epilog"):
        return None  # not the job's, but Slurm's own work after it
    return environment["SLURM_JOB_ID"], environment.get("SLURMD_NODENAME", "")


def carriers(
    configuration: str | Path, job: str | int | None = None, node: str | None = None
) -> list[Carrier]:
    """The living processes of jobs (of one job, on one node), in the order of their ids."""
    found = []
    for pid, environment in _environments():
        owner = _job_of(environment, str(configuration))
        if owner is None or kind_of(pid) in DAEMONS:
            continue
        if job is not None and str(job) != owner[0]:
            continue
        if node is None or node == owner[1]:
            found.append(Carrier(pid, *owner, " ".join(words_of(pid))))
    return sorted(found)


def step_daemons_above(pid: int) -> set[int]:
    """The slurmstepd processes among the ancestors of a process."""
    found = set()
    while (pid := parent_of(pid)) > 1:
        if kind_of(pid) == "slurmstepd":
            found.add(pid)
    return found


def send(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal one process; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end_carriers(
    configuration: str | Path,
    job: str | int | None = None,
    node: str | None = None,
    timeout: float = 10.0,
) -> None:
    """SIGKILL what `carriers` finds until it finds nothing (a process may fork meanwhile).

    Raises
    ------
    RuntimeError
        When some are still there after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while left := carriers(configuration, job, node):
        for carrier in left:
            send(carrier.pid)
        if time.monotonic() > deadline:
            raise RuntimeError(f"these processes could not be killed: {left}")
        time.sleep(0.02)


if __name__ == "__main__":
    end_carriers(sys.argv[1], sys.argv[2], sys.argv[3])
