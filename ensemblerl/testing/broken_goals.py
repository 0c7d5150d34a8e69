"""Goals that each break one law of `Goal`; see `ensemblerl.testing.broken`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemblerl.ledger import Ledger
from ensemblerl.protocols import Goal
from ensemblerl.records import AnyArray, Demands, FloatArray
from ensemblerl.testing.core import Control
from ensemblerl.testing.goal_laws import check_goal
from ensemblerl.testing.toys import Least

if TYPE_CHECKING:
    import xarray as xr

EXAMPLES = [{"value": np.array(v), "field": np.array([v, 1.0])} for v in (3.0, -1.0, 0.25)]
WORST_TO_BEST = [[4.0], [0.0], [-2.0]]


def check_least(make: Callable[[], Goal]) -> None:
    """`check_goal` on results that have a ``value``, smaller being better."""
    check_goal(make(), EXAMPLES, worst_to_best=WORST_TO_BEST)


class CountsCalls(Least):
    """Its value drifts with each call."""

    def __init__(self) -> None:
        self.calls = 0

    def value(self, reduced: Mapping[str, AnyArray]) -> FloatArray:
        """(1,) a little more each time."""
        self.calls += 1
        return super().value(reduced) + 1e-9 * self.calls


class RandomValue(Least):
    """Adds noise from numpy's global state."""

    def value(self, reduced: Mapping[str, AnyArray]) -> FloatArray:
        """(1,) another each time."""
        return super().value(reduced) + np.random.random()  # noqa: NPY002


class SortsInPlace(Least):
    """Writes into the result."""

    def value(self, reduced: Mapping[str, AnyArray]) -> FloatArray:
        """(1,) and the field is sorted now."""
        reduced["field"].sort()
        return super().value(reduced)


class Scalar(Least):
    """Gives a number where ``k`` numbers are wanted."""

    def value(self, reduced: Mapping[str, AnyArray]) -> FloatArray:
        """()."""
        return super().value(reduced)[0]  # type: ignore[no-any-return]


class ReducesTooMuch(Least):
    """Keeps a result in half precision: its value is another one."""

    def reduce(self, result: Any) -> Any:
        """Rounded."""
        return {"value": np.round(result["value"])}


class Ranks(Least):
    """Rewards that depend on who else is in the call."""

    def rewards(self, values: FloatArray, fates: AnyArray) -> FloatArray:
        """(n,) centred."""
        rewards = super().rewards(values, fates)
        return rewards - np.nanmean(rewards) if np.isfinite(rewards).any() else rewards


class FailuresAreZero(Least):
    """A reward for members that failed."""

    def rewards(self, values: FloatArray, fates: AnyArray) -> FloatArray:
        """(n,) without NaN."""
        return np.nan_to_num(super().rewards(values, fates))


class TrustsTheValue(Least):
    """Rewards whatever has a value, also when its fate is not ok."""

    def rewards(self, values: FloatArray, fates: AnyArray) -> FloatArray:
        """(n,) NaN only where the value is."""
        return np.asarray(-values[:, 0])


class Swapped(Least):
    """Larger values first, though smaller ones are wanted."""

    def rewards(self, values: FloatArray, fates: AnyArray) -> FloatArray:
        """(n,) of the wrong sign."""
        return -super().rewards(values, fates)


class TellsItsAddress(Least):
    """Describes itself by where it lies in memory."""

    def describe(self) -> dict[str, Any]:
        """Another for each equal goal."""
        return {"goal": object.__repr__(self)}


class HoldsALock(Least):
    """Cannot travel."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> HoldsALock:
        return HoldsALock()


class Freezing(Least):
    """A temperature below zero."""

    def demands(self, ledger: Ledger, n_members: int) -> Demands:
        """Not a temperature."""
        demands = Demands()
        object.__setattr__(demands, "temperature", -1.0)  # it would refuse
        return demands


class NeedsASuccess(Least):
    """Its answer does not know about ledgers without an ok member."""

    def estimate(self, ledger: Ledger) -> xr.Dataset:
        """Fails to be a dataset."""
        return super().estimate(ledger) if ledger.best_member >= 0 else None  # type: ignore[return-value]


BROKEN: list[Control] = [
    Control(make.__name__, law, check_least, make)
    for law, make in [
        ("value is pure", CountsCalls),
        ("value is pure", RandomValue),
        ("value is pure", SortsInPlace),
        ("k values", Scalar),
        ("reduce keeps the value", ReducesTooMuch),
        ("rewards are row-wise", Ranks),
        ("no reward without ok", FailuresAreZero),
        ("no reward without ok", TrustsTheValue),
        ("larger is better", Swapped),
        ("describes itself", TellsItsAddress),
        ("survives pickling", HoldsALock),
        ("demands", Freezing),
        ("estimate reads", NeedsASuccess),
    ]
]
