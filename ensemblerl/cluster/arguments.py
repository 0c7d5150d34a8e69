"""Checks of the arguments of a cluster, one function a kind; errors name the argument."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MARK = {"slurm": "#SBATCH", "pbs": "#PBS"}
"""With what a directive begins in a batch file."""
HOLDER = "{worker}"
"""Where a batch file of the user's own starts the worker."""
OURS: dict[str, dict[str, str]] = {
    "slurm": {
        **{"-t": "walltime", "--time": "walltime", "-J": "name", "--job-name": "name"},
        **{"-o": "directory", "--output": "directory", "-e": "directory", "--error": "directory"},
        **{"-a": "n_jobs", "--array": "n_jobs", "-N": "nodes", "--nodes": "nodes"},
    },
    "pbs": {"-N": "name", "-o": "directory", "-e": "directory", "-J": "n_jobs", "-t": "n_jobs"},
}
"""Directives that an argument stands for: what we know of the jobs would be wrong beside them."""

ALIASES = {
    **{"partition": "queue", "time": "walltime", "time_limit": "walltime", "mem": "memory"},
    **{"project": "account", "job_extra_directives": "options", "job_extra": "options"},
    **{"job_script_prologue": "prologue", "env_extra": "prologue", "processes": "members_per_job"},
    **{"log_directory": "directory", "jobs": "n_jobs", "runtime": "expected_runtime"},
}
"""What batch systems and dask-jobqueue call it -> the argument."""


def given(name: str, value: Any, what: str) -> Any:
    """An argument that cannot be left out."""
    if value is None:
        raise ValueError(f"{name}: must be given: {what}")
    return value


def text(name: str, value: Any) -> str | None:
    """One line of text, or None."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value.splitlines()) != 1:
        raise ValueError(f"{name}: wanted one line of text or None, got {value!r}")
    return value.strip()


def word(name: str, value: Any) -> str | None:
    """Text without blanks or what a shell does not take as it is, or None."""
    found = text(name, value)
    if found is not None and not re.fullmatch(r"[\w@%+=:,./~-]+", found):
        raise ValueError(f"{name}: wanted a name without blanks or quotes, got {value!r}")
    return found


def job_name(name: str, value: Any) -> str:
    """What Slurm and PBS both take as a job's name: a letter, then letters, digits, _ . and -."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z][\w.-]{0,63}", value, re.ASCII):
        raise ValueError(
            f"{name}: wanted at most 64 letters, digits, _ . and -, a letter first; got {value!r}"
        )
    return value


def switch(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: wanted True or False, got {value!r}")
    return value


def address(name: str, value: Any) -> bool | str:
    """False, True, or text such as ``":8787"``."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[\w.-]*:\d{1,5}", value):
        return value
    raise ValueError(f'{name}: wanted False, True or an address such as ":8787", got {value!r}')


def lines(name: str, value: Any) -> tuple[str, ...]:
    """Lines of text, from a list of them or one text; empty ones are dropped."""
    given = value.splitlines() if isinstance(value, str) else value
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise ValueError(f"{name}: wanted a list of texts, got {value!r}")
    given = list(given)
    for line in given:
        if not isinstance(line, str) or len(line.splitlines()) > 1:
            raise ValueError(f"{name}: wanted a list of texts of one line each, got {line!r} in it")
    return tuple(line.rstrip() for line in given if line.strip())


def directives(name: str, value: Any, scheduler: str) -> tuple[str, ...]:
    """Options of sbatch or qsub, one a text, without the mark that begins them in a file."""
    found = [_directive(name, line.strip(), scheduler) for line in lines(name, value)]
    return tuple(found)


def _directive(name: str, line: str, scheduler: str) -> str:
    bare = line.removeprefix(MARK[scheduler]).strip()
    if not bare.startswith("-"):
        raise ValueError(
            f'{name}: wanted directives for {scheduler} such as "--constraint=haswell" or '
            f'"{MARK[scheduler]} -l place=excl", got {line!r}'
        )
    key = re.split(r"[\s=]", bare)[0]
    # sbatch and qsub take "-t10" for "-t 10"
    key = key if key.startswith("--") else key[:2]
    argument = OURS[scheduler].get(key)
    if scheduler == "pbs" and re.match(r"-l\s*(?:\S*,)?walltime=", bare):
        argument = "walltime"
    if argument is not None:
        raise ValueError(f"{name}: give {argument}=... in place of the directive {line!r}")
    return bare


def path(name: str, value: Any) -> str | None:
    """A path with ``~`` and ``$VARIABLES`` filled in, absolute, that needs no quotes; or None."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(f"{name}: wanted a directory or None, got {value!r}")
    return plain(name, os.path.abspath(expanded(str(os.fspath(value)))))  # noqa: PTH100


def plain(name: str, value: str) -> str:
    """The path, where batch files can hold it: ``%`` is replaced there, and quotes are not read."""
    if not re.fullmatch(r"[\w@+=:,./~-]+", value):
        raise ValueError(
            f"{name}: wanted a path of letters, digits and _ @ + = : , . / ~ - only, because batch "
            f"files cannot quote it; got {value!r}"
        )
    return value


def expanded(value: str) -> str:
    """With ``~`` and ``$VARIABLES`` filled in."""
    return os.path.expandvars(os.path.expanduser(value))  # noqa: PTH111


def batch_file(name: str, value: Any) -> str | None:
    """Text of a user's own batch file, from text of several lines or from a path.

    Raises
    ------
    FileNotFoundError, ValueError
        when there is no such file; when it does not hold ``{worker}`` once, on a line of its own;
        when it is no shell script
    """
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(f"{name}: wanted the path or the text of a batch file, got {value!r}")
    content = str(os.fspath(value))
    if "\n" not in content:
        file = Path(expanded(content))
        if not file.is_file():
            raise FileNotFoundError(f"{name}: wanted a batch file, there is none at {str(file)!r}")
        content = file.read_text()
    _check_batch_file(name, content)
    return content


def _check_batch_file(name: str, content: str) -> None:
    first = content.splitlines()[0] if content else ""
    if not re.match(r"#!.*\b(ba|da|k|z)?sh\b", first):
        raise ValueError(f'{name}: wanted a shell script ("#!/bin/bash" first), got {first!r}')
    if content.count(HOLDER) != 1:
        raise ValueError(
            f"{name}: wanted {HOLDER} once, where the file starts the worker; it is there "
            f"{content.count(HOLDER)} times"
        )
    if HOLDER not in map(str.strip, content.splitlines()):
        raise ValueError(f"{name}: wanted {HOLDER} on a line of its own: several lines replace it")


def misspelt(name: str, known: Iterable[str]) -> str:
    """What to say of an argument that does not exist."""
    known = list(known)
    alias = ALIASES.get(name.lower().replace("-", "_"))
    close = [alias] if alias in known else difflib.get_close_matches(name.lower(), known, n=1)
    return f"{name}: no such argument" + (f"; did you mean {close[0]}?" if close else "")
