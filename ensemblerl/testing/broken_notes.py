"""Samplers whose notes or densities break a law; see `ensemblerl.testing.broken`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ensemblerl.records import FloatArray, Proposals
from ensemblerl.testing.core import Control
from ensemblerl.testing.learner import BoxLearner
from ensemblerl.testing.sampler_laws import check_sampler

Context = Mapping[str, Any] | None


class TwiceTheDensity(BoxLearner):
    """Off by a constant factor."""

    def log_density(self, unit: FloatArray) -> FloatArray:
        """Not normalised."""
        return np.asarray(super().log_density(unit) + np.log(2.0))


class ClaimsUniform(BoxLearner):
    """Says 0 for draws that crowd in the middle."""

    def log_density(self, unit: FloatArray) -> FloatArray:
        """(n, ndim) -> (n,) of the prior, not of the draw."""
        return np.zeros(len(unit))


class CountsIdle(BoxLearner):
    """Lets inactive coordinates count in the density."""

    def log_density(self, unit: FloatArray) -> FloatArray:
        """(n, ndim) -> (n,) with a factor for the coordinate at 0.5 as well."""
        inside = np.abs(unit - self.centre()) <= 0.25
        return np.asarray(np.log(0.5 + 0.5 * (2.0 * inside).prod(axis=1)))


class DensityOutOfNowhere(BoxLearner):
    """Claims no density and notes one."""

    has_density = False


class ShortNotes(BoxLearner):
    """A note for the batch instead of one a point."""

    def ask(self, n: int, rng: np.random.Generator, context: Context = None) -> Proposals:
        """One row for n points."""
        asked = super().ask(n, rng, context)
        return replace(asked, notes={**asked.notes, "centre": self.centre()[None][: max(n - 1, 0)]})


class ObjectNotes(BoxLearner):
    """A note that no file without pickle can hold."""

    def ask(self, n: int, rng: np.random.Generator, context: Context = None) -> Proposals:
        """Of dtype object."""
        asked = super().ask(n, rng, context)
        return replace(asked, notes={**asked.notes, "why": np.array([None] * len(asked))})


BROKEN: list[Control] = [
    Control(make.__name__, law, check_sampler, make)
    for law, make in [
        ("density", TwiceTheDensity),
        ("density", ClaimsUniform),
        ("density", CountsIdle),
        ("no density, no log_prob", DensityOutOfNowhere),
        ("notes", ShortNotes),
        ("notes", ObjectNotes),
    ]
]
