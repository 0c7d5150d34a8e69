"""Segments: framing, torn tails, forks, kills, full disks; and their index."""

import os
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from store_support import SCALAR, arrays_of, full_disk, in_child, variable

from ensemblerl.records import Outcome
from ensemblerl.simulations.layouts import digest_of
from ensemblerl.store import index as indexing
from ensemblerl.store import segments
from ensemblerl.store.errors import StoreError
from ensemblerl.store.index import Files, SegmentIndex
from ensemblerl.store.segments import SegmentWriter, encode, get_writer, read_arrays, scan

LAYOUT = {
    "variables": {
        "h": variable(["y", "x"], "<f4", [3, 2]),
        "flag": variable([], "|b1", []),
        "z": variable(["x"], "<c16", [2]),
        "nothing": variable(["w"], "<i8", [0]),
    },
    "coords": {},
    "attrs": {},
}
DIGEST = digest_of(LAYOUT)


def ok(number, attempt=1):
    return Outcome(number, attempt, "ok", "", (0.5,), 1e9, 0.1, "w", DIGEST)


def write(writer, number, layout=LAYOUT):
    writer.write(ok(number), arrays_of(number, layout), layout, DIGEST)


def check(directory, numbers, verify=True):
    """The index finds exactly these members, with their arrays."""
    index = SegmentIndex(directory, verify=verify)
    assert sorted(o.number for o, _ in index.poll()) == sorted(numbers)
    with Files(Path(directory)) as files:
        for number in numbers:
            place = index.find(number, 1)
            found = index.arrays(place, None, files)
            for name, wanted in arrays_of(number, LAYOUT).items():
                np.testing.assert_array_equal(found[name], wanted)
                assert found[name].dtype == wanted.dtype


def only_file(directory):
    (path,) = Path(directory).iterdir()
    return path


@pytest.mark.parametrize("verify", [True, False])
def test_what_is_written_is_found(tmp_path, verify):
    writer = SegmentWriter(tmp_path / "deep" / "segments")
    for number in range(5):
        write(writer, number)
    check(tmp_path / "deep" / "segments", range(5), verify)


def test_nothing_is_made_before_the_first_write(tmp_path):
    SegmentWriter(tmp_path / "segments").close()
    assert not (tmp_path / "segments").exists()


def test_big_endian_and_strided_arrays(tmp_path):
    layout = {"variables": {"a": variable(["x", "y"], "<f8", [2, 3])}, "coords": {}, "attrs": {}}
    array = np.arange(6.0).reshape(3, 2).T.astype(">f8")
    writer = SegmentWriter(tmp_path)
    writer.write(ok(0), {"a": array}, layout, DIGEST)
    index = SegmentIndex(tmp_path)
    index.refresh()
    with Files(tmp_path) as files:
        np.testing.assert_array_equal(index.arrays(index.find(0, 1), None, files)["a"], array)


def test_failures_leave_a_record_too(tmp_path):
    failed = Outcome(3, 2, "failed", "ValueError: ünï\ud800", (), 1.0, 2.0, "w")
    SegmentWriter(tmp_path).write(failed, {})
    ((came, _),) = SegmentIndex(tmp_path).poll()
    assert came == failed


@pytest.mark.parametrize("verify", [True, False])
def test_torn_at_every_byte(tmp_path, verify):
    writer = SegmentWriter(tmp_path)
    for number in range(2):
        write(writer, number)
    path = only_file(tmp_path)
    stops = [f.stop for f in scan(path)]
    for cut in reversed(range(stops[-1])):
        os.truncate(path, cut)
        whole = sum(stop <= cut for stop in stops)
        assert len(list(scan(path, verify=verify))) == whole


def test_junk_after_the_last_record(tmp_path):
    writer = SegmentWriter(tmp_path)
    write(writer, 0)
    path = only_file(tmp_path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for junk in (bytes(100), rng.bytes(100), data[1:], data[:-1], b"\xff" * 9):
        path.write_bytes(data + junk)
        found = [f.header.get("number") for f in scan(path)]
        assert found[:2] == [None, 0]
        assert len(found) == (3 if junk == data[:-1] else 2)  # a layout again, then a torn record


def test_a_damaged_record_in_the_middle_is_passed_over(tmp_path):
    writer = SegmentWriter(tmp_path)
    for number in range(3):
        write(writer, number)
    path = only_file(tmp_path)
    data = path.read_bytes()
    frames = list(scan(path))
    for place in range(frames[2].offset + 8, frames[2].stop, 7):  # the payload of member 1
        wrong = bytearray(data)
        wrong[place] ^= 255
        path.write_bytes(wrong)
        assert [f.header.get("number") for f in scan(path)] == [None, 0, 2]
    wrong = bytearray(data)
    wrong[frames[2].offset : frames[2].offset + 4] = struct.pack("<I", 1000)  # its length
    path.write_bytes(wrong)
    assert [f.header.get("number") for f in scan(path)] == [None, 0]


def test_damage_found_late_is_told(tmp_path):
    writer = SegmentWriter(tmp_path)
    write(writer, 0)
    path = only_file(tmp_path)
    frame = list(scan(path))[1]
    with path.open("r+b") as file:
        file.seek(frame.data)
        file.write(b"\xff\xff")
    with path.open("rb") as file, pytest.raises(StoreError, match="is damaged"):
        read_arrays(file, frame.offset, LAYOUT)


def test_a_growing_file_is_read_on(tmp_path):
    writer, index = SegmentWriter(tmp_path), SegmentIndex(tmp_path)
    assert list(index.poll()) == []
    for number in range(4):
        write(writer, number)
        assert [o.number for o, _ in index.poll()] == [number]
    assert list(index.poll()) == []


def test_the_first_record_of_an_attempt_counts(tmp_path):
    writer, index = SegmentWriter(tmp_path), SegmentIndex(tmp_path)
    write(writer, 5)
    writer.write(ok(5), arrays_of(6, LAYOUT), LAYOUT, DIGEST)
    index.refresh()
    with Files(tmp_path) as files:
        found = index.arrays(index.find(5, 1), None, files)["h"]
    np.testing.assert_array_equal(found, arrays_of(5, LAYOUT)["h"])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_arrays_win_whatever_is_met_first(tmp_path, order):
    failed = Outcome(5, 1, "failed", "lost", (), 1e9, 0.1, "w")
    write(first := SegmentWriter(tmp_path / "first"), 5)
    (second := SegmentWriter(tmp_path / "second")).write(failed, {})
    third = SegmentWriter(tmp_path / "third")
    third.write(ok(5), arrays_of(6, LAYOUT), LAYOUT, DIGEST)
    names = ["b-1-0.seg", "a-1-0.seg", "c-1-0.seg"]
    index = SegmentIndex(tmp_path)
    for place in order:
        only_file((first, second, third)[place].directory).rename(tmp_path / names[place])
        index.refresh()
    assert index.find(5, 1).file == "b-1-0.seg"
    with Files(tmp_path) as files:
        found = index.arrays(index.find(5, 1), None, files)["h"]
    np.testing.assert_array_equal(found, arrays_of(5, LAYOUT)["h"])


def test_a_descriptor_that_could_not_be_closed_is_not_used_again(tmp_path, monkeypatch):
    writer = SegmentWriter(tmp_path)
    write(writer, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", lambda fd: (_ for _ in ()).throw(OSError(5, "no")))
        with pytest.raises(OSError, match="no"):
            writer.close()
    write(writer, 2)
    assert len(list(tmp_path.iterdir())) == 2


def test_threads_share_a_writer(tmp_path):
    def work(k):
        for number in range(k * 50, k * 50 + 50):
            write(get_writer(tmp_path), number)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    only_file(tmp_path)
    check(tmp_path, range(200))


def test_a_fork_starts_its_own_file(tmp_path):
    writer = get_writer(tmp_path)
    write(writer, 0)
    assert in_child(lambda: write(get_writer(tmp_path), 1)) == 0
    assert in_child(lambda: write(writer, 2)) == 0
    write(writer, 3)
    assert len(list(tmp_path.iterdir())) == 3
    check(tmp_path, range(4))


def test_files_end_and_begin_again(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "MAX_RECORDS", 3)
    writer = SegmentWriter(tmp_path)
    for number in range(7):
        write(writer, number)
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    assert all("layout" in next(scan(path)).header for path in files)
    check(tmp_path, range(7))


def test_only_ended_or_dead_files_are_offered_for_removal(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "MAX_RECORDS", 2)
    writer = SegmentWriter(tmp_path)
    for number in range(3):
        write(writer, number)
    assert in_child(lambda: write(writer, 3)) == 0
    dead = {p.name for p in tmp_path.iterdir()}
    index = SegmentIndex(tmp_path)
    index.refresh()
    assert index.forget(lambda number, _: number == 0) == []
    gone = index.forget(lambda *_: True)
    assert len(gone) == 2
    assert index.find(1, 1) is None
    alive = dead - {p.name for p in gone}
    assert len(alive) == 1
    (name,) = alive
    elsewhere = tmp_path / name.replace(segments.host_name(), "elsewhere")
    (tmp_path / name).rename(elsewhere)
    index.refresh()
    assert elsewhere not in index.forget(lambda *_: True)
    past = time.time() - indexing.ABANDONED_SECONDS - 9
    os.utime(elsewhere, (past, past))
    assert elsewhere in index.forget(lambda *_: True)


def test_a_file_removed_under_a_live_writer_loses_nothing(tmp_path):
    writer = SegmentWriter(tmp_path)
    write(writer, 0)
    only_file(tmp_path).unlink()
    write(writer, 1)
    check(tmp_path, [1])


def test_four_writers_and_a_kill_in_the_middle_of_a_record(tmp_path):
    def work(k):
        writer = SegmentWriter(tmp_path)
        for number in range(k * 1000, k * 1000 + 1000):
            if k == 2 and number == 2500:  # half of a record, then -9
                record = encode(ok(number), arrays_of(number, LAYOUT), list(LAYOUT["variables"]))
                os.write(writer._fd, record[: len(record) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            write(writer, number)

    children = []
    for k in range(4):
        pid = os.fork()
        if not pid:
            try:
                work(k)
            finally:
                os._exit(0)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert codes == [0, 0, -signal.SIGKILL, 0]
    check(tmp_path, [*range(2500), *range(3000, 4000)])


def test_killed_at_random_while_another_reads(tmp_path):
    rng = np.random.default_rng(5)
    index = SegmentIndex(tmp_path)
    met = []
    for life in range(10):
        pid = os.fork()
        if not pid:
            writer = SegmentWriter(tmp_path)
            for number in range(life * 10_000, life * 10_000 + 10_000):
                write(writer, number)
            os._exit(0)
        time.sleep(float(rng.uniform(0.005, 0.03)))
        met += [o.number for o, _ in index.poll()]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        met += [o.number for o, _ in index.poll()]
        mine = [i for i in met if i // 10_000 == life]
        assert mine == list(range(life * 10_000, life * 10_000 + len(mine)))
    check(tmp_path, met)


def test_full_disk(tmp_path):
    layout = {"variables": {"h": variable(["x"], "<f8", [1000])}, "coords": {}, "attrs": {}}
    with full_disk(tmp_path) as disk:
        writer = SegmentWriter(disk / "segments")
        kept = []

        def fill():
            for number in range(1000):
                writer.write(ok(number), arrays_of(number, layout), layout, DIGEST)
                kept.append(number)

        with pytest.raises(StoreError, match="disk is full") as told:
            fill()
        assert ".seg" in str(told.value)
        small = Outcome(1000, 1, "failed", "small enough")
        writer.write(small, {})
        subprocess.run(["mount", "-o", "remount,size=1M", str(disk)], check=True)
        writer.write(ok(2000), arrays_of(2000, layout), layout, DIGEST)
        found = [o.number for o, _ in SegmentIndex(disk / "segments").poll()]
        assert found == [*kept, 1000, 2000]


def test_scalar_records_are_small(tmp_path):
    writer = SegmentWriter(tmp_path)
    digest = digest_of(SCALAR)
    for number in range(100):
        writer.write(ok(number), arrays_of(number, SCALAR), SCALAR, digest)
    assert only_file(tmp_path).stat().st_size < 100 * 250
