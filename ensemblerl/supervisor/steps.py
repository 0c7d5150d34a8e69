"""Ends what srun started on other nodes: a killed srun leaves its ranks there running."""

from __future__ import annotations

import os
import re
import subprocess
import time

STEP = re.compile(r"[\d_+]+\.\d+")
"""A step that srun began, such as 12.0; the job script is 12.batch, and stays."""
ANSWER = 5.0
"""Seconds to wait for an answer of Slurm."""
LAST = 10.0
"""Seconds after which steps that do not end are given up."""
LOOK = 0.2
"""Seconds between looks whether they have ended."""


def end_steps() -> None:
    """Kill the steps of this job, where it is one of Slurm's on several nodes, and wait for that.

    All of them: such a job runs one member at a time. Takes `LAST` seconds and two answers at
    most, and never raises: what cannot be ended ends with the job.
    """
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job or not _several(os.environ.get("SLURM_JOB_NUM_NODES", "")):
        return
    until = time.monotonic() + LAST
    steps = _steps(job)
    while steps and time.monotonic() < until:
        # SIGKILL as such: without it Slurm first asks, and waits for long
        _answer(["scancel", "--signal=KILL", *steps])
        time.sleep(LOOK)
        steps = _steps(job)


def _several(nodes: str) -> bool:
    return nodes.isdigit() and int(nodes) > 1


def _steps(job: str) -> list[str]:
    found = _answer(["squeue", "--noheader", "--steps", f"--jobs={job}", "--format=%i"])
    return [step for step in found.split() if STEP.fullmatch(step)]


def _answer(command: list[str]) -> str:
    """What it prints; "" when it fails or says nothing in time."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=ANSWER,
            check=False,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
