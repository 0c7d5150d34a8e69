"""Which points were tried, and how good they were: a panel for each pair of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from ensemblerl.records import AnyArray, FloatArray
from ensemblerl.report.coordinates import Coordinate, number, wrapped
from ensemblerl.report.figures import COLUMN, MAP, NORMAL, RED, SMALL, figure, tidy
from ensemblerl.report.naming import name, scale, settle, width
from ensemblerl.report.tried import Tried, markers, star

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def matrix(shown: Sequence[Coordinate], told: Tried) -> Figure:
    """The lower triangle of all pairs."""
    m = len(shown) - 1
    out = figure(COLUMN if m > 1 else 2.8)
    grid = out.subplots(m, m, squeeze=False)
    for i, j in product(range(m), repeat=2):
        if j > i:
            grid[i, j].set_visible(False)
            continue
        ax, x, y = grid[i, j], shown[j], shown[i + 1]
        _scatter(ax, x.place, y.place, told)
        tidy(ax)
        scale(ax.xaxis, x)
        scale(ax.yaxis, y)
    _key(out, grid, told)
    settle(out, lambda: _name(grid, shown))
    out.align_labels()
    return out


def _name(grid: AnyArray, shown: Sequence[Coordinate]) -> None:
    """Names and numbers at the outer axes only."""
    m = len(grid)
    for i, j in product(range(m), repeat=2):
        if j <= i:
            name(grid[i, j].xaxis, shown[j], told=i == m - 1)
            name(grid[i, j].yaxis, shown[i + 1], told=j == 0)


def _scatter(ax: Axes, x: FloatArray, y: FloatArray, told: Tried) -> None:
    """Failures below, then the ok members, then the best."""
    ax.plot(x[told.failed], y[told.failed], "x", ms=2.5, mew=0.6, color=RED, alpha=0.7)
    rows = told.rows
    if len(rows):
        ax.scatter(x[rows], y[rows], c=told.rank, s=told.size, cmap=MAP, vmin=0, vmax=1, lw=0)
        star(ax, x[told.best], y[told.best])


def _key(out: Figure, grid: AnyArray, told: Tried) -> None:
    """What colours and markers mean, in the free corner of the triangle, or above one panel."""
    from matplotlib.cm import ScalarMappable

    if grid.size == 1:
        markers(out, told, loc="outside upper left", ncols=2)
    else:
        markers(out, told, loc="upper right", bbox_to_anchor=(0.98, 0.83))
    if not len(told.rows):
        return
    if grid.size == 1:
        bar = out.colorbar(ScalarMappable(cmap=MAP), ax=grid[0, 0], fraction=0.08, pad=0.03)
    else:
        cax = out.add_axes((0.6, 0.9, 0.32, 0.025))
        bar = out.colorbar(ScalarMappable(cmap=MAP), cax=cax, orientation="horizontal")
    bar.outline.set_visible(False)
    _name_ranks(bar.ax, told, across=grid.size > 1)


def _name_ranks(ax: Axes, told: Tried, *, across: bool) -> None:
    """The values of the worst, the middle and the best; one where all are equal."""
    n = len(told.value)
    rows = {0.0: 0, 0.5: n // 2, 1.0: n - 1} if told.value[0] != told.value[-1] else {}
    rows = rows or {float(told.rank[0]): 0}
    texts = [number(float(told.value[row])) for row in rows.values()]
    (ax.set_xticks if across else ax.set_yticks)(list(rows), texts, size=SMALL)
    ax.set_title(wrapped(told.label, 90 if across else 50, measure=width), size=NORMAL, pad=4)
    ax.tick_params(length=2, pad=2)
