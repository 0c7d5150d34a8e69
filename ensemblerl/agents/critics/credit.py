"""Credit by results: who proposed the best of the newest members proposes more.

The sum of ranks of Fialho et al. 2010 (doi:10.1007/s10472-010-9213-y): the newest members are
ranked, a member is worth the less the lower it ranks, and what a proposer gets is the mean worth of
its members. It depends on the order of rewards alone. So a critic that foretells well and finds
nothing, as one that goes on exploring when there is no more to find, picks less, and where draws of
the policy do better than picks there are more draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemblerl.agents.base import Rows
from ensemblerl.agents.critics.committee import FLOOR
from ensemblerl.records import AGAIN, FloatArray

WINDOW = 64
"""Newest members that count."""
TOP = 8
"""The worth of a member falls by e with so many ranks."""
PATIENCE = 4.0
"""Members of mean worth that a proposer is taken to have had besides."""
LEAST = 0.25
"""Of the points that critics may pick, how many they do at least."""


def shared(rows: Rows, weights: dict[str, float], most: float) -> tuple[dict[str, float], float]:
    """Who proposes how much from now on: by forecasts, times credit.

    Parameters
    ----------
    rows : settled members in number order
    weights : name -> weight of the critics, by what they foretold
    most : share of the points that critics may pick, > 0

    Returns
    -------
    Name -> share of a critic in what critics pick, and how much of what they may pick they are to.
    """
    names = list(weights)
    before = np.array([1.0 - most, *(most * weights[name] for name in names)])
    after = before * credit(rows, ["", *names])
    after /= after.sum()
    critics = float(after[1:].sum())
    least = FLOOR if len(names) > 1 else 0.0
    shares = least + (1.0 - least * len(names)) * after[1:] / critics
    return dict(zip(names, shares.tolist(), strict=True)), float(
        np.clip(critics / most, LEAST, 1.0)
    )


def credit(rows: Rows, names: Sequence[str]) -> FloatArray:
    """(k,) mean worth of the members of each proposer, relative to that of all.

    Parameters
    ----------
    rows : settled members in number order; those that no version has proposed do not count, nor
        do replicas: that their points are good was known
    names : (k,) critics, "" for draws of the policy
    """
    own = rows.take(np.flatnonzero((rows.version >= 0) & (rows.critic != AGAIN))[-WINDOW:])
    if not len(own):
        return np.ones(len(names))
    worth = worths(own.reward)
    mean = float(worth.mean())
    if mean <= 0:
        return np.ones(len(names))
    out = np.empty(len(names))
    for k, name in enumerate(names):
        theirs = worth[own.critic == name]
        out[k] = (theirs.sum() + PATIENCE * mean) / (len(theirs) + PATIENCE)
    return out / mean


def worths(reward: FloatArray) -> FloatArray:
    """(n,) rewards -> (n,) worth by rank, 1 for the best; equal ones share theirs, failures have
    none.
    """
    order = np.argsort(-reward, kind="stable")
    by_rank = np.exp(-np.arange(len(reward)) / TOP)
    _, group = np.unique(-reward[order], return_inverse=True)
    shared = np.bincount(group, by_rank) / np.bincount(group)
    out = np.empty(len(reward))
    out[order] = shared[group]
    return np.where(np.isfinite(reward), out, 0.0)
