"""What users and machines do wrong, through the front door: nothing is lost, the error says what
to do. (Four writers and a kill in the middle of a record: tests/test_store_segments.py; a worker
without torch: tests/test_dask.py.)"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import ensemblerl as erl

SPACE = erl.Space(x=erl.Real(0.0, 1.0))


def bad_half(kind):
    """A simulation that goes wrong in its own way where x > 0.5."""

    def simulate(x):
        if x <= 0.5:
            return {"y": x, "field": np.zeros(3)}
        return {
            "raises": lambda: 1 / 0,
            "nan": lambda: {"y": np.nan, "field": np.zeros(3)},
            "vector value": lambda: {"y": np.ones(2), "field": np.zeros(3)},
            "shape": lambda: {"y": x, "field": np.zeros(4)},
            "variables": lambda: {"y": x, "fields": np.zeros(3)},
            "text": lambda: {"y": x, "field": "three"},
            "nothing": lambda: None,
            "big": lambda: {"y": x, "field": np.zeros(10_000)},
            "exit": lambda: sys.exit(3),
            "out of memory": lambda: np.zeros(2**50),
        }[kind]()

    return simulate


@pytest.mark.parametrize(
    ("kind", "fate", "cause"),
    [
        ("raises", "failed", "ZeroDivisionError: division by zero"),
        ("nan", "invalid", r"nan"),
        ("vector value", "invalid", r"'y'.*\(2,\)"),
        ("shape", "invalid", r"variable 'field' changed: wanted shape \[3\], got \[4\]"),
        ("variables", "invalid", r"variables changed: wanted .*'field'.*got .*'fields'"),
        ("text", "invalid", "field"),
        ("nothing", "invalid", "None"),
        ("big", "invalid", "max_result_bytes"),
        ("exit", "failed", "SystemExit"),
        ("out of memory", "out_of_memory", "MemoryError"),
    ],
)
def test_a_bad_result_is_a_row_with_its_cause(kind, fate, cause):
    simulation = erl.Function(bad_half(kind), max_result_bytes=1000)
    ds = erl.explore(simulation, SPACE, erl.Minimize("y"), n_members=16, cluster="serial", seed=2)
    bad = ds.x.values > 0.5
    assert ds.x.values[0] < 0.5
    assert 0 < bad.sum() < 16
    assert (ds.fate.values[bad] == fate).all()
    assert (ds.fate.values[~bad] == "ok").all()
    assert (ds.reward.isnull().values == bad).all()
    assert re.search(cause, ds.cause.values[bad][0], re.DOTALL), ds.cause.values[bad][0]


def test_an_unpicklable_simulation_is_named_before_anything_runs():
    lock = threading.Lock()

    def simulate(x):
        with lock:
            return x

    with (
        ProcessPoolExecutor(1) as pool,
        pytest.raises((TypeError, ValueError), match=r"simulation.*pickle"),
    ):
        erl.explore(simulate, SPACE, erl.Minimize(), n_members=2, cluster=pool)
    ds = erl.explore(simulate, SPACE, erl.Minimize(), n_members=2, cluster="serial")
    assert (ds.fate == "ok").all()


def hang_or_crash(x):
    if x > 0.75:
        time.sleep(60)
    if x > 0.5:
        ctypes.string_at(0)
    return x


def test_hanging_and_crashing_members_cost_one_member_and_no_worker():
    simulation = erl.Function(hang_or_crash, timeout=0.5)
    ds = erl.explore(simulation, SPACE, erl.Minimize(), n_members=12, seed=2, cluster="serial")
    x = ds.x.values
    wanted = np.where(x > 0.75, "timeout", np.where(x > 0.5, "failed", "ok"))
    assert ds.fate.values.tolist() == wanted.tolist()
    assert "SIGSEGV" in ds.cause.values[wanted == "failed"][0]
    assert "0.5 s" in ds.cause.values[wanted == "timeout"][0]


def crash(x):
    if x > 0.8:
        ctypes.string_at(0)
    return x


def test_a_segfault_without_isolation_costs_one_member_on_dask():
    go = {"n_members": 12, "seed": 2, "bundle": 3, "n_pending": 6, "sampler": "sobol"}
    ds = erl.explore(crash, SPACE, erl.Minimize(), **go)
    crashed = ds.x.values > 0.8
    assert 0 < crashed.sum() < 5
    assert (ds.fate.values == np.where(crashed, "failed", "ok")).all()
    assert (ds.attempt.values[crashed] == 3).all()
    assert "isolate=True" in ds.cause.values[crashed][0]


def quick(x):
    return {"y": x, "field": np.zeros(200)}


def test_a_store_in_the_way_of_a_file(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match="file"):
        erl.explore(quick, SPACE, erl.Minimize("y"), n_members=2, store=tmp_path / "file" / "s")
    with pytest.raises(OSError, match="a file is in the way"):
        erl.explore(quick, SPACE, erl.Minimize("y"), n_members=2, store=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


def test_a_directory_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OSError, match=r"thesis\.tex"):
        erl.explore(quick, SPACE, erl.Minimize("y"), n_members=2, store=tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("DISK FULL NOT TESTED: mounting a small tmpfs needs root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_stops_the_campaign_and_loses_nothing_acknowledged(small_disk):
    store = small_disk / "s"
    go = {"n_members": 1000, "cluster": "serial", "seed": 1, "store": store}
    with pytest.raises(OSError, match=r"(?i)space|disk"):
        erl.explore(quick, SPACE, erl.Minimize("y"), **go)
    before = erl.open(store).load()
    settled = before.fate.values == "ok"
    assert settled.sum() > 20
    np.testing.assert_array_equal(before.y.values[settled], before.x.values[settled])
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    ds = erl.explore(quick, SPACE, erl.Minimize("y"), **go).load()
    assert (ds.fate == "ok").all()
    np.testing.assert_array_equal(ds.y, ds.x)
    again = ds.y.values[: len(before.member)][settled]
    np.testing.assert_array_equal(again, before.y.values[settled])


def test_two_drivers_on_one_store(tmp_path):
    code = (
        "import sys, time, ensemblerl as erl\n"
        "def slow(x): time.sleep(0.2); return x\n"
        "erl.explore(slow, erl.Space(x=erl.Real(0.0, 1.0)), erl.Minimize(), n_members=1000,"
        " cluster='serial', store=sys.argv[1])"
    )
    store = tmp_path / "s"
    other = subprocess.Popen([sys.executable, "-c", code, str(store)])
    try:
        while not (store / "ledger.jsonl").exists() or not (store / "ledger.jsonl").stat().st_size:
            time.sleep(0.05)
        with pytest.raises(RuntimeError, match=rf"(?s){store}.*{other.pid}"):
            erl.explore(quick, SPACE, erl.Minimize(), n_members=2, store=store, cluster="serial")
        assert erl.open(store).sizes["member"] >= 0
    finally:
        other.kill()
        other.wait()


def test_a_store_of_an_unknown_format(tmp_path):
    store = tmp_path / "s"
    erl.explore(quick, SPACE, erl.Minimize("y"), n_members=2, store=store, cluster="serial")
    kept = json.loads((store / "campaign.json").read_text())
    (store / "campaign.json").write_text(json.dumps({**kept, "format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        erl.explore(quick, SPACE, erl.Minimize("y"), n_members=4, store=store, cluster="serial")
    with pytest.raises(ValueError, match="format 99"):
        erl.open(store)


def test_what_is_no_store(tmp_path):
    with pytest.raises(OSError, match="no campaign here"):
        erl.open(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((3, SPACE, erl.Minimize()), "simulation: wanted a function .* got 3"),
        ((quick, {"x": 1}, erl.Minimize()), "space: wanted an ensemblerl.Space, got dict"),
        ((quick, SPACE, "y"), "goal: wanted a goal .* got str"),
    ],
)
def test_wrong_things(arguments, error):
    with pytest.raises(TypeError, match=error):
        erl.explore(*arguments, n_members=2, cluster="serial")


X_AND_D = erl.Space(x=erl.Choice(1, 2), d=erl.Real(0, 1, when={"x": (1,)}))


@pytest.mark.parametrize(
    ("f", "space", "error"),
    [
        (lambda x, y: x, SPACE, r"simulation: <lambda> wants 'y', which the space does not have"),
        (lambda: 0.0, SPACE, r"does not take 'x', which the space has"),
        (lambda x, d: x, X_AND_D, r"wants 'd', which is not always active: give it a default"),
    ],
)
def test_a_simulation_that_cannot_take_the_points(f, space, error, tmp_path):
    with pytest.raises(TypeError, match=error):
        erl.explore(f, space, erl.Minimize(), n_members=2, store=tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "f",
    [
        lambda x, y=1, *, seed: x,
        lambda **point: point["x"],
        lambda point, seed: point["x"],
        lambda x, member: x,
    ],
)
def test_a_simulation_that_can(f):
    ds = erl.explore(f, SPACE, erl.Minimize(), n_members=2, cluster="serial")
    assert (ds.fate == "ok").all()


def test_the_class_of_a_goal():
    with pytest.raises(TypeError, match=r"goal: wanted a goal such as .* got the class Minimize"):
        erl.explore(quick, SPACE, erl.Minimize, n_members=2, cluster="serial")


def test_a_goal_that_reads_what_is_not_there_lists_what_is():
    with pytest.warns(UserWarning, match=r"none of 2 members is ok; the last cause: .*'z'"):
        ds = erl.explore(quick, SPACE, erl.Minimize("z"), n_members=2, cluster="serial")
    assert (ds.fate == "invalid").all()
    assert "'z'" in ds.cause.values[0]
    assert "y" in ds.cause.values[0]


def test_nothing_is_left_in_the_temporary_directory_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="n_members"):
        erl.explore(quick, SPACE, erl.Minimize("y"), n_members=-1, cluster="serial")
    assert list(tmp_path.iterdir()) == []
