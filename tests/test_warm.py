"""Hints: out of stores, tables and guesses into the cube, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import ensemblerl as erl
from ensemblerl.provenance import Mismatch
from ensemblerl.records import Hints
from ensemblerl.samplers.chain import Chain
from ensemblerl.samplers.listed import Listed
from ensemblerl.samplers.portfolio import Portfolio
from ensemblerl.samplers.sobol import Sobol
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.warm import earlier as earlier_module
from ensemblerl.warm.earlier import Campaigned, Variables
from ensemblerl.warm.ranked import FIRST, MOST, WORTH, worths
from ensemblerl.warm.starting import WarmStart, checksum, hand_over, starting

SPACE = erl.Space(
    x=erl.Real(-5.0, 5.0), r=erl.Real(0.01, 100.0, log=True), kind=erl.Choice("a", "b")
)
GOAL = erl.Minimize("rmse")
ROWS = [
    {"x": 1.0, "r": 1.0, "kind": "a", "rmse": 0.1},
    {"x": 9.0, "r": 1.0, "kind": "a", "rmse": 0.0},
    {"x": -3.0, "r": 10.0, "kind": "b", "rmse": 2.0},
    {"x": 0.0, "r": 0.1, "kind": "c", "rmse": 0.2},
    {"x": 2.0, "r": 0.1, "kind": "b", "rmse": None},
]


def simulate(x, r, kind):
    miss = (x - 1.0) ** 2 + np.log(r) ** 2 + (kind == "b")
    return {"rmse": miss, "cost": -x}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A store of 40 members, of which some failed."""

    def some(x, r, kind):
        if x < -3.0:
            raise ValueError("too far")
        return simulate(x, r, kind)

    path = tmp_path_factory.mktemp("warm") / "earlier"
    erl.explore(
        some, SPACE, GOAL, n_members=40, sampler="sobol", cluster="serial", store=path, seed=1,
        progress=False,
    )  # fmt: skip
    return path


def best_of(hints, space=SPACE):
    """Physical values of the heaviest hint."""
    unit = hints.unit[[np.argmax(hints.weight)]]
    return {name: column[0] for name, column in space.to_points(unit).items()}


class TestTables:
    @pytest.mark.parametrize("kind", ["dicts", "frame", "dataset", "columns", "csv"])
    def test_all_kinds_say_the_same(self, kind, tmp_path):
        frame = pd.DataFrame(ROWS)
        frame.to_csv(tmp_path / "t.csv", index=False)
        tables = {
            "dicts": ROWS,
            "frame": frame,
            "dataset": xr.Dataset.from_dataframe(frame),
            "columns": {name: frame[name].tolist() for name in frame},
            "csv": tmp_path / "t.csv",
        }
        hints, about = erl.Earlier(tables[kind], value="rmse").hints(SPACE, erl.Minimize())
        assert best_of(hints) == {"x": 1.0, "r": pytest.approx(1.0), "kind": "a"}
        assert about["used"] == 2
        assert about["left_out"] == {"without a reward": 1, "outside the space": 2}
        assert about["parameters"] == ["x", "r", "kind"]
        np.testing.assert_allclose(hints.unit[0], [0.6, 0.5, 0.25])
        np.testing.assert_array_equal(hints.first, hints.unit)

    def test_the_sense_is_the_goals(self):
        hints, _ = erl.Earlier(ROWS, value="rmse").hints(SPACE, erl.Maximize())
        assert best_of(hints)["kind"] == "b"

    def test_without_value_the_goal_reads_its_variables(self):
        rows = [{**row, "cost": cost} for row, cost in zip(ROWS, [5, 0, 1, 0, 0], strict=True)]
        goal = erl.Minimize("rmse", subject_to="cost <= 2")
        hints, about = erl.Earlier(rows).hints(SPACE, goal)
        assert (about["used"], best_of(hints)["kind"]) == (1, "b")

    def test_what_is_not_there_is_unknown(self):
        rows = [{"x": 1.0, "rmse": 1.0}, {"x": None, "r": 2.0, "rmse": 0.5}, {"rmse": 0.1}]
        hints, about = erl.Earlier(rows, value="rmse").hints(SPACE, GOAL)
        np.testing.assert_array_equal(np.isnan(hints.unit), [[1, 0, 1], [0, 1, 1]])
        assert about["left_out"] == {"without a parameter": 1}
        assert hints.first.shape == (2, 3)
        assert ((hints.first > 0) & (hints.first < 1)).all()

    def test_inactive_parameters_and_infeasible_rows(self):
        space = erl.Space(
            opt=erl.Choice("sgd", "adam"),
            momentum=erl.Real(0.0, 1.0, when={"opt": "sgd"}),
            y=erl.Real(0.0, 1.0),
            constraints=["y <= 0.5"],
        )
        rows = [
            {"opt": "adam", "momentum": None, "y": 0.25, "v": 1.0},
            {"opt": "sgd", "momentum": 0.9, "y": 0.9, "v": 0.0},
            {"opt": "adam", "y": None, "v": 2.0},
        ]
        hints, about = erl.Earlier(rows, value="v").hints(space, GOAL)
        assert about["left_out"] == {"infeasible": 1}
        assert hints.first[0].tolist() == [0.75, 0.5, 0.25]
        assert space.feasible(hints.first).all()

    @pytest.mark.parametrize(
        ("rows", "value", "words"),
        [
            ([], "rmse", "a table with rows, got none"),
            ([{"q": 1.0, "rmse": 1.0}], "rmse", "one of the parameters x, r, kind, got columns q"),
            ([{"x": 9.0, "rmse": 1.0}], "rmse", "got 1: 1 outside the space"),
            ([{"x": 1.0, "rmse": 1.0}], "score", "a column 'score'"),
            (
                [{"x": 1.0, "rmse": "low"}],
                "rmse",
                "row 0: wanted a number in column 'rmse', got 'low'",
            ),
            ([{"x": 1.0, "score": 1.0}], None, "by value="),
        ],
    )
    def test_what_is_refused(self, rows, value, words):
        with pytest.raises(ValueError, match=rf"warm_start: .*{words}"):
            erl.Earlier(rows, value=value).hints(SPACE, GOAL)

    def test_one_column_is_not_enough_for_constraints(self):
        goal = erl.Minimize("rmse", subject_to="cost <= 2")
        with pytest.raises(ValueError, match=r"warm_start: .*wants 2 values a row"):
            erl.Earlier(ROWS, value="rmse").hints(SPACE, goal)

    def test_a_cell_that_is_no_number(self, tmp_path):
        (tmp_path / "t.csv").write_text("x, rmse\n1.0, 2.0\nfar, 1.0\n")
        with pytest.raises(ValueError, match=r"t.csv, row 1: x: wanted a number, got 'far'"):
            erl.Earlier(tmp_path / "t.csv", value="rmse").hints(SPACE, GOAL)

    def test_wrong_arguments(self):
        with pytest.raises(TypeError, match="table: wanted"):
            erl.Earlier(3.0)
        with pytest.raises(TypeError, match="value: wanted"):
            erl.Earlier(ROWS, value=3)


class TestStores:
    def test_members_that_are_ok_best_first(self, earlier):
        hints, about = Campaigned(earlier).hints(SPACE, GOAL)
        ds = erl.open(earlier)
        ok = int((ds.fate == "ok").sum())
        assert 20 < ok < 40
        assert (about["rows"], about["used"]) == (40, ok)
        assert about["left_out"] == {"without a reward": 40 - ok}
        assert about["ranked_by"] == "this goal"
        best = int(np.nanargmax(ds.reward.values))
        assert best_of(hints)["x"] == pytest.approx(float(ds.x[best]))
        assert len(hints.first) == FIRST
        alike = Campaigned(ds).hints(SPACE, GOAL)[0]
        assert checksum(alike) == checksum(hints)

    def test_another_space_and_another_goal(self, earlier):
        space = erl.Space(x=erl.Real(-20.0, 3.0), new=erl.Real(0.0, 1.0))
        hints, about = Campaigned(earlier).hints(space, erl.Minimize("cost"))
        assert about["parameters"] == ["x"]
        assert np.isnan(hints.unit[:, 1]).all()
        x = erl.open(earlier).x.where(erl.open(earlier).fate == "ok").values
        assert about["left_out"]["outside the space"] == (x > 3.0).sum()
        known = Hints(np.nan_to_num(hints.unit, nan=0.5), hints.weight, hints.first)
        assert best_of(known, space)["x"] == pytest.approx(x[x <= 3.0].max())

    def test_without_its_variables_their_own_rewards_count_and_that_is_said(self, earlier):
        with pytest.warns(UserWarning, match="warm_start: ranked by the rewards"):
            hints, about = Campaigned(earlier).hints(SPACE, erl.Minimize("other"))
        assert about["ranked_by"].startswith("its own rewards (")
        assert checksum(hints) == checksum(Campaigned(earlier).hints(SPACE, GOAL)[0])

    def test_what_is_refused(self, earlier, tmp_path):
        with pytest.raises(ValueError, match=r"warm_start: wanted the path of a store.*Earlier"):
            Campaigned(tmp_path / "no").hints(SPACE, GOAL)
        with pytest.raises(ValueError, match=r"warm_start: .*this one has no 'reward'"):
            Campaigned(xr.Dataset({"x": ("row", [1.0])}))
        with pytest.raises(ValueError, match=r"one of the parameters z, got columns kind, r, x|z,"):
            Campaigned(earlier).hints(erl.Space(z=erl.Real(0, 1)), GOAL)

    def test_variables_are_found_under_their_own_names_and_read_in_blocks(
        self, tmp_path, monkeypatch
    ):
        def simulate(x, r, kind):
            return {"runtime": x, "field": np.full(3, x)}  # the first one is kept as result_runtime

        ds = erl.explore(
            simulate, SPACE, erl.Minimize("runtime"), n_members=9, sampler="sobol", seed=1,
            cluster="serial", progress=False, store=tmp_path / "s",
        )  # fmt: skip
        monkeypatch.setattr(earlier_module, "BYTES", 4 * 24)
        there = Variables(ds)
        for row in range(9):
            there.at(row)
            assert (float(there["runtime"]), there["field"].tolist()) == (
                ds.x.values[row],
                [ds.x.values[row]] * 3,
            )
        assert {"runtime", "field"} == set(there)


class TestWeights:
    def test_by_rank_equal_ones_alike_and_bounded(self):
        for n, ndim in ((1, 3), (10, 3), (3000, 3)):
            reward = np.sort(np.random.default_rng(0).standard_normal(n))[::-1]
            weight = worths(reward, ndim)
            assert (np.diff(weight) <= 0).all()
            assert 0 < weight.sum() <= min(n, WORTH * (ndim + 1)) * (1 + 1e-12)
        assert len(set(worths(np.zeros(9), 2).round(12))) == 1

    def test_many_rows_are_not_all_kept(self):
        rng = np.random.default_rng(0)
        rows = {"x": rng.uniform(-5, 5, 4000), "v": rng.random(4000)}
        hints, about = erl.Earlier(rows, value="v").hints(SPACE, GOAL)
        assert (len(hints.unit), about["used"]) == (MOST, 4000)

    def test_the_first_ones_differ(self):
        rows = [{"x": 1.0 + 1e-3 * i, "r": 1.0, "kind": "a", "v": float(i)} for i in range(20)]
        rows += [{"x": 1.0, "r": 1.0, "kind": "b", "v": 99.0}]
        hints, _ = erl.Earlier(rows, value="v").hints(SPACE, GOAL)
        np.testing.assert_allclose(hints.first, [[0.6, 0.5, 0.25], [0.6, 0.5, 0.75]])


class TestGuesses:
    def test_a_spread_is_in_the_parameters_own_units(self):
        guess = erl.Guess({"x": 1.0, "r": 10.0}, spread={"x": 0.5, "r": 5.0})
        hints, _ = guess.hints(SPACE, GOAL)
        points = SPACE.to_points(np.nan_to_num(hints.unit, nan=0.5))
        # 256 quasi-random points: a Kolmogorov distance far below that of random ones
        assert stats.kstest(points["x"], stats.norm(1.0, 0.5).cdf).statistic < 0.02
        law = stats.norm(np.log(10.0), np.log(1.5)).cdf
        assert stats.kstest(np.log(points["r"]), law).statistic < 0.02
        assert np.isnan(hints.unit[:, 2]).all()
        assert {len(set(hints.first[:, j])) for j in (0, 1)} == {1}

    def test_it_is_cut_off_at_the_ends(self):
        guess = erl.Guess({"x": 4.9}, spread={"x": 2.0})
        x = SPACE.to_points(np.nan_to_num(guess.hints(SPACE, GOAL)[0].unit, nan=0.5))["x"]
        law = stats.truncnorm((-5 - 4.9) / 2, (5 - 4.9) / 2, 4.9, 2.0).cdf
        assert stats.kstest(x, law).statistic < 0.02

    @pytest.mark.parametrize(
        ("parameter", "at", "spread", "mean", "sd"),
        [
            (erl.Integer(0, 100), 50, 10.0, 50.0, 10.0),
            (erl.Integer(0, 10**6), 5 * 10**5, 1000.0, 5e5, 1000.0),
            (erl.Ordinal(1.0, 2.0, 4.0, 8.0), 4.0, 0.3, 4.0, 0.0),
            (erl.Normal(0.0, 1.0), 2.0, 0.1, 2.0, 0.1),
            (erl.Real(0.0, 10.0, step=0.5), 5.0, 1.0, 5.0, 1.0),
        ],
    )
    def test_every_kind_of_number(self, parameter, at, spread, mean, sd):
        space = erl.Space(p=parameter)
        hints, _ = erl.Guess({"p": at}, spread={"p": spread}).hints(space, GOAL)
        values = space.to_points(hints.unit)["p"]
        assert values.mean() == pytest.approx(mean, abs=0.05 * spread)
        assert values.std() == pytest.approx(sd, rel=0.06, abs=1e-9)
        assert space.to_points(hints.first)["p"].tolist() == [pytest.approx(at, rel=1e-12)]

    def test_levels_of_texts_and_choices(self):
        space = erl.Space(o=erl.Ordinal("s", "m", "l", "xl"), kind=erl.Choice("a", "b"))
        guess = erl.Guess({"o": "m", "kind": "b"}, spread={"o": 0.5})
        points = space.to_points(guess.hints(space, GOAL)[0].unit)
        share = {level: (points["o"] == level).mean() for level in ("s", "m", "l", "xl")}
        assert share["m"] > share["s"] == pytest.approx(share["l"], abs=0.02)
        assert share["xl"] < 0.02
        assert set(points["kind"]) == {"b"}

    def test_without_a_spread_it_is_a_tenth_of_the_prior(self):
        x = erl.Guess({"x": 0.0}).hints(SPACE, GOAL)[0].unit[:, 0]
        assert x.std() == pytest.approx(0.1, rel=0.05)

    @pytest.mark.parametrize(
        ("point", "spread", "error", "words"),
        [
            ({}, None, TypeError, "point: wanted a dict"),
            ({"x": 1.0}, {"x": 0.0}, ValueError, "spread: wanted a number > 0 for 'x', got 0.0"),
            ({"x": 1.0}, {"x": -1}, ValueError, "spread: wanted a number > 0"),
            ({"x": 1.0}, {"r": 1.0}, ValueError, "spread: wanted names that are in the guess"),
            ({"x": 1.0}, 0.1, TypeError, "spread: wanted a dict"),
            ({"y": 1.0}, None, ValueError, "warm_start: the guess has y; parameters are: x, r"),
            ({"x": 7.0}, None, ValueError, r"warm_start: 'x' must be in \[-5.0, 5.0\], got 7.0"),
            (
                {"kind": "c"},
                None,
                ValueError,
                "warm_start: 'kind' must be one of 'a', 'b', got 'c'",
            ),
            ({"kind": "a"}, {"kind": 1}, ValueError, "spread: wanted none for 'kind'"),
        ],
    )
    def test_what_is_refused(self, point, spread, error, words):
        with pytest.raises(error, match=words):
            erl.Guess(point, spread=spread).hints(SPACE, GOAL)

    def test_an_infeasible_guess(self):
        space = erl.Space(x=erl.Real(0, 1), constraints=["x <= 0.5"])
        with pytest.raises(ValueError, match="warm_start: wanted a feasible guess"):
            erl.Guess({"x": 0.75}).hints(space, GOAL)


class Warmed(Sobol):
    """Notes the hints it is given."""

    def warm(self, hints):
        self.given = hints


class TestWhoGetsThem:
    def test_parts_at_any_depth(self):
        inner, hints = Warmed(SPACE.cube, name="in"), Hints(np.full((1, 3), 0.5), *np.ones((2, 1)))
        outer = Portfolio([Sobol(SPACE.cube), inner], credit=True)
        chain = Chain([Listed(SPACE.cube, np.full((1, 3), 0.5)), outer])
        hand_over(chain, hints)
        assert inner.given is hints
        hand_over(chain, None)
        assert inner.given is None

    def test_nobody_is_an_error_that_names_both(self):
        with pytest.raises(ValueError, match=r"warm_start: .*MaxEnt; got Sobol.*as sampler"):
            starting(erl.Guess({"x": 0.0}), Sobol(SPACE.cube), SPACE, GOAL)

    @pytest.mark.parametrize("given", [3, {"x": 1.0}, [1]])
    def test_what_is_no_warm_start(self, given):
        with pytest.raises(TypeError, match=r"warm_start: wanted the path of a store"):
            starting(given, Warmed(SPACE.cube), SPACE, GOAL)


class TestStoresOfHints:
    def test_they_come_back_bit_for_bit(self, tmp_path, earlier):
        hints, _ = Campaigned(earlier).hints(SPACE, GOAL)
        about = {"space": SPACE.to_json(), "goal": {"k": 1}, "warm_start": {"kind": "store"}}
        store = DirectoryStore.create(tmp_path / "s", about, hints)
        store.close()
        store = DirectoryStore.resume(tmp_path / "s")
        assert checksum(store.warm) == checksum(hints)
        (tmp_path / "s" / "warm_start.npz").write_bytes(b"PK torn")
        with pytest.warns(UserWarning, match=r"warm_start: the hints .*npz is damaged"):
            assert store.warm is None
        store.close()

    def test_a_kill_before_the_store_is_one_leaves_room_for_another(self, tmp_path):
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / "warm_start.npz").write_bytes(b"half")
        store = DirectoryStore.create(tmp_path / "s", {"goal": {"k": 1}})
        assert store.warm is None
        store.close()

    @pytest.mark.parametrize("change", [{"source": "other"}, {"kind": "guess"}, None])
    def test_another_one_is_a_mismatch(self, earlier, change):
        start = WarmStart(Campaigned(earlier), SPACE, GOAL)
        kept = json.loads(json.dumps(start.read()[1]))
        start.check_same("s", kept)
        with pytest.raises(Mismatch, match=r"warm_start: s was begun with.*leave warm_start out"):
            start.check_same("s", None if change is None else kept | change)
