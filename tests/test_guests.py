"""Samplers of other packages in our campaigns: `Cma` and `FromOptuna`."""

import logging
import subprocess
import sys
import warnings

import numpy as np
import optuna
import pytest
import xarray as xr
from optuna.trial import TrialState

import ensemblerl as erl
from ensemblerl.records import Cube, Results
from ensemblerl.samplers import Cma, FromOptuna, Portfolio, Sobol, rejection
from ensemblerl.samplers import from_optuna as from_optuna_module
from ensemblerl.samplers.cma import _Row, losses
from ensemblerl.samplers.evolution import Evolution, Plan
from ensemblerl.samplers.trials import quietly, random_sources
from ensemblerl.testing import check_sampler
from ensemblerl.testing.cubes import conditional_cube, constrained_cube, example_cubes, real_cube
from ensemblerl.testing.rehearsal import numbered

SPACE = erl.Space(x=erl.Real(-1.0, 1.0), y=erl.Real(-1.0, 1.0))
TIMES = {"launch_time", "start_time", "end_time", "runtime", "worker"}
TPE = optuna.samplers.TPESampler
RANDOM = optuna.samplers.RandomSampler
CLUSTERS = {
    "serial": erl.Serial,
    "simulated": lambda: erl.Simulated(8, order="shuffled", seed=2, loss_rate=0.05),
}


def rng(seed=0):
    return np.random.default_rng(seed)


def bowl(x, y):
    return (x - 0.3) ** 2 + 4.0 * (y + 0.9) ** 2 + (x - 0.3) * (y + 0.9)


def run(sampler, store=None, n_members=30, simulate=bowl, space=SPACE, **options):
    options = {"cluster": "serial", "seed": 3, "progress": False} | options
    goal = erl.Minimize("value")
    return erl.explore(
        simulate, space, goal, n_members=n_members, store=store, sampler=sampler, **options
    ).load()


def best(ds):
    return float(ds["value"].min())


def same(one, two):
    xr.testing.assert_identical(
        one.drop_vars(TIMES).drop_attrs(), two.drop_vars(TIMES).drop_attrs()
    )


def rewarded(reward):
    reward = np.asarray(reward, dtype=float)
    fate = np.where(np.isfinite(reward), "ok", "failed")
    return Results(reward[:, None], fate, np.where(fate == "ok", reward, np.nan))


def drive(sampler, reward, n, *, batch=8, seed=0, first=0):
    """n members of a serial campaign: (n,) rewards."""
    got = []
    for number in range(first, first + n, batch):
        members = numbered(sampler.ask(batch, rng([seed, number])), number, sampler.name)
        sampler.tell(members, Results.pending(batch))
        got.append(reward(members.unit))
        sampler.tell(members, rewarded(got[-1]))
    return np.concatenate(got)


def sphere(unit):
    return -((unit - 0.3) ** 2).sum(axis=1)


class TestCma:
    @pytest.mark.parametrize(
        "options", [{}, {"popsize": 4, "restarts": "ipop"}, {"popsize": 30, "restarts": None}]
    )
    def test_laws(self, options):
        check_sampler(lambda cube: Cma(cube, **options))

    @pytest.mark.parametrize("ndim", [1, 2, 6])
    def test_it_converges_on_a_sphere(self, ndim):
        assert drive(Cma(real_cube(ndim)), sphere, 1200).max() > -1e-12

    def test_it_learns_the_axes_of_a_long_valley(self):
        def valley(unit):
            a, b = unit[:, 0] + unit[:, 1] - 1.1, unit[:, 0] - unit[:, 1] - 0.2
            return -(a**2 + 1e4 * b**2)

        assert drive(Cma(real_cube(2)), valley, 1000).max() > -1e-9

    @pytest.mark.parametrize("make_cluster", CLUSTERS.values(), ids=CLUSTERS)
    def test_a_campaign_in_which_results_come_in_any_order(self, make_cluster):
        ds = run(Cma, n_members=400, cluster=make_cluster())
        assert best(ds) < 1e-5
        assert set(ds["proposer"].values) == {"cma"}
        assert np.isnan(ds["log_prob"]).all()

    def test_a_campaign_goes_on_as_if_it_had_not_stopped(self, tmp_path):
        whole = run(Cma, tmp_path / "whole", n_members=90)
        run(Cma, tmp_path / "parts", n_members=40)
        same(run(Cma, tmp_path / "parts", n_members=90), whole)

    def test_without_a_checkpoint_too(self):
        """What is told once more in its order is all that it needs."""
        one, two = Cma(real_cube(3)), Cma(real_cube(3))
        drive(one, sphere, 64)
        state = one.state_dict()
        for i in range(64):
            members = numbered(one.ask(1, rng()), int(state["number"][i]), "cma")
            members.unit[:] = state["unit"][i]
            members.notes["cma_generation"][:] = state["generation"][i]
            two.tell(members, rewarded(state["reward"][i : i + 1]))
        np.testing.assert_array_equal(one.ask(5, rng(1)).unit, two.ask(5, rng(1)).unit)

    def test_the_same_object_serves_another_campaign(self):
        sampler = Cma(SPACE.cube)
        same(run(sampler), run(sampler))

    def test_draws_follow_the_distribution_that_the_package_has(self):
        run = Evolution(Plan(np.array([0.5, 0.4]), 0.05, 6), (0, 0))
        for i in range(12):
            unit = run.draw(6, rng(i))
            a, b = unit[:, 0] + unit[:, 1] - 1.0, unit[:, 0] - unit[:, 1]
            valley = a**2 + 100 * b**2
            run.feed(unit, np.ones((6, 2), bool), valley, np.ones(6, bool))
        drawn = run.draw(40_000, rng(99))
        es = run._es
        wanted = es.sigma**2 * es.sm.C * np.outer(es.sigma_vec.scaling, es.sigma_vec.scaling)
        np.testing.assert_allclose(np.cov(drawn.T), wanted, rtol=0.08, atol=0.02 * wanted.max())
        np.testing.assert_allclose(drawn.mean(axis=0), es.mean, atol=0.02 * wanted.max() ** 0.5)

    def test_a_converged_run_is_followed_by_a_larger_one_elsewhere(self):
        sampler = Cma(real_cube(2), restarts="ipop")
        drive(sampler, sphere, 1500, batch=6)
        assert sampler._now.doublings >= 1
        assert sampler._now.run.popsize == sampler.popsize * 2**sampler._now.doublings

    def test_bipop_spends_as_much_on_small_runs_as_on_large_ones(self):
        sampler = Cma(real_cube(2))
        drive(sampler, sphere, 6000, batch=6)
        assert sampler._now.doublings >= 2
        small, large = sampler._now.spent[True], sampler._now.spent[False]
        assert 0.2 < small / large < 3

    def test_without_restarts_it_draws_on_where_it_is(self):
        sampler = Cma(real_cube(2), restarts=None)
        drive(sampler, sphere, 3000, batch=6)
        assert sampler._now.run.over()
        np.testing.assert_allclose(sampler.ask(50, rng()).unit, 0.3, atol=1e-3)

    def test_failed_members_are_worse_than_the_rest(self):
        rows = [_Row(i, np.zeros(1), r, 1) for i, r in enumerate([-5.0, np.nan, 2.0, -np.inf])]
        loss = losses(rows)
        assert loss[0] == 5.0
        assert loss[2] == -2.0
        assert loss[1] == loss[3] > 5.0
        assert np.isfinite(losses([_Row(0, np.zeros(1), np.nan, 1)])).all()

    def test_it_leaves_a_region_where_members_fail(self):
        def half(unit):
            return np.where(unit[:, 0] > 0.45, np.nan, sphere(unit))

        got = drive(Cma(real_cube(2), restarts=None), half, 600)
        assert np.isnan(got[:16]).mean() > 0.2
        assert np.isnan(got[48:]).mean() < 0.01

    def test_lost_members_tell_nothing(self):
        sampler = Cma(real_cube(2), popsize=4)
        members = numbered(sampler.ask(4, rng()), 0, "cma")
        lost = rewarded([np.nan] * 4)
        lost.fate[:] = "lost"
        sampler.tell(members, lost)
        assert sampler.tell(members, Results.pending(4))["generation"] == 1.0

    def test_of_the_points_of_others_only_better_ones_count(self):
        cube = real_cube(2)
        told = {}
        for name, reward in {"none": None, "worse": -9.0, "better": 9.0}.items():
            sampler = Cma(cube, popsize=4)
            members = numbered(sampler.ask(4, rng()), 0, "cma")
            sampler.tell(members.take([0, 1, 2]), rewarded([-1.0, -2.0, -3.0]))
            other = numbered(Sobol(cube).ask(1, rng()), 10, "sobol")
            if reward is not None:
                sampler.tell(other, rewarded([reward]))
            told[name] = sampler.state_dict()["number"].tolist(), sampler._now.generation
        assert told == {
            "none": ([0, 1, 2], 1),
            "worse": ([0, 1, 2, 10], 1),
            "better": ([0, 1, 2, 10], 2),
        }

    def test_long_steps_of_other_distributions_are_cut(self):
        def moved(fresh):
            run = Evolution(Plan(np.array([0.5, 0.5]), 0.01, 4), (0, 0))
            far = np.array([[0.9, 0.9], [0.9, 0.8], [0.8, 0.9], [0.1, 0.1]])
            run.feed(far, np.ones((4, 2), bool), np.arange(4.0), np.full(4, fresh))
            return float(np.linalg.norm(run._es.mean - 0.5))

        assert moved(True) > 0.3
        assert moved(False) < 0.05

    def test_it_goes_on_trying_the_neighbours_of_a_level(self):
        edges = np.linspace(0.0, 1.0, 11)
        cube = Cube(("ordinal", "real"), (10, 0), (edges, None))
        sampler = Cma(cube, restarts=None)
        drive(sampler, sphere, 800)
        assert len(np.unique(cube.cells(sampler.ask(200, rng()).unit)[:, 0])) > 1

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_nothing_is_learnt_along_coordinates_that_do_not_count(self, seed):
        cube = conditional_cube()
        sampler = Cma(cube, restarts=None)
        drive(sampler, lambda unit: unit[:, 0], 400, seed=seed)
        assert cube.active(sampler.ask(100, rng()).unit)[:, 1].mean() < 0.3
        drawn = sampler._now.run.draw(400, rng())[:, 1]
        assert abs(drawn.mean() - 0.5) > 0.05  # where inactive ones lie
        assert drawn.std() > 0.05

    def test_where_all_around_it_is_infeasible_it_draws_from_everywhere(self, monkeypatch):
        cube = Cube(("real",) * 2, (0, 0), (None, None), feasible=lambda unit: unit[:, 0] < 0.05)
        monkeypatch.setattr(rejection, "PATIENCE", 20)
        sampler = Cma(cube, sigma0=0.001)
        assert (sampler.ask(20, rng()).unit[:, 0] < 0.05).all()

    def test_a_constraint_that_nothing_meets_is_an_error(self):
        cube = Cube(("real",), (0,), (None,), feasible=lambda unit: np.zeros(len(unit), bool))
        with pytest.raises(ValueError, match="cma: the known constraint turned down 100000"):
            Cma(cube).ask(1, rng())

    def test_it_takes_part_in_a_portfolio(self):
        portfolio = Portfolio([Cma(SPACE.cube), Sobol(SPACE.cube)])
        ds = run(portfolio, n_members=200, cluster=erl.Simulated(4))
        counts = dict(zip(*np.unique(ds["proposer"], return_counts=True), strict=True))
        assert min(counts["cma"], counts["sobol"]) > 60
        mine = ds["proposer"] == "cma"
        assert float(ds["value"].where(mine).min()) < 0.1 * float(ds["value"].where(~mine).min())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sigma0": 0.0}, r"sigma0: wanted a number in \(0, 1\], got 0.0"),
            ({"sigma0": "wide"}, "sigma0"),
            ({"popsize": 3}, "popsize: wanted a whole number >= 4 or None, got 3"),
            ({"popsize": 8.5}, "popsize"),
            ({"restarts": "often"}, "restarts: wanted one of"),
        ],
    )
    def test_wrong_arguments(self, options, message):
        with pytest.raises(ValueError, match=message):
            Cma(real_cube(2), **options)

    def test_it_wants_a_cube(self):
        with pytest.raises(TypeError, match=r"cube: wanted a Cube such as space.cube, got Space"):
            Cma(SPACE)

    def test_without_the_package_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "cma", None)
        with pytest.raises(ImportError, match=r"pip install 'ensemblerl\[cma\]'"):
            Cma(real_cube(2))

    def test_it_leaves_the_users_warnings_and_random_numbers_alone(self):
        filters = list(warnings.filters)
        np.random.seed(1)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        drive(Cma(real_cube(2)), sphere, 80)
        assert list(warnings.filters) == filters
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


class TestFromOptuna:
    @pytest.mark.parametrize(
        "make", [RANDOM, TPE, lambda: TPE(constant_liar=True, multivariate=True)]
    )
    def test_laws(self, make):
        check_sampler(lambda cube: FromOptuna(cube, make), n=50)

    def test_laws_but_for_the_restore(self):
        """With a sampler that knows more than the trials all laws hold but the one of a restore."""
        from ensemblerl.testing import sampler_laws as laws

        def make(cube):
            return FromOptuna(cube, optuna.samplers.NSGAIISampler(population_size=8))

        for cube in example_cubes().values():
            laws.points_laws(make, cube, 40, 0)
            laws.same_rng_law(make, cube, 40, 0)

    @pytest.mark.parametrize("make_cluster", CLUSTERS.values(), ids=CLUSTERS)
    def test_a_campaign_with_tpe(self, make_cluster):
        ds = run(lambda cube: FromOptuna(cube, TPE), n_members=100, cluster=make_cluster())
        assert best(ds) < 0.03
        assert set(ds["proposer"].values) == {"optuna"}
        assert np.isnan(ds["log_prob"]).all()

    def test_a_campaign_with_a_gaussian_process(self):
        ds = run(lambda cube: FromOptuna(cube, optuna.samplers.GPSampler), n_members=24)
        assert best(ds) < 0.01

    def test_a_campaign_goes_on_as_if_it_had_not_stopped(self, tmp_path):
        def tpe(cube):
            return FromOptuna(cube, TPE)

        whole = run(tpe, tmp_path / "whole", n_members=60)
        run(tpe, tmp_path / "parts", n_members=35)
        same(run(tpe, tmp_path / "parts", n_members=60), whole)

    def test_the_same_object_serves_another_campaign(self):
        sampler = FromOptuna(SPACE.cube, TPE)
        same(run(sampler), run(sampler))

    def test_members_are_trials(self):
        sampler = FromOptuna(real_cube(2), RANDOM)
        members = numbered(sampler.ask(4, rng()), 0, "optuna")
        sampler.tell(members, Results.pending(4))
        sampler.tell(members.take([2, 0]), rewarded([7.0, np.nan]))
        trials = sampler._trials._study.trials
        states = [TrialState.FAIL, TrialState.RUNNING, TrialState.COMPLETE, TrialState.RUNNING]
        assert [trial.state for trial in trials] == states
        assert sampler._trials._study.best_value == 7.0
        for trial, unit in zip(trials, members.unit, strict=True):
            assert list(trial.params.values()) == unit.tolist()

    def test_the_first_outcome_stays(self):
        sampler = FromOptuna(real_cube(2), RANDOM)
        members = numbered(sampler.ask(1, rng()), 0, "optuna")
        for reward in ([1.0], [5.0]):
            sampler.tell(members, rewarded(reward))
        sampler.tell(members, Results.pending(1))
        assert [trial.value for trial in sampler._trials._study.trials] == [1.0]

    def test_members_of_others_are_added_as_trials(self):
        cube = example_cubes()["mixed"]
        sampler = FromOptuna(cube, TPE)
        members = numbered(Sobol(cube).ask(12, rng()), 0, "sobol")
        sampler.tell(members, Results.pending(12))
        sampler.tell(members.take(slice(0, 8)), rewarded(np.arange(8.0)))
        trials = sampler._trials._study.trials
        assert [trial.value for trial in trials] == [*np.arange(8.0), None, None, None, None]
        cells = cube.cells(members.unit)
        for trial, unit, row in zip(trials, members.unit, cells, strict=True):
            wanted = [u if c < 0 else c for u, c in zip(unit, row, strict=True)]
            assert list(trial.params.values()) == wanted

    def test_only_what_applies_is_suggested(self):
        cube = conditional_cube()
        sampler = FromOptuna(cube, RANDOM)
        members = numbered(sampler.ask(30, rng()), 0, "optuna")
        sampler.tell(members, Results.pending(30))
        trials = sampler._trials._study.trials
        active = cube.active(members.unit)
        assert not active.all()
        assert [len(trial.params) for trial in trials] == active.sum(axis=1).tolist()

    def test_cells_are_hit_in_their_centres(self):
        cube = example_cubes()["mixed"]
        unit = FromOptuna(cube, RANDOM).ask(50, rng()).unit
        for j, edges in enumerate(cube.edges):
            if edges is not None:
                centres = (edges[1:] + edges[:-1]) / 2
                assert set(unit[:, j]) == set(centres[cube.cells(unit)[:, j]])
                assert len(set(unit[:, j])) == cube.levels[j]

    def test_trials_that_break_the_constraint_have_failed(self):
        cube = constrained_cube()
        sampler = FromOptuna(cube, RANDOM)
        sampler.ask(20, rng())
        states = [trial.state for trial in sampler._trials._study.trials]
        assert states.count(TrialState.RUNNING) == 20
        assert TrialState.FAIL in states

    def test_where_trials_keep_breaking_it_points_come_from_everywhere(self, monkeypatch):
        cube = Cube(("real",), (0,), (None,), feasible=lambda unit: unit[:, 0] < 0.01)
        monkeypatch.setattr(from_optuna_module, "TRIES", 2)
        sampler = FromOptuna(cube, RANDOM)
        members = numbered(sampler.ask(5, rng()), 0, "optuna")
        assert (members.unit < 0.01).all()
        sampler.tell(members, rewarded(np.arange(5.0)))
        assert sampler._trials._study.best_value == 4.0

    def test_a_sampler_of_the_users_is_copied(self):
        def points(sampler):
            study = optuna.create_study(sampler=sampler)
            study.optimize(lambda trial: trial.suggest_float("a", 0, 1), n_trials=15)
            return [trial.params["a"] for trial in study.trials]

        mine = TPE(seed=1)
        drive(FromOptuna(real_cube(2), mine), sphere, 24)
        assert points(mine) == points(TPE(seed=1))

    def test_a_sampler_that_serves_a_study_is_refused(self):
        mine = TPE(multivariate=True)
        study = optuna.create_study(sampler=mine)
        study.optimize(lambda trial: trial.suggest_float("a", 0, 1), n_trials=12)
        with pytest.raises(ValueError, match="sampler: wanted one that has served no study"):
            FromOptuna(real_cube(2), mine)

    def test_options_of_a_sampler_are_kept(self):
        def points(sampler):
            guest = FromOptuna(real_cube(2), sampler)
            drive(guest, sphere, 24)
            return guest.ask(200, rng()).unit

        assert np.abs(points(TPE(n_startup_trials=1000)) - 0.5).mean() > 0.23
        assert np.abs(points(TPE(n_startup_trials=1000)).mean() - 0.5) < 0.05
        assert np.abs(points(TPE()).mean() - 0.3) < 0.1

    def test_a_callable_gets_a_seed_where_it_wants_one(self):
        got = []

        def make(seed):
            got.append(seed)
            return TPE(seed=seed)

        FromOptuna(real_cube(2), make)
        assert got == [0]

    def test_every_random_state_is_found(self):
        found = random_sources(TPE())
        assert len(found) == 2
        assert all(isinstance(source, np.random.RandomState) for source in found)

    @pytest.mark.parametrize("wrong", ["tpe", 3, lambda: 3, Sobol(real_cube(2))])
    def test_something_else_is_refused(self, wrong):
        with pytest.raises(TypeError, match="sampler: wanted one of Optuna's samplers"):
            FromOptuna(real_cube(2), wrong)

    def test_it_wants_a_cube(self):
        with pytest.raises(TypeError, match=r"cube: wanted a Cube such as space.cube, got Space"):
            FromOptuna(SPACE, TPE)

    def test_without_the_package_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "optuna", None)
        with pytest.raises(ImportError, match=r"pip install 'ensemblerl\[optuna\]'"):
            FromOptuna(real_cube(2), TPE)

    def test_our_study_is_silent_and_the_users_is_not(self):
        said = []

        class Ear(logging.Handler):
            def emit(self, record):
                said.append(record.getMessage())

        logger, ear = logging.getLogger("optuna"), Ear()
        logger.addHandler(ear)
        before = optuna.logging.get_verbosity()  # other tests may have made it quiet
        optuna.logging.set_verbosity(optuna.logging.INFO)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                drive(FromOptuna(real_cube(2), lambda: TPE(multivariate=True)), sphere, 24)
                assert said == []
                with quietly():
                    logging.getLogger("optuna.study").warning("hidden")
                optuna.create_study()
        finally:
            logger.removeHandler(ear)
            optuna.logging.set_verbosity(before)
        assert len(said) == 1
        assert said[0].startswith("A new study")
        assert ear.filters == []


def test_the_packages_are_loaded_when_they_are_used():
    code = (
        "import sys, ensemblerl.samplers; print([m for m in ('cma', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
