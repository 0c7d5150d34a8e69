"""Callables told apart by their code and by what they hold, and by nothing else."""

import functools
import importlib.util
import json
import subprocess
import sys

import pytest

from ensemblerl.sources import described, file_of, fingerprint, held, name_of, version_of

PLAIN = """
def f(x, limit=3):
    "It squares."
    return x ** 2 + limit

class C:
    def __call__(self, x): return x
    def method(self, x): return x + 1

g = lambda x: x + 1
"""
DRESSED = """
# A comment, which moves all that follows.
import functools
def f(
    x,  # a number
    limit=3,
):
    'It squares.'

    return (x**2 + limit)   # squared

class C:
    # nothing
    def __call__(self, x):
        return x

    def method(self, x):
        return (x +
1)

h, g = (lambda x: x - 1), (lambda x: (  # plus
    x + 1)
); print(end="")
"""
CHANGED = PLAIN.replace("** 2", "** 3").replace("x + 1", "x + 2")
KINDS = {
    "function": lambda module: module.f,
    "class": lambda module: module.C,
    "object": lambda module: module.C(),
    "method": lambda module: module.C().method,
    "lambda": lambda module: module.g,
    "partial": lambda module: functools.partial(module.f, limit=2),
    "decorated": lambda module: functools.lru_cache(module.f),
}


@pytest.fixture
def module_of(tmp_path):
    def load(text, name):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("same", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize("get", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("tell", [fingerprint, version_of, described])
def test_comments_and_layout_are_of_no_account(module_of, get, tell):
    one, two, three = (
        tell(get(module_of(text, name)))
        for text, name in ((PLAIN, "a"), (DRESSED, "b"), (CHANGED, "c"))
    )
    assert one == two != three


def adder(by):
    def add(x):
        return x + by

    return add


class Adds:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x + self.by

    def method(self, x):
        return x + self.by


@pytest.mark.parametrize(
    "make",
    [
        adder,
        Adds,
        lambda by: Adds(by).method,
        lambda by: functools.partial(max, by),
        lambda by: functools.partial(functools.partial(max, 0), by=by),
        lambda by: functools.wraps(max)(functools.partial(max, by)),
    ],
)
def test_what_it_holds(make):
    one, same, other = make(1.5), make(1.5), make(float("inf"))
    assert 1.5 in held(one).values()
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    about = described(other)
    assert json.loads(json.dumps(about, allow_nan=False)) == about
    assert about != described(one) == described(same)


def test_names_and_files():
    assert name_of(functools.partial(adder(1))) == "adder.<locals>.add"
    assert name_of(Adds(1)) == "Adds"
    assert name_of(max) == "max"
    assert file_of(Adds(1)) == file_of(adder) == __file__
    assert file_of(max) is None


def test_code_without_source_is_told_apart_too():
    found = {}
    exec("def f(x): return x + 1\ndef g(x): return x + 2", found)
    assert version_of(found["f"]) is version_of(max) is None
    assert fingerprint(found["f"]) != fingerprint(found["g"])
    assert fingerprint(max) != fingerprint(min)


def test_it_needs_nothing():
    code = "import sys, ensemblerl.sources; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
