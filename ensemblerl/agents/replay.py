"""What is known, for learning: settled members by number, drawn in proportion to priorities."""

from __future__ import annotations

from typing import Any

import numpy as np

from ensemblerl.agents.base import Rows
from ensemblerl.agents.sumtree import SumTree, importance, probability
from ensemblerl.protocols import State
from ensemblerl.records import (
    AnyArray,
    Demands,
    Fate,
    FloatArray,
    IntArray,
    Members,
    Results,
)

UNKNOWN, PENDING, OUTSIDE, FAILED, OK = range(5)
"""What is known of a member. What lies outside tells about the infrastructure, not about the
simulation; `FAILED` and `OK` are rows."""
STATUS: dict[str, int] = {
    Fate.pending: PENDING,
    Fate.lost: OUTSIDE,
    Fate.stopped: OUTSIDE,
    Fate.failed: FAILED,
    Fate.invalid: FAILED,
    Fate.timeout: FAILED,
    Fate.out_of_memory: FAILED,
    Fate.ok: OK,
}


NAME = np.dtype("U16")
"""Of a critic."""
LEAST = 1e-2
"""Smallest chance of a row, as a share of the largest: what taught nothing once may do so later.
Schaul et al. add a constant to priorities to this end."""


def mid_ranks(reward: FloatArray, among: FloatArray) -> FloatArray:
    """(n,) rewards, (m,) sorted -> (n,) ranks in (0, 1) of the rewards among the sorted ones.

    The i-th of m, from 0, has rank (i + 1/2) / m; equal ones share the mean of their ranks.
    """
    below = np.searchsorted(among, reward, side="left")
    not_above = np.searchsorted(among, reward, side="right")
    return np.asarray((below + not_above) / (2.0 * max(len(among), 1)))


class _Shards:
    """Columns over member numbers: shard i holds the members [i size, (i + 1) size).

    Only shards somebody was told of have room, next to each other in the order of their ids: a
    place in a column is in number order, and depends on the set of shards alone.
    """

    def __init__(self, size: int, ndim: int, n_steps: int) -> None:
        self.size = size
        # ends with a shard that is never reached: what is not there is found there
        self._ids = np.array([np.iinfo(np.int64).max])
        self.columns: dict[str, AnyArray] = {
            "number": np.zeros(0, dtype=np.int64),
            "unit": np.zeros((0, ndim)),
            "reward": np.zeros(0),
            "log_prob": np.zeros(0),
            "steps": np.zeros((0, n_steps)),
            "version": np.zeros(0, dtype=np.int64),
            "critic": np.zeros(0, dtype=NAME),
            "p": np.zeros(0),
            "status": np.zeros(0, dtype=np.int8),
        }

    @property
    def n(self) -> int:
        """Places in use."""
        return (len(self._ids) - 1) * self.size

    def places(self, number: IntArray) -> tuple[IntArray, IntArray]:
        """(n,) places of numbers, and the ids of the shards that are not there (yet)."""
        shard, offset = np.divmod(number, self.size)
        slot = self._ids.searchsorted(shard)
        return slot * self.size + offset, shard[self._ids[slot] != shard]

    def open(self, new: IntArray) -> bool:
        """Make room for these shards; True when shards that were there have moved."""
        ids = np.union1d(self._ids, new)
        slot, slots = np.searchsorted(ids, self._ids[:-1]), len(ids) - 1
        moved = bool((slot != np.arange(len(slot))).any())
        if moved or slots * self.size > len(self.columns["number"]):
            for name, column in self.columns.items():
                self.columns[name] = self._moved(column, slot, 1 << (slots - 1).bit_length())
        self._ids = ids
        return moved

    def _moved(self, column: AnyArray, slot: IntArray, slots: int) -> AnyArray:
        shape = (self.size, *column.shape[1:])
        grown = np.zeros((slots, *shape), dtype=column.dtype)
        grown[slot] = column.reshape((-1, *shape))[: len(slot)]
        return grown.reshape((-1, *column.shape[1:]))


class Replay:
    """Settled members as rows for learners, kept by number: a function of the set that was told.

    In which order, in which batches and how often members are told is of no account. A launch is
    told as pending, its outcome overrides it, and the first outcome stays. Members that are lost
    or stopped say nothing about the simulation and are no rows; members that failed are rows of
    reward -inf, and so are ok members whose reward is not finite.

    Of the notes, ``log_prob`` (n,), ``version`` (n,), ``log_prob_steps`` (n, T) and ``critic`` (n,)
    are kept. What is missing or NaN becomes 0, the prior's, -1 for the version and "" for the
    critic; with T = 1 the step becomes the ``log_prob``. For one thread at a time. Priorities as in
    Schaul et al. 2016 (arXiv:1511.05952).

    Parameters
    ----------
    n_steps : T, steps in which the policy builds a point
    ndim : coordinates of the cube
    shard : members that room is made for at a time
    exponent : alpha, how much priorities count; 0 for uniform draws
    correction : beta, how much the weights of a minibatch make up for it; 1 for fully

    Attributes
    ----------
    n_told, n_settled, n_rows : members heard of, with an outcome, that `rows` holds

    Raises
    ------
    ValueError
        for an argument out of its range
    """

    def __init__(
        self,
        n_steps: int,
        ndim: int,
        *,
        shard: int = 4096,
        exponent: float = 0.6,
        correction: float = 0.4,
    ) -> None:
        for name, size in (("n_steps", n_steps), ("ndim", ndim), ("shard", shard)):
            if size < 1:
                raise ValueError(f"{name}: wanted at least 1, got {size}")
        for name, power in (("exponent", exponent), ("correction", correction)):
            if not 0.0 <= power < np.inf:
                raise ValueError(f"{name}: wanted a finite number >= 0, got {power}")
        self.n_steps, self.ndim, self.shard = n_steps, ndim, shard
        self.exponent, self.correction = exponent, correction
        self._clear()

    def _clear(self) -> None:
        self.n_told = self.n_settled = self.n_rows = 0
        self._largest = 1.0
        self._shards = _Shards(self.shard, self.ndim, self.n_steps)
        self._tree = SumTree(self.shard)
        self._rows = self._at(np.empty(0, dtype=np.int64))
        self._since: int | None = 0
        self._sorted: FloatArray | None = None

    @property
    def pending(self) -> int:
        """Members that were launched and are not settled."""
        return self.n_told - self.n_settled

    def add(self, members: Members, results: Results) -> int:
        """Add (n,) members with what became of them; how many of them are newly settled.

        Raises
        ------
        ValueError
            for columns of another shape, an unknown fate, or a number below 0
        """
        n = len(members)
        self._check(members, results)
        if not n:
            return 0
        status = _status(results.fate)
        place = self._open(members.number)
        was = self._shards.columns["status"][place]
        fresh = ((status > was) & (was <= PENDING)).nonzero()[0]
        if n > 1:
            # one batch may hold a member twice: its outcome goes before its launch
            fresh = fresh[np.argsort(status[fresh] == PENDING, kind="stable")]
            fresh = fresh[np.unique(place[fresh], return_index=True)[1]]
        if not len(fresh):
            return 0
        status, was = status[fresh], was[fresh]
        self._put(place[fresh], _columns(members, results, status, fresh, self.n_steps))
        settled = int(np.count_nonzero(status > PENDING))
        self.n_told += int(np.count_nonzero(was == UNKNOWN))
        self.n_settled += settled
        return settled

    def rows(self) -> Rows:
        """All rows in number order, not to be written to; the same object until there are more."""
        if self._since is not None:
            status, n = self._shards.columns["status"], self._shards.n
            # below the lowest number that is new nothing has changed
            first = int(self._shards.places(np.array([self._since]))[0][0])
            keep = int(np.searchsorted(self._rows.number, self._since))
            tail = self._at(first + (status[first:n] >= FAILED).nonzero()[0])
            self._rows, self._since = _joined(self._rows, keep, tail), None
        return self._rows

    def waiting(self) -> Rows:
        """Pending members as they were launched, in number order; their reward is NaN."""
        status = self._shards.columns["status"][: self._shards.n]
        return self._at((status == PENDING).nonzero()[0])

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """(n,) rows with replacement, row i with P(i) = p_i^alpha / sum_k p_k^alpha.

        ``weight`` is (N P(i))^-beta over the largest of all rows.

        Raises
        ------
        ValueError
            when there is no row to draw, or n is negative
        """
        if n < 0:
            raise ValueError(f"n: wanted at least 0, got {n}")
        if not self.n_rows:
            raise ValueError(f"sample: wanted a settled member, got none of {self.n_told} told")
        place = self._tree.find(self._tree.total * rng.random(n))
        p = self._shards.columns["p"][place]
        return self._at(place, importance(p, self._tree.least, self.correction))

    def reprioritise(self, number: IntArray, priority: FloatArray) -> None:
        """(n,) numbers of rows, (n,) >= 0 new priorities; of a number that comes twice the last.

        Raises
        ------
        ValueError
            for a priority that is negative or not finite, or a number that is no row
        """
        number, priority = np.asarray(number, np.int64), np.asarray(priority, np.float64)
        if number.shape != priority.shape:
            raise ValueError(f"priority: wanted shape {number.shape}, got {priority.shape}")
        good = (priority >= 0.0) & (priority < np.inf)
        if not good.all():
            raise ValueError(f"priority: wanted finite numbers >= 0, got {priority[~good][0]}")
        place, absent = self._shards.places(number)
        if len(absent) or (self._shards.columns["status"][place] < FAILED).any():
            unknown = np.setdiff1d(number, self.rows().number)
            raise ValueError(f"number: wanted numbers of rows, got {unknown[0]}")
        p = np.maximum(probability(priority, self.exponent), LEAST * self._largest)
        self._tree.set(place, p)
        self._shards.columns["p"][place] = p
        self._largest = float(p.max(initial=self._largest))

    def utility(self, rows: Rows, demands: Demands) -> FloatArray:
        """(n,) R: the reward, or with ``demands.ranked`` its mid-rank in (0, 1) among all rows.

        Rows that failed are the lowest together.
        """
        if not demands.ranked:
            return rows.reward.copy()
        if self._sorted is None:
            self._sorted = np.sort(self.rows().reward)
        return mid_ranks(rows.reward, self._sorted)

    def state_dict(self) -> State:
        """All that is known, in number order, and the priorities."""
        known = (self._shards.columns["status"][: self._shards.n] != UNKNOWN).nonzero()[0]
        columns = {name: column[known] for name, column in self._shards.columns.items()}
        return {**columns, "largest": self._largest}

    def load_state_dict(self, state: State) -> None:
        """Take up a state in place of what is known.

        Raises
        ------
        ValueError
            for a state of points with other shapes
        """
        n = len(state["number"])
        for name, width in (("unit", self.ndim), ("steps", self.n_steps)):
            if state[name].shape != (n, width):
                raise ValueError(f"{name}: wanted shape {(n, width)}, got {state[name].shape}")
        self._clear()
        self._largest = float(state["largest"])
        if n:
            place = self._open(np.asarray(state["number"]))
            self._put(place, {name: state[name] for name in self._shards.columns})
        self.n_told = n
        self.n_settled = int(np.count_nonzero(state["status"] > PENDING))

    def _check(self, members: Members, results: Results) -> None:
        n, note = len(members), members.notes.get("log_prob_steps")
        if members.unit.shape != (n, self.ndim):
            came = members.unit.shape
            raise ValueError(f"members.unit: wanted shape {(n, self.ndim)}, got {came}")
        if len(results.fate) != n:
            raise ValueError(f"results: wanted {n} rows, one a member, got {len(results.fate)}")
        if note is not None and note.shape != (n, self.n_steps):
            raise ValueError(f"log_prob_steps: wanted shape {(n, self.n_steps)}, got {note.shape}")

    def _open(self, number: IntArray) -> IntArray:
        """(n,) numbers -> (n,) places, with room for all of them."""
        place, new = self._shards.places(number)
        if len(new):
            # what lies below 0 has a shard that is never there
            if (lowest := number.min()) < 0:
                raise ValueError(f"members.number: wanted at least 0, got {lowest}")
            if self._shards.open(new):
                n = self._shards.n
                self._tree.set(np.arange(n), self._shards.columns["p"][:n])
            place, _ = self._shards.places(number)
        return place

    def _put(self, place: IntArray, columns: dict[str, AnyArray]) -> None:
        """Write rows that are new; without ``p`` they get the largest there was so far."""
        row = columns["status"] >= FAILED
        columns.setdefault("p", self._largest * row)
        for name, column in self._shards.columns.items():
            column[place] = columns[name]
        if n := int(np.count_nonzero(row)):
            lowest = int(columns["number"][row].min())
            self._since = lowest if self._since is None else min(lowest, self._since)
            self._sorted = None
            self.n_rows += n
            self._tree.set(place[row], columns["p"][row])

    def _at(self, place: IntArray, weight: FloatArray | None = None) -> Rows:
        """(n,) places -> (n,) rows, copies."""
        names = ("number", "unit", "reward", "log_prob", "steps", "version", "critic")
        columns: dict[str, Any] = {name: self._shards.columns[name][place] for name in names}
        return Rows(**columns, weight=np.ones(len(place)) if weight is None else weight)


def _status(fate: AnyArray) -> AnyArray:
    """(n,) fates -> (n,) codes."""
    try:
        return np.array([STATUS[name] for name in fate.tolist()], dtype=np.int8)
    except KeyError as error:
        wanted = ", ".join(STATUS)
        raise ValueError(f"results.fate: wanted one of {wanted}, got {error}") from None


def _columns(
    members: Members, results: Results, status: AnyArray, rows: IntArray, n_steps: int
) -> dict[str, AnyArray]:
    """The columns of some rows, with what is missing filled in."""
    n, reward = len(rows), results.reward[rows]
    log_prob = _note(members, "log_prob", rows, np.zeros(n))
    # one step is the whole draw
    missing = log_prob[:, None] if n_steps == 1 else np.zeros((n, n_steps))
    no_reward = np.where(status == PENDING, np.nan, -np.inf)
    return {
        "number": members.number[rows],
        "unit": members.unit[rows],
        "reward": np.where((status == OK) & np.isfinite(reward), reward, no_reward),
        "log_prob": log_prob,
        "steps": _note(members, "log_prob_steps", rows, missing),
        "version": _note(members, "version", rows, np.full(n, -1.0)),
        "critic": members.notes["critic"][rows] if "critic" in members.notes else np.full(n, ""),
        "status": status,
    }


def _note(members: Members, name: str, rows: IntArray, missing: FloatArray) -> FloatArray:
    """What was noted for some rows, other values where there is nothing or NaN."""
    if name not in members.notes:
        return missing
    note = members.notes[name][rows]
    return np.where(np.isnan(note), missing, note)


def _joined(old: Rows, keep: int, tail: Rows) -> Rows:
    """The first rows of the old ones, then the tail; not to be written to."""
    pairs = [(name, getattr(old, name)[:keep], new) for name, new in vars(tail).items()]
    columns: dict[str, AnyArray] = {name: np.concatenate(pair) for name, *pair in pairs}
    for column in columns.values():
        column.flags.writeable = False
    return Rows(**columns)
