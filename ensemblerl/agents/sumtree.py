"""Prioritised draws: a binary tree of sums, in O(log n) each, and the formulas of P(i) and w_i.

The formulas are those of Schaul, Quan, Antonoglou and Silver, "Prioritized experience replay",
ICLR 2016, doi:10.48550/arXiv.1511.05952.
"""

from __future__ import annotations

import numpy as np

from ensemblerl.records import FloatArray, IntArray

STALE = 256
"""Calls of ``set`` whose leaves may wait for their sums, so that what waits is bounded."""


def probability(priority: FloatArray, exponent: float) -> FloatArray:
    """(n,) priorities p -> (n,) P(i) up to a factor: p_i^alpha (equation 1)."""
    return np.power(priority, exponent)


def importance(p: FloatArray, least: float, correction: float) -> FloatArray:
    """(n,) P(i) -> (n,) w_i / max_j w_j, where w_i = (N P(i))^-beta (section 3.4).

    The largest weight is that of the least P in the whole memory: N and the factor of P cancel.
    """
    return np.power(least / p, correction)


class SumTree:
    """Values at the leaves; above them the sum, and the smallest positive value.

    ``set`` only writes leaves down; sums follow when they are asked for, for many leaves at once.
    A node is always computed from its two children, never corrected by a difference: nothing
    drifts, and the tree is a function of its leaves, however they came to be. Leaves that were
    never set hold 0. Node 1 is the root, the children of node i are 2 i and 2 i + 1.

    Parameters
    ----------
    capacity : leaves there is room for; the tree doubles when ``set`` needs more

    Raises
    ------
    ValueError
        when there is no room for one leaf
    """

    def __init__(self, capacity: int = 64) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: wanted at least 1, got {capacity}")
        self._leaves = _power_of_two(capacity)
        self._sum = np.zeros(2 * self._leaves)
        self._least = np.full(2 * self._leaves, np.inf)
        self._stale = list[IntArray]()

    def __len__(self) -> int:
        """Leaves there is room for."""
        return self._leaves

    @property
    def total(self) -> float:
        """Sum of all values."""
        self._refresh()
        return float(self._sum[1])

    @property
    def least(self) -> float:
        """The smallest value above 0, inf when there is none."""
        self._refresh()
        return float(self._least[1])

    def set(self, index: IntArray, value: FloatArray) -> None:
        """(n,) leaves get (n,) values; of an index that comes twice the last counts.

        Raises
        ------
        ValueError
            for an index below 0, or a value that is negative or not finite
        """
        index, value = np.asarray(index, dtype=np.int64), np.asarray(value, dtype=np.float64)
        if not len(index):
            return
        if not ((value >= 0.0) & (value < np.inf)).all():
            raise ValueError(f"value: wanted finite numbers >= 0, got {_first_bad(value)}")
        if index.min() < 0:
            raise ValueError(f"index: wanted at least 0, got {index.min()}")
        self._reserve(int(index.max()) + 1)
        leaf = self._leaves + index
        self._sum[leaf] = value
        self._least[leaf] = np.where(value > 0.0, value, np.inf)
        self._stale.append(index)
        if len(self._stale) >= STALE:
            self._refresh()

    def find(self, mass: FloatArray) -> IntArray:
        """(n,) in [0, total) -> (n,) first leaf at which the running sum exceeds the mass.

        A leaf of value 0 is never found, whatever the rounding.

        Raises
        ------
        ValueError
            when all values are 0
        """
        if not self.total > 0.0:
            raise ValueError("tree: wanted a value above 0 to find, got none")
        mass = np.array(mass, dtype=np.float64)
        node = np.ones(len(mass), dtype=np.int64)
        for _ in range(self._leaves.bit_length() - 1):
            node *= 2
            left = self._sum[node]
            # the difference is rounded: it may reach past the last value there is on the right
            right = (mass >= left) & (self._sum[node + 1] > 0.0)
            mass -= left * right
            node += right
        return node - self._leaves

    def _refresh(self) -> None:
        """Make the sums right, the shorter way."""
        if self._stale:
            index = np.concatenate(self._stale)
            self._stale.clear()
            if len(index) * self._leaves.bit_length() > self._leaves:
                self._rebuild()
            else:
                self._climb(self._leaves + index)

    def _climb(self, node: IntArray) -> None:
        """Compute all nodes above these again, level by level."""
        for _ in range(self._leaves.bit_length() - 1):
            node = node >> 1
            left = 2 * node
            right = left + 1
            self._sum[node] = self._sum[left] + self._sum[right]
            self._least[node] = np.minimum(self._least[left], self._least[right])

    def _rebuild(self) -> None:
        """Compute all nodes again, level by level."""
        last = self._leaves
        while last > 1:
            first = last // 2
            left, right = slice(last, 2 * last, 2), slice(last + 1, 2 * last, 2)
            self._sum[first:last] = self._sum[left] + self._sum[right]
            self._least[first:last] = np.minimum(self._least[left], self._least[right])
            last = first

    def _reserve(self, n: int) -> None:
        """Have room for n leaves."""
        if n > self._leaves:
            old, leaves = self._leaves, _power_of_two(n)
            total, least = np.zeros(2 * leaves), np.full(2 * leaves, np.inf)
            total[leaves : leaves + old] = self._sum[old:]
            least[leaves : leaves + old] = self._least[old:]
            self._leaves, self._sum, self._least = leaves, total, least
            self._stale = [np.arange(old)]


def _power_of_two(n: int) -> int:
    """The smallest that is not below n."""
    return int(1 << (n - 1).bit_length())


def _first_bad(value: FloatArray) -> float:
    return float(value[~((value >= 0.0) & (value < np.inf))][0])
