"""Asking one Slurm and telling it what to do, through its own commands."""

import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import slurm_install

# variables with these beginnings would carry options of another Slurm into ours
FOREIGN = ("SLURM", "PRIVATE_SLURM", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SINFO_", "SCANCEL_")


class Job(NamedTuple):
    """One line of squeue."""

    id: str
    state: str
    reason: str
    nodes: str
    name: str


def until(condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    """Wait until the condition holds; TimeoutError names what was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(0.1)


class Client:
    """Commands against the Slurm whose slurm.conf lies in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.conf = directory / "slurm.conf"
        # as it was at the start: a shim that a test puts on PATH later is not meant for us
        self._own = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}

    @property
    def variables(self) -> dict[str, str]:
        """What to add to an environment (``os.environ.update``) so that commands talk to it."""
        return {"SLURM_CONF": str(self.conf), "PATH": slurm_install.search_path()}

    @property
    def environment(self) -> dict[str, str]:
        """A whole environment for a subprocess, without traces of another Slurm."""
        path = slurm_install.search_path(self._own.get("PATH", ""))
        return {**self._own, "SLURM_CONF": str(self.conf), "PATH": path}

    def run(
        self, *command: str, timeout: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command against this Slurm; RuntimeError with its words where it fails."""
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise RuntimeError(f"`{' '.join(command)}` failed ({done.returncode}): {said}")
        return done

    def squeue(self, states: str = "") -> list[Job]:
        """The jobs in the queue; ``states="all"`` with the ended ones that Slurm remembers."""
        asked = ["-t", states] if states else []
        lines = self.run("squeue", "-h", "-a", "-o", "%i|%T|%r|%N|%j", *asked).stdout.splitlines()
        return [Job(*line.split("|", 4)) for line in lines]

    def scontrol(self, *arguments: str, check: bool = True) -> str:
        """What scontrol answers."""
        return self.run("scontrol", *arguments, check=check).stdout

    def job(self, job_id: str | int) -> dict[str, str]:
        """What ``scontrol show job`` says: JobState, Reason, Restarts, NodeList, ExitCode, ..."""
        words = self.scontrol("show", "job", "-o", str(job_id)).split()
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    def submit(self, script: str, *options: str) -> str:
        """sbatch a script given as text (without its first line); return the job's id."""
        path = self.directory / f"job-{uuid.uuid4().hex[:8]}.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        answer = self.run("sbatch", "--parsable", *options, str(path)).stdout
        return answer.strip().partition(";")[0]

    def node_state(self, node: str) -> str:
        """Such as IDLE, MIXED, DOWN+NOT_RESPONDING, IDLE+DRAIN."""
        words = self.scontrol("show", "node", "-o", node).split()
        return next(word.partition("=")[2] for word in words if word.startswith("State="))

    def all_nodes_ready(self) -> bool:
        """Does the controller answer, and can every node take a job?"""
        asked = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False)
        good = {"idle", "mixed", "allocated", "completing"}
        return asked.returncode == 0 and set(asked.stdout.split()) <= good

    def logs(self, lines: int = 15) -> str:
        """The end of every log."""
        parts = []
        for path in sorted((self.directory / "log").glob("*")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- {path}", *tail]))
        return "\n".join(parts)
