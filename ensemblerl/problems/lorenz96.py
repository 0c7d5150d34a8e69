"""Lorenz-96 for many members at once: a chaotic ring whose parameters are found from a twin run.

    dx_i/dt = c (x_{i+1} - x_{i-2}) x_{i-1} - d x_i + F,      i = 0 ... size - 1, a ring

With coupling ``c`` = damping ``d`` = 1 this is the model of E. N. Lorenz, "Predictability: a
problem partly solved", Seminar on Predictability, ECMWF (1996). The advection term conserves the
energy 1/2 sum x_i^2, and x_i = F/d is a fixed point (unstable for F = 8). One time unit is
Lorenz's five days.

The standard problem: eight variables start from a known state, but one of them is off by an
unknown ``bump``; everything is observed every 0.25 time units up to 1.5, with noise of standard
deviation 0.5. `simulate` says how badly a point fits. Beyond that time chaos would leave no
gradient to follow. `simulate_many` does more than 10,000 points a second on one core.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ensemblerl.records import AnyArray, FloatArray

if TYPE_CHECKING:
    from ensemblerl.space import Space

Number = float | FloatArray

SIZE = 8
STEP = 0.05
STEPS_PER_OBSERVATION = 5
N_OBSERVATIONS = 6
NOISE = 0.5
SEED = 1996


def tendency(
    x: FloatArray, forcing: Number, *, damping: Number = 1.0, coupling: Number = 1.0
) -> FloatArray:
    """Rate of change of the ring.

    Parameters
    ----------
    x : (size, ...) variables first, so that members lie side by side in memory
    forcing, damping, coupling : (...) one value a member, or numbers

    Returns
    -------
    (size, ...) dx/dt
    """
    ring = np.concatenate((x[-2:], x, x[:1]))  # ring[i + 2] is x[i]: three slices, no np.roll
    advection = (ring[3:] - ring[:-3]) * ring[1:-2]
    return np.asarray(coupling * advection - damping * x + forcing)


def step(
    x: FloatArray,
    forcing: Number,
    dt: float = STEP,
    *,
    damping: Number = 1.0,
    coupling: Number = 1.0,
) -> FloatArray:
    """One classical fourth-order Runge-Kutta step of length ``dt`` (time units).

    Parameters
    ----------
    x : (size, ...) state
    forcing, damping, coupling : (...) one value a member, or numbers

    Returns
    -------
    (size, ...) state a step later

    Examples
    --------
    >>> import numpy as np
    >>> float(abs(step(np.full((8, 3), 8.0), 8.0) - 8.0).max())  # x = F is a fixed point
    0.0
    """

    def rate(y: FloatArray) -> FloatArray:
        return tendency(y, forcing, damping=damping, coupling=coupling)

    k1 = rate(x)
    k2 = rate(x + dt / 2 * k1)
    k3 = rate(x + dt / 2 * k2)
    k4 = rate(x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def truth() -> dict[str, float]:
    """The point the observations were made with."""
    return {"forcing": 8.0, "damping": 1.0, "coupling": 1.0, "bump": 0.6}


def space() -> Space:
    """Four uncertain inputs, the truth somewhere inside."""
    from ensemblerl.parameters import Normal, Real
    from ensemblerl.space import Space

    return Space(
        forcing=Normal(8.0, 0.5, long_name="forcing"),
        damping=Real(0.7, 1.3, long_name="damping rate"),
        coupling=Real(0.8, 1.2, long_name="strength of the advection"),
        bump=Real(-2.0, 2.0, long_name="error of the first variable at the start"),
    )


@cache
def initial_state() -> FloatArray:
    """(size,) a state on the attractor of the truth: 20 time units after a small kick."""
    x = np.full(SIZE, 8.0)
    x[0] += 0.01
    for _ in range(400):
        x = step(x, 8.0)
    return x


def trajectories(points: Mapping[str, ArrayLike]) -> FloatArray:
    """States at the times of observation.

    Parameters
    ----------
    points : forcing, damping, coupling, bump -> (n,) or numbers

    Returns
    -------
    (N_OBSERVATIONS, size, n)

    Raises
    ------
    ValueError
        A parameter is missing or unknown.
    """
    forcing, damping, coupling, bump = _columns(points)
    x = np.repeat(initial_state()[:, None], len(forcing), axis=1)
    x[0] += bump
    out = np.empty((N_OBSERVATIONS, *x.shape))
    for k in range(N_OBSERVATIONS):
        for _ in range(STEPS_PER_OBSERVATION):
            x = step(x, forcing, damping=damping, coupling=coupling)
        out[k] = x
    return out


@cache
def observations() -> FloatArray:
    """(N_OBSERVATIONS, size) the truth's trajectory with noise, the same in every process."""
    clean = trajectories(truth())[:, :, 0]
    return clean + NOISE * np.random.default_rng(SEED).standard_normal(clean.shape)


def simulate_many(points: Mapping[str, ArrayLike]) -> dict[str, FloatArray]:
    """Run all points at once.

    Parameters
    ----------
    points : forcing, damping, coupling, bump -> (n,) or numbers

    Returns
    -------
    ``misfit`` (n,) root mean square of the residuals over their noise, about 1 at the truth
    ``final`` (n, size) where the members are at the end
    """
    states = trajectories(points)
    residual = (states - observations()[:, :, None]) / NOISE
    return {
        "misfit": np.sqrt(np.mean(residual**2, axis=(0, 1))),
        "final": np.ascontiguousarray(states[-1].T),
    }


def simulate(forcing: float, damping: float, coupling: float, bump: float) -> dict[str, AnyArray]:
    """One point: ``misfit`` () and ``final`` (size,), as in `simulate_many`."""
    point = {"forcing": forcing, "damping": damping, "coupling": coupling, "bump": bump}
    return {name: column[0] for name, column in simulate_many(point).items()}


def _columns(points: Mapping[str, ArrayLike]) -> list[FloatArray]:
    names = tuple(truth())
    if set(points) != set(names):
        raise ValueError(f"points must name exactly {names}, got {tuple(points)}")
    columns = [np.atleast_1d(np.asarray(points[name], dtype=float)) for name in names]
    return list(np.broadcast_arrays(*columns))
