"""Arguments that say what one run may use: checked where they are given."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

LEAST_MEMORY = 2**20
"""Bytes; below it a number was meant in another unit."""


def whole(name: str, value: Any, *, least: int) -> int:
    """A whole number; ValueError naming the argument for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: wanted a whole number >= {least}, got {value!r}")
    return value


def seconds(name: str, value: Any) -> float | None:
    """Seconds, or None for any number; ValueError for anything else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and 0.0 < value < math.inf):
        raise ValueError(f"{name}: wanted seconds > 0 or None, got {value!r}")
    return None if value is None else float(value)


def size(name: str, value: Any) -> int | None:
    """Bytes, from a number or a text with a unit, or None for any number.

    Raises
    ------
    ValueError
        for anything else, and for less than 1 MiB

    Examples
    --------
    >>> size("memory", "2 GB"), size("memory", "512 MiB"), size("memory", 2**30)
    (2000000000, 536870912, 1073741824)
    """
    if value is None:
        return None
    found = value
    if isinstance(value, str):
        from dask.utils import parse_bytes

        try:
            found = parse_bytes(value)
        except ValueError:
            found = None
    if isinstance(found, bool) or not isinstance(found, int) or found < LEAST_MEMORY:
        raise ValueError(
            f'{name}: wanted bytes, or text such as "2 GB" or "512 MiB", at least 1 MiB, '
            f"or None; got {value!r}"
        )
    return int(found)


def directory(name: str, value: Any) -> str | None:
    """The text of a path, or None for none."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(f"{name}: wanted a directory or None, got {value!r}")
    return str(os.fspath(value))


def one_of(name: str, value: Any, wanted: Sequence[str]) -> str:
    """One of the texts wanted."""
    if value not in wanted:
        raise ValueError(f"{name}: wanted one of {', '.join(wanted)}; got {value!r}")
    return str(value)
