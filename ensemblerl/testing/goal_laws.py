"""The laws of `ensemblerl.protocols.Goal`, one function a law."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ensemblerl.events import Launched, Settled
from ensemblerl.ledger import FATE_CODE, Ledger
from ensemblerl.protocols import Goal
from ensemblerl.records import Demands, Fate, FloatArray, Outcome, Proposals
from ensemblerl.testing.core import global_state_untouched, require, same
from ensemblerl.testing.rehearsal import numbered

ROWS = 200


def check_goal(
    goal: Goal,
    reduced_examples: Sequence[Any],
    *,
    worst_to_best: Sequence[Any] = (),
    seed: int = 0,
) -> None:
    """Hold a goal to its laws.

    Parameters
    ----------
    goal : the goal
    reduced_examples : results as `Goal.reduce` leaves them, at least one
    worst_to_best : values in the order in which the goal must reward them; () leaves it out
    seed : of the random values and fates

    Raises
    ------
    BrokenLawError
        An AssertionError that names the law and says what came.
    """
    value_law(goal, reduced_examples)
    reduce_law(goal, reduced_examples)
    describe_law(goal)
    pickle_law(goal, reduced_examples)
    values, fates = _random_rows(goal, reduced_examples, np.random.default_rng(seed))
    failures_law(goal, values, fates)
    rows_law(goal, values, fates)
    direction_law(goal, worst_to_best)
    ledger_laws(goal, values, fates)


def value_law(goal: Goal, examples: Sequence[Any]) -> None:
    """``k`` numbers, the same whenever and in whatever order they are asked for."""
    first = []
    for example in examples:
        before = copy.deepcopy(example)
        with global_state_untouched("value is pure"):
            value = np.asarray(goal.value(example))
        shape = value.shape
        require(shape == (goal.k,), "k values", f"shape {shape}, wanted {(goal.k,)}")
        require(value.dtype.kind == "f", "k values", f"dtype {value.dtype}, wanted floats")
        require(_alike(example, before), "value is pure", "it wrote into the result")
        first.append(value)
    again = [np.asarray(goal.value(example)) for example in reversed(examples)][::-1]
    again += [np.asarray(goal.value(example)) for example in examples]
    require(same(first * 2, again), "value is pure", f"{first[0]} and later {again[0]}")


def _alike(one: Any, two: Any) -> bool:
    return bool(one.identical(two)) if hasattr(one, "identical") else same(one, two)


def reduce_law(goal: Goal, examples: Sequence[Any]) -> None:
    """What is kept of a result still has its value, and the result is not written to."""
    for example in examples:
        before = copy.deepcopy(example)
        kept = goal.value(goal.reduce(example))
        require(_alike(example, before), "reduce is pure", "it wrote into the result")
        wanted = goal.value(example)
        require(same(kept, wanted), "reduce keeps the value", f"{kept}, wanted {wanted}")


def describe_law(goal: Goal) -> None:
    """A JSON that is the same for equal goals."""
    law = "describes itself"
    try:
        told = json.dumps(goal.describe(), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        require(False, law, f"no JSON: {error}")
    again = json.dumps(copy.deepcopy(goal).describe(), sort_keys=True)
    require(told == again, law, f"{told}, and its copy {again}")


def pickle_law(goal: Goal, examples: Sequence[Any]) -> None:
    """It travels to a worker and gives the same values there."""
    law = "survives pickling"
    try:
        twin = pickle.loads(_dumps(goal))
    except Exception as error:
        require(False, law, f"{type(error).__name__}: {error}")
    require(same(twin.describe(), goal.describe()), law, f"became {twin.describe()}")
    pairs = [(twin.value(example), goal.value(example)) for example in examples]
    require(all(same(a, b) for a, b in pairs), law, f"values became {pairs[:1]}")


def _dumps(goal: Goal) -> bytes:
    try:
        import cloudpickle
    except ImportError:  # pragma: no cover
        return pickle.dumps(goal)
    dumped: bytes = cloudpickle.dumps(goal)
    return dumped


def _random_rows(
    goal: Goal, examples: Sequence[Any], rng: np.random.Generator
) -> tuple[FloatArray, np.ndarray[Any, Any]]:
    """(ROWS, k) values about those of the examples, NaN where not ok, and (ROWS,) fates."""
    known = np.array([goal.value(example) for example in examples])
    values = known[rng.integers(len(known), size=ROWS)]
    values = values * rng.uniform(0.5, 2.0, values.shape) + rng.standard_normal(values.shape)
    fates = rng.choice(np.array(list(FATE_CODE), dtype="U13"), size=ROWS)
    fates[rng.random(ROWS) < 0.5] = Fate.ok
    return np.where(fates[:, None] == Fate.ok, values, np.nan), fates


def failures_law(goal: Goal, values: FloatArray, fates: np.ndarray[Any, Any]) -> None:
    """NaN exactly where the fate is not ok, also where a value is there all the same."""
    law = "no reward without ok"
    for filled in (values, np.nan_to_num(values, nan=1.0)):
        rewards = np.asarray(goal.rewards(filled, fates))
        require(rewards.shape == (len(fates),), "a reward a row", f"shape {rewards.shape}")
        wrong = np.isnan(rewards) != (fates != Fate.ok)
        came = f"{rewards[wrong][:1]} for fate {fates[wrong][:1]}"
        require(not wrong.any(), law, came)


def rows_law(goal: Goal, values: FloatArray, fates: np.ndarray[Any, Any]) -> None:
    """The same row by row, in pieces, permuted, and in one call; inputs are left alone."""
    law, before = "rewards are row-wise", (values.copy(), fates.copy())
    whole = goal.rewards(values, fates)
    require(same((values, fates), before), law, "it wrote into values or fates")
    single = [goal.rewards(values[i : i + 1], fates[i : i + 1]) for i in range(len(values))]
    require(same(np.concatenate(single), whole), law, "row by row they are others")
    order = np.random.default_rng(1).permutation(len(values))
    permuted = goal.rewards(values[order], fates[order])
    require(same(permuted, whole[order]), law, "permuted they are others")
    none = goal.rewards(values[:0], fates[:0])
    require(np.shape(none) == (0,), law, f"no rows give shape {np.shape(none)}")


def direction_law(goal: Goal, worst_to_best: Sequence[Any]) -> None:
    """Larger is better."""
    values = np.array(worst_to_best, dtype=np.float64).reshape(-1, goal.k)
    rewards = goal.rewards(values, np.full(len(values), str(Fate.ok)))
    require((np.diff(rewards) > 0).all(), "larger is better", f"rewards {rewards}, worst first")


def ledger_laws(goal: Goal, values: FloatArray, fates: np.ndarray[Any, Any]) -> None:
    """Demands and estimate read any ledger: empty, all pending, all failed, mixed."""
    pending = np.full(ROWS, str(Fate.pending))
    failed = np.where(fates == Fate.ok, str(Fate.failed), fates)
    for n, became in ((0, pending), (ROWS, pending), (ROWS, failed), (ROWS, fates)):
        ledger = _ledger(goal.k, goal.rewards, n, values, became)
        demands_law(goal.demands(ledger, 2 * ROWS))
        before = {name: ledger[name].copy() for name in ("unit", "value", "reward", "fate_code")}
        estimate_law(goal, ledger)
        after = {name: ledger[name] for name in before}
        require(same(before, after), "estimate reads", "it wrote into the ledger")


def demands_law(demands: Demands) -> None:
    """Temperature and shares lie where the one formula wants them."""
    held = demands.temperature >= 0.0 and 0.0 <= demands.prior_share <= 1.0
    require(held and 0.0 <= demands.wide_share <= 1.0, "demands", f"{demands}")


def estimate_law(goal: Goal, ledger: Ledger) -> None:
    """A dataset, the same when asked again."""
    import xarray as xr

    one, two = goal.estimate(ledger), goal.estimate(ledger)
    require(isinstance(one, xr.Dataset), "estimate reads", f"came a {type(one).__name__}")
    require(one.identical(two), "estimate reads", "asked again it was another")


def _ledger(
    k: int,
    rewards: Callable[[FloatArray, Any], FloatArray],
    n: int,
    values: FloatArray,
    fates: np.ndarray[Any, Any],
) -> Ledger:
    """A ledger of n members launched, and settled where their fate is not pending."""
    ledger = Ledger(2, k)
    unit = np.random.default_rng(2).uniform(0.01, 0.99, (n, 2))
    ledger.apply(Launched(0.0, numbered(Proposals(unit), 0, "law")))
    rows = [i for i in range(n) if fates[i] != Fate.pending]
    found = rewards(values, fates).tolist()
    ended = [
        Outcome(i, 1, str(fates[i]), value=_value(values[i], fates[i]), reward=found[i])
        for i in rows
    ]
    if ended:
        ledger.apply(Settled(1.0, tuple(ended)))
    return ledger


def _value(value: FloatArray, fate: str) -> tuple[float, ...]:
    return tuple(value.tolist()) if fate == Fate.ok else ()
