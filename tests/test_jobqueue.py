"""The adapter to dask-jobqueue: what it uses from inside is there, and means what it takes it for.

A test that fails here after an update of dask-jobqueue or distributed says what has changed.
"""

from __future__ import annotations

import contextlib
import inspect
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ensemblerl.cluster.jobqueue import JobQueue, cluster_classes, is_job_queue, queue_name

QUEUES = {
    "slurm": ("SLURMCluster", "sbatch", "scancel", "Submitted batch job"),
    "pbs": ("PBSCluster", "qsub", "qdel", ""),
}


@pytest.fixture
def shims(tmp_path, monkeypatch):
    """A PATH on which submissions are counted, and what is ended is written down."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for _, submit, cancel, said in QUEUES.values():
        (directory / submit).write_text(
            f'#!/bin/sh\necho $$ >> "{tmp_path}/submitted"\necho "{said} $$"\n'
        )
        (directory / cancel).write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/ended"\n')
    for path in directory.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return tmp_path


@pytest.fixture(params=QUEUES)
def cluster(request, shims):
    """A cluster with its scheduler in this process, and no job."""
    kind = cluster_classes()[request.param]
    made = kind(
        cores=2,
        memory="1 GB",
        processes=1,
        job_name="camp",
        log_directory=str(shims / "logs"),
        scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    )
    yield made
    with contextlib.suppress(*getattr(made, "expected", ())):
        made.close()


def lines(path):
    return path.read_text().split() if path.exists() else []


def until(holds, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def test_a_cluster_is_known_by_its_queue(cluster):
    name = next(k for k, v in QUEUES.items() if v[0] == type(cluster).__name__)
    assert queue_name(cluster) == name
    assert is_job_queue(cluster)


@pytest.mark.parametrize("other", [object(), None, "slurm"])
def test_anything_else_is_none(other):
    assert queue_name(other) == ""
    assert not is_job_queue(other)


def test_a_queue_that_we_cannot_ask_is_none():
    from dask_jobqueue.sge import SGECluster

    assert queue_name(SGECluster) == ""
    assert queue_name(cluster_classes()["slurm"]) == "slurm"


def test_the_books_of_a_cluster_are_where_we_keep_them(cluster):
    """``worker_spec`` is what is wanted, ``workers`` who is there, ``new_spec`` one job more."""
    assert (cluster.worker_spec, cluster.workers) == ({}, {})
    assert set(cluster.new_spec) >= {"cls", "options"}
    assert cluster.new_spec["cls"] is cluster.job_cls
    assert cluster.new_spec["options"]["job_name"] == "camp"
    assert cluster.scheduler_address == cluster.scheduler.address
    assert dict(cluster.scheduler.workers) == {}


def test_a_script_has_the_names_we_give_it(cluster):
    jobs = JobQueue(cluster)
    text = jobs.script("c-e1", "title-1")
    assert " --name c-e1-r$(date +%s) " in text
    assert cluster.scheduler.address in text
    directive = "#SBATCH -J title-1" if queue_name(cluster) == "slurm" else "#PBS -N title-1"
    assert directive in text.splitlines()
    named = subprocess.run(["sh", "-c", "echo c-e1-r$(date +%s)"], capture_output=True, check=True)
    assert named.stdout.decode().startswith("c-e1-r1")


def test_a_job_has_what_we_ask_of_it(cluster):
    job = JobQueue(cluster).make("c-e1")
    assert job.job_id is None
    assert job.worker_cores == 2
    assert job.worker_processes == 1
    assert job.job_name == "camp"
    assert job.name == "c-e1"


def test_jobs_are_entered_and_dropped_and_nothing_is_submitted_for_it(cluster, shims):
    jobs = JobQueue(cluster)
    one, other = jobs.add(), jobs.add()
    assert one != other
    assert jobs.wanted() == {one: "", other: ""}
    jobs.submitted(one, "17")
    jobs.submitted("nobody", "18")
    assert jobs.wanted() == {one: "17", other: ""}
    assert jobs.title(one) == "camp"
    assert jobs.title("nobody") == ""
    assert cluster.plan == cluster.requested == {one, other}
    jobs.drop(one)
    jobs.drop("nobody")
    assert jobs.wanted() == {other: ""}
    cluster.sync(cluster._correct_state)  # Dask agrees with the books: there is nothing to do
    assert jobs.wanted() == {other: ""}
    assert lines(shims / "submitted") == []
    assert lines(shims / "ended") == []


def test_no_name_is_used_twice_on_a_cluster(cluster):
    first = JobQueue(cluster)
    names = [first.add()]
    first.drop(names[0])  # it may live on
    names += [first.add(), JobQueue(cluster).add()]
    assert len(set(names)) == 3


def test_a_close_ends_the_jobs_in_the_books_by_their_ids(cluster, shims):
    jobs = JobQueue(cluster)
    for number in ("17", "18", "19"):
        jobs.submitted(jobs.add(), number)
    jobs.add()  # never submitted
    jobs.drop(next(iter(jobs.wanted())))
    cluster.close()
    assert sorted(lines(shims / "ended")) == ["18", "19"]
    assert lines(shims / "submitted") == []


def test_its_owner_scales_it_down_over_our_jobs(cluster, shims):
    jobs = JobQueue(cluster)
    for number in ("17", "18", "19"):
        jobs.submitted(jobs.add(), number)
    cluster.scale(jobs=1)
    until(lambda: len(cluster.workers) == 1)
    assert len(lines(shims / "ended")) == 2
    assert len(jobs.wanted()) == 1
    assert lines(shims / "submitted") == []


def test_jobs_that_dask_submits_are_wanted_with_their_ids(cluster, shims):
    jobs = JobQueue(cluster)
    mine = jobs.add()
    cluster.scale(jobs=3)
    until(lambda: len(jobs.wanted()) == 3)
    assert set(jobs.wanted().values()) <= {"", None, *lines(shims / "submitted")}
    until(lambda: len(cluster.workers) == 3)
    one, other = lines(shims / "submitted")
    assert sorted(jobs.wanted().values()) == sorted(["", one, other])
    assert jobs.wanted()[mine] == ""
    theirs = next(name for name, number in jobs.wanted().items() if number == one)
    jobs.drop(theirs)
    jobs.release()
    cluster.close()  # does not mind the one that is missing
    assert lines(shims / "ended") == [other]


def test_a_submission_of_dask_that_fails_leaves_a_job_without_an_id(cluster, shims):
    cluster.expected = (AssertionError, RuntimeError)  # so Dask closes it, without us too
    (shims / "bin" / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (shims / "bin" / "qsub").write_text("#!/bin/sh\nexit 1\n")
    jobs = JobQueue(cluster)
    cluster.scale(jobs=1)
    until(lambda: len(cluster.workers) == 1)
    assert list(jobs.wanted().values()) == [""]


def test_a_lost_worker_costs_no_job_until_the_cluster_is_released(cluster):
    from distributed.deploy.cluster import Cluster
    from distributed.deploy.spec import SpecCluster

    # What dask-jobqueue would do: end the job a while after its worker has gone.
    assert SpecCluster._update_worker_status is not Cluster._update_worker_status
    assert "lost-worker-timeout" in inspect.getsource(SpecCluster._update_worker_status)
    assert "self._update_worker_status(" in inspect.getsource(Cluster._watch_worker_status)
    jobs = JobQueue(cluster)
    name = jobs.add()
    jobs.submitted(name, "17")
    theirs = {"workers": {"tcp://a:1": {"name": name}}}
    cluster.loop.add_callback(cluster._update_worker_status, "add", theirs)
    until(lambda: "tcp://a:1" in cluster.scheduler_info["workers"])
    cluster.loop.add_callback(cluster._update_worker_status, "remove", "tcp://a:1")
    until(lambda: "tcp://a:1" not in cluster.scheduler_info["workers"])
    assert jobs.wanted() == {name: "17"}
    assert cluster._update_worker_status.__func__ is Cluster._update_worker_status
    jobs.release()
    assert cluster._update_worker_status.__func__ is SpecCluster._update_worker_status
    jobs.release()


def test_several_processes_of_a_job_have_its_name_and_a_number(shims):
    kind = cluster_classes()["slurm"]
    made = kind(
        cores=4,
        memory="1 GB",
        processes=4,
        scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    )
    try:
        assert made.new_spec["group"] == ["-0", "-1", "-2", "-3"]
        assert " --nworkers 4 " in JobQueue(made).script("c-e1", "t")
    finally:
        made.close()


def test_what_the_scheduler_tells_of_a_worker_is_there(tmp_path):
    """Names and metrics that the reconciler reads, and how a worker is made to leave."""
    from distributed import KilledWorker, LocalCluster, Status, Worker
    from distributed.scheduler import WorkerState

    from ensemblerl.cluster.seeing import LEAVING

    assert {Status[name].name for name in LEAVING} == set(LEAVING)
    slots = set(WorkerState.__slots__)
    assert slots >= {"name", "metrics", "status", "nthreads", "processing", "address"}
    assert {"restart", "reason"} <= set(inspect.signature(Worker.close_gracefully).parameters)
    assert "last_worker" in inspect.signature(KilledWorker).parameters
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        dashboard_address=None,
        local_directory=str(tmp_path),
    ) as local:
        (worker,) = local.workers.values()
        (known,) = local.scheduler.workers.values()
        worker.metrics["ensemblerl"] = lambda _: {"left": 5.0}
        until(lambda: (known.metrics or {}).get("ensemblerl") == {"left": 5.0})
        assert (known.nthreads, len(known.processing)) == (2, 0)
        assert known.status.name == "running"
        assert known.name == worker.name
        assert (worker.state.nthreads, worker.state.executing_count) == (2, 0)
        assert len(worker.state.long_running) == 0
        assert hasattr(worker.memory_manager, "memory_pause_fraction")
        worker.loop.add_callback(setattr, worker, "status", Status.paused)
        until(lambda: known.status.name == "paused")
        worker.loop.add_callback(setattr, worker, "status", Status.running)
        until(lambda: known.status.name == "running")


INTERRUPT = """
import signal, threading
before = signal.getsignal(signal.SIGINT)
from ensemblerl.cluster.jobqueue import cluster_classes
found = []
thread = threading.Thread(target=lambda: found.append(cluster_classes()))
{how}
assert sorted(found[0]) == ["pbs", "slurm"], found
assert "dask_jobqueue.runner" in __import__("sys").modules
assert signal.getsignal(signal.SIGINT) is before, "taken over"
mine = lambda *_: None
signal.signal(signal.SIGINT, mine)
assert signal.getsignal(signal.SIGINT) is mine, "signal.signal is not what it was"
print("fine")
"""


@pytest.mark.parametrize(
    "how",
    ["found.append(cluster_classes())", "thread.start(); thread.join()"],
    ids=["main", "other"],
)
def test_ctrl_c_stays_with_the_campaign(how):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT.format(how=how)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "fine", done.stderr


def test_dask_jobqueue_would_take_it_over():
    """Why it is kept from that; where it does not any more, so much the better: remove `keep`."""
    import dask_jobqueue

    text = Path(dask_jobqueue.__file__).with_name("runner.py").read_text()
    assert "\nsignal.signal(signal.SIGINT" in text


def test_another_thread_may_set_signals_while_it_is_imported():
    """Only the importing thread is kept from it."""
    code = """
import builtins, signal, sys
from ensemblerl.cluster import jobqueue
done = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "dask_jobqueue" and not done:
            import threading
            real = threading.get_ident
            threading.get_ident = lambda: -1  # as seen from another thread
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            threading.get_ident = real
            done.append(signal.getsignal(signal.SIGUSR1))
sys.meta_path.insert(0, Finder())
jobqueue.cluster_classes()
print(done == [signal.SIG_IGN])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "True", done.stderr
