"""Noisy rewards, as a Gaussian process is to see them: not bent, and loud.

A bend sees the luckiest draws apart, so rewards stay as they are, but for a tail that is cut off;
and who calls a goal noisy says that there is noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemblerl.agents.critics.kernel import negative_log_posterior, start, tuned
from ensemblerl.records import FloatArray, IntArray

NOISE = (0.3, 1.5)
"""Prior of the variance of the noise, of results of unit variance: log-normal, middle and spread.
A critic of rewards that nobody calls noisy begins with next to none."""
LOUD = 0.5
"""Share of the noise in the variance that scales are also tuned from: what is noise may look like
short length scales from elsewhere."""
TAIL = 4.0
"""Times that the distance from the median to the best tenth fits between the median and what counts
as bad as all that is worse: a few terrible members would make all others look alike."""


@dataclass(frozen=True)
class Level:
    """t = (max(reward, floor) - middle) / scale, of mean 0 and deviation 1."""

    floor: float
    middle: float
    scale: float

    def __call__(self, reward: FloatArray) -> FloatArray:
        """(n,) rewards -> (n,)."""
        return np.asarray((np.maximum(reward, self.floor) - self.middle) / self.scale)

    def back(self, t: FloatArray) -> FloatArray:
        """(n,) -> (n,) rewards."""
        return np.asarray(self.middle + self.scale * t)


def level(reward: FloatArray) -> Level | None:
    """(n,) finite rewards -> how to see them; None where all are alike."""
    with np.errstate(over="ignore", invalid="ignore"):
        middle, good = np.quantile(reward, [0.5, 0.9])
        floor = float(middle - TAIL * (good - middle)) if good > middle else -np.inf
        y = np.maximum(reward, floor)
        mean, scale = float(y.mean()), float(y.std())
    return Level(floor, mean, scale) if 0.0 < scale < np.inf else None


def loud(x: FloatArray, of: IntArray, y: FloatArray) -> FloatArray:
    """(n, F) columns, (F,) coordinate of each, (n,) rewards of mean 0 and deviation 1 -> (D + 2,)
    the most probable scales, see `ensemblerl.agents.critics.kernel.start`.
    """
    quiet = start(int(of.max()) + 1)
    begins = quiet, np.array([*quiet[:-1], np.log(LOUD)])
    found = [tuned(theta, x, of, y, NOISE) for theta in begins]
    return min(found, key=lambda theta: negative_log_posterior(theta, x, of, y, NOISE)[0])


def evenly(n: int, most: int) -> IntArray:
    """At most so many of n rows: all, or some at equal distances, whatever their rewards, of which
    the largest are the luckiest.
    """
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)
