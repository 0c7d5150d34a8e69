"""Warm starts that are nearly right: the same said otherwise, bad tables, lost files."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

import ensemblerl as erl
from ensemblerl.provenance import Mismatch
from ensemblerl.records import Hints
from ensemblerl.samplers.sobol import Sobol
from ensemblerl.store import hints as files
from ensemblerl.warm.guess import FLAT, _normal
from ensemblerl.warm.ranked import TRIES
from ensemblerl.warm.starting import WarmStart, checksum, starting

SPACE = erl.Space(x=erl.Real(0.0, 1.0), y=erl.Real(0.0, 1.0), solver=erl.Choice("e", "f"))
GOAL = erl.Minimize("v")
GOOD = erl.Guess({"x": 0.5, "y": 0.25}, spread={"x": 0.1, "y": 0.1})


class TestTheSameAgain:
    @pytest.mark.parametrize(
        ("one", "two"),
        [
            (erl.Guess({"x": 0.5, "solver": "e"}), erl.Guess({"solver": "e", "x": 0.5})),
            (erl.Guess({"x": 0}), erl.Guess({"x": 0.0})),
            (erl.Guess({"x": np.float64(0.5)}), erl.Guess({"x": np.array(0.5)})),
            (erl.Guess({"solver": np.str_("e")}), erl.Guess({"solver": "e"})),
            (
                erl.Guess({"x": 0.5, "y": 0.5}, spread={"x": 1, "y": 2}),
                erl.Guess({"x": 0.5, "y": 0.5}, spread={"y": 2.0, "x": 1.0}),
            ),
            (erl.Earlier([{"x": 0, "v": 1}]), erl.Earlier([{"v": 1.0, "x": 0.0}])),
        ],
        ids=["order", "whole number", "numpy", "numpy text", "spread", "table"],
    )
    def test_said_otherwise_it_is_no_other(self, one, two):
        kept = json.loads(json.dumps(WarmStart(one, SPACE, GOAL).identity))
        WarmStart(two, SPACE, GOAL).check_same("s", kept)

    @pytest.mark.parametrize(
        "other",
        [
            erl.Guess({"x": 0.5, "y": 0.26}, spread={"x": 0.1, "y": 0.1}),
            erl.Guess({"x": 0.5, "y": 0.25}, spread={"x": 0.1}),
            erl.Guess({"x": 0.5}, spread={"x": 0.1}),
            erl.Guess({"x": [0.5], "y": 0.25}, spread={"x": 0.1, "y": 0.1}),
        ],
    )
    def test_another_one_is(self, other):
        kept = json.loads(json.dumps(WarmStart(GOOD, SPACE, GOAL).identity))
        with pytest.raises(Mismatch, match=r"warm_start: s was begun with guess \{'x': 0.5, 'y'"):
            WarmStart(other, SPACE, GOAL).check_same("s", kept)


class TestBadFiles:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("x,v,n\n.1,2,caf\xe9\n".encode("latin-1"), "wanted a CSV file, in UTF-8.*0xe9"),
            (bytes(range(256)), "wanted a CSV file, in UTF-8"),
            (b"x,v,n\n.1,2," + b"a" * 140_000, r"wanted a CSV file.*field larger than.*131072"),
            (b"x,v\n.1,2\n.2,foo\n", "row 1: v: wanted a number, got 'foo'"),
            (b"x,v, x\n.1,2,.5\n", "wanted each column once, got x more than once"),
            (b"x,v\n", "wanted a table with rows, got none"),
        ],
        ids=["latin-1", "binary", "long field", "text", "repeated", "empty"],
    )
    def test_errors_name_the_file_and_what_came(self, content, words, tmp_path):
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(ValueError, match=rf"^warm_start: (?s:.*){words}") as refusal:
            erl.Earlier(tmp_path / "t.csv", value="v").hints(SPACE, GOAL)
        assert str(tmp_path / "t.csv") in str(refusal.value)

    def test_columns_without_a_name_may_be_several(self, tmp_path):
        (tmp_path / "t.csv").write_text(",x,v,\n0,.1,2,\n1,.2,3,\n")
        assert erl.Earlier(tmp_path / "t.csv", value="v").hints(SPACE, GOAL)[1]["used"] == 2


class TestBadTables:
    @pytest.mark.parametrize(
        ("table", "words"),
        [
            ({"x": 0.1, "v": 1}, "a list of values as column 'x', got 0.1; .* a list of one dict"),
            ({"x": [0.1, [0.2]], "v": [1, 2]}, "values of one shape in column 'x', got several"),
            ({"x": [[0.1, 0.2]], "v": [1]}, r"one value a row in column 'x': .*shape \(1, 2\)"),
            ([{"x": 0.1, "v": 1}, {"x": [0.2], "v": 1}], "one value a row in column 'x'"),
            ([{"x": 0.1, "v": 1}, {"x": 0.2, "v": [2]}], r"row 1: .* column 'v', got \[2\]"),
            (pd.DataFrame([[1, 2, 3]], columns=["x", "x", "v"]), "each column once, got x more"),
        ],
    )
    def test_errors_name_the_column(self, table, words):
        with pytest.raises(ValueError, match=rf"^warm_start: .*{words}"):
            erl.Earlier(table, value="v").hints(SPACE, GOAL)

    def test_cells_that_pandas_calls_na_are_unknown(self):
        columns = {"solver": pd.array(["e", None], dtype="string"), "x": [0.1, 0.2], "v": [1, 2]}
        hints, about = erl.Earlier(pd.DataFrame(columns), value="v").hints(SPACE, GOAL)
        assert about["used"] == 2
        np.testing.assert_array_equal(np.isnan(hints.unit[:, 2]), [False, True])


class TestGuesses:
    @pytest.mark.parametrize("value", [[0.1, 0.2], [0.1], np.array([0.1]), [[1], [1, 2]], {"a": 1}])
    def test_a_value_that_is_not_one(self, value):
        with pytest.raises(ValueError, match=r"^warm_start: 'x' must be in \[0.0, 1.0\], got .*1"):
            erl.Guess({"x": value}).hints(SPACE, GOAL)

    def test_a_spread_that_is_no_real_number(self):
        assert erl.Guess({"x": 0.5}, spread={"x": np.float32(0.1)}).hints(SPACE, GOAL)
        for spread in (np.complex128(1.0), True, "0.1"):
            with pytest.raises(ValueError, match="spread: wanted a number > 0 for 'x'"):
                erl.Guess({"x": 0.5}, spread={"x": spread})

    @pytest.mark.parametrize("spread", [1e15, 1e17, 1e20, 1e300])
    def test_a_spread_far_beyond_the_range_says_nothing(self, spread):
        unit = erl.Guess({"x": 0.3}, spread={"x": spread}).hints(SPACE, GOAL)[0].unit[:, 0]
        # 256 quasi-random points, one in each 256th
        np.testing.assert_allclose(np.sort(unit), (np.arange(256) + 0.5) / 256, atol=1 / 256)

    @pytest.mark.parametrize("mean", [-2.0, -1.9, 1.0, 3.0])
    def test_it_is_the_same_on_both_sides_of_the_switch(self, mean):
        q, width = np.linspace(0.0, 1.0, 1001), 5.0
        below, above = (
            _normal(q, mean, FLAT * width * step, -2.0, 3.0) for step in (1 - 1e-9, 1 + 1e-9)
        )
        assert not np.array_equal(below, above)
        np.testing.assert_allclose(below, above, rtol=0, atol=1e-9 * width)


class TestNothingToTry:
    SPACE = erl.Space(x=erl.Real(0, 1), y=erl.Real(0, 1), constraints=["x + 0.1 <= 1"])

    class Warmed(Sobol):
        """One that takes hints."""

        def warm(self, hints):
            self.given = hints

    def start(self, given):
        return starting(given, self.Warmed(self.SPACE.cube), self.SPACE, GOAL)

    @pytest.mark.parametrize(
        "given", [erl.Guess({"x": 0.95}), erl.Earlier([{"x": 0.95, "v": 1.0}], value="v")]
    )
    def test_is_said_once(self, given):
        start = self.start(given)
        with pytest.warns(UserWarning, match=rf"warm_start: no point of .*, {TRIES} times"):
            hints, _ = start.read()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert start.read()[0] is hints
        assert hints.first.shape == (0, 2)
        assert (hints.weight > 0).all()

    def test_is_not_said_where_there_is_something(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(self.start(erl.Guess({"x": 0.85})).read()[0].first)

    def test_the_campaign_goes_on(self, tmp_path):
        with pytest.warns(UserWarning, match="warm_start: no point of guess {'x': 0.95}"):
            ds = erl.explore(
                lambda x, y: {"v": x + y}, self.SPACE, GOAL, n_members=8, cluster="serial", seed=1,
                store=tmp_path / "s", warm_start=erl.Guess({"x": 0.95}), progress=False,
            )  # fmt: skip
        assert ds.sizes["member"] == 8
        assert (ds.x.values <= 0.9).all()
        assert "note_critic" not in ds  # nobody has picked anything


def wrong(cut):
    """The hints of another campaign, or these with arrays of other shapes."""
    hints = GOOD.hints(SPACE, GOAL)[0]
    arrays = {name: np.array(array) for name, array in vars(hints).items()}
    if cut == "other":
        return {**arrays, "unit": arrays["unit"][::-1]}
    if cut == "flat":
        return {**arrays, "unit": arrays["unit"].ravel()}
    if cut == "text":
        return {**arrays, "weight": np.array(["a", "b"])}
    return {**arrays, cut: arrays[cut][..., :-1]}


def run(path, n_members, **more):
    """Warnings about its hints."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ds = erl.explore(
            lambda x, y, solver: {"v": x + y}, SPACE, GOAL, n_members=n_members, store=path,
            cluster="serial", seed=1, progress=False, **more,
        )  # fmt: skip
    assert ds.sizes["member"] == n_members
    return [str(w.message) for w in said if "warm_start" in str(w.message)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    path = tmp_path_factory.mktemp("warm") / "s"
    assert run(path, 4, warm_start=GOOD) == []
    return path


class TestLostHints:
    @pytest.fixture
    def file(self, begun):
        file = begun / files.NAME
        kept = file.read_bytes()
        yield file
        file.write_bytes(kept)

    @pytest.mark.parametrize("cut", ["unit", "first", "weight", "flat", "text", "other"])
    def test_a_file_of_other_hints(self, file, cut):
        np.savez(file, **wrong(cut))
        with pytest.warns(UserWarning, match=r"warm_start: .*warm_start.npz holds others"):
            assert files.load(file.parent) is None

    @pytest.mark.parametrize("content", [b"", b"junk", b"PK torn", b"\x93NUMPY"])
    def test_a_file_that_is_none(self, file, content):
        file.write_bytes(content)
        with pytest.warns(UserWarning, match=r"warm_start: .*warm_start.npz is damaged"):
            assert files.load(file.parent) is None

    def test_an_array_alone_is_none_either(self, file):
        with file.open("wb") as out:
            np.save(out, np.ones(3))
        with pytest.warns(UserWarning, match=r"warm_start: .*warm_start.npz is damaged"):
            assert files.load(file.parent) is None

    def test_the_campaign_goes_on_and_says_what_that_means(self, file):
        np.savez(file, **wrong("unit"))
        (said,) = run(file.parent, 6)
        assert "holds others" in said
        file.unlink()
        (said,) = run(file.parent, 8)
        assert said.startswith("warm_start: the hints that this campaign was begun with are lost:")
        assert "is not there. It goes on without them." in said
        assert "Errno" not in said

    def test_whole_ones_come_back(self, begun):
        kept = files.load(begun)
        assert isinstance(kept, Hints)
        assert checksum(kept) == checksum(GOOD.hints(SPACE, GOAL)[0])
