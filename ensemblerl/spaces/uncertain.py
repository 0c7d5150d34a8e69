"""Uncertain inputs: parameters whose distribution is their prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from ensemblerl.spaces.priors import Parameter, number, scalar, wrong
from ensemblerl.spaces.transforms import Frozen, Gauss, Linear, LogGauss, Transform, Triangle

FAR = 38.0
"""Standard deviations from the median to the outermost float64 coordinate."""


@dataclass(frozen=True, repr=False)
class Normal(Parameter):
    """Normal with this mean and standard deviation.

    Raises
    ------
    ValueError
        ``std`` not above 0, or values that are not finite.
    """

    mean: float
    std: float
    name_in_json: ClassVar[str] = "normal"

    def _check(self) -> None:
        mean, std = number(self, "mean", self.mean), number(self, "std", self.std)
        if not std > 0 or not math.isfinite(abs(mean) + FAR * std):
            wrong(self, "std", "a finite number above 0", self.std)
        self._set(mean=mean, std=std)

    @cached_property
    def transform(self) -> Transform:
        """Through the normal quantiles."""
        return Gauss(self.mean, self.std)

    @property
    def support(self) -> str:
        """Everything finite."""
        return "a finite number"


@dataclass(frozen=True, repr=False)
class LogNormal(Parameter):
    """exp of a normal: ``mu`` and ``sigma`` belong to the natural logarithm.

    Raises
    ------
    ValueError
        ``sigma`` not above 0, or so large that the tails leave the range of float64.

    Examples
    --------
    >>> rate = LogNormal.from_median(3.0, factor=2.0)  # two thirds lie in [1.5, 6]
    >>> round(rate.sigma, 6)
    0.693147
    """

    mu: float
    sigma: float
    name_in_json: ClassVar[str] = "lognormal"

    @classmethod
    def from_median(cls, median: float, factor: float, **common: Any) -> Self:
        """Median, and the factor by which one standard deviation multiplies it (above 1)."""
        if not number("LogNormal", "median", median) > 0:
            wrong("LogNormal", "median", "above 0", median)
        if not number("LogNormal", "factor", factor) > 1:
            wrong("LogNormal", "factor", "above 1", factor)
        return cls(math.log(median), math.log(factor), **common)

    def _check(self) -> None:
        mu, sigma = number(self, "mu", self.mu), number(self, "sigma", self.sigma)
        if not sigma > 0:
            wrong(self, "sigma", "a finite number above 0", self.sigma)
        if abs(mu) + FAR * sigma > 700:
            wrong(self, "sigma", f"at most {(700 - abs(mu)) / FAR:.3g} with this mu", self.sigma)
        self._set(mu=mu, sigma=sigma)

    @cached_property
    def transform(self) -> Transform:
        """Through the normal quantiles, as a factor of the median."""
        return LogGauss(math.exp(self.mu), self.sigma)

    @property
    def support(self) -> str:
        """Everything positive."""
        return "a finite number above 0"


@dataclass(frozen=True, repr=False)
class Uniform(Parameter):
    """Uniform on [low, high].

    Raises
    ------
    ValueError
        ``low`` not below ``high``, or values that are not finite.
    """

    low: float
    high: float
    name_in_json: ClassVar[str] = "uniform"

    def _check(self) -> None:
        low, high = number(self, "low", self.low), number(self, "high", self.high)
        if not low < high or not math.isfinite(high - low):
            wrong(self, "high", f"above low = {low}, at a finite distance", self.high)
        self._set(low=low, high=high)

    @cached_property
    def transform(self) -> Transform:
        """Linear."""
        return Linear(self.low, self.high)

    @property
    def support(self) -> str:
        """The closed interval."""
        return f"in [{self.low}, {self.high}]"


@dataclass(frozen=True, repr=False)
class Triangular(Parameter):
    """Triangular on [low, high] with its peak at ``mode``.

    Raises
    ------
    ValueError
        Not low <= mode <= high with low < high, or values that are not finite.
    """

    low: float
    mode: float
    high: float
    name_in_json: ClassVar[str] = "triangular"

    def _check(self) -> None:
        low, high = number(self, "low", self.low), number(self, "high", self.high)
        mode = number(self, "mode", self.mode)
        if not low < high or not math.isfinite(high - low):
            wrong(self, "high", f"above low = {low}, at a finite distance", self.high)
        if not low <= mode <= high:
            wrong(self, "mode", f"in [{low}, {high}]", self.mode)
        self._set(low=low, mode=mode, high=high)

    @cached_property
    def transform(self) -> Transform:
        """Two square roots."""
        return Triangle(self.low, self.mode, self.high)

    @property
    def support(self) -> str:
        """The closed interval."""
        return f"in [{self.low}, {self.high}]"


@dataclass(frozen=True, init=False, repr=False)
class Distribution(Parameter):
    """A frozen continuous distribution of scipy.stats, as in ``Distribution(gamma(2, scale=3))``.

    Kept as its name and numbers; scipy.stats is loaded when values are first asked for.

    Raises
    ------
    ValueError
        Anything else than a frozen continuous distribution with single numbers as arguments.
    """

    name: str
    args: tuple[float, ...] = ()
    kwds: tuple[tuple[str, float], ...] = ()
    name_in_json: ClassVar[str] = "distribution"

    def __init__(self, frozen: Any, **common: Any) -> None:
        name = getattr(getattr(frozen, "dist", None), "name", None)
        if not isinstance(name, str) or not hasattr(frozen, "isf") or not hasattr(frozen, "pdf"):
            wrong(self, "frozen", "a frozen continuous distribution of scipy.stats", frozen)
        self._take(name, frozen.args, frozen.kwds, common)
        if type(self._law().dist) is not type(frozen.dist):
            wrong(self, "frozen", "one that scipy.stats has under its name", frozen.dist.name)

    def _take(self, name: str, args: Any, kwds: Mapping[str, Any], common: Any) -> None:
        unknown = set(common) - {"units", "long_name", "when"}
        if unknown:
            raise TypeError(f"Distribution: unexpected argument {', '.join(sorted(unknown))}")
        plain = tuple(number(self, "frozen's arguments", scalar(a)) for a in args)
        named = sorted((k, number(self, f"frozen's {k}", scalar(v))) for k, v in kwds.items())
        shared = {"units": "", "long_name": "", "when": None, **common}
        self._set(name=name, args=plain, kwds=tuple(named), **shared)
        self.__post_init__()

    def _check(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            wrong(self, "name", "the name of a distribution in scipy.stats", self.name)

    def _law(self) -> Any:
        from scipy import stats

        family = getattr(stats, self.name, None)
        if not isinstance(family, stats.rv_continuous):
            wrong(self, "name", "the name of a continuous distribution in scipy.stats", self.name)
        law = family(*self.args, **dict(self.kwds))
        if not np.isfinite(law.ppf(0.5)):
            wrong(self, "frozen", "one with valid arguments", self.brief())
        return law

    @cached_property
    def transform(self) -> Transform:
        """Quantiles by scipy.stats."""
        return Frozen(self._law)

    @property
    def support(self) -> str:
        """As scipy.stats says."""
        low, high = self._law().support()
        return f"a finite number in [{low}, {high}]"

    def to_json(self) -> dict[str, Any]:
        """JSON: the name in scipy.stats and the numbers."""
        out = super().to_json()
        return {**out, "kwds": dict(self.kwds)} if self.kwds else out

    @classmethod
    def _from_json(cls, data: dict[str, Any]) -> Self:
        out = cls.__new__(cls)
        out._take(data.pop("name"), data.pop("args", ()), data.pop("kwds", {}), data)
        return out

    def _text(self, said: list[tuple[str, Any]]) -> str:
        numbers = [f"{a!r}" for a in self.args] + [f"{k}={v!r}" for k, v in self.kwds]
        common = [f", {k}={v!r}" for k, v in said if k not in ("name", "args", "kwds")]
        return f"Distribution({self.name}({', '.join(numbers)}){''.join(common)})"
