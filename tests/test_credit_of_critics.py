"""Who proposed the best of the newest members proposes more."""

import numpy as np
import pytest

from ensemblerl.agents.base import Rows
from ensemblerl.agents.critics.credit import LEAST, TOP, WINDOW, credit, shared, worths
from ensemblerl.agents.replay import Replay
from ensemblerl.records import Members, Proposals, Results
from ensemblerl.testing.rehearsal import numbered

NAMES = ["", "gp", "quadratic"]
WEIGHTS = {"gp": 0.75, "quadratic": 0.25}


def rows(reward, critic, version=0):
    n = len(reward)
    zero, versions = np.zeros(n), np.broadcast_to(version, n)
    unit = np.full((n, 1), 0.5)
    return Rows(
        np.arange(n),
        unit,
        np.array(reward, float),
        zero,
        unit * 0,
        versions,
        zero,
        np.array(critic),
    )


def history(n=60, seed=0, **level):
    """Members of each proposer in turn, with rewards about a level of its own."""
    critic = np.array([NAMES[i % 3] for i in range(n)])
    noise = np.random.default_rng(seed).normal(size=n)
    return rows(noise + [level.get(name or "drawn", 0.0) for name in critic], critic)


class TestWorths:
    def test_the_best_is_worth_one_and_each_rank_less(self):
        worth = worths(np.array([3.0, 9.0, 5.0]))
        np.testing.assert_allclose(worth, np.exp(-np.array([2, 0, 1]) / TOP))

    def test_equal_members_share_theirs(self):
        worth = worths(np.array([1.0, 2.0, 1.0]))
        assert worth[0] == worth[2] == pytest.approx(np.exp(-np.array([1, 2]) / TOP).mean())

    def test_failures_have_none(self):
        assert worths(np.array([-np.inf, 0.0, -np.inf])).tolist() == [0.0, 1.0, 0.0]

    def test_only_the_order_counts(self):
        reward = np.random.default_rng(0).normal(size=50)
        np.testing.assert_array_equal(worths(reward), worths(np.exp(3 * reward)))


class TestCredit:
    def test_who_finds_the_best_has_more_and_who_finds_nothing_less(self):
        drawn, gp, quadratic = credit(history(gp=-5.0, quadratic=5.0), NAMES)
        assert quadratic > 1.5
        assert drawn < 1.0
        assert gp < 0.3

    def test_among_equals_there_is_little_to_choose(self):
        told = np.array([credit(history(seed=k), NAMES) for k in range(200)])
        error = told.std(axis=0) / np.sqrt(len(told))
        assert (np.abs(told.mean(axis=0) - 1.0) < 3 * error + 0.02).all()

    def test_few_members_of_one_say_little_of_it(self):
        many = rows([*range(40), 41.0], [""] * 40 + ["gp"])
        once = credit(many, ["gp"])[0]
        often = credit(rows([*range(40), *range(41, 51)], [""] * 40 + ["gp"] * 10), ["gp"])[0]
        assert 1.0 < once < often

    def test_of_nothing_and_of_failures_alone_nothing_is_said(self):
        nothing = rows([], np.array([], dtype="U8"))
        for known in (nothing, rows([-np.inf] * 5, ["gp"] * 5), rows([1.0, 2.0], ["", ""], -1)):
            assert credit(known, NAMES).tolist() == [1.0, 1.0, 1.0]

    def test_designs_and_what_is_long_ago_do_not_count(self):
        new = history(n=WINDOW, gp=3.0)
        old = rows(np.full(90, 1e6), ["quadratic"] * 90)
        design = rows(np.full(90, 1e6), [""] * 90, version=-1)
        parts = [old, design, new]
        names = [n for n in vars(new) if n != "number"]
        columns = {n: np.concatenate([vars(part)[n] for part in parts]) for n in names}
        whole = Rows(number=np.arange(180 + WINDOW), **columns)
        np.testing.assert_array_equal(credit(whole, NAMES), credit(new, NAMES))


class TestShares:
    def test_they_sum_to_one_and_follow_forecasts_when_all_find_alike(self):
        shares, share = shared(rows([], np.array([], dtype="U8")), WEIGHTS, 0.8)
        assert sum(shares.values()) == pytest.approx(1.0)
        assert shares["gp"] > shares["quadratic"]
        assert share == 1.0

    def test_a_critic_that_finds_nothing_picks_less_and_never_nothing(self):
        shares, share = shared(history(gp=-9.0, quadratic=9.0), WEIGHTS, 0.8)
        assert shares["quadratic"] > 0.5
        assert shares["gp"] >= 0.1
        assert share == pytest.approx(1.0, abs=0.1)

    def test_where_draws_do_better_there_are_more_draws(self):
        _, share = shared(history(drawn=9.0), WEIGHTS, 0.8)
        assert LEAST <= share < 0.7

    def test_draws_are_never_fewer_than_the_goal_demands(self):
        _, share = shared(history(drawn=-9.0), WEIGHTS, 0.8)
        assert share == 1.0

    def test_one_critic_picks_all(self):
        shares, _ = shared(history(gp=-9.0), {"gp": 1.0}, 1.0)
        assert shares == {"gp": pytest.approx(1.0)}


def test_the_replay_knows_who_picked():
    replay = Replay(1, 1)
    made = numbered(Proposals(np.full((3, 1), 0.5), {"critic": np.array(["", "gp", ""])}), 0, "a")
    told = Members(**{**vars(made), "points": {}})
    reward = np.array([1.0, 2.0, 3.0])
    results = Results(reward=reward, fate=np.array(["ok"] * 3), value=reward[:, None])
    replay.add(told, results)
    assert replay.rows().critic.tolist() == ["", "gp", ""]
    again = Replay(1, 1)
    again.load_state_dict(replay.state_dict())
    assert again.rows().critic.tolist() == ["", "gp", ""]
