"""A critic of the whole space, fitted to members after the fact: what an explanation is read from.

Shapes: ``n`` members, ``m`` points, ``k`` draws.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ensemblerl.agents.critics.features import columns
from ensemblerl.agents.critics.gaussian_process import (
    Bend,
    GaussianProcess,
    fit,
)
from ensemblerl.agents.critics.kernel import JITTER, correlation, squares
from ensemblerl.records import Cube, FloatArray

STRAIGHT = 1e6
"""Spans of the rewards that a bend is soft over: so soft that it is straight, to 1e-6 of a span."""
FEATURES = 1024
"""Random cosines that a draw of the process is made of."""
BLOCK = 4096
"""Points at a time: bounds the memory."""
WORST = 1e-12
"""Least diagonal of an inverse, against rounding."""


class Skill(NamedTuple):
    """What a critic is worth under the prior.

    Parameters
    ----------
    share : of the reward's variance that it foretells, as far as members show: 1 where all is, 0
        where the mean would do as well, below 0 where it would do better
    se : its standard error
    sure : share of the variance that it is sure of, by its own word
    """

    share: float
    se: float
    sure: float

    @property
    def safe(self) -> float:
        """The share, less its standard error, and no more than what the critic is sure of."""
        return min(self.share - self.se, self.sure)


class Critic(NamedTuple):
    """A Gaussian process, and how well it foretells.

    Parameters
    ----------
    process : of bent rewards
    bent : whether the bend is that of the agent's critic; else rewards are as they are
    skill : how much of the reward's variance it foretells, see `skill`
    """

    process: GaussianProcess
    bent: bool
    skill: Skill

    def predict(self, unit: FloatArray) -> FloatArray:
        """(m, ndim) -> (m,) medians of the reward."""
        return self.process.bend.back(self.process.means(unit))

    def draws(self, unit: FloatArray, k: int, rng: np.random.Generator) -> FloatArray:
        """(m, ndim) -> (k, m) rewards that k functions drawn from the posterior have there."""
        return self.process.bend.back(functions(self.process, unit, k, rng))


def fitted(cube: Cube, unit: FloatArray, reward: FloatArray, prior: FloatArray) -> Critic | None:
    """The better of two: of rewards as they are, and bent as the agent's own critic sees them.

    A bend helps where bad rewards are bad by orders of magnitude, and costs where they are not.
    The skill says which it is.

    Parameters
    ----------
    cube : of the points
    unit : (n, ndim)
    reward : (n,) finite
    prior : (m, ndim) points of the prior, where it is to be good

    Returns
    -------
    Critic or None
        None where there is nothing to see: all rewards are alike, or beyond all numbers
    """
    bent = fit(cube, unit, reward)
    if bent is None:
        return None
    both = {False: _straight(cube, unit, reward), True: bent}
    critics = [Critic(process, is_bent, skill(process, prior)) for is_bent, process in both.items()]
    return max(critics, key=lambda critic: critic.skill.safe)


def _straight(cube: Cube, unit: FloatArray, reward: FloatArray) -> GaussianProcess:
    """As `ensemblerl.agents.critics.gaussian_process.fit`, of rewards that are not bent."""
    plain = Bend(float(reward.max()), STRAIGHT * float(np.ptp(reward)), 0.0, 1.0)
    t = plain(reward)
    how = replace(plain, middle=float(t.mean()), scale=float(t.std()))
    process = fit(cube, unit, reward, how=how)
    assert process is not None  # there is how to bend them
    return process


def skill(process: GaussianProcess, prior: FloatArray) -> Skill:
    """How much of the reward's variance under the prior is foretold, as far as members show.

    Each member is foretold by all others (Rasmussen and Williams 2006, equation 5.12; the scales
    were tuned on all), and counts for as many points of the prior as it is the nearest member of.
    Where an agent chose them, members crowd in few places: all alike, they would only tell how well
    a member is foretold by its next neighbours (Sugiyama et al. 2007, JMLR 8:985). The standard
    error is that of the jackknife. What lies far from all members no member tells of, but the
    critic knows that it does not know: ``sure`` is the variance of its forecast, over that and its
    own mean variance, both of bent rewards.

    Parameters
    ----------
    process : of the members
    prior : (m, ndim) points of the prior
    """
    n = len(process.y)
    inverse = np.diag(process.factor.solved(np.eye(n)))
    left_out = process.y - process.weight / np.maximum(inverse, WORST)
    told, truth = process.bend.back(left_out), process.bend.back(process.y)
    seen, asked = (columns(process.cube, unit)[0] for unit in (process.members, prior))
    weight = np.bincount(squares(asked, seen).argmin(axis=1), minlength=n)
    away = truth - truth.mean()
    terms = weight * np.stack([np.ones(n), away, away**2, (told - truth) ** 2])
    whole = terms.sum(axis=1)
    share, without = _share(whole), _share(whole[:, None] - terms)
    mean, spread = process.bent(prior)
    sure = mean.var() / (mean.var() + (spread**2).mean())
    return Skill(float(share), float(np.sqrt((n - 1) * without.var())), float(sure))


def _share(sums: FloatArray) -> FloatArray:
    """(4, ...) sums of weights, and of these times value, its square and squared error -> (...)."""
    total, first, second, error = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        share = 1.0 - error / (second - first**2 / total)
    return np.asarray(np.nan_to_num(share, nan=0.0, neginf=-1e9))


def functions(
    process: GaussianProcess, unit: FloatArray, k: int, rng: np.random.Generator
) -> FloatArray:
    """(m, ndim) -> (k, m) bent rewards of functions drawn from the posterior.

    Draws from the prior as sums of random cosines (the spectrum of Matérn 5/2 is Student's t of 5
    degrees of freedom), taken to the members by Matheron's rule (Wilson et al. 2020,
    arXiv:2002.09309, equation 12).
    """
    n, columns_ = process.x.shape
    size, noise = np.exp(process.theta[-2:])
    heavy = np.sqrt(5.0 / rng.chisquare(5.0, FEATURES))
    omega = rng.standard_normal((columns_, FEATURES)) * heavy
    phase = rng.uniform(0.0, 2.0 * np.pi, FEATURES)
    w = rng.standard_normal((FEATURES, k)) * np.sqrt(2.0 * size / FEATURES)

    def before(x: FloatArray) -> FloatArray:
        return np.asarray(np.cos(x @ omega + phase) @ w)

    error = rng.standard_normal((n, k)) * np.sqrt(noise + JITTER * size)
    gap = process.y[:, None] - before(process.x) - error
    weight = process.factor.solved(gap)
    out = np.empty((k, len(unit)))
    for i in range(0, len(unit), BLOCK):
        x = process.scaled(unit[i : i + BLOCK])
        out[:, i : i + BLOCK] = (before(x) + size * correlation(x, process.x) @ weight).T
    return out
