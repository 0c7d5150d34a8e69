"""`Cluster` as somebody uses it, with nothing queued: what it says, writes, keeps and clears up."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from programs import Script
from queue_support import LocalQueue

import ensemblerl as erl
from ensemblerl.cluster import opening, pool
from ensemblerl.cluster.allocation import Allocation
from ensemblerl.cluster.batch import JOBS, Cluster, place
from ensemblerl.cluster.certificates import Certificates
from ensemblerl.cluster.plugin import METRIC, CarryJobInQueue
from ensemblerl.cluster.queued import QueuedExecutor
from ensemblerl.cluster.script import OUTSIDE
from ensemblerl.events import Ended, Held
from ensemblerl.executors.shipping import packed
from ensemblerl.protocols import Job
from ensemblerl.resolve import as_executor
from ensemblerl.simulations.function import Function
from ensemblerl.store.reading import read_events
from ensemblerl.store.running import OWNER
from ensemblerl.testing.toys import Least

GIVEN = {"n_jobs": 3, "cores": 4, "memory": "8 GB", "walltime": "02:00:00"}


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A machine without a queue, and a directory to be in."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shims(nowhere):
    """Commands of a queue that takes no job."""
    for name in ("sbatch", "squeue", "scancel", "qsub", "qstat", "qdel"):
        path = nowhere / "tools" / name
        path.write_text("#!/bin/sh\necho 'error: not today' >&2\nexit 1\n")
        path.chmod(0o755)


def made(scheduler="slurm", **arguments):
    return Cluster(scheduler, **{**GIVEN, **arguments})


def job(simulation, segments=""):
    return Job(simulation, Least(), str(segments), os.getpid())


def add(a):
    return a


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


class TestWords:
    def test_it_shows_what_matters(self):
        assert repr(made()) == "Cluster('slurm', n_jobs=3, cores=4, walltime=02:00:00)"
        assert repr(made("pbs", walltime=None)) == "Cluster('pbs', n_jobs=3, cores=4)"

    def test_it_describes_what_is_asked_for(self):
        text = made(queue="long", account="ab12", gpus=2, members_per_job=2).describe()
        for part in (
            "3 jobs of slurm, queue long, account ab12",
            "4 cores, 8 GB, 2 GPUs, 02:00:00",
            "members side by side: 2",
            "connections: encrypted; no dashboard",
            "nothing is in the queue",
        ):
            assert part in text
        assert "NOT encrypted" in made(encrypted=False).describe()
        assert "over 2 nodes" in made(nodes=2).describe()

    def test_an_error_names_the_argument(self):
        with pytest.raises(ValueError, match=r"scheduler: wanted one of slurm, pbs; got 'lsf'"):
            made("lsf")
        with pytest.raises(TypeError, match="n_job"):
            made(n_job=3)

    def test_nothing_of_this_queues_anything_or_writes_a_file(self, nowhere):
        before = set(nowhere.rglob("*"))
        cluster = made()
        repr(cluster)
        cluster.describe()
        cluster.executor()
        cluster.close()
        assert set(nowhere.rglob("*")) == before


class TestJobScript:
    @pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
    def test_it_is_text_and_nothing_is_left_of_writing_it(self, scheduler, nowhere):
        before = set(nowhere.rglob("*"))
        text = made(scheduler).job_script()
        assert text.startswith("#!")
        assert "distributed.cli.dask_worker tls://" in text
        assert "ENSEMBLERL_WALLTIME=7200" in text
        assert set(nowhere.rglob("*")) == before

    def test_programs_share_a_worker_and_functions_have_one_each(self):
        assert " --nworkers " not in made().job_script()
        assert " --nthreads 4 --memory-limit 0 " in made().job_script()
        assert " --nthreads 2 --memory-limit 0 " in made().job_script(member_cores=2)
        assert " --nworkers 4 " in made().job_script(program=False)
        assert " --nthreads 1 --memory-limit 0 " in made().job_script(program=False)

    def test_no_key_is_in_it(self):
        text = made().job_script()
        assert "BEGIN" not in text
        assert "--tls-key " in text
        assert "tcp://" in made(encrypted=False).job_script()

    def test_python_says_what_is_loaded_for_it(self):
        """No scheduler of Dask, no thread, no process."""
        code = (
            "import ensemblerl as erl, threading, multiprocessing\n"
            "cluster = erl.Cluster('slurm', n_jobs=1, cores=1, memory='1 GB', walltime='1 h')\n"
            "cluster.job_script()\n"
            "print(multiprocessing.active_children(), [t.name for t in threading.enumerate() "
            "if t is not threading.main_thread()])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.stdout.strip(), done.stderr) == ("[] []", "")


class TestSiteFile:
    TEXT = 'scheduler = "pbs"\nn_jobs = 2\ncores = 8\nmemory = "4 GB"\nwalltime = "30 min"\n'

    @pytest.fixture
    def file(self, nowhere):
        path = nowhere / "my-site.toml"
        path.write_text(self.TEXT)
        return path

    def test_a_cluster_comes_from_a_file(self, file):
        cluster = Cluster.from_file(file, n_jobs=5)
        assert repr(cluster) == "Cluster('pbs', n_jobs=5, cores=8, walltime=00:30:00)"
        assert "nothing is in the queue" in cluster.describe()
        cluster.close()

    def test_its_name_is_enough_for_a_campaign(self, file):
        executor = as_executor("my-site.toml")
        assert isinstance(executor, QueuedExecutor)
        assert executor.settings.cores == 8

    def test_a_file_that_is_not_there_is_named(self):
        with pytest.raises(FileNotFoundError, match=r"other\.toml"):
            as_executor("other.toml")


@pytest.mark.usefixtures("shims")
class TestPool:
    """What is open while campaigns run; nothing is submitted before one asks for members."""

    def test_a_campaign_after_another_keeps_its_jobs_inside_with(self):
        function = job(Function(add))
        with made() as cluster:
            pool = cluster._take(function)
            cluster._give(pool)
            assert cluster._take(function) is pool
            assert pool.cluster.status.name == "running"
            assert "3 jobs of slurm" in cluster.describe()
        assert pool.cluster.status.name == "closed"

    def test_outside_it_ends_with_each_campaign(self):
        cluster, function = made(), job(Function(add))
        pool = cluster._take(function)
        cluster._give(pool)
        assert pool.cluster.status.name == "closed"
        assert cluster._take(function) is not pool
        cluster.close()
        cluster.close()

    def test_members_of_another_shape_need_other_jobs(self):
        with made() as cluster:
            pool = cluster._take(job(Function(add)))
            assert pool.reconciler.wish.slots == 4
            assert pool.cluster.new_spec["options"]["processes"] == 4
            wide = cluster._take(job(Function(add, cores=2)))
            assert pool.cluster.status.name == "closed"
            assert wide.reconciler.wish.slots == 2
            program = cluster._take(job(Script()))
            assert wide.cluster.status.name == "closed"
            assert program.reconciler.wish.slots == 4
            assert program.cluster.new_spec["options"]["processes"] == 1

    def test_after_an_error_inside_with_nothing_is_open(self):
        with pytest.raises(KeyError), made() as cluster:  # noqa: PT012
            pool = cluster._take(job(Function(add)))
            raise KeyError("mine")
        assert pool.cluster.status.name == "closed"

    @pytest.mark.parametrize("there", [True, False])
    def test_a_campaign_without_jobs_ends_with_the_word_of_the_queue(self, nowhere, there):
        """A clear error in bounded time, and nothing left behind."""
        wanted = "no job can be had: 1 times in a row.*not today"
        if not there:
            (nowhere / "tools" / "sbatch").unlink()
            wanted = "there is no command sbatch here"
        cluster = made(retry_limit=1, directory=nowhere / "here")
        with pytest.raises(RuntimeError, match=wanted):
            erl.explore(
                add,
                erl.Space(a=erl.Real(0.0, 1.0)),
                erl.Minimize("value"),
                n_members=4,
                sampler="sobol",
                cluster=cluster,
                store=nowhere / "run",
                progress=False,
            )
        assert "nothing is in the queue" in cluster.describe()
        left = [p.name for p in (nowhere / "here").rglob("*") if p.is_file()]
        assert not [name for name in left if name.endswith((".pem", ".json"))]


def nap(a):
    time.sleep(0.3)
    return a


@pytest.mark.timeout(120)
class TestRun:
    """With a queue that runs jobs as processes here: Dask, keys, plugin and reconciler together."""

    @pytest.fixture
    def queue(self, monkeypatch):
        queue = LocalQueue()
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        for module in (pool, opening):
            monkeypatch.setattr(module, "queue_of", lambda name: queue)
        yield queue
        queue.cancel(queue.alive())

    def test_workers_that_cannot_start_end_it_with_words_and_nothing_is_left(self, queue, nowhere):
        """A module is missing on the nodes: Dask is there, and its nannies wait for a minute."""
        cluster = made(
            n_jobs=2, cores=1, memory="1 GB", interface="lo", retry_limit=1, death_timeout=5
        )
        with pytest.raises(RuntimeError, match=r"no job can be had: \d times in a row: .*job 90"):
            erl.explore(
                nap,
                erl.Space(a=erl.Real(0.0, 1.0)),
                erl.Minimize("value"),
                n_members=4,
                sampler="sobol",
                cluster=cluster,
                store=nowhere / "run",
                progress=False,
            )
        assert len(queue.running) <= 4
        assert queue.alive() == []

    def test_a_job_that_is_cancelled_costs_nothing_and_nothing_is_left(
        self, queue, nowhere, monkeypatch
    ):
        # The workers unpickle the queue, to ask it for the end of their job.
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        cluster = made(n_jobs=2, cores=2, memory="1 GB", interface="lo")
        killed = []

        def kill(ledger):
            if ledger.n_settled >= 4 and not killed:
                killed.extend(queue.alive()[:1])
                queue.cancel(killed)
            return False

        ds = erl.explore(
            nap,
            erl.Space(a=erl.Real(0.0, 1.0)),
            erl.Minimize("value"),
            n_members=24,
            sampler="sobol",
            bundle=1,
            n_pending=8,
            cluster=cluster,
            store=nowhere / "run",
            stop=kill,
            progress=False,
        )
        assert (ds.fate == "ok").all()
        np.testing.assert_array_equal(ds.value, ds.a)
        assert len(killed) == 1
        assert 1 < ds.attempt.max() <= 3
        assert queue.alive() == []
        assert queue.most == 2
        held = [e for e in read_events(nowhere / "run") if isinstance(e, Held)]
        assert sorted(h.job for h in held) == sorted(queue.running)
        assert {h.cause for h in held} == {"cancelled", "closed"}
        assert [h.job for h in held if h.cause == "cancelled"] == killed
        lost = [o for e in read_events(nowhere / "run") if isinstance(e, Ended) for o in e.outcomes]
        assert all(o.blameless for o in lost if o.fate == "lost")
        assert any("ended: cancelled" in o.cause for o in lost)
        left = [path.name for path in (nowhere / "run" / JOBS).iterdir()]
        assert not [name for name in left if name.startswith(("keys-", "jobs-"))]


@dataclass
class Where:
    directory: str | None = None


@pytest.mark.usefixtures("shims")
class TestPlace:
    def test_what_the_user_says_counts(self, nowhere):
        segments = nowhere / "run" / "segments"
        assert place(Where(str(nowhere / "here")), str(segments)) == (nowhere / "here", False)

    def test_else_it_is_in_the_store_where_nobody_else_is(self, nowhere):
        segments = nowhere / "run" / "segments"
        segments.mkdir(parents=True)
        assert place(Where(), str(segments)) == (nowhere / "run" / JOBS, True)
        relative = place(Where(), "run/segments")
        assert relative == (nowhere / "run" / JOBS, True)

    def test_a_temporary_store_is_not_seen_by_nodes(self, nowhere):
        segments = nowhere / "temporary" / "store" / "segments"
        segments.mkdir(parents=True)
        (nowhere / "temporary" / OWNER).write_text("{}")
        assert place(Where(), str(segments)) == (nowhere / OUTSIDE, False)

    def test_without_a_store_it_is_where_we_are(self, nowhere):
        assert place(Where(), "") == (nowhere / OUTSIDE, False)

    def test_a_new_directory_is_for_the_user_alone(self, nowhere):
        cluster = made()
        cluster._take(job(Function(add)))
        assert mode(nowhere / OUTSIDE) == 0o700
        (keys,) = (nowhere / OUTSIDE).glob("keys-*")
        assert mode(keys) == 0o700
        files = [path for path in keys.iterdir() if path.suffix == ".pem"]
        assert len(files) == 3
        assert {mode(path) for path in files} == {0o600}
        cluster.close()
        assert not keys.exists()

    def test_a_directory_of_the_user_stays_as_it_is(self, nowhere):
        mine = nowhere / "mine"
        mine.mkdir(mode=0o750)
        cluster = made(directory=mine)
        cluster._take(job(Function(add)))
        assert mode(mine) == 0o750
        cluster.close()

    def test_without_encryption_there_are_no_keys(self, nowhere):
        cluster = made(encrypted=False)
        pool = cluster._take(job(Function(add)))
        assert not list((nowhere / OUTSIDE).glob("keys-*"))
        assert pool.cluster.scheduler_address.startswith("tcp://")
        cluster.close()


class TestKeys:
    def test_they_open_only_what_they_belong_to(self, nowhere):
        one, other = Certificates(nowhere), Certificates(nowhere)
        assert one.security.tls_ca_file != other.security.tls_ca_file
        named = one.worker.get_tls_config_for_role("worker")
        assert Path(named["key"]).read_text() == one.security.tls_worker_key
        assert one.worker.require_encryption
        # scheduler and client have theirs in memory
        scheduler = one.worker.get_tls_config_for_role("scheduler")
        assert "PRIVATE KEY" in scheduler["key"]
        one.remove()
        one.remove()
        assert not Path(named["key"]).exists()
        assert Path(other.worker.get_tls_config_for_role("worker")["key"]).exists()

    def test_they_are_private_whatever_the_umask(self, nowhere):
        before = os.umask(0)
        try:
            Certificates(nowhere)
        finally:
            os.umask(before)
        (keys,) = nowhere.glob("keys-*")
        assert mode(keys) == 0o700
        assert {mode(path) & 0o077 for path in keys.glob("*.pem")} == {0}


class Worker:
    """What of a Dask worker the plugin looks at."""

    def __init__(self, name, address, threads=1):
        self.name, self.address, self.metrics = name, address, {}
        self.state = type("State", (), {"nthreads": threads})()


class TestPlugin:
    def test_a_worker_of_several_in_a_job_keeps_to_its_own_gpu(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        monkeypatch.delenv("PBS_JOBID", raising=False)
        plugin = CarryJobInQueue("key", packed(job(Function(add))), os.getpid(), 1, None)
        worker = Worker("c1-e1-r1700000000-1", "tcp://a:test-1")
        plugin.setup(worker)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
        assert worker.metrics[METRIC](worker) == {"left": None, "draining": False}
        plugin.teardown(worker)

    def test_the_queue_is_asked_where_the_job_does_not_say(self, monkeypatch):
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        monkeypatch.delenv("ENSEMBLERL_WALLTIME", raising=False)
        asked = []
        plugin = CarryJobInQueue(
            "key", packed(job(Function(add))), os.getpid(), 1, lambda i: asked.append(i) or 1000.0
        )
        worker = Worker("c1-0", "tcp://a:test-2")
        plugin.setup(worker)
        assert asked == ["17"]
        left = worker.metrics[METRIC](worker)["left"]
        assert left == pytest.approx(Allocation(1, left=1000.0, environment={}).left, abs=5.0)
        plugin.setup(worker)  # of the next campaign: it is known
        assert asked == ["17"]
        plugin.teardown(worker)
