"""A member in a process of its own: what may go wrong there costs that member and nothing else."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr

from ensemblerl.simulations import isolate
from ensemblerl.simulations.function import Function
from ensemblerl.simulations.isolate import Raised
from ensemblerl.simulations.processes import ProcessDied, Stopped, TimedOut, how_it_ended

pytestmark = pytest.mark.timeout(60)


def call(f, x=1.0, member=None, **kwargs):
    return Function(f, isolate=True, **kwargs)({"x": x}, seed=3, member=member)


def pid(x):
    return os.getpid()


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pids, within=2.0):
    until = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(alive, pids))


def numbers_in(path, count, within=10.0):
    """Process ids that a member wrote, one a line, once all are there."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        found = path.read_text().split() if path.exists() else []
        if len(found) >= count:
            return [int(text) for text in found]
        time.sleep(0.02)
    raise AssertionError(f"{path} never held {count} process ids")


# ---- ordinary days


def test_it_runs_elsewhere_in_the_same_process_from_member_to_member():
    function = Function(pid, isolate=True)
    pids = {function({"x": x}, seed=1) for x in range(5)}
    assert len(pids) == 1
    assert pids != {os.getpid()}
    assert call(lambda x: os.getpid()) in pids  # another simulation too


def test_arguments_and_results_travel():
    def f(point, seed, member):
        field = xr.DataArray(np.full(3, point["x"]), {"t": [1, 2, 3]}, ["t"])
        return xr.Dataset({"f": field, "seed": seed, "number": member["number"]})

    ds = call(f, 2.5, member={"number": 17})
    np.testing.assert_array_equal(ds.f, [2.5] * 3)
    assert int(ds.seed) == 3
    assert int(ds.number) == 17


def test_large_arrays_travel_both_ways():
    held = np.random.default_rng(1).random(400_000)
    back = call(lambda x: {"twice": 2 * held})
    np.testing.assert_array_equal(back["twice"], 2 * held)


def test_generators_run_there():
    def steps(x):
        yield 0.0
        yield x

    assert call(steps, 4.0) == 4.0


def test_prints_go_to_standard_error(capfd):
    def f(x):
        print("printed", x)
        os.system("echo echoed")
        return float(sys.stdin.read() == "")

    with ThreadPoolExecutor(1) as pool:  # a fresh child, with the standard error of now
        assert pool.submit(call, f).result() == 1.0
    out, err = capfd.readouterr()
    assert out == ""
    assert "printed 1.0" in err
    assert "echoed" in err


def test_cores_are_the_threads_of_numerical_libraries():
    def f(x):
        return [float(os.environ[name]) for name in isolate.THREADS]

    assert call(f, cores=3) == [3.0] * 4
    assert call(f, cores=1) == [1.0] * 4


def test_the_environment_is_otherwise_the_same(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")

    def f(x):
        assert os.environ["PYTHONPATH"] == "/somewhere"
        assert "ENSEMBLERL_CHILD_PYTHONPATH" not in os.environ
        return str(Path.cwd())

    with ThreadPoolExecutor(1) as pool:  # a fresh child, in the environment of now
        assert pool.submit(call, f).result() == str(Path.cwd())


def test_it_loads_neither_torch_nor_distributed():
    def f(x):
        heavy = ("torch", "distributed", "dask", "scipy", "xarray", "pandas")
        return [name for name in heavy if name in sys.modules]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(call, f).result() == []


def test_interrupts_are_the_drivers():
    def f(x):
        os.kill(os.getpid(), signal.SIGINT)
        return x

    assert call(f) == 1.0


def test_each_thread_has_its_child_which_ends_with_it():
    barrier = threading.Barrier(2)

    def work():
        barrier.wait(10)
        return call(pid)

    with ThreadPoolExecutor(2) as pool:
        pids = [future.result() for future in [pool.submit(work) for _ in range(2)]]
        assert len(set(pids)) == 2
        assert all(map(alive, pids))
    assert gone(pids)


def test_a_forked_process_makes_its_own_child():
    ours = call(pid)
    reader, writer = os.pipe()
    forked = os.fork()
    if not forked:
        try:
            os.write(writer, str(call(pid)).encode())
        finally:
            os._exit(0)
    os.waitpid(forked, 0)
    theirs = int(os.read(reader, 64))
    os.close(reader)
    os.close(writer)
    assert theirs != ours
    assert call(pid) == ours


# ---- errors


def test_an_exception_says_what_and_where():
    def deep(x):
        raise ValueError(f"bad {x}")

    def f(x):
        return deep(x)

    with pytest.raises(Raised) as caught:
        call(f, 5.0)
    cause = caught.value.cause
    assert cause.startswith("ValueError: bad 5.0\n")
    assert "test_isolate.py" in cause
    assert "raise ValueError(f" in cause
    assert "child.py" not in cause
    assert "function.py" not in cause


def test_the_child_survives_an_exception():
    before = call(pid)
    with pytest.raises(Raised, match="ZeroDivisionError"):
        call(lambda x: x / 0)
    assert call(pid) == before


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), RecursionError("deep")])
def test_whatever_is_raised_comes_back(error):
    def f(x):
        raise error

    with pytest.raises(Raised, match=type(error).__name__):
        call(f)


def test_memory_error_comes_back_as_one():
    with pytest.raises(MemoryError, match="allocate"):
        call(lambda x: np.ones(2**55))


def test_a_timeout_of_the_simulations_own_is_not_ours():
    def f(x):
        raise TimeoutError("the licence server")

    with pytest.raises(Raised, match="licence server"):
        call(f, timeout=30)


def test_unpicklable_simulation_is_named():
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"simulation: wanted one that can be pickled.*lock"):
        call(lambda x: lock)
    assert call(lambda x: x) == 1.0


def test_unpicklable_result_is_named():
    with pytest.raises(Raised, match=r"the result \(dict\) cannot be sent back"):
        call(lambda x: {"f": lambda: 1})


def test_a_simulation_that_cannot_be_loaded_is_no_end_of_the_child():
    class Bad:
        def __reduce__(self):
            return (int, ("no number",))

        def __call__(self, x):
            return x

    good = Function(pid, isolate=True)
    before = good({"x": 1}, seed=1)
    with pytest.raises(Raised, match="ValueError: invalid literal"):
        call(Bad())
    assert good({"x": 1}, seed=1) == before


# ---- deaths


def die(how):
    def f(x):
        how()

    return f


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda: ctypes.string_at(0), r"segmentation fault \(signal 11, SIGSEGV\)"),
        (lambda: os._exit(3), "exit code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"SIGKILL\); .* out-of-memory killer"),
        (os.abort, r"aborted \(signal 6, SIGABRT\)"),
    ],
)
def test_death_says_how_and_the_next_member_runs(how, words):
    with pytest.raises(ProcessDied, match=words):
        call(die(how))
    assert call(lambda x: x) == 1.0


def test_a_death_that_leaves_a_forked_process_behind_is_noticed_and_it_ends(tmp_path):
    def f(x):
        if not (forked := os.fork()):  # holds our pipes open
            time.sleep(60)
        (tmp_path / "pids").write_text(str(forked))
        os._exit(1)

    with pytest.raises(ProcessDied, match="exit code 1"):
        call(f)
    assert gone(numbers_in(tmp_path / "pids", 1))


def test_words_for_ends():
    assert how_it_ended(0) == "exit code 0"
    assert how_it_ended(-15) == "terminated (signal 15, SIGTERM)"
    assert how_it_ended(-63) == "signal 63"


# ---- time-outs and being stopped


def offspring(path, hang=60):
    """A simulation that starts an executable, forks, leaves its group, and hangs."""

    def f(x):
        pids = [os.getpid(), subprocess.Popen(["sleep", "60"]).pid]
        pids.append(subprocess.Popen(["sleep", "60"], start_new_session=True).pid)
        if not (forked := os.fork()):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        with Path(path).open("a") as file:
            file.write(" ".join(map(str, [*pids, forked])) + "\n")
        time.sleep(hang)
        return x

    return f


def test_a_timeout_ends_the_member_and_all_it_started(tmp_path):
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"the member took longer than 0\.8 s") as caught:
        call(offspring(tmp_path / "pids"), timeout=0.8)
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - began < 20
    pids = numbers_in(tmp_path / "pids", 4)
    assert gone(pids, within=2.0)
    assert call(lambda x: x, timeout=30) == 1.0


def test_a_timeout_isolates_by_itself():
    assert Function(pid, timeout=30.0)({"x": 1.0}, seed=1) != os.getpid()
    assert Function(pid)({"x": 1.0}, seed=1) == os.getpid()


def test_a_member_is_stopped_from_another_thread(tmp_path):
    function = Function(offspring(tmp_path / "pids"), isolate=True)

    def stop():
        numbers_in(tmp_path / "pids", 4)
        isolate.stop(function, 8)  # not that one
        isolate.stop(function, 9)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Stopped):
        function({"x": 1.0}, seed=1, member={"number": 9})
    thread.join()
    assert gone(numbers_in(tmp_path / "pids", 4))
    isolate.stop(function, 9)
    assert call(lambda x: x) == 1.0


# ---- the end of the parent

PARENT = """
import os, sys
from ensemblerl.simulations.function import Function
from test_isolate import offspring
path, hang = sys.argv[1], float(sys.argv[2])
Function(offspring(path, hang), isolate=True)({"x": 1.0}, seed=1)
"""


def parent(path, hang):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", PARENT, str(path), str(hang)]
    return subprocess.Popen(command, env=environment)


def test_a_killed_parent_leaves_nothing_of_the_group_behind(tmp_path):
    process = parent(tmp_path / "pids", 60)
    child, program, own_session, forked = numbers_in(tmp_path / "pids", 4)
    process.kill()
    process.wait()
    try:
        assert gone([child, program, forked])
    finally:
        os.kill(own_session, signal.SIGKILL)  # it chose to leave the group


def test_a_parent_that_leaves_in_good_order_ends_its_idle_child(tmp_path):
    process = parent(tmp_path / "pids", 0)
    assert process.wait(30) == 0
    assert gone(numbers_in(tmp_path / "pids", 4))
