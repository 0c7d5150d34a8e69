"""``ds.erl.learning()`` on every Dataset that comes from a store."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from student import SPACE, Student, prepare, square

import ensemblerl as erl

VERSIONS = [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("accessor") / "s"
    prepare(path).run()
    return path


def explored(**options):
    options = {"n_members": 8, "seed": 3, "cluster": "serial", "progress": False} | options
    return erl.explore(square, SPACE, erl.Minimize(), **options)


def test_of_an_opened_store(path):
    lessons = erl.open(path).erl.learning()
    assert lessons.version.values.tolist() == VERSIONS
    assert lessons.sizes["lesson"] == 8


def test_of_a_part_in_memory(path):
    ds = erl.open(path).load().isel(member=slice(3))
    assert ds.erl.learning().version.values.tolist() == VERSIONS


def test_of_the_engine_in_a_fresh_process(path):
    """Whoever opens a store by its engine has it, and loads nothing heavy for it."""
    code = (
        "import sys, xarray as xr\n"
        f"ds = xr.open_dataset({str(path)!r}, engine='ensemblerl')\n"
        "print(ds.erl.learning().version.values.tolist())\n"
        "print([m for m in ('torch', 'distributed', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(VERSIONS), "[]"]


def test_of_a_store_that_was_temporary():
    ds = explored(sampler=Student)
    assert ds.erl.learning().version.values.tolist() == VERSIONS
    assert ds.isel(member=0).erl.learning().sizes["lesson"] == 8


def test_of_a_handle_that_is_gone():
    handle = erl.launch(
        square,
        SPACE,
        erl.Minimize(),
        n_members=8,
        seed=3,
        cluster="serial",
        sampler=Student,
        progress=False,
    )
    ds = handle.wait(60)
    handle._scratch.cleanup()
    assert ds.erl.learning().version.values.tolist() == VERSIONS


def test_it_is_that_of_now(tmp_path):
    campaign = prepare(tmp_path / "s")
    with campaign:
        turns = campaign.turns()
        for _ in range(2):
            next(turns)
        ds = erl.open(tmp_path / "s")
        assert ds.erl.learning().sizes["lesson"] == 2
        for _ in turns:
            pass
        assert ds.erl.learning().sizes["lesson"] == 8


def test_a_dataset_with_lessons_goes_into_a_file(path, tmp_path):
    ds = explored(sampler=Student)
    erl.export_netcdf(ds, tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as again:
        np.testing.assert_array_equal(again.value, ds.value)
        with pytest.raises(ValueError, match=r"its store .*a\.nc is gone; keep.*store="):
            again.erl.learning()


def test_where_no_agent_learnt(tmp_path):
    for options in ({}, {"store": tmp_path / "s"}):
        with pytest.raises(ValueError, match="no agent learnt in this campaign"):
            explored(sampler="sobol", **options).erl.learning()


def test_of_a_dataset_from_elsewhere():
    with pytest.raises(ValueError, match=r"ds: wanted a Dataset as it was opened.*store="):
        xr.Dataset({"a": 1}).erl.learning()
