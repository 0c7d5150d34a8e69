"""Critics that vouch for themselves: each weighs what its forecasts of the newest results did.

A forecast is made by what was known at the lesson before, so that no critic is judged by what it
has seen. All are compared on one scale, `ensemblerl.agents.critics.scores`: by how much they were
wrong, to how much a forecast is that says the same of every member.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ensemblerl.agents.base import Rows
from ensemblerl.agents.critics import gaussian_process, quadratic
from ensemblerl.agents.critics.feasibility import Feasibility
from ensemblerl.agents.critics.gaussian_process import GaussianProcess
from ensemblerl.agents.critics.quadratic import LocalQuadratic
from ensemblerl.agents.critics.scores import scores
from ensemblerl.protocols import State
from ensemblerl.records import Cube, FloatArray, IntArray

NAMES = ("quadratic", "gp")
WINDOW = 32
"""Newest results that critics are judged by."""
ENOUGH = 8
"""Results before there is a judgement; until then each is taken to have the skill `HOPE`."""
HOPE = 0.3
FLOOR = 0.1
"""Least weight of a critic that is there, while any has skill: times change."""
GROWTH = 1.1
"""The scales of the Gaussian process are tuned again when there are so many times as many rows."""


class Critic(Protocol):
    """What foretells rewards."""

    def predict(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n, ndim) -> (n,) means and (n,) standard deviations of the reward."""


@dataclass(frozen=True)
class Critics:
    """All there are, of one set of rows.

    Parameters
    ----------
    rewards : (n,) sorted, of the members they are of
    feasibility : of the same, and of those that failed
    quadratic, gp : None where there are too few members for it, or nothing to see
    """

    rewards: FloatArray
    feasibility: Feasibility
    quadratic: LocalQuadratic | None
    gp: GaussianProcess | None

    def __getitem__(self, name: str) -> Critic | None:
        critic: Critic | None = getattr(self, name)
        return critic

    @property
    def there(self) -> list[str]:
        """Names of those that can be asked."""
        return [name for name in NAMES if self[name] is not None]


class Judged(NamedTuple):
    """(m,) numbers of members, and how wrong each forecast was: (m, 1 + critics), NaN for none."""

    number: IntArray
    error: FloatArray

    @classmethod
    def nothing(cls) -> Judged:
        """Nothing yet."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros((0, 1 + len(NAMES))))


class Committee:
    """Keeps the critics up to what is known.

    Parameters
    ----------
    cube : of the points
    """

    def __init__(self, cube: Cube) -> None:
        self.cube = cube
        self._known = np.zeros(0, dtype=np.int64)
        self._theta: FloatArray | None = None
        self._tuned = 0
        self._judged = Judged.nothing()
        self._critics: Critics | None = None

    @property
    def known(self) -> int:
        """Rows that it has taken in."""
        return len(self._known)

    def learn(self, rows: Rows) -> Critics:
        """Judge the critics there are by the rows that are new to them, then take these in."""
        new = ~np.isin(rows.number, self._known)
        if not new.all() and new.any():
            before = self._critics or self._fitted(rows.take(~new))
            self._judge(before, rows.take(new & rows.ok))
        if new.any() or self._critics is None:
            n = int(rows.ok.sum())
            if n >= GROWTH * self._tuned:
                self._theta, self._tuned = None, n
            self._critics = self._fitted(rows)
            self._known = rows.number.copy()
        assert self._critics is not None
        return self._critics

    def _fitted(self, rows: Rows) -> Critics:
        ok = rows.take(rows.ok)
        gp = gaussian_process.fit(self.cube, ok.unit, ok.reward, self._theta)
        if gp is not None:
            self._theta = gp.theta
        return Critics(
            np.sort(ok.reward),
            Feasibility(self.cube, rows.unit, (~rows.ok).astype(np.float64)),
            quadratic.fit(self.cube, ok.unit, ok.reward) if len(ok) else None,
            gp,
        )

    def _judge(self, critics: Critics, rows: Rows) -> None:
        """How wrong the forecasts of these were; the first column is that of the middle one."""
        if not len(rows) or not len(critics.rewards):
            return
        truth = scores(rows.reward, critics.rewards)
        error = np.full((len(rows), 1 + len(NAMES)), np.nan)
        for k, name in enumerate(NAMES):
            if (critic := critics[name]) is not None:
                told = scores(critic.predict(rows.unit)[0], critics.rewards)
                error[:, 1 + k] = np.abs(told - truth)
        error[:, 0] = truth
        number = np.concatenate([self._judged.number, rows.number])
        error = np.concatenate([self._judged.error, error])
        newest = np.sort(np.argsort(number, kind="stable")[-WINDOW:])
        self._judged = Judged(number[newest], error[newest])

    def skills(self) -> dict[str, float]:
        """Name -> 1 for forecasts that are right, 0 for those no better than one for all."""
        truth = self._judged.error[:, 0]
        out = {}
        for k, name in enumerate(NAMES):
            error = self._judged.error[:, 1 + k]
            there = ~np.isnan(error)
            if there.sum() < ENOUGH:
                out[name] = HOPE
                continue
            plain = float(np.abs(truth[there] - np.median(truth[there])).mean())
            out[name] = max(0.0, 1.0 - float(error[there].mean()) / plain) if plain > 0 else 0.0
        return out

    def weights(self, critics: Critics) -> dict[str, float]:
        """Name -> share of those that are there, by the square of their skill; none where no
        forecast is worth anything: then learning is from results alone.
        """
        skills = self.skills()
        square = {name: skills[name] ** 2 for name in critics.there}
        total = sum(square.values())
        if total <= 0:
            return {}
        least = FLOOR if len(square) > 1 else 0.0
        free = 1.0 - least * len(square)
        return {name: least + free * value / total for name, value in square.items()}

    # ---- the state

    def state_dict(self) -> State:
        """What was known, and what was made of forecasts; critics are made again from that."""
        theta = np.zeros(0) if self._theta is None else self._theta
        return {
            "known": self._known.copy(),
            "theta": theta.copy(),
            "tuned": self._tuned,
            "number": self._judged.number.copy(),
            "error": self._judged.error.copy(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take it up."""
        self._known = np.array(state["known"], dtype=np.int64)
        theta = np.array(state["theta"], dtype=np.float64)
        self._theta = theta if len(theta) else None
        self._tuned = int(state["tuned"])
        self._judged = Judged(
            np.array(state["number"], dtype=np.int64),
            np.array(state["error"], dtype=np.float64).reshape(-1, 1 + len(NAMES)),
        )
        self._critics = None
