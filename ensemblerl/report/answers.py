"""The goal's answer to a campaign that is over, or not yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.linalg import cho_solve, cholesky, solve_triangular

from ensemblerl.goals.extremum import Extremum
from ensemblerl.goals.known import goal_of
from ensemblerl.names import COLUMNS
from ensemblerl.records import FloatArray, IntArray
from ensemblerl.report.tables import MEMBER, column, members, settled
from ensemblerl.space import Space
from ensemblerl.store.kept import ledger, of_dataset

MEMBERS = 1000
"""Members that a posterior is of, evenly taken from more: its cost is their cube."""
TUNED = 256
"""Members that its scales are tuned on."""
BLOCK = 4096
"""Points at a time: bounds the memory."""
NOISE = (0.3, 1.5)
"""Prior of the variance of the noise, of results of unit variance: log-normal, middle and spread.
Who calls a goal noisy says that there is some; the agent's own critic begins with next to none."""
LOUD = 0.5
"""Share of the noise in the variance that scales are also tuned from: what is noise may look like
short length scales from elsewhere."""
TAIL = 4.0
"""Times that the distance from the median to the best tenth fits between the median and what counts
as bad as all that is worse: a few terrible members would make all others look alike."""


def answer(ds: xr.Dataset) -> xr.Dataset:
    """See `ensemblerl.report.accessor.Erl.answer`."""
    kept = of_dataset(ds, "answer()")
    goal = kept.goal or goal_of(kept.provenance.get("goal") or {})
    held = settled(members(ds))
    told = ledger(kept, change=lambda o: o if o.number in held else None, k=goal.k)
    if isinstance(goal, Extremum) and goal.noisy and kept.provenance.get("space"):
        return goal.estimate(told, posterior=partial(posterior, _space(kept.provenance["space"])))
    return goal.estimate(told)


def answering(ds: xr.Dataset, rows: IntArray) -> IntArray:
    """Rows that are ranked by their rewards as the goal's answer ranks them: those of a noisy goal
    by their posterior means.
    """
    try:
        goal = goal_of(json.loads(ds.attrs.get("goal", "{}")))
    except ValueError:
        return rows
    if not goal.noisy or "space" not in ds.attrs:
        return rows
    space = _space(json.loads(ds.attrs["space"]))
    rows = rows[np.argsort(column(ds, MEMBER)[rows])]
    unit = space.to_unit({name: column(ds, name)[rows] for name in space})
    mean, _ = posterior(space, unit, column(ds, "reward")[rows].astype(np.float64))
    return rows[np.argsort(-mean, kind="stable")]


def _space(given: Mapping[str, Any]) -> Space:
    """Without constraints and start points, which are of no account here."""
    return Space.from_json({key: given[key] for key in ("parameters", "order")})


def posterior(space: Space, unit: FloatArray, reward: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n, ndim) points, (n,) noisy rewards -> (n,) means and (n,) standard deviations without the
    noise, at these points.

    Of the Gaussian process of `ensemblerl.agents.critics.kernel`, of rewards that are not bent:
    a bend sees the luckiest ones apart. The noise is estimated and alike everywhere. Members at
    the same point are so many draws there. Where all rewards are alike, or there is only one, they
    are the means, and the deviations are NaN.
    """
    from ensemblerl.agents.critics.features import columns
    from ensemblerl.agents.critics.kernel import (
        JITTER,
        correlation,
        negative_log_posterior,
        start,
        tuned,
    )

    with np.errstate(over="ignore", invalid="ignore"):
        middle, good = np.quantile(reward, [0.5, 0.9])
        floor = middle - TAIL * (good - middle) if good > middle else -np.inf
        y = np.maximum(reward, floor)
        mean, scale = float(y.mean()), float(y.std())
    if not 0.0 < scale < np.inf:
        return reward.astype(np.float64), np.full(len(reward), np.nan)
    y = (y - mean) / scale
    # what is drawn within a cell of a discrete parameter is of no account
    x, of = columns(space.cube, space.to_unit(space.to_points(unit)))
    few = _evenly(len(y), TUNED)
    quiet = start(space.ndim)
    begins = quiet, np.array([*quiet[:-1], np.log(LOUD)])
    seen = x[few], of, y[few], NOISE
    found = [tuned(theta, *seen) for theta in begins]
    theta = min(found, key=lambda theta: negative_log_posterior(theta, *seen)[0])
    keep, x = _evenly(len(y), MEMBERS), x / np.exp(theta)[of]
    size, noise = np.exp(theta[-2:])
    K = size * correlation(x[keep], x[keep])
    K[np.diag_indices(len(keep))] += noise + JITTER * size
    factor = cholesky(K, lower=True)
    weight = cho_solve((factor, True), y[keep])
    means, sds = [], []
    for first in range(0, len(x), BLOCK):
        k = size * correlation(x[keep], x[first : first + BLOCK])
        left = size - (solve_triangular(factor, k, lower=True) ** 2).sum(axis=0)
        means.append(k.T @ weight)
        sds.append(np.sqrt(np.maximum(left, 0.0)))
    return mean + scale * np.concatenate(means), scale * np.concatenate(sds)


def _evenly(n: int, most: int) -> IntArray:
    """At most so many of n rows: all, or some at equal distances, whatever their rewards."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


class Axis(NamedTuple):
    """What pictures show for the reward.

    Parameters
    ----------
    label : with units where they are known
    signed : (n,) rewards -> (n,) what is shown, NaN where there is nothing to show
    """

    label: str
    signed: Callable[[FloatArray], FloatArray]


def axis(ds: xr.Dataset) -> Axis:
    """The objective where its goal is known by its description, else the reward itself."""
    try:
        goal = goal_of(json.loads(ds.attrs.get("goal", "{}")))
    except ValueError:
        return Axis("reward", lambda reward: reward)
    name = str(goal.objective.given) if goal.objective.names else repr(goal.objective)

    def signed(reward: FloatArray) -> FloatArray:
        return goal.signed(np.where(np.isneginf(reward), np.nan, reward))

    return Axis(labelled(name, _attrs(ds, name)), signed)


def _attrs(ds: xr.Dataset, name: str) -> dict[Any, Any]:
    """Of the variable in the results that is called so."""
    kept = f"result_{name}" if name in COLUMNS else name
    return ds[kept].attrs if kept in ds.data_vars else {}


def labelled(name: str, attrs: dict[Any, Any]) -> str:
    """A name with its units.

    Examples
    --------
    >>> labelled("speed", {"units": "m/s"}), labelled("share", {"units": "1"})
    ('speed (m/s)', 'share')
    """
    units = str(attrs.get("units", ""))
    return f"{name} ({units})" if units not in ("", "1") else name
