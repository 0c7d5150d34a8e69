"""``warm_start=`` at the front door: what it may be, who uses it, and what is the same again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ensemblerl.loop.hooks import having
from ensemblerl.protocols import Goal, Sampler
from ensemblerl.provenance import Mismatch
from ensemblerl.records import Hints
from ensemblerl.space import Space
from ensemblerl.store.hints import checksum
from ensemblerl.warm.earlier import Campaigned, Earlier
from ensemblerl.warm.guess import Guess
from ensemblerl.warm.ranked import TRIES

WANTED = (
    "the path of a store or the Dataset of a campaign, Earlier(table, value=...), or "
    "Guess(point, spread=...)"
)


class Source(Protocol):
    """Where hints come from."""

    def identity(self) -> dict[str, Any]:
        """``kind``, ``source``, and what else tells it from others: JSON."""

    def hints(self, space: Space, goal: Goal) -> tuple[Hints, dict[str, Any]]:
        """Hints for this space and goal, and what became of the rows: JSON."""


class WarmStart:
    """What somebody gave as ``warm_start``, read when it is needed.

    Parameters
    ----------
    source : where its hints come from
    space, goal : of the campaign
    """

    def __init__(self, source: Source, space: Space, goal: Goal) -> None:
        self._source, self._space, self._goal = source, space, goal

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Kind and source: what a campaign that goes on is held to."""
        return self._source.identity()

    def read(self) -> tuple[Hints, dict[str, Any]]:
        """The hints, and for the provenance: where they came from, rows used and left out. A
        warning says where none of its points is to be tried first.

        Raises
        ------
        ValueError
            for a source that does not fit, or has nothing of use
        """
        return self._read

    @cached_property
    def _read(self) -> tuple[Hints, dict[str, Any]]:
        hints, about = self._source.hints(self._space, self._goal)
        if not len(hints.first):
            warnings.warn(
                f"warm_start: no point of {_told(self.identity)} is tried first: its unknown "
                f"parameters were drawn from the prior, {TRIES} times for each point, and the "
                "known constraint never held. The policy is moved there all the same",
                stacklevel=2,
            )
        return hints, {**self.identity, **about, "checksum": checksum(hints)}

    def check_same(self, path: str, kept: Mapping[str, Any] | None) -> None:
        """Refuse another one than the campaign in this store was begun with.

        Raises
        ------
        Mismatch
            naming both, and how to go on
        """
        now = json.loads(json.dumps(self.identity))
        if kept is None or any(kept.get(key) != value for key, value in now.items()):
            begun = "without one" if kept is None else f"with {_told(kept)}"
            raise Mismatch(
                f"warm_start: {path} was begun {begun}, got {_told(now)}; leave warm_start out to "
                "go on, or give another store="
            )


def starting(given: Any, sampler: Sampler, space: Space, goal: Goal) -> WarmStart | None:
    """What was given as ``warm_start``; None for nothing.

    Raises
    ------
    TypeError
        for anything that is no warm start
    ValueError
        when neither the sampler nor any of its parts can use one
    """
    if given is None:
        return None
    if isinstance(given, str | Path) or hasattr(given, "data_vars"):
        source: Source = Campaigned(given)
    elif isinstance(given, Earlier | Guess):
        source = given
    else:
        raise TypeError(f"warm_start: wanted {WANTED}, got {type(given).__name__}")
    if not having(sampler, "warm"):
        raise ValueError(
            f"warm_start: wanted a sampler that can use hints, such as agents.MaxEnt; got "
            f"{sampler!r} as sampler, no part of which has a method warm"
        )
    return WarmStart(source, space, goal)


def hand_over(sampler: Sampler, hints: Hints | None) -> None:
    """Give the hints to whoever can use them; None: that there are none in this campaign."""
    for part in having(sampler, "warm"):
        part.warm(hints)


def _told(about: Mapping[str, Any]) -> str:
    """A warm start in words: from what it is known by."""
    more = {key: about[key] for key in ("value", "spread") if about.get(key)}
    rest = "".join(f", {key}={value}" for key, value in more.items())
    return f"{about['kind']} {about['source']}{rest}"
