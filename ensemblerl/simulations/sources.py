"""What a piece of code is called, where it stands, and a short hash that tells its versions."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

PLAIN = (bool, int, float, str, type(None))


def version_of(f: Callable[..., Any]) -> str | None:
    """First 12 hex digits of the sha256 of the source; None where there is no source.

    What stands beside a lambda on its line does not count; plain values bound by
    `functools.partial` do.
    """
    inner, bound = unwrapped(f)
    try:
        source = _source(_code(inner))
    except (OSError, TypeError, SyntaxError):
        return None
    text = source + (repr(sorted(bound.items())) if bound else "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def described(f: Callable[..., Any]) -> dict[str, Any]:
    """Name, module and file of a callable; plain values bound to it, where there are any."""
    inner, bound = unwrapped(f)
    code = _code(inner)
    try:
        file = inspect.getsourcefile(code)
    except TypeError:
        file = None
    name = getattr(code, "__qualname__", type(code).__qualname__)
    about = {"name": name, "module": getattr(code, "__module__", None), "file": file}
    return {**about, "bound": bound} if bound else about


def unwrapped(f: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The callable within partials, and the plain values bound to it by place or name."""
    bound: dict[str, Any] = {}
    while isinstance(f, functools.partial):
        given = {**{str(i): v for i, v in enumerate(f.args)}, **f.keywords}
        bound = {**{k: v for k, v in given.items() if isinstance(v, PLAIN)}, **bound}
        f = f.func
    return f, bound


def _source(code: Any) -> str:
    source = _lambda(code) if getattr(code, "__name__", "") == "<lambda>" else ""
    return source or textwrap.dedent(inspect.getsource(code))


def _lambda(f: Any) -> str:
    """The source of a lambda alone, found by the place of its body."""
    lines, _ = inspect.findsource(f)
    places = {(line, column) for line, _, column, _ in f.__code__.co_positions()}
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.Lambda) and (node.body.lineno, node.body.col_offset) in places:
            return ast.unparse(node)
    return ""


def _code(f: Callable[..., Any]) -> Any:
    """What has source and a name: the function, or the class of a callable object."""
    has_source = inspect.isroutine(f) or inspect.isclass(f)
    return f if has_source else type(f)
