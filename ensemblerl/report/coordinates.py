"""Parameters as axes of a picture: places, limits, ticks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from ensemblerl.records import AnyArray, FloatArray
from ensemblerl.report.answers import labelled
from ensemblerl.report.tables import MEMBER, column

if TYPE_CHECKING:
    from ensemblerl.space import Space

PRIMES = (2, 3, 5, 7, 11, 13)
"""Multiples of their roots fill the unit interval evenly, and no two alike."""
WIDE = 0.5
"""Width of the band, in cells, over which members with the same option are spread."""


class Coordinate(NamedTuple):
    """One parameter as an axis.

    Parameters
    ----------
    label : with units
    place : (n,) where each member lies on the axis, NaN where the parameter is inactive
    limits : of the axis
    log : whether it is logarithmic
    options : texts of the cells 0, 1, ... of a choice or ordinal, empty for numbers
    whole : whether only whole numbers occur
    """

    label: str
    place: FloatArray
    limits: tuple[float, float]
    log: bool = False
    options: tuple[str, ...] = ()
    whole: bool = False


def coordinates(ds: xr.Dataset, names: Sequence[str] | None) -> list[Coordinate]:
    """The parameters asked for, all when None.

    Raises
    ------
    ValueError
        for a name that is no parameter, for none at all, and for a Dataset without its space
    """
    space = space_of(ds)
    if isinstance(names, str) or (names is not None and not len(names)):
        raise ValueError(f"names: wanted a list of parameters, got {names!r}")
    wrong = [name for name in names or () if name not in space]
    if wrong:
        there = ", ".join(space.names)
        raise ValueError(f"names: wanted parameters, got {wrong}; parameters are: {there}")
    chosen = dict.fromkeys(names or space.names)
    return [_coordinate(ds, name, space[name], j) for j, name in enumerate(chosen)]


def space_of(ds: xr.Dataset) -> Space:
    """The space of a campaign, without its constraints and start points.

    Raises
    ------
    ValueError
        for a Dataset without its space
    """
    from ensemblerl.space import Space

    if "space" not in ds.attrs:
        raise ValueError("ds: wanted a campaign's Dataset, with its space in the attributes")
    given = json.loads(ds.attrs["space"])
    return Space.from_json({key: given[key] for key in ("parameters", "order")})


def _coordinate(ds: xr.Dataset, name: str, parameter: Any, j: int) -> Coordinate:
    values, attrs = column(ds, name), {"units": parameter.units}
    label = labelled(name, attrs)
    if hasattr(parameter, "options"):
        place = _cells(values, parameter.options) + _apart(column(ds, MEMBER), j)
        texts = tuple(map(_option, parameter.options))
        return Coordinate(label, place, (-0.5, len(texts) - 0.5), options=texts)
    place = values.astype(np.float64)
    log = bool(getattr(parameter, "log", parameter.name_in_json == "lognormal"))
    whole = parameter.transform.dtype.kind == "i"
    return Coordinate(label, place, _limits(parameter, place, log), log, whole=whole)


def _cells(values: AnyArray, options: Sequence[Any]) -> FloatArray:
    """(n,) -> (n,) number of the option, NaN where none is."""
    out = np.full(len(values), np.nan)
    for i, option in enumerate(options):
        out[values == option] = i
    return out


def _apart(number: AnyArray, j: int) -> FloatArray:
    """(n,) shifts that keep members of one cell apart, the same each time; others for each j."""
    return WIDE * (number * math.sqrt(PRIMES[j % len(PRIMES)]) % 1.0 - 0.5)


def _option(option: Any) -> str:
    return f"{option:g}" if isinstance(option, float) else str(option)


def _limits(parameter: Any, place: FloatArray, log: bool) -> tuple[float, float]:
    """Of the parameter's range with a little room, or of what there is without a range."""
    seen = place[np.isfinite(place)]
    if hasattr(parameter, "low"):
        low, high = float(parameter.low), float(parameter.high)
    else:
        low, high = (float(seen.min()), float(seen.max())) if len(seen) else (1.0, 1.0)
    if log:
        room = (high / low) ** 0.04 if high > low else 1.5
        return low / room, high * room
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room


def ticks(coordinate: Coordinate, most: int) -> list[tuple[float, str]]:
    """At most so many (place, text) within the limits, round numbers where there are.

    Examples
    --------
    >>> nothing = np.array([])
    >>> ticks(Coordinate("rate", nothing, (8e-6, 1.2), log=True), 2)
    [(1e-05, '1e-5'), (1.0, '1')]
    >>> ticks(Coordinate("share", nothing, (-0.02, 0.52)), 3)
    [(0.0, '0'), (0.2, '0.2'), (0.4, '0.4')]
    >>> ticks(Coordinate("near", nothing, (1.57053, 1.57068)), 2)
    [(1.57053, '1.57053'), (1.57068, '1.57068')]
    """
    if coordinate.options:
        step = -(-len(coordinate.options) // most)
        return [(float(i), text) for i, text in enumerate(coordinate.options) if i % step == 0]
    low, high = coordinate.limits
    places = (_decades if coordinate.log else _round)(low, high, most, coordinate.whole)
    if len(places) < 2:
        places = _ends(coordinate)
    return [(place, _told(place, 0.005 * (high - low))) for place in places]


def _told(place: float, near: float) -> str:
    """Text of a number, of as many digits as it takes to come near it."""
    texts = [number(place, digits) for digits in range(3, 13)]
    return next((text for text in texts if abs(float(text) - place) <= near), texts[-1])


def _ends(coordinate: Coordinate) -> list[float]:
    """The ends of the range, as far as two digits tell them."""
    low, high = coordinate.limits
    if coordinate.whole:
        return [float(math.ceil(low)), float(math.floor(high))]
    step = 10.0 ** math.floor(math.log10((high - low) / 10))
    return [float(f"{e * step:.12g}") for e in (math.ceil(low / step), math.floor(high / step))]


def _decades(low: float, high: float, most: int, whole: bool) -> list[float]:
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    if last <= first:  # a decade at most: as if it were linear
        return _round(low, high, most, whole)
    step = max(1, -(-(last - first) // (most - 1)))
    return [10.0**i for i in range(first, last + 1, step)]


def _round(low: float, high: float, most: int, whole: bool) -> list[float]:
    """Multiples of the smallest of 1, 2, 2.5, 5 times a power of ten that are few enough."""
    scale = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (scale * factor for factor in (1, 2, 2.5, 5, 10, 20, 25, 50)):
        if whole and step != round(step):
            continue
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first + 1 <= most:
            return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    return []


def number(value: float, digits: int = 3) -> str:
    """Short text of a number, of so many significant digits.

    Examples
    --------
    >>> number(1e-05), number(250.0), number(2.5e+06), number(-0.0), number(0.00075)
    ('1e-5', '250', '2.5e6', '0', '7.5e-4')
    """
    whole = 1000 <= abs(value) < 1e5 and digits == 3
    text = f"{value + 0.0:.0f}" if whole else f"{value + 0.0:.{digits}g}"
    if 0 < abs(value) < 1e-3:
        mantissa, e, exponent = f"{value:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    else:
        mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else text


def wrapped(label: str, room: float, measure: Callable[[str], float] = len) -> str:
    r"""A name, with its units on a line of their own if need be; what is too long is cut.

    Examples
    --------
    >>> wrapped("learning_rate (1/s)", 10), wrapped("rate (1/s)", 10)
    ('learn…rate\n(1/s)', 'rate (1/s)')
    """
    name, bracket, units = label.partition(" (")
    lines = [label] if measure(label) <= room or not bracket else [name, f"({units}"]
    return "\n".join(_shortened(line, room, measure) for line in lines)


def _shortened(line: str, room: float, measure: Callable[[str], float]) -> str:
    cut = next((n for n in range(len(line), 1, -1) if measure(_cut(line, n)) <= room), 1)
    return _cut(line, cut)


def _cut(line: str, n: int) -> str:
    """To n characters, in the middle: names that are alike differ at their ends."""
    return line if n >= len(line) else f"{line[: n // 2]}…{line[len(line) - (n - 1) // 2 :]}"
