"""What a command line, its environment and its constants may be: checked where they are given."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""", re.DOTALL)
OPERATOR = re.compile(r"\d*>[>&]?|<+|&&|&>?|\|\|?|;")
"""What a shell reads as redirection, pipe, background, or the end of a command."""
SHELL = (
    'what the program prints is in the files stdout and stderr; for a shell, write ["sh", "-c", '
    '"..."]'
)


def arguments_of(given: Any) -> tuple[str, ...]:
    """The argument list, from a list of texts or from one text as for a shell.

    Examples
    --------
    >>> arguments_of("lmp -in 'in file' -var T {{ T * 2 }}")
    ('lmp', '-in', 'in file', '-var', 'T', '{{ T * 2 }}')
    """
    wanted = "arguments: wanted a list of texts, or one text as for a shell"
    if isinstance(given, str):
        _no_shell("arguments: wanted one program and its arguments", given, SHELL)
        found = _words(given, wanted)
    elif isinstance(given, Iterable) and not isinstance(given, Mapping | bytes):
        found = [os.fspath(part) if isinstance(part, os.PathLike) else part for part in given]
    else:
        raise ValueError(f"{wanted}, got {given!r}")
    for part in found:
        if not isinstance(part, str) or "\0" in part:
            raise ValueError(f"{wanted}, got {part!r} ({type(part).__name__}) in it")
    if not found or not found[0]:
        raise ValueError(f"{wanted}, the executable first; got {given!r}")
    return tuple(found)


def _no_shell(wanted: str, text: str, instead: str) -> None:
    """Refuse what only a shell understands; in quotes it is taken as it is."""
    found = OPERATOR.search(QUOTED.sub("", EXPRESSION.sub("", text)))
    if found:
        raise ValueError(
            f"{wanted}, got {found[0]!r} in {text!r}, which no shell reads; {instead}; put "
            f"{found[0]!r} in quotes where the program is to get it"
        )


def _words(text: str, wanted: str) -> list[str]:
    """Split as a shell does; what Jinja2 is to read stays whole, blanks and quotes included."""
    kept = EXPRESSION.findall(text)
    marks = iter(range(len(kept)))
    try:
        words = shlex.split(EXPRESSION.sub(lambda _: f"\ue000{next(marks)}\ue001", text))
    except ValueError as error:
        raise ValueError(f"{wanted}, got {text!r}: {error}") from None
    return [re.sub("\ue000(\\d+)\ue001", lambda m: kept[int(m[1])], word) for word in words]


def launcher_of(given: Any) -> str:
    """The launcher's text; ValueError when it is none, or names what there is not."""
    try:
        if not isinstance(given, str):
            raise TypeError
        shlex.split(given.format(cores=1, threads=1))
    except (TypeError, ValueError, LookupError, AttributeError):
        raise ValueError(
            'launcher: wanted text such as "mpiexec -n {cores}", with {cores} and {threads} '
            f"where they belong, got {given!r}"
        ) from None
    _no_shell("launcher: wanted one program and its options", given, "write a script for more")
    return given


def yes_or_no(name: str, given: Any) -> bool:
    """True or False; ValueError for what is only taken for one of them."""
    if not isinstance(given, bool | np.bool_):
        raise ValueError(f"{name}: wanted True or False, got {given!r}")
    return bool(given)


def constants_of(given: Any, taken: Iterable[str]) -> dict[str, Any]:
    """Name -> what templates can use, in Python's own types."""
    if not isinstance(given, Mapping):
        raise ValueError(f"constants: wanted a mapping, name -> value, got {given!r}")
    for name in given:
        if not isinstance(name, str) or not name.isidentifier() or name in taken:
            raise ValueError(
                "constants: wanted names as of Python's variables, none of "
                f"{', '.join(sorted(taken))}; got {name!r}"
            )
    return {name: _constant(name, value) for name, value in given.items()}


def _constant(name: str, value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _constant(name, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_constant(name, part) for part in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, bool | int | float | str | type(None)):
        raise ValueError(
            f"constants: {name!r}: wanted numbers, texts, lists and mappings of them, got {value!r}"
        )
    return value


def environment_of(given: Any) -> dict[str, str]:
    """Name -> text; ValueError for what no environment can hold."""
    if not isinstance(given, Mapping):
        raise ValueError(f"environment: wanted a mapping, name -> text, got {given!r}")
    for name, value in given.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"environment: wanted names without '=', got {name!r}")
        if not isinstance(value, str):
            raise ValueError(f"environment: {name!r}: wanted text, got {value!r}")
    return dict(given)
