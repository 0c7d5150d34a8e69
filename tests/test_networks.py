"""Networks of the deep ensemble: slopes, and that each is trained on its own rows."""

import itertools

import numpy as np
import pytest

from ensemblerl.agents.critics.networks import Networks, drawn, trained


def rng(seed=0):
    return np.random.default_rng(seed)


def test_slopes_of_networks_are_those_of_differences():
    networks = drawn(2, (3, 5, 4, 2), 1.0, rng())
    weights, biases = ([part.astype(float) for part in side] for side in networks)
    x, slope = rng(1).standard_normal((2, 6, 3)), rng(2).standard_normal((2, 6, 2))

    def loss():
        return float((Networks(tuple(weights), tuple(biases))(x) * slope).sum())

    networks = Networks(tuple(weights), tuple(biases))
    told, by_rows = networks.back(networks.layers(x), slope)
    for values, found in zip([*weights, *biases, x], [*told, by_rows], strict=True):
        assert values.shape == found.shape
        for at in itertools.islice(np.ndindex(values.shape), 0, None, 3):
            was = values[at]
            values[at] = was + 1e-6
            more = loss()
            values[at] = was - 1e-6
            less = loss()
            values[at] = was
            assert found[at] == pytest.approx((more - less) / 2e-6, rel=1e-5, abs=1e-7)


def test_each_network_is_one_of_its_own():
    networks = drawn(3, (2, 4, 1), 1.0, rng())
    x = rng(1).standard_normal((5, 2))
    for k in range(3):
        alone = Networks(*([part[[k]] for part in side] for side in networks))
        np.testing.assert_allclose(alone(x)[0], networks(x)[k], rtol=1e-5)


def test_each_network_is_trained_on_its_own_rows_alone():
    x = rng().uniform(-1.0, 1.0, (40, 1)).astype(np.float32)
    target = np.stack([np.sign(x), -np.sign(x)])
    target[0, 20:] = target[1, :20] = 9.0  # rows that the other has
    rows = np.array([np.arange(20), np.arange(20, 40)])
    start = drawn(2, (1, 16, 1), 0.1, rng(1))
    before = [part.copy() for side in start for part in side]
    found = trained(start, x, target, rows, 400, 16, 1e-2, 0.1, rng(2))
    told = found(x)
    for k in range(2):
        left = np.abs(told[k] - target[k])[rows[k]]
        assert left.mean() < 0.25
    for part, was in zip((part for side in start for part in side), before, strict=True):
        np.testing.assert_array_equal(part, was)
