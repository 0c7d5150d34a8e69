"""What critics imagine for a policy: points, and what each is worth in a step towards them.

The target of the one formula is  pi*(x) ∝ p(x) exp(R(x) / alpha),  here with rewards that are
drawn from what the critics believe (Thompson sampling): joint draws over a set of candidates, by
critics who are themselves drawn by their weights. In each draw R is the rank of a candidate, so
that no unit matters, and a candidate is worth the mean over the draws of  exp(beta R),  normalised
in each. Where all draws agree that is one candidate, where the critics are unsure it is many.

The step is no longer than the target's own, beta <= 1 / alpha, and no longer than for an effective
number of candidates to remain (as in `ensemblerl.agents.learners.estep`): in a space of choices the
best ones lie in few cells, and a step there alone would give up all others.

Candidates are few, and a policy that has found a place may be finer than they are. So a step is
taken only if by the critics it is one of improvement: if draws of the new policy have more of what
the target is the most of,  E[R] - alpha KL(pi || p),  than draws of the old one.

Shapes: ``m`` candidates, ``D`` draws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ensemblerl.agents.base import Policy
from ensemblerl.agents.critics.committee import Critics
from ensemblerl.agents.critics.picking import Known, candidates
from ensemblerl.agents.learners.estep import HALVINGS, effective_size
from ensemblerl.records import FloatArray

DRAWS = 32
"""Of rewards, by all critics together."""
MOST = 384
"""Candidates at most: a joint draw costs their cube."""
LEAST = 2.0
"""Effective candidates that remain, in coordinates."""
KEPT = 0.95
"""Of what all candidates are worth, by the best ones: the others only cost time."""
TRIED = 128
"""Draws of either policy, that tell whether one is better than the other."""
GENTLEST = 1e-3
"""Smallest beta that is tried, and over alpha = 0 the largest is its inverse squared."""


class Imagined(NamedTuple):
    """(m, ndim) points, (m,) what each is worth, of sum 1; their effective number, and 1 / beta."""

    unit: FloatArray
    share: FloatArray
    ess: float
    temperature: float


def imagined(
    policy: Policy,
    critics: Critics,
    weights: dict[str, float],
    waiting: FloatArray,
    alpha: float,
    rng: np.random.Generator,
) -> Imagined:
    """What a step of the policy is towards: nothing, where there is nothing to choose from.

    Parameters
    ----------
    policy : some candidates are its draws
    critics, weights : those that have a weight imagine
    waiting : (p, ndim) points on their way
    alpha : temperature >= 0
    rng : of candidates, critics and rewards
    """
    unit = thought_of(policy, critics, waiting, rng)
    if len(unit) < 2:
        return Imagined(unit[:0], np.zeros(0), 0.0, np.inf)
    R = ranks(dreamt(critics, weights, unit, rng))
    least = min(LEAST * policy.cube.ndim, 0.5 * len(unit))
    share, beta = worth(R, alpha, least)
    order = np.argsort(-share, kind="stable")
    kept = order[: 1 + int(np.searchsorted(np.cumsum(share[order]), KEPT))]
    share = share / share[kept].sum()
    return Imagined(unit[kept], share[kept], effective_size(share[kept]), 1.0 / beta)


def improves(
    old: Policy,
    new: Policy,
    critics: Critics,
    waiting: FloatArray,
    alpha: float,
    rng: np.random.Generator,
) -> bool:
    """Whether by the Gaussian process draws of ``new`` have more of E[R] - alpha KL(pi || p).

    R is the rank among the draws of both; a discrete point that is known already has the lowest.
    """
    gp, both = critics.gp, (old, new)
    assert gp is not None
    drawn = [policy.sample(TRIED, None, rng) for policy in both]
    order = rng.permutation(2 * TRIED)  # equal ones have the same rank, on average
    unit, mine = np.concatenate(drawn)[order], order >= TRIED
    rewards, known = gp.sample(unit, DRAWS, rng), Known(old.cube)
    if known.discrete:
        known.add(np.concatenate([waiting, critics.feasibility.unit]))
        rewards[:, ~known.new(unit)] = -np.inf
    R = np.where(np.isfinite(rewards), ranks(rewards), 0.0)
    kl = [float(p.log_prob(u).mean()) for p, u in zip(both, drawn, strict=True)]
    return bool(R[:, mine].mean() - R[:, ~mine].mean() > alpha * (kl[1] - kl[0]))


def thought_of(
    policy: Policy, critics: Critics, waiting: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """(m, ndim) candidates, m <= `MOST`: that are let pass, and of discrete points none that is
    known already.
    """
    if critics.gp is None:
        return np.zeros((0, policy.cube.ndim))
    unit = candidates(critics.gp, policy, rng)
    unit = rng.permutation(critics.feasibility.passed(unit, rng))
    known = Known(policy.cube)
    if known.discrete:
        known.add(np.concatenate([waiting, critics.feasibility.unit]))
        unit = unit[known.first(unit)]
    return unit[:MOST]


def dreamt(
    critics: Critics, weights: dict[str, float], unit: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """(m, ndim) -> (D, m) draws of the reward, each in the unit of the critic that drew it; -inf
    where that critic says nothing.
    """
    names = sorted(weights)
    times = rng.multinomial(DRAWS, [weights[name] for name in names])
    drawn = []
    for name, n in zip(names, times.tolist(), strict=True):
        critic = critics[name]
        assert critic is not None
        if n:
            drawn.append(critic.sample(unit, n, rng))
    return np.concatenate(drawn)


def ranks(drawn: FloatArray) -> FloatArray:
    """(D, m) -> (D, m) rank in each draw, in (0, 1), of those of which something is said; -inf of
    others. All are alike where nothing is said of any.
    """
    place = np.argsort(np.argsort(drawn, axis=1, kind="stable"), axis=1)
    said = np.isfinite(drawn)
    R = np.where(said, (place + 0.5) / drawn.shape[1], -np.inf)
    R[~said.any(axis=1)] = 0.5
    return R


def worth(R: FloatArray, alpha: float, least: float) -> tuple[FloatArray, float]:
    """(D, m) ranks -> (m,) shares of sum 1, and the beta of the longest step: at most 1 / alpha,
    and such that the effective number of candidates is ``least`` or more.
    """

    def at(beta: float) -> FloatArray:
        w = np.exp(beta * (R - R.max(axis=1, keepdims=True)))
        return np.asarray((w / w.sum(axis=1, keepdims=True)).mean(axis=0))

    low, high = GENTLEST, min(1.0 / alpha if alpha > 0 else np.inf, GENTLEST**-2)
    beta = high
    if effective_size(at(high)) < least:
        for _ in range(HALVINGS):
            beta = float(np.sqrt(low * high))
            low, high = (beta, high) if effective_size(at(beta)) >= least else (low, beta)
        beta = low
    return at(beta), beta
