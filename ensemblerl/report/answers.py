"""The goal's answer to a campaign that is over, or not yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import xarray as xr

from ensemblerl.goals.known import goal_of
from ensemblerl.names import COLUMNS
from ensemblerl.records import FloatArray
from ensemblerl.report.tables import members, settled
from ensemblerl.store.kept import ledger, of_dataset


def answer(ds: xr.Dataset) -> xr.Dataset:
    """See `ensemblerl.report.accessor.Erl.answer`."""
    kept = of_dataset(ds, "answer()")
    goal = kept.goal or goal_of(kept.provenance.get("goal") or {})
    held = settled(members(ds))
    told = ledger(kept, change=lambda o: o if o.number in held else None, k=goal.k)
    return goal.estimate(told)


class Axis(NamedTuple):
    """What pictures show for the reward.

    Parameters
    ----------
    label : with units where they are known
    signed : (n,) rewards -> (n,) what is shown
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
    return Axis(labelled(name, _attrs(ds, name)), goal.signed)


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
