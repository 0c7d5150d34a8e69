"""Is Slurm here, and can it be installed? Debian's packages, as root."""

import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("slurm-wlm", "slurm-wlm-torque")
COMMANDS = (
    *("slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel"),
    *("qsub", "qstat", "qdel"),
)
# the daemons are in directories that an ordinary user's PATH leaves out
PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class CannotInstall(RuntimeError):
    """Slurm is not here and this script cannot bring it; the message says what to do."""


def search_path(path: str | None = None) -> str:
    """PATH (of this process, by default) with the directories of the daemons at its end."""
    here = (os.environ.get("PATH", "") if path is None else path).split(os.pathsep)
    return os.pathsep.join([*filter(None, here), *(p for p in PLACES if p not in here)])


def missing() -> list[str]:
    """The commands that are not on this machine."""
    return [name for name in COMMANDS if shutil.which(name, path=search_path()) is None]


def install() -> None:
    """Install what is missing; nothing happens where all is here.

    Raises
    ------
    CannotInstall
        Not on Debian, not root, or apt-get failed (with the end of what it said).
    """
    absent = missing()
    if not absent:
        return
    wanted = f"Slurm is not installed here (no {', '.join(absent)})"
    if not Path("/etc/debian_version").exists() or shutil.which("apt-get") is None:
        raise CannotInstall(f"{wanted} and this is not Debian: install Slurm and its qsub wrappers")
    if os.geteuid() != 0:
        raise CannotInstall(f"{wanted}: run `apt-get install {' '.join(PACKAGES)}` as root")
    _apt("update")
    _apt("install", "--yes", "--no-install-recommends", *PACKAGES)
    if absent := missing():
        raise CannotInstall(f"{' '.join(PACKAGES)} are installed but bring no {', '.join(absent)}")


def faketime() -> Path:
    """The library that gives a program another clock; installed where it is missing.

    Raises
    ------
    CannotInstall
        Not on Debian, not root, or apt-get failed (with the end of what it said).
    """
    if found := _faketime():
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CannotInstall(
            "libfaketime is not installed here: run `apt-get install libfaketime` as root, or "
            "install it as your system does"
        )
    _apt("update")
    _apt("install", "--yes", "--no-install-recommends", "libfaketime")
    if found := _faketime():
        return found
    raise CannotInstall("libfaketime is installed but brings no libfaketime.so.1 in /usr/lib")


def _faketime() -> Path | None:
    return next(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"), None)


def _apt(*arguments: str) -> None:
    command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *arguments]
    done = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise CannotInstall(f"`{' '.join(command)}` failed:\n{tail}")
