"""What an object can do, as a list to read: each public name with the first line about it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

LONG = 30
"""Characters of arguments from which on only the first of them is shown."""


def listed(thing: object) -> list[str]:
    """A line for each public method and property of its class, in the order of the class.

    Examples
    --------
    >>> class Bell:
    ...     def ring(self, times=1):
    ...         "Wake the house."
    >>> listed(Bell())
    ['  .ring(times=1)  Wake the house.']
    """
    lines = list(_lines(type(thing)))
    wide = max((len(call) for call, _ in lines), default=0)
    return [f"  {call:{wide}}  {about}".rstrip() for call, about in lines]


def _lines(kind: type) -> Iterator[tuple[str, str]]:
    """(call, first line of the docstring)."""
    for name, member in vars(kind).items():
        if not name.startswith("_"):
            about = (inspect.getdoc(member) or "").partition("\n")[0]
            yield f".{name}{_arguments(member) if callable(member) else ''}", about


def _arguments(method: object) -> str:
    """As they are called, without their types: (n=1); of many the first: (names=None, ...)."""
    assert callable(method)
    told = list(inspect.signature(method).parameters.values())[1:]
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in told]
    text = str(inspect.Signature(bare))
    return text if len(text) <= LONG else f"({bare[0]}, ...)"
