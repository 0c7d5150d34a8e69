"""A private Slurm on one machine: one slurmctld and three slurmd, without a database.

    with PrivateSlurm() as slurm:
        os.environ.update(slurm.variables)      # now sbatch, squeue, qsub, ... talk to it

or from a shell: ``eval $(python tests/cluster/slurm.py up DIR)``, and ``status DIR``, ``down DIR``;
``install`` brings the packages (Debian, root). Several can run side by side, and an ordinary user
can run one where the packages are there.
"""

import argparse
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import slurm_install
import slurm_processes as processes
import slurm_settings
from slurm_client import Client, Job, until
from slurm_daemons import Daemons

NODES = ("n1", "n2", "n3")
LONGEST = 70  # characters of the directory's path: sockets in it may have 107 in all

__all__ = ["Job", "LeftBehind", "PrivateSlurm", "until"]


class LeftBehind(NamedTuple):
    """Jobs still in the queue and living processes of jobs; false when there are none."""

    jobs: tuple[Job, ...]
    processes: tuple[processes.Carrier, ...]

    def __bool__(self) -> bool:
        return bool(self.jobs or self.processes)


class PrivateSlurm(Client):
    """A Slurm of one's own; start with `with` or `start()`, end with `close()`.

    Parameters
    ----------
    directory
        Where its files and logs go (kept); by default a temporary directory, which `close` removes
        unless the start failed. State of an older Slurm there is forgotten.
    epilog
        At the end of a job, kill on its node every process that carries the job's id, as a
        site with cgroups does.
    cpus, memory
        What each node pretends to have; memory in MB.
    settings
        Lines of slurm.conf that replace the ones in slurm_settings.py, such as ``MinJobAge=2``.

    Raises
    ------
    ValueError
        The path of the directory is too long for sockets.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        epilog: bool = False,
        cpus: int = 8,
        memory: int = 16000,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self._temporary = directory is None
        super().__init__(Path(directory or tempfile.mkdtemp(prefix="slurm-")).resolve())
        if len(str(self.directory)) > LONGEST:
            raise ValueError(
                f"directory must be a path of at most {LONGEST} characters, because Slurm makes "
                f"sockets in it, got {self.directory}"
            )
        self.name = f"private{uuid.uuid4().hex[:12]}"
        self._shape = slurm_settings.Shape(NODES, cpus, memory, epilog, dict(settings or {}))
        self._daemons = Daemons(self.conf)
        self._timers: list[threading.Timer] = []

    # -- coming and going

    def start(self) -> "PrivateSlurm":
        """Start the daemons and wait until srun works; RuntimeError holds the end of the logs."""
        if self.up():
            raise RuntimeError(f"a Slurm is running in {self.directory}: take it down first")
        for stale in ("state", "spool", "log"):
            shutil.rmtree(self.directory / stale, ignore_errors=True)
        slurm_settings.write_files(self.directory, self.name, self._shape)
        try:
            self._launch("slurmctld", "-D")
            for node in NODES:
                self._launch("slurmd", "-D", "-N", node)
            self.wait_ready()
        except BaseException as error:
            self._temporary = False
            said = f"Slurm did not start in {self.directory}: {error}\n{self.logs()}"
            self.close()
            raise RuntimeError(said) from error
        return self

    def up(self) -> bool:
        """Is any of its daemons alive?"""
        return bool(processes.daemons(self.conf))

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until all nodes are there and srun runs on two of them."""

        def there() -> bool:
            if ended := self._daemons.gave_up():
                raise RuntimeError(f"`{ended}` has ended")
            return self.all_nodes_ready()

        until(there, "all nodes ready", timeout)
        self.run("srun", "-N", "2", "-t", "1", "true", timeout=timeout)

    def close(self) -> None:
        """End daemons and jobs by process id; with a temporary directory, remove it."""
        for timer in self._timers:
            timer.cancel()
        self._daemons.end_all()
        processes.end_carriers(self.conf)
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> "PrivateSlurm":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self) -> None:
        """An empty queue, every daemon and node up, no process of a job: for the next test."""
        self._daemons.forget_ended()
        self.resume_controller()
        if not self._daemons.controller():
            self.start_controller()
        for node in NODES:
            if not self._daemons.of_node(node):
                self.start_node(node)
            if any(word in self.node_state(node) for word in ("DOWN", "DRAIN", "FAIL")):
                self.scontrol("update", f"nodename={node}", "state=resume", check=False)
        for partition in slurm_settings.PARTITIONS:
            self.scontrol("update", f"partitionname={partition}", "state=up")
        if jobs := self.squeue():
            self.run("scancel", *(job.id for job in jobs), check=False)
        until(lambda: not self.squeue(), "the queue is empty")
        processes.end_carriers(self.conf)
        self.wait_ready()

    # -- what is there

    def job_processes(self, job_id: str | int) -> list[int]:
        """The ids of the living processes of a job, on whatever node."""
        return [carrier.pid for carrier in processes.carriers(self.conf, job_id)]

    def left_behind(self) -> LeftBehind:
        """The jobs in the queue and the living processes of any job of this Slurm."""
        return LeftBehind(tuple(self.squeue()), tuple(processes.carriers(self.conf)))

    # -- faults

    def kill_node(self, node: str, *, jobs: bool = False) -> None:
        """kill -9 the slurmd of a node; with `jobs` all that runs on it too, as a power cut does.

        Without `jobs` its jobs go on, although Slurm gives the node up after about 18 s and
        starts them again elsewhere: two of each are running then.
        """
        self._daemons.end(self._daemons.of_node(node))
        if jobs:
            on_node = processes.carriers(self.conf, node=node)
            # first those who would report the deaths to the controller
            for pid in {p for c in on_node for p in processes.step_daemons_above(c.pid)}:
                processes.send(pid)
            processes.end_carriers(self.conf, node=node)

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node again and wait until the controller hears of it."""
        self._daemons.forget_ended()
        self._launch("slurmd", "-D", "-N", node)
        # one that was set down by hand answers too, but stays down until it is resumed
        until(lambda: "NOT_RESPONDING" not in self.node_state(node), f"{node} answers")

    def stop_controller(self) -> None:
        """End slurmctld in an orderly way (its state is saved); nodes and jobs go on."""
        self._daemons.end(self._daemons.controller(), signal.SIGTERM)

    def start_controller(self) -> None:
        """Start slurmctld with its saved state and wait until it answers."""
        self._launch("slurmctld", "-D")
        until(lambda: " is UP" in self.scontrol("ping", check=False), "slurmctld answers")

    def pause_controller(self, seconds: float) -> None:
        """Freeze slurmctld and return at once; it goes on after so many seconds."""
        for pid in self._daemons.controller():
            processes.send(pid, signal.SIGSTOP)
        timer = threading.Timer(seconds, self.resume_controller)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def resume_controller(self) -> None:
        """Let a frozen slurmctld go on now."""
        for timer in self._timers:
            timer.cancel()
        for pid in self._daemons.controller():
            processes.send(pid, signal.SIGCONT)

    def _launch(self, *command: str) -> None:
        self._daemons.launch(self.environment, *command)


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description="A private Slurm on this machine.")
    parser.add_argument("verb", choices=["install", "up", "status", "down"])
    parser.add_argument("directory", nargs="?", help="where its files and logs are")
    parser.add_argument("--epilog", action="store_true", help="kill what a job leaves behind")
    chosen = parser.parse_args(arguments)
    if chosen.verb == "install":
        slurm_install.install()
        return 0
    if chosen.directory is None:
        parser.error(f"{chosen.verb} needs a directory")
    slurm = PrivateSlurm(chosen.directory, epilog=chosen.epilog)
    if chosen.verb == "down":
        slurm.close()
        return 0
    if chosen.verb == "up":
        slurm.start()
        settings = (f"{name}={shlex.quote(value)}" for name, value in slurm.variables.items())
        print("export", *settings)
        return 0
    if not slurm.up():
        print(f"no Slurm is running in {slurm.directory}")
        return 1
    print(slurm.run("sinfo").stdout + slurm.run("squeue").stdout, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
