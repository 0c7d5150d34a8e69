"""The best value so far against the members in launch order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from ensemblerl.records import AnyArray, BoolArray, Fate, FloatArray, IntArray
from ensemblerl.report.answers import axis
from ensemblerl.report.figures import BLUE, GREY, RED, SMALL, figure, shown, spread, tidy
from ensemblerl.report.tables import MEMBER, column, members

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Course(NamedTuple):
    """A campaign in launch order.

    Parameters
    ----------
    number, value : (n,) of the members that are settled; the value is NaN where not ok
    ok : (n,)
    incumbent : (m,) best value so far, up to the first member that is not settled
    label : of the value, with units where they are known
    """

    number: IntArray
    value: FloatArray
    ok: BoolArray
    incumbent: FloatArray
    label: str


def course(ds: xr.Dataset) -> Course:
    """The campaign in launch order."""
    ds = members(ds)
    ds = ds.isel({MEMBER: np.argsort(column(ds, MEMBER))})
    fate: AnyArray = column(ds, "fate")
    done = fate != Fate.pending
    leading = int(np.argmin(done)) if not done.all() else len(done)
    label, signed = axis(ds)
    reward = np.where(fate == Fate.ok, column(ds, "reward"), np.nan)
    return Course(
        number=column(ds, MEMBER)[done],
        value=signed(reward[done]),
        ok=fate[done] == Fate.ok,
        incumbent=signed(np.fmax.accumulate(reward[:leading])),
        label=label,
    )


def history(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """See `ensemblerl.report.accessor.Plots.history`."""
    told = course(ds)
    if ax is None:
        own = figure(2.3)
        ax = own.add_subplot()
        shown(ax, own)
        tidy(ax)
    number, value, ok = told.number, told.value, told.ok
    size = 3.0 if len(number) <= 1000 else 1.5
    ax.plot(number[ok], value[ok], "o", ms=size, mew=0, color=GREY, alpha=0.5, label="ok")
    line = number[: len(told.incumbent)]
    ax.step(line, told.incumbent, where="post", color=BLUE, lw=1.5, label="best so far")
    if not ok.all():
        _mark(ax, number[~ok])
    if spread(value):
        ax.set_yscale("log")
    ax.set_xlabel("member, in launch order")
    ax.set_ylabel(told.label)
    _legend(ax)
    return ax


def _mark(ax: Axes, failed: IntArray) -> None:
    """A cross at the bottom for each failure, below all values."""
    ax.margins(y=0.1)
    ax.plot(
        failed,
        np.full(len(failed), 0.03),
        "x",
        ms=3.5,
        mew=0.8,
        color=RED,
        transform=ax.get_xaxis_transform(),
        label=f"not ok ({len(failed)})",
    )


def _legend(ax: Axes) -> None:
    """Above the axes, where it hides nothing."""
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=3,
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0.2,
        handlelength=1.2,
        columnspacing=1.2,
    )
