"""Warm starts in whole campaigns: they help, they ruin nothing, and a resume needs no source."""

import json
import shutil
import warnings

import numpy as np
import pytest
import xarray as xr

import ensemblerl as erl
from ensemblerl.agents.critics.picking import Known
from ensemblerl.agents.maxent import MaxEnt
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.agents.warming import warmed
from ensemblerl.policyfile import load
from ensemblerl.records import Demands, Hints
from ensemblerl.testing.cubes import conditional_cube, real_cube

SPACE = erl.Space(
    x=erl.Real(-5.0, 5.0), y=erl.Real(-5.0, 5.0), z=erl.Real(-5.0, 5.0), kind=erl.Choice("a", "b")
)
BEST = {"x": 2.1, "y": -1.3, "z": 3.2, "kind": "a"}
GOOD = erl.Guess(
    {"x": 2.4, "y": -1.6, "z": 2.8, "kind": "a"}, spread={"x": 0.5, "y": 0.5, "z": 0.5}
)
BAD = erl.Guess(
    {"x": -4.6, "y": 4.6, "z": -4.6, "kind": "b"}, spread={"x": 0.3, "y": 0.3, "z": 0.3}
)
TIMES = {"launch_time", "start_time", "end_time", "runtime", "worker"}


def simulate(x, y, z, kind):
    return abs(x - 2.1) + abs(y + 1.3) + abs(z - 3.2) + 2.0 * (kind == "b")


def run(store=None, n_members=40, **options):
    options = {"cluster": "serial", "seed": 3, "progress": False} | options
    return erl.explore(
        simulate, SPACE, erl.Minimize("value"), n_members=n_members, store=store, **options
    ).load()


def same(one, two):
    xr.testing.assert_identical(
        one.drop_vars(TIMES).drop_attrs(), two.drop_vars(TIMES).drop_attrs()
    )


def rng(seed=0):
    return np.random.default_rng(seed)


def near(cube, centre, n=64, sd=0.05, worth=40.0):
    """Hints about one place, and that place to run first."""
    unit = np.clip(centre + sd * rng(1).standard_normal((n, cube.ndim)), 0.01, 0.99)
    first = np.full((1, cube.ndim), centre)
    return Hints(cube.canonical(unit), np.full(n, worth / n), cube.canonical(first))


@pytest.fixture(scope="module")
def policies():
    return {
        "mixture": MixturePolicy(real_cube(3)),
        "tokens": TokenPolicy(real_cube(3), hidden=8, digits=2),
        "conditional": MixturePolicy(conditional_cube()),
    }


class TestPolicies:
    @pytest.mark.parametrize("which", ["mixture", "tokens", "conditional"])
    def test_hints_become_more_likely_and_the_prior_stays_possible(self, policies, which):
        policy = policies[which]
        hints = near(policy.cube, 0.8)
        new = warmed(policy, hints)
        gain = new.log_prob(hints.unit) - policy.log_prob(hints.unit)
        assert gain.mean() > (0.1 if which == "tokens" else 0.5)
        elsewhere = policy.cube.canonical(rng(2).random((200, policy.cube.ndim)))
        assert np.isfinite(new.log_prob(elsewhere)).all()
        again = warmed(policy, hints)
        for name, array in new.weights.items():
            np.testing.assert_array_equal(array, again.weights[name])

    def test_of_unknown_coordinates_nothing_is_learnt(self, policies):
        hints = near(policies["mixture"].cube, 0.8)
        hints.unit[:, 1] = np.nan
        drawn = warmed(policies["mixture"], hints).sample(20_000, None, rng())
        assert drawn[:, 0].mean() > 0.65
        # of 20,000 draws the mean of a uniform one has a standard error of 0.002; that of the
        # 1024 places filled in, at four fifths of the weight, is 0.007
        assert drawn[:, 1].mean() == pytest.approx(0.5, abs=0.04)
        assert drawn[:, 1].std() == pytest.approx(12**-0.5, abs=0.03)

    def test_hints_without_weight_change_nothing(self, policies):
        hints = near(policies["mixture"].cube, 0.8, worth=0.0)
        assert warmed(policies["mixture"], hints) is policies["mixture"]


class TestTheFirstAsks:
    def agent(self, **options):
        agent = MaxEnt(real_cube(3), **options)
        agent.warm(near(agent.cube, 0.8))
        agent.heed(Demands(ranked=True, picked_share=options.get("share", 0.8)))
        return agent

    def test_they_try_the_first_points_which_have_no_density(self):
        notes = (asked := self.agent().ask(20, rng())).notes
        rows = np.flatnonzero(notes["critic"] == "warm")
        assert len(rows) == 1
        np.testing.assert_array_equal(asked.unit[rows], [[0.8, 0.8, 0.8]])
        np.testing.assert_array_equal(np.isnan(notes["log_prob"]), notes["critic"] == "warm")

    def test_who_may_not_pick_does_not_try_them(self):
        asked = self.agent(picked=0.0).ask(20, rng())
        assert np.isfinite(asked.notes["log_prob"]).all()
        assert asked.unit.mean() > 0.6  # the policy is moved all the same

    def test_goals_that_forbid_picks_are_respected(self):
        agent = MaxEnt(real_cube(3))
        agent.warm(near(agent.cube, 0.8))
        agent.heed(Demands(temperature=1.0))
        assert np.isfinite(agent.ask(20, rng()).notes["log_prob"]).all()

    def test_another_campaign_knows_nothing_of_them(self):
        agent = self.agent()
        agent.ask(5, rng())
        agent.warm(None)
        assert np.abs(agent.ask(5, rng()).notes["log_prob"]).max() == 0.0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("warm") / "whole"
    run(path, warm_start=GOOD)
    return path


class TestResume:
    def test_version_0_is_the_warmed_policy_and_densities_are_exact(self, undisturbed):
        snapshot = load(undisturbed / "policy" / "000000.npz")
        policy = MixturePolicy(SPACE.cube).with_weights(snapshot.weights)
        assert policy.log_prob(SPACE.unit_of(BEST)[None])[0] > 1.0
        ds = erl.open(undisturbed)
        assert (ds.note_critic.values == "warm").sum() == 1
        assert np.isnan(ds.log_prob.values[ds.note_critic.values == "warm"]).all()

    def test_the_provenance_says_where_they_came_from(self, undisturbed):
        kept = json.loads((undisturbed / "campaign.json").read_text())["warm_start"]
        assert kept["kind"] == "guess"
        assert kept["source"] == GOOD.point
        assert {"rows", "used", "left_out", "checksum", "parameters"} <= kept.keys()

    @pytest.mark.parametrize("again", [None, GOOD], ids=["left out", "said again"])
    @pytest.mark.parametrize("n", [2, 17])
    def test_it_goes_on_bit_for_bit(self, undisturbed, tmp_path, n, again):
        def watch(ledger):
            return len(ledger) >= n

        run(tmp_path / "s", warm_start=GOOD, stop=watch)
        assert len(erl.open(tmp_path / "s").member) == n
        same(run(tmp_path / "s", warm_start=again), erl.open(undisturbed))

    def test_also_without_the_checkpoint(self, undisturbed, tmp_path):
        lines = (undisturbed / "ledger.jsonl").read_bytes().splitlines(keepends=True)
        for cut in (2, len(lines) // 2):
            path = tmp_path / str(cut)
            shutil.copytree(undisturbed, path)
            for name in ("checkpoint.npz", "compacted.json", "zarr.json"):
                (path / name).unlink()
            (path / "ledger.jsonl").write_bytes(b"".join(lines[:cut]))
            same(run(path), erl.open(undisturbed))

    def test_the_source_may_be_gone(self, tmp_path):
        run(tmp_path / "old", 20, sampler="sobol")
        run(tmp_path / "new", 8, warm_start=tmp_path / "old")
        shutil.rmtree(tmp_path / "old")
        assert run(tmp_path / "new", 12, warm_start=tmp_path / "old").sizes["member"] == 12

    def test_another_one_is_refused(self, undisturbed, tmp_path):
        with pytest.raises(erl.Mismatch, match=r"warm_start: .* was begun with guess"):
            run(undisturbed, 50, warm_start=BAD)
        run(tmp_path / "cold", 4, sampler="sobol")
        with pytest.raises(erl.Mismatch, match=r"warm_start: .* was begun without one"):
            run(tmp_path / "cold", 8, warm_start=GOOD)

    def test_a_fork_begins_without_it(self, undisturbed, tmp_path):
        erl.fork(undisturbed, tmp_path / "s")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert run(tmp_path / "s", 44).sizes["member"] == 44

    def test_what_does_not_fit_leaves_no_store(self, tmp_path):
        with pytest.raises(ValueError, match="warm_start: the guess has q"):
            run(tmp_path / "s", warm_start=erl.Guess({"q": 1.0}))
        with pytest.raises(ValueError, match="warm_start: wanted a sampler"):
            run(tmp_path / "s", warm_start=GOOD, sampler="sobol")
        assert not (tmp_path / "s").exists()


class TestElsewhere:
    def test_learning_in_the_background_begins_with_it(self, undisturbed, tmp_path):
        def agent(cube):
            return MaxEnt(cube, learning="background")

        ds = run(tmp_path / "s", 12, sampler=agent, warm_start=GOOD)
        assert (ds.note_critic.values == "warm").sum() == 1
        files = [path / "policy" / "000000.npz" for path in (tmp_path / "s", undisturbed)]
        one, two = (load(file).weights for file in files)
        for name, array in one.items():
            np.testing.assert_array_equal(array, two[name])

    def test_launch_takes_it_too_and_extends(self, tmp_path):
        goal, options = erl.Minimize("value"), {"cluster": "serial", "seed": 1, "progress": False}
        path = tmp_path / "s"
        handle = erl.launch(
            simulate, SPACE, goal, n_members=4, store=path, warm_start=GOOD, **options
        )
        handle.wait(60)
        handle.extend(4)
        assert handle.wait(60).sizes["member"] == 8

    def test_nothing_of_an_earlier_store_is_in_the_new_one(self, tmp_path):
        old = run(tmp_path / "old", 20, sampler="sobol", seed=8)
        new = run(tmp_path / "new", 12, warm_start=tmp_path / "old")
        assert new.sizes["member"] == 12
        assert new.value.values.tolist() == [
            simulate(*(row[n].item() for n in SPACE.names)) for row in rows_of(new)
        ]
        best = float(new.erl.answer().best_value)
        assert best == new.value.values.min()
        unit = SPACE.to_unit({name: old[name].values for name in SPACE.names})
        known = Known(SPACE.cube)
        known.add(unit)
        again = ~known.new(SPACE.to_unit({name: new[name].values for name in SPACE.names}))
        tried = new.note_critic.values == "warm"
        assert (again <= tried).all()  # only what was worth running once more


def rows_of(ds):
    return [{name: ds[name].values[i] for name in SPACE.names} for i in range(ds.sizes["member"])]


@pytest.fixture(scope="module")
def best():
    """Name -> (seeds, members) best value so far, of the default."""
    out = {}
    for name, hint in (("none", None), ("good", GOOD), ("bad", BAD)):
        runs = [run(n_members=45, seed=seed, warm_start=hint).value.values for seed in range(4)]
        out[name] = np.minimum.accumulate(runs, axis=1)
    return out


class TestWorth:
    """Medians over seeds of the best value, after so many members."""

    def test_a_good_one_helps_after_few_members(self, best):
        after = {name: float(np.median(values[:, 7])) for name, values in best.items()}
        assert after["good"] <= 1.1  # the guess itself is 1.0 away
        assert after["none"] > 2.0 * after["good"]

    def test_a_bad_one_ruins_nothing(self, best):
        after = {name: float(np.median(values[:, -1])) for name, values in best.items()}
        rest = [run(n_members=45, seed=s, sampler="uniform").value.values.min() for s in range(4)]
        assert after["bad"] < 0.5 * float(np.median(rest))
        # three standard errors of the difference of two medians
        spread = [best[name][:, -1].var(ddof=1) / len(best[name]) for name in ("none", "bad")]
        assert after["bad"] < after["none"] + 3.0 * 1.2533 * np.sqrt(sum(spread))
