"""Learning in a process of its own, while simulations run: nothing ever waits for it."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import threading
import warnings
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from ensemblerl.agents import pupil
from ensemblerl.agents.core import Core, shares_of
from ensemblerl.agents.policies.defended import Defended
from ensemblerl.protocols import Metrics, State
from ensemblerl.records import Demands, Members, Results, Snapshot

RESTARTS = 3
"""Learning processes that may end by themselves in a session."""
PATIENCE, MOMENT = 5.0, 1.0
"""Seconds that a process has to leave when it was asked to, and when it leaves by itself."""


class Background:
    """The near end of a learning process: rows go out, versions come back.

    Points are drawn from the newest version that was handed out by `published`. Rows are kept
    here too, so that the state is whole and a process that died can be replaced. A version that
    the process learnt and nobody fetched is learnt again after a resume.

    Parameters
    ----------
    core : what is known here; lessons are given over there
    share : of one core that the process may use
    """

    def __init__(self, core: Core, share: float) -> None:
        self.core, self._share = core, share
        self.version, self.serving = core.version, core.serving
        self._progress = core.progress()
        self._rows: list[dict[str, Any]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._outbox: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._postman: threading.Thread | None = None
        self._deaths = 0

    def heed(self, demands: Demands) -> None:
        """What the goal asks now."""
        if demands != self.core.demands:
            self.core.demands = demands
            self._send("heed", demands)

    def tell(self, members: Members, results: Results) -> Metrics:
        """Add here, and send it over; neither waits."""
        self.core.add(members, results)
        self._send("tell", members, results)
        return {"version": float(self.version)}

    def begin(self, last: Snapshot | None) -> None:
        """Publish the policy as it is, under a number of its own, and start the process."""
        core = self.core
        now = {"demands": vars(core.demands), "key": core.key, "tray": core.told_tray()}
        self.core.resume({**self._progress, **now})
        self.core.heed(self.core.demands)
        version = self.core.version if last is None else last.version + 1
        if last is not None and self.core.snapshot().alike(last):
            version = last.version
        self.core.renumber(version)
        self._progress = self.core.progress()
        self._serve(self.core.snapshot())
        self._start()

    def _serve(self, snapshot: Snapshot) -> None:
        self.core.take_tray(self._progress["tray"], newer=True)
        policy = self.core.policy.with_weights(snapshot.weights)
        self.version, self.serving = snapshot.version, Defended(policy, *shares_of(snapshot))

    def _start(self) -> None:
        near, far = Pipe()
        self._connection, self._outbox = near, queue.SimpleQueue()
        core = self.core
        given = {
            "policy": core.policy,
            "learner": core.learner,
            "every": core.every,
            "lesson_share": core.share,
            "name": core.name,
            "machine_share": self._share,
            "state": {"core": self._progress, "memory": core.memory.state_dict()},
        }
        self._process = pupil.spawn(far)
        far.close()
        self._outbox.put(("begin", cloudpickle.dumps(given)))
        self._outbox.put(("heed", core.demands))  # may be newer than the progress
        self._postman = threading.Thread(target=_post, args=(self._outbox, near), daemon=True)
        self._postman.start()

    def _send(self, *message: Any) -> None:
        if self._process is not None:
            self._outbox.put(message)

    def published(self) -> list[Snapshot]:
        """Versions that came since the last call; from now on points come from the last one."""
        self._fetch()
        out = list(self.core.snapshots)
        self.core.snapshots.clear()
        if out:
            self._serve(out[-1])
        return out

    def telemetry(self) -> list[dict[str, Any]]:
        """Rows of the lessons that came."""
        out, self._rows = self._rows, []
        return out

    def _fetch(self) -> None:
        """Take in what has arrived."""
        if self._connection is None:
            return
        try:
            while self._connection.poll():
                news = self._connection.recv()
                if isinstance(news, str):
                    self._failed(news)
                    return
                snapshots, rows, self._progress = news
                self.core.snapshots.extend(snapshots)
                self._rows += rows
        except (EOFError, OSError):
            self._died()

    def _failed(self, error: str) -> None:
        """The learner raised: the campaign goes on with what there is."""
        self.close()
        last = self.core.snapshots[-1].version if self.core.snapshots else self.version
        warnings.warn(
            f"the learner raised {error}; version {last} stays the last one", stacklevel=2
        )

    def _died(self) -> None:
        process = self._process
        assert process is not None
        self._drop()
        code = _ended(process, MOMENT)
        self._deaths += 1
        again = self._deaths <= RESTARTS
        warnings.warn(
            f"learning process {self._deaths} ended by itself (exit code {code}); "
            + ("it is started again" if again else f"version {self.version} stays the last one"),
            stacklevel=2,
        )
        if again:
            self._start()

    def _drop(self) -> None:
        self._outbox.put(None)
        if self._connection is not None:
            _hang_up(self._connection)
        if self._postman is not None:
            self._postman.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = self._postman = None

    def close(self) -> None:
        """Let the process go, at once when it is not in a lesson."""
        if self._process is None:
            return
        process = self._process
        self._drop()
        _ended(process, PATIENCE)

    def state_dict(self) -> State:
        """What the last version was learnt with, and all rows."""
        core = {**self._progress, "tray": self.core.told_tray()}
        return {"core": core, "memory": self.core.memory.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take them up, before the process starts."""
        self.core.resume(state["core"])
        self.core.memory.load_state_dict(state["memory"])
        self._progress = state["core"]
        self.version, self.serving = self.core.version, self.core.serving


def _post(outbox: queue.SimpleQueue[tuple[Any, ...] | None], connection: Connection) -> None:
    """Sends what is in the outbox; a full pipe holds up this thread and nobody else."""
    # a connection that is closed under its hands may also raise TypeError
    with contextlib.suppress(OSError, ValueError, TypeError):
        while (message := outbox.get()) is not None:
            connection.send(message)


def _hang_up(connection: Connection) -> None:
    """Both ends see the end at once, also where a process forked meanwhile holds a copy of one."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def _ended(process: subprocess.Popen[bytes], patience: float) -> int:
    """Its exit code; killed when it takes longer than so many seconds."""
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
