"""Trajectory balance with the normalisation estimated from the batch: the log-variance loss.

A policy that has learnt all makes ``log pi/p - R/alpha`` the same number, -log Z, at *every*
point. So its variance is a loss whose minimum is ``p exp(R / alpha) / Z`` whoever drew the
points: results that come late need no correction.

Malkin et al. 2022, arXiv 2201.13259, eq. 14 (trajectory balance); Richter et al. 2020, arXiv
2010.10436 (the log-variance loss); Zhang et al. 2023, arXiv 2302.05446 (log Z from the batch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemblerl.agents.learners.gradient import GradientLearner, positive
from ensemblerl.agents.learners.minibatch import Judged, Seen

if TYPE_CHECKING:
    from torch import Tensor


def trajectory_balance(log_Z: Tensor, log_pi: Tensor, reward_over_alpha: Tensor) -> Tensor:
    """(n,) squared imbalance of each point (one parent a state: P_B = 1)."""
    return (log_Z + log_pi - reward_over_alpha) ** 2


def estimated_log_z(log_pi: Tensor, reward_over_alpha: Tensor, weight: Tensor) -> Tensor:
    """() the log Z that makes the weighted sum of `trajectory_balance` least."""
    delta = log_pi - reward_over_alpha
    return -(weight * delta).sum() / weight.sum()


def log_variance(log_pi: Tensor, reward_over_alpha: Tensor, weight: Tensor) -> Tensor:
    """() weighted variance of delta = log pi - R / alpha over the batch.

    On rows that the policy itself drew, the expected gradient is twice that of
    KL(pi || p exp(R / alpha) / Z).
    """
    log_Z = estimated_log_z(log_pi, reward_over_alpha, weight)
    return (weight * trajectory_balance(log_Z, log_pi, reward_over_alpha)).sum() / weight.sum()


def bounded(square: Tensor, bound: float) -> Tensor:
    """(n,) squares of delta, growing linearly where abs(delta) > bound (Huber 1964, eq. 2.2).

    Value and slope agree at the bound, so no row pulls harder than one at the bound.
    """
    delta = square.clamp(min=bound**2).sqrt()
    return square.clamp(max=bound**2) + 2 * bound * (delta - bound)


@dataclass(kw_only=True, eq=False)
class TrajectoryBalance(GradientLearner):
    """The log-variance loss on rows whoever drew them.

    ``corrected`` weighs each row by its clipped ratio, which spends the policy's capacity where
    the policy is now; the minimum is the same.

    Parameters
    ----------
    delta_clip : the loss grows linearly beyond this distance from balance; None: it never does
    others : see `GradientLearner`
    """

    name: str = "trajectory_balance"
    corrected: bool = False
    delta_clip: float | None = None

    def _check(self) -> None:
        super()._check()
        if self.delta_clip is not None:
            positive("delta_clip", self.delta_clip)

    def loss(self, seen: Seen, heads: dict[str, Tensor]) -> Judged:
        """The log-variance; a row's priority is its distance from balance."""
        log_pi, new = seen.log_pi, seen.steps.new_tensor
        rho = self.ratios(log_pi.detach().numpy(), seen.rows.log_prob)
        weight = new(seen.rows.weight * np.minimum(rho, self.rho_bar))
        reward_over_alpha = new(seen.R / seen.alpha)
        log_Z = estimated_log_z(log_pi, reward_over_alpha, weight)
        square = trajectory_balance(log_Z, log_pi, reward_over_alpha)
        if self.delta_clip is None:
            loss = log_variance(log_pi, reward_over_alpha, weight)
        else:
            loss = (weight * bounded(square, self.delta_clip)).sum() / weight.sum()
        metrics = {"clipped": float(np.mean(rho > self.rho_bar)), "log_Z": log_Z.item()}
        return Judged(loss, np.sqrt(square.detach().numpy()), metrics)
