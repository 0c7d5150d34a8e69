"""One run of the `cma` package's evolution strategy, fed by whole generations of results."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.records import BoolArray, FloatArray

MARGIN = 1e-12
"""How near a point may come to a side of the cube."""
LEAST = 0.3
"""Least standard deviation along a discrete coordinate, in cells: so its neighbours are tried."""


class Plan(NamedTuple):
    """How a run begins: (ndim,) its centre, its width in the cube, results in a generation."""

    centre: FloatArray
    sigma: float
    popsize: int


class Evolution:
    """A run: draws at any time, learns from one generation of results at a time.

    A draw changes nothing, so that a run is a function of its plan and of the generations fed.
    The package wants two coordinates at least, and it gets a second one that nothing depends on.

    Parameters
    ----------
    plan : how it begins
    levels : (ndim,) cells of each coordinate, 0 for a real one
    """

    def __init__(self, plan: Plan, levels: tuple[int, ...]) -> None:
        self.popsize = plan.popsize
        self._ndim = len(levels)
        spare = max(0, 2 - self._ndim)
        least = [LEAST / n if n > 1 else 0.0 for n in levels] + [0.0] * spare
        # A rng of its own: what it asks itself for, between generations, is thrown away.
        self._rng = np.random.default_rng(0)
        with quietly():
            self._es: Any = cma().CMAEvolutionStrategy(
                [*plan.centre, *[0.5] * spare],
                plan.sigma,
                {
                    "bounds": [0.0, 1.0],
                    "popsize": plan.popsize,
                    "minstd": least,
                    "randn": self._randn,
                    "seed": np.nan,
                    "verbose": -9,
                    "signals_filename": "",
                },
            )
            self._es.ask()

    def _randn(self, *shape: int) -> FloatArray:
        return self._rng.standard_normal(shape)

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) points of the distribution as it is."""
        es = self._es
        steps = (es.sm.D * rng.standard_normal((n, len(es.sm.D)))) @ es.sm.B.T
        inner = es.mean + es.sigma * es.sigma_vec.scaling * steps
        return self._outer(inner)[:, : self._ndim]

    def _outer(self, inner: FloatArray) -> FloatArray:
        """(n, N) coordinates of the package's own -> (n, N) in the cube."""
        es = self._es
        repair = es.boundary_handler.repair
        rows = [es.gp.pheno(row, copy=True, into_bounds=repair) for row in inner]
        return np.clip(np.reshape(rows, inner.shape), MARGIN, 1.0 - MARGIN)

    def feed(self, unit: FloatArray, active: BoolArray, loss: FloatArray, fresh: BoolArray) -> None:
        """Learn from a generation.

        Parameters
        ----------
        unit : (popsize, ndim)
        active : (popsize, ndim) coordinates that count; the others are drawn anew, so that nothing
            is learnt along them
        loss : (popsize,) finite, smaller is better
        fresh : (popsize,) drawn from the distribution as it is. The steps of the others are cut
            to the length of a long draw (Hansen 2011, arXiv:1110.4181).
        """
        es = self._es
        with quietly():
            inner = self._inner(unit, active)
            for i in np.flatnonzero(~fresh):
                inner[i] = es.repair_genotype(inner[i], copy_if_changed=True)
            es.tell(list(self._outer(inner)), loss.tolist(), check_points=False)
            # It asks itself, and forgets: only then are its axes those of its new covariance.
            es.ask()

    def _inner(self, unit: FloatArray, active: BoolArray) -> FloatArray:
        """(n, ndim) in the cube, and what is active of it -> (n, N) in the package's own."""
        es, more = self._es, len(self._es.mean) - self._ndim
        inverse = es.boundary_handler.inverse
        padded = np.pad(unit, ((0, 0), (0, more)), constant_values=0.5)
        inner = np.array([es.gp.geno(row, inverse) for row in padded])
        anew = es.mean + es.stds * self._rng.standard_normal(inner.shape)
        return np.where(np.pad(active, ((0, 0), (0, more))), inner, anew)

    def over(self) -> bool:
        """Whether it has converged, or got stuck."""
        with quietly():
            return bool(self._es.stop())


def usual_popsize(ndim: int) -> int:
    """4 + 3 ln(ndim), rounded down: Hansen 2016, arXiv:1604.00772, table 1."""
    return 4 + int(3 * np.log(max(ndim, 2)))


def cma() -> Any:
    """The package.

    Raises
    ------
    ImportError
        where it is not installed
    """
    try:
        import cma as package
    except ImportError as error:
        raise ImportError("Cma wants the package cma: pip install 'ensemblerl[cma]'") from error
    return package


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Its advice is for people who steer it by hand; the filters it sets are undone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
