"""A policy with a share of the prior and a wide share in its draws: bounded weights, no clip."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from ensemblerl.agents.base import Context, Policy
from ensemblerl.records import FloatArray


class Defended:
    """The defensive mixture (Hesterberg 1995): prior, widened policy, policy, by their shares.

    Weights ``exp(-log_prob)`` are bounded by 1 / prior_share, and the density says all of it.

    Parameters
    ----------
    policy : what learns
    prior_share, wide_share : of the draws; the policy has the rest

    Raises
    ------
    ValueError
        for shares below 0 or above 1 together
    """

    def __init__(self, policy: Policy, prior_share: float, wide_share: float) -> None:
        if not (prior_share >= 0 and wide_share >= 0 and prior_share + wide_share <= 1):
            raise ValueError(
                "prior_share, wide_share: wanted shares >= 0 that leave the policy the rest of 1, "
                f"got {prior_share!r} and {wide_share!r}"
            )
        self.policy, self.cube, self.n_steps = policy, policy.cube, policy.n_steps
        self.shares = np.array([prior_share, wide_share, 1.0 - prior_share - wide_share])
        self._wide = policy.widened() if wide_share > 0 else policy

    def sample(self, n: int, context: Context, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) points, in random order of where they come from."""
        from_ = np.searchsorted(np.cumsum(self.shares), rng.random(n), side="right").clip(0, 2)
        unit = np.empty((n, self.cube.ndim))
        prior = from_ == 0
        if prior.any():
            draws = np.maximum(rng.random((int(prior.sum()), self.cube.ndim)), 2.0**-54)
            unit[prior] = self.cube.canonical(draws)
        for i, part in ((1, self._wide), (2, self.policy)):
            if (rows := from_ == i).any():
                unit[rows] = part.sample(int(rows.sum()), context, rng)
        return unit

    def log_prob(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """(n, ndim) -> (n,) log density of the mixture."""
        logs = [np.zeros(len(unit))]
        logs += [part.log_prob(unit, context) for part in (self._wide, self.policy)]
        return self._mean(np.array(logs))

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """(n, ndim) -> (n, T) log of each step's probability, given those before, over the
        prior's: of the mixture, whose components' shares change with every step.
        """
        whole = [np.zeros((len(unit), self.n_steps))]
        whole += [
            np.cumsum(part.steps(unit, context), axis=1) for part in (self._wide, self.policy)
        ]
        return np.diff(self._mean(np.array(whole)), axis=1, prepend=0.0)

    def _mean(self, logs: FloatArray) -> FloatArray:
        """(3, ...) -> (...) log of the mean by shares."""
        used = self.shares > 0
        shares = self.shares[used].reshape(-1, *[1] * (logs.ndim - 1))
        return np.asarray(logsumexp(logs[used], axis=0, b=shares))
