"""Several samplers at once, each with its share of the points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ensemblerl.protocols import Metrics, Sampler, State
from ensemblerl.records import Demands, FloatArray, Members, Proposals, Results
from ensemblerl.samplers.credit import WINDOW, Credit, heed_all
from ensemblerl.samplers.dealing import Deal, preferences
from ensemblerl.samplers.parts import (
    cube_of,
    load_state_of,
    merge_notes,
    prime_all,
    spent,
    state_of,
    tell_all,
    unique_parts,
)
from ensemblerl.samplers.position import Position


class Portfolio:
    """Each point comes from one of the parts, drawn by their shares; all are told everything.

    A point from a part that has a density gets the density of the *mixture* of all those parts
    (the balance heuristic, Veach and Guibas 1995, doi:10.1145/218380.218498), so that a weight
    is bounded by 1 / share of the prior once a part draws from the prior. Points from parts
    without a density have none and do not enter the mixture. A part that has no more points
    leaves its share to the others. Who proposes point i is a function of i, of the shares and of a
    key, drawn at the first ask and noted as ``<name>_key``, with i as ``<name>_index``; fixed
    designs among the parts get their keys from it. So a portfolio of fixed designs is one itself:
    its points do not depend on how many are asked for at a time.

    With ``credit`` the shares follow the parts whose members improve on what is known; the share
    that a point's part had when it was drawn is noted as ``<name>_share``, and densities are
    of the mixture with the shares of that moment.

    Under a known constraint each part rejects for itself and its density stays untruncated: the
    mixture is exact up to the parts' own feasible masses.

    Parameters
    ----------
    parts : samplers on one cube, with names of their own, one at least with a ``cube``; those
        with a density offer ``log_density``, (n, ndim) -> (n,), of what they draw from now
    shares : (len(parts),) relative shares, None for equal ones
    floor : smallest share of a part
    credit : newest settled members whose results move the shares, see `Credit`; True for 64,
        False for shares that stay. Goals that look for no extremum leave them where they are.
    name : its own name

    Raises
    ------
    TypeError, ValueError
        for parts, shares, a floor or a credit that do not fit, naming the argument

    Examples
    --------
    >>> import numpy as np
    >>> from ensemblerl.records import Cube
    >>> from ensemblerl.samplers.sobol import Sobol
    >>> from ensemblerl.samplers.uniform import Uniform
    >>> cube = Cube(("real",), (0,), (None,))
    >>> portfolio = Portfolio([Uniform(cube), Sobol(cube)], shares=[1, 3])
    >>> portfolio.ask(3, np.random.default_rng(0)).notes["log_prob"].tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        parts: Iterable[Sampler],
        *,
        shares: Sequence[float] | None = None,
        floor: float = 0.05,
        credit: bool | int = False,
        name: str = "portfolio",
    ) -> None:
        self.parts, self.name, self.floor = unique_parts(parts), name, floor
        cube = cube_of(self.parts)
        if cube is None:
            raise TypeError("parts: wanted one sampler at least with a cube, got none")
        self.cube = cube
        self.shares = floored(shares, len(self.parts), floor)
        self.credit = window_of(credit)
        self._credit = Credit(self.parts, self.shares, floor, self.credit) if self.credit else None
        if self._credit is not None:
            self.heed = self._heed  # where nobody heeds, a campaign need not work out demands
        self._at = Position(name)
        self.has_density = any(part.has_density for part in self.parts)
        self.order_free = all(part.order_free for part in self.parts)
        for part in self.parts:
            if part.has_density and not hasattr(part, "log_density"):
                raise TypeError(f"parts: {part.name!r} has a density, wanted a log_density method")

    def ask(
        self, n: int, rng: np.random.Generator, context: Mapping[str, Any] | None = None
    ) -> Proposals:
        """At most n points, in the order in which their parts were drawn."""
        self.prime(rng)
        masses, place, live = self._masses(), self._at.place, self.live_shares
        deal = Deal(self.parts, preferences(self._at.key, place, n, self._shares))
        asked = deal.run(rng, context)
        m = sum(len(proposals) for _, proposals in asked)
        unit = np.empty((m, self.cube.ndim))
        for rows, proposals in asked:
            unit[rows] = proposals.unit
        notes = merge_notes([(rows, proposals.notes) for rows, proposals in asked], m)
        if notes:
            # A part with a density that ran out half-way: no one mixture drew these points.
            steady = _proportional(masses, self._masses() * ~deal.dry)
            notes["log_prob"] = self._mixed(unit, notes["log_prob"], masses, steady)
        if self._credit is not None:
            part = self._credit.parts_of(notes.get("proposer", np.zeros(0, dtype=np.str_)))
            notes[f"{self.name}_share"] = np.where(part < 0, np.nan, live[part])
        index = np.arange(place, place + m)
        self._at.move(index)
        return Proposals(unit, {**notes, **self._at.notes(index)})

    def prime(self, rng: np.random.Generator) -> None:
        """Draw the key now, if there is none yet, and hand keys down."""
        self._at.prime(rng)
        prime_all(self.parts, self._at.key)

    def _mixed(
        self, unit: FloatArray, log_prob: FloatArray, masses: FloatArray, steady: bool
    ) -> FloatArray:
        """(n,) density of the mixture where the part that drew a point has one, else NaN.

        When the mixture did not hold steady, also NaN where its parts differ.
        """
        drawn, out = np.isfinite(log_prob), np.full(len(unit), np.nan)
        if drawn.any() and masses.any():
            logs = self._logs(unit[drawn], masses)
            alike = np.all(logs == logs[:1], axis=0)
            out[drawn] = np.where(steady | alike, log_mean(logs, masses[masses > 0]), np.nan)
        return out

    def _logs(self, unit: FloatArray, masses: FloatArray) -> FloatArray:
        """(m, n) log densities of the m parts that have a mass."""
        dense = [part for part, mass in zip(self.parts, masses, strict=True) if mass > 0]
        return np.array([part.log_density(unit) for part in dense])  # type: ignore[attr-defined]

    def log_density(self, unit: FloatArray) -> FloatArray:
        """(n, ndim) -> (n,) log density of what has one, as it is drawn from now."""
        masses = self._masses()
        return log_mean(self._logs(unit, masses), masses[masses > 0])

    @property
    def _shares(self) -> FloatArray:
        """(len(parts),) as drawn from now, were none of them spent."""
        return self.shares if self._credit is None else self._credit.shares

    @property
    def live_shares(self) -> FloatArray:
        """(len(parts),) shares as drawn from now: 0 for parts that have no more points."""
        live = np.array([not spent(part) for part in self.parts])
        shares = self._shares
        total = float((shares * live).sum())
        return np.asarray(shares * live / (total or 1.0))

    def _masses(self) -> FloatArray:
        """(len(parts),) share of all points that come from each part and have a density."""
        inner = [float(getattr(part, "density_share", part.has_density)) for part in self.parts]
        return np.asarray(self.live_shares * inner)

    @property
    def density_share(self) -> float:
        """Share of the points that have a density."""
        return float(self._masses().sum())

    @property
    def spent(self) -> bool:
        """True when no part has a point left."""
        return all(spent(part) for part in self.parts)

    def _heed(self, demands: Demands) -> None:
        """What the goal asks now: handed on to the parts, which a hook of its own hides."""
        assert self._credit is not None
        self._credit.heed(demands)
        heed_all(self.parts, demands)

    def tell(self, members: Members, results: Results) -> Metrics:
        """Tell every part everything."""
        self._at.told(members)
        if self._credit is not None:
            self._credit.tell(members, results)
        return tell_all(self.parts, members, results)

    def state_dict(self) -> State:
        """Key and place, the states of the parts, and what the shares follow from."""
        credit = {} if self._credit is None else {"credit": self._credit.state_dict()}
        return {**self._at.state_dict(), **credit, "parts": state_of(self.parts)}

    def load_state_dict(self, state: State) -> None:
        """Take them up."""
        self._at.load_state_dict(state)
        load_state_of(self.parts, state["parts"])
        if self._credit is not None:
            self._credit.load_state_dict(state["credit"])

    def describe(self) -> dict[str, Any]:
        """Name, parts, shares, floor and credit."""
        parts = [part.describe() for part in self.parts]
        given = {"shares": self.shares.tolist(), "floor": self.floor, "credit": self.credit}
        return {"sampler": type(self).__name__, "name": self.name, "parts": parts, **given}

    def __repr__(self) -> str:
        shares = [round(share, 4) for share in self.shares.tolist()]
        return f"{type(self).__name__}({list(self.parts)}, shares={shares}, name={self.name!r})"


def log_mean(logs: FloatArray, masses: FloatArray) -> FloatArray:
    """(m, n), (m,) > 0 -> (n,) log of the mean of exp(logs), weighted by masses.

    Equal logs are their own mean exactly: both sums are taken term by term in one order.
    """
    top = np.max(logs, axis=0)
    top = np.where(np.isfinite(top), top, 0.0)
    above, below = np.zeros_like(top), 0.0
    for log, mass in zip(logs, masses, strict=True):
        above += mass * np.exp(log - top)
        below += mass
    with np.errstate(divide="ignore"):
        return np.asarray(top + np.log(above / below))


def _proportional(one: FloatArray, two: FloatArray) -> bool:
    return bool(np.allclose(one * two.sum(), two * one.sum(), rtol=1e-12, atol=0.0))


def window_of(credit: Any) -> int:
    """Members that count for the shares, 0 for none.

    Raises
    ------
    ValueError
        for anything but a truth value or a whole number >= 1
    """
    if isinstance(credit, bool):
        return WINDOW if credit else 0
    if not isinstance(credit, int) or credit < 1:
        raise ValueError(f"credit: wanted True, False or a whole number >= 1, got {credit!r}")
    return credit


def floored(shares: Sequence[float] | None, n: int, floor: float) -> FloatArray:
    """(n,) shares that sum to 1, none below the floor.

    Raises
    ------
    ValueError
        for the wrong number of shares, negative ones, or a floor that n parts cannot have
    """
    if not 0.0 <= floor <= 1.0 / n:
        raise ValueError(f"floor: wanted a share in [0, 1/{n}] for {n} parts, got {floor!r}")
    given = np.ones(n) if shares is None else np.asarray(shares, dtype=np.float64)
    if given.shape != (n,) or not (given >= 0).all() or not 0 < given.sum() < np.inf:
        raise ValueError(f"shares: wanted {n} numbers >= 0, not all 0, got {shares!r}")
    return np.asarray(floor + (1.0 - n * floor) * given / given.sum())
