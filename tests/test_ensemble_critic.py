"""The deep ensemble: what it foretells and picks, and its place in the committee."""

import numpy as np
import pytest

import ensemblerl as erl
from ensemblerl.agents import MPO, Guided, MaxEnt
from ensemblerl.agents.base import Rows
from ensemblerl.agents.critics import committee as committee_module
from ensemblerl.agents.critics import ensemble, picking
from ensemblerl.agents.critics.committee import EVERY, HOPE, NAMES, Committee
from ensemblerl.agents.critics.ensemble import mixtures, regression
from ensemblerl.agents.critics.features import ordered
from ensemblerl.agents.critics.kernel import start
from ensemblerl.agents.critics.noise import Level
from ensemblerl.agents.critics.picking import Known, foretold, picked
from ensemblerl.testing.box_policy import BoxPolicy
from ensemblerl.testing.core import plain_state, same
from ensemblerl.testing.cubes import example_cubes, mixed_cube, real_cube

CUBES = example_cubes()


def rng(seed=0):
    return np.random.default_rng(seed)


def points(cube, n, seed=0):
    unit = cube.canonical(rng(seed).uniform(0.001, 0.999, (6 * n, cube.ndim)))
    return unit[cube.feasible(unit)][:n] if cube.feasible else unit[:n]


def waves(unit):
    """What no quadratic follows."""
    return -np.cos(7.0 * unit[:, 0]) - ((unit - 0.4) ** 2).sum(axis=1)


def rows_of(number, unit, reward):
    n = len(number)
    nobody = np.full(n, -1), np.ones(n), np.full(n, "")
    return Rows(np.array(number), unit, reward, np.zeros(n), np.zeros((n, 1)), *nobody)


def anywhere(unit):
    return np.ones(len(unit), dtype=np.bool_)


def critic(cube, n=200, seed=0, noise=0.0):
    unit = points(cube, n, seed)
    reward = waves(unit) + noise * rng(seed + 1).standard_normal(n)
    return ensemble.fit(cube, unit, reward, start(cube.ndim))


# ---- what it foretells


def test_it_foretells_what_a_ridge_regression_does_not():
    found, new = critic(real_cube(3), 400), points(real_cube(3), 300, seed=5)
    truth = waves(new)
    told, spread = found.predict(new)
    assert told.shape == spread.shape == (300,)
    assert (spread > 0).all()
    plain = np.abs(truth - np.median(truth)).mean()
    wrong = np.abs(told - truth).mean()
    assert wrong < 0.3 * plain
    z = (found.scaled(new) - found.regression.middle) / found.regression.scale
    ridge = np.concatenate([np.ones((300, 1)), z, z**2], axis=1) @ found.regression.ridge
    assert wrong < 0.5 * np.abs(found.bend.back(ridge[:, 0]) - truth).mean()


def test_networks_differ_where_there_are_no_members():
    cube = real_cube(2)
    unit = points(cube, 300)
    unit[:, 0] *= 0.5
    found = ensemble.fit(cube, unit, waves(unit), start(2))
    new = points(cube, 200, seed=3)
    each = found.regression.each(found.scaled(new))[:, :, 0].std(axis=0)
    assert np.median(each[new[:, 0] > 0.8]) > 4 * np.median(each[new[:, 0] < 0.45])


def test_the_noise_of_results_is_estimated():
    x = rng().uniform(size=(600, 2))
    quiet = np.sin(6 * x[:, :1])
    for noise in (0.1, 0.5):
        y = quiet + noise * rng(1).standard_normal((600, 1))
        told = regression(x, y, rng(2)).noise[0]
        # networks leave a part unexplained, and explain a part of the noise
        assert 0.8 * noise**2 < told < 1.3 * noise**2


def test_several_outputs_are_foretold_at_once():
    x, new = rng().uniform(size=(400, 2)), rng(1).uniform(size=(100, 2))

    def both(x):
        return np.stack([np.sin(6 * x[:, 0]), 20 * np.cos(5 * x[:, 1])], axis=1)

    found = regression(x, both(x), rng(2))
    mean, spread = found.mean_and_spread(new)
    assert mean.shape == spread.shape == (100, 2)
    assert found.each(new).shape == (ensemble.NETWORKS, 100, 2)
    wrong = np.abs(mean - both(new)).mean(axis=0)
    assert (wrong < [0.1, 2.0]).all()


def test_the_same_rows_give_the_same_ensemble():
    cube, new = mixed_cube(), points(mixed_cube(), 20, seed=7)
    one, two = critic(cube), critic(cube)
    np.testing.assert_array_equal(one.predict(new), two.predict(new))
    np.testing.assert_array_equal(one.sample(new, 3, rng()), two.sample(new, 3, rng()))


def test_nothing_is_foretold_where_all_are_alike():
    unit = points(real_cube(2), 30)
    assert ensemble.fit(real_cube(2), unit, np.ones(30), start(2)) is None
    assert ensemble.fit(real_cube(2), unit[:1], np.ones(1), start(2)) is None


# ---- draws


def test_draws_have_the_mean_and_the_covariance_of_the_networks():
    each, n = rng().standard_normal((5, 3)), 20000
    mix = mixtures(5, n, rng(1))
    np.testing.assert_allclose(mix.sum(axis=1), 1.0)
    drawn = mix @ each
    cov = np.cov(each.T)
    se = np.sqrt(np.diag(cov) / n)
    assert (np.abs(drawn.mean(axis=0) - each.mean(axis=0)) < 4 * se).all()
    # the standard error of a covariance of normal draws
    se = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / n)
    assert (np.abs(np.cov(drawn.T) - cov) < 4 * se).all()


def test_slopes_of_a_draw_are_those_of_differences():
    found, new = critic(real_cube(2), 300).regression, rng(1).uniform(0.2, 0.8, (8, 2))
    x = found.middle + found.scale * rng(2).uniform(-0.8, 0.8, (8, 2))
    mix = mixtures(ensemble.NETWORKS, 8, rng(3))
    slope = found.slope(x, mix)
    assert slope.shape == new.shape
    for j in range(2):
        step = 0.01 * found.scale * (np.arange(2) == j)
        more, less = ((mix * found.each(x + s)[:, :, 0].T).sum(axis=1) for s in (step, -step))
        np.testing.assert_allclose(slope[:, j], (more - less) / 0.02, atol=2e-2)


@pytest.mark.parametrize("name", CUBES)
def test_maxima_are_uphill_from_the_best_candidates(name):
    cube = CUBES[name]
    found, few = critic(cube), points(cube, 40, seed=4)
    kept = few.copy()
    best = found.maxima(few, 6, rng(2), anywhere)
    np.testing.assert_array_equal(few, kept)
    assert ((best > 0) & (best < 1)).all()
    np.testing.assert_array_equal(best, cube.canonical(best))
    mix = mixtures(ensemble.NETWORKS, 6, rng(2))
    first = few[(mix @ found.regression.each(found.scaled(few))[:, :, 0]).argmax(axis=1)]
    others = np.setdiff1d(np.arange(cube.ndim), ordered(cube))
    same_parents = cube.active(first) == cube.active(best)
    np.testing.assert_array_equal(
        best[:, others][same_parents[:, others]], first[:, others][same_parents[:, others]]
    )
    np.testing.assert_array_equal(found.maxima(few, 6, rng(2), lambda u: np.zeros(6, bool)), first)
    if name.startswith("real"):
        of = [
            (mix * found.regression.each(found.scaled(u))[:, :, 0].T).sum(1) for u in (best, first)
        ]
        assert (of[0] >= of[1]).all()
        assert (of[0] > of[1]).any()


# ---- in the committee


@pytest.fixture
def early(monkeypatch):
    """There are ensembles from 40 members on, of a few steps."""
    monkeypatch.setattr(committee_module, "FEWEST", 40)
    monkeypatch.setattr(ensemble, "EPOCHS", 20)


def lessons(n, size=4, cube=None):
    """What is known at each lesson, in number order: some come late, some fail."""
    cube = cube or real_cube(2)
    unit = points(cube, n)
    reward = waves(unit)
    reward[unit[:, 0] > 0.9] = -np.inf
    late = np.argsort(np.arange(n) + rng().uniform(0, 15, n))
    for end in range(size, n + 1, size):
        known = np.sort(late[:end])
        yield rows_of(known, unit[known], reward[known])


def test_below_its_threshold_nothing_is_other_than_without_it(early):
    plain, deep = Committee(real_cube(2)), Committee(real_cube(2), deep_ensemble=True)
    new, some = points(real_cube(2), 10, seed=6), 0
    for rows in lessons(80):
        one, other = plain.learn(rows), deep.learn(rows)
        if deep._learnt.size and (rows.ok & np.isin(rows.number, deep._learnt)).sum() >= 40:
            break
        assert one.there == other.there
        assert plain.weights(one) == deep.weights(other)
        before, after = foretold(one, new), foretold(other, new)
        assert same(before, {name: after[name] for name in before})
        assert np.isnan([after["ensemble_mean"], after["ensemble_sd"]]).all()
        assert deep.skills() == {**plain.skills(), "ensemble": HOPE}
        if one.there:
            trays = [
                picked(c, k.weights(c), BoxPolicy(real_cube(2)), new[:2], 4, rng())
                for k, c in ((plain, one), (deep, other))
            ]
            np.testing.assert_array_equal(trays[0].unit, trays[1].unit)
        some += 1
    assert some > 8
    assert "ensemble" in other.there
    assert plain.names == one.names == NAMES


def test_it_is_trained_when_scales_are_tuned(early, monkeypatch):
    sizes = []
    fit = ensemble.fit

    def spy(cube, unit, reward, theta, noisy):
        sizes.append(len(unit))
        return fit(cube, unit, reward, theta, noisy=noisy)

    monkeypatch.setattr(committee_module.ensemble, "fit", spy)
    committee, unit = Committee(real_cube(2), deep_ensemble=True), points(real_cube(2), 70)
    for end in range(30, 60):
        committee.learn(rows_of(np.arange(end), unit[:end], waves(unit[:end])))
    assert sizes == [41, 46, 51, 57]


@pytest.mark.parametrize("noisy", [True, False])
def test_the_committee_says_whether_rewards_are_noisy(early, noisy):
    committee = Committee(real_cube(2), deep_ensemble=True)
    for rows in lessons(80):
        critics = committee.learn(rows, noisy)
    assert isinstance(critics.ensemble.bend, Level) == noisy
    again = Committee(real_cube(2), deep_ensemble=True)
    again.load_state_dict(committee.state_dict())
    new = points(real_cube(2), 9, seed=6)
    told = again.learn(rows, noisy).ensemble.predict(new)
    np.testing.assert_array_equal(told, critics.ensemble.predict(new))


def test_it_is_judged_and_weighs(early):
    committee = Committee(real_cube(2), deep_ensemble=True)
    for rows in lessons(160):
        critics = committee.learn(rows)
    assert committee._judged.error.shape[1] == 1 + len(EVERY)
    assert committee.skills()["ensemble"] not in (0.0, HOPE)
    assert set(committee.weights(critics)) == set(EVERY)


@pytest.mark.parametrize("name", ["real", "mixed"])
def test_a_restored_committee_goes_on_bit_for_bit(early, name):
    cube = mixed_cube() if name == "mixed" else real_cube(2)
    new = points(cube, 20, seed=6)
    whole, parts = (Committee(cube, deep_ensemble=True) for _ in range(2))
    for rows in lessons(92, cube=cube):
        state = parts.state_dict()
        assert plain_state(state) == ""
        parts = Committee(cube, deep_ensemble=True)
        parts.load_state_dict(state)
        one, other = whole.learn(rows), parts.learn(rows)
        assert same(whole.state_dict(), parts.state_dict())
        assert one.there == other.there
        assert same(foretold(one, new), foretold(other, new))
    assert "ensemble" in one.there


def test_states_with_and_without_it_are_taken_up(early):
    plain, deep = Committee(real_cube(2)), Committee(real_cube(2), deep_ensemble=True)
    for rows in lessons(100):
        plain.learn(rows)
        deep.learn(rows)
    more = Committee(real_cube(2), deep_ensemble=True)
    more.load_state_dict(plain.state_dict())
    assert more.skills() == {**plain.skills(), "ensemble": HOPE}
    assert "ensemble" not in more.learn(rows).there  # until scales are tuned again
    for rows in lessons(140):
        critics = more.learn(rows)
    assert "ensemble" in critics.there
    less = Committee(real_cube(2))
    less.load_state_dict(deep.state_dict())
    assert less.skills() == plain.skills()
    assert less.learn(rows).there == list(NAMES)
    new = Committee(real_cube(2), deep_ensemble=True)
    new.load_state_dict(Committee(real_cube(2)).state_dict())
    assert new.skills() == dict.fromkeys(EVERY, HOPE)


def test_a_state_of_other_critics_is_refused():
    committee = Committee(real_cube(2), deep_ensemble=True)
    state = committee.state_dict() | {"number": np.arange(3), "error": np.zeros((3, 6))}
    with pytest.raises(
        ValueError, match=r"^state: wanted errors of 2 or 3 critics, got those of 5"
    ):
        committee.load_state_dict(state)


# ---- what it picks


def together(name, n=60):
    cube = CUBES[name]
    committee = Committee(cube, deep_ensemble=True)
    unit = points(cube, n)
    return cube, committee.learn(rows_of(np.arange(len(unit)), unit, waves(unit)))


@pytest.mark.parametrize("name", CUBES)
def test_it_picks_new_points_in_the_open_cube(early, name):
    cube, critics = together(name)
    way = points(cube, 3, seed=9)
    how = critics, {"ensemble": 1.0}, BoxPolicy(cube), way, 8
    tray = picked(*how, rng())
    assert 1 <= len(tray) <= 8
    assert ((tray.unit > 0) & (tray.unit < 1)).all()
    np.testing.assert_array_equal(tray.unit, cube.canonical(tray.unit))
    if cube.feasible is not None:
        assert cube.feasible(tray.unit).all()
    known = Known(cube)
    known.add(np.concatenate([way, critics.feasibility.unit]))
    assert known.new(tray.unit).all()
    assert set(tray.notes["critic"]) == {"ensemble"}
    mean, spread = critics.ensemble.predict(tray.unit)
    np.testing.assert_array_equal(tray.notes["ensemble_mean"], mean)
    np.testing.assert_array_equal(tray.notes["ensemble_sd"], spread)
    assert same(tray, picked(*how, rng()))


def test_it_picks_better_points_than_chance(early):
    cube, critics = together("real, 5-d", 300)
    tray = picked(critics, {"ensemble": 1.0}, BoxPolicy(cube), points(cube, 3), 32, rng())
    assert np.median(waves(tray.unit)) > np.quantile(waves(points(cube, 2000, seed=8)), 0.95)


def test_it_picks_what_the_process_has_no_time_for(early, monkeypatch):
    monkeypatch.setattr(picking, "BY_GP", 2)
    cube, critics = together("real, 5-d")
    weights = {"gp": 0.5, "quadratic": 0.0, "ensemble": 0.5}
    who = picked(critics, weights, BoxPolicy(cube), points(cube, 3), 16, rng()).notes["critic"]
    assert (who == "gp").sum() == 2
    assert (who == "ensemble").sum() == 14


def test_nothing_likely_to_fail_is_picked(early):
    cube = real_cube(2)
    unit = points(cube, 120)
    reward = waves(unit)
    reward[unit[:, 0] > 0.5] = -np.inf
    critics = Committee(cube, deep_ensemble=True).learn(rows_of(np.arange(120), unit, reward))
    tray = picked(critics, {"ensemble": 1.0}, BoxPolicy(cube), unit[:0], 16, rng())
    assert len(tray) > 0
    assert tray.unit[:, 0].max() < 0.6


# ---- in a campaign


def campaign(**given):
    space = erl.Space(x=erl.Real(0.0, 1.0), y=erl.Real(0.0, 1.0))
    return erl.explore(
        lambda x, y: float((x - 0.3) ** 2 + np.cos(7.0 * y)),
        space,
        erl.Minimize(),
        n_members=64,
        cluster=erl.Simulated(8, seed=3),
        sampler=lambda cube: MaxEnt(cube, learner=Guided(MPO(), **given), learning="inline"),
        seed=3,
        progress=False,
    )


def test_a_campaign_with_it_says_what_it_foretold_and_weighed(early):
    ds = campaign(deep_ensemble=True)
    lessons = ds.erl.learning()
    assert lessons.weight_ensemble.max() > 0
    assert lessons.weight_ensemble.min() == 0.0  # at first
    skill = lessons.skill_ensemble.dropna("lesson")
    assert ((skill >= 0) & (skill <= 1)).all()
    own = ds.note_critic == "ensemble"
    assert own.any()
    assert np.isfinite(ds.note_ensemble_mean.values[own.values]).all()
    plain = campaign()
    assert not [name for name in plain.variables if "ensemble" in str(name)]
    assert not [name for name in plain.erl.learning() if "ensemble" in str(name)]


def test_guided_says_whether_it_has_one():
    assert Guided(MPO(), deep_ensemble=True).describe()["deep_ensemble"] is True
    assert Guided(MPO()).describe()["deep_ensemble"] is False
    with pytest.raises(TypeError, match=r"^deep_ensemble: wanted True or False, got 1$"):
        Guided(MPO(), deep_ensemble=1)
