"""How likely a member is to fail: a plane between what failed near it, and what did not.

Around each point a logistic regression, on equally many of the nearest members of either fate. So
the few of one fate that are near tell as much as the many of the other of where the edge is; each
then stands for as many as there are of its fate within their reach (weighting, King and Zeng 2001,
doi:10.1093/oxfordjournals.pan.a004868; correcting the odds alone would move the edge towards the
fewer, by much where hardly a member is beyond it). The prior of the coefficients is normal, the
posterior is taken for normal, and the odds are shrunk by its spread (MacKay 1992,
doi:10.1162/neco.1992.4.5.720). Like any critic it has to vouch for itself: as far as it foretells
no better who of the newest members failed, each left out in turn, than the share of failures does,
its odds are drawn back to that share. What counts is how much more likely a failure is than where
the safest members are. So failures in which no pattern is seen keep nobody away, however many.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ensemblerl.agents.critics.features import columns, ordered, shut
from ensemblerl.agents.critics.kernel import squares
from ensemblerl.records import BoolArray, Cube, FloatArray, IntArray

NEIGHBOURS, MANY = 2, 24
"""Nearest members of each fate that are asked, for each column and one more, and at most. Near
the edge of a failing region these come ever nearer, so that the edge is seen ever finer.
"""
MOST = 2000
"""Newest members that are asked at all."""
PRECISION = 0.05
"""Of the prior of the coefficients, in units of the distance of those members: steep is likely."""
STEPS = 8
"""Of Newton's method: weights of rare failures take it a few more."""
LARGEST = 30.0
"""Log odds."""
AT_ONCE = 256
"""Points that are worked out together, so that memory is bounded."""
LIKELY = 0.1
"""Risk above which nothing is picked, before wariness."""
JUDGED = 128
"""Newest members that it is judged by."""
TRUSTS = np.linspace(0.0, 1.0, 11)
"""How far it may be trusted."""
SAFE, QUARTER, HALF = 64, 0.25, 0.5
"""Newest members that did not fail. What is as safe as the safest quarter of them is picked, up to
this risk, or to the share of failures where that is higher: else failures without a pattern would
end all picks.
"""
CAUTION = 4.0
"""A point is let pass by the chance that so many members at it would not fail, over that chance
where the safest quarter is.
"""
NEWEST, TARGET, GAIN, WARIEST = 256, 0.2, 0.5, 1.0
"""Picks that make wary, how many of them may fail, what each of them adds to the log odds, and the
most that they add.
"""
MOVES, FURTHEST = 4, 0.25
"""Steps out of where failures are likely, and the length of one at most."""


@dataclass(frozen=True)
class Feasibility:
    """Who fails where.

    Parameters
    ----------
    cube : of the points
    unit : (n, ndim) members
    failed : (n,) 1 where one failed
    wary : log odds that the largest risk is lowered by, see `wariness`
    """

    cube: Cube
    unit: FloatArray
    failed: FloatArray
    wary: float = 0.0

    def risk(self, unit: FloatArray) -> FloatArray:
        """(m, ndim) -> (m,) probability of a failure."""
        return _probability(self._planes(unit)[0])

    def _planes(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(m, ndim) -> (m,) log odds of a failure, (m, F) their slope."""
        known, fate = self.unit[-MOST:], self.failed[-MOST:]
        q = columns(self.cube, unit)[0]
        if not 0.0 < self.share < 1.0:
            return np.full(len(q), np.inf if self.share else -np.inf), np.zeros(q.shape)
        plain = _log_odds(self.share)
        odds, slope = np.full(len(q), plain), np.zeros(q.shape)
        x = columns(self.cube, known)[0]
        for i in range(0, len(q) if self.trust > 0 else 0, AT_ONCE):
            rows = slice(i, i + AT_ONCE)
            found, down = plane(q[rows], x, fate)
            odds[rows], slope[rows] = plain + self.trust * (found - plain), self.trust * down
        return odds, slope

    @cached_property
    def share(self) -> float:
        """Of failures, among the members that are asked."""
        fate = self.failed[-MOST:]
        return float(fate.mean()) if len(fate) else 0.0

    @cached_property
    def trust(self) -> float:
        """How far from the share of failures the odds go, from 0 to 1: the one by which the fates
        of the newest members are the most likely, each foretold by all others (Platt 1999, in
        Advances in Large Margin Classifiers, with the share for its fixed point).
        """
        known, fate = self.unit[-MOST:], self.failed[-MOST:]
        if min(fate.sum(), (1.0 - fate).sum()) < 2:
            return 0.0
        x, newest = columns(self.cube, known)[0], np.arange(len(fate))[-JUDGED:]
        odds, _ = plane(x[newest], x, fate, newest)
        plain = _log_odds(self.share)
        tried = plain + TRUSTS[:, None] * (odds - plain)
        sign = 2.0 * fate[newest] - 1.0
        return float(TRUSTS[np.argmin(np.logaddexp(0.0, -sign * tried).sum(axis=1))])

    @property
    def failures(self) -> FloatArray:
        """(k, ndim) members that failed."""
        return self.unit[self.failed > 0]

    @cached_property
    def safest(self) -> float:
        """Log odds of a failure where the safest quarter is; -inf where all are alike."""
        if not 0.0 < self.share < 1.0:
            return -np.inf
        odds, _ = self._planes(self.unit[self.failed == 0][-SAFE:])
        most = max(_log_odds(HALF), _log_odds(self.share))
        return min(float(np.quantile(odds, QUARTER)), most)

    @property
    def limit(self) -> float:
        """Log odds of a failure above which nothing is picked."""
        return max(_log_odds(LIKELY) - self.wary, self.safest)

    @property
    def most(self) -> float:
        """Risk above which nothing is picked."""
        return float(_probability(np.array(self.limit)))

    def log_chance(self, unit: FloatArray) -> FloatArray:
        """(m, ndim) -> (m,) log of the chance to be let pass; -inf where a known constraint says
        no, and where the risk is high: the policy's draws are there to find out.
        """
        odds = self._planes(unit)[0]
        allowed = odds <= self.limit  # odds, not risks: where all are alike, exactly so
        if self.cube.feasible is not None:
            allowed &= self.cube.feasible(unit)
        # log(1 - risk) is -log(1 + e^odds)
        more = np.logaddexp(0.0, odds) - np.logaddexp(0.0, self.safest)
        return np.where(allowed, -CAUTION * np.maximum(more, 0.0), -np.inf)

    def passed(self, unit: FloatArray, rng: np.random.Generator) -> FloatArray:
        """(m, ndim) -> those that are let pass."""
        return unit[rng.random(len(unit)) < np.exp(self.log_chance(unit))]

    def moved(self, unit: FloatArray) -> FloatArray:
        """(m, ndim) -> (m, ndim) those that are likely to fail moved straight to where they are
        not: Newton's steps down the log odds, along the coordinates that have an order.
        """
        if not self.failed.any() or self.failed.all() or not len(unit):
            return unit
        out, to = unit.copy(), ordered(self.cube)
        at = np.searchsorted(columns(self.cube, unit[:1])[1], to)
        least, most = _log_odds(0.5 * self.most), self.limit
        for _ in range(MOVES):
            odds, slope = self._planes(out)
            rows = np.flatnonzero(odds > most)
            if not len(rows):
                break
            down = slope[rows[:, None], at]
            steep = np.maximum((down**2).sum(axis=1, keepdims=True), 1e-12)
            step = down * (odds[rows, None] - least) / steep
            length = np.sqrt((step**2).sum(axis=1, keepdims=True))
            step *= np.minimum(1.0, FURTHEST / np.maximum(length, 1e-300))
            out[rows[:, None], to] = shut(out[rows[:, None], to] - step)
        return self.cube.canonical(out)


def plane(
    q: FloatArray, x: FloatArray, fate: FloatArray, own: IntArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """The log odds of a failure, and their slope.

    Parameters
    ----------
    q : (m, F) columns of points
    x : (n, F) columns of members, of both fates
    fate : (n,) 1 where one failed
    own : (m,) the member that each point is, which is left out; None: they are no members

    Returns
    -------
    (m,) log odds, (m, F) slopes in units of the columns
    """
    apart, n = squares(q, x), min(NEIGHBOURS * (x.shape[1] + 1), MANY)
    if own is not None:
        apart[np.arange(len(q)), own] = np.inf
    near = np.concatenate([_nearest(apart, fate == c, n) for c in (0.0, 1.0)], axis=1)
    far, y = np.take_along_axis(apart, near, axis=1), fate[near]
    asked = np.isfinite(far)  # not its own fate, where all of a fate are asked
    far = np.where(asked, far, 0.0)
    scale = np.sqrt(np.maximum(far.sum(axis=1) / asked.sum(axis=1), 1e-300) / x.shape[1])
    z = np.ones((*y.shape, x.shape[1] + 1))
    z[:, :, 1:] = (x[near] - q[:, None]) / scale[:, None, None]
    # of a fate with many members there, those that were asked stand for all
    there = apart <= far.max(axis=1, keepdims=True)
    each = [(there & (fate == c)).sum(axis=1) / (asked & (y == c)).sum(axis=1) for c in (0.0, 1.0)]
    weight = asked * np.where(y > 0, each[1][:, None], each[0][:, None])
    beta, eye = np.zeros((len(q), z.shape[2], 1)), np.eye(z.shape[2])
    turned = z.transpose(0, 2, 1)
    for _ in range(STEPS):
        p = _probability(np.clip(z @ beta, -LARGEST, LARGEST))
        H = turned @ (weight[:, :, None] * p * (1.0 - p) * z) + PRECISION * eye
        rest = (weight * (y - p[:, :, 0]))[:, :, None]
        beta = beta + np.linalg.solve(H, turned @ rest - PRECISION * beta)
    variance = np.linalg.solve(H, eye[None, :, :1])[:, 0, 0]
    shrunk = np.sqrt(1.0 + np.pi / 8.0 * variance)
    odds = beta[:, 0, 0] / shrunk
    return np.clip(odds, -LARGEST, LARGEST), beta[:, 1:, 0] / (scale * shrunk)[:, None]


def wariness(failed: FloatArray) -> float:
    """How much more careful picks are for those that failed: up by each that did, down by each
    that did not, so that in the long run as many fail as may (the adaptive conformal inference of
    Gibbs and Candès 2021, arXiv:2106.00263), within bounds.

    Parameters
    ----------
    failed : (n,) 1 where a pick failed, else 0; in number order

    Returns
    -------
    Log odds >= 0
    """
    wary = 0.0
    for fate in failed[-NEWEST:].tolist():
        wary = min(max(wary + GAIN * (fate - TARGET), 0.0), WARIEST)
    return wary


def _nearest(apart: FloatArray, which: BoolArray, n: int) -> IntArray:
    """(m, k) squared distances, (k,) members to choose from -> (m, n at most) the nearest."""
    rows = np.flatnonzero(which)
    if len(rows) <= n:
        return np.broadcast_to(rows, (len(apart), len(rows)))
    return np.asarray(rows[np.argpartition(apart[:, rows], n - 1, axis=1)[:, :n]])


def _probability(odds: FloatArray) -> FloatArray:
    """(...) log odds -> (...)."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.maximum(odds, -700.0)))) * (odds > -np.inf)


def _log_odds(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))
