"""Scales, ticks and names of axes: as much as there is room for, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ensemblerl.report.coordinates import Coordinate, ticks, wrapped
from ensemblerl.report.figures import SMALL

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BETWEEN = 2.0
"""Points by which a name may be wider than its panel: half of the space to the next."""
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
    texts = [text if told else "" for _, text in marks]
    axis.set_ticks([place for place, _ in marks], texts)
    axis.set_ticks([], minor=True)
    if not told:
        return
    crowded = across and sum(width(text) + 3.0 for text in texts) > 0.95 * room
    axis.set_tick_params(rotation=90 if crowded else 0)
    axis.set_label_text(wrapped(shown.label, room + BETWEEN, measure=width), fontsize=SMALL)
