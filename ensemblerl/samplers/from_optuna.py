"""Any of Optuna's samplers as a sampler of campaigns."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ensemblerl.protocols import Metrics, State
from ensemblerl.records import Cube, Fate, FloatArray, Members, Proposals, Results
from ensemblerl.samplers.rejection import feasible_draws, uniform
from ensemblerl.samplers.trials import Trials, held, optuna, quietly

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

TRIES = 100
"""Infeasible trials in a row before a point is drawn uniformly."""
PENDING, FAILED, OK = range(3)


class FromOptuna:
    """A sampler of Optuna's, in a study of its own that is kept in memory.

    Each member is a trial: running while it is pending, complete with its reward (the study
    maximises), failed when it has none. Members of others, and those of an earlier session, are
    added as trials. Parameters that do not apply to a point are not suggested. A trial that breaks
    the known constraint is told as failed and another one is asked for.

    Before each ask the sampler's random states are seeded from the campaign's. So equal campaigns
    are equal as long as the sampler draws all its chance from `numpy.random.RandomState` or
    ``Generator`` objects that it holds, as `TPESampler`, `RandomSampler`, `GPSampler`,
    `NSGAIISampler` and `CmaEsSampler` do. What a sampler knows besides
    the trials is not kept: a resumed campaign goes on exactly with `RandomSampler` and with
    `TPESampler` (without ``group``); `CmaEsSampler` and `NSGAIISampler` begin their search anew,
    with all trials in the study; `GPSampler` fits its lengths anew; `QMCSampler` would begin its
    sequence again: take `ensemblerl.samplers.Sobol` instead.

    Parameters
    ----------
    cube : where it searches
    sampler : one of Optuna's, or a callable that makes one, such as ``optuna.samplers.TPESampler``;
        a callable that wants an argument gets a seed. Of a sampler a copy is used.
    name : its name in ``proposer``

    Raises
    ------
    ImportError
        without Optuna: ``pip install 'ensemblerl[optuna]'``
    TypeError, ValueError
        for something that neither is nor makes a sampler of Optuna's, or one that another study
        has already
    """

    has_density = False
    order_free = False

    def __init__(
        self,
        cube: Cube,
        sampler: BaseSampler | Callable[..., BaseSampler],
        *,
        name: str = "optuna",
    ) -> None:
        if not isinstance(cube, Cube):
            raise TypeError(f"cube: wanted a Cube such as space.cube, got {type(cube).__name__}")
        self.cube, self.name = cube, name
        self._pristine = _made(sampler)
        self._start()

    def _start(self) -> None:
        self._trials = Trials(self.cube, copy.deepcopy(self._pristine))
        self._status: dict[int, tuple[int, float]] = {}
        self._units: dict[int, FloatArray] = {}
        self._trial: dict[int, int] = {}

    def locate(self, in_process: bool) -> None:
        """A session is to begin: what it knows is what it is told from now on."""
        self._start()

    def ask(
        self, n: int, rng: np.random.Generator, context: Mapping[str, Any] | None = None
    ) -> Proposals:
        """(n, ndim) points of n trials.

        Raises
        ------
        ValueError
            when a known constraint can hardly be met
        """
        self._trials.seed(rng)
        unit = [self._point(rng) for _ in range(n)]
        return Proposals(np.array(unit).reshape(n, self.cube.ndim))

    def _point(self, rng: np.random.Generator) -> FloatArray:
        """(ndim,) of a trial, or where its trials break the known constraint, of none."""
        for _ in range(TRIES):
            trial, unit = self._trials.ask()
            if self.cube.feasible is None or self.cube.feasible(unit[None])[0]:
                self._trials.keep(trial, unit)
                return unit
            self._trials.end(trial, None)
        ndim = self.cube.ndim
        more = feasible_draws(self.cube, lambda n, rng: uniform(n, ndim, rng), 1, rng, self.name)
        return np.asarray(more[0])

    def tell(self, members: Members, results: Results) -> Metrics:
        """A trial for each member that has none, and its end where there is an outcome."""
        for i, number in enumerate(members.number.tolist()):
            if results.fate[i] == Fate.pending:
                self._take(number, members.unit[i], PENDING, np.nan)
            else:
                reward = float(results.reward[i]) if results.fate[i] == Fate.ok else np.nan
                self._take(number, members.unit[i], OK if np.isfinite(reward) else FAILED, reward)
        return {"trials": float(len(self._trial))}

    def _take(self, number: int, unit: FloatArray, status: int, reward: float) -> None:
        if number not in self._trial:
            self._units[number] = np.array(unit, dtype=np.float64)
            self._trial[number] = self._trials.claim(self._units[number])
            self._status[number] = (PENDING, np.nan)
        if status != PENDING and self._status[number][0] == PENDING:
            self._status[number] = (status, reward)
            self._trials.end(self._trial[number], reward if status == OK else None)

    def state_dict(self) -> State:
        """What was told, in the order of the trials."""
        numbers = sorted(self._trial, key=lambda number: self._trial[number])
        status = [self._status[number] for number in numbers]
        unit = np.array([self._units[number] for number in numbers])
        return {
            "number": np.array(numbers, dtype=np.int64),
            "unit": unit.reshape(len(numbers), self.cube.ndim),
            "status": np.array([what for what, _ in status], dtype=np.int64),
            "reward": np.array([reward for _, reward in status], dtype=np.float64),
        }

    def load_state_dict(self, state: State) -> None:
        """Take it in, as trials of a new study."""
        self._start()
        columns = (state[name] for name in ("number", "unit", "status", "reward"))
        for number, unit, status, reward in zip(*columns, strict=True):
            self._take(int(number), unit, int(status), float(reward))

    def describe(self) -> dict[str, Any]:
        """Name, and the class of Optuna's sampler."""
        optunas = type(self._pristine).__name__
        return {"sampler": type(self).__name__, "name": self.name, "optuna_sampler": optunas}

    def __repr__(self) -> str:
        return f"FromOptuna({type(self._pristine).__name__}, name={self.name!r})"


def _made(given: Any) -> BaseSampler:
    base = optuna().samplers.BaseSampler
    sampler = given
    if not isinstance(given, base) and callable(given):
        with quietly():
            sampler = given(*_seed(given))
    if not isinstance(sampler, base):
        raise TypeError(
            "sampler: wanted one of Optuna's samplers, or a callable that makes one such as "
            f"optuna.samplers.TPESampler, got {given!r}"
        )
    if any(getattr(part, "_study_id", None) is not None for part in held(sampler)):
        raise ValueError(
            "sampler: wanted one that has served no study, got one that remembers its parameters; "
            "make another one"
        )
    return cast("BaseSampler", copy.deepcopy(sampler))


def _seed(make: Callable[..., Any]) -> tuple[int, ...]:
    """What it is called with: nothing, or a seed where it wants one argument."""
    try:
        inspect.signature(make).bind()
    except TypeError:
        return (0,)
    return ()
