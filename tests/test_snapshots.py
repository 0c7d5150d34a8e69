"""Versions of a policy as files: exact, whole, read-only, copied once for each host."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from student import prepare

from ensemblerl.agents import snapshots
from ensemblerl.policyfile import FOLDER, SnapshotError, file_name, load, pack
from ensemblerl.records import Cube, Snapshot
from ensemblerl.store import policies
from ensemblerl.testing.core import same

CUBE = Cube(
    ("real", "categorical", "ordinal"),
    (0, 2, 3),
    (None, np.array([0.0, 0.3, 1.0]), np.array([0.0, 0.1, 0.7, 1.0])),
    ((), (), ((1, (0,)),)),
)
WEIGHTS = {
    "layers/0": np.random.default_rng(0).standard_normal((4, 3)),
    "file": np.arange(3, dtype=np.int32),
    "scalar": np.array(0.1),
    "none": np.empty((0, 2)),
}
SNAPSHOT = Snapshot(17, WEIGHTS, {"policy": {"bits": 8}, "cube": snapshots.cube_meta(CUBE)})


@pytest.fixture
def file(tmp_path):
    policies.publish(tmp_path, SNAPSHOT)
    return tmp_path / FOLDER / "000017.npz"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where this host's copies go."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp" / f"ensemblerl-{os.getuid()}"


class TestTheFile:
    def test_round_trip(self, file):
        assert same(snapshots.load(file), SNAPSHOT)
        assert {a.dtype for a in load(file).weights.values()} == {np.dtype("f8"), np.dtype("i4")}

    def test_numpy_alone_reads_it(self, file):
        with np.load(file, allow_pickle=False) as arrays:
            np.testing.assert_array_equal(arrays["layers/0"], WEIGHTS["layers/0"])
            meta = json.loads(arrays["meta.json"].tobytes())
        assert meta["format"] == 1
        assert meta["version"] == 17
        assert meta["policy"] == {"bits": 8}

    def test_the_cube_comes_back(self, file):
        assert same(snapshots.cube_of(load(file).meta["cube"]), CUBE)

    def test_nobody_writes_to_it(self, file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o444

    def test_the_same_again_leaves_it_alone(self, file):
        before = file.stat()
        policies.publish(file.parents[1], SNAPSHOT)
        assert file.stat().st_ino == before.st_ino

    def test_what_no_event_names_is_replaced(self, file):
        (file.parent / (file.name + ".part")).write_bytes(b"left by a kill")
        (file.parent / (file.name + ".part")).chmod(0o444)
        other = Snapshot(17, {"w": np.ones(2)})
        policies.publish(file.parents[1], other)
        assert same(load(file), other)
        assert list(file.parent.iterdir()) == [file]

    def test_the_same_snapshot_is_the_same_bytes(self):
        assert pack(SNAPSHOT) == pack(SNAPSHOT)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"version": -1}, "version: wanted a whole number >= 0, got -1"),
            ({"meta": {"format": 2}}, r"meta: wanted names other than \['format'\]"),
            ({"meta": {"a": np.nan}}, "meta: wanted what JSON can say"),
            ({"meta": {"a": CUBE}}, "meta: wanted what JSON can say"),
            ({"weights": {"meta.json": np.ones(1)}}, "weights: wanted names other than"),
            ({"weights": {"w": np.array(["a"])}}, r"weights\['w'\]: wanted an array of numbers"),
            ({"weights": {"w": [1.0]}}, r"weights\['w'\]: wanted an array .*got list"),
        ],
    )
    def test_what_cannot_be_kept_is_refused_by_name(self, change, told):
        given = {"version": 1, "weights": {}, "meta": {}} | change
        with pytest.raises((ValueError, TypeError), match=told):
            pack(Snapshot(**given))


class TestDamage:
    def test_a_file_cut_off_anywhere(self, file, tmp_path):
        data, cut = file.read_bytes(), tmp_path / "cut.npz"
        for length in range(0, len(data), 37):
            cut.write_bytes(data[:length])
            with pytest.raises(SnapshotError, match=r"cut\.npz: not a whole snapshot"):
                load(cut)

    def test_a_wrong_byte_in_the_weights(self, file, tmp_path):
        data = bytearray(file.read_bytes())
        data[data.find(WEIGHTS["layers/0"].tobytes()) + 5] ^= 1
        (tmp_path / "wrong.npz").write_bytes(data)
        with pytest.raises(SnapshotError, match=r"wrong\.npz: not a whole snapshot"):
            load(tmp_path / "wrong.npz")

    def test_files_of_other_kinds(self, tmp_path):
        np.savez(tmp_path / "other.npz", a=np.ones(3))
        with pytest.raises(SnapshotError, match=r"other\.npz: not a snapshot of a policy"):
            load(tmp_path / "other.npz")
        np.savez(tmp_path / "pickle.npz", a=np.array([CUBE], dtype=object))
        with pytest.raises(SnapshotError, match=r"pickle\.npz: not a snapshot of a policy"):
            load(tmp_path / "pickle.npz")
        with pytest.raises(SnapshotError, match=r"none\.npz: no such snapshot"):
            load(tmp_path / "none.npz")

    def test_another_format(self, tmp_path):
        meta = np.frombuffer(b'{"format": 2, "version": 0}', dtype=np.uint8)
        np.savez(tmp_path / "new.npz", **{"meta.json": meta})
        with pytest.raises(SnapshotError, match="format 2 is not known here"):
            load(tmp_path / "new.npz")


class TestNewest:
    def test_of_a_campaign(self, tmp_path):
        prepare(tmp_path / "s").run()
        (tmp_path / "s" / FOLDER / "000099.npz.part").touch()
        newest = snapshots.latest(tmp_path / "s")
        assert newest == tmp_path / "s" / FOLDER / file_name(4)
        assert load(newest).version == 4

    def test_by_number_not_by_name(self, tmp_path):
        (tmp_path / FOLDER).mkdir()
        for version in (999_999, 1_000_000):
            (tmp_path / FOLDER / file_name(version)).touch()
        assert snapshots.latest(tmp_path).name == "1000000.npz"

    def test_where_there_is_none(self, tmp_path):
        with pytest.raises(SnapshotError, match="no policy was published here"):
            snapshots.latest(tmp_path)


class TestCopies:
    def test_many_readers_make_one_copy(self, file, temporary, monkeypatch):
        read, reads = Path.read_bytes, []

        def counted(path):
            reads.append(path)
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", counted)
        with ThreadPoolExecutor(8) as pool:
            copies = set(pool.map(snapshots.cached, [file] * 64))
        assert reads == [file]
        (copy,) = copies
        assert temporary in copy.parents
        assert same(load(copy), SNAPSHOT)
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o700

    def test_another_file_of_that_name_is_copied_anew(self, file, temporary):
        first = snapshots.cached(file)
        other = Snapshot(17, {"w": np.ones(2)})
        policies.publish(file.parents[1], other)
        assert snapshots.cached(file) != first
        assert same(load(snapshots.cached(file)), other)

    def test_stores_do_not_share_copies(self, file, temporary, tmp_path):
        policies.publish(tmp_path / "b", Snapshot(17, {}))
        other = tmp_path / "b" / FOLDER / file.name
        assert snapshots.cached(other).parent != snapshots.cached(file).parent

    def test_old_copies_make_room(self, file, temporary, monkeypatch):
        monkeypatch.setattr(snapshots, "KEPT", 3)
        root = file.parents[1]
        for version in range(6):
            policies.publish(root, Snapshot(version, {}))
            copy = snapshots.cached(root / FOLDER / file_name(version))
            os.utime(copy, (version, version))
        assert sorted(path.name[:6] for path in copy.parent.glob("*.npz")) == [
            "000003",
            "000004",
            "000005",
        ]

    def test_a_directory_that_others_can_write_to_is_not_used(self, file, temporary):
        temporary.mkdir()
        temporary.chmod(0o777)
        assert snapshots.cached(file) == file

    def test_a_file_in_the_way_is_no_error(self, file, temporary):
        temporary.touch(mode=0o600)
        assert snapshots.cached(file) == file

    def test_a_file_that_is_not_there(self, temporary, tmp_path):
        with pytest.raises(SnapshotError, match="no such snapshot"):
            snapshots.cached(tmp_path / "none.npz")
