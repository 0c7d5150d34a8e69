"""What all laws share: how a breach is told, and when two things are the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np


class BrokenLawError(AssertionError):
    """A part broke a law; the message names the law and says what came.

    Parameters
    ----------
    law : name of the law
    came : what was seen instead
    """

    def __init__(self, law: str, came: str) -> None:
        super().__init__(f'law "{law}": {came}')
        self.law = law


class Control(NamedTuple):
    """A deliberately broken part: ``check(make)`` must raise `BrokenLawError` for ``law``."""

    name: str
    law: str
    check: Callable[[Any], None]
    make: Any


def require(held: object, law: str, came: str) -> None:
    """Raise `BrokenLawError` unless the law was held."""
    if not held:
        raise BrokenLawError(law, came)


def same(one: Any, two: Any, skip: tuple[str, ...] = ()) -> bool:
    """Whether two records are equal, NaN to NaN; lists and tuples alike, ``skip`` names fields."""
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        return _same_arrays(np.asarray(one), np.asarray(two))
    one, two = _parts(one, skip), _parts(two, skip)
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(same(one[k], two[k], skip) for k in one)
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(same(a, b, skip) for a, b in zip(one, two, strict=True))
    return bool(one == two) or (one != one and two != two)


def _parts(thing: Any, skip: tuple[str, ...]) -> Any:
    if is_dataclass(thing) and not isinstance(thing, type):
        found = {f.name: getattr(thing, f.name) for f in fields(thing) if f.name not in skip}
        return {"": type(thing).__name__, **found}
    if hasattr(thing, "_asdict"):
        return {key: value for key, value in thing._asdict().items() if key not in skip}
    return thing


def _same_arrays(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> bool:
    if one.shape != two.shape or one.dtype.kind != two.dtype.kind:
        return False
    return bool(np.array_equal(one, two, equal_nan=one.dtype.kind in "fc"))


@contextmanager
def global_state_untouched(law: str) -> Iterator[None]:
    """Neither numpy's nor Python's global random state may be read or moved in here."""
    ours, theirs = random.getstate(), np.random.get_state()  # noqa: NPY002
    yield
    moved = not same(theirs, np.random.get_state()) or ours != random.getstate()  # noqa: NPY002
    require(not moved, law, "the global random state was used; draw from the rng handed in")


def plain_state(state: Any, where: str = "state") -> str:
    """Where a state holds something else than nested dicts of arrays, numbers, strings, lists."""
    if isinstance(state, dict):
        wrong = [k for k in state if not isinstance(k, str)]
        if wrong:
            return f"{where} has the key {wrong[0]!r}, wanted text"
        return next(filter(None, (plain_state(v, f"{where}.{k}") for k, v in state.items())), "")
    if isinstance(state, np.ndarray):
        return "" if state.dtype.kind in "biufU" else f"{where} has dtype {state.dtype}"
    if isinstance(state, list):
        plain = all(isinstance(v, (bool, int, float, str)) for v in state)
        return "" if plain else f"{where} is a list of something else than numbers or strings"
    plain = isinstance(state, (bool, int, float, str, np.number, np.bool_))
    return "" if plain else f"{where} is a {type(state).__name__}"
