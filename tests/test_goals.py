"""Minimize and Maximize: the laws, objectives of every kind, and the answer."""

import functools
import json
import pickle

import cloudpickle
import numpy as np
import pytest
import xarray as xr

import ensemblerl as erl
from ensemblerl.events import Launched, Settled
from ensemblerl.goals.maximize import Maximize
from ensemblerl.goals.minimize import Minimize
from ensemblerl.ledger import Ledger
from ensemblerl.protocols import Goal
from ensemblerl.records import Outcome, Proposals
from ensemblerl.report.posterior import posterior
from ensemblerl.testing import BrokenLawError, check_goal
from ensemblerl.testing.rehearsal import numbered


def misfit(results):
    return np.sum((results["h"] - 1.0) ** 2)


class Weighted:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, results):
        return self.weight * results["value"]


EXAMPLES = [
    {"value": np.array(v), "h": np.array([v, 1.0, 2.0]), "n": np.array(3)} for v in (1.5, -2.0, 0.0)
]
GOALS = {
    "default": lambda cls: cls(),
    "expression": lambda cls: cls("value + 2 * n"),
    "reducing expression": lambda cls: cls("mean(h) - value"),
    "function": lambda cls: cls(misfit),
    "lambda": lambda cls: cls(lambda r: r["value"] ** 2),
    "partial": lambda cls: cls(functools.partial(misfit)),
    "object": lambda cls: cls(Weighted(2.0)),
    "keep": lambda cls: cls("value", keep=["value"]),
    "noisy": lambda cls: cls(noisy=True),
    "keep more": lambda cls: cls("value + n", keep=["n", "value"]),
}


@pytest.mark.parametrize("make", GOALS.values(), ids=GOALS)
@pytest.mark.parametrize("cls", [Minimize, Maximize])
def test_laws(cls, make):
    goal = make(cls)
    assert isinstance(goal, Goal)
    check_goal(goal, EXAMPLES, worst_to_best=[[2.0], [1.0]] if cls is Minimize else [[1.0], [2.0]])
    assert json.dumps(goal.describe()) == json.dumps(make(cls).describe())


def test_the_sign_is_checked():
    with pytest.raises(BrokenLawError, match="larger is better"):
        check_goal(Minimize(), EXAMPLES, worst_to_best=[[1.0], [2.0]])


def test_the_laws_hold_for_datasets():
    data = [xr.Dataset({"value": v, "h": ("y", [v, 1.0])}) for v in (1.0, 2.0)]
    check_goal(Minimize(keep=["value"]), data)
    check_goal(Minimize("value + mean(h)"), data)


def test_results_of_every_kind():
    field = xr.DataArray([1.0, 2.0], dims="y", coords={"y": [0, 1]}, name="h")
    data = xr.Dataset({"rmse": 0.5, "h": field, "other": 1})
    assert Minimize().value(Minimize().reduce(2.5)) == [2.5]
    assert Minimize(keep=["value"]).reduce(2.5) == {"value": 2.5}
    assert Minimize().value({"value": True}) == [1.0]
    kept = Minimize("rmse", keep=["rmse", "h"]).reduce(data)
    assert set(kept.data_vars) == {"rmse", "h"}
    assert "y" in kept.coords
    assert Minimize("rmse").reduce(data) is data
    assert Minimize("rmse").value(data) == [0.5]
    assert Minimize("h", keep=["h"]).reduce(field)["h"] is field


def test_a_name_that_is_no_identifier_means_the_variable():
    assert Minimize("T-max").value({"T-max": np.array(7.0), "T": np.array(1.0)}) == [7.0]


@pytest.mark.parametrize(
    ("objective", "result", "message"),
    [
        ("rmse", {"a": 1.0, "b": 2.0}, "objective 'rmse': wanted variable rmse, there are: a, b"),
        ("a + c", {"a": 1.0}, "objective 'a \\+ c': wanted variable c, there are: a"),
        ("a", 1.0, "there are: value"),
        ("a", {"a": np.zeros((2, 3))}, r"objective 'a': wanted a scalar, got shape \(2, 3\)"),
        ("a", {"a": np.zeros(1)}, r"got shape \(1,\)"),
        ("a", {"a": 1j}, "wanted a real number, got dtype complex128"),
        ("a", {"a": "text"}, "wanted a real number"),
        (misfit, {"h": "text"}, "."),
        (lambda r: r["a"], {"a": np.zeros(2)}, "wanted a scalar"),
    ],
)
def test_wrong_results(objective, result, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Minimize(objective).value(result)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((3,), {}, TypeError, "objective: wanted the name of a variable.*got int"),
        (("a +",), {}, ValueError, "a \\+"),
        (("__import__('os')",), {}, ValueError, "expression"),
        (("a",), {"noisy": 0.1}, TypeError, "noisy: wanted True or False, got 0.1"),
        (("a",), {"keep": "a"}, TypeError, "keep: wanted a list"),
        (("a",), {"keep": ["b"]}, ValueError, "keep: wanted also \\['a'\\]"),
    ],
)
def test_wrong_arguments(arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        Minimize(*arguments, **keywords)


def test_keep_names_what_is_not_there():
    with pytest.raises(ValueError, match="keep: wanted variable h, there are: value"):
        Minimize(keep=["value", "h"]).reduce({"value": 1.0})


def test_lambdas_travel_and_keep_their_description():
    target = 2.0
    goal = Minimize(lambda r: abs(r["value"] - target))
    twin = pickle.loads(cloudpickle.dumps(goal))
    assert twin.value({"value": 5.0}) == [3.0]
    assert twin.describe() == goal.describe()


def test_descriptions_tell_goals_apart():
    def of(target):
        return lambda r: r["value"] - target

    goals = [
        Minimize(),
        Maximize(),
        Minimize("n"),
        Minimize("value", keep=["value"]),
        Minimize(noisy=True),
        Minimize(misfit),
        Minimize(lambda r: r["value"]),
        Minimize(lambda r: r["value"] + 1),
        Minimize(lambda s: s["value"] + 1),
        Minimize(of(1.0)),
        Minimize(of(2.0)),
        Minimize(Weighted(1.0)),
        Minimize(Weighted(2.0)),
        Minimize(functools.partial(misfit, scale=1)),
        Minimize(functools.partial(misfit, scale=2)),
    ]
    told = [json.dumps(goal.describe(), sort_keys=True) for goal in goals]
    assert len(set(told)) == len(goals)


def test_what_stands_around_a_lambda_is_no_part_of_it():
    def f(goal, n_members):
        return goal.describe()

    one = f(Minimize(lambda r: (r["value"] - 1) * 2), n_members=500)
    two = f(Minimize(lambda r: (r["value"] - 1) * 2), n_members=5000)
    three = f(
        Minimize(
            lambda r: (
                (r["value"] - 1)  # the misfit
                * 2
            )
        ),
        n_members=5,
    )
    assert one == two == three
    assert one != f(Minimize(lambda r: (r["value"] - 1) * 3), n_members=500)


def test_callables_without_source():
    goals = [Minimize(eval(f"lambda r: r['value'] + {i}")) for i in (1, 2, 2)]
    told = [json.dumps(goal.describe()) for goal in goals]
    assert told[0] != told[1] == told[2]
    assert json.dumps(Minimize(len).describe())


def ledger_of(goal, values, n=None):
    """A ledger of n members; values: number -> float, or None for a failure."""
    n = len(values) if n is None else n
    ledger = Ledger(2, goal.k)
    ledger.apply(Launched(0.0, numbered(Proposals(np.full((n, 2), 0.5)), 0, "t")))
    outcomes = [
        Outcome(i, 1, "failed")
        if v is None
        else Outcome(i, 1, "ok", value=(v,), reward=goal.signed(v))
        for i, v in values.items()
    ]
    if outcomes:
        ledger.apply(Settled(1.0, tuple(outcomes)))
    return ledger


def test_the_answer():
    values = {0: None, 1: 3.0, 2: 5.0, 3: 1.0, 4: 2.0, 6: -7.0}
    low = Minimize().estimate(ledger_of(Minimize(), values, n=8))
    assert (low.best_member, low.best_value, low.n_ok, low.n_failed) == (6, -7.0, 5, 1)
    # Member 5 is on its way: the history ends before it, though 6 came in already.
    np.testing.assert_array_equal(low.incumbent, [np.nan, 3.0, 3.0, 1.0, 1.0])
    assert low.incumbent.dims == ("member",)
    assert "member 6" in low.attrs["verdict"]
    assert "-7" in low.attrs["verdict"]
    assert "1 not ok" in low.attrs["verdict"]
    high = Maximize().estimate(ledger_of(Maximize(), values, n=8))
    assert (high.best_member, high.best_value) == (2, 5.0)
    np.testing.assert_array_equal(high.incumbent, [np.nan, 3.0, 5.0, 5.0, 5.0])


def test_the_answer_when_there_is_none():
    for values, n in (({}, 0), ({}, 3), ({0: None}, 1)):
        answer = Minimize().estimate(ledger_of(Minimize(), values, n=n))
        assert answer.best_member == -1
        assert np.isnan(answer.best_value)
        assert np.isnan(answer.incumbent).all()
        assert "no answer yet" in answer.attrs["verdict"]


def test_ties_go_to_the_first():
    assert Minimize().estimate(ledger_of(Minimize(), {0: 2.0, 1: 1.0, 2: 1.0})).best_member == 1


def test_demands_anneal():
    goal = Minimize()
    temperatures = [goal.demands(ledger_of(goal, {}, n=n), 10).temperature for n in (0, 5, 10, 20)]
    assert temperatures == pytest.approx([0.1, 0.025, 0.0, 0.0])
    assert goal.demands(ledger_of(goal, {}, n=0), 0).prior_share == 0.1
    assert goal.demands(ledger_of(goal, {}, n=0), 0).ranked


def test_signed_is_its_own_inverse():
    assert Minimize().signed(np.array([2.0])) == [-2.0]
    assert Maximize().signed(np.array([2.0])) == [2.0]


PLANE = erl.Space(x=erl.Real(0.0, 1.0), y=erl.Real(0.0, 1.0))


def bowl(x, y):
    return (x - 0.3) ** 2 + (y - 0.6) ** 2


class TestNoise:
    def test_the_answer_is_nearer_than_the_luckiest_draw(self):
        def simulate(x, y, seed):
            return bowl(x, y) + 0.1 * np.random.default_rng(seed).standard_normal()

        errors = []
        for seed in range(20):
            ds = erl.explore(
                simulate,
                PLANE,
                Minimize(noisy=True),
                n_members=48,
                sampler="sobol",
                cluster="serial",
                seed=seed,
                progress=False,
            )
            answer, true = ds.erl.answer(), bowl(ds.x.values, ds.y.values)
            lucky = int(ds.erl.reread(Minimize()).erl.answer().best_member)
            assert lucky == int(ds.value.values.argmin())
            errors.append((true[lucky], true[int(answer.best_member)]))
            assert float(answer.best_value) == ds.value[int(answer.best_member)]
        gain = -np.diff(errors, axis=1)
        assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain))
        told = f"posterior mean of 'value': {float(answer.best_mean):.6g} ± "
        assert told in answer.attrs["verdict"]

    @pytest.mark.parametrize("n", [16, 30, 60])
    def test_the_posterior_covers_the_truth(self, n):
        z, at_best = [], []
        for seed in range(20):
            rng = np.random.default_rng(seed)
            unit = rng.random((n, 2))
            true = bowl(*unit.T)
            mean, sd, _ = posterior(PLANE, unit, true + 0.1 * rng.standard_normal(n))
            z.append(((mean - true) / sd)[::10])
            at_best.append(((mean - true) / sd)[np.argmax(mean)])
        assert 0.5 < np.std(z) < 1.6
        assert np.quantile(np.abs(at_best), 0.9) < 3.0

    def test_one_lucky_draw_among_many_of_the_same_point(self):
        unit = np.repeat([[0.2, 0.2], [0.8, 0.8]], 12, axis=0)
        reward = np.tile([0.5, -0.5], 12) + np.repeat([0.0, 0.6], 12)
        reward[0] = 2.0
        mean, *_ = posterior(PLANE, unit, reward)
        assert np.ptp(mean[:12]) < 1e-9
        assert mean[12] > mean[0]

    def test_what_is_drawn_within_a_cell_is_of_no_account(self):
        space = erl.Space(x=erl.Real(0.0, 1.0), n=erl.Integer(1, 4), c=erl.Choice("a", "b", "c"))
        rng = np.random.default_rng(1)
        unit = rng.random((40, 3))
        reward = rng.standard_normal(40) - 3.0 * space.to_points(unit)["n"]
        one = posterior(space, unit, reward)
        two = posterior(space, space.to_unit(space.to_points(unit)), reward)
        np.testing.assert_allclose(one, two)

    def test_without_noise_it_is_the_same_member(self):
        unit = np.random.default_rng(2).random((60, 2))
        true = -bowl(*unit.T)
        mean, sd, _ = posterior(PLANE, unit, true)
        assert np.argmax(mean) == np.argmax(true)
        np.testing.assert_allclose(mean, true, atol=1e-2)
        assert sd.max() < 1e-2

    def test_a_few_terrible_members_hide_nothing(self):
        rng = np.random.default_rng(3)
        unit = rng.random((80, 2))
        reward = -bowl(*unit.T) + 0.05 * rng.standard_normal(80)
        plain = posterior(PLANE, unit, reward)[0]
        reward[:6] = -1e12
        mean, *_ = posterior(PLANE, unit, reward)
        assert bowl(*unit[np.argmax(mean)]) < 0.05  # of a prior mean of 0.2
        assert abs(mean.max() - plain.max()) < 0.1

    @pytest.mark.parametrize("reward", [[2.0], [1.0, 1.0, 1.0], [1e308, -1e308]])
    def test_nothing_to_see(self, reward):
        mean, sd, _ = posterior(PLANE, np.full((len(reward), 2), 0.5), np.array(reward))
        np.testing.assert_array_equal(mean, reward)
        assert np.isnan(sd).all()

    def test_more_members_than_it_is_of(self):
        rng = np.random.default_rng(4)
        unit = rng.random((3000, 2))
        reward = -bowl(*unit.T) + 0.1 * rng.standard_normal(3000)
        mean, sd, _ = posterior(PLANE, unit, reward)
        assert mean.shape == sd.shape == (3000,)
        assert bowl(*unit[np.argmax(mean)]) < 0.01

    def test_best_and_answer_agree(self):
        space = erl.Space(x=erl.Real(0.1, 10.0, log=True), c=erl.Choice("a", "b"))

        def simulate(x, c, seed):
            if seed % 7 == 0:
                raise RuntimeError("unlucky")
            noise = np.random.default_rng(seed).standard_normal()
            return {"f": np.log(x) ** 2 + (c == "b") + noise, "g": x}

        goal = Minimize("f", noisy=True, subject_to="g >= 2")
        ds = erl.explore(
            simulate, space, goal, n_members=40, sampler="sobol", cluster="serial", seed=5
        )
        best = ds.erl.best(3)
        assert int(best.member[0]) == int(ds.erl.answer().best_member)
        assert best.g.min() >= 2
        half = ds.isel(member=slice(20))
        assert int(half.erl.best().member[0]) == int(half.erl.answer().best_member) < 20

    def test_from_the_ledger_alone_it_says_that_it_is_a_draw(self):
        answer = Minimize(noisy=True).estimate(ledger_of(Minimize(), {0: 3.0, 1: 1.0}))
        assert int(answer.best_member) == 1
        assert np.isnan(answer.best_mean)
        assert "single draw of 'value': 1" in answer.attrs["verdict"]

    def test_a_single_member_is_a_draw(self):
        goal = Minimize(noisy=True)
        told = ledger_of(goal, {0: 2.0})
        answer = goal.estimate(told, posterior=lambda *given: posterior(PLANE, *given))
        assert float(answer.best_mean) == 2.0
        assert "single draw of 'value': 2, member 0" in answer.attrs["verdict"]
