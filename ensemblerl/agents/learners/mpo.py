"""Weighted maximum likelihood in a KL trust region: MPO's two steps on rows that come late."""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from ensemblerl.agents.base import Lesson, Memory, Policy
from ensemblerl.agents.learners.estep import worth
from ensemblerl.protocols import State
from ensemblerl.records import Demands, FloatArray

NEWEST = 4096
"""Rows that a lesson looks at, so that its work is bounded."""
COVER = 4
"""Times as many effective rows where every mode is to be kept."""


@runtime_checkable
class Fitted(Protocol):
    """A policy whose M-step has a closed form."""

    def fitted(
        self, unit: FloatArray, weight: FloatArray, anchor: float, rng: np.random.Generator
    ) -> Self:
        """Maximum of  sum_i weight_i log pi(x_i) - anchor KL(self || pi)."""


class MPO:
    """Maximum a posteriori policy optimisation (Abdolmaleki et al. 2018, arXiv:1806.06920).

    E-step: weights of the rows, see `ensemblerl.agents.learners.estep`. M-step: weighted maximum
    likelihood with ``anchor KL(old || new)`` as trust region, in closed form, so that a lesson is
    a function of policy and rows and keeps no state.

    Parameters
    ----------
    anchor : effective rows that the policy as it is counts for
    least : effective rows that a step keeps for each coordinate; and see ``root``
    root : and that many times the root of the number of rows, so that the step shortens as noise
        averages out while the selection sharpens
    clip : bound of the ratio to the density at the draw, None for none
    corrected : False leaves the ratio out, for contrast

    Raises
    ------
    ValueError
        for numbers that are not positive
    """

    name = "mpo"

    def __init__(
        self,
        *,
        anchor: float = 10.0,
        least: float = 2.0,
        root: float = 1.6,
        clip: float | None = 1.0,
        corrected: bool = True,
    ) -> None:
        given = {"anchor": anchor, "least": least, "root": root, "clip": clip}
        for name, value in given.items():
            if value is None and name == "clip":
                continue
            if not (isinstance(value, int | float) and np.isfinite(value) and value > 0):
                raise ValueError(f"{name}: wanted a number > 0, got {value!r}")
        self.anchor, self.least, self.root = anchor, least, root
        self.clip, self.corrected = clip, corrected

    def learn(
        self, policy: Policy, memory: Memory, demands: Demands, rng: np.random.Generator
    ) -> Lesson:
        """One E-step and the M-step on the newest rows.

        Raises
        ------
        TypeError
            for a policy without a closed M-step
        """
        if not isinstance(policy, Fitted):
            raise TypeError(
                f"learner: MPO wants a policy with a fitted(...) method such as MixturePolicy, "
                f"got {type(policy).__name__}; use TrajectoryBalance for it"
            )
        rows = memory.rows()
        rows = rows.take(np.arange(max(0, len(rows) - NEWEST), len(rows)))
        R = np.where(rows.ok, memory.utility(rows, demands), -np.inf)
        n, ndim = int(rows.ok.sum()), policy.cube.ndim
        least = max(self.least * ndim, self.root * np.sqrt(n))
        least = min(COVER * least if demands.covering else least, 0.5 * n)
        log_pi, alpha = policy.log_prob(rows.unit), demands.temperature
        got = worth(log_pi, rows.log_prob, R, alpha, least, self.clip, self.corrected)
        metrics = {
            "loss": _loss(got.weight, log_pi),
            "ess": got.ess,
            "temperature": 1.0 / got.beta if got.beta > 0 else np.inf,
            "clipped": got.clipped,
        }
        if got.ess <= 0:
            return Lesson(policy, metrics)
        return Lesson(policy.fitted(rows.unit, got.weight, self.anchor, rng), metrics)

    def state_dict(self) -> State:
        """It has none."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """There is none."""

    def describe(self) -> dict[str, Any]:
        """Class and arguments."""
        names = ("anchor", "least", "root", "clip", "corrected")
        return {"learner": "MPO", **{name: getattr(self, name) for name in names}}


def _loss(weight: FloatArray, log_pi: FloatArray) -> float:
    """Mean of -log pi by weight."""
    total = float(weight.sum())
    return float(-(weight @ log_pi) / total) if total > 0 else float("nan")
