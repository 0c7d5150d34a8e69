"""Expressions: what they compute, and what they refuse."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemblerl.expressions import MAX_DEPTH, MAX_LENGTH, Expression

A = np.array([-2.0, 0.5, 3.0])
TABLE = {
    "a": A,
    "b": 2,
    "n": np.array([1, 2, 3]),
    "flag": np.array([True, False, True]),
    "solver": np.array(["rk4", "euler", "rk4"]),
    "hole": np.array([np.nan, 1.0, np.inf]),
    "field": np.arange(6.0).reshape(3, 2),
    "sum": 7.0,
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a + b", A + 2),
        ("a - b * 3", A - 6),
        ("a / b", A / 2),
        ("a // 2", A // 2),
        ("a % 2", A % 2),
        ("2 ** a", 2**A),
        ("n ** -1", 1 / np.array([1.0, 2, 3])),
        ("-a", -A),
        ("+a", A),
        ("--a", A),
        ("True + True", 2.0),
        ("a <= 0.5", [True, True, False]),
        ("0 < a < 1", [False, True, False]),
        ("0 < a < 1 < n", [False, True, False]),
        ("a == 3", [False, False, True]),
        ("a != 3", [True, True, False]),
        ("a > 0 and flag", [False, False, True]),
        ("a > 0 or flag", [True, True, True]),
        ("not flag", [False, True, False]),
        ("not (a > 0 or n == 1)", [False, False, False]),
        ("solver == 'rk4'", [True, False, True]),
        ("solver in ('euler', 'heun')", [False, True, False]),
        ("solver not in ['euler']", [True, False, True]),
        ("n in (1, 3)", [True, False, True]),
        ("a in [-2]", [True, False, False]),
        ("flag == True", [True, False, True]),
        ("abs(a)", abs(A)),
        ("min(a, b, 0)", np.minimum(A, 0)),
        ("max(a, b)", np.maximum(A, 2)),
        ("sqrt(b)", math.sqrt(2)),
        ("exp(a)", np.exp(A)),
        ("log(b)", math.log(2)),
        ("log10(b)", math.log10(2)),
        ("sin(a)", np.sin(A)),
        ("cos(a)", np.cos(A)),
        ("tan(a)", np.tan(A)),
        ("floor(a)", np.floor(A)),
        ("ceil(a)", np.ceil(A)),
        ("isfinite(hole)", [False, True, False]),
        ("hypot(a, b)", np.hypot(A, 2)),
        ("hypot(3, 4, 12)", 13.0),
        ("sum(field)", [1.0, 5.0, 9.0]),
        ("mean(field)", [0.5, 2.5, 4.5]),
        ("max(field)", [1.0, 3.0, 5.0]),
        ("min(field)", [0.0, 2.0, 4.0]),
        ("sum(b)", 2.0),
        ("sum(flag)", 2.0),
        ("sum + 1", 8.0),
        ("1 / 0", np.inf),
        ("9 ** 9 ** 9 ** 9", np.inf),
    ],
)
def test_value(text: str, wanted: object) -> None:
    got = Expression(text)(TABLE)
    np.testing.assert_allclose(got, wanted, rtol=1e-15)
    assert np.shape(got) == np.shape(wanted)
    assert np.asarray(got).dtype == np.asarray(wanted).dtype


@pytest.mark.parametrize("sign", ["<", "<=", ">", ">=", "==", "!=", "in", "not in"])
def test_nothing_holds_of_nan(sign: str) -> None:
    right = "(1, 2)" if "in" in sign else "1"
    got = Expression(f"hole {sign} {right}")({"hole": np.array([np.nan, np.nan])})
    assert not got.any()
    assert not Expression(f"{right.strip('()').split(',')[0]} < hole < 2")({"hole": np.nan})


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.integers(-5, 5))
def test_agrees_with_python(a: float, b: float, n: int) -> None:
    text = "(a + 2 * b - n) / 3 < max(a, b, n) or a <= b < n and not a == b"
    wanted = (a + 2 * b - n) / 3 < max(a, b, n) or (a <= b < n and a != b)
    assert bool(Expression(text)({"a": a, "b": b, "n": n})) == wanted
    columns = {"a": np.full(4, a), "b": np.full(4, b), "n": np.full(4, n)}
    assert Expression(text)(columns).tolist() == [wanted] * 4


def test_names_text_equality_and_pickle() -> None:
    one = Expression("  sum(field) <= a + sqrt(b) ")
    assert one.names == {"field", "a", "b"}
    assert str(one) == one.text == "sum(field) <= a + sqrt(b)"
    assert one == Expression(str(one))
    assert len({one, Expression(str(one)), Expression("a")}) == 2
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    np.testing.assert_array_equal(again(TABLE), one(TABLE))
    with pytest.raises(AttributeError):
        one.text = "b"  # type: ignore[misc]


def test_reduces() -> None:
    assert [Expression(t).reduces for t in ("sum(a)", "1 + max(a)", "max(a, b)", "abs(a)")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a.b + 1", "Attribute is not allowed at column 1: 'a.b'"),
        ("1 + a[0]", "Subscript is not allowed at column 5: 'a[0]'"),
        ("lambda: 1", "Lambda is not allowed"),
        ("open('x')", "call of something that is not one of the functions at column 1"),
        ("a < (1).real()", "call of something"),
        ("f'{a}'", "JoinedStr is not allowed"),
        ("[x for x in a]", "ListComp is not allowed"),
        ("a if b else 1", "IfExp is not allowed"),
        ("(a, b)", "Tuple is not allowed"),
        ("(a := 1)", "NamedExpr is not allowed"),
        ("a @ b", "operator MatMult is not allowed"),
        ("a & b", "operator BitAnd is not allowed"),
        ("~a", "this sign is not allowed"),
        ("a is b", "comparison Is is not allowed"),
        ("a in b", "'in' wants a literal list or tuple"),
        ("a in ()", "'in' wants a literal list or tuple"),
        ("a in (b, 1)", "'in' wants literal numbers or texts"),
        ("a in ((1, 2),)", "'in' wants a literal list or tuple"),
        ("1j", "complex is not allowed"),
        ("None", "NoneType is not allowed"),
        ("b'x'", "bytes is not allowed"),
        ("sqrt(a, b)", "sqrt wants 1 to 1 plain arguments, got 2"),
        ("max()", "max wants 1 to 99 plain arguments, got 0"),
        ("sum(a=1)", "plain arguments"),
        ("max(*a)", "Starred is not allowed"),
        ("a = 1", "invalid syntax"),
        ("a b", "invalid syntax at column 3"),
        ("a <", "invalid syntax"),
        ("1" + "0" * 400, "a number beyond 1.8e308"),
        ("a\0", "null bytes"),
        ("(" * 300 + "a" + ")" * 300, "expression"),
        ("-" * (MAX_DEPTH + 2) + "a", f"nested deeper than {MAX_DEPTH} levels"),
        ("+".join(["a"] * (MAX_DEPTH + 5)), f"nested deeper than {MAX_DEPTH} levels"),
        ("a+" * MAX_LENGTH + "a", f"at most {MAX_LENGTH} characters"),
        ("", "non-empty text, got ''"),
        ("  ", "non-empty text"),
        (3, "non-empty text, got 3"),
        (None, "non-empty text, got None"),
    ],
)
def test_refused(text: object, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        Expression(text)  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_message_shows_text_and_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"'a\.b': .*allowed are numbers, texts.*hypot sum mean"):
        Expression("a.b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a + speed + mass", "unknown name mass, speed; there are: a, b, "),
        ("solver < 3", "compares text with a number"),
        ("a == 'rk4'", "compares text with a number"),
        ("solver in (1, 2)", "compares text with a number"),
        ("solver + 1", "wanted a number, got text"),
        ("a and b", "and, or, not want comparisons"),
        ("not a", "and, or, not want comparisons"),
        ("abs(solver)", "wanted a number"),
    ],
)
def test_refused_at_the_call(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        Expression(text)(TABLE)
    assert says in str(caught.value)
    assert repr(text) in str(caught.value)


def test_values_that_are_neither_numbers_nor_texts() -> None:
    with pytest.raises(ValueError, match="'a' must hold numbers or texts, got dtype object"):
        Expression("a < 1")({"a": [None, object()]})
    texts = np.array(["x", "y"], dtype=object)
    assert Expression("a == 'x'")({"a": texts}).tolist() == [True, False]


def test_the_deepest_one_allowed_runs() -> None:
    assert Expression("+".join(["a"] * MAX_DEPTH))({"a": 1}) == MAX_DEPTH
