"""Learning where the results are told: deterministic, a function of the events."""

from __future__ import annotations

from typing import Any

from ensemblerl.agents.core import Core
from ensemblerl.agents.policies.defended import Defended
from ensemblerl.protocols import Metrics, State
from ensemblerl.records import Demands, Members, Results, Snapshot


class Inline:
    """Lessons in ``tell``, as soon as they are due.

    Parameters
    ----------
    core : what learns
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self._serving: tuple[int, Defended] | None = None

    @property
    def version(self) -> int:
        """Newest version."""
        return self.core.version

    @property
    def serving(self) -> Defended:
        """What points are drawn from; made once a version."""
        if self._serving is None or self._serving[0] != self.core.version:
            self._serving = self.core.version, self.core.serving
        return self._serving[1]

    def heed(self, demands: Demands) -> None:
        """What the goal asks now."""
        self.core.heed(demands)
        if self._serving and not self.core.version:
            self._serving = None

    def tell(self, members: Members, results: Results) -> Metrics:
        """Add, and learn when it is time."""
        self.core.tell(members, results)
        while self.core.due:
            self.core.learn()
        return {"version": float(self.core.version)}

    def begin(self, last: Snapshot | None) -> None:
        """A version published with other weights stays what it was; this one is a new one."""
        core = self.core
        if last is not None and core.version == last.version and core.snapshot().alike(last):
            core.snapshots.clear()
        elif last is not None and core.version <= last.version:
            core.renumber(last.version + 1)
        elif not core.snapshots:  # learnt, and perhaps never published
            core.snapshots.append(core.snapshot())

    def published(self) -> list[Snapshot]:
        """Versions not handed out yet."""
        out = list(self.core.snapshots)
        self.core.snapshots.clear()
        return out

    def telemetry(self) -> list[dict[str, Any]]:
        """Rows not handed out yet."""
        out = list(self.core.rows)
        self.core.rows.clear()
        return out

    def close(self) -> None:
        """Nothing is open."""

    def state_dict(self) -> State:
        """Progress and rows."""
        return {"core": self.core.progress(), "memory": self.core.memory.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take them up."""
        self.core.resume(state["core"])
        self.core.memory.load_state_dict(state["memory"])
        self._serving = None
