"""Which points were tried, and how good they were: a panel for each parameter, or for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ensemblerl.records import AnyArray
from ensemblerl.report.coordinates import Coordinate, coordinates, wrapped
from ensemblerl.report.figures import MAP, NORMAL, RED, figure, tidy
from ensemblerl.report.naming import name, scale, settle, width
from ensemblerl.report.pairs import matrix
from ensemblerl.report.tables import MEMBER, members
from ensemblerl.report.tried import Tried, markers, star, tried
from ensemblerl.report.view import View, edges, view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 6
"""Parameters up to which there is a panel for each pair."""


def parameters(ds: xr.Dataset, names: Sequence[str] | None = None) -> Figure:
    """See `ensemblerl.report.accessor.Plots.parameters`."""
    ds = members(ds).sortby(MEMBER)
    shown, told = coordinates(ds, names), tried(ds)
    return matrix(shown, told) if 2 <= len(shown) <= MOST else panels(shown, told)


def panels(shown: Sequence[Coordinate], told: Tried) -> Figure:
    """Each parameter against the value, two to a row."""
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    out = figure(0.5 + (1.15 if len(shown) > 1 else 2.0) * rows)
    seen = view(told.value)
    grid = out.subplots(rows, columns, squeeze=False, sharey=True)
    for ax, x in zip(grid.flat, shown, strict=False):
        _against(ax, x, told, seen)
        tidy(ax)
        scale(ax.xaxis, x)
    for ax in grid.flat[len(shown) :]:
        ax.set_visible(False)
    if seen.log:
        grid[0, 0].set_yscale("log")
    if seen.limits:
        grid[0, 0].set_ylim(seen.limits)
    if not len(told.rows):
        grid[0, 0].set_yticks([])
    out.supylabel(wrapped(told.label, 72.0 * out.get_figheight() - 35.0, _wide), size=NORMAL)
    markers(out, told, seen, loc="outside upper left", ncols=3)
    settle(out, lambda: _name(grid, shown))
    return out


def _wide(text: str) -> float:
    return width(text, NORMAL)


def _name(grid: AnyArray, shown: Sequence[Coordinate]) -> None:
    for ax, x in zip(grid.flat, shown, strict=False):
        name(ax.xaxis, x)


def _against(ax: Axes, x: Coordinate, told: Tried, seen: View) -> None:
    """Failures have no value: they stand at the bottom. What is off the scale: at the edge."""
    at_bottom = ax.get_xaxis_transform()
    failed = x.place[told.failed]
    ax.margins(y=0.12)
    ax.plot(
        failed, np.full(len(failed), 0.04), "x", ms=2.5, mew=0.6, color=RED, transform=at_bottom
    )
    rows = told.rows
    if len(rows):
        here = x.place[rows]
        colours: dict[str, Any] = {"cmap": MAP, "vmin": 0.0, "vmax": 1.0, "lw": 0.0}
        ax.scatter(here, told.value, c=told.rank, s=told.size, **colours)
        for beyond, marker, y in edges(seen):
            at = np.full(np.count_nonzero(beyond), y)
            where: dict[str, Any] = {"s": 12.0, "marker": marker, "transform": at_bottom}
            ax.scatter(here[beyond], at, c=told.rank[beyond], **where, **colours)
        best = told.value[-1:][: len(told.best)]
        star(ax, x.place[told.best], np.clip(best, *seen.limits) if seen.limits else best)
