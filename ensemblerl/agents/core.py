"""The learning half of an agent: what is known, a policy, a learner, and when it learns."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ensemblerl.agents.base import Learner, Policy, Tray
from ensemblerl.agents.policies.defended import Defended
from ensemblerl.agents.replay import Replay
from ensemblerl.agents.snapshots import cube_meta
from ensemblerl.agents.telemetry import lag_counts
from ensemblerl.protocols import State
from ensemblerl.records import Demands, Members, Results, Snapshot

STREAM = 0x1EA4
"""Tells a lesson's random numbers from those of a member of the same seed."""


class Core:
    """Adds to what is known, and gives a lesson each time enough is new.

    The lesson of version v is a function of the rows known then, of v and of a key; the key is
    the seed of the first member ever told, so that campaigns of different seeds differ.

    Parameters
    ----------
    policy : to begin with
    learner : improves it
    memory : empty
    every : rows between two lessons at first
    share : later on, rows between two lessons as a share of those known: work a row stays bounded
    name : its agent's in ``proposer``: picks of other agents are not off its tray; None: all are
    """

    def __init__(
        self,
        policy: Policy,
        learner: Learner,
        memory: Replay,
        *,
        every: int,
        share: float,
        name: str | None = None,
    ) -> None:
        self.policy, self.learner, self.memory, self.name = policy, learner, memory, name
        self.every, self.share = every, share
        self.version, self.key, self._taught = 0, -1, 0
        self.demands = Demands(prior_share=0.1, ranked=True)
        self._served = self._shares
        self.tray: Tray | None = None
        self.picked, self._picking = 0, 0
        self.snapshots: deque[Snapshot] = deque([self.snapshot()])
        self.rows: deque[dict[str, Any]] = deque()
        self._arrived: list[int] = []

    @property
    def _shares(self) -> tuple[float, float]:
        return self.demands.prior_share, self.demands.wide_share

    @property
    def serving(self) -> Defended:
        """What points are drawn from: the policy of this version, with its shares."""
        return Defended(self.policy, *self._served)

    def heed(self, demands: Demands) -> None:
        """What the goal asks now; other shares are another version."""
        self.demands = demands
        if self._shares != self._served:
            fresh = self.version == 0 and bool(self.snapshots)  # nobody has seen it yet
            self._served = self._shares
            if fresh:
                self.snapshots.clear()
            self._publish(self.version if fresh else self.version + 1)

    def tell(self, members: Members, results: Results) -> None:
        """Add; nothing is learnt."""
        if self.add(members, results) and not self.demands.frozen:
            version = members.notes.get("version", np.full(len(members), -1))
            self._arrived += version[results.fate != "pending"].tolist()

    def add(self, members: Members, results: Results) -> int:
        """Add to what is known; gives the number of newly settled ones."""
        if self.key < 0 and len(members):
            self.key = int(members.seed[np.argmin(members.number)])
        self._spend(members)
        return self.memory.add(members, results)

    @property
    def left(self) -> int:
        """Points on the tray that nobody has taken."""
        return 0 if self.tray is None else len(self.tray) - self.picked

    @property
    def picked_share(self) -> float:
        """Share of the points asked for next that come from the tray, as long as it holds any."""
        return self.demands.picked_share * self.tray.share if self.tray and self.left else 0.0

    def _spend(self, members: Members) -> None:
        """What was launched is off the tray, also where a replay tells of it."""
        if self.left and "pick" in members.notes:
            own = members.notes["version"] >= self._picking
            # hints are the same for all agents; asked by hand, nobody has noted who proposed it
            if self.name is not None and self._picking and "proposer" in members.notes:
                own &= members.notes["proposer"] == self.name
            last = int(members.notes["pick"][own].max(initial=-1)) + 1
            self.picked = min(max(self.picked, last), self.picked + self.left)

    @property
    def due(self) -> bool:
        """Whether enough is new for a lesson."""
        n, new = self.memory.n_settled, self.memory.n_settled - self._taught
        enough = new >= max(self.every, self.share * n) and self.memory.n_rows > 0
        return enough and not self.demands.frozen

    def learn(self) -> None:
        """One lesson, and its policy published."""
        self._taught = self.memory.n_settled
        rng = np.random.default_rng([STREAM, max(self.key, 0), self.version])
        self.policy, metrics = self.learner.learn(self.policy, self.memory, self.demands, rng)
        self._publish(self.version + 1)
        tray = getattr(self.learner, "tray", None)
        if tray is not None or self._picking:  # what it began with stays until critics have picked
            self.tray, self.picked, self._picking = tray, 0, self.version
        self.rows.append({**metrics, **self._seen(rng)})
        self._arrived.clear()

    def _seen(self, rng: np.random.Generator) -> dict[str, Any]:
        """What there is to tell of a lesson, whatever the learner."""
        drawn = self.policy.sample(64, None, rng)
        lags = self.version - 1 - np.array([v for v in self._arrived if v >= 0], dtype=np.int64)
        best = self.memory.rows().reward
        return {
            "version": self.version,
            "n_settled": self.memory.n_settled,
            "n_pending": self.memory.pending,
            "entropy": -float(self.policy.log_prob(drawn).mean()),
            "goal_temperature": self.demands.temperature,
            "best_reward": float(best.max()),
            "lag": float(lags.mean()) if len(lags) else float("nan"),
            "lag_counts": lag_counts(lags),
        }

    def renumber(self, version: int) -> None:
        """Publish the policy as it is under this version, which nobody has used."""
        self.snapshots.clear()
        self._publish(version)

    def _publish(self, version: int) -> None:
        self.version = version
        self.snapshots.append(self.snapshot())

    def snapshot(self) -> Snapshot:
        """What a reader needs to draw from it, or to tell its density."""
        return snapshot(self.policy, self._served, self.version)

    # ---- the state

    def progress(self) -> State:
        """All but the rows: plain."""
        return {
            "version": self.version,
            "key": self.key,
            "taught": self._taught,
            "arrived": np.array(self._arrived, dtype=np.int64),
            "served": np.array(self._served),
            "weights": self.policy.weights,
            "learner": self.learner.state_dict(),
            "demands": dict(vars(self.demands)),
            "tray": self.told_tray(),
        }

    def told_tray(self) -> State:
        """The tray, and what is off it."""
        if self.tray is None:
            return {}
        notes = {name: np.array(note) for name, note in self.tray.notes.items()}
        at = {"picked": self.picked, "picking": self._picking, "share": self.tray.share}
        return {"unit": self.tray.unit.copy(), "notes": notes, **at}

    def take_tray(self, state: State, *, newer: bool = False) -> None:
        """Take it up; a ``newer`` one from another process does not know what was taken here."""
        picking, picked = int(state.get("picking", 0)), int(state.get("picked", 0))
        if newer and self.tray is not None and picking == self._picking:
            picked = max(picked, self.picked)
        self.tray = None
        if state:
            notes = dict(state["notes"])
            self.tray = Tray(np.array(state["unit"]), notes, float(state["share"]))
        self.picked, self._picking = picked, picking

    def resume(self, state: State) -> None:
        """Take up `progress`; nothing waits to be handed out."""
        self.version, self.key = int(state["version"]), int(state["key"])
        self._taught, self._arrived = int(state["taught"]), list(map(int, state["arrived"]))
        prior, wide = map(float, state["served"])
        self._served = (prior, wide)
        self.policy = self.policy.with_weights(state["weights"])
        self.learner.load_state_dict(state["learner"])
        self.demands = Demands(**state["demands"])
        self.take_tray(state.get("tray", {}))
        self.snapshots.clear()
        self.rows.clear()


def snapshot(policy: Policy, shares: tuple[float, float], version: int) -> Snapshot:
    """A version with all that its density consists of."""
    share = {"prior_share": shares[0], "wide_share": shares[1]}
    meta = {**policy.describe(), **share, **cube_meta(policy.cube)}
    weights = {name: np.array(array) for name, array in policy.weights.items()}
    return Snapshot(version, weights, meta)


def shares_of(snapshot: Snapshot) -> tuple[float, float]:
    """Prior and wide share."""
    return float(snapshot.meta["prior_share"]), float(snapshot.meta["wide_share"])
