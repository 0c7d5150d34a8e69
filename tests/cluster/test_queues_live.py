"""Slurm and PBS (through Slurm's wrappers) as a queue of ours, on a real Slurm."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from slurm import PrivateSlurm, until

from ensemblerl.cluster.queues import commands
from ensemblerl.cluster.queues.base import Queue, Queued, QueueSilent, Refused, queue_of

BOTH = pytest.mark.parametrize("name", ["slurm", "pbs"])
HEADS = {
    "slurm": "#SBATCH -J {}\n#SBATCH -t 10\n{}",
    "pbs": "#PBS -N {}\n#PBS -l walltime=00:10:00\n{}",
}


def script(queue: Queue, name: str, body: str, extra: str = "") -> str:
    return "#!/bin/bash\n" + HEADS[queue.name].format(name, extra) + body


def wait_for(queue: Queue, id: str, wanted: Callable[[Queued], bool], what: str) -> Queued:
    """The job, as soon as it is what is wanted."""
    until(lambda: wanted(queue.jobs([id])[id]), what)
    return queue.jobs([id])[id]


def running(queue: Queue, id: str) -> Queued:
    return wait_for(queue, id, lambda job: job.state == "running", f"job {id} runs")


def ended(queue: Queue, id: str) -> Queued:
    """Over and done with: what is still going away has no end yet."""
    over = lambda job: job.state == "ended" and (job.end != "unknown" or queue.name == "pbs")  # noqa: E731
    return wait_for(queue, id, over, f"job {id} ends")


@BOTH
def test_a_job_is_seen_from_its_start_to_its_cancellation(
    slurm: PrivateSlurm, tmp_path: Path, name: str
) -> None:
    queue = queue_of(name)
    id = queue.submit(script(queue, "one", "sleep 300\n"), tmp_path)
    job = running(queue, id)
    assert (job.id, job.name, job.node, job.restarts) == (id, "one", slurm.job(id)["NodeList"], 0)
    assert job.left is not None
    assert 500 < job.left <= 600
    assert queue.left(id) == pytest.approx(job.left, abs=30)
    queue.cancel([id, "9999"])
    job = ended(queue, id)
    assert (job.end, job.left) == ("cancelled" if name == "slurm" else "unknown", None)
    until(lambda: slurm.job(id)["JobState"] == "CANCELLED", "the job is gone")
    queue.cancel([id])


@BOTH
def test_jobs_end_as_they_end_and_say_so_in_their_log(
    slurm: PrivateSlurm, tmp_path: Path, name: str
) -> None:
    queue = queue_of(name)
    bodies = {"good": "echo $((6 * 7))\n", "bad": "exit 3\n"}
    ids = {key: queue.submit(script(queue, key, body), tmp_path) for key, body in bodies.items()}
    ends = {key: ended(queue, id).end for key, id in ids.items()}
    known = {"good": "completed", "bad": "failed"}
    assert ends == (known if name == "slurm" else dict.fromkeys(known, "unknown"))
    assert (tmp_path / "good.log").read_text() == "42\n"
    assert set(queue.jobs([*ids.values(), "9999"])) == set(ids.values())


def test_a_job_of_pbs_writes_its_log_into_the_directory_that_its_script_names(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    queue, logs = queue_of("pbs"), tmp_path / "logs"
    logs.mkdir()
    where = f"#PBS -e {logs}/\n#PBS -o {logs}/\n"
    ended(queue, queue.submit(script(queue, "both", "echo out\necho err >&2\n", where), tmp_path))
    assert (logs / "both.log").read_text() == "out\nerr\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.sh", "logs"]


@BOTH
def test_a_job_that_waits_is_pending_and_found_by_its_name(
    slurm: PrivateSlurm, tmp_path: Path, name: str
) -> None:
    queue = queue_of(name)
    slurm.scontrol("update", "partitionname=main", "state=down")
    id = queue.submit(script(queue, "waits", "sleep 300\n"), tmp_path)
    job = wait_for(queue, id, lambda j: j.reason == "PartitionDown" or name == "pbs", "a reason")
    assert (job.state, job.left, job.node) == ("pending", None, "")
    assert queue.find(["waits", "nobody"])["waits"].id == id
    assert set(queue.find(["waits", "nobody"])) == {"waits"}
    slurm.scontrol("update", "partitionname=main", "state=up")
    assert running(queue, id).reason == ""


def test_a_job_put_back_is_pending_while_its_last_run_goes(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    """If it were ended for that moment, a job too many would be submitted for it."""
    queue = queue_of("slurm")
    deaf = "trap '' TERM\necho on\nwhile :; do sleep 0.2; done\n"
    id = queue.submit(script(queue, "deaf", deaf), tmp_path)
    running(queue, id)
    until(lambda: (tmp_path / "deaf.log").exists(), "the job has begun")
    slurm.scontrol("requeue", id)
    seen = set()
    while (now := slurm.job(id)["JobState"]) == "COMPLETING" or not seen:
        job = queue.jobs([id])[id]
        seen.add((job.state, job.restarts))
        assert now in {"COMPLETING", "PENDING"}
        time.sleep(0.2)
    assert seen == {("pending", 1)}


@BOTH
def test_a_refused_job_tells_why(slurm: PrivateSlurm, tmp_path: Path, name: str) -> None:
    queue = queue_of(name)
    extra = "#SBATCH -p nowhere\n" if name == "slurm" else "#PBS -q nowhere\n"
    with pytest.raises(Refused, match="nvalid partition"):
        queue.submit(script(queue, "x", "true\n", extra), tmp_path)
    assert queue.find(["x"]) == {}


@BOTH
def test_a_submission_whose_answer_was_lost_is_found(
    slurm: PrivateSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The controller is frozen while it should answer, and takes the job when it goes on."""
    queue = queue_of(name)
    with monkeypatch.context() as hasty:
        hasty.setattr(commands, "PATIENCE", 1.0)
        slurm.pause_controller(60)
        with pytest.raises(QueueSilent):
            queue.submit(script(queue, "lost", "sleep 300\n"), tmp_path)
        with pytest.raises(QueueSilent):
            queue.jobs(["1"])
    slurm.resume_controller()
    until(lambda: "lost" in queue.find(["lost"]), "the job is found")
    assert running(queue, queue.find(["lost"])["lost"].id).name == "lost"


def test_a_queue_without_its_controller_is_silent(slurm: PrivateSlurm, tmp_path: Path) -> None:
    queues = [queue_of("slurm"), queue_of("pbs")]
    slurm.stop_controller()
    with ThreadPoolExecutor() as pool:  # each of these takes seconds to give up
        told = [pool.submit(queue.jobs, ["1"]) for queue in queues]
        told += [pool.submit(q.submit, script(q, "x", "true\n"), tmp_path / q.name) for q in queues]
        told += [pool.submit(queue.cancel, ["1"]) for queue in queues]
        errors = [done.exception(timeout=60) for done in told]
    assert [type(error) for error in errors] == [QueueSilent] * 6
    assert not [error for error in errors if "no answer within" in str(error)]
    slurm.start_controller()
    assert [queue.jobs(["9999"]) for queue in queues] == [{}, {}]
