"""Run the commands of a queue: never by a shell, never without an end, and mind what they say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ensemblerl.cluster.queues.base import QueueSilent, Refused, require

PATIENCE = 20.0
"""Seconds that a command of the queue may take. Slurm's own give up after 10."""
SILENCE = re.compile(
    r"unable to contact|socket timed out|connection (refused|reset|timed out)|cannot connect"
    r"|could not connect|error connecting|no route to host|zero bytes were transmitted"
    r"|not responding|communication (connection )?failure|problem loading|controller.*standby"
    r"|temporarily unavailable|premature end of message|end of file",
    re.IGNORECASE,
)
"""Complaints after which nothing is known: neither whether it was done nor what there is."""
KEPT = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_TIME_FORMAT"}


class Said(NamedTuple):
    """How a command ended: exit code (negative: a signal), and what it printed."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What went wrong, on one line: the parts after "error:", else all that was printed."""
        lines = [line.strip(" \t'") for line in (self.err.strip() or self.out).splitlines()]
        errors = [line.partition("error:")[2].strip() for line in lines if "error:" in line]
        return "; ".join(line for line in errors or lines if line)[:500]


def ask(*command: str, environment: Mapping[str, str] | None = None) -> Said:
    """Run a command, and end it with all that it started when it takes longer than `PATIENCE`.

    It leads a session of its own, so that a Ctrl-C meant for the driver does not end a submission
    half-way.

    Raises
    ------
    QueueSilent
        when there is no such command, or it takes too long
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=for_questions() if environment is None else environment,
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise QueueSilent(f"{command[0]} could not be run: {error}") from error
    with process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise QueueSilent(f"{command[0]} gave no answer within {PATIENCE:g} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    return Said(process.returncode, out, err)


def for_questions() -> dict[str, str]:
    """The environment of questions: plain words, times as epochs, nobody's own filters."""
    own = {name: text for name, text in os.environ.items() if not _filters(name)}
    return own | {"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}


def for_jobs() -> dict[str, str]:
    """The environment that a job may inherit: ours, without what a job around us has set.

    Otherwise `srun` in the new job takes tasks and memory of the old one for its own.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return dict(os.environ)
    return {n: text for n, text in os.environ.items() if n in KEPT or not n.startswith("SLURM_")}


def _filters(name: str) -> bool:
    return name.startswith(("SQUEUE_", "SCANCEL_"))


def job_name(script: str, directive: str, *options: str) -> str:
    """The name that a script gives its job, by lines such as ``#SBATCH -J name``.

    Raises
    ------
    ValueError
        where it gives none: nobody could find the job by its name
    """
    names = "|".join(re.escape(option) for option in options)
    found = re.search(rf"^{directive}\s+(?:{names})[=\s]\s*(\S+)", script, re.MULTILINE)
    if found is None:
        wanted = f"{directive} {options[0]} NAME"
        raise ValueError(f"script: wanted a line {wanted!r}, got none among its directives")
    return found[1]


def says_output(script: str, directive: str) -> bool:
    """Whether the script itself says where the job's output goes."""
    pattern = rf"^{directive}\s.*?(?<!\S)(?:-o|-e|--output|--error)[=\s]"
    return re.search(pattern, script, re.MULTILINE) is not None


def kept(script: str, directory: Path, name: str) -> Path:
    """The file with the script, under the job's name, for the queue and for people."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory.absolute() / (re.sub(r"[^\w.+-]", "_", name) + ".sh")
    path.write_text(script, encoding="utf-8")
    return path


def handed_in(told: re.Pattern[str], *command: str) -> str:
    """Submit a job; its id, the first group of what is told. See `Queue.submit` for errors."""
    require(command[0])
    said = ask(*command, environment=for_jobs())
    if said.code == 0:
        found = told.search(said.out)
        if found is None:
            raise QueueSilent(f"{command[0]} told no job id, but {said.out.strip()[:200]!r}")
        return found[1]
    if said.code < 0:
        raise QueueSilent(f"{command[0]} was killed by signal {-said.code}")
    if SILENCE.search(said.complaint):
        raise QueueSilent(f"{command[0]}: {said.complaint}")
    raise Refused(said.complaint or f"{command[0]} ended with exit code {said.code}, and no word")


def check_cancelled(command: str, said: Said, harmless: re.Pattern[str]) -> None:
    """Raise `QueueSilent` unless every complaint is about jobs that have ended already."""
    lines = [line for line in (said.err + said.out).splitlines() if line.strip()]
    if said.code != 0 and not all(harmless.search(line) for line in lines):
        raise QueueSilent(f"{command}: {said.complaint}")
