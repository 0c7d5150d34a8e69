"""How a campaign learnt: its best value, its policy, its critics, and who proposed its members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from ensemblerl.records import AnyArray, FloatArray, IntArray
from ensemblerl.report.coordinates import wrapped
from ensemblerl.report.figures import BLUE, HUES, SMALL, figure, spread, tidy
from ensemblerl.report.history import Course, course
from ensemblerl.report.naming import settle, width
from ensemblerl.report.tables import MEMBER, column, members

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICK = "note_critic"
"""Column that says which critic picked a member, "" for none."""
WINDOW = (0.1, 8, 100)
"""Members that a running share is of: this share of all, but at least and at most so many."""
STYLES = ("-", "--", "-.", ":")
"""Of the lines of critics, besides their colours."""
ENTRY = 70.0
"""Points to which a name in a legend may be cut."""
HIGH, LEGEND, COLUMNS = 0.85, 0.17, 2
"""Of a panel, and of a row of a legend above it, in inches; entries in a row."""


class Shares(NamedTuple):
    """Who proposed the members.

    Parameters
    ----------
    number : (n,) of the members
    names : (k,) of proposers, and of critics that picked for them
    share : (k, n) of the newest members up to each one
    window : how many these are
    """

    number: IntArray
    names: list[str]
    share: FloatArray
    window: int


class Panel(NamedTuple):
    """One of the panels: name of its vertical axis, what draws it, entries of its legend."""

    label: str
    draw: Callable[[Axes], None]
    legend: int = 0

    @property
    def height(self) -> float:
        """In inches, with its legend."""
        return HIGH + LEGEND * -(-self.legend // COLUMNS)


def learning(ds: xr.Dataset, lessons: xr.Dataset) -> Figure:
    """See `ensemblerl.report.accessor.Plots.learning`; ``lessons`` of ``ds.erl.learning()``."""
    ds = members(ds).sortby(MEMBER)
    panels = list(_panels(ds, lessons))
    out = figure(0.3 + sum(panel.height for panel in panels))
    grid = list(out.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0])
    for ax, panel in zip(grid, panels, strict=True):
        panel.draw(ax)
        tidy(ax)
        if panel.legend:
            _legend(ax)
    grid[-1].set_xlim(0, max(1, *_settled(lessons), *column(ds, MEMBER)))
    grid[-1].set_xlabel("members")
    settle(out, lambda: _name(grid, [panel.label for panel in panels]))
    out.align_ylabels(grid)
    return out


def _settled(lessons: xr.Dataset) -> FloatArray:
    """(lessons,) members settled before each; none where that was not told."""
    told = lessons["n_settled"].values if "n_settled" in lessons else np.empty(0)
    return np.asarray(told, dtype=np.float64)


def _panels(ds: xr.Dataset, lessons: xr.Dataset) -> Iterator[Panel]:
    """Those for which there is something to draw."""
    told, shares, x = course(ds), proposers(ds), _settled(lessons)
    skills, weights = (_columns(lessons, of) for of in ("skill_", "weight_"))
    critics = list(dict.fromkeys([*skills, *weights]))
    others = [name for name in shares.names if name not in critics]
    hues = dict(zip([*critics, *others], HUES * len([*critics, *others]), strict=False))
    if np.isfinite(told.incumbent).any():
        yield Panel(f"best {told.label}", partial(_best, told=told))
    if len(x) and "entropy" in lessons:
        entropy = {"entropy": np.asarray(lessons["entropy"].values)}
        yield Panel("entropy (nat)", partial(_lines, x=x, of=entropy, hues={"entropy": BLUE}))
    for label, of in (("skill", skills), ("weight", weights)):
        if len(x) and of:
            draw = partial(_shares, x=x, of=of, hues=hues)
            yield Panel(label, draw, legend=len(of) if of is skills or not skills else 0)
    if shares.names:
        draw = partial(_proposed, shares=shares, hues=hues)
        yield Panel(f"share (last {shares.window})", draw, legend=len(shares.names))


def _columns(lessons: xr.Dataset, prefix: str) -> dict[str, FloatArray]:
    """Critic -> (lessons,) of what is called so; those that were never told are left out."""
    names = [str(name) for name in lessons.data_vars if str(name).startswith(prefix)]
    told = {name.removeprefix(prefix): np.asarray(lessons[name].values) for name in names}
    return {name: values for name, values in told.items() if np.isfinite(values).any()}


def proposers(ds: xr.Dataset) -> Shares:
    """Who proposed the members, as running shares.

    A member that a critic picked is that critic's. The others of a proposer for which critics pick
    are called ``<proposer>, drawn``. Of many names the rarest are ``others``.
    """
    number, who = column(ds, MEMBER), column(ds, "proposer").astype(np.str_)
    if PICK in ds.variables:
        critic = column(ds, PICK).astype(np.str_)
        asked = np.isin(who, np.unique(who[critic != ""]))
        who = np.where(critic != "", critic, np.where(asked, np.char.add(who, ", drawn"), who))
    names, counts = np.unique(who, return_counts=True)
    names = names[np.argsort(-counts, kind="stable")]
    if len(names) > len(HUES):
        who = np.where(np.isin(who, names[: len(HUES) - 1]), who, "others")
        names = np.array([*names[: len(HUES) - 1], "others"])
    share, least, most = WINDOW
    window = int(np.clip(share * len(number), least, most))
    return Shares(number, names.tolist(), running(who == names[:, None], window), window)


def running(mine: AnyArray, window: int) -> FloatArray:
    """(k, n) bool -> (k, n) share of the newest ``window``, fewer at first.

    Examples
    --------
    >>> running(np.array([[True, False, False, True]]), 2).tolist()
    [[1.0, 0.5, 0.0, 0.5]]
    """
    n = mine.shape[1]
    sums = np.concatenate([np.zeros((len(mine), 1)), np.cumsum(mine, axis=1)], axis=1)
    first = np.maximum(np.arange(1, n + 1) - window, 0)
    return np.asarray((sums[:, 1:] - sums[:, first]) / (np.arange(1, n + 1) - first))


# ---- drawing


def _best(ax: Axes, told: Course) -> None:
    there = told.number[: len(told.incumbent)]
    ax.step(there, told.incumbent, where="post", color=BLUE, lw=1.3)
    if spread(told.incumbent):
        ax.set_yscale("log")


def _lines(ax: Axes, x: FloatArray, of: dict[str, FloatArray], hues: dict[str, str]) -> None:
    for i, (name, values) in enumerate(of.items()):
        style = STYLES[i % len(STYLES)]
        ax.plot(x, values, style, color=hues[name], lw=1.3, label=_entry(name))


def _shares(ax: Axes, x: FloatArray, of: dict[str, FloatArray], hues: dict[str, str]) -> None:
    """Lines between 0 and 1."""
    _lines(ax, x, of, hues)
    ax.set_ylim(-0.03, 1.03)


def _proposed(ax: Axes, shares: Shares, hues: dict[str, str]) -> None:
    """Areas on each other."""
    colours = [hues[name] for name in shares.names]
    labels = list(map(_entry, shares.names))
    ax.stackplot(shares.number, shares.share, colors=colours, labels=labels, lw=0, step="post")
    ax.set_ylim(0.0, 1.0)


def _entry(name: str) -> str:
    return wrapped(name, ENTRY, measure=width)


def _legend(ax: Axes) -> None:
    """Above the axes, where it hides nothing."""
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=COLUMNS,
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0.1,
        handlelength=1.6,
        columnspacing=1.2,
    )


def _name(grid: Sequence[Axes], labels: Sequence[str]) -> None:
    """As much of the names as there is room for."""
    for ax, label in zip(grid, labels, strict=True):
        room = 72.0 * ax.get_window_extent().height / ax.figure.dpi
        ax.set_ylabel(wrapped(label, room, measure=width), size=SMALL)
