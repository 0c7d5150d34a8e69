"""Starting and ending slurmctld and slurmd by process id."""

import contextlib
import signal
import subprocess
from pathlib import Path

import slurm_processes as processes
from slurm_client import until


class Daemons:
    """The daemons that use one slurm.conf, whoever started them."""

    def __init__(self, conf: Path) -> None:
        self.conf = conf
        self._children: list[tuple[str, subprocess.Popen[bytes]]] = []

    def launch(self, environment: dict[str, str], *command: str) -> None:
        """Start one in the background; what it prints goes beside its log."""
        log = self.conf.parent / "log" / f"{command[0]}{command[-1] if '-N' in command else ''}.out"
        with log.open("ab") as out:
            child = subprocess.Popen(
                [*command, "-f", str(self.conf)],
                env=environment,
                cwd=self.conf.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._children.append((" ".join(command), child))

    def gave_up(self) -> str:
        """The command line of a daemon of ours that has ended by itself, or nothing."""
        ended = (command for command, child in self._children if child.poll() is not None)
        return next(ended, "")

    def forget_ended(self) -> None:
        """A test may kill a daemon in its own way; that is no failure of this Slurm."""
        self._children = [pair for pair in self._children if pair[1].poll() is None]

    def controller(self) -> list[int]:
        """The process id of slurmctld, if it is there."""
        return [daemon.pid for daemon in processes.daemons(self.conf, ("slurmctld",))]

    def of_node(self, node: str) -> list[int]:
        """The process id of a node's slurmd, if it is there."""
        found = processes.daemons(self.conf, ("slurmd",))
        return [daemon.pid for daemon in found if daemon.node == node]

    def end(self, pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
        """Signal these daemons and wait until they are gone."""
        for pid in pids:
            processes.send(pid, number)
        until(lambda: not any(map(processes.environment_of, pids)), f"the processes {pids} end")
        for _, child in self._children:
            if child.pid in pids:
                child.wait()
        self.forget_ended()

    def end_all(self) -> None:
        """Kill every daemon, every step's slurmstepd, every command that waits for an answer."""
        kinds = (*processes.DAEMONS, *processes.WAITING)

        def none_left() -> bool:
            there = processes.daemons(self.conf, kinds)
            for daemon in there:
                processes.send(daemon.pid)
            return not there

        until(none_left, "the daemons of Slurm end")
        for _, child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=5)
        self._children.clear()
