"""Readers: numbers from the files of a program, and words for what is not there."""

import importlib.util
import json
import math
import pickle
import re

import numpy as np
import pytest
import xarray as xr

from ensemblerl.simulations.layouts import InvalidResult
from ensemblerl.simulations.output import normalise
from ensemblerl.simulations.readers import Csv, Json, NetCDF, Regex
from ensemblerl.simulations.reading import described_reader, read_all, readers_of

DOCUMENT = {"energy": -1.5, "title": "run", "field": [1, 2, 3], "runs": [{"T": 0.25}], "none": None}


def written(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return tmp_path


def as_lists(found):
    """Values as Python's own, and proof that all are float64."""
    assert all(array.dtype == np.float64 for array in found.values()), found
    return {name: array.tolist() for name, array in found.items()}


# ---- Json


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        (None, {"energy": -1.5, "field": [1.0, 2.0, 3.0]}),
        (["energy"], {"energy": -1.5}),
        ("field", {"field": [1.0, 2.0, 3.0]}),
        ({"T": "runs.0.T", "e": "energy"}, {"T": 0.25, "e": -1.5}),
    ],
)
def test_json_gives_what_was_asked_for(tmp_path, variables, wanted):
    here = written(tmp_path, "out.json", json.dumps(DOCUMENT))
    assert as_lists(Json("out.json", variables)(here)) == wanted


def test_json_passes_nan_on(tmp_path):
    here = written(tmp_path, "out.json", '{"y": NaN, "z": [1.0, -Infinity]}')
    found = Json("out.json")(here)
    assert math.isnan(found["y"])
    assert found["z"].tolist() == [1.0, -math.inf]


@pytest.mark.parametrize(
    ("text", "variables", "told"),
    [
        (
            '{"energy": -1.',
            None,
            r"wanted JSON, got 14 characters .*ending in '\{\"energy\": -1\.'",
        ),
        ("", None, r"wanted JSON, got 0 characters"),
        ("[1, 2]", None, r"wanted a JSON object, got \[1, 2\]"),
        ('{"title": "run"}', None, r"wanted numbers at the top, got"),
        (json.dumps(DOCUMENT), ["pressure"], r"wanted 'pressure', .*there is energy, title"),
        (json.dumps(DOCUMENT), ["runs.1.T"], r"wanted 'runs\.1\.T', got nothing at '1'"),
        (json.dumps(DOCUMENT), ["energy.x"], r"nothing at 'x'; there is -1\.5"),
        (json.dumps(DOCUMENT), ["title"], r"a number .* at 'title', got 'run' \(str\)"),
        (json.dumps(DOCUMENT), ["none"], r"a number .* at 'none', got None"),
        ('{"a": [[1, 2], [3]]}', ["a"], r"an array of numbers at 'a', got"),
    ],
)
def test_json_says_what_is_wrong(tmp_path, text, variables, told):
    here = written(tmp_path, "out.json", text)
    with pytest.raises(InvalidResult, match=rf"(?s)^file 'out\.json': .*{told}"):
        Json("out.json", variables)(here)


# ---- Csv


TABLE = 'time, T,label,"a b"\n0,1,cold,0.5\n1,nan,hot,1.5D-3\n\n'


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        (["time", "a b"], {"time": [0.0, 1.0], "a b": [0.5, 0.0015]}),
        ({"t": "time"}, {"t": [0.0, 1.0]}),
    ],
)
def test_csv_gives_the_columns(tmp_path, columns, wanted):
    here = written(tmp_path, "out.csv", TABLE)
    assert as_lists(Csv("out.csv", columns)(here)) == wanted


def test_csv_gives_all_columns_of_numbers(tmp_path):
    found = Csv("out.csv")(written(tmp_path, "out.csv", TABLE))
    assert list(found) == ["time", "T", "a b"]
    np.testing.assert_array_equal(found["T"], [1.0, np.nan])


def test_csv_splits_at_blanks_and_at_other_characters(tmp_path):
    here = written(tmp_path, "out.dat", "# step  T\n  1   2.5\n  2   3.5\n")
    wanted = {"step": [1.0, 2.0], "T": [2.5, 3.5]}
    assert as_lists(Csv("out.dat", delimiter=None)(here)) == wanted
    here = written(tmp_path, "out.dat", "step;T\n1;2.5\n2;3.5\n")
    assert as_lists(Csv("out.dat", delimiter=";")(here)) == wanted


@pytest.mark.parametrize(
    ("text", "columns", "told"),
    [
        ("a,b\n1,2\n3", None, r"2 cells in each line.*, got 1 in line 3"),
        ("a,b\n1,2\n3,", None, r"numbers in column 'b', got '' in line 3"),
        ("a,b\n1,2\n3,4e", None, r"numbers in column 'b', got '4e' in line 3"),
        ("a,b\n", None, r"lines below it, got 1 lines"),
        ("", None, r"got 0 lines"),
        ("a,b\n1,2\n", ["c"], r"a column 'c', got columns a, b"),
        ("a,b\nx,y\n", None, r"a column of numbers, got columns a, b of text"),
        ("a,a\n1,2\n", None, r"each column once, got 'a' twice"),
    ],
)
def test_csv_says_what_is_wrong(tmp_path, text, columns, told):
    here = written(tmp_path, "out.csv", text)
    with pytest.raises(InvalidResult, match=rf"(?s)^file 'out\.csv': wanted .*{told}"):
        Csv("out.csv", columns)(here)


# ---- NetCDF


@pytest.fixture
def model_output(tmp_path):
    engine = "netcdf4" if importlib.util.find_spec("netCDF4") else "h5netcdf"
    if engine == "h5netcdf":
        pytest.importorskip("h5py", reason="NETCDF NOT TESTED: needs netCDF4, or h5netcdf and h5py")
    ds = xr.Dataset(
        {"T": ("x", np.array([1, 2], dtype=np.int32), {"units": "K"}), "p": ((), 1.5)},
        coords={"x": [10.0, 20.0]},
    )
    ds.to_netcdf(tmp_path / "out.nc", engine=engine)
    return tmp_path


def test_netcdf_keeps_dims_coordinates_and_units(model_output):
    found = NetCDF("out.nc")(model_output)
    assert sorted(found.data_vars) == ["T", "p"]
    one = NetCDF("out.nc", {"temperature": "T"})(model_output)
    assert list(one.data_vars) == ["temperature"]
    assert one.temperature.attrs["units"] == "K"
    assert one.temperature.dtype == np.int32
    assert one.x.values.tolist() == [10.0, 20.0]


def test_netcdf_says_what_is_wrong(model_output):
    with pytest.raises(InvalidResult, match=r"file 'out\.nc': wanted a variable 'q', .* T, p"):
        NetCDF("out.nc", ["q"])(model_output)
    whole = (model_output / "out.nc").read_bytes()
    (model_output / "out.nc").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidResult, match=r"file 'out\.nc': wanted netCDF, got \d+ bytes that"):
        NetCDF("out.nc")(model_output)


# ---- Regex


LOG = "step 1 E = 1.5\nstep 2 E = 2.5\nstep 3 E = nan\ndone\n"


def test_regex_takes_the_last_the_first_or_all(tmp_path):
    here = written(tmp_path, "stdout", LOG.replace("nan", "-inf"))
    pattern = r"^step (?P<n>\d+) E = (?P<E>\S+)$"
    assert as_lists(Regex("stdout", pattern)(here)) == {"n": 3.0, "E": -math.inf}
    assert as_lists(Regex("stdout", pattern, which="first")(here)) == {"n": 1.0, "E": 1.5}
    found = as_lists(Regex("stdout", pattern, which="all")(here))
    assert found == {"n": [1.0, 2.0, 3.0], "E": [1.5, 2.5, -math.inf]}


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan"])
def test_regex_passes_a_nan_in_a_log_on(tmp_path, text):
    here = written(tmp_path, "stdout", LOG.replace("nan", text))
    assert math.isnan(Regex("stdout", r"E = (?P<E>\S+)")(here)["E"])


def test_regex_that_finds_nothing_shows_the_end_of_the_file(tmp_path):
    here = written(tmp_path, "stdout", "first line\n" + LOG)
    with pytest.raises(InvalidResult, match=r"(?s)'stdout': wanted 'F = .*no match") as caught:
        Regex("stdout", r"F = (?P<F>\S+)")(here)
    assert str(caught.value).endswith(LOG.strip())
    written(tmp_path, "stdout", "")
    with pytest.raises(InvalidResult, match="got an empty file"):
        Regex("stdout", r"F = (?P<F>\S+)")(here)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (r"E = (?P<E>\S)\S* *$", None),
        (r"(?P<E>done)", r"a number for 'E' .*, got 'done' in 'done'"),
        (r"(?P<E>9)?done", r"a number for 'E' .*, got None in 'done'"),
    ],
)
def test_regex_refuses_what_is_no_number(tmp_path, pattern, told):
    here = written(tmp_path, "stdout", LOG.replace("nan", "***"))
    with pytest.raises(InvalidResult, match=told or r"got '\*' in 'E = \*\*\*'"):
        Regex("stdout", pattern)(here)


def test_regex_keeps_the_flags_of_a_compiled_pattern(tmp_path):
    here = written(tmp_path, "stdout", LOG)
    reader = Regex("stdout", re.compile(r"e = (?P<E>\d\S+)", re.IGNORECASE))
    assert as_lists(reader(here)) == {"E": 2.5}
    assert reader.describe() != Regex("stdout", r"e = (?P<E>\d\S+)").describe()


# ---- all of them


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Json("/abs.json"), r"path: wanted the name of a file .*got '/abs\.json'"),
        (lambda: Json("../up.json"), r"path: .*got '\.\./up\.json'"),
        (lambda: Json(""), r"path: .*got ''"),
        (lambda: Json("a", []), r"variables: wanted names, .*got \[\]"),
        (lambda: Json("a", [1]), r"variables: .*got \[1\]"),
        (lambda: Csv("a", {"x": 2}), r"columns: .*got \{'x': 2\}"),
        (lambda: Csv("a", delimiter="::"), r"delimiter: wanted one character or None, got '::'"),
        (lambda: NetCDF("a", 3), r"variables: .*got 3"),
        (lambda: Regex("a", r"E = (\S+)"), r"pattern: wanted a named group .*without"),
        (lambda: Regex("a", r"(?P<E>"), r"pattern: wanted a regular expression, got"),
        (lambda: Regex("a", r"(?P<E>.)", "latest"), r"which: wanted one of last, .*'latest'"),
    ],
)
def test_wrong_arguments_are_named(make, told):
    with pytest.raises(ValueError, match=told):
        make()


READERS = [
    Json("a/out", {"y": "b.c"}),
    Csv("a/out", ["x"], delimiter=";"),
    NetCDF("a/out", ["T"]),
    Regex("a/out", r"(?P<E>\S+)", which="all"),
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: type(reader).__name__)
def test_a_file_that_was_not_written_is_named_beside_those_that_were(tmp_path, reader):
    written(tmp_path, "stdout", "hello")
    with pytest.raises(InvalidResult, match=r"'a/out'.* did not write it; .*: stdout$"):
        reader(tmp_path)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: type(reader).__name__)
def test_readers_survive_pickling_and_describe_themselves(reader):
    again = pickle.loads(pickle.dumps(reader))
    assert again == reader
    assert json.dumps(again.describe()) == json.dumps(reader.describe())
    assert reader.describe()["reader"] == type(reader).__name__
    assert repr(reader).startswith(f"{type(reader).__name__}(")
    assert "a/out" in repr(reader)


# ---- several at once


def test_readers_are_merged_and_a_dataset_goes_with_the_others(model_output):
    written(model_output, "stdout", "E = 3\n")
    readers = readers_of([NetCDF("out.nc"), Regex("stdout", r"E = (?P<E>\S+)")])
    normal = normalise(read_all(readers, model_output), max_bytes=2**20)
    assert {name: array.tolist() for name, array in normal.arrays.items()} == {
        **{"E": 3.0, "T": [1, 2], "p": 1.5}
    }
    assert normal.layout["variables"]["T"]["dims"] == ["x"]


def test_a_single_reader_gives_what_it_gives(tmp_path):
    assert read_all(readers_of(lambda directory: 7.5), tmp_path) == 7.5


@pytest.mark.parametrize(
    ("found", "came"),
    [
        (None, r"nothing: is its return missing\?"),
        ("text", r"'text' \(str\)"),
        ([[1], []], r"\[\[1"),
    ],
)
def test_a_single_reader_that_gives_no_result_is_named(tmp_path, found, came):
    def energy(directory):
        return found

    with pytest.raises(
        InvalidResult, match=rf"^reads: wanted a mapping, .* from .*energy, got {came}"
    ):
        read_all(readers_of(energy), tmp_path)


def test_a_missing_return_is_told_beside_other_readers_too(tmp_path):
    readers = readers_of([lambda directory: {"y": 1.0}, lambda directory: None])
    with pytest.raises(InvalidResult, match=r"from .*<lambda>, got nothing: is its return"):
        read_all(readers, tmp_path)


def test_what_a_file_holds_cannot_command_the_terminal(tmp_path):
    here = written(tmp_path, "out.csv", "a\x1b[2J,\x07b\n1,2\n")
    with pytest.raises(InvalidResult, match=r"columns a, \ufffdb$"):
        Csv("out.csv", ["c"])(here)
    written(tmp_path, "stdout", "one\n\x1b[2Jtwo\x1a\n")
    with pytest.raises(InvalidResult, match=r"last lines:\none\ntwo\ufffd$"):
        Regex("stdout", r"F = (?P<F>\S+)")(here)
    written(tmp_path, "\x07bell", "")
    with pytest.raises(InvalidResult, match=r"in its directory: \ufffdbell, out\.csv"):
        Json("absent")(here)


def test_a_name_twice_is_named_with_both_readers(tmp_path):
    written(tmp_path, "out.json", '{"E": 1}')
    readers = readers_of([Json("out.json"), lambda directory: {"E": 2.0}])
    with pytest.raises(InvalidResult, match=r"'E' from Json\(.*\) and from .*<lambda>"):
        read_all(readers, tmp_path)


def test_a_result_without_names_cannot_stand_beside_others(tmp_path):
    written(tmp_path, "out.json", '{"E": 1}')
    with pytest.raises(InvalidResult, match=r"wanted a mapping, .* from .*<lambda>.*got 1\.0"):
        read_all(readers_of([Json("out.json"), lambda directory: 1.0]), tmp_path)


@pytest.mark.parametrize("reads", [[], "out.json", None, Json, [Json("a"), "b"]])
def test_what_is_no_reader_is_refused(reads):
    with pytest.raises(ValueError, match="reads: wanted a reader"):
        readers_of(reads)


def test_callables_are_told_apart_by_their_source():
    one, two = described_reader(lambda p: {"y": 1.0}), described_reader(lambda p: {"y": 2.0})
    assert one["source"] != two["source"]
