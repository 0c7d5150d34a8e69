"""The step towards what critics imagine, for token policies and spaces of choices and levels."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from test_critics import bowl, critics_of, points
from test_guided import asking, gentle, rng

from ensemblerl.agents.critics.picking import Known
from ensemblerl.agents.learners.estep import effective_size
from ensemblerl.agents.learners.guided import Guided
from ensemblerl.agents.learners.imagining import (
    DRAWS,
    LEAST,
    MOST,
    dreamt,
    imagined,
    ranks,
    thought_of,
    worth,
)
from ensemblerl.agents.learners.mpo import MPO
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.agents.replay import Replay
from ensemblerl.records import Cube
from ensemblerl.testing.cubes import conditional_cube, mixed_cube, real_cube
from ensemblerl.testing.lessons import rehearse

LEVELS = np.linspace(0.0, 1.0, 6)
CHOICES = Cube(("categorical",) * 4, (5,) * 4, (LEVELS,) * 4)
BEST = np.array([1, 4, 0, 2])
CUBES = {"choices": CHOICES, "mixed": mixed_cube(), "tree": conditional_cube()}
BOTH = {"gp": 0.5, "quadratic": 0.5}


def right(unit, _=None):
    """(n, ndim) -> (n,) how many choices are the best ones, and which of the others it is."""
    cells = CHOICES.cells(unit)
    return (cells == BEST).sum(axis=1) + 0.01 * cells[:, 0]


def gp_of(cube, n=40, reward=bowl):
    unit = points(cube, n)
    return critics_of(cube, unit, reward(unit))


class TestDraws:
    """Joint draws of rewards from a critic."""

    def test_of_the_gaussian_process_have_its_means_and_deviations(self):
        gp = gp_of(mixed_cube()).gp
        unit = points(mixed_cube(), 20, seed=7)
        mean, spread = gp.bent(unit)
        drawn, n = gp.sample(unit, 4000, rng()), 4000
        assert drawn.shape == (n, 20)
        assert (np.abs(drawn.mean(axis=0) - mean) < 4.5 * drawn.std(axis=0) / np.sqrt(n)).all()
        wanted = np.sqrt(spread**2 + 1e-6 * gp.size)
        np.testing.assert_allclose(drawn.std(axis=0), wanted, rtol=4.5 / np.sqrt(2 * n))

    def test_of_the_gaussian_process_are_joint(self):
        """Points side by side get nearly the same reward in each draw."""
        gp = gp_of(real_cube(2), 10).gp
        pair = np.array([[0.9, 0.05], [0.9, 0.051], [0.05, 0.9]])
        drawn = gp.sample(pair, 500, rng())
        corr = np.corrcoef(drawn.T)
        assert corr[0, 1] > 0.99
        assert corr[0, 2] < 0.9

    def test_of_the_quadratic_have_its_means_and_deviations(self):
        noisy = bowl(points(real_cube(2), 40)) + 0.05 * rng(1).standard_normal(40)
        critic = critics_of(real_cube(2), points(real_cube(2), 40), noisy).quadratic
        unit = critic.centre + 0.02 * rng(3).standard_normal((10, 2))
        drawn, n = critic.sample(unit, 4000, rng()), 4000
        mean, spread = critic.predict(unit)
        error = drawn.std(axis=0) / np.sqrt(n)
        assert (np.abs(drawn.mean(axis=0) - mean) < 4.5 * error).all()
        # draws are of the narrow posterior, deviations of the wide one
        wanted = replace(critic, error=critic.root, noise=0.0).predict(unit)[1]
        assert (spread > wanted).all()
        np.testing.assert_allclose(drawn.std(axis=0), wanted, rtol=4.5 / np.sqrt(2 * n))

    def test_of_the_quadratic_say_nothing_outside_its_ball(self):
        critic = gp_of(real_cube(2)).quadratic
        unit = points(real_cube(2), 200, seed=5)
        far = np.linalg.norm((unit - critic.centre) @ critic.metric.T, axis=1) > np.sqrt(2)
        assert 0 < far.sum() < len(far)
        drawn = critic.sample(unit, 3, rng())
        assert np.isneginf(drawn[:, far]).all()
        assert np.isfinite(drawn[:, ~far]).all()

    @pytest.mark.parametrize("weights", [BOTH, {"gp": 1.0}, {"quadratic": 1.0}])
    def test_are_by_critics_that_have_a_weight(self, weights):
        critics, unit = gp_of(real_cube(2)), points(real_cube(2), 200, seed=5)
        drawn = dreamt(critics, weights, unit, rng())
        assert drawn.shape == (DRAWS, 200)
        local = np.isneginf(drawn).any(axis=1)
        assert local.any() == ("quadratic" in weights)
        assert local.all() == ("gp" not in weights)


class TestWorth:
    def test_ranks_are_of_each_draw(self):
        R = ranks(np.array([[3.0, 1.0, 2.0, 9.0], [-np.inf, 5.0, 4.0, 6.0]]))
        np.testing.assert_allclose(R[0], np.array([2, 0, 1, 3]) / 4 + 0.125)
        assert np.isneginf(R[1, 0])
        assert R[1, 3] > R[1, 1] > R[1, 2]

    def test_where_nothing_is_said_all_are_alike(self):
        R = ranks(np.array([[-np.inf, -np.inf], [0.0, 1.0]]))
        assert R[0].tolist() == [0.5, 0.5]
        assert worth(R, 0.1, 1.0)[0].sum() == pytest.approx(1.0)

    @pytest.mark.parametrize("alpha", [0.0, 0.01, 0.1, 1.0])
    @pytest.mark.parametrize("least", [1.0, 5.0, 50.0])
    def test_the_step_is_bounded_by_the_temperature_and_by_what_remains(self, alpha, least):
        share, beta = worth(ranks(rng().standard_normal((8, 100)) + np.arange(100)), alpha, least)
        assert share.sum() == pytest.approx(1.0)
        assert beta * alpha <= 1.0
        size = effective_size(share)
        assert size >= least * (1 - 1e-6)
        bound = alpha > 0 and beta > (1 - 1e-9) / alpha
        assert bound or size < 1.01 * least or alpha == 0.0

    def test_at_the_bound_it_is_the_formula(self):
        R = np.array([[0.1, 0.5, 0.9]])
        share, beta = worth(R, 0.5, 1.0)
        assert beta == pytest.approx(2.0)
        np.testing.assert_allclose(share, np.exp(R[0] / 0.5) / np.exp(R[0] / 0.5).sum())

    def test_where_all_draws_agree_one_is_left_and_where_none_does_many(self):
        sure = np.tile(np.arange(50.0), (DRAWS, 1))
        unsure = rng().standard_normal((DRAWS, 50))
        sizes = [effective_size(worth(ranks(drawn), 0.0, 1.0)[0]) for drawn in (sure, unsure)]
        assert sizes[0] == pytest.approx(1.0)
        assert sizes[1] > 10


class TestCandidates:
    @pytest.mark.parametrize("name", CUBES)
    @pytest.mark.parametrize("kind", [MixturePolicy, TokenPolicy])
    def test_are_points_with_shares(self, name, kind):
        cube = CUBES[name]
        got = imagined(kind(cube), gp_of(cube), {"gp": 1.0}, np.zeros((0, cube.ndim)), 0.05, rng())
        assert 1 < len(got.unit) <= MOST
        assert ((got.unit > 0) & (got.unit < 1)).all()
        np.testing.assert_array_equal(got.unit, cube.canonical(got.unit))
        assert got.share.sum() == pytest.approx(1.0)
        assert got.ess >= min(LEAST * cube.ndim, 0.5 * len(got.unit)) * 0.85
        assert got.temperature >= 0.05 * (1 - 1e-9)

    def test_of_choices_none_is_known_or_comes_twice(self):
        critics, waiting = gp_of(CHOICES, 200, right), points(CHOICES, 100, seed=4)
        unit = thought_of(MixturePolicy(CHOICES), critics, waiting, rng())
        known = Known(CHOICES)
        known.add(np.concatenate([waiting, critics.feasibility.unit]))
        assert len(unit) > 20
        assert known.new(unit).all()
        assert len(np.unique(CHOICES.cells(unit), axis=0)) == len(unit)

    def test_where_all_is_known_there_is_no_step(self):
        cube = Cube(("categorical",) * 2, (5, 5), (LEVELS, LEVELS))
        unit = (np.array(list(itertools.product(range(5), repeat=2))) + 0.5) / 5
        critics = critics_of(cube, unit, bowl(unit))
        got = imagined(MixturePolicy(cube), critics, {"gp": 1.0}, np.zeros((0, 2)), 0.1, rng())
        assert len(got.unit) == len(got.share) == 0

    def test_none_is_where_members_fail(self):
        cube, unit = real_cube(2), points(real_cube(2), 200)
        bad = unit[:, 0] > 0.5
        critics = critics_of(cube, unit[~bad], bowl(unit[~bad]), unit[bad])
        got = thought_of(MixturePolicy(cube), critics, np.zeros((0, 2)), rng())
        assert (got[:, 0] > 0.6).mean() < 0.02


def rehearsed(learner, policy, reward, seed, n=6, demands=None):
    """The policy after lessons from members that the untrained one drew, the same for all."""
    memory, first = Replay(policy.n_steps, policy.cube.ndim), policy
    for i in range(n):
        args = {"reward": reward, "chances": np.array([1.0, 0.0, 0.0]), "first": 10 * i}
        rehearse(memory, first, 10, rng([seed, i]), **args)
        policy = learner.learn(policy, memory, demands or asking(0.0), rng([seed, i])).policy
    return policy


@pytest.mark.parametrize(
    ("kind", "learner"), [(MixturePolicy, MPO), (TokenPolicy, gentle)], ids=["mixture", "tokens"]
)
def test_after_the_same_members_draws_are_better_than_without_critics(kind, learner):
    better = []
    for seed in range(2):
        policies = [rehearsed(make, kind(CHOICES), right, seed) for make in both(learner)]
        better.append([right(p.sample(1000, None, rng(9))).mean() for p in policies])
    guided, bare = np.array(better).T
    assert (guided > bare + 0.3).all()


def both(learner):
    return Guided(learner()), learner()


def test_lesson_after_lesson_many_cells_are_left():
    """With no temperature either."""
    policy, guided = MixturePolicy(CHOICES), Guided(MPO())
    cold = asking(0.0)
    policy = rehearsed(guided, policy, right, 0, n=20, demands=cold)
    cells = CHOICES.cells(policy.sample(500, None, rng(2)))
    assert len(np.unique(cells, axis=0)) > 20


def test_what_was_imagined_is_told():
    cube = CUBES["mixed"]
    memory, policy = Replay(1, 3), MixturePolicy(cube)
    rehearse(memory, policy, 40, rng(), reward=lambda u, _: bowl(u))
    metrics = Guided(MPO()).learn(policy, memory, asking(0.0), rng()).metrics
    assert metrics["imagined_ess"] >= LEAST * cube.ndim * 0.85
