"""Bundles of members where they land: whatever a simulation does is an outcome, and on disk."""

import ctypes
import multiprocessing
import os
import platform
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ensemblerl.finishing import worker_id
from ensemblerl.protocols import Job
from ensemblerl.records import Fate, Members, Place, Proposals
from ensemblerl.simulations.function import Function
from ensemblerl.store.segments import read_arrays, scan
from ensemblerl.testing.rehearsal import numbered
from ensemblerl.testing.toys import Least
from ensemblerl.worker import deliver, run_bundle, too_late

pytestmark = pytest.mark.timeout(60)


def members(first=0, **points):
    points = {name: np.asarray(column) for name, column in points.items()}
    n = len(next(iter(points.values())))
    rows = numbered(Proposals(np.full((n, 1), 0.5)), first, "test")
    return Members(**{**vars(rows), "points": points}).luggage()


@dataclass
class Asks(Least):
    """A goal whose parts can be replaced."""

    read: object = None
    keep: object = None
    k: int = 1
    seen: list = field(default_factory=list)

    def reduce(self, result):
        return self.keep(result) if self.keep else super().reduce(result)

    def value(self, reduced):
        return self.read(reduced) if self.read else super().value(reduced)


def job(f, segments="", goal=None, casts=None, **kwargs):
    return Job(Function(f, **kwargs), goal or Asks(), str(segments), os.getpid(), casts or {})


def outcome(f, *, x=1.0, goal=None, **kwargs):
    (found,) = run_bundle(job(f, goal=goal, **kwargs), members(x=[x])).outcomes
    return found


def records(directory):
    """number -> (header, arrays) of all that the segments hold, and the layouts by digest."""
    found, layouts = {}, {}
    for path in directory.glob("*.seg"):
        frames = list(scan(path))
        layouts.update({f.header["digest"]: f.header["layout"] for f in frames if "layout" in f[1]})
        for frame in frames:
            if "number" in frame.header:
                schema = frame.header.get("schema")
                with path.open("rb") as file:
                    arrays = read_arrays(file, frame.offset, layouts[schema]) if schema else {}
                found[frame.header["number"]] = frame.header, arrays
    return found, layouts


# ---- what is ok


def test_outcomes_and_records_of_a_bundle(tmp_path):
    def f(x):
        if x < 0:
            raise ArithmeticError("negative")
        return {"value": x**2, "profile": np.arange(3) * x, "state": f"file-{x:g}"}

    before = time.time()
    answer = run_bundle(job(f, tmp_path), members(5, x=[1.0, -1.0, 3.0]))
    assert [o.number for o in answer.outcomes] == [5, 6, 7]
    assert [o.fate for o in answer.outcomes] == [Fate.ok, Fate.failed, Fate.ok]
    assert [o.value for o in answer.outcomes] == [(1.0,), (), (9.0,)]
    assert [o.state for o in answer.outcomes] == ["file-1", "", "file-3"]
    assert all(before <= o.start <= time.time() and o.runtime >= 0 for o in answer.outcomes)
    assert {o.worker for o in answer.outcomes} == {f"{platform.node()}:{os.getpid()}"}
    assert all(o.record is None and type(o.fate) is str for o in answer.outcomes)
    found, layouts = records(tmp_path)
    assert list(found) == [5, 6, 7]
    assert layouts == answer.schemas
    np.testing.assert_array_equal(found[7][1]["profile"], [0.0, 3.0, 6.0])
    assert found[6][0]["cause"] == answer.outcomes[1].cause
    assert "schema" not in found[6][0]


def test_each_result_is_on_disk_before_the_next_member_starts(tmp_path):
    def f(x):
        return float(len(records(tmp_path)[0]))

    answer = run_bundle(job(f, tmp_path), members(x=[0.0, 0.0, 0.0]))
    assert [o.value for o in answer.outcomes] == [(0.0,), (1.0,), (2.0,)]


def test_what_another_worker_has_done_is_not_done_again(tmp_path):
    ran = []

    def f(x):
        ran.append(x)
        if x == 2.0:
            raise ValueError("never")
        return x

    run_bundle(job(f, tmp_path), members(3, x=[1.0, 2.0]))
    answer = run_bundle(job(f, tmp_path), members(3, x=[1.0, 2.0, 3.0]), again=True)
    assert ran == [1.0, 2.0, 3.0]
    assert [o.number for o in answer.outcomes] == [3, 4, 5]
    assert [o.fate for o in answer.outcomes] == [Fate.ok, Fate.failed, Fate.ok]
    assert answer.outcomes[0].value == (1.0,)
    assert "never" in answer.outcomes[1].cause
    assert answer.outcomes[0].schema in answer.schemas
    assert sum("number" in f.header for p in tmp_path.glob("*.seg") for f in scan(p)) == 3


def test_what_is_done_counts_also_where_there_is_no_time_left(tmp_path):
    late = Place(until=time.monotonic() + 1, needed=60.0)
    plain = job(lambda x: x, tmp_path)
    run_bundle(plain, members(x=[1.0]))
    answer = run_bundle(plain, members(x=[1.0, 2.0]), again=True, place=late)
    assert [o.fate for o in answer.outcomes] == [Fate.ok, Fate.stopped]
    # and what was not begun is not done
    answer = run_bundle(plain, members(x=[1.0, 2.0]), again=True)
    assert [o.fate for o in answer.outcomes] == [Fate.ok, Fate.ok]


def test_without_segments_nobody_knows_what_another_worker_has_done():
    answer = run_bundle(job(lambda x: x), members(x=[1.0]), again=True)
    assert answer.outcomes[0].value == (1.0,)


def test_a_dataset_with_its_coordinates(tmp_path):
    def f(x):
        return xr.Dataset({"q": ("t", [x, x])}, {"t": [10.0, 20.0]})

    goal = Asks(read=lambda reduced: reduced["q"].sum())
    answer = run_bundle(job(f, tmp_path, goal), members(x=[1.0, 2.0]))
    assert [o.value for o in answer.outcomes] == [(2.0,), (4.0,)]
    (layout,) = answer.schemas.values()
    assert layout["coords"]["t"]["data"] == [10.0, 20.0]


def test_several_values():
    found = outcome(lambda x: x, goal=Asks(read=lambda r: [1.0, np.float32(2.0)], k=2))
    assert found.value == (1.0, 2.0)


def test_what_the_goal_keeps_does_not_lose_the_state():
    goal = Asks(keep=lambda result: {"value": result["value"]})
    assert outcome(lambda x: {"value": x, "state": "left"}, goal=goal).state == "left"


def test_seed_and_member_reach_the_simulation():
    def f(x, seed, member):
        assert member == {
            "number": 4,
            "attempt": 1,
            "group": 0,
            "cycle": 0,
            "task": 0,
            "fidelity": 0,
            "parent": -1,
            "state": "",
        }
        return seed

    (found,) = run_bundle(job(f), members(4, x=[1.0])).outcomes
    assert found.value == (5.0,)


def test_points_are_pythons_own_types_without_inactive_parameters():
    seen = []

    def f(**point):
        seen.append(point)
        return 0.0

    columns = {
        "rate": np.array([0.5, np.nan]),
        "depth": np.array([np.nan, 3.0]),
        "flag": np.array([1.0, np.nan]),
        "kind": np.array(["", "adam"]),
        "steps": np.array([2, 3]),
        "on": np.array([True, False]),
    }
    casts = {"depth": "int", "flag": "bool"}
    run_bundle(job(f, casts=casts), members(**columns))
    assert seen == [
        {"rate": 0.5, "flag": True, "steps": 2, "on": True},
        {"depth": 3, "kind": "adam", "steps": 3, "on": False},
    ]
    assert [type(value) for value in seen[0].values()] == [float, bool, int, bool]
    assert [type(value) for value in seen[1].values()] == [int, str, int, bool]


# ---- what is not


def boom(x):
    raise ValueError(f"no result for {x}")


def test_a_raising_simulation_tells_its_cause():
    found = outcome(boom, x=2.5)
    assert (found.fate, found.value, found.schema) == (Fate.failed, (), "")
    assert found.cause.startswith("ValueError: no result for 2.5\n")
    assert 'raise ValueError(f"no result for {x}")' in found.cause
    assert "ensemblerl/worker.py" not in found.cause
    assert "function.py" not in found.cause.replace("test_function.py", "")


def test_causes_are_trimmed_but_say_the_message():
    def f(x):
        raise ValueError("start " + "x" * 10_000)

    found = outcome(f)
    assert len(found.cause) <= 2000
    assert found.cause.startswith("ValueError: start")
    assert "test_worker.py" in found.cause


def test_an_error_without_a_message():
    def f(x):
        raise RuntimeError

    assert outcome(f).cause.startswith("RuntimeError\n")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (float("nan"), "Asks(read=None, keep=None, k=1, seen=[]): wanted a finite number, got nan"),
        (float("-inf"), "got -inf"),
        (None, "got None"),
        ("text", "'value': wanted numbers"),
        ({"value": [1.0, 2.0]}, "ValueError"),  # the toy goal cannot read it
        ({"other": 1.0}, "KeyError: 'value'"),
        ({"value": 1.0, "name": "x"}, "'name'"),
        ({"value": 1.0, "big": np.zeros(200)}, "max_result_bytes"),
    ],
)
def test_invalid_results(result, words):
    found = outcome(lambda x: result, max_result_bytes=1000)
    assert found.fate == Fate.invalid
    assert words in found.cause
    assert found.value == ()
    assert found.schema == ""


@pytest.mark.parametrize("value", [[1.0, 2.0], [[1.0]], [], "text", None, [None]])
def test_values_of_the_wrong_shape_or_kind(value):
    found = outcome(lambda x: x, goal=Asks(read=lambda reduced: value))
    assert found.fate == Fate.invalid
    assert found.cause


def test_a_goal_that_raises_is_invalid():
    def keep(result):
        raise LookupError("no such thing")

    found = outcome(lambda x: x, goal=Asks(keep=keep))
    assert found.fate == Fate.invalid
    assert found.cause.startswith("LookupError: no such thing")


def test_exits_and_memory():
    def leave(x):
        raise SystemExit(3)

    def fill(x):
        return np.ones(2**55)

    assert outcome(leave).fate == Fate.failed
    assert outcome(leave).cause.startswith("SystemExit: 3")
    assert outcome(fill).fate == Fate.out_of_memory
    assert "allocate" in outcome(fill).cause


def test_an_interrupt_is_the_drivers():
    def f(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcome(f)
    elsewhere = Job(Function(f), Least(), "", driver=-1)
    before = signal.getsignal(signal.SIGINT)
    try:
        (found,) = run_bundle(elsewhere, members(x=[1.0])).outcomes
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert found.fate == Fate.failed
    assert found.cause.startswith("KeyboardInterrupt")


def test_the_driver_keeps_its_interrupts():
    before = signal.getsignal(signal.SIGINT)
    outcome(lambda x: x)
    assert signal.getsignal(signal.SIGINT) is before


# ---- isolated


def test_isolated_members_end_each_in_their_way(tmp_path):
    def f(x):
        match x:
            case 1.0:
                ctypes.string_at(0)
            case 2.0:
                time.sleep(60)
            case 3.0:
                os.kill(os.getpid(), signal.SIGKILL)
            case 4.0:
                raise MemoryError("full")
            case 5.0:
                os._exit(7)
            case 6.0:
                boom(x)
        return x

    answer = run_bundle(job(f, tmp_path, timeout=1.0), members(x=np.arange(8.0)))
    fates = [o.fate for o in answer.outcomes]
    died = Fate.failed
    assert fates == ["ok", died, Fate.timeout, died, Fate.out_of_memory, died, died, "ok"]
    causes = [o.cause for o in answer.outcomes]
    assert "segmentation fault (signal 11, SIGSEGV)" in causes[1]
    assert "longer than 1 s" in causes[2]
    assert "out-of-memory killer" in causes[3]
    assert causes[4].startswith("MemoryError: full")
    assert "exit code 7" in causes[5]
    assert causes[6].startswith("ValueError: no result for 6.0\n")
    assert "boom" in causes[6]
    assert sorted(records(tmp_path)[0]) == list(range(8))


def test_an_isolated_unpicklable_simulation_fails_with_words():
    lock = threading.Lock()
    found = outcome(lambda x: lock, isolate=True)
    assert found.fate == Fate.failed
    assert "wanted one that can be pickled" in found.cause


# ---- where the segment cannot be written


def inline(found, tmp_path):
    """The record in an outcome, as the head would write it."""
    path = tmp_path / "inline.seg"
    path.write_bytes(found.record)
    return records(tmp_path)


@pytest.mark.parametrize("segments", ["", "/nowhere/campaign/segments"])
def test_without_a_directory_the_record_travels_inline(segments, tmp_path):
    f = job(lambda x: {"value": x, "field": np.arange(4)}, segments)
    (found,) = run_bundle(f, members(3, x=[2.0])).outcomes
    kept, layouts = inline(found, tmp_path)
    assert kept[3][0]["value"] == [2.0]
    np.testing.assert_array_equal(kept[3][1]["field"], np.arange(4))
    assert list(layouts) == [found.schema]
    assert not Path("/nowhere").exists()


def test_a_failed_member_travels_inline_too(tmp_path):
    (found,) = run_bundle(job(boom), members(3, x=[2.0])).outcomes
    assert inline(found, tmp_path)[0][3][0]["fate"] == "failed"


def test_a_segment_that_cannot_be_written_loses_nothing(tmp_path):
    (tmp_path / "segments").write_text("a file is in the way")
    (found,) = run_bundle(job(lambda x: x, tmp_path / "segments"), members(x=[2.0])).outcomes
    (tmp_path / "kept").mkdir()
    assert inline(found, tmp_path / "kept")[0][0][0]["value"] == [2.0]


# ---- the rest


def test_members_stopped_before_they_begin(tmp_path):
    stopped = {(1, 1), (2, 9)}
    answer = run_bundle(job(lambda x: x, tmp_path), members(x=[0.0, 1.0, 2.0]), stopped=stopped)
    assert [o.fate for o in answer.outcomes] == [Fate.ok, Fate.stopped, Fate.ok]
    assert "before it began" in answer.outcomes[1].cause


def test_a_member_is_not_begun_where_it_cannot_finish(tmp_path):
    """The rest of the bundle neither: it is for a worker with more time."""
    segments = tmp_path / "store" / "segments"
    segments.mkdir(parents=True)
    began = []

    def slow(x):
        began.append(x)
        time.sleep(1.5)
        return x

    place = Place(until=time.monotonic() + 61.0, needed=60.0)
    answer = run_bundle(job(slow, segments), members(x=[1.0, 2.0, 3.0]), place=place)
    assert [o.fate for o in answer.outcomes] == ["ok", "stopped", "stopped"]
    assert began == [1.0]
    assert "60 s are needed" in answer.outcomes[1].cause
    assert answer.outcomes[1].cause.startswith("not begun")


@pytest.mark.parametrize(
    ("place", "late"),
    [
        (Place(), False),
        (Place(needed=1e9), False),
        (Place(until=1e18, needed=1e9), False),
        (Place(until=0.0), True),
        (Place(until=0.0, needed=5.0), True),
    ],
)
def test_a_place_without_an_end_has_time_for_anybody(place, late):
    assert bool(too_late(place)) == late
    (found,) = run_bundle(job(lambda x: x), members(x=[1.0]), place=place).outcomes
    assert found.fate == ("stopped" if late else "ok")


def test_results_of_members_that_somebody_else_ran(tmp_path):
    results = [4.0, ValueError("by hand"), None, {"value": 2}]
    answer = deliver(job(boom, tmp_path), members(x=np.ones(4)), results)
    assert [o.fate for o in answer.outcomes] == ["ok", "failed", "invalid", "ok"]
    assert answer.outcomes[1].cause == "ValueError: by hand"
    assert [o.value for o in answer.outcomes] == [(4.0,), (), (), (2.0,)]
    assert sorted(records(tmp_path)[0]) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="shorter"):
        deliver(job(boom), members(x=np.ones(2)), [1.0])


def test_an_empty_bundle_is_answered():
    assert run_bundle(job(boom), members(x=np.ones(0))).outcomes == []


def test_a_space_without_parameters():
    rows = Members(**{**vars(members(x=np.ones(2))), "points": {}})
    assert [o.value for o in run_bundle(job(lambda: 3.0), rows).outcomes] == [(3.0,)] * 2


def test_worker_ids_tell_threads_and_processes_apart():
    ids = [worker_id()]
    thread = threading.Thread(target=lambda: ids.append(worker_id()))
    thread.start()
    thread.join()
    reader, writer = multiprocessing.Pipe(duplex=False)
    forked = os.fork()
    if not forked:
        writer.send(worker_id())
        os._exit(0)
    os.waitpid(forked, 0)
    ids.append(reader.recv())
    assert len(set(ids)) == 3
    assert ids[1].startswith(ids[0] + "/")
    assert worker_id() == ids[0]
