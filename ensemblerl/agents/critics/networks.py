"""Small networks side by side, trained at once: in plain NumPy, so that no campaign loads torch
for a critic.

Shapes: ``K`` networks, ``n`` rows, ``F`` inputs, ``k`` outputs; all float32.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ensemblerl.records import AnyArray, IntArray

MOMENTS = (0.9, 0.999)
"""Of Adam (Kingma and Ba 2015, arXiv:1412.6980)."""
TINY = 1e-8
FLAT = 0.3
"""Share of the steps at the full rate; then it falls to 0 along a cosine."""


class Networks(NamedTuple):
    """K perceptrons of tanh: of each layer ``weights`` (K, inputs, outputs), and ``biases``
    (K, 1, outputs).
    """

    weights: tuple[AnyArray, ...]
    biases: tuple[AnyArray, ...]

    def __call__(self, x: AnyArray) -> AnyArray:
        """(n, F), or (K, n, F) rows of each -> (K, n, k)."""
        return self.layers(x)[-1]

    def layers(self, x: AnyArray) -> list[AnyArray]:
        """What each layer gives, the rows first and the outputs last."""
        out = [x]
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = out[-1] @ weight + bias
            out.append(np.tanh(z, out=z) if i + 1 < len(self.weights) else z)
        return out

    def back(self, layers: list[AnyArray], slope: AnyArray) -> tuple[list[AnyArray], AnyArray]:
        """From the slope of a loss by the outputs, (K, n, k), those by weights and biases, in this
        order, and that by the rows, (K, n, F).
        """
        weights, biases = list[AnyArray](), list[AnyArray]()
        for i in reversed(range(len(self.weights))):
            weights.append(layers[i].swapaxes(-1, -2) @ slope)
            biases.append(slope.sum(axis=1, keepdims=True))
            slope = slope @ self.weights[i].swapaxes(-1, -2)
            if i:
                slope *= 1.0 - layers[i] ** 2
        return weights[::-1] + biases[::-1], slope


def drawn(K: int, sizes: tuple[int, ...], last: float, rng: np.random.Generator) -> Networks:
    """K networks of random weights that keep the size of a signal, in the last layer ``last``
    times that; ``sizes`` is (F, hidden, ..., k).
    """
    weights, biases = [], []
    for i, (a, b) in enumerate(pairwise(sizes)):
        end = i + 2 == len(sizes)
        weight = rng.standard_normal((K, a, b)) / np.sqrt(a) * (last if end else 1.0)
        bias = rng.standard_normal((K, 1, b)) * (0.0 if end else 0.5)
        weights.append(weight.astype(np.float32))
        biases.append(bias.astype(np.float32))
    return Networks(tuple(weights), tuple(biases))


def trained(
    networks: Networks,
    x: AnyArray,
    target: AnyArray,
    rows: IntArray,
    steps: int,
    batch: int,
    rate: float,
    decay: float,
    rng: np.random.Generator,
) -> Networks:
    """Each on its own rows, by AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).

    Parameters
    ----------
    x : (n, F)
    target : (K, n, k)
    rows : (K, m) that each is trained on, as often as they are named
    steps, batch : minibatches, and rows in one
    rate, decay : step size, and how fast weights shrink, in rates
    """
    layers, K = len(networks.weights), len(rows)
    values = [value.copy() for value in (*networks.weights, *networks.biases)]
    first, second = ([np.zeros_like(value) for value in values] for _ in MOMENTS)
    each = np.arange(K)[:, None]
    keep, keep_square = (np.float32(moment) for moment in MOMENTS)
    for step in range(1, steps + 1):
        now = Networks(tuple(values[:layers]), tuple(values[layers:]))
        some = rows[each, rng.integers(rows.shape[1], size=(K, batch))]
        seen = now.layers(x[some])
        slopes, _ = now.back(seen, (seen[-1] - target[each, some]) / np.float32(batch))
        done = max(0.0, step / steps - FLAT) / (1.0 - FLAT)
        pace = rate * 0.5 * (1.0 + np.cos(np.pi * done))
        by = np.float32(pace / (1.0 - MOMENTS[0] ** step))
        scale = np.float32(1.0 / (1.0 - MOMENTS[1] ** step))
        for i, slope in enumerate(slopes):
            first[i] += (1 - keep) * (slope - first[i])
            second[i] += (1 - keep_square) * (slope**2 - second[i])
            if i < layers:
                values[i] *= np.float32(1.0 - pace * decay)
            values[i] -= by * first[i] / (np.sqrt(scale * second[i]) + np.float32(TINY))
    return Networks(tuple(values[:layers]), tuple(values[layers:]))
