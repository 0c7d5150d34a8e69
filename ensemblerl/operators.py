"""What the formulas of `ensemblerl.expressions` can do: operators, comparisons, functions.

All work elementwise on numpy arrays and scalars; texts and numbers never mix.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np


def number(value: Any) -> Any:
    """Operand of arithmetic: float64, so that integers neither wrap round nor refuse ``** -1``."""
    value = np.asarray(value)
    if value.dtype.kind == "U":
        raise ValueError("wanted a number, got text")
    return value.astype(np.float64) if value.dtype.kind == "b" else value


def truth(value: Any) -> Any:
    """Operand of and, or, not."""
    value = np.asarray(value)
    if value.dtype.kind != "b":
        raise ValueError("and, or, not want comparisons or True/False, got a number or text")
    return value


def _same_kind(left: Any, right: Any) -> None:
    if (np.asarray(left).dtype.kind == "U") != (np.asarray(right).dtype.kind == "U"):
        raise ValueError(f"compares text with a number: {left!r} and {right!r}")


def _comparing(function: Callable[..., Any]) -> Callable[..., Any]:
    def compare(left: Any, right: Any) -> Any:
        _same_kind(left, right)
        return function(left, right)

    return compare


_equal = _comparing(np.equal)


def _unequal(left: Any, right: Any) -> Any:
    # NaN != x is True in IEEE 754; here no comparison with an undefined number holds.
    return (left != right) & (left == left) & (right == right)


def _among(value: Any, items: list[Any]) -> Any:
    return reduce(np.logical_or, [_equal(value, item) for item in items])


def _not_among(value: Any, items: list[Any]) -> Any:
    return np.logical_and(np.logical_not(_among(value, items)), value == value)


def _last_axis(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value: function(np.atleast_1d(value), axis=-1)


def _extreme(pairwise: np.ufunc) -> Callable[..., Any]:
    """Elementwise over several arguments, over the last axis of a single one."""
    over_axis = _last_axis(pairwise.reduce)
    return lambda *args: reduce(pairwise, args) if len(args) > 1 else over_axis(*args)


FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (np.abs, 1, 1),
    "min": (_extreme(np.minimum), 1, 99),
    "max": (_extreme(np.maximum), 1, 99),
    "sqrt": (np.sqrt, 1, 1),
    "exp": (np.exp, 1, 1),
    "log": (np.log, 1, 1),
    "log10": (np.log10, 1, 1),
    "sin": (np.sin, 1, 1),
    "cos": (np.cos, 1, 1),
    "tan": (np.tan, 1, 1),
    "floor": (np.floor, 1, 1),
    "ceil": (np.ceil, 1, 1),
    "isfinite": (np.isfinite, 1, 1),
    "hypot": (lambda *args: reduce(np.hypot, args), 2, 99),
    "sum": (_last_axis(np.sum), 1, 1),
    "mean": (_last_axis(np.mean), 1, 1),
}
"""Name -> function of float arrays, least and largest number of arguments."""

ARITHMETIC: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
}

COMPARISONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Lt: _comparing(np.less),
    ast.LtE: _comparing(np.less_equal),
    ast.Gt: _comparing(np.greater),
    ast.GtE: _comparing(np.greater_equal),
    ast.Eq: _equal,
    ast.NotEq: _comparing(_unequal),
    ast.In: _among,
    ast.NotIn: _not_among,
}

SYMBOLS: dict[type[ast.AST], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
"""The comparisons of two values as they are written."""

ALLOWED = (
    "numbers, texts, names, True, False, + - * / // % **, comparisons, and, or, not, "
    "'in' with a literal list, and the functions " + " ".join(FUNCTIONS)
)
