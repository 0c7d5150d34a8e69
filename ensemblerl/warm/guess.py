"""A guess of where it is good, and how far off it may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from ensemblerl.protocols import Goal
from ensemblerl.records import AnyArray, FloatArray, Hints
from ensemblerl.space import Space
from ensemblerl.spaces.columns import as_column
from ensemblerl.spaces.priors import Parameter
from ensemblerl.spaces.transforms import HIGHEST, LOWEST, Grid, Log, LogGauss, floats
from ensemblerl.warm.ranked import WORTH, completed

DRAWS = 256
"""Points that a guess becomes."""
UNSAID = 0.1
"""Standard deviation on the cube of a number whose spread was left out."""
WAYS = 4
"""Points to run first where not all parameters were guessed."""
KEY = 0x6E55
"""Of the scramble of the sequence that the points come from."""
RESOLUTION = 2**16
"""Places at which a grid too fine for a table of levels is looked at."""
FLAT = 1e5
"""Standard deviations as many times the range are taken for infinite: the density of a normal is
then even to 1e-10, and as much is lost by rounding where it is worked out."""


class Guess:
    """A point, and how far off it may be, for ``warm_start=``.

    What is guessed of a number is a normal distribution about it, cut off at the ends of the
    parameter.

    Parameters
    ----------
    point : values of some parameters, or of all; those left out are unknown
    spread : standard deviations, in units of the parameters, each > 0. Where a parameter is
        logarithmic (``log=True``, `LogNormal`), the guess is normal in its logarithm, and one
        standard deviation goes up from the guess to guess + spread, down by the same factor. Of
        an `Ordinal` of texts it counts levels. A `Choice` has none. Numbers without a spread get
        a tenth of the prior: a standard deviation of 0.1 on the unit cube

    Raises
    ------
    TypeError, ValueError
        for anything but mappings of names, a spread that is not above 0, and one of a parameter
        that is not guessed

    Examples
    --------
    >>> Guess({"inflation": 1.1, "solver": "rk4"}, spread={"inflation": 0.05})
    Guess({'inflation': 1.1, 'solver': 'rk4'}, spread={'inflation': 0.05})
    """

    def __init__(
        self, point: Mapping[str, Any], *, spread: Mapping[str, float] | None = None
    ) -> None:
        if not isinstance(point, Mapping) or not point:
            raise TypeError(f'point: wanted a dict such as {{"x": 0.5}}, got {point!r}')
        if spread is not None and not isinstance(spread, Mapping):
            raise TypeError(f'spread: wanted a dict such as {{"x": 0.1}}, got {spread!r}')
        self.point, self.spread = dict(point), dict(spread or {})
        for name, value in self.spread.items():
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise ValueError(f"spread: wanted a number > 0 for {name!r}, got {value!r}")
            if name not in self.point:
                raise ValueError(f"spread: wanted names that are in the guess, got {name!r}")

    def identity(self) -> dict[str, Any]:
        """What it is known by when a campaign goes on: JSON."""
        point = {str(name): _plain(value) for name, value in self.point.items()}
        spread = {str(name): float(value) for name, value in self.spread.items()}
        return {"kind": "guess", "source": point, "spread": spread}

    def hints(self, space: Space, goal: Goal) -> tuple[Hints, dict[str, Any]]:
        """Points spread as it says, and the guess itself to run first.

        Raises
        ------
        ValueError
            for parameters that are not there, values outside the space, and a spread of what has
            none
        """
        unknown = [str(name) for name in self.point if name not in space]
        if unknown:
            raise ValueError(
                f"warm_start: the guess has {', '.join(unknown)}; parameters are: "
                f"{', '.join(space.names)}"
            )
        unit, centre = np.full((DRAWS, space.ndim), np.nan), np.full(space.ndim, np.nan)
        q = _uniform(space.ndim)
        for name, value in self.point.items():
            j, parameter = space.names.index(name), space[name]
            centre[j] = _at(name, parameter, value)
            unit[:, j] = _spread(name, parameter, centre[j], self.spread.get(name), q[:, j])
        weight = np.full(DRAWS, WORTH * (space.ndim + 1) / DRAWS)
        about = {"rows": 1, "used": 1, "left_out": {}, "parameters": list(self.point)}
        start = completed(centre, WAYS, space)
        if not np.isnan(centre).any() and not len(start):
            raise ValueError(f"warm_start: wanted a feasible guess, got {self.point}")
        return Hints(unit, weight, start), about

    def __repr__(self) -> str:
        return f"Guess({self.point!r}, spread={self.spread!r})"


def _uniform(ndim: int) -> FloatArray:
    """(DRAWS, ndim) quasi-random points of the open cube, always the same."""
    from scipy.stats import qmc

    engine = qmc.Sobol(ndim, scramble=True, bits=52, seed=np.random.default_rng(KEY))
    return np.asarray(engine.random(DRAWS)) + 2.0**-53


def _plain(value: Any) -> Any:
    """A value of a guess as JSON; what is no number and no text, and so refused, as its repr."""
    single = isinstance(value, np.generic | np.ndarray) and value.ndim == 0
    plain = value.item() if single else value
    return plain if isinstance(plain, str | int | float) else repr(value)


def _at(name: str, parameter: Parameter, value: Any) -> float:
    """The coordinate of a value of the guess."""
    try:
        column = as_column(name, [value], parameter.transform.dtype)
        found = float(parameter.transform.unit(column)[0])
    except (TypeError, ValueError):  # it is no single value
        found = math.nan
    if math.isnan(found):
        raise ValueError(f"warm_start: {name!r} must be {parameter.support}, got {value!r}")
    return found


def _spread(
    name: str, parameter: Parameter, at: float, spread: float | None, q: FloatArray
) -> FloatArray:
    """(n,) uniform -> (n,) coordinates, spread about a place as was said."""
    if parameter.kind == "categorical":
        if spread is not None:
            raise ValueError(
                f"spread: wanted none for {name!r}, whose options have no distances, got {spread!r}"
            )
        return np.full(len(q), at)
    if spread is None:
        return _inside(_normal(q, at, UNSAID, 0.0, 1.0))
    table = getattr(parameter.transform, "values", None)
    if table is not None:
        return _levels(parameter, np.asarray(table), at, spread, q)
    ends = parameter.transform.value(np.array([LOWEST, at, HIGHEST]))
    low, middle, high = floats(ends).tolist()
    drawn = _along(parameter, q, middle, spread, low, high)
    if isinstance(parameter.transform, Grid):
        places = (np.arange(RESOLUTION) + 0.5) / RESOLUTION
        return _inside(np.interp(drawn, floats(parameter.transform.value(places)), places))
    return _inside(parameter.transform.unit(np.clip(drawn, low, high)))


def _levels(
    parameter: Parameter, values: AnyArray, at: float, spread: float, q: FloatArray
) -> FloatArray:
    """(n,) uniform -> (n,) centres of levels, as likely as a normal is between their neighbours."""
    edges = parameter.edges
    assert edges is not None
    axis = floats(values) if values.dtype.kind in "iuf" else np.arange(len(values), dtype=float)
    cell = int(np.searchsorted(edges[1:-1], at, side="right"))
    scale = np.log1p(spread / axis[cell]) if _logarithmic(parameter) else spread
    axis = np.log(axis) if _logarithmic(parameter) else axis
    log_chance = -0.5 * ((axis - axis[cell]) / scale) ** 2 + np.log(_widths(axis))
    chance = np.exp(log_chance - log_chance.max())
    drawn = np.searchsorted(np.cumsum(chance / chance.sum()), q)
    centres = 0.5 * (edges[:-1] + edges[1:])
    return np.asarray(centres[np.minimum(drawn, len(centres) - 1)])


def _widths(axis: FloatArray) -> FloatArray:
    """(n,) levels in order -> (n,) how much of the axis each stands for."""
    return np.abs(np.gradient(axis)) if len(axis) > 1 else np.ones(1)


def _along(
    parameter: Parameter, q: FloatArray, middle: float, spread: float, low: float, high: float
) -> FloatArray:
    """(n,) uniform -> (n,) values, normal about the middle, or so in the logarithm."""
    if not _logarithmic(parameter):
        return _normal(q, middle, spread, low, high)
    with np.errstate(divide="ignore"):
        ends = np.log(low), np.log(high)
    return np.exp(_normal(q, math.log(middle), math.log1p(spread / middle), *ends))


def _logarithmic(parameter: Parameter) -> bool:
    """Whether equal factors are equally likely under its prior."""
    return bool(getattr(parameter, "log", False)) or isinstance(parameter.transform, Log | LogGauss)


def _normal(q: FloatArray, mean: float, sd: float, low: float, high: float) -> FloatArray:
    """(n,) uniform -> (n,) normal, cut off at both ends."""
    from scipy.special import ndtr, ndtri

    if sd > FLAT * (high - low):
        return low + q * (high - low)
    below, above = ndtr((low - mean) / sd), ndtr((high - mean) / sd)
    return np.asarray(np.clip(mean + sd * ndtri(below + q * (above - below)), low, high))


def _inside(unit: FloatArray) -> FloatArray:
    """In the open interval."""
    return np.asarray(np.clip(unit, 1e-9, 1.0 - 1e-9))
