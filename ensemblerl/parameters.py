"""Parameters of a search space: numbers in a range, ordered levels, choices, uncertain inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from ensemblerl.records import AnyArray, FloatArray
from ensemblerl.spaces.priors import Parameter, Scalar, When, number, scalar, wrong
from ensemblerl.spaces.transforms import Grid, Linear, Log, Transform, floats, listed
from ensemblerl.spaces.uncertain import Distribution, LogNormal, Normal, Triangular, Uniform

__all__ = [
    "Choice",
    "Distribution",
    "Integer",
    "LogNormal",
    "Normal",
    "Ordinal",
    "Parameter",
    "Real",
    "Triangular",
    "Uniform",
    "from_json",
]

MAX_INTEGER = 2**40
"""Larger ones would not all come back exactly from a coordinate of the cube."""
NEAR = 1e-9
"""How near (in steps) a value must be to a level to be meant by it, besides rounding."""


@dataclass(frozen=True, repr=False)
class Real(Parameter):
    """A number in [low, high], uniform, or uniform in the logarithm.

    Parameters
    ----------
    low, high : both ends included
    log : uniform in the logarithm; wants low > 0
    step : only low, low + step, ..., high, all equally likely; more than 65536 levels are shown
        to samplers as a real coordinate

    Raises
    ------
    ValueError
        Ends that are not finite or not in order, ``log`` with low <= 0 or with a step, a step
        that does not lead from low to high.

    Examples
    --------
    >>> Real(0.0, 0.5, step=0.1).to_value([0.1, 0.5, 0.7])
    array([0. , 0.3, 0.4])
    """

    low: float
    high: float
    _: KW_ONLY
    log: bool = False
    step: float | None = None
    name_in_json: ClassVar[str] = "real"

    def _check(self) -> None:
        low, high = number(self, "low", self.low), number(self, "high", self.high)
        if not low < high or not math.isfinite(high - low):
            wrong(self, "high", f"above low = {low}, at a finite distance", self.high)
        if self.log and not low > 0:
            wrong(self, "low", "above 0 with log=True", self.low)
        self._set(low=low, high=high, log=bool(self.log))
        if self.step is not None:
            self._set(step=self._checked_step(number(self, "step", self.step)))

    def _checked_step(self, step: float) -> float:
        if self.log:
            wrong(self, "step", "None with log=True", step)
        steps = (self.high - self.low) / step if step > 0 else 0.0
        if not 1 <= round(steps) <= MAX_INTEGER or abs(steps - round(steps)) > 1e-6:
            wrong(self, "step", f"such that it leads from {self.low} to {self.high}", step)
        return step

    @cached_property
    def transform(self) -> Transform:
        """Linear, logarithmic, or a grid."""
        if self.step is None:
            return Log(self.low, self.high) if self.log else Linear(self.low, self.high)
        axis = Linear(-0.5, self._last + 0.5)
        return Grid(axis, 0, self._last, self._level, self._number, np.dtype("f8")).tabled()

    @property
    def _last(self) -> int:
        return round((self.high - self.low) / (self.step or math.inf))

    @cached_property
    def _decimals(self) -> tuple[int, int, int] | None:
        """low, step as whole multiples of a power of ten, and that, where float64 holds them."""
        low, step = Decimal(repr(self.low)), Decimal(repr(self.step))
        places = max(0, *(-int(x.as_tuple().exponent) for x in (low, step)))
        most = max(abs(self.low), abs(self.high)) * 10.0**places
        scale = 10 ** min(places, 22)
        return (int(low * scale), int(step * scale), scale) if most < 2**53 > scale else None

    def _level(self, i: AnyArray) -> AnyArray:
        """(n,) level numbers -> (n,) values, where possible the float64 nearest to the decimal."""
        low, step, scale = self._decimals or (self.low, self.step or 0.0, 1)
        return np.where(i == self._last, self.high, (low + i * step) / scale)

    def _number(self, values: AnyArray) -> FloatArray:
        """(n,) values -> (n,) level numbers, NaN for what is no level."""
        v = floats(values)
        i = np.rint((v - self.low) / (self.step or 1.0))
        with np.errstate(invalid="ignore"):
            near = np.abs(v - self._level(i)) <= NEAR * (self.step or 1.0) + 1e-15 * np.abs(v)
        return np.where(near & (i >= 0) & (i <= self._last), i, np.nan)

    @property
    def support(self) -> str:
        """The closed interval, with its step."""
        return f"in [{self.low}, {self.high}]" + (f" in steps of {self.step}" if self.step else "")


@dataclass(frozen=True, repr=False)
class Integer(Parameter):
    """A whole number from low to high, both included.

    Parameters
    ----------
    low, high : within 2**40 of zero; a range of more than 65536 numbers is shown to samplers as
        a real coordinate
    log : uniform in the logarithm on [low, high], then rounded: the cell of i spans log(i - 1/2)
        to log(i + 1/2); wants low >= 1

    Raises
    ------
    ValueError
        Ends that are not whole, not in order or too large, ``log`` with low < 1.

    Examples
    --------
    >>> Integer(1, 4).to_unit([1, 4])
    array([0.125, 0.875])
    """

    low: int
    high: int
    _: KW_ONLY
    log: bool = False
    name_in_json: ClassVar[str] = "integer"

    def _check(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if number(self, name, value) != int(value) or abs(value) > MAX_INTEGER:
                wrong(self, name, "a whole number within 2**40 of zero", value)
        if not self.low < self.high:
            wrong(self, "high", f"above low = {self.low}", self.high)
        if self.log and self.low < 1:
            wrong(self, "low", "at least 1 with log=True", self.low)
        self._set(low=int(self.low), high=int(self.high), log=bool(self.log))

    @cached_property
    def transform(self) -> Transform:
        """A grid on a linear or logarithmic axis."""
        ends = self.low - 0.5, self.high + 0.5
        axis = Log(*ends) if self.log else Linear(*ends)
        return Grid(axis, self.low, self.high, self._level, self._number, np.dtype("i8")).tabled()

    @staticmethod
    def _level(i: AnyArray) -> AnyArray:
        return i.astype(np.int64)

    def _number(self, values: AnyArray) -> FloatArray:
        v = floats(values)
        return np.where((v == np.rint(v)) & (v >= self.low) & (v <= self.high), v, np.nan)

    @property
    def support(self) -> str:
        """The whole numbers."""
        return f"a whole number in [{self.low}, {self.high}]"


@dataclass(frozen=True, init=False, repr=False)
class _Listed(Parameter):
    """Values that are listed one by one."""

    options: tuple[Scalar, ...]
    types: ClassVar[tuple[type, ...]] = (str, int, float)

    def __init__(
        self, *options: Scalar, units: str = "", long_name: str = "", when: When | None = None
    ) -> None:
        self._set(options=options, units=units, long_name=long_name, when=when)
        self.__post_init__()

    def _check(self) -> None:
        options = tuple(scalar(option) for option in self.options)
        kinds = {type(option) for option in options}
        if kinds == {int, float}:
            options, kinds = tuple(float(option) for option in options), {float}
        if len(kinds) != 1 or not kinds <= set(self.types):
            names = ", ".join(kind.__name__ for kind in self.types)
            wrong(self, "options", f"one or more, all of one type ({names})", self.options)
        if len(set(options)) != len(options):
            wrong(self, "options", "different from each other", self.options)
        if np.array(options).tolist() != list(options) or not all(map(self._sound, options)):
            wrong(self, "options", "finite numbers or non-empty texts", self.options)
        self._set(options=options)

    @staticmethod
    def _sound(option: Scalar) -> bool:
        return (
            bool(option)
            if isinstance(option, str)
            else abs(option) <= 2**53 or (isinstance(option, float) and math.isfinite(option))
        )

    @cached_property
    def transform(self) -> Transform:
        """Cells of equal width."""
        return listed(np.array(self.options))

    @property
    def support(self) -> str:
        """All of them, or the first ones."""
        shown = ", ".join(repr(option) for option in self.options[:20])
        return f"one of {shown}" + (", ..." if len(self.options) > 20 else "")

    def _text(self, said: list[tuple[str, Any]]) -> str:
        rest = [f"{name}={value!r}" for name, value in said if name != "options"]
        return f"{type(self).__name__}({', '.join([*map(repr, self.options), *rest])})"

    @classmethod
    def _from_json(cls, data: dict[str, Any]) -> Self:
        return cls(*data.pop("options"), **data)


@dataclass(frozen=True, init=False, repr=False)
class Ordinal(_Listed):
    """Levels in their order: texts as listed, or numbers that rise or fall throughout.

    Raises
    ------
    ValueError
        No levels, levels of several types or twice the same, numbers out of order.
    """

    name_in_json: ClassVar[str] = "ordinal"

    def _check(self) -> None:
        super()._check()
        ordered = sorted(self.options, key=lambda option: option)
        texts = isinstance(self.options[0], str)
        if not texts and list(self.options) not in (ordered, ordered[::-1]):
            wrong(self, "options", "numbers that rise or fall throughout", self.options)


@dataclass(frozen=True, init=False, repr=False)
class Choice(_Listed):
    """One of several options without an order: texts, whole numbers, numbers, or truth values.

    Raises
    ------
    ValueError
        No options, options of several types (int and float become float) or twice the same.
    """

    name_in_json: ClassVar[str] = "choice"
    types: ClassVar[tuple[type, ...]] = (str, int, float, bool)
    discrete_kind: ClassVar[str] = "categorical"


_KINDS: tuple[type[Parameter], ...] = (
    *(Real, Integer, Ordinal, Choice),
    *(Normal, LogNormal, Uniform, Triangular, Distribution),
)


def from_json(data: Mapping[str, Any]) -> Parameter:
    """The parameter that `Parameter.to_json` described; ValueError where it is no such thing.

    Examples
    --------
    >>> from_json({"kind": "real", "low": 1.0, "high": 1.5, "units": "km"})
    Real(1.0, 1.5, units='km')
    """
    kinds = {kind.name_in_json: kind for kind in _KINDS}
    rest = dict(data) if isinstance(data, Mapping) else {}
    kind = rest.pop("kind", None)
    if kind not in kinds:
        wrong("parameter", "kind", "one of " + ", ".join(kinds), data if kind is None else kind)
    try:
        return kinds[kind]._from_json(rest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"parameter of kind {kind!r}: {error} in {dict(data)!r}") from None
