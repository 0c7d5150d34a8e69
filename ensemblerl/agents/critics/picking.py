"""Points that critics pick: the best they can think of, one after the other."""

from __future__ import annotations

import numpy as np

from ensemblerl.agents.base import Policy, Tray
from ensemblerl.agents.critics.committee import EVERY, Critics
from ensemblerl.agents.critics.features import ordered, shut
from ensemblerl.agents.critics.gaussian_process import GaussianProcess
from ensemblerl.agents.critics.improvement import Improvement
from ensemblerl.agents.critics.replication import again
from ensemblerl.records import AGAIN, BoolArray, Cube, Demands, FloatArray

WORD = np.array(EVERY).dtype
"""Of the names of critics: as long as the longest."""
CANDIDATES = 128
"""Of each kind."""
CHOICE, WORK = 2, 1e10
"""Times as many, at least, that the Gaussian process chooses from at a lesson; else once as many
for each pick, as long as they cost no more multiplications, by the square of its members."""
SCALES = (0.2, 0.05, 0.01, 0.002)
"""Steps away from good members, in units of the cube."""
KINDS = 3 + len(SCALES)
"""Of candidates: anywhere, which counts twice, draws of the policy, and steps."""
PARENTS = 5
"""Good members."""
FLIP = 0.2
"""Chance of another value of a coordinate without order, and at a step."""
WAITING, FAILURES = 256, 200
"""Newest members on their way, and newest that failed, which the Gaussian process is told of: with
all of them a lesson would grow without bound.
"""
BY_GP = 8
"""Points at most that the Gaussian process picks at a lesson, for each is a search of its own."""
TRIES = 4
"""Times as many maxima of the quadratic, for those that may fail or are known to be infeasible."""


def picked(
    critics: Critics,
    weights: dict[str, float],
    policy: Policy,
    waiting: FloatArray,
    n: int,
    rng: np.random.Generator,
) -> Tray:
    """At most n points, by critics drawn by their weights.

    Parameters
    ----------
    critics, weights : those that have a weight pick
    policy : some candidates are its draws
    waiting : (p, ndim) points on their way
    n : how many
    rng : of candidates, critics and draws from posteriors
    """
    cube = policy.cube
    names = sorted(weights)
    order = rng.choice(names, size=n, p=[weights[name] for name in names]).astype(WORD)
    late = np.flatnonzero(order == "gp")[BY_GP:]
    order[late] = next((name for name in ("ensemble", "quadratic") if name in names), "")
    by = {
        "quadratic": lambda k: by_quadratic(critics, k, rng),
        "gp": lambda k: by_gp(critics, policy, waiting, k, rng),
        "ensemble": lambda k: by_ensemble(critics, policy, waiting, k, rng),
    }
    unit, keep = np.empty((n, cube.ndim)), np.zeros(n, dtype=np.bool_)
    for name in names:
        rows = np.flatnonzero(order == name)
        found = by[name](len(rows)) if len(rows) else np.zeros((0, cube.ndim))
        unit[rows[: len(found)]], keep[rows[: len(found)]] = found, True
    known = Known(cube)
    known.add(np.concatenate([waiting, critics.feasibility.unit]))
    for i in np.flatnonzero(keep):
        keep[i] = known.new(unit[[i]])[0]
        known.add(unit[[i]])
    return Tray(unit[keep], {"critic": order[keep], **foretold(critics, unit[keep])})


def nothing(critics: Critics, cube: Cube) -> Tray:
    """An empty tray."""
    unit = np.zeros((0, cube.ndim))
    return Tray(unit, {"critic": np.zeros(0, dtype=WORD), **foretold(critics, unit)}, 0.0)


def with_replicas(
    tray: Tray,
    critics: Critics,
    known: FloatArray,
    waiting: FloatArray,
    demands: Demands,
    n: int,
    rng: np.random.Generator,
) -> Tray:
    """At most n points: those on the tray, and among them some that are run again.

    Parameters
    ----------
    known : (m, ndim) points that have come, from which those are
    waiting : (p, ndim) points on their way
    demands : replicas have their share of all points, picks theirs of the others
    """
    gp, share = critics.gp, demands.replicated_share
    if gp is None or not gp.noisy or not share or not demands.picked_share:
        return tray
    share_of_picks = (1.0 - share) * demands.picked_share * tray.share
    mine = rng.random(n) < share / (share + share_of_picks)
    wanted = share + share_of_picks
    if (~mine).sum() > len(tray):  # too few picks: draws take their places, not replicas
        mine = rng.permutation(mine[mine | (np.cumsum(~mine) <= len(tray))])
        wanted = min(wanted, share * len(mine) / max(int(mine.sum()), 1))
    unit = np.empty((len(mine), gp.cube.ndim))
    unit[~mine] = tray.unit[: int((~mine).sum())]
    unit[mine] = again(gp, known, waiting, int(mine.sum()))
    critic = np.full(len(mine), AGAIN, dtype=WORD)
    critic[~mine] = tray.notes["critic"][: int((~mine).sum())]
    notes = {"critic": critic, **foretold(critics, unit)}
    return Tray(unit, notes, wanted / demands.picked_share)


class Known:
    """Points that need not be run again: of discrete coordinates the cell counts.

    Parameters
    ----------
    cube : of the points

    Attributes
    ----------
    discrete : whether two draws can be the same point at all
    """

    def __init__(self, cube: Cube) -> None:
        self.cube, self.discrete = cube, all(edges is not None for edges in cube.edges)
        self._seen: set[bytes] = set()

    def add(self, unit: FloatArray) -> None:
        """(n, ndim) points more."""
        self._seen.update(self._keys(unit))

    def new(self, unit: FloatArray) -> BoolArray:
        """(n, ndim) -> (n,) whether it is not known yet."""
        return np.array([key not in self._seen for key in self._keys(unit)], dtype=np.bool_)

    def first(self, unit: FloatArray) -> BoolArray:
        """(n, ndim) -> (n,) whether it is neither known nor among those before it."""
        seen, out = set[bytes](self._seen), np.empty(len(unit), dtype=np.bool_)
        for i, key in enumerate(self._keys(unit)):
            out[i] = key not in seen
            seen.add(key)
        return out

    def _keys(self, unit: FloatArray) -> list[bytes]:
        cells, active = self.cube.cells(unit), self.cube.active(unit)
        return [row.tobytes() for row in np.where((cells >= 0) & active, cells, unit)]


def foretold(critics: Critics, unit: FloatArray) -> dict[str, FloatArray]:
    """What every critic foretells of (m, ndim) points: NaN where it is not there."""
    out = dict[str, FloatArray]()
    for name in critics.names:
        critic, nothing = critics[name], np.full(len(unit), np.nan)
        mean, spread = (nothing, nothing) if critic is None else critic.predict(unit)
        out |= {f"{name}_mean": mean, f"{name}_sd": spread}
    return out


def by_quadratic(critics: Critics, n: int, rng: np.random.Generator) -> FloatArray:
    """(m, ndim) maxima of draws from the quadratic, m <= n."""
    assert critics.quadratic is not None
    feasibility, unit = critics.feasibility, critics.quadratic.maxima(TRIES * n, rng)
    return feasibility.passed(feasibility.moved(unit), rng)[:n]


def by_gp(
    critics: Critics, policy: Policy, waiting: FloatArray, n: int, rng: np.random.Generator
) -> FloatArray:
    """(m, ndim) points of largest expected improvement, one after the other, m <= n."""
    gp, cube = critics.gp, policy.cube
    assert gp is not None
    # what failed is as well known as what is on its way: there is nothing more to learn there
    told = [waiting[-WAITING:], critics.feasibility.failures[-FAILURES:]]
    gp = gp.believing(np.concatenate(told))
    times = max(CHOICE, min(n, int(WORK / (KINDS * CANDIDATES * len(gp.x) ** 2))))
    unit, known = candidates(gp, policy, rng, times), Known(cube)
    if known.discrete:  # among real numbers no candidate has been run
        known.add(np.concatenate([waiting, critics.feasibility.unit]))
        unit = unit[known.first(unit)]

    def chance(points: FloatArray) -> FloatArray:
        return np.where(known.new(points), critics.feasibility.log_chance(points), -np.inf)

    search = Improvement(gp, unit, float(gp.worth.max()), chance)
    found = list[FloatArray]()
    while len(found) < n and (best := search.best()) is not None:
        found.append(best)
        search.believe(best)
        known.add(best[None])
        search.drop(~known.new(unit))
    return np.array(found).reshape(-1, cube.ndim)


def by_ensemble(
    critics: Critics, policy: Policy, waiting: FloatArray, n: int, rng: np.random.Generator
) -> FloatArray:
    """(m, ndim) maxima of draws from the ensemble, m <= n."""
    assert critics.ensemble is not None
    assert critics.gp is not None
    feasibility, known = critics.feasibility, Known(policy.cube)
    unit = feasibility.passed(candidates(critics.gp, policy, rng), rng)
    known.add(np.concatenate([waiting, feasibility.unit]))
    unit = unit[known.new(unit)]
    if not len(unit):
        return unit

    def able(found: FloatArray) -> BoolArray:
        return known.new(found) & (feasibility.log_chance(found) > -np.inf)

    return feasibility.passed(critics.ensemble.maxima(unit, TRIES * n, rng, able), rng)[:n]


def candidates(
    gp: GaussianProcess, policy: Policy, rng: np.random.Generator, times: int = 1
) -> FloatArray:
    """(m, ndim) points anywhere, draws of the policy, and steps away from good members."""
    cube, each = policy.cube, times * CANDIDATES
    parts = [rng.random((2 * each, cube.ndim)), policy.sample(each, None, rng)]
    good = gp.members[np.argsort(-gp.worth, kind="stable")[:PARENTS]]
    to = ordered(cube)
    log = gp.theta[:-2][to]
    length = np.exp(log - log.sum() / max(len(to), 1))
    for scale in SCALES:
        near = good[rng.integers(len(good), size=each)]
        near[:, to] += scale * length * rng.standard_normal((each, len(to)))
        parts.append(_flipped(cube, near, rng))
    return cube.canonical(shut(np.concatenate(parts)))


def _flipped(cube: Cube, unit: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Some coordinates without order drawn anew."""
    flip = rng.random(unit.shape) < FLIP
    flip[:, ordered(cube)] = False
    return np.where(flip, rng.random(unit.shape), unit)
