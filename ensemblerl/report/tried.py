"""The points of a campaign as pictures show them: the best on top, and marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from ensemblerl.records import AnyArray, BoolArray, Fate, FloatArray, IntArray
from ensemblerl.report.answers import answering, axis
from ensemblerl.report.figures import GREY, RED, SMALL, off_scale
from ensemblerl.report.tables import column, ranked
from ensemblerl.report.view import View, edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Tried(NamedTuple):
    """The points in the order in which they are drawn: the best come last, on top.

    Parameters
    ----------
    rows : (m,) of the ok members, worst first
    value : (m,)
    failed : (n,) settled and not ok
    label : of the value, with units where they are known
    """

    rows: IntArray
    value: FloatArray
    failed: BoolArray
    label: str

    @property
    def rank(self) -> FloatArray:
        """(m,) from 0, the worst, to 1; equals share the mean of their ranks."""
        n = len(self.rows)
        if n < 2:
            return np.ones(n)
        run = np.cumsum(np.diff(self.value, prepend=self.value[0]) != 0)
        mean = np.bincount(run, weights=np.arange(n)) / np.bincount(run)
        return np.asarray(mean[run] / (n - 1))

    @property
    def best(self) -> IntArray:
        """(1,) row of the best, (0,) where there is none: of several that are all equal."""
        alike = len(self.rows) > 1 and bool((self.value == self.value[0]).all())
        return self.rows[:0] if alike else self.rows[-1:]

    @property
    def size(self) -> float:
        """Area of a dot in square points."""
        return float(np.clip(1500 / max(1, len(self.rows)), 1.5, 9.0))


def tried(ds: xr.Dataset) -> Tried:
    """The points of a campaign."""
    fate: AnyArray = column(ds, "fate")
    rows = answering(ds, ranked(ds))[::-1]
    label, signed = axis(ds)
    value = signed(column(ds, "reward")[rows].astype(np.float64))
    return Tried(rows, value, (fate != Fate.ok) & (fate != Fate.pending), label)


def star(ax: Axes, x: FloatArray, y: FloatArray) -> None:
    """Mark the best where it has a place; nothing else, for what is not clipped takes room."""
    if np.isfinite([*x, *y]).all() and len(x):
        ax.plot(x, y, "*", ms=8, mfc="white", mec="black", mew=0.8, zorder=5, clip_on=False)


def markers(out: Figure, told: Tried, seen: View | None = None, **where: Any) -> None:
    """Say what the markers mean, also those for values beyond an axis."""
    from matplotlib.lines import Line2D

    best = Line2D([], [], marker="*", ls="", ms=8, mfc="white", mec="black", mew=0.8, label="best")
    failed = Line2D([], [], marker="x", ls="", ms=3.5, mew=0.8, color=RED, label="not ok")
    handles = [best] * bool(len(told.best)) + [failed] * bool(told.failed.any())
    if seen and seen.beyond:
        (_, mark, _), *_ = edges(seen)
        label = off_scale(seen.beyond)
        handles.append(Line2D([], [], marker=mark, ls="", ms=4, mew=0, color=GREY, label=label))
    if not handles:  # an empty legend would push the panels aside
        return
    out.legend(handles=handles, fontsize=SMALL, frameon=False, handletextpad=0.2, **where)
