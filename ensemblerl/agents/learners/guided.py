"""A learner with critics: between results, the policy improves on what it imagines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np

from ensemblerl.agents.base import Learner, Lesson, Memory, Policy, Tray
from ensemblerl.agents.critics.committee import Committee, Critics
from ensemblerl.agents.critics.credit import shared
from ensemblerl.agents.critics.picking import nothing, picked, with_replicas
from ensemblerl.agents.learners.imagining import imagined, improves
from ensemblerl.agents.learners.mpo import Fitted
from ensemblerl.agents.learners.towards import towards
from ensemblerl.protocols import State
from ensemblerl.records import Cube, Demands

FIRST, REAL, DISCRETE = 2, 2, 1
"""Members that are ok before critics are asked: at least, and for each coordinate more."""
TRAY = (8, 256)
"""Least and most points that are picked for the asks until the next lesson."""
AHEAD = 2
"""Times as many as results have come since the lesson before."""
MAXIMA = 64
"""Of draws from the quadratic, that a mixture over real numbers is fitted to."""
WORTH, HOLD = 60.0, 10.0
"""Elsewhere: what all imagined points count for once critics are always right, and the policy as
it is. Of choices there are few, so that steps as long as on real numbers would leave none.
"""


class Guided:
    """Learns from results by another learner, then from what critics imagine.

    Critics draw from what they believe, and say where their draw is best. The policy takes a step
    towards these points as if they had been the best members: a fit of largest likelihood in a
    trust region, see `ensemblerl.agents.learners.towards`. Other such points are kept for the agent
    to pick from. When no critic foretells anything, there is no such step: the learner's own stands
    alone.

    A mixture over real numbers alone is fitted to maxima of draws from the quadratic. Any other
    policy, and any over choices or levels, takes a step towards candidates, by rewards that all
    critics draw for them: see `ensemblerl.agents.learners.imagining`.

    Parameters
    ----------
    learner : from results
    anchor : effective points that the policy counts for in the step towards maxima
    imagined : what the maxima count for together, once critics are always right
    deep_ensemble : whether a deep ensemble is one of the critics, once there are 1,000
        members

    Attributes
    ----------
    agent : name of its agent where there may be others, "" for the only one: agents that know the
        same learn the same policy, and yet are to pick other points

    Raises
    ------
    TypeError, ValueError
        for another thing than a learner, numbers that are not positive, and a deep_ensemble that
        is not True or False
    """

    name = "guided"

    def __init__(
        self,
        learner: Learner,
        *,
        anchor: float = 2.0,
        imagined: float = 1000.0,
        deep_ensemble: bool = False,
    ) -> None:
        if isinstance(learner, type) or not isinstance(learner, Learner):
            raise TypeError(f"learner: wanted a learner such as MPO(), got {learner!r}")
        for name, value in (("anchor", anchor), ("imagined", imagined)):
            if not (isinstance(value, int | float) and np.isfinite(value) and value > 0):
                raise ValueError(f"{name}: wanted a number > 0, got {value!r}")
        if not isinstance(deep_ensemble, bool):
            raise TypeError(f"deep_ensemble: wanted True or False, got {deep_ensemble!r}")
        self.learner, self.anchor, self.imagined = learner, anchor, imagined
        self.deep_ensemble = deep_ensemble
        self.agent = ""
        self.tray: Tray | None = None
        self._committee: Committee | None = None
        self._restored: State | None = None

    def learn(
        self, policy: Policy, memory: Memory, demands: Demands, rng: np.random.Generator
    ) -> Lesson:
        """A lesson from results, and one from critics where these foretell something.

        Raises
        ------
        TypeError
            for a policy that the learner cannot teach
        """
        lesson, self.tray = self.learner.learn(policy, memory, demands, rng), None
        rows = memory.rows()
        if not demands.ranked or int(rows.ok.sum()) < first(policy.cube):
            return lesson
        committee = self._met(policy)
        n = int(np.clip(AHEAD * (len(rows) - committee.known), *TRAY))
        critics = committee.learn(rows, demands.noisy)
        weights = committee.weights(critics)
        metrics = {**lesson.metrics, **told(committee, weights)}
        waiting, known = memory.waiting().unit, rows.unit[rows.ok]
        if not weights:
            if demands.replicated_share > 0:
                tray = nothing(critics, policy.cube)
                self.tray = with_replicas(tray, critics, known, waiting, demands, n, rng)
            return Lesson(lesson.policy, metrics)
        better = self._maximised(lesson.policy, critics, weights, committee, rng)
        if better is None:
            believed = sum(
                weights.get(name, 0.0) * skill for name, skill in committee.skills().items()
            )
            alpha = demands.temperature
            found = imagined(lesson.policy, critics, weights, waiting, alpha, rng)
            worth = WORTH * believed * found.share
            better = towards(lesson.policy, found.unit, worth, HOLD, rng)
            if len(found.unit) and not improves(
                lesson.policy, better, critics, waiting, alpha, rng
            ):
                better = lesson.policy
            metrics["imagined_ess"] = found.ess
        if self.agent:
            rng = np.random.default_rng([crc32(self.agent.encode()), int(rng.integers(2**63))])
        if demands.picked_share > 0:
            shares, share = shared(rows, weights, demands.picked_share)
            tray = replace(picked(critics, shares, better, waiting, n, rng), share=share)
            self.tray = with_replicas(tray, critics, known, waiting, demands, n, rng)
            metrics["picked_share"] = share * demands.picked_share
            metrics |= {f"share_{name}": by for name, by in shares.items()}
        return Lesson(better, metrics)

    def _maximised(
        self,
        policy: Policy,
        critics: Critics,
        weights: dict[str, float],
        committee: Committee,
        rng: np.random.Generator,
    ) -> Policy | None:
        """The step towards maxima of the quadratic; None where a policy takes the other one."""
        if not isinstance(policy, Fitted):
            return None
        if any(edges is not None for edges in policy.cube.edges):
            # the maxima lie in few cells: a step there would give up all others
            return None
        if "quadratic" not in weights:
            return policy
        assert critics.quadratic is not None
        feasibility, unit = critics.feasibility, critics.quadratic.maxima(MAXIMA, rng)
        unit = feasibility.passed(feasibility.moved(unit), rng)
        if not len(unit):
            return policy
        worth = self.imagined * weights["quadratic"] * committee.skills()["quadratic"]
        return policy.fitted(unit, np.full(len(unit), worth / MAXIMA), self.anchor, rng)

    def _met(self, policy: Policy) -> Committee:
        if self._committee is None:
            self._committee = Committee(policy.cube, deep_ensemble=self.deep_ensemble)
            if self._restored is not None:
                self._committee.load_state_dict(self._restored)
                self._restored = None
        return self._committee

    def state_dict(self) -> State:
        """The learner's, and the committee's."""
        own = self._committee.state_dict() if self._committee else self._restored
        return {"learner": self.learner.state_dict(), "committee": own or {}}

    def load_state_dict(self, state: State) -> None:
        """Take it up."""
        self.learner.load_state_dict(state["learner"])
        self._committee, self._restored = None, state["committee"] or None

    def describe(self) -> dict[str, Any]:
        """Class, arguments, and the learner."""
        given: dict[str, Any] = {"anchor": self.anchor, "imagined": self.imagined}
        given["deep_ensemble"] = self.deep_ensemble
        return {"learner": "Guided", **given, "from_results": self.learner.describe()}


def first(cube: Cube) -> int:
    """Members that are ok before critics are asked: of a few values fewer tell than of a real
    number.
    """
    real = sum(edges is None for edges in cube.edges)
    return FIRST + REAL * real + DISCRETE * (cube.ndim - real)


def told(committee: Committee, weights: dict[str, float]) -> dict[str, float]:
    """Skill and weight of each critic, for the telemetry."""
    skills = {f"skill_{name}": skill for name, skill in committee.skills().items()}
    return {**skills, **{f"weight_{name}": weights.get(name, 0.0) for name in committee.skills()}}
