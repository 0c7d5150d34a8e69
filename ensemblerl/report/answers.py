"""The goal's answer to a campaign that is over, or not yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ensemblerl.goals.extremum import Extremum
from ensemblerl.goals.known import goal_of
from ensemblerl.names import COLUMNS
from ensemblerl.records import FloatArray, IntArray
from ensemblerl.report.tables import MEMBER, column, members, settled
from ensemblerl.space import Space
from ensemblerl.store.kept import ledger, of_dataset


def answer(ds: xr.Dataset) -> xr.Dataset:
    """See `ensemblerl.report.accessor.Erl.answer`."""
    kept = of_dataset(ds, "answer()")
    goal = kept.goal or goal_of(kept.provenance.get("goal") or {})
    held = settled(members(ds))
    told = ledger(kept, change=lambda o: o if o.number in held else None, k=goal.k)
    if isinstance(goal, Extremum) and goal.noisy and kept.provenance.get("space"):
        from ensemblerl.report.posterior import posterior

        return goal.estimate(told, posterior=partial(posterior, _space(kept.provenance["space"])))
    return goal.estimate(told)


def answering(ds: xr.Dataset, rows: IntArray, *, once: bool = False) -> IntArray:
    """Rows that are ranked by their rewards as the goal's answer ranks them: those of a noisy goal
    by their posterior means.

    Parameters
    ----------
    once : of a noisy goal one row a point, the one with the lowest number
    """
    try:
        goal = goal_of(json.loads(ds.attrs.get("goal", "{}")))
    except ValueError:
        return rows
    if not goal.noisy or "space" not in ds.attrs:
        return rows
    from ensemblerl.report.posterior import posterior

    space = _space(json.loads(ds.attrs["space"]))
    rows = rows[np.argsort(column(ds, MEMBER)[rows])]
    unit = space.to_unit({name: column(ds, name)[rows] for name in space})
    mean, *_ = posterior(space, unit, column(ds, "reward")[rows].astype(np.float64))
    order = np.argsort(-mean, kind="stable")
    if once:
        order = order[np.isin(order, np.unique(unit, axis=0, return_index=True)[1])]
    return rows[order]


def _space(given: Mapping[str, Any]) -> Space:
    """Without constraints and start points, which are of no account here."""
    return Space.from_json({key: given[key] for key in ("parameters", "order")})


class Axis(NamedTuple):
    """What pictures show for the reward.

    Parameters
    ----------
    label : with units where they are known
    signed : (n,) rewards -> (n,) what is shown, NaN where there is nothing to show
    """

    label: str
    signed: Callable[[FloatArray], FloatArray]


def axis(ds: xr.Dataset) -> Axis:
    """The objective where its goal is known by its description, else the reward itself."""
    try:
        goal = goal_of(json.loads(ds.attrs.get("goal", "{}")))
    except ValueError:
        return Axis("reward", lambda reward: reward)
    name = str(goal.objective.given) if goal.objective.names else repr(goal.objective)

    def signed(reward: FloatArray) -> FloatArray:
        return goal.signed(np.where(np.isneginf(reward), np.nan, reward))

    return Axis(labelled(name, _attrs(ds, name)), signed)


def _attrs(ds: xr.Dataset, name: str) -> dict[Any, Any]:
    """Of the variable in the results that is called so."""
    kept = f"result_{name}" if name in COLUMNS else name
    return ds[kept].attrs if kept in ds.data_vars else {}


def labelled(name: str, attrs: dict[Any, Any]) -> str:
    """A name with its units.

    Examples
    --------
    >>> labelled("speed", {"units": "m/s"}), labelled("share", {"units": "1"})
    ('speed (m/s)', 'share')
    """
    units = str(attrs.get("units", ""))
    return f"{name} ({units})" if units not in ("", "1") else name
