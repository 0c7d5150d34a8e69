"""A policy that begins where somebody thinks that it is good, and can be talked out of it."""

from __future__ import annotations

import numpy as np

from ensemblerl.agents.base import Policy, Tray
from ensemblerl.agents.learners.towards import towards
from ensemblerl.records import Cube, FloatArray, Hints

CRITIC = "warm"
"""Who picked the points that are worth running first."""
STREAM = 0x3A93
"""Of the random numbers: those of a campaign are not touched."""
ROWS = 1024
"""Points that the policy is fitted to, about: hints with unknown coordinates are filled in several
times."""
ROUNDS = 3
"""Fits, each in the trust region of the one before; that gives a mixture a component of its own
for the hints, and one that stays the prior's."""
PRIOR = 0.25
"""What the prior counts for in each fit, as a share of what the hints do."""


def warmed(policy: Policy, hints: Hints) -> Policy:
    """The policy moved towards the hints; a function of both alone.

    A fit of largest likelihood in a trust region. Unknown coordinates are drawn from the prior,
    so that nothing is learnt of them, and points drawn from the prior are among those fitted to.
    """
    total = float(hints.weight.sum())
    if total <= 0:
        return policy
    rng = np.random.default_rng(STREAM)
    unit, weight = filled(policy.cube, hints, rng)
    prior = policy.cube.canonical(rng.random((ROWS // 4, policy.cube.ndim)))
    unit = np.concatenate([unit, prior])
    weight = np.concatenate([weight, np.full(len(prior), PRIOR * total / len(prior))])
    for _ in range(ROUNDS):
        policy = towards(policy, unit, weight, PRIOR * total, rng)
    return policy


def filled(cube: Cube, hints: Hints, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """(n, ndim) points and (n,) weights: hints with unknown coordinates several times each."""
    unknown = np.isnan(hints.unit)
    times = max(1, ROWS // len(hints.unit)) if unknown.any() else 1
    unit, unknown = (np.repeat(array, times, axis=0) for array in (hints.unit, unknown))
    unit = np.where(unknown, rng.random(unit.shape), unit)
    return cube.canonical(unit), np.repeat(hints.weight / times, times)


def first_tray(hints: Hints) -> Tray | None:
    """The points worth running first; None without any."""
    if not len(hints.first):
        return None
    return Tray(hints.first.copy(), {"critic": np.full(len(hints.first), CRITIC)})
