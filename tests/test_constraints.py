"""Constraints on results: what they mean, what they refuse, and campaigns that keep to them."""

import json
import pickle

import numpy as np
import pytest
import xarray as xr

import ensemblerl as erl
from ensemblerl.expressions import comparison
from ensemblerl.goals.constraint import Constraint
from ensemblerl.goals.known import goal_of
from ensemblerl.goals.maximize import Maximize
from ensemblerl.goals.minimize import Minimize
from ensemblerl.store.reading import read_ledger
from ensemblerl.testing import check_goal

EXAMPLES = [
    {"mass": np.array(v), "stress": np.array(s), "h": np.array([v, s])}
    for v, s in ((1.5, 200.0), (-2.0, 250.0), (0.5, 300.0))
]
SPACE = erl.Space(x=erl.Real(0.0, 1.0), y=erl.Real(0.0, 1.0))


class TestOneConstraint:
    @pytest.mark.parametrize(
        ("text", "violation", "holds"),
        [
            ("stress <= 250", -50.0, True),
            ("stress <= 200", 0.0, True),
            ("stress < 200", 0.0, False),
            ("stress < 200.1", -0.1, True),
            ("stress >= 250", 50.0, False),
            ("stress >= 200", 0.0, True),
            ("stress > 200", 0.0, False),
            ("2 * mass + stress >= 3", -200.0, True),
            ("100 * mass > stress", 50.0, False),
            ("max(h) <= stress", 0.0, True),
            ("(mass\n + 1) <= 3", -0.5, True),
        ],
    )
    def test_what_it_says(self, text, violation, holds):
        constraint = Constraint(text)
        assert constraint.violation(EXAMPLES[0]) == pytest.approx(violation)
        assert constraint.holds(np.array([constraint.violation(EXAMPLES[0])])) == [holds]

    def test_the_smallest_difference_counts(self):
        tiny = {"stress": np.nextafter(0.0, -1.0)}
        assert Constraint("stress < 0").violation(tiny) < 0.0
        above = {"stress": np.nextafter(250.0, 300.0)}
        assert Constraint("stress <= 250").violation(above) > 0.0

    def test_what_is_not_known_is_not_kept(self):
        assert not Constraint("stress <= 250").holds(np.array([np.nan])).any()

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            (3, TypeError, "subject_to: wanted a list of texts, got int"),
            ([3], TypeError, "subject_to: wanted one comparison such as 'max_.* <= 250', got int"),
            (["stress"], ValueError, "'stress': wanted one comparison, got none"),
            (["0 < stress < 1"], ValueError, "wanted one comparison, got several put together"),
            (["a < 1 and b < 2"], ValueError, "got several put together"),
            (["not a < 1"], ValueError, "got several put together"),
            (["(a < 1) <= b"], ValueError, "got several put together"),
            (["a in (1, 2)"], ValueError, "wanted a comparison of numbers, got a list or text"),
            (["a <= 'b'"], ValueError, "wanted a comparison of numbers, got a list or text"),
            (["stress == 3"], ValueError, r"got ==; .*'abs\(stress - \(3.*\)\) <= 0.01'"),
            (["stress != 3"], ValueError, "wanted <, <=, > or >=, got !="),
            (["1 <= 2"], ValueError, "wanted a variable of the result, got numbers only"),
            (["__import__('os') < 1"], ValueError, "subject_to: .*a call of something"),
            (["stress <"], ValueError, "subject_to: "),
        ],
    )
    def test_wrong_texts(self, given, error, message):
        with pytest.raises(error, match=message):
            Minimize("mass", subject_to=given)

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            ({"mass": 1.0}, "subject_to 'stress <= 250': wanted variable stress, there are: mass"),
            ({"mass": 1.0, "stress": np.zeros(2)}, r"'stress <= 250': wanted a scalar, got .*2,\)"),
            ({"mass": 1.0, "stress": "much"}, "wanted a real number, got dtype"),
        ],
    )
    def test_wrong_results(self, result, message):
        with pytest.raises(ValueError, match=message):
            Minimize("mass", subject_to="stress <= 250").value(result)

    def test_sides_travel_as_their_text(self):
        left, symbol, right = comparison("2 * a >= b")
        assert (str(left), symbol, str(right)) == ("2 * a", ">=", "b")


class TestGoals:
    @pytest.mark.parametrize("cls", [Minimize, Maximize])
    def test_laws(self, cls):
        goal = cls("mass", subject_to=["stress <= 250", "mean(h) < 120"])
        better = [[1.0, -1.0, -1.0], [2.0, -1.0, -1.0]]
        missed = [0.0, -1.0, 0.0]
        check_goal(
            goal,
            EXAMPLES,
            worst_to_best=[missed, *(better[::-1] if cls is Minimize else better)],
        )

    def test_the_laws_hold_for_datasets(self):
        data = [xr.Dataset({"mass": v, "stress": ("y", [v, 1.0])}) for v in (1.0, 2.0)]
        check_goal(Minimize("mass", subject_to="max(stress) < 2", keep=["mass", "stress"]), data)

    def test_rewards(self):
        goal = Minimize("mass", subject_to=["stress <= 250", "stress > 100"])
        values = np.array([[2.0, -1.0, -1.0], [2.0, 0.0, 0.0], [2.0, 1.0, -1.0], [np.nan] * 3])
        fates = np.array(["ok", "ok", "ok", "failed"])
        np.testing.assert_array_equal(goal.rewards(values, fates), [-2.0, -np.inf, -np.inf, np.nan])

    def test_keep_needs_what_constraints_need(self):
        with pytest.raises(ValueError, match=r"wanted also \['stress'\], which subject_to needs"):
            Minimize("mass", subject_to=["stress <= 250"], keep=["mass"])
        Minimize("mass", subject_to=["stress <= 250"], keep=["stress", "mass"])

    def test_descriptions(self):
        goals = [
            Minimize("mass"),
            Minimize("mass", subject_to=["stress <= 250"]),
            Minimize("mass", subject_to=["stress < 250"]),
            Minimize("mass", subject_to=["stress <= 250", "mass > 0"]),
            Minimize("mass", subject_to=["stress <= 250"], noisy=True),
        ]
        told = [json.dumps(goal.describe()) for goal in goals]
        assert len(set(told)) == len(goals)
        for goal in goals:
            again = goal_of({**json.loads(json.dumps(goal.describe())), "k": goal.k})
            assert repr(again) == repr(goal)
            assert (again.k, again.describe()) == (goal.k, goal.describe())
            assert pickle.loads(pickle.dumps(goal)).describe() == goal.describe()

    def test_a_goal_without_describes_itself_as_it_always_did(self):
        assert Minimize("mass").describe() == {
            "goal": "Minimize",
            "objective": "mass",
            "keep": None,
        }

    def test_one_text_is_a_list_of_one_and_the_same_text_counts_once(self):
        one = Minimize("mass", subject_to=" stress <= 250 ")
        two = Minimize("mass", subject_to=["stress <= 250", "stress <= 250"])
        assert one.describe() == two.describe()
        assert one.k == two.k == 2


def explore(simulate, goal, space=SPACE, **options):
    options = {"n_members": 20, "cluster": "serial", "seed": 1, "progress": False} | options
    return erl.explore(simulate, space, goal, **options)


def beam(x, y):
    if y > 0.95:
        raise RuntimeError("too far")
    return {"mass": x, "stress": 1.0 - x - y, "limit": 3.0}


GOAL = Minimize("mass", subject_to=["stress <= 0", "2 * mass < limit"])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("campaign") / "store"
    explore(beam, GOAL, n_members=40, store=path, sampler="sobol")
    return path


class TestCampaigns:
    def test_the_answer_keeps_to_the_constraints(self, path):
        ds = erl.open(path)
        held, ok = ds.stress.values <= 0, ds.fate.values == "ok"
        answer = ds.erl.answer()
        wanted = np.flatnonzero(held)[np.argmin(ds.mass.values[held])]
        assert int(answer.best_member) == wanted == int(ds.erl.best().member[0])
        assert int(answer.n_violating) == (ok & ~held).sum() > 5
        np.testing.assert_array_equal(answer.n_missed, [(ok & ~held).sum(), 0])
        assert answer.constraint.values.tolist() == ["stress <= 0", "2 * mass < limit"]
        said = answer.attrs["verdict"]
        assert f"of {ok.sum()} ok, {(ok & ~held).sum()} violate a constraint, " in said
        assert said.endswith(f", {(~ok).sum()} not ok")
        assert (np.isfinite(ds.reward) == held).all()
        assert len(ds.erl.best(100).member) == held.sum()

    def test_nobody_is_a_failure_for_it(self, path):
        ds = erl.open(path)
        assert set(ds.erl.failures().index) == set(ds.member.values[ds.fate.values != "ok"])
        assert (ds.erl.failures()["fate"] == "failed").all()

    def test_the_dataset_says_by_how_much(self, path):
        ds = erl.open(path)
        assert ds.violation.dims == ("member", "constraint")
        np.testing.assert_allclose(ds.violation.sel(constraint="stress <= 0"), ds.stress)
        np.testing.assert_allclose(ds.violation[:, 1], 2 * ds.mass - ds.limit)
        plain = xr.open_zarr(path, consolidated=True)
        np.testing.assert_array_equal(plain.violation, ds.violation)
        assert plain.constraint.values.tolist() == ds.constraint.values.tolist()

    def test_parameters_and_results_keep_their_names(self, tmp_path):
        def simulate(x, violation):
            return {"constraint": x, "goal_violation": 2 * x}

        space = erl.Space(x=erl.Real(0.0, 1.0), violation=erl.Real(0.0, 1.0))
        goal = Minimize("constraint", subject_to="constraint > 0.5")
        ds = explore(simulate, goal, space, store=tmp_path / "s", sampler="sobol")
        np.testing.assert_allclose(ds.goal_goal_violation[:, 0], 0.5 - ds.x)
        assert ds.goal_goal_violation.dims == ("member", "goal_constraint")
        np.testing.assert_array_equal(ds.goal_violation, 2 * ds.constraint)
        assert ds.violation.dims == ds.constraint.dims == ("member",)
        assert erl.fork(tmp_path / "s", tmp_path / "t")["taken"] == 20
        np.testing.assert_array_equal(erl.open(tmp_path / "t").constraint, ds.constraint)

    def test_another_constraint_is_another_goal(self, path):
        other = Minimize("mass", subject_to=["stress <= 0.5", "2 * mass < limit"])
        with pytest.raises(ValueError, match=r"goal.subject_to: \['stress <= 0', .* in the store"):
            explore(beam, other, n_members=40, store=path)
        answer = erl.open(path).erl.reread(other).erl.answer()
        assert float(answer.best_value) < float(erl.open(path).erl.answer().best_value)

    def test_constraints_after_the_fact_and_given_up(self, path):
        ds = erl.open(path)
        free = ds.erl.reread(Minimize("mass")).erl.answer()
        assert float(free.best_value) == float(ds.mass.min())
        assert "n_violating" not in free
        bound = ds.erl.reread(Minimize("mass", subject_to="mass > 0.5")).erl.answer()
        assert float(bound.best_value) == float(ds.mass.where(ds.mass > 0.5).min())
        with pytest.raises(ValueError, match="variable drag"):
            ds.erl.reread(Minimize("mass", subject_to="drag > 0"))

    @pytest.mark.parametrize("goal", [None, Minimize("mass", subject_to="stress < -0.5")])
    def test_a_fork_has_them_too(self, path, tmp_path, goal):
        erl.fork(path, tmp_path / "new", goal=goal)
        old, new = erl.open(path), erl.open(tmp_path / "new")
        limit = 0.0 if goal is None else -0.5
        wanted = old.mass.where(old.stress <= limit).min()
        assert float(new.erl.answer().best_value) == float(wanted)
        np.testing.assert_allclose(new.violation[:, 0], new.stress - limit)

    def test_a_session_more(self, tmp_path):
        explore(beam, GOAL, n_members=10, store=tmp_path / "s")
        ds = explore(beam, GOAL, n_members=20, store=tmp_path / "s")
        ledger, _ = read_ledger(tmp_path / "s")
        np.testing.assert_array_equal(ds.violation, ledger["value"][:, 1:])
        assert ds.sizes["member"] == 20

    def test_what_has_no_finite_side_is_invalid(self):
        goal = Minimize("x", subject_to="z <= 1")
        ds = explore(lambda x, y: {"x": x, "z": np.nan if x > 0.5 else y}, goal, sampler="sobol")
        assert (ds.fate.values[ds.x.values > 0.5] == "invalid").all()
        cause = "Minimize('x', subject_to=['z <= 1']): wanted 2 finite numbers, got ["
        assert (np.char.startswith(ds.cause.values[ds.x.values > 0.5].astype(str), cause)).all()

    def test_pictures(self, path):
        pytest.importorskip("matplotlib")
        from ensemblerl.report.history import course

        told = course(erl.open(path))
        assert np.isfinite(told.value).sum() == np.isfinite(erl.open(path).reward).sum()
        seen = told.incumbent[~np.isnan(told.incumbent)]
        assert np.isfinite(seen).all()
        assert (np.diff(seen) <= 0).all()


class TestSearches:
    """The optimum without constraints is not allowed."""

    def test_the_agent_learns_where_constraints_are_violated(self):
        def simulate(x, y, z):
            return {"f": (x - 0.8) ** 2 + (y - 0.7) ** 2 + (z - 0.6) ** 2, "g": x + y + z}

        space = erl.Space(x=erl.Real(0, 1), y=erl.Real(0, 1), z=erl.Real(0, 1))
        goal = Minimize("f", subject_to="g <= 1.2")  # 0.28 of the space
        gain, early, late = [], [], []
        for seed in range(4):
            options = {"n_members": 100, "seed": seed}
            ours = explore(simulate, goal, space, **options)
            theirs = explore(simulate, goal, space, sampler="sobol", **options)
            best = [float(ds.erl.answer().best_value) for ds in (ours, theirs)]
            assert min(best) >= 0.9**2 / 3 - 1e-12
            missed = np.isneginf(ours.reward.values)
            gain.append(best[1] - best[0])
            early.append(missed[:33].mean())
            late.append(missed[-33:].mean())
        assert np.mean(gain) > 2 * np.std(gain, ddof=1) / np.sqrt(len(gain))
        assert np.mean(late) < np.mean(early) < 0.72
        assert np.mean(late) < 0.6 * 0.72

    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_small_feasible_region_is_found_and_used(self, seed):
        def simulate(x, y):
            return {"f": x + y, "g": (x - 0.7) ** 2 + (y - 0.3) ** 2}

        goal = Minimize("f", subject_to=f"g <= {0.03 / np.pi}")  # 3 %: by chance 4 members of 140
        ours = explore(simulate, goal, n_members=140, seed=seed)
        theirs = explore(simulate, goal, n_members=140, seed=seed, sampler="sobol")
        assert np.isfinite(ours.reward.values[-70:]).mean() > 5 * 0.03
        assert float(ours.erl.answer().best_value) < float(theirs.erl.answer().best_value)

    def test_without_any_feasible_member_it_goes_on(self):
        goal = Minimize("f", subject_to="f < 0")
        ds = explore(lambda x, y: {"f": x}, goal, n_members=40)
        assert min(float(ds.x[-20:].std()), float(ds.y[-20:].std())) > 0.15  # of the prior: 0.29
        answer = ds.erl.answer()
        assert int(answer.best_member) == -1
        assert np.isnan(answer.incumbent).all()
        assert answer.attrs["verdict"] == "no answer yet: all 40 ok members violate a constraint"
        with pytest.raises(ValueError, match="keeps to the goal's constraints, none of 40 ok"):
            ds.erl.best()


def test_the_history_shows_who_violates_and_who_failed_apart():
    def bent(x):
        if x > 0.9:
            raise ArithmeticError("too far")
        return {"f": (x - 0.8) ** 2, "g": x}

    goal = erl.Minimize("f", subject_to=["g <= 0.5"])
    space = erl.Space(x=erl.Real(0.0, 1.0))
    ds = erl.explore(bent, space, goal, n_members=40, sampler="sobol", cluster="serial", seed=2)
    ax = ds.erl.plot.history()
    labels = ax.get_legend_handles_labels()[1]
    violates = int(((ds.x > 0.5) & (ds.fate == "ok")).sum())
    assert f"violates a constraint ({violates})" in labels
    assert f"not ok ({int((ds.fate != 'ok').sum())})" in labels
    dots = next(line for line in ax.lines if line.get_label() == "ok")
    assert len(dots.get_xdata()) == int((ds.x <= 0.5).sum())
    assert np.isfinite(ax.get_ylim()).all()


def test_the_history_of_members_that_all_violate_has_no_values():
    goal = erl.Minimize(subject_to=["value >= 2"])
    space = erl.Space(x=erl.Real(0.0, 1.0))
    ds = erl.explore(lambda x: x, space, goal, n_members=6, sampler="sobol", cluster="serial")
    ax = ds.erl.plot.history()
    assert ax.get_legend_handles_labels()[1] == ["violates a constraint (6)"]
    assert int(ds.erl.answer().best_member) == -1


def test_importance_says_that_it_knows_nothing_of_members_that_violate():
    def steep(x, y):
        return {"f": x + 10 * max(0.0, y - 0.5), "g": y}

    space = erl.Space(x=erl.Real(0.0, 1.0), y=erl.Real(0.0, 1.0))
    goal = erl.Minimize("f", subject_to=["g <= 0.5"])
    ds = erl.explore(steep, space, goal, n_members=64, sampler="sobol", cluster="serial", seed=2)
    told = ds.erl.importance()
    assert told.n_left_out == int((ds.y > 0.5).sum()) > 0
    assert told.verdict.startswith("Do not trust this where members violate a constraint: ")
