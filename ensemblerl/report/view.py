"""Which values an axis shows: a few that lie far away may not flatten all the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ensemblerl.records import BoolArray, FloatArray
from ensemblerl.report.figures import spread

FEW = 0.05
"""Share of the values, one at least, that may be left beyond the axis."""
LEAST = 5
"""Values from which on there is a crowd."""
FLAT, FLAT_LOG = 1000.0, 20.0
"""How many times the crowd's width all values must span for it to be flat; on a logarithmic axis,
where nature seldom goes far, less will do."""
ROOM = 0.15
"""Of the crowd's width, free at both ends for the marks of what lies beyond."""


class View(NamedTuple):
    """What an axis shows.

    Parameters
    ----------
    log : whether it is logarithmic
    limits : of the axis, None where all is shown
    below, above : (n,) values that lie beyond
    """

    log: bool
    limits: tuple[float, float] | None
    below: BoolArray
    above: BoolArray

    @property
    def beyond(self) -> int:
        """How many values lie beyond."""
        return int(np.count_nonzero(self.below | self.above))


def view(values: FloatArray) -> View:
    """The axis for (n,) values, NaN for those that have no place on it."""
    log = spread(values)
    crowd = _crowd(values, log=log)
    if crowd is None:
        return View(log, None, *np.zeros((2, len(values)), dtype=np.bool_))
    low, high = crowd
    inside = values[(values >= low) & (values <= high)]
    log = spread(inside)
    return View(log, _roomy(low, high, log=log), values < low, values > high)


def edges(seen: View) -> list[tuple[BoolArray, str, float]]:
    """(which values, marker, height in the axes) of what is marked at the edges."""
    both = [(seen.below, "v", 0.03), (seen.above, "^", 0.97)]
    return [edge for edge in both if edge[0].any()]


def _crowd(values: FloatArray, *, log: bool) -> tuple[float, float] | None:
    """The ends of nearly all values, None where the rest does not make them flat."""
    value = np.sort(values[np.isfinite(values)])
    n = len(value)
    if n < LEAST:
        return None
    most = n - max(1, int(FEW * n))
    place = np.log(value) if log else value
    with np.errstate(over="ignore"):
        i = int(np.argmin(place[most - 1 :] - place[: n - most + 1]))
        wide = place[i + most - 1] - place[i]
        if not 0 < wide < (place[-1] - place[0]) / (FLAT_LOG if log else FLAT):
            return None
    near = value[(place >= place[i] - wide) & (place <= place[i + most - 1] + wide)]
    return float(near[0]), float(near[-1])


def _roomy(low: float, high: float, *, log: bool) -> tuple[float, float]:
    if log:
        room = (high / low) ** ROOM
        return low / room, high * room
    return low - ROOM * (high - low), high + ROOM * (high - low)
