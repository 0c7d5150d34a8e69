"""What a policy has learnt: its marginals over time beside the prior, and the last one in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter1d

from ensemblerl.records import Cube, FloatArray, IntArray
from ensemblerl.report.coordinates import Coordinate, coordinates, space_of
from ensemblerl.report.figures import GREY, MAP, SMALL, figure, tidy
from ensemblerl.report.naming import name, scale, settle
from ensemblerl.report.ruled import Ruled, ruled
from ensemblerl.report.tables import MEMBER, members
from ensemblerl.report.together import key, pair
from ensemblerl.report.tried import tried
from ensemblerl.report.versions import Version, gain, prior, versions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

HIGH, HIGHER = 1.25, 1.5
"""Of a marginal and of a pair, in inches."""
BINS = 240
"""Of an axis that is not discrete."""
SMOOTH = 1.5
"""Standard deviation, in bins, of the kernel that smooths them."""
GAPS = 24
"""Cells up to which bars stand apart."""
PRIOR = "#d9d9d9"
"""Its colour: beside all of the map's."""
TALL = 0.85
"""Of a row, the highest density."""
QUANTILES = 8
"""Bins a side in which the dependence of two parameters is counted."""


class Learnt(NamedTuple):
    """What is drawn.

    Parameters
    ----------
    cube : of the draws
    rows : the prior, then versions from first to last
    axes : of the parameters, in the order in which they are shown
    pairs : of these
    """

    cube: Cube
    rows: list[Version]
    axes: list[Ruled]
    pairs: list[tuple[Ruled, Ruled]]


def policy(
    ds: xr.Dataset, names: Sequence[str] | None, *, n_versions: int, n_parameters: int, n_pairs: int
) -> Figure:
    """See `ensemblerl.report.accessor.Plots.policy`."""
    ds = members(ds).sortby(MEMBER)
    coordinates(ds, names)  # which says of names what is wrong with them
    learnt = _learnt(ds, names, n_versions=n_versions, n_parameters=n_parameters, n_pairs=n_pairs)
    n, p = -(-len(learnt.axes) // 2), -(-len(learnt.pairs) // 2)
    heights = [HIGH] * n + [HIGHER] * p
    out = figure(0.15 + sum(heights) + 0.3 * bool(p))
    grid = out.add_gridspec(n + p, 2, height_ratios=heights)
    named: list[tuple[Axis, Coordinate]] = []
    for i, axis in enumerate(learnt.axes):
        at = grid[0, :] if len(learnt.axes) == 1 else grid[divmod(i, 2)]
        ax = out.add_subplot(at)
        _marginal(ax, axis, learnt, left=i % 2 == 0)
        named.append((ax.xaxis, axis.shown))
    told = tried(ds)
    for i, two in enumerate(learnt.pairs):
        at = grid[n, :] if len(learnt.pairs) == 1 else grid[n + i // 2, i % 2]
        ax = out.add_subplot(at)
        x, y = pair(ax, two, learnt.cube, learnt.rows[-1].unit, told)
        named += [(ax.xaxis, x.shown), (ax.yaxis, y.shown)]
    if learnt.pairs:
        key(out, told)
    settle(out, lambda: _name(named))
    return out


def _name(named: Sequence[tuple[Axis, Coordinate]]) -> None:
    for axis, shown in named:
        name(axis, shown)


def _learnt(
    ds: xr.Dataset, names: Sequence[str] | None, *, n_versions: int, n_parameters: int, n_pairs: int
) -> Learnt:
    cube, told = versions(ds, n_versions)
    all_names, last = space_of(ds).names, told[-1].unit
    gained = gain(cube, last)
    if names is None:
        first = np.argsort(-gained, kind="stable")[:n_parameters]
        names = [all_names[j] for j in first]
    axes = ruled(ds, list(dict.fromkeys(names)))
    return Learnt(cube, [prior(cube), *told], axes, _pairs(cube, last, gained, axes)[:n_pairs])


def _pairs(
    cube: Cube, unit: FloatArray, gained: FloatArray, axes: Sequence[Ruled]
) -> list[tuple[Ruled, Ruled]]:
    """Pairs that are ever active together, by what the policy has learnt of both, most first.

    That is what it has learnt of each, and their mutual information: counted in cells, or in
    quantiles of the draws.
    """
    ranks = {axis.j: _ranked(axis, cube, unit) for axis in axes}
    learnt = {}
    for x, y in combinations(axes, 2):
        a, b = ranks[x.j], ranks[y.j]
        both = (a >= 0) & (b >= 0)
        if both.any():
            mutual = both.mean() * mutual_information(a[both], b[both])
            learnt[x.j, y.j] = (gained[x.j] + gained[y.j] + mutual, (x, y))
    return [pair for _, pair in sorted(learnt.values(), key=lambda one: -one[0])]


def _ranked(axis: Ruled, cube: Cube, unit: FloatArray) -> IntArray:
    """(n, ndim) -> (n,) which cell, or which quantile; -1 where inactive."""
    active, u = cube.active(unit)[:, axis.j], unit[:, axis.j]
    if axis.bounds is not None:
        return np.where(active, cube.cells(unit)[:, axis.j], -1)
    inner = np.quantile(u[active], np.arange(1, QUANTILES) / QUANTILES) if active.any() else u[:0]
    return np.where(active, np.searchsorted(inner, u), -1)


def mutual_information(a: IntArray, b: IntArray) -> float:
    """(n,), (n,) classes -> nats that one tells of the other.

    Examples
    --------
    >>> one = np.array([0, 0, 1, 1])
    >>> round(mutual_information(one, one), 3), mutual_information(one, np.array([0, 1, 0, 1]))
    (0.693, 0.0)
    """
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1.0 / len(a))
    alone = table.sum(axis=1)[:, None] * table.sum(axis=0)
    there = table > 0
    return float(table[there] @ np.log(table[there] / alone[there]))


def _marginal(ax: Axes, axis: Ruled, learnt: Learnt, *, left: bool) -> None:
    """A row for the prior and for each version, each as high as the highest of its densities."""
    import matplotlib as mpl

    edges = axis.bins(BINS)
    colours = mpl.colormaps[MAP](np.linspace(0.3, 1.0, max(1, len(learnt.rows) - 1)))
    for i, version in enumerate(learnt.rows):
        colour = colours[i - 1] if i else PRIOR
        places = axis.places(learnt.cube, version.unit)
        density = _density(axis, places, edges)
        ax.axhline(i, color=GREY, lw=0.4, zorder=0)
        _row(ax, axis, edges, i + TALL * density, i, colour)
        if axis.parameter.when:
            _beside(ax, i, _percent(float(np.isfinite(places).mean())))
    if axis.parameter.when:
        _beside(ax, len(learnt.rows), "active")
    tidy(ax)
    scale(ax.xaxis, axis.shown)
    ax.set_ylim(-0.05, len(learnt.rows))
    ax.spines["left"].set_visible(False)
    texts = ["prior", *(str(version.n_settled) for version in learnt.rows[1:])]
    ax.set_yticks(range(len(texts)), texts if left else [""] * len(texts), va="bottom")
    ax.tick_params(axis="y", length=0)
    if left:
        ax.set_ylabel("members", size=SMALL)


def _beside(ax: Axes, row: int, text: str) -> None:
    ax.text(1.02, row, text, size=SMALL, va="bottom", transform=ax.get_yaxis_transform())


def _percent(share: float) -> str:
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _density(axis: Ruled, places: FloatArray, edges: FloatArray) -> FloatArray:
    """(n,) -> (B,) density on the scale over the highest; 0 where there are no draws."""
    counts = np.histogram(places[np.isfinite(places)], edges)[0] / np.diff(edges)
    if axis.bounds is None:
        counts = gaussian_filter1d(counts, SMOOTH)
    return np.asarray(counts / (counts.max() or 1.0))


def _row(
    ax: Axes, axis: Ruled, edges: FloatArray, top: FloatArray, bottom: float, colour: Any
) -> None:
    if axis.bounds is None:
        middle = axis.back(0.5 * (edges[:-1] + edges[1:]))
        middle[[0, -1]] = axis.back(edges[[0, -1]])
        ax.fill_between(middle, bottom, top, color=colour, lw=0.5)
        return
    apart = 0.1 * np.diff(edges) if len(edges) <= GAPS + 1 else 0.0 * edges[1:]
    low, high = axis.back(edges[:-1] + apart), axis.back(edges[1:] - apart)
    ax.bar(low, top - bottom, high - low, bottom, align="edge", color=colour, lw=0)
