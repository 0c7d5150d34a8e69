"""Known constraints on the points of a space: formulas, and predicates of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ensemblerl.expressions import Expression
from ensemblerl.records import AnyArray, BoolArray
from ensemblerl.sources import fingerprint, name_of
from ensemblerl.spaces.columns import absent

Points = Mapping[str, AnyArray]
Row = Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Formula:
    """An expression that must hold; satisfied where one of its parameters is inactive."""

    expression: Expression

    known = True

    def __call__(self, points: Points, n: int, row: Row) -> BoolArray:
        """(n,) whether it holds."""
        holds = np.asarray(self.expression(points))
        if holds.dtype.kind != "b":
            raise ValueError(f"constraints: {self} must be true or false, got numbers")
        for name in self.expression.names:
            holds = holds | absent(points[name])
        return np.broadcast_to(holds, (n,))

    def to_json(self) -> str:
        """Its text."""
        return self.expression.text

    def __str__(self) -> str:
        return repr(self.expression.text)


@dataclass(frozen=True)
class Predicate:
    """A function called as ``function(**point)`` with a point's active parameters.

    Kept in JSON as its name and a hash of its source and of the plain values it holds, see
    `ensemblerl.sources`; what is read back equals the original but cannot be asked.
    """

    name: str
    source: str
    function: Callable[..., Any] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Predicate:
        """Of this function, with its source as it is now."""
        return cls(name_of(function), fingerprint(function), function)

    @property
    def known(self) -> bool:
        """False after reading back from JSON: the function is not there."""
        return self.function is not None

    def __call__(self, points: Points, n: int, row: Row) -> BoolArray:
        """(n,) whether it holds."""
        if self.function is None:
            raise ValueError(
                f"constraints: predicate {self.name!r} was read from a file, which keeps its name "
                "and source hash only; build the Space with the function itself"
            )
        return np.array([bool(self.function(**row(i))) for i in range(n)], dtype=np.bool_)

    def to_json(self) -> dict[str, str]:
        """Name and hash."""
        return {"predicate": self.name, "source": self.source}

    def __str__(self) -> str:
        return f"{self.name}(**point)"


Constraint = Formula | Predicate


def _read(item: Any, names: Iterable[str]) -> Constraint:
    if isinstance(item, Mapping) and set(item) == {"predicate", "source"}:
        return Predicate(str(item["predicate"]), str(item["source"]))
    if isinstance(item, Formula | Predicate):
        return item
    if callable(item) and not isinstance(item, Expression):
        return Predicate.of(item)
    if not isinstance(item, str | Expression):
        raise ValueError(f"constraints: wanted texts like 'a + b <= 1' or functions, got {item!r}")
    return _formula(item if isinstance(item, Expression) else Expression(item), names)


def _formula(expression: Expression, names: Iterable[str]) -> Formula:
    unknown = sorted(expression.names - set(names))
    if unknown:
        raise ValueError(
            f"constraints: {expression.text!r} names {', '.join(unknown)}; "
            f"parameters are: {', '.join(names)}"
        )
    if expression.reduces or not expression.names:
        raise ValueError(
            f"constraints: {expression.text!r} must compare parameters of one point, without "
            "sum, mean, or min and max of a single argument"
        )
    return Formula(expression)


def read_constraints(constraints: Any, names: Iterable[str]) -> tuple[Constraint, ...]:
    """Constraints from what a user, or a file, gives; ValueError for anything else."""
    single = isinstance(constraints, str | Mapping) or callable(constraints)
    items = (constraints,) if single else constraints
    if not isinstance(items, Iterable):
        raise ValueError(f"constraints: wanted a list of texts or functions, got {constraints!r}")
    return tuple(_read(item, list(names)) for item in items)
