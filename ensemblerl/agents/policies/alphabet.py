"""How a point of the cube is spelled: T tokens, the most significant digits of all first.

Shapes: ``n`` points, ``ndim`` coordinates, ``T`` tokens, ``K`` letters of the longest alphabet.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ensemblerl.records import BoolArray, Cube, FloatArray, IntArray

FINEST = 2**40
"""Cells a spelled coordinate may have: each still holds thousands of float64 numbers."""
SMALLEST = 2.0**-54
"""The least part of a cell's width that a draw is away from its lower edge: never 0."""


def whole(name: str, value: Any, *, least: int) -> int:
    """A whole number, or a ValueError that names the argument."""
    numeric = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not numeric or value < least:
        raise ValueError(f"{name}: wanted a whole number >= {least}, got {value!r}")
    return int(value)


class Alphabet:
    """Spells points of a cube in tokens, and reads them back.

    A coordinate that is categorical, on which another one depends, or that has at most
    ``2 * base`` levels is one token, its cell. Any other is ``digits`` digits of its unit value.
    The first ``ndim`` tokens are the first of each coordinate, so that parents come before their
    children and token j decides about coordinate j; then come all second digits, and so on: where
    a policy goes wrong late, it goes wrong little.

    Parameters
    ----------
    cube : whose points are spelled
    base : letters of a digit
    digits : of a coordinate that is not one token

    Attributes
    ----------
    coordinate : (T,) that a token belongs to
    letters : (T,) how many there are
    place_value : (T,) finest cells of its coordinate that one letter is worth
    log_prior : (T, K) log of the letters' widths; -inf for letters that do not exist. The prior
        is exactly their product, because a letter's width depends on no other token.

    Raises
    ------
    ValueError
        for a base or digits that make no alphabet, and for a real coordinate on which another
        one depends

    Examples
    --------
    >>> import numpy as np
    >>> from ensemblerl.records import Cube
    >>> alphabet = Alphabet(Cube(("real",) * 2, (0, 0), (None, None)), base=10, digits=3)
    >>> alphabet.encode(np.array([[0.123, 0.987]])).tolist()
    [[1, 9, 2, 8, 3, 7]]
    """

    def __init__(self, cube: Cube, *, base: int = 8, digits: int = 3) -> None:
        self.cube = cube
        self.base, self.digits = whole("base", base, least=2), whole("digits", digits, least=1)
        if self.base**self.digits > FINEST:
            raise ValueError(f"digits: wanted base**digits <= 2**40, got {base}**{digits}")
        single = singles(cube, self.base)
        self._single, self._spelled = np.flatnonzero(single), np.flatnonzero(~single)
        self._n_cells = self.base**self.digits
        edges = [np.asarray(cube.edges[j], dtype=np.float64) for j in self._single]
        self._edges = padded(edges, 1.0)
        later = [self._spelled] * (self.digits - 1)
        self.coordinate: IntArray = np.concatenate([np.arange(cube.ndim), *later])
        one = single[self.coordinate]
        levels = np.asarray(cube.levels, dtype=np.int64)
        self.letters: IntArray = np.where(one, levels[self.coordinate], self.base)
        place = np.repeat(np.arange(self.digits), [cube.ndim, *map(len, later)])
        # The exponent of a single token is not used, but must not be negative either.
        value = self.base ** np.where(one, 0, self.digits - 1 - place)
        self.place_value: IntArray = value.astype(np.int64)
        self._sums = self.place_value[:, None] * (self.coordinate[:, None] == np.arange(cube.ndim))
        self._sums = self._sums.astype(np.float64)
        self.log_prior = self._log_prior(dict(zip(self._single.tolist(), edges, strict=True)))
        self._doors = [
            [(i, np.isin(np.arange(cube.levels[i]), cells)) for i, cells in parents]
            for parents in cube.parents
        ]

    @property
    def n_tokens(self) -> int:
        """T."""
        return len(self.coordinate)

    def encode(self, unit: FloatArray) -> IntArray:
        """(n, ndim) points -> (n, T) letters; those of inactive coordinates mean nothing."""
        finest = np.empty(unit.shape, dtype=np.int64)
        for j in self._single:
            edges = self.cube.edges[j]
            assert edges is not None
            finest[:, j] = np.searchsorted(edges[1:-1], unit[:, j], side="right")
        finest[:, self._spelled] = cell_of(unit[:, self._spelled], self._n_cells)
        return np.asarray(finest[:, self.coordinate] // self.place_value % self.letters)

    def decode(self, tokens: IntArray, rng: np.random.Generator) -> FloatArray:
        """(n, T) letters -> (n, ndim) points, uniform in their finest cells; inactive at 0.5.

        ``encode`` gives the active letters back exactly.
        """
        # Whole numbers below 2**53: float64 sums them exactly, and faster.
        finest = (tokens @ self._sums).astype(np.int64)
        low, high = self._cells(finest)
        part = np.maximum(rng.random(finest.shape), SMALLEST)
        unit = np.minimum(low + part * (high - low), np.nextafter(high, 0.0))
        return np.where(self.counting(tokens), unit, 0.5) if self.cube.conditional else unit

    def active(self, unit: FloatArray) -> BoolArray:
        """(n, ndim) points -> (n, T) whether each token counts."""
        return self.cube.active(unit)[:, self.coordinate]

    def counting(self, tokens: IntArray) -> BoolArray:
        """(n, T) letters -> (n, ndim) whether each coordinate counts."""
        out = np.ones((len(tokens), self.cube.ndim), dtype=np.bool_)
        for j in range(self.cube.ndim):
            self.decide(j, tokens, out)
        return out

    def decide(self, j: int, tokens: IntArray, active: BoolArray) -> None:
        """Write column j of (n, ndim) ``active``, from columns and tokens before j alone."""
        for i, opens in self._doors[j]:
            active[:, j] &= active[:, i] & opens[tokens[:, i]]

    def _cells(self, finest: IntArray) -> tuple[FloatArray, FloatArray]:
        """(n, ndim) finest cells -> their lower and upper edges."""
        low, high = finest / self._n_cells, (finest + 1) / self._n_cells
        if len(self._single):
            rows, cells = np.arange(len(self._single)), finest[:, self._single]
            low[:, self._single] = self._edges[rows, cells]
            high[:, self._single] = self._edges[rows, cells + 1]
        return low, high

    def _log_prior(self, edges: dict[int, FloatArray]) -> FloatArray:
        even = np.full(self.base, 1.0 / self.base)
        widths = [np.diff(edges[j]) if j in edges else even for j in self.coordinate.tolist()]
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(padded(widths, 0.0)))


def singles(cube: Cube, base: int) -> BoolArray:
    """(ndim,) whether a coordinate is one token.

    Raises
    ------
    ValueError
        when another coordinate depends on a real one
    """
    parents = {i for above in cube.parents for i, _ in above}
    for i in sorted(parents):
        if cube.edges[i] is None:
            raise ValueError(f"cube: wanted discrete parents, got a real one, coordinate {i}")
    return np.array(
        [
            edges is not None
            and (kind == "categorical" or j in parents or len(edges) - 1 <= 2 * base)
            for j, (kind, edges) in enumerate(zip(cube.kinds, cube.edges, strict=True))
        ],
        dtype=np.bool_,
    )


def cell_of(unit: FloatArray, n_cells: int) -> IntArray:
    """(...) of the cube -> (...) the k with k / n_cells <= unit < (k + 1) / n_cells."""
    k = np.clip(np.floor(unit * n_cells), 0, n_cells - 1)
    # The product is rounded: where n_cells is no power of two it can land in the next cell.
    k += (unit >= (k + 1) / n_cells) & (k + 1 < n_cells)
    k -= unit < k / n_cells
    return np.asarray(k, dtype=np.int64)


def padded(rows: list[FloatArray], fill: float) -> FloatArray:
    """Rows of different lengths -> (len(rows), longest), filled up at the right."""
    out = np.full((len(rows), max(map(len, rows), default=0)), fill)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
