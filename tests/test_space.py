"""Parameters and the space: round trips, exactness, tails, and everything that is refused."""

from __future__ import annotations

import functools
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemblerl.names import RESERVED
from ensemblerl.parameters import (
    Choice,
    Distribution,
    Integer,
    LogNormal,
    Normal,
    Ordinal,
    Parameter,
    Real,
    Triangular,
    Uniform,
    from_json,
)
from ensemblerl.space import Space
from ensemblerl.spaces.constraints import Predicate

LAST = 1 - 2.0**-53
TAILS = np.array(
    [
        *(1e-300, 1e-200, 1e-100, 1e-30, 1e-16, 1e-9, 0.01, 0.3, 0.5, 0.7, 0.99),
        *(1 - 1e-9, 1 - 2.0**-40, 1 - 2.0**-52, LAST),
    ]
)
UNIT = st.floats(1e-300, LAST)


def scipy_laws() -> list[Any]:
    from scipy import stats

    return [
        stats.gamma(2, scale=3.0),
        stats.beta(2, 5, loc=-1, scale=4),
        stats.t(4),
        stats.weibull_min(1.5),
        stats.gumbel_r(loc=1.0),
        stats.truncnorm(-1, 2),
    ]


CONTINUOUS: list[Parameter] = [
    Real(1.0, 1.5),
    Real(-1e6, 3.0),
    Real(0, 1e-12),
    Real(-1e300, 5e300 / 10),
    Real(1e-2, 1e2, log=True),
    Real(1e-300, 1e300, log=True),
    Real(1e300, 1.01e300, log=True),
    Real(999.0, 1000.0, log=True),
    Uniform(-3, 8),
    Normal(0, 1),
    Normal(8, 0.5),
    Normal(-1000, 2.5),
    LogNormal(0, 1),
    LogNormal(-30, 0.01),
    LogNormal.from_median(50, 1.01),
    LogNormal(1, 15),
    Triangular(0, 0.3, 1),
    Triangular(-5, -5, 1),
    Triangular(-5, 1, 1),
    Triangular(100, 101, 300),
]
DISCRETE: list[tuple[Parameter, list[Any]]] = [
    (Integer(-3, 7), list(range(-3, 8))),
    (Integer(0, 999), list(range(1000))),
    (Integer(1, 50, log=True), list(range(1, 51))),
    (Integer(1, 3000, log=True), list(range(1, 3001))),
    (Integer(2**40 - 3, 2**40, log=True), list(range(2**40 - 3, 2**40 + 1))),
    (Real(0, 1, step=0.1), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
    (Real(0.1, 0.7, step=0.2), [0.1, 0.3, 0.5, 0.7]),
    (Real(-1e-3, 2e-3, step=1e-3), [-0.001, 0.0, 0.001, 0.002]),
    (Real(0, 1, step=1 / 3), [0.0, 1 / 3, 2 / 3, 1.0]),
    (Ordinal(1, 2, 4, 8), [1, 2, 4, 8]),
    (Ordinal(1.0, 0.1, 0.01), [1.0, 0.1, 0.01]),
    (Ordinal("low", "mid", "high"), ["low", "mid", "high"]),
    (Choice("rk4", "euler", "heun"), ["rk4", "euler", "heun"]),
    (Choice(16, 3, 2**53), [16, 3, 2**53]),
    (Choice(0.5, 3), [0.5, 3.0]),
    (Choice(True, False), [True, False]),
    (Choice("only"), ["only"]),
]
HUGE: list[tuple[Parameter, list[Any]]] = [
    (Integer(0, 2**31), [0, 1, 12345, 2**31 - 1, 2**31]),
    (Integer(-(2**40), 2**40), [-(2**40), -1, 0, 1, 2**40]),
    (Integer(1, 10**6, log=True), [1, 2, 3, 999, 123456, 10**6 - 1, 10**6]),
    (Integer(1, 2**40, log=True), [1, 2, 3, 2**39 + 1, 2**40 - 1, 2**40]),
    (Real(0, 1, step=1e-6), [0.0, 1e-6, 3e-6, 0.1, 0.3, 0.999999, 1.0]),
    (Real(-5, 5, step=1e-5), [-5.0, -0.00001, 0.0, 1.23456, 5.0]),
]


def everything() -> list[Parameter]:
    discrete = [parameter for parameter, _ in DISCRETE + HUGE]
    laws = [Distribution(law, units="s") for law in scipy_laws()]
    return [*CONTINUOUS, *discrete, *laws]


# Continuous kinds


@pytest.mark.parametrize("parameter", CONTINUOUS, ids=repr)
@given(u=st.lists(UNIT, min_size=1, max_size=20))
@settings(max_examples=25)
def test_round_trip(parameter: Parameter, u: list[float]) -> None:
    coordinates = np.concatenate([u, TAILS])
    values = parameter.to_value(coordinates)
    again = parameter.to_unit(values)
    assert np.isfinite(values).all()
    assert np.abs(again - coordinates).max() <= 1e-12
    assert ((again > 0) & (again < 1)).all()
    assert (parameter.kind, parameter.levels, parameter.edges) == ("real", 0, None)


@pytest.mark.parametrize("parameter", CONTINUOUS, ids=repr)
@given(u=st.lists(UNIT, min_size=2, max_size=30))
@settings(max_examples=25)
def test_monotone(parameter: Parameter, u: list[float]) -> None:
    # Apart by more than exp's own last digit; nearer pairs may tie, never by more than it.
    coordinates = np.unique(np.concatenate([np.round(u, 13), TAILS]).clip(1e-300, LAST))
    values = parameter.to_value(coordinates)
    steps = np.diff(values)
    assert (steps >= -4e-16 * np.abs(values[1:])).all()
    apart = np.diff(coordinates) > 1e-12
    assert (steps[apart] >= 0).all()


@pytest.mark.filterwarnings("ignore:Error in function boost")
@pytest.mark.parametrize("law", scipy_laws(), ids=lambda law: law.dist.name)
def test_distribution_of_scipy(law: Any) -> None:
    parameter = Distribution(law)
    u = np.concatenate([np.random.default_rng(0).random(200), TAILS[3:]])
    values = parameter.to_value(u)
    assert np.abs(parameter.to_unit(values) - u).max() <= 1e-12
    np.testing.assert_allclose(parameter.to_value([0.25, 0.75]), law.ppf([0.25, 0.75]), rtol=1e-14)
    assert np.isfinite(parameter.to_value(TAILS)).all()
    assert (np.diff(parameter.to_value(np.sort(u))) >= 0).all()


def test_both_tails_of_the_normal_are_sound() -> None:
    normal, lognormal = Normal(0, 1), LogNormal(0, 1)
    z = normal.to_value([1e-300, 1e-16, 2.0**-53, 1 - 2.0**-53, 1 - 2.0**-40, 2.0**-40])
    # Quantiles by mpmath with 50 digits.
    far, low = 37.047096299361199, 8.2220822161304356
    last, forty = 8.2095361516013869, 7.0477002566644088
    np.testing.assert_allclose(z, [-far, -low, -last, last, forty, -forty], rtol=1e-14)
    assert z[2] == -z[3]
    assert z[4] == -z[5]
    u = np.array([1e-300, 1e-100, 1e-20])
    np.testing.assert_allclose(normal.to_unit(normal.to_value(u)), u, rtol=1e-12)
    np.testing.assert_allclose(lognormal.to_unit(lognormal.to_value(u)), u, rtol=1e-11)
    assert normal.to_unit([-50.0, 50.0, 1e300]).tolist() == pytest.approx([0, 1, 1])
    assert (normal.to_unit([-50.0, 1e300]) > 0).all()
    assert (normal.to_unit([50.0, 1e300]) < 1).all()


@pytest.mark.parametrize(
    ("parameter", "law"),
    [
        (Normal(8, 0.5), "norm(8, 0.5)"),
        (LogNormal(1.5, 0.4), "lognorm(0.4, scale=exp(1.5))"),
        (LogNormal.from_median(3, 2), "lognorm(log(2), scale=3)"),
        (Uniform(-1, 4), "uniform(-1, 5)"),
        (Real(-1, 4), "uniform(-1, 5)"),
        (Real(1e-2, 1e2, log=True), "loguniform(1e-2, 1e2)"),
        (Triangular(-1, 0, 3), "triang(0.25, -1, 4)"),
        (Triangular(0, 0, 2), "triang(0, 0, 2)"),
        (Triangular(0, 2, 2), "triang(1, 0, 2)"),
    ],
    ids=repr,
)
def test_priors_agree_with_scipy(parameter: Parameter, law: str) -> None:
    from scipy import stats

    frozen = eval(law, {**vars(stats), "exp": np.exp, "log": np.log})
    u = np.linspace(0.001, 0.999, 500)
    np.testing.assert_allclose(parameter.to_value(u), frozen.ppf(u), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(parameter.to_unit(frozen.ppf(u)), u, atol=1e-10)


def test_ends_are_included_and_stay_inside_the_cube() -> None:
    for parameter in (Real(1, 2), Real(1, 2, log=True), Uniform(1, 2), Triangular(1, 1.5, 2)):
        u = parameter.to_unit([1.0, 2.0])
        assert 0 < u[0] < 1e-300
        assert u[1] == LAST
        assert parameter.to_value(u).tolist() == [1.0, 2.0]
    assert Real(0, 1).to_value(Real(0, 1).to_unit([0.0, 1.0])).tolist() == [0.0, 1.0]


# Discrete kinds


@pytest.mark.parametrize(("parameter", "values"), DISCRETE, ids=repr)
def test_discrete_is_exact(parameter: Parameter, values: list[Any]) -> None:
    edges = parameter.edges
    assert edges is not None
    assert parameter.levels == len(values) == len(edges) - 1
    assert parameter.kind == ("categorical" if isinstance(parameter, Choice) else "ordinal")
    assert (edges[0], edges[-1]) == (0, 1)
    assert (np.diff(edges) > 0).all()
    u = parameter.to_unit(values)
    np.testing.assert_array_equal(u, 0.5 * (edges[1:] + edges[:-1]))
    assert parameter.to_value(u).tolist() == values
    assert parameter.to_value(np.maximum(edges[:-1], 1e-300)).tolist() == values
    assert parameter.to_value(np.nextafter(edges[1:], 0)).tolist() == values


@pytest.mark.parametrize(("parameter", "values"), HUGE, ids=repr)
def test_too_many_levels_for_a_table_are_exact_too(parameter: Parameter, values: list[Any]) -> None:
    assert (parameter.kind, parameter.levels, parameter.edges) == ("real", 0, None)
    u = parameter.to_unit(values)
    assert parameter.to_value(u).tolist() == values
    assert (np.diff(u) > 0).all()
    assert parameter.to_value(TAILS)[[0, -1]].tolist() == [values[0], values[-1]]


@given(low=st.integers(-1000, 1000), n=st.integers(1, 2000), u=st.lists(UNIT, min_size=1))
def test_integers_are_equally_likely(low: int, n: int, u: list[float]) -> None:
    parameter = Integer(low, low + n)
    np.testing.assert_allclose(np.diff(parameter.edges), 1 / (n + 1), rtol=1e-9)  # type: ignore[arg-type]
    values = parameter.to_value(u)
    assert values.dtype == np.int64
    assert np.abs(parameter.to_unit(values) - u).max() <= 0.5 / (n + 1) + 1e-12


def test_cells_of_logarithmic_integers() -> None:
    edges = Integer(1, 4, log=True).edges
    axis = np.log([0.5, 1.5, 2.5, 3.5, 4.5])
    wanted = (axis - axis[0]) / (axis[-1] - axis[0])
    np.testing.assert_allclose(edges, wanted, atol=1e-15)


@given(
    low=st.integers(-50, 50),
    step=st.integers(1, 40),
    n=st.integers(1, 200),
    places=st.integers(0, 6),
)
def test_steps_show_no_noise(low: int, step: int, n: int, places: int) -> None:
    def decimal(whole: int) -> float:
        return float(f"{whole}e-{places}")

    wanted = [decimal(low + i * step) for i in range(n + 1)]
    parameter = Real(wanted[0], wanted[-1], step=decimal(step))
    u = (np.arange(n + 1) + 0.5) / (n + 1)
    assert parameter.to_value(u).tolist() == wanted
    np.testing.assert_allclose(parameter.to_unit(wanted), u, atol=1e-14)


def test_steps_take_values_with_noise() -> None:
    parameter = Real(0, 1, step=0.1)
    assert parameter.to_unit(0.1 * 3) == parameter.to_unit(0.3)
    with pytest.raises(ValueError, match=r"in steps of 0\.1, got 0\.35"):
        parameter.to_unit([0.3, 0.35])


# What a parameter says of itself


@pytest.mark.filterwarnings("ignore:Error in function boost")
@pytest.mark.parametrize("parameter", everything(), ids=repr)
def test_json_pickle_hash_and_repr(parameter: Parameter) -> None:
    data = json.loads(json.dumps(parameter.to_json(), allow_nan=False))
    again = from_json(data)
    assert again == parameter
    assert type(again) is type(parameter)
    assert hash(again) == hash(parameter)
    assert again.to_json() == data
    parameter.to_value(0.5)
    copy = pickle.loads(pickle.dumps(parameter))
    assert copy == parameter
    np.testing.assert_array_equal(copy.to_value(TAILS), parameter.to_value(TAILS))
    if not isinstance(parameter, Distribution):
        assert eval(repr(parameter)) == parameter


def test_json_holds_only_what_is_not_default() -> None:
    assert Real(1, 2).to_json() == {"kind": "real", "low": 1.0, "high": 2.0}
    told = Choice("a", "b", units="1", long_name="way", when={"x": 3}).to_json()
    assert told == {
        "kind": "choice",
        "options": ["a", "b"],
        "units": "1",
        "long_name": "way",
        "when": {"x": [3]},
    }


def test_repr_is_short() -> None:
    assert repr(Real(1, 2, log=True, units="km")) == "Real(1.0, 2.0, log=True, units='km')"
    assert repr(Choice("a", "b", when={"x": 1})) == "Choice('a', 'b', when={'x': (1,)})"
    law = Distribution(scipy_laws()[0], units="m")
    assert repr(law) == "Distribution(gamma(2.0, scale=3.0), units='m')"


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        Real(0, 1).low = 3  # type: ignore[misc]


def test_lognormal_from_median() -> None:
    parameter = LogNormal.from_median(3, 2, units="s")
    assert parameter.units == "s"
    np.testing.assert_allclose(parameter.to_value(0.5), 3)
    np.testing.assert_allclose(parameter.to_value(0.8413447460685429), 6)


def bad_parameters() -> list[tuple[Any, str]]:
    from scipy import stats

    inf, nan = np.inf, np.nan
    return [
        (lambda: Real(1, 1), "Real: high must be above low = 1.0, at a finite distance, got 1"),
        (lambda: Real(2, 1), "Real: high must be above low = 2.0, at a finite distance, got 1"),
        (lambda: Real(nan, 1), "Real: low must be a finite number, got nan"),
        (lambda: Real(0, inf), "Real: high must be a finite number, got inf"),
        (lambda: Real(-1e308, 1e308), "at a finite distance, got 1e+308"),
        (lambda: Real("a", 1), "Real: low must be a finite number, got 'a'"),
        (lambda: Real(True, 2), "Real: low must be a finite number, got True"),
        (lambda: Real(0, 1, log=True), "Real: low must be above 0 with log=True, got 0"),
        (lambda: Real(1, 2, log=True, step=0.1), "Real: step must be None with log=True, got 0.1"),
        (lambda: Real(0, 1, step=0.3), "Real: step must be such that it leads from 0.0 to 1.0"),
        (lambda: Real(0, 1, step=2), "got 2.0"),
        (lambda: Real(0, 1, step=0), "Real: step must be"),
        (lambda: Real(0, 1, step=-0.1), "got -0.1"),
        (lambda: Real(0, 1, step=nan), "Real: step must be a finite number, got nan"),
        (lambda: Real(0, 1, units=3), "Real: units must be a text, got 3"),
        (lambda: Real(0, 1, when="x"), "Real: when must be a mapping like"),
        (lambda: Real(0, 1, when={}), "Real: when must be a mapping like"),
        (lambda: Real(0, 1, when={"x": ()}), "Real: when must be names with a value or several"),
        (lambda: Real(0, 1, when={"x": None}), "Real: when must be names with a value"),
        (lambda: Integer(1, 1), "Integer: high must be above low = 1, got 1"),
        (lambda: Integer(0.5, 2), "Integer: low must be a whole number within 2**40 of zero"),
        (lambda: Integer(0, 2**41), "Integer: high must be a whole number within 2**40"),
        (lambda: Integer(0, 9, log=True), "Integer: low must be at least 1 with log=True, got 0"),
        (lambda: Integer(nan, 9), "Integer: low must be a finite number, got nan"),
        (lambda: Choice(), "Choice: options must be one or more, all of one type"),
        (lambda: Choice(1, "a"), "(str, int, float, bool), got (1, 'a')"),
        (lambda: Choice(True, 1), "Choice: options must be one or more, all of one type"),
        (lambda: Choice(None), "Choice: options must be one or more, all of one type"),
        (lambda: Choice([1], [2]), "Choice: options must be one or more, all of one type"),
        (lambda: Choice("a", "a"), "Choice: options must be different from each other"),
        (lambda: Choice(1, 1.0), "Choice: options must be different from each other"),
        (lambda: Choice("a", ""), "Choice: options must be finite numbers or non-empty texts"),
        (lambda: Choice("a", "b\0"), "Choice: options must be finite numbers or non-empty texts"),
        (lambda: Choice(1.0, nan), "Choice: options must be finite numbers or non-empty texts"),
        (lambda: Choice(1.0, inf), "Choice: options must be finite numbers or non-empty texts"),
        (lambda: Choice(1, 2**70), "Choice: options must be finite numbers or non-empty texts"),
        (lambda: Ordinal(True, False), "Ordinal: options must be one or more, all of one type"),
        (lambda: Ordinal(1, 3, 2), "Ordinal: options must be numbers that rise or fall"),
        (lambda: Ordinal(), "Ordinal: options must be one or more"),
        (lambda: Normal(0, 0), "Normal: std must be a finite number above 0, got 0"),
        (lambda: Normal(0, -1), "Normal: std must be a finite number above 0, got -1"),
        (lambda: Normal(nan, 1), "Normal: mean must be a finite number, got nan"),
        (lambda: Normal(0, 1e308), "Normal: std must be"),
        (lambda: LogNormal(0, 0), "LogNormal: sigma must be a finite number above 0, got 0"),
        (lambda: LogNormal(0, 30), "LogNormal: sigma must be at most 18.4 with this mu, got 30"),
        (lambda: LogNormal.from_median(0, 2), "LogNormal: median must be above 0, got 0"),
        (lambda: LogNormal.from_median(1, 1), "LogNormal: factor must be above 1, got 1"),
        (lambda: Uniform(1, 0), "Uniform: high must be above low = 1.0"),
        (lambda: Triangular(0, 2, 1), "Triangular: mode must be in [0.0, 1.0], got 2"),
        (lambda: Triangular(1, 1, 1), "Triangular: high must be above low = 1.0"),
        (lambda: Distribution(stats.poisson(3)), "a frozen continuous distribution"),
        (lambda: Distribution(stats.norm), "a frozen continuous distribution"),
        (lambda: Distribution(3), "Distribution: frozen must be a frozen continuous"),
        (lambda: Distribution(stats.norm([0, 1], 1)), "frozen's arguments must be a finite number"),
        (lambda: Distribution(stats.gamma(-2)), "Distribution: frozen must be one with valid"),
        (lambda: from_json({"kind": "reel"}), "parameter: kind must be one of real, integer"),
        (lambda: from_json({"low": 1}), "parameter: kind must be one of real, integer"),
        (lambda: from_json(3), "parameter: kind must be one of real, integer"),  # type: ignore[arg-type]
        (lambda: from_json({"kind": "real", "lo": 1}), "parameter of kind 'real'"),
        (lambda: from_json({"kind": "choice"}), "parameter of kind 'choice': 'options'"),
    ]


@pytest.mark.parametrize(("build", "says"), bad_parameters())
def test_wrong_parameter(build: Any, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        build()
    assert says in str(caught.value)


def test_distribution_read_with_an_unknown_name_fails_when_used() -> None:
    parameter = from_json({"kind": "distribution", "name": "gauss", "args": []})
    with pytest.raises(ValueError, match=r"name must be the name of a continuous .*'gauss'"):
        parameter.to_value(0.5)


@pytest.mark.parametrize(
    ("parameter", "value", "says"),
    [
        (Real(0, 1), 1.5, "values must be in [0.0, 1.0], got 1.5"),
        (Real(0, 1), np.nan, "got nan"),
        (Real(0, 1), "x", "got 'x'"),
        (Real(1, 2, log=True), -1.0, "got -1.0"),
        (Real(1, 2, log=True), 0.0, "got 0.0"),
        (Integer(1, 3), 4, "values must be a whole number in [1, 3], got 4"),
        (Integer(1, 3), 1.5, "got 1.5"),
        (Integer(1, 10**6, log=True), 0, "got 0"),
        (Choice("a", "b"), "c", "values must be one of 'a', 'b', got 'c'"),
        (Choice("a", "b"), 1, "got 1"),
        (Choice(1, 5), 3, "values must be one of 1, 5, got 3"),
        (Choice(1, 5), 7, "got 7"),
        (Normal(0, 1), np.inf, "values must be a finite number, got inf"),
        (LogNormal(0, 1), 0.0, "values must be a finite number above 0, got 0.0"),
        (Triangular(0, 1, 2), 3.0, "got 3.0"),
        (Distribution(scipy_laws()[0]), -1.0, "values must be a finite number in [0.0, inf]"),
    ],
)
def test_value_outside_the_support(parameter: Parameter, value: Any, says: str) -> None:
    good = parameter.to_value(0.5)
    one = good.dtype.kind == "U" or isinstance(value, str)
    with pytest.raises(ValueError) as caught:
        parameter.to_unit([value] if one else np.array([good, value], dtype=type(value)))
    assert says in str(caught.value)


@pytest.mark.parametrize("u", [0.0, 1.0, -0.1, np.nan, np.inf])
def test_coordinate_outside_the_cube(u: float) -> None:
    with pytest.raises(ValueError, match=r"Real: u must be in the open interval \(0, 1\), got"):
        Real(0, 1).to_value([0.5, u])


# The space


def roomy() -> Space:
    return Space(
        inflation=Real(1.0, 1.5, long_name="inflation factor"),
        radius=Real(1e-2, 1e2, log=True, units="km"),
        width=Real(0, 1, step=0.1),
        layers=Integer(1, 9),
        batch=Integer(1, 512, log=True),
        level=Ordinal("low", "mid", "high"),
        solver=Choice("rk4", "euler"),
        flag=Choice(True, False),
        scale=Choice(0.5, 2),
        forcing=Normal(8.0, 0.5),
        rate=LogNormal(0, 1),
        other=Uniform(0, 1),
        shape=Triangular(0, 1, 3),
        law=Distribution(scipy_laws()[0]),
    )


def conditional(**more: Any) -> Space:
    return Space(
        optimizer=Choice("sgd", "adam", "lbfgs"),
        momentum=Real(0, 1, when={"optimizer": "sgd"}),
        nesterov=Choice(True, False, when={"optimizer": ("sgd", "adam")}),
        memory=Integer(1, 9, when={"optimizer": "lbfgs"}),
        depth=Integer(1, 3, when={"nesterov": True}),
        line=Choice("wolfe", "armijo", when={"optimizer": "lbfgs", "memory": (1, 2, 3)}),
        rate=Real(1e-4, 1, log=True),
        **more,
    )


def drawn(space: Space, n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((n, space.ndim)).clip(1e-300, LAST)


def test_points_have_types_by_kind() -> None:
    space = roomy()
    points = space.to_points(drawn(space, 50))
    kinds = {name: column.dtype.kind for name, column in points.items()}
    texts, whole = {"level", "solver"}, {"layers", "batch"}
    assert kinds == {
        name: "U" if name in texts else "i" if name in whole else "b" if name == "flag" else "f"
        for name in space
    }
    point = space.point(points, 3)
    assert list(point) == list(space.names)
    assert {type(value) for value in point.values()} == {str, int, bool, float}
    assert point == {name: points[name][3] for name in space}


def test_space_round_trip() -> None:
    space = roomy()
    unit = np.vstack([drawn(space, 500), np.repeat(TAILS[:, None], space.ndim, axis=1)])
    points = space.to_points(unit)
    again = space.to_unit(points)
    real = [kind == "real" for kind in space.cube.kinds]
    assert np.abs(again - unit)[:, real].max() <= 1e-12
    np.testing.assert_array_equal(space.cube.cells(again), space.cube.cells(unit))
    back = space.to_points(again)
    for name in space:
        if points[name].dtype.kind == "f" and space[name].kind == "real":
            np.testing.assert_allclose(back[name], points[name], rtol=1e-11, atol=1e-15)
        else:
            np.testing.assert_array_equal(back[name], points[name])


def test_rows_do_not_depend_on_each_other() -> None:
    for space in (roomy(), conditional()):
        unit = drawn(space, 40)
        whole = space.to_points(unit)
        for i in range(len(unit)):
            one = space.to_points(unit[i : i + 1])
            assert space.point(one, 0) == space.point(whole, i)


def test_no_rows() -> None:
    for space in (roomy(), conditional(constraints=["rate < 1"])):
        points = space.to_points(np.empty((0, space.ndim)))
        assert {len(column) for column in points.values()} == {0}
        assert space.to_unit(points).shape == (0, space.ndim)
        assert space.feasible(np.empty((0, space.ndim))).shape == (0,)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_conditional_round_trip(seed: int) -> None:
    space = conditional()
    unit = drawn(space, 200, seed)
    points = space.to_points(unit)
    again = space.to_unit(points)
    np.testing.assert_array_equal(space.cube.active(again), space.cube.active(unit))
    np.testing.assert_array_equal(space.cube.canonical(again), again)
    assert again[:, [1, 6]] == pytest.approx(space.cube.canonical(unit)[:, [1, 6]], abs=1e-12)
    rows = [space.point(points, i) for i in range(len(unit))]
    for row in rows:
        sgd, adam = row["optimizer"] == "sgd", row["optimizer"] == "adam"
        assert ("momentum" in row) == sgd
        assert ("nesterov" in row) == (sgd or adam)
        assert ("memory" in row) == (not sgd and not adam)
        assert ("depth" in row) == (row.get("nesterov") is True)
        assert ("line" in row) == (row.get("memory") in (1, 2, 3))
        assert type(row.get("memory", 1)) is int
        assert type(row.get("nesterov", True)) is bool
    assert {len(row) for row in rows} >= {3, 4, 5}


def test_conditional_columns() -> None:
    space = conditional()
    points = space.to_points(drawn(space, 30))
    assert {name: points[name].dtype.kind for name in ("memory", "nesterov", "line")} == {
        "memory": "f",
        "nesterov": "f",
        "line": "U",
    }
    away = points["optimizer"] != "lbfgs"
    assert np.isnan(points["memory"][away]).all()
    assert (points["line"][away] == "").all()


def test_cube() -> None:
    cube = conditional(constraints=["rate < 0.5"]).cube
    assert cube.kinds[:3] == ("categorical", "real", "categorical")
    assert cube.levels == (3, 0, 2, 9, 3, 2, 0)
    assert cube.parents == (
        (),
        ((0, (0,)),),
        ((0, (0, 1)),),
        ((0, (2,)),),
        ((2, (0,)),),
        ((3, (0, 1, 2)), (0, (2,))),
        (),
    )
    space = roomy()
    assert space.cube is space.cube
    assert space.cube.feasible is None


def test_to_unit_takes_lists_pandas_and_wider_types() -> None:
    import pandas as pd

    space = conditional()
    rows = [space.point(space.to_points(drawn(space, 20)), i) for i in range(20)]
    frame = pd.DataFrame(rows, columns=list(space.names))
    unit = space.to_unit(frame)
    assert [space.point(space.to_points(unit), i)["optimizer"] for i in range(20)] == [
        row["optimizer"] for row in rows
    ]
    lists = {name: [row.get(name) for row in rows] for name in space}
    np.testing.assert_array_equal(space.to_unit(lists), unit)


# Constraints


def feasible_by_hand(a: float, b: float, solver: str) -> bool:
    return a + b <= 1 and solver == "rk4"


def test_constraints_as_text_and_function() -> None:
    parts: dict[str, Parameter] = {
        "a": Real(0, 1),
        "b": Real(0, 1),
        "solver": Choice("rk4", "euler"),
    }
    by_text = Space(parts, constraints=["a + b <= 1", "solver == 'rk4'"])
    by_function = Space(parts, constraints=feasible_by_hand)
    unit = drawn(by_text, 300)
    points = by_text.to_points(unit)
    wanted = (points["a"] + points["b"] <= 1) & (points["solver"] == "rk4")
    assert 20 < wanted.sum() < 280
    for space in (by_text, by_function):
        assert space.cube.feasible is not None
        np.testing.assert_array_equal(space.cube.feasible(unit), wanted)
        copy = pickle.loads(pickle.dumps(space.cube))
        np.testing.assert_array_equal(copy.feasible(unit), wanted)


def test_constraint_about_an_inactive_parameter_is_satisfied() -> None:
    space = conditional(constraints=["momentum < 0.5", "line == 'wolfe'", "not nesterov == 0"])
    unit = drawn(space, 200)
    points = space.to_points(unit)
    with np.errstate(invalid="ignore"):
        wanted = ~(points["momentum"] >= 0.5) & (points["line"] != "armijo")
    wanted &= points["nesterov"] != 0
    assert 10 < wanted.sum() < 190
    np.testing.assert_array_equal(space.feasible(unit), wanted)


def test_predicate_read_back_equals_but_cannot_be_asked() -> None:
    parts: dict[str, Parameter] = {"a": Real(0, 1), "b": Real(0, 1), "solver": Choice("rk4")}
    own = [{"a": 0.1, "b": 0.2, "solver": "rk4"}]
    space = Space(parts, constraints=[feasible_by_hand], start=own)
    data = json.loads(json.dumps(space.to_json()))
    (told,) = data["constraints"]
    assert told["predicate"] == "feasible_by_hand"
    assert len(told["source"]) == 16
    again = Space.from_json(data)
    assert again == space
    assert again.to_json() == data
    assert again != Space(parts, constraints=[lambda **point: True], start=own)
    with pytest.raises(ValueError, match=r"'feasible_by_hand' was read from a file.*build"):
        again.feasible(drawn(again, 2))
    assert again.to_points(drawn(again, 2))["a"].shape == (2,)


def limited(limit: float) -> Any:
    return lambda a: a < limit


class Below:
    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, a: float) -> bool:
        return a < self.limit


def test_what_stands_around_a_predicate_is_no_part_of_it() -> None:
    def told(predicate: Any, *_: Any) -> Any:
        return Space(a=Real(0, 1), constraints=[predicate]).to_json()["constraints"]

    one = told(lambda a: a < 0.5)
    two = told(
        lambda a: (
            # a comment
            a < 0.5
        ),
        "a comma and more",
    )
    beside = [told(f) for f in (lambda a: a < 0.5, lambda a: a > 0.5)]
    assert one == two == beside[0] != beside[1]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (lambda a: a < 0.5, lambda a: a <= 0.5),
        (limited(0.5), limited(0.6)),
        (Below(0.5), Below(0.6)),
        (functools.partial(feasible_by_hand, b=0.5), functools.partial(feasible_by_hand, b=0.6)),
    ],
)
def test_predicates_are_told_apart_by_what_they_hold(one: Any, two: Any) -> None:
    assert Predicate.of(one) == Predicate.of(one)
    assert Predicate.of(one).source != Predicate.of(two).source


def test_a_predicate_without_source_is_told_apart_by_its_code() -> None:
    made: dict[str, Any] = {}
    exec("def f(a): return a < 0.5\ndef g(a): return a < 0.6", made)
    assert Predicate.of(made["f"]).source != Predicate.of(made["g"]).source
    assert Predicate.of(functools.partial(feasible_by_hand, b=0.5)).name == "feasible_by_hand"


@pytest.mark.parametrize(
    ("constraints", "says"),
    [
        (["a + c <= 1"], "'a + c <= 1' names c; parameters are: a, b, way"),
        (["a +"], "expression 'a +': invalid syntax"),
        (["a.b < 1"], "Attribute is not allowed"),
        (["a + b"], "'a + b' must be true or false, got numbers"),
        (["way < 3"], "compares text with a number"),
        (["sum(a) < 3"], "must compare parameters of one point"),
        (["max(a) < 3"], "must compare parameters of one point"),
        (["1 < 2"], "must compare parameters"),
        ([3], "constraints: wanted texts like 'a + b <= 1' or functions, got 3"),
        (3, "constraints: wanted a list of texts or functions, got 3"),
        ([{"predicate": "f"}], "constraints: wanted texts"),
    ],
)
def test_wrong_constraint(constraints: Any, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        Space(a=Real(0, 1), b=Real(0, 1), way=Choice("x", "y"), constraints=constraints)
    assert says in str(caught.value)


# Points of one's own


def test_start() -> None:
    own = [
        {"optimizer": "sgd", "momentum": 1, "nesterov": True, "depth": np.int64(2), "rate": 0.1},
        {"optimizer": "lbfgs", "memory": 2.0, "line": "armijo", "rate": np.float64(1e-4)},
        {"optimizer": "adam", "nesterov": False, "rate": 1.0},
    ]
    space = conditional(start=own, constraints=["momentum > rate", "line == 'armijo'"])
    assert list(space.start) == own
    assert [type(v) for v in space.start[0].values()] == [str, float, bool, int, float]
    unit = space.start_unit()
    assert unit.shape == (3, 7)
    points = space.to_points(unit)
    for i, row in enumerate(own):
        point = space.point(points, i)
        assert list(point) == [name for name in space if name in row]
        for name, value in row.items():
            assert point[name] == (pytest.approx(value) if isinstance(value, float) else value)
    np.testing.assert_array_equal(space.cube.canonical(unit), unit)
    space.start[0]["rate"] = 3
    unit[:] = 0
    assert list(space.start) == own
    assert (space.start_unit() > 0).all()
    assert conditional().start_unit().shape == (0, 7)


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ([{"a": 0.1, "b": 0.1}, {"a": 0.1, "b": 2}], "start[1]: 'b' must be in [0.0, 1.0], got 2"),
        ([{"a": 0.1}], "start[0]: 'b' must be in [0.0, 1.0], got nothing"),
        ([{"a": 0.1, "b": np.nan}], "start[0]: 'b' must be in [0.0, 1.0], got nothing"),
        ([{"a": 0.1, "b": "x"}], "start[0]: 'b' must be in [0.0, 1.0], got 'x'"),
        ([{"a": 0.1, "b": 0.2, "d": 1}], "start[0]: unknown d; parameters are: a, b"),
        ([{"a": 0.9, "b": 0.8}], "start[0]: wanted a feasible point ('a + b <= 1'), got {'a'"),
        ([{"a": [0.1, 0.2], "b": 0.1}], "a: wanted one value a point, got shape (1, 2)"),
        ([{"a": 0.1, "b": 0.1, "c": 1}], "'c' must be left out, it counts only when k = on; got 1"),
        ([3], "start[0]: wanted a dict of parameter values, got 3"),
        ({"a": 1}, "start: wanted a list of dicts, got {'a': 1}"),
        ("ab", "start: wanted a list of dicts"),
        (None, "start: wanted a list of dicts, got None"),
    ],
)
def test_wrong_start(start: Any, says: str) -> None:
    parts: dict[str, Parameter] = {"a": Real(0, 1), "b": Real(0, 1)}
    if "k = on" in says:
        parts |= {"k": Choice("off", "on"), "c": Integer(0, 3, when={"k": "on"})}
        start = [{**row, "k": "off"} for row in start]
    with pytest.raises(ValueError) as caught:
        Space(parts, constraints=["a + b <= 1"], start=start)
    assert says in str(caught.value)


def test_one_point_and_casts() -> None:
    space = conditional()
    unit = space.unit_of({"optimizer": "adam", "nesterov": False, "rate": 1e-4})
    assert unit.shape == (7,)
    assert space.point(space.to_points(unit[None]), 0)["nesterov"] is False
    with pytest.raises(ValueError, match=r"point: 'rate' must be in .* got 3"):
        space.unit_of({"optimizer": "adam", "nesterov": False, "rate": 3})
    assert space.casts == {"nesterov": "bool", "memory": "int", "depth": "int"}
    assert roomy().casts == {}


# Bad input


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"the name '{name}' is reserved"):
        Space({name: Real(0, 1)})


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Space(), "parameters: wanted at least one, got none"),
        (lambda: Space({"a": Real(0, 1)}, a=Real(0, 1)), "wanted every name once, got 'a' twice"),
        (lambda: Space({"a b": Real(0, 1)}), "wanted identifiers as names, got 'a b'"),
        (lambda: Space({"lambda": Real(0, 1)}), "wanted identifiers as names, got 'lambda'"),
        (lambda: Space({3: Real(0, 1)}), "wanted identifiers as names, got 3"),  # type: ignore[dict-item]
        (lambda: Space(a=(0, 1)), "a: wanted a parameter like Real(0, 1), got (0, 1)"),  # type: ignore[arg-type]
        (lambda: Space([Real(0, 1)]), "parameters: wanted a dict of name -> parameter"),  # type: ignore[arg-type]
        (
            lambda: Space(a=Real(0, 1, when={"b": "x"}), b=Choice("x", "y")),
            "a: when must name a parameter declared before, got 'b'",
        ),
        (
            lambda: Space(a=Real(0, 1, when={"a": 1})),
            "a: when must name a parameter declared before, got 'a'",
        ),
        (
            lambda: Space(b=Real(0, 1), a=Real(0, 1, when={"b": 0.5})),
            "a: when must name a discrete parameter, got 'b'",
        ),
        (
            lambda: Space(b=Choice("x", "y"), a=Real(0, 1, when={"b": ("x", "z")})),
            "a: when wants 'b' one of 'x', 'y', got ('x', 'z')",
        ),
    ],
)
def test_wrong_declaration(build: Any, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        build()
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("unit", "says"),
    [
        (np.full((2, 3), 0.5), "unit: wanted shape (n, 7), got (2, 3)"),
        (np.full(7, 0.5), "unit: wanted shape (n, 7), got (7,)"),
        (np.full((2, 7), 0.0), "unit: wanted coordinates in the open interval (0, 1), got 0.0"),
        (np.full((2, 7), 1.0), "got 1.0"),
        (np.full((2, 7), np.nan), "got nan"),
    ],
)
def test_wrong_unit(unit: Any, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        conditional().to_points(unit)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"speed": [1.0, 2.0]}, "points: unknown speed; parameters are: a, k, c, t"),
        ({"a": None}, "points: missing a; parameters are: a, k, c, t"),
        ({"a": [0.5, 7.0]}, "points, row 1: 'a' must be in [0.0, 1.0], got 7.0"),
        ({"a": [np.nan, 0.5]}, "points, row 0: 'a' must be in [0.0, 1.0], got nothing"),
        ({"a": [0.5, np.inf]}, "points, row 1: 'a' must be in [0.0, 1.0], got inf"),
        ({"a": [0.5, 0.5, 0.5]}, "points: wanted columns of one length, got {'a': 3, "),
        ({"a": 0.5}, "a: wanted one value a point, got shape ()"),
        ({"k": ["on", "of"]}, "points, row 1: 'k' must be one of 'off', 'on', got 'of'"),
        ({"k": ["on", ""]}, "points, row 1: 'k' must be one of 'off', 'on', got nothing"),
        ({"c": [1.0, 2.0]}, "row 1: 'c' must be left out, it counts only when k = on; got 2.0"),
        ({"c": [np.nan, np.nan]}, "row 0: 'c' must be a whole number in [0, 3], got nothing"),
        ({"t": ["p", "q"]}, "row 1: 't' must be left out, it counts only when k = on; got 'q'"),
        ({"t": ["", ""]}, "row 0: 't' must be one of 'p', 'q', got nothing"),
    ],
)
def test_wrong_points(change: dict[str, Any], says: str) -> None:
    on = {"k": "on"}
    space = Space(
        a=Real(0, 1), k=Choice("off", "on"), c=Integer(0, 3, when=on), t=Choice("p", "q", when=on)
    )
    points: dict[str, Any] = {"a": [0.1, 0.2], "k": ["on", "off"], "c": [1, None], "t": ["p", ""]}
    assert space.to_unit(points).shape == (2, 4)
    points |= change
    points = {name: column for name, column in points.items() if column is not None}
    with pytest.raises(ValueError) as caught:
        space.to_unit(points)
    assert says in str(caught.value)


# JSON, TOML, text


def rich() -> Space:
    own = [{"optimizer": "adam", "nesterov": True, "depth": 3, "rate": 0.1}]
    return conditional(constraints=["momentum + rate <= 1"], start=own)


@pytest.mark.parametrize("space", [roomy(), conditional(), rich()], ids=["all", "when", "rich"])
def test_space_json_and_pickle(space: Space) -> None:
    text = json.dumps(space.to_json(), allow_nan=False, sort_keys=True)
    unit = drawn(space, 20)
    for again in (Space.from_json(json.loads(text)), pickle.loads(pickle.dumps(space))):
        assert again == space
        assert hash(again) == hash(space)
        assert again.names == space.names
        assert again.start == space.start
        np.testing.assert_array_equal(again.start_unit(), space.start_unit())
        for name, column in space.to_points(unit).items():
            np.testing.assert_array_equal(again.to_points(unit)[name], column)


def test_equality_sees_order_and_types() -> None:
    a, b = Real(0, 1), Real(0, 2)
    assert Space(a=a, b=b) == Space({"a": a}, b=b)
    assert Space(a=a, b=b) != Space(b=b, a=a)
    assert Space(a=Choice(1, 2)) != Space(a=Choice(1.0, 2.0))
    assert Space(a=a) != Space(a=a, constraints=["a < 0.5"])
    assert Space(a=a) != Space(a=a, start=[{"a": 0.5}])
    assert Space(a=a) != "a"


TOML = """
constraints = ["momentum + rate <= 1"]
start = [{optimizer = "adam", rate = 0.1}]

[parameters.rate]
kind = "real"
low = 1e-4
high = 1
log = true
units = "1"

[parameters.optimizer]
kind = "choice"
options = ["sgd", "adam"]

[parameters.momentum]
kind = "real"
low = 0
high = 1
when = {optimizer = "sgd"}
"""


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(TOML)
    space = Space(
        rate=Real(1e-4, 1, log=True, units="1"),
        optimizer=Choice("sgd", "adam"),
        momentum=Real(0, 1, when={"optimizer": "sgd"}),
        constraints=["momentum + rate <= 1"],
        start=[{"optimizer": "adam", "rate": 0.1}],
    )
    assert Space.from_toml(path) == space
    path.write_text(TOML.replace("high = 1\nlog", "high = 0\nlog"))
    with pytest.raises(ValueError, match=r"space\.toml: parameters\.rate: Real: high must be"):
        Space.from_toml(path)
    path.write_text("parameters = [")
    with pytest.raises(ValueError, match=r"space\.toml: "):
        Space.from_toml(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "space: wanted a dict of constraints, order, parameters, start, got []"),
        ({"params": {}}, "space: wanted a dict of constraints, order, parameters, start"),
        ({}, "space: parameters must be a dict by name, got None"),
        ({"parameters": {"a": 3}}, "parameters.a: parameter: kind must be one of"),
        ({"parameters": {"a": {"kind": "real", "low": 1}}}, "parameters.a: parameter of kind"),
        (
            {"parameters": {"a": {"kind": "uniform", "low": 0, "high": 1}}, "order": ["b"]},
            "space: order must hold the names ['a'], got ['b']",
        ),
    ],
)
def test_wrong_json(data: Any, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        Space.from_json(data)
    assert says in str(caught.value)


def test_a_mapping_of_parameters() -> None:
    space = rich()
    assert (len(space), space.ndim) == (7, 7)
    assert list(space) == list(space.names)
    assert space["memory"] == Integer(1, 9, when={"optimizer": "lbfgs"})
    assert "memory" in space
    assert "speed" not in space


def test_repr_is_a_table() -> None:
    space = Space(
        radius=Real(1, 2, units="km", long_name="radius of influence"),
        way=Choice("a<b", "c"),
        constraints=["radius < 1.5"],
        start=[{"radius": 1, "way": "c"}],
    )
    assert repr(space) == (
        "Space of 2 parameters, 1 constraint, 1 start point\n"
        "  name    prior               units  long name\n"
        "  radius  Real(1.0, 2.0)      km     radius of influence\n"
        "  way     Choice('a<b', 'c')\n"
        "  where 'radius < 1.5'"
    )
    html = space._repr_html_()
    assert "<td>radius of influence</td>" in html
    assert "a&lt;b" in html
    assert "a<b" not in html


def test_importing_it_loads_no_scipy() -> None:
    code = (
        "import sys, ensemblerl.space as s, ensemblerl.parameters as p;"
        "s.Space(a=p.Real(0, 1), b=p.Normal(0, 1), c=p.from_json("
        "{'kind': 'distribution', 'name': 'gamma', 'args': [2.0]}));"
        "print([m for m in ('torch', 'distributed', 'scipy.stats', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.stdout.strip() == "[]", out.stderr
