"""Probability transforms: the open unit interval to values of one parameter, and back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ensemblerl.records import AnyArray, FloatArray

LOWEST = float(np.finfo(np.float64).tiny)
HIGHEST = 1 - 2.0**-53
LARGEST = float(np.finfo(np.float64).max)
MAX_CELLS = 2**16
"""A grid with more levels has no table of cells: samplers see it as a real coordinate."""


def floats(values: AnyArray) -> FloatArray:
    """(n,) as float64, NaN for what is no number."""
    numeric = values.dtype.kind in "biuf"
    return values.astype(np.float64) if numeric else np.full(values.shape, np.nan)


class Transform(ABC):
    """One parameter's map between the unit interval and its values.

    Attributes
    ----------
    edges : (levels + 1,) cell edges from 0 to 1; None without cells
    dtype : of the values
    """

    edges: FloatArray | None = None
    dtype: np.dtype[Any] = np.dtype(np.float64)

    @abstractmethod
    def value(self, u: FloatArray) -> AnyArray:
        """(n,) coordinates in (0, 1) -> (n,) values."""

    def unit(self, values: AnyArray) -> FloatArray:
        """(n,) values -> (n,) coordinates in (0, 1), NaN outside the support."""
        v = floats(values)
        with np.errstate(all="ignore"):
            u = np.clip(self._unit(v), LOWEST, HIGHEST)
            out: FloatArray = np.where(self._valid(v), u, np.nan)
        return out

    def _unit(self, v: FloatArray) -> FloatArray:
        """(n,) the inverse, whatever it gives outside the support."""
        raise NotImplementedError

    def _valid(self, v: FloatArray) -> Any:
        """(n,) whether in the support."""
        raise NotImplementedError


class _Bounded(Transform):
    low: float
    high: float

    def value(self, u: FloatArray) -> AnyArray:
        """(n,) -> (n,), the outermost coordinates being the ends themselves."""
        v = np.minimum(np.maximum(self._value(u), self.low), self.high)
        return np.where(u <= LOWEST, self.low, np.where(u >= HIGHEST, self.high, v))

    def _value(self, u: FloatArray) -> Any:
        raise NotImplementedError

    def _valid(self, v: FloatArray) -> Any:
        return (v >= self.low) & (v <= self.high)


@dataclass(frozen=True)
class Linear(_Bounded):
    """Uniform on [low, high]."""

    low: float
    high: float

    def _value(self, u: FloatArray) -> Any:
        return self.low + u * (self.high - self.low)

    def _unit(self, v: FloatArray) -> Any:
        return (v - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Log(_Bounded):
    """Uniform in the logarithm on [low, high].

    Measured from the geometric mean, so that neither the ratio high / low overflows nor
    logarithms of large numbers cancel in a narrow range.
    """

    low: float
    high: float

    @property
    def _centre(self) -> float:
        return math.sqrt(self.low) * math.sqrt(self.high)

    @property
    def _width(self) -> float:
        return math.log(self.high / self._centre) + math.log(self._centre / self.low)

    def _value(self, u: FloatArray) -> Any:
        return self._centre * np.exp((u - 0.5) * self._width)

    def _unit(self, v: FloatArray) -> Any:
        return 0.5 + np.log(v / self._centre) / self._width


@dataclass(frozen=True)
class Gauss(Transform):
    """Normal with this mean and standard deviation.

    ``ndtri`` and ``ndtr`` keep the lower tail's relative precision; the upper tail is as fine
    as float64 is below 1, because ``1 - u`` is exact there.
    """

    mean: float
    std: float

    def value(self, u: FloatArray) -> AnyArray:
        """(n,) -> (n,)."""
        from scipy.special import ndtri

        return np.asarray(self.mean + self.std * ndtri(u))

    def _unit(self, v: FloatArray) -> Any:
        from scipy.special import ndtr

        return ndtr((v - self.mean) / self.std)

    def _valid(self, v: FloatArray) -> Any:
        return np.isfinite(v)


@dataclass(frozen=True)
class LogGauss(Transform):
    """Lognormal; ``sigma`` is the standard deviation of the natural logarithm."""

    median: float
    sigma: float

    def value(self, u: FloatArray) -> AnyArray:
        """(n,) -> (n,)."""
        return np.asarray(self.median * np.exp(Gauss(0.0, self.sigma).value(u)))

    def _unit(self, v: FloatArray) -> Any:
        return Gauss(0.0, self.sigma)._unit(np.log(v / self.median))

    def _valid(self, v: FloatArray) -> Any:
        return (v > 0) & np.isfinite(v)


@dataclass(frozen=True)
class Triangle(_Bounded):
    """Triangular on [low, high] with the peak at mode; each side from its own end."""

    low: float
    mode: float
    high: float

    def _value(self, u: FloatArray) -> Any:
        width, left, right = self._sides
        rising = self.low + np.sqrt(u) * math.sqrt(width) * math.sqrt(left)
        falling = self.high - np.sqrt(1 - u) * math.sqrt(width) * math.sqrt(right)
        rising, falling = np.minimum(rising, self.mode), np.maximum(falling, self.mode)
        return np.where(u * width < left, rising, falling)

    def _unit(self, v: FloatArray) -> Any:
        width, left, right = self._sides
        rising = (v - self.low) / width * ((v - self.low) / (left or 1.0))
        falling = 1 - (self.high - v) / width * ((self.high - v) / (right or 1.0))
        return np.where((v < self.mode) | (right == 0), rising, falling)

    @property
    def _sides(self) -> tuple[float, float, float]:
        return self.high - self.low, self.mode - self.low, self.high - self.mode


@dataclass(frozen=True)
class Frozen(Transform):
    """A frozen distribution of scipy.stats, each tail measured from its own end."""

    build: Callable[[], Any]

    @cached_property
    def law(self) -> Any:
        """Built when first asked for: scipy.stats takes long to load."""
        return self.build()

    def value(self, u: FloatArray) -> AnyArray:
        """(n,) -> (n,)."""
        v = np.where(u < 0.5, self.law.ppf(u), self.law.isf(1 - u))
        out: AnyArray = np.clip(v, -LARGEST, LARGEST)
        return out

    def _unit(self, v: FloatArray) -> Any:
        below = self.law.cdf(v)
        return np.where(below < 0.5, below, 1 - self.law.sf(v))

    def _valid(self, v: FloatArray) -> Any:
        low, high = self.law.support()
        return (v >= low) & (v <= high) & np.isfinite(v)


class Table(Transform):
    """Finitely many values, one a cell; ``index`` gives their cells, -1 for others."""

    def __init__(
        self, values: AnyArray, edges: FloatArray, index: Callable[[AnyArray], AnyArray]
    ) -> None:
        self.values, self.edges, self.index = values, edges, index
        self.dtype = values.dtype
        self._inner = edges[1:-1]
        self._centres = 0.5 * (edges[:-1] + edges[1:])

    def value(self, u: FloatArray) -> AnyArray:
        """(n,) -> (n,), by the search of `Cube.cells`, so that both see the same cell."""
        out: AnyArray = self.values[np.searchsorted(self._inner, u, side="right")]
        return out

    def unit(self, values: AnyArray) -> FloatArray:
        """(n,) -> (n,) cell centres."""
        cells = self.index(values)
        out: FloatArray = np.where(cells >= 0, self._centres[cells], np.nan)
        return out


@dataclass(frozen=True)
class Grid(Transform):
    """Numbered levels: ``axis`` rounded to the nearest whole number.

    Parameters
    ----------
    axis : transform on the axis of level numbers
    first, last : numbers of the first and last level
    level : level numbers -> values
    number : values -> level numbers, NaN for others
    """

    axis: Linear | Log
    first: int
    last: int
    level: Callable[[AnyArray], AnyArray]
    number: Callable[[AnyArray], FloatArray]
    dtype: np.dtype[Any]

    def value(self, u: FloatArray) -> AnyArray:
        """(n,) -> (n,)."""
        return self.level(np.clip(np.rint(self.axis.value(u)), self.first, self.last))

    def unit(self, values: AnyArray) -> FloatArray:
        """(n,) -> (n,) centre of the level's share of the axis."""
        number = self.number(values)
        ends = self.axis.low, self.axis.high
        below, above = (self.axis.unit(np.clip(number + side, *ends)) for side in (-0.5, 0.5))
        return 0.5 * (below + above)

    def tabled(self) -> Transform:
        """With a table of cells where that has a sensible size, else as it is."""
        if self.last - self.first >= MAX_CELLS:
            return self
        numbers = np.arange(self.first, self.last + 1.0)
        edges = np.concatenate([[0.0], self.axis.unit(numbers[1:] - 0.5), [1.0]])
        return Table(self.level(numbers), edges, self._cell)

    def _cell(self, values: AnyArray) -> AnyArray:
        number = self.number(values)
        return np.where(np.isnan(number), -1, number - self.first).astype(np.int64)


def listed(values: AnyArray) -> Table:
    """Equally wide cells for different values, found again by searching."""
    order = np.argsort(values, kind="stable")
    texts = values.dtype.kind == "U"

    def index(wanted: AnyArray) -> AnyArray:
        if (wanted.dtype.kind == "U") != texts or wanted.dtype.kind not in "biufU":
            return np.full(wanted.shape, -1)
        places = np.searchsorted(values, wanted, sorter=order)
        cells = order[np.minimum(places, len(values) - 1)]
        return np.where(values[cells] == wanted, cells, -1)

    return Table(values, np.arange(len(values) + 1) / len(values), index)
