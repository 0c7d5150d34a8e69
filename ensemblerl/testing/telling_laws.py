"""The laws of `Sampler.tell`: what is known is a set keyed by member number."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ensemblerl.protocols import Sampler
from ensemblerl.records import BoolArray, Cube, IntArray, Proposals
from ensemblerl.testing.core import require, same
from ensemblerl.testing.rehearsal import Rehearsal, play

Make = Callable[[Cube], Sampler]
Batch = tuple[IntArray, BoolArray]
"""Member numbers of one tell, and which of them are told as pending."""


def telling_laws(make: Make, cube: Cube, n: int, seed: int) -> None:
    """Where ``order_free``: order, batches, repetition and late launches change nothing."""
    sampler = make(cube)
    if not sampler.order_free:
        return
    game, rng = Rehearsal(cube.ndim, seed), np.random.default_rng(seed)
    play(sampler, game, rng, n)
    plain = _plain(game)
    base = _next_asks(make(cube), game, plain)
    for law, batches in _tellings(plain, rng):
        came = _next_asks(make(cube), game, batches)
        require(same(came, base), law, _parted(came, base))
    law = "function of the set told"
    came = _next_asks(sampler, game, [])
    require(
        same(came, base), law, "one that asked and one only told parted: " + _parted(came, base)
    )


def _plain(game: Rehearsal) -> list[Batch]:
    number = np.arange(game.ledger.n)
    return [(number, ~np.isin(number, list(game.settled)))]


def _tellings(plain: list[Batch], rng: np.random.Generator) -> list[tuple[str, list[Batch]]]:
    number, pending = plain[0]
    launches = (number, np.ones(len(number), dtype=np.bool_))
    shuffle = rng.permutation(len(number))
    mixed: Batch = (number[shuffle], pending[shuffle])
    pieces = list(_split(mixed, rng))
    both = [*_split(launches, rng), *pieces, *_split(launches, rng), *_split(mixed, rng)]
    return [
        ("telling twice changes nothing", plain * 2),
        ("the outcome overrides pending", [launches, *plain]),
        ("a late pending changes nothing", [*plain, launches]),
        ("order of telling is of no account", [mixed]),
        ("batches of telling are of no account", list(_split(plain[0], rng))),
        ("order of telling is of no account", both),
    ]


def _split(batch: Batch, rng: np.random.Generator) -> Iterable[Batch]:
    """The same rows in random pieces."""
    number, pending = batch
    cuts = np.sort(rng.integers(0, len(number) + 1, size=len(number) // 5))
    for rows in np.split(np.arange(len(number)), np.unique(cuts)):
        if len(rows):
            yield number[rows], pending[rows]


def _next_asks(sampler: Sampler, game: Rehearsal, batches: list[Batch]) -> list[Proposals]:
    """Three rounds and more, told and learnt on, by a sampler told these batches first."""
    game = game.copy()
    for number, pending in batches:
        sampler.tell(game.members(number), game.results(number, pending))
    return play(sampler, game, np.random.default_rng(game.seed + 1), 12, most=4)


def _parted(came: list[Proposals], base: list[Proposals]) -> str:
    pairs = enumerate(zip(came, base, strict=False))
    first = next((i for i, (a, b) in pairs if not same(a, b)), min(len(came), len(base)))
    if first == min(len(came), len(base)):
        return f"{len(came)} asks, wanted {len(base)}"
    return f"ask {first} gave {came[first].unit[:1]}, wanted {base[first].unit[:1]}"
