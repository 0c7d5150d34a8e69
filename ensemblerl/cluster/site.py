"""Files that say once for a machine what its jobs are made of: TOML, to share with a group."""

from __future__ import annotations

import datetime
import os
import tomllib
from pathlib import Path
from typing import Any

from ensemblerl.cluster.arguments import expanded, misspelt
from ensemblerl.cluster.settings import Settings, names

TABLE = "cluster"
EXAMPLE = """\
# The jobs of one machine, for EnsembleRL: cluster="my-site.toml". Remove the # of what you need.
[cluster]
scheduler = "slurm"              # or "pbs"
n_jobs = 8                       # jobs to keep running
cores = 4                        # of one job
memory = "8 GB"                  # of one job
walltime = "02:00:00"            # or "90 min"; without it: the default of the queue
# queue = "regular"              # or partition
# account = "my-project"
# nodes = 1                      # of one job; its cores and memory are shared out evenly
# gpus = 0                       # of one job
# members_per_job = 4            # side by side; without it: as many as the cores allow
# max_runtime = "20 min"         # what a member takes at most, where that is known
# options = ["--constraint=haswell"]                   # more directives for sbatch or qsub
# prologue = ["module load gcc", "module load mpich"]  # lines before the worker starts
# interface = "ib0"              # network interface that workers and scheduler use
# host = "10.0.0.1"              # address of the scheduler, where nodes need another
# python = "$HOME/venv/bin/python"      # interpreter on the nodes
# directory = "$SCRATCH/ensemblerl"     # job scripts and logs; without it: in the store
# death_timeout = 60             # seconds that a worker waits for its scheduler
# custom = "my-job.sh"           # a batch file of your own, with {worker} alone on a line; then
#                                # no queue, account, options and prologue here
# encrypted = true
# dashboard = false              # true: Dask's, on this machine only
# name = "ensemblerl"            # of the jobs
# retry_limit = 6                # jobs in a row that may fail before the campaign gives up
"""


def from_toml(path: str | os.PathLike[str], **overrides: Any) -> Settings:
    """Settings from a file: the arguments of `Settings`, in a table ``[cluster]`` or at the top.

    ``~`` and ``$VARIABLES`` are filled in where a path is wanted; ``custom`` and ``directory``
    that are relative start at the file, so that it works from anywhere.

    Parameters
    ----------
    path : of the file
    overrides : arguments that replace what the file says

    Raises
    ------
    FileNotFoundError
        when there is no such file
    TypeError, ValueError
        naming the file, the argument, what was wanted and what came
    """
    file = Path(expanded(str(os.fspath(path))))
    given = _table(file)
    for name in given:
        if name not in names():
            raise ValueError(f"{file}: {misspelt(name, names())}")
    arguments = {name: _value(name, value, file) for name, value in given.items()} | overrides
    if arguments.get("scheduler") is None:
        raise ValueError(f'{file}: wanted scheduler = "slurm" or "pbs", found none')
    try:
        return Settings(**arguments)
    except (TypeError, ValueError, FileNotFoundError) as error:
        # each message begins with the name of its argument
        if str(error).split(":")[0] in overrides:
            raise
        raise type(error)(f"{file}: {error}") from None


def example() -> str:
    """Text of a file with every argument and what it means."""
    return EXAMPLE


def _table(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"cluster: wanted a TOML file, there is none at {str(file)!r}")
    try:
        found = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: this is no valid TOML: {error}") from None
    if TABLE not in found:
        _check_table(found, file)
        return found
    table = found.pop(TABLE)
    if found:
        raise ValueError(
            f"{file}: wanted all arguments in the table [{TABLE}], found {', '.join(found)} beside"
        )
    if not isinstance(table, dict):
        raise ValueError(f"{file}: wanted a table [{TABLE}], got {table!r}")
    return table


def _check_table(found: dict[str, Any], file: Path) -> None:
    """A table of another name; an argument is never one."""
    for name in (name for name, value in found.items() if isinstance(value, dict)):
        meant = "; did you mean that?" if misspelt(name, [TABLE]).endswith(TABLE + "?") else ""
        raise ValueError(f"{file}: wanted arguments in a table [{TABLE}], found [{name}]{meant}")


def _value(name: str, value: Any, file: Path) -> Any:
    """What `Settings` takes, from what TOML gives."""
    if isinstance(value, datetime.time):  # 02:00:00 without quotes is a time of day to TOML
        return value.isoformat()
    if not isinstance(value, str) or name not in ("custom", "directory", "python"):
        return value
    if name == "custom" and "\n" in value:  # the batch file itself: its variables are its own
        return value
    value = expanded(value)
    return value if name == "python" else str(file.absolute().parent / value)
