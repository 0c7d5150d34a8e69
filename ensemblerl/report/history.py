"""The best value so far against the members in launch order."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from ensemblerl.records import AnyArray, BoolArray, Fate, FloatArray, IntArray
from ensemblerl.report.answers import axis
from ensemblerl.report.coordinates import wrapped
from ensemblerl.report.figures import BLUE, GREY, HUES, RED, SMALL, figure, off_scale, shown, tidy
from ensemblerl.report.naming import settle, width
from ensemblerl.report.tables import MEMBER, column, members
from ensemblerl.report.view import View, edges, view

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Course(NamedTuple):
    """A campaign in launch order.

    Parameters
    ----------
    number, value : (n,) of the members that are settled; the value is NaN where there is no reward
    ok, violates : (n,) which ended well, and which of these are no answer for a constraint
    incumbent : (m,) best value so far, up to the first member that is not settled
    label : of the value, with units where they are known
    """

    number: IntArray
    value: FloatArray
    ok: BoolArray
    violates: BoolArray
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
    told = column(ds, "reward")
    ok, reward = fate == Fate.ok, np.where(np.isfinite(told), told, np.nan)
    return Course(
        number=column(ds, MEMBER)[done],
        value=signed(reward[done]),
        ok=ok[done],
        violates=(ok & np.isneginf(told))[done],
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
        _draw(ax, told)
        settle(own, partial(_name, ax, told.label))
        return ax
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(f"ax: wanted matplotlib Axes, such as plt.subplots()[1], got {ax!r}")
    _draw(ax, told)
    _name(ax, told.label)
    return ax


def _name(ax: Axes, label: str) -> None:
    """As much of the label as there is room for."""
    room = 72.0 * ax.get_window_extent().height / ax.figure.dpi
    size = float(ax.yaxis.label.get_fontsize())
    ax.set_ylabel(wrapped(label, room, measure=lambda text: width(text, size)))


def _draw(ax: Axes, told: Course) -> None:
    from matplotlib.ticker import MaxNLocator

    number, value, ok = told.number, told.value, told.ok & ~told.violates
    fresh = not ax.has_data()
    size = 3.0 if len(number) <= 1000 else 1.5
    label = "ok" if ok.any() else "_ok"
    ax.plot(number[ok], value[ok], "o", ms=size, mew=0, color=GREY, alpha=0.5, label=label)
    _best_so_far(ax, told)
    _mark(ax, number[told.violates], "+", HUES[3], "violates a constraint", 0.07)
    _mark(ax, number[~told.ok], "x", RED, "not ok", 0.03)
    seen = view(value)
    if seen.log:
        ax.set_yscale("log")
    if fresh and seen.limits:  # not where something else would go out of sight
        _limit(ax, number, seen)
    if fresh and not ok.any():  # of these axes alone, though others may share their ticks
        ax.tick_params(axis="y", which="both", left=False, labelleft=False)
    ax.xaxis.set_major_locator(
        MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    ax.set_xlabel("member, in launch order")
    _legend(ax)


def _best_so_far(ax: Axes, told: Course) -> None:
    """A line; a dash where there is one value only, for a line needs two."""
    there = np.count_nonzero(np.isfinite(told.incumbent))
    ax.step(
        told.number[: len(told.incumbent)],
        told.incumbent,
        where="post",
        color=BLUE,
        lw=1.5,
        marker="_" if there == 1 else None,
        ms=9.0,
        mew=1.5,
        label="best so far" if there else "_best",
    )


def _limit(ax: Axes, number: IntArray, seen: View) -> None:
    """Triangles at the edge for what is off the scale."""
    ax.set_ylim(seen.limits)
    label = off_scale(seen.beyond)
    for beyond, marker, y in edges(seen):
        at, across = np.full(np.count_nonzero(beyond), y), ax.get_xaxis_transform()
        ax.plot(number[beyond], at, marker, ms=4, mew=0, color=GREY, transform=across, label=label)
        label = "_too"


def _mark(ax: Axes, number: IntArray, sign: str, color: str, label: str, height: float) -> None:
    """A cross at the bottom for each of these members, below all values."""
    if not len(number):
        return
    ax.margins(y=0.1)
    ax.plot(
        number,
        np.full(len(number), height),
        sign,
        ms=3.5,
        mew=0.8,
        color=color,
        transform=ax.get_xaxis_transform(),
        label=f"{label} ({len(number)})",
    )


def _legend(ax: Axes) -> None:
    """Above the axes, where it hides nothing."""
    there = len(ax.get_legend_handles_labels()[0])
    if not there:
        return
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2 if there == 4 else 3,
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0.2,
        handlelength=1.2,
        columnspacing=1.2,
    )
