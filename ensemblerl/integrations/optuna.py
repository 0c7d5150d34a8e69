"""The agent as a sampler of Optuna's, for people who have a study."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study
from optuna.trial import FrozenTrial

from ensemblerl.agents.maxent import MaxEnt
from ensemblerl.integrations.student import Student
from ensemblerl.protocols import Sampler
from ensemblerl.records import Cube

MOST = 64
"""Search spaces that are remembered; others are learnt from the trials again when they return."""


class MaxEntSampler(BaseSampler):
    """`ensemblerl.agents.MaxEnt` as a sampler of Optuna's.

    Parameters that all complete trials have are drawn together, from one agent. Each other one,
    and all of them in the first trials, is drawn by itself, from an agent that knows the trials
    with this parameter. What it knows are the trials of the study, nothing else: several processes
    may share a study, and a study that is loaded again goes on. Failed and pruned trials count as
    worse than all others; running ones as pending.

    The study has one objective. All distributions are taken as Optuna draws them: uniform, or
    uniform in the logarithm.

    Parameters
    ----------
    seed : of its draws; None for another one each time
    agent : Cube -> sampler, ``MaxEnt(cube, learning="inline")`` when None

    Raises
    ------
    TypeError, ValueError
        naming the argument, what was wanted and what came; ``ValueError`` for a study of several
        objectives

    Examples
    --------
    >>> import optuna
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study(sampler=MaxEntSampler(seed=1))
    >>> study.optimize(lambda trial: trial.suggest_float("x", -10, 10) ** 2, n_trials=60)
    >>> study.best_value < 0.1
    True
    """

    def __init__(
        self, *, seed: int | None = None, agent: Callable[[Cube], Sampler] | None = None
    ) -> None:
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(f"seed: wanted a whole number >= 0 or None, got {seed!r}")
        if agent is not None and not callable(agent):
            raise TypeError(f"agent: wanted a callable of the cube or None, got {agent!r}")
        self._make = _usual if agent is None else agent
        self._rng = np.random.default_rng(seed)
        self._key = int(self._rng.integers(2**31))
        self._students: dict[tuple[Any, ...], Student] = {}
        self._lock = threading.Lock()

    def reseed_rng(self) -> None:
        """Another random state, so that copies in several processes do not draw alike."""
        with self._lock:
            self._rng = np.random.default_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that all complete trials have, those of a single value left out."""
        _one_objective(study)
        space = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: axis for name, axis in space.items() if not axis.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Name -> value, all drawn together."""
        _one_objective(study)
        return self._draw(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value of this parameter alone."""
        _one_objective(study)
        return self._draw(study, trial, {param_name: param_distribution})[param_name]

    def _draw(
        self, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        single = {name: _only(axis) for name, axis in space.items() if axis.single()}
        open_space = {name: space[name] for name in sorted(space) if name not in single}
        if not open_space:
            return single
        with self._lock:
            student = self._student(study, open_space)
            return {**single, **student.draw(study, trial, self._rng)}

    def _student(self, study: Study, space: dict[str, BaseDistribution]) -> Student:
        """Who follows this search space of this study; the one asked for last is kept longest."""
        key = (study._study_id, *((name, repr(axis)) for name, axis in space.items()))
        student = self._students.pop(key, None)
        if student is None or student.storage is not study._storage:
            student = Student(study, space, self._make, self._key)
        self._students[key] = student
        while len(self._students) > MOST:
            self._students.pop(next(iter(self._students)))
        return student

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be learnt again from the trials."""
        return {**vars(self), "_students": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def _usual(cube: Cube) -> Sampler:
    return MaxEnt(cube, learning="inline")


def _one_objective(study: Study) -> None:
    if len(study.directions) > 1:
        raise ValueError(
            "study: MaxEntSampler wants one with a single objective, got one with "
            f"{len(study.directions)}"
        )


def _only(axis: BaseDistribution) -> Any:
    """The value of a distribution that has one."""
    return axis.choices[0] if hasattr(axis, "choices") else axis.low  # type: ignore[attr-defined]
