"""The plain search: `DifferentialEvolution`."""

import sys

import numpy as np
import pytest
import xarray as xr

import ensemblerl as erl
from ensemblerl.records import Cube, Demands, Results
from ensemblerl.samplers import Chain, DifferentialEvolution, Portfolio, Sobol, Uniform
from ensemblerl.samplers.differential_evolution import neighbour, reflected, squares
from ensemblerl.testing import check_sampler
from ensemblerl.testing.cubes import conditional_cube, example_cubes, mixed_cube, real_cube
from ensemblerl.testing.rehearsal import numbered

TIMES = {"launch_time", "start_time", "end_time", "runtime", "worker"}


def rng(seed=0):
    return np.random.default_rng(seed)


def grid(*levels):
    """Ordinal coordinates of so many equal cells."""
    edges = tuple(np.linspace(0.0, 1.0, n + 1) for n in levels)
    return Cube(("ordinal",) * len(levels), levels, edges)


def rewarded(reward):
    reward = np.asarray(reward, dtype=float)
    return Results(reward[:, None], np.where(np.isfinite(reward), "ok", "failed"), reward)


def drive(sampler, reward, n, *, batch=8, seed=0):
    """n members: (n, ndim) points and (n,) rewards; a batch is told when the next one is asked."""
    units, rewards, late = [], [], None
    for number in range(0, n, batch):
        members = numbered(sampler.ask(batch, rng([seed, number])), number, sampler.name)
        sampler.tell(members, Results.pending(batch))
        if late is not None:
            sampler.tell(*late)
        units.append(members.unit)
        rewards.append(reward(members.unit))
        late = members, rewarded(rewards[-1])
    sampler.tell(*late)
    return np.concatenate(units), np.concatenate(rewards)


def sphere(unit):
    return -((unit - 0.3) ** 2).sum(axis=1)


@pytest.mark.parametrize("cube", example_cubes().values(), ids=example_cubes())
def test_laws(cube):
    check_sampler(DifferentialEvolution, cube)


@pytest.mark.parametrize("cube", [grid(3, 4), grid(1), grid(40, 2, 300)], ids=str)
def test_laws_where_all_is_discrete(cube):
    check_sampler(lambda cube: DifferentialEvolution(cube, population=4), cube)


@pytest.mark.parametrize("ndim", [1, 3, 6])
def test_it_converges(ndim):
    best = [
        drive(DifferentialEvolution(real_cube(ndim)), sphere, 400, seed=i)[1].max() for i in (0, 1)
    ]
    chance = drive(Uniform(real_cube(ndim)), sphere, 400)[1].max()
    assert min(best) > 0.1 * chance


def test_steps_shrink_with_the_distance():
    """After 800 members it is much nearer than after 400: it does not stop at some scale."""
    _, reward = drive(DifferentialEvolution(real_cube(3)), sphere, 800)
    assert reward.max() > 0.01 * reward[:400].max()


def test_choices_levels_and_numbers_together():
    def reward(unit):
        cells = mixed_cube().cells(unit)
        return -np.abs(unit[:, 0] - 0.6) - np.abs(cells[:, 1] - 3.0) - (cells[:, 2] != 1)

    _, found = drive(DifferentialEvolution(mixed_cube()), reward, 240)
    assert found.max() > -1e-3


def test_what_counts_under_a_condition_only():
    def reward(unit):
        cells, active = conditional_cube().cells(unit), conditional_cube().active(unit)
        inner = np.where(active[:, 1], -np.abs(unit[:, 1] - 0.9), -0.5)
        return inner - 0.2 * (cells[:, 0] != 1)

    assert drive(DifferentialEvolution(conditional_cube()), reward, 240)[1].max() > -0.01


def test_parents_are_the_best_whoever_proposed_them():
    cube = real_cube(4)
    search, unit = DifferentialEvolution(cube), np.full((60, 4), 0.5)
    unit[:30] = 0.2 + 0.01 * rng().random((30, 4))  # the good ones
    unit[30:] = rng(1).random((30, 4))
    members = numbered(Sobol(cube).ask(60, rng()), 0, "sobol")
    members.unit[:] = unit
    search.tell(members, rewarded(np.arange(60) < 30))
    assert (np.abs(search.ask(200, rng()).unit - 0.205) < 0.03).all()


def test_what_failed_is_no_parent():
    cube = real_cube(2)
    search = DifferentialEvolution(cube)
    members = numbered(Sobol(cube).ask(64, rng()), 0, "sobol")
    left = members.unit[:, 0] < 0.5
    search.tell(members, rewarded(np.where(left, np.nan, 1.0)))
    assert (search.state_dict()["unit"][:, 0] > 0.5).all()
    assert len(search.state_dict()["unit"]) == search.population
    alone = DifferentialEvolution(cube)
    alone.tell(members, rewarded(np.full(64, np.nan)))
    np.testing.assert_array_equal(
        alone.ask(9, rng(5)).unit, DifferentialEvolution(cube).ask(9, rng(5)).unit
    )


def half_failed(fate="failed", n=160):
    """A search that draws near to a point of an edge, beyond which all fail; what it was told."""
    search, best = DifferentialEvolution(real_cube(3)), np.array([0.3, 0.5, 0.5])
    members = numbered(Sobol(real_cube(3)).ask(n, rng()), 0, "sobol")
    members.unit[:] = best + 0.1 * (members.unit - 0.5)
    ok, apart = members.unit[:, 0] > 0.3, ((members.unit - best) ** 2).sum(axis=1)
    results = rewarded(np.where(ok, -apart, np.nan))
    results = Results(results.value, np.where(ok, "ok", fate), results.reward)
    search.tell(members, results)
    return search, members, results


def share_beyond(search):
    return (search.ask(2000, rng(2)).unit[:, 0] < 0.3).mean()


def test_few_children_are_where_members_failed(monkeypatch):
    screened = share_beyond(half_failed()[0])
    monkeypatch.setattr(sys.modules[squares.__module__], "SCREENED", 0)
    plain = share_beyond(half_failed()[0])
    assert plain > 0.18  # 0.01 is its standard error
    assert screened < 0.6 * plain


@pytest.mark.parametrize("fate", ["lost", "stopped"])
def test_what_the_infrastructure_lost_screens_nobody(fate):
    search = half_failed(fate)[0]
    assert not search.state_dict()["failed"].any()
    assert share_beyond(search) > 0.18


@pytest.mark.parametrize("fate", ["invalid", "timeout", "out_of_memory"])
def test_what_failed_in_whatever_way_screens(fate):
    assert share_beyond(half_failed(fate)[0]) < 0.6 * share_beyond(half_failed("lost")[0])


def test_without_failures_nothing_is_screened(monkeypatch):
    asked = []
    monkeypatch.setattr(
        sys.modules[squares.__module__], "squares", lambda *at: asked.append(at) or squares(*at)
    )
    drive(DifferentialEvolution(real_cube(2)), sphere, 64)
    assert not asked
    half_failed()[0].ask(8, rng())
    assert asked


def test_a_state_of_a_version_that_did_not_remember_failures_is_taken_up():
    search = half_failed()[0]
    state = search.state_dict()
    old = {name: state[name] for name in state if name not in ("settled", "place", "failed")}
    other = DifferentialEvolution(real_cube(3))
    other.load_state_dict(old)
    assert other.ask(20, rng()).unit.shape == (20, 3)
    members = numbered(Sobol(real_cube(3)).ask(9, rng()), 900, "sobol")
    other.tell(members, rewarded(np.where(np.arange(9) < 4, 1.0, np.nan)))
    assert other.state_dict()["failed"].sum() == 5


def test_a_member_of_another_branch_is_no_nearer_for_having_less_in_common():
    """Six coordinates in each branch: points of one's own are on average nearer than others."""
    kinds = ("categorical", *("real",) * 12)
    parents = ((), *[((0, (0,)),)] * 6, *[((0, (1,)),)] * 6)
    cube = Cube(kinds, (2, *(0,) * 12), (np.array([0.0, 0.5, 1.0]), *(None,) * 12), parents)
    unit = cube.canonical(rng(2).random((400, 13)))
    branch = cube.cells(unit)[:, 0]
    apart = squares(cube, unit, unit)
    np.fill_diagonal(apart, np.inf)
    assert (branch[apart.argmin(axis=1)] == branch).mean() > 0.95


def test_it_goes_on_where_all_that_is_near_fails():
    """Good members far apart, each in the middle of failures."""
    cube = real_cube(2)
    search = DifferentialEvolution(cube)
    corner = np.array([[0.1, 0.1], [0.1, 0.9], [0.9, 0.1], [0.9, 0.9]])
    around = (corner[:, None] + 1e-3 * rng().standard_normal((4, 30, 2))).reshape(-1, 2)
    members = numbered(Sobol(cube).ask(124, rng()), 0, "sobol")
    members.unit[:] = np.concatenate([corner, around])
    search.tell(members, rewarded(np.where(np.arange(124) < 4, 1.0, np.nan)))
    assert len(np.unique(search.ask(500, rng()).unit, axis=0)) == 500


def test_what_it_remembers_of_fates_depends_on_no_order(monkeypatch):
    monkeypatch.setattr(sys.modules[squares.__module__], "NEWEST", 40)
    search, members, results = half_failed()
    state = search.state_dict()
    np.testing.assert_array_equal(state["settled"], members.number[-40:])
    np.testing.assert_array_equal(state["place"], members.unit[-40:])
    np.testing.assert_array_equal(state["failed"], results.fate[-40:] == "failed")
    other = DifferentialEvolution(real_cube(3))
    order = rng(4).permutation(len(members))
    for rows in np.array_split(np.concatenate([order, order[:20]]), 9):  # some twice
        part = Results(results.value[rows], results.fate[rows], results.reward[rows])
        other.tell(members.take(rows), part)
    for name in ("settled", "place", "failed"):
        np.testing.assert_array_equal(other.state_dict()[name], state[name])
    again = DifferentialEvolution(real_cube(3))
    again.load_state_dict(state)
    np.testing.assert_array_equal(again.ask(50, rng(6)).unit, search.ask(50, rng(6)).unit)


def test_how_far_apart_points_are():
    thirds, halves = np.linspace(0.0, 1.0, 4), np.linspace(0.0, 1.0, 3)
    kinds = ("categorical", "ordinal", "real")
    cube = Cube(kinds, (3, 2, 0), (thirds, halves, None), ((), (), ((0, (0,)),)))
    one = np.array([[0.1, 0.1, 0.2], [0.5, 0.1, 0.5]])
    two = np.array([[0.3, 0.4, 0.6], [0.1, 0.9, 0.2], [0.9, 0.1, 0.5]])
    # the same category and level; levels are half apart, categories one; the number counts in
    # the first category only, and all is over how many count
    wanted = [[0.16 / 3, 0.25 / 3, 1.0 / 2], [1.0 / 2, 1.25 / 2, 1.0 / 2]]
    np.testing.assert_allclose(squares(cube, one, two), wanted, atol=1e-15)


def test_equal_rewards_are_no_trouble():
    unit, _ = drive(DifferentialEvolution(real_cube(2)), lambda unit: np.zeros(len(unit)), 64)
    assert len(np.unique(unit, axis=0)) == 64


def test_where_all_is_discrete_nothing_is_run_twice():
    def reward(unit):
        return -np.abs(grid(6, 6).cells(unit) - 4.0).sum(axis=1)

    unit, found = drive(DifferentialEvolution(grid(6, 6)), reward, 24, batch=3)
    assert len(np.unique(grid(6, 6).cells(unit), axis=0)) == 24
    assert found.max() == 0.0
    more, _ = drive(DifferentialEvolution(grid(2, 2)), reward, 9, batch=3)  # more than there are
    assert len(more) == 9


def test_neighbours_of_levels():
    down = np.array([True, False, True, False])
    level = np.array([0, 3, 2, 2])
    assert neighbour(level, down, 4).tolist() == [1, 2, 1, 3]
    assert neighbour(np.zeros(2, int), down[:2], 1).tolist() == [0, 0]
    assert neighbour(np.array([0, 1]), down[:2], 2).tolist() == [1, 0]


def test_sides_throw_back():
    unit = np.array([0.3, -0.2, 1.2, 2.3, -1.3, 1.0])
    np.testing.assert_allclose(reflected(unit), [0.3, 0.2, 0.8, 0.3, 0.7, 1.0], atol=1e-15)


def test_a_goal_without_an_extremum_has_no_use_for_it():
    cube = real_cube(2)
    search = DifferentialEvolution(cube)
    mixed = Portfolio([Uniform(cube), search])
    assert not search.spent
    search.heed(Demands(temperature=1.0))
    assert search.spent
    np.testing.assert_allclose(mixed.live_shares, [1.0, 0.0])
    assert set(mixed.ask(40, rng()).notes["proposer"]) == {"uniform"}
    assert len(search.ask(5, rng())) == 5
    search.heed(Demands(ranked=True))
    assert set(mixed.ask(40, rng()).notes["proposer"]) == {"uniform", "differential_evolution"}


SPACE = erl.Space(x=erl.Real(-1.0, 1.0), n=erl.Integer(1, 9), kind=erl.Choice("a", "b", "c"))


def bowl(x, n, kind):
    if x > 0.9:
        raise ArithmeticError("too far")
    return (x - 0.3) ** 2 + abs(n - 7) + (kind != "b")


def run(store=None, n_members=120, sampler=DifferentialEvolution, **options):
    options = {"cluster": "serial", "seed": 3, "progress": False} | options
    goal = erl.Minimize("value")
    return erl.explore(
        bowl, SPACE, goal, n_members=n_members, store=store, sampler=sampler, **options
    ).load()


def test_a_campaign_in_which_results_come_in_any_order():
    cluster = erl.Simulated(8, order="shuffled", seed=2, loss_rate=0.05)
    ds = run(cluster=cluster, n_members=300)
    assert float(ds["value"].min()) < 1e-3
    assert np.isnan(ds["log_prob"]).all()


def test_a_campaign_goes_on_as_if_it_had_not_stopped(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", n_members=50)
    xr.testing.assert_identical(
        run(tmp_path / "parts").drop_vars(TIMES).drop_attrs(),
        whole.drop_vars(TIMES).drop_attrs(),
    )


def test_the_same_object_serves_another_campaign():
    search = DifferentialEvolution(SPACE.cube)
    one, two = (run(sampler=search, n_members=40) for _ in range(2))
    np.testing.assert_array_equal(one["x"], two["x"])


def test_it_goes_on_from_points_of_ones_own():
    cube = real_cube(3)
    chain = Chain([Sobol(cube), DifferentialEvolution(cube)])
    assert repr(chain.parts[1]) == (
        "DifferentialEvolution(ndim=3, population=18, name='differential_evolution')"
    )


@pytest.mark.parametrize("population", [3, 0, 2.5, True, "9"])
def test_wrong_arguments(population):
    with pytest.raises(ValueError, match=r"population: wanted a whole number >= 4 or None, got"):
        DifferentialEvolution(real_cube(2), population=population)
    with pytest.raises(TypeError, match=r"cube: wanted a Cube such as space.cube, got int"):
        DifferentialEvolution(3)
