"""Compaction: whole shards, nothing lost whenever it is killed, few inodes."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from store_support import (
    SCALAR,
    Rehearsed,
    arrays_of,
    check_rows,
    fate_of,
    full_disk,
    in_child,
    members,
    small_blocks,
    variable,
)

from ensemblerl.events import Launched, Relaunched, SchemaFixed, Settled
from ensemblerl.records import Outcome
from ensemblerl.store import segments
from ensemblerl.store.backend import open_store
from ensemblerl.store.errors import StoreError
from ensemblerl.store.manifest import Manifest
from ensemblerl.store.reading import read_ledger

FIELD = {
    "variables": {
        "value": variable([], "<f8", []),
        "h": variable(["y", "x"], "<f4", [3, 2], units="m"),
    },
    "coords": {
        "y": {"dims": ["y"], "dtype": "<f8", "shape": [3], "attrs": {}, "data": [0.0, 0.5, 1.0]}
    },
    "attrs": {},
}


@pytest.fixture
def small(monkeypatch):
    small_blocks(monkeypatch)


def seg_files(path):
    return list(Path(path, "segments").glob("*.seg"))


def test_complete_blocks_move_and_everything_stays_readable(store_path, small):
    driver = Rehearsed(store_path, FIELD)
    driver.launch(60)
    order = [*range(16, 48), 5, *range(50, 60)]
    driver.settle(order)
    driver.compact()
    manifest = Manifest.load(Path(store_path))
    assert manifest.block == 16
    assert manifest.blocks == {1, 2}
    assert manifest.columns == 0  # member 0 is pending: the small columns wait for it
    check_rows(open_store(store_path), FIELD, settled=order, n=60)
    driver.settle(sorted(set(range(16)) - {5}))
    driver.compact()
    manifest = Manifest.load(Path(store_path))
    assert manifest.blocks == {0, 1, 2}
    assert manifest.columns == 3
    assert manifest.ledger_offset > 0
    check_rows(open_store(store_path), FIELD, settled=[*range(48), *range(50, 60)], n=60)
    driver.close()
    check_rows(open_store(store_path), FIELD, settled=[*range(48), *range(50, 60)], n=60)
    check_rows(xr.open_zarr(store_path), FIELD, settled=[*range(48), *range(50, 60)], n=60)


def test_sessions_go_on_where_the_last_one_stopped(store_path, small):
    n, settled = 0, set()
    for life in range(4):
        driver = Rehearsed(store_path, FIELD)
        assert driver.ledger.n == n
        driver.launch(13)
        n += 13
        todo = [i for i in range(n) if i not in settled and i % 5 != life % 5]
        driver.settle(todo)
        settled.update(todo)
        driver.compact()
        check_rows(open_store(store_path), FIELD, settled=settled, n=n)
        driver.close()
        for ds in (open_store(store_path), xr.open_zarr(store_path)):
            check_rows(ds, FIELD, settled=settled, n=n)
    ledger, _ = read_ledger(store_path)
    assert len(ledger.sessions) == 4
    assert ledger.n_settled == len(settled)
    versions = open_store(store_path)["simulation_version"].values
    assert set(versions) == {"v1"}


def test_the_dataset_is_the_same_before_and_after_closing(store_path, small):
    driver = Rehearsed(store_path, FIELD)
    driver.launch(40)
    driver.settle(range(35))
    before = open_store(store_path).load()
    driver.compact()
    xr.testing.assert_identical(open_store(store_path).load(), before)
    driver.close()
    after = open_store(store_path).load()
    assert after.attrs.pop("reason") == "budget"
    xr.testing.assert_identical(after, before)


def test_zarr_says_the_same_as_the_engine(store_path, small):
    driver = Rehearsed(store_path, FIELD)
    driver.launch(20)
    driver.settle(range(20))
    driver.close()
    one, two = open_store(store_path).load(), xr.open_zarr(store_path).load()
    assert set(one.coords) == set(two.coords)
    assert one.attrs == two.attrs
    for name in one.variables:
        xr.testing.assert_equal(one[name], two[name])
        assert one[name].attrs == two[name].attrs


def test_no_warnings(store_path, small, recwarn):
    driver = Rehearsed(store_path, FIELD)
    driver.launch(20)
    driver.settle(range(20))
    driver.close()
    xr.open_zarr(store_path).load()
    xr.open_dataset(store_path, engine="ensemblerl").load()
    assert [str(w.message) for w in recwarn] == []


@pytest.mark.parametrize("n", [0, 3])
def test_a_campaign_without_results(store_path, n):
    driver = Rehearsed(store_path)
    driver.launch(n)
    driver.close("nothing came")
    for ds in (open_store(store_path), xr.open_zarr(store_path)):
        assert ds.sizes["member"] == n
        assert "reward" in ds
        assert ds.attrs["reason"] == "nothing came"


def _files(path):
    """Every file with its content, as a kill would leave them."""
    return {str(p): p.read_bytes() for p in Path(path).rglob("*") if p.is_file()}


def _die_at(monkeypatch, place):
    """End the process at the so manyth rename or removal of a file, or in a write before it."""
    count = [0]

    def dying(real):
        def call(self, *args, **kwargs):
            count[0] += 1
            if count[0] == place:
                os._exit(99)
            out = real(self, *args, **kwargs)
            count[0] += 1
            if count[0] == place:
                os._exit(99)
            return out

        return call

    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    monkeypatch.setattr(Path, "unlink", dying(Path.unlink))


@pytest.mark.parametrize("final", [False, True])
def test_killed_anywhere_it_loses_nothing(tmp_path, small, monkeypatch, final):
    rng = np.random.default_rng(3)
    monkeypatch.setattr(segments, "MAX_RECORDS", 10)
    driver = Rehearsed(tmp_path / "campaign", FIELD)
    driver.launch(70)
    settled = [*range(20), *range(30, 68)]
    driver.settle(settled)
    driver.store.close()
    place, code = 0, 99
    while code == 99:
        place += int(rng.integers(1, 110 if final else 60))

        def work(place=place):
            with pytest.MonkeyPatch.context() as patch:
                again = Rehearsed(tmp_path / "campaign", FIELD)
                _die_at(patch, place)
                again.compact(final=final)
            os._exit(0)

        code = in_child(work)
        assert code in (0, 99)
        check_rows(open_store(tmp_path / "campaign"), FIELD, settled=settled, n=70)
    assert place > 20
    assert Manifest.load(tmp_path / "campaign").blocks == {0, 2, 3}
    last = Rehearsed(tmp_path / "campaign", FIELD)
    last.settle([*range(20, 30), 68, 69])
    last.close()
    for ds in (open_store(tmp_path / "campaign"), xr.open_zarr(tmp_path / "campaign")):
        check_rows(ds, FIELD, settled=range(70), n=70)


def test_segments_go_when_all_of_them_is_in_shards(store_path, small, monkeypatch):
    monkeypatch.setattr(segments, "MAX_RECORDS", 8)
    driver = Rehearsed(store_path, FIELD)
    driver.launch(64)
    driver.settle(range(64))
    assert len(seg_files(store_path)) == 8
    driver.compact()
    assert seg_files(store_path) == []
    check_rows(open_store(store_path), FIELD, settled=range(64), n=64)


def test_the_record_of_an_invalid_result_is_kept(store_path, small, monkeypatch):
    monkeypatch.setattr(segments, "MAX_RECORDS", 4)
    driver = Rehearsed(store_path, FIELD)
    driver.launch(16)
    driver.settle(range(12))
    told = [o._replace(fate="invalid", cause="shape changed") for o in driver.run(range(12, 16))]
    driver.keep(Settled(2e9, tuple(told)))
    driver.compact()
    assert Manifest.load(Path(store_path)).blocks == {0}
    assert len(seg_files(store_path)) == 1
    ds = open_store(store_path)
    assert np.isnan(ds["h"].values[12:]).all()
    assert set(ds["cause"].values[12:]) == {"shape changed"}


def test_a_block_waits_for_a_record_that_is_not_visible_yet(store_path, small):
    driver = Rehearsed(store_path, FIELD)
    driver.launch(16)
    late = driver.outcome(15)
    driver.settle(range(15))
    driver.keep(Settled(2e9, (late,)))
    driver.compact()
    assert Manifest.load(Path(store_path)).blocks == frozenset()
    driver.run([15])
    driver.compact(final=True)
    assert Manifest.load(Path(store_path)).blocks == {0}
    check_rows(open_store(store_path), FIELD, settled=range(16), n=16)


def test_the_attempt_that_settled_a_member_gives_its_row(store_path, small):
    driver = Rehearsed(store_path, FIELD)
    driver.launch(2)
    driver.keep(Relaunched(5.0, np.array([0, 1]), np.array([2, 2])))
    digest = driver.digest
    for number, attempt in ((0, 1), (0, 2), (1, 2), (1, 1)):
        told = Outcome(number, attempt, "ok", "", (1.0,), schema=digest)
        driver.writer.write(told, arrays_of(10 * attempt + number, FIELD), FIELD, digest)
    driver.keep(SchemaFixed(digest, FIELD))
    driver.keep(Settled(6.0, (Outcome(0, 1, "ok", "", (1.0,), schema=digest),)))
    driver.keep(Settled(6.0, (Outcome(1, 2, "ok", "", (1.0,), schema=digest),)))
    for _ in range(2):
        ds = open_store(store_path)
        assert ds["value"].values.tolist() == [10.0, 21.0]
        assert ds["attempt"].values.tolist() == [1, 2]
        driver.compact(final=True)
    assert xr.open_zarr(store_path)["value"].values.tolist() == [10.0, 21.0]


def test_notes_widen_and_others_may_come(store_path, small):
    driver = Rehearsed(store_path, FIELD)
    driver.launch(16)
    driver.settle(range(16))
    driver.compact()
    assert Manifest.load(Path(store_path)).columns == 1
    some = members(16, 20)
    version = some.notes["version"] + 0.5
    notes = {**some.notes, "version": version, "extra": np.array(["é"] * 20)}
    driver.keep(Launched(1e9, replace(some, notes=notes)))
    wanted = [*(i % 3 for i in range(16)), *version]
    for settled in (range(0), range(16, 36)):
        driver.settle(settled)
        driver.compact()
        ds = open_store(store_path)
        assert ds["policy_version"].values.tolist() == wanted
        assert ds["note_extra"].values.tolist() == [""] * 16 + ["é"] * 20
    driver.close()
    zarr = xr.open_zarr(store_path)
    assert zarr["policy_version"].values.tolist() == wanted
    assert zarr["note_extra"].values.tolist() == [""] * 16 + ["é"] * 20
    assert Manifest.load(Path(store_path)).rewritten == 1


FIRST = {
    "int": np.array([2**40 + 1, 3], dtype=np.int64),
    "bool": np.array([True, False]),
    "f4": np.array([0.5, 1.5], dtype=np.float32),
}
THEN = {"int": np.array([0.75, -1.5]), "bool": np.array([7, 8]), "f4": np.array([0.1, 0.2])}


def noted(number, choices):
    some = members(number[0], len(number))
    return replace(some, notes={**some.notes, **{k: v[number % 2] for k, v in choices.items()}})


@pytest.mark.parametrize("sessions", [1, 2])
def test_shards_of_a_note_that_widens_are_written_again(store_path, small, sessions):
    driver = Rehearsed(store_path, FIELD)
    driver.keep(Launched(1e9, noted(np.arange(20), FIRST)))
    driver.settle(range(20))
    driver.compact()
    assert Manifest.load(Path(store_path)).columns == 1
    assert open_store(store_path)["note_int"].dtype == np.int64
    if sessions == 2:
        driver.close()
        driver = Rehearsed(store_path, FIELD)
    driver.keep(Launched(1e9, noted(np.arange(20, 40), THEN)))
    wanted = {k: [*FIRST[k][np.arange(20) % 2], *THEN[k][np.arange(20, 40) % 2]] for k in FIRST}

    def check(ds):
        for name, values in wanted.items():
            np.testing.assert_array_equal(ds[f"note_{name}"].values, values)

    check(open_store(store_path))  # old shards, new rows in the ledger
    driver.settle(range(20, 40))
    driver.compact()
    assert Manifest.load(Path(store_path)).columns == 2
    check(open_store(store_path))
    driver.close()
    check(open_store(store_path))
    check(xr.open_zarr(store_path))
    again = Rehearsed(store_path, FIELD)
    again.compact(final=True)
    again.store.close()
    assert Manifest.load(Path(store_path)).rewritten == 1  # only when it widens


def test_a_note_that_becomes_text(store_path, small):
    driver = Rehearsed(store_path, FIELD)
    driver.keep(Launched(1e9, noted(np.arange(20), {"tag": np.array([4, 5])})))
    driver.settle(range(20))
    driver.compact()
    driver.keep(Launched(1e9, noted(np.arange(20, 22), {"tag": np.array(["a", "b"])})))
    wanted = ["4", "5"] * 10 + ["a", "b"]
    assert open_store(store_path)["note_tag"].values.tolist() == wanted
    driver.close()
    assert open_store(store_path)["note_tag"].values.tolist() == wanted
    assert xr.open_zarr(store_path)["note_tag"].values.tolist() == wanted


def test_killed_while_shards_are_written_again(tmp_path, small):
    path = tmp_path / "campaign"
    driver = Rehearsed(path, FIELD)
    driver.keep(Launched(1e9, noted(np.arange(32), FIRST)))
    driver.settle(range(32))
    driver.close()
    driver = Rehearsed(path, FIELD)
    driver.keep(Launched(1e9, noted(np.arange(32, 48), THEN)))
    driver.settle(range(32, 48))
    driver.store.close()
    wanted = [*FIRST["int"][np.arange(32) % 2], *THEN["int"][np.arange(16) % 2]]
    place, code = 1, 99
    while code == 99:

        def work(place=place):
            with pytest.MonkeyPatch.context() as patch:
                again = Rehearsed(path, FIELD)
                _die_at(patch, place)
                again.compact()
            os._exit(0)

        code = in_child(work)
        np.testing.assert_array_equal(open_store(path)["note_int"].values, wanted)
        place += 17
    assert code == 0
    assert place > 60
    assert Manifest.load(path).columns == 3


def test_a_reader_begins_again_when_shards_are_given_up(store_path, small, monkeypatch):
    driver = Rehearsed(store_path, FIELD)
    driver.keep(Launched(1e9, noted(np.arange(16), FIRST)))
    driver.settle(range(16))
    driver.compact()
    driver.keep(Launched(1e9, noted(np.arange(16, 32), THEN)))
    driver.settle(range(16, 32))
    load, calls = Manifest.load, []

    def overtaken(root):
        out = load(root)
        calls.append(out)
        if len(calls) == 1:  # the head is faster than this reader
            driver.compact()
            assert load(root).rewritten == 1
        return out

    monkeypatch.setattr(Manifest, "load", overtaken)
    ds = open_store(store_path)
    wanted = [*FIRST["int"][np.arange(16) % 2], *THEN["int"][np.arange(16) % 2]]
    np.testing.assert_array_equal(ds["note_int"].values, wanted)
    assert len(calls) == 4


def test_unfinished_tells_whether_the_last_compaction_is_missing(store_path, small):
    driver = Rehearsed(store_path, FIELD)
    assert driver.store.unfinished(driver.ledger)
    driver.launch(20)
    driver.settle(range(18))
    driver.compact()
    assert driver.store.unfinished(driver.ledger)
    driver.close()
    driver = Rehearsed(store_path, FIELD)
    assert not driver.store.unfinished(driver.ledger)
    driver.settle([18, 19])  # as many members, but more of them settled
    assert driver.store.unfinished(driver.ledger)
    driver.store.close()  # killed here, in effect
    driver = Rehearsed(store_path, FIELD)
    assert driver.store.unfinished(driver.ledger)
    driver.compact(final=True)
    assert not driver.store.unfinished(driver.ledger)
    driver.store.close()
    check_rows(xr.open_zarr(store_path), FIELD, settled=range(20), n=20)
    Path(store_path, "zarr.json").unlink()
    driver = Rehearsed(store_path, FIELD)
    assert driver.store.unfinished(driver.ledger)
    driver.store.close()


@pytest.mark.parametrize("place", [1, 30, 60, 90, 110])
def test_unfinished_after_a_kill_in_the_last_compaction(tmp_path, small, place):
    path = tmp_path / "campaign"
    driver = Rehearsed(path, FIELD)
    driver.launch(32)
    driver.settle(range(32))
    driver.store.close()

    def work():
        with pytest.MonkeyPatch.context() as patch:
            again = Rehearsed(path, FIELD)
            _die_at(patch, place)
            again.compact(final=True)
        os._exit(0)

    code = in_child(work)
    driver = Rehearsed(path, FIELD)
    assert driver.store.unfinished(driver.ledger) == (code == 99)
    driver.compact(final=True)
    assert not driver.store.unfinished(driver.ledger)
    driver.store.close()
    check_rows(xr.open_zarr(path), FIELD, settled=range(32), n=32)


def test_big_members_make_small_blocks(store_path, monkeypatch):
    monkeypatch.setattr("ensemblerl.store.manifest.SHARD_BYTES", 2**17)
    layout = {"variables": {"f": variable(["x"], "<f8", [3000])}, "coords": {}, "attrs": {}}
    driver = Rehearsed(store_path, layout)
    driver.launch(10)
    driver.settle(range(9))
    driver.compact()
    assert Manifest.load(Path(store_path)).block == 4
    assert Manifest.load(Path(store_path)).blocks == {0, 1}
    ds = open_store(store_path)
    np.testing.assert_array_equal(ds["f"].values[5], arrays_of(5, layout)["f"])
    np.testing.assert_array_equal(ds["f"].values[8], arrays_of(8, layout)["f"])
    driver.close()
    sizes = {p.name for p in Path(store_path, "f").iterdir()}
    assert sizes == {"zarr.json", "c.0.0", "c.1.0", "c.2.0"}
    np.testing.assert_array_equal(xr.open_zarr(store_path)["f"].values[:9], ds["f"].values[:9])


def test_the_size_of_a_block_is_kept(store_path, small, monkeypatch):
    driver = Rehearsed(store_path, FIELD)
    driver.launch(16)
    driver.settle(range(16))
    driver.close()
    monkeypatch.setattr("ensemblerl.store.manifest.SHARD_BYTES", 64)
    driver = Rehearsed(store_path, FIELD)
    driver.launch(16)
    driver.settle(range(16, 32))
    driver.close()
    assert Manifest.load(Path(store_path)).block == 16
    check_rows(xr.open_zarr(store_path), FIELD, settled=range(32), n=32)


def test_few_inodes(store_path):
    n = 20_000
    driver = Rehearsed(store_path)
    driver.launch(n, 1024)
    driver.settle(range(n), 1024)
    driver.compact()
    driver.close()
    inodes = 1 + sum(len(dirs) + len(files) for _, dirs, files in os.walk(store_path))
    arrays = sum(p.is_dir() for p in Path(store_path).iterdir()) - 1
    assert inodes <= 0.01 * n
    # at 100,000 members: a directory and its metadata an array, and a shard per 16384 rows
    assert arrays * (2 + 7) + 20 <= 0.01 * 100_000
    ds = open_store(store_path)
    ok = np.array([fate_of(i) == "ok" for i in range(n)])
    np.testing.assert_array_equal(ds["value"].values, np.where(ok, np.arange(n), np.nan))
    assert Manifest.load(Path(store_path)).blocks == {0}


def test_a_full_disk_stops_compaction_and_loses_nothing(tmp_path, small, monkeypatch):
    monkeypatch.setattr(segments, "MAX_RECORDS", 8)
    layout = {"variables": {"f": variable(["x"], "<f8", [400])}, "coords": {}, "attrs": {}}
    with full_disk(tmp_path, "4M") as disk:
        driver = Rehearsed(disk / "store", layout)
        driver.launch(64)
        driver.settle(range(64))
        blob = disk / "blob"
        blob.write_bytes(bytes(max(0, os.statvfs(disk).f_bavail - 6) * os.statvfs(disk).f_bsize))
        with pytest.raises(StoreError, match="disk is full"):
            driver.compact()
        check_rows(open_store(disk / "store"), layout, settled=range(64), n=64)
        blob.unlink()
        driver.compact()
        assert Manifest.load(disk / "store").blocks == {0, 1, 2, 3}
        check_rows(open_store(disk / "store"), layout, settled=range(64), n=64)
        driver.store.close()


def test_readers_see_right_rows_while_a_driver_writes(store_path, small, monkeypatch):
    """Rows read while another process launches, settles, compacts and removes segments."""
    monkeypatch.setattr(segments, "MAX_RECORDS", 5)
    Rehearsed(store_path, FIELD).store.close()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            driver = Rehearsed(store_path, FIELD)
            for first in range(0, 320, 8):
                driver.launch(8)
                driver.settle(range(first, first + 8))
                driver.compact()
            driver.close()
            code = 0
        finally:
            os._exit(code)
    seen, looks, over = 0, 0, (0, 0)
    while over == (0, 0):
        over = os.waitpid(pid, os.WNOHANG)
        ds = open_store(store_path)
        n = ds.sizes["member"]
        done = np.flatnonzero(ds["fate"].values != "pending")
        assert n >= seen
        if n:
            check_rows(ds, FIELD if "h" in ds else SCALAR | {"variables": {}}, settled=done, n=n)
        seen, looks = n, looks + 1
    assert over[1] == 0
    assert looks > 3
    check_rows(open_store(store_path), FIELD, settled=range(320), n=320)


def test_the_manifest_is_readable(store_path, small):
    driver = Rehearsed(store_path, FIELD)
    driver.launch(33)
    driver.settle(range(33))
    driver.close()
    content = json.loads(Path(store_path, "compacted.json").read_text())
    assert content["block"] == 16
    assert content["blocks"] == [[0, 2]]
    assert content["rows"] == 33
    assert sys.getsizeof(content["preamble"]) < 10_000
