"""The laws for every executor in the house, and what is particular to each."""

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Executor as AnyExecutor
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from dask_support import alive, gone

from ensemblerl.executors.base import Collector, Lost
from ensemblerl.executors.futures import Futures
from ensemblerl.executors.serial import Serial
from ensemblerl.executors.shipping import packed, unpacked
from ensemblerl.executors.simulated import Simulated
from ensemblerl.protocols import Executor, Job
from ensemblerl.records import Fate, Members
from ensemblerl.simulations.function import Function
from ensemblerl.store.segments import scan
from ensemblerl.testing.executor_laws import check_executor, squares
from ensemblerl.testing.toys import Least, Square

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def pools():
    """make(kind, n) -> a pool that is shut down after the test."""
    made = []

    def make(kind, n=2):
        made.append(kind(n))
        return made[-1]

    yield make
    for pool in made:
        pool.shutdown(wait=True, cancel_futures=True)


def exponential(point, rng):
    return rng.exponential()


HOUSE = {
    "serial": lambda pools: Serial(),
    "threads": lambda pools: Futures(pools(ThreadPoolExecutor)),
    "processes": lambda pools: Futures(pools(ProcessPoolExecutor)),
    "simulated": lambda pools: Simulated(3),
    "random run times": lambda pools: Simulated(3, runtime=exponential),
    "shuffled": lambda pools: Simulated(3, runtime=exponential, order="shuffled"),
    "instant": lambda pools: Simulated(3, runtime=0.0),
}


@pytest.fixture(params=HOUSE)
def executor(request, pools):
    made = HOUSE[request.param](pools)
    yield made
    made.close()


def job(f=None, segments="", **kwargs):
    simulation = Square() if f is None else Function(f, **kwargs)
    return Job(simulation, Least(), str(segments), os.getpid())


def started(executor, f=None, segments="", **kwargs):
    executor.start(job(f, segments, **kwargs))
    return executor


def drain(executor, count):
    back = []
    while len(back) < count:
        done = executor.wait(5.0)
        assert done, "nothing came"
        back += done
    return back


def one(executor, x=2.0, number=0):
    """The outcome of one member."""
    executor.submit(squares(number, [x]))
    ((found,),) = [future.result().outcomes for future in drain(executor, 1)]
    return found


# ---- all of them


def test_laws(executor):
    check_executor(lambda: executor)


def test_protocol_and_description(executor):
    assert isinstance(executor, Executor)
    about = executor.describe()
    assert json.loads(json.dumps(about)) == about
    assert about["name"] == type(executor).__name__
    assert about["n_workers"] == executor.n_workers


def test_in_process_says_where_members_run(executor, tmp_path):
    started(executor, lambda x, nap: float(os.getpid()), tmp_path)
    assert (one(executor).value == (float(os.getpid()),)) is executor.in_process


def test_records_are_on_disk_when_the_answer_comes(executor, tmp_path):
    started(executor, segments=tmp_path)
    for first in (0, 3):
        executor.submit(squares(first, [1.0, -1.0, 2.0]))
    answers = [future.result() for future in drain(executor, 2)]
    frames = [frame for path in tmp_path.glob("*.seg") for frame in scan(path)]
    numbers = [frame.header["number"] for frame in frames if "number" in frame.header]
    assert sorted(numbers) == list(range(6))
    assert all(o.record is None for answer in answers for o in answer.outcomes)
    assert all(len(answer.schemas) == 1 for answer in answers)


def test_a_cancelled_member_that_waits_is_not_run(executor, tmp_path):
    def f(x, nap):
        time.sleep(0.1)
        return x

    started(executor, f, tmp_path)
    futures = [executor.submit(squares(i, [2.0])) for i in range(8)]
    executor.cancel(7)
    drain(executor, 8)
    fates = [future.result().outcomes[0].fate for future in futures]
    assert fates[:4] == ["ok"] * 4
    if not isinstance(executor, Futures) or executor.in_process:
        assert fates == ["ok"] * 7 + ["stopped"]


def test_close_forgets_what_waits(executor):
    started(executor)
    for i in range(20):
        executor.submit(squares(i, [1.0], nap=0.01))
    executor.close()
    executor.close()


# ---- serial


def test_serial_runs_one_bundle_a_wait():
    ran = []
    executor = started(Serial(), lambda x, nap: ran.append(x) or x)
    first, second = (executor.submit(squares(i, [float(i)])) for i in (1, 2))
    assert not ran
    assert executor.wait(0.0) == [first]
    assert ran == [1.0]
    assert executor.wait() == [second]
    assert executor.wait() == []


def test_serial_keeps_a_bundle_that_was_interrupted():
    raised = []

    def f(x, nap):
        if not raised:
            raised.append(x)
            raise KeyboardInterrupt
        return x

    executor = started(Serial(), f)
    future = executor.submit(squares(0, [1.0]))
    with pytest.raises(KeyboardInterrupt):
        executor.wait()
    assert executor.wait() == [future]
    assert future.result().outcomes[0].fate == Fate.ok


@pytest.mark.parametrize("make", [Serial, lambda: Futures(ThreadPoolExecutor(1))])
def test_an_isolated_member_that_runs_is_stopped(make):
    executor = started(make(), lambda x, nap: time.sleep(60), isolate=True)
    future = executor.submit(squares(5, [1.0]))
    timer = threading.Timer(1.0, executor.cancel, [5])
    timer.start()
    assert drain_patiently(executor) == [future]
    timer.join()
    assert future.result().outcomes[0].fate == Fate.stopped
    executor.close()


def drain_patiently(executor):
    until = time.monotonic() + 30
    while not (done := executor.wait(1.0)) and time.monotonic() < until:
        pass
    return done


def test_a_wait_before_the_start_says_so():
    executor = Serial()
    executor.submit(squares(0, [1.0]))
    with pytest.raises(RuntimeError, match="start"):
        executor.wait()


# ---- the collector


def test_collector_hands_out_in_order_of_submission():
    collector, futures = Collector(), [Future() for _ in range(5)]
    for future in futures:
        collector.add(future)
    for i in (3, 0, 4):
        futures[i].set_result(None)
    assert collector.wait() == [futures[i] for i in (0, 3, 4)]
    assert len(collector) == 2
    assert collector.wait(0.01) == []
    futures[1].cancel()
    assert collector.wait() == [futures[1]]


def test_collector_looks_around_while_it_waits():
    future = Future()
    collector = Collector(lambda: future.done() or future.set_result(None))
    collector.add(future)
    assert collector.wait() == [future]
    assert collector.wait() == []


def test_collector_wakes_from_a_signal_handler():
    collector, future = Collector(), Future()
    collector.add(future)
    before = signal.signal(signal.SIGALRM, lambda *_: collector.wake())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        began = time.monotonic()
        assert collector.wait(30.0) == []
        assert time.monotonic() - began < 20
    finally:
        signal.signal(signal.SIGALRM, before)
    collector.wake()
    assert collector.wait(30.0) == []  # a wake before the wait counts too
    future.set_result(None)
    assert collector.wait() == [future]


# ---- somebody else's executors


def test_threads_share_the_simulation_others_get_a_copy(pools):
    lock = threading.Lock()

    def f(x, nap):
        with lock:
            return x

    executor = started(Futures(pools(ThreadPoolExecutor)), f)
    assert one(executor).fate == Fate.ok
    with pytest.raises(TypeError, match=r"simulation: wanted one that can be pickled.*threads"):
        started(Futures(pools(ProcessPoolExecutor)), f)


def test_an_unpicklable_goal_is_named(pools):
    goal = Least()
    goal.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"goal: wanted.*Serial\(\)"):
        Futures(pools(ProcessPoolExecutor)).start(Job(Square(), goal, ""))


def test_a_job_is_unpickled_once_a_process():
    parcel = packed(job(lambda x, nap: x))
    assert unpacked(parcel) is unpacked(parcel)
    assert unpacked(parcel).simulation.version == job(lambda x, nap: x).simulation.version


def test_processes_ignore_interrupts(pools):
    def f(x, nap):
        return float(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)

    assert one(started(Futures(pools(ProcessPoolExecutor)), f)).value == (1.0,)


def test_a_broken_pool_loses_its_bundles_and_takes_no_more(pools):
    def f(x, nap):
        if x == 3.0:
            os._exit(1)
        time.sleep(0.2)
        return x

    executor = started(Futures(pools(ProcessPoolExecutor)), f)
    futures = [executor.submit(squares(i, [float(i)])) for i in range(8)]
    drain(executor, 8)
    lost = [isinstance(future.exception(), Lost) for future in futures]
    assert lost[3]
    assert lost[7]
    assert "new pool" in str(futures[3].exception())
    with pytest.raises(RuntimeError, match="pool is broken"):
        executor.submit(squares(9, [1.0]))


def test_bundles_that_a_broken_pool_never_began_are_told_apart(pools):
    executor = started(Futures(pools(ProcessPoolExecutor)), lambda x, nap: os._exit(1))
    futures = [executor.submit(squares(i, [float(i)])) for i in range(40)]
    drain(executor, 40)
    begun = [future.exception().begun for future in futures]
    assert begun[0] is None
    assert begun[20:] == [False] * 20  # two ran, and one or two waited in the pipe
    assert begun == sorted(begun, key=lambda b: b is False)


def test_what_was_cancelled_never_began(pools):
    executor = started(Futures(pools(ThreadPoolExecutor, 1)))
    futures = [executor.submit(squares(i, [1.0], nap=0.1)) for i in range(3)]
    executor.close()
    drain(executor, 3)
    assert futures[-1].exception().begun is False
    assert Lost("a worker died").begun is None
    assert pickle.loads(pickle.dumps(Lost("gone", begun=False))).begun is False


@pytest.mark.parametrize("name", ["serial", "threads", "simulated", "shuffled"])
def test_an_executor_can_be_started_again(name, pools):
    """Nothing of the first time comes back, or is held against the second."""
    executor = started(HOUSE[name](pools))
    for i in range(12):
        executor.submit(squares(i, [1.0], nap=0.02))
    executor.cancel(11)
    executor.close()
    started(executor)
    again = [executor.submit(squares(i, [2.0])) for i in range(12)]
    came = drain(executor, 12)
    assert len(came) == 12
    assert set(came) == set(again)
    if name in ("serial", "simulated"):  # of two threads either may be the first to finish
        assert came == again
    assert {o.fate for future in again for o in future.result().outcomes} == {"ok"}


ORPHANS = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from ensemblerl.executors.futures import Futures
from ensemblerl.protocols import Job
from ensemblerl.simulations.function import Function
from ensemblerl.testing.executor_laws import squares
from ensemblerl.testing.toys import Least

def f(x, nap):
    os.write(1, b"%d\\n" % os.getpid())  # one write: two processes share the pipe
    time.sleep(60)

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(sys.argv[1]))
    executor = Futures(pool)
    executor.start(Job(Function(f), Least(), "", os.getpid()))
    for i in range(4):
        executor.submit(squares(i, [1.0]))
    executor.wait()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_killed_driver_leaves_no_workers(tmp_path, method):
    path = tmp_path / "script.py"
    path.write_text(ORPHANS)
    driver = subprocess.Popen(
        [sys.executable, path, method], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    pids = [int(driver.stdout.readline()) for _ in range(2)]
    assert alive(pids) == pids
    driver.kill()
    driver.wait()
    driver.stdout.close()
    assert gone(pids)


def test_a_pool_outlives_the_thread_that_used_it(pools):
    executor = Futures(pools(ProcessPoolExecutor))
    found = []
    for i in range(2):
        thread = threading.Thread(target=lambda i=i: found.append(one(started(executor), number=i)))
        thread.start()
        thread.join()
        time.sleep(1.2)
    assert [o.fate for o in found] == ["ok", "ok"]


def test_isolation_keeps_a_pool_alive(pools):
    executor = started(
        Futures(pools(ProcessPoolExecutor)), lambda x, nap: os._exit(1), isolate=True
    )
    assert "exit code 1" in one(executor).cause
    assert "exit code 1" in one(executor, number=1).cause


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "words"),
    [
        ((3,), {}, TypeError, "executor: wanted a concurrent.futures.Executor, got 3"),
        ((AnyExecutor(),), {}, ValueError, "n_workers: wanted a whole number >= 1, got None"),
        ((AnyExecutor(),), {"n_workers": 0}, ValueError, "got 0"),
    ],
)
def test_bad_arguments_of_futures(args, kwargs, error, words):
    with pytest.raises(error, match=words):
        Futures(*args, **kwargs)


def test_number_of_workers(pools):
    assert Futures(pools(ThreadPoolExecutor, 3)).n_workers == 3
    assert Futures(AnyExecutor(), n_workers=5).n_workers == 5


def test_processes_end_with_an_ordinary_script():
    code = (
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from ensemblerl.executors.futures import Futures\n"
        "from ensemblerl.simulations.function import Function\n"
        "from ensemblerl.testing.toys import Least\n"
        "from ensemblerl.testing.executor_laws import squares\n"
        "from ensemblerl.protocols import Job\n"
        "def f(x, nap): return x\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(2) as pool:\n"
        "        executor = Futures(pool)\n"
        "        executor.start(Job(Function(f, isolate=True), Least(), ''))\n"
        "        future = executor.submit(squares(0, [4.0]))\n"
        "        executor.wait()\n"
        "    print(future.result().outcomes[0].value)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "(4.0,)\n", done.stderr


# ---- virtual time


def play(executor, n=60, size=1, ahead=6, f=None, segments=""):
    """Run n members; (number, arrival time, outcome or None where lost) in order of arrival."""
    started(executor, f or (lambda x, nap: x), segments)
    waiting = list(squares(0, np.arange(1.0, n + 1)).split(size))[::-1]
    flying, seen = {}, []
    while waiting or flying:
        while waiting and len(flying) < ahead:
            bundle = waiting.pop()
            flying[executor.submit(bundle)] = bundle
        for future in executor.wait():
            numbers = flying.pop(future).number.tolist()
            lost = future.exception() is not None
            outcomes = [None] * len(numbers) if lost else future.result().outcomes
            seen += [(i, executor.time(), o) for i, o in zip(numbers, outcomes, strict=True)]
    return seen


def test_the_clock_goes_by_the_work():
    executor = Simulated(4, runtime=2.0, start=100.0)
    assert executor.time() == 100.0
    seen = play(executor, n=8, ahead=8)
    assert [at for _, at, _ in seen] == [102.0] * 4 + [104.0] * 4
    assert [o.start for *_, o in seen] == [100.0] * 4 + [102.0] * 4
    assert {o.runtime for *_, o in seen} == {2.0}
    assert Counter(o.worker for *_, o in seen) == {f"virtual:{i}": 2 for i in range(4)}
    assert [o.value for *_, o in seen] == [(float(i + 1),) for i in range(8)]


def test_a_late_submission_starts_now():
    executor = started(Simulated(2, runtime=1.0))
    one(executor)
    assert one(executor, number=1).start == 1.0


def test_no_virtual_worker_runs_two_members_at_once():
    seen = play(Simulated(3, runtime=exponential, seed=3), n=200, ahead=9, size=2)
    by_worker = {}
    for *_, o in sorted(seen, key=lambda row: row[2].start):
        assert o.start >= by_worker.get(o.worker, 0.0) - 1e-9
        by_worker[o.worker] = o.start + o.runtime
    times = [at for _, at, _ in seen]
    assert times == sorted(times)
    assert len(by_worker) == 3


def test_run_times_follow_their_law_and_the_point():
    seen = play(Simulated(2, runtime=lambda point, rng: point["x"] * rng.exponential()), n=400)
    scaled = np.array([o.runtime / o.value[0] for *_, o in seen])
    assert abs(scaled.mean() - 1.0) < 4 * scaled.std() / np.sqrt(len(scaled))


def test_the_same_seed_the_same_story():
    def story(**kwargs):
        rates = {"loss_rate": 0.1, "failure_rate": 0.1, "runtime": exponential}
        rows = play(Simulated(3, **{**rates, "order": "shuffled", "seed": 5, **kwargs}))
        return [(i, at, o and o[:7]) for i, at, o in rows]

    assert story() == story()
    assert story() != story(seed=6)


def test_draws_depend_on_the_member_not_on_arrival_or_bundling():
    def draws(**kwargs):
        options = {"runtime": exponential, "failure_rate": 0.2, "seed": 5}
        size = kwargs.pop("size", 1)
        rows = play(Simulated(**{"n_workers": 3, **options, **kwargs}), size=size)
        return {i: (o.runtime, o.fate) for i, _, o in rows}

    first = draws()
    assert first == draws(order="shuffled") == draws(n_workers=7) == draws(size=4)
    lossy = play(Simulated(3, runtime=exponential, failure_rate=0.2, seed=5, loss_rate=0.3))
    assert all(first[i] == (o.runtime, o.fate) for i, _, o in lossy if o)


def test_another_attempt_draws_anew():
    executor = started(Simulated(1, failure_rate=0.5, seed=1))
    fates = set()
    for attempt in range(1, 20):
        bundle = squares(0, [1.0])
        executor.submit(Members(**{**vars(bundle), "attempt": np.array([attempt])}))
        fates.add(executor.wait()[0].result().outcomes[0].fate)
    assert fates == {"ok", "failed"}


def test_shuffled_arrivals_are_out_of_order_yet_complete():
    seen = [i for i, *_ in play(Simulated(8, order="shuffled"), n=100, ahead=16)]
    assert sorted(seen) == list(range(100))
    assert sum(a > b for a, b in itertools.pairwise(seen)) > 20
    plain = [i for i, *_ in play(Simulated(8), n=100, ahead=16)]
    assert plain == list(range(100))


def test_shuffled_arrivals_come_from_those_that_run():
    """Each from a virtual worker that had begun it when the first of those left ended."""
    executor = Simulated(4, runtime=exponential, order="shuffled", seed=7)
    seen = [o for *_, o in play(executor, n=80, ahead=12)]
    for place, outcome in enumerate(seen):
        assert outcome.start <= min(o.start + o.runtime for o in seen[place:]) + 1e-9


def test_injected_failures_and_losses_come_at_their_rates():
    n = 2000
    seen = play(Simulated(8, failure_rate=0.2, loss_rate=0.1, seed=2), n=n)
    lost = sum(o is None for *_, o in seen)
    failed = sum(o is not None and o.cause == "injected failure" for *_, o in seen)
    assert abs(lost - 0.1 * n) < 4 * np.sqrt(0.09 * n)
    assert abs(failed - 0.2 * 0.9 * n) < 4 * np.sqrt(0.18 * 0.82 * n)
    assert all(o.fate == Fate.failed for *_, o in seen if o is not None and o.cause)


def test_a_loss_takes_the_rest_of_the_bundle_and_leaves_the_first_on_disk(tmp_path):
    seen = play(Simulated(2, loss_rate=0.15, seed=4), n=60, size=6, segments=tmp_path)
    lost = {i for i, _, o in seen if o is None}
    frames = [frame for path in tmp_path.glob("*.seg") for frame in scan(path)]
    kept = {frame.header["number"] for frame in frames if "number" in frame.header}
    assert lost
    assert kept & lost
    assert set(range(60)) - lost <= kept
    for first in range(0, 60, 6):
        on_disk = [i in kept for i in range(first, first + 6)]
        assert on_disk == sorted(on_disk, reverse=True)


def test_a_wait_on_paper_takes_no_time_and_minds_no_timeout():
    executor = started(Simulated(1, runtime=1e6))
    assert one(executor).runtime == 1e6
    assert executor.wait(1.0) == []
    executor.submit(squares(1, [1.0]))
    executor.wake()
    assert executor.wait() == []
    assert len(executor.wait()) == 1


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"n_workers": 0}, "n_workers: wanted a whole number >= 1, got 0"),
        ({"order": "random"}, 'order: wanted "finish" or "shuffled", got \'random\''),
        ({"loss_rate": 1.5}, "loss_rate"),
        ({"failure_rate": -0.1}, "failure_rate"),
        ({"runtime": -1.0}, "runtime"),
        ({"runtime": float("inf")}, "runtime"),
    ],
)
def test_bad_arguments_of_simulated(kwargs, words):
    with pytest.raises(ValueError, match=words):
        Simulated(**kwargs)
