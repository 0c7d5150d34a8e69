"""PBS and Torque, through qsub, qstat and qdel.

Tested through Slurm's wrappers of these names. What they leave out (exit status, comments,
history) is read as the manuals of Torque 6 and PBS Professional describe it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from ensemblerl.cluster.queues.base import Queue, Queued, QueueSilent, by_name
from ensemblerl.cluster.queues.commands import (
    SILENCE,
    ask,
    check_cancelled,
    handed_in,
    job_name,
    kept,
    says_output,
)
from ensemblerl.cluster.queues.qstat import Attributes, blocks, job_of

ANSWERS = re.compile("unknown job|has finished|do not exist|nonexistent job", re.IGNORECASE)
TOLD = re.compile(r"^\s*(\d+(?:\.\S+)?)\s*$", re.MULTILINE)
HARMLESS = re.compile(ANSWERS.pattern + "|invalid for state of job", re.IGNORECASE)
IN_DIRECTORY = re.compile(r"^#PBS -e (\S+/)\n#PBS -o \1$", re.MULTILINE)
"""With what dask-jobqueue says where logs go. Slurm's wrapper does not read the second, and fails a
job for the first: it takes a directory for a file."""
NOT_FOUND = 153
"""Exit code of qstat for jobs that are not there; Slurm's wrapper says nothing besides."""


class Pbs(Queue):
    """The queue of a PBS or Torque machine.

    Where the server keeps a history (PBS Professional with ``job_history_enable``), jobs that ended
    are found there; else for as long as it lists them (Torque: ``keep_completed``).
    """

    name = "pbs"
    commands: tuple[str, ...] = ("qsub", "qstat", "qdel")

    def __init__(self) -> None:
        self._history = True

    def jobs(self, ids: Collection[str]) -> dict[str, Queued]:
        """See `Queue`; one call, and one more where jobs are missing and there is a history."""
        if not ids:
            return {}
        found = self._asked("-f", *sorted(ids))
        missing = sorted(id for id in ids if _number(id) not in found)
        if missing and self._history:
            found |= self._of_history(missing)
        known = [id for id in ids if _number(id) in found]
        return {id: job_of(found[_number(id)])._replace(id=id) for id in known}

    def find(self, names: Collection[str]) -> dict[str, Queued]:
        """See `Queue`."""
        if not names:
            return {}
        if shutil.which("qselect"):
            return by_name(self.jobs(self._selected(names)).values(), names)
        user = _user()
        mine = [a for a in self._asked("-f").values() if a["job_owner"].partition("@")[0] == user]
        return by_name(map(job_of, mine), names)

    def submit(self, script: str, directory: Path) -> str:
        """See `Queue`."""
        name, place = job_name(script, "#PBS", "-N"), IN_DIRECTORY.search(script)
        path = kept(IN_DIRECTORY.sub(r"#PBS -j oe\n#PBS -o \1", script), directory, name)
        log, output = path.with_suffix(".log"), list[str]()
        if place is not None or not says_output(script, "#PBS"):
            output = ["-j", "oe", "-o", str(log) if place is None else place[1] + log.name]
        return handed_in(TOLD, "qsub", "-N", name, *output, str(path))

    def cancel(self, ids: Collection[str]) -> None:
        """See `Queue`."""
        if ids:
            check_cancelled("qdel", ask("qdel", *sorted(ids)), HARMLESS)

    def _asked(self, *options: str) -> dict[str, Attributes]:
        """Attributes of jobs by the number of the job."""
        said = ask("qstat", *options)
        complaint = said.err.strip()
        answered = bool(ANSWERS.search(complaint)) if complaint else said.code == NOT_FOUND
        if said.code != 0 and (not answered or SILENCE.search(complaint)):
            raise QueueSilent(f"qstat: {said.complaint or f'exit code {said.code}'}")
        return {_number(attributes["id"]): attributes for attributes in blocks(said.out)}

    def _of_history(self, ids: Collection[str]) -> dict[str, Attributes]:
        try:
            return self._asked("-x", "-f", *ids)
        except QueueSilent as error:
            if not re.search("(unknown|invalid|illegal) option", str(error), re.IGNORECASE):
                raise
            self._history = False  # this qstat has none; never mind
            return {}

    def _selected(self, names: Collection[str]) -> list[str]:
        ids: list[str] = []
        for name in sorted(names):
            said = ask("qselect", *(["-x"] if self._history else []), "-u", _user(), "-N", name)
            if said.code != 0 and self._history and not SILENCE.search(said.complaint):
                said = ask("qselect", "-u", _user(), "-N", name)
            if said.code != 0:
                raise QueueSilent(f"qselect: {said.complaint}")
            ids += said.out.split()
        return ids


def _number(id: str) -> str:
    """The id without its server, which qsub and qstat may spell differently."""
    return id.partition(".")[0]


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name
