"""A parameter is a prior over one input of the simulation: what all kinds share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, NoReturn, Self

import numpy as np

from ensemblerl.records import AnyArray, FloatArray
from ensemblerl.spaces.transforms import Transform

Scalar = str | int | float | bool
When = Mapping[str, tuple[Scalar, ...]]


def wrong(owner: object, argument: str, wanted: str, came: object) -> NoReturn:
    """Raise the ValueError of all arguments: who, which, what was wanted, what came."""
    name = owner if isinstance(owner, str) else type(owner).__name__
    raise ValueError(f"{name}: {argument} must be {wanted}, got {came!r}")


def number(owner: object, argument: str, value: Any) -> float:
    """A finite float, or ValueError."""
    real = isinstance(value, int | float | np.integer | np.floating)
    if not real or isinstance(value, bool) or not math.isfinite(value):
        wrong(owner, argument, "a finite number", value)
    return float(value)


def scalar(value: Any) -> Any:
    """A numpy scalar as Python's own, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _condition(owner: object, when: Any) -> When | None:
    if when is None:
        return None
    if not isinstance(when, Mapping) or not when:
        wrong(owner, "when", 'a mapping like {"optimizer": "sgd"}', when)
    several = {
        str(name): tuple(values) if isinstance(values, tuple | list | set) else (values,)
        for name, values in sorted(when.items())
    }
    out = {name: tuple(scalar(value) for value in values) for name, values in several.items()}
    if not all(values and all(isinstance(v, Scalar) for v in values) for values in out.values()):
        wrong(owner, "when", "names with a value or several", when)
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True, repr=False)
class Parameter(ABC):
    """One input of the simulation and its prior, as a map from the unit interval.

    Parameters
    ----------
    units, long_name : for people and for the dataset (CF)
    when : ``{"optimizer": "sgd"}`` or ``{"optimizer": ("sgd", "adam")}``: the parameter counts
        only where the parents named (discrete, declared before) have one of these values

    Attributes
    ----------
    transform : the map, with its ``dtype``
    support : what values it takes, in words
    """

    units: str = ""
    long_name: str = ""
    when: When | None = field(default=None, hash=False)

    name_in_json: ClassVar[str]
    discrete_kind: ClassVar[str] = "ordinal"

    def __post_init__(self) -> None:
        for name in ("units", "long_name"):
            if not isinstance(getattr(self, name), str):
                wrong(self, name, "a text", getattr(self, name))
        self._set(when=_condition(self, self.when))
        self._check()

    def _set(self, **values: Any) -> None:
        vars(self).update(values)

    @abstractmethod
    def _check(self) -> None:
        """Check and normalise the arguments, or ValueError."""

    @cached_property
    @abstractmethod
    def transform(self) -> Transform:
        """The map between the unit interval and the values."""

    @property
    @abstractmethod
    def support(self) -> str:
        """What values it takes, in words."""

    @property
    def edges(self) -> FloatArray | None:
        """(levels + 1,) cell edges of a discrete parameter, None otherwise."""
        return self.transform.edges

    @property
    def levels(self) -> int:
        """Number of cells, 0 without."""
        return 0 if self.edges is None else len(self.edges) - 1

    @property
    def kind(self) -> str:
        """One of "real", "ordinal", "categorical": as samplers see it."""
        return "real" if self.edges is None else self.discrete_kind

    def to_value(self, u: Any) -> AnyArray:
        """(n,) coordinates in the open unit interval -> (n,) values; else ValueError."""
        u = np.asarray(u, dtype=np.float64)
        outside = u[~((u > 0) & (u < 1))]
        if outside.size:
            wrong(self, "u", "in the open interval (0, 1)", float(outside[0]))
        return np.asarray(self.transform.value(u))

    def to_unit(self, values: Any) -> FloatArray:
        """(n,) values -> (n,) coordinates in the open unit interval.

        A cell's centre for discrete kinds. ValueError for values outside the support.
        """
        values = np.asarray(values)
        u = self.transform.unit(values)
        if np.isnan(u).any():
            wrong(self, "values", self.support, scalar(values[np.isnan(u)][0]))
        return u

    def to_json(self) -> dict[str, Any]:
        """JSON: ``kind`` and what is not default; see `ensemblerl.parameters.from_json`."""
        return {"kind": self.name_in_json, **{k: _plain(v) for k, v in self._said()}}

    @property
    def condition(self) -> str:
        """``when`` in words, empty without."""
        parents = (self.when or {}).items()
        return ", ".join(f"{name} = {' or '.join(map(str, values))}" for name, values in parents)

    def brief(self) -> str:
        """Text without units, long name and condition."""
        common = {shared.name for shared in fields(Parameter)}
        return self._text([(name, value) for name, value in self._said() if name not in common])

    def _said(self) -> list[tuple[str, Any]]:
        """Arguments that are not their default."""
        common = {shared.name for shared in fields(Parameter)}
        told = sorted((f for f in fields(self) if f.init), key=lambda f: f.name in common)
        return [
            (f.name, getattr(self, f.name))
            for f in told
            if f.default is MISSING or getattr(self, f.name) != f.default
        ]

    def _text(self, said: list[tuple[str, Any]]) -> str:
        named = {f.name for f in fields(self) if f.kw_only}
        parts = [f"{name}={value!r}" if name in named else f"{value!r}" for name, value in said]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __repr__(self) -> str:
        return self._text(self._said())

    def __getstate__(self) -> dict[str, Any]:
        # Without the cached transform: some hold functions, all are rebuilt in no time.
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def _from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**data)
