"""Weighted maximum likelihood: what rows are worth, and where a policy ends up."""

import json
import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from ensemblerl.agents.base import Learner, Rows
from ensemblerl.agents.learners import mpo
from ensemblerl.agents.learners.estep import effective_size, log_weights, worth
from ensemblerl.agents.learners.mpo import MPO
from ensemblerl.agents.policies.defended import Defended
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.agents.replay import mid_ranks
from ensemblerl.records import Demands
from ensemblerl.testing.cubes import real_cube

CUBE = real_cube(2)
N = 7
"""Points of the enumerated space."""


def rng(seed=0):
    return np.random.default_rng(seed)


class Enumerated:
    """Seven points: a prior, a policy, a behaviour (all probabilities), and rewards."""

    def __init__(self, seed):
        numbers = rng(seed)
        self.p, self.pi, self.b = numbers.dirichlet(np.ones(N), 3) * 0.9 + 0.1 / N
        self.R = numbers.normal(size=N)

    def log(self, probability):
        """Density over the prior's, as everywhere."""
        return np.log(probability / self.p)

    def path(self, beta, alpha):
        """p (pi / p)^(1 - alpha beta) exp(beta R), normalised."""
        q = self.p * (self.pi / self.p) ** (1.0 - alpha * beta) * np.exp(beta * self.R)
        return q / q.sum()

    def counted(self, n=100_000):
        """Rows as the behaviour draws them, each point as often as it should come."""
        return np.repeat(np.arange(N), np.round(n * self.b).astype(int))


def distribution(rows, weight):
    """(N,) weighted empirical distribution."""
    out = np.bincount(rows, weight, minlength=N)
    return out / out.sum()


class TestWeights:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize(("beta", "alpha"), [(4.0, 0.25), (2.0, 0.25), (0.0, 0.3), (1.5, 0.0)])
    def test_rows_of_any_behaviour_become_the_geometric_path(self, seed, beta, alpha):
        """Swap policy and behaviour in the ratio, or take one out, and it fails."""
        space = Enumerated(seed)
        log_w, cut = log_weights(
            beta, alpha, space.log(space.pi), space.log(space.b), space.R, clip=None
        )
        q = space.b * np.exp(log_w)
        np.testing.assert_allclose(q / q.sum(), space.path(beta, alpha), rtol=1e-12)
        assert not cut.any()

    @pytest.mark.parametrize("seed", range(5))
    def test_the_end_of_the_path_is_the_target_whatever_the_policy_is(self, seed):
        space, alpha = Enumerated(seed), 0.5
        rows = space.counted()
        got = worth(
            space.log(space.pi)[rows], space.log(space.b)[rows], space.R[rows], alpha, 1.0, None
        )
        target = space.p * np.exp(space.R / alpha)
        assert got.beta == 1 / alpha
        np.testing.assert_allclose(distribution(rows, got.weight), target / target.sum(), rtol=2e-3)

    @pytest.mark.parametrize("seed", range(5))
    def test_without_a_temperature_the_policy_is_improved_on(self, seed):
        space = Enumerated(seed)
        rows = space.counted()
        least = 0.7 * effective_size((space.pi / space.b)[rows])
        got = worth(
            space.log(space.pi)[rows], space.log(space.b)[rows], space.R[rows], 0.0, least, None
        )
        wanted = space.pi * np.exp(got.beta * space.R)
        assert got.beta > 0.01
        np.testing.assert_allclose(distribution(rows, got.weight), wanted / wanted.sum(), rtol=2e-3)

    def test_ratios_are_truncated_at_the_clip(self):
        log_pi, log_b = np.log([0.5, 4.0, 2.0]), np.log([1.0, 1.0, 4.0])
        R = np.array([0.1, 0.2, 0.3])
        for clip, wanted, clipped in ((1.0, [0.5, 1.0, 0.5], 1 / 3), (3.0, [0.5, 3.0, 0.5], 1 / 3)):
            log_w, cut = log_weights(0.7, 0.0, log_pi, log_b, R, clip)
            np.testing.assert_allclose(np.exp(log_w), wanted * np.exp(0.7 * R))
            assert cut.mean() == pytest.approx(clipped)
            assert worth(log_pi, log_b, R, 0.0, 1.0, clip).clipped == pytest.approx(clipped)

    def test_uncorrected_every_ratio_is_one(self):
        space = Enumerated(0)
        log_w, cut = log_weights(
            0.7, 0.2, space.log(space.pi), space.log(space.b), space.R, corrected=False
        )
        np.testing.assert_array_equal(log_w, 0.7 * space.R)
        assert not cut.any()

    def test_effective_size(self):
        assert effective_size(np.full(7, 3.0)) == pytest.approx(7.0)
        assert effective_size(np.array([1.0, 3.0])) == pytest.approx(1.6)
        assert effective_size(np.array([0.0, 5.0, 0.0])) == 1.0
        assert effective_size(np.zeros(4)) == 0.0


def rows_of(seed, n=300):
    numbers = rng(seed)
    return 0.3 * numbers.normal(size=n), 0.3 * numbers.normal(size=n), numbers.normal(size=n)


class TestStep:
    @pytest.mark.parametrize("alpha", [0.0, 0.05, 3.0])
    @pytest.mark.parametrize("least", [5.0, 40.0, 150.0])
    @pytest.mark.parametrize("clip", [1.0, None])
    def test_it_keeps_the_effective_size_and_is_as_long_as_that_allows(self, alpha, least, clip):
        log_pi, log_b, R = rows_of(1)
        got = worth(log_pi, log_b, R, alpha, least, clip)
        assert got.ess >= least
        assert got.ess == pytest.approx(effective_size(got.weight))
        assert got.weight.sum() == pytest.approx(got.ess)
        if alpha and got.beta == 1 / alpha:
            return
        longer, _ = log_weights(1.01 * got.beta, alpha, log_pi, log_b, R, clip)
        assert effective_size(np.exp(longer)) < least
        assert got.ess == pytest.approx(least, rel=1e-3)

    def test_it_reaches_the_target_when_the_evidence_allows(self):
        log_pi, log_b, R = rows_of(1)
        assert worth(log_pi, log_b, R, 3.0, 150.0).beta == 1 / 3.0
        assert worth(log_pi, log_b, R, 0.05, 150.0).beta < 1 / 0.05
        assert worth(log_pi, log_b, R, 0.05, 1.0).beta == 1 / 0.05

    def test_a_size_that_cannot_be_had_leaves_no_step(self):
        log_pi, log_b, R = rows_of(1)
        got = worth(log_pi, log_b, R, 0.0, 299.9999)
        assert got.beta * np.ptp(R) < 2e-4
        assert np.isfinite(got.weight).all()

    def test_rows_that_failed_weigh_nothing(self):
        log_pi, log_b, R = rows_of(2)
        failed = rng(3).random(300) < 0.4
        got = worth(log_pi, log_b, np.where(failed, -np.inf, R), 0.3, 40.0)
        without = worth(*(x[~failed] for x in (log_pi, log_b, R)), 0.3, 40.0)
        assert (got.weight[failed] == 0.0).all()
        np.testing.assert_allclose(got.weight[~failed], without.weight)
        assert got.beta == pytest.approx(without.beta)

    def test_when_all_failed_nothing_weighs_anything(self):
        log_pi, log_b, R = rows_of(2)
        got = worth(log_pi, log_b, np.full_like(R, -np.inf), 0.3, 40.0)
        assert (got.weight == 0).all()
        assert (got.beta, got.ess) == (0.0, 0.0)
        empty = np.zeros(0)
        assert len(worth(empty, empty, empty, 0.3, 0.0).weight) == 0

    def test_equal_rewards_make_no_difference_between_rows(self):
        zero = np.zeros(50)
        for alpha in (0.0, 0.1):
            got = worth(zero, zero, np.full(50, 7.0), alpha, 10.0)
            np.testing.assert_allclose(got.weight, 1.0)
            assert got.ess == pytest.approx(50.0)

    @pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e5, 1e12])
    @pytest.mark.parametrize("alpha", [0.0, 0.02, 5.0])
    def test_the_unit_of_the_reward_makes_no_difference(self, unit, alpha):
        log_pi, log_b, R = rows_of(4)
        one = worth(log_pi, log_b, R, alpha, 40.0)
        two = worth(log_pi, log_b, unit * (R + 3.0), unit * alpha, 40.0)
        np.testing.assert_allclose(one.weight, two.weight, rtol=1e-4)
        assert two.beta * unit == pytest.approx(one.beta, rel=1e-4)
        assert two.ess >= 40.0

    def test_no_step_is_longer_than_to_the_target(self):
        """Also at a temperature so high that hardly any step is left."""
        log_pi, log_b, R = rows_of(4)
        assert worth(log_pi, log_b, R, 1e7, 40.0).beta == 1e-7
        assert worth(log_pi, log_b, R, 1e7, 299.99).beta <= 1e-7

    def test_one_absurd_reward_hides_no_others(self):
        log_pi, log_b, R = rows_of(4)
        R[0] = -1e30
        got = worth(log_pi, log_b, R, 0.0, 40.0)
        assert got.ess == pytest.approx(40.0, rel=1e-3)
        assert got.weight[0] == 0.0


class Memory:
    """These rows, and their rewards as they are."""

    def __init__(self, unit, reward, log_prob):
        n = len(unit)
        number, steps = np.arange(n), np.array(log_prob)[:, None]
        version = np.zeros(n, dtype=np.int64)
        weight, critic = np.ones(n), np.full(n, "")
        log_prob = np.array(log_prob)
        self.known = Rows(number, unit, reward, log_prob, steps, version, weight, critic)

    def rows(self):
        return self.known

    def utility(self, rows, demands):
        return mid_ranks(rows.reward, np.sort(self.known.reward)) if demands.ranked else rows.reward


def slope(unit):
    """A tilted valley: the target is correlated, and not where the prior is."""
    y = ndtri(unit)
    return -0.5 * (y[:, 0] - 1.0) ** 2 - 0.5 * (y[:, 1] - y[:, 0] / 2) ** 2


def target_moments(alpha):
    """Mean and covariance on the normal scale of p exp(R / alpha), by quadrature."""
    grid = np.meshgrid(np.linspace(-6, 6, 401), np.linspace(-6, 6, 401))
    y = np.column_stack([one.ravel() for one in grid])
    log_q = -0.5 * (y**2).sum(axis=1) + slope(ndtr(y)) / alpha
    q = np.exp(log_q - log_q.max())
    q /= q.sum()
    mean = q @ y
    return mean, (y - mean).T @ ((y - mean) * q[:, None])


def taught(learner, alpha, *, late, lessons=40, each=50, seed=0):
    """A policy after lessons on rows of which the last share ``late`` is still on its way."""
    numbers, policy = rng(seed), MixturePolicy(CUBE, components=1)
    unit, log_prob = np.empty((0, 2)), np.empty(0)
    for _ in range(lessons):
        serving = Defended(policy, 0.1, 0.0)
        drawn = serving.sample(each, None, numbers)
        unit = np.concatenate([unit, drawn])
        log_prob = np.concatenate([log_prob, serving.log_prob(drawn)])
        here = len(unit) - int(late * len(unit))
        memory = Memory(unit[:here], slope(unit[:here]), log_prob[:here])
        policy, metrics = learner.learn(policy, memory, Demands(temperature=alpha), numbers)
    return policy, metrics


def distance(policy, alpha):
    """How far mean and variances are from the target's, in the target's standard deviations."""
    mean, cov = target_moments(alpha)
    w = policy.weights
    from_mean = np.abs(w["mean"][0] - mean) / np.sqrt(np.diag(cov))
    return float(from_mean.max()), float(np.abs(np.diag(w["cov"][0]) / np.diag(cov) - 1.0).max())


class TestWhereItEnds:
    ALPHA = 0.3

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("late", [0.0, 0.5, 0.8])
    def test_at_the_target_however_late_the_rows_come(self, late, seed):
        policy, metrics = taught(MPO(clip=None), self.ALPHA, late=late, seed=seed)
        error = 5.0 / math.sqrt(metrics["ess"])
        of_mean, of_variance = distance(policy, self.ALPHA)
        assert metrics["temperature"] == pytest.approx(self.ALPHA)
        assert error < 0.5
        assert of_mean < error
        assert of_variance < math.sqrt(2.0) * error
        w, (_, cov) = policy.weights, target_moments(self.ALPHA)
        assert abs(w["cov"][0, 0, 1] - cov[0, 1]) < error * math.sqrt(cov[0, 0] * cov[1, 1])

    @pytest.mark.parametrize("late", [0.0, 0.5])
    def test_uncorrected_it_becomes_far_too_narrow(self, late):
        """What is drawn more often counts more often, again and again."""
        policy, metrics = taught(MPO(clip=None, corrected=False), self.ALPHA, late=late)
        assert distance(policy, self.ALPHA)[1] > 10.0 / math.sqrt(metrics["ess"])
        assert distance(policy, self.ALPHA)[1] > 0.4
        right, _ = taught(MPO(clip=None), self.ALPHA, late=late)
        assert distance(right, self.ALPHA)[1] < 0.2

    def test_clipped_it_stays_near(self):
        """Rows that the prior alone would have drawn more often count less than they should."""
        policy, metrics = taught(MPO(), self.ALPHA, late=0.5)
        assert metrics["clipped"] > 0.05
        assert distance(policy, self.ALPHA)[0] < 0.15
        assert distance(policy, self.ALPHA)[1] < 0.3

    def test_without_a_temperature_it_closes_in_on_the_best(self):
        policy, _ = taught(MPO(), 0.0, late=0.0)
        drawn = policy.sample(500, None, rng())
        assert slope(drawn).mean() > -0.02
        prior = MixturePolicy(CUBE).sample(500, None, rng())
        assert slope(prior).mean() < -1.0


def lesson(reward, *, learner=None, n=60, alpha=0.1, policy=None, **demands):
    policy = MixturePolicy(CUBE) if policy is None else policy
    unit = policy.sample(n, None, rng(1))
    memory = Memory(unit, np.broadcast_to(reward, n).astype(float), np.zeros(n))
    wanted = Demands(temperature=alpha, **demands)
    return policy, (learner or MPO()).learn(policy, memory, wanted, rng(2))


class TestLesson:
    def test_when_all_failed_the_policy_stays(self):
        policy, got = lesson(-np.inf)
        assert got.policy is policy
        assert got.metrics["ess"] == 0.0

    def test_before_any_row_the_policy_stays(self):
        policy, got = lesson(0.0, n=0)
        assert got.policy is policy

    @pytest.mark.parametrize("alpha", [0.0, 0.1])
    @pytest.mark.parametrize("ranked", [True, False])
    def test_equal_rewards_bring_no_collapse(self, alpha, ranked):
        numbers, policy = rng(), MixturePolicy(CUBE)
        unit, log_prob = np.empty((0, 2)), np.empty(0)
        for _ in range(30):
            serving = Defended(policy, 0.1, 0.0)
            unit = np.concatenate([unit, serving.sample(20, None, numbers)])
            log_prob = np.concatenate([log_prob, serving.log_prob(unit[-20:])])
            memory = Memory(unit, np.full(len(unit), 3.0), log_prob)
            wanted = Demands(temperature=alpha, ranked=ranked)
            policy, metrics = MPO().learn(policy, memory, wanted, numbers)
            assert metrics["ess"] > 0.5 * len(unit)
        drawn = policy.sample(2000, None, rng(5))
        assert -policy.log_prob(drawn).mean() > (-0.2 if alpha else -0.7)

    @pytest.mark.parametrize("alpha", [0.1, 50.0])
    @pytest.mark.parametrize("ranked", [True, False])
    def test_points_that_failed_are_left_at_any_temperature(self, ranked, alpha):
        policy = MixturePolicy(CUBE)
        unit = policy.sample(200, None, rng(1))
        failed = unit[:, 0] > 0.5
        memory = Memory(unit, np.where(failed, -np.inf, 0.0), np.zeros(200))
        got = MPO().learn(policy, memory, Demands(temperature=alpha, ranked=ranked), rng())
        after = got.policy.sample(2000, None, rng(3))
        assert (after[:, 0] > 0.5).mean() < 0.3

    def test_the_evidence_a_step_keeps_grows_with_the_rows(self):
        """Twice the coordinates, 1.6 times the root of the rows, at most half of the rows."""
        for n, wanted in ((4, 2.0), (20, 1.6 * math.sqrt(20)), (400, 32.0)):
            reward = rng(7).normal(size=n)
            assert lesson(reward, n=n, alpha=0.0)[1].metrics["ess"] == pytest.approx(wanted, 1e-3)
        learner = MPO(least=20.0, root=0.1)
        got = lesson(rng(7).normal(size=400), learner=learner, n=400, alpha=0.0)[1]
        assert got.metrics["ess"] == pytest.approx(40.0, 1e-3)

    def test_the_policys_own_density_is_what_rows_are_compared_with(self):
        """Rows of a behaviour that avoided a half: corrected, it is as good as the other."""
        cube, numbers = real_cube(1), rng(3)
        halves = MixturePolicy(cube, components=1)
        behaviour = halves.with_weights(
            halves.weights | {"mean": np.array([[-0.6]]), "cov": np.array([[[0.8]]])}
        )
        serving = Defended(behaviour, 0.1, 0.0)
        unit = serving.sample(4000, None, numbers)
        memory = Memory(unit, np.zeros(4000), serving.log_prob(unit))
        learner = MPO(clip=None, anchor=1e-6)
        got = learner.learn(halves, memory, Demands(temperature=0.0), numbers)
        assert abs(got.policy.weights["mean"][0, 0]) < 5 / math.sqrt(got.metrics["ess"])
        off = MPO(clip=None, anchor=1e-6, corrected=False)
        wrong = off.learn(halves, memory, Demands(temperature=0.0), numbers).policy
        assert wrong.weights["mean"][0, 0] < -0.3

    def test_its_work_is_bounded_by_the_newest_rows(self, monkeypatch):
        monkeypatch.setattr(mpo, "NEWEST", 100)
        unit = np.concatenate(
            [np.full((50, 2), 0.05), MixturePolicy(CUBE).sample(100, None, rng())]
        )
        reward = np.concatenate([np.full(50, 9.0), np.zeros(100)])
        got = MPO().learn(
            MixturePolicy(CUBE), Memory(unit, reward, np.zeros(150)), Demands(), rng()
        )
        late = MPO().learn(
            MixturePolicy(CUBE), Memory(unit[50:], reward[50:], np.zeros(100)), Demands(), rng()
        )
        np.testing.assert_array_equal(got.policy.weights["mean"], late.policy.weights["mean"])
        assert got.metrics["ess"] == pytest.approx(100.0)

    def test_a_stronger_anchor_makes_a_shorter_move(self):
        moves = []
        for anchor in (0.1, 10.0, 1000.0):
            policy, got = lesson(rng(1).normal(size=60), learner=MPO(anchor=anchor))
            drawn = policy.sample(1000, None, rng())
            moves.append(-got.policy.log_prob(drawn).mean())
        assert moves[0] > 1.1 * moves[1] > 2.0 * moves[2]

    def test_what_it_tells(self):
        reward = rng(1).normal(size=60)
        _, got = lesson(reward, alpha=50.0)
        assert got.metrics["temperature"] == pytest.approx(50.0)
        assert got.metrics["loss"] == 0.0  # the untrained policy's log density
        assert got.metrics["clipped"] == 0.0
        assert set(got.metrics) == {"loss", "ess", "temperature", "clipped"}

    def test_a_policy_without_a_closed_step_is_refused(self):
        tokens = TokenPolicy(CUBE, digits=1, hidden=4)
        with pytest.raises(TypeError, match=r"MPO wants a policy with a fitted.* got TokenPolicy"):
            lesson(0.0, policy=tokens)

    @pytest.mark.parametrize("name", ["anchor", "least", "root", "clip"])
    @pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "1"])
    def test_numbers_that_are_not_positive(self, name, value):
        with pytest.raises(ValueError, match=rf"{name}: wanted a number > 0, got"):
            MPO(**{name: value})

    def test_only_the_clip_may_be_none(self):
        assert MPO(clip=None).clip is None
        with pytest.raises(ValueError, match="anchor: wanted a number > 0, got None"):
            MPO(anchor=None)

    def test_it_keeps_no_state_and_says_what_it_is(self):
        learner = MPO(clip=None, corrected=False)
        assert learner.state_dict() == {}
        learner.load_state_dict({})
        described = json.loads(json.dumps(learner.describe()))
        assert described["learner"] == "MPO"
        assert (described["clip"], described["corrected"], described["anchor"]) == (
            None,
            False,
            10.0,
        )
        assert isinstance(learner, Learner)
