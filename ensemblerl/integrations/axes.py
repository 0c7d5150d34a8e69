"""Optuna's distributions as parameters of a space."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ensemblerl.parameters import Choice, Integer, Parameter, Real
from ensemblerl.records import Cube, FloatArray
from ensemblerl.space import Space


class Axes:
    """A search space of Optuna's as a cube, uniform where Optuna is uniform.

    Floats are uniform, with ``log`` in the logarithm; integers and floats with a step are cells
    of equal width, integers with ``log`` cells on the logarithm; categories cells.

    Parameters
    ----------
    distributions : name -> distribution of more than one value

    Raises
    ------
    ValueError
        for what no parameter can be: integers beyond 2**40, floats whose range is not finite
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.distributions = dict(distributions)
        axes = self.distributions.values()
        self._space = Space({f"p{j}": _parameter(axis) for j, axis in enumerate(axes)})

    @property
    def cube(self) -> Cube:
        """The cube."""
        return self._space.cube

    def values(self, unit: FloatArray) -> dict[str, Any]:
        """(ndim,) -> name -> value, as Optuna has it."""
        points = self._space.to_points(unit[None])
        axes = self.distributions.items()
        return {
            name: _value(axis, points[f"p{j}"][0].item()) for j, (name, axis) in enumerate(axes)
        }

    def unit(self, values: Mapping[str, Any]) -> FloatArray | None:
        """Name -> value -> (ndim,), None where one is missing or lies outside."""
        level: dict[str, list[Any]] = {}
        for j, (name, axis) in enumerate(self.distributions.items()):
            if name not in values or not _inside(axis, values[name]):
                return None
            level[f"p{j}"] = [_level(axis, values[name])]
        return np.asarray(self._space.to_unit(level)[0])


def _parameter(axis: BaseDistribution) -> Parameter:
    if isinstance(axis, CategoricalDistribution):
        return Choice(*range(len(axis.choices)))
    if isinstance(axis, FloatDistribution | IntDistribution) and _stepped(axis):
        return Integer(0, round((axis.high - axis.low) / (axis.step or 1)))
    if isinstance(axis, IntDistribution):
        return Integer(axis.low, axis.high, log=axis.log)
    if isinstance(axis, FloatDistribution):
        return Real(axis.low, axis.high, log=axis.log)
    raise ValueError(
        f"distribution: wanted a float, an integer or a categorical one, got {type(axis).__name__}"
    )


def _stepped(axis: FloatDistribution | IntDistribution) -> bool:
    """Whether its values are shown by their numbers: low, low + step, ..."""
    return axis.step not in (None, 1) if isinstance(axis, IntDistribution) else bool(axis.step)


def _inside(axis: BaseDistribution, value: Any) -> bool:
    try:
        return bool(axis._contains(axis.to_internal_repr(value)))
    except (TypeError, ValueError):  # a value of another kind, or no choice of these
        return False


def _level(axis: BaseDistribution, value: Any) -> float | int:
    if isinstance(axis, CategoricalDistribution):
        return int(axis.to_internal_repr(value))
    assert isinstance(axis, FloatDistribution | IntDistribution)
    if _stepped(axis):
        return int(np.rint((value - axis.low) / (axis.step or 1)))
    return int(value) if isinstance(axis, IntDistribution) else float(value)


def _value(axis: BaseDistribution, level: Any) -> Any:
    if isinstance(axis, CategoricalDistribution):
        return axis.choices[level]
    if isinstance(axis, IntDistribution):
        return axis.low + level * axis.step if _stepped(axis) else level
    assert isinstance(axis, FloatDistribution)
    if axis.step is not None:  # in decimals: 0.3, not 0.30000000000000004
        level = float(Decimal(repr(axis.low)) + level * Decimal(repr(axis.step)))
    return min(max(float(level), axis.low), axis.high)
