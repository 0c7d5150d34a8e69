"""What a callable is called, where it stands, and hashes that tell its versions apart."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import math
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any

Code = Callable[..., Any]
PLAIN = (bool, int, float, str, type(None))
HEX = 16
"""Digits of every hash."""
BLOCKS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def name_of(f: Code) -> str:
    """Qualified name of the function, or of a callable object's class, within any partials."""
    named = _named(_unwrapped(f)[0])
    return str(getattr(named, "__qualname__", type(named).__qualname__))


def described(f: Code) -> dict[str, Any]:
    """Name, module, hash of the source, and the plain values it holds, if any: JSON.

    Equal for equal callables; another one when the code changes. Comments, layout, and what
    stands beside a lambda on its line are of no account.
    """
    named = _named(_unwrapped(f)[0])
    about = {
        "name": name_of(f),
        "module": str(getattr(named, "__module__", None) or ""),
        "source": _digest(_text(named)),
    }
    bound = held(f)
    return {**about, "bound": bound} if bound else about


def fingerprint(f: Code) -> str:
    """16 hex digits of the source and of the plain values it holds."""
    return _digest(_text(_named(_unwrapped(f)[0])), held(f))


def version_of(f: Code) -> str | None:
    """16 hex digits of the source and of plain values bound by partials; None without source."""
    inner, bound = _unwrapped(f)
    source = _source(_named(inner))
    return None if source is None else _digest(source, _plain(bound))


def file_of(f: Code) -> str | None:
    """The file in which it stands."""
    try:
        return inspect.getsourcefile(_named(_unwrapped(f)[0]))
    except TypeError:
        return None


def held(f: Code) -> dict[str, Any]:
    """Plain values bound by partials, closed over, or kept by the object."""
    inner, bound = _unwrapped(f)
    keeper = inner.__self__ if inspect.ismethod(inner) else inner
    kept = {} if inspect.isclass(keeper) else dict(getattr(keeper, "__dict__", {}))
    return _plain({**kept, **_closed_over(inner), **bound})


def _unwrapped(f: Code) -> tuple[Code, dict[str, Any]]:
    """The callable within partials and decorators, and what is bound by place or name."""
    bound: dict[str, Any] = {}
    while isinstance(f, functools.partial):
        bound = {**{str(i): v for i, v in enumerate(f.args)}, **f.keywords, **bound}
        f = f.func
    inner = inspect.unwrap(f, stop=lambda g: isinstance(g, functools.partial))
    if not isinstance(inner, functools.partial):
        return inner, bound
    inner, more = _unwrapped(inner)
    return inner, {**more, **bound}


def _named(f: Code) -> Any:
    """What has source and a name: the function, or the class of a callable object."""
    return f if inspect.isroutine(f) or inspect.isclass(f) else type(f)


def _closed_over(f: Code) -> dict[str, Any]:
    function = f.__func__ if inspect.ismethod(f) else f
    if not isinstance(function, FunctionType):
        return {}
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return found


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that JSON can hold; NaN and infinities as text."""
    kept = {name: v for name, v in sorted(values.items()) if isinstance(v, PLAIN)}
    odd = {n: repr(v) for n, v in kept.items() if isinstance(v, float) and not math.isfinite(v)}
    return {**kept, **odd}


def _digest(text: str, bound: Mapping[str, Any] | None = None) -> str:
    text += repr(sorted(bound.items())) if bound else ""
    return hashlib.sha256(text.encode()).hexdigest()[:HEX]


def _text(named: Any) -> str:
    """Its source; else what was compiled, which another Python may compile otherwise."""
    source = _source(named)
    if source is not None:
        return source
    code = getattr(named, "__code__", None)
    if code is None:
        methods = [_text(f) for f in _methods(named)]
        return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')} {methods}"
    return repr((code.co_code, code.co_names, [c for c in code.co_consts if isinstance(c, PLAIN)]))


def _source(named: Any) -> str | None:
    """The source of the function or class alone, as Python would write it; None without."""
    try:
        lines, above = inspect.findsource(named)
        tree = ast.parse("".join(lines))
    except (OSError, TypeError, SyntaxError):
        # A class typed into a notebook: Python knows the place of its methods only.
        sources = [_source(f) for f in _methods(named)]
        return repr(sources) if sources and None not in sources else None
    code = getattr(named, "__code__", None)
    if isinstance(code, CodeType) and code.co_name == "<lambda>":
        found = _lambdas(tree, code)
    else:
        found = [node for node in ast.walk(tree) if _begins(node, above + 1)]
    return ast.unparse(found[0]) if found else None


def _methods(named: Any) -> list[FunctionType]:
    """Functions of a class; none of anything else."""
    members = vars(named).values() if inspect.isclass(named) else ()
    return [f for f in members if isinstance(f, FunctionType)]


def _begins(node: ast.AST, line: int) -> bool:
    """Whether a function or class, decorators included, begins on this line."""
    if not isinstance(node, BLOCKS):
        return False
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return first <= line <= node.lineno


def _lambdas(tree: ast.AST, code: CodeType) -> list[ast.AST]:
    """The lambda that was compiled to this, told from others on its line by its body's place."""
    places = {(line, column) for line, _, column, _ in code.co_positions()}
    there = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno
    ]
    own = [node for node in there if (node.body.lineno, node.body.col_offset) in places]
    return own or (there if len(there) == 1 else [])  # type: ignore[return-value]
