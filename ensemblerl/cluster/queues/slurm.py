"""Slurm, through sbatch, squeue and scancel; no accounting database is needed."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from ensemblerl.cluster.queues.base import Queue, Queued, QueueSilent, by_name, seconds
from ensemblerl.cluster.queues.commands import (
    ask,
    check_cancelled,
    handed_in,
    job_name,
    kept,
    says_output,
)

FIELDS = (
    "JobID",
    "State",
    "Reason",
    "TimeLeft",
    "TimeUsed",
    "EndTime",
    "NodeList",
    "RestartCnt",
    "Name",
)
"""Columns of squeue. The name is last: it may hold anything, the separator as well."""
PENDING = {
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
    "POWER_UP_NODE",
}
ENDS = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "NODE_FAIL": "node_fail",
    "BOOT_FAIL": "node_fail",
    "LAUNCH_FAILED": "node_fail",
    "RECONFIG_FAIL": "node_fail",
    "OUT_OF_MEMORY": "out_of_memory",
    "PREEMPTED": "preempted",
    "STAGE_OUT": "unknown",
}
"""State -> how a job ended."""
REASONS = {
    "TimeLimit": "timeout",
    "NonZeroExitCode": "failed",
    "NodeDown": "node_fail",
    "OutOfMemory": "out_of_memory",
}
"""How a job in COMPLETING ended, as far as its reason tells; the state comes when it is over."""
NOW = re.compile(r"^last_update_time=(\d+)", re.MULTILINE)
TOLD = re.compile(r"^(\d+)(?:;\S*)?$", re.MULTILINE)
"""Id of a job that was taken, and maybe the cluster that took it."""
HARMLESS = re.compile("invalid job id|already (completing|completed)|job/step already", re.I)


class Slurm(Queue):
    """The queue of a Slurm machine.

    A job that ended is listed for the site's ``MinJobAge`` (300 s unless set), then nobody knows
    it: `scontrol` reads the same memory and forgets with `squeue`.
    """

    name = "slurm"
    commands: tuple[str, ...] = ("sbatch", "squeue", "scancel")

    def jobs(self, ids: Collection[str]) -> dict[str, Queued]:
        """See `Queue`; one call, however many they are."""
        wanted = set(ids)
        return {job.id: job for job in self._all() if job.id in wanted} if wanted else {}

    def find(self, names: Collection[str]) -> dict[str, Queued]:
        """See `Queue`."""
        return by_name(self._all(), names) if names else {}

    def submit(self, script: str, directory: Path) -> str:
        """See `Queue`."""
        name = job_name(script, "#SBATCH", "-J", "--job-name")
        path = kept(script, directory, name)
        log = str(path.with_suffix(".log")).replace("%", "%%")
        # a job that was put back goes on in the same file
        output = [] if says_output(script, "#SBATCH") else ["--open-mode=append", f"--output={log}"]
        # once more here: a second name further down in the script would count
        return handed_in(TOLD, "sbatch", "--parsable", f"--job-name={name}", *output, str(path))

    def cancel(self, ids: Collection[str]) -> None:
        """See `Queue`."""
        if ids:
            check_cancelled("scancel", ask("scancel", *sorted(ids)), HARMLESS)

    def _all(self) -> Iterator[Queued]:
        # -v tells the controller's time; -u asks it for this user's jobs only
        columns = ",".join(f"{field}:|" for field in FIELDS)
        said = ask("squeue", "-h", "-v", "-a", "-t", "all", "-u", str(os.getuid()), "-O", columns)
        if said.code != 0:
            raise QueueSilent(f"squeue: {said.complaint}")
        return parsed(said.out)


def parsed(text: str) -> Iterator[Queued]:
    """The jobs in what ``squeue -v -O`` printed."""
    told = NOW.search(text)
    now = int(told[1]) if told else None
    for line in text.splitlines():
        values = line.split("|", len(FIELDS) - 1)
        if len(values) == len(FIELDS) and values[0].isdigit():
            yield _job(dict(zip(FIELDS, values, strict=True)), now)


def _job(row: dict[str, str], now: int | None) -> Queued:
    restarts = int(row["RestartCnt"]) if row["RestartCnt"].isdigit() else 0
    state, end = _state(row, restarts)
    return Queued(
        id=row["JobID"],
        name=row["Name"].removesuffix("|"),
        state=state,
        end=end,
        reason="" if row["Reason"] == "None" else row["Reason"],
        node=row["NodeList"],
        left=_left(row, now) if state == "running" else None,
        restarts=restarts,
    )


def _state(row: dict[str, str], restarts: int) -> tuple[str, str]:
    state = row["State"]
    if state == "COMPLETING" and restarts and seconds(row["TimeUsed"]) == 0:
        return "pending", ""  # just put back: its last run is going, the next one will come
    if state in PENDING:
        return "pending", ""
    if state == "COMPLETING":  # its processes are gone or going: it has no worker
        return "ended", REASONS.get(row["Reason"], "unknown")
    if state in ENDS:
        return "ended", ENDS[state]
    return "running", ""  # suspended, stopped, resizing: it has its nodes


def _left(row: dict[str, str], now: int | None) -> float | None:
    """By the controller's clock; squeue counts TimeLeft by that of the machine it runs on."""
    if now is not None and row["EndTime"].isdigit():
        return max(0.0, float(int(row["EndTime"]) - now))
    return 0.0 if row["TimeLeft"] == "INVALID" else seconds(row["TimeLeft"])
