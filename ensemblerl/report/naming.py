"""Scales, ticks and names of axes: as much as there is room for, and no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensemblerl.report.coordinates import Coordinate, ticks, wrapped
from ensemblerl.report.figures import SMALL

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BETWEEN = 2.0
"""Points by which a name may be wider than its panel: half of the space to the next."""
OPTION = (42.0, 80.0)
"""Points to which the text of an option may be cut, beside a short axis and beside a long one."""
LINE = 10.0
"""Points that a line of ticks' text takes."""


def width(text: str, size: float = SMALL) -> float:
    """Of a text as it is drawn, in points."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=size).get_extents().width) if text.strip() else 0.0


def settle(figure: Figure, name: Callable[[], None]) -> None:
    """Name axes, lay them out, and name them again by the room that they have now."""
    name()
    figure.draw_without_rendering()
    name()


def scale(axis: Axis, shown: Coordinate) -> None:
    """Scale and limits of one axis."""
    ax = axis.axes
    across = axis is ax.xaxis
    if shown.log:
        (ax.set_xscale if across else ax.set_yscale)("log")
    (ax.set_xlim if across else ax.set_ylim)(shown.limits)


def name(axis: Axis, shown: Coordinate, *, told: bool = True) -> None:
    """Ticks and name of one axis by its length now; ticks without texts where not ``told``."""
    box = axis.axes.get_window_extent()
    across = axis is axis.axes.xaxis
    room = 72.0 * (box.width if across else box.height) / axis.axes.figure.dpi
    marks = ticks(shown, max(2, int(room / (LINE if shown.options else 24.0))))
    if not told:
        marks = [(place, "") for place, _ in marks]
    elif shown.options:
        marks = _short(shown, marks, room, across=across)
    axis.set_ticks(*map(list, zip(*marks, strict=True)))
    axis.set_ticks([], minor=True)
    if not told:
        return
    axis.set_tick_params(rotation=90 if across and _crowded(shown, marks, room) else 0)
    axis.set_label_text(wrapped(shown.label, room + BETWEEN, measure=width), fontsize=SMALL)


def _short(
    shown: Coordinate, marks: Sequence[tuple[float, str]], room: float, *, across: bool
) -> list[tuple[float, str]]:
    """Texts of options, cut so that panels keep their room; below an axis only if need be."""
    short, long = OPTION
    most = min(long, max(short, room / 2))
    tries = [float("inf"), most, short] if across else [most]
    for most in tries:
        out = [(place, wrapped(text, most, measure=width)) for place, text in marks]
        if not _crowded(shown, out, room):
            break
    return out


def _crowded(shown: Coordinate, marks: Sequence[tuple[float, str]], room: float) -> bool:
    """Whether texts below the axis would touch each other, or those of the next panel."""
    wide = 1.08 * np.array([width(text) for _, text in marks])  # on a screen letters are wider
    low, high, *at = (np.log if shown.log else np.asarray)([*shown.limits, *(p for p, _ in marks)])
    place = room * (np.array(at) - low) / (high - low)
    touching = (wide[1:] + wide[:-1]) / 2 + 4.0 > np.diff(place)
    over = BETWEEN if shown.options else 2 * BETWEEN  # numbers at the ends of a range are short
    outside = (wide / 2 > place + over) | (wide / 2 > room - place + over)
    return bool(touching.any() or outside.any())
