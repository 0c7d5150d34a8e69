"""The directory: its laws, its lock, and what it says when something is wrong."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from store_support import PROVENANCE, SCALAR, attach, full_disk, in_child

from ensemblerl.events import Closed
from ensemblerl.protocols import Store
from ensemblerl.records import Outcome
from ensemblerl.simulations.layouts import digest_of
from ensemblerl.store import lock as locking
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.errors import StoreError, StoreFormatError, StoreLocked
from ensemblerl.store.segments import encode, encode_layout
from ensemblerl.testing.events import outcomes
from ensemblerl.testing.store_laws import check_store


def test_laws():
    digest = digest_of(SCALAR)
    good = Outcome(7, 2, "ok", "", (1.5,), 1e9, 0.1, "w", digest)
    record = encode_layout(digest, SCALAR) + encode(good, {"value": np.float64(1.5)}, ["value"])
    failed = [(encode(o, {}, []), o) for o in outcomes() if not o.schema]
    check_store(attach, records=[(record, good), *failed])


def test_it_is_a_store(store_path):
    store = attach(store_path)
    assert isinstance(store, Store)
    assert Path(store.segments).is_absolute()
    store.close()


def test_provenance_comes_back_and_can_be_amended(store_path):
    store = DirectoryStore.create(store_path, {**PROVENANCE, "tags": {"a": float("nan")}})
    assert store.provenance["goal"] == PROVENANCE["goal"]
    store.update_provenance(note="later")
    store.close()
    again = DirectoryStore.resume(store_path)
    assert again.provenance["note"] == "later"
    assert again.provenance["tags"] == {"a": None}
    assert "format" not in again.provenance
    again.close()


@pytest.mark.parametrize("found", [0, 2, "1", None])
def test_other_formats_are_refused_by_writers_and_readers(store_path, found):
    attach(store_path).close()
    file = Path(store_path, "campaign.json")
    content = json.loads(file.read_text())
    content["format"] = found
    file.write_text(json.dumps(content))
    from ensemblerl.store.backend import open_store

    for opened in (DirectoryStore.resume, open_store):
        with pytest.raises(StoreFormatError, match=f"format {found!r}.*known: 1") as told:
            opened(store_path)
        assert store_path in str(told.value)


def test_a_directory_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match=r"other files \(thesis.tex\)"):
        DirectoryStore.create(tmp_path, PROVENANCE)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_campaign_is_not_begun_twice(store_path):
    attach(store_path).close()
    with pytest.raises(StoreError, match="resume it"):
        DirectoryStore.create(store_path, PROVENANCE)


def test_where_there_is_no_campaign(tmp_path):
    with pytest.raises(StoreError, match="no campaign here"):
        DirectoryStore.resume(tmp_path)


def test_what_a_kill_during_create_leaves_is_taken_over(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / "campaign.json.part").write_text('{"form')
    store = DirectoryStore.create(tmp_path, PROVENANCE)
    store.close()
    DirectoryStore.resume(tmp_path).close()


def test_two_stores_in_one_process(store_path):
    first = attach(store_path)
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        DirectoryStore.resume(store_path)
    first.append(Closed(1.0, "still mine"))
    first.close()
    first.close()
    DirectoryStore.resume(store_path).close()


def _other(path, then):
    code = f"""
import sys, time
from ensemblerl.store.directory import DirectoryStore
store = DirectoryStore.resume({path!r})
print("held", flush=True)
{then}
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    return child


def test_two_drivers_and_a_kill(store_path):
    attach(store_path).close()
    child = _other(store_path, "time.sleep(60)")
    try:
        with pytest.raises(StoreLocked, match=f"process {child.pid}, last seen") as told:
            DirectoryStore.resume(store_path)
        assert store_path in str(told.value)
        child.send_signal(signal.SIGKILL)
        child.wait()
        DirectoryStore.resume(store_path).close()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def _locked(store_path):
    with pytest.raises(StoreLocked):
        DirectoryStore.resume(store_path)


def test_a_forked_child_neither_holds_nor_releases(store_path):
    store = attach(store_path)
    assert in_child(store.close) == 0
    assert in_child(lambda: _locked(store_path)) == 0
    store.append(Closed(1.0, "after the child"))
    store.close()


def _of_another_host(store_path, silent):
    attach(store_path).close()
    file = Path(store_path, "lock")
    file.write_text(json.dumps({"host": "elsewhere", "pid": 4}))
    past = time.time() - silent
    os.utime(file, (past, past))


def test_another_host_is_believed_while_it_gives_signs_of_life(store_path):
    _of_another_host(store_path, 5)
    with pytest.raises(StoreLocked, match="host elsewhere, process 4"):
        DirectoryStore.resume(store_path)


def test_a_host_that_is_gone_is_given_up(store_path):
    _of_another_host(store_path, locking.STALE_SECONDS + 5)
    DirectoryStore.resume(store_path).close()


def test_a_lock_kept_for_a_host_that_is_gone_is_left_to_it(store_path):
    attach(store_path).close()
    child = _other(store_path, "time.sleep(60)")
    try:
        silence = time.time() - 100
        file = Path(store_path, "lock")
        file.write_text(json.dumps({"host": "elsewhere", "pid": 4}))
        os.utime(file, (silence, silence))
        store = DirectoryStore.resume(store_path)
        with pytest.raises(StoreLocked):
            DirectoryStore.resume(store_path)
        store.close()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match="choose another store= path") as told:
            DirectoryStore.create(path, PROVENANCE)
        assert str(path) in str(told.value)


def test_read_only_file_system(tmp_path):
    with full_disk(tmp_path) as disk:
        attach(disk / "old").close()
        remount = ["mount", "-o", "remount,ro", str(disk)]
        if subprocess.run(remount, capture_output=True).returncode:
            pytest.skip("no read-only mount here: refusal of unwritable stores is NOT tested")
        for make, path in ((DirectoryStore.resume, "old"), (attach, "new")):
            with pytest.raises(StoreError, match="read-only") as told:
                make(disk / path)
            assert str(disk / path) in str(told.value)


def test_full_disk_loses_nothing_acknowledged(tmp_path):
    with full_disk(tmp_path) as disk:
        store = attach(disk / "store")
        kept = []

        def fill():
            for i in range(10_000):
                store.append(Closed(float(i), "x" * 500))
                kept.append(i)

        with pytest.raises(StoreError, match="disk is full") as told:
            fill()
        assert "ledger.jsonl" in str(told.value)
        assert [int(e.time) for e in store.events()] == kept
        with pytest.raises(StoreError, match="disk is full"):
            store.checkpoint({"x": np.zeros(100_000)}, 1)
        subprocess.run(["mount", "-o", "remount,size=1M", str(disk)], check=True)
        store.append(Closed(1e6, "room again"))
        store.close()
        again = attach(disk / "store")
        assert [int(e.time) for e in again.events()] == [*kept, 1_000_000]
        assert again.restored() is None
        again.close()


def test_a_damaged_middle_is_not_cut_off(store_path):
    store = attach(store_path)
    for i in range(3):
        store.append(Closed(float(i), "fine"))
    store.close()
    file = Path(store_path, "ledger.jsonl")
    data = bytearray(file.read_bytes())
    data[70] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="damaged at byte"):
        DirectoryStore.resume(store_path)
    assert file.read_bytes() == data


def test_a_driver_that_lost_its_store_writes_no_more(store_path, monkeypatch):
    store = attach(store_path)
    Path(store_path, "lock").unlink()
    Path(store_path, "lock").touch()
    with pytest.raises(StoreError, match="took this store over"):
        store._lock.beat()
    store.append(Closed(1.0, "x"))
    deadline = time.time() + 20

    def write_on():
        while time.time() < deadline:
            store.append(Closed(2.0, "y"))
            time.sleep(0.05)

    with pytest.raises(StoreError, match="took this store over"):
        write_on()
    with pytest.raises(StoreError, match="took this store over"):
        store.close()


def test_a_closed_store_never_writes_to_a_file_that_took_its_place(store_path, tmp_path):
    store = attach(store_path)
    store.append(Closed(1.0, "done"))
    log = store._log
    store.close()
    victims = [(tmp_path / f"{i}.txt").open("w") for i in range(20)]  # take the free descriptors
    with pytest.raises(StoreError, match="the store is closed"):
        store.append(Closed(2.0, "late"))
    with pytest.raises(StoreError, match="lock was released"):
        store._lock.beat()
    log.close()
    for victim in victims:
        victim.close()
    assert {Path(v.name).read_bytes() for v in victims} == {b""}
    again = attach(store_path)
    assert list(again.events()) == [Closed(1.0, "done")]
    again.close()


def test_a_store_that_cannot_be_opened_leaves_nothing_open(store_path):
    attach(store_path).close()
    Path(store_path, "compacted.json").mkdir()
    threads, files = threading.active_count(), len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(StoreError):
        attach(store_path)
    assert threading.active_count() == threads
    assert len(list(Path("/dev/fd").iterdir())) == files
