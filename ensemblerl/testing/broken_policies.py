"""Policies that each break one law of `Policy`; see `ensemblerl.testing.broken`."""

from __future__ import annotations

import threading
from itertools import count
from typing import Any, Self

import numpy as np

from ensemblerl.agents.base import Context, Policy, Weights
from ensemblerl.records import FloatArray
from ensemblerl.testing.box_policy import BoxPolicy
from ensemblerl.testing.core import Control
from ensemblerl.testing.policy_laws import Make, check_policy


def narrower(policy: Policy) -> Policy:
    """The same with an interval a coordinate that is not the whole of it."""
    ndim = policy.cube.ndim
    return policy.with_weights({"low": np.full(ndim, 0.5), "high": np.linspace(0.7, 0.9, ndim)})


def check_box_policy(make: Make) -> None:
    """`check_policy` of a `BoxPolicy`, untrained and narrower."""
    check_policy(make, learnt=narrower)


class OtherWidth(BoxPolicy):
    """Draws from its intervals and has the density of wider ones."""

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """Too wide by a third."""
        low, high = self._box["low"], self._box["high"]
        return BoxPolicy(self.cube, {"low": low - (high - low) / 3, "high": high}).steps(unit)


class Unnormalised(BoxPolicy):
    """A box on top of the prior, instead of in its place."""

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """More than 1 together, but only once there is a box."""
        low, high = self._box["low"], self._box["high"]
        inside = (unit >= low) & (unit <= high) & (high - low < 1.0)
        return np.where(self.cube.active(unit), np.log(1.0 + inside), 0.0)


class LeavesAStepOut(BoxPolicy):
    """Steps that do not add up to its density."""

    def log_prob(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """Of all."""
        return np.asarray(super().steps(unit, context).sum(axis=1))

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """The last one never counts."""
        return super().steps(unit, context) * (np.arange(self.n_steps) < self.n_steps - 1)


class CountsInactive(BoxPolicy):
    """A factor for the coordinate at 0.5 as well."""

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """Without asking what is active."""
        low, high = self._box["low"], self._box["high"]
        return np.asarray(np.log(0.5 + 0.5 * ((unit >= low) & (unit <= high)) / (high - low)))


class StandardisesTheBatch(BoxPolicy):
    """Takes the mean over the points it is asked about."""

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """A point's density depends on its company."""
        steps = super().steps(unit, context)
        return steps - steps.mean(axis=0) if len(steps) else steps


class InactiveAnywhere(BoxPolicy):
    """Leaves inactive coordinates where they were drawn."""

    def sample(self, n: int, context: Context, rng: np.random.Generator) -> FloatArray:
        """Without `Cube.canonical`."""
        return self.draw(n, rng)


class TouchesTheEdge(BoxPolicy):
    """Now and then a coordinate of exactly 1."""

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Rounded up where it is large."""
        unit = super().draw(n, rng)
        return np.where(unit > 0.98, 1.0, unit)


class HalfPrecision(BoxPolicy):
    """Points of 32 bits."""

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Not float64."""
        return super().draw(n, rng).astype(np.float32)


class DrawsFromGlobalState(BoxPolicy):
    """Draws from numpy's global state."""

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Not from the rng handed in."""
        return super().draw(n, np.random.default_rng(np.random.randint(2**31)))  # noqa: NPY002


class KeepsWhatItIsGiven(BoxPolicy):
    """Goes on with the caller's own arrays."""

    def kept(self, weights: Weights) -> Weights:
        """No copies."""
        return dict(weights)


class HandsOutItsOwn(BoxPolicy):
    """Gives away the arrays it draws from."""

    @property
    def weights(self) -> Weights:
        """No copies."""
        return self._box


class TakesAnything(BoxPolicy):
    """Cuts weights of other shapes to its own, and passes over those it does not know."""

    def with_weights(self, weights: Weights) -> Self:
        """Never refuses."""
        cut = {k: np.resize(weights.get(k, w), w.shape) for k, w in self._box.items()}
        return type(self)(self.cube, cut)


class RoundsItsWeights(BoxPolicy):
    """Does not come back as what it was."""

    def with_weights(self, weights: Weights) -> Self:
        """To one digit more each time."""
        new = super().with_weights(weights)
        new._box = {name: 0.9 * array + 0.05 for name, array in new._box.items()}
        return new


class Narrowed(BoxPolicy):
    """Takes the wrong side of the widening."""

    def widened(self) -> Self:
        """Half as wide."""
        low, high = self._box["low"], self._box["high"]
        return self.with_weights({"low": low, "high": 0.5 * (low + high)})


class WritesToThePoints(BoxPolicy):
    """Moves points away from the edge in the caller's own array."""

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """In place."""
        return super().steps(np.clip(unit, 0.01, 0.99, out=unit), context)


class CannotTravel(BoxPolicy):
    """Cannot go to another process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock = threading.Lock()


class Numbered(BoxPolicy):
    """Tells apart what is equal."""

    counter = count()

    def describe(self) -> dict[str, Any]:
        """With a number of its own."""
        return {**super().describe(), "number": next(self.counter)}


BROKEN: list[Control] = [
    Control(make.__name__, law, check_box_policy, make)
    for law, make in [
        ("density", OtherWidth),
        ("density", Unnormalised),
        ("steps sum to log_prob", LeavesAStepOut),
        ("inactive steps are 0", CountsInactive),
        ("each row for itself", StandardisesTheBatch),
        ("inactive at 0.5", InactiveAnywhere),
        ("open cube", TouchesTheEdge),
        ("shape", HalfPrecision),
        ("same rng, same draws", DrawsFromGlobalState),
        ("weights are its own", KeepsWhatItIsGiven),
        ("weights are its own", HandsOutItsOwn),
        ("wrong weights are refused", TakesAnything),
        ("weights are the policy", RoundsItsWeights),
        ("widened is wider", Narrowed),
        ("nothing changes it", WritesToThePoints),
        ("pickles", CannotTravel),
        ("declares itself", Numbered),
    ]
]
