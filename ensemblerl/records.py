"""All that travels between the parts of a campaign: frozen records, columns over members.

Shapes: ``n`` members, ``ndim`` coordinates of the cube, ``k`` values of a goal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
AnyArray = NDArray[Any]

LINEAGE = ("group", "cycle", "task", "fidelity", "parent")
"""Notes with these names become columns of `Members` (``parent`` is a member number or -1)."""


class Fate(StrEnum):
    """What became of a member; ``pending`` until it is settled."""

    pending = "pending"
    ok = "ok"
    failed = "failed"
    invalid = "invalid"
    timeout = "timeout"
    out_of_memory = "out_of_memory"
    stopped = "stopped"
    lost = "lost"


@dataclass(frozen=True)
class Cube:
    """The space as samplers see it: the open unit cube, on which the prior is uniform.

    Parameters
    ----------
    kinds : (ndim,) of {"real", "ordinal", "categorical"}
    levels : (ndim,) number of cells of a discrete coordinate, 0 for a real one
    edges : (ndim,) of (levels + 1,) increasing cell edges from 0 to 1, None for a real one
    parents : (ndim,) of tuples of (coordinate, cells); a coordinate is active when every parent
        is active and lies in one of the cells named. A parent comes before its children.
    feasible : known constraint, (n, ndim) -> (n,) bool; None when there is none
    """

    kinds: tuple[str, ...]
    levels: tuple[int, ...]
    edges: tuple[FloatArray | None, ...]
    parents: tuple[tuple[tuple[int, tuple[int, ...]], ...], ...] = ()
    feasible: Callable[[FloatArray], BoolArray] | None = None

    def __post_init__(self) -> None:
        if not self.parents:
            object.__setattr__(self, "parents", ((),) * len(self.kinds))

    @property
    def ndim(self) -> int:
        """Number of coordinates."""
        return len(self.kinds)

    @property
    def conditional(self) -> bool:
        """True when some coordinate can be inactive."""
        return any(self.parents)

    def cells(self, unit: FloatArray) -> IntArray:
        """(n, ndim) cell of each discrete coordinate, -1 for real ones."""
        out = np.full(unit.shape, -1, dtype=np.int64)
        for j, edges in enumerate(self.edges):
            if edges is not None:
                out[:, j] = np.searchsorted(edges[1:-1], unit[:, j], side="right")
        return out

    def active(self, unit: FloatArray) -> BoolArray:
        """(n, ndim) whether each coordinate counts at these points."""
        out = np.ones(unit.shape, dtype=np.bool_)
        if self.conditional:
            cells = self.cells(unit)
            for j, parents in enumerate(self.parents):
                for i, allowed in parents:
                    out[:, j] &= out[:, i] & np.isin(cells[:, i], allowed)
        return out

    def canonical(self, unit: FloatArray) -> FloatArray:
        """(n, ndim) with inactive coordinates at 0.5, where they add nothing to a density."""
        return np.where(self.active(unit), unit, 0.5) if self.conditional else unit

    def centred(self, unit: FloatArray) -> FloatArray:
        """(n, ndim) with discrete coordinates at the middle of their cells: where in a cell a point
        was drawn is of no account.
        """
        out, cells = unit.copy(), self.cells(unit)
        for j, edges in enumerate(self.edges):
            if edges is not None:
                out[:, j] = 0.5 * (edges[:-1] + edges[1:])[cells[:, j]]
        return out


def cubes_differ(one: Cube, two: Cube) -> str:
    """What differs of kinds, levels, edges and parents; the constraints cannot be compared."""
    edges = [[None if e is None else e.tolist() for e in cube.edges] for cube in (one, two)]
    same = {
        "kinds": one.kinds == two.kinds,
        "levels": one.levels == two.levels,
        "edges": edges[0] == edges[1],
        "parents": one.parents == two.parents,
    }
    return ", ".join(name for name, equal in same.items() if not equal)


@dataclass(frozen=True)
class Proposals:
    """Points a sampler asks for, with what will be needed when their results come back.

    Parameters
    ----------
    unit : (n, ndim) in the open interval (0, 1), inactive coordinates at 0.5
    notes : name -> (n, ...) numbers or strings. ``log_prob`` (float, NaN = no density, with
        respect to the cube), ``version`` (int, -1 = no policy) and ``proposer`` (str) are always
        there after `noted`; the names in `LINEAGE` travel in `Members`.
    """

    unit: FloatArray
    notes: dict[str, AnyArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.unit)

    def noted(self, proposer: str) -> Proposals:
        """The same with the three standing notes filled in where the sampler left them out."""
        n = len(self)
        notes = {
            "log_prob": np.full(n, np.nan),
            "version": np.full(n, -1, dtype=np.int64),
            "proposer": np.full(n, proposer),
            **self.notes,
        }
        return replace(self, notes=notes)


@dataclass(frozen=True)
class Members:
    """Numbered runs of the simulation: ``n`` rows, in launch order.

    Parameters
    ----------
    number : (n,) from 0, never used twice in a campaign
    unit : (n, ndim)
    points : name -> (n,) physical values (inactive: NaN, or "" for text)
    seed : (n,) in [1, 2**31 - 1]
    notes : name -> (n, ...), see `Proposals`
    attempt : (n,) from 1
    group, cycle, task, fidelity : (n,) ints, 0 by default
    parent : (n,) member number or -1
    state : (n,) reference to what the parent left behind, or ""
    """

    number: IntArray
    unit: FloatArray
    points: dict[str, AnyArray]
    seed: IntArray
    notes: dict[str, AnyArray]
    attempt: IntArray
    group: IntArray
    cycle: IntArray
    task: IntArray
    fidelity: IntArray
    parent: IntArray
    state: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: IntArray | BoolArray | slice | Sequence[int]) -> Members:
        """The rows asked for, in that order."""
        columns: dict[str, Any] = {
            name: {key: column[rows] for key, column in value.items()}
            if isinstance(value, dict)
            else value[rows]
            for name, value in vars(self).items()
        }
        return Members(**columns)

    def split(self, size: int) -> Iterator[Members]:
        """Consecutive pieces of at most ``size`` rows."""
        for first in range(0, len(self), size):
            yield self.take(slice(first, first + size))

    def luggage(self) -> Members:
        """What a worker needs: everything but the cube coordinates and the notes."""
        return replace(self, unit=np.empty((len(self), 0)), notes={})


@dataclass(frozen=True)
class Results:
    """What became of members, row by row.

    Parameters
    ----------
    value : (n, k) what `Goal.value` found; NaN for members that are not ok
    fate : (n,) text, members of `Fate`
    reward : (n,) `Goal.rewards` of them, larger is better; NaN for members that are not ok
    noise : (n, k) standard deviation of ``value`` where known, else None
    """

    value: FloatArray
    fate: NDArray[np.str_]
    reward: FloatArray
    noise: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.value)

    @classmethod
    def pending(cls, n: int, k: int = 1) -> Results:
        """``n`` rows that are on their way."""
        return cls(np.full((n, k), np.nan), np.full(n, str(Fate.pending)), np.full(n, np.nan))


AGAIN = "again"
"""The note ``critic`` of a point that was run before, and is run again to see through noise."""


@dataclass(frozen=True)
class Demands:
    """What a goal asks of an agent (the one formula: reward, temperature, shares).

    Parameters
    ----------
    temperature : alpha, in units of the utility R; 0 for the best alone
    covering : keep every mode, at the price of sharpness: learners that select (`MPO`) then keep
        four times as many effective members a step
    prior_share : share of the draws that come from the prior
    wide_share : share that comes from the policy widened
    picked_share : share of the points that critics may pick; these have no density
    frozen : draw, but learn no more
    ranked : R is the rank of the reward in (0, 1), not the reward itself
    noisy : rewards are noisy draws: the best is the member of the best posterior mean
    replicated_share : share of the points that are to be run again, with seeds of their own, where
        another draw is worth most to say which member is the best. Samplers that do not know it
        ignore it, and so does an agent whose critics may pick nothing.

    Raises
    ------
    ValueError
        for a temperature below 0 or not finite, and shares that leave nothing
    """

    temperature: float = 0.0
    covering: bool = False
    prior_share: float = 0.1
    wide_share: float = 0.0
    frozen: bool = False
    ranked: bool = False
    picked_share: float = 0.0
    noisy: bool = False
    replicated_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.replicated_share < 1.0:
            raise ValueError(
                f"replicated_share: wanted a share in [0, 1), got {self.replicated_share!r}"
            )
        if not 0.0 <= self.picked_share <= 1.0:
            raise ValueError(f"picked_share: wanted a share in [0, 1], got {self.picked_share!r}")
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature: wanted a number >= 0, got {self.temperature!r}")
        if not (self.prior_share >= 0 and self.wide_share >= 0) or not (
            self.prior_share + self.wide_share <= 1
        ):
            raise ValueError(
                "prior_share, wide_share: wanted shares >= 0 that leave the policy the rest of 1, "
                f"got {self.prior_share!r} and {self.wide_share!r}"
            )


@dataclass(frozen=True)
class Hints:
    """What somebody knew beforehand of where it may be good. They steer, and enter no answer.

    Parameters
    ----------
    unit : (m, ndim) in (0, 1); NaN for coordinates that nobody knows
    weight : (m,) >= 0, how good each is; their sum is the number of members they count for
    first : (k, ndim) points worth running first, the best one first: complete and feasible
    """

    unit: FloatArray
    weight: FloatArray
    first: FloatArray


@dataclass(frozen=True)
class Snapshot:
    """One version of a policy as arrays; `ensemblerl.policyfile` keeps it in a file.

    Parameters
    ----------
    version : from 0; one sequence for a campaign, the ``version`` of the members it drew
    weights : name -> array of numbers
    meta : what the arrays are: JSON
    """

    version: int
    weights: dict[str, AnyArray]
    meta: dict[str, Any] = field(default_factory=dict)

    def alike(self, other: Snapshot) -> bool:
        """Whether they draw alike: the same arrays bit for bit, and the same said of them."""
        if self.meta != other.meta or self.weights.keys() != other.weights.keys():
            return False
        pairs = [(array, other.weights[name]) for name, array in self.weights.items()]
        return all(
            a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
            for a, b in pairs
        )


class Outcome(NamedTuple):
    """How one attempt at one member ended, as told by the worker: small, whatever the fields weigh.

    ``schema`` is the digest of the result's layout, ``state`` a reference to what the member
    left for its children, ``start`` in seconds since the epoch, ``runtime`` in seconds.
    ``reward`` is filled in at the head, when the member is settled. ``blameless`` says of a lost
    attempt that the infrastructure took it (walltime, cancelled job, node), not the member.
    ``record`` carries the segment record itself only when the worker could not write it.
    """

    number: int
    attempt: int
    fate: str
    cause: str = ""
    value: tuple[float, ...] = ()
    start: float = 0.0
    runtime: float = 0.0
    worker: str = ""
    schema: str = ""
    state: str = ""
    reward: float = float("nan")
    blameless: bool = False
    record: bytes | None = None


class Place(NamedTuple):
    """What a member may use where it runs, and until when.

    ``until`` is the reading of `time.monotonic` on that machine by which it must be over, None
    where the end is open; ``needed`` the seconds that a member is expected to need; ``cores`` the
    processors to keep to, all when empty; ``devices`` what CUDA_VISIBLE_DEVICES says, None: as
    it is.
    """

    until: float | None = None
    needed: float = 0.0
    cores: tuple[int, ...] = ()
    devices: tuple[str, ...] | None = None


class Program(NamedTuple):
    """A program to start: ``arguments`` begin with its absolute path, ``environment`` is whole."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


class Answer(NamedTuple):
    """What a worker returns for a bundle: one outcome a member, and layouts it met."""

    outcomes: list[Outcome]
    schemas: dict[str, dict[str, Any]]
