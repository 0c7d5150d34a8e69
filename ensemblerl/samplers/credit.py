"""Shares by results: who of several parts proposed the members that improve on what is known."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import numpy as np

from ensemblerl.protocols import Sampler, State
from ensemblerl.records import (
    AGAIN,
    AnyArray,
    BoolArray,
    Demands,
    Fate,
    FloatArray,
    IntArray,
    Members,
    Results,
)
from ensemblerl.samplers.parts import proposers

WINDOW = 64
"""Newest settled members that count, unless told: who did well long ago may do so no more."""
BEST = 5
"""A member improves on what is known where it is among so many best so far: the best alone changes
too seldom to tell parts from each other."""
HOPE = 2.0
"""Improvements, at the rate of all, that a part is credited with before it proposed anything."""
POWER = 2.0
"""Of the rates in the shares: 1 is plain matching, more is more decided."""
SAID_NOTHING = (Fate.pending, Fate.lost, Fate.stopped)
"""Fates that tell nothing about the simulation."""


class Credit:
    """Shares that follow the parts whose members improve on what is known.

    A member is an improvement when its reward is above the fifth best of all members of lower
    number. Of those in the window, the newest settled members, n_k are by part k, and s_k of them
    are improvements; at the rate r of all parts together it would be r n_k. With a gamma prior of
    mean 1 for the ratio, worth c improvements, the mean of the posterior is

        e_k = (s_k + c) / (r n_k + c)

    and the share of part k is proportional to its prior share times e_k squared, none below the
    floor: probability matching (Goldberg 1990, doi:10.1007/BF00116878) on a sliding window of
    ranks (Fialho et al. 2010, doi:10.1007/s10472-010-9213-y). Rewards are only compared. A part
    without a member in the window has e_k = 1, and so has every part when nothing improves: their
    shares go back to the prior ones. Members that failed are no improvements. One that
    keeps proposing what is as good as the best earns nothing, but small steps up earn as much as
    large ones.

    It is a function of the set of members told.

    Parameters
    ----------
    parts : of a portfolio; a member is by the part that has its ``proposer`` for a name, its own
        or of one of its parts
    prior : (len(parts),) shares to begin with, none below the floor
    floor : smallest share
    window : newest settled members that count
    """

    def __init__(
        self, parts: Sequence[Sampler], prior: FloatArray, floor: float, window: int
    ) -> None:
        self._part_of = {name: i for i, part in enumerate(parts) for name in proposers(part)}
        self._prior, self._floor, self.window = prior, floor, window
        # rows in number order: the window, and before it the best of those that have left it
        self._number = np.zeros(0, dtype=np.int64)
        self._part = np.zeros(0, dtype=np.int64)
        self._reward = np.zeros(0)
        self._ranked = True
        self._now: FloatArray | None = None

    def heed(self, demands: Demands) -> None:
        """What the goal asks now: unless it looks for an extremum, shares are the prior ones."""
        self._ranked, self._now = demands.ranked, None

    def parts_of(self, proposer: AnyArray) -> IntArray:
        """(n,) names -> (n,) parts that they belong to, -1 for none."""
        return np.array([self._part_of.get(name, -1) for name in proposer.tolist()], dtype=np.int64)

    def tell(self, members: Members, results: Results) -> None:
        """Add the settled ones; of those that are no longer new, the best are kept."""
        new = ~np.isin(results.fate, SAID_NOTHING) & ~np.isin(members.number, self._number)
        ok = (results.fate == Fate.ok) & np.isfinite(results.reward)
        proposer = members.notes.get("proposer", np.full(len(members), ""))
        number = np.concatenate([self._number, members.number[new]])
        # a point that is run again was found before, and is nobody's find now
        again = members.notes.get("critic", np.full(len(members), "")) == AGAIN
        theirs = np.where(again, -1, self.parts_of(proposer))
        part = np.concatenate([self._part, theirs[new]])
        reward = np.concatenate([self._reward, np.where(ok, results.reward, -np.inf)[new]])
        order = np.argsort(number)
        old, newest = order[: -self.window], order[-self.window :]
        best = np.sort(np.argsort(-reward[old], kind="stable")[:BEST])
        rows = np.concatenate([old[best], newest])
        self._number, self._part, self._reward = number[rows], part[rows], reward[rows]
        self._now = None

    @property
    def shares(self) -> FloatArray:
        """(len(parts),) as they are now."""
        if self._now is None:  # one ask looks several times
            self._now = self._worked_out()
        return self._now

    def _worked_out(self) -> FloatArray:
        improved = improvements(self._reward)[-self.window :]
        part = self._part[-self.window :]
        s = np.bincount(part[improved & (part >= 0)], minlength=len(self._prior))
        if not self._ranked or not s.any():
            return self._prior
        n = np.bincount(part[part >= 0], minlength=len(self._prior))
        e = (s + HOPE) / (s.sum() / n.sum() * n + HOPE)
        return raised(self._prior * e**POWER, self._floor)

    def state_dict(self) -> State:
        """The rows, and whether they count."""
        rows = {"number": self._number, "part": self._part, "reward": self._reward}
        return {**{name: row.copy() for name, row in rows.items()}, "ranked": self._ranked}

    def load_state_dict(self, state: State) -> None:
        """Take them up."""
        self._number, self._part = np.array(state["number"]), np.array(state["part"])
        self._reward, self._ranked = np.array(state["reward"]), bool(state["ranked"])
        self._now = None


def improvements(reward: FloatArray) -> BoolArray:
    """(n,) rewards in number order -> (n,) whether above the fifth best so far.

    The first five that have a reward are above nothing.
    """
    best, out = list[float](), np.zeros(len(reward), dtype=np.bool_)
    for i, value in enumerate(reward.tolist()):
        if np.isfinite(value) and len(best) < BEST:
            heapq.heappush(best, value)
        elif len(best) == BEST and value > best[0]:
            out[i] = True
            heapq.heapreplace(best, value)
    return out


def raised(weights: FloatArray, floor: float) -> FloatArray:
    """(k,) weights -> (k,) shares in proportion to them, but for those raised to the floor."""
    shares, low = weights / weights.sum(), np.zeros(len(weights), dtype=np.bool_)
    while (shares < floor).any():
        low |= shares < floor
        rest = (1.0 - floor * low.sum()) / (weights[~low].sum() or 1.0)
        shares = np.where(low, floor, weights * rest)
    return np.asarray(shares)


def heed_all(parts: Iterable[Sampler], demands: Demands) -> None:
    """Hand the demands to every part that heeds them, else to its own parts."""
    for part in parts:
        if callable(heed := getattr(part, "heed", None)):
            heed(demands)
        else:
            heed_all(getattr(part, "parts", ()), demands)
