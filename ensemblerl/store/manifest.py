"""Which rows are in shards: one small file, replaced after the shards it speaks of are on disk.

A reader takes from shards only rows of blocks named here, so that half-written shards are never
read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ensemblerl.store.files import read_json, write_json

NAME = "compacted.json"
ROWS = 2**14
"""Rows to a shard of the small columns, and at most to one of the fields."""
SHARD_BYTES = 2**28


def block_rows(member_bytes: int) -> int:
    """Rows to a shard of the fields: the power of two that makes about 256 MiB, at most `ROWS`.

    Examples
    --------
    >>> block_rows(8), block_rows(2**20), block_rows(3 * 2**20), block_rows(2**40)
    (16384, 256, 64, 1)
    """
    rows = max(1, min(ROWS, SHARD_BYTES // max(1, member_bytes)))
    return int(1 << (rows.bit_length() - 1))


@dataclass(frozen=True)
class Manifest:
    """What is compacted.

    Parameters
    ----------
    block : rows to a shard of the fields, fixed when first needed; 0 before
    blocks : numbers of the complete shards of the fields
    columns : leading complete shards of the small columns, of `ROWS` rows each
    arrays : names of the small columns that have shards
    ledger_offset : byte of the ledger from which all rows not in ``columns`` are told
    preamble : events before that byte that a reader needs (sessions, schema)
    rows, settled : members, and how many of them were settled, when all of them were last
        written; None before
    rewritten : how often shards of small columns were given up because a note got a wider dtype
    """

    block: int = 0
    blocks: frozenset[int] = frozenset()
    columns: int = 0
    arrays: tuple[str, ...] = ()
    ledger_offset: int = 0
    preamble: tuple[str, ...] = ()
    rows: int | None = None
    settled: int | None = None
    rewritten: int = 0

    @property
    def first(self) -> int:
        """Number of the first member whose small columns are in the ledger only."""
        return self.columns * ROWS

    def save(self, root: Path) -> None:
        """Replace the file."""
        write_json(root / NAME, {**asdict(self), "blocks": runs(self.blocks)})

    @classmethod
    def load(cls, root: Path) -> Manifest:
        """The manifest of this store; an empty one when nothing was compacted."""
        if not (root / NAME).exists():
            return cls()
        content: dict[str, Any] = read_json(root / NAME)
        blocks = frozenset(i for first, stop in content.pop("blocks") for i in range(first, stop))
        for name in ("arrays", "preamble"):
            content[name] = tuple(content[name])
        return cls(**content, blocks=blocks)


def runs(numbers: Iterable[int]) -> list[list[int]]:
    """Half-open runs of these numbers.

    Examples
    --------
    >>> runs([3, 0, 1, 2, 7])
    [[0, 4], [7, 8]]
    """
    out: list[list[int]] = []
    for i in sorted(numbers):
        if out and out[-1][1] == i:
            out[-1][1] = i + 1
        else:
            out.append([i, i + 1])
    return out
