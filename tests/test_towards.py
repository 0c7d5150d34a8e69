"""Weighted maximum likelihood in a trust region, for every policy that can be taught it."""

import numpy as np
import pytest
import torch

from ensemblerl.agents.learners.towards import divergence, towards
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.testing.core import same
from ensemblerl.testing.cubes import conditional_cube, mixed_cube, real_cube

CUBES = {"real": real_cube(2), "mixed": mixed_cube(), "tree": conditional_cube()}
POLICIES = {"mixture": MixturePolicy, "tokens": TokenPolicy}


def rng(seed=0):
    return np.random.default_rng(seed)


def near(cube, n=20):
    """(n, ndim) points in a corner of the cube."""
    return cube.canonical(0.1 + 0.15 * rng(5).random((n, cube.ndim)))


def away(old, new):
    """KL(old || new), from many draws."""
    drawn = old.sample(4000, None, rng(9))
    return float((old.log_prob(drawn) - new.log_prob(drawn)).mean())


def likelihood(policy, unit):
    return float(policy.log_prob(unit).mean())


@pytest.mark.parametrize("cube", CUBES.values(), ids=CUBES)
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
class TestBothWays:
    def test_points_become_likelier(self, policy, cube):
        old, unit = policy(cube), near(cube)
        new = towards(old, unit, np.ones(len(unit)), 10.0, rng())
        assert likelihood(new, unit) > likelihood(old, unit) + 0.3

    def test_the_weights_count(self, policy, cube):
        old, unit = policy(cube), near(cube)
        both = np.concatenate([unit, cube.canonical(1.0 - unit)])
        weight = np.repeat([1.0, 0.0], len(unit))
        new = towards(old, both, weight, 10.0, rng())
        gone = cube.canonical(1.0 - unit)
        assert likelihood(new, unit) > likelihood(new, gone) + 0.3

    def test_a_larger_anchor_holds(self, policy, cube):
        old, unit = policy(cube), near(cube)
        gone = [
            away(old, towards(old, unit, np.ones(len(unit)), anchor, rng()))
            for anchor in (5.0, 50.0, 2000.0)
        ]
        assert gone[0] > gone[1] > gone[2] >= -0.01
        assert gone[0] < 4.0
        assert gone[2] < 0.1

    def test_weights_of_0_do_nothing(self, policy, cube):
        old, unit = policy(cube), near(cube)
        assert towards(old, unit, np.zeros(len(unit)), 10.0, rng()) is old
        assert towards(old, unit[:0], np.zeros(0), 10.0, rng()) is old

    def test_it_is_a_function_of_its_arguments(self, policy, cube):
        old, unit = policy(cube), near(cube)
        before = {name: array.copy() for name, array in old.weights.items()}
        one, two = (towards(old, unit, np.ones(len(unit)), 10.0, rng(3)) for _ in range(2))
        assert same(one.weights, two.weights)
        assert same(old.weights, before)


class TestTheGradientsWay:
    def test_little_weight_moves_little(self):
        old, unit = TokenPolicy(CUBES["mixed"]), near(CUBES["mixed"])
        new = towards(old, unit, np.full(len(unit), 1e-6), 10.0, rng())
        assert away(old, new) < 1e-3

    def test_again_and_again_it_gets_there(self):
        """The fixed point for one cell and a weak anchor is that cell."""
        cube = CUBES["mixed"]
        policy, unit = TokenPolicy(cube), near(cube, 1)
        for k in range(30):
            policy = towards(policy, unit, np.ones(1), 0.1, rng(k))
        cells = policy.sample(200, None, rng(1))
        wanted = cube.cells(unit)[0]
        there = (cube.cells(cells) == wanted)[:, wanted >= 0].all(axis=1)
        assert there.mean() > 0.9

    def test_divergence_is_0_and_flat_at_the_old_one(self):
        log_ratio = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        value = divergence(log_ratio)
        value.backward()
        assert value.item() == 0.0
        assert log_ratio.grad.abs().max().item() == 0.0

    def test_divergence_is_without_bias(self):
        """Of two normals a distance of 1 apart: 1 / 2."""
        z = torch.tensor(rng(1).standard_normal(100_000))
        log_ratio = z - 0.5
        error = float((log_ratio.exp() - 1.0 - log_ratio).std()) / np.sqrt(len(z))
        assert abs(divergence(log_ratio).item() - 0.5) < 4 * error


class Other:
    """A policy that can be taught in neither way."""


def test_another_policy_stays_as_it_is():
    old = Other()
    assert towards(old, np.full((1, 2), 0.5), np.ones(1), 1.0, rng()) is old


@pytest.mark.parametrize(
    ("weight", "anchor", "message"),
    [
        (np.ones(2), 1.0, r"^weight: wanted the shape \(3,\), got \(2,\)$"),
        (np.array([1.0, -1.0, 0.0]), 1.0, r"^weight: wanted finite numbers >= 0$"),
        (np.array([1.0, np.nan, 0.0]), 1.0, r"^weight: wanted finite numbers >= 0$"),
        (np.ones(3), 0.0, r"^anchor: wanted a number > 0, got 0.0$"),
        (np.ones(3), np.inf, r"^anchor: wanted a number > 0, got inf$"),
    ],
)
def test_wrong_arguments(weight, anchor, message):
    with pytest.raises(ValueError, match=message):
        towards(MixturePolicy(CUBES["real"]), np.full((3, 2), 0.5), weight, anchor, rng())
