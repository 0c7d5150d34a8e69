"""Figures that comparisons are made of: pure functions of regrets. Smaller is better throughout.

A regret is how much a point's noise-free value lies above the best there is. Arrays of final
regrets have the shape (functions, instances); the contestants of a comparison met the same
instances, so differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Steps = Sequence[Sequence[float]]
"""(evaluation, regret) wherever the least regret so far falls; evaluations count from 1."""

FLOOR = 1e-8
"""Regrets below it are equally good, here and in COCO."""
TARGETS: Floats = 10.0 ** np.linspace(2.0, -8.0, 51)
"""Regrets to reach, as COCO has them (Hansen et al. 2021, doi:10.1080/10556788.2020.1808977)."""
N_RESAMPLES = 10_000


def decades(regret: Any) -> Floats:
    """(...) -> (...) log10 of the regret, floored."""
    return np.log10(np.maximum(np.asarray(regret, dtype=np.float64), FLOOR))


def incumbent(observed: Any, regret: Any) -> Floats:
    """(n,), (n,) in order of arrival -> (n,) regret of the point that looks best so far.

    What was observed says which point that is; NaN, a failure, never is. NaN before the first.
    """
    value = np.asarray(observed, dtype=np.float64)
    best, out = -1, np.full(len(value), np.nan)
    for i, seen in enumerate(value.tolist()):
        if not math.isnan(seen) and (best < 0 or seen < value[best]):
            best = i
        if best >= 0:
            out[i] = regret[best]
    return out


def improvements(regret: Any) -> list[list[float]]:
    """(n,) regrets in order of arrival, NaN where failed -> `Steps`."""
    least, steps = math.inf, []
    for i, value in enumerate(np.asarray(regret, dtype=np.float64).tolist()):
        if value < least:
            least = value
            steps.append([i + 1, value])
    return steps


def least_after(steps: Steps, n: int) -> float:
    """The least regret after n evaluations, infinite before there is one."""
    return min((value for i, value in steps if i <= n), default=math.inf)


def reached(steps: Steps, targets: Floats = TARGETS) -> Floats:
    """(n_targets,) the evaluation that reached each target, infinite for none."""
    hits = [next((i for i, value in steps if value <= target), math.inf) for target in targets]
    return np.array(hits, dtype=np.float64)


def ecdf_area(steps: Steps, budget: int, targets: Floats = TARGETS) -> float:
    """Area under the share of targets reached, over log(evaluations) from 1 to the budget.

    1 when the first evaluation reaches them all, 0 when nothing is reached. Evaluations divided
    by the dimension give the same: it only moves the axis.
    """
    left = np.log(budget / np.minimum(reached(steps, targets), budget)) / math.log(budget)
    return float(left.mean())


def score(regret: Floats) -> float:
    """(functions, instances) -> mean over functions of the median of log10 of the regret."""
    return float(np.median(decades(regret), axis=1).mean())


def ratio(regret: Floats, random: Floats) -> float:
    """(functions, instances) twice -> geometric mean over functions of the ratio of medians."""
    return float(10.0 ** (score(regret) - score(random)))


def difference(
    one: Floats, two: Floats, *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> tuple[float, float, float]:
    """Score of one minus score of two, with a 95 % interval by paired bootstrap over instances.

    Instances of different functions have nothing in common, so they are drawn anew for each
    function; both contestants get the same draw.

    Parameters
    ----------
    one, two : (functions, instances) regrets on the same instances
    seed : of the draws
    n_resamples : how many

    Returns
    -------
    difference, lower and upper end (percentiles); negative: one is better
    """
    a, b = decades(one), decades(two)
    drawn = [
        np.median(a[f][rows], axis=1) - np.median(b[f][rows], axis=1)
        for f, rows in _draws(a, seed, n_resamples)
    ]
    return score(one) - score(two), *_interval(drawn)


def difference_of_means(
    one: Floats, two: Floats, *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> tuple[float, float, float]:
    """The same for the mean of a figure, such as the area: (functions, instances) twice."""
    apart = np.asarray(one, dtype=np.float64) - np.asarray(two, dtype=np.float64)
    drawn = [apart[f][rows].mean(axis=1) for f, rows in _draws(apart, seed, n_resamples)]
    return float(apart.mean()), *_interval(drawn)


def _draws(each: Floats, seed: int, n_resamples: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For each function of (functions, instances) its (n_resamples, instances) draws."""
    rng = np.random.default_rng(seed)
    for f, instances in enumerate(each):
        yield f, rng.integers(len(instances), size=(n_resamples, len(instances)))


def _interval(drawn: list[Floats]) -> tuple[float, float]:
    """Of the mean over functions, from (n_resamples,) of each."""
    low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    return float(low), float(high)


def mean_and_error(values: Any) -> tuple[float, float]:
    """The mean, and its standard error; NaN for a single value."""
    n = len(values)
    error = float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return float(np.mean(values)), error
