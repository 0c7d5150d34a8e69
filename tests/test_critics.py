"""Critics: what foretells rewards, how it is judged, and the points it picks."""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize

from ensemblerl.agents.base import Rows
from ensemblerl.agents.critics import committee as committee_module
from ensemblerl.agents.critics import gaussian_process, improvement, kernel, picking, quadratic
from ensemblerl.agents.critics.committee import (
    ENOUGH,
    FLOOR,
    HOPE,
    NAMES,
    WINDOW,
    Committee,
    Critics,
)
from ensemblerl.agents.critics.feasibility import LIKELY, Feasibility, plane, wariness
from ensemblerl.agents.critics.features import columns, ordered, shut
from ensemblerl.agents.critics.gaussian_process import bend, thinned
from ensemblerl.agents.critics.improvement import Improvement, log_h, log_improvement
from ensemblerl.agents.critics.picking import foretold, picked
from ensemblerl.agents.critics.quadratic import LocalQuadratic, averaged, evidence, maximum
from ensemblerl.agents.critics.scores import scores
from ensemblerl.records import Cube
from ensemblerl.testing.box_policy import BoxPolicy
from ensemblerl.testing.core import plain_state, same
from ensemblerl.testing.cubes import (
    THREE,
    conditional_cube,
    constrained_cube,
    example_cubes,
    mixed_cube,
    real_cube,
)

CHOICES = Cube(("categorical",) * 2, (3, 3), (THREE, THREE))
CUBES = {**example_cubes(), "choices": CHOICES}


def rng(seed=0):
    return np.random.default_rng(seed)


def bowl(unit, at=0.4):
    return -((unit - at) ** 2).sum(axis=1)


def points(cube, n, seed=0):
    unit = cube.canonical(rng(seed).uniform(0.001, 0.999, (4 * n, cube.ndim)))
    return unit[cube.feasible(unit)][:n] if cube.feasible else unit[:n]


def rows_of(number, unit, reward):
    n = len(number)
    zero = np.zeros(n)
    nobody = np.full(n, -1), zero + 1, np.full(n, "")
    return Rows(np.array(number), unit, reward, zero, np.zeros((n, 1)), *nobody)


def critics_of(cube, unit, reward, failed=None):
    """All critics of members that are ok, and ``failed`` points."""
    failed = np.empty((0, cube.ndim)) if failed is None else failed
    flags = np.concatenate([np.zeros(len(unit)), np.ones(len(failed))])
    return Critics(
        np.sort(reward),
        Feasibility(cube, np.concatenate([unit, failed]), flags),
        quadratic.fit(cube, unit, reward),
        gaussian_process.fit(cube, unit, reward),
    )


# ---- features and scores


def test_any_two_categories_are_as_far_apart_as_the_ends_of_an_ordered_coordinate():
    cube = mixed_cube()
    unit = np.array([[0.0, 0.5, 0.1], [0.0, 0.5, 0.6], [0.0, 0.5, 0.9], [1.0, 0.5, 0.9]])
    x, of = columns(cube, unit)
    assert of.tolist() == [0, 1, 2, 2, 2]
    apart = kernel.squares(x, x)
    expected = [[0, 1, 1, 2], [1, 0, 1, 2], [1, 1, 0, 1], [2, 2, 1, 0]]
    np.testing.assert_allclose(apart, expected, atol=1e-15)
    assert ordered(cube).tolist() == [0, 1]


def test_an_imagined_point_is_inside_the_open_cube():
    unit = shut(np.array([-3.0, 0.0, 0.3, 1.0, 2.0]))
    assert ((unit > 0) & (unit < 1)).all()
    assert unit[2] == 0.3


def test_a_score_is_minus_the_log_of_the_share_that_is_better():
    among = np.arange(999.0)
    found = scores(np.array([-5.0, 898.5, 988.5, 2000.0]), among)
    better = np.array([999.5, 100.5, 10.5, 0.5])  # of 1000, with the member itself in the middle
    np.testing.assert_allclose(found, np.log(1000 / better))
    # ties are worth what is between those below and those above
    np.testing.assert_allclose(scores(np.zeros(1), np.zeros(3)), np.log(2.0))
    np.testing.assert_allclose(scores(np.zeros(1), np.zeros(30)), np.log(2.0))
    assert (scores(np.array([-np.inf, np.inf]), among) == scores(np.array([-9, 2e3]), among)).all()


def test_scores_do_not_depend_on_the_unit_of_the_reward():
    reward, among = rng(1).standard_normal(20), np.sort(rng(2).standard_normal(50))
    np.testing.assert_array_equal(scores(reward, among), scores(8 * reward - 3, 8 * among - 3))


# ---- the quadratic: what it sees


def concave(d, seed):
    """A quadratic, and where it is largest."""
    turn = np.linalg.qr(rng(seed).standard_normal((d, d)))[0]
    hessian = -(turn * rng(seed).uniform(1.0, 20.0, d)) @ turn.T
    at = rng(seed).uniform(0.35, 0.65, d)
    return lambda u: 3.0 + 0.5 * np.einsum("ni,ij,nj->n", u - at, hessian, u - at), at


@pytest.mark.parametrize("d", [2, 3, 5])
def test_a_quadratic_without_noise_is_recovered_with_its_maximum(d):
    f, at = concave(d, d)
    unit = points(real_cube(d), 30 + 12 * d)
    critic = quadratic.fit(real_cube(d), unit, f(unit))
    new = points(real_cube(d), 100, seed=9)
    mean, spread = critic.predict(new)
    assert np.abs(mean - f(new)).max() < 1e-5
    assert spread.max() < 1e-3
    step = maximum(*quadratic.gradient_and_hessian(critic.mean, d), 1e6)
    np.testing.assert_allclose(critic.centre + np.linalg.solve(critic.metric, step), at, atol=1e-6)
    maxima = critic.maxima(64, rng())
    assert np.abs(maxima - at).max(axis=1).min() < 1e-5
    # none is farther than the radius of the local set
    z = (maxima - critic.centre) @ critic.metric.T
    assert np.linalg.norm(z, axis=1).max() < np.sqrt(d) * (1 + 1e-6)


@pytest.mark.parametrize("d", [1, 2])
def test_no_quadratic_without_noise_is_taken_for_noise(d):
    for seed in range(50):
        draw = rng(seed)
        size, at = np.exp(draw.uniform(0, 3)), draw.uniform(0.35, 0.65, d)
        unit = draw.random((30 + 12 * d, d))
        critic = quadratic.fit(real_cube(d), unit, 0.5 * size * bowl(unit, at))
        assert critic.noise < 1e-6


def test_draws_differ_as_much_as_the_critic_is_unsure():
    cube, unit = real_cube(2), points(real_cube(2), 40)
    noise = rng(1).standard_normal(40)
    calm, rough = (quadratic.fit(cube, unit, bowl(unit) + s * noise) for s in (1e-6, 0.05))
    widths = [critic.maxima(200, rng()).std(axis=0).mean() for critic in (calm, rough)]
    assert widths[1] > 1.3 * widths[0]


def test_each_draw_trusts_the_model_as_far_as_its_own_radius():
    unit = 0.4 + 0.2 * points(real_cube(2), 60)
    critic = quadratic.fit(real_cube(2), unit, unit.sum(axis=1) + 1e-6 * rng(1).random(60))
    z = (critic.maxima(400, rng()) - critic.centre) @ critic.metric.T
    share = np.log(np.linalg.norm(z, axis=1) / np.sqrt(2)) / np.log(0.05)
    assert -1e-6 < share.min() < 0.02
    assert 0.98 < share.max() < 1.0 + 1e-6
    assert abs(share.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 400)


def regression(seed, n, F, noise=0.2, size=0.3):
    draw = rng(seed)
    x = np.concatenate([np.ones((n, 1)), draw.standard_normal((n, F - 1))], axis=1)
    w = size * draw.standard_normal(F)
    group = np.array([0] + [1] * (F // 3) + [2] * (F - 1 - F // 3))
    return x, x @ w + noise * draw.standard_normal(n), group, w


def log_evidence(logs, x, y, group):
    """Of the weights integrated out: y ~ N(0, X P^-1 X' + s^2)."""
    precision = np.array([1e-6, *np.exp(logs[:2])])
    cov = (x / precision[group]) @ x.T + np.exp(logs[2]) * np.eye(len(y))
    factor = np.linalg.cholesky(cov)
    return -0.5 * (np.linalg.solve(factor, y) ** 2).sum() - np.log(np.diag(factor)).sum()


@pytest.mark.parametrize("seed", range(3))
def test_the_posterior_is_the_conjugate_one_at_the_scales_of_largest_evidence(seed):
    x, y, group, _ = regression(seed, 120, 13)
    mean, root, noise, precision = evidence(x, y, group)
    inverse = np.linalg.inv(root @ root.T)
    rest = inverse - x.T @ x / noise
    prior = np.diag(rest)
    np.testing.assert_allclose(rest, np.diag(prior), atol=1e-5 * np.diag(inverse).max())
    np.testing.assert_allclose(mean, root @ root.T @ x.T @ y / noise, rtol=1e-6, atol=1e-9)
    own = [prior[group == k] for k in (1, 2)]
    for each in own:  # one scale a group
        np.testing.assert_allclose(each, each.mean(), rtol=1e-3)
    np.testing.assert_allclose(precision[1:], [each.mean() for each in own], rtol=1e-3)
    logs = np.log([own[0].mean(), own[1].mean(), noise])
    found = minimize(lambda t: -log_evidence(t, x, y, group), logs + 0.5, method="Nelder-Mead")
    assert log_evidence(logs, x, y, group) > -found.fun - 1e-3
    np.testing.assert_allclose(logs, found.x, atol=0.05)


def test_many_members_leave_nothing_to_the_prior():
    x, y, group, _ = regression(0, 4000, 7)
    mean, root, noise, _ = evidence(x, y, group)
    plain, left = np.linalg.lstsq(x, y, rcond=None)[:2]
    np.testing.assert_allclose(mean, plain, atol=1e-3)
    assert noise == pytest.approx(left[0] / (4000 - 7), rel=1e-3)
    np.testing.assert_allclose(root @ root.T, noise * np.linalg.inv(x.T @ x), rtol=0.02, atol=1e-8)


def test_a_group_that_tells_nothing_is_shrunk():
    x, y, group, w = regression(3, 60, 20)
    y = y - x[:, group == 2] @ w[group == 2]
    mean, root, *_ = evidence(x, y, group)
    plain = np.linalg.lstsq(x, y, rcond=None)[0]
    assert (mean[group == 2] ** 2).sum() < 0.2 * (plain[group == 2] ** 2).sum()
    np.testing.assert_allclose(mean[group == 1], plain[group == 1], atol=0.1)
    assert np.isfinite(root).all()


def test_noise_is_estimated_within_its_standard_error():
    n, F, noise = 100, 10, 0.04
    found = np.array([evidence(*regression(s, n, F)[:3])[2] for s in range(60)])
    error = noise * np.sqrt(2.0 / (n - F))  # of a variance of normal numbers
    assert abs(found.mean() - noise) < 4.0 * error / np.sqrt(60)
    assert 0.7 * error < found.std() < 1.4 * error


def test_one_place_of_the_grid_has_the_conjugate_posterior(monkeypatch):
    monkeypatch.setattr(quadratic, "GRID", (1.0,))
    x, y, group, _ = regression(1, 120, 13)
    prior = np.array([1e-6, 0.3, 2.0])
    mean, cov, noise = averaged(x, y, group, prior)
    inverse = x.T @ x + np.diag(prior[group])
    np.testing.assert_allclose(mean, np.linalg.solve(inverse, x.T @ y), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(cov, noise * np.linalg.inv(inverse), rtol=1e-6, atol=1e-9)
    assert abs(noise - 0.04) < 4.0 * 0.04 * np.sqrt(2.0 / (120 - 13))


def test_the_grid_is_weighed_by_the_evidence_and_its_spread_is_of_the_posterior():
    """Against a sum over the noise too, of the evidence with the coefficients integrated out."""
    x, y, group, _ = regression(4, 14, 9, noise=0.5)
    about = np.array([1e-9, 2.0, 5.0])
    mean, cov, noise = averaged(x, y, group, about)
    logs, means, seconds, variances = [], [], [], np.exp(np.linspace(-6.0, 5.0, 300))
    for times in itertools.product(quadratic.GRID, repeat=2):
        for variance in variances:
            own = about[1:] * times / variance
            logs.append(log_evidence(np.log([*own, variance]), x, y, group))
            inverse = x.T @ x / variance + np.diag(np.array([1e-6, *own])[group])
            means.append(np.linalg.solve(inverse, x.T @ y / variance))
            seconds.append(np.linalg.inv(inverse) + np.outer(means[-1], means[-1]))
    weight = np.exp(np.array(logs) - max(logs))
    weight /= weight.sum()
    expected = weight @ np.array(means)
    np.testing.assert_allclose(mean, expected, atol=1e-3)
    second = np.einsum("k,kij->ij", weight, seconds)
    np.testing.assert_allclose(cov, second - np.outer(expected, expected), rtol=0.02, atol=1e-3)
    assert noise == pytest.approx(weight @ np.tile(variances, 9), rel=0.02)


@pytest.mark.parametrize("d", [2, 4])
def test_the_common_curvature_is_that_of_a_ball_in_the_cube(d):
    metric = rng(d).standard_normal((d, d))
    coefficients = quadratic._common(metric, 1 + 2 * d + d * (d - 1) // 2, True)
    gradient, hessian = quadratic.gradient_and_hessian(coefficients, d)
    assert not gradient.any()
    in_the_cube = metric.T @ hessian @ metric
    np.testing.assert_allclose(in_the_cube, in_the_cube[0, 0] * np.eye(d), atol=1e-9)
    assert np.trace(hessian) == pytest.approx(d)


def z_scores(critic_and_truth, seeds):
    """Mean squares of (result - mean) / deviation, and their standard error over the seeds."""
    squares = []
    for seed in range(seeds):
        critic, unit, results = critic_and_truth(seed)
        mean, spread = critic.predict(unit)
        squares.append((((results - mean) / spread) ** 2).mean())
    return np.mean(squares), np.std(squares) / np.sqrt(seeds)


def test_deviations_are_calibrated_where_the_model_is_true():
    cube, centre, metric = real_cube(2), np.full(2, 0.5), 4.0 * np.eye(2)
    group = np.array([0, 1, 1, 2, 2, 2])

    def drawn(seed):
        draw = rng(seed)
        unit = draw.random((160, 2))
        x = quadratic._columns(cube, unit, centre, metric)
        y = x @ (0.3 * draw.standard_normal(6)) + 0.2 * draw.standard_normal(160)
        _, _, noise, precision = evidence(x[:60], y[:60], group)
        mean, cov, noise = averaged(x[:60], y[:60], group, precision * noise)
        root = np.linalg.cholesky(cov)
        critic = LocalQuadratic(cube, centre, metric, True, mean, root, root, noise, 7.0, 3.0)
        return critic, unit[60:], 7.0 + 3.0 * y[60:]

    found, error = z_scores(drawn, 100)
    assert abs(found - 1.0) < 4.0 * error


@pytest.mark.parametrize("d", [2, 5, 10])
def test_deviations_are_calibrated_in_the_local_set(d):
    def drawn(seed):
        draw = rng(seed)
        unit = draw.random((int(1.3 * (d + 1) * (d + 2)) + 2, d))
        reward = bowl(unit, 0.5) + 0.1 * draw.standard_normal(len(unit))
        critic = quadratic.fit(real_cube(d), unit, reward)
        step = np.linalg.solve(critic.metric, 0.5 * draw.standard_normal((d, 50))).T
        new = np.clip(critic.centre + step, 0.01, 0.99)
        return critic, new, bowl(new, 0.5) + 0.1 * draw.standard_normal(50)

    found, error = z_scores(drawn, 30)
    assert found < 1.0 + 4.0 * error
    assert found < 2.0


def test_noise_of_a_linear_reward_is_that_of_a_result():
    found, d = [], 10
    for seed in range(30):
        draw = rng(seed)
        unit = draw.random((200, d))
        reward = 10.0 * unit.sum(axis=1) + 0.1 * draw.standard_normal(200)
        critic = quadratic.fit(real_cube(d), unit, reward)
        found.append(critic.noise * critic.scale**2)
    error = np.std(found) / np.sqrt(30)
    assert abs(np.mean(found) - 0.01) < 4.0 * error


# ---- the quadratic: its maximum in a ball


def value(z, g, H):
    return z @ g + 0.5 * np.einsum("...i,ij,...j->...", z, H, z)


def ball(d, radius, n=20_000):
    z = rng(7).standard_normal((n, d))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return radius * np.concatenate([z, z * rng(8).random((n, 1)) ** (1.0 / d)])


@pytest.mark.parametrize("kind", ["indefinite", "concave", "convex", "flat in one direction"])
@pytest.mark.parametrize("d", [1, 2, 4])
def test_the_maximum_in_a_ball_is_the_best_of_all_points_in_it(kind, d):
    for seed in range(8):
        draw = rng(seed)
        turn = np.linalg.qr(draw.standard_normal((d, d)))[0]
        values = draw.uniform(0.5, 3.0, d)
        sign = {"indefinite": draw.choice([-1.0, 1.0], d), "convex": 1.0}.get(kind, -1.0)
        values = values * sign
        values[0] *= kind != "flat in one direction"
        H, g = (turn * values) @ turn.T, draw.standard_normal(d)
        for radius in (1e-3, 0.7, 30.0):
            z = maximum(g, H, radius)
            norm = np.linalg.norm(z)
            assert norm <= radius * (1 + 1e-6)
            best = value(z, g, H)
            assert best >= value(ball(d, radius, 3000), g, H).max() - 1e-6 * abs(best)
            # what Moré and Sorensen ask of it: (shift - H) z = g, no direction goes up
            shift = z @ (g + H @ z) / norm**2
            np.testing.assert_allclose(shift * z - H @ z, g, atol=1e-5)
            assert shift >= max(values.max(), 0.0) - 1e-5
            assert norm < radius * (1 - 1e-6) or norm > radius * (1 - 1e-6) or shift < 1e-6


@pytest.mark.parametrize("g", [[0.0, 0.1, 0.2], [0.0, 0.0, 0.0], [0.0, -1.4, 0.0]])
def test_the_hard_case_goes_along_the_steepest_direction(g):
    g, H = np.array(g), np.diag([2.0, -1.0, -3.0])
    z = maximum(g, H, 1.0)
    assert np.linalg.norm(z) == pytest.approx(1.0, abs=1e-9)
    assert value(z, g, H) >= value(ball(3, 1.0), g, H).max() - 1e-9


def test_the_maximum_of_nothing_is_the_centre():
    assert not maximum(np.zeros(3), np.zeros((3, 3)), 2.0).any()


@pytest.mark.parametrize("least", [1e-16, 5e-15, 1e-14])
def test_the_nearly_hard_case_keeps_the_radius(least):
    z = maximum(np.array([least, 0.1]), np.diag([1.0, -1.0]), 1.0)
    assert np.linalg.norm(z) <= 1.0 + 1e-6


# ---- the quadratic: where it is asked


def test_a_category_is_worth_its_main_effect():
    cube = Cube(("real", "categorical"), (0, 3), (None, THREE))
    worth = np.array([0.0, 0.3, -0.2])

    def f(unit):
        return bowl(unit[:, :1]) + worth[cube.cells(unit)[:, 1]]

    # close to the maximum there are members of every category
    unit = np.stack([0.4 + 0.02 * (rng(1).random(6) - 0.5), [0.2, 0.2, 0.6, 0.6, 0.9, 0.9]], axis=1)
    critic = quadratic.fit(cube, unit, f(unit))
    told = critic.predict(np.array([[0.4, 0.2], [0.4, 0.6], [0.4, 0.9]]))[0]
    np.testing.assert_allclose(told, worth, atol=0.03)
    maxima = critic.maxima(20, rng())
    assert (cube.cells(maxima)[:, 1] == 1).all()


def test_members_of_another_category_are_farther_away():
    cube = Cube(("real", "categorical"), (0, 3), (None, THREE))
    own = np.stack([np.linspace(0.2, 0.8, 30), np.full(30, 0.2)], axis=1)
    other = np.stack([0.5 + 1e-3 * rng().random(9), np.full(9, 0.9)], axis=1)
    unit = np.concatenate([own, other])
    reward = np.concatenate([bowl(own[:, :1], 0.5), rng(1).uniform(-6, -5, 9)])
    told = quadratic.fit(cube, unit, reward).predict(own)[0]
    np.testing.assert_allclose(told, reward[:30], atol=1e-4)


@pytest.mark.parametrize("name", [name for name in CUBES if name != "choices"])
def test_maxima_of_any_cube_are_points_of_it(name):
    cube = CUBES[name]
    unit = points(cube, 40)
    critic = quadratic.fit(cube, unit, bowl(unit, 0.99) + 0.01 * rng(3).standard_normal(40))
    maxima = critic.maxima(50, rng())
    assert maxima.shape == (50, cube.ndim)
    assert ((maxima > 0) & (maxima < 1)).all()
    np.testing.assert_array_equal(cube.canonical(maxima), maxima)
    mean, spread = critic.predict(points(cube, 30, seed=5))
    assert np.isfinite(mean).all()
    assert (spread > 0).all()
    assert np.isfinite(spread).all()


def test_too_few_members_make_no_quadratic():
    for d in (1, 3):
        cube, unit = real_cube(d), points(real_cube(d), d + 2)
        assert quadratic.fit(cube, unit[:-1], bowl(unit[:-1])) is None
        assert quadratic.fit(cube, unit, bowl(unit)) is not None
    unit = points(CHOICES, 30)
    assert quadratic.fit(CHOICES, unit, bowl(unit)) is None


@pytest.mark.parametrize("reward", [np.arange(20.0), np.full(20, 0.1)], ids=["any", "alike"])
def test_members_that_are_all_at_one_point_are_no_trouble(reward):
    cube, unit = real_cube(3), np.full((20, 3), 0.3)
    critic = quadratic.fit(cube, unit, reward)
    mean, spread = critic.predict(unit)
    assert np.isfinite(mean).all()
    assert np.isfinite(spread).all()
    assert reward.min() - 1e-9 <= mean[0] <= reward.max() + 1e-9
    np.testing.assert_allclose(critic.maxima(9, rng()), 0.3, atol=1e-6)
    gp = gaussian_process.fit(cube, unit, reward)
    assert (gp is None) == (np.ptp(reward) == 0)
    assert gp is None or np.isfinite(gp.predict(unit)).all()


@pytest.mark.parametrize("size", [1e-150, 1e-20, 1e20, 1e150])
def test_the_unit_of_the_reward_changes_nothing(size):
    cube, unit = real_cube(2), points(real_cube(2), 30)
    reward, new = bowl(unit) + 0.01 * rng(1).standard_normal(30), points(real_cube(2), 20, seed=4)
    for fit in (quadratic.fit, gaussian_process.fit):
        plain, scaled = fit(cube, unit, reward), fit(cube, unit, size * reward)
        for one, other in zip(plain.predict(new), scaled.predict(new), strict=True):
            np.testing.assert_allclose(other / size, one, rtol=1e-3, atol=1e-4)
    one, other = (quadratic.fit(cube, unit, r).maxima(9, rng()) for r in (reward, size * reward))
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_rewards_at_the_ends_of_the_numbers_stop_nobody(size):
    cube, unit = real_cube(2), points(real_cube(2), 30)
    reward = size * bowl(unit)
    gp = gaussian_process.fit(cube, unit, reward)
    mean, spread = gp.predict(unit)
    np.testing.assert_allclose(mean, reward, rtol=0.02, atol=1e-3 * size)
    assert np.isfinite(spread).all()
    with np.errstate(over="ignore", invalid="ignore"):
        critic = quadratic.fit(cube, unit, reward)
    assert critic is None or np.isfinite(critic.predict(unit)).all()
    assert critic is None or np.isfinite(critic.maxima(5, rng())).all()


@pytest.mark.parametrize("size", [1e-200, 1e200])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_quadratic_takes_rewards_of_any_size(size):
    cube, unit = real_cube(2), points(real_cube(2), 30)
    critic = quadratic.fit(cube, unit, size * bowl(unit))
    assert critic is not None
    assert critic.predict(unit)[1].max() < 1e-3 * size


# ---- the kernel


@pytest.mark.parametrize("name", ["mixed", "real, 5-d", "conditional", "choices"])
def test_the_slope_of_the_posterior_is_that_of_finite_differences(name):
    cube = CUBES[name]
    x, of = columns(cube, points(cube, 25))
    y = rng(1).standard_normal(25)
    theta = kernel.start(cube.ndim) + 0.3 * rng(2).standard_normal(cube.ndim + 2)
    theta[-1] += 5.0  # more noise, less cancellation in the differences
    slope = kernel.negative_log_posterior(theta, x, of, y)[1]
    step = 1e-5 * np.eye(len(theta))
    ends = [
        [kernel.negative_log_posterior(theta + s * e, x, of, y)[0] for s in (1, -1)] for e in step
    ]
    np.testing.assert_allclose(slope, np.array(ends) @ [1, -1] / 2e-5, rtol=1e-5, atol=1e-5)


def test_the_slope_of_the_posterior_is_right_where_there_is_hardly_any_noise():
    unit = np.array([[0.2], [0.2], [0.8], [0.8]])
    x, of = columns(real_cube(1), unit)
    y, theta = np.array([0.0, 1e-4, 1.0, 1.0]), np.log([0.5, 2.0, 1e-8])
    slope = kernel.negative_log_posterior(theta, x, of, y)[1]
    step = np.array([0.0, 1e-4, 0.0])
    up, down = (kernel.negative_log_posterior(theta + s * step, x, of, y)[0] for s in (1, -1))
    assert slope[1] == pytest.approx((up - down) / 2e-4, rel=1e-3)


def test_the_posterior_of_the_scales_is_likelihood_times_prior():
    x, of = columns(mixed_cube(), points(mixed_cube(), 12))
    y, theta = rng(1).standard_normal(12), kernel.start(3) + np.array([0.2, -0.3, 0.1, 0.4, -0.5])
    length, size, noise = np.exp(theta[:3]), *np.exp(theta[3:])
    apart = np.sqrt((((x[:, None] - x) / length[of]) ** 2).sum(axis=-1))
    r = np.sqrt(5) * apart
    K = size * (1 + r + 5 * apart**2 / 3) * np.exp(-r) + (noise + 1e-8 * size) * np.eye(12)
    expected = 0.5 * y @ np.linalg.solve(K, y) + 0.5 * np.linalg.slogdet(K)[1]
    middle = np.log([*[0.5 * np.sqrt(3)] * 3, 1.0, 1e-4])
    expected += 0.5 * (((theta - middle) / [1, 1, 1, 1, 2]) ** 2).sum()
    assert kernel.negative_log_posterior(theta, x, of, y)[0] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", ["mixed", "real, 5-d", "conditional"])
def test_correlations_are_positive_definite(name):
    x = columns(CUBES[name], points(CUBES[name], 60))[0]
    K = kernel.correlation(x / 0.3, x / 0.3)
    np.testing.assert_allclose(K, K.T, atol=1e-14)
    np.testing.assert_allclose(np.diag(K), 1.0, atol=1e-12)
    assert np.linalg.eigvalsh(K)[0] > (-1e-12 if name == "conditional" else 1e-9)
    assert (K > 0).all()
    assert K.max() <= 1.0


def test_tuning_finds_more_probable_scales_within_their_bounds():
    cube = real_cube(3)
    unit = points(cube, 60)
    x, of = columns(cube, unit)
    y = np.sin(8 * unit[:, 0])  # one coordinate tells all
    start = kernel.start(3)
    theta = kernel.tuned(start, x, of, y)
    before, after = (kernel.negative_log_posterior(t, x, of, y)[0] for t in (start, theta))
    assert after < before - 10
    assert theta[0] < min(theta[1], theta[2]) - 0.5
    low, high = np.log(np.array([kernel.BOUNDS[0]] * 3 + [*kernel.BOUNDS[1:]]).T)
    assert (theta >= low - 1e-12).all()
    assert (theta <= high + 1e-12).all()
    outside = kernel.tuned(np.full(5, 40.0), x, of, y)
    assert (outside >= low - 1e-12).all()
    assert (outside <= high + 1e-12).all()


# ---- the Gaussian process


def test_it_goes_through_results_without_noise():
    cube = real_cube(2)
    unit = points(cube, 60)
    reward = np.sin(5 * unit[:, 0]) + unit[:, 1] ** 2
    calm = gaussian_process.fit(cube, unit, reward, np.log([0.4, 0.4, 1.0, 1e-8]))
    np.testing.assert_allclose(calm.predict(unit)[0], reward, atol=1e-5)
    gp = gaussian_process.fit(cube, unit, reward)  # tuned: a little noise is always likely
    mean, spread = gp.predict(unit)
    np.testing.assert_allclose(mean, reward, atol=0.03)
    new = points(cube, 60, seed=3)
    told, unsure = gp.predict(new)
    assert np.abs(told - np.sin(5 * new[:, 0]) - new[:, 1] ** 2).mean() < 0.05
    assert spread.mean() < 0.5 * unsure.mean()


def test_its_forecasts_are_medians_in_units_of_the_reward():
    cube, unit, new = real_cube(2), points(real_cube(2), 40), points(real_cube(2), 25, seed=4)
    reward = bowl(unit)
    plain = gaussian_process.fit(cube, unit, reward)
    mean, spread = plain.bent(new)
    told, half = plain.predict(new)
    # a median is what half of the posterior is below, bent or not
    drawn = plain.bend.back(mean + spread * rng(1).standard_normal((20_000, 1)))
    np.testing.assert_allclose(np.median(drawn, axis=0), told, atol=0.05 * half.max())
    low, high = np.quantile(drawn, [0.158655, 0.841345], axis=0)
    np.testing.assert_allclose(0.5 * (high - low), half, rtol=0.06)
    moved = gaussian_process.fit(cube, unit, 1000.0 * reward + 5e6, plain.theta)
    np.testing.assert_allclose((moved.predict(new)[0] - 5e6) / 1000.0, told, atol=1e-4)
    np.testing.assert_allclose(moved.predict(new)[1] / 1000.0, half, rtol=1e-3)


def test_bending_keeps_the_order_and_can_be_undone():
    reward = np.concatenate([rng().standard_normal(50), [-1e6, 3.0, 3.0]])
    how = bend(reward)
    t = how(reward)
    assert (np.diff(t[np.argsort(reward)]) >= 0).all()
    assert t.mean() == pytest.approx(0, abs=1e-12)
    assert t.std() == pytest.approx(1)
    np.testing.assert_allclose(how.back(t), reward, rtol=1e-9, atol=1e-9)
    # the same difference is more near the best
    assert np.diff(how(np.array([2.5, 2.6])))[0] > 2 * np.diff(how(np.array([-1.0, -0.9])))[0]
    assert how.soft == pytest.approx(0.5 * np.quantile(3.0 - reward, 0.1))
    assert np.isfinite(how.back(np.array([-1e9, 1e9]))).all()


def test_a_plateau_at_the_top_is_bent_by_the_gap_below_it():
    how = bend(np.array([1.0] * 9 + [0.5]))
    assert how.soft == 0.25
    assert bend(np.ones(5)) is None


def dense(gp, x, y, noise, new):
    """Mean and deviation of the posterior, by inverting the whole matrix."""
    K = gp.size * kernel.correlation(x, x) + np.diag(noise)
    k = gp.size * kernel.correlation(x, gp.scaled(new))
    inverse = np.linalg.inv(K)
    left = gp.size - np.einsum("nm,np,pm->m", k, inverse, k)
    return k.T @ inverse @ y, np.sqrt(np.maximum(left, 0))


@pytest.mark.parametrize("name", ["mixed", "real, 5-d", "choices"])
def test_believing_is_conditioning_anew(name):
    cube = CUBES[name]
    unit, more, new = (points(cube, n, seed=n) for n in (40, 7, 30))
    gp = gaussian_process.fit(cube, unit, bowl(unit) + 0.1 * rng(1).standard_normal(40))
    own = np.exp(gp.theta[-1]) + 1e-8 * gp.size
    noise = np.concatenate([np.full(40, own), np.full(7, np.exp(gp.theta[-1]) + 1e-6 * gp.size)])
    mean, spread = gp.bent(new)
    for found, expected in zip((mean, spread), dense(gp, gp.x, gp.y, noise[:40], new), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    told = gp.believing(more)
    x, y = np.concatenate([gp.x, gp.scaled(more)]), np.concatenate([gp.y, gp.bent(more)[0]])
    np.testing.assert_allclose(told.y, y, atol=1e-12)
    again = gp.believing(more[:3]).believing(more[3:])
    anew = dense(gp, x, y, noise, new)
    for which in (told, again):
        for found, expected in zip(which.bent(new), anew, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    # what came out as foretold changes no forecast, and leaves less to learn
    np.testing.assert_allclose(told.bent(new)[0], mean, atol=1e-6)
    assert (told.bent(new)[1] <= spread + 1e-9).all()
    assert (told.bent(more)[1] < gp.bent(more)[1] + 1e-9).all()
    assert gp.believing(more[:0]) is gp
    assert told.members is gp.members


def test_the_same_point_can_be_believed_many_times():
    cube, unit = real_cube(2), points(real_cube(2), 30)
    gp = gaussian_process.fit(cube, unit, bowl(unit))
    told = gp.believing(np.repeat(unit[:3], 60, axis=0))
    assert np.isfinite(told.predict(unit)).all()


# log(phi(u) + u Phi(u)) with 60 digits
LOG_H = {
    3.0: 1.0987396653277078,
    0.0: -0.91893853320467274,
    -1.0: -2.4851210257126413,
    -5.0: -16.744301162660990,
    -5.999: -22.572570028917514,
}
FAR = {
    -6.0: -22.578879392169797,
    -7.0: -29.368107183141278,
    -10.0: -55.553122036122356,
    -30.0: -457.72465376059800,
}


def test_the_log_of_the_expected_improvement_is_right():
    found = log_h(np.array(list(LOG_H)))
    np.testing.assert_allclose(found, list(LOG_H.values()), atol=1e-11)
    far = np.array([-1e3, -1e6])  # -u^2 / 2 - log(2 pi) / 2 - 2 log(-u)
    np.testing.assert_allclose(log_h(far), [-500014.734452, -500000000028.54996], rtol=1e-10)
    for mean, spread, top in ((0.3, 0.5, 1.0), (2.0, 0.1, 1.5), (-1.0, 0.7, 0.0)):
        gain = quad(
            lambda t, m=mean, s=spread, top=top: (
                (t - top) * np.exp(-0.5 * ((t - m) / s) ** 2) / (s * np.sqrt(2 * np.pi))
            ),
            top,
            max(top, mean) + 12 * spread,
        )[0]
        found = log_improvement(np.array([mean]), np.array([spread]), top)
        assert found[0] == pytest.approx(np.log(gain), abs=1e-7)


def test_the_log_of_the_expected_improvement_is_right_far_below_too():
    np.testing.assert_allclose(log_h(np.array(list(FAR))), list(FAR.values()), atol=1e-3)


def test_the_log_of_the_expected_improvement_grows_with_the_mean():
    assert (np.diff(log_h(np.linspace(-6.1, -5.9, 200))) > 0).all()


def certain(unit):
    """All points are good."""
    return np.zeros(len(unit))


@pytest.mark.parametrize("name", ["mixed", "real, 5-d", "conditional"])
def test_the_slope_of_the_improvement_is_that_of_finite_differences(name):
    cube = CUBES[name]
    unit = points(cube, 40)
    gp = gaussian_process.fit(cube, unit, bowl(unit) + 0.3 * rng(1).standard_normal(40))
    top, of = float(gp.y.max()), columns(cube, unit)[1]
    at = np.searchsorted(of, ordered(cube))
    seen = 0
    for z in gp.scaled(points(cube, 25, seed=3)):
        for level in (top - 2.0, top):
            search = Improvement(gp, unit[:0], level, certain)
            near = search.near(z)
            total, slope = search.slope(z, at, *near)
            mean = gp.size * kernel.correlation(gp.x, z[None])[:, 0] @ gp.weight
            if (mean - level) / np.exp(total) < -1e8 or total < -17:
                continue  # beyond where the series takes over
            seen += 1
            ends = []
            for j in at:
                step = np.zeros_like(z)
                step[j] = 1e-5
                up, down = (search.slope(z + s * step, at, *near)[0] for s in (1, -1))
                ends.append((up - down) / 2e-5)
            np.testing.assert_allclose(slope, ends, rtol=2e-3, atol=2e-4)
    assert seen > 10


@pytest.mark.parametrize("name", ["mixed", "real, 5-d", "choices"])
def test_the_best_point_is_at_least_as_good_as_every_candidate(name):
    cube = CUBES[name]
    unit, candidates = points(cube, 40), points(cube, 100, seed=2)
    gp = gaussian_process.fit(cube, unit, bowl(unit) + 0.1 * rng(1).standard_normal(40))

    def chance(u):
        return np.where(u[:, 0] < 0.5, -0.3, -np.inf)

    def worth(u):
        return log_improvement(*gp.bent(u), float(gp.y.max())) + chance(u)

    found = Improvement(gp, candidates, float(gp.y.max()), chance).best()
    assert found[0] < 0.5
    assert ((found > 0) & (found < 1)).all()
    gain = worth(found[None])[0] - worth(candidates).max()
    assert gain > -1e-12 if name == "choices" else gain > 1e-4
    nobody = Improvement(gp, candidates, 0.0, lambda u: np.full(len(u), -np.inf))
    assert nobody.best() is None


def test_only_candidates_that_can_be_the_best_are_asked_for_their_chance(monkeypatch):
    cube = real_cube(2)
    unit, candidates = points(cube, 40), points(cube, 600, seed=2)
    gp = gaussian_process.fit(cube, unit, bowl(unit) + 0.1 * rng(1).standard_normal(40))
    few, asked, starts = improvement.ASKED, [], []

    def stay(search, i):
        starts.append(search.candidates[i])
        return search.candidates[i]

    monkeypatch.setattr(Improvement, "_climbed", stay)

    def best(chance, at_once):
        def spy(u):
            asked.append(len(u))
            return chance(u)

        asked.clear(), starts.clear()
        monkeypatch.setattr(improvement, "ASKED", at_once)
        found = Improvement(gp, candidates, float(gp.y.max()), spy).best()
        # the last are those that it climbed to
        return (found, *starts), sum(asked if found is None else asked[:-1])

    def waves(u, depth):
        return -depth * (1.0 + np.sin(40.0 * u[:, 0]) * np.cos(30.0 * u[:, 1]))

    half = np.median(candidates[:, 1])
    for chance in (
        lambda u: np.zeros(len(u)),
        lambda u: waves(u, 1.0),
        lambda u: waves(u, 100.0),
        lambda u: np.where(u[:, 1] < half, waves(u, 3.0), -np.inf),
        lambda u: np.where(np.arange(len(u)) < 0, 0.0, -np.inf),
    ):
        (found, n), (plain, every) = best(chance, few), best(chance, len(candidates))
        assert every == len(candidates)
        assert same(found, plain)
        assert (found[0] is None) == (n == len(candidates))
    assert best(lambda u: np.zeros(len(u)), few)[1] == few


def test_thinning_keeps_the_best_half_and_others_evenly():
    reward = rng().standard_normal(100)
    keep = thinned(reward, 40)
    assert len(np.unique(keep)) == 40
    assert (np.diff(keep) > 0).all()
    best = np.argsort(-reward)[:20]
    assert np.isin(best, keep).all()
    rest = np.setdiff1d(np.arange(100), best)
    place = np.flatnonzero(np.isin(rest, keep))
    assert len(place) == 20
    assert np.diff(place).max() <= 5
    np.testing.assert_array_equal(thinned(reward, 100), np.arange(100))
    assert len(thinned(reward, 7)) == 7


def test_a_large_set_is_thinned_and_its_best_is_kept(monkeypatch):
    monkeypatch.setattr(gaussian_process, "MEMBERS", 50)
    monkeypatch.setattr(gaussian_process, "TUNED", 30)
    unit = points(real_cube(2), 200)
    gp = gaussian_process.fit(real_cube(2), unit, bowl(unit))
    assert len(gp.members) == 50
    np.testing.assert_array_equal(gp.members[np.argmax(gp.y)], unit[np.argmax(bowl(unit))])


@pytest.mark.parametrize("largest", [1e300, np.finfo(float).max])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_penalty_of_any_size_ends_no_lesson(largest, sign):
    unit = points(real_cube(2), 60)
    reward = sign * np.where(unit[:, 0] < 0.9, largest, 1.0)
    committee = Committee(real_cube(2))
    for end in (30, 60):
        critics = committee.learn(rows_of(np.arange(end), unit[:end], reward[:end]))
        for name in critics.there:
            assert np.isfinite(critics[name].predict(unit)[0]).all()


@pytest.mark.parametrize("value", [0.1, 1e250, 1e300, -1e300])
def test_equal_rewards_of_any_size_are_level(value):
    """The average of equal numbers may be off by rounding, and its square beyond all numbers."""
    unit = points(real_cube(2), 40)
    fitted = quadratic.fit(real_cube(2), unit, np.full(40, value))
    assert fitted is None or (fitted.predict(unit)[0] == value).all()
    assert fitted is None or np.isfinite(fitted.maxima(5, rng())).all()


def test_there_is_no_process_where_there_is_nothing_to_see():
    cube = real_cube(1)
    assert gaussian_process.fit(cube, np.empty((0, 1)), np.empty(0)) is None
    assert gaussian_process.fit(cube, np.full((1, 1), 0.2), np.ones(1)) is None
    assert gaussian_process.fit(cube, points(cube, 9), np.ones(9)) is None
    assert gaussian_process.fit(cube, points(cube, 2), np.arange(2.0)) is not None


# ---- feasibility


def half_failed(n=200):
    unit = points(real_cube(2), n)
    return Feasibility(real_cube(2), unit, (unit[:, 0] > 0.6).astype(float))


def test_the_risk_is_high_among_failures_and_low_among_successes():
    feasibility = half_failed()
    inside = points(real_cube(2), 200, seed=3)
    risk = feasibility.risk(inside)
    assert risk[inside[:, 0] > 0.75].min() > 0.8
    assert risk[inside[:, 0] < 0.45].max() < 0.2
    assert ((risk >= 0) & (risk <= 1)).all()
    assert (feasibility.failures[:, 0] > 0.6).all()


@pytest.mark.parametrize("ndim", [2, 4])
def test_the_edge_is_seen_ever_finer(ndim):
    """Members on both sides of a slanted plane, ever nearer to one point of it."""
    cube, normal = real_cube(ndim), np.where(np.arange(ndim) == 0, 1.0, 0.5)
    apart = 0.4 ** rng(6).uniform(1, 6, (300, 1))
    unit = 0.5 + apart * rng(7).uniform(-1, 1, (300, ndim))
    feasibility = Feasibility(cube, unit, ((unit - 0.5) @ normal > 0).astype(float))
    for distance in (0.1, 0.02, 0.01):
        away = 0.5 + distance * np.array([[1.0], [-1.0]]) * normal
        high, low = feasibility.risk(away)
        assert high > 0.8
        assert low < 0.2


def test_failures_without_a_pattern_have_their_share():
    """Both fates are asked equally often, and the odds put right: not a half."""
    cube, unit = real_cube(2), points(real_cube(2), 400)
    failed = (rng(8).random(400) < 0.15).astype(float)
    feasibility = Feasibility(cube, unit, failed)
    asked = points(cube, 200, seed=9)
    assert 0.05 < feasibility.risk(asked).mean() < 0.3
    assert len(feasibility.passed(asked, rng())) > 20  # picks go on


def random_fates(share, seed, n=150):
    unit = points(real_cube(2), n, seed)
    return Feasibility(real_cube(2), unit, (rng(100 + seed).random(n) < share).astype(float))


@pytest.mark.parametrize("share", [0.15, 0.35, 0.6, 0.8])
def test_failures_without_a_pattern_are_not_foretold_and_keep_nobody_away(share):
    asked, trust = points(real_cube(2), 100, seed=9), []
    for seed in range(20):
        feasibility = random_fates(share, seed)
        trust.append(feasibility.trust)
        passed = len(feasibility.passed(asked, rng()))
        assert passed == 100 if not trust[-1] else passed > 0
    assert np.median(trust) == 0.0


def test_failures_with_a_pattern_are_believed_and_many_of_them_keep_picks_away():
    for seed in range(5):
        unit = points(real_cube(2), 150, seed)
        for edge in (0.3, 0.6):
            feasibility = Feasibility(real_cube(2), unit, (unit[:, 0] > edge).astype(float))
            assert feasibility.trust > 0.8
            asked = points(real_cube(2), 300, seed=50 + seed)
            assert feasibility.passed(asked, rng())[:, 0].max() < edge + 0.1
            assert len(feasibility.passed(asked, rng())) > 50 * edge


def test_where_more_than_half_fail_is_left_alone_though_the_newest_are_all_there():
    """A safe half of the cube, and one in which four of five fail: the newest members."""
    unit = points(real_cube(2), 800)
    unit = unit[np.argsort(unit[:, 0] > 0.5, kind="stable")]
    there = unit[:, 0] > 0.5
    failed = (there & (rng(3).random(800) < 0.8)).astype(float)
    assert failed[there][-80:].sum() < 80
    feasibility, asked = Feasibility(real_cube(2), unit, failed), points(real_cube(2), 200, seed=4)
    passed = feasibility.passed(asked, rng())
    assert 80 < len(passed) < 110
    assert np.quantile(passed[:, 0], 0.9) < 0.5


@pytest.mark.parametrize("failures", [4, 60])  # all of a fate are asked, the nearest are
def test_a_member_s_own_fate_does_not_move_what_is_foretold_of_it(failures):
    x, own = points(real_cube(2), 120), np.arange(120)
    fate = (rng(5).permutation(120) < failures).astype(float)
    odds, slope = plane(x, x, fate, own)
    for i in np.concatenate([np.flatnonzero(fate)[:4], np.flatnonzero(fate == 0)[:4]]):
        other = np.where(own == i, 1.0 - fate, fate)
        alone = plane(x[[i]], x, other, own[[i]])
        np.testing.assert_allclose(alone[0][0], odds[i], rtol=1e-9)  # sums in another order
        np.testing.assert_allclose(alone[1][0], slope[i], rtol=1e-9, atol=1e-9)
        assert abs(plane(x[[i]], x, other)[0][0] - odds[i]) > 1e-3


def test_what_is_likely_to_fail_moves_to_the_nearest_place_that_is_not():
    feasibility = half_failed()
    unit = np.array([[0.7, 0.3], [0.66, 0.8], [0.2, 0.5]])
    moved = feasibility.moved(unit)
    assert feasibility.risk(moved).max() <= LIKELY
    assert (moved[2] == unit[2]).all()
    assert np.abs(moved[:2, 1] - unit[:2, 1]).max() < 0.1  # across the edge, not along it
    assert (moved[:2, 0] > 0.4).all()
    assert (moved[:2, 0] < 0.62).all()


def test_an_unordered_coordinate_is_not_moved():
    edges = np.linspace(0.0, 1.0, 4)
    cube = Cube(("categorical", "real"), (3, 0), (edges, None))
    unit = points(cube, 200)
    feasibility = Feasibility(cube, unit, (unit[:, 1] > 0.5).astype(float))
    asked = unit[unit[:, 1] > 0.55][:20]
    moved = feasibility.moved(asked)
    np.testing.assert_array_equal(cube.cells(moved)[:, 0], cube.cells(asked)[:, 0])
    assert (moved[:, 1] < asked[:, 1]).all()


def test_picks_that_fail_make_wary_and_those_that_do_not_bring_it_back():
    assert wariness(np.zeros(0)) == wariness(np.zeros(50)) == 0.0
    one = wariness(np.array([0.0, 1.0]))
    assert one == pytest.approx(0.4)
    assert wariness(np.array([1.0, 0.0])) == pytest.approx(0.3)
    assert wariness(np.ones(50)) == 1.0
    assert wariness(np.concatenate([np.ones(50), np.zeros(20)])) == 0.0
    bold, wary = half_failed(), replace(half_failed(), wary=1.0)
    assert bold.most == pytest.approx(LIKELY)
    assert wary.most == pytest.approx(1.0 / (1.0 + 9.0 * np.e))


def test_where_nothing_is_near_the_risk_is_the_share_of_failures():
    cube = real_cube(2)
    two = Feasibility(cube, np.array([[0.2, 0.2], [0.8, 0.8]]), np.array([1.0, 0.0]))
    assert two.risk(np.array([[0.2, 0.8]]))[0] == pytest.approx(0.5)  # as far from both
    one = Feasibility(cube, np.array([[0.2, 0.2]]), np.ones(1))
    assert one.risk(np.full((3, 2), 0.4)).tolist() == [1.0] * 3
    assert not Feasibility(cube, np.empty((0, 2)), np.empty(0)).risk(np.full((3, 2), 0.4)).any()
    alike = Feasibility(cube, np.full((9, 2), 0.3), np.array([1.0] * 3 + [0.0] * 6))
    assert alike.risk(np.full((1, 2), 0.3))[0] < 0.9


def test_without_failures_there_is_no_risk():
    unit = points(real_cube(2), 50)
    feasibility = Feasibility(real_cube(2), unit, np.zeros(50))
    assert not feasibility.risk(points(real_cube(2), 50, seed=2)).any()
    assert not feasibility.log_chance(unit).any()
    assert len(feasibility.passed(unit, rng())) == 50


def test_only_the_newest_members_are_asked(monkeypatch):
    module = sys.modules[Feasibility.__module__]
    unit = points(real_cube(2), 300)
    failed = (np.arange(300) < 200).astype(float)  # all of the first ones
    assert Feasibility(real_cube(2), unit, failed).risk(unit).max() > 0.5
    monkeypatch.setattr(module, "MOST", 100)
    assert not Feasibility(real_cube(2), unit, failed).risk(unit).any()


def test_a_known_constraint_has_no_chance():
    cube = constrained_cube()
    feasibility = Feasibility(cube, points(cube, 50), np.zeros(50))
    unit = rng(4).random((100, 3))
    chance = feasibility.log_chance(unit)
    np.testing.assert_array_equal(np.isneginf(chance), unit[:, 0] + unit[:, 1] > 1.0)
    assert len(feasibility.passed(unit, rng())) == (unit[:, 0] + unit[:, 1] <= 1.0).sum()


def test_nobody_is_let_pass_where_failures_are_likely():
    feasibility = half_failed()
    unit = points(real_cube(2), 3000, seed=5)
    risk, chance = feasibility.risk(unit), feasibility.log_chance(unit)
    np.testing.assert_array_equal(np.isneginf(chance), risk > LIKELY)
    low = risk <= LIKELY
    safest = np.quantile(feasibility.risk(feasibility.unit[feasibility.failed == 0][-64:]), 0.25)
    more = np.minimum((1 - risk[low]) / (1 - safest), 1)
    np.testing.assert_allclose(chance[low], 4 * np.log(more), atol=1e-4)
    passed = feasibility.passed(unit, rng())
    assert feasibility.risk(passed).max() <= LIKELY
    assert passed[:, 0].max() < 0.8
    wanted = (more**4).sum()
    assert abs(len(passed) - wanted) < 4 * np.sqrt(wanted)


# ---- the committee


class Right:
    """Knows."""

    def __init__(self, f):
        self.f = f

    def predict(self, unit):
        return self.f(unit), np.ones(len(unit))


def fake(unit, quadratic=None, gp=None):
    feasibility = Feasibility(real_cube(2), unit, np.zeros(len(unit)))
    return Critics(np.sort(bowl(unit)), feasibility, quadratic, gp)


def judged(quadratic, gp, n=20):
    committee, unit = Committee(real_cube(2)), points(real_cube(2), 40)
    new = points(real_cube(2), n, seed=8)
    rows = rows_of(np.arange(n), new, bowl(new))
    committee._judge(fake(unit, quadratic, gp), rows)
    return committee, fake(unit, quadratic, gp)


def test_a_critic_that_is_right_has_skill_1_and_one_that_says_always_the_same_has_0():
    committee, _ = judged(Right(bowl), Right(lambda u: np.full(len(u), -0.1)))
    assert committee.skills() == {"quadratic": 1.0, "gp": 0.0}
    committee, _ = judged(Right(lambda u: -bowl(u)), Right(lambda u: 1.3 * bowl(u)))
    assert committee.skills()["quadratic"] == 0.0  # the wrong way round
    assert 0.0 < committee.skills()["gp"] < 1.0


def test_before_there_is_enough_to_judge_by_there_is_hope():
    assert Committee(real_cube(2)).skills() == dict.fromkeys(NAMES, HOPE)
    few, _ = judged(Right(bowl), None, ENOUGH - 1)
    assert few.skills() == dict.fromkeys(NAMES, HOPE)
    enough, _ = judged(Right(bowl), None, ENOUGH)
    assert enough.skills() == {"quadratic": 1.0, "gp": HOPE}


def test_weights_add_up_to_1_and_leave_nobody_below_the_floor():
    right, wrong = Right(bowl), Right(lambda u: np.zeros(len(u)))
    committee, critics = judged(right, wrong)
    assert committee.weights(critics) == pytest.approx({"quadratic": 1 - FLOOR, "gp": FLOOR})
    committee, critics = judged(right, right)
    assert committee.weights(critics) == pytest.approx({"quadratic": 0.5, "gp": 0.5})
    committee, critics = judged(right, Right(lambda u: 0.5 * bowl(u)))
    skill = committee.skills()["gp"]
    assert 0.05 < skill < 1
    share = FLOOR + (1 - 2 * FLOOR) * skill**2 / (1 + skill**2)
    assert committee.weights(critics)["gp"] == pytest.approx(share)
    assert sum(committee.weights(critics).values()) == pytest.approx(1.0)
    assert committee.weights(fake(critics.feasibility.unit, None, wrong)) == {"gp": 1.0}


def test_nobody_has_a_weight_when_no_forecast_is_worth_anything():
    wrong = Right(lambda u: np.zeros(len(u)))
    committee, critics = judged(wrong, wrong)
    assert committee.weights(critics) == {}
    assert committee.weights(fake(critics.feasibility.unit)) == {}


def arrivals(n, seed=0, cube=None, failing=True):
    """(n,) members as they come: numbers out of order, some failed."""
    cube = cube or real_cube(2)
    unit = points(cube, n, seed)
    reward = bowl(unit) + 0.01 * rng(seed + 1).standard_normal(n)
    if failing:
        reward[unit[:, 0] > 0.85] = -np.inf
    late = np.argsort(np.arange(n) + rng(seed).uniform(0, 15, n))
    return unit, reward, late


def lessons(n, size=9, **how):
    """What is known at each lesson, in number order."""
    unit, reward, late = arrivals(n, **how)
    for end in range(size, n + 1, size):
        known = np.sort(late[:end])
        yield rows_of(known, unit[known], reward[known])


def test_a_critic_is_judged_only_by_rows_that_were_new_to_it():
    committee, before, known = Committee(real_cube(2)), None, np.zeros(0)
    for rows in itertools.islice(lessons(90), 3):
        new = rows.take(~np.isin(rows.number, known) & rows.ok)
        expected = np.full((len(new), 3), np.nan)
        if before is not None:
            among = before.rewards
            truth = expected[:, 0] = scores(new.reward, among)
            for k, name in enumerate(NAMES):
                told = before[name].predict(new.unit)[0]
                expected[:, 1 + k] = np.abs(scores(told, among) - truth)
        had = len(committee._judged.number)
        critics = committee.learn(rows)
        if before is None:
            assert not len(committee._judged.number)
        else:
            np.testing.assert_array_equal(committee._judged.number[had:], new.number)
            np.testing.assert_array_equal(committee._judged.error[had:], expected)
        assert len(critics.rewards) == rows.ok.sum()
        assert committee.known == len(rows)
        before, known = critics, rows.number
        # nothing new: nothing is judged, and nothing made again
        assert committee.learn(rows) is critics
        assert len(committee._judged.number) == had + (len(new) if had or len(known) > 9 else 0)


def test_only_the_newest_results_count():
    committee = Committee(real_cube(2))
    for rows in lessons(90):
        committee.learn(rows)
    ok = rows.number[rows.ok]
    assert len(committee._judged.number) == WINDOW
    # by number, among those judged: an old one that comes late does not push out a newer one
    unjudged = np.sort(arrivals(90)[2][:9])
    expected = np.setdiff1d(ok, unjudged)[-WINDOW:]
    np.testing.assert_array_equal(np.sort(committee._judged.number), expected)


def test_a_committee_learns_whom_to_trust():
    committee, unit = Committee(real_cube(2)), points(real_cube(2), 80)
    for end in range(20, 81, 10):
        critics = committee.learn(rows_of(np.arange(end), unit[:end], bowl(unit[:end])))
    assert committee.skills()["quadratic"] > 0.9
    assert sum(committee.weights(critics).values()) == pytest.approx(1.0)
    skills = []
    for seed in range(6):  # pure noise can be foretold by nobody
        blind, noise = Committee(real_cube(2)), rng(seed).standard_normal(60)
        for end in range(20, 61, 10):
            blind.learn(rows_of(np.arange(end), unit[:end], noise[:end]))
        skills += blind.skills().values()
    assert np.mean(skills) < 0.1


@pytest.mark.parametrize("name", ["real", "mixed", "alike at first"])
def test_a_restored_committee_goes_on_bit_for_bit(name):
    cube = mixed_cube() if name == "mixed" else real_cube(2)
    told = list(lessons(108, size=4, cube=cube))  # scales are not tuned at every lesson
    if name == "alike at first":
        for rows in told:
            rows.reward[(rows.number < 30) & rows.ok] = 0.25
    new, whole, parts = points(cube, 20, seed=6), Committee(cube), Committee(cube)
    for rows in told:
        state = parts.state_dict()
        assert plain_state(state) == ""
        parts = Committee(cube)
        parts.load_state_dict(state)
        one, other = whole.learn(rows), parts.learn(rows)
        assert same(whole.state_dict(), parts.state_dict())
        assert one.there == other.there
        assert same(foretold(one, new), foretold(other, new))
        assert whole.weights(one) == parts.weights(other)
        np.testing.assert_array_equal(one.feasibility.risk(new), other.feasibility.risk(new))
    assert len(whole._judged.number) == WINDOW


def test_a_state_is_not_changed_by_what_is_learnt_after_it():
    committee, (first, second) = Committee(real_cube(2)), itertools.islice(lessons(90), 2)
    committee.learn(first)
    state = committee.state_dict()
    kept = {name: np.copy(thing) for name, thing in state.items()}
    other = Committee(real_cube(2))
    other.load_state_dict(state)
    committee.learn(second)
    other.learn(second)
    assert all(same(kept[name], np.asarray(state[name])) for name in kept)


def test_scales_are_tuned_again_only_when_there_is_more_to_tell(monkeypatch):
    given = []
    fit = gaussian_process.fit

    def spy(cube, unit, reward, theta=None, **how):
        given.append((len(unit), theta is None))
        return fit(cube, unit, reward, theta, **how)

    monkeypatch.setattr(committee_module.gaussian_process, "fit", spy)
    committee, unit = Committee(real_cube(2)), points(real_cube(2), 60)
    for end in range(30, 45):
        committee.learn(rows_of(np.arange(end), unit[:end], bowl(unit[:end])))
    assert [n for n, tuned in given if tuned] == [30, 33, 37, 41]
    assert [n for n, _ in given] == list(range(30, 45))


def test_a_committee_of_failures_alone_has_nobody_to_ask():
    committee, unit = Committee(real_cube(2)), points(real_cube(2), 20)
    rows = rows_of(np.arange(20), unit, np.full(20, -np.inf))
    critics = committee.learn(rows.take(np.arange(10)))
    critics = committee.learn(rows)
    assert critics.there == []
    assert committee.weights(critics) == {}
    assert (critics.feasibility.risk(unit) == 1.0).all()


# ---- picking


def nothing(cube):
    return np.empty((0, cube.ndim))


def both(name, n=40, failed=None):
    cube = CUBES[name]
    unit = points(cube, n)
    return cube, critics_of(cube, unit, bowl(unit) + 0.02 * rng(1).standard_normal(n), failed)


@pytest.mark.parametrize("name", CUBES)
def test_picked_points_lie_in_the_open_cube_and_are_foretold(name):
    cube, critics = both(name)
    weights = {who: 1.0 / len(critics.there) for who in critics.there}
    tray = picked(critics, weights, BoxPolicy(cube), points(cube, 3, seed=9), 8, rng())
    assert (name != "choices") <= len(tray) <= 8
    assert tray.unit.shape == (len(tray), cube.ndim)
    assert ((tray.unit > 0) & (tray.unit < 1)).all()
    if cube.feasible is not None:
        assert cube.feasible(tray.unit).all()
    assert set(tray.notes) == {"critic", *(f"{who}_{of}" for who in NAMES for of in ("mean", "sd"))}
    for who in NAMES:
        told = (tray.notes[f"{who}_mean"], tray.notes[f"{who}_sd"])
        gone = np.full((2, len(tray)), np.nan)
        expected = gone if critics[who] is None else critics[who].predict(tray.unit)
        np.testing.assert_array_equal(told, expected)
    assert set(tray.notes["critic"]) <= set(critics.there)
    again = picked(critics, weights, BoxPolicy(cube), points(cube, 3, seed=9), 8, rng())
    assert same(tray, again)
    other = picked(critics, weights, BoxPolicy(cube), points(cube, 3, seed=9), 8, rng(1))
    assert name == "choices" or not same(tray.unit, other.unit)


def rising(seed):
    """Rewards that grow with an ordinal, beyond the cells in which its child is active."""
    cube = conditional_cube()
    unit = cube.canonical(rng(seed).random((60, 4)))
    child = np.where(cube.active(unit)[:, 3], (unit[:, 3] - 0.9) ** 2, 0.0)
    reward = -3.0 * (unit[:, 2] - 1.1) ** 2 - 3.0 * (cube.cells(unit)[:, 0] == 1) - 4.0 * child
    keep = unit[:, 2] < 0.82
    return cube, critics_of(cube, unit[keep], reward[keep])


def off_the_canon(who):
    low, high = np.array([0.01, 0.01, 0.5, 0.5]), np.array([0.4, 0.9, 0.79, 0.99])
    some = 0
    for seed in range(8):
        cube, critics = rising(seed)
        policy = BoxPolicy(cube, {"low": low, "high": high})
        unit = picked(critics, {who: 1.0}, policy, nothing(cube), 6, rng(seed)).unit
        some += len(unit)
        yield (unit != cube.canonical(unit)).any()
    assert some > 0


def test_what_the_quadratic_picks_has_inactive_coordinates_in_the_middle():
    assert not any(off_the_canon("quadratic"))


def test_what_the_process_picks_has_inactive_coordinates_in_the_middle():
    assert not any(off_the_canon("gp"))


def test_each_point_is_picked_by_the_critic_that_was_drawn(monkeypatch):
    cube, critics = both("real, 5-d")

    def some(level, short):
        return lambda n: level + 1e-4 * np.tile(np.arange(max(n - short, 0))[:, None], 5)

    weights = {"quadratic": 0.8, "gp": 0.2}
    for short in (0, 2):
        of_gp, of_quadratic = some(0.25, short), some(0.75, 0)
        monkeypatch.setattr(picking, "by_gp", lambda c, p, w, n, r, of=of_gp: of(n))
        monkeypatch.setattr(picking, "by_quadratic", lambda c, n, r, of=of_quadratic: of(n))
        total = 0
        for seed in range(60):
            how = (critics, weights, BoxPolicy(cube), nothing(cube))
            tray = picked(*how, 8, rng(seed))
            who = tray.notes["critic"]
            np.testing.assert_array_equal(
                tray.unit[:, 0].round(2), np.where(who == "gp", 0.25, 0.75)
            )
            assert len(tray) >= 8 - short
            total += int((who == "gp").sum())
        if not short:
            assert abs(total - 96) < 4 * np.sqrt(480 * 0.16)


def test_the_process_searches_a_few_times_only_and_the_quadratic_has_the_rest(monkeypatch):
    monkeypatch.setattr(picking, "BY_GP", 3)
    cube, critics = both("real, 5-d")
    how = (BoxPolicy(cube), nothing(cube), 20, rng())
    who = picked(critics, {"gp": 0.5, "quadratic": 0.5}, *how).notes["critic"].tolist()
    assert who.count("gp") == 3
    assert who.count("quadratic") == 17
    assert picked(critics, {"gp": 1.0}, *how).notes["critic"].tolist() == ["gp"] * 3


@pytest.mark.parametrize("who", NAMES)
def test_only_critics_with_a_weight_pick(who):
    cube, critics = both("real, 5-d")
    tray = picked(critics, {who: 1.0}, BoxPolicy(cube), nothing(cube), 4, rng())
    assert tray.notes["critic"].tolist() == [who] * 4


@pytest.mark.parametrize(
    "weights", [{"gp": 1.0}, {"quadratic": 1.0}, {"gp": 0.5, "quadratic": 0.5}]
)
def test_nobody_picks_where_nothing_passes(weights):
    unit = points(real_cube(2), 30)
    cube = Cube(("real",) * 2, (0,) * 2, (None,) * 2, feasible=lambda u: np.zeros(len(u), bool))
    critics = critics_of(cube, unit, bowl(unit))
    tray = picked(critics, weights, BoxPolicy(cube), nothing(cube), 5, rng())
    assert len(tray) == 0
    assert all(len(note) == 0 for note in tray.notes.values())


def test_half_of_what_the_quadratic_thinks_of_is_enough():
    unit = points(real_cube(2), 30)
    reward = bowl(unit) + 0.05 * rng(1).standard_normal(30)
    free = quadratic.fit(real_cube(2), unit, reward).maxima(400, rng(2))
    wall = float(np.median(free[:, 0]))
    cube = Cube(("real",) * 2, (0,) * 2, (None,) * 2, feasible=lambda u: u[:, 0] < wall)
    how = (BoxPolicy(cube), nothing(cube), 10, rng(1))
    tray = picked(critics_of(cube, unit, reward), {"quadratic": 1.0}, *how)
    assert len(tray) == 10
    assert cube.feasible(tray.unit).all()


def test_fewer_are_picked_where_few_pass():
    unit, edge = points(real_cube(2), 30), 1e-3
    cube = Cube(
        ("real",) * 2, (0,) * 2, (None,) * 2, feasible=lambda u: np.abs(u[:, 0] - 0.4) < edge
    )
    critics = critics_of(cube, unit, bowl(unit) + 0.1 * rng(1).standard_normal(30))
    tray = picked(critics, {"quadratic": 1.0}, BoxPolicy(cube), nothing(cube), 20, rng(1))
    assert len(tray) < 20
    assert cube.feasible(tray.unit).all()


def test_nobody_picks_among_failures():
    unit = points(real_cube(2), 80)
    bad = unit[:, 0] > 0.5
    reward = bowl(unit, np.array([0.9, 0.5]))  # the best would be where all fail
    critics = critics_of(real_cube(2), unit[~bad], reward[~bad], unit[bad])
    for who in NAMES:
        tray = picked(critics, {who: 1.0}, BoxPolicy(real_cube(2)), unit[:0], 6, rng())
        assert len(tray) == 6 or who == "quadratic"
        assert not len(tray) or critics.feasibility.risk(tray.unit).max() <= 0.5


def test_the_process_is_told_of_what_is_on_its_way_and_of_the_newest_failures(monkeypatch):
    told, believing = [], gaussian_process.GaussianProcess.believing
    then, believe = [], Improvement.believe

    def spy(gp, unit):
        told.append(unit)
        return believing(gp, unit)

    def look(search, unit):
        then.append(unit)
        believe(search, unit)

    monkeypatch.setattr(gaussian_process.GaussianProcess, "believing", spy)
    monkeypatch.setattr(Improvement, "believe", look)
    monkeypatch.setattr(picking, "FAILURES", 5)
    unit, way = points(real_cube(2), 60), points(real_cube(2), 4, seed=9)
    bad = unit[:, 0] > 0.7
    critics = critics_of(real_cube(2), unit[~bad], bowl(unit[~bad]), unit[bad])
    tray = picked(critics, {"gp": 1.0}, BoxPolicy(real_cube(2)), way, 2, rng())
    np.testing.assert_array_equal(told[0], np.concatenate([way, unit[bad][-5:]]))
    assert len(told) == 1
    np.testing.assert_array_equal(np.array(then), tray.unit)


def test_what_is_on_its_way_is_not_picked_again():
    unit = points(real_cube(2), 30)
    reward = -np.sin(7 * unit[:, 0]) * np.cos(5 * unit[:, 1])
    critics = critics_of(real_cube(2), unit, reward)
    how = (critics, {"gp": 1.0}, BoxPolicy(real_cube(2)))
    tray = picked(*how, unit[:0], 6, rng())
    length = np.exp(critics.gp.theta[:2])
    z = tray.unit / length
    apart = np.sqrt(kernel.squares(z, z))[np.triu_indices(6, 1)]
    assert apart.min() > 0  # each knows of those before
    assert apart[0] > 0.05
    later = picked(*how, tray.unit[:1], 1, rng()).unit
    assert np.linalg.norm((later - tray.unit[0]) / length) > 0.05


def test_the_process_finds_the_maximum_that_it_has_seen_the_slopes_of():
    unit = points(real_cube(2), 40)
    critics = critics_of(real_cube(2), unit, bowl(unit))
    tray = picked(critics, {"gp": 1.0}, BoxPolicy(real_cube(2)), unit[:0], 3, rng())
    assert bowl(tray.unit).max() > bowl(unit).max()
    assert np.abs(tray.unit[0] - 0.4).max() < 0.05


def test_candidates_are_points_of_the_cube_near_good_members_too():
    for name in CUBES:
        cube, critics = both(name)
        unit = picking.candidates(critics.gp, BoxPolicy(cube), rng())
        assert ((unit > 0) & (unit < 1)).all()
        np.testing.assert_array_equal(cube.canonical(unit), unit)
    gp = both("real, 5-d")[1].gp
    unit = picking.candidates(gp, BoxPolicy(real_cube(5)), rng())
    good = gp.members[np.argsort(-gp.y)[:5]]
    near = np.sqrt(kernel.squares(unit, good)).min(axis=1)
    assert (near < 0.02).sum() >= 100


# ---- lessons stay bounded, and never end a campaign


def test_where_there_are_many_coordinates_products_are_left_out():
    cube = real_cube(40)
    unit = points(cube, 200)
    fitted = quadratic.fit(cube, unit, -((unit - 0.4) ** 2).sum(axis=1))
    assert fitted is not None
    assert not fitted.crossed
    assert len(fitted.mean) == 81
    near = fitted.maxima(50, rng())
    assert ((near - 0.4) ** 2).mean() < ((unit - 0.4) ** 2).mean()
    many = Cube(("real", "categorical"), (0, 900), (None, np.linspace(0, 1, 901)))
    assert quadratic.fit(many, points(many, 200), rng().random(200)) is None


def test_rewards_too_far_apart_for_floats_make_no_critic():
    cube = real_cube(2)
    unit, reward = points(cube, 30), np.where(np.arange(30) % 2 == 0, 1.7e308, -1.7e308)
    assert gaussian_process.fit(cube, unit, reward) is None
    assert quadratic.fit(cube, unit, reward) is None


def test_cells_that_are_known_are_not_picked_again():
    """Sixteen cells of which ten are known: six can be picked, each once."""
    edges = np.linspace(0.0, 1.0, 5)
    cube = Cube(("ordinal", "categorical"), (4, 4), (edges, edges))
    cells = np.stack(np.divmod(np.arange(10), 4), axis=1)
    unit = (cells + rng().random((10, 2))) / 4
    rows = rows_of(range(10), unit, -cells.sum(axis=1).astype(float))
    critics = Committee(cube).learn(rows)
    tray = picked(critics, {"gp": 1.0}, BoxPolicy(cube), nothing(cube), 16, rng(1))
    found = cube.cells(tray.unit).tolist()
    assert found
    assert all(cell not in cells.tolist() for cell in found)
    assert len({tuple(cell) for cell in found}) == len(found) <= 6
