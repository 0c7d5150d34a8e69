"""What a batch queue is to the rest: jobs in three states, and five things to ask."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol


class Queued(NamedTuple):
    """A job as its queue sees it.

    ``state`` is "pending", "running" or "ended". ``end`` says of an ended one how: "completed",
    "failed", "cancelled", "timeout", "node_fail", "out_of_memory", "preempted" or "unknown".
    ``reason`` is the queue's own word for why it waits or ended, ``node`` where it runs or ran,
    ``left`` the seconds until the queue ends a running job (None: no limit, or not known), and
    ``restarts`` how often the queue put it back.
    """

    id: str
    name: str
    state: str
    end: str = ""
    reason: str = ""
    node: str = ""
    left: float | None = None
    restarts: int = 0


class QueueSilent(RuntimeError):
    """The queue gave no answer: what it has, and whether it took a job, is not known now."""


class Refused(RuntimeError):
    """The queue does not take the job; the message is its own, on one line."""


class NoQueue(RuntimeError):
    """There are no commands of the queue here: nothing that is asked for can mend that."""


class Queue(Protocol):
    """A batch queue. Every call may raise `QueueSilent`; then the same may be asked again later.

    Attributes
    ----------
    name : "slurm" or "pbs"
    commands : that it is spoken to with
    """

    name: str
    commands: tuple[str, ...]

    def jobs(self, ids: Collection[str]) -> dict[str, Queued]:
        """What the queue knows of these jobs; one that it does not know (any more) is left out."""

    def find(self, names: Collection[str]) -> dict[str, Queued]:
        """Jobs of this user by their names, for a submission whose answer was lost.

        The newest where several have a name, and one that has not ended before one that has.
        """

    def submit(self, script: str, directory: Path) -> str:
        """Hand in a script that names its job; the id. The text stays in the directory.

        What the job prints goes to ``<name>.log`` beside it, unless the script says where.

        Raises
        ------
        ValueError
            for a script that gives its job no name
        NoQueue
            where there is no command to submit with
        Refused
            when the queue says no
        QueueSilent
            when it may or may not have taken the job: look with ``find``
        """

    def cancel(self, ids: Collection[str]) -> None:
        """End these jobs; those that ended or are not known are none of its business."""

    def left(self, id: str) -> float | None:
        """Seconds until this job's time is over, by the queue's clock; None where that is not
        known.
        """
        job = self.jobs([id]).get(id)
        return None if job is None else job.left


def require(*commands: str) -> None:
    """Make sure that these commands are on PATH.

    Raises
    ------
    NoQueue
        naming the first that is not
    """
    for command in commands:
        if shutil.which(command) is None:
            raise NoQueue(
                f"there is no command {command} here: run this where jobs are submitted, usually "
                "a login node"
            )


def by_name(jobs: Iterable[Queued], names: Collection[str]) -> dict[str, Queued]:
    """The job of each of these names: the newest, one that lives before one that has ended."""
    named = [job for job in jobs if job.name in names]
    return {job.name: job for job in sorted(named, key=lambda j: (j.state != "ended", _age(j.id)))}


def _age(id: str) -> int:
    digits = re.match(r"\d+", id)
    return int(digits[0]) if digits else 0


def seconds(text: str) -> float | None:
    """Seconds of ``[days-][[hours:]minutes:]seconds``; None for anything else (UNLIMITED).

    >>> seconds("1-02:03:04"), seconds("5:00"), seconds("UNLIMITED")
    (93784.0, 300.0, None)
    """
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(?:(\d+):)?(\d+)", text.strip())
    if found is None:
        return None
    days, *parts = found.groups()
    total = 0
    for part in filter(None, parts):
        total = total * 60 + int(part)
    return float(int(days or 0) * 86400 + total)


def queue_of(scheduler: str) -> Queue:
    """The queue of this name.

    Raises
    ------
    ValueError
        for any other than "slurm" and "pbs"
    """
    from ensemblerl.cluster.queues.pbs import Pbs
    from ensemblerl.cluster.queues.slurm import Slurm

    queues: dict[str, type[Queue]] = {"slurm": Slurm, "pbs": Pbs}
    if scheduler not in queues:
        raise ValueError(f'scheduler: wanted "slurm" or "pbs", got {scheduler!r}')
    return queues[scheduler]()
