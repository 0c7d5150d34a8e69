"""Fixed designs, lists, chains and portfolios."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ensemblerl import Minimize, explore, samplers
from ensemblerl.parameters import Choice, Integer, Real
from ensemblerl.records import Cube, Proposals, Results
from ensemblerl.samplers import (
    Chain,
    DifferentialEvolution,
    LatinHypercube,
    Listed,
    Portfolio,
    Sobol,
    Uniform,
)
from ensemblerl.samplers import base as base_module
from ensemblerl.samplers.portfolio import log_mean
from ensemblerl.samplers.uniform import open_interval
from ensemblerl.space import Space
from ensemblerl.testing import check_sampler
from ensemblerl.testing.cubes import below_the_diagonal, conditional_cube, example_cubes, real_cube
from ensemblerl.testing.learner import BoxLearner
from ensemblerl.testing.rehearsal import Rehearsal, numbered

DESIGNS = {
    "uniform": Uniform,
    "sobol": Sobol,
    "latin hypercube": lambda cube: LatinHypercube(cube, 48),
}


def own_points(cube, n=230):
    return np.random.default_rng(5).uniform(0.01, 0.49, (n, cube.ndim))


def listed(cube, n=230, name="listed"):
    return Listed(cube, own_points(cube, n), name=name)


PARTS = {
    **DESIGNS,
    "listed": listed,
    "listed, soon spent": lambda cube: listed(cube, 20),
    "chain": lambda cube: Chain([listed(cube, 7), Sobol(cube)]),
    "chain of three": lambda cube: Chain(
        [listed(cube, 7), listed(cube, 30, "more"), BoxLearner(cube)]
    ),
    "portfolio": lambda cube: Portfolio(
        [Sobol(cube), BoxLearner(cube), listed(cube, 7)], shares=[1, 2, 1]
    ),
    "portfolio in a portfolio": lambda cube: Portfolio(
        [Uniform(cube), Portfolio([BoxLearner(cube), listed(cube, 40)], name="inner")],
    ),
    "portfolio of a chain": lambda cube: Portfolio(
        [Chain([listed(cube, 7), listed(cube, 9, "more")]), LatinHypercube(cube, 10)]
    ),
    "portfolio with credit": lambda cube: Portfolio(
        [Sobol(cube), DifferentialEvolution(cube), listed(cube, 7)], credit=True
    ),
}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", PARTS)
def test_laws(name):
    cubes = example_cubes()
    for cube in cubes if name in DESIGNS else ("mixed", "conditional", "constrained"):
        check_sampler(PARTS[name], cubes[cube])


@pytest.mark.parametrize("make", DESIGNS.values(), ids=DESIGNS)
@pytest.mark.parametrize("cube", example_cubes().values(), ids=example_cubes())
def test_a_design_does_not_depend_on_how_it_is_asked(make, cube):
    whole = make(cube).ask(2500, rng()).unit

    @settings(max_examples=8, deadline=None)
    @given(st.lists(st.integers(1, 900), min_size=1, max_size=8))
    def pieces(sizes):
        design = make(cube)
        got = [design.ask(n, rng()).unit for n in sizes]
        joined = np.concatenate(got)
        np.testing.assert_array_equal(joined[:2500], whole[: len(joined)])

    pieces()


@pytest.mark.parametrize("make", DESIGNS.values(), ids=DESIGNS)
def test_candidates_in_any_order(make):
    one, two = make(real_cube(3)), make(real_cube(3))
    whole = one.candidates(11, 0, 6000)
    for first in (5000, 0, 1023, 3000, 1024, 7):
        np.testing.assert_array_equal(two.candidates(11, first, 60), whole[first : first + 60])
    assert not (two.candidates(12, 0, 60) == whole[:60]).any()


@pytest.mark.parametrize("make", DESIGNS.values(), ids=DESIGNS)
def test_another_rng_gives_another_design(make):
    one, two = make(real_cube(2)), make(real_cube(2))
    assert not (one.ask(10, rng(1)).unit == two.ask(10, rng(2)).unit).any()


@pytest.mark.parametrize("make", DESIGNS.values(), ids=DESIGNS)
def test_a_resume_needs_only_the_points(make):
    cube = real_cube(2)
    whole = make(cube).ask(30, rng()).unit
    first = make(cube)
    members = numbered(first.ask(20, rng()), 0, first.name)
    second = make(cube)
    second.tell(members, Results.pending(20))
    np.testing.assert_array_equal(second.ask(10, rng(77)).unit, whole[20:])


def test_points_of_others_do_not_move_a_design():
    cube = real_cube(2)
    design, other = Sobol(cube), Sobol(cube, name="another")
    design.tell(numbered(other.ask(20, rng(5)), 0, "another"), Results.pending(20))
    np.testing.assert_array_equal(design.ask(5, rng()).unit, Sobol(cube).ask(5, rng()).unit)


def test_sobol_is_balanced():
    unit = Sobol(real_cube(5)).ask(256, rng(3)).unit
    for column in unit.T:
        assert (np.bincount((256 * column).astype(int), minlength=256) == 1).all()
    pairs = (16 * unit[:, :2]).astype(int)
    assert len(np.unique(pairs, axis=0)) > 200


def test_sobol_beats_chance():
    def errors(make):
        units = [make(real_cube(4)).ask(512, rng(seed)).unit for seed in range(20)]
        return np.std([np.prod(unit, axis=1).mean() - 0.5**4 for unit in units])

    assert errors(Sobol) < 0.2 * errors(Uniform)


def test_sobol_says_what_it_cannot():
    cube = Cube(("real",) * 21202, (0,) * 21202, (None,) * 21202)
    with pytest.raises(ValueError, match="cube: wanted at most 21201 coordinates, got 21202"):
        Sobol(cube)


def test_latin_hypercubes_one_after_the_other():
    unit = LatinHypercube(real_cube(3), 20).ask(60, rng()).unit.reshape(3, 20, 3)
    for block in unit:
        for column in block.T:
            assert sorted((20 * column).astype(int)) == list(range(20))
    assert not (unit[0] == unit[1]).any()


@pytest.mark.parametrize("n", [0, -3, 2.5, True, "8"])
def test_latin_hypercube_wants_a_whole_number(n):
    with pytest.raises(ValueError, match="n: wanted a whole number >= 1, got"):
        LatinHypercube(real_cube(2), n)


def test_the_interval_is_open():
    words = np.array([0, 2**64 - 1], dtype=np.uint64)
    low, high = open_interval(words)
    assert 0.0 < low < 1e-15
    assert 1.0 - 1e-15 < high < 1.0


def test_rejected_counts_what_was_skipped():
    cube = example_cubes()["constrained"]
    design, whole = Sobol(cube), Sobol(real_cube(3))
    asked = [design.ask(n, rng()) for n in (10, 1, 30)]
    index = np.concatenate([p.notes["design_index"] for p in asked])
    skipped = np.concatenate([p.notes["rejected"] for p in asked])
    assert index[-1] + 1 == len(index) + skipped.sum()
    assert skipped.sum() > 10
    candidates = whole.ask(int(index[-1]) + 1, rng()).unit
    kept = candidates[below_the_diagonal(candidates)]
    np.testing.assert_array_equal(np.concatenate([p.unit for p in asked]), kept)


def test_an_infeasible_space_is_an_error(monkeypatch):
    monkeypatch.setattr(base_module, "LIMIT", 5000)
    cube = Cube(("real",), (0,), (None,), feasible=lambda unit: unit[:, 0] < 0)
    with pytest.raises(
        ValueError, match=r"uniform: the known constraint left 0 of .*a share of 0\)"
    ):
        Uniform(cube).ask(1, rng())


def test_listed_ends():
    sampler = listed(real_cube(2), 5)
    assert not sampler.spent
    assert [len(sampler.ask(3, rng())) for _ in range(3)] == [3, 2, 0]
    assert sampler.spent
    assert np.isnan(listed(real_cube(2), 5).ask(3, rng()).notes["log_prob"]).all()


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ([[0.5]], r"unit: wanted shape \(m, 2\), got \(1, 1\)"),
        ([0.5, 0.5], r"unit: wanted shape \(m, 2\), got \(2,\)"),
        ([[0.5, 0.5], [0.5, 1.0]], r"unit: wanted points in \(0, 1\), got .* in row 1"),
        ([[0.5, np.nan]], "in row 0"),
        ([[0.1, 0.1], [0.9, 0.9]], "row 1 breaks the known constraint"),
    ],
)
def test_listed_checks_its_points(unit, message):
    cube = Cube(("real",) * 2, (0, 0), (None, None), feasible=below_the_diagonal)
    with pytest.raises(ValueError, match=message):
        Listed(cube, unit)


def test_listed_sets_idle_coordinates():
    sampler = Listed(conditional_cube(), [[0.2, 0.9, 0.05, 0.9]])
    np.testing.assert_array_equal(sampler.ask(1, rng()).unit, [[0.2, 0.5, 0.05, 0.5]])


def test_no_points_at_all():
    assert len(Listed(real_cube(2), []).ask(3, rng())) == 0


SPACE = Space(
    x=Real(0.0, 4.0),
    n=Integer(1, 8),
    scheme=Choice("rk4", "euler"),
    fast=Choice(True, False),
    step=Real(0.1, 1.0, when={"scheme": "euler"}),
)
ROWS = [
    {"x": 1.0, "n": 3, "scheme": "rk4", "fast": True},
    {"x": 3.5, "n": 8, "scheme": "euler", "fast": False, "step": 0.25},
]


def tables(folder):
    frame = pd.DataFrame(ROWS)
    frame.assign(rmse=0.5).to_csv(folder / "points.csv", index=False)
    return {
        "dicts": ROWS,
        "frame": frame.assign(rmse=0.5),
        "dataset": xr.Dataset.from_dataframe(frame.assign(rmse=0.5)),
        "columns": {name: frame[name].to_numpy() for name in SPACE.names},
        "path": folder / "points.csv",
        "text path": str(folder / "points.csv"),
    }


@pytest.mark.parametrize("kind", ["dicts", "frame", "dataset", "columns", "path", "text path"])
def test_listed_of_whatever_people_have(tmp_path, kind):
    unit = Listed.of(SPACE, tables(tmp_path)[kind], name="mine").ask(9, rng()).unit
    points = SPACE.to_points(unit)
    assert [SPACE.point(points, i) for i in range(2)] == ROWS


def test_listed_of_wrong_things(tmp_path):
    with pytest.raises(TypeError, match="rows: wanted a list of dicts"):
        Listed.of(SPACE, 3)
    with pytest.raises(ValueError, match=r"\['scheme', 'fast', 'step'\] are not there"):
        Listed.of(SPACE, pd.DataFrame({"x": [1.0], "n": [2]}))
    with pytest.raises(ValueError, match="tpyo"):
        Listed.of(SPACE, [{**ROWS[0], "tpyo": 1}])
    path = tmp_path / "wrong.csv"
    path.write_text("x,n,scheme,fast,step\n1.0,two,rk4,true,\n")
    with pytest.raises(ValueError, match="row 0: n: wanted a whole number, got 'two'"):
        Listed.of(SPACE, path)


def test_chain_goes_on_with_the_next():
    cube = real_cube(2)
    chain = Chain([listed(cube, 3), Sobol(cube)])
    asked = [chain.ask(2, rng(i)) for i in range(3)]
    names = np.concatenate([p.notes["proposer"] for p in asked]).tolist()
    assert names == ["listed"] * 3 + ["sobol"] * 3
    assert np.isnan(asked[1].notes["log_prob"][0])
    assert asked[1].notes["log_prob"][1] == 0.0
    assert chain.has_density


FIXED = {
    **DESIGNS,
    "listed": listed,
    "chain": lambda cube: Chain([listed(cube, 5), LatinHypercube(cube, 4), Sobol(cube)]),
    "portfolio": lambda cube: Portfolio([Sobol(cube), Uniform(cube)], shares=[1, 3]),
    "portfolio with a list": lambda cube: Portfolio([Sobol(cube), listed(cube, 9), Uniform(cube)]),
    "portfolio of lists": lambda cube: Portfolio([listed(cube, 9), listed(cube, 20, "more")]),
    "portfolio, one without a share": lambda cube: Portfolio(
        [listed(cube, 9), Uniform(cube), Sobol(cube)], shares=[2, 0, 1], floor=0.0
    ),
    "portfolio in a portfolio": lambda cube: Portfolio(
        [
            Portfolio([listed(cube, 6), Sobol(cube)], name="one"),
            Portfolio([listed(cube, 8, "more"), Uniform(cube)], name="two"),
            Chain([listed(cube, 3, "third"), listed(cube, 4, "fourth")]),
        ]
    ),
    "chain of a portfolio": lambda cube: Chain(
        [
            listed(cube, 3),
            Portfolio([listed(cube, 9, "a"), listed(cube, 4, "b")]),
            Portfolio([Sobol(cube), LatinHypercube(cube, 7)], name="last"),
        ]
    ),
}
"""Samplers that no result changes."""


def in_pieces(sampler, sizes):
    """Note name -> column, and the points: what a campaign with these asks has in its ledger."""
    game = Rehearsal(sampler.cube.ndim, 0)
    for i, n in enumerate(sizes):
        game.launch(sampler.ask(n, rng(i)), sampler.name)
    return {"unit": game.ledger["unit"], **game.ledger.notes}


@pytest.mark.parametrize("make", FIXED.values(), ids=FIXED)
@pytest.mark.parametrize("kind", ["mixed", "conditional", "constrained"])
def test_batching_is_of_no_account(make, kind):
    cube = example_cubes()[kind]
    whole = in_pieces(make(cube), [150])

    @settings(max_examples=10, deadline=None)
    @given(st.lists(st.integers(0, 15), min_size=1, max_size=9))
    @example([1] * 60)
    def pieces(sizes):
        got = in_pieces(make(cube), [0, *sizes])
        n = min(sum(sizes), len(whole["unit"]))
        assert len(got["unit"]) == n
        for name, column in got.items():
            np.testing.assert_array_equal(column, whole[name][:n], err_msg=name)

    pieces()


@pytest.mark.parametrize("make", FIXED.values(), ids=FIXED)
@pytest.mark.parametrize("cut", [1, 4, 20])
def test_what_is_fixed_needs_only_its_points_to_go_on(make, cut):
    cube = example_cubes()["constrained"]
    whole, first, second = make(cube).ask(40, rng()).unit, make(cube), make(cube)
    members = numbered(first.ask(cut, rng()), 0, first.name)
    for rows in np.array_split(rng().permutation(cut), 3):
        second.tell(members.take(rows), Results.pending(len(rows)))
    np.testing.assert_array_equal(second.ask(40 - cut, rng(99)).unit, whole[cut:])


def explored(cluster, **kwargs):
    space = Space(
        x=Real(0.0, 4.0),
        kind=Choice("a", "b"),
        start=[{"x": float(i), "kind": "a"} for i in (1, 2)],
    )
    return explore(
        lambda x, kind: x,
        space,
        Minimize(),
        sampler=lambda cube: Portfolio([Sobol(cube), Uniform(cube)]),
        n_members=41,
        seed=3,
        cluster=cluster,
        progress=False,
        **kwargs,
    )


def test_a_portfolio_explores_the_same_points_wherever_it_runs():
    one = explored("serial", bundle=1)
    with ThreadPoolExecutor(2) as pool:
        others = [explored("serial", bundle=5), explored("serial", n_pending=7), explored(pool)]
    assert set(one.proposer.values) == {"start", "sobol", "uniform"}
    for other in others:
        for name in ("x", "kind", "proposer", "value"):
            np.testing.assert_array_equal(one[name], other[name])


def test_a_chain_killed_in_its_list_goes_on_with_the_same_design():
    cube = real_cube(2)

    def chain():
        return Chain([listed(cube, 5), Sobol(cube)])

    whole, first, second = chain().ask(20, rng()).unit, chain(), chain()
    members = numbered(first.ask(3, rng()), 0, "chain")
    second.tell(members, Results.pending(3))
    np.testing.assert_array_equal(second.ask(17, rng(99)).unit, whole[3:])


@pytest.mark.parametrize("assemble", [Chain, Portfolio])
def test_parts_have_names_of_their_own(assemble):
    cube = real_cube(2)
    with pytest.raises(ValueError, match=r"parts: wanted names of their own.*'sobol'"):
        assemble([Sobol(cube), Sobol(cube)])
    with pytest.raises(ValueError, match="'sobol'"):
        assemble([Sobol(cube), Chain([Sobol(cube)])])
    with pytest.raises(ValueError, match="parts: wanted at least one"):
        assemble([])
    with pytest.raises(TypeError, match="parts: wanted samplers, got"):
        assemble([Sobol])


class Box(BoxLearner):
    """A box that stays where it is."""

    def centre(self):
        return np.full(self.cube.ndim, 0.5)


def test_the_density_of_the_mixture():
    cube = real_cube(2)
    portfolio = Portfolio(
        [Uniform(cube), Box(cube), listed(cube)], shares=[0.2, 0.6, 0.2], floor=0.0
    )
    asked = portfolio.ask(4000, rng())
    unit, note = asked.unit, asked.notes["log_prob"]
    from_list = asked.notes["proposer"] == "listed"
    inside = (np.abs(unit - 0.5) <= 0.25).all(axis=1)
    # Box: 0.5 everywhere and 0.5 * 4 more inside; a quarter uniform, three quarters box.
    wanted = np.log(0.25 + 0.75 * np.where(inside, 2.5, 0.5))
    np.testing.assert_allclose(note[~from_list], wanted[~from_list], rtol=1e-12)
    assert np.isnan(note[from_list]).all()
    np.testing.assert_allclose(portfolio.density_share, 0.8 / 0.8)  # the list is spent


def test_shares_are_kept_within_chance():
    cube = real_cube(2)
    parts = [Uniform(cube, name=str(i)) for i in range(3)]
    portfolio = Portfolio(parts, shares=[0, 1, 3], floor=0.1)
    np.testing.assert_allclose(portfolio.shares, [0.1, 0.1 + 0.7 / 4, 0.1 + 2.1 / 4])
    proposer = portfolio.ask(4000, rng()).notes["proposer"]
    found = np.array([(proposer == str(i)).mean() for i in range(3)])
    error = np.sqrt(portfolio.shares * (1 - portfolio.shares) / 4000)
    assert (np.abs(found - portfolio.shares) < 5 * error).all()


def test_a_spent_part_leaves_its_share():
    cube = real_cube(2)
    portfolio = Portfolio([listed(cube, 3), listed(cube, 4, "more")])
    assert len(portfolio.ask(5, rng())) == 5
    assert len(portfolio.ask(5, rng())) == 2
    assert portfolio.spent
    assert len(portfolio.ask(5, rng())) == 0


class Ending(Box):
    """Has a density and comes up short."""

    def ask(self, n, rng, context=None):
        return super().ask(n // 2, rng, context)


def test_a_part_with_density_that_runs_out_leaves_no_density():
    cube = real_cube(2)
    asked = Portfolio([Uniform(cube), Ending(cube)]).ask(50, rng())
    assert len(asked) == 50
    assert np.isnan(asked.notes["log_prob"]).all()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"floor": 0.6}, r"floor: wanted a share in \[0, 1/2\] for 2 parts, got 0.6"),
        ({"floor": -0.1}, "floor: wanted"),
        ({"shares": [1.0]}, "shares: wanted 2 numbers >= 0, not all 0, got"),
        ({"shares": [1.0, -1.0]}, "shares: wanted"),
        ({"shares": [0.0, 0.0]}, "shares: wanted"),
        ({"shares": [np.nan, 1.0]}, "shares: wanted"),
    ],
)
def test_wrong_shares(keywords, message):
    cube = real_cube(2)
    with pytest.raises(ValueError, match=message):
        Portfolio([Uniform(cube), Sobol(cube)], **keywords)


class Mute(Uniform):
    log_density = property()


def test_a_mixture_of_uniform_parts_is_exactly_uniform():
    cube = real_cube(2)
    for n in (2, 3, 7, 11):
        parts = [Uniform(cube, name=str(i)) for i in range(n)]
        portfolio = Portfolio(parts, shares=rng(n).random(n), floor=0.01)
        assert (portfolio.ask(50, rng()).notes["log_prob"] == 0.0).all()
        assert (portfolio.log_density(np.full((3, 2), 0.5)) == 0.0).all()


def test_log_mean_where_there_is_no_density():
    logs = np.log([[0.5, 1e-300], [1.0, 1.0]])
    with np.errstate(divide="ignore"):
        logs = np.concatenate([logs, np.log([[0.0], [0.0]])], axis=1)
    np.testing.assert_allclose(log_mean(logs, np.array([3.0, 1.0]))[0], np.log(0.625))
    np.testing.assert_allclose(log_mean(logs, np.array([3.0, 1.0]))[1], np.log(0.25))
    assert log_mean(logs, np.array([3.0, 1.0]))[2] == -np.inf


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_every_sampler_says_its_cube(make):
    cube = example_cubes()["mixed"]
    assert make(cube).cube is cube


class Guest:
    """A sampler that does not say its cube."""

    name, has_density, order_free = "guest", False, True

    def __init__(self, cube):
        self.inner = BoxLearner(cube)

    def __getattr__(self, name):
        if name in ("ask", "tell", "state_dict", "load_state_dict", "describe"):
            return getattr(self.inner, name)
        raise AttributeError(name)


@pytest.mark.parametrize("assemble", [Chain, Portfolio])
def test_parts_are_on_one_cube(assemble):
    with pytest.raises(ValueError, match=r"those of 'sobol' and 'uniform' differ in kinds, "):
        assemble([Sobol(real_cube(2)), Uniform(real_cube(3))])
    cubes = example_cubes()
    with pytest.raises(ValueError, match="differ in"):
        assemble([Sobol(cubes["mixed"]), Uniform(real_cube(3))])
    with pytest.raises(TypeError, match="parts: wanted a list of samplers, got Cube"):
        assemble(real_cube(2))
    assert assemble([Guest(real_cube(2)), Sobol(real_cube(2))]).cube.ndim == 2


def test_parts_that_do_not_say_their_cube():
    assert Chain([Guest(real_cube(2))]).cube is None
    with pytest.raises(TypeError, match="parts: wanted one sampler at least with a cube"):
        Portfolio([Guest(real_cube(2))])


def test_they_show_what_they_are():
    cube = real_cube(2)
    parts = [listed(cube, 3), LatinHypercube(cube, 10)]
    inner = "[Listed(3 points, ndim=2, name='listed'), "
    inner += "LatinHypercube(ndim=2, n=10, name='latin_hypercube')]"
    assert repr(Chain(parts)) == f"Chain({inner}, name='chain')"
    told = repr(Portfolio(parts, shares=[1, 3], floor=0.0))
    assert told == f"Portfolio({inner}, shares=[0.25, 0.75], name='portfolio')"


def test_completion_shows_samplers_only():
    assert dir(samplers) == sorted(samplers.__all__)


def test_a_density_must_be_offered():
    cube = real_cube(2)
    with pytest.raises(TypeError, match="'uniform' has a density, wanted a log_density method"):
        Portfolio([Mute(cube), Sobol(cube)])


def test_notes_of_parts_are_merged_with_missing_values():
    class Noting(Box):
        def ask(self, n, rng, context=None):
            asked = super().ask(n, rng, context)
            extra = {"arm": np.arange(n), "why": np.full(n, "box"), "pair": np.ones((n, 2))}
            return Proposals(asked.unit, {**asked.notes, **extra, "sure": np.ones(n, bool)})

    cube = real_cube(2)
    notes = Portfolio([Noting(cube), listed(cube)]).ask(30, rng()).notes
    other = notes["proposer"] == "listed"
    assert 0 < other.sum() < 30
    assert (notes["arm"][other] == -1).all()
    assert (notes["why"][other] == "").all()
    assert np.isnan(notes["pair"][other]).all()
    assert not notes["sure"][other].any()
    assert notes["sure"][~other].all()


def test_metrics_carry_the_name_of_their_part():
    cube = real_cube(2)
    chain = Chain([BoxLearner(cube), Sobol(cube)])
    members = numbered(chain.ask(3, rng()), 0, "chain")
    assert chain.tell(members, Results.pending(3)) == {"box/told": 3.0}


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_descriptions_are_json(make):
    told = make(real_cube(2)).describe()
    assert told["sampler"]
    assert json.loads(json.dumps(told)) == told
