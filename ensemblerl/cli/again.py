"""One member of a campaign run once more, and compared with what its store holds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.cli.causes import placeless
from ensemblerl.cli.differing import by_share
from ensemblerl.cli.errors import told
from ensemblerl.cli.script import at_explore
from ensemblerl.front import Given
from ensemblerl.goals.known import goal_of
from ensemblerl.ledger import Ledger
from ensemblerl.protocols import Goal, Job
from ensemblerl.provenance import check_same
from ensemblerl.records import AnyArray, Fate, Outcome
from ensemblerl.simulations.function import as_simulation
from ensemblerl.space import Space
from ensemblerl.store.backend import open_store
from ensemblerl.store.columns import Layout, Points
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.index import Files, SegmentIndex
from ensemblerl.store.reading import read_ledger
from ensemblerl.stores import imported
from ensemblerl.worker import run_bundle

ROUNDING = 1e-9
"""Relative difference up to which two results are taken to be the same but for rounding."""


class Kept(NamedTuple):
    """A member as the store has it."""

    path: Path
    member: int
    ledger: Ledger
    about: dict[str, Any]
    space: Space

    @classmethod
    def of(cls, path: Path, member: int) -> Kept:
        """Read it.

        Raises
        ------
        ValueError
            for a number that was not launched
        """
        ledger, about = read_ledger(path)
        if not member < ledger.n:
            there = f"0 to {ledger.n - 1}" if ledger.n else "none yet"
            raise ValueError(f"member: wanted one of the members {there}, got {member}")
        return cls(path, member, ledger, about, Space.from_json(about["space"]))

    @property
    def point(self) -> dict[str, Any]:
        """As the simulation gets it."""
        return self.space.point(self.ledger.members([self.member], self.space.to_points).points, 0)


class Variable(NamedTuple):
    """One variable of both results; ``by`` how much they differ, 0.0 for the same."""

    name: str
    now: AnyArray | None
    kept: AnyArray | None
    by: float


class Again(NamedTuple):
    """How it went, and what the store holds.

    Parameters
    ----------
    outcome : now
    fate, cause : in the store
    variables : of both
    changed : versions of the simulation then and now where they differ, else ""
    """

    outcome: Outcome
    fate: str
    cause: str
    variables: list[Variable]
    changed: str

    @property
    def same_cause(self) -> bool:
        """Whether it was said alike; where each of them ran is nothing of its own."""
        return placeless(self.cause) == self.outcome.cause

    @property
    def agrees(self) -> bool:
        """Whether it went like the first time, but for rounding."""
        alike = all(variable.by <= ROUNDING for variable in self.variables)
        return self.fate == Fate.pending or (self.outcome.fate == self.fate and alike)


def again(kept: Kept, workflow: Path | None) -> Again:
    """Run it here, with the simulation of the workflow or the one that its name leads to.

    Raises
    ------
    ValueError, ScriptError
        when the simulation cannot be found, or the workflow is another campaign's
    """
    if workflow is not None:
        return at_explore(workflow, (), _like(kept))
    try:
        simulation = imported(kept.about["simulation"])
    except ValueError as error:
        script = _script(kept)
        if script is None:
            raise ValueError(f"{told(error).partition(';')[0]}; give its --workflow") from error
        return at_explore(script, kept.about["command_line"][1:], _like(kept))
    try:
        goal: Goal = goal_of(kept.about["goal"])
    except ValueError as error:
        raise ValueError("goal: it is not one of ours; give its --workflow") from error
    return run(kept, simulation, goal)


def _script(kept: Kept) -> Path | None:
    """The script that began the campaign, if it is there."""
    line = kept.about.get("command_line") or [""]
    places = [line[0], kept.about.get("simulation", {}).get("file") or ""]
    found = [Path(place) for place in places if place.endswith(".py") and Path(place).is_file()]
    return found[0] if found else None


def _like(kept: Kept) -> Callable[[Given], Again]:
    """Run it with what a workflow was about to run, if that is the same campaign."""

    def then(given: Given) -> Again:
        check_same(str(kept.path), kept.about, given.space, given.goal)
        return run(kept, given.simulation, given.goal)

    return then


def run(kept: Kept, simulation: Any, goal: Goal) -> Again:
    """Run it as a worker would, in a store of its own that is gone afterwards."""
    simulation = as_simulation(simulation)
    members = kept.ledger.members([kept.member], kept.space.to_points)
    with tempfile.TemporaryDirectory(prefix="ensemblerl-rerun-") as place:
        with closing(DirectoryStore.create(place, kept.about)) as store:
            job = Job(simulation, goal, store.segments, os.getpid(), kept.space.casts)
            outcome = run_bundle(job, members).outcomes[0]
        arrays = _arrays(Path(store.segments), outcome)
    ds = open_store(kept.path).isel(member=kept.member)
    then, now = str(ds["simulation_version"].values), simulation.version or ""
    return Again(
        outcome._replace(cause=placeless(outcome.cause)),  # its files are gone
        str(ds["fate"].values),
        str(ds["cause"].values),
        _variables(kept, ds, arrays),
        f"{then} then, {now} now" if then != now else "",
    )


def _arrays(segments: Path, outcome: Outcome) -> dict[str, AnyArray]:
    index = SegmentIndex(segments)
    index.refresh()
    place = index.find(outcome.number, outcome.attempt)
    if place is None or not place.digest:
        return {}
    with Files(segments) as files:
        return {name: np.array(a) for name, a in index.arrays(place, None, files).items()}


def _variables(kept: Kept, ds: Any, arrays: dict[str, AnyArray]) -> list[Variable]:
    """Those of both; the store's only where the member is ok there."""
    schema = kept.ledger.schema
    layout = Layout(schema.layout if schema else None, Points(kept.about))
    ok = str(ds["fate"].values) == Fate.ok
    theirs = {f.source: np.asarray(ds[name].values) for name, f in layout.fields.items() if ok}
    names = list(dict.fromkeys([*arrays, *theirs]))
    return [_variable(name, arrays.get(name), theirs.get(name)) for name in names]


def _variable(name: str, now: AnyArray | None, kept: AnyArray | None) -> Variable:
    by = np.inf if now is None or kept is None else by_share(now, kept)
    return Variable(name, now, kept, by)
