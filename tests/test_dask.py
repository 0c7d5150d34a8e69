"""Dask execution: laws, dead workers, scripts without a guard, killed drivers, guests' clients."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import psutil
import pytest
from dask_support import (
    collected,
    crash_at_13,
    gone,
    import_torch,
    job,
    members,
    process_id,
    script,
    values,
)
from distributed import Client, LocalCluster

import ensemblerl as erl
from ensemblerl.cluster.dask import DaskExecutor, from_anything
from ensemblerl.cluster.local import LocalDask, local_cluster
from ensemblerl.executors.base import Lost
from ensemblerl.store.index import SegmentIndex
from ensemblerl.testing.executor_laws import check_executor
from ensemblerl.worker import run_bundle

N_WORKERS = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with local_cluster(N_WORKERS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster: Any) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as client:
        yield client


def test_laws_on_a_client(client: Client) -> None:
    check_executor(lambda: from_anything(client))


def test_laws_on_a_cluster_of_its_own() -> None:
    check_executor(lambda: LocalDask(N_WORKERS), n=60)


def test_laws_on_threads() -> None:
    with Client(
        processes=False, n_workers=2, threads_per_worker=2, dashboard_address=None
    ) as threads:
        check_executor(lambda: from_anything(threads), n=60)


def test_a_segmentation_fault_costs_its_own_bundle_only(client: Client, tmp_path: Path) -> None:
    """Answers that were not fetched when their worker died are lost as well: results are not."""
    executor = from_anything(client)
    executor.start(job(crash_at_13, tmp_path))
    killers = {2, 11, 12}
    futures = [executor.submit(members(i, [13.0 if i in killers else 0.5])) for i in range(30)]
    collected(executor, futures)
    lost = {i for i, future in enumerate(futures) if future.exception() is not None}
    on_disk = {outcome.number for outcome, _ in SegmentIndex(tmp_path).poll()}
    assert killers <= lost
    assert lost - killers <= on_disk
    assert not killers & on_disk
    assert all(isinstance(futures[i].exception(), Lost) for i in killers)
    assert "died" in str(futures[2].exception())
    client.wait_for_workers(N_WORKERS, timeout=20)
    more = [executor.submit(members(100 + i, [float(i)])) for i in range(8)]
    collected(executor, more)
    assert values(more) == list(range(8))
    executor.close()


def test_one_bundle_waits_behind_each_that_runs(client: Client, tmp_path: Path) -> None:
    """Two members for two workers, twice: the first of a campaign are placed no worse."""
    for first in (0, 10):
        executor = from_anything(client)
        executor.start(job(process_id, tmp_path))
        futures = [executor.submit(members(first + i, [0.3])) for i in range(3)]
        time.sleep(0.15)
        held = [len(keys) for keys in client.processing().values()]
        assert max(held) == 1, held
        collected(executor, futures)
        executor.close()


def test_older_members_go_first(tmp_path: Path) -> None:
    executor = LocalDask(1)
    executor.start(job(process_id, tmp_path))
    numbers = [6, 3, 4, 0, 5, 9, 1, 7, 8, 2, 10, 11]
    futures = [executor.submit(members(i, [0.01])) for i in numbers]
    collected(executor, futures)
    outcomes = [future.result().outcomes[0] for future in futures]
    began = [o.number for o in sorted(outcomes, key=lambda o: o.start)]
    executor.close()
    assert began == sorted(numbers)


def test_workers_that_join_later_get_the_job(cluster: Any, client: Client, tmp_path: Path) -> None:
    executor = from_anything(client)
    executor.start(job(process_id, tmp_path))
    cluster.scale(3)
    client.wait_for_workers(3, timeout=20)
    futures = [executor.submit(members(i, [0.05])) for i in range(18)]
    collected(executor, futures)
    assert len(set(values(futures))) == 3
    time.sleep(1.1)
    assert executor.n_workers == 3
    executor.close()
    cluster.scale(N_WORKERS)
    until = time.monotonic() + 10
    while len(client.nthreads()) > N_WORKERS and time.monotonic() < until:
        time.sleep(0.02)


def test_what_is_submitted_leaves_without_a_wait(client: Client, tmp_path: Path) -> None:
    executor = from_anything(client)
    executor.start(job(process_id, tmp_path))
    assert len(executor.submit(members(0, [0.0])).result(timeout=10).outcomes) == 1
    executor.close()


def test_a_guests_client_stays_open_and_keeps_nothing(client: Client, tmp_path: Path) -> None:
    before = client.run(lambda dask_worker: sorted(dask_worker.plugins))
    executor = from_anything(client)
    executor.start(job(process_id, tmp_path))
    kept = executor.submit(members(0, [5.0]))
    executor.wait(0.1)
    executor.close()
    executor.close()
    assert isinstance(kept.exception(timeout=0), Lost)
    assert client.status == "running"
    assert client.run(lambda dask_worker: sorted(dask_worker.plugins)) == before
    assert client.submit(pow, 2, 3, pure=False).result(timeout=20) == 8


def test_close_does_not_raise_when_the_cluster_is_gone(tmp_path: Path) -> None:
    own = local_cluster(1)
    executor = from_anything(own)
    executor.start(job(process_id, tmp_path))
    left = executor.submit(members(0, [60.0]))
    executor.wait(0.2)
    own.close()
    executor.close()
    assert isinstance(left.exception(timeout=5), Lost)


def test_a_local_cluster_can_be_started_again(tmp_path: Path) -> None:
    executor = LocalDask(1)
    for first in (0, 10):
        executor.start(job(process_id, tmp_path))
        futures = [executor.submit(members(first + i, [0.01])) for i in range(3)]
        collected(executor, futures)
        left = executor.submit(members(first + 5, [60.0]))
        executor.wait(0.2)
        executor.close()
        assert isinstance(left.exception(timeout=5), Lost)
        assert executor.n_workers == 1
    assert executor.wait(0.0) in ([], [left])


def test_a_guests_client_can_be_used_again(client: Client, tmp_path: Path) -> None:
    """What the first campaign left behind does not come back to the second."""
    executor = from_anything(client)
    for first in (0, 10):
        executor.start(job(process_id, tmp_path))
        futures = [executor.submit(members(first + i, [x])) for i, x in enumerate((0.1, 1.0))]
        back = executor.wait(20.0)
        assert back
        assert set(back) <= set(futures)
        executor.close()


SPACE = erl.Space(x=erl.Real(0, 1))


def nap(x: float) -> float:
    time.sleep(0.02)
    return x


def scheduler_gone(cluster: Any, client: Client) -> None:
    cluster.close()


def client_closed(cluster: Any, client: Client) -> None:
    client.close()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("end", [scheduler_gone, client_closed])
@pytest.mark.parametrize("known", ["cluster", "address"])
def test_a_scheduler_that_ends_ends_the_campaign_and_loses_nothing(
    tmp_path: Path, end: Any, known: str
) -> None:
    theirs = {"n_workers": 2, "threads_per_worker": 1, "processes": False}
    cluster = LocalCluster(dashboard_address=":0", silence_logs=60, **theirs)
    where = cluster if known == "cluster" else cluster.scheduler_address
    client = Client(where, set_as_default=False, timeout=2)
    campaign = erl.launch(
        nap, SPACE, erl.Minimize(), n_members=5000, seed=1, cluster=client, store=tmp_path / "s"
    )
    until = time.monotonic() + 20
    while campaign.campaign.ledger.n_settled < 10 and time.monotonic() < until:
        time.sleep(0.02)
    end(cluster, client)
    with pytest.raises(RuntimeError, match=r"Dask client .* scheduler is gone.*the store keeps"):
        campaign.wait(timeout=30)
    client.close()  # type: ignore[no-untyped-call]
    cluster.close()
    ledger = campaign.campaign.ledger
    assert ledger.n_settled >= 10
    assert set(ledger.fate[ledger.settled]) == {"ok"}
    attempts = [outcome for outcomes in ledger.attempts.values() for outcome in outcomes]
    died = [o.number for o in attempts if o.fate != "stopped"]
    assert all(o.fate == "stopped" or "worker died" in o.cause for o in attempts)
    # a cluster that closes ends its workers first, each with the bundle that it runs
    assert len(died) <= (2 if end is scheduler_gone else 0)


def kill_above_half(x: float) -> float:
    if x > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return x


def test_nobody_is_charged_with_the_end_of_a_worker_behind_another(tmp_path: Path) -> None:
    """On a cluster with Dask's own settings, where members wait at workers."""
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with (
        LocalCluster(silence_logs=60, **options) as cluster,
        Client(cluster, set_as_default=False) as theirs,
    ):
        ds = erl.explore(
            kill_above_half, SPACE, erl.Minimize(), n_members=8, sampler="sobol", seed=3,
            cluster=theirs, store=tmp_path / "s",
        )  # fmt: skip
    innocent = ds.x.values <= 0.5
    assert 0 < innocent.sum() < 8
    assert (ds.fate.values[innocent] == "ok").all()
    assert (ds.attempt.values[innocent] == 1).all()
    assert (ds.fate.values[~innocent] == "failed").all()


@pytest.mark.parametrize("expected", [True, False], ids=["leaves", "dies"])
def test_what_is_done_is_not_done_again_when_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bool
) -> None:
    """The worker has written the record, and goes before its answer does."""
    done, gone, runs = threading.Event(), threading.Event(), tmp_path / "runs"

    def count(x: float) -> float:
        with runs.open("a") as file:
            file.write("run ")
        return x

    def then_waits(*args: Any, **kwargs: Any) -> Any:
        answer = run_bundle(*args, **kwargs)
        done.set()
        assert gone.wait(20)
        return answer

    monkeypatch.setattr("ensemblerl.cluster.plugin.run_bundle", then_waits)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        LocalCluster(processes=False, **options) as cluster,
        Client(cluster, set_as_default=False) as threads,
    ):
        executor = from_anything(threads)
        executor.start(job(count, tmp_path))
        future = executor.submit(members(0, [0.5]))
        assert executor.wait(0.1) == []
        assert done.wait(20)
        busy = next(address for address, keys in threads.processing().items() if keys)
        leave = {"address": busy, "stimulus_id": "test", "expected": expected}
        cluster.sync(cluster.scheduler.remove_worker, **leave)
        gone.set()
        collected(executor, [future])
        executor.close()
    assert runs.read_text() == "run "
    if expected:
        assert [o.value for o in future.result(0).outcomes] == [(0.5,)]
    else:
        assert isinstance(future.exception(0), Lost)
    assert sum(1 for _ in SegmentIndex(tmp_path).poll()) == 1


def test_lambdas_and_closures(client: Client, tmp_path: Path) -> None:
    factor = 3.0
    executor = from_anything(client)
    executor.start(job(lambda x: factor * x, tmp_path))
    future = executor.submit(members(0, [1.0, 2.0]))
    collected(executor, [future])
    assert values([future]) == [3.0, 6.0]
    executor.close()


def test_an_unpicklable_simulation_is_named_before_anything_starts(
    client: Client, tmp_path: Path
) -> None:
    lock = Lock()
    for executor in (from_anything(client), LocalDask(1)):
        with pytest.raises(TypeError, match=r"simulation.*pickle"):
            executor.start(job(lambda x: float(lock.locked()), tmp_path))
        executor.close()


def test_a_module_that_workers_lack_is_named(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def f(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    executor = from_anything(client)
    executor.start(job(only_here.f, tmp_path))
    future = executor.submit(members(0, [1.0]))
    collected(executor, [future])
    with pytest.raises(RuntimeError, match="only_here"):
        future.result()
    assert not isinstance(future.exception(), Lost)
    executor.close()


def test_workers_need_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ImportError('no torch here')\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    executor = LocalDask(1)
    executor.start(job(import_torch, tmp_path))
    future = executor.submit(members(0, [1.0]))
    collected(executor, [future])
    executor.close()
    assert values([future]) == [0.0]


@pytest.mark.parametrize(
    ("wanted", "call"),
    [
        ("client: wanted", lambda: DaskExecutor("tcp://127.0.0.1:1")),
        ("cluster: wanted.*int", lambda: from_anything(3)),
        ("n_workers: wanted", lambda: local_cluster(0)),
        ("n_workers: wanted", lambda: LocalDask(-1)),
    ],
)
def test_bad_arguments_are_named(wanted: str, call: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=wanted):
        call()


NO_GUARD = """
import ensemblerl as erl
from os import getpid

def simulate(x):
    return {"rmse": (x - 0.25) ** 2, "pid": float(getpid())}

space = erl.Space(x=erl.Real(0, 1))
ds = erl.explore(simulate, space, erl.Minimize("rmse"), n_members=12, seed=1, progress=False)
ds2 = erl.explore(lambda x: x, space, erl.Minimize(), n_members=5, seed=1, progress=False)
print("ok", (ds.fate == "ok").all().item(), (ds.pid != getpid()).all().item(), ds2.sizes["member"])
"""


@pytest.mark.parametrize("stdin", [False, True], ids=["file", "stdin"])
def test_scripts_need_no_main_guard(tmp_path: Path, stdin: bool) -> None:
    process = script(NO_GUARD, stdin=stdin, path=None if stdin else tmp_path / "script.py")
    printed, _ = process.communicate(timeout=60)
    assert printed == "ok True True 5\n"


HANG = """
import os, subprocess, sys, tempfile, time
sys.path.insert(0, {here!r})
from dask_support import job, members
from ensemblerl.cluster.local import LocalDask

def hang(x):
    child = subprocess.Popen(["sleep", "600"])
    os.write(1, ("pids %d %d\\n" % (os.getpid(), child.pid)).encode())
    return float(child.wait())

executor = LocalDask(2)
executor.start(job(hang, tempfile.mkdtemp(dir={tmp!r})))
for i in range(2):
    executor.submit(members(i, [1.0]))
executor.wait()
"""


def test_a_killed_driver_leaves_no_process_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    text = HANG.format(here=str(Path(__file__).parent), tmp=str(tmp_path))
    process = script(text, path=tmp_path / "script.py")
    assert process.stdout is not None
    lines = [process.stdout.readline().split() for _ in range(2)]
    pids = [int(pid) for line in lines for pid in line[1:]]
    assert len(pids) == 4
    assert all(map(psutil.pid_exists, pids))
    process.kill()
    process.wait()
    assert gone(pids)
    process.stdout.close()
    assert not list(tmp_path.glob("ensemblerl-*"))


INTERRUPTED = """
import os, signal, sys, tempfile
sys.path.insert(0, {here!r})
from dask_support import collected, job, members, process_id, values
from ensemblerl.cluster.dask import from_anything
from ensemblerl.cluster.local import local_cluster
from distributed import LocalCluster

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: print("heard", flush=True))
    theirs = dict(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with ({cluster}) as cluster:
        executor = from_anything(cluster)
        executor.start(job(process_id, tempfile.mkdtemp(dir={tmp!r})))
        futures = [executor.submit(members(i, [0.6])) for i in range(4)]
        executor.wait(0.2)
        print("ready", flush=True)
        collected(executor, futures)
        print("workers", len(set(values(futures))), flush=True)
        executor.close()
"""


@pytest.mark.parametrize("cluster_text", ["local_cluster(2)", "LocalCluster(**theirs)"])
def test_ctrl_c_is_for_the_driver_alone(tmp_path: Path, cluster_text: str) -> None:
    text = INTERRUPTED.format(
        here=str(Path(__file__).parent), tmp=str(tmp_path), cluster=cluster_text
    )
    process = script(text, path=tmp_path / "script.py")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=30)
    assert printed == "heard\nworkers 2\n"


def test_a_dask_jobqueue_cluster(tmp_path: Path) -> None:
    """Its jobs are real scripts, run here by a shell in place of a queue."""
    from dask_jobqueue.local import LocalCluster

    options = {"scheduler_options": {"dashboard_address": ":0"}, "local_directory": str(tmp_path)}
    with LocalCluster(cores=1, processes=1, memory="1GB", interface="lo", **options) as jobs:
        jobs.scale(2)
        ds = erl.explore(
            lambda x: x, SPACE, erl.Minimize(), n_members=20, n_pending=4, cluster=jobs, seed=1
        )
        assert jobs.status.name == "running"
    assert (ds.fate == "ok").all()


def test_a_finished_campaign_is_opened_again_without_starting_a_cluster(tmp_path: Path) -> None:
    again = LocalDask(2)
    for cluster in ("serial", again, None):
        ds = erl.explore(
            lambda x: x, SPACE, erl.Minimize(), n_members=4, cluster=cluster, store=tmp_path / "s"
        )
        assert (ds.fate == "ok").all()
    assert again._client is None
