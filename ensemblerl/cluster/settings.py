"""What a cluster of batch jobs is made of: all arguments, checked where they are given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

from ensemblerl.cluster import arguments as check
from ensemblerl.cluster.walltime import clock, duration
from ensemblerl.simulations import limits

SCHEDULERS = ("slurm", "pbs")
SHORTEST = 60.0
"""Seconds; Slurm counts walltime in minutes."""
SHIPPED = "00:30:00"
"""The walltime that dask-jobqueue brings along, whatever the queue: nobody's choice."""
HOW_MANY = "how many jobs to keep running, such as n_jobs=8"
IN_FILE = {
    "options": "its lines {mark}",
    "queue": "its lines {mark}",
    "account": "its lines {mark}",
    "prologue": "lines above {{worker}}",
}
"""Arguments that have no place beside a batch file of the user's own, and where they go."""


@dataclass(frozen=True, init=False)
class Settings:
    """The jobs that a cluster asks a batch system for.

    Parameters
    ----------
    scheduler : "slurm" or "pbs"
    n_jobs : jobs to keep running
    cores : processor cores of one job, over all its nodes; None: what dask's configuration says
        under ``jobqueue.<scheduler>.cores``
    memory : of one job, over all its nodes: bytes, or text such as ``"8 GB"``; None: as for cores
    walltime : of one job: ``"02:00:00"``, ``"1-12:00:00"``, ``"30:00"`` (minutes and seconds, as
        Slurm has it), ``"90 min"``, or seconds; kept as ``walltime_s`` and, for the directive, as
        text. None: what dask's configuration says, else the default of the queue
    queue : or partition; None: dask's configuration, else the default of the site
    account : to be charged; None: as for queue
    nodes : of one job; each gives the same share of its cores, memory and GPUs
    gpus : of one job
    members_per_job : members that run side by side in a job; None: as many as its cores allow
    max_runtime : what a member takes at most, in seconds or as ``walltime``, where that is known
    options : directives for sbatch or qsub, such as ``"--constraint=haswell"``; None of them:
        dask's configuration
    prologue : lines of shell for the job script before its worker, such as ``"module load gcc"``.
        What is loaded in the submitting shell is passed on by sbatch unless the site or an option
        says ``--export=NONE``, and not by qsub without ``-V``; Python is called by its path, and
        needs neither
    interface : network interface that workers and scheduler use, such as ``"ib0"``
    host : address of the Dask scheduler, where nodes reach this machine by another one
    python : interpreter on the nodes; None: dask's configuration, else the one that runs here
    directory : for job scripts, logs and certificates, on a disk that the nodes see; ``~`` and
        ``$VARIABLES`` are filled in; None: in the store
    death_timeout : seconds that a worker waits for its scheduler
    custom : path or text of a batch file of your own, in which ``{worker}`` stands alone on a line
    encrypted : TLS between client, scheduler and workers
    dashboard : of Dask. True: on this machine only; an address such as ``":8787"``: there
    name : of the jobs
    retry_limit : jobs in a row that may fail to be submitted, or end before their worker connects

    Raises
    ------
    TypeError
        for an argument that does not exist
    ValueError, FileNotFoundError
        naming the argument, what was wanted and what came
    """

    scheduler: str
    _: KW_ONLY
    n_jobs: int
    cores: int
    memory: int
    walltime: str | None
    walltime_s: float | None
    queue: str | None
    account: str | None
    nodes: int
    gpus: int
    members_per_job: int | None
    max_runtime: float | None
    options: tuple[str, ...]
    prologue: tuple[str, ...]
    interface: str | None
    host: str | None
    python: str | None
    directory: str | None
    death_timeout: float
    custom: str | None
    encrypted: bool
    dashboard: bool | str
    name: str
    retry_limit: int

    def __init__(
        self,
        scheduler: str,
        *,
        n_jobs: int | None = None,
        cores: int | None = None,
        memory: int | str | None = None,
        walltime: str | float | None = None,
        queue: str | None = None,
        account: str | None = None,
        nodes: int = 1,
        gpus: int = 0,
        members_per_job: int | None = None,
        max_runtime: str | float | None = None,
        options: str | Sequence[str] = (),
        prologue: str | Sequence[str] = (),
        interface: str | None = None,
        host: str | None = None,
        python: str | os.PathLike[str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        death_timeout: float = 60.0,
        custom: str | os.PathLike[str] | None = None,
        encrypted: bool = True,
        dashboard: bool | str = False,
        name: str = "ensemblerl",
        retry_limit: int = 6,
        **misspelt: Any,
    ) -> None:
        for unknown in misspelt:
            raise TypeError(check.misspelt(unknown, names()))
        put = vars(self)
        put["scheduler"] = limits.one_of("scheduler", scheduler, SCHEDULERS)
        put["custom"] = check.batch_file("custom", custom)
        put["n_jobs"] = limits.whole("n_jobs", check.given("n_jobs", n_jobs, HOW_MANY), least=1)
        put["cores"] = limits.whole(*_or_configured("cores", cores, scheduler), least=1)
        put["memory"] = limits.size(*_or_configured("memory", memory, scheduler))
        put["walltime_s"] = duration(*_walltime(walltime, scheduler, custom is not None))
        put["walltime"] = None if self.walltime_s is None else clock(self.walltime_s)
        put["queue"] = check.word("queue", queue)
        put["account"] = check.word("account", account)
        put["nodes"] = limits.whole("nodes", nodes, least=1)
        put["gpus"] = limits.whole("gpus", gpus, least=0)
        if members_per_job is not None:
            limits.whole("members_per_job", members_per_job, least=1)
        put["members_per_job"] = members_per_job
        put["max_runtime"] = duration("max_runtime", max_runtime)
        put["options"] = check.directives("options", options, scheduler)
        put["prologue"] = check.lines("prologue", prologue)
        put["interface"] = check.word("interface", interface)
        put["host"] = check.word("host", host)
        python = os.fspath(python) if isinstance(python, os.PathLike) else python
        put["python"] = check.text("python", python)
        put["directory"] = check.path("directory", directory)
        put["death_timeout"] = _seconds("death_timeout", death_timeout)
        put["encrypted"] = check.switch("encrypted", encrypted)
        put["dashboard"] = check.address("dashboard", dashboard)
        put["name"] = check.job_name("name", name)
        put["retry_limit"] = limits.whole("retry_limit", retry_limit, least=0)
        _check_together(self)

    def slots(self, member_cores: int) -> int:
        """Members of so many cores that run side by side in one job.

        Raises
        ------
        ValueError
            for a member that has no room in a job, unless ``members_per_job`` says that it has
        """
        limits.whole("member_cores", member_cores, least=1)
        if self.members_per_job is not None:
            return self.members_per_job
        if member_cores > self.cores:
            raise ValueError(
                f"cores: a member needs {member_cores} (cores= of the simulation), a job has "
                f"{self.cores} (cores= of the cluster); give the cluster cores={member_cores} or "
                "more, the simulation fewer, or members_per_job=1 to start it there all the same"
            )
        return 1 if self.nodes > 1 else self.cores // member_cores


def names() -> tuple[str, ...]:
    """All arguments there are."""
    return tuple(field.name for field in fields(Settings) if field.name != "walltime_s")


def configured(scheduler: str, name: str) -> Any:
    """What dask's configuration says of a job; None where nobody has said anything."""
    import dask

    key = f"jobqueue.{scheduler}.{name}"
    value = dask.config.get(key, None)
    if (name, value) == ("walltime", SHIPPED):
        # whether dask-jobqueue has been imported yet must make no difference
        return dask.config.get(key, None, config=dask.config.collect())
    return value


def _or_configured(name: str, value: Any, scheduler: str) -> tuple[str, Any]:
    """An argument that must be there, with the name to use in messages."""
    if value is not None:
        return name, value
    key = f"jobqueue.{scheduler}.{name}"
    found = configured(scheduler, name)
    if found is None:
        raise ValueError(f"{name}: wanted {name}=... of one job, or {key} in dask's configuration")
    return f"{key} of dask's configuration", found


def _walltime(value: Any, scheduler: str, custom: bool) -> tuple[str, Any]:
    if value is not None or custom:
        return "walltime", value
    # as text: a bare number means minutes to one queue and seconds to another, which is refused
    found = configured(scheduler, "walltime")
    name = f"jobqueue.{scheduler}.walltime of dask's configuration"
    return name, None if found is None else str(found)


def _seconds(name: str, value: Any) -> float:
    found = limits.seconds(name, value)
    if found is None:
        raise ValueError(f"{name}: wanted seconds > 0, got None")
    return found


def _check_together(settings: Settings) -> None:
    """What is right by itself and wrong in company."""
    s = settings
    if s.nodes > 1 and s.members_per_job not in (None, 1):
        raise ValueError(
            f"members_per_job: wanted 1 or None with nodes={s.nodes}, where a member takes the "
            f"whole job; got {s.members_per_job}"
        )
    for name, value in {"cores": s.cores, "gpus": s.gpus}.items():
        if value % s.nodes:
            raise ValueError(
                f"{name}: wanted a multiple of nodes={s.nodes}, each gives as many; got {value}"
            )
    for name, where in IN_FILE.items():
        if s.custom is not None and (given := getattr(s, name)):
            place = where.format(mark=check.MARK[s.scheduler])
            raise ValueError(
                f"{name}: with custom, {name} goes into your batch file ({place}); got {given!r}"
            )
    if s.walltime_s is not None and s.walltime_s < SHORTEST:
        raise ValueError(f"walltime: wanted at least {SHORTEST:.0f} s, got {s.walltime_s:g} s")
    if s.walltime_s is not None and s.max_runtime is not None and s.max_runtime > s.walltime_s:
        raise ValueError(
            f"max_runtime: wanted no more than walltime={s.walltime} ({s.walltime_s:g} s), or no "
            f"member could end in its job; got {s.max_runtime:g} s"
        )
