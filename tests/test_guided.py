"""A learner with critics, and the points that its agent picks: they steer, and never testify."""

import copy
import json
import shutil

import numpy as np
import pytest
from test_agent import (
    CUBES,
    SPACE,
    campaign,
    launched,
    played,
    same_campaign,
    stopped_at,
    token_agent,
)
from test_agent import tokens as token_policy
from test_background import School, until

import ensemblerl as erl
from ensemblerl.agents.critics.feasibility import Feasibility
from ensemblerl.agents.learners.guided import TRAY, Guided, first
from ensemblerl.agents.learners.mpo import MPO
from ensemblerl.agents.learners.trajectory_balance import TrajectoryBalance
from ensemblerl.agents.maxent import MaxEnt
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.agents.replay import Replay
from ensemblerl.events import Launched
from ensemblerl.records import Cube, Demands, Proposals, Results
from ensemblerl.samplers.portfolio import Portfolio
from ensemblerl.samplers.sobol import Sobol
from ensemblerl.samplers.uniform import Uniform
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.reading import read_events
from ensemblerl.testing import check_learner, check_sampler
from ensemblerl.testing.core import plain_state, same
from ensemblerl.testing.cubes import conditional_cube, constrained_cube, mixed_cube, real_cube
from ensemblerl.testing.density_laws import weights_law
from ensemblerl.testing.lessons import memory_of, rehearse
from ensemblerl.testing.rehearsal import Rehearsal, numbered, play

CUBE = real_cube(2)
BEST = np.array([0.37, 0.62])
CRITICS = ("quadratic", "gp")
NOTES = {"pick", "critic"} | {f"{name}_{what}" for name in CRITICS for what in ("mean", "sd")}
SURE = np.array([1.0, 0.0, 0.0])
"""Chances of ok, failed and lost: nobody fails."""


def rng(seed=0):
    return np.random.default_rng(seed)


def asking(share, **others):
    """What a goal that looks for the best asks for."""
    return Demands(temperature=0.05, prior_share=0.1, ranked=True, picked_share=share, **others)


def bowl(unit, rng=None):
    return -((unit[:, :2] - BEST[: unit.shape[1]]) ** 2).sum(axis=1)


def noise(unit, rng):
    return rng.standard_normal(len(unit))


def level(unit, rng):
    return np.ones(len(unit))


def gentle():
    return TrajectoryBalance(updates=1, batch=16)


def taught(guided, policy, memory, demands, seed=0):
    return guided.learn(policy, memory, demands, rng(seed)).policy


def settle(agent, game, proposals, reward=bowl, edge=np.inf):
    """Launch points and settle them at once; beyond the edge of the first coordinate they fail."""
    number = game.launch(proposals, agent.name)
    members = game.members(number)
    agent.tell(members, Results.pending(len(number)))
    value = np.where(members.unit[:, 0] > edge, np.nan, reward(members.unit))
    fate = np.where(np.isnan(value), "failed", "ok")
    agent.tell(members, Results(value[:, None].copy(), fate, value))


def ready(share, *, n=64, cube=CUBE, agent=None, **options):
    """An agent after one lesson from n points of a design, with a tray that nobody touched."""
    agent = MaxEnt(cube, every=n, **options) if agent is None else agent
    game = Rehearsal(cube.ndim, 0)
    agent.heed(asking(share))
    settle(agent, game, Sobol(cube).ask(n, rng(3)))
    return agent, game


def tray_of(agent):
    return agent._mind.core.tray


def left(agent):
    return agent._mind.core.left


def picks_of(proposals):
    """(n,) which of the points were picked."""
    return proposals.notes["pick"] >= 0


class TestLaws:
    @pytest.mark.parametrize("cube", [mixed_cube(), conditional_cube()], ids=["mixed", "tree"])
    def test_with_mpo_on_the_mixture(self, cube):
        check_learner(lambda: Guided(MPO()), MixturePolicy, cube, n=80)

    def test_with_the_balance_on_tokens(self):
        check_learner(lambda: Guided(gentle()), token_policy, conditional_cube(), n=60, lessons=16)

    def test_a_restored_one_picks_the_same(self):
        policy = MixturePolicy(CUBE)
        memory, one, two = memory_of(policy, 60, 1, reward=bowl), Guided(MPO()), Guided(MPO())
        policy = taught(one, policy, memory, asking(0.5))
        state = copy.deepcopy(one.state_dict())
        assert plain_state(state) == ""
        two.load_state_dict(state)
        assert same(two.state_dict(), state)  # also before it knows on which cube
        rehearse(memory, policy, 20, rng(5), reward=bowl, first=60)
        for learner in (one, two):
            taught(learner, policy, memory, asking(0.5), seed=7)
        assert len(one.tray) == 2 * (80 - 60) - 2 * lost(80, memory, since=60)
        np.testing.assert_array_equal(one.tray.unit, two.tray.unit)
        assert same(one.tray.notes, two.tray.notes)

    def test_it_says_what_it_is(self):
        one = Guided(MPO(anchor=3.0), anchor=4.0, imagined=5.0)
        told = json.loads(json.dumps(one.describe(), allow_nan=False))
        assert (told["learner"], told["anchor"], told["imagined"]) == ("Guided", 4.0, 5.0)
        assert told["from_results"] == MPO(anchor=3.0).describe()

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"learner": MPO}, TypeError, r"^learner: wanted a learner such as MPO\(\), got <cl"),
            ({"learner": 3}, TypeError, r"^learner: wanted a learner such as MPO\(\), got 3$"),
            ({"anchor": 0.0}, ValueError, r"^anchor: wanted a number > 0, got 0.0$"),
            ({"anchor": float("nan")}, ValueError, r"^anchor: .* got nan$"),
            ({"imagined": -1}, ValueError, r"^imagined: wanted a number > 0, got -1$"),
            ({"imagined": "many"}, ValueError, r"^imagined: .* got 'many'$"),
            ({"imagined": float("inf")}, ValueError, r"^imagined: .* got inf$"),
        ],
    )
    def test_bad_arguments_are_named(self, given, error, message):
        with pytest.raises(error, match=message):
            Guided(**({"learner": MPO()} | given))


def lost(n, memory, since=0):
    """Members that are no rows."""
    number = memory.rows().number
    return (n - since) - int((number >= since).sum())


class TestLesson:
    def lesson(self, demands, *, reward=bowl, n=60, learner=MPO, **options):
        """The policies of a lesson with critics and without, and what was picked."""
        policy = MixturePolicy(CUBE)
        memory, one = memory_of(policy, n, 1, reward=reward, **options), Guided(learner())
        came = one.learn(policy, memory, demands, rng())
        return came, learner().learn(policy, memory, demands, rng()), one

    def test_where_critics_foretell_the_policy_takes_a_step_and_points_are_picked(self):
        came, bare, one = self.lesson(asking(0.8), chances=SURE)
        assert not same(came.policy.weights, bare.policy.weights)
        assert len(one.tray) == 2 * 60
        assert set(one.tray.notes) == NOTES - {"pick"}
        assert set(one.tray.notes["critic"]) == set(CRITICS)
        assert ((one.tray.unit > 0) & (one.tray.unit < 1)).all()
        assert len(np.unique(one.tray.unit, axis=0)) == len(one.tray)
        assert {f"{kind}_{name}" for kind in ("skill", "weight") for name in CRITICS} <= set(
            came.metrics
        )
        assert sum(came.metrics[f"weight_{name}"] for name in CRITICS) == pytest.approx(1.0)
        assert bare.metrics.items() <= came.metrics.items()

    def test_what_critics_foretell_of_a_pick_is_in_the_unit_of_the_reward(self):
        one = self.lesson(asking(0.8), chances=SURE, reward=lambda u, r: 5.0 + 2.0 * bowl(u))[2]
        notes, truth = one.tray.notes, 5.0 + 2.0 * bowl(one.tray.unit)
        near = notes["critic"] == "quadratic"
        assert near.any()
        np.testing.assert_allclose(notes["quadratic_mean"][near], truth[near], atol=0.02)
        for name in CRITICS:
            assert (notes[f"{name}_sd"] > 0).all()

    @pytest.mark.parametrize("demands", [Demands(), Demands(temperature=0.1, picked_share=0.5)])
    def test_rewards_that_are_not_taken_by_rank_are_no_business_of_critics(self, demands):
        came, bare, one = self.lesson(demands)
        assert one.tray is None
        assert same(came.policy.weights, bare.policy.weights)
        assert came.metrics == bare.metrics

    def test_where_none_may_be_picked_there_is_the_step_alone(self):
        came, bare, one = self.lesson(asking(0.0))
        with_picks = self.lesson(asking(0.8))[0]
        assert one.tray is None
        assert not same(came.policy.weights, bare.policy.weights)
        assert same(came.policy.weights, with_picks.policy.weights)

    def test_of_discrete_coordinates_fewer_members_are_enough(self):
        mixed = mixed_cube()
        real = [edges is None for edges in mixed.edges].count(True)
        assert 0 < real < mixed.ndim
        assert (first(real_cube(3)), first(mixed)) == (8, 2 + mixed.ndim + real)

    @pytest.mark.parametrize("policy", [MixturePolicy(CUBE), token_policy(CUBE)], ids=["mix", "t"])
    def test_critics_are_asked_once_enough_members_are_ok(self, policy):
        """However many failed."""
        least = first(CUBE)
        learner = MPO if isinstance(policy, MixturePolicy) else gentle
        for n_ok, asked in ((least - 1, False), (least, True)):
            memory, one = Replay(policy.n_steps, 2), Guided(learner())
            unit = rng(2).random((30, 2))
            value = np.where(np.arange(30) < n_ok, bowl(unit), np.nan)
            fate = np.where(np.isnan(value), "failed", "ok")
            results = Results(value[:, None].copy(), fate, value)
            memory.add(numbered(Proposals(unit), 0, "x"), results)
            came = one.learn(policy, memory, asking(0.8), rng())
            assert ("skill_gp" in came.metrics) == asked
            assert (one.tray is not None) == asked
            if not asked:
                memory = Replay(policy.n_steps, 2)  # a lesson may give rows priorities
                memory.add(numbered(Proposals(unit), 0, "x"), results)
                bare = taught(learner(), policy, memory, asking(0.8))
                assert same(came.policy.weights, bare.weights)

    @pytest.mark.parametrize(
        "reward",
        [
            noise,
            level,
        ],
    )
    def test_when_nothing_is_foretold_learning_is_free_of_models(self, reward):
        policy, one, bare = MixturePolicy(CUBE), Guided(MPO()), MPO()
        memory, free = Replay(1, 2), 0
        for i in range(20):
            rehearse(memory, policy, 8, rng(i), reward=reward, chances=SURE, first=8 * i)
            came = one.learn(policy, memory, asking(0.8), rng(i))
            alone = bare.learn(policy, memory, asking(0.8), rng(i)).policy
            if any(came.metrics.get(f"weight_{name}", 0.0) > 0 for name in CRITICS):
                assert one.tray is not None
            elif "skill_gp" in came.metrics and i > 2:
                free += 1
                assert came.metrics["skill_quadratic"] == 0.0
                assert one.tray is None
                assert same(came.policy.weights, alone.weights)
            policy = came.policy
        # a window of noise looks like skill now and then
        assert free >= 8

    def test_a_tray_is_of_one_lesson(self):
        """One that picks nothing leaves nothing of the lesson before."""
        policy, one = MixturePolicy(CUBE), Guided(MPO())
        memory = memory_of(policy, 60, 1, reward=bowl)
        taught(one, policy, memory, asking(0.8))
        assert one.tray is not None
        taught(one, policy, memory, asking(0.0))
        assert one.tray is None

    def test_a_tray_holds_some_for_few_results_and_a_bounded_number_for_many(self):
        policy, one = MixturePolicy(CUBE), Guided(MPO())
        memory = memory_of(policy, 140, 1, reward=bowl, chances=SURE)
        taught(one, policy, memory, asking(0.8))
        assert len(one.tray) == TRAY[1]
        rehearse(memory, policy, 1, rng(), reward=bowl, chances=SURE, first=140)
        taught(one, policy, memory, asking(0.8))
        assert len(one.tray) == TRAY[0]
        rehearse(memory, policy, 10, rng(), reward=bowl, chances=SURE, first=141)
        taught(one, policy, memory, asking(0.8))
        assert len(one.tray) == 20

    def test_tokens_take_a_step_too(self):
        """One lesson from 40 members; critics may be wrong once."""
        policy, gain = token_policy(CUBE), []
        for seed in range(4):
            memory, one = memory_of(policy, 40, seed, reward=bowl), Guided(gentle())
            again = copy.deepcopy(memory)
            came = taught(one, policy, memory, asking(0.8))
            bare = taught(gentle(), policy, again, asking(0.8))
            assert one.tray is not None
            guided, alone = (bowl(p.sample(2000, None, rng())).mean() for p in (came, bare))
            gain.append(guided / alone)
        assert np.mean(gain) < 0.85

    def test_on_a_smooth_problem_the_policy_is_nearer_to_the_best_after_the_same_rows(self):
        far = []
        for seed in range(3):
            both = [MixturePolicy(CUBE), MixturePolicy(CUBE)]
            memory = Replay(1, 2)
            learners = [Guided(MPO()), MPO()]
            for i in range(4):
                rehearse(memory, MixturePolicy(CUBE), 10, rng([seed, i]), reward=bowl, first=10 * i)
                both = [
                    taught(learner, policy, memory, asking(0.0), seed=i)
                    for learner, policy in zip(learners, both, strict=True)
                ]
            far.append([-np.median(bowl(p.sample(2000, None, rng(9)))) for p in both])
        guided, bare = np.array(far).T
        assert (guided <= bare).all()  # equal where no critic had any skill yet
        assert np.median(guided) < 0.1 * np.median(bare)


class TestPicks:
    @pytest.mark.parametrize("share", [0.25, 0.8])
    def test_about_the_share_is_picked_and_the_others_keep_their_density(self, share):
        agent, _ = ready(share)
        n = int(100 / share)
        asked = agent.ask(n, rng())
        assert left(agent) > 0
        picks = picks_of(asked)
        assert abs(picks.sum() - share * n) < 5 * np.sqrt(n * share * (1 - share))
        log_prob = asked.notes["log_prob"]
        assert np.isnan(log_prob[picks]).all()
        np.testing.assert_array_equal(log_prob[~picks], agent.log_density(asked.unit[~picks]))
        assert np.isfinite(log_prob[~picks]).all()
        assert agent.density_share == pytest.approx(1 - share)

    def test_picks_know_who_picked_them_and_draws_that_nobody_did(self):
        agent, _ = ready(0.5)
        asked, tray = agent.ask(100, rng()), tray_of(agent)
        assert set(asked.notes) == NOTES | {"log_prob", "version"}
        picks, took = picks_of(asked), asked.notes["pick"]
        for name in NOTES - {"pick"}:
            np.testing.assert_array_equal(asked.notes[name][picks], tray.notes[name][took[picks]])
        np.testing.assert_array_equal(asked.unit[picks], tray.unit[took[picks]])
        assert set(took[~picks]) == {-1}
        assert set(asked.notes["critic"][~picks]) == {""}
        for name in NOTES - {"pick", "critic"}:
            assert np.isnan(asked.notes[name][~picks]).all()
        assert (asked.notes["version"] == 1).all()

    def test_no_point_of_the_tray_comes_twice(self):
        agent, game = ready(0.6)
        asked = [agent.ask(n, rng(n)) for n in (1, 7, 30, 2)]
        game.launch(asked[0], "agent")
        agent.tell(game.members(np.array([64])), Results.pending(1))
        asked += [agent.ask(n, rng(n)) for n in (20, 90, 100)]
        took = np.concatenate([a.notes["pick"][picks_of(a)] for a in asked])
        np.testing.assert_array_equal(took, np.arange(len(tray_of(agent))))
        points = np.concatenate([a.unit[picks_of(a)] for a in asked])
        assert len(np.unique(points, axis=0)) == len(points)

    def test_two_agents_have_a_tray_each(self):
        """What one of them launches is not off the other's."""
        parts = [MaxEnt(CUBE, every=64, name=name) for name in ("one", "two")]
        both, game = Portfolio(parts, shares=[9, 1], floor=0.1), Rehearsal(2, 0)
        for part in parts:
            part.heed(asking(0.8))
        settle(both, game, Sobol(CUBE).ask(64, rng(3)))
        asked = both.ask(40, rng())
        took = [
            [k for k in asked.notes["pick"][asked.notes["proposer"] == part.name] if k >= 0]
            for part in parts
        ]
        assert len(took[0]) > len(took[1]) > 0
        number = game.launch(asked, both.name)
        both.tell(game.members(number), Results.pending(len(number)))
        for part, own in zip(parts, took, strict=True):
            assert left(part) == len(tray_of(part)) - len(own)

    def test_two_agents_that_know_the_same_learn_the_same_and_pick_other_points(self):
        parts = [MaxEnt(CUBE, every=64, name=name) for name in ("one", "two")]
        game = Rehearsal(2, 0)
        for part in parts:
            part.heed(asking(0.8))
        settle(Portfolio(parts), game, Sobol(CUBE).ask(64, rng(3)))
        one, two = (part.published()[-1] for part in parts)
        assert one.alike(two)
        points = np.concatenate([tray_of(part).unit for part in parts])
        assert len(np.unique(points, axis=0)) > 0.9 * len(points)

    def test_asked_by_hand_its_own_picks_are_off_its_tray(self):
        """Nobody has noted who proposed them."""
        agent, _ = ready(0.8)
        asked = agent.ask(20, rng())
        assert "proposer" not in asked.notes
        members = numbered(asked, 64, "x")
        del members.notes["proposer"]
        agent.tell(members, Results.pending(20))
        assert left(agent) == len(tray_of(agent)) - picks_of(asked).sum()

    @pytest.mark.parametrize("make", [MaxEnt, token_agent], ids=["mixture", "tokens"])
    def test_asked_for_more_than_there_is_it_draws_the_rest(self, make):
        agent, _ = ready(1.0, agent=make(CUBE, every=64))
        m = len(tray_of(agent))
        first, asked = agent.ask(3, rng()), agent.ask(m + 20, rng())
        assert picks_of(first).all()
        assert agent.density_share == 1.0
        picks = picks_of(asked)
        assert picks.tolist() == [True] * (m - 3) + [False] * 23
        np.testing.assert_allclose(
            asked.notes["log_prob"][~picks], agent.log_density(asked.unit[~picks])
        )
        after = agent.ask(5, rng())
        assert np.isfinite(after.notes["log_prob"]).all()
        assert set(after.notes["pick"]) == {-1}
        if make is token_agent:
            for one in (first, asked):
                steps = one.notes["log_prob_steps"]
                assert steps.shape == (len(one), agent.policy.n_steps)
                np.testing.assert_array_equal(np.isnan(steps).all(axis=1), picks_of(one))
                np.testing.assert_allclose(steps.sum(axis=1), one.notes["log_prob"])

    def test_with_a_share_of_nothing_every_point_has_a_density(self):
        agent, game = ready(0.8, picked=0.0)
        asked = play(agent, game, rng(), 60)
        assert all(np.isfinite(a.notes["log_prob"]).all() for a in asked)
        assert not NOTES & {name for a in asked for name in a.notes}
        assert agent.density_share == 1.0
        assert agent.telemetry()[-1]["weight_quadratic"] >= 0.0  # critics guide it all the same

    @pytest.mark.parametrize("demanded", [0.0, 1.0])
    def test_a_share_given_overrides_the_goal(self, demanded):
        agent, _ = ready(demanded, picked=0.5)
        picks = picks_of(agent.ask(200, rng()))
        assert abs(picks.sum() - 100) < 5 * np.sqrt(200 * 0.25)
        assert agent.density_share == 0.5

    def test_a_share_given_counts_without_a_goal(self):
        agent = MaxEnt(CUBE, every=64, picked=0.5)
        settle(agent, Rehearsal(2, 0), Sobol(CUBE).ask(64, rng(3)))
        assert "pick" in agent.ask(50, rng()).notes

    def test_a_goal_that_wants_no_picks_any_more_gets_none(self):
        agent, _ = ready(0.8)
        assert picks_of(agent.ask(20, rng())).any()
        agent.heed(asking(0.0))
        assert not picks_of(agent.ask(50, rng())).any()
        assert agent.density_share == 1.0

    def test_without_critics_there_is_nothing_new(self):
        agent, game = ready(0.8, critics=False)
        assert isinstance(agent.learner, MPO)
        asked = play(agent, game, rng(), 40)
        assert {name for a in asked for name in a.notes} == {"log_prob", "version"}
        assert not any(name.startswith(("skill", "weight")) for name in agent.telemetry()[-1])

    @pytest.mark.parametrize("picked", [-0.1, 1.5, float("nan"), "half", [0.5]])
    def test_a_share_that_is_none_is_named(self, picked):
        with pytest.raises(ValueError, match=r"^picked: wanted a share in \[0, 1\] or None, got "):
            MaxEnt(CUBE, picked=picked)

    @pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
    def test_a_demand_that_is_none_is_named(self, share):
        with pytest.raises(ValueError, match=r"^picked_share: wanted a share in \[0, 1\], got "):
            Demands(picked_share=share)

    def test_it_says_what_it_is(self):
        for picked in (None, 0.25):
            told = json.loads(json.dumps(MaxEnt(CUBE, picked=picked).describe(), allow_nan=False))
            assert told["picked"] == picked
            assert told["learner"]["learner"] == "Guided"
            assert told["learner"]["from_results"]["learner"] == "MPO"

    def test_a_guided_learner_of_ones_own_is_not_guided_twice(self):
        own = Guided(MPO(), imagined=7.0)
        assert MaxEnt(CUBE, learner=own).learner is own

    @pytest.mark.parametrize(
        "options",
        [{"policy": TokenPolicy, "learner": Guided(MPO())}, {"learner": Guided(gentle())}],
    )
    def test_a_guided_learner_that_cannot_teach_the_policy_is_refused(self, options):
        with pytest.raises(TypeError, match=r"^learner: "):
            MaxEnt(CUBE, **options)


def picking(cube, make=MaxEnt):
    """An agent whose goal lets critics pick."""
    agent = make(cube)
    agent.heed(asking(0.8))
    return agent


class TestSampler:
    """The laws, with picks: without a goal an agent makes none."""

    @pytest.mark.parametrize("name", CUBES)
    def test_the_agent_keeps_them(self, name):
        check_sampler(picking, CUBES[name], n=60, draws=2000)

    def test_an_agent_of_tokens_keeps_them(self):
        check_sampler(lambda cube: picking(cube, token_agent), CUBES["mixed"], n=48, draws=2000)

    def test_in_a_portfolio(self):
        def make(cube):
            return Portfolio([picking(cube), Uniform(cube)], shares=[1, 0], floor=0.2)

        check_sampler(make, CUBES["conditional"], n=60, draws=2000)

    @pytest.mark.parametrize(
        "name",
        list(CUBES),
    )
    def test_picks_are_points_like_any(self, name):
        """Inside, inactive coordinates in the middle; categories without an order move too."""
        cube = CUBES[name]
        agent, _ = ready(1.0, cube=cube)
        unit = tray_of(agent).unit
        assert len(unit) > 10
        assert ((unit > 0) & (unit < 1)).all()
        np.testing.assert_array_equal(unit, cube.canonical(unit))
        assert (cube.active(unit).sum(axis=0) > 0).any()
        assert (np.ptp(unit, axis=0) > 0).any()


class TestState:
    @pytest.mark.parametrize("make", [MaxEnt, token_agent], ids=["mixture", "tokens"])
    def test_a_restored_agent_goes_on_in_the_middle_of_a_tray(self, make):
        one, game = ready(0.5, n=32, agent=make(CUBE, every=32))
        settle(one, game, one.ask(9, rng()))
        assert 0 < left(one) < len(tray_of(one))
        state = copy.deepcopy(one.state_dict())
        assert plain_state(state) == ""
        two, again = make(CUBE, every=32), game.copy()
        two.load_state_dict(copy.deepcopy(state))
        assert left(two) == left(one)
        assert same(two.state_dict(), state)
        for i in range(5):
            asked = [agent.ask(13, rng(i)) for agent in (one, two)]
            assert same(*(vars(a) for a in asked))
            settle(one, game, asked[0])
            settle(two, again, asked[1])
        assert same(state["core"]["tray"], one.state_dict()["core"]["tray"]) is False
        assert same(one.state_dict(), two.state_dict())

    def test_a_state_is_a_snapshot(self):
        agent, _ = ready(0.5)
        state = agent.state_dict()
        kept = copy.deepcopy(state)
        agent.ask(20, rng())
        assert same(state, kept)

    def test_what_was_launched_is_off_the_tray_where_a_replay_tells_of_it(self):
        agent, game = ready(0.5)
        state = copy.deepcopy(agent.state_dict())
        settle(agent, game, agent.ask(20, rng()))
        number = np.arange(64, 84)
        other, twice = MaxEnt(CUBE, every=64), Results.pending(20)
        other.load_state_dict(state)
        other.tell(game.members(number), twice)
        other.tell(game.members(number), twice)
        assert left(other) == left(agent) < len(tray_of(agent))
        assert same(vars(other.ask(20, rng(1))), vars(agent.ask(20, rng(1))))

    def test_picks_of_another_agent_take_no_more_than_there_is(self):
        """Its numbers may be beyond this tray: it was built otherwise, or is a second one."""
        agent, game = ready(1.0, n=16)
        other, _ = ready(1.0, n=64)
        foreign = other.ask(len(tray_of(other)), rng())
        assert len(foreign) > len(tray_of(agent))
        number = game.launch(foreign, "agent")
        agent.tell(game.members(number), Results.pending(len(number)))
        assert left(agent) == 0
        assert len(agent.ask(4, rng())) == 4

    def test_late_launches_of_an_older_tray_take_nothing_off_the_new_one(self):
        agent, game = ready(1.0)
        late = agent.ask(50, rng())
        settle(agent, game, Sobol(CUBE).ask(64, rng(4)))  # a lesson: another tray
        assert left(agent) == len(tray_of(agent))
        settle(agent, game, late)
        assert left(agent) == len(tray_of(agent))


def simulated():
    return erl.Simulated(5, order="shuffled", seed=2, loss_rate=0.1)


def picks_in(path):
    """(n,) what was launched carried, -2 where the note was not there yet."""
    members = [e.members for e in read_events(path) if isinstance(e, Launched)]
    return np.concatenate([m.notes.get("pick", np.full(len(m), -2)) for m in members])


def same_picks(one, two):
    same_campaign(one, two)
    np.testing.assert_array_equal(picks_in(one), picks_in(two))


def ledger_only(path):
    """What came last, and is no part of the truth, is lost."""
    for name in ("checkpoint.npz", "compacted.json", "zarr.json"):
        (path / name).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("guided") / "whole"
    campaign(path, MaxEnt(SPACE.cube)).run()
    return path


class TestCampaigns:
    def test_most_points_are_picked_and_picks_have_no_density(self, whole):
        pick, log_prob = picks_in(whole), launched(whole)[1]
        np.testing.assert_array_equal(np.isnan(log_prob), pick >= 0)
        assert 0.4 < (pick >= 0).mean() < 0.9
        noted = [e.members.notes for e in read_events(whole) if isinstance(e, Launched)]
        critic = np.concatenate([n.get("critic", [""] * len(n["version"])) for n in noted])
        assert set(critic[pick >= 0]) == set(CRITICS)
        assert set(critic[pick < 0]) == {""}

    def test_a_share_of_nothing_is_heard(self, tmp_path):
        campaign(tmp_path / "s", MaxEnt(SPACE.cube, picked=0.0)).run()
        assert np.isfinite(launched(tmp_path / "s")[1]).all()

    def test_from_the_ledger_alone_also_in_the_middle_of_a_tray(self, whole, tmp_path):
        lines = (whole / "ledger.jsonl").read_bytes().splitlines(keepends=True)
        middle = 0
        for cut in range(len(lines) // 3, len(lines), len(lines) // 9):
            path = tmp_path / str(cut)
            shutil.copytree(whole, path)
            ledger_only(path)
            (path / "ledger.jsonl").write_bytes(b"".join(lines[:cut]))
            n = len(picks_in(path))
            middle += first_pick(whole, n) > 0
            campaign(path, MaxEnt(SPACE.cube)).run()
            same_picks(path, whole)
        assert middle >= 2

    @pytest.mark.parametrize("place", [0, 1, -1])
    def test_from_a_checkpoint_in_the_middle_of_a_tray(self, whole, tmp_path, place):
        n = [n for n in range(15, 38) if first_pick(whole, n) > 0][place]
        path = tmp_path / "s"
        campaign(path, MaxEnt(SPACE.cube), watch=stopped_at(n)).run()
        assert len(picks_in(path)) == n
        campaign(path, MaxEnt(SPACE.cube)).run()
        same_picks(path, whole)

    def test_late_results_with_and_without_the_checkpoint(self, tmp_path):
        def go(name, **options):
            agent = MaxEnt(SPACE.cube, every=16)  # what is in flight makes no lesson
            campaign(tmp_path / name, agent, cluster=simulated(), **options).run()

        go("a", watch=stopped_at(20))
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        ledger_only(tmp_path / "b")
        n = len(picks_in(tmp_path / "a"))
        go("a"), go("b")
        same_picks(tmp_path / "a", tmp_path / "b")
        assert len(picks_in(tmp_path / "a")) == 40
        assert first_pick(tmp_path / "a", n) > 0

    def test_in_a_portfolio_it_is_a_function_of_the_ledger_too(self, tmp_path):
        def go(name, **options):
            both = Portfolio([MaxEnt(SPACE.cube), Uniform(SPACE.cube)], shares=[0.8, 0.2])
            campaign(tmp_path / name, both, **options).run()

        go("whole")
        n = next(n for n in range(22, 38) if first_pick(tmp_path / "whole", n) > 0)
        go("b", watch=stopped_at(n))
        ledger_only(tmp_path / "b")
        go("b")
        same_picks(tmp_path / "b", tmp_path / "whole")

    def test_a_whole_campaign_of_late_results_is_a_function_of_its_ledger(self, tmp_path):
        campaign(tmp_path / "a", MaxEnt(SPACE.cube), cluster=simulated()).run()
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        ledger_only(tmp_path / "b")
        for name in "ab":
            agent = MaxEnt(SPACE.cube)
            campaign(tmp_path / name, agent, cluster=simulated(), n_members=60).run()
        same_picks(tmp_path / "a", tmp_path / "b")


def first_pick(path, n):
    """The first point of a tray that is taken from member n on."""
    after = picks_in(path)[n:]
    return int(next(iter(after[after >= 0]), -1))


class TestWeights:
    """Importance weights are those of the points that have a density, and stay unbiased."""

    def portfolio(self, share=0.5):
        agent = MaxEnt(CUBE, every=64)
        both = Portfolio([agent, Uniform(CUBE)], shares=[0.7, 0.3])
        ready(share, agent=agent)
        return both, agent

    def test_in_a_portfolio_the_density_is_that_of_the_mixture_of_what_has_one(self):
        both, agent = self.portfolio()
        asked = [both.ask(20, rng(i)) for i in range(6)]
        assert left(agent) > 0
        of_agent, of_uniform = both.shares * [0.5, 1.0]
        assert both.density_share == pytest.approx(of_agent + of_uniform)
        for one in asked:
            log_prob, picks = one.notes["log_prob"], picks_of(one)
            np.testing.assert_array_equal(np.isnan(log_prob), picks)
            own = np.exp(agent.log_density(one.unit[~picks]))
            wanted = np.log((of_agent * own + of_uniform) / (of_agent + of_uniform))
            np.testing.assert_allclose(log_prob[~picks], wanted)
        assert 0 < sum(picks_of(one).sum() for one in asked) < 120

    @pytest.mark.parametrize("size", [5, 40, 300])
    def test_in_a_portfolio_they_undo_the_policy_also_where_the_tray_runs_out(self, size):
        both, agent = self.portfolio()
        fresh, unit, log_prob, out = copy.deepcopy(both.state_dict()), [], [], 0
        for i in range(12):
            both.load_state_dict(copy.deepcopy(fresh))
            for j in range(600 // size):
                before = left(agent)
                asked = both.ask(size, rng([i, j]))
                out += before > 0 and left(agent) == 0
                unit.append(asked.unit)
                log_prob.append(asked.notes["log_prob"])
        assert out == 12
        unit, log_prob = np.concatenate(unit), np.concatenate(log_prob)
        has = np.isfinite(log_prob)
        assert has.sum() > 2000
        weights_law(np.exp(-log_prob[has]), unit[has], CUBE)

    def test_of_the_agent_alone_those_of_an_ask_in_which_the_tray_runs_out(self):
        agent, _ = ready(0.7)
        fresh, unit, log_prob = copy.deepcopy(agent.state_dict()), [], []
        for i in range(15):
            agent.load_state_dict(copy.deepcopy(fresh))
            asked = agent.ask(300, rng(i))
            assert left(agent) == 0
            has = ~picks_of(asked)
            unit.append(asked.unit[has])
            log_prob.append(asked.notes["log_prob"][has])
        unit, log_prob = np.concatenate(unit), np.concatenate(log_prob)
        assert np.exp(-log_prob).max() <= 10 * (1 + 1e-9)  # a tenth is the prior's
        weights_law(np.exp(-log_prob), unit, CUBE)

    def test_where_all_of_the_agent_is_picked_the_density_is_the_others(self):
        both, agent = self.portfolio(share=1.0)
        asked = both.ask(40, rng())
        assert left(agent) > 0
        picks = picks_of(asked)
        assert 0 < picks.sum() < 40
        np.testing.assert_array_equal(asked.notes["log_prob"], np.where(picks, np.nan, 0.0))


@pytest.fixture
def school():
    made = []

    def make(share, begin=True, **options):
        one = School(begin=False, **options)
        made.append(one)
        one.agent.heed(asking(share))
        if begin:
            one.agent.begin(in_process=False, last=None)
            one.look()
        return one

    yield make
    for one in made:
        one.agent.close()


def until_picks(one):
    """Go on until a tray is there; what was asked for."""
    asked = []
    while not (asked and "pick" in asked[-1].notes and left(one.agent)):
        asked.append(one.tell(4))
        until(one.look, "a version")
        asked.append(one.tell(1))
    return asked


def no_pick_twice(asked):
    points = np.concatenate([a.unit[picks_of(a)] for a in asked if "pick" in a.notes])
    assert len(points)
    assert len(np.unique(points, axis=0)) == len(points)


class TestBackground:
    def test_picks_arrive_and_are_taken_once_over_versions(self, school):
        one = school(0.8)
        asked = until_picks(one)
        for _ in range(5):
            asked += [one.tell(3) for _ in range(3)]
            until(one.look, "a version")
            asked.append(one.tell(2))
        pairs = [
            pair
            for a in asked
            if "pick" in a.notes
            for pair in zip(a.notes["version"].tolist(), a.notes["pick"].tolist(), strict=True)
            if pair[1] >= 0
        ]
        # by place on the tray: two trays may hold one point where the best lies in a corner
        assert pairs
        assert len(set(pairs)) == len(pairs)
        for a in asked:
            picks = picks_of(a) if "pick" in a.notes else np.zeros(len(a), bool)
            np.testing.assert_array_equal(np.isnan(a.notes["log_prob"]), picks)
        trays = {}
        for a in (a for a in asked if "pick" in a.notes):
            for version, pick in zip(a.notes["version"], a.notes["pick"], strict=True):
                if pick >= 0:
                    trays.setdefault(int(version), []).append(int(pick))
        assert len(trays) > 1
        assert all(took == list(range(len(took))) for took in trays.values())

    def test_a_goal_that_wants_none_gets_none(self, school):
        one = school(0.0)
        one.learn(3)
        for _ in range(3):
            assert not NOTES & set(one.tell(4).notes)
        assert any("skill_gp" in row for row in one.rows)  # critics are there

    def test_a_checkpoint_knows_what_is_off_the_tray(self, school):
        one = school(1.0)
        asked = until_picks(one)
        one.agent.close()
        asked.append(one.agent.ask(3, rng(1)))
        state = copy.deepcopy(one.agent.state_dict())
        assert plain_state(state) == ""
        assert state["core"]["tray"]["picked"] == asked[-1].notes["pick"].max() + 1
        two = school(1.0, begin=False)
        two.agent.load_state_dict(state)
        two.game = one.game
        two.agent.begin(in_process=False, last=one.versions[-1])
        asked.append(two.agent.ask(3, rng(2)))
        assert "pick" in asked[-1].notes
        assert asked[-1].notes["pick"][0] == state["core"]["tray"]["picked"]
        no_pick_twice(asked)

    def test_what_a_replay_tells_after_the_checkpoint_is_off_the_tray_too(self, school):
        one = school(1.0)
        until_picks(one)
        state, n = copy.deepcopy(one.agent.state_dict()), one.game.ledger.n
        one.agent.close()
        last = one.tell(3)
        two = school(1.0, begin=False)
        two.agent.load_state_dict(state)
        number = np.arange(n, n + 3)
        two.agent.tell(one.game.members(number), Results.pending(3))
        two.agent.begin(in_process=False, last=one.versions[-1])
        assert picks_of(last).any()
        no_pick_twice([last, two.agent.ask(3, rng(2))])

    def test_other_shares_in_the_middle_of_a_tray_bring_nothing_back(self, school):
        one = school(1.0, every=64)
        one.tell(64)
        until(one.look, "a version")
        one.agent.heed(asking(1.0, wide_share=0.1))
        until(lambda: one.agent._mind._connection.poll(0), "the shares")
        asked = [one.tell(4)]
        (came,) = one.look()
        assert came.meta["wide_share"] == 0.1
        asked.append(one.tell(4))
        assert picks_of(asked[-1]).any()
        no_pick_twice(asked)


def ridge(unit):
    """Best at a corner that a known constraint, or failures, take away."""
    return unit[:, 0] + unit[:, 1]


class TestWhereMembersCannotBe:
    @pytest.mark.parametrize("make", [MaxEnt, token_agent], ids=["mixture", "tokens"])
    def test_picks_honour_a_known_constraint(self, make):
        cube = constrained_cube()
        agent, game = make(cube, every=16), Rehearsal(3, 0)
        agent.heed(asking(0.9))
        asked = []
        for i in range(16):
            asked.append(agent.ask(8, rng(i)))
            settle(agent, game, asked[-1], ridge)
        taken = np.concatenate([a.unit[picks_of(a)] for a in asked if "pick" in a.notes])
        assert len(taken) > 30
        assert cube.feasible(taken).all()
        assert np.median(ridge(taken[-20:])) > 0.9  # they lie at the edge: it was not far away
        for a in asked[-3:]:
            picks = picks_of(a)
            assert (a.notes["rejected"][picks] == -1).all()
            assert (a.notes["rejected"][~picks] >= 0).all()

    def test_where_all_that_critics_think_of_is_infeasible_it_draws(self):
        cube = Cube(("real",) * 2, (0,) * 2, (None,) * 2, feasible=lambda u: np.zeros(len(u), bool))
        policy, one = MixturePolicy(cube), Guided(MPO())
        memory = memory_of(policy, 40, 1, reward=bowl)
        came, bare = (taught(x, policy, memory, asking(0.8)) for x in (one, MPO()))
        assert one.tray is None or len(one.tray) == 0
        assert same(came.weights, bare.weights)

    def failures(self, reward, edge, seeds, n=120):
        """(len(seeds), n) who failed: all beyond an edge of the first coordinate."""
        out = []
        for seed in seeds:
            agent, game, failed = MaxEnt(CUBE), Rehearsal(2, seed), []
            agent.heed(asking(0.8))
            for i in range(n // 6):
                asked = agent.ask(6, rng([seed, i]))
                failed += (asked.unit[:, 0] > edge).tolist()
                settle(agent, game, asked, reward, edge=edge)
            out.append(failed)
        return np.array(out)

    def test_failing_members_are_avoided(self):
        """The higher of two hills lies where all fail: three tenths of the prior's draws."""

        def hills(unit):
            high, low = (np.linalg.norm(unit - at, axis=1) for at in ([0.9, 0.5], [0.3, 0.3]))
            return np.maximum(1.0 - 4.0 * high, 0.9 - 4.0 * low)

        late = self.failures(hills, 0.7, range(3))[:, -60:]
        assert late.mean() < 0.5 * 0.3

    def test_failures_become_fewer_where_the_best_lies_at_the_edge(self):
        """The reward rises into where all fail: a fifth of the prior's draws."""

        def hill(unit):
            return -((unit - [0.9, 0.5]) ** 2).sum(axis=1)

        failed = self.failures(hill, 0.8, range(3))
        assert failed[:, -60:].mean() < 0.2

    def test_picks_ask_what_is_likely_to_fail(self, monkeypatch):
        """Without the head they would run into it."""
        share = []
        for blind in (False, True):
            if blind:
                monkeypatch.setattr(Feasibility, "log_chance", lambda s, unit: np.zeros(len(unit)))
            agent, game = MaxEnt(CUBE, every=64), Rehearsal(2, 0)
            agent.heed(asking(1.0))
            settle(agent, game, Sobol(CUBE).ask(64, rng(3)), ridge, edge=0.6)
            share.append((tray_of(agent).unit[:, 0] > 0.6).mean())
        assert share[0] < 0.5 * share[1]


def test_an_agent_that_was_told_noise_alone_still_asks_and_learns():
    agent = MaxEnt(CUBE)
    _, asked = played(agent, 80, demands=asking(0.8))
    assert sum(len(a) for a in asked) == 80
    assert np.isfinite(np.concatenate([a.unit for a in asked])).all()


def test_a_store_keeps_what_critics_foretold(whole):
    """In the ledger, so that a committee can be scored by whoever reads it."""
    store = DirectoryStore.resume(whole)
    try:
        members = [e.members for e in store.events() if isinstance(e, Launched)]
    finally:
        store.close()
    noted = [m for m in members if (m.notes.get("pick", np.full(len(m), -1)) >= 0).any()]
    assert noted
    for m in noted:
        picks = m.notes["pick"] >= 0
        told = np.array([m.notes[f"{name}_mean"][picks] for name in CRITICS])
        assert np.isfinite(told).any(axis=0).all()
