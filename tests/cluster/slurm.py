"""A private Slurm on one machine: one slurmctld and three slurmd, without a database.

    with PrivateSlurm() as slurm:
        os.environ.update(slurm.variables)      # now sbatch, squeue, qsub, ... talk to it

or from a shell: ``eval $(python tests/cluster/slurm.py up DIR)``, and ``status DIR``, ``down DIR``;
``install`` brings the packages (Debian, root). Several can run side by side.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import slurm_install
import slurm_processes as processes
import slurm_settings

NODES = ("n1", "n2", "n3")
LONGEST = 70  # characters of the directory's path: sockets in it may have 107 in all


class Job(NamedTuple):
    """One line of squeue."""

    id: str
    state: str
    reason: str
    nodes: str
    name: str


class LeftBehind(NamedTuple):
    """Jobs still in the queue and living processes of jobs; false when there are none."""

    jobs: tuple[Job, ...]
    processes: tuple[processes.Carrier, ...]

    def __bool__(self) -> bool:
        return bool(self.jobs or self.processes)


def until(condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    """Wait until the condition holds; TimeoutError names what was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(0.1)


class PrivateSlurm:
    """A Slurm of one's own; start with `with` or `start()`, end with `close()`.

    Parameters
    ----------
    directory
        Where its files and logs go (kept); by default a temporary directory (removed by `close`).
        An older Slurm there must be down; its state is forgotten.
    epilog
        At the end of a job, kill on its node every process that carries the job's id, as a
        site with cgroups does.
    cpus, memory
        What each node pretends to have; memory in MB.
    settings
        Lines of slurm.conf that replace the ones in slurm_settings.py, such as ``MinJobAge=2``.
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
        self.directory = Path(directory or tempfile.mkdtemp(prefix="slurm-")).resolve()
        if len(str(self.directory)) > LONGEST:
            raise ValueError(
                f"directory must be a path of at most {LONGEST} characters, because Slurm makes "
                f"sockets in it, got {self.directory}"
            )
        self.conf = self.directory / "slurm.conf"
        self.name = f"private{uuid.uuid4().hex[:12]}"
        self._files = {
            "nodes": NODES,
            "cpus": cpus,
            "memory": memory,
            "epilog": epilog,
            "settings": settings or {},
        }
        self._ours = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PRIVATE"))}
        self._children: list[subprocess.Popen[bytes]] = []
        self._timers: list[threading.Timer] = []

    # -- coming and going

    @property
    def variables(self) -> dict[str, str]:
        """What to add to an environment (``os.environ.update``) so that commands talk to it."""
        return {"SLURM_CONF": str(self.conf), "PATH": slurm_install.search_path()}

    @property
    def environment(self) -> dict[str, str]:
        """A whole environment for a subprocess, without traces of another Slurm."""
        return {**self._ours, **self.variables}

    def start(self) -> "PrivateSlurm":
        """Start the daemons and wait until srun works; RuntimeError holds the end of the logs."""
        if self.up():
            raise RuntimeError(f"a Slurm is running in {self.directory}: take it down first")
        for stale in ("state", "spool", "log"):
            shutil.rmtree(self.directory / stale, ignore_errors=True)
        slurm_settings.write_files(self.directory, self.name, **self._files)
        try:
            self._launch("slurmctld", "-D")
            for node in NODES:
                self._launch("slurmd", "-D", "-N", node)
            self.wait_ready()
        except BaseException as error:
            logs = self.logs()
            self._temporary = False
            self.close()
            raise RuntimeError(
                f"Slurm did not start in {self.directory}: {error}\n{logs}"
            ) from error
        return self

    def up(self) -> bool:
        """Is any of its daemons alive?"""
        return bool(processes.daemons(self.conf))

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until all nodes are there and srun runs on two of them."""

        def there() -> bool:
            states = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False)
            return states.returncode == 0 and set(states.stdout.split()) <= {
                *("idle", "mixed", "allocated", "completing")
            }

        until(there, "all nodes ready", timeout)
        self.run("srun", "-N", "2", "-t", "1", "true", timeout=timeout)

    def close(self) -> None:
        """End daemons and jobs by process id; with a temporary directory, remove it."""
        for timer in self._timers:
            timer.cancel()
        kinds = (*processes.DAEMONS, *processes.WAITING)
        until(lambda: not self._kill_daemons(kinds), "the daemons of Slurm end")
        processes.end_carriers(self.conf)
        for child in self._children:
            child.wait()
        self._children.clear()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> "PrivateSlurm":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self) -> None:
        """An empty queue, every daemon and node up, no process of a job: for the next test."""
        if not processes.daemons(self.conf, ("slurmctld",)):
            self.start_controller()
        self.resume_controller()
        for node in NODES:
            if not self._slurmd(node):
                self.start_node(node)
        for partition in slurm_settings.PARTITIONS:
            self.scontrol("update", f"partitionname={partition}", "state=up")
        for node in NODES:
            if any(word in self.node_state(node) for word in ("DOWN", "DRAIN", "FAIL")):
                self.scontrol("update", f"nodename={node}", "state=resume", check=False)
        if jobs := self.squeue():
            self.run("scancel", *(job.id for job in jobs), check=False)
        until(lambda: not self.squeue(), "the queue is empty")
        processes.end_carriers(self.conf)
        self.wait_ready()

    # -- asking and telling

    def run(
        self, *command: str, timeout: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command against this Slurm; RuntimeError with its words where it fails."""
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise RuntimeError(f"`{' '.join(command)}` failed ({done.returncode}): {said}")
        return done

    def squeue(self, states: str = "") -> list[Job]:
        """The jobs in the queue; ``states="all"`` with the ended ones that Slurm remembers."""
        asked = ["-t", states] if states else []
        lines = self.run("squeue", "-h", "-a", "-o", "%i|%T|%r|%N|%j", *asked).stdout.splitlines()
        return [Job(*line.split("|", 4)) for line in lines]

    def scontrol(self, *arguments: str, check: bool = True) -> str:
        """What scontrol answers."""
        return self.run("scontrol", *arguments, check=check).stdout

    def job(self, job_id: str | int) -> dict[str, str]:
        """The record of one job (``scontrol show job``): JobState, Reason, Restarts, NodeList, ..."""
        words = self.scontrol("show", "job", "-o", str(job_id)).split()
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    def submit(self, script: str, *options: str) -> str:
        """sbatch a script given as text (without its first line); return the job's id."""
        path = self.directory / f"job-{uuid.uuid4().hex[:8]}.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        answer = self.run("sbatch", "--parsable", *options, str(path)).stdout
        return answer.strip().partition(";")[0]

    def node_state(self, node: str) -> str:
        """Such as IDLE, MIXED, DOWN*, IDLE+DRAIN."""
        words = self.scontrol("show", "node", "-o", node).split()
        return next(w.partition("=")[2] for w in words if w.startswith("State="))

    def job_processes(self, job_id: str | int) -> list[int]:
        """The ids of the living processes of a job, on whatever node."""
        return [carrier.pid for carrier in processes.carriers(self.conf, job_id)]

    def left_behind(self) -> LeftBehind:
        """The jobs in the queue and the living processes of any job of this Slurm."""
        return LeftBehind(tuple(self.squeue()), tuple(processes.carriers(self.conf)))

    def logs(self, lines: int = 15) -> str:
        """The end of every log."""
        parts = []
        for path in sorted((self.directory / "log").glob("*")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- {path}", *tail]))
        return "\n".join(parts)

    # -- faults

    def kill_node(self, node: str, *, jobs: bool = False) -> None:
        """kill -9 the slurmd of a node; with `jobs` all that runs on it too, as a power cut does.

        Without `jobs` its jobs go on for the time being, although Slurm gives the node up about
        SlurmdTimeout later and requeues them elsewhere.
        """
        self._end(self._slurmd(node))
        if jobs:
            on_node = processes.carriers(self.conf, node=node)
            # first those who would report the deaths to the controller
            for pid in {p for c in on_node for p in processes.step_daemons_above(c.pid)}:
                processes.send(pid)
            processes.end_carriers(self.conf, node=node)

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node again and wait until the controller takes it back."""
        self._launch("slurmd", "-D", "-N", node)
        gone = ("DOWN", "NOT_RESPONDING", "*")
        until(lambda: not any(w in self.node_state(node) for w in gone), f"{node} is back")

    def stop_controller(self) -> None:
        """End slurmctld in an orderly way (its state is saved); nodes and jobs go on."""
        self._end(processes.daemons(self.conf, ("slurmctld",)), signal.SIGTERM)

    def start_controller(self) -> None:
        """Start slurmctld with its saved state and wait until it answers."""
        self._launch("slurmctld", "-D")
        until(lambda: " is UP" in self.scontrol("ping", check=False), "slurmctld answers")

    def pause_controller(self, seconds: float) -> None:
        """Freeze slurmctld and return at once; it goes on after so many seconds."""
        for daemon in processes.daemons(self.conf, ("slurmctld",)):
            processes.send(daemon.pid, signal.SIGSTOP)
        timer = threading.Timer(seconds, self.resume_controller)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def resume_controller(self) -> None:
        """Let a frozen slurmctld go on now."""
        for daemon in processes.daemons(self.conf, ("slurmctld",)):
            processes.send(daemon.pid, signal.SIGCONT)

    # -- daemons

    def _launch(self, *command: str) -> None:
        name = f"{command[0]}-{command[-1]}.out" if "-N" in command else f"{command[0]}.out"
        with (self.directory / "log" / name).open("ab") as out:
            self._children.append(
                subprocess.Popen(
                    [*command, "-f", str(self.conf)],
                    env=self.environment,
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )

    def _slurmd(self, node: str) -> list[processes.Daemon]:
        found = processes.daemons(self.conf, ("slurmd",))
        return [daemon for daemon in found if daemon.node == node]

    def _end(
        self, daemons: list[processes.Daemon], number: signal.Signals = signal.SIGKILL
    ) -> None:
        for daemon in daemons:
            processes.send(daemon.pid, number)
        ids = {daemon.pid for daemon in daemons}
        kinds = {daemon.kind for daemon in daemons}
        until(
            lambda: ids.isdisjoint(d.pid for d in processes.daemons(self.conf, tuple(kinds))),
            f"{' '.join(kinds)} ends",
        )
        self._children = [child for child in self._children if child.poll() is None]

    def _kill_daemons(self, kinds: tuple[str, ...]) -> bool:
        """Kill what is there; was there anything?"""
        there = processes.daemons(self.conf, kinds)
        for daemon in there:
            processes.send(daemon.pid)
        return bool(there)


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
        print(f"export SLURM_CONF={slurm.conf} PATH={slurm.variables['PATH']}")
        return 0
    if not slurm.up():
        print(f"no Slurm is running in {slurm.directory}")
        return 1
    print(slurm.run("sinfo").stdout + slurm.run("squeue").stdout, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
