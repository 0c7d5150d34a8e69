"""Functions as simulations, and what becomes of the things they return."""

import functools
import json
import subprocess
import sys

import cloudpickle
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from ensemblerl.protocols import Simulation
from ensemblerl.simulations import datasets
from ensemblerl.simulations.function import Function, as_simulation
from ensemblerl.simulations.layouts import InvalidResult, digest_of
from ensemblerl.simulations.output import normalise
from ensemblerl.simulations.values import state_of

POINT = {"x": 2.0, "y": 3}
ROOM = 2**20


def plus(x, y):
    return x + y


class Scaled:
    def __init__(self, by):
        self.by = by

    def __call__(self, x, y):
        return self.by * x


def call(f, **kwargs):
    return Function(f, **kwargs)(POINT, seed=7, member={"number": 4})


# ---- calling


@pytest.mark.parametrize(
    ("f", "result"),
    [
        (plus, 5.0),
        (lambda point, seed: (point["x"], seed), (2.0, 7)),
        (lambda seed, point: (point["x"], seed), (2.0, 7)),
        (lambda point, seed, member: member["number"], 4),
        (lambda x, y, seed: seed, 7),
        (lambda x, y, member: member["number"], 4),
        (lambda **point: sorted(point), ["x", "y"]),
        (functools.partial(lambda a, x, y: a * x, 10.0), 20.0),
        (functools.partial(lambda x, y, seed: seed, seed=3), 3),
        (Scaled(4.0), 8.0),
    ],
)
def test_parameters_say_how_it_is_called(f, result):
    assert call(f) == result


def test_last_yield_is_the_result():
    def steps(x, y):
        yield 1.0
        yield x + y

    assert call(steps) == 5.0


def test_generator_without_a_yield_is_an_error():
    def nothing(x, y):
        return
        yield

    with pytest.raises(ValueError, match="yielded nothing"):
        call(nothing)


def test_member_may_be_left_out():
    assert Function(lambda x, member: member)({"x": 1.0}, seed=1) == {}


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"cores": 0}, ValueError, "cores: wanted a whole number >= 1, got 0"),
        ({"cores": True}, ValueError, "cores"),
        ({"retries": -1}, ValueError, "retries"),
        ({"retries": 1.5}, ValueError, "retries"),
        ({"max_result_bytes": 0}, ValueError, "max_result_bytes"),
        ({"timeout": 0}, ValueError, "timeout: wanted seconds > 0 or None, got 0"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"timeout": "1h"}, ValueError, "timeout"),
        ({"isolate": 1}, ValueError, "isolate"),
        ({"version": 3}, ValueError, "version"),
    ],
)
def test_bad_arguments_are_named(kwargs, error, words):
    with pytest.raises(error, match=words):
        Function(plus, **kwargs)


def test_arguments_after_the_first_are_keywords():
    with pytest.raises(TypeError):
        Function(plus, 2)
    with pytest.raises(TypeError, match="f: wanted a callable, got 3"):
        Function(3)


def test_a_point_and_parameters_beside_it_are_refused():
    with pytest.raises(ValueError, match=r"wanted \(point, seed\), got also x"):
        Function(lambda point, x: x)


def test_as_simulation():
    function = Function(plus)
    assert as_simulation(function) is function
    assert isinstance(as_simulation(plus), Simulation)
    with pytest.raises(TypeError, match="wanted a function or a Simulation, got 'plus'"):
        as_simulation("plus")


def test_it_is_frozen_equal_by_what_it_is_and_travels():
    function = Function(plus, cores=2, retries=1)
    assert function == Function(plus, cores=2, retries=1)
    assert function != Function(plus)
    with pytest.raises(AttributeError):
        function.cores = 3
    copy = cloudpickle.loads(cloudpickle.dumps(function))
    assert copy(POINT, seed=1) == 5.0
    assert copy == function


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (Function(plus), "Function(plus)"),
        (Function(plus, cores=2, timeout=3.0), "Function(plus, cores=2, timeout=3.0)"),
        (Function(functools.partial(plus, y=1), version="v2"), "Function(plus, version='v2')"),
        (Function(Scaled(2.0), retries=1), "Function(Scaled, retries=1)"),
    ],
)
def test_it_shows_what_was_given(function, text):
    assert repr(function) == text


# ---- what it says about itself


def test_version_follows_the_source():
    versions = {Function(f).version for f in (plus, Scaled(1.0), lambda x: x, lambda x: x + 1)}
    assert len(versions) == 4
    assert all(len(version) == 16 for version in versions)
    assert Function(Scaled(1.0)).version == Function(Scaled(2.0)).version
    assert Function(plus, version="v2").version == "v2"


def test_what_stands_beside_a_lambda_is_of_no_account():
    fmt = "x"
    one = Function(lambda x: x if x > 1 else [x, fmt], cores=1).version
    two, other = [Function(f).version for f in (lambda x: x if x > 1 else [x, fmt], lambda x: x)]
    assert one == two != other


def test_version_of_a_partial_counts_plain_values_only():
    first, second = (Function(functools.partial(plus, y=y)).version for y in (1, 2))
    assert first != second
    held = [Function(functools.partial(plus, y=object())).version for _ in range(2)]
    assert held[0] == held[1]


def test_no_source_no_version():
    assert Function(max).version is None
    scope = {}
    exec("def typed_in(x): return x", scope)
    assert Function(scope["typed_in"]).version is None


@pytest.mark.parametrize("f", [plus, Scaled(1.0), max, functools.partial(plus, y=1), lambda x: x])
def test_describe_is_json(f):
    about = Function(f, cores=3).describe()
    assert json.loads(json.dumps(about)) == about
    assert about["arguments"]["cores"] == 3
    assert about["name"]


def test_describe_names_module_and_file():
    about = Function(functools.partial(plus, y=1)).describe()
    assert about["name"] == "plus"
    assert about["module"] == __name__
    assert about["file"].endswith("test_function.py")
    assert about["bound"] == {"y": 1}


# ---- results in their normal form


def normal(result, max_bytes=ROOM):
    out = normalise(result, max_bytes=max_bytes)
    assert out.digest == digest_of(out.layout)
    assert list(out.arrays) == list(out.layout["variables"]) == sorted(out.arrays)
    json.dumps(out.layout, allow_nan=False)
    for name, array in out.arrays.items():
        about = out.layout["variables"][name]
        assert about["dtype"] == array.dtype.str
        assert about["shape"] == list(array.shape)
        assert len(about["dims"]) == array.ndim
        assert array.flags.c_contiguous
        assert array.dtype.byteorder in "<=|"
    return out


@pytest.mark.parametrize(
    "number", [1.5, 1, True, np.float64(1.5), np.float32(1.5), np.int64(3), np.bool_(True)]
)
def test_a_number_is_the_float64_value(number):
    out = normal(number)
    assert out.arrays["value"].dtype == np.float64
    assert out.arrays["value"] == float(number)
    assert out.digest == normal(0.25).digest


@given(st.floats() | st.integers(-(2**60), 2**60) | st.booleans())
def test_any_number_comes_back(number):
    np.testing.assert_array_equal(normal(number).arrays["value"], float(number))


@given(
    st.dictionaries(st.sampled_from("abcde"), st.floats() | st.integers(-9, 9), min_size=1),
    st.randoms(use_true_random=False),
)
def test_order_of_names_is_of_no_account(mapping, random):
    items = list(mapping.items())
    random.shuffle(items)
    one, two = normal(mapping), normal(dict(items))
    assert one.digest == two.digest
    assert list(one.arrays) == list(two.arrays)


def test_arrays_keep_their_dtype_and_get_dims():
    out = normal({"f": np.ones((2, 3), "f4"), "i": np.arange(4, dtype=">i2"), "list": [1, 2]})
    assert {name: array.dtype.str for name, array in out.arrays.items()} == {
        "f": "<f4",
        "i": "<i2",
        "list": "<i8",
    }
    assert out.layout["variables"]["f"]["dims"] == ["f_0", "f_1"]
    np.testing.assert_array_equal(out.arrays["i"], [0, 1, 2, 3])


def test_complex_bool_0d_and_wide_arrays():
    out = normal({"c": 1j, "b": np.array([True]), "z": np.array(2, "i4"), "w": np.longdouble([3])})
    kinds = {name: array.dtype.str for name, array in out.arrays.items()}
    assert kinds == {"c": "<c16", "b": "|b1", "z": "<i4", "w": "<f8"}


def test_masked_values_are_nan():
    out = normal({"m": np.ma.masked_array([1.0, 2.0], [False, True])})
    np.testing.assert_array_equal(out.arrays["m"], [1.0, np.nan])


def test_layouts_tell_names_dtypes_and_shapes_apart():
    results = [1.0, {"x": 1.0}, {"value": np.float32([1])}, {"value": [1.0]}, {"value": [1.0, 2.0]}]
    assert len({normal(result).digest for result in results}) == len(results)


def test_state_is_a_reference_and_no_variable():
    out = normal({"x": 1.0, "state": "runs/17.npz"})
    assert out.state == "runs/17.npz"
    assert list(out.arrays) == ["x"]
    assert normal({"state": 1.0}).arrays["state"] == 1.0
    ds = xr.Dataset({"x": 1.0}, attrs={"state": "here", "title": "t"})
    assert state_of(ds) == normal(ds).state == "here"
    assert normal(ds).layout["attrs"] == {"title": "t"}


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "'value': wanted numbers .*got None"),
        ("text", "'value': wanted numbers.*got 'text'"),
        ({"x": 1.0, "name": "text"}, "'name'.*'text'"),
        ({"x": object()}, "'x'"),
        ({"x": [[1.0], [1.0, 2.0]]}, "'x'"),
        ({"x": np.array(["a"])}, "'x'"),
        ({"x": np.array(["2020-01-01"], "M8[D]")}, "'x'"),
        ({}, "empty"),
        ({"state": "only"}, "empty"),
        ({3: 1.0}, "3: wanted a name that is text"),
        ({"": 1.0}, "wanted a name"),
        ({"a/b": 1.0}, "a/b"),
        ({".": 1.0}, "leading"),
        ({"a\0b": 1.0}, "control"),
        ({"half\ud800": 1.0}, "control"),
        ({"é" * 101: 1.0}, "200 bytes"),
        (xr.Dataset({".x": 1.0}), "leading"),
        ({"x": 10**400}, "'x'.*float64"),
        (xr.Dataset(), "at least one variable"),
        (xr.Dataset({"x": ("member", [1.0])}), "'member'"),
        (xr.Dataset({"x": ("t", ["a"])}), "'x'"),
        (xr.Dataset({"x": ("t", [1.0])}, {"t": np.array([object()])}), "coordinate 't'"),
    ],
)
def test_what_cannot_be_kept_is_named(result, words):
    with pytest.raises(InvalidResult, match=words):
        normalise(result, max_bytes=ROOM)


def test_too_many_bytes_with_the_remedy():
    with pytest.raises(InvalidResult, match=r"'big'.*100 bytes.*got 808.*keep=.*max_result_bytes"):
        normalise({"small": 1.0, "big": np.zeros(100)}, max_bytes=100)
    assert normal({"big": np.zeros(100)}, max_bytes=800).arrays["big"].nbytes == 800


# ---- xarray


def rebuilt(out):
    """The Dataset that a reader makes of layout and arrays."""

    def variable(about, data):
        array = np.array(data, dtype=about["dtype"]).reshape(about["shape"])
        return about["dims"], array, about["attrs"]

    layout = out.layout
    return xr.Dataset(
        {name: variable(about, out.arrays[name]) for name, about in layout["variables"].items()},
        {name: variable(about, about["data"]) for name, about in layout["coords"].items()},
        layout["attrs"],
    )


def example():
    return xr.Dataset(
        {
            "height": (("time", "site"), np.arange(6.0).reshape(3, 2).T.T, {"units": "m"}),
            "count": ((), np.int32(4)),
        },
        {
            "time": ("time", np.array(["2000-01-01", "NaT", "2000-01-03"], "M8[ns]")),
            "site": ("site", ["north", "sea"], {"long_name": "place"}),
            "lag": ("time", np.array([1, 2, 3], "m8[s]")),
            "depth": ("site", [np.nan, np.inf]),
            "level": 5.0,
        },
        {"title": "test", "numbers": np.arange(2), "when": np.datetime64("2000-01-01")},
    )


def test_a_dataset_comes_back_with_dims_coordinates_and_units():
    ds = example()
    xr.testing.assert_equal(rebuilt(normal(ds)), ds)
    back = rebuilt(normal(ds))
    assert back.height.attrs == {"units": "m"}
    assert back.site.attrs == {"long_name": "place"}
    assert back.attrs["numbers"] == [0, 1]
    assert back["count"].dtype == np.int32


def test_attributes_of_the_whole_do_not_make_another_layout():
    one, two = example(), example().assign_attrs(history="today")
    assert normal(one).digest == normal(two).digest
    assert normal(one).digest != normal(two.assign_coords(level=6.0)).digest


def test_a_data_array_goes_by_its_name():
    assert list(normal(xr.DataArray([1.0], dims="t")).arrays) == ["value"]
    assert list(normal(xr.DataArray([1.0], dims="t", name="q")).arrays) == ["q"]


def test_a_mapping_may_hold_data_arrays():
    field = xr.DataArray([1.0, 2.0], {"t": [10, 20]}, ["t"])
    out = normal({"q": field, "rmse": 1, "raw": np.zeros((2, 2)), "state": "here"})
    assert out.layout["variables"]["q"]["dims"] == ["t"]
    assert out.layout["variables"]["raw"]["dims"] == ["raw_0", "raw_1"]
    assert out.layout["coords"]["t"]["data"] == [10, 20]
    assert out.arrays["rmse"].dtype == np.float64
    assert out.state == "here"


def big(shift=0.0, n=500, **attrs):
    cells = np.arange(n) + shift
    return xr.Dataset({"f": ("cell", np.ones(n))}, {"cell": ("cell", cells, attrs)}, {"a": shift})


def test_a_layout_that_comes_again_is_not_built_again(monkeypatch):
    datasets._slot.cache_clear()
    built = []
    monkeypatch.setattr(datasets, "digest_of", lambda x: built.append(1) or digest_of(x))
    one, two = normal(big()), normal(big().assign_attrs(date="today"))
    assert len(built) == 1
    assert one.digest == two.digest
    assert one.layout["coords"] is two.layout["coords"]
    assert one.layout["attrs"] == {"a": 0.0}
    assert two.layout["attrs"] == {"a": 0.0, "date": "today"}
    others = [big(0.5), big(units="m"), big(n=499), big().rename(cell="c"), big().rename(f="g")]
    others += [big().astype("f4"), big().assign_coords(cell=np.arange(500))]
    digests = {normal(other).digest for other in others}
    assert len(digests | {one.digest}) == len(others) + 1
    datasets._slot.cache_clear()
    assert {normal(other).digest for other in others} == digests
    for k in range(100):
        normal(big(k, n=3))
    assert datasets._slot.cache_info().currsize <= 16


def test_layouts_of_text_times_and_numbers_that_are_none_are_found_again():
    datasets._slot.cache_clear()
    assert normal(example()).digest == normal(example()).digest
    assert datasets._slot.cache_info().hits == 1
    changed = example().assign_coords(site=["north", "see"])
    assert normal(changed).digest != normal(example()).digest


def test_attributes_that_would_decode_numbers_again_are_left_out():
    ds = xr.Dataset({"x": ("t", [1.0], {"scale_factor": 2.0, "units": "h since 1990-01-01"})})
    out = normal(ds.assign_coords(t=("t", [1], {"_FillValue": 1, "units": "K"})))
    assert out.layout["variables"]["x"]["attrs"] == {}
    assert out.layout["coords"]["t"]["attrs"] == {"units": "K"}


def test_xarray_is_not_imported_for_plain_results():
    code = (
        "import sys; from ensemblerl.simulations.output import normalise\n"
        "normalise({'x': 1.0, 'y': [1, 2]}, max_bytes=99)\n"
        "assert 'xarray' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
