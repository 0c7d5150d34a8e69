"""The agent as a sampler of Optuna's: Optuna's own suite, and what a study makes of it."""

import pickle
from typing import ClassVar

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import TrialState

from ensemblerl.agents.maxent import MaxEnt
from ensemblerl.integrations import optuna as integration
from ensemblerl.integrations.axes import Axes
from ensemblerl.integrations.optuna import MaxEntSampler
from ensemblerl.records import Proposals

# MultiObjectiveSamplerTestCase does not apply: several objectives are refused, as
# SingleOnlySamplerTestCase wants it.


class Ours:
    @pytest.fixture
    def sampler(self):
        return MaxEntSampler


class TestBasic(Ours, BasicSamplerTestCase):
    pass


class TestRelative(Ours, RelativeSamplerTestCase):
    pass


class TestSingleOnly(Ours, SingleOnlySamplerTestCase):
    pass


@pytest.fixture(autouse=True)
def _quiet():
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(level)


AXES = {
    "float": FloatDistribution(-3.0, 5.0),
    "log float": FloatDistribution(1e-7, 10.0, log=True),
    "stepped float": FloatDistribution(-0.3, 0.6, step=0.1),
    "int": IntDistribution(-4, 9),
    "log int": IntDistribution(1, 100, log=True),
    "stepped int": IntDistribution(3, 30, step=3),
    "choice": CategoricalDistribution(("a", None, 3, True, 2.5)),
}


def two_floats(trial):
    x, y = trial.suggest_float("x", -5, 5), trial.suggest_float("y", 1e-3, 10, log=True)
    return (x - 2) ** 2 + (np.log10(y) + 1) ** 2


class Recorder:
    """A sampler that remembers what it is told, and draws 0.25 with a note."""

    name, has_density, order_free = "recorder", False, True
    made: ClassVar[list] = []

    def __init__(self, cube):
        self.cube, self.told = cube, []
        Recorder.made.append(self)

    def ask(self, n, rng, context=None):
        return Proposals(np.full((n, self.cube.ndim), 0.25), {"mark": np.full(n, 7.5)})

    def tell(self, members, results):
        noted = members.notes.get("mark", np.full(1, np.nan))
        told = int(members.number[0]), str(results.fate[0]), float(results.reward[0])
        self.told.append((*told, members.unit[0].tolist(), float(noted[0])))
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def describe(self):
        return {}


@pytest.fixture
def recorded():
    """A study whose sampler records; ``told`` gives what its newest sampler was told."""
    Recorder.made = []

    def study(**options):
        return optuna.create_study(sampler=MaxEntSampler(seed=0, agent=Recorder), **options)

    return study


def told_next(study, space, ndim):
    """What has been told when the next trial has been asked for."""
    study.ask(space)
    (one,) = (sampler for sampler in Recorder.made if sampler.cube.ndim == ndim)
    return one.told


class TestAxes:
    @pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
    def test_values_lie_inside_and_come_back(self, axis):
        axes = Axes({"x": axis})
        for u in [1e-12, *np.linspace(0.01, 0.99, 60), 1 - 1e-12]:
            value = axes.values(np.array([u]))["x"]
            assert axis._contains(axis.to_internal_repr(value))
            again = axes.unit({"x": value})
            assert type(axes.values(again)["x"]) is type(value)
            if isinstance(axis, FloatDistribution) and axis.step is None:
                np.testing.assert_allclose(again, u, atol=1e-9)
            else:
                assert axes.values(again)["x"] == value

    @pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
    def test_they_are_uniform_where_optuna_is(self, axis):
        rng = np.random.default_rng(0)
        axes = Axes({"x": axis})
        ours = [axes.values(u)["x"] for u in rng.random((3000, 1))]
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        theirs = [study.ask({"x": axis}).params["x"] for _ in range(3000)]
        inner = [[axis.to_internal_repr(value) for value in values] for values in (ours, theirs)]
        one, two = (np.sort(np.round(values, 9)) for values in inner)
        grid = np.unique(np.concatenate([one, two]))
        gap = np.abs(
            np.searchsorted(one, grid, side="right") - np.searchsorted(two, grid, side="right")
        )
        assert gap.max() / 3000 < 0.05  # Kolmogorov and Smirnov: once in 1000

    @pytest.mark.parametrize(
        ("axis", "value"),
        [
            (FloatDistribution(0, 1), 1.5),
            (FloatDistribution(0, 1), "a"),
            (IntDistribution(0, 4), 7),
            (IntDistribution(0, 4, step=2), 3),
            (CategoricalDistribution(("a", "b")), "c"),
        ],
    )
    def test_values_of_another_range_are_no_points(self, axis, value):
        assert Axes({"x": axis}).unit({"x": value}) is None
        assert Axes({"x": axis}).unit({}) is None

    def test_steps_are_decimals(self):
        axes = Axes({"x": FloatDistribution(0.0, 1.0, step=0.1)})
        got = {axes.values(np.array([u]))["x"] for u in np.linspace(0.01, 0.99, 100)}
        assert got == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0}


SPACE = {"x": FloatDistribution(0.0, 10.0), "y": FloatDistribution(0.0, 10.0)}


class TestTelling:
    @pytest.mark.parametrize(("direction", "sign"), [("minimize", -1), ("maximize", 1)])
    def test_rewards_are_larger_where_the_study_is_better(self, recorded, direction, sign):
        study = recorded(direction=direction)
        study.tell(study.ask(SPACE), 3.0)
        study.tell(study.ask(SPACE), 5.0)
        told = told_next(study, SPACE, 2)
        assert [row[2] for row in told] == [sign * 3.0, sign * 5.0]

    def test_what_it_noted_comes_back_with_the_trial(self, recorded):
        study = recorded()
        study.tell(study.ask(SPACE), 3.0)  # drawn alone, each by itself
        study.tell(study.ask(SPACE), 5.0)  # drawn together
        one, two = told_next(study, SPACE, 2)
        assert one[3:] == ([0.25, 0.25], pytest.approx(np.nan, nan_ok=True))
        assert two[3:] == ([0.25, 0.25], 7.5)

    def test_a_point_that_was_fixed_by_somebody_has_no_notes(self, recorded):
        study = recorded()
        study.tell(study.ask(SPACE), 3.0)
        study.enqueue_trial({"x": 9.0})
        study.tell(study.ask(SPACE), 5.0)
        number, _, _, unit, mark = told_next(study, SPACE, 2)[-1]
        assert number == 1
        np.testing.assert_allclose(unit, [0.9, 0.25])
        assert np.isnan(mark)

    def test_failed_and_pruned_trials_have_failed(self, recorded):
        study = recorded()
        study.tell(study.ask(SPACE), 3.0)
        study.tell(study.ask(SPACE), state=TrialState.FAIL)
        trial = study.ask(SPACE)
        trial.report(1.0, 0)
        study.tell(trial, state=TrialState.PRUNED)
        told = told_next(study, SPACE, 2)
        assert [row[1] for row in told if row[1] != "pending"] == ["ok", "failed", "failed"]

    def test_infinite_values_are_the_worst_or_the_best(self, recorded):
        study = recorded()
        for value in (3.0, float("inf"), -float("inf")):
            study.tell(study.ask(SPACE), value)
        one, two, three = (row[2] for row in told_next(study, SPACE, 2))
        assert two < one < three
        assert np.isfinite([two, three]).all()

    def test_running_trials_are_pending_and_told_once_more_when_over(self, recorded):
        study = recorded()
        study.tell(study.ask(SPACE), 3.0)
        running = study.ask(SPACE)
        for _ in range(2):
            told = told_next(study, SPACE, 2)
        assert [row[:2] for row in told if row[0] == 1] == [(1, "pending")]
        study.tell(running, 4.0)
        told = told_next(study, SPACE, 2)
        assert [row[:2] for row in told if row[0] == 1] == [(1, "pending"), (1, "ok")]

    def test_trials_without_these_parameters_are_not_told(self, recorded):
        study = recorded()
        study.tell(study.ask(SPACE), 3.0)
        study.tell(study.ask({"x": SPACE["x"]}), 4.0)
        study.ask(SPACE)
        alone = [sampler for sampler in Recorder.made if sampler.cube.ndim == 1]
        assert [row[0] for row in alone[1].told if row[1] == "ok"] == [0]  # y
        assert {row[0] for sampler in alone for row in sampler.told if row[1] == "ok"} == {0, 1}

    def test_trials_of_a_wider_range_count_where_they_lie_inside(self, recorded):
        study = recorded()
        wide, narrow = ({"x": FloatDistribution(0.0, high)} for high in (20.0, 10.0))
        for value in (19.0, 5.0):
            study.enqueue_trial({"x": value})
            study.tell(study.ask(wide), value)
        trial = study._storage.get_trial(study.ask()._trial_id)
        study.sampler.sample_relative(study, trial, narrow)
        told = Recorder.made[-1].told
        assert [(row[0], row[3]) for row in told] == [(1, [0.5])]


class TestStudies:
    def test_it_beats_chance(self):
        def best(sampler):
            study = optuna.create_study(sampler=sampler)
            study.optimize(two_floats, n_trials=80)
            return study.best_value

        seeds = range(3)
        ours = [best(MaxEntSampler(seed=seed)) for seed in seeds]
        chance = [best(optuna.samplers.RandomSampler(seed=seed)) for seed in seeds]
        assert np.median(ours) < 0.3 * np.median(chance)

    def test_categories_and_parameters_that_apply_sometimes(self):
        def objective(trial):
            kind = trial.suggest_categorical("kind", ["a", "b", "c"])
            if kind == "b":
                return abs(trial.suggest_int("n", 1, 1000, log=True) - 30) / 30
            return 2 + trial.suggest_float("x", 0, 1)

        best, late = [], []
        for seed in range(1, 4):  # one may stay with the kinds that look better at first
            study = optuna.create_study(sampler=MaxEntSampler(seed=seed))
            study.optimize(objective, n_trials=80)
            best.append(study.best_value)
            late.append([trial.params["kind"] for trial in study.trials[-30:]].count("b"))
        assert np.median(best) < 0.2
        assert np.median(late) > 15

    def test_the_same_seed_gives_the_same_trials(self):
        def points(seed):
            study = optuna.create_study(sampler=MaxEntSampler(seed=seed))
            study.optimize(two_floats, n_trials=20)
            return [trial.params for trial in study.trials]

        assert points(5) == points(5)
        assert points(5)[0] != points(6)[0]

    def test_another_process_knows_what_this_one_knows(self, tmp_path):
        url = f"sqlite:///{tmp_path / 'study.db'}"
        made = []

        def agent(cube):
            made.append(MaxEnt(cube, learning="inline"))
            return made[-1]

        study = optuna.create_study(
            storage=url, study_name="s", sampler=MaxEntSampler(seed=1, agent=agent)
        )
        study.optimize(two_floats, n_trials=25)
        axes = study.trials[-1].distributions
        study.ask(axes)
        (one,) = (agent for agent in made if agent.cube.ndim == 2)
        made.clear()
        again = optuna.load_study(
            storage=url, study_name="s", sampler=MaxEntSampler(seed=1, agent=agent)
        )
        again.ask(axes)
        (two,) = made
        assert one._mind.version == two._mind.version > 0
        unit = np.random.default_rng(0).random((20, 2))
        np.testing.assert_array_equal(one.log_density(unit), two.log_density(unit))

    def test_a_sampler_may_serve_several_studies(self):
        sampler = MaxEntSampler(seed=1, agent=Recorder)
        Recorder.made = []
        for value in (1.0, 2.0):
            study = optuna.create_study(sampler=sampler)
            space = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
            study.tell(study.ask(space), value)
            study.ask(space)
            assert [row[2] for row in Recorder.made[-1].told] == [-value]

    def test_few_search_spaces_are_remembered(self, monkeypatch):
        monkeypatch.setattr(integration, "MOST", 3)
        sampler = MaxEntSampler(seed=1)
        study = optuna.create_study(sampler=sampler)
        study.ask({f"p{i}": FloatDistribution(0, 1) for i in range(9)})
        assert len(sampler._students) == 3

    def test_it_survives_pickling_and_goes_on(self):
        sampler = MaxEntSampler(seed=1)
        study = optuna.create_study(sampler=sampler)
        study.optimize(two_floats, n_trials=12)
        study.sampler = pickle.loads(pickle.dumps(sampler))
        study.optimize(two_floats, n_trials=3)
        assert len(study.trials) == 15

    def test_reseeding_parts_copies(self):
        one, two = (MaxEntSampler(seed=1) for _ in range(2))
        two.reseed_rng()
        draws = [
            optuna.create_study(sampler=sampler).ask({"x": AXES["float"]}).params["x"]
            for sampler in (one, two)
        ]
        assert draws[0] != draws[1]

    @pytest.mark.parametrize("options", [{"seed": -1}, {"seed": "a"}, {"seed": True}])
    def test_a_wrong_seed(self, options):
        with pytest.raises(ValueError, match="seed: wanted a whole number >= 0 or None"):
            MaxEntSampler(**options)

    def test_a_wrong_agent(self):
        with pytest.raises(TypeError, match="agent: wanted a callable of the cube or None"):
            MaxEntSampler(agent="tokens")
