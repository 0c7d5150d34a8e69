"""The agent: the laws of a sampler, and of one that learns, in whole campaigns."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ensemblerl as erl
from ensemblerl.agents.learners.guided import Guided
from ensemblerl.agents.learners.mpo import MPO
from ensemblerl.agents.learners.policy_gradient import PolicyGradient
from ensemblerl.agents.learners.trajectory_balance import TrajectoryBalance
from ensemblerl.agents.learners.vtrace import VTrace
from ensemblerl.agents.maxent import MaxEnt
from ensemblerl.agents.policies.defended import Defended
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.events import Launched, Published
from ensemblerl.policyfile import FOLDER
from ensemblerl.problems import mixed
from ensemblerl.protocols import Sampler
from ensemblerl.records import Cube, Demands, Results
from ensemblerl.samplers.portfolio import Portfolio
from ensemblerl.samplers.sobol import Sobol
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.reading import read_events
from ensemblerl.store.telemetry import read_rows
from ensemblerl.testing import check_sampler
from ensemblerl.testing.cubes import (
    conditional_cube,
    constrained_cube,
    example_cubes,
    mixed_cube,
    real_cube,
)
from ensemblerl.testing.rehearsal import Rehearsal, play

CUBES = example_cubes()
LEARNERS = {"balance": TrajectoryBalance, "vtrace": VTrace, "reinforce": PolicyGradient}


def rng(seed=0):
    return np.random.default_rng(seed)


def tokens(cube):
    return TokenPolicy(cube, base=4, digits=2, hidden=8)


def token_agent(cube, learner=None, **options):
    learner = TrajectoryBalance(updates=2, batch=16) if learner is None else learner
    return MaxEnt(cube, policy=tokens, learner=learner, **options)


class TestLaws:
    @pytest.mark.parametrize("name", CUBES)
    def test_the_agent_keeps_the_laws_of_a_sampler(self, name):
        check_sampler(MaxEnt, CUBES[name], n=120)

    @pytest.mark.parametrize("name", ["real, 5-d", "conditional"])
    def test_with_factors_and_few_components(self, name):
        def make(cube):
            return MaxEnt(cube, policy=MixturePolicy(cube, components=2, rank=1))

        check_sampler(make, CUBES[name], n=60)

    @pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
    @pytest.mark.parametrize("name", ["conditional", "constrained"])
    def test_an_agent_of_tokens_keeps_them(self, learner, name):
        def make(cube):
            return token_agent(cube, learner(updates=1, batch=8, rate=0.05), every=12)

        check_sampler(make, CUBES[name], n=48, draws=2000)

    @pytest.mark.parametrize("name", ["mixed", "constrained"])
    def test_in_a_portfolio(self, name):
        def make(cube):
            return Portfolio([MaxEnt(cube), Sobol(cube)], shares=[1, 0], floor=0.1)

        check_sampler(make, CUBES[name], n=60)

    def test_it_has_the_methods_of_one_that_learns(self):
        agent = MaxEnt(real_cube(2))
        assert isinstance(agent, Sampler)
        for hook in ("locate", "heed", "begin", "published", "telemetry", "close"):
            assert callable(getattr(agent, hook))


def played(agent, n, seed=0, demands=None):
    """An agent that was told n members, and what it asked for."""
    game = Rehearsal(agent.cube.ndim, seed)
    if demands is not None:
        agent.heed(demands)
    return game, play(agent, game, rng(seed), n)


class TestVersions:
    def test_the_untrained_policy_is_the_first(self):
        agent = MaxEnt(mixed_cube())
        assert agent.ask(3, rng()).notes["version"].tolist() == [0, 0, 0]
        (first,) = agent.published()
        assert first.version == 0
        assert agent.published() == []
        unit = rng().random((50, 3))
        assert (rebuilt(first, mixed_cube()).log_prob(unit) == 0.0).all()

    @pytest.mark.parametrize("make", [MaxEnt, token_agent], ids=["mixture", "tokens"])
    def test_no_member_carries_one_that_was_not_handed_out(self, make):
        agent, seen = make(conditional_cube()), []

        def check(proposals, size):
            seen.extend(agent.published())
            assert set(agent.ask(2, rng(1)).notes["version"]) <= {s.version for s in seen}

        seen += agent.published()
        game = Rehearsal(4, 0)
        asked = play(agent, game, rng(), 80, check=check)
        seen += agent.published()
        assert [s.version for s in seen] == list(range(len(seen)))
        carried = np.concatenate([p.notes["version"] for p in asked])
        assert (np.diff(carried) >= 0).all()
        assert len(np.unique(carried)) > 3

    def test_other_shares_are_another_version(self):
        agent = MaxEnt(real_cube(2))
        agent.published()
        played(agent, 30)
        before = agent.published()[-1]
        agent.heed(Demands(prior_share=0.5, wide_share=0.2, ranked=True))
        (after,) = agent.published()
        assert after.version == before.version + 1
        assert (after.meta["prior_share"], after.meta["wide_share"]) == (0.5, 0.2)
        asked = agent.ask(40, rng())
        assert (asked.notes["version"] == after.version).all()
        np.testing.assert_allclose(
            asked.notes["log_prob"], rebuilt(after, real_cube(2)).log_prob(asked.unit)
        )
        agent.heed(Demands(prior_share=0.5, wide_share=0.2, temperature=0.7))
        assert agent.published() == []

    def test_shares_known_before_anybody_looked_are_those_of_the_first(self):
        agent = MaxEnt(real_cube(2))
        agent.heed(Demands(prior_share=0.3))
        (first,) = agent.published()
        assert (first.version, first.meta["prior_share"]) == (0, 0.3)

    def test_frozen_it_draws_and_learns_no_more(self):
        agent = MaxEnt(real_cube(2))
        game, _ = played(agent, 30)
        last = agent.published()[-1]
        agent.heed(Demands(prior_share=0.1, ranked=True, frozen=True))
        asked = play(agent, game, rng(1), 60)
        assert agent.published() == []
        assert {int(v) for p in asked for v in p.notes["version"]} == {last.version}
        agent.heed(Demands(prior_share=0.1, ranked=True))
        play(agent, game, rng(2), 8)
        assert agent.published()[0].version == last.version + 1

    def test_lessons_come_further_apart_as_more_is_known(self):
        agent = MaxEnt(real_cube(1), every=4, learner=MPO())
        played(agent, 900)
        rows = agent.telemetry()
        known = np.array([row["n_settled"] for row in rows])
        assert known[:3].tolist() == [4, 8, 12] or (np.diff(known[:10]) >= 4).all()
        assert (np.diff(known) >= np.maximum(4, known[1:] / 64)).all()
        assert np.diff(known[-5:]).min() > 10
        assert [row["version"] for row in rows] == list(range(1, len(rows) + 1))

    def test_begin_again_publishes_what_differs_under_a_number_of_its_own(self):
        agent = MaxEnt(real_cube(2))
        agent.begin(in_process=True, last=None)
        played(agent, 30)
        last = agent.published()[-1]
        same, other = MaxEnt(real_cube(2)), MaxEnt(real_cube(2))
        same.load_state_dict(agent.state_dict())
        same.begin(in_process=True, last=last)
        assert same.published() == []
        assert same.ask(1, rng()).notes["version"] == last.version
        other.begin(in_process=True, last=last)
        (fresh,) = other.published()
        assert fresh.version == last.version + 1
        assert (fresh.weights["mean"] == 0.0).all()
        assert other.ask(1, rng()).notes["version"] == last.version + 1

    def test_telemetry_says_what_a_lesson_saw(self):
        agent = MaxEnt(real_cube(2))
        game, _ = played(agent, 60, demands=Demands(temperature=0.25, prior_share=0.1, ranked=True))
        rows = agent.telemetry()
        assert agent.telemetry() == []
        last = rows[-1]
        assert 0.0 < last["ess"] <= 60
        assert 0.0 <= last["clipped"] <= 1.0
        assert last["temperature"] >= 0.25 * (1 - 1e-12)
        assert last["goal_temperature"] == 0.25
        assert sum(last["lag_counts"]) >= 4
        assert np.isfinite([last[key] for key in ("loss", "entropy", "lag")]).all()
        settled = np.array(sorted(game.settled))
        reward = game.results(settled).reward
        assert max(row["best_reward"] for row in rows) <= np.nanmax(reward)
        json.dumps(rows, allow_nan=True)


def rebuilt(snapshot, cube, make=MixturePolicy):
    """What a version draws from, from its arrays alone."""
    shares = snapshot.meta["prior_share"], snapshot.meta["wide_share"]
    return Defended(make(cube).with_weights(snapshot.weights), *shares)


PROBLEM = mixed.space()


def hill(x, y, kind, seed=0):
    if kind == "c" and x > 0.9:
        raise ArithmeticError("too steep")
    return (x - 0.3) ** 2 + (y - 0.7) ** 2 + {"a": 0.0, "b": 0.1, "c": 0.2}[kind]


SPACE = erl.Space(x=erl.Real(0.0, 1.0), y=erl.Real(0.0, 1.0), kind=erl.Choice("a", "b", "c"))


def campaign(path, sampler=MaxEnt, **options):
    options = {"n_members": 40, "seed": 5, "cluster": "serial"} | options
    sampler = sampler(SPACE.cube) if isinstance(sampler, type) else sampler
    return erl.prepare(hill, SPACE, erl.Minimize(), sampler=sampler, store=path, **options)


def stopped_at(n):
    """A watch that stops the campaign once so many are settled."""

    def watch(campaign):
        if campaign.ledger.n_settled >= n and not campaign.reason:
            campaign.stop()

    return watch


def launched(path):
    """(n, ndim) points, log densities and versions, as they were launched."""
    members = [e.members for e in read_events(Path(path)) if isinstance(e, Launched)]
    columns = [(m.unit, m.notes["log_prob"], m.notes["version"]) for m in members]
    return tuple(np.concatenate(column) for column in zip(*columns, strict=True))


def versions_of(path):
    return [e.version for e in read_events(Path(path)) if isinstance(e, Published)]


def lessons(path):
    """Telemetry, but for when it came."""
    skip = ("time", "n_events")
    return [{k: v for k, v in row.items() if k not in skip} for row in read_rows(Path(path))]


def files(path):
    return {file.name: file.read_bytes() for file in (Path(path) / FOLDER).iterdir()}


def same_campaign(one, two):
    for a, b in zip(launched(one), launched(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert versions_of(one) == versions_of(two)
    assert files(one) == files(two)
    np.testing.assert_equal(lessons(one), lessons(two))


@pytest.fixture(scope="module", params=["mixture", "tokens"])
def kind(request):
    return {"mixture": MaxEnt, "tokens": token_agent}[request.param]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, kind):
    path = tmp_path_factory.mktemp("agent") / "whole"
    campaign(path, kind(SPACE.cube)).run()
    return path


class TestCampaigns:
    def test_versions_are_published_before_the_members_that_carry_them(self, undisturbed):
        known = set()
        for event in read_events(undisturbed):
            if isinstance(event, Published):
                known.add(event.version)
            if isinstance(event, Launched):
                assert set(event.members.notes["version"].tolist()) <= known
        assert len(known) > 5

    def test_the_density_noted_is_that_of_the_snapshot(self, undisturbed, kind):
        unit, log_prob, version = launched(undisturbed)
        store = DirectoryStore.resume(undisturbed)
        make = MixturePolicy if kind is MaxEnt else tokens
        try:
            drawn = np.isfinite(log_prob)
            assert 10 < drawn.sum() < len(drawn)
            for v in np.unique(version[drawn]):
                rows = (version == v) & drawn
                serving = rebuilt(store.snapshot(int(v)), SPACE.cube, make)
                np.testing.assert_allclose(
                    serving.log_prob(unit[rows]), log_prob[rows], rtol=1e-12, atol=1e-12
                )
        finally:
            store.close()
        assert len(np.unique(version)) > 5
        assert np.nanmax(np.abs(log_prob)) > 0.1

    def test_twice_the_same_is_the_same(self, undisturbed, tmp_path, kind):
        campaign(tmp_path / "s", kind(SPACE.cube)).run()
        same_campaign(tmp_path / "s", undisturbed)

    @pytest.mark.parametrize("n", [3, 17, 30])
    def test_from_a_checkpoint_it_goes_on_bit_for_bit(self, undisturbed, tmp_path, kind, n):
        campaign(tmp_path / "s", kind(SPACE.cube), watch=stopped_at(n)).run()
        assert len(launched(tmp_path / "s")[0]) == n
        assert (tmp_path / "s" / "checkpoint.npz").exists()
        campaign(tmp_path / "s", kind(SPACE.cube)).run()
        same_campaign(tmp_path / "s", undisturbed)

    def test_killed_anywhere_it_goes_on_as_if_nothing_had_been(self, undisturbed, tmp_path, kind):
        lines = (undisturbed / "ledger.jsonl").read_bytes().splitlines(keepends=True)
        for cut in range(1, len(lines), len(lines) // (7 if kind is MaxEnt else 3)):
            path = tmp_path / str(cut)
            shutil.copytree(undisturbed, path)
            for name in ("checkpoint.npz", "compacted.json", "zarr.json"):  # these came last
                (path / name).unlink()
            (path / "ledger.jsonl").write_bytes(b"".join(lines[:cut]))
            campaign(path, kind(SPACE.cube)).run()
            same_campaign(path, undisturbed)

    def test_late_results_with_and_without_the_checkpoint(self, tmp_path, kind):
        """In virtual time, with many in flight, out of order, and lost."""

        def simulated():
            return erl.Simulated(7, order="shuffled", seed=2, loss_rate=0.1)

        campaign(tmp_path / "a", kind(SPACE.cube), cluster=simulated(), watch=stopped_at(15)).run()
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        (tmp_path / "b" / "checkpoint.npz").unlink()
        for name in "ab":
            campaign(tmp_path / name, kind(SPACE.cube), cluster=simulated()).run()
        same_campaign(tmp_path / "a", tmp_path / "b")
        assert len(launched(tmp_path / "a")[0]) == 40

    def test_other_seeds_are_other_campaigns(self, undisturbed, tmp_path, kind):
        campaign(tmp_path / "s", kind(SPACE.cube), seed=6).run()
        assert not (launched(tmp_path / "s")[0] == launched(undisturbed)[0]).all(axis=1).any()
        names = files(undisturbed).keys() & files(tmp_path / "s").keys()
        last = max(names)
        assert files(undisturbed)[last] != files(tmp_path / "s")[last]

    def test_a_changed_agent_goes_on_under_new_versions(self, undisturbed, tmp_path, kind):
        if kind is not MaxEnt:
            pytest.skip("one is enough")
        shutil.copytree(undisturbed, tmp_path / "s")
        (tmp_path / "s" / "checkpoint.npz").unlink()
        other = MaxEnt(SPACE.cube, learner=MPO(anchor=50.0))
        before, had = files(undisturbed), versions_of(undisturbed)
        campaign(tmp_path / "s", other, n_members=60).run()
        assert versions_of(tmp_path / "s")[: len(had)] == had
        assert {k: v for k, v in files(tmp_path / "s").items() if k in before} == before
        unit, log_prob, version = launched(tmp_path / "s")
        assert version[40] > had[-1]
        store = DirectoryStore.resume(tmp_path / "s")
        newest = version[np.isfinite(log_prob)][-1]
        assert newest > had[-1]
        serving = rebuilt(store.snapshot(int(newest)), SPACE.cube)
        store.close()
        rows = (version == newest) & np.isfinite(log_prob)
        np.testing.assert_allclose(serving.log_prob(unit[rows]), log_prob[rows], atol=1e-12)

    def test_it_is_the_default(self, tmp_path):
        erl.prepare(
            hill,
            SPACE,
            erl.Minimize(),
            n_members=30,
            seed=1,
            cluster="serial",
            store=tmp_path / "s",
        ).run()
        assert len(versions_of(tmp_path / "s")) > 3
        proposers = set(erl.open(tmp_path / "s").proposer.values.tolist())
        assert proposers <= {"agent", "sobol", "differential_evolution"}
        assert "agent" in proposers


def cliff(x, y):
    if x > 0.4:
        raise ArithmeticError("over the edge")
    return (y - 0.5) ** 2


class TestLearning:
    def test_it_finds_better_points_than_the_prior(self, tmp_path):
        campaign(tmp_path / "s", n_members=150).run()
        value = erl.open(tmp_path / "s").value.values
        early, late = value[:8], value[-60:]  # critics say nothing yet of the first
        better = float(np.nanmean(late < np.nanmedian(early)))
        assert better > 0.5 + 3 * np.sqrt(0.25 / 60)

    def test_it_avoids_where_members_fail(self, tmp_path):
        space = erl.Space(x=erl.Real(0.0, 1.0), y=erl.Real(0.0, 1.0))
        erl.prepare(
            cliff,
            space,
            erl.Minimize(),
            sampler=MaxEnt,
            n_members=180,
            seed=3,
            cluster="serial",
            store=tmp_path / "s",
        ).run()
        failed = erl.open(tmp_path / "s").fate.values != "ok"
        # of the prior's draws 0.6 fail
        assert failed[-80:].mean() < 0.6 - 5 * np.sqrt(0.24 / 80)

    def test_when_all_fail_it_goes_on_drawing_from_the_prior(self, tmp_path):
        space = erl.Space(x=erl.Real(0.5, 1.0), y=erl.Real(0.0, 1.0))
        campaign = erl.prepare(
            cliff,
            space,
            erl.Minimize(),
            sampler=MaxEnt,
            n_members=30,
            seed=3,
            cluster="serial",
            store=tmp_path / "s",
        )
        with pytest.warns(UserWarning, match="none of 30 members is ok"):
            campaign.run()
        assert (launched(tmp_path / "s")[1] == 0.0).all()

    def test_what_others_drew_teaches_it_too(self):
        """Told points of a fixed design, whose density is the prior's."""
        agent = MaxEnt(real_cube(2))
        game = Rehearsal(2, 0)
        number = game.launch(Sobol(real_cube(2)).ask(128, rng()), "sobol")
        members = game.members(number)
        reward = -((members.unit[:, 0] - 0.2) ** 2)
        agent.heed(Demands(temperature=0.05, prior_share=0.1, ranked=True))
        for first in range(0, 128, 8):
            rows = slice(first, first + 8)
            results = Results(reward[rows, None], np.full(8, "ok"), reward[rows])
            agent.tell(members.take(rows), results)
        drawn = agent.ask(400, rng()).unit[:, 0]
        assert np.abs(drawn - 0.2).mean() < 0.2
        assert agent.telemetry()[-1]["lag_counts"] == [0] * 8

    def test_lessons_of_another_campaign_throw_other_dice(self):
        """The same rows, of members of other seeds: a new component is placed elsewhere."""
        last = []
        for seed in (1, 1, 2):
            agent, game = MaxEnt(real_cube(2)), Rehearsal(2, 0)
            number = game.launch(Sobol(real_cube(2)).ask(200, rng()), "sobol")
            members = game.members(number)
            results = Results(members.unit[:, :1], np.full(200, "ok"), members.unit[:, 0].copy())
            agent.heed(Demands(temperature=0.3, prior_share=0.1, ranked=True))
            agent.tell(replace(members, seed=members.seed + seed), results)
            last.append(agent.published()[-1].weights["mean"])
        np.testing.assert_array_equal(last[0], last[1])
        assert not np.array_equal(last[0], last[2])


class TestConstraint:
    def test_infeasible_draws_are_drawn_again_and_counted(self):
        agent = MaxEnt(constrained_cube())
        asked = agent.ask(400, rng())
        assert constrained_cube().feasible(asked.unit).all()
        rejected = asked.notes["rejected"]
        # half of the volume: one draw in vain for each one kept, on average
        assert abs(rejected.mean() - 1.0) < 5 * np.sqrt(2 / 400)
        assert (asked.notes["log_prob"] == 0.0).all()

    def test_without_one_there_is_no_such_note(self):
        assert "rejected" not in MaxEnt(real_cube(2)).ask(3, rng()).notes

    def test_where_nothing_is_feasible_it_says_so(self):
        cube = replace(real_cube(1), feasible=lambda unit: np.zeros(len(unit), bool))
        with pytest.raises(
            ValueError, match=r"agent: the known constraint turned down 10[0-9]* draws in a row"
        ):
            MaxEnt(cube).ask(2, rng())


class TestNotes:
    def test_steps_of_tokens_sum_to_the_density(self):
        agent = token_agent(conditional_cube())
        played(agent, 60)
        asked = agent.ask(50, rng())
        steps = asked.notes["log_prob_steps"]
        assert steps.shape == (50, agent.policy.n_steps)
        np.testing.assert_allclose(steps.sum(axis=1), asked.notes["log_prob"])
        np.testing.assert_allclose(agent.log_density(asked.unit), asked.notes["log_prob"])

    def test_one_step_needs_no_note(self):
        assert set(MaxEnt(real_cube(2)).ask(3, rng()).notes) == {"log_prob", "version"}

    def test_log_density_is_that_of_the_next_draws(self):
        agent = MaxEnt(mixed_cube())
        played(agent, 60)
        asked = agent.ask(50, rng())
        np.testing.assert_array_equal(agent.log_density(asked.unit), asked.notes["log_prob"])
        assert np.abs(asked.notes["log_prob"]).max() > 0


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"learning": "later"}, ValueError, r"learning: wanted one of .*inline.*got 'later'"),
            ({"learning_share": 0.0}, ValueError, r"learning_share: wanted a share in \(0, 1\]"),
            ({"learning_share": 1.5}, ValueError, r"learning_share: .* got 1.5"),
            ({"every": 0}, ValueError, r"every: wanted a whole number >= 1, got 0"),
            ({"every": True}, ValueError, r"every: .* got True"),
            ({"every": 2.5}, ValueError, r"every: .* got 2.5"),
            ({"policy": 3}, TypeError, r"policy: wanted a policy, or a callable .* got int"),
            ({"policy": lambda cube: 3}, TypeError, r"policy: wanted a policy, .* got function"),
            (
                {"policy": MixturePolicy(mixed_cube())},
                ValueError,
                r"policy: wanted one on the agent's cube, got one whose kinds, levels",
            ),
            (
                {"policy": TokenPolicy(real_cube(3))},
                ValueError,
                r"policy: wanted one on the agent's cube",
            ),
            ({"learner": MPO}, TypeError, r"learner: wanted a learner such as MPO\(\), got <class"),
            (
                {"learner": "mpo"},
                TypeError,
                r"learner: wanted a learner such as MPO\(\), got 'mpo'",
            ),
            (
                {"policy": TokenPolicy, "learner": MPO()},
                TypeError,
                r"learner: MPO wants .* got TokenPolicy; TrajectoryBalance",
            ),
            (
                {"learner": TrajectoryBalance()},
                TypeError,
                r"learner: TrajectoryBalance follows a gradient .* got MixturePolicy; MPO\(\)",
            ),
        ],
    )
    def test_bad_ones_are_named(self, options, error, message):
        with pytest.raises(error, match=message):
            MaxEnt(real_cube(2), **options)

    def test_a_policy_of_other_conditions_is_refused(self):
        cube = conditional_cube()
        plain = Cube(cube.kinds, cube.levels, cube.edges)
        with pytest.raises(ValueError, match=r"policy: wanted one on the agent's cube.* parents"):
            MaxEnt(cube, policy=MixturePolicy(plain))

    def test_defaults_go_with_the_policy(self):
        assert isinstance(MaxEnt(real_cube(2)).learner, Guided)
        assert isinstance(MaxEnt(real_cube(2)).learner.learner, MPO)
        assert isinstance(MaxEnt(real_cube(2), critics=False).learner, MPO)
        assert isinstance(MaxEnt(real_cube(2)).policy, MixturePolicy)
        tokens = MaxEnt(real_cube(2), policy=TokenPolicy)
        assert isinstance(tokens.learner.learner, TrajectoryBalance)

    def test_it_says_what_it_is(self):
        agent = MaxEnt(real_cube(2), every=7, name="me")
        described = json.loads(json.dumps(agent.describe()))
        assert described["sampler"] == "MaxEnt"
        assert described["policy"] == agent.policy.describe()
        assert described["learner"] == agent.learner.describe()
        assert (described["every"], described["name"]) == (7, "me")
        assert "name='me'" in repr(agent)
