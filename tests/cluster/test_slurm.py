"""The private Slurm that the other tests of this folder rely on does what a real one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_install
import slurm_processes
from slurm import PrivateSlurm, until

SCRIPT = Path(__file__).with_name("slurm.py")


def running(slurm, job):
    """Wait until the job runs and has started its script; return its node."""
    until(lambda: slurm.job(job)["JobState"] == "RUNNING", f"job {job} runs")
    until(lambda: slurm.job_processes(job), f"job {job} has processes")
    return slurm.job(job)["NodeList"]


def test_srun_runs_on_two_nodes(slurm):
    said = slurm.run("srun", "-N", "2", "sh", "-c", "echo $SLURMD_NODENAME").stdout
    assert len(set(said.split())) == 2


def test_a_batch_job_runs_with_the_commands_of_this_process(slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/sh\necho $SLURM_JOB_ID > {tmp_path}/told\nexit 3\n")
    said = subprocess.run(["sbatch", "--parsable", script], capture_output=True, text=True)
    job = said.stdout.strip()
    until(lambda: slurm.job(job)["JobState"] == "FAILED", "the job ends")
    assert (tmp_path / "told").read_text().split() == [job]
    assert slurm.job(job)["ExitCode"] == "3:0"
    assert [(j.id, j.state) for j in slurm.squeue("all") if j.id == job] == [(job, "FAILED")]


def test_the_pbs_commands_submit_show_and_delete_a_job(slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\n#PBS -N named\n#PBS -l walltime=00:10:00\nsleep 300\n")

    def ask(*command):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    job = ask("qsub", str(script)).strip()
    running(slurm, job)
    assert f"{job} " in ask("qstat")
    assert "job_state = R" in ask("qstat", "-f", job)
    assert slurm.job(job)["JobName"] == "named"
    ask("qdel", job)
    until(lambda: slurm.job(job)["JobState"] == "CANCELLED", "qdel ends the job")


def test_a_killed_node_is_given_up_and_its_job_runs_again_elsewhere(slurm):
    job = slurm.submit("sleep 300")
    node = running(slurm, job)
    slurm.kill_node(node, jobs=True)
    assert not slurm.job_processes(job)
    until(lambda: "DOWN" in slurm.node_state(node), f"{node} is down", 60)
    until(lambda: slurm.job(job)["Restarts"] == "1", "the job is requeued")
    assert running(slurm, job) != node
    slurm.start_node(node)
    assert slurm.node_state(node) == "IDLE"


def test_a_node_without_its_slurmd_keeps_its_jobs_processes(slurm):
    job = slurm.submit("sleep 300")
    node = running(slurm, job)
    before = slurm.job_processes(job)
    slurm.kill_node(node)
    assert slurm.job_processes(job) == before
    slurm.start_node(node)
    slurm.run("scancel", job)
    until(lambda: not slurm.left_behind(), "the returned slurmd ends the job")


def test_a_node_set_down_by_hand_stays_down_until_it_is_resumed(slurm):
    job = slurm.submit("sleep 300")
    node = running(slurm, job)
    slurm.scontrol("update", f"nodename={node}", "state=down", "reason=test")
    until(lambda: slurm.job(job)["Restarts"] == "1", "the job is requeued")
    running(slurm, job)
    assert "DOWN" in slurm.node_state(node)
    slurm.scontrol("update", f"nodename={node}", "state=resume")
    until(lambda: slurm.node_state(node) == "IDLE", f"{node} is back")


def test_the_queue_is_silent_while_the_controller_is_away_and_jobs_go_on(slurm):
    job = slurm.submit("sleep 300")
    running(slurm, job)
    slurm.stop_controller()
    assert slurm.run("scontrol", "ping", check=False).returncode != 0
    assert slurm.job_processes(job)
    slurm.start_controller()
    assert [j.id for j in slurm.squeue()] == [job]
    slurm.pause_controller(600)
    with pytest.raises(subprocess.TimeoutExpired):
        slurm.run("scontrol", "show", "jobs", timeout=1)
    slurm.resume_controller()
    assert [j.id for j in slurm.squeue()] == [job]


def test_what_a_job_leaves_behind_is_found_even_without_its_slurm_variables(slurm):
    hidden = "env -u SLURM_JOB_ID -u SLURM_JOBID -u SLURM_CONF setsid sleep 300 &"
    job = slurm.submit(f"{hidden}\nsleep 0.5")
    until(lambda: not slurm.squeue(), "the job ends")
    left = slurm.left_behind()
    assert not left.jobs
    assert [(p.job, p.command) for p in left.processes] == [(job, "sleep 300")]
    slurm.reset()
    assert not slurm.left_behind()


def test_jobs_get_devices_of_their_own(slurm):
    script = "echo $CUDA_VISIBLE_DEVICES; sleep 1"
    options = ["-w", "n1", "--gres=gpu:1"]
    commands = [["srun", *options, "sh", "-c", script] for _ in range(2)]
    both = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
    assert sorted(job.communicate()[0].strip() for job in both) == ["0", "1"]


def test_the_epilog_kills_what_a_job_leaves_behind_and_nothing_else(slurm_session, tmp_path):
    with PrivateSlurm(epilog=True, settings={"MinJobAge": 600}) as other:
        assert other.scontrol("show", "config").count("MinJobAge               = 600 sec") == 1
        stays = slurm_session.submit("sleep 300")
        running(slurm_session, stays)
        neighbour = other.submit("sleep 300")
        running(other, neighbour)
        job = other.submit(f"setsid sleep 301 & sleep 0.5; touch {tmp_path}/ended")
        until(lambda: not [j for j in other.squeue() if j.id == job], "the job ends")
        assert (tmp_path / "ended").exists()
        assert not other.job_processes(job)
        assert other.job_processes(neighbour)
        assert slurm_session.job_processes(stays)
    assert slurm_session.job_processes(stays)
    slurm_session.reset()


def test_close_takes_down_daemons_jobs_and_the_temporary_directory(slurm):
    with PrivateSlurm() as other:
        job = other.submit("setsid sleep 300 & sleep 300")
        running(other, job)
        waiting = subprocess.Popen(["srun", "-n", "24", "true"], env=other.environment)
        until(lambda: len(other.squeue()) == 2, "a job of all processors waits")
        own = {d.pid for d in slurm_processes.daemons(other.conf)}
        own |= set(other.job_processes(job))
        assert len(own) > 7
    assert waiting.wait(timeout=10) != 0
    assert not any(slurm_processes.environment_of(pid) for pid in own)
    assert not other.directory.exists()
    assert len(slurm.run("sinfo", "-h", "-N", "-p", "main").stdout.splitlines()) == 3


def test_the_command_brings_one_up_and_takes_it_down(slurm, tmp_path):
    command = [sys.executable, str(SCRIPT)]
    said = subprocess.run(
        [*command, "up", tmp_path / "s"], capture_output=True, text=True, check=True
    ).stdout
    assert f"SLURM_CONF={tmp_path / 's' / 'slurm.conf'}" in said
    status = [*command, "status", tmp_path / "s"]
    assert "n[1-3]" in subprocess.run(status, capture_output=True, text=True, check=True).stdout
    again = subprocess.run([*command, "up", tmp_path / "s"], capture_output=True, text=True)
    assert again.returncode != 0
    assert "take it down first" in again.stderr
    subprocess.run([*command, "down", tmp_path / "s"], check=True)
    assert subprocess.run(status, capture_output=True).returncode == 1


def test_a_slurm_that_cannot_start_says_what_its_logs_say(slurm, tmp_path):
    broken = PrivateSlurm(tmp_path / "s", settings={"SelectType": "select/nonsense"})
    with pytest.raises(RuntimeError, match="select/nonsense"):
        broken.start()
    assert not broken.up()


def test_a_directory_whose_sockets_would_be_too_long_is_refused(tmp_path):
    with pytest.raises(ValueError, match="directory must be a path of at most 70"):
        PrivateSlurm(tmp_path / ("x" * 70))


def test_where_slurm_cannot_be_installed_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setattr(slurm_install, "missing", lambda: ["slurmd"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(
        slurm_install.CannotInstall, match=r"not installed here .no slurmd.*install"
    ):
        slurm_install.install()


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_a_run_without_slurm_says_so_and_fails_in_ci(ci, status, tmp_path):
    (tmp_path / "no_slurm.py").write_text(
        "import slurm_install\n"
        "def install():\n"
        "    raise slurm_install.CannotInstall('there is no Slurm for tonight')\n"
        "slurm_install.install = install\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(SCRIPT.parent)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no_slurm", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, __file__, "-k", "srun_runs or sockets"],
        env={**os.environ, "CI": ci, "PYTHONPATH": paths},
        cwd=SCRIPT.parents[2],
        capture_output=True,
        text=True,
    )
    assert "CLUSTER TESTS WERE SKIPPED: there is no Slurm for tonight" in done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert done.returncode == status
