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
LAUNCHED = (
    *("PMI_", "HYDI_CONTROL_FD", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # MPICH's Hydra, Intel MPI
    *("PMIX_", "OMPI_COMM_WORLD_", "OMPI_UNIVERSE_SIZE"),  # Open MPI's mpirun, srun --mpi=pmix
    *("OMPI_MCA_ess", "OMPI_MCA_orte_"),  # Open MPI's mpirun up to version 4
)
"""How the variables begin by which launchers tell a process that it is one of their ranks.

The environment variables of Open MPI's are listed in its manual (docs.open-mpi.org, "Environment
variables set for MPI applications"); those of Hydra are what ``mpiexec -n 1 env`` adds.
"""
SETTINGS = "PMIX_MCA_"
"""Variables that begin so are choices of the user."""


def environment_for(threads: int, own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program: ours, its threads, what was asked for, and the PATH.

    Dask's nanny sets the number of threads to 1 for its workers; programs would inherit that.
    mpiexec and srun tell a worker that they start its rank, in variables: a program that inherits
    them takes itself for that rank, and waits for the others or cannot start an mpiexec of its
    own. What Slurm says of the allocation (``SLURM_*``) stays: the program's own srun needs it.
    The directory of this Python comes last on the PATH: executables that pip installed lie there,
    also where the virtual environment was never activated.
    """
    ours = {name: value for name, value in os.environ.items() if not _of_a_rank(name)}
    out = {**ours, **dict.fromkeys(THREADS, str(threads)), **own}
    out["PATH"] = os.pathsep.join([out.get("PATH", os.defpath), str(beside())])
    return out


def _of_a_rank(name: str) -> bool:
    return name.startswith(LAUNCHED) and not name.startswith(SETTINGS)


def from_here(name: str) -> str:
    """An executable by a path relative to where the command was made: workers may be elsewhere."""
    here = Path(name).absolute()
    return str(here) if "/" in name and here.is_file() else name


def beside() -> Path:
    """The directory of this Python, that of the virtual environment when there is one."""
    return Path(sys.executable).absolute().parent


def find(name: str, directory: Path, path: str, *, argument: str = "arguments") -> str:
    """Absolute path of an executable.

    Parameters
    ----------
    name : a bare name is looked for on ``path``; one with a "/" in the working directory first
    directory : the working directory
    path : directories, as in the variable PATH
    argument : of `Command`, where the name stands

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
    raise FileNotFoundError(f"{argument}: {_missing(name, directory, path)}")


def _missing(name: str, directory: Path, path: str) -> str:
    host = platform.node()
    if "/" not in name:
        return (
            f"wanted an executable, got {name!r}, which is not on the PATH of host "
            f"{host}, nor beside its Python ({beside()}); install it there, load its module "
            f"before the worker starts, or give its absolute path. PATH: {path}"
        )
    there = [p for p in (directory / name, Path(name)) if p.is_file()]
    why = f"may not be executed (chmod +x {there[0]})" if there else "is not there"
    return f"wanted an executable, got {name!r}, which {why} on host {host}"
