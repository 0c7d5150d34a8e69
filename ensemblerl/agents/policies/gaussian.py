"""Normal densities of points of which some coordinates are missing, and their fit by weights.

Everything lives on the real line: coordinate u of the cube is y = Phi^-1(u), so that the uniform
prior is the standard normal and the open cube needs no truncation.

Shapes: ``n`` points, ``C`` coordinates, ``K`` components.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ensemblerl.records import BoolArray, FloatArray, IntArray

MEAN_LIMIT = 4.0
"""Largest |mean|: Phi(4) = 0.99997, beyond which a float64 near 1 tells points apart no more."""
SD_LIMITS = (1e-4, 1.0)
"""Smallest and largest standard deviation of a component; 1 is the prior's."""


class Moments(NamedTuple):
    """Weighted sums over points: of weights, y and y y'."""

    total: FloatArray  # (K,)
    first: FloatArray  # (K, C)
    second: FloatArray  # (K, C, C)


def patterns(seen: BoolArray) -> Iterator[tuple[IntArray, IntArray]]:
    """(n, C) -> for each distinct row of ``seen``: the rows like it, the coordinates it has."""
    if seen.all():
        yield np.arange(len(seen)), np.arange(seen.shape[1])
        return
    kinds, which = np.unique(seen, axis=0, return_inverse=True)
    for i, kind in enumerate(kinds):
        yield np.flatnonzero(which.ravel() == i), np.flatnonzero(kind)


def log_ratio(y: FloatArray, seen: BoolArray, mean: FloatArray, cov: FloatArray) -> FloatArray:
    """(n, C) y, (n, C) seen -> (n, K) log N(y; mean, cov) / N(y; 0, 1) over what is seen."""
    out = np.zeros((len(y), len(mean)))
    for rows, there in patterns(seen):
        if len(there):
            part = y[np.ix_(rows, there)]
            factor = np.linalg.cholesky(cov[:, there[:, None], there])
            z = np.linalg.solve(factor, (part[None] - mean[:, None, there]).transpose(0, 2, 1))
            log_det = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
            log_norm = -0.5 * (z**2).sum(axis=1) - log_det[:, None]
            out[rows] = log_norm.T + 0.5 * (part**2).sum(axis=1)[:, None]
    return out


def moments(
    y: FloatArray, seen: BoolArray, weight: FloatArray, mean: FloatArray, cov: FloatArray
) -> Moments:
    """(n, C) y, (n, C) seen, (n, K) weights -> expected sums under N(mean, cov).

    What is missing counts with its conditional mean and covariance (the E-step of Dempster,
    Laird and Rubin 1977, section 4.1.3).
    """
    first, second = np.zeros(mean.shape), np.zeros(cov.shape)
    for rows, there in patterns(seen):
        gone = np.setdiff1d(np.arange(y.shape[1]), there)
        for k, (m, S) in enumerate(zip(mean, cov, strict=True)):
            w, full = weight[rows, k], y[rows]
            if len(gone):
                full, left = _completed(full, there, gone, m, S)
                second[k][np.ix_(gone, gone)] += w.sum() * left
            first[k] += w @ full
            second[k] += (full * w[:, None]).T @ full
    return Moments(weight.sum(axis=0), first, second)


def _completed(
    y: FloatArray, there: IntArray, gone: IntArray, mean: FloatArray, cov: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(n, C) with the missing coordinates at their conditional mean; their covariance given all."""
    cross = cov[np.ix_(there, gone)]
    gain = np.linalg.solve(cov[np.ix_(there, there)], cross) if len(there) else cross
    out = y.copy()
    out[:, gone] = mean[gone] + (y[:, there] - mean[there]) @ gain
    return out, cov[np.ix_(gone, gone)] - cross.T @ gain


def anchored(sums: Moments, count: FloatArray, mean: FloatArray, cov: FloatArray) -> Moments:
    """The sums with (K,) ``count`` points more, spread as N(mean, cov) is."""
    outer = cov + mean[:, :, None] * mean[:, None, :]
    return Moments(
        sums.total + count,
        sums.first + count[:, None] * mean,
        sums.second + count[:, None, None] * outer,
    )


def fitted(sums: Moments, rank: int | None) -> tuple[FloatArray, FloatArray]:
    """(K, C) means and (K, C, C) covariances of largest likelihood, made safe.

    Correlations shrink by C / (C + count): that many points cannot tell more of them. With a
    rank they are those of that many common factors.
    """
    count = np.maximum(sums.total, 1e-12)[:, None]
    middle = sums.first / count
    mean = np.clip(middle, -MEAN_LIMIT, MEAN_LIMIT)
    # about the mean that is kept: with another one it would not be a covariance
    cross = mean[:, :, None] * middle[:, None, :]
    outer = mean[:, :, None] * mean[:, None, :]
    cov = sums.second / count[:, :, None] - cross - cross.transpose(0, 2, 1) + outer
    sd = np.sqrt(np.maximum(np.diagonal(cov, axis1=1, axis2=2), SD_LIMITS[0] ** 2))
    n_dim = mean.shape[1]
    keep = (count / (count + n_dim))[:, :, None]
    correlation = keep * cov / (sd[:, :, None] * sd[:, None, :])
    correlation[:, np.arange(n_dim), np.arange(n_dim)] = 1.0
    if rank is not None and rank < n_dim:
        correlation = np.array([low_rank(one, rank) for one in correlation])
    sd = np.minimum(sd, SD_LIMITS[1])
    return mean, correlation * sd[:, :, None] * sd[:, None, :]


def low_rank(correlation: FloatArray, rank: int) -> FloatArray:
    """(C, C) -> (C, C) with ``rank`` common factors, W W' + D, and 1 on the diagonal."""
    values, vectors = np.linalg.eigh(correlation)
    noise = values[: len(values) - rank].mean()
    factors = vectors[:, -rank:] * np.sqrt(np.maximum(values[-rank:] - noise, 0.0))
    shared = factors @ factors.T
    size = np.sqrt(np.maximum(np.diag(shared), 1.0))
    shared /= size[:, None] * size
    np.fill_diagonal(shared, 1.0)
    return np.asarray(shared)
