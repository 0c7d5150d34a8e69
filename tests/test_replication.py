"""Noisy goals in the search, and points that are run again."""

from fractions import Fraction

import numpy as np
import pytest
from test_credit_of_critics import history, rows
from test_ensemble_critic import points, waves
from test_guided import CUBE, SURE, asking, bowl, rng, settle

import ensemblerl as erl
from ensemblerl.agents.critics import ensemble, gaussian_process, quadratic
from ensemblerl.agents.critics.committee import Committee
from ensemblerl.agents.critics.credit import credit
from ensemblerl.agents.critics.factor import Factor
from ensemblerl.agents.critics.kernel import correlation, start
from ensemblerl.agents.critics.noise import Level, drawn, kept, level
from ensemblerl.agents.critics.replication import again, log_gradient
from ensemblerl.agents.learners.guided import Guided
from ensemblerl.agents.learners.mpo import MPO
from ensemblerl.agents.maxent import MaxEnt
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.goals.known import goal_of
from ensemblerl.goals.maximize import Maximize
from ensemblerl.goals.minimize import Minimize
from ensemblerl.records import AGAIN, Cube, Demands
from ensemblerl.report import posterior as posterior_module
from ensemblerl.report.answers import answering
from ensemblerl.report.posterior import posterior
from ensemblerl.report.tables import ranked
from ensemblerl.samplers.listed import Listed
from ensemblerl.samplers.sobol import Sobol
from ensemblerl.testing.cubes import real_cube
from ensemblerl.testing.lessons import memory_of
from ensemblerl.testing.rehearsal import Rehearsal

NOISE = 0.05
PLANE = erl.Space(x0=erl.Real(0.0, 1.0), x1=erl.Real(0.0, 1.0))


def noisy_bowl(unit, r):
    """A noisy bowl."""
    return bowl(unit) + NOISE * r.standard_normal(len(unit))


def seen(n=60, seed=0, cube=CUBE, reward=noisy_bowl):
    """Points of a design, their noisy rewards, and the critic of these."""
    unit = Sobol(cube).ask(n, rng(seed)).unit
    y = reward(unit, rng(seed + 1))
    return unit, y, gaussian_process.fit(cube, unit, y, noisy=True)


class TestSearch:
    def test_what_there_is_to_improve_on_is_a_mean_and_no_lucky_draw(self):
        unit, y, _ = seen()
        y[7] += 1.0
        gp = gaussian_process.fit(CUBE, unit, y, noisy=True)
        assert isinstance(gp.bend, Level)
        assert int(np.argmax(gp.worth)) != 7
        np.testing.assert_allclose(gp.worth, gp.bent(unit)[0], atol=1e-9)
        assert gp.worth.max() < gp.y.max()
        plain = gaussian_process.fit(CUBE, unit, y)
        np.testing.assert_array_equal(plain.worth, plain.y)

    def test_the_quadratic_is_about_the_member_of_the_best_mean(self):
        unit, y, _ = seen()
        y[7] += 1.0
        gp = gaussian_process.fit(CUBE, unit, y, noisy=True)
        near = quadratic.fit(CUBE, unit, y, gp.means(unit))
        np.testing.assert_array_equal(near.centre, unit[np.argmax(gp.means(unit))])
        np.testing.assert_array_equal(quadratic.fit(CUBE, unit, y).centre, unit[7])

    def test_the_goal_says_that_it_is_noisy_and_the_committee_heeds_it(self):
        memory, committee = memory_of(MixturePolicy(CUBE), 60, 1, chances=SURE), Committee(CUBE)
        assert [committee.learn(memory.rows(), b).gp.noisy for b in (True, False, True)] == [
            True,
            False,
            True,
        ]
        ledger = Rehearsal(2, 0).ledger
        demands = Minimize(noisy=True, replicate=0.2).demands(ledger, 10)
        assert demands.noisy
        assert demands.replicated_share == 0.2
        assert not Maximize().demands(ledger, 10).noisy

    def test_the_deep_ensemble_does_not_bend_them(self):
        cube, new, gain = real_cube(3), points(real_cube(3), 300, seed=5), []
        for seed in range(3):
            unit = points(cube, 400, seed)
            reward = waves(unit) + 0.5 * rng(seed + 1).standard_normal(400)
            how = cube, unit, reward, start(3)
            found = [ensemble.fit(*how, noisy=noisy) for noisy in (False, True)]
            bent, plain = (np.abs(one.predict(new)[0] - waves(new)).mean() for one in found)
            gain.append(1.0 - plain / bent)
        assert min(gain) > 0.0
        reward[:4] = -1e12  # a few terrible members hide nothing
        told, _ = ensemble.fit(*how, noisy=True).predict(new)
        assert np.abs(told - waves(new)).mean() < 1.5 * plain

    def test_a_point_that_was_run_often_is_known_better(self):
        unit = Sobol(CUBE).ask(40, rng()).unit
        often = np.concatenate([unit, np.repeat(unit[:1], 9, axis=0)])
        told = [posterior(PLANE, u, noisy_bowl(u, rng(2))) for u in (unit, often)]
        assert told[1][1][0] < 0.8 * told[0][1][0]
        assert told[0][2].tolist() == [1] * 40
        assert told[1][2].tolist() == [10] + [1] * 39 + [10] * 9


def with_draws(n, k, seed=0):
    """Points of a design, k of them the same one, with rewards of much noise, and rows of these."""
    unit, r = Sobol(CUBE).ask(n, rng(seed)).unit, rng(seed + 1)
    rows = r.choice(n, k, replace=False)
    unit[rows] = [0.3, 0.6]
    return unit, np.sin(9 * unit[:, 0]) + r.standard_normal(n), rows


class TestDraws:
    def test_draws_of_a_point_count_as_so_many(self):
        unit, y, _ = with_draws(80, 30)
        gp = gaussian_process.fit(CUBE, unit, y, noisy=True)
        assert len(gp.members) == 51
        size, noise = np.exp(gp.theta[-2:])
        x, new = gp.scaled(unit), gp.scaled(unit[:9])
        K = size * correlation(x, x) + noise * np.eye(80)
        k = size * correlation(x, new)
        mean, sd = gp.bent(unit[:9])
        np.testing.assert_allclose(mean, k.T @ np.linalg.solve(K, level(y)(y)), atol=1e-5)
        var = size - (k * np.linalg.solve(K, k)).sum(axis=0)
        np.testing.assert_allclose(sd, np.sqrt(var), rtol=1e-5)

    @pytest.mark.parametrize("seed", range(3))
    def test_the_answer_uses_them_all(self, monkeypatch, seed):
        unit, y, rows = with_draws(600, 50, seed)
        _, full, n = posterior(PLANE, unit, y)
        monkeypatch.setattr(posterior_module, "MEMBERS", 100)
        mean, sd, _ = posterior(PLANE, unit, y)
        assert (n[rows] == 50).all()
        assert (full[rows] < sd[rows]).all()
        assert (sd[rows] < 1.5 * full[rows]).all()
        assert np.ptp(mean[rows]) == 0.0

    def test_the_answer_is_a_member_whose_draws_are_seen(self, monkeypatch):
        monkeypatch.setattr(posterior_module, "MEMBERS", 24)
        solved, seen, more = Factor.solved, [], 0
        monkeypatch.setattr(Factor, "solved", lambda factor, y: seen.append(y) or solved(factor, y))
        for seed in range(4):
            unit = rng(seed).random((300, 2))
            y = np.sin(12 * unit[:, 0]) + 0.3 * rng(seed + 1).standard_normal(300)
            seen.clear()
            best = int(np.argmax(posterior(PLANE, unit, y)[0]))
            assert level(y)(y[[best]])[0] in seen[-1]
            more += len(seen) > 2  # once to choose them
        assert more > 0

    @pytest.mark.parametrize("seed", range(3))
    def test_the_critic_uses_them_all(self, monkeypatch, seed):
        monkeypatch.setattr(gaussian_process, "MEMBERS", 60)
        unit, y, rows = with_draws(300, 40, seed)
        gp = gaussian_process.fit(CUBE, unit, y, noisy=True)
        assert len(gp.members) == 60
        # what the prior and neighbours say makes it surer still
        assert (gp.bent(unit[rows])[1] ** 2 < np.exp(gp.theta[-1]) / 40).all()

    def test_draws_that_came_count_where_the_next_one_is_to_be(self, monkeypatch):
        monkeypatch.setattr(gaussian_process, "MEMBERS", 40)
        unit, y, gp = seen(200)
        first = again(gp, unit, unit[:0], 1)
        more = np.concatenate([unit, np.repeat(first, 60, axis=0)])
        told = np.concatenate([y, np.full(60, gp.predict(first)[0][0])])
        after = gaussian_process.fit(CUBE, more, told, gp.theta, noisy=True)
        assert not np.array_equal(first, again(after, more, unit[:0], 1))

    def test_no_point_is_kept_for_a_lucky_draw_of_its_own(self):
        means = []
        for seed in range(20):
            x = rng(seed).random((400, 2)) / 0.3
            y = rng(seed + 1).standard_normal(400)
            points = drawn(x, y)
            keep = kept(x, points, 1.0, 1.0, 80)
            assert len(keep) == len(np.unique(keep)) == 80
            assert (np.diff(keep) > 0).all()
            means.append(y[np.setdiff1d(keep, np.linspace(0, 399, 60).astype(int))].mean())
        assert abs(np.mean(means)) < 4 * np.std(means, ddof=1) / np.sqrt(20)

    def test_points_of_many_draws_and_those_that_look_best_are_kept(self):
        unit, r = rng().random((400, 2)), rng(1)
        often = r.choice(400, 8, replace=False)
        unit = np.concatenate([unit, np.repeat(unit[often], 3, axis=0)])
        y = noisy_bowl(unit, r)
        points = drawn(unit, y)
        np.testing.assert_array_equal(points.row, np.arange(400))
        np.testing.assert_array_equal(np.flatnonzero(points.n == 4), np.sort(often))
        assert points.mean[often[0]] == pytest.approx(y[[often[0], 400, 401, 402]].mean())
        np.testing.assert_array_equal(unit[points.row][points.place], unit)
        keep = kept(unit[points.row] / 0.7, points, 1.0, 0.05, 80)
        assert np.isin(often, keep).all()
        best = np.argsort(-bowl(unit[:400]))
        assert np.isin(best[:10], keep).all()
        assert not np.isin(best[-100:], keep).all()
        np.testing.assert_array_equal(kept(unit[:400], points, 1.0, 0.05, 400), np.arange(400))

    def test_two_draws_within_a_cell_are_of_one_point(self):
        edges = np.linspace(0.0, 1.0, 5)
        cube = Cube(("ordinal", "categorical"), (4, 4), (edges, edges))
        unit = rng().random((60, 2))
        y = unit[:, 0] + 0.3 * rng(1).standard_normal(60)
        gp = gaussian_process.fit(cube, unit, y, noisy=True)
        cells = np.unique(cube.cells(unit), axis=0)
        assert len(gp.members) == len(cells)
        np.testing.assert_array_equal(gp.predict(unit), gp.predict(cube.centred(unit)))
        points = cube.cells(again(gp.believing(unit[:5]), unit, unit[:0], 20))
        assert {tuple(c) for c in points} <= {tuple(c) for c in cells}

    def test_of_a_point_the_best_are_its_first_member(self):
        unit = Sobol(CUBE).ask(20, rng()).unit
        often = np.concatenate([unit, np.repeat(unit[[3, 7]], 6, axis=0)])
        space = erl.Space(x=erl.Real(0.0, 1.0), n=erl.Integer(0, 3))

        def measure(x, n, seed):
            return (x - 0.3) ** 2 + n + 0.1 * np.random.default_rng(seed).standard_normal()

        how = {"n_members": 32, "cluster": "serial", "seed": 3, "progress": False}
        how["sampler"] = lambda cube: Listed(cube, often)
        ds = erl.explore(measure, space, Minimize(noisy=True), **how)
        rows = answering(ds, ranked(ds), once=True)
        assert sorted(rows) == list(range(20))
        assert len(answering(ds, ranked(ds))) == 32
        assert sorted(ds.erl.best(32).member.values) == list(range(20))
        assert int(ds.erl.best().member[0]) == int(ds.erl.answer().best_member)
        plain = erl.explore(measure, space, Minimize(), **how)
        assert plain.erl.best(32).sizes["member"] == 32


class TestWhere:
    def test_of_two_it_is_the_expected_better_one(self):
        mean, cov = np.array([0.3, 0.1]), np.array([[0.2, 0.05], [0.05, 0.4]])
        noise, told = 0.3, log_gradient(np.array([0.3, 0.1]), cov, 0.3)
        z = rng().standard_normal(400_000)
        for i in range(2):
            after = mean[:, None] + cov[:, [i]] / np.sqrt(cov[i, i] + noise) * z
            gain = after.max(axis=0) - mean[0]
            assert abs(np.exp(told[i]) - gain.mean()) < 4 * gain.std() / np.sqrt(len(z))

    def test_who_may_be_the_best_is_drawn_and_who_cannot_be_is_not(self):
        unit, _, gp = seen()
        mean, sd = gp.bent(unit)
        points = again(gp, unit, unit[:0], 12)
        rank = [int(np.flatnonzero((unit == p).all(axis=1))[0]) for p in points]
        assert len(points) == 12
        assert (mean[rank] + 3 * sd[rank] > mean.max() - 3 * sd.max()).all()
        assert np.median(-bowl(points)) < np.quantile(-bowl(unit), 0.2)

    def test_draws_on_their_way_count(self):
        unit, _, gp = seen()
        first = again(gp, unit, unit[:0], 1)
        after = again(gp, unit, np.repeat(first, 40, axis=0), 1)
        assert not np.array_equal(first, after)
        both = again(gp, unit, unit[:0], 2)
        np.testing.assert_array_equal(both[1:], again(gp, unit, first, 1))

    def test_a_single_point_is_drawn_again(self):
        unit = np.repeat([[0.2, 0.3]], 6, axis=0)
        gp = gaussian_process.fit(CUBE, unit, rng().standard_normal(6), noisy=True)
        np.testing.assert_array_equal(again(gp, unit, unit[:0], 3), unit[:3])


class TestTray:
    def asked(self, cube, share, n):
        """Points of a design, and what an agent that was told of them asks for."""
        agent, game = MaxEnt(cube, every=64), Rehearsal(cube.ndim, 0)
        agent.heed(asking(0.5, noisy=True, replicated_share=share))
        first = Sobol(cube).ask(64, rng(3))
        settle(agent, game, first, reward=lambda unit: noisy_bowl(unit, rng(4)))
        asked = agent.ask(n, rng(5))
        assert agent._mind.core.left > 0  # else the share ends where the tray does
        return first.unit, asked.unit, asked.notes

    @pytest.mark.parametrize("share", [0.2, 0.6])
    def test_about_the_share_is_run_again_at_points_that_came(self, share):
        first, unit, notes = self.asked(CUBE, share, 130)
        mine = notes["critic"] == AGAIN
        assert abs(mine.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(mine))
        assert {tuple(u) for u in unit[mine]} <= {tuple(u) for u in first}
        assert np.isnan(notes["log_prob"][mine]).all()
        assert set(notes["critic"]) - {AGAIN, "", "gp", "quadratic"} == set()
        assert not {tuple(u) for u in unit[~mine]} & {tuple(u) for u in first}

    def test_where_all_is_discrete_too(self):
        edges = np.linspace(0.0, 1.0, 9)
        cube = Cube(("ordinal",) * 2, (8, 8), (edges, edges))
        # of 64 cells few are left to pick: draws take their places, not replicas
        _, _, notes = self.asked(cube, 0.3, 80)
        share = np.mean(notes["critic"] == AGAIN)
        assert abs(share - 0.3) < 3 * np.sqrt(0.3 * 0.7 / 80)

    @pytest.mark.parametrize(
        ("share", "noisy"), [(0.0, True), (0.3, False)], ids=["no share", "no noise"]
    )
    def test_nothing_is_run_again_unless_asked_for(self, share, noisy):
        one, policy = Guided(MPO()), MixturePolicy(CUBE)
        memory = memory_of(policy, 60, 1, reward=noisy_bowl, chances=SURE)
        one.learn(policy, memory, asking(0.8, noisy=noisy, replicated_share=share), rng())
        assert AGAIN not in one.tray.notes["critic"]

    def test_where_critics_foretell_nothing_points_are_still_run_again(self):
        one, policy = Guided(MPO()), MixturePolicy(CUBE)
        memory = memory_of(policy, 60, 1, reward=noisy_bowl, chances=SURE)
        demands = asking(0.8, noisy=True, replicated_share=0.4)
        one.learn(policy, memory, demands, rng())
        one._committee.weights = lambda critics: {}
        one.learn(policy, memory, demands, rng())
        assert set(one.tray.notes["critic"]) == {AGAIN}
        assert one.tray.share * 0.8 == pytest.approx(0.4)

    def test_an_agent_that_may_pick_nothing_runs_nothing_again(self):
        one, policy = Guided(MPO()), MixturePolicy(CUBE)
        memory = memory_of(policy, 60, 1, reward=noisy_bowl, chances=SURE)
        one.learn(policy, memory, asking(0.0, noisy=True, replicated_share=0.4), rng())
        assert one.tray is None or not len(one.tray)


class TestCredit:
    def test_replicas_count_for_nobody(self):
        plain = history(gp=2.0)
        reward = np.concatenate([plain.reward, np.full(20, 99.0)])
        more = rows(reward, [*plain.critic, *[AGAIN] * 20])
        names = ["", "gp", "quadratic"]
        np.testing.assert_array_equal(credit(more, names), credit(plain, names))

    def test_replicas_judge_no_critic(self):
        policy, committee = MixturePolicy(CUBE), Committee(CUBE)
        known = memory_of(policy, 60, 1, chances=SURE).rows()
        of = known.critic.astype("U9")
        of[40:] = AGAIN
        marked = type(known)(**{**vars(known), "critic": of})
        committee.learn(marked.take(np.arange(40)), True)
        committee.learn(marked, True)
        assert len(committee.state_dict()["number"]) == 0


class TestGoal:
    @pytest.mark.parametrize("replicate", [1.0, -0.1, float("nan")])
    def test_a_share_that_is_none_is_named(self, replicate):
        with pytest.raises(ValueError, match=r"replicate: wanted a share in \[0, 1\), got"):
            Minimize(noisy=True, replicate=replicate)

    @pytest.mark.parametrize("replicate", [True, "0.2", None])
    def test_another_kind_is_named(self, replicate):
        with pytest.raises(TypeError, match=r"replicate: wanted a share in \[0, 1\), got"):
            Minimize(noisy=True, replicate=replicate)

    def test_it_wants_noise(self):
        with pytest.raises(ValueError, match=r"wanted noisy=True with it.*got 0.2 alone"):
            Maximize(replicate=0.2)
        assert Maximize(replicate=0.0).replicate == 0.0

    def test_it_comes_back_from_its_description(self):
        goal = Minimize("f", noisy=True, replicate=0.2)
        assert repr(goal_of(goal.describe())) == repr(goal)
        assert repr(goal) == "Minimize('f', noisy=True, replicate=0.2)"
        assert "replicate" not in Minimize(noisy=True).describe()

    @pytest.mark.parametrize("share", [1.0, -0.1])
    def test_a_demand_that_is_none_is_named(self, share):
        with pytest.raises(ValueError, match="replicated_share: wanted a share"):
            Demands(replicated_share=share)


def test_a_campaign_runs_points_again_with_seeds_of_their_own():
    space = erl.Space(x=erl.Real(0.0, 1.0), n=erl.Integer(0, 4))

    def measure(x, n, seed):
        return (x - 0.3) ** 2 + 0.1 * n + 0.1 * np.random.default_rng(seed).standard_normal()

    ds = erl.explore(
        measure,
        space,
        Minimize(noisy=True, replicate=0.4),
        n_members=60,
        n_pending=4,
        sampler=MaxEnt,
        cluster=erl.Simulated(4, seed=3),
        seed=3,
        progress=False,
    )
    mine = ds.note_critic.values == AGAIN
    assert 8 <= mine.sum() <= 36
    assert len(np.unique(ds.seed.values)) == 60
    pairs = list(zip(ds.x.values.tolist(), ds.n.values.tolist(), strict=True))
    for i in np.flatnonzero(mine):
        assert pairs[i] in pairs[:i]
    answer = ds.erl.answer()
    best = pairs[int(answer.best_member)]
    n = pairs.count(best)
    assert int(answer.n_draws) == n
    assert f"{n} draw{'s' * (n != 1)} at its point" in answer.attrs["verdict"]


@pytest.mark.parametrize("replicate", [np.float32(0.25), np.float64(0.25), Fraction(1, 4)])
def test_any_real_number_is_a_share(replicate):
    goal = Minimize(noisy=True, replicate=replicate)
    assert (goal.replicate, type(goal.replicate)) == (0.25, float)


@pytest.mark.parametrize("replicate", [True, np.bool_(False), "0.2", None, 0.2j])
def test_what_is_no_real_number_is_named(replicate):
    with pytest.raises(TypeError, match=r"replicate: wanted a share in \[0, 1\), got"):
        Minimize(noisy=True, replicate=replicate)
