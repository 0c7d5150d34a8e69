"""Draws of a policy on the axis of a parameter: where they lie, and how they are counted.

Everything is on the *scale* of the axis: the logarithm where that is logarithmic. Densities are
with respect to it, so that a prior that is uniform in the logarithm is flat. Shapes: ``n`` draws,
``B`` bins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from ensemblerl.records import Cube, FloatArray
from ensemblerl.report.coordinates import Coordinate, coordinates, space_of
from ensemblerl.spaces.priors import Parameter
from ensemblerl.spaces.transforms import HIGHEST, LOWEST

TAIL = 1e-3
"""Of the prior, beyond either end of the axis of a parameter without bounds."""
NEAR = (0.005, 0.995)
"""Quantiles of the draws that a close look is at, with half as much again at either side."""
WIDE = 0.5
"""Of the axis: where draws take more of it, there is no close look."""
ROOM = 0.04
"""Of an axis without cells, free beyond either end: for the texts of its ticks."""


class Ruled(NamedTuple):
    """The axis of one parameter, with its scale.

    Parameters
    ----------
    shown : the axis
    ends : of what is counted, on the scale
    parameter : what is on it
    j : its coordinate of the cube
    bounds : (levels + 1,) of the cells, on the scale; None where there are none
    """

    shown: Coordinate
    ends: tuple[float, float]
    parameter: Parameter
    j: int
    bounds: FloatArray | None

    def scale(self, values: FloatArray) -> FloatArray:
        """(...) values -> (...) on the scale."""
        return np.log(values) if self.shown.log else np.asarray(values, dtype=np.float64)

    def back(self, places: FloatArray) -> FloatArray:
        """(...) on the scale -> (...) values."""
        return np.exp(places) if self.shown.log else places

    def places(self, cube: Cube, unit: FloatArray) -> FloatArray:
        """(n, ndim) draws -> (n,) on the scale, of a cell its middle; NaN where inactive."""
        active = cube.active(unit)[:, self.j]
        if self.bounds is None:
            out = self.scale(self.parameter.transform.value(unit[:, self.j]))
        else:
            middle = 0.5 * (self.bounds[:-1] + self.bounds[1:])
            out = middle[cube.cells(unit)[:, self.j]]
        return np.asarray(np.where(active, out, np.nan))

    def bins(self, most: int) -> FloatArray:
        """(B + 1,) edges on the scale between the ends.

        Cells that are narrower than a bin are taken together, but for options.
        """
        low, high = self.ends
        even = np.linspace(low, high, most + 1)
        if self.bounds is None:
            return even
        first = max(0, int(np.searchsorted(self.bounds, low, "right")) - 1)
        last = min(len(self.bounds) - 1, int(np.searchsorted(self.bounds, high, "left")))
        there = self.bounds[first : last + 1]
        if self.shown.options:
            return there
        kept = np.unique([0, *np.searchsorted(there, even).clip(0, len(there) - 1)])
        return np.asarray(there[kept])

    def limited(self, low: float, high: float, room: float = 0.0) -> Ruled:
        """The same between these ends, on the scale; ``room`` beyond is a share of the whole."""
        more = room * (high - low)
        first, last = self.back(np.array([low - more, high + more]))
        limits = float(first), float(last)
        return self._replace(shown=self.shown._replace(limits=limits), ends=(low, high))

    def near(self, places: FloatArray) -> tuple[float, float]:
        """Ends of a close look at the draws; those of the axis where it would show most of it."""
        low, high = self.ends
        there = places[np.isfinite(places)]
        if self.shown.options or not len(there):
            return low, high
        first, last = np.quantile(there, NEAR)
        room = 0.5 * (last - first)
        if self.bounds is not None:  # at least a cell more at either side
            step = np.diff(self.bounds)
            cells = np.searchsorted(self.bounds, [first, last], "right") - 1
            room = max(room, 1.5 * float(step[cells.clip(0, len(step) - 1)].max()))
        room = max(room, 1e-12 * max(abs(first), abs(last)))
        near = max(low, first - room), min(high, last + room)
        return near if 0 < near[1] - near[0] < WIDE * (high - low) else (low, high)


def ruled(ds: xr.Dataset, names: list[str]) -> list[Ruled]:
    """The axes of these parameters."""
    space = space_of(ds)
    shown = coordinates(ds, names)
    return [
        _ruled(x, space[name], space.names.index(name))
        for x, name in zip(shown, names, strict=True)
    ]


def _ruled(shown: Coordinate, parameter: Parameter, j: int) -> Ruled:
    out = Ruled(shown, (0.0, 1.0), parameter, j, None)
    if parameter.edges is not None:
        levels = np.arange(parameter.levels, dtype=np.float64)
        if not shown.options:
            centres = 0.5 * (parameter.edges[:-1] + parameter.edges[1:])
            levels = parameter.transform.value(centres).astype(np.float64)
        bounds = _between(levels) if shown.options else out.scale(_between(levels))
        return out._replace(bounds=bounds).limited(float(bounds[0]), float(bounds[-1]))
    if hasattr(parameter, "low"):
        ends = parameter.transform.value(np.array([LOWEST, HIGHEST]))
    else:
        usual = parameter.transform.value(np.array([TAIL, 1.0 - TAIL]))
        seen = shown.place[np.isfinite(shown.place)]
        ends = np.array([min([usual[0], *seen]), max([usual[1], *seen])])
    low, high = out.scale(ends)
    return out.limited(float(low), float(high), ROOM)


def _between(levels: FloatArray) -> FloatArray:
    """(L,) levels -> (L + 1,) bounds half way between them, and as far beyond the last ones."""
    if len(levels) < 2:
        return np.array([levels[0] - 0.5, levels[0] + 0.5])
    middle = 0.5 * (levels[:-1] + levels[1:])
    return np.array([2 * levels[0] - middle[0], *middle, 2 * levels[-1] - middle[-1]])
