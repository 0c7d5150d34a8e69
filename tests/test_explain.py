"""How much each parameter matters, as a critic sees it: indices that are known, and its worth."""

from __future__ import annotations

import numpy as np
import pytest

import ensemblerl as erl
from ensemblerl.agents.critics import gaussian_process
from ensemblerl.agents.maxent import MaxEnt
from ensemblerl.records import Cube
from ensemblerl.report.critic import fitted, functions, skill
from ensemblerl.report.importance import POINTS, RESAMPLED, designed, sobol, verdict

REALS = Cube(("real",) * 3, (0,) * 3, (None,) * 3)
ISHIGAMI = np.array([[0.3139, 0.4424, 0.0], [0.5576, 0.4424, 0.2437]])
"""First-order and total indices for a = 7, b = 0.1 (Ishigami and Homma 1990)."""


def ishigami(a, b, c):
    return np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)


def of_unit(unit):
    return ishigami(*(2 * np.pi * (unit.reshape(-1, 3) - 0.5)).T).reshape(unit.shape[:-1])


def campaign(function, space, n, *, sampler="sobol", goal=None, seed=1, **options):
    return erl.explore(
        function, space, goal or erl.Minimize(), n_members=n, sampler=sampler, seed=seed,
        cluster="serial", progress=False, **options,
    )  # fmt: skip


def check(told, first, total):
    """Within four standard errors, and what the critic does not foretell."""
    for name, known in (("first", first), ("total", total)):
        found = told.sel(parameter=list(known))
        error = np.abs(found[name].values - np.array(list(known.values())))
        allowed = 4 * found[f"{name}_se"].values + (1 - told.attrs["skill"])
        assert (error <= allowed).all(), f"{name}: off by {error}, allowed {allowed}"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_estimators_are_right_within_their_bootstrap(seed):
    rng = np.random.default_rng(seed)
    told = of_unit(designed(REALS, POINTS, rng))
    weight = rng.multinomial(POINTS, np.full(POINTS, 1 / POINTS), RESAMPLED) / POINTS
    for found, again, known in zip(sobol(told), sobol(told, weight), ISHIGAMI, strict=True):
        assert again.shape == (RESAMPLED, 3)
        assert (np.abs(found - known) < 4 * again.std(axis=0) + 1e-3).all()
        np.testing.assert_allclose(again.mean(axis=0), found, atol=0.01)


def test_importance_of_a_function_whose_indices_are_known():
    space = erl.Space({name: erl.Real(-np.pi, np.pi) for name in "abc"})
    told = campaign(ishigami, space, 256).erl.importance()
    check(told, *(dict(zip("abc", known, strict=True)) for known in ISHIGAMI))
    assert told.attrs["skill"] > 0.9
    assert (told.total_se < 0.1).all()
    assert told.parameter.values.tolist() == ["a", "b", "c"], "most important first"
    assert told.attrs["sure"] > 0.9
    assert told.attrs["verdict"].startswith("The critic foretells 9")
    assert told.attrs["verdict"].endswith("This is a critic's view, not a measurement.")


def test_importance_of_every_kind_of_parameter():
    space = erl.Space(
        way=erl.Choice("a", "b", "c"),
        level=erl.Ordinal(0, 1, 4),
        x=erl.Real(0, 1),
        flag=erl.Choice(True, False),
        y=erl.Real(0, 1, when={"flag": True}),
        k=erl.LogNormal.from_median(1.0, factor=2.0),
    )

    def simulate(way, level, x, flag, k, y=0.0):
        return 2.0 * (way == "b") + 0.5 * level + x + 4.0 * y + 0.5 * np.log(k)

    told = campaign(simulate, space, 160).erl.importance()
    sigma = space["k"].sigma
    alone = {
        "way": 4 * 2 / 9,
        "level": 0.25 * np.var([0, 1, 4]),
        "x": 1 / 12,
        "flag": 16 / 16,
        "y": 16 / 48,
        "k": 0.25 * sigma**2,
    }
    both = 16 * 5 / 48 - alone["flag"] - alone["y"]  # the variance of 4 y where flag
    whole = sum(alone.values()) + both
    total = {name: v + both * (name in ("flag", "y")) for name, v in alone.items()}
    check(told, *({name: v / whole for name, v in of.items()} for of in (alone, total)))
    assert told.attrs["skill"] > 0.95
    assert told.attrs["n_members"] == 160


def test_rewards_that_differ_by_orders_of_magnitude_are_bent():
    space = erl.Space(x=erl.Real(0, 1), y=erl.Real(0, 1))
    ds = campaign(lambda x, y: np.exp(8 * x + y), space, 40)
    told = ds.erl.importance()
    assert told.attrs["critic"] == "Gaussian process of bent rewards"
    # of a product of f(x) and g(y), with r of each its variance over its squared mean
    rx, ry = ((np.expm1(2 * a) / (2 * a)) / (np.expm1(a) / a) ** 2 - 1 for a in (8, 1))
    whole = (1 + rx) * (1 + ry) - 1
    check(
        told,
        {"x": rx / whole, "y": ry / whole},
        {"x": rx * (1 + ry) / whole, "y": ry * (1 + rx) / whole},
    )
    logs = ds.erl.reread(erl.Minimize("log(value)")).erl.importance()
    assert logs.attrs["objective"] == "log(value)"
    check(logs, *[{"x": 64 / 65, "y": 1 / 65}] * 2)


def test_a_critic_of_noise_is_not_trusted():
    rng = np.random.default_rng(0)
    ds = campaign(lambda x, y: rng.standard_normal(), erl.Space(x=erl.Real(0, 1), y=erl.Real(0, 1)),
                  60)  # fmt: skip
    told = ds.erl.importance()
    assert told.attrs["skill"] < 0.4
    assert told.attrs["verdict"].startswith("Do not trust this: the critic foretells ")
    assert "sampler='sobol'" in told.attrs["verdict"]


@pytest.mark.parametrize("seed", [0, 3])
def test_members_that_crowd_do_not_vouch_for_the_rest(seed):
    """Next neighbours foretell each other, and say nothing of the prior."""
    rng = np.random.default_rng(seed)
    crowd = np.array([0.6, 0.1, 0.6]) + 0.35 * rng.random((150, 3))
    unit, points = np.concatenate([rng.random((6, 3)), crowd]), rng.random((2048, 3))
    critic = fitted(REALS, unit, of_unit(unit), points)
    truth = of_unit(points)
    true = 1 - np.mean((critic.predict(points) - truth) ** 2) / truth.var()
    assert skill(critic.process, unit).safe > 0.8, "where each counts for itself"
    assert max(true, critic.skill.safe) < 0.5
    assert critic.skill.sure < 0.5, "it knows that it does not know"


def test_functions_drawn_have_the_posterior_of_the_critic():
    rng = np.random.default_rng(0)
    unit = rng.random((20, 2))
    cube = Cube(("real", "categorical"), (0, 3), (None, np.arange(4) / 3))
    process = gaussian_process.fit(cube, unit, np.sin(6 * unit[:, 0]) + (unit[:, 1] > 0.5))
    at, k = rng.random((30, 2)), 2000
    mean, spread = process.bent(at)
    drawn = functions(process, at, k, rng)
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * spread / np.sqrt(k)).all()
    # a thousand random cosines stand for the prior to a few parts in a hundred
    np.testing.assert_allclose(drawn.std(axis=0), spread, rtol=0.2)


def test_the_same_seed_gives_the_same_indices_and_another_one_others():
    ds = campaign(lambda x, y: x + y**2, erl.Space(x=erl.Real(0, 1), y=erl.Real(0, 1)), 20)
    one, again, other = (ds.erl.importance(seed=seed) for seed in (0, 0, 1))
    assert one.identical(again)
    assert (one.first != other.first).all()


def test_constraints_are_said_to_be_left_out():
    space = erl.Space(x=erl.Real(0, 1), y=erl.Real(0, 1), constraints=["x + y <= 1"])
    told = campaign(lambda x, y: x + y**2, space, 20).erl.importance()
    assert "Known constraints are left out of the prior." in told.attrs["verdict"]


def test_what_no_critic_can_be_fitted_to():
    space = erl.Space(x=erl.Real(0, 1), y=erl.Real(0, 1))
    ds = campaign(lambda x, y: 3.0 if x < 0.9 else np.nan, space, 20)
    n = int((ds.fate == "ok").sum())
    with pytest.raises(ValueError, match=rf"rewards differ, got {n} with rewards from -3 to -3"):
        ds.erl.importance()
    with pytest.raises(ValueError, match=r"ds: wanted 6 members that are ok .*; got 4 of 5"):
        ds.isel(member=[*np.flatnonzero(ds.fate == "ok")[:4], *np.flatnonzero(ds.fate != "ok")[:1]]
                ).erl.importance()  # fmt: skip
    with pytest.raises(ValueError, match="with its space in the attributes"):
        ds.drop_attrs().erl.importance()
    with pytest.raises(ValueError, match=r"seed: wanted a whole number >= 0, got -1"):
        ds.erl.importance(seed=-1)


def test_the_verdict_of_a_critic_that_is_not_sure():
    space = erl.Space({name: erl.Real(-np.pi, np.pi) for name in "abc"})
    crowd = campaign(ishigami, space, 60, sampler=MaxEnt, goal=erl.Maximize(), seed=2)
    told = crowd.erl.importance()
    assert told.attrs["sure"] < 0.6
    unsure = told.assign_attrs(skill=0.9, skill_se=0.02, sure=0.4)
    text = verdict(unsure, constrained=False)
    assert text.startswith("Do not trust this: the critic foretells 90 ± 2 % of the variance of ")
    assert "the prior, but is sure of 40 % only." in text
    rough = verdict(told.assign_attrs(skill=0.9, skill_se=0.2, sure=0.95), constrained=False)
    assert rough.startswith("A rough picture: the critic foretells 90 ± 20 % ")
