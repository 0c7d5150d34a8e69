"""What the parts of an agent owe each other: a policy, a learner, the rows they learn from.

Shapes: ``n`` points, ``ndim`` coordinates, ``T`` steps in which a policy builds a point.
All densities are with respect to the prior, which is uniform on the cube.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from ensemblerl.protocols import State
from ensemblerl.records import AnyArray, BoolArray, Cube, Demands, FloatArray, IntArray

Weights = dict[str, AnyArray]
"""The arrays a policy consists of: all that a snapshot holds."""
Context = Mapping[str, Any] | None
"""Task, preference, fidelity: what a point is drawn for. Both policies here are unconditional."""


@runtime_checkable
class Policy(Protocol):
    """A density on the cube, immutable: learning makes a new one.

    Laws: points lie in the open cube, inactive coordinates at 0.5; ``log_prob`` is the exact
    density of ``sample`` (untruncated by a known constraint); ``steps`` sums to it.
    """

    cube: Cube
    n_steps: int

    @property
    def weights(self) -> Weights:
        """The arrays it consists of."""

    def sample(self, n: int, context: Context, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) points."""

    def log_prob(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """(n, ndim) -> (n,) log density."""

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """(n, ndim) -> (n, T) log of each step's probability over the prior's; 0 if inactive."""

    def widened(self) -> Self:
        """The same policy, wider: what the wide share of the draws comes from."""

    def with_weights(self, weights: Weights) -> Self:
        """One of the same shape with other arrays."""

    def describe(self) -> dict[str, Any]:
        """Class and arguments: JSON."""


@dataclass(frozen=True)
class Rows:
    """What learners see of settled members, in number order.

    Parameters
    ----------
    number : (n,) of the members
    unit : (n, ndim)
    reward : (n,) larger is better; -inf for members that failed
    log_prob : (n,) log density of the draw, 0 (the prior's) where none was noted
    steps : (n, T) log of the behaviour's steps over the prior's, 0 where none were noted
    version : (n,) of the policy that drew them, -1 for none
    weight : (n,) what a minibatch multiplies losses by; 1 outside of minibatches
    critic : (n,) who picked them, "" for none
    """

    number: IntArray
    unit: FloatArray
    reward: FloatArray
    log_prob: FloatArray
    steps: FloatArray
    version: IntArray
    weight: FloatArray
    critic: AnyArray

    def __len__(self) -> int:
        return len(self.number)

    @property
    def ok(self) -> BoolArray:
        """(n,) whether there is a reward."""
        return np.isfinite(self.reward)

    def take(self, rows: IntArray | BoolArray) -> Rows:
        """The rows asked for, in that order."""
        return Rows(**{name: column[rows] for name, column in vars(self).items()})


class Memory(Protocol):
    """What a learner learns from; `ensemblerl.agents.replay.Replay` is one."""

    def rows(self) -> Rows:
        """All settled members that tell about the simulation, in number order."""

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """(n,) of them by priority, with replacement, ``weight`` the importance of each."""

    def reprioritise(self, number: IntArray, priority: FloatArray) -> None:
        """(n,) numbers, (n,) >= 0 new priorities."""

    def waiting(self) -> Rows:
        """(p,) members on their way, as they were launched."""

    def utility(self, rows: Rows, demands: Demands) -> FloatArray:
        """(n,) the R of the formula: the reward, or its rank among all where ``demands.ranked``."""


@dataclass(frozen=True)
class Tray:
    """Points that critics picked for the asks until the next lesson. They have no density.

    Parameters
    ----------
    unit : (m, ndim)
    notes : name -> (m,): who picked each (``critic``), and what every critic foretold of it
        (``<critic>_mean``, ``<critic>_sd``, in units of the reward)
    share : of the points that critics may pick, how many are to be
    """

    unit: FloatArray
    notes: dict[str, AnyArray]
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.unit)


class Lesson(NamedTuple):
    """A better policy, and what was seen on the way (loss, ess, temperature, clipped, ...)."""

    policy: Policy
    metrics: dict[str, float]


@runtime_checkable
class Learner(Protocol):
    """Improves a policy from what is known; its state is what its next step needs.

    One with critics also has a ``tray``, see `Tray`: points picked in its last lesson, or None.
    """

    name: str

    def learn(
        self, policy: Policy, memory: Memory, demands: Demands, rng: np.random.Generator
    ) -> Lesson:
        """One lesson: a bounded piece of work, whatever the memory holds."""

    def state_dict(self) -> State:
        """Optimiser state and the like: plain."""

    def load_state_dict(self, state: State) -> None:
        """Take it up."""

    def describe(self) -> dict[str, Any]:
        """Class and arguments: JSON."""
