"""One sampler of ours that follows one search space of a study."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ensemblerl.integrations.axes import Axes
from ensemblerl.protocols import Sampler
from ensemblerl.records import Cube, Fate, Members, Proposals, Results

HUGE = 1e300
"""Rewards are cut here: an infinite one would count as none."""


class Student:
    """Learns from the trials of a study, in their order, whoever ran them.

    What it noted of a point when it drew it (its density, above all) is kept with the trial, as a
    system attribute: so another process learns from the trial as this one does.

    Parameters
    ----------
    study : whose trials it learns from
    distributions : name -> distribution, none of a single value
    make : Cube -> sampler
    key : of its random numbers
    """

    def __init__(
        self,
        study: Study,
        distributions: Mapping[str, BaseDistribution],
        make: Callable[[Cube], Sampler],
        key: int,
    ) -> None:
        self.storage = study._storage
        self._axes, self._key = Axes(distributions), key
        self._sampler = make(self._axes.cube)
        names = hashlib.sha256(json.dumps(sorted(distributions)).encode()).hexdigest()
        self._attribute = f"ensemblerl:{names[:16]}"  # storages limit the length of a key
        self._running: set[int] = set()
        self._over: set[int] = set()

    def draw(self, study: Study, trial: FrozenTrial, rng: np.random.Generator) -> dict[str, Any]:
        """Name -> value for this trial, after learning from the others."""
        for other in study.get_trials(deepcopy=False):
            if other.number not in self._over and other.number != trial.number:
                self._see(study, other)
        proposals = self._sampler.ask(1, rng)
        notes = {name: note[0].tolist() for name, note in proposals.notes.items()}
        record = json.dumps({"unit": proposals.unit[0].tolist(), "notes": notes})
        study._storage.set_trial_system_attr(trial._trial_id, self._attribute, record)
        return self._axes.values(proposals.unit[0])

    def _see(self, study: Study, trial: FrozenTrial) -> None:
        """Be told of a trial, once as running and once as over."""
        if trial.state == TrialState.WAITING:
            return
        if trial.state.is_finished():
            self._over.add(trial.number)
        elif trial.number in self._running:
            return
        proposals = self._proposed(trial)
        if proposals is not None:
            self._running.add(trial.number)
            self._sampler.tell(self._member(trial.number, proposals), _results(study, trial))

    def _proposed(self, trial: FrozenTrial) -> Proposals | None:
        """The point of the trial, with its notes if it is the one that was drawn for it."""
        kept = json.loads(trial.system_attrs.get(self._attribute, "null"))
        unit = self._axes.unit(trial.params)
        if kept is not None:
            own = np.array(kept["unit"])
            values = self._axes.values(own)
            if all(trial.params.get(name, value) == value for name, value in values.items()):
                if unit is None and trial.state.is_finished():
                    return None  # it ended before it had all of its parameters
                notes = {name: np.array([note]) for name, note in kept["notes"].items()}
                return Proposals(own[None], notes)
        return None if unit is None else Proposals(unit[None])

    def _member(self, number: int, proposals: Proposals) -> Members:
        one, zero = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        return Members(
            number=number * one,
            unit=proposals.unit,
            points={},
            seed=1 + (self._key + number * one) % (2**31 - 2),
            notes=proposals.noted(self._sampler.name if proposals.notes else "").notes,
            attempt=one,
            group=zero,
            cycle=zero,
            task=zero,
            fidelity=zero,
            parent=-one,
            state=np.array([""]),
        )


def _results(study: Study, trial: FrozenTrial) -> Results:
    """Larger is better; what is pruned or has failed has no reward."""
    if not trial.state.is_finished():
        return Results.pending(1)
    value, fate = np.nan, Fate.failed
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        sign = -1.0 if study.direction == StudyDirection.MINIMIZE else 1.0
        value, fate = float(np.clip(sign * trial.value, -HUGE, HUGE)), Fate.ok
    reward = np.array([value])
    return Results(reward[:, None], np.array([str(fate)]), reward)
