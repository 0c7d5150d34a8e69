"""What to start on this machine: executables by name, and the environment they get."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

THREADS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
)


def environment_for(threads: int, own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program: ours, its threads, what was asked for, and the PATH.

    Dask's nanny sets the number of threads to 1 for its workers; programs would inherit that.
    The directory of this Python comes last on the PATH: executables that pip installed lie there,
    also where the virtual environment was never activated.
    """
    out = {**os.environ, **dict.fromkeys(THREADS, str(threads)), **own}
    out["PATH"] = os.pathsep.join([out.get("PATH", os.defpath), str(beside())])
    return out


def beside() -> Path:
    """The directory of this Python, that of the virtual environment when there is one."""
    return Path(sys.executable).absolute().parent


def find(name: str, directory: Path, path: str) -> str:
    """Absolute path of an executable.

    Parameters
    ----------
    name : a bare name is looked for on ``path``; one with a "/" in the working directory first
    directory : the working directory
    path : directories, as in the variable PATH

    Raises
    ------
    FileNotFoundError
        saying what was looked for and where
    """
    named = "/" in name
    places = [str(directory / name), name] if named else [name]
    for place in places:
        found = shutil.which(place, path=path)
        if found is not None:
            return str(Path(found).absolute())
    raise FileNotFoundError(_missing(name, directory, path))


def _missing(name: str, directory: Path, path: str) -> str:
    host = platform.node()
    if "/" not in name:
        return (
            f"command: wanted an executable, got {name!r}, which is not on the PATH of host "
            f"{host}, nor beside its Python ({beside()}); install it there, load its module "
            f"before the worker starts, or give its absolute path. PATH: {path}"
        )
    there = [p for p in (directory / name, Path(name)) if p.is_file()]
    why = f"may not be executed (chmod +x {there[0]})" if there else "is not there"
    return f"command: wanted an executable, got {name!r}, which {why} on host {host}"
