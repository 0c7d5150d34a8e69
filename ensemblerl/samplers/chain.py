"""Samplers one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ensemblerl.protocols import Metrics, Sampler, State
from ensemblerl.records import Members, Proposals, Results
from ensemblerl.samplers.parts import (
    cube_of,
    load_state_of,
    merge_notes,
    prime_all,
    spent,
    state_of,
    tell_all,
    unique_parts,
)


class Chain:
    """The first part until it has no more points, then the second, and so on.

    All parts are told everything, so a later part starts with what the earlier ones found. The
    fixed designs among them get their keys from one key of the chain, drawn at its first ask
    and noted as ``<name>_key``: their points do not depend on when their turn came.

    Parameters
    ----------
    parts : samplers with names of their own
    name : its own name

    Raises
    ------
    TypeError, ValueError
        for no parts, something that is no sampler, a name that is there twice, or parts on
        different cubes

    Examples
    --------
    >>> import numpy as np
    >>> from ensemblerl.records import Cube
    >>> from ensemblerl.samplers.listed import Listed
    >>> from ensemblerl.samplers.sobol import Sobol
    >>> cube = Cube(("real",), (0,), (None,))
    >>> chain = Chain([Listed(cube, [[0.25], [0.75]], name="mine"), Sobol(cube)])
    >>> chain.ask(4, np.random.default_rng(0)).notes["proposer"].tolist()
    ['mine', 'mine', 'sobol', 'sobol']
    """

    def __init__(self, parts: Iterable[Sampler], *, name: str = "chain") -> None:
        self.parts, self.name = unique_parts(parts), name
        self.cube = cube_of(self.parts)
        self.has_density = any(part.has_density for part in self.parts)
        self.order_free = all(part.order_free for part in self.parts)
        self._key, self._primed = -1, False

    def ask(
        self, n: int, rng: np.random.Generator, context: Mapping[str, Any] | None = None
    ) -> Proposals:
        """At most n points, of one part or of several."""
        self.prime(rng)
        asked: list[Proposals] = []
        for part in self.parts:
            left = n - sum(map(len, asked))
            if left or not asked:
                asked.append(part.ask(left, rng, context).noted(part.name))
        ends = np.cumsum([0, *map(len, asked)])
        spans = zip(ends[:-1], ends[1:], asked, strict=True)
        pieces = [(np.arange(a, b), p.notes) for a, b, p in spans if len(p) or len(asked) == 1]
        notes = merge_notes(pieces, int(ends[-1]))
        notes[f"{self.name}_key"] = np.full(ends[-1], self._key, dtype=np.int64)
        return Proposals(np.concatenate([p.unit for p in asked]), notes)

    def prime(self, rng: np.random.Generator) -> None:
        """Draw the chain's key now, if there is none yet, and hand keys down."""
        if self._key < 0:
            self._key = int(rng.integers(2**63 - 1))
        if not self._primed:
            self._primed = True
            prime_all(self.parts, self._key)

    @property
    def spent(self) -> bool:
        """True when no part has a point left."""
        return all(spent(part) for part in self.parts)

    def tell(self, members: Members, results: Results) -> Metrics:
        """Tell every part."""
        key = members.notes.get(f"{self.name}_key")
        if key is not None and not self._primed and len(key):
            self._key = max(self._key, int(key.max()))
        return tell_all(self.parts, members, results)

    def state_dict(self) -> State:
        """The chain's key and the states of the parts."""
        return {"key": self._key, "parts": state_of(self.parts)}

    def load_state_dict(self, state: State) -> None:
        """Take them up."""
        self._key, self._primed = int(state["key"]), False
        load_state_of(self.parts, state["parts"])

    def describe(self) -> dict[str, Any]:
        """Name and parts."""
        parts = [part.describe() for part in self.parts]
        return {"sampler": type(self).__name__, "name": self.name, "parts": parts}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.parts)}, name={self.name!r})"
