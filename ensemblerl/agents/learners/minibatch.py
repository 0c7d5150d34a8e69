"""A minibatch as a loss sees it, and what every learner reads off it.

Shapes: ``n`` rows, ``T`` steps of a point, ``H`` numbers of a hidden state. ``log_pi`` and
``log_mu`` are the log densities of the policy that learns and of the behaviour that drew the
rows, both over the prior's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ensemblerl.agents.base import Policy, Rows
from ensemblerl.records import BoolArray, FloatArray

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 30.0
"""Largest log of a ratio either way: there it is cut even without a clip, so that nothing
overflows and no sum of ratios is 0."""


@runtime_checkable
class Differentiable(Policy, Protocol):
    """A policy built in steps, through which a gradient can be followed."""

    @property
    def trainable(self) -> tuple[str, ...]:
        """Names of the weights that learn."""

    def torch_steps(
        self, weights: dict[str, Tensor], unit: FloatArray
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(n, ndim) -> (n, T) `steps`, (n, T, H) what each was decided from, (n, T) active."""


class Seen(NamedTuple):
    """A minibatch, with what the policy says of it: ``steps`` (n, T), 0 where not ``active``.

    ``R`` (n,) is finite, ``alpha`` positive; ``hidden`` (n, T, H) precedes the step's token.
    """

    rows: Rows
    R: FloatArray
    alpha: float
    steps: Tensor
    hidden: Tensor
    active: Tensor

    @property
    def log_pi(self) -> Tensor:
        """(n,) with its gradient."""
        return self.steps.sum(dim=1)


class Judged(NamedTuple):
    """A scalar loss, the (n,) priorities >= 0 that its rows deserve, and what was seen."""

    loss: Tensor
    priority: FloatArray
    metrics: dict[str, float]


def ratio(log_pi: FloatArray, log_mu: FloatArray) -> FloatArray:
    """(...) pi / mu, what turns an average over mu into one over pi; within exp(+-`LARGEST`)."""
    return np.exp(np.clip(log_pi - log_mu, -LARGEST, LARGEST))


def finite(R: FloatArray) -> FloatArray:
    """(n,) with the failed (-inf) as bad as the worst of the others; 0 where all failed."""
    ok = np.isfinite(R)
    return np.where(ok, R, R[ok].min() if ok.any() else 0.0)


def dense(rows: Rows) -> BoolArray:
    """(n,) whether the density at the draw is known: not of picks, and of what no version drew only
    where one was noted. (Among those, a density of exactly the prior's cannot be told from none.)
    """
    return np.asarray((rows.critic == "") & ((rows.version >= 0) | (rows.log_prob != 0)))


def watched(seen: Seen) -> dict[str, float]:
    """Estimates under the policy from rows that others drew, by self-normalised weights.

    ``entropy`` is relative to the prior's (0 for the prior, negative otherwise), ``ess`` the
    effective sample size of the minibatch, ``ratio`` the mean of pi / mu. Rows without a density
    tell nothing of these; where no row has one all are NaN.
    """
    known = dense(seen.rows)
    if not known.any():
        return dict.fromkeys(("entropy", "ess", "ratio"), float("nan"))
    log_pi, weight = seen.log_pi.detach().numpy()[known], seen.rows.weight[known]
    rho = ratio(log_pi, seen.rows.log_prob[known])
    each = weight * rho
    return {
        "entropy": -float(each @ log_pi / each.sum()),
        "ess": float(each.sum() ** 2 / (each @ each)),
        "ratio": float(each.sum() / weight.sum()),
    }
