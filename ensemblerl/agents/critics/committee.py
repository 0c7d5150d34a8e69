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
from ensemblerl.agents.critics import ensemble, gaussian_process, quadratic
from ensemblerl.agents.critics.ensemble import Ensemble
from ensemblerl.agents.critics.feasibility import Feasibility, wariness
from ensemblerl.agents.critics.gaussian_process import GaussianProcess
from ensemblerl.agents.critics.quadratic import LocalQuadratic
from ensemblerl.agents.critics.scores import scores
from ensemblerl.protocols import State
from ensemblerl.records import AGAIN, Cube, FloatArray, IntArray

NAMES = ("quadratic", "gp")
"""Of the critics of every committee."""
EVERY = (*NAMES, "ensemble")
"""Of all critics."""
FEWEST = 1000
"""Members that are ok before there is an ensemble: with fewer the Gaussian process foretells
better."""
WINDOW = 32
"""Newest results that critics are judged by."""
ENOUGH = 8
"""Results before there is a judgement; until then each is taken to have the skill `HOPE`."""
HOPE = 0.3
FLOOR = 0.1
"""Least weight of a critic that is there, while any has skill: times change."""
GROWTH = 1.1
"""The scales of the Gaussian process are tuned again when there are so many times as many rows."""
MORE = 256
"""Members that the Gaussian process takes in beyond its number before some are left out again."""


class Critic(Protocol):
    """What foretells rewards."""

    def predict(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n, ndim) -> (n,) means and (n,) standard deviations of the reward."""

    def sample(self, unit: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
        """(m, ndim) -> (n, m) joint draws, without noise, of what rises with the reward; -inf where
        nothing is said.
        """


@dataclass(frozen=True)
class Critics:
    """All there are, of one set of rows.

    Parameters
    ----------
    rewards : (n,) sorted, of the members they are of
    feasibility : of the same, and of those that failed
    quadratic, gp, ensemble : None where there are too few members for it, or nothing to see
    names : of the critics of the committee, whether they are there or not
    """

    rewards: FloatArray
    feasibility: Feasibility
    quadratic: LocalQuadratic | None
    gp: GaussianProcess | None
    ensemble: Ensemble | None = None
    names: tuple[str, ...] = NAMES

    def __getitem__(self, name: str) -> Critic | None:
        critic: Critic | None = getattr(self, name)
        return critic

    @property
    def there(self) -> list[str]:
        """Names of those that can be asked."""
        return [name for name in self.names if self[name] is not None]


class Judged(NamedTuple):
    """(m,) numbers of members, and how wrong each forecast was: (m, 1 + critics), NaN for none."""

    number: IntArray
    error: FloatArray

    @classmethod
    def nothing(cls, critics: int) -> Judged:
        """Nothing yet, of so many critics."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros((0, 1 + critics)))


class Committee:
    """Keeps the critics up to what is known.

    Parameters
    ----------
    cube : of the points
    deep_ensemble : whether a deep ensemble is one of the critics, from `FEWEST` members on
    """

    def __init__(self, cube: Cube, *, deep_ensemble: bool = False) -> None:
        self.cube, self.names = cube, EVERY if deep_ensemble else NAMES
        self._known = np.zeros(0, dtype=np.int64)
        self._theta: FloatArray | None = None
        self._tuned = 0
        self._order = np.zeros(0, dtype=np.int64)
        self._learnt = np.zeros(0, dtype=np.int64)
        self._ensemble: Ensemble | None = None
        self._judged = Judged.nothing(len(self.names))
        self._critics: Critics | None = None
        self._noisy = False

    @property
    def known(self) -> int:
        """Rows that it has taken in."""
        return len(self._known)

    def learn(self, rows: Rows, noisy: bool = False) -> Critics:
        """Judge the critics there are by the rows that are new to them, then take these in.

        Replicas judge nobody: that their points are good was known when they were chosen.

        Parameters
        ----------
        noisy : rewards are noisy draws
        """
        if noisy != self._noisy:
            self._noisy, self._theta = noisy, None
            self._critics, self._ensemble = None, None
        new = ~np.isin(rows.number, self._known)
        if not new.all() and new.any():
            self._critics = self._critics or self._fitted(rows.take(~new))
            self._judge(self._critics, rows.take(new & rows.ok & (rows.critic != AGAIN)))
        if new.any() or self._critics is None:
            n = int(rows.ok.sum())
            if n >= GROWTH * self._tuned:
                self._theta, self._tuned = None, n
                self._learnt, self._ensemble = rows.number.copy(), None
            self._critics = self._fitted(rows)
            self._known = rows.number.copy()
        assert self._critics is not None
        return self._critics

    def _fitted(self, rows: Rows) -> Critics:
        ok, failed = rows.take(rows.ok), (~rows.ok).astype(np.float64)
        gp = gaussian_process.fit(
            self.cube,
            ok.unit,
            ok.reward,
            self._theta,
            noisy=self._noisy,
            keep=None if self._noisy else self._kept(ok),
            before=None if self._critics is None else self._critics.gp,
        )
        if gp is not None:
            self._theta = gp.theta
        worth = gp.means(ok.unit) if gp is not None and gp.noisy else None
        return Critics(
            np.sort(ok.reward),
            Feasibility(self.cube, rows.unit, failed, wariness(failed[rows.critic != ""])),
            quadratic.fit(self.cube, ok.unit, ok.reward, worth) if len(ok) else None,
            gp,
            self._deep(ok),
            self.names,
        )

    def _kept(self, ok: Rows) -> IntArray:
        """Rows that the Gaussian process is of, in the order in which they came to it: those that
        are new come last, so that its factor grows. When scales are tuned they begin anew.
        """
        most, new = gaussian_process.MEMBERS, ok.number[~np.isin(ok.number, self._known)]
        self._order = np.concatenate([self._order[np.isin(self._order, ok.number)], new])
        if self._theta is None or len(self._order) > most + MORE:
            self._order = ok.number[gaussian_process.thinned(ok.reward, most)]
        place = np.argsort(ok.number, kind="stable")
        return np.asarray(place[np.searchsorted(ok.number, self._order, sorter=place)])

    def _deep(self, ok: Rows) -> Ensemble | None:
        """Trained when scales are tuned, and on the rows that these were tuned to: so it comes
        again from the state.
        """
        if "ensemble" not in self.names or self._theta is None:
            return None
        own = ok.take(np.isin(ok.number, self._learnt))
        if self._ensemble is None and len(own) >= FEWEST:
            self._ensemble = ensemble.fit(
                self.cube, own.unit, own.reward, self._theta, noisy=self._noisy
            )
        return self._ensemble

    def _judge(self, critics: Critics, rows: Rows) -> None:
        """How wrong the forecasts of these were; the first column is that of the middle one."""
        if not len(rows) or not len(critics.rewards):
            return
        truth = scores(rows.reward, critics.rewards)
        error = np.full((len(rows), 1 + len(self.names)), np.nan)
        for k, name in enumerate(self.names):
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
        for k, name in enumerate(self.names):
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
            "noisy": self._noisy,
            "order": self._order.copy(),
            "number": self._judged.number.copy(),
            "error": self._judged.error.copy(),
            **({"learnt": self._learnt.copy()} if "ensemble" in self.names else {}),
        }

    def load_state_dict(self, state: State) -> None:
        """Take it up; one of a committee with or without an ensemble.

        Raises
        ------
        ValueError
            for errors of another number of critics than there ever were
        """
        self._known = np.array(state["known"], dtype=np.int64)
        theta = np.array(state["theta"], dtype=np.float64)
        self._theta = theta if len(theta) else None
        self._tuned, self._noisy = int(state["tuned"]), bool(state.get("noisy", False))
        self._order = np.array(state.get("order", self._known), dtype=np.int64)
        self._learnt = np.array(state.get("learnt", []), dtype=np.int64)
        number = np.array(state["number"], dtype=np.int64)
        self._judged = Judged(number, self._columns(number, np.array(state["error"], np.float64)))
        self._critics, self._ensemble = None, None

    def _columns(self, number: IntArray, kept: FloatArray) -> FloatArray:
        """(m, 1 + critics of now) of those that were kept: NaN of a critic that is new."""
        error = np.full((len(number), 1 + len(self.names)), np.nan)
        if len(number):
            kept = kept.reshape(len(number), -1)
            if kept.shape[1] not in (1 + len(NAMES), 1 + len(EVERY)):
                raise ValueError(
                    f"state: wanted errors of {len(NAMES)} or {len(EVERY)} critics, got those of "
                    f"{kept.shape[1] - 1}: it is of another version of EnsembleRL"
                )
            shared = min(kept.shape[1], error.shape[1])
            error[:, :shared] = kept[:, :shared]
        return error
