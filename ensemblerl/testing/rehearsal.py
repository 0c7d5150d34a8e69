"""A campaign on paper: random rewards, random failures, random order of arrival, no simulation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ensemblerl.events import Launched
from ensemblerl.ledger import Ledger
from ensemblerl.protocols import Sampler
from ensemblerl.records import (
    LINEAGE,
    AnyArray,
    BoolArray,
    Fate,
    FloatArray,
    IntArray,
    Members,
    Proposals,
    Results,
)

FATES = np.array([Fate.ok, Fate.failed, Fate.lost, Fate.timeout, Fate.invalid], dtype="U13")


def no_points(unit: FloatArray) -> dict[str, AnyArray]:
    """(n, ndim) -> points: the coordinates themselves."""
    return {f"x{j}": column for j, column in enumerate(unit.T)}


def numbered(proposals: Proposals, first: int, name: str) -> Members:
    """The members that a campaign makes of proposals, numbered from ``first``."""
    n, notes = len(proposals), proposals.noted(name).notes
    default = {"parent": -1}
    lineage = {key: notes.get(key, np.full(n, default.get(key, 0))) for key in LINEAGE}
    return Members(
        number=np.arange(first, first + n),
        unit=proposals.unit,
        points=no_points(proposals.unit),
        seed=np.arange(first, first + n) + 1,
        notes={key: value for key, value in notes.items() if key not in LINEAGE},
        attempt=np.ones(n, dtype=np.int64),
        state=np.full(n, ""),
        **lineage,
    )


@dataclass
class Rehearsal:
    """A campaign on paper. ``ledger`` holds the launches, ``settled`` who is told as what.

    Rewards and fates are a function of the seed and the member's number alone, three in ten fail.
    """

    ndim: int
    seed: int
    ledger: Ledger = field(init=False)
    settled: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.ndim)

    def copy(self) -> Rehearsal:
        """A second one that goes its own way."""
        return copy.deepcopy(self)

    def launch(self, proposals: Proposals, name: str) -> IntArray:
        """Numbers given to these proposals."""
        members = numbered(proposals, self.ledger.n, name)
        self.ledger.apply(Launched(0.0, members))
        return members.number

    def members(self, number: IntArray) -> Members:
        """As the ledger holds them: text widened, notes of other parts missing."""
        return self.ledger.members(number, no_points)

    def results(self, number: IntArray, pending: BoolArray | bool = False) -> Results:
        """(n,) numbers -> what became of them, or rows that are on their way."""
        table = [
            _fortunes(self.seed, block) for block in range(int(max(number, default=0)) // 1024 + 1)
        ]
        fate, value = (np.concatenate(column)[number] for column in zip(*table, strict=True))
        fate = np.where(pending, str(Fate.pending), fate)
        reward = np.where(fate == Fate.ok, value, np.nan)
        return Results(reward[:, None].copy(), fate, reward)

    def known(self, number: IntArray) -> Results:
        """What is known of these members: an outcome where settled, else pending."""
        return self.results(number, ~np.isin(number, list(self.settled)))


@cache
def _fortunes(seed: int, block: int) -> tuple[NDArray[np.str_], FloatArray]:
    """(1024,) fates and values of the members of a block."""
    rng = np.random.default_rng([seed, block])
    fate = rng.choice(FATES, size=1024, p=[0.7, 0.1, 0.1, 0.05, 0.05])
    return fate, 10.0 * rng.standard_normal(1024)


def unchecked(proposals: Proposals, size: int) -> None:
    """Look at no proposals."""


def play(
    sampler: Sampler,
    game: Rehearsal,
    rng: np.random.Generator,
    n: int,
    most: int = 16,
    check: Callable[[Proposals, int], None] = unchecked,
) -> list[Proposals]:
    """Ask for n more members and settle them, late and out of order; a few stay pending.

    ``check`` gets every proposals with the number asked for, before they are launched.
    """
    asked: list[Proposals] = []
    until = game.ledger.n + n
    while game.ledger.n < until:
        size = int(rng.integers(1, min(most, until - game.ledger.n) + 1))
        proposals = sampler.ask(size, np.random.default_rng([game.seed, game.ledger.n]))
        check(proposals, size)
        asked.append(proposals)
        if not len(proposals):
            break
        number = game.launch(proposals, sampler.name)
        sampler.tell(game.members(number), Results.pending(len(number)))
        arrive(sampler, game, rng, leave=9)
    return asked


def arrive(sampler: Sampler, game: Rehearsal, rng: np.random.Generator, leave: int) -> None:
    """Settle random members, in random order and batches, until few are on their way."""
    waiting = np.setdiff1d(np.arange(game.ledger.n), list(game.settled))
    while len(waiting) > leave:
        number = rng.permutation(waiting)[: rng.integers(1, 8)]
        sampler.tell(game.members(number), game.results(number))
        game.settled.update(number.tolist())
        waiting = np.setdiff1d(waiting, number)
