"""The mixture policy, its normals and their fit, and the defensive mixture around a policy."""

import itertools
import json

import numpy as np
import pytest
from scipy.special import logsumexp, ndtr, ndtri
from scipy.stats import chi2

from ensemblerl.agents.base import Policy
from ensemblerl.agents.policies import gaussian
from ensemblerl.agents.policies.defended import Defended
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.problems import mixed
from ensemblerl.records import Cube
from ensemblerl.testing.cubes import (
    FOUR,
    THREE,
    conditional_cube,
    example_cubes,
    mixed_cube,
    real_cube,
)
from ensemblerl.testing.density_laws import weights_law, within

HALVES = np.array([0.0, 0.6, 1.0])


def rng(seed=0):
    return np.random.default_rng(seed)


def family_cube():
    """An ordinal, its categorical child, that one's real child, and a real one beside them."""
    parents = ((), ((0, (1, 2)),), ((1, (0, 2)),), ())
    kinds = ("ordinal", "categorical", "real", "real")
    return Cube(kinds, (4, 3, 0, 0), (FOUR, THREE, None, None), parents)


def choices_cube():
    """Nothing but categories."""
    return Cube(("categorical",) * 2, (3, 2), (THREE, HALVES), ((), ((0, (0, 1)),)))


def line_cube():
    """An ordinal of two cells, and a real coordinate that counts in the first one only."""
    return Cube(("ordinal", "real"), (2, 0), (HALVES, None), ((), ((0, (0,)),)))


SMALL = {
    "mixed": mixed_cube(),
    "conditional": conditional_cube(),
    "family": family_cube(),
    "choices": choices_cube(),
}
CUBES = {**example_cubes(), **SMALL, "the problem": mixed.space().cube}
all_cubes = pytest.mark.parametrize("cube", CUBES.values(), ids=CUBES)
small_cubes = pytest.mark.parametrize("cube", SMALL.values(), ids=SMALL)


def covariance(ndim, sd, numbers):
    """A random one with these limits of its standard deviations."""
    root = numbers.normal(size=(ndim, ndim + 1))
    cov = root @ root.T
    scale = numbers.uniform(*sd, ndim) / np.sqrt(np.diag(cov))
    return cov * scale * scale[:, None]


def trained(cube, *, seed=1, sd=(0.2, 0.9), spread=1.0, components=3, **arguments):
    """A policy with full covariances, means anywhere, skewed tables, shares of all sizes."""
    numbers = rng(seed)
    policy = MixturePolicy(cube, components=components, **arguments)
    w = policy.weights
    w["share"] = numbers.dirichlet(np.ones(components))
    w["mean"] = spread * numbers.uniform(-1.5, 1.5, w["mean"].shape)
    w["cov"] = np.array([covariance(len(one), sd, numbers) for one in w["cov"]])
    for name in w:
        if name.startswith("table"):
            w[name] = numbers.dirichlet(0.7 * np.ones(w[name].shape[1]), components) * 0.97 + 0.01
            w[name] /= w[name].sum(axis=1, keepdims=True)
    return policy.with_weights(w)


def with_normal(cube, mean, cov, **arguments):
    """One component with this mean and covariance."""
    policy = MixturePolicy(cube, components=1, **arguments)
    w = policy.weights | {"mean": np.array([mean], float), "cov": np.array([cov], float)}
    return policy.with_weights(w)


def cell_numbers(cube, unit):
    """(n,) which cell of a grid over all coordinates: a third of a real one, inactive apart."""
    cells = cube.cells(unit)
    where = np.where(cells < 0, np.minimum((unit * 3).astype(int), 2), cells) + 1
    return (np.where(cube.active(unit), where, 0) * 7 ** np.arange(cube.ndim)).sum(axis=1)


def uniform(cube, n, seed=99):
    return cube.canonical(rng(seed).random((n, cube.ndim)))


def check_agreement(policy, cube, n=20_000, seed=5):
    """Draws in cells of a grid against the density's mass there, integrated over the prior."""
    drawn = cell_numbers(cube, policy.sample(n, None, rng(seed)))
    prior = uniform(cube, 10 * n)
    of, q = cell_numbers(cube, prior), np.exp(policy.log_prob(prior))
    cells, of = np.unique(of, return_inverse=True)
    assert np.isin(drawn, cells).all()
    count = (drawn[:, None] == cells).sum(axis=0)
    m = len(q)
    mass = np.bincount(of, q) / m
    error = (np.bincount(of, q**2) / m - mass**2) / m
    assert abs(mass.sum() - 1.0) < 5 * q.std() / np.sqrt(m)
    few = n * mass < 25
    count, mass, error = (np.append(x[~few], x[few].sum()) for x in (count, mass, error))
    use = mass > 0
    statistic = (count - n * mass)[use] ** 2 / (n * mass + n**2 * error)[use]
    assert len(statistic) > 4
    assert chi2.sf(statistic.sum(), len(statistic)) > 1e-4


def on_line(policy, half=8.0, n=160_001):
    """Integral of a density on one real coordinate, by the rule of trapezoids on y."""
    y = np.linspace(-half, half, n)
    density = np.exp(policy.log_prob(ndtr(y)[:, None]) - 0.5 * y**2) / np.sqrt(2 * np.pi)
    return np.trapezoid(density, y)


class TestDensity:
    @small_cubes
    @pytest.mark.parametrize("seed", [1, 2])
    def test_draws_agree_with_it(self, cube, seed):
        check_agreement(trained(cube, seed=seed), cube)

    @small_cubes
    def test_draws_of_the_widened_policy_agree_with_it(self, cube):
        check_agreement(trained(cube, sd=(0.1, 0.3)).widened(), cube)

    @all_cubes
    def test_weights_undo_the_policy(self, cube):
        """E_q[1/q] = 1; near enough to the prior that 1/q has a variance."""
        policy = trained(cube, sd=(0.8, 1.0), spread=0.3)
        w = policy.weights
        w["cov"] = 0.5 * (w["cov"] + np.eye(w["cov"].shape[1]))
        policy = policy.with_weights(w)
        unit = policy.sample(20_000, None, rng(3))
        weight = np.exp(-policy.log_prob(unit))
        within(weight - 1.0, "1 / q")
        if all(edges is None or np.diff(edges).min() > 0.01 for edges in cube.edges):
            weights_law(weight, unit, cube)  # elsewhere a cell holds too few draws for it

    @all_cubes
    def test_its_mean_over_the_prior_is_one(self, cube):
        within(np.exp(trained(cube).log_prob(uniform(cube, 200_000))) - 1.0, "q under the prior")

    @all_cubes
    def test_points_lie_in_the_open_cube_with_inactive_ones_in_the_middle(self, cube):
        unit = trained(cube, spread=2.5).sample(5000, None, rng(4))
        assert ((unit > 0) & (unit < 1)).all()
        assert (unit[~cube.active(unit)] == 0.5).all()
        assert len(np.unique(unit, axis=0)) > 5 or cube.kinds == ("categorical",) * 2

    @all_cubes
    def test_the_untrained_policy_is_the_prior_exactly(self, cube):
        for policy in (MixturePolicy(cube), MixturePolicy(cube).widened()):
            unit = policy.sample(500, None, rng())
            assert (policy.log_prob(unit) == 0.0).all()
            assert (policy.log_prob(uniform(cube, 500)) == 0.0).all()

    @all_cubes
    def test_one_step_is_the_whole_density(self, cube):
        policy = trained(cube)
        unit = policy.sample(50, None, rng())
        assert policy.steps(unit).shape == (50, policy.n_steps)
        np.testing.assert_array_equal(policy.steps(unit).sum(axis=1), policy.log_prob(unit))
        assert policy.log_prob(unit[:0]).shape == (0,)
        assert isinstance(policy, Policy)

    def test_what_is_inactive_is_integrated_out(self):
        cube = line_cube()
        policy = trained(cube, components=2)
        free = MixturePolicy(Cube(cube.kinds, cube.levels, cube.edges), components=2)
        free = free.with_weights(policy.weights)
        y = np.linspace(-9.0, 9.0, 20_001)
        phi = np.exp(-0.5 * y**2) / np.sqrt(2 * np.pi)
        for u in (0.61, 0.7, 0.95):
            points = np.column_stack([np.full(len(y), u), ndtr(y)])
            points[:, 1] = points[:, 1].clip(1e-300, 1 - 2**-53)
            whole = np.trapezoid(np.exp(free.log_prob(points)) * phi, y)
            assert np.exp(policy.log_prob(np.array([[u, 0.5]])))[0] == pytest.approx(
                whole, rel=1e-6
            )
        inside = np.array([[0.3, 0.2], [0.59, 0.9]])
        np.testing.assert_allclose(policy.log_prob(inside), free.log_prob(inside))

    @pytest.mark.parametrize("mean", [-4.0, 0.0, 4.0])
    @pytest.mark.parametrize("sd", [1e-4, 1e-2, 1.0])
    def test_it_is_normalised_however_extreme(self, mean, sd):
        policy = with_normal(real_cube(1), [mean], [[sd**2]])
        # beyond y = 8 the numbers near 1 tell points apart no more: 1e-4 of the mass is there
        assert on_line(policy, n=1_600_001) == pytest.approx(1.0, abs=1e-4)

    def test_it_is_normalised_with_coordinates_that_nearly_agree(self):
        sd = np.array([1.0, 0.5])
        cov = np.array([[1.0, 0.999], [0.999, 1.0]]) * sd * sd[:, None]
        policy = with_normal(real_cube(2), [-4.0, 1.0], cov)
        y = np.meshgrid(np.linspace(-9.0, 1.0, 1501), np.linspace(-2.0, 4.0, 1501), indexing="ij")
        y = np.column_stack([one.ravel() for one in y])
        density = np.exp(policy.log_prob(ndtr(y)) - 0.5 * (y**2).sum(axis=1)) / (2 * np.pi)
        assert density.sum() * 10.0 / 1500 * 6.0 / 1500 == pytest.approx(1.0, abs=1e-4)

    def test_extreme_draws_have_a_finite_density(self):
        for mean, sd in itertools.product((-4.0, 4.0), (1e-4, 1.0)):
            policy = with_normal(real_cube(2), [mean, mean], np.eye(2) * sd**2)
            unit = policy.sample(20_000, None, rng(1))
            assert ((unit > 0) & (unit < 1)).all()
            assert np.isfinite(policy.log_prob(unit)).all()

    def test_components_without_a_share_draw_nothing(self):
        policy = trained(mixed_cube())
        w = policy.weights | {"share": np.array([0.0, 1.0, 0.0])}
        one, alone = policy.with_weights(w), with_normal(mixed_cube(), [0, 0], np.eye(2))
        alone = alone.with_weights({k: v[1:2] for k, v in w.items()})
        unit = one.sample(2000, None, rng())
        np.testing.assert_array_equal(one.log_prob(unit), alone.log_prob(unit))
        within(ndtri(unit[:, 0]) - w["mean"][1, 0], "mean of the component that has a share")

    def test_a_hundred_coordinates(self):
        cube = real_cube(100)
        numbers = rng(2)
        y = numbers.normal(size=(50, 100)) * 0.3 + 1.0
        policy = MixturePolicy(cube).fitted(ndtr(y), np.ones(50), 10.0, numbers)
        unit = policy.sample(200, None, numbers)
        assert np.isfinite(policy.log_prob(unit)).all()
        assert policy.log_prob(unit).mean() > 20
        assert np.abs(policy.weights["mean"][0] - 1.0 * 50 / 60).max() < 0.25


class TestWidened:
    def test_it_is_normalised(self):
        policy = trained(real_cube(1), sd=(0.05, 0.2)).widened()
        assert on_line(policy) == pytest.approx(1.0, abs=1e-6)

    def test_standard_deviations_double_up_to_the_priors(self):
        cov = np.array([[0.04, 0.03, 0.0], [0.03, 0.49, 0.1], [0.0, 0.1, 1.0]])
        wide = with_normal(real_cube(3), [1.0, 2.0, 3.0], cov).widened().weights
        np.testing.assert_allclose(np.sqrt(np.diag(wide["cov"][0])), [0.4, 1.0, 1.0])
        np.testing.assert_allclose(correlation(wide["cov"][0]), correlation(cov))
        np.testing.assert_array_equal(wide["mean"][0], [1.0, 2.0, 3.0])

    def test_tables_go_half_way_to_the_prior(self):
        policy = trained(choices_cube())
        wide = policy.widened().weights["table_0"]
        np.testing.assert_allclose(wide, (policy.weights["table_0"] + np.diff(THREE)) / 2)

    @small_cubes
    def test_it_contains_the_policy(self, cube):
        """A bounded ratio everywhere: 2 for each coordinate."""
        policy = trained(cube, sd=(0.05, 0.5))
        wide = policy.widened()
        unit = np.concatenate([policy.sample(2000, None, rng()), uniform(cube, 2000)])
        ratio = policy.log_prob(unit) - wide.log_prob(unit)
        assert ratio.max() <= cube.ndim * np.log(2.0) + 1e-9
        drawn = policy.sample(4000, None, rng(1))
        assert policy.log_prob(drawn).mean() > wide.log_prob(wide.sample(4000, None, rng(1))).mean()


def correlation(cov):
    sd = np.sqrt(np.diag(cov))
    return cov / sd / sd[:, None]


def off(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


def points(n, cov, mean, seed=0):
    """(n, ndim) y, and the points of the cube."""
    y = rng(seed).multivariate_normal(mean, cov, n)
    return y, ndtr(y)


class TestRank:
    def one_factor(self):
        factor = np.array([0.9, 0.8, -0.7, 0.6, 0.5])
        cov = np.outer(factor, factor)
        np.fill_diagonal(cov, 1.0)
        return cov

    def fit(self, cov, rank, n=20_000):
        _, unit = points(n, cov, np.zeros(len(cov)))
        policy = MixturePolicy(real_cube(len(cov)), components=1, rank=rank)
        return policy.fitted(unit, np.ones(n), 1e-6, rng()).weights["cov"][0]

    def test_full_covariance_finds_a_known_correlation(self):
        cov = covariance(4, (0.3, 0.8), rng(3))
        found = self.fit(cov, None)
        assert np.abs(correlation(found) - correlation(cov)).max() < 5 / np.sqrt(20_000)
        np.testing.assert_allclose(np.diag(found), np.diag(cov), rtol=5 * np.sqrt(2 / 20_000))

    @pytest.mark.parametrize("rank", [1, 2])
    def test_off_the_diagonal_it_has_that_rank(self, rank):
        cov = correlation(covariance(6, (0.3, 0.8), rng(5)))
        found = correlation(self.fit(cov, rank))
        # of W W' with r columns every minor of r + 1 rows and as many other columns vanishes
        for rows in itertools.combinations(range(6), rank + 1):
            rest = [j for j in range(6) if j not in rows]
            for columns in itertools.combinations(rest, rank + 1):
                assert abs(np.linalg.det(found[np.ix_(rows, columns)])) < 1e-12
        full = correlation(self.fit(cov, None))
        assert (
            max(
                abs(np.linalg.det(full[np.ix_(rows, [3, 4, 5][: rank + 1])]))
                for rows in itertools.combinations(range(3), rank + 1)
            )
            > 1e-4
        )
        assert np.linalg.eigvalsh(found).min() > 0

    def test_one_factor_is_found_again(self):
        found = correlation(self.fit(self.one_factor(), 1))
        assert np.abs(off(found - self.one_factor())).max() < 0.12
        assert np.abs(off(self.one_factor())).max() > 0.7

    def test_a_rank_of_all_coordinates_is_full(self):
        cov = covariance(3, (0.3, 0.8), rng(3))
        np.testing.assert_array_equal(self.fit(cov, 3), self.fit(cov, None))

    def test_variances_are_the_same_whatever_the_rank(self):
        cov = covariance(5, (0.3, 0.8), rng(6))
        np.testing.assert_allclose(np.diag(self.fit(cov, 1)), np.diag(self.fit(cov, None)))


def weighted(y, w):
    """Mean and covariance of weighted points."""
    mean = w @ y / w.sum()
    return mean, (y - mean).T @ ((y - mean) * w[:, None]) / w.sum()


def alone(cube, **arguments):
    return MixturePolicy(cube, components=1, **arguments)


class TestFit:
    def test_it_has_the_moments_of_the_weighted_points(self):
        y, unit = points(60, covariance(3, (0.2, 0.6), rng(1)), [0.5, -1.0, 2.0])
        w = rng(2).uniform(0.0, 2.0, 60)
        got = alone(real_cube(3)).fitted(unit, w, 1e-9, rng()).weights
        mean, cov = weighted(y, w)
        np.testing.assert_allclose(got["mean"][0], mean, rtol=1e-6)
        np.testing.assert_allclose(np.diag(got["cov"][0]), np.diag(cov), rtol=1e-6)
        shrunk = w.sum() / (w.sum() + 3)
        np.testing.assert_allclose(
            off(correlation(got["cov"][0])), shrunk * off(correlation(cov)), rtol=1e-6
        )

    def test_a_table_has_the_weights_of_its_cells(self):
        cube = choices_cube()
        unit = np.array([[0.2, 0.3], [0.6, 0.3], [0.6, 0.8], [0.9, 0.5]])
        got = alone(cube).fitted(unit, np.array([4.0, 1.0, 2.0, 3.0]), 1e-9, rng()).weights
        np.testing.assert_allclose(got["table_0"][0], [0.4, 0.3, 0.3], rtol=1e-6)
        # the last row's second coordinate is inactive: it says nothing
        np.testing.assert_allclose(got["table_1"][0], [5 / 7, 2 / 7], rtol=1e-6)

    def test_no_letter_becomes_impossible(self):
        unit = np.full((50, 2), 0.2)
        got = alone(choices_cube()).fitted(unit, np.ones(50), 1e-9, rng())
        assert got.weights["table_0"].min() > 5e-7
        assert np.isfinite(got.log_prob(uniform(choices_cube(), 100))).all()

    def test_the_anchor_counts_for_that_many_points(self):
        y, unit = points(40, 0.04 * np.eye(2), [0.5, -1.0])
        old = with_normal(real_cube(2), [-0.5, 0.0], [[0.5, 0.2], [0.2, 0.3]])
        got = old.fitted(unit, np.full(40, 0.5), 30.0, rng()).weights
        both = np.concatenate([y, *sigma_points(old)])
        w = np.concatenate([np.full(40, 0.5), np.full(4, 30.0 / 4)])
        mean, cov = weighted(both, w)
        np.testing.assert_allclose(got["mean"][0], mean)
        np.testing.assert_allclose(np.diag(got["cov"][0]), np.diag(cov))
        np.testing.assert_allclose(off(correlation(got["cov"][0])), 50 / 52 * off(correlation(cov)))

    def test_a_larger_anchor_keeps_it_nearer(self):
        _, unit = points(40, 0.04 * np.eye(2), [1.0, -1.0])
        old = alone(real_cube(2))
        draws = old.sample(4000, None, rng(1))
        far = [
            (old.log_prob(draws) - old.fitted(unit, np.ones(40), a, rng()).log_prob(draws)).mean()
            for a in (1.0, 10.0, 100.0, 1000.0, 1e9)
        ]
        assert sorted(far, reverse=True) == far
        assert far[0] > 1
        assert abs(far[-1]) < 1e-6

    def test_points_without_weight_count_for_nothing(self):
        _, unit = points(30, 0.1 * np.eye(2), [1.0, 0.0])
        more = np.concatenate([unit, uniform(real_cube(2), 30)])
        w = np.concatenate([np.ones(30), np.zeros(30)])
        one, two = (
            alone(real_cube(2)).fitted(u, v, 5.0, rng()).weights
            for u, v in ((unit, np.ones(30)), (more, w))
        )
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=1e-12)

    def test_components_without_a_share_are_the_priors(self):
        policy = trained(mixed_cube(), components=2)
        w = policy.weights | {"share": np.array([1.0, 0.0])}
        unit = uniform(mixed_cube(), 5)
        got = policy.with_weights(w).fitted(unit, np.ones(5), 1.0, rng()).weights
        assert got["share"].tolist() == [1.0, 0.0]
        for name in ("mean", "cov", "table_2"):
            prior = MixturePolicy(mixed_cube(), components=2).weights[name]
            np.testing.assert_allclose(got[name][1], prior[1])
            assert not np.allclose(got[name][0], w[name][0])

    def test_the_likelihood_rises(self):
        unit = trained(family_cube(), seed=3).sample(300, None, rng(1))
        policy, w = MixturePolicy(family_cube()), rng(2).random(300)
        before = -1e-9
        for _ in range(5):
            policy = policy.fitted(unit, w, 1e-3, rng())
            now = w @ policy.log_prob(unit)
            assert now > before
            before = now
        assert before / w.sum() > 0.5

    def test_limits_of_means_and_standard_deviations(self):
        y = np.column_stack([np.full(40, 6.0), np.r_[np.full(20, -3.0), np.full(20, 3.0)]])
        got = alone(real_cube(2)).fitted(ndtr(y), np.ones(40), 1e-9, rng()).weights
        np.testing.assert_allclose(got["mean"][0], [4.0, 0.0], atol=1e-6)
        # (6 - 4)^2 about the mean that is kept, and no more than the prior's
        np.testing.assert_allclose(np.diag(got["cov"][0]), [1.0, 1.0])

    def test_points_at_the_edge_leave_a_covariance(self):
        """About another mean than the one that is kept the sums are none."""
        z = rng().normal(size=(500, 2)) @ [[1.0, 0.8], [0.0, 0.6]]
        y = [-5.5, -1.0] + [0.1, 1e-3] * z
        got = alone(real_cube(2)).fitted(ndtr(y), np.ones(500), 1e-9, rng())
        mean, cov = y.mean(axis=0), np.cov(y.T, bias=True)
        about = cov + np.outer([mean[0] + 4.0, 0.0], [mean[0] + 4.0, 0.0])
        wanted = 500 / 502 * correlation(about)[0, 1]
        assert got.weights["mean"][0, 0] == -4.0
        assert correlation(got.weights["cov"][0])[0, 1] == pytest.approx(wanted, rel=1e-3)

    @small_cubes
    @pytest.mark.parametrize("rank", [None, 1])
    @pytest.mark.parametrize("anchor", [1e-9, 10.0])
    def test_degenerate_points_leave_a_policy(self, cube, rank, anchor):
        one, far = uniform(cube, 1, seed=7), uniform(cube, 30, seed=8)
        first = np.eye(30)[0]
        cases = {
            "one row": (one, np.ones(1)),
            "all equal": (np.tile(one, (30, 1)), np.ones(30)),
            "one weight": (far, first),
            "a huge weight": (far, 1e6 * first + 1.0),
            "tiny weights": (far, np.full(30, 1e-12)),
            "no weight": (far, np.zeros(30)),
        }
        for name, (unit, w) in cases.items():
            policy = MixturePolicy(cube, rank=rank)
            for _ in range(4):
                policy = policy.fitted(unit, w, anchor, rng())
            if policy.weights["cov"].size:
                assert np.linalg.eigvalsh(policy.weights["cov"]).min() > 0, name
            drawn = policy.sample(200, None, rng())
            assert np.isfinite(policy.log_prob(np.concatenate([drawn, far]))).all(), name
            assert policy.weights["share"].sum() == pytest.approx(1.0), name
            check = np.exp(policy.log_prob(uniform(cube, 4000)))
            assert np.isfinite(check).all(), name


def sigma_points(policy):
    """(2, ndim), (2, ndim) points with the moments of a normal in the plane."""
    w = policy.weights
    root = np.sqrt(2.0) * np.linalg.cholesky(w["cov"][0]).T
    return w["mean"][0] + root, w["mean"][0] - root


class TestMissing:
    def data(self, n=80):
        y, _ = points(n, [[0.5, 0.3, 0.1], [0.3, 0.6, -0.2], [0.1, -0.2, 0.4]], [0.2, -0.3, 0.5])
        seen = rng(1).random((n, 3)) < 0.6
        seen[:4] = [[0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 1]]
        return np.where(seen, y, 0.0), seen, rng(2).uniform(0.2, 2.0, (n, 1))

    def test_expected_sums_are_those_of_the_conditional_normal(self):
        """Against numerical integration over what is missing."""
        mean, cov = np.array([[0.5, -0.5]]), np.array([[[0.6, 0.4], [0.4, 0.8]]])
        y, seen = np.array([[0.9, 0.0]]), np.array([[True, False]])
        sums = gaussian.moments(y, seen, np.array([[2.0]]), mean, cov)
        grid = np.linspace(-9.0, 9.0, 40_001)
        both = np.column_stack([np.full(len(grid), 0.9), grid]) - mean[0]
        p = np.exp(-0.5 * (both @ np.linalg.inv(cov[0]) * both).sum(axis=1))
        p /= p.sum()
        first = np.array([0.9, p @ grid])
        second = np.array([[0.81, 0.9 * first[1]], [0.9 * first[1], p @ grid**2]])
        np.testing.assert_allclose(sums.total, [2.0])
        np.testing.assert_allclose(sums.first[0], 2.0 * first, rtol=1e-8)
        np.testing.assert_allclose(sums.second[0], 2.0 * second, rtol=1e-8)

    def test_the_density_is_that_of_what_is_there(self):
        y, seen, _ = self.data()
        mean, cov = np.array([[0.1, 0.2, 0.3]]), np.array([covariance(3, (0.4, 0.9), rng())])
        got = gaussian.log_ratio(y, seen, mean, cov)[:, 0]
        for row in range(12):
            there = np.flatnonzero(seen[row])
            d, S = (y[row] - mean[0])[there], cov[0][np.ix_(there, there)]
            wanted = -0.5 * (d @ np.linalg.solve(S, d) - y[row, there] @ y[row, there])
            wanted -= 0.5 * np.log(np.linalg.det(S)) if len(there) else 0.0
            assert got[row] == pytest.approx(wanted, abs=1e-12)

    def test_expectation_and_maximisation_end_at_the_maximum_of_the_likelihood(self):
        y, seen, w = self.data()
        mean, cov = np.zeros((1, 3)), np.eye(3)[None]
        for _ in range(600):
            sums = gaussian.moments(y, seen, w, mean, cov)
            mean = sums.first / sums.total[:, None]
            cov = sums.second / sums.total[:, None, None] - mean[:, :, None] * mean[:, None]

        def likelihood(mean, cov):
            return float(w[:, 0] @ gaussian.log_ratio(y, seen, mean, cov)[:, 0])

        top = likelihood(mean, cov)
        for i in range(3):
            for h in (-1e-3, 1e-3):
                assert likelihood(mean + h * np.eye(3)[i], cov) < top
                for j in range(i + 1):
                    change = np.zeros((3, 3))
                    change[i, j] = change[j, i] = h
                    assert likelihood(mean, cov + change) < top

    def test_a_policy_learns_from_points_with_inactive_coordinates(self):
        """The fit on a conditional cube against the same steps by brute force."""
        cube = line_cube()
        policy = trained(cube, components=1, seed=4)
        unit, w = uniform(cube, 50), rng(2).random(50)
        got = policy.fitted(unit, w, 2.0, rng(), iterations=1).weights
        mean, cov = policy.weights["mean"][0], policy.weights["cov"][0]
        y, active = ndtri(unit), cube.active(unit)
        assert 10 < (~active[:, 1]).sum() < 40
        total, first, second = 2.0, 2.0 * mean, 2.0 * (cov + np.outer(mean, mean))
        for row, weight in enumerate(w):
            full, left = y[row].copy(), np.zeros((2, 2))
            if not active[row, 1]:
                full[1] = mean[1] + cov[0, 1] / cov[0, 0] * (full[0] - mean[0])
                left[1, 1] = cov[1, 1] - cov[0, 1] ** 2 / cov[0, 0]
            total, first = total + weight, first + weight * full
            second = second + weight * (np.outer(full, full) + left)
        m = first / total
        S = second / total - np.outer(m, m)
        np.testing.assert_allclose(got["mean"][0], m)
        np.testing.assert_allclose(np.diag(got["cov"][0]), np.diag(S))
        assert correlation(got["cov"][0])[0, 1] == pytest.approx(
            total / (total + 2) * correlation(S)[0, 1]
        )


class TestGrowth:
    def two_heaps(self, n):
        centre = np.where(rng(1).random((n, 1)) < 0.5, -1.5, 1.5) * [1.0, 1.0]
        return ndtr(centre + 0.2 * rng(2).normal(size=(n, 2)))

    def used(self, policy):
        return int((policy.weights["share"] > 0).sum())

    def test_components_come_with_evidence_only(self):
        unit, numbers = self.two_heaps(400), rng()
        for worth, wanted in ((15.9, 1), (16.1, 2), (400.0, 4)):
            policy = MixturePolicy(real_cube(2), components=4)
            for _ in range(6):
                policy = policy.fitted(unit, np.full(400, worth / 400), 1.0, numbers)
            assert self.used(policy) == wanted
        assert policy.weights["share"].sum() == pytest.approx(1.0)

    def test_one_at_a_time(self):
        policy, unit = MixturePolicy(real_cube(2)), self.two_heaps(400)
        for wanted in (2, 3, 4, 4):
            policy = policy.fitted(unit, np.ones(400), 1.0, rng())
            assert self.used(policy) == wanted

    def test_two_heaps_are_told_apart(self):
        policy, unit = MixturePolicy(real_cube(2), components=2), self.two_heaps(400)
        one = alone(real_cube(2))
        for _ in range(10):
            policy = policy.fitted(unit, np.ones(400), 1.0, rng(3))
            one = one.fitted(unit, np.ones(400), 1.0, rng(3))
        mean = policy.weights["mean"]
        np.testing.assert_allclose(mean[np.argsort(mean[:, 0])], [[-1.5] * 2, [1.5] * 2], atol=0.1)
        assert policy.log_prob(unit).mean() > one.log_prob(unit).mean() + 0.5

    def test_a_component_that_faded_away_makes_room_for_a_new_one(self):
        policy = trained(real_cube(2), components=4)
        w = policy.weights | {"share": np.array([0.5, 0.0, 0.3, 0.2])}
        grown = policy.with_weights(w)._grown(self.two_heaps(400), np.ones(400), rng()).weights
        assert (grown["share"] > 0).all()
        assert grown["share"].sum() == pytest.approx(1.0)
        np.testing.assert_array_equal(grown["mean"][[0, 2, 3]], w["mean"][[0, 2, 3]])

    def test_a_component_without_points_is_given_up_and_its_place_taken_again(self):
        policy, both = MixturePolicy(real_cube(2), components=2), self.two_heaps(400)
        for _ in range(10):
            policy = policy.fitted(both, np.ones(400), 1.0, rng(3))
        lower = both[both[:, 0] < 0.5]
        # anchored at itself it fades by 10 / (10 + worth) a time; a share of 0.5 needs a few
        left = []
        for _ in range(20):
            policy = policy.fitted(lower, np.full(len(lower), 15 / len(lower)), 10.0, rng(3))
            left.append(self.used(policy))
        assert (left[0], left[-1]) == (2, 1)
        gone = policy.weights["share"] == 0.0
        np.testing.assert_array_equal(policy.weights["mean"][gone], np.zeros((1, 2)))
        np.testing.assert_array_equal(policy.weights["cov"][gone], np.eye(2)[None])
        assert np.isfinite(policy.log_prob(both)).all()
        for _ in range(10):
            policy = policy.fitted(both, np.ones(400), 1.0, rng(3))
        mean = policy.weights["mean"]
        np.testing.assert_allclose(mean[np.argsort(mean[:, 0])], [[-1.5] * 2, [1.5] * 2], atol=0.1)

    def test_the_last_component_is_never_given_up(self):
        policy = trained(real_cube(2), components=3).fitted(
            np.full((1, 2), 0.5), np.array([0.01]), 0.01, rng()
        )
        assert self.used(policy) == 1
        assert policy.weights["share"].sum() == 1.0

    def test_what_is_grown_is_a_function_of_the_generator(self):
        unit = self.two_heaps(400)
        one, two, other = (
            MixturePolicy(real_cube(2)).fitted(unit, np.ones(400), 1.0, rng(s)).weights["mean"]
            for s in (1, 1, 2)
        )
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)


class TestArguments:
    @pytest.mark.parametrize("value", [0, -1, True, 1.5, "4"])
    def test_numbers_that_are_none(self, value):
        with pytest.raises(ValueError, match=r"components: wanted a whole number >= 1, got"):
            MixturePolicy(real_cube(1), components=value)
        with pytest.raises(ValueError, match=r"rank: wanted a whole number >= 1, got"):
            MixturePolicy(real_cube(1), rank=value)

    def test_components_none(self):
        with pytest.raises(ValueError, match=r"components: .* got None"):
            MixturePolicy(real_cube(1), components=None)

    def test_weights_of_another_policy(self):
        policy = MixturePolicy(mixed_cube())
        with pytest.raises(ValueError, match=r"weights: wanted \[.*table_2.*\], got \['mean'\]"):
            policy.with_weights({"mean": np.zeros(1)})
        with pytest.raises(ValueError, match=r"weights: wanted share of shape \(4,\), got \(2,\)"):
            policy.with_weights(MixturePolicy(mixed_cube(), components=2).weights)

    def test_weights_are_copies_that_nobody_can_write_to(self):
        w = MixturePolicy(mixed_cube()).weights
        w["mean"] = w["mean"] + 1.0
        policy = MixturePolicy(mixed_cube()).with_weights(w)
        w["mean"][:] = 7.0
        assert policy.weights["mean"].max() == 1.0
        with pytest.raises(ValueError, match="read-only"):
            policy.weights["share"][0] = 0.0

    def test_it_says_what_it_is(self):
        policy = MixturePolicy(mixed_cube(), components=3, rank=1)
        described = {"policy": "MixturePolicy", "components": 3, "rank": 1}
        assert json.loads(json.dumps(policy.describe())) == described
        again = policy.with_weights(policy.weights)
        assert again.describe() == described
        assert repr(trained(mixed_cube())) == "MixturePolicy(ndim=3, 3 of 3 components)"


def random_tokens(cube, seed=0, scale=1.5, **arguments):
    policy = TokenPolicy(cube, base=2, digits=2, hidden=6, **arguments)
    learnt = {
        k: scale * rng(seed + i).normal(size=policy.weights[k].shape) for i, k in enumerate("Vb")
    }
    return policy.with_weights({**policy.weights, **learnt})


MAKERS = {"mixture": trained, "tokens": random_tokens}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


class TestDefended:
    @makers
    @small_cubes
    def test_its_density_is_the_mean_by_shares(self, make, cube):
        policy = make(cube)
        unit = np.concatenate([policy.sample(200, None, rng()), uniform(cube, 200)])
        parts = (policy.widened().log_prob(unit), policy.log_prob(unit))
        wanted = np.log(0.1 + 0.25 * np.exp(parts[0]) + 0.65 * np.exp(parts[1]))
        np.testing.assert_allclose(Defended(policy, 0.1, 0.25).log_prob(unit), wanted, atol=1e-12)

    @makers
    @small_cubes
    def test_draws_agree_with_it(self, make, cube):
        check_agreement(Defended(make(cube), 0.2, 0.3), cube)

    @makers
    def test_every_part_has_its_share_of_the_draws(self, make):
        """Over the parts' densities, which differ: an estimate of each share."""
        policy = make(mixed_cube())
        defended = Defended(policy, 0.5, 0.2)
        unit = defended.sample(20_000, None, rng(1))
        q = np.exp(defended.log_prob(unit))
        within(1.0 / q - 1.0, "1 / q")
        within(np.exp(policy.log_prob(unit)) / q - 1.0, "policy / q")
        within(np.exp(policy.widened().log_prob(unit)) / q - 1.0, "wide / q")

    @makers
    @pytest.mark.parametrize("shares", [(0.05, 0.0), (0.1, 0.3), (1.0, 0.0), (0.7, 0.3)])
    def test_weights_are_bounded_by_the_share_of_the_prior(self, make, shares):
        policy = make(mixed_cube())
        defended = Defended(policy, *shares)
        unit = np.concatenate([defended.sample(2000, None, rng()), uniform(mixed_cube(), 2000)])
        assert np.exp(-defended.log_prob(unit)).max() <= 1 / shares[0] * (1 + 1e-12)

    @makers
    @all_cubes
    def test_points_lie_in_the_open_cube_with_inactive_ones_in_the_middle(self, make, cube):
        unit = Defended(make(cube), 0.3, 0.3).sample(2000, None, rng(4))
        assert ((unit > 0) & (unit < 1)).all()
        assert (unit[~cube.active(unit)] == 0.5).all()

    @makers
    def test_the_prior_alone_and_the_policy_alone(self, make):
        policy = make(mixed_cube())
        unit = uniform(mixed_cube(), 100)
        assert (Defended(policy, 1.0, 0.0).log_prob(unit) == 0.0).all()
        np.testing.assert_allclose(Defended(policy, 0.0, 0.0).log_prob(unit), policy.log_prob(unit))
        np.testing.assert_array_equal(
            Defended(policy, 0.0, 0.0).sample(50, None, rng(1))[:, 0] > 0, np.ones(50, bool)
        )

    @makers
    @small_cubes
    def test_steps_sum_to_it(self, make, cube):
        defended = Defended(make(cube), 0.1, 0.2)
        unit = defended.sample(300, None, rng(2))
        steps = defended.steps(unit)
        assert steps.shape == (300, defended.n_steps)
        np.testing.assert_allclose(steps.sum(axis=1), defended.log_prob(unit), atol=1e-12)

    def test_steps_are_the_conditional_probabilities_of_the_mixture(self):
        """Every token string of a small conditional cube, summed over what may follow."""
        cube = conditional_cube()
        policy = random_tokens(cube)
        alphabet = policy.alphabet
        tokens = np.array(list(itertools.product(*map(range, alphabet.letters))))
        active = alphabet.counting(tokens)[:, alphabet.coordinate]
        tokens, rows = np.unique(tokens * active, axis=0, return_index=True)
        active = active[rows]
        unit = alphabet.decode(tokens, rng())
        prior = alphabet.log_prior[np.arange(alphabet.n_tokens), tokens]
        prior = np.exp(np.where(active, prior, 0.0).sum(axis=1))
        defended = Defended(policy, 0.2, 0.3)
        mass = prior * np.exp(defended.log_prob(unit))
        assert prior.sum() == pytest.approx(1.0)
        assert mass.sum() == pytest.approx(1.0)
        steps = defended.steps(unit)
        assert (steps[~active] == 0.0).all()
        before = np.ones(len(tokens)), np.ones(len(tokens))
        for t in range(policy.n_steps):
            same = (tokens[:, None, : t + 1] == tokens[None, :, : t + 1]).all(axis=2)
            now = same @ mass, same @ prior
            wanted = np.log(now[0] / before[0]) - np.log(now[1] / before[1])
            np.testing.assert_allclose(steps[:, t], wanted, atol=1e-10)
            before = now
        assert np.abs(steps).max() > 0.1

    @pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.0, -0.1), (0.8, 0.3), (float("nan"), 0.0)])
    def test_shares_that_are_none(self, shares):
        with pytest.raises(ValueError, match=r"prior_share, wide_share: wanted shares >= 0 .* got"):
            Defended(MixturePolicy(real_cube(1)), *shares)

    def test_shares_of_parts_that_are_all_of_it(self):
        """0.9 + 0.1 leave less than nothing, by rounding."""
        policy = trained(real_cube(1))
        unit = uniform(real_cube(1), 50)
        wanted = logsumexp(
            [np.zeros(50), policy.widened().log_prob(unit)], axis=0, b=[[0.9], [0.1]]
        )
        defended = Defended(policy, 0.9, 0.1)
        np.testing.assert_allclose(defended.log_prob(unit), wanted, atol=1e-12)
        assert defended.sample(100, None, rng()).shape == (100, 1)
