"""Learners that each break one law of `Learner`; see `ensemblerl.testing.broken`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ensemblerl.agents.base import Lesson, Memory, Policy
from ensemblerl.protocols import State
from ensemblerl.records import Cube, Demands, FloatArray
from ensemblerl.testing.box_policy import BoxMover, BoxPolicy
from ensemblerl.testing.core import Control
from ensemblerl.testing.cubes import real_cube
from ensemblerl.testing.learner_laws import Make, check_learner


class Softened(BoxPolicy):
    """A policy whose arrays can be reached."""

    @property
    def box(self) -> dict[str, FloatArray]:
        """Its own."""
        return self._box


def check_box_mover(make: Make) -> None:
    """`check_learner` on a `BoxPolicy`."""
    check_learner(make, Softened)


class ForgetsItsLessons(BoxMover):
    """Saves nothing, though its next step depends on how many there were."""

    def state_dict(self) -> State:
        """Empty."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing."""


class MovesAtRandom(BoxMover):
    """Goes a part of the way that the global random state says."""

    def part(self, rng: np.random.Generator) -> float:
        """Not from the rng handed in."""
        return 0.2 * float(np.random.random())  # noqa: NPY002


class PoisonedByFailures(BoxMover):
    """Means over utilities without minding those of failures."""

    def inside(self, utility: FloatArray, edge: FloatArray) -> FloatArray:
        """NaN from the first failure on."""
        with np.errstate(invalid="ignore"):
            return np.asarray(edge + 0.0 * utility.mean())


class PraisesTheBest(BoxMover):
    """Looks for the best member where there is none."""

    def utility(self, utility: FloatArray) -> FloatArray:
        """An IndexError when everything failed."""
        return np.asarray(utility - utility[np.isfinite(utility)][0])


class DividesByTheSpread(BoxMover):
    """Standardises utilities that may all be the same."""

    def inside(self, utility: FloatArray, edge: FloatArray) -> FloatArray:
        """0 / 0 when they are."""
        ok = utility[np.isfinite(utility)]
        with np.errstate(invalid="ignore"):
            return edge * (np.ptp(ok) / np.ptp(ok)) if len(ok) else edge


class UpsideDown(BoxMover):
    """Takes rewards for costs."""

    def utility(self, utility: FloatArray) -> FloatArray:
        """The wrong way round."""
        return -utility


class LivingState(BoxMover):
    """Hands out the array that it goes on counting in."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = np.zeros(1)

    def part(self, rng: np.random.Generator) -> float:
        """In place."""
        self.counted += 1.0
        return super().part(rng)

    def state_dict(self) -> State:
        """Not a copy."""
        return {**super().state_dict(), "counted": self.counted}

    def load_state_dict(self, state: State) -> None:
        """A copy."""
        super().load_state_dict(state)
        self.counted = np.array(state["counted"])


class TakesTheStateItself(LivingState):
    """Goes on counting in the array of the state that it took up."""

    def state_dict(self) -> State:
        """A copy."""
        return {**super().state_dict(), "counted": self.counted.copy()}

    def load_state_dict(self, state: State) -> None:
        """Not a copy."""
        super().load_state_dict(state)
        self.counted = state["counted"]


class SavesObjects(BoxMover):
    """Puts an object into its state."""

    def state_dict(self) -> State:
        """Not plain."""
        return {**super().state_dict(), "cube": real_cube(1)}


class WritesIntoRows(BoxMover):
    """Replaces the rewards of failures in the memory's own array."""

    def learn(
        self, policy: Policy, memory: Memory, demands: Demands, rng: np.random.Generator
    ) -> Lesson:
        """In place."""
        np.nan_to_num(memory.rows().reward, copy=False)
        return super().learn(policy, memory, demands, rng)


class MovesTheOldOne(BoxMover):
    """Teaches the policy from which points are drawn meanwhile."""

    def learn(
        self, policy: Policy, memory: Memory, demands: Demands, rng: np.random.Generator
    ) -> Lesson:
        """In place."""
        lesson = super().learn(policy, memory, demands, rng)
        assert isinstance(policy, Softened)
        policy.box.update(lesson.policy.weights)
        return lesson


class TellsNothing(BoxMover):
    """A metric that is none."""

    def part(self, rng: np.random.Generator) -> float:
        """A whole number."""
        return 0


class OtherCube(BoxMover):
    """Gives back a policy of a cube of its own."""

    def learn(
        self, policy: Policy, memory: Memory, demands: Demands, rng: np.random.Generator
    ) -> Lesson:
        """Real coordinates whatever they are."""
        cube = Cube(("real",) * (policy.cube.ndim + 1), (0,) * (policy.cube.ndim + 1), ())
        return Lesson(BoxPolicy(cube), {})


class Nameless(BoxMover):
    """Has no name."""

    name: Any = None


BROKEN: list[Control] = [
    Control(make.__name__, law, check_box_mover, make)
    for law, make in [
        ("goes on exactly after a restore", ForgetsItsLessons),
        ("same rng, same lesson", MovesAtRandom),
        ("finite weights", PoisonedByFailures),
        ("rows that tell little", PraisesTheBest),
        ("rows that tell little", DividesByTheSpread),
        ("the mean reward rises", UpsideDown),
        ("state is a snapshot", LivingState),
        ("state is a snapshot", TakesTheStateItself),
        ("state is plain", SavesObjects),
        ("rows are left alone", WritesIntoRows),
        ("the old policy stays", MovesTheOldOne),
        ("metrics", TellsNothing),
        ("a policy of the same shape", OtherCube),
        ("declares itself", Nameless),
    ]
]
