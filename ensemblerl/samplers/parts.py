"""What samplers made of samplers share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ensemblerl.ledger import missing
from ensemblerl.protocols import Metrics, Sampler, State
from ensemblerl.records import AnyArray, Cube, IntArray, Members, Results, cubes_differ

Noted = tuple[IntArray, dict[str, AnyArray]]
"""Rows of the whole, and the notes of these rows."""


def unique_parts(parts: Iterable[Sampler]) -> tuple[Sampler, ...]:
    """The parts, when there are some and each has a name of its own.

    Raises
    ------
    TypeError, ValueError
        when there is none, one is no sampler, or two propose under one name
    """
    if not isinstance(parts, Iterable):
        raise TypeError(f"parts: wanted a list of samplers, got {type(parts).__name__}")
    out = tuple(parts)
    if not out:
        raise ValueError("parts: wanted at least one sampler, got none")
    for part in out:
        if isinstance(part, type) or not isinstance(part, Sampler):
            raise TypeError(f"parts: wanted samplers, got {part!r}")
    names = [name for part in out for name in proposers(part)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"parts: wanted names of their own (name=...), got {twice} twice")
    return out


def cube_of(parts: Sequence[Sampler]) -> Cube | None:
    """The cube that the parts are on; None when none of them says.

    Raises
    ------
    ValueError
        when they are on different ones
    """
    having = [(part, part.cube) for part in parts if isinstance(getattr(part, "cube", None), Cube)]  # type: ignore[attr-defined]
    for part, cube in having[1:]:
        first, known = having[0]
        if which := cubes_differ(cube, known):
            raise ValueError(
                f"parts: wanted samplers on one cube, those of {first.name!r} and {part.name!r} "
                f"differ in {which}"
            )
    return having[0][1] if having else None


def proposers(part: Sampler) -> list[str]:
    """Its name, and those of its parts."""
    return [part.name, *(name for p in getattr(part, "parts", ()) for name in proposers(p))]


def merge_notes(pieces: Sequence[Noted], n: int) -> dict[str, AnyArray]:
    """Name -> (n, ...): the notes of the pieces in their rows, missing values elsewhere."""
    merged: dict[str, AnyArray] = {}
    for name in dict.fromkeys(name for _, notes in pieces for name in notes):
        having = [(rows, notes[name]) for rows, notes in pieces if name in notes]
        dtype = np.result_type(*(note for _, note in having))
        column = np.full((n, *having[0][1].shape[1:]), missing(dtype), dtype=dtype)
        for rows, note in having:
            column[rows] = note
        merged[name] = column
    return merged


def spent(part: Sampler) -> bool:
    """Whether a part says that it has no more points (``spent``); most never do."""
    return bool(getattr(part, "spent", False))


def prime_all(parts: Iterable[Sampler], key: int) -> None:
    """Fixed designs that have no key yet get theirs from this one, whenever their turn comes."""
    for i, part in enumerate(parts):
        if hasattr(part, "prime"):
            part.prime(np.random.default_rng([key, i]))


def tell_all(parts: Iterable[Sampler], members: Members, results: Results) -> Metrics:
    """Every part is told everything; their metrics under their names."""
    told = [(part.name, part.tell(members, results)) for part in parts]
    return {f"{name}/{key}": value for name, metrics in told for key, value in metrics.items()}


def state_of(parts: Iterable[Sampler]) -> State:
    """Name -> state."""
    return {part.name: part.state_dict() for part in parts}


def load_state_of(parts: Iterable[Sampler], state: State) -> None:
    """Each part takes up its own."""
    for part in parts:
        part.load_state_dict(state[part.name])
