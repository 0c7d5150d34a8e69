"""The last policy in pairs of parameters: where most of its draws are, with the members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ensemblerl.records import Cube, FloatArray
from ensemblerl.report.figures import MAP, SMALL, tidy
from ensemblerl.report.naming import scale
from ensemblerl.report.ruled import Ruled
from ensemblerl.report.tried import Tried, star

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 40
"""Of either side, where it is not discrete."""
SMOOTH = 1.0
"""Standard deviation, in bins, of the kernel that smooths what is not discrete."""
SHARES = (0.5, 0.9, 0.99)
"""Of the draws, within the regions that are tinted: the densest that hold so many."""
TINTS = (0.85, 0.45, 0.1)
"""Of these regions, on the map."""


def pair(
    ax: Axes, axes: tuple[Ruled, Ruled], cube: Cube, unit: FloatArray, told: Tried
) -> tuple[Ruled, Ruled]:
    """(n, ndim) draws and the members, as near as the draws are; gives the axes as they are now."""
    places = [axis.places(cube, unit) for axis in axes]
    both = np.isfinite(places[0]) & np.isfinite(places[1])
    x, y = (axis.limited(*axis.near(place[both])) for axis, place in zip(axes, places, strict=True))
    edges = [axis.bins(BINS) for axis in (x, y)]
    table = np.histogram2d(places[0][both], places[1][both], bins=edges)[0]
    for i, axis in enumerate((x, y)):
        if axis.bounds is None:
            table = gaussian_filter1d(table, SMOOTH, axis=i)
    tints = np.ma.masked_invalid(regions(table, int(both.sum())))
    at = [axis.back(edge) for axis, edge in zip((x, y), edges, strict=True)]
    ax.pcolormesh(at[0], at[1], tints.T, cmap=MAP, vmin=0.0, vmax=1.0, lw=0, rasterized=True)
    _members(ax, x, y, told)
    tidy(ax)
    scale(ax.xaxis, x.shown)
    scale(ax.yaxis, y.shown)
    return x, y


def _members(ax: Axes, x: Ruled, y: Ruled, told: Tried) -> None:
    """Those that are ok, and the best where it is in sight."""
    at = np.stack([x.shown.place, y.shown.place])
    dots: dict[str, Any] = {"ms": 2.2, "mfc": "white", "mec": "black", "mew": 0.4}
    ax.plot(*at[:, told.rows], "o", **dots)
    low, high = np.array([x.shown.limits, y.shown.limits]).T
    best = at[:, told.best]
    if ((best >= low[:, None]) & (best <= high[:, None])).all():
        star(ax, *best)


def regions(table: FloatArray, n: int) -> FloatArray:
    """(B, B) draws in each cell, of n -> (B, B) tints of the densest regions of `SHARES`."""
    order = np.argsort(-table, axis=None, kind="stable")
    sorted_ = table.ravel()[order]
    denser = np.empty(table.size)
    denser[order] = (np.cumsum(sorted_) - sorted_) / max(n, 1)
    out = np.full(table.shape, np.nan)
    for share, tint in sorted(zip(SHARES, TINTS, strict=True), reverse=True):
        out[(denser.reshape(table.shape) < share) & (table > 0)] = tint
    return out


def key(out: Figure, told: Tried) -> None:
    """What tints and marks of the pairs mean, below them."""
    import matplotlib as mpl
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    texts = [f"{100 * share:.0f} % of draws" if share == SHARES[0] else f"{100 * share:.0f} %"
             for share in SHARES]  # fmt: skip
    handles: list[Any] = [
        Patch(color=mpl.colormaps[MAP](tint), label=text)
        for tint, text in zip(TINTS, texts, strict=True)
    ]
    dot: dict[str, Any] = {"marker": "o", "ls": "", "mfc": "white", "mec": "black"}
    handles.append(Line2D([], [], ms=2.5, mew=0.4, label="member", **dot))
    if len(told.best):
        dot |= {"marker": "*"}
        handles.append(Line2D([], [], ms=7, mew=0.8, label="best", **dot))
    out.legend(
        handles=handles, loc="outside lower center", ncols=5, fontsize=SMALL, frameon=False,
        handlelength=1.0, handletextpad=0.3, columnspacing=0.9,
    )  # fmt: skip
