"""Shares of a portfolio that follow the parts whose members improve on what is known."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr

import ensemblerl as erl
from ensemblerl.records import AGAIN, Demands, Results
from ensemblerl.samplers import Chain, DifferentialEvolution, Listed, Portfolio, Sobol, Uniform
from ensemblerl.samplers.credit import BEST, HOPE, POWER, Credit, improvements, raised
from ensemblerl.testing import check_sampler
from ensemblerl.testing.cubes import conditional_cube, mixed_cube, real_cube
from ensemblerl.testing.learner import BoxLearner
from ensemblerl.testing.rehearsal import numbered

CUBE = real_cube(2)
PRIOR = np.array([0.6, 0.3, 0.1])
NAMES = np.array(["one", "two", "three"])
TIMES = {"launch_time", "start_time", "end_time", "runtime", "worker"}


def rng(seed=0):
    return np.random.default_rng(seed)


def credit(window=64, floor=0.05):
    return Credit([Uniform(CUBE, name=name) for name in NAMES], PRIOR, floor, window)


def told(n, part, first=0):
    """n members by these parts."""
    members = numbered(Uniform(CUBE).ask(n, rng()), first, "uniform")
    members.notes["proposer"] = NAMES[np.broadcast_to(part, n)]
    return members


def rewarded(reward):
    reward = np.asarray(reward, dtype=float)
    return Results(reward[:, None], np.where(np.isfinite(reward), "ok", "failed"), reward)


def shares(reward, part, **options):
    reward = np.asarray(reward, dtype=float)
    out = credit(**options)
    out.tell(told(len(reward), part), rewarded(reward))
    return out.shares


def some(n=60, seed=1):
    """Rewards that grow, most of them by part one, and now and then a failure."""
    reward = 0.05 * np.arange(n) + rng(seed).standard_normal(n)
    return np.where(rng(seed + 1).random(n) < 0.1, np.nan, reward), rng(seed).integers(3, size=n)


class TestImprovements:
    def test_above_the_fifth_best_so_far(self):
        reward = [5.0, 1.0, -np.inf, 2.0, 3.0, 4.0, 1.0, 1.5, 9.0, 2.0, 2.5, -np.inf]
        #         best five: 1 2 3 4 5 -> 1.5 instead of 1, 9 instead of 1.5, 2.5 instead of 2
        assert np.flatnonzero(improvements(np.array(reward))).tolist() == [7, 8, 10]

    def test_equal_ones_are_none(self):
        assert not improvements(np.ones(50)).any()

    @pytest.mark.parametrize("seed", range(3))
    def test_of_independent_rewards_each_as_often_as_they_should(self, seed):
        """The i-th of independent rewards is among the best five with a chance of 5 / i."""
        n, runs = 40, 2000
        hits = [improvements(row).sum() for row in rng(seed).standard_normal((runs, n))]
        chance = BEST / np.arange(BEST + 1, n + 1)
        error = np.sqrt((chance * (1 - chance)).sum() / runs)
        assert abs(np.mean(hits) - chance.sum()) < 4 * error


class TestShares:
    def test_the_formula(self):
        part = np.array([0] * 8 + [1] * 8 + [0, 1, 1, 2])
        reward = np.concatenate([np.zeros(16), [1.0, 2.0, 3.0, -1.0]])
        s, n = np.array([1, 2, 0]), np.array([9, 10, 1])
        e = (s + HOPE) / (3 / 20 * n + HOPE)
        wanted = PRIOR * e**POWER / (PRIOR * e**POWER).sum()
        assert wanted.min() > 0.05
        np.testing.assert_allclose(shares(reward, part), wanted, rtol=1e-12)

    def test_only_comparisons_count(self):
        reward, part = some()
        for bent in (np.exp(reward), 1e9 * reward**3, -1.0 / (reward + 9.0)):
            np.testing.assert_array_equal(shares(bent, part), shares(reward, part))

    @pytest.mark.parametrize("reward", [np.zeros(50), np.full(50, np.nan), -np.arange(50.0), []])
    def test_where_nothing_improves_they_are_the_prior_ones(self, reward):
        np.testing.assert_array_equal(shares(reward, 1), PRIOR)

    def test_who_was_not_tried_is_hoped_for(self):
        part = np.arange(60) % 2
        now = shares(np.where(part == 1, np.arange(60.0), 0.0), part)
        assert now[0] < PRIOR[0]
        assert now[1] > PRIOR[1]
        assert now[2] > 0.8 * PRIOR[2]

    def test_failures_are_no_improvements(self):
        part = np.arange(60) % 2
        up, down = np.arange(60.0), np.full(60, -1.0)
        up[:10] = down[:10] = 0.0  # who is beaten first
        failing = shares(np.where(part == 0, np.nan, up), part)
        np.testing.assert_array_equal(failing, shares(np.where(part == 0, down, up), part))
        assert failing[0] < 0.5 * shares(up, part)[0]

    def test_no_share_is_below_the_floor(self):
        part = np.arange(64) % 3
        for floor in (0.0, 0.05, 0.1):
            now = shares(np.where(part == 2, np.arange(64.0), -1.0), part, floor=floor)
            assert now.min() >= floor
            assert now[2] > 0.5
            np.testing.assert_allclose(now.sum(), 1.0)

    def test_what_was_long_ago_is_forgotten(self):
        reward, part = np.arange(200.0), np.full(200, 1)
        part[::2] = 0
        reward[100:] = np.where(part[100:] == 1, reward[100:], 0.0)
        reward[:100] = np.where(part[:100] == 0, reward[:100], 0.0)
        assert shares(reward[:100], part[:100])[0] > 0.8
        assert shares(reward, part)[1] > 0.8
        np.testing.assert_array_equal(
            shares(np.concatenate([reward, np.zeros(64)]), np.concatenate([part, part[:64]])), PRIOR
        )

    def test_what_left_the_window_is_still_to_be_beaten(self):
        high = np.concatenate([np.full(9, 50.0), np.zeros(80), np.arange(40.0)])
        np.testing.assert_array_equal(shares(high, 1, window=20), PRIOR)
        assert shares(high[9:], 0, window=20)[0] == pytest.approx(PRIOR[0])  # e = 1: all by one
        half = np.arange(129) % 2
        assert shares(np.where(half, high, 0.0)[9:], half[9:], window=20)[1] > PRIOR[1]

    @pytest.mark.parametrize("window", [1, 7, 64])
    def test_the_order_and_the_batches_of_telling_are_of_no_account(self, window):
        reward, part = some(150)
        members, results = told(150, part), rewarded(reward)
        whole = credit(window)
        whole.tell(members, results)
        pieces = credit(window)
        pieces.tell(members, Results.pending(150))
        for seed in range(2):  # all of it twice
            for rows in np.array_split(rng(seed).permutation(150), 23):
                piece = Results(results.value[rows], results.fate[rows], results.reward[rows])
                pieces.tell(members.take(rows), piece)
                pieces.tell(members.take(rows), Results.pending(len(rows)))
        np.testing.assert_array_equal(pieces.shares, whole.shares)
        assert pieces.state_dict()["number"].tolist() == whole.state_dict()["number"].tolist()
        assert len(whole.state_dict()["number"]) <= window + BEST

    def test_members_of_nobody_here_only_set_what_is_to_be_beaten(self):
        reward, part = some()
        members, first = told(60, part, first=10), numbered(Uniform(CUBE).ask(10, rng()), 0, "x")
        out = credit()
        out.tell(members, rewarded(reward))
        out.tell(first, rewarded(np.full(10, -99.0)))
        assert not np.array_equal(out.shares, PRIOR)
        other = credit()
        other.tell(members, rewarded(reward))
        other.tell(first, rewarded(np.full(10, 99.0)))
        np.testing.assert_array_equal(other.shares, PRIOR)

    def test_a_point_that_is_run_again_is_nobodys_find(self):
        part = np.arange(40) % 2
        reward = np.where(part == 1, np.linspace(1.0, 2.0, 40), 0.0)
        plain, out = credit(), credit()
        plain.tell(told(40, part), rewarded(reward))
        members = told(40, part)
        members.notes["critic"] = np.where(part == 1, AGAIN, "gp")
        out.tell(members, rewarded(reward))
        assert plain.shares[1] > PRIOR[1]
        np.testing.assert_array_equal(out.shares, PRIOR)

    def test_a_lost_member_says_nothing(self):
        reward, part = some()
        one, two = credit(), credit()
        one.tell(told(60, part), rewarded(reward))
        two.tell(told(60, part), rewarded(reward))
        lost = Results(np.full((9, 1), np.nan), np.full(9, "lost"), np.full(9, np.nan))
        two.tell(told(9, 0, first=60), lost)
        np.testing.assert_array_equal(one.shares, two.shares)

    def test_weights_are_raised_to_the_floor(self):
        np.testing.assert_allclose(raised(np.array([8.0, 1.0, 1.0]), 0.05), [0.8, 0.1, 0.1])
        np.testing.assert_allclose(raised(np.array([1.0, 0.0, 1.0]), 0.1), [0.45, 0.1, 0.45])
        # the second falls below the floor only when the first was raised
        weights = np.array([0.01, 0.105, 0.885])
        np.testing.assert_allclose(raised(weights, 0.1), [0.1, 0.1, 0.8])
        third = raised(np.array([5.0, 1.0, 3.0]), 1 / 3)
        np.testing.assert_allclose(third, np.full(3, 1 / 3))


def mixed(cube, **options):
    parts = [BoxLearner(cube), Sobol(cube), DifferentialEvolution(cube)]
    return Portfolio(parts, **{"shares": [4, 1, 1], "credit": True} | options)


def nested(cube):
    inner = Portfolio([BoxLearner(cube), DifferentialEvolution(cube)], credit=9, name="inner")
    return Portfolio([Uniform(cube), inner, Sobol(cube)], credit=True)


def drive(sampler, reward, n, *, batch=4):
    """(n,) proposers and shares; results of one batch come after the next ask."""
    proposers, shares, late = [], [], None
    for number in range(0, n, batch):
        proposals = sampler.ask(batch, rng([7, number]))
        members = numbered(proposals, number, sampler.name)
        sampler.tell(members, Results.pending(batch))
        if late is not None:
            sampler.tell(*late)
        proposers.extend(proposals.notes["proposer"].tolist())
        shares.extend(proposals.notes.get("portfolio_share", np.full(batch, np.nan)).tolist())
        late = members, rewarded(reward(members.unit))
    return np.array(proposers), np.array(shares)


def sphere(unit):
    return -((unit - 0.3) ** 2).sum(axis=1)


class TestPortfolio:
    @pytest.mark.parametrize("make", [mixed, nested])
    @pytest.mark.parametrize("cube", [mixed_cube(), conditional_cube()], ids=["mixed", "nested"])
    def test_laws(self, make, cube):
        check_sampler(make, cube)

    def test_points_go_to_who_finds_something(self):
        def portfolio(**options):
            parts = [
                Uniform(real_cube(4)),
                Sobol(real_cube(4)),
                DifferentialEvolution(real_cube(4)),
            ]
            return Portfolio(parts, shares=[16, 0, 1], **options)

        proposer, share = drive(portfolio(credit=True), sphere, 400)
        assert share.min() >= 0.05
        assert (proposer[200:] == "differential_evolution").mean() > 0.4
        proposer, _ = drive(portfolio(), sphere, 400)
        assert (proposer[200:] == "differential_evolution").mean() < 0.2

    def test_without_it_shares_stay(self):
        portfolio = mixed(CUBE, credit=False)
        assert np.isnan(drive(portfolio, sphere, 80)[1]).all()
        np.testing.assert_array_equal(portfolio.live_shares, portfolio.shares)
        assert not hasattr(portfolio, "heed")

    def test_the_density_is_that_of_the_shares_of_the_moment(self):
        portfolio, moved = mixed(CUBE), 0
        for number in range(0, 160, 8):
            now, box = portfolio.live_shares, portfolio.parts[0]
            asked = portfolio.ask(8, rng(number))
            notes, unit = asked.notes, asked.unit
            dense = np.array([np.exp(box.log_density(unit)), np.ones(8)])
            wanted = np.log((now[:2] @ dense) / now[:2].sum())
            wanted[notes["proposer"] == "differential_evolution"] = np.nan
            np.testing.assert_allclose(notes["log_prob"], wanted, rtol=1e-10, atol=1e-12)
            place = [[p.name for p in portfolio.parts].index(name) for name in notes["proposer"]]
            np.testing.assert_array_equal(notes["portfolio_share"], now[place])
            portfolio.tell(numbered(asked, number, "portfolio"), rewarded(sphere(unit)))
            moved += not np.allclose(now, portfolio.shares)
        assert moved > 10

    def test_an_inner_part_earns_for_its_portfolio(self):
        portfolio = nested(CUBE)
        members = numbered(Uniform(CUBE).ask(60, rng()), 0, "uniform")
        names, turn = np.array(["uniform", "box", "differential_evolution"]), np.arange(60) % 3
        members.notes["proposer"] = names[turn]
        portfolio.tell(members, rewarded(np.where(turn == 2, np.arange(60.0), 0.0)))
        assert portfolio.live_shares[1] > 0.5
        assert portfolio.parts[1].live_shares[1] > 0.6
        notes = portfolio.ask(40, rng()).notes
        assert np.isnan(notes["inner_share"][notes["proposer"] == "uniform"]).all()
        outer = np.isin(notes["proposer"], ["box", "differential_evolution"])
        np.testing.assert_array_equal(notes["portfolio_share"][outer], portfolio.live_shares[1])

    def test_demands_reach_every_part(self):
        portfolio = nested(CUBE)
        drive(portfolio, sphere, 80)
        assert not np.allclose(portfolio.live_shares, portfolio.shares)
        portfolio.heed(Demands(temperature=1.0))
        np.testing.assert_array_equal(portfolio.live_shares, portfolio.shares)
        inner = portfolio.parts[1]
        np.testing.assert_array_equal(inner.live_shares, [1.0, 0.0])  # the search is spent
        portfolio.heed(Demands(ranked=True))
        assert not np.allclose(portfolio.live_shares, portfolio.shares)

    def test_points_of_ones_own_in_front(self):
        chain = Chain([Listed(CUBE, rng().uniform(0.1, 0.9, (9, 2))), mixed(CUBE)])
        proposer, share = drive(chain, sphere, 121, batch=1)
        assert set(proposer[:9]) == {"listed"}
        assert np.isnan(share[:9]).all()
        assert np.isfinite(share[9:]).all()
        assert len(np.unique(share[9:])) > 9

    @pytest.mark.parametrize("wrong", [0, -1, 2.5, "yes", None])
    def test_wrong_arguments(self, wrong):
        with pytest.raises(ValueError, match=r"credit: wanted True, False or a whole number >= 1"):
            mixed(CUBE, credit=wrong)

    def test_it_describes_itself(self):
        told = [mixed(CUBE, credit=given).describe()["credit"] for given in (False, True, 9)]
        assert json.loads(json.dumps(told)) == [0, 64, 9]


SPACE = erl.Space(x=erl.Real(-1.0, 1.0), y=erl.Real(-1.0, 1.0))


def run(store=None, n_members=120, goal=None, **options):
    options = {"cluster": "serial", "seed": 3, "progress": False, "sampler": mixed} | options
    return erl.explore(
        lambda x, y: (x - 0.3) ** 2 + y**2,
        SPACE,
        goal or erl.Minimize("value"),
        n_members=n_members,
        store=store,
        **options,
    ).load()


class TestCampaigns:
    @pytest.mark.parametrize("checkpoint", [True, False])
    def test_a_campaign_goes_on_as_if_it_had_not_stopped(self, tmp_path, checkpoint):
        whole = run(tmp_path / "whole")
        run(tmp_path / "parts", n_members=70)
        if not checkpoint:
            (tmp_path / "parts" / "checkpoint.npz").unlink()
        again = run(tmp_path / "parts")
        xr.testing.assert_identical(
            again.drop_vars(TIMES).drop_attrs(), whole.drop_vars(TIMES).drop_attrs()
        )
        assert len(np.unique(whole["note_portfolio_share"])) > 9

    def test_a_store_told_in_another_order_has_the_same_shares(self, tmp_path):
        cluster = erl.Simulated(8, order="shuffled", seed=2, loss_rate=0.05)
        ds = run(tmp_path / "s", cluster=cluster)
        shutil.copytree(tmp_path / "s", tmp_path / "t")
        one, two = mixed(SPACE.cube), mixed(SPACE.cube)
        unit = SPACE.to_unit({name: ds[name].values for name in SPACE})
        members = numbered(Uniform(SPACE.cube).ask(120, rng()), 0, "uniform")
        members.unit[:], members.notes["proposer"] = unit, ds["proposer"].values
        for rows in np.split(np.arange(120), 12):
            one.tell(members.take(rows), rewarded(ds["reward"].values[rows]))
        two.tell(members, rewarded(ds["reward"].values))
        np.testing.assert_array_equal(one.live_shares, two.live_shares)

    def test_a_goal_without_an_extremum_leaves_them_where_they_are(self, monkeypatch):
        monkeypatch.setattr(erl.Minimize, "demands", lambda *args: Demands(temperature=1.0))
        ds = run()
        assert set(np.unique(ds["proposer"])) == {"box", "sobol"}
        share = ds["note_portfolio_share"].values
        assert len(np.unique(share)) == 2
