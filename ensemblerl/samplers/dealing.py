"""Who of several parts proposes which point, however many are asked for at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ensemblerl.protocols import Sampler
from ensemblerl.records import BoolArray, FloatArray, IntArray, Proposals
from ensemblerl.samplers.parts import spent
from ensemblerl.samplers.position import words
from ensemblerl.samplers.uniform import open_interval


def preferences(key: int, first: int, n: int, shares: FloatArray) -> IntArray:
    """(n, m) parts that points first, first + 1, ... go to: m of them have a share, best first.

    Each part has an exponential clock of rate ``share``, and they are taken as these ring: the
    first one is drawn by the shares, and without it the next one by the shares of those left.
    So a part that has ended drops out without a change to who else is preferred.
    """
    k = len(shares)
    unit = open_interval(words(key, first * k, n * k)).reshape(n, k)
    with np.errstate(divide="ignore"):
        rings = -np.log(unit) / shares
    return np.argsort(rings, axis=1, kind="stable")[:, : int((shares > 0).sum())]


class Deal:
    """Deals rows to parts as if they were asked for one by one, asking each part for many.

    A part that comes up short keeps its first rows, the others go to the next part that they
    prefer, where they may be before rows that are there already: those then move on (Gale and
    Shapley 1962, doi:10.2307/2312726). A part's points go to its rows in their order.

    Parameters
    ----------
    parts : whom to ask
    order : (n, m) from `preferences`
    """

    def __init__(self, parts: Sequence[Sampler], order: IntArray) -> None:
        self._parts, self._order = parts, order
        self._turn = np.zeros(len(order), dtype=np.int64)
        self._got: list[list[Proposals]] = [[] for _ in parts]
        self.dry: BoolArray = np.array([spent(part) for part in parts])

    def run(
        self, rng: np.random.Generator, context: Mapping[str, Any] | None
    ) -> list[tuple[IntArray, Proposals]]:
        """Rows, and what a part proposed for them; rows that nobody fills are the last ones."""
        while any(self._asked(i, rng, context) for i in range(len(self._parts))):
            pass
        return [piece for i in range(len(self._parts)) for piece in self._pieces(i)]

    def _asked(self, i: int, rng: np.random.Generator, context: Mapping[str, Any] | None) -> bool:
        """Ask a part for what its rows lack; True when some of them had to move on."""
        rows, part = self._rows(i), self._parts[i]
        wanted = len(rows) - sum(map(len, self._got[i]))
        if wanted and not self.dry[i]:
            self._got[i].append(part.ask(wanted, rng, context).noted(part.name))
            self.dry[i] = len(self._got[i][-1]) < wanted
        over = rows[sum(map(len, self._got[i])) :]
        self._turn[over] += 1
        return bool(len(over))

    def _rows(self, i: int) -> IntArray:
        """Rows whose turn it is to go to this part."""
        waiting = np.flatnonzero(self._turn < self._order.shape[1])
        here = self._order[waiting, self._turn[waiting]] == i
        return np.asarray(waiting[here])

    def _pieces(self, i: int) -> list[tuple[IntArray, Proposals]]:
        rows, ends = self._rows(i), np.cumsum([0, *map(len, self._got[i])])
        spans = zip(ends[:-1], ends[1:], self._got[i], strict=True)
        return [(rows[a:b], proposals) for a, b, proposals in spans]
