"""Where does it come from? A release in a sheared wind, seen by nine sensors.

    dc/dt + div(w c) = K lap(c) + s,        w = wind + shear (y - L/2) in the x direction

on a square of L = 2 km, c in g m-2 (integrated over the mixed layer). Finite volumes: upwind
fluxes of values reconstructed with van Leer's limiter (J. Comput. Phys. 32 (1979) 101), central
diffusion, Heun's second-order strong-stability-preserving Runge-Kutta step (Shu and Osher,
J. Comput. Phys. 77 (1988) 439). Second order in space and time where the solution is smooth;
mass is conserved to rounding; and the step

    dt = SAFETY / (2 max|u|/dx + 2 max|v|/dx + 4 K/dx^2)

is short enough that every stage keeps concentrations non-negative: of what a cell holds, at most
twice its mean can stand at its outflow faces, so no stage takes out more than there is. The
number of steps follows from the point; it is never unstable.

The wind carries c out through the edges, nothing comes in, and nothing diffuses across them.

The standard problem: a source of 60 m radius at an unknown place releases from t = 0; nine
sensors report every two minutes for ten minutes. One run takes about 50 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ensemblerl.records import AnyArray, FloatArray

if TYPE_CHECKING:
    from ensemblerl.space import Space

LENGTH = 2000.0
"""Side of the square, m."""
CELLS = 72
RADIUS = 60.0
"""Standard deviation of the source's Gaussian footprint, m."""
SHEAR = 1e-3
"""s-1"""
TIMES = (120.0, 240.0, 360.0, 480.0, 600.0)
"""When the sensors report, s."""
SENSORS = tuple((x, y) for y in (700.0, 1000.0, 1300.0) for x in (900.0, 1200.0, 1500.0))
"""(x, y) of each, m."""
NOISE = 1e-4
"""Standard deviation of a report, g m-2."""
SEED = 1957
SAFETY = 0.95


def solve(
    initial: FloatArray,
    source: FloatArray | float,
    u: FloatArray,
    v: FloatArray,
    diffusivity: float,
    dx: float,
    times: Sequence[float],
) -> FloatArray:
    """Integrate from t = 0.

    Parameters
    ----------
    initial : (ny, nx) concentration, g m-2
    source : (ny, nx) or number, g m-2 s-1, steady
    u : (ny, nx + 1) velocity through the faces across x, m s-1
    v : (ny + 1, nx) velocity through the faces across y, m s-1
    diffusivity : m2 s-1, not negative
    dx : side of a cell, m
    times : (k,) increasing, s

    Returns
    -------
    (k, ny, nx) concentration at these times

    Raises
    ------
    ValueError
        ``times`` do not increase from above 0, or ``diffusivity`` is negative or not finite.
    """
    steps = np.diff((0.0, *times))
    if not np.all(steps > 0):
        raise ValueError(f"times must increase from above 0, got {tuple(times)}")
    if not (np.isfinite(diffusivity) and diffusivity >= 0):
        raise ValueError(f"diffusivity must be finite and not negative, got {diffusivity}")
    fastest = stable_step(u, v, diffusivity, dx)
    c = np.array(initial, dtype=float)
    out = np.empty((len(steps), *c.shape))
    for k, span in enumerate(steps):
        n = max(1, int(np.ceil(span / fastest)))
        for _ in range(n):
            c = _heun(c, source, u, v, diffusivity, dx, span / n)
        out[k] = c
    return out


def stable_step(u: FloatArray, v: FloatArray, diffusivity: float, dx: float) -> float:
    """The longest step that keeps concentrations non-negative, times `SAFETY`, in s."""
    rate = 2 * (np.abs(u).max() + np.abs(v).max()) / dx + 4 * diffusivity / dx**2
    return float(SAFETY / rate) if rate > 0 else np.inf


def wind_field(
    wind: float, angle: float, *, cells: int = CELLS, shear: float = SHEAR
) -> tuple[FloatArray, FloatArray]:
    """(cells, cells + 1) u and (cells + 1, cells) v of a wind towards ``angle`` (degree)."""
    y = (np.arange(cells) + 0.5) * LENGTH / cells
    along = wind * np.cos(np.deg2rad(angle)) + shear * (y - LENGTH / 2)
    u = np.repeat(along[:, None], cells + 1, axis=1)
    return u, np.full((cells + 1, cells), wind * np.sin(np.deg2rad(angle)))


def footprint(x: float, y: float, *, cells: int = CELLS, radius: float = RADIUS) -> FloatArray:
    """(cells, cells) a Gaussian of unit mass around (x, y), m-2."""
    centre = (np.arange(cells) + 0.5) * LENGTH / cells
    shape = (
        np.exp(-((centre - x) ** 2) / (2 * radius**2)),
        np.exp(-((centre - y) ** 2) / (2 * radius**2)),
    )
    return np.outer(shape[1], shape[0]) / (2 * np.pi * radius**2)


def truth() -> dict[str, float]:
    """The point the observations were made with."""
    return {
        "source_x": 520.0,
        "source_y": 870.0,
        "rate": 1.5,
        "diffusivity": 12.0,
        "wind": 2.5,
        "angle": 12.0,
    }


def space() -> Space:
    """Six unknowns, with their units."""
    from ensemblerl.parameters import LogNormal, Normal, Real
    from ensemblerl.space import Space

    return Space(
        source_x=Real(200.0, 1000.0, units="m", long_name="source, eastward"),
        source_y=Real(400.0, 1600.0, units="m", long_name="source, northward"),
        rate=LogNormal.from_median(1.0, factor=1.6, units="g s-1", long_name="release rate"),
        diffusivity=Real(2.0, 50.0, log=True, units="m2 s-1", long_name="eddy diffusivity"),
        wind=Real(1.5, 4.0, units="m s-1", long_name="wind speed"),
        angle=Normal(0.0, 15.0, units="degree", long_name="direction the wind blows towards"),
    )


def run(
    source_x: float, source_y: float, rate: float, diffusivity: float, wind: float, angle: float
) -> FloatArray:
    """(len(TIMES), CELLS, CELLS) concentration, g m-2."""
    u, v = wind_field(wind, angle)
    source = rate * footprint(source_x, source_y)
    return solve(np.zeros((CELLS, CELLS)), source, u, v, diffusivity, LENGTH / CELLS, TIMES)


def at_sensors(fields: FloatArray) -> FloatArray:
    """(k, ny, nx) -> (k, len(SENSORS)), interpolated linearly between cell centres."""
    x, y = np.array(SENSORS).T * fields.shape[-1] / LENGTH - 0.5
    i, j = np.floor(x).astype(int), np.floor(y).astype(int)
    p, q = x - i, y - j
    return np.asarray(
        (1 - q) * ((1 - p) * fields[:, j, i] + p * fields[:, j, i + 1])
        + q * ((1 - p) * fields[:, j + 1, i] + p * fields[:, j + 1, i + 1])
    )


@cache
def observations() -> FloatArray:
    """(len(TIMES), len(SENSORS)) what the sensors reported, g m-2, the same in every process."""
    clean = at_sensors(run(**truth()))
    return clean + NOISE * np.random.default_rng(SEED).standard_normal(clean.shape)


def simulate(
    source_x: float, source_y: float, rate: float, diffusivity: float, wind: float, angle: float
) -> dict[str, AnyArray]:
    """One run and how it fits.

    Parameters
    ----------
    source_x, source_y : m
    rate : g s-1
    diffusivity : m2 s-1
    wind : m s-1
    angle : degree, counted from the x axis, where the wind blows to

    Returns
    -------
    ``misfit`` () root mean square of the residuals over their noise, about 1 at the truth
    ``concentration`` (len(TIMES), len(SENSORS)), g m-2
    ``plume`` (CELLS / 2, CELLS / 2) float32, the last field, means over two by two cells, g m-2
    """
    fields = run(source_x, source_y, rate, diffusivity, wind, angle)
    seen = at_sensors(fields)
    misfit = np.sqrt(np.mean(((seen - observations()) / NOISE) ** 2))
    coarse = fields[-1].reshape(CELLS // 2, 2, CELLS // 2, 2).mean(axis=(1, 3))
    return {
        "misfit": np.asarray(misfit),
        "concentration": seen,
        "plume": coarse.astype(np.float32),
    }


def _heun(
    c: FloatArray,
    source: FloatArray | float,
    u: FloatArray,
    v: FloatArray,
    diffusivity: float,
    dx: float,
    dt: float,
) -> FloatArray:
    first = c + dt * _tendency(c, source, u, v, diffusivity, dx)
    second = first + dt * _tendency(first, source, u, v, diffusivity, dx)
    return np.asarray(0.5 * (c + second))


def _tendency(
    c: FloatArray,
    source: FloatArray | float,
    u: FloatArray,
    v: FloatArray,
    diffusivity: float,
    dx: float,
) -> FloatArray:
    east = _fluxes(c, u, diffusivity / dx)
    north = _fluxes(c.T, v.T, diffusivity / dx).T
    divergence = east[:, 1:] - east[:, :-1] + north[1:] - north[:-1]
    return np.asarray(source - divergence / dx)


def _fluxes(c: FloatArray, velocity: FloatArray, conductance: float) -> FloatArray:
    """(rows, n) cells, (rows, n + 1) faces -> (rows, n + 1) flux through the faces, g m-1 s-1."""
    wide = np.zeros((c.shape[0], c.shape[1] + 2))  # a layer of clean air around the domain
    wide[:, 1:-1] = c
    rise = np.diff(wide, axis=1)
    half = _half_slope(rise[:, :-1], rise[:, 1:])
    low, high = wide.copy(), wide
    low[:, 1:-1] -= half
    high[:, 1:-1] += half
    flux = np.where(velocity > 0, high[:, :-1], low[:, 1:]) * velocity
    flux[:, 1:-1] -= conductance * rise[:, 1:-1]
    return flux


def _half_slope(left: FloatArray, right: FloatArray) -> FloatArray:
    """Half of van Leer's harmonic slope: l r / (l + r) where both have one sign, else 0."""
    product = np.maximum(left * right, 0.0)
    total = left + right
    return np.divide(product, total, out=np.zeros_like(total), where=product > 0.0)
