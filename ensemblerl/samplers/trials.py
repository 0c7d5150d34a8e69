"""Points of the cube as trials of an Optuna study."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemblerl.records import Cube, FloatArray

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

MARGIN = 1e-12
"""How near a point may come to a side of the cube."""


class Trials:
    """A study in memory that maximises; its parameters are the coordinates of the cube.

    A real coordinate is a float in [0, 1], an ordinal one an integer, a categorical one a choice,
    both of the number of the cell.

    Parameters
    ----------
    cube : of the points
    sampler : of Optuna's, the study's own
    """

    def __init__(self, cube: Cube, sampler: BaseSampler) -> None:
        self._cube, self._sampler = cube, sampler
        with quietly():
            self._study = optuna().create_study(sampler=sampler, direction="maximize")
        self._names = [f"x{j}" for j in range(cube.ndim)]
        self._axes = [_axis(kind, n) for kind, n in zip(cube.kinds, cube.levels, strict=True)]
        self._kept: dict[bytes, list[int]] = {}

    def seed(self, rng: np.random.Generator) -> None:
        """Seed what the sampler draws its chance from."""
        for source in random_sources(self._sampler):
            if isinstance(source, np.random.RandomState):
                source.seed(int(rng.integers(2**32)))
            else:
                source.bit_generator.state = type(source.bit_generator)(
                    int(rng.integers(2**63 - 1))
                ).state

    def ask(self) -> tuple[int, FloatArray]:
        """Number of a new trial, and its (ndim,) point: cells by their centres."""
        unit = np.full(self._cube.ndim, 0.5)
        with quietly():
            trial = self._study.ask()
            for j in range(len(unit)):
                if not self._cube.parents[j] or self._cube.active(unit[None])[0, j]:
                    unit[j] = self._suggested(trial, j)
        return trial.number, unit

    def _suggested(self, trial: Any, j: int) -> float:
        name, edges, last = self._names[j], self._cube.edges[j], self._cube.levels[j] - 1
        if edges is None:
            value = trial.suggest_float(name, 0.0, 1.0)
            return float(np.clip(value, MARGIN, 1.0 - MARGIN))
        if self._cube.kinds[j] == "ordinal":
            cell = trial.suggest_int(name, 0, last)
        else:
            cell = trial.suggest_categorical(name, range(last + 1))
        return float(edges[cell] + edges[cell + 1]) / 2.0

    def keep(self, trial: int, unit: FloatArray) -> None:
        """Somebody will claim this trial, by its point."""
        self._kept.setdefault(unit.tobytes(), []).append(trial)

    def claim(self, unit: FloatArray) -> int:
        """The trial kept for this (ndim,) point, or a new one that is running."""
        kept = self._kept.get(unit.tobytes())
        if kept:
            trial = kept.pop(0)
            if not kept:
                del self._kept[unit.tobytes()]
            return trial
        return self._added(unit)

    def _added(self, unit: FloatArray) -> int:
        cells, active = self._cube.cells(unit[None])[0], self._cube.active(unit[None])[0]
        rows = [j for j in range(len(unit)) if active[j]]
        params = {self._names[j]: float(unit[j]) if cells[j] < 0 else int(cells[j]) for j in rows}
        with quietly():
            trial = optuna().create_trial(
                state=optuna().trial.TrialState.RUNNING,
                params=params,
                distributions={self._names[j]: self._axes[j] for j in rows},
            )
            self._study.add_trial(trial)
        return len(self._study.get_trials(deepcopy=False)) - 1

    def end(self, trial: int, reward: float | None) -> None:
        """The trial is complete with this reward, or has failed."""
        state = optuna().trial.TrialState
        with quietly():
            if reward is None:
                self._study.tell(trial, state=state.FAIL)
            else:
                self._study.tell(trial, reward)


def _axis(kind: str, levels: int) -> BaseDistribution:
    distributions = optuna().distributions
    made: BaseDistribution = (
        distributions.FloatDistribution(0.0, 1.0)
        if kind == "real"
        else distributions.IntDistribution(0, levels - 1)
        if kind == "ordinal"
        else distributions.CategoricalDistribution(tuple(range(levels)))
    )
    return made


def held(sampler: Any) -> list[Any]:
    """The sampler, its attributes, and the attributes of Optuna's objects among them: each once.

    In an order that is always the same; a random state that is made at its first use (``rng``) is
    made now.
    """
    found: dict[int, Any] = {}
    waiting = [sampler]
    while waiting:
        thing = waiting.pop()
        if id(thing) in found:
            continue
        found[id(thing)] = thing
        if thing is sampler or type(thing).__module__.split(".")[0] == "optuna":
            inside = dict(getattr(thing, "__dict__", {}))
            if isinstance(getattr(type(thing), "rng", None), property):
                inside["rng"] = thing.rng
            waiting += [inside[name] for name in sorted(inside)]
    return list(found.values())


def random_sources(sampler: Any) -> list[Any]:
    """Every ``RandomState`` and ``Generator`` that a sampler holds."""
    kinds = np.random.RandomState | np.random.Generator
    return [thing for thing in held(sampler) if isinstance(thing, kinds)]


def optuna() -> Any:
    """The package.

    Raises
    ------
    ImportError
        where it is not installed
    """
    try:
        import optuna as package
    except ImportError as error:
        raise ImportError(
            "FromOptuna wants the package optuna: pip install 'ensemblerl[optuna]'"
        ) from error
    return package


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No log lines from this thread's use of a study of ours, no warnings of what is experimental.

    Only for so long: the user's own studies go on saying what they say, in other threads at once.
    """
    here = threading.get_ident()
    handlers = [*logging.getLogger("optuna").handlers, *logging.getLogger().handlers]

    def others(record: logging.LogRecord) -> bool:
        return record.thread != here or not record.name.startswith("optuna")

    for handler in handlers:
        handler.addFilter(others)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(others)
