"""The agent in whole campaigns: another sampler, another campaign, faults, late changes of mind."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import ensemblerl as erl
from ensemblerl.agents import MPO, MaxEnt, MixturePolicy, TokenPolicy, TrajectoryBalance
from ensemblerl.agents.learners.mpo import Fitted
from ensemblerl.agents.replay import Replay
from ensemblerl.records import Demands
from ensemblerl.samplers.uniform import Uniform
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.testing.rehearsal import Rehearsal

SPACE = erl.Space(x=erl.Real(0.0, 1.0), y=erl.Real(0.0, 1.0), kind=erl.Choice("a", "b"))
TIMES = {"launch_time", "start_time", "end_time", "runtime", "worker"}


def simulate(x, y, kind):
    return (x - 0.3) ** 2 + (y - 0.8) ** 2 + 0.2 * (kind == "b")


def run(store=None, n_members=40, **options):
    options = {"cluster": "serial", "seed": 3, "progress": False} | options
    return erl.explore(
        simulate, SPACE, erl.Minimize("value"), n_members=n_members, store=store, **options
    ).load()


def prepared(path, n_members=20, **options):
    goal = erl.Minimize("value")
    options = {"cluster": "serial", "seed": 3} | options
    return erl.prepare(simulate, SPACE, goal, n_members=n_members, store=path, **options)


def same(one, two):
    xr.testing.assert_identical(
        one.drop_vars(TIMES).drop_attrs(), two.drop_vars(TIMES).drop_attrs()
    )


def tokens(cube, learner=None):
    policy = TokenPolicy(cube, hidden=8, digits=2)
    return MaxEnt(cube, policy=policy, learner=learner or TrajectoryBalance(updates=1, batch=16))


def versions_kept(path):
    return {int(file.stem) for file in (path / "policy").glob("*.npz")}


class TestAnotherSampler:
    @pytest.mark.parametrize(
        ("first", "then"),
        [
            ("sobol", None),
            (None, "lhs"),
            (None, MaxEnt),
            (MaxEnt, tokens),
            (MaxEnt, lambda cube: MaxEnt(cube, policy=MixturePolicy(cube, components=6))),
        ],
        ids=["design to agent", "agent to design", "alone", "policy", "components"],
    )
    def test_goes_on_with_what_is_there(self, tmp_path, first, then):
        run(tmp_path / "s", 20, sampler=first)
        ds = run(tmp_path / "s", sampler=then)
        assert (ds.fate == "ok").all()
        drawn = ds.policy_version.values
        assert set(drawn[drawn >= 0]) <= versions_kept(tmp_path / "s")

    def test_is_told_what_came_before(self, tmp_path):
        run(tmp_path / "s", 24, sampler="sobol")
        ds = run(tmp_path / "s", 26, sampler=MaxEnt)
        assert ds.policy_version[24] > 0

    def test_the_same_one_takes_its_checkpoint(self, tmp_path):
        run(tmp_path / "s", 20, sampler=MaxEnt)
        told = []

        class Listening(MaxEnt):
            def describe(self):
                return super().describe() | {"sampler": "MaxEnt"}

            def tell(self, members, results):
                told.append(members.number.min())
                return super().tell(members, results)

        run(tmp_path / "s", 40, sampler=Listening)
        assert min(told) >= 20


class TestAnotherCampaign:
    def test_an_agent_begins_anew(self, tmp_path):
        agent = MaxEnt(SPACE.cube)
        one = run(tmp_path / "a", sampler=agent)
        same(one, run(tmp_path / "b", sampler=agent))
        assert versions_kept(tmp_path / "b") == versions_kept(tmp_path / "a")

    def test_two_agents_share_no_learner(self):
        learner = TrajectoryBalance(updates=1, batch=16)
        made = [run(sampler=lambda cube: tokens(cube, learner)) for _ in range(2)]
        same(*made)


class TestFaults:
    def test_a_version_that_could_not_be_written_is_written_at_the_end_or_later(
        self, tmp_path, monkeypatch
    ):
        publish, failed = DirectoryStore.publish, []

        def flaky(store, snapshot):
            if snapshot.version == 5 and not failed:
                failed.append(5)
                raise OSError("no space")
            publish(store, snapshot)

        monkeypatch.setattr(DirectoryStore, "publish", flaky)
        with pytest.raises(OSError, match="no space"):
            run(tmp_path / "s", sampler=MaxEnt)
        assert failed
        ds = run(tmp_path / "s", sampler=MaxEnt)
        assert set(ds.policy_version.values) <= versions_kept(tmp_path / "s")
        assert ds.policy_version.max() > 5

    @pytest.mark.parametrize("make", [MaxEnt, tokens], ids=["mixture", "tokens"])
    def test_a_lesson_cut_short_is_given_again(self, tmp_path, monkeypatch, make):
        undisturbed, kind = run(tmp_path / "u", sampler=make), type(make(SPACE.cube).learner)
        learn, lessons = kind.learn, []

        def cut(self, policy, memory, demands, rng):
            lessons.append(1)
            lesson = learn(self, policy, memory, demands, rng)
            if len(lessons) == 4:
                raise KeyboardInterrupt
            return lesson

        monkeypatch.setattr(kind, "learn", cut)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "s", sampler=make)
        same(undisturbed, run(tmp_path / "s", sampler=make))

    def test_lost_policy_files_do_not_end_a_campaign(self, tmp_path):
        run(tmp_path / "s", 20, sampler=MaxEnt)
        shutil.rmtree(tmp_path / "s" / "policy")
        ds = run(tmp_path / "s", sampler=MaxEnt)
        assert set(ds.policy_version.values[20:]) <= versions_kept(tmp_path / "s")
        assert ds.policy_version[20] > ds.policy_version[:20].max()

    def test_a_damaged_newest_version_is_told_and_passed_over(self, tmp_path):
        run(tmp_path / "s", 20, sampler=MaxEnt)
        newest = max((tmp_path / "s" / "policy").glob("*.npz"))
        newest.chmod(0o644)
        newest.write_bytes(newest.read_bytes()[:100])
        with pytest.warns(UserWarning, match="new version: .*not a"):
            ds = run(tmp_path / "s", sampler=MaxEnt)
        assert (ds.fate == "ok").all()


class TestSmallFeasiblePart:
    def test_one_point_in_five_hundred_will_do(self):
        space = erl.Space(x=erl.Real(0.0, 1.0), y=erl.Real(0.0, 1.0), constraints=["x + y <= 0.06"])
        ds = erl.explore(
            lambda x, y: x, space, erl.Minimize(), n_members=30, cluster="serial", seed=1
        )
        assert (ds.x + ds.y <= 0.06).all()
        assert ds.note_rejected.max() > 100

    def test_no_points_are_no_points(self):
        space = erl.Space(x=erl.Real(0.0, 1.0), constraints=["x <= 0.5"])
        assert len(MaxEnt(space.cube).ask(0, np.random.default_rng(0))) == 0


class TestExtending:
    def test_the_temperature_rises_with_the_total(self, tmp_path):
        heard, risen = [], []

        class Listening(MaxEnt):
            def heed(self, demands):
                heard.append(demands.temperature)
                super().heed(demands)

        campaign = prepared(tmp_path / "s", sampler=Listening)
        with campaign:
            for settled in campaign.turns():
                if settled == [15]:
                    before = heard[-1]
                    campaign.n_members = 400
                if settled == [17]:
                    risen.append(heard[-1])
                    assert heard[-1] > 4 * before
                    campaign.stop()
        assert risen
        lived = list(heard)
        heard.clear()
        # under another name, so that there is no checkpoint for it
        campaign = prepared(tmp_path / "s", 400, sampler=lambda cube: Listening(cube, name="other"))
        campaign.close()
        assert heard == lived


def test_stopping_at_every_turn_is_stopping_once(tmp_path):
    campaign = prepared(
        tmp_path / "s", cluster=erl.Simulated(4), watch=lambda campaign: campaign.stop()
    )
    campaign.run()
    assert 0 < campaign.ledger.n_settled <= 20


class TestGuests:
    def test_a_learner_that_we_do_not_know_learns_a_mixture(self):
        class Guest:
            name = "guest"

            def __init__(self):
                self.inner = MPO()

            def learn(self, policy, memory, demands, rng):
                assert isinstance(policy, Fitted)
                return self.inner.learn(policy, memory, demands, rng)

            def state_dict(self):
                return {}

            def load_state_dict(self, state):
                pass

            def describe(self):
                return {"learner": "Guest"}

        one = run(sampler=lambda cube: MaxEnt(cube, learner=Guest()))
        same(one, run(sampler=MaxEnt))

    def test_its_name_is_its_own(self):
        agent = MaxEnt(SPACE.cube, policy=TokenPolicy, name="bob")
        assert agent.describe()["name"] == "bob"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"temperature": -1.0}, "temperature: wanted a number >= 0, got -1.0"),
        ({"temperature": float("nan")}, "temperature: wanted"),
        ({"prior_share": 0.7, "wide_share": 0.7}, "prior_share, wide_share: wanted shares"),
    ],
)
def test_demands_that_cannot_be_met_are_refused(change, error):
    with pytest.raises(ValueError, match=error):
        Demands(**change)


def test_covering_keeps_more_members_a_step():
    cube, game = SPACE.cube, Rehearsal(3, 0)
    number = game.launch(Uniform(cube).ask(600, np.random.default_rng(0)), "u")
    memory = Replay(1, 3)
    memory.add(game.members(number), game.results(number))
    demands = Demands(temperature=0.0, ranked=True)
    ess = [
        MPO().learn(MixturePolicy(cube), memory, d, np.random.default_rng(0)).metrics["ess"]
        for d in (demands, replace(demands, covering=True))
    ]
    assert ess[1] > 3 * ess[0]
