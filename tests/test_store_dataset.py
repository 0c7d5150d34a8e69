"""The dataset: names, dtypes, coordinates, laziness, and files made of it."""

import json
import pickle
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from store_support import (
    Rehearsed,
    arrays_of,
    check_rows,
    fate_of,
    members,
    small_blocks,
    variable,
)

from ensemblerl.events import Launched, SchemaFixed, Settled
from ensemblerl.names import COLUMNS, FILES
from ensemblerl.parameters import Real
from ensemblerl.records import Outcome
from ensemblerl.simulations.output import normalise
from ensemblerl.space import Space
from ensemblerl.store.backend import EnsembleBackend, export_netcdf, open_store
from ensemblerl.store.columns import _ABOUT, field_names
from ensemblerl.store.dataset import plain_text
from ensemblerl.store.errors import StoreError
from ensemblerl.store.index import SegmentIndex

RICH = {
    "variables": {
        "h": variable(["y", "x"], "<f4", [3, 4], units="m", long_name="height"),
        "count": variable([], "<i8", []),
        "flags": variable(["x"], "|b1", [4]),
        "reward": variable([], "<f8", []),
        "z": variable(["depth"], "<c16", [2]),
    },
    "coords": {
        "y": {"dims": ["y"], "dtype": "<f8", "shape": [3], "attrs": {"units": "km"}}
        | {"data": [0.5, None, "Infinity"]},
        "time": {"dims": ["x"], "dtype": "<M8[ns]", "shape": [4], "attrs": {}}
        | {"data": [0, 10**9, 2 * 10**9, 3 * 10**9]},
        "label": {"dims": ["x"], "dtype": "<U2", "shape": [4], "attrs": {}}
        | {"data": ["a", "bb", "é", ""]},
        "depth": {"dims": ["depth"], "dtype": "<i8", "shape": [2], "attrs": {}, "data": [7, 8]},
        "zero": {"dims": [], "dtype": "<f8", "shape": [], "attrs": {}, "data": 0.25},
    },
    "attrs": {"model": "toy", "title": "not this one"},
}


@pytest.fixture
def rich(store_path, monkeypatch):
    """A running campaign: rows in shards, in segments, pending."""
    small_blocks(monkeypatch, 8)
    driver = Rehearsed(store_path, RICH)
    driver.launch(30)
    driver.settle(range(25))
    driver.compact()
    yield driver
    driver.store.close()


def test_names_that_are_taken_give_way(rich, store_path):
    ds = open_store(store_path)
    assert ds["depth"].dims == ("member",)
    assert ds["depth"].attrs == {"units": "m", "long_name": "water depth"}
    assert ds["z"].dims == ("member", "result_depth")
    assert ds["result_depth"].values.tolist() == [7, 8]
    assert {"result_reward", "reward"} <= set(ds.data_vars)
    assert set(ds.coords) >= {"member", "depth", "solver", "steps", "y", "time", "label", "zero"}


def test_every_column_of_the_dataset_is_a_reserved_name(rich, store_path):
    about = set(_ABOUT)
    assert about == set(COLUMNS)
    assert about <= set(open_store(store_path).variables)


NAMES = st.sampled_from(["x", "y", "lock", "note_x", "reward", "zarr.json"])
NAMES = st.builds(lambda k, name: "result_" * k + name, st.integers(0, 3), NAMES)


@given(st.sets(NAMES), st.sets(NAMES), st.randoms(use_true_random=False))
def test_names_of_results_are_all_different(names, parameters, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    out = field_names(shuffled, parameters)
    assert out == field_names(sorted(names), parameters)
    given = set(out.values())
    assert len(given) == len(names)
    assert not given & {*parameters, *COLUMNS, *FILES}
    assert all(out[n] == n or n in {*parameters, *COLUMNS, *FILES, "note_x"} for n in names)


def kept(path, results, space=None):
    """A closed campaign with these results, as a worker takes them."""
    provenance = {"space": space.to_json()} if space else {}
    driver = Rehearsed(path, provenance={"goal": {"k": 1}, **provenance})
    driver.launch(len(results))
    for number, result in enumerate(results):
        normal = normalise(result, max_bytes=2**20)
        told = Outcome(number, 1, "ok", "", (1.0,), schema=normal.digest)
        driver.writer.write(told, normal.arrays, normal.layout, normal.digest)
        if not number:
            driver.keep(SchemaFixed(normal.digest, normal.layout))
        driver.keep(Settled(2e9, (told,)))
    before = open_store(path).load()
    driver.close()
    after, zarr = open_store(path).load(), xr.open_zarr(path).load()
    after.attrs.pop("reason")
    xr.testing.assert_identical(after, before)
    zarr.attrs.pop("reason")
    xr.testing.assert_identical(zarr, after)
    return zarr


CUBE = Space(x=Real(0, 1, units="days since 2000-01-01"), y=Real(0, 1), z=Real(0, 1))


def test_results_named_alike_are_all_kept(store_path):
    ds = kept(store_path, [{"x": i, "result_x": i + 0.5, "y": [i] * 2} for i in range(3)], CUBE)
    assert ds["result_x"].values.tolist() == [0.5, 1.5, 2.5]
    assert ds["result_result_x"].values.tolist() == [0, 1, 2]
    assert ds["result_y"].values.tolist() == [[0, 0], [1, 1], [2, 2]]


def test_coordinates_and_dimensions_give_way_to_variables(store_path):
    result = xr.Dataset(
        {"y": ("x", [1.0, 2.0]), "z": ("t", [1.0, 2.0, 3.0])},
        {"x": [10, 20], "result_y": ("x", [5, 6]), "result_x": ("t", [7, 8, 9])},
    )
    ds = kept(store_path, [result] * 2, CUBE)
    assert ds["result_y"].dims == ("member", "result_result_x")
    assert ds["result_y"].values.tolist() == [[1.0, 2.0]] * 2
    assert ds["result_result_y"].values.tolist() == [5, 6]
    assert ds["result_result_x"].values.tolist() == [10, 20]
    assert ds["result_x"].values.tolist() == [7, 8, 9]


def test_dimensions_of_plain_arrays_are_no_variables(store_path):
    ds = kept(store_path, [{"u": [1.0, 2.0], "u_0": 5.0, "u_0_0": [1.0]}] * 2)
    assert {"u", "u_0", "u_0_0"} <= set(ds.data_vars)
    field = xr.DataArray([1.0], dims="q", name="f")
    mixed = normalise({"f": field, "u": [1.0, 2.0], "u_0": 5.0}, max_bytes=99)
    assert sorted(mixed.arrays) == ["f", "u", "u_0"]


def test_names_of_the_stores_own_files_give_way(store_path):
    ds = kept(store_path, [{**dict.fromkeys(FILES, i), "lock.part": i} for i in range(3)])
    for name in (*FILES, "lock.part"):
        assert ds[f"result_{name}"].values.tolist() == [0, 1, 2]
    there = {p.name for p in Path(store_path).iterdir()}
    assert there - set(ds.variables) <= set(FILES)
    assert {"lock", "segments", "campaign.json", "ledger.jsonl", "compacted.json"} <= there
    again = Rehearsed(store_path)
    assert again.ledger.n_settled == 3
    again.store.checkpoint({"a": 1}, 1)
    again.store.close()
    assert {p.name for p in Path(store_path).iterdir()} - there == {"checkpoint.npz"}


CODED = {
    "_FillValue": 2.0,
    "missing_value": 2.0,
    "scale_factor": 0.5,
    "add_offset": 10.0,
    "_Unsigned": "true",
    "dtype": "bool",
    "coordinates": "site",
    "calendar": "noleap",
    "units": "days since 2000-01-01",
    "long_name": "kept",
}


def test_numbers_are_never_decoded_again(store_path):
    days = np.array(["2000-01-01", "2000-01-02"], "M8[ns]")
    result = xr.Dataset(
        {
            "f": ("x", [1.0, 2.0], CODED),
            "i": ("x", np.array([1, 2], "i4"), CODED),
            "lag": ("x", [1.0, 2.0], {"units": "mm"}),
            "edges": (("t", "side"), np.zeros((2, 2)), {"units": "d"}),
        },
        {
            "x": ("x", [1, 2], CODED),
            "site": ("x", [2.0, 3.0], CODED),
            "t": ("t", days, {"units": "days", "calendar": "noleap", "bounds": "edges"}),
            "step": ("t", days - days[0], {"units": "hours", "dtype": "timedelta64[ns]"}),
        },
        {"coordinates": "f", "model": "toy"},
    )
    ds = kept(store_path, [result] * 2, CUBE)
    assert ds["f"].values.tolist() == ds["i"].values.tolist() == [[1.0, 2.0]] * 2
    assert ds["f"].attrs == {"long_name": "kept"}
    assert ds["lag"].attrs == {"units": "mm"}
    assert ds["edges"].values.sum() == 0.0
    assert ds["result_x"].values.tolist() == [1, 2]
    assert ds["site"].values.tolist() == [2.0, 3.0]
    assert (ds["t"].values == days).all()
    assert (ds["step"].values == days - days[0]).all()
    assert ds["x"].dtype == np.float64
    assert ds.attrs["model"] == "toy"


def test_dtypes_and_values(rich, store_path):
    ds = open_store(store_path)
    assert ds["h"].dtype == np.float32
    assert ds["z"].dtype == np.complex128
    for name in ("count", "flags", "result_reward"):
        assert ds[name].dtype == np.float64
    for i in range(30):
        wanted = arrays_of(i, RICH)
        for name, source in {
            "h": "h",
            "flags": "flags",
            "z": "z",
            "result_reward": "reward",
        }.items():
            row = ds[name].values[i]
            if i < 25 and fate_of(i) == "ok":
                np.testing.assert_array_equal(row, wanted[source])
            else:
                assert np.isnan(row).all()


def test_coordinates_of_the_results(rich, store_path):
    ds = open_store(store_path)
    np.testing.assert_array_equal(ds["y"], [0.5, np.nan, np.inf])
    assert ds["y"].attrs == {"units": "km"}
    assert ds["time"].values.tolist() == [0, 10**9, 2 * 10**9, 3 * 10**9]
    assert ds["label"].values.tolist() == ["a", "bb", "é", ""]
    assert float(ds["zero"]) == 0.25


def test_small_columns(rich, store_path):
    ds = open_store(store_path)
    assert ds["launch_time"].dtype.kind == "M"
    assert ds["launch_time"].values[0] == np.datetime64(10**9, "s")
    assert np.isnat(ds["end_time"].values[25:]).all()
    assert ds["runtime"].attrs["units"] == "s"
    assert ds["proposer"].values[:3].tolist() == ["sobol", "agent", "sobol"]
    assert ds["policy_version"].values[:4].tolist() == [0, 1, 2, 0]
    assert ds["cause"].values[3] == "ValueError: 3"
    assert ds["worker"].values[[0, 3, 29]].tolist() == ["w0", "w1", ""]
    assert np.isnan(ds["log_prob"].values[0])
    assert (ds["parent"].values == -1).all()
    assert ds["simulation_version"].values[0] == "v1"


def test_attributes(rich, store_path):
    attrs = open_store(store_path).attrs
    assert attrs["Conventions"] == "CF-1.11"
    assert attrs["title"] == "campaign"
    assert attrs["model"] == "toy"
    assert attrs["store_format"] == 1
    assert json.loads(attrs["goal"])["kind"] == "minimize"
    assert Space.from_json(json.loads(attrs["space"])).names == ("depth", "solver", "steps")


def test_results_are_read_when_used_and_only_then(rich, store_path, monkeypatch):
    rich.settle([25])
    monkeypatch.setattr(SegmentIndex, "refresh", lambda _: pytest.fail("read"))
    ds = open_store(store_path)
    assert ds["h"].shape == (30, 3, 4)
    ds["h"].isel(member=slice(0, 16)).load()  # complete blocks: from shards alone
    with pytest.raises(pytest.fail.Exception):
        ds["h"].isel(member=25).load()


KEYS = [
    {"member": 0},
    {"member": -1},
    {"member": slice(3, 20)},
    {"member": slice(None, None, -3), "x": slice(None, None, -1)},
    {"member": [24, 1, 1, 9], "y": [2, 0]},
    {"member": slice(0, 0), "x": 1},
    {"y": 1, "x": slice(1, 3)},
    {"member": slice(5, 12), "y": slice(0, 0)},
    {"member": 9, "y": 2, "x": 3},
    {"member": xr.DataArray([1, 9, 17], dims="p"), "x": xr.DataArray([0, 3, 2], dims="p")},
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing_is_that_of_the_loaded_dataset(rich, store_path, key):
    xr.testing.assert_identical(
        open_store(store_path)["h"].isel(key).load(), open_store(store_path)["h"].load().isel(key)
    )


def test_the_engine_is_found_by_its_name(rich, store_path):
    assert EnsembleBackend().guess_can_open(store_path)
    assert EnsembleBackend().guess_can_open(Path(store_path))
    assert not EnsembleBackend().guess_can_open(Path(store_path) / "h")
    assert not EnsembleBackend().guess_can_open(b"CDF")
    ds = xr.open_dataset(store_path, engine="ensemblerl", drop_variables=["h"])
    assert "h" not in ds
    chunked = xr.open_dataset(store_path, engine="ensemblerl", chunks={"member": 10})
    xr.testing.assert_equal(chunked["h"].compute(), open_store(store_path)["h"])


def test_an_opened_dataset_travels_and_outlives_compaction(rich, store_path):
    early = open_store(store_path)
    travelled = pickle.loads(pickle.dumps(early))
    wanted = open_store(store_path).load()
    rich.launch(2)
    rich.settle(range(25, 32))
    rich.writer.close()
    rich.compact()
    assert not list(Path(store_path, "segments").glob("*.seg"))
    xr.testing.assert_identical(early.load(), wanted)
    xr.testing.assert_identical(travelled.load(), wanted)


def test_a_lost_record_is_told(store_path):
    driver = Rehearsed(store_path)
    driver.launch(4)
    driver.settle(range(4))
    ds = open_store(store_path)
    for path in Path(store_path, "segments").iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match="no results of members 0, 1, 2 are left"):
        assert np.isnan(ds["value"].values).all()
    driver.store.close()


def test_notes_of_every_kind(store_path):
    driver = Rehearsed(store_path)
    some = members(0, 3)
    notes = {
        **some.notes,
        "matrix": np.arange(12.0).reshape(3, 2, 2),
        "flag": np.array([True, False, True]),
        "text": np.array(["", "ü", "half \udc80"]),
        "short": np.array([1, 2, 3], dtype=np.int16),
    }
    driver.keep(Launched(1.0, replace(some, notes=notes, state=np.array(["", "a/b", ""]))))
    told = driver.outcome(1)._replace(fate="failed", cause="bad \ud800", value=(), schema="")
    driver.keep(Settled(2.0, (told._replace(state="left"),)))
    driver.close()
    for ds in (open_store(store_path), xr.open_zarr(store_path)):
        np.testing.assert_array_equal(ds["note_matrix"], notes["matrix"])
        assert ds["note_matrix"].dims == ("member", "note_matrix_0", "note_matrix_1")
        assert ds["note_flag"].values.tolist() == [True, False, True]
        assert ds["note_text"].values.tolist() == ["", "ü", "half ?"]
        assert ds["note_short"].dtype == np.int16
        assert ds["cause"].values[1] == "bad ?"
        assert ds["state"].values.tolist() == ["", "a/b", ""]
        assert ds["left_state"].values.tolist() == ["", "left", ""]


def test_long_texts_do_not_widen_every_row():
    short = np.array(["ok", "failed"] * 10, dtype=np.dtypes.StringDType())
    assert plain_text(short).dtype == "U6"
    wide = np.array(["x"] * 20_000 + ["y" * 5000], dtype=np.dtypes.StringDType())
    assert plain_text(wide).dtype == object


@pytest.mark.parametrize("hidden", [(), ("netCDF4", "h5netcdf")])
def test_netcdf(rich, store_path, tmp_path, monkeypatch, hidden):
    there = lambda name: None if name in hidden else find_spec(name)  # noqa: E731
    monkeypatch.setattr("ensemblerl.store.backend.find_spec", there)
    rich.close()
    wanted = open_store(store_path).load()
    for k, source in enumerate((store_path, xr.open_zarr(store_path), open_store(store_path))):
        target = export_netcdf(source, tmp_path / f"{k}.nc")
        with xr.open_dataset(target) as ds:
            ds.load()
        assert set(ds.coords) == set(wanted.coords)
        np.testing.assert_array_equal(ds["z_real"] + 1j * ds["z_imag"], wanted["z"])
        for name in set(wanted.variables) - {"z"}:
            assert ds[name].dims == wanted[name].dims
            if wanted[name].dtype.kind == "f":
                np.testing.assert_array_equal(ds[name].values, wanted[name].values)
            else:
                assert ds[name].values.tolist() == wanted[name].values.tolist()
        assert ds.attrs["goal"] == wanted.attrs["goal"]


def test_netcdf_has_every_part_of_every_variable(tmp_path):
    parts = {"z_real": 7.0, "z__imag": 8.0, "w": 1j}
    ds = xr.Dataset({"z": ("member", [1 + 2j]), **{k: ("member", [v]) for k, v in parts.items()}})
    with xr.open_dataset(export_netcdf(ds, tmp_path / "a.nc")) as out:
        got = {name: float(v[0]) for name, v in out.data_vars.items()}
    assert got == {
        **{"z_real": 7.0, "z__imag": 8.0, "z___real": 1.0, "z___imag": 2.0},
        **{"w_real": 0.0, "w_imag": 1.0},
    }


def test_complete_while_it_runs(rich, store_path):
    check = {"variables": {"h": RICH["variables"]["h"]}}
    check_rows(open_store(store_path), check, settled=range(25), n=30)


def test_opening_nothing(tmp_path):
    with pytest.raises(StoreError, match="no campaign here"):
        open_store(tmp_path)
