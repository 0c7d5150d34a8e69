"""Which sequence, and how far along it: known to whoever is told its points."""

from __future__ import annotations

import numpy as np

from ensemblerl.protocols import State
from ensemblerl.records import AnyArray, BoolArray, IntArray, Members

WORDS = 4
"""Words that Philox makes of one value of its counter."""


class Position:
    """The key of a sequence, and the index that comes next.

    Key and index ride with each point as notes; `told` finds the position again in any set of
    members, told in any order.

    Parameters
    ----------
    name : its notes are ``<name>_key`` and ``<name>_index``
    key : when given, it stays this one whatever is told
    """

    def __init__(self, name: str, key: int | None = None) -> None:
        self._notes = f"{name}_key", f"{name}_index"
        self._fixed = key is not None
        self.key, self._number = -1 if key is None else key, -1
        self._places: dict[int, int] = {}

    @property
    def place(self) -> int:
        """Index that comes next."""
        return self._places.get(self.key, 0)

    def prime(self, rng: np.random.Generator) -> None:
        """Draw the key now, if there is none yet."""
        if self.key < 0:
            self.key = int(rng.integers(2**63 - 1))

    def notes(self, index: IntArray) -> dict[str, AnyArray]:
        """The notes of points with these indices."""
        key, at = self._notes
        return {key: np.full(len(index), self.key, dtype=np.int64), at: index}

    def move(self, index: IntArray) -> None:
        """Points with these indices, in rising order, were handed out."""
        if len(index):
            self._places[self.key] = int(index[-1]) + 1

    def told(self, members: Members, among: BoolArray | bool = True) -> None:
        """Go on behind the last of its own points in these rows; those without notes are not."""
        key, index = map(members.notes.get, self._notes)
        if key is None or index is None:
            return
        rows = np.flatnonzero((key >= 0) & among)
        if len(rows):
            last = rows[members.number[rows].argmax()]
            self._seen(int(members.number[last]), int(key[last]))
            for own, place in zip(key[rows].tolist(), (index[rows] + 1).tolist(), strict=True):
                self._places[own] = max(self._places.get(own, 0), place)

    def _seen(self, number: int, key: int) -> None:
        """The member of the highest number says which sequence this is."""
        if number > self._number and not self._fixed:
            self._number, self.key = number, key

    def state_dict(self) -> State:
        """Key, and places in the sequences seen."""
        keys = np.array(sorted(self._places), dtype=np.int64)
        places = np.array([self._places[int(key)] for key in keys], dtype=np.int64)
        return {"key": self.key, "number": self._number, "keys": keys, "places": places}

    def load_state_dict(self, state: State) -> None:
        """Take them up."""
        self.key = self.key if self._fixed else int(state["key"])
        self._number = int(state["number"])
        pairs = zip(state["keys"], state["places"], strict=True)
        self._places = {int(key): int(place) for key, place in pairs}


def words(key: int, first: int, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """(n,) 64-bit words first, first + 1, ... of the stream with this key.

    Philox 4x64 (Salmon et al. 2011, doi:10.1145/2063384.2063405): no word needs those before it.
    """
    counter, skip = divmod(first, WORDS)
    bits = np.random.Philox(key=key, counter=counter)
    return np.asarray(bits.random_raw(skip + n))[skip:]
