"""Waits while supervisors of this job live: ``python -m ensemblerl.supervisor.linger``.

It stands at the end of a job script. The Dask worker is gone then, and a queue that sees the
script end ends the programs with it. Supervisors of this job are the processes of this user that
were started with the same ENSEMBLERL_JOB.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

JOB = "ENSEMBLERL_JOB"
"""In the environment of all processes of a job: its name, never used twice."""
RUNS = b"ensemblerl.supervisor.main"
"""In the command line of a supervisor, and of nothing else."""
LOOK = 0.5
"""Seconds between looks."""


def supervisors(job: str) -> list[int]:
    """Process ids of the supervisors that live."""
    wanted, found = f"{JOB}={job}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            # the command line first: those of most processes are short, and tell
            if (
                path.stat().st_uid == os.getuid()
                and RUNS in (path / "cmdline").read_bytes()
                and wanted in (path / "environ").read_bytes().split(b"\0")
            ):
                found.append(int(path.name))
        except OSError:  # ended meanwhile
            continue
    return found


def linger(job: str, seconds: float | None = None) -> bool:
    """Wait until no supervisor of this job lives; says so when it has to.

    Parameters
    ----------
    job : the value of ENSEMBLERL_JOB
    seconds : at most so many

    Returns
    -------
    bool
        False when some live on
    """
    began, left = time.monotonic(), len(supervisors(job))
    if not left:
        return True
    print(f"ensemblerl: waiting for {_members(left)} that ran on without a worker", flush=True)
    while left:
        ran = time.monotonic() - began
        if seconds is not None and ran >= seconds:
            print(f"ensemblerl: {_members(left)} still running after {ran:.0f} s", flush=True)
            return False
        time.sleep(LOOK if seconds is None else min(LOOK, seconds - ran))
        left = len(supervisors(job))
    print(f"ensemblerl: they have ended, after {time.monotonic() - began:.0f} s", flush=True)
    return True


def _members(n: int) -> str:
    return f"{n} member{'s' * (n != 1)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """What the module does as a program; 0 when nothing runs any more, else 1."""
    parser = argparse.ArgumentParser(prog="ensemblerl.supervisor.linger", description=__doc__)
    parser.add_argument("--until", type=float, metavar="SECONDS", help="wait at most so long")
    given = parser.parse_args(arguments)
    # a job script may ignore SIGTERM, and what it starts then does so too
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    job = os.environ.get(JOB, "")
    return 0 if not job or linger(job, given.until) else 1


if __name__ == "__main__":
    sys.exit(main())
