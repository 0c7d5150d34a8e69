"""The laws of ``log_prob``: it agrees with the draws, or it is NaN."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ensemblerl.protocols import Sampler
from ensemblerl.records import Cube, FloatArray
from ensemblerl.testing.core import require
from ensemblerl.testing.rehearsal import Rehearsal, play

Make = Callable[[Cube], Sampler]
BINS = np.linspace(0.0, 1.0, 9)
NARROW = 0.02
"""Share of the prior below which a cell is not counted on its own: of a few thousand draws none
may fall into it, and then there is no error to go by."""
SIGMAS = 5.0
"""Standard errors allowed: with a few hundred bins a sound sampler fails once in 10,000 seeds."""


def density_law(make: Make, cube: Cube, n: int, seed: int, draws: int = 4000) -> None:
    """Under the draws, exp(-log_prob) has mean 1, and each cell weighs what its width says.

    Importance weights undo the policy: the weighted draws are uniform on the cube. Checked for
    the whole cube and for cells of every coordinate, before anything is told and after n members,
    within five standard errors. Cubes with a known constraint are left out of the statistics, as
    ``log_prob`` stays untruncated there; it still has to be finite or NaN.
    """
    for told in (0, n):
        sampler, game = make(cube), Rehearsal(cube.ndim, seed)
        play(sampler, game, np.random.default_rng(seed), told)
        unit, log_prob = drawn(sampler, seed, draws, step=max(n, 1))
        usable = np.isfinite(log_prob)
        wrong = log_prob[~usable & ~np.isnan(log_prob)]
        require(not len(wrong), "density", f"log_prob {wrong[:3]}, wanted finite or NaN")
        require(usable.any(), "density", "has_density, and every log_prob is NaN")
        if cube.feasible is None:
            weights_law(np.exp(-log_prob[usable]), unit[usable], cube)


def drawn(sampler: Sampler, seed: int, draws: int, step: int) -> tuple[FloatArray, FloatArray]:
    """(draws, ndim) points and (draws,) log_prob."""
    asked = [
        sampler.ask(step, np.random.default_rng([seed, 10**6 + first]))
        for first in range(0, draws, step)
    ]
    log_prob = [p.noted(sampler.name).notes["log_prob"] for p in asked]
    return np.concatenate([p.unit for p in asked]), np.concatenate(log_prob)


def weights_law(weight: FloatArray, unit: FloatArray, cube: Cube) -> None:
    """(n,) importance weights at (n, ndim) draws: mean 1, uniform where active."""
    within(weight - 1.0, "exp(-log_prob), wanted 1")
    active = cube.active(unit)
    for j, edges in enumerate(cube.edges):
        for low, high in pairwise(BINS if edges is None else pooled(edges)):
            inside = (unit[:, j] >= low) & (unit[:, j] < high)
            excess = weight * active[:, j] * (inside - (high - low))
            within(excess, f"weight beyond its width in [{low:.3g}, {high:.3g}) of coordinate {j}")


def pooled(edges: FloatArray) -> list[float]:
    """(levels + 1,) edges of cells -> at most 9 of them, none closer than `NARROW`."""
    nearest = np.abs(edges[:, None] - BINS).argmin(axis=0)
    kept = [0.0]
    for edge in edges[np.unique(nearest)].tolist():
        if min(edge - kept[-1], 1.0 - edge) >= NARROW:
            kept.append(edge)
    return [*kept, 1.0]


def within(excess: FloatArray, what: str) -> None:
    """(n,) terms whose mean must be 0 within their own standard error."""
    mean, error = float(excess.mean()), float(excess.std() / np.sqrt(len(excess)))
    came = f"{mean:+.4f} mean of {what}, {SIGMAS:.0f} standard errors are {SIGMAS * error:.4f}"
    require(abs(mean) <= SIGMAS * error + 1e-9, "density", came)


def no_density_law(make: Make, cube: Cube, n: int, seed: int, draws: int = 0) -> None:
    """Without a density ``log_prob`` is NaN, so that estimates leave these points out."""
    sampler = make(cube)
    asked = play(sampler, Rehearsal(cube.ndim, seed), np.random.default_rng(seed), n)
    for proposals in asked:
        log_prob = proposals.noted(sampler.name).notes["log_prob"]
        came = f"log_prob {log_prob[:3]}, wanted NaN"
        require(np.isnan(log_prob).all(), "no density, no log_prob", came)
