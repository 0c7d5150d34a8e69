"""What a callable is, in JSON: the same for equal ones, another when its code changes."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import linecache
import textwrap
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any

PLAIN = (bool, int, float, str, type(None))


def described(f: Callable[..., Any]) -> dict[str, Any]:
    """Module, qualified name and source hash of a callable, and the plain values bound to it."""
    if isinstance(f, functools.partial):
        given = {**{str(i): value for i, value in enumerate(f.args)}, **f.keywords}
        return {**described(f.func), "bound": _plain(given)}
    named = f if inspect.isroutine(f) or inspect.isclass(f) else type(f)
    about = {
        "module": str(getattr(named, "__module__", "")),
        "qualname": str(getattr(named, "__qualname__", type(f).__qualname__)),
        "source": hashlib.sha256(_source(named).encode()).hexdigest()[:16],
    }
    bound = _bound(f) if named is f else _plain(dict(getattr(f, "__dict__", {})))
    return {**about, "bound": bound} if bound else about


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that JSON can hold, infinities as text."""
    kept = {name: value for name, value in values.items() if isinstance(value, PLAIN)}
    return {name: repr(v) if isinstance(v, float) else v for name, v in sorted(kept.items())}


def _bound(f: Callable[..., Any]) -> dict[str, Any]:
    """Plain values that a function closes over."""
    names = f.__code__.co_freevars if isinstance(f, FunctionType) else ()
    cells = (f.__closure__ or ()) if isinstance(f, FunctionType) else ()
    found: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return _plain(found)


def _source(named: Any) -> str:
    """Text that changes when the code does; that of a lambda is its body, not its whole line."""
    if isinstance(named, FunctionType) and named.__name__ == "<lambda>":
        return _lambda(named.__code__)
    try:
        return _tree(textwrap.dedent(inspect.getsource(named)))
    except (OSError, TypeError):
        code = getattr(named, "__code__", None)
        return _compiled(code) if code is not None else ""


def _lambda(code: CodeType) -> str:
    """Arguments and body of a lambda.

    A call over which it stands may change (``n_members=500`` to 5000) and it stays the same.
    """
    spans = [p for p in code.co_positions() if None not in p and p[2] != p[3]]
    if not spans or not linecache.getline(code.co_filename, code.co_firstlineno):
        return _compiled(code)
    first = min((line, column) for line, _, column, _ in spans)
    last = max((line, column) for _, line, _, column in spans)
    lines = [
        linecache.getline(code.co_filename, number).encode()
        for number in range(first[0], last[0] + 1)  # type: ignore[operator, arg-type]
    ]
    lines[-1] = lines[-1][: last[1]]
    lines[0] = lines[0][first[1] :]
    body = b"".join(lines).decode(errors="replace")
    return f"{code.co_varnames[: code.co_argcount]} {_tree(f'({body})')}"


def _tree(source: str) -> str:
    """Source without comments and layout, where it can be parsed."""
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:
        return source


def _compiled(code: CodeType) -> str:
    """Without source: what was compiled, which another Python may compile otherwise."""
    return repr((code.co_code, code.co_names, [c for c in code.co_consts if isinstance(c, PLAIN)]))
