"""What goes into a job script: arguments for dask-jobqueue, which writes it, and our lines.

The cores and the memory of `Settings` are those of a job. Over several nodes they are split
evenly: Slurm and PBS both count by node. The worker, and with it the scripts of programs, runs on
the first one; ``srun`` and ``mpiexec`` see all of them.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from ensemblerl.cluster.arguments import HOLDER, plain
from ensemblerl.cluster.settings import Settings, configured

OUTSIDE = "ensemblerl-jobs"
"""Directory for job scripts, their output, and keys in the current one: for a campaign without a
store that nodes could see."""
LOGS = "logs"
"""Directory of what the queue writes for each job."""
MIB = 2**20
LOOPBACK = "127.0.0.1:0"
RUN = "ensemblerl_worker"
"""Shell function that the worker is started with."""
PATIENCE = 5
"""Seconds that a worker has to end by itself: the queue tells all processes of a job at once, and
a Dask worker that is told twice ends without goodbye."""
GRACE = 60
"""Seconds that members have to end once the queue has asked the job to: it kills them sooner."""

FIRST = "# EnsembleRL: seconds of uptime at which this job began: no clock can be set wrong"
CLOCK = """\
read -r ENSEMBLERL_BEGAN _ < /proc/uptime
export ENSEMBLERL_BEGAN"""
HERE = """\
# EnsembleRL: work where qsub was called, as sbatch does it
cd "${PBS_O_WORKDIR:-.}" || :"""
TOKEN = {"slurm": "${SLURM_JOB_ID:-$$}", "pbs": "${PBS_JOBID:-${SLURM_JOB_ID:-$$}}"}
JOB = """\
# EnsembleRL: which run of which job this is; its members are found by that
export ENSEMBLERL_JOB="{token}@$(hostname)+$ENSEMBLERL_BEGAN\""""
WALLTIME = """\
# EnsembleRL: how long this job may take, in seconds
export ENSEMBLERL_WALLTIME={seconds}"""
PASS_ON = """\
# EnsembleRL: with --export=NONE srun would give members no environment either
unset SLURM_EXPORT_ENV"""
FUNCTION = """\
# EnsembleRL: run the worker; when it is gone wait for members that go on without it, and end as
# it did. When the queue asks this job to end, so is the worker, and the wait is short.
ensemblerl_worker() {{
    ensemblerl_asked= ensemblerl_until=
    trap 'ensemblerl_asked=1' TERM INT HUP USR1 USR2 XCPU
    "$@" &
    ensemblerl_pid=$!
    while wait "$ensemblerl_pid"; ensemblerl_status=$?; [ -n "$ensemblerl_asked" ]; do
        ensemblerl_asked=
        ensemblerl_until=--until={grace}
        for _ in {seconds}; do
            kill -0 "$ensemblerl_pid" 2>/dev/null || break
            sleep 1
        done
        kill -TERM "$ensemblerl_pid" 2>/dev/null || :
    done
    {linger} $ensemblerl_until &
    ensemblerl_pid=$!
    while wait "$ensemblerl_pid"; [ -n "$ensemblerl_asked" ]; do
        ensemblerl_asked=
        kill -TERM "$ensemblerl_pid" 2>/dev/null || :
        {linger} --until={grace} &
        ensemblerl_pid=$!
    done
    trap - TERM INT HUP USR1 USR2 XCPU
    return "$ensemblerl_status"
}}"""

TWICE = re.compile(
    r"(?<= )--nthreads \S+ --memory-limit \S+ (?=.* --nthreads \d+ --memory-limit 0(?: |$))",
    re.MULTILINE,
)
"""What dask-jobqueue says of a worker's threads and memory, where ours comes after it."""
NAMED = {
    "slurm": re.compile(r"^(#SBATCH\s+(?:-J|--job-name)[=\s]\s*)\S+", re.MULTILINE),
    "pbs": re.compile(r"^(#PBS\s+-N\s+)\S+", re.MULTILINE),
}
NAME = {"slurm": "#SBATCH -J", "pbs": "#PBS -N"}
"""Where a script names its job, and how it does."""


def cluster_arguments(
    settings: Settings,
    *,
    slots: int,
    member_cores: int,
    processes: int = 1,
    directory: str | os.PathLike[str],
    security: Any = None,
) -> dict[str, Any]:
    """Keyword arguments for ``dask_jobqueue.SLURMCluster`` or ``PBSCluster``.

    What dask's configuration says under ``jobqueue`` counts where `Settings` says nothing.

    Parameters
    ----------
    settings : of the jobs
    slots : members that run side by side in a job: threads of its workers
    member_cores : processor cores of one member. With more than one, or with several nodes, the
        job is given a task a core, so that ``srun -n`` and ``mpiexec -n`` have room for them
    processes : workers in a job, among which the slots are shared out
    directory : that exists, on a disk that the nodes see: for certificates and logs
    security : of Dask; None for plain connections

    Raises
    ------
    ValueError
        for a directory that batch files cannot name
    """
    root = plain("directory", os.path.abspath(directory))  # noqa: PTH100
    arguments = {
        "n_workers": 0,
        "cores": settings.cores,
        "memory": settings.memory,
        "processes": processes,
        "nanny": True,
        "walltime": settings.walltime,
        "queue": settings.queue,
        "account": settings.account,
        "job_name": settings.name,
        "python": f"{RUN} {_python(settings)}",
        "interface": settings.interface,
        "death_timeout": math.ceil(settings.death_timeout),
        "job_script_prologue": _prologue(settings),
        "worker_extra_args": _worker_arguments(settings, slots // processes),
        "scheduler_options": _scheduler_options(settings),
        "log_directory": str(Path(root) / LOGS),
        "shared_temp_directory": root,
        "security": security,
        "silence_logs": logging.CRITICAL,
    }
    request = _slurm if settings.scheduler == "slurm" else _pbs
    return arguments | request(settings, settings.nodes > 1 or member_cores > 1)


def job_text(script: str, settings: Settings) -> str:
    """The batch file to submit: dask-jobqueue's, or the user's own around the worker.

    The worker is told its threads and its memory once, the way we have it.

    Parameters
    ----------
    script : what dask-jobqueue made of `cluster_arguments`
    settings : of the jobs

    Raises
    ------
    ValueError
        when it is not made of these arguments
    """
    script = TWICE.sub("", script, count=1)
    if settings.custom is None:
        return script
    if FIRST not in script:
        raise ValueError("script: wanted one made of cluster_arguments(), our lines are missing")
    worker = script[script.index(FIRST) :].rstrip("\n")
    return settings.custom.replace(HOLDER, worker)


def named(text: str, title: str, scheduler: str) -> str:
    """The script with this name of the job in place of its own: by that it is found again."""
    renamed, n = NAMED[scheduler].subn(lambda found: found[1] + title, text)
    if n:
        return renamed
    first, _, rest = text.partition("\n")
    return f"{first}\n{NAME[scheduler]} {title}\n{rest}"


def _slurm(settings: Settings, tasks: bool) -> dict[str, Any]:
    """Nodes, cores, memory and GPUs; Slurm counts memory and GPUs by node."""
    n, more, skip = settings.nodes, [], []
    if settings.walltime is None:
        skip += ["#SBATCH -t "]  # dask-jobqueue's own half an hour
    if tasks:
        skip += ["#SBATCH -n 1", "#SBATCH --cpus-per-task="]
        more += [f"--nodes={n}", f"--ntasks-per-node={settings.cores // n}"]
    if settings.gpus:
        more += [f"--gres=gpu:{settings.gpus // n}"]
    options = _options(settings)
    if any(option.startswith("--mem") for option in options):
        skip += ["#SBATCH --mem="]  # sbatch takes one of --mem and --mem-per-cpu
    return {
        "job_mem": f"{math.ceil(settings.memory / n / MIB)}M",
        "job_extra_directives": more + options,
        "job_directives_skip": skip,
    }


def _pbs(settings: Settings, tasks: bool) -> dict[str, Any]:
    """The same as chunks, one a node."""
    n, more, skip = settings.nodes, [], []
    cores = settings.cores // n
    chunk = f"select={n}:ncpus={cores}"
    chunk += f":mpiprocs={cores}" if tasks else ""
    chunk += f":ngpus={settings.gpus // n}" if settings.gpus else ""
    chunk += f":mem={math.ceil(settings.memory / n / MIB)}mb"
    if n > 1:
        more += ["-l place=scatter"]
    if settings.walltime is None:
        skip += ["#PBS -l walltime="]
    options = _options(settings)
    if any(option.startswith(("-l select", "-l nodes")) for option in options):
        skip += ["#PBS -l select="]
    return {
        "resource_spec": chunk,
        "job_extra_directives": more + options,
        "job_directives_skip": skip,
    }


def _options(settings: Settings) -> list[str]:
    return list(settings.options or configured(settings.scheduler, "job-extra-directives") or ())


def _prologue(settings: Settings) -> list[str]:
    """Our lines, the user's after the clock: loading modules is a part of the job's time."""
    theirs = settings.prologue
    if not theirs and settings.custom is None:
        theirs = tuple(configured(settings.scheduler, "job-script-prologue") or ())
    slurm = settings.scheduler == "slurm"
    ours = [JOB.format(token=TOKEN[settings.scheduler]), PASS_ON if slurm else ""]
    if settings.walltime_s is not None:
        ours.append(WALLTIME.format(seconds=math.ceil(settings.walltime_s)))
    linger = f"{_python(settings)} -m ensemblerl.supervisor.linger"
    seconds = " ".join(map(str, range(1, PATIENCE + 1)))
    function = FUNCTION.format(linger=linger, grace=GRACE, seconds=seconds)
    return [FIRST, CLOCK, "" if slurm else HERE, *theirs, *ours, function]


def _python(settings: Settings) -> str:
    """For the shell; several words, such as ``apptainer exec image python3``, stay as they are."""
    python = settings.python or configured(settings.scheduler, "python") or sys.executable
    return shlex.quote(python) if Path(python).is_file() else str(python)


def _worker_arguments(settings: Settings, threads: int) -> list[str]:
    """The last of each counts: a user's own ``--nthreads`` and ``--memory-limit`` come before.

    Without a memory limit: what members need is the queue's affair, and a worker that Dask pauses
    for it would take no other. Its small web server is not for the network.
    """
    theirs = configured(settings.scheduler, "worker-extra-args") or ()
    server = ["--no-dashboard", "--dashboard-address", LOOPBACK]
    return [*map(str, theirs), *server, "--nthreads", str(threads), "--memory-limit", "0"]


def _scheduler_options(settings: Settings) -> dict[str, Any]:
    at = settings.dashboard if isinstance(settings.dashboard, str) else LOOPBACK
    options: dict[str, Any] = {
        **(configured(settings.scheduler, "scheduler-options") or {}),
        "dashboard": settings.dashboard is not False,
        "dashboard_address": at,
        "allowed_failures": 0,
    }
    if settings.host is not None:
        options["host"] = settings.host
    return options
