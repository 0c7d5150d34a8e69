"""Goals back from their descriptions in a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ensemblerl.goals.extremum import Extremum
from ensemblerl.goals.maximize import Maximize
from ensemblerl.goals.minimize import Minimize
from ensemblerl.goals.objective import Given

EXTREMA: dict[str, type[Extremum]] = {"Maximize": Maximize, "Minimize": Minimize}
_SAID = {"goal", "objective", "keep"}
_ONLY_WHERE_ASKED_FOR = {"subject_to", "noisy", "replicate"}


def goal_of(description: Mapping[str, Any]) -> Extremum:
    """The goal that described itself like this.

    An objective that is text comes back as it was. One that was a function comes back as a
    stand-in with its name: an estimate needs values and rewards only, but `Goal.value` raises.

    Parameters
    ----------
    description : what `Goal.describe` gave, as the provenance holds it

    Raises
    ------
    ValueError
        for a goal of somebody else

    Examples
    --------
    >>> goal_of({"goal": "Maximize", "objective": "2 * drag", "keep": None, "k": 1})
    Maximize('2 * drag')
    """
    said = {name: value for name, value in description.items() if name != "k"}
    name = said.get("goal")
    if name not in EXTREMA or said.keys() - _ONLY_WHERE_ASKED_FOR != _SAID:
        raise ValueError(
            f"goal: {name or 'none'!s} in the store is not known here; give it: "
            "ds.erl.reread(goal).erl.answer()"
        )
    objective = said["objective"]
    given = objective if isinstance(objective, str) else stand_in(objective)
    return EXTREMA[name](
        given,
        subject_to=said.get("subject_to", ()),
        noisy=said.get("noisy", False),
        replicate=said.get("replicate", 0.0),
        keep=said["keep"],
    )


def stand_in(description: Mapping[str, Any]) -> Given:
    """A function called like the one described, that says that it cannot be asked."""
    name = str(description.get("name", "objective"))

    def objective(there: Mapping[str, Any]) -> Any:
        raise ValueError(
            f"objective {name}: wanted the function itself, but a store keeps only its name; "
            "give the goal: ds.erl.reread(goal)"
        )

    objective.__name__ = objective.__qualname__ = name
    objective.__module__ = str(description.get("module", ""))
    return objective
