"""How much each parameter matters for the reward, as a critic sees it: Sobol' indices.

Estimators of Saltelli et al. 2010, doi:10.1016/j.cpc.2009.09.018, table 2: (b) for the first
order, (f), by Jansen 1999, for the total. Shapes: ``N`` points of the prior, ``D`` parameters.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import xarray as xr

from ensemblerl.records import Cube, FloatArray
from ensemblerl.report.answers import axis
from ensemblerl.report.coordinates import space_of
from ensemblerl.report.critic import Critic, Skill, fitted
from ensemblerl.report.tables import MEMBER, column, members, ranked
from ensemblerl.space import Space

DIM = "parameter"
POINTS, FEW = 4096, 1024
"""Points of the prior that indices are estimated at, and those of them that draws are made at."""
FUNCTIONS = 32
"""Drawn from the critic's posterior: how far their indices are apart is its doubt."""
RESAMPLED = 200
"""Samples of the bootstrap."""
TRUSTED, ROUGH = 0.8, 0.5
"""Skills, less a standard error, from which on the critic is believed, or is a rough picture."""
TOLD = 3
"""Parameters that the verdict names."""
MORE = "Members spread over the whole space would help, such as those of sampler='sobol'."
_ABOUT = {
    "first": "share of the variance that is due to the parameter alone (first-order Sobol' index)",
    "total": "share of the variance that the parameter takes part in (total Sobol' index)",
    "first_se": "standard error of the first-order index",
    "total_se": "standard error of the total index",
}


class Indices(NamedTuple):
    """(..., D) shares of the variance: by a parameter alone, and with all it takes part in."""

    first: FloatArray
    total: FloatArray


def importance(ds: xr.Dataset, *, seed: int) -> xr.Dataset:
    """See `ensemblerl.report.accessor.Erl.importance`."""
    ds = members(ds)
    space = space_of(ds)
    unit, reward = _seen(ds, space)
    rng = np.random.default_rng(seed)
    points = designed(space.cube, POINTS, rng)
    critic = fitted(space.cube, unit, reward, points[0])
    if critic is None:
        raise ValueError(
            f"ds: wanted ok members whose rewards differ, got {len(reward)} with rewards from "
            f"{reward.min():.6g} to {reward.max():.6g}"
        )
    value, se = estimated(critic, points, rng)
    columns = dict(zip(_ABOUT, (*value, *se), strict=True))
    data = {
        name: (DIM, columns[name], {"long_name": text, "units": "1"})
        for name, text in _ABOUT.items()
    }
    attrs = {
        "objective": axis(ds).label,
        "skill": critic.skill.share,
        "skill_se": critic.skill.se,
        "sure": critic.skill.sure,
        "n_members": len(critic.process.members),
        "critic": f"Gaussian process of {'bent' if critic.bent else 'plain'} rewards",
    }
    out = xr.Dataset(data, {DIM: list(space)}, attrs)
    out = out.isel({DIM: np.argsort(-value.total, kind="stable")})
    constrained = bool(json.loads(ds.attrs["space"]).get("constraints"))
    out.attrs["n_left_out"] = int(np.isneginf(column(ds, "reward")).sum())
    return out.assign_attrs(verdict=verdict(out, constrained=constrained))


def _seen(ds: xr.Dataset, space: Space) -> tuple[FloatArray, FloatArray]:
    """(n, D) coordinates and (n,) rewards of the ok members."""
    rows, least = np.sort(ranked(ds)), 2 * (space.ndim + 1)
    if len(rows) < least:
        raise ValueError(
            f"ds: wanted {least} members that are ok and keep to the goal's constraints, twice as "
            "many as parameters and two more, to fit a critic to; "
            f"got {len(rows)} of {ds.sizes[MEMBER]}"
        )
    unit = space.to_unit({name: column(ds, name)[rows] for name in space})
    return unit, column(ds, "reward")[rows].astype(np.float64)


def estimated(
    critic: Critic, points: FloatArray, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """(D,) indices of the critic at the points of `designed`, and their (D,) standard errors.

    The error has two parts, added as squares: the estimator's, by bootstrap of the points, and the
    critic's doubt, by how far the indices of functions drawn from its posterior are from its own
    at the same points (Le Gratiet et al. 2014, doi:10.1137/130926869).
    """
    _, n, ndim = points.shape
    told = critic.predict(points.reshape(-1, ndim)).reshape(-1, n)
    value = sobol(told)
    again = sobol(told, rng.multinomial(n, np.full(n, 1.0 / n), RESAMPLED) / n)
    few = points[:, :FEW]
    drawn = critic.draws(few.reshape(-1, ndim), FUNCTIONS, rng)
    others = sobol(drawn.reshape(FUNCTIONS, *few.shape[:2]))
    near = sobol(told[:, :FEW])
    error = [
        np.sqrt(resampled.var(axis=0) + ((other - own) ** 2).mean(axis=0))
        for resampled, other, own in zip(again, others, near, strict=True)
    ]
    return value, Indices(*error)


def designed(cube: Cube, n: int, rng: np.random.Generator) -> FloatArray:
    """(2 + D, n, D) points: A, B, and for each parameter A with that column of B.

    What depends on the cell only is at its centre; inactive coordinates are where all such are.
    """
    A, B = rng.random((2, n, cube.ndim)).clip(2.0**-54)
    mixed = np.tile(A, (cube.ndim, 1, 1))
    each = np.arange(cube.ndim)
    mixed[each, :, each] = B.T
    unit = np.concatenate([A[None], B[None], mixed]).reshape(-1, cube.ndim)
    cells = cube.cells(unit)
    for j, edges in enumerate(cube.edges):
        if edges is not None:
            unit[:, j] = 0.5 * (edges[:-1] + edges[1:])[cells[:, j]]
    return cube.canonical(unit).reshape(-1, n, cube.ndim)


def sobol(told: FloatArray, weight: FloatArray | None = None) -> Indices:
    """(..., 2 + D, N) values at the points of `designed` -> (..., D) indices.

    Parameters
    ----------
    weight : (r, N) of the points, each row of sum 1, for r answers (r, D); None: all alike
    """
    told = told - told[..., :2, :].mean(axis=(-2, -1), keepdims=True)
    a, b, ab = told[..., :1, :], told[..., 1:2, :], told[..., 2:, :]

    def mean(values: FloatArray) -> FloatArray:
        return values.mean(axis=-1) if weight is None else (values @ weight.T).T

    variance = 0.5 * mean(a**2 + b**2) - (0.5 * mean(a + b)) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return Indices(mean(b * (ab - a)) / variance, 0.5 * mean((a - ab) ** 2) / variance)


def verdict(out: xr.Dataset, *, constrained: bool) -> str:
    """The indices in words, most important parameter first, and what they are worth."""
    skill = Skill(*(out.attrs[name] for name in ("skill", "skill_se", "sure")))
    what = f"of the variance of {out.attrs['objective']} under the prior"
    told = f"the critic foretells {_percent(skill.share)} ± {_percent(skill.se)} % {what}"
    if skill.sure < skill.share - skill.se:
        told = f"{told}, but is sure of {_percent(skill.sure)} % only"
    if skill.safe >= TRUSTED:
        worth = f"T{told[1:]}."
    elif skill.safe >= ROUGH:
        worth = f"A rough picture: {told}."
    else:
        worth = f"Do not trust this: {told}. {MORE}"
    if left := out.attrs.get("n_left_out"):
        worth = (
            f"Do not trust this where members violate a constraint: {left} do and are left out, so "
            f"that the critic only guesses there. {worth}"
        )
    said = "; ".join(_said(out.isel({DIM: i})) for i in range(min(TOLD, out.sizes[DIM])))
    beyond = " Known constraints are left out of the prior." if constrained else ""
    return f"{worth} It puts {said}.{beyond} This is a critic's view, not a measurement."


def _said(one: xr.Dataset) -> str:
    total, first, se = (_percent(float(one[key])) for key in ("total", "first", "total_se"))
    return f"{total} ± {se} % down to {one[DIM].item()} ({first} % to it alone)"


def _percent(share: float) -> str:
    """Of a share or an error; estimates below 0 are 0, and what is beyond all measure is 100."""
    return f"{100 * min(1.0, max(0.0, share)):.0f}"
