"""One small language for constraints, goals and stop rules: ``"max_stress <= 250"``.

A text is parsed by Python's own parser, checked node by node against a whitelist and turned into
closures over numpy: nothing else of Python can be reached. Expressions travel as their text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ensemblerl.operators import (
    ALLOWED,
    ARITHMETIC,
    COMPARISONS,
    FUNCTIONS,
    SYMBOLS,
    number,
    truth,
)
from ensemblerl.records import AnyArray

Evaluate = Callable[[Mapping[str, AnyArray]], Any]

MAX_LENGTH = 4000
MAX_DEPTH = 100
"""A sum of so many terms is that deep; each level costs Python stack when evaluated."""


class _Builder:
    """Checks the nodes of one text and turns them into closures."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self.reduces = False

    def refuse(self, node: ast.AST, what: str) -> NoReturn:
        place = ast.get_source_segment(self.text, node) or self.text
        column = getattr(node, "col_offset", 0) + 1
        raise ValueError(
            f"expression {self.text!r}: {what} at column {column}: {place!r}; allowed are {ALLOWED}"
        )

    def build(self, node: ast.AST, depth: int = 0) -> Evaluate:
        if depth > MAX_DEPTH:
            self.refuse(node, f"nested deeper than {MAX_DEPTH} levels")
        method = NODES.get(type(node))
        if method is None:
            self.refuse(node, f"{type(node).__name__} is not allowed")
        return method(self, node, depth + 1)

    def constant(self, node: ast.Constant, depth: int) -> Evaluate:
        if not isinstance(node.value, bool | int | float | str):
            self.refuse(node, f"{type(node.value).__name__} is not allowed")
        whole = isinstance(node.value, int) and not isinstance(node.value, bool)
        try:
            value = np.asarray(float(node.value) if whole else node.value)
        except OverflowError:
            self.refuse(node, "a number beyond 1.8e308")
        return lambda values: value

    def name(self, node: ast.Name, depth: int) -> Evaluate:
        name = node.id
        self.names.add(name)
        return lambda values: values[name]

    def unary(self, node: ast.UnaryOp, depth: int) -> Evaluate:
        operand = self.build(node.operand, depth)
        if isinstance(node.op, ast.Not):
            return lambda values: np.logical_not(truth(operand(values)))
        operator = ARITHMETIC.get(type(node.op)) or self.refuse(node, "this sign is not allowed")
        return lambda values: operator(number(operand(values)))

    def binary(self, node: ast.BinOp, depth: int) -> Evaluate:
        operator = ARITHMETIC.get(type(node.op))
        if operator is None:
            self.refuse(node, f"the operator {type(node.op).__name__} is not allowed")
        left, right = self.build(node.left, depth), self.build(node.right, depth)
        return lambda values: operator(number(left(values)), number(right(values)))

    def both(self, node: ast.BoolOp, depth: int) -> Evaluate:
        both = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        parts = [self.build(part, depth) for part in node.values]
        return lambda values: reduce(both, [truth(part(values)) for part in parts])

    def compare(self, node: ast.Compare, depth: int) -> Evaluate:
        compares = [self.comparison(node, operator) for operator in node.ops]
        parts = [self.build(node.left, depth)]
        for operator, right in zip(node.ops, node.comparators, strict=True):
            listed = isinstance(operator, ast.In | ast.NotIn)
            parts.append(self.listed(right) if listed else self.build(right, depth))

        def chain(values: Mapping[str, AnyArray]) -> Any:
            got = [part(values) for part in parts]
            links = [
                compare(left, right)
                for compare, left, right in zip(compares, got, got[1:], strict=False)
            ]
            return reduce(np.logical_and, links)

        return chain

    def comparison(self, node: ast.Compare, operator: ast.cmpop) -> Callable[..., Any]:
        compare = COMPARISONS.get(type(operator))
        if compare is None:
            self.refuse(node, f"the comparison {type(operator).__name__} is not allowed")
        return compare

    def listed(self, node: ast.expr) -> Evaluate:
        """The literal list after ``in``, as a Python list."""
        parts = node.elts if isinstance(node, ast.Tuple | ast.List) else []
        try:
            items = [ast.literal_eval(part) for part in parts]
        except ValueError:
            self.refuse(node, "'in' wants literal numbers or texts")
        if not items or not all(isinstance(item, bool | int | float | str) for item in items):
            self.refuse(node, "'in' wants a literal list or tuple of numbers or texts")
        return lambda values: items

    def call(self, node: ast.Call, depth: int) -> Evaluate:
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
            self.refuse(node, "a call of something that is not one of the functions")
        name, count = node.func.id, len(node.args)
        function, least, most = FUNCTIONS[name]
        if node.keywords or not least <= count <= most:
            self.refuse(node, f"{name} wants {least} to {most} plain arguments, got {count}")
        self.reduces |= name in ("sum", "mean") or (name in ("min", "max") and count == 1)
        args = [self.build(arg, depth) for arg in node.args]
        return lambda values: function(*[number(arg(values)) for arg in args])


NODES: dict[type[ast.AST], Callable[..., Evaluate]] = {
    ast.Constant: _Builder.constant,
    ast.Name: _Builder.name,
    ast.UnaryOp: _Builder.unary,
    ast.BinOp: _Builder.binary,
    ast.BoolOp: _Builder.both,
    ast.Compare: _Builder.compare,
    ast.Call: _Builder.call,
}


def _parsed(text: str) -> ast.expr:
    if not isinstance(text, str) or not text:
        raise ValueError(f"expression: text must be a non-empty text, got {text!r}")
    if len(text) > MAX_LENGTH:
        raise ValueError(
            f"expression: text must have at most {MAX_LENGTH} characters, got {len(text)}"
        )
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        place = f" at column {error.offset}" if error.offset else ""
        message = f"expression {text!r}: {error.msg}{place}; allowed are {ALLOWED}"
        raise ValueError(message) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"expression {text!r}: cannot be parsed ({error})") from None


def _column(name: str, value: Any) -> AnyArray:
    array = np.asarray(value)
    if array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat):
        array = array.astype(np.str_)
    if array.dtype.kind not in "biufcU":
        raise ValueError(f"{name!r} must hold numbers or texts, got dtype {array.dtype}")
    return array.astype(np.float64) if array.dtype.kind in "iuf" else array


@dataclass(frozen=True)
class Expression:
    """A formula over named arrays or numbers, evaluated elementwise.

    Parameters
    ----------
    text : numbers, texts, names, True, False, arithmetic, comparisons (chains too), ``and``,
        ``or``, ``not``, ``in`` with a literal list, and the functions in
        `ensemblerl.operators.FUNCTIONS`. ``sum`` and
        ``mean`` (and ``min``, ``max`` of a single argument) go over the last axis. Arithmetic is
        in float64; no comparison with NaN holds, ``!=`` included.

    Attributes
    ----------
    names : the names it needs
    reduces : True when it goes over an array's last axis somewhere

    Raises
    ------
    ValueError
        Anything else in the text; at a call, a name that is not there.

    Examples
    --------
    >>> Expression("0 < a + b <= 1")({"a": 0.5, "b": np.array([0.25, 0.75])})
    array([ True, False])
    """

    text: str
    names: frozenset[str] = field(init=False, compare=False, repr=False)
    reduces: bool = field(init=False, compare=False, repr=False)
    _run: Evaluate = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        text = self.text.strip() if isinstance(self.text, str) else self.text
        builder = _Builder(text)
        run = builder.build(_parsed(text))
        vars(self).update(
            text=text, names=frozenset(builder.names), reduces=builder.reduces, _run=run
        )

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Array or numpy scalar, of the shape to which the named values broadcast."""
        missing = sorted(name for name in self.names if name not in values)
        if missing:
            there = ", ".join(sorted(values)) or "none"
            raise ValueError(
                f"expression {self.text!r}: unknown name {', '.join(missing)}; there are: {there}"
            )
        try:
            with np.errstate(all="ignore"):
                out = self._run({name: _column(name, values[name]) for name in self.names})
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"expression {self.text!r}: {error}") from error
        return np.asarray(out)[()]

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[Expression], tuple[str]]:
        return Expression, (self.text,)


class Comparison(NamedTuple):
    """Two expressions, and ``<``, ``<=``, ``>``, ``>=``, ``==`` or ``!=`` between them."""

    left: Expression
    symbol: str
    right: Expression


_LOGIC = (ast.Compare, ast.BoolOp, ast.Not)
"""What a text has one of that is one comparison."""


def comparison(text: str) -> Comparison:
    """The two sides of a text that is exactly one comparison of numbers.

    Raises
    ------
    ValueError
        for anything else, also for a text that is no expression

    Examples
    --------
    >>> comparison("2 * drag + lift >= 3").symbol
    '>='
    """
    whole = Expression(text).text
    body = _parsed(whole)
    logic = sum(isinstance(node, _LOGIC) for node in ast.walk(body))
    if not isinstance(body, ast.Compare) or len(body.ops) > 1 or logic > 1:
        came = "several put together" if logic else "none"
        raise ValueError(f"expression {whole!r}: wanted one comparison, got {came}")
    symbol, sides = SYMBOLS.get(type(body.ops[0])), (body.left, *body.comparators)
    if symbol is None or any(map(_is_text, sides)):
        raise ValueError(
            f"expression {whole!r}: wanted a comparison of numbers, got a list or text"
        )
    # not the text's own segments: a side may lean on its brackets to go over several lines
    left, right = (Expression(ast.unparse(side)) for side in sides)
    return Comparison(left, symbol, right)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
