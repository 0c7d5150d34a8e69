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
        return self._mean([part.log_prob(unit, context) for part in self._learnt], len(unit))

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """(n, ndim) -> (n, T) log of each step's probability, given those before, over the
        prior's: of the mixture, whose components' shares change with every step.
        """
        whole = [np.cumsum(part.steps(unit, context), axis=1) for part in self._learnt]
        return np.diff(self._mean(whole, len(unit), self.n_steps), axis=1, prepend=0.0)

    @property
    def _learnt(self) -> list[Policy]:
        """Those with a share besides the prior, which is 0 everywhere on this scale."""
        parts = (self._wide, self.policy)
        return [part for part, share in zip(parts, self.shares[1:], strict=True) if share > 0]

    def _mean(self, logs: list[FloatArray], *shape: int) -> FloatArray:
        """Logs of what has a share besides the prior -> ``shape`` log of the mean by shares."""
        shares = self.shares[self.shares > 0]
        whole = np.array([np.zeros(shape), *logs] if self.shares[0] > 0 else logs)
        return np.asarray(logsumexp(whole, axis=0, b=shares.reshape(-1, *[1] * len(shape))))
