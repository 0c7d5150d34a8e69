"""Proposals become members: a number, a seed, physical values, a place in the lineage."""

from __future__ import annotations

import numpy as np

from ensemblerl.ledger import FIXED, Ledger
from ensemblerl.records import LINEAGE, IntArray, Members, Proposals
from ensemblerl.space import Space


def member_seeds(seed: int, first: int, n: int) -> IntArray:
    """(n,) seeds in [1, 2**31 - 1] of members first, first + 1, ...

    Counter-based, so that member i's seed depends on nothing but the campaign's seed and i:
    Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

    Examples
    --------
    >>> bool((member_seeds(7, 0, 9)[5:] == member_seeds(7, 5, 4)).all())
    True
    """
    bits = np.random.Philox(key=seed)
    bits.advance(first // 4)
    raw = np.asarray(bits.random_raw(n + first % 4))[first % 4 :]
    return (1 + raw % np.uint64(2**31 - 1)).astype(np.int64)


def number(proposals: Proposals, space: Space, ledger: Ledger, seed: int) -> Members:
    """The next members of the ledger, made of these proposals.

    Notes named as in `ensemblerl.records.LINEAGE` become columns; a member with a parent gets
    the reference to the state that its parent left.
    """
    n, first = len(proposals), ledger.n
    notes = dict(proposals.notes)
    lineage = {
        name: np.asarray(notes.pop(name, np.full(n, FIXED[name][1])), dtype=np.int64)
        for name in LINEAGE
    }
    state = [ledger.left.get(int(parent), "") for parent in lineage["parent"]]
    return Members(
        number=np.arange(first, first + n),
        unit=proposals.unit,
        points=space.to_points(proposals.unit),
        seed=member_seeds(seed, first, n),
        notes=notes,
        attempt=np.ones(n, dtype=np.int64),
        state=np.array(state, dtype=np.str_),
        **lineage,
    )
