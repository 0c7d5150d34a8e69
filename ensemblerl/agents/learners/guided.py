"""A learner with critics: between results, the policy improves on what it imagines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ensemblerl.agents.base import Learner, Lesson, Memory, Policy, Tray
from ensemblerl.agents.critics.committee import Committee, Critics
from ensemblerl.agents.critics.credit import shared
from ensemblerl.agents.critics.picking import picked
from ensemblerl.agents.learners.mpo import Fitted
from ensemblerl.protocols import State
from ensemblerl.records import Demands

FIRST = 2
"""Members that are ok before critics are asked: in coordinates, and two more."""
TRAY = (8, 256)
"""Least and most points that are picked for the asks until the next lesson."""
AHEAD = 2
"""Times as many as results have come since the lesson before."""
IMAGINED = 64
"""Points that critics imagine for the policy."""


class Guided:
    """Learns from results by another learner, then from what critics imagine.

    Critics draw from what they believe, and say where their draw is best. The policy takes a step
    towards these points as if they had been the best members: a fit of largest likelihood in the
    trust region that it has for results. Other such points are kept for the agent to pick from.
    When no critic foretells anything, there is no such step: the learner's own stands alone.

    Parameters
    ----------
    learner : from results
    anchor : effective points that the policy counts for in the step towards what is imagined
    imagined : what these points count for together, once critics are always right

    Raises
    ------
    TypeError, ValueError
        for another thing than a learner, and numbers that are not positive
    """

    name = "guided"

    def __init__(self, learner: Learner, *, anchor: float = 2.0, imagined: float = 1000.0) -> None:
        if isinstance(learner, type) or not isinstance(learner, Learner):
            raise TypeError(f"learner: wanted a learner such as MPO(), got {learner!r}")
        for name, value in (("anchor", anchor), ("imagined", imagined)):
            if not (isinstance(value, int | float) and np.isfinite(value) and value > 0):
                raise ValueError(f"{name}: wanted a number > 0, got {value!r}")
        self.learner, self.anchor, self.imagined = learner, anchor, imagined
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
        if not demands.ranked or int(rows.ok.sum()) < FIRST * (policy.cube.ndim + 1):
            return lesson
        committee = self._met(policy)
        n = int(np.clip(AHEAD * (len(rows) - committee.known), *TRAY))
        critics = committee.learn(rows)
        weights = committee.weights(critics)
        metrics = {**lesson.metrics, **told(committee, weights)}
        if not weights:
            return Lesson(lesson.policy, metrics)
        better = self._improved(lesson.policy, critics, weights, committee, rng)
        if demands.picked_share > 0:
            shares, share = shared(rows, weights, demands.picked_share)
            tray = picked(critics, shares, better, memory.waiting().unit, n, rng)
            self.tray = replace(tray, share=share)
            metrics["picked_share"] = share * demands.picked_share
            metrics |= {f"share_{name}": by for name, by in shares.items()}
        return Lesson(better, metrics)

    def _improved(
        self,
        policy: Policy,
        critics: Critics,
        weights: dict[str, float],
        committee: Committee,
        rng: np.random.Generator,
    ) -> Policy:
        if not isinstance(policy, Fitted) or "quadratic" not in weights:
            return policy
        if any(edges is not None for edges in policy.cube.edges):
            # the maxima lie in few cells: a step there would give up all others
            return policy
        assert critics.quadratic is not None
        unit = critics.feasibility.passed(critics.quadratic.maxima(IMAGINED, rng), rng)
        if not len(unit):
            return policy
        worth = self.imagined * weights["quadratic"] * committee.skills()["quadratic"]
        return policy.fitted(unit, np.full(len(unit), worth / IMAGINED), self.anchor, rng)

    def _met(self, policy: Policy) -> Committee:
        if self._committee is None:
            self._committee = Committee(policy.cube)
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
        given = {"anchor": self.anchor, "imagined": self.imagined}
        return {"learner": "Guided", **given, "from_results": self.learner.describe()}


def told(committee: Committee, weights: dict[str, float]) -> dict[str, float]:
    """Skill and weight of each critic, for the telemetry."""
    skills = {f"skill_{name}": skill for name, skill in committee.skills().items()}
    return {**skills, **{f"weight_{name}": weights.get(name, 0.0) for name in committee.skills()}}
