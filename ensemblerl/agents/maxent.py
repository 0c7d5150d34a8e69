"""The agent: draws from a policy with a density, learns from results as they come, however late."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ensemblerl.agents.background import Background
from ensemblerl.agents.base import Learner, Policy
from ensemblerl.agents.core import Core
from ensemblerl.agents.inline import Inline
from ensemblerl.agents.learners.gradient import GradientLearner
from ensemblerl.agents.learners.guided import Guided
from ensemblerl.agents.learners.minibatch import Differentiable
from ensemblerl.agents.learners.mpo import MPO, Fitted
from ensemblerl.agents.learners.trajectory_balance import TrajectoryBalance
from ensemblerl.agents.policies.defended import Defended
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.replay import Replay
from ensemblerl.agents.warming import first_tray, warmed
from ensemblerl.ledger import missing
from ensemblerl.protocols import Metrics, State
from ensemblerl.records import (
    AnyArray,
    Cube,
    Demands,
    FloatArray,
    Hints,
    IntArray,
    Members,
    Proposals,
    Results,
    Snapshot,
    cubes_differ,
)

NAME = "agent"
"""Of an agent that is told no other."""
LEARNING = ("inline", "background")
SHARE = 1 / 64
"""Later on, results between two lessons as a share of those known."""
LIMIT = 100_000
"""Draws in a row that may be infeasible."""


class MaxEnt:
    """A maximum-entropy agent: its policy moves to  pi*(x) ∝ p(x) exp(R(x) / alpha).

    R, alpha and the shares of prior and widened policy in the draws are the goal's demands. Every
    point carries the exact log density of its draw, with respect to the cube, and the version
    that drew it. A known constraint is honoured by drawing again (``rejected`` in the notes); the
    density stays untruncated.

    Parameters
    ----------
    cube : where it draws
    policy : a policy on this cube, or a callable of the cube; `MixturePolicy` when None
    learner : from results; when None `MPO` for a policy with a closed M-step, else
        `TrajectoryBalance`
    critics : whether a committee of critics guides it, see `Guided`
    learning : "inline": in ``tell``, deterministic; "background": in a process of its own that
        never blocks; None: inline where members run in the driver's own thread or in virtual
        time, else in the background
    learning_share : of one core that learning in the background may use
    picked : share of the points that critics may pick, which then have no density; None: as the
        goal demands. 0: every point is drawn from the policy
    every : results between two lessons at first
    name : its name in ``proposer``

    Raises
    ------
    TypeError, ValueError
        naming the argument, what was wanted and what came

    Examples
    --------
    >>> import numpy as np
    >>> from ensemblerl.records import Cube
    >>> agent = MaxEnt(Cube(("real",) * 2, (0, 0), (None, None)))
    >>> agent.ask(3, np.random.default_rng(0)).unit.shape
    (3, 2)
    """

    has_density = True
    order_free = False

    def __init__(
        self,
        cube: Cube,
        *,
        policy: Policy | Callable[[Cube], Policy] | None = None,
        learner: Learner | None = None,
        critics: bool = True,
        learning: str | None = None,
        learning_share: float = 0.5,
        picked: float | None = None,
        every: int = 4,
        name: str = NAME,
    ) -> None:
        if not isinstance(cube, Cube):
            raise TypeError(f"cube: wanted a Cube such as space.cube, got {type(cube).__name__}")
        if learning is not None and learning not in LEARNING:
            raise ValueError(f"learning: wanted one of {LEARNING} or None, got {learning!r}")
        number = isinstance(learning_share, int | float)
        if not number or not 0 < learning_share <= 1:
            raise ValueError(f"learning_share: wanted a share in (0, 1], got {learning_share!r}")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every: wanted a whole number >= 1, got {every!r}")
        share = isinstance(picked, int | float) and not isinstance(picked, bool)
        if picked is not None and not (share and 0 <= picked <= 1):
            raise ValueError(f"picked: wanted a share in [0, 1] or None, got {picked!r}")
        self.cube, self.name, self.learning = cube, name, learning
        self.picked = picked
        self.learning_share, self.every = learning_share, every
        self.policy = _policy(policy, cube)
        if isinstance(learner, Guided) and not critics:
            raise ValueError("critics: wanted True with a Guided learner, got False")
        own = _learner(learner, self.policy)
        self.learner = Guided(own) if critics and not isinstance(own, Guided) else own
        self._mind: Inline | Background | None = None
        self._hints: Hints | None = None

    # ---- asking

    def ask(
        self, n: int, rng: np.random.Generator, context: Mapping[str, Any] | None = None
    ) -> Proposals:
        """(n, ndim) points of the newest version.

        Raises
        ------
        ValueError
            when the known constraint turns down 100,000 draws in a row
        """
        mind = self._at_work()
        rows = self._picks(mind.core, n, rng)
        if mind.core.tray is None:
            return self._drawn(mind, n, context, rng)
        drawn = self._drawn(mind, n - len(rows), context, rng)
        return with_picks(drawn, mind.core, rows, mind.version)

    def _picks(self, core: Core, n: int, rng: np.random.Generator) -> IntArray:
        """Which of n points are to come from the tray."""
        share = core.picked_share
        return (
            np.flatnonzero(rng.random(n) < share)[: core.left] if share > 0 else np.array([], int)
        )

    def _drawn(
        self,
        mind: Inline | Background,
        n: int,
        context: Mapping[str, Any] | None,
        rng: np.random.Generator,
    ) -> Proposals:
        """(n, ndim) draws from the policy."""
        serving = mind.serving
        unit, rejected = self._feasible(serving, n, context, rng)
        notes: dict[str, AnyArray] = {"version": np.full(n, mind.version, dtype=np.int64)}
        if serving.n_steps > 1:
            steps = serving.steps(unit, context)
            notes |= {"log_prob": steps.sum(axis=1), "log_prob_steps": steps}
        else:
            notes["log_prob"] = serving.log_prob(unit, context)
        if self.cube.feasible is not None:
            notes["rejected"] = rejected
        return Proposals(unit, notes)

    def _feasible(
        self, serving: Defended, n: int, context: Mapping[str, Any] | None, rng: np.random.Generator
    ) -> tuple[FloatArray, IntArray]:
        """(n, ndim) feasible draws, and (n,) how many were turned down for each."""
        feasible = self.cube.feasible
        if feasible is None:
            return serving.sample(n, context, rng), np.zeros(n, dtype=np.int64)
        units, places = [np.empty((0, self.cube.ndim))], [-1]
        tried, size, barren = 0, n, 0
        while len(places) <= n:
            unit = serving.sample(size, context, rng)
            rows = np.flatnonzero(feasible(unit))
            units.append(unit[rows])
            places += (tried + rows).tolist()
            tried, barren = tried + size, 0 if len(rows) else barren + size
            self._give_up(barren)
            size = min(2 * size + 8, 8192)
        return np.concatenate(units)[:n], np.diff(places[: n + 1]) - 1

    def _give_up(self, barren: int) -> None:
        if barren >= LIMIT:
            raise ValueError(
                f"{self.name}: the known constraint turned down {barren} draws in a row; wanted a "
                "space whose feasible part can be hit: tighten bounds or drop the constraint"
            )

    @property
    def density_share(self) -> float:
        """Share of the points that have a density, of those asked for next."""
        return 1.0 - self._at_work().core.picked_share

    def log_density(self, unit: FloatArray) -> FloatArray:
        """(n, ndim) -> (n,) log density of what it draws from now."""
        return self._at_work().serving.log_prob(unit)

    # ---- telling

    def heed(self, demands: Demands) -> None:
        """What the goal asks now."""
        self._at_work().heed(self._own(demands))

    def _own(self, demands: Demands) -> Demands:
        """With the share that was given, where one was."""
        return demands if self.picked is None else replace(demands, picked_share=self.picked)

    def tell(self, members: Members, results: Results) -> Metrics:
        """Add to what is known; inline, learn from it."""
        return self._at_work().tell(members, results)

    # ---- the session

    def warm(self, hints: Hints | None) -> None:
        """Begin near these points, and try the best of them first; None: begin with the policy
        as it was given. What was told before is forgotten.

        Version 0 is then the policy moved towards the hints. Those worth running first are the
        picks of a critic called "warm" until other critics pick: where the goal lets them.
        """
        self.close()
        self._mind, self._hints = None, hints

    def locate(self, in_process: bool) -> None:
        """A session is to begin, here or elsewhere: in the driver's own thread or in virtual time.

        What an agent knows is what it is told from now on: the same object may serve another
        campaign. One that nobody tells where it is learns inline.
        """
        self.close()
        self._mind = None
        self._at_work("inline" if in_process else "background")

    def begin(self, *, in_process: bool, last: Snapshot | None = None) -> None:
        """A session begins.

        Parameters
        ----------
        in_process : as for `locate`
        last : the newest version published before
        """
        self._at_work("inline" if in_process else "background").begin(last)

    def _at_work(self, otherwise: str = "inline") -> Inline | Background:
        """Where it learns, decided now if it was not."""
        if self._mind is None:
            memory = Replay(self.policy.n_steps, self.cube.ndim)
            learner = copy.deepcopy(self.learner)
            if isinstance(learner, Guided) and self.name != NAME:
                learner.agent = self.name
            policy = self.policy if self._hints is None else warmed(self.policy, self._hints)
            core = Core(policy, learner, memory, every=self.every, share=SHARE, name=self.name)
            core.demands = self._own(core.demands)
            core.tray = None if self._hints is None else first_tray(self._hints)
            inline = (self.learning or otherwise) == "inline"
            self._mind = Inline(core) if inline else Background(core, self.learning_share)
        return self._mind

    def published(self) -> list[Snapshot]:
        """Versions not handed out yet."""
        return self._mind.published() if self._mind else []

    def telemetry(self) -> list[dict[str, Any]]:
        """Rows not handed out yet."""
        return self._mind.telemetry() if self._mind else []

    def close(self) -> None:
        """End the learning process, if there is one."""
        if self._mind:
            self._mind.close()

    def state_dict(self) -> State:
        """What is known, the policy, and what the learner needs for its next lesson."""
        return self._at_work().state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take it up."""
        self._at_work().load_state_dict(state)

    def describe(self) -> dict[str, Any]:
        """Policy, learner and arguments."""
        return {
            "sampler": type(self).__name__,
            "name": self.name,
            "policy": self.policy.describe(),
            "learner": self.learner.describe(),
            "picked": self.picked,
            "every": self.every,
        }

    def __repr__(self) -> str:
        return f"MaxEnt({self.policy!r}, {type(self.learner).__name__}, name={self.name!r})"


def with_picks(drawn: Proposals, core: Core, rows: IntArray, version: int) -> Proposals:
    """Draws with points from the tray in these rows of the whole; both know who picked nothing."""
    tray, m, n = core.tray, len(rows), len(drawn) + len(rows)
    assert tray is not None
    taken = np.arange(core.picked, core.picked + m)
    core.picked += m
    others = np.setdiff1d(np.arange(n), rows)
    unit = np.empty((n, drawn.unit.shape[1]))
    unit[others], unit[rows] = drawn.unit, tray.unit[taken]
    notes: dict[str, AnyArray] = {"version": np.full(n, version, dtype=np.int64)}
    notes["pick"] = np.full(n, -1, dtype=np.int64)
    notes["pick"][rows] = taken
    for name, note in drawn.notes.items():
        if name != "version":
            notes[name] = np.full((n, *note.shape[1:]), missing(note.dtype), dtype=note.dtype)
            notes[name][others] = note
    for name, note in tray.notes.items():
        notes[name] = np.full(n, missing(note.dtype), dtype=note.dtype)
        notes[name][rows] = note[taken]
    return Proposals(unit, notes)


def _policy(given: Policy | Callable[[Cube], Policy] | None, cube: Cube) -> Policy:
    policy = MixturePolicy(cube) if given is None else given
    if isinstance(policy, type) or not isinstance(policy, Policy):
        policy = policy(cube) if callable(policy) else policy
    if isinstance(policy, type) or not isinstance(policy, Policy):
        raise TypeError(
            "policy: wanted a policy, or a callable of the cube such as agents.TokenPolicy, got "
            f"{type(given).__name__}"
        )
    if which := cubes_differ(policy.cube, cube):
        raise ValueError(f"policy: wanted one on the agent's cube, got one whose {which} differ")
    return policy


def _learner(given: Learner | None, policy: Policy) -> Learner:
    usual = MPO if isinstance(policy, Fitted) else TrajectoryBalance
    learner = usual() if given is None else given
    if isinstance(learner, type) or not isinstance(learner, Learner):
        raise TypeError(f"learner: wanted a learner such as MPO(), got {given!r}")
    bare = learner.learner if isinstance(learner, Guided) else learner
    if isinstance(bare, MPO) and not isinstance(policy, Fitted):
        raise TypeError(
            f"learner: MPO wants a policy with a closed M-step such as MixturePolicy, got "
            f"{type(policy).__name__}; TrajectoryBalance() learns that one"
        )
    if isinstance(bare, GradientLearner) and not isinstance(policy, Differentiable):
        raise TypeError(
            f"learner: {type(bare).__name__} follows a gradient and wants a policy that has one "
            f"such as TokenPolicy, got {type(policy).__name__}; MPO() learns that one"
        )
    return learner
