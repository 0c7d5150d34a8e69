"""Programs in a place: until when, on which processors; ended by queues, full nodes, and Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from programs import GOOD, Script, noted, noting, single, until

from ensemblerl.records import Place
from ensemblerl.store.index import SegmentIndex
from ensemblerl.store.running import Running
from ensemblerl.supervisor import linger, oom, start, steps
from ensemblerl.supervisor.watch import QUEUES

WAIT = "time.sleep(600)"
TERM = "os.kill(os.getppid(), signal.SIGTERM)\n"
"""The program's parent is its supervisor."""
LATER = f"""
pid = os.getppid()
if os.fork() == 0:
    time.sleep(0.1)
    {TERM.replace("os.getppid()", "pid")}    os._exit(0)
"""


@pytest.fixture(autouse=True)
def _no_queue(monkeypatch):
    for name in (*QUEUES, "SLURM_JOB_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class TestTime:
    def test_a_program_is_cut_off_when_its_job_ends_and_not_to_blame(self, tmp_path):
        starts = tmp_path / "starts"
        place = Place(until=time.monotonic() + 1.5)
        outcome = single(Script(noting(starts, WAIT)), tmp_path / "s", place=place)
        assert (outcome.fate, outcome.blameless) == ("lost", True)
        assert outcome.cause.startswith("cut off after ")
        assert outcome.cause.endswith(" s: its job ended")
        assert 0.0 < outcome.runtime < 600.0
        assert gone(noted(starts)[0][2])
        assert not list((tmp_path / "s" / "work").iterdir())
        assert not (tmp_path / "s" / "kept").exists()

    def test_reading_is_cut_off_too(self, tmp_path):
        class Reading(Script):
            def read(self, directory):
                (tmp_path / "reading").touch()
                time.sleep(600)

        outcome = single(Reading(), tmp_path / "s", place=Place(until=time.monotonic() + 3.0))
        assert (tmp_path / "reading").exists()
        assert (outcome.fate, outcome.blameless) == ("lost", True)
        assert "its job ended" in outcome.cause

    def test_who_ends_in_time_is_what_it_was(self, tmp_path):
        place = Place(until=time.monotonic() + 600.0)
        assert single(Script(), tmp_path / "s", place=place).fate == "ok"
        outcome = single(Script(WAIT, timeout=0.5), tmp_path / "s", attempt=2, place=place)
        assert (outcome.fate, outcome.blameless) == ("timeout", False)


class TestProcessors:
    @pytest.mark.parametrize(
        ("cores", "wanted"),
        [("last", "last"), ("last and none", "last"), ("none", "all"), ("", "all")],
    )
    def test_a_program_keeps_to_its_processors_where_they_are(self, tmp_path, cores, wanted):
        here = os.sched_getaffinity(0)
        given = ((max(here),) if "last" in cores else ()) + ((4000,) if "none" in cores else ())
        note = f"open({str(tmp_path / 'cores')!r}, 'w').write(str(list(os.sched_getaffinity(0))))\n"
        single(Script(note + GOOD), tmp_path / "s", place=Place(cores=given))
        assert set(json.loads((tmp_path / "cores").read_text())) == (
            {max(here)} if wanted == "last" else here
        )

    @pytest.mark.parametrize(
        ("devices", "wanted"), [(None, "7"), (("0", "GPU-2f"), "0,GPU-2f"), ((), "")]
    )
    def test_a_program_sees_its_devices(self, tmp_path, monkeypatch, devices, wanted):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
        shown = "os.environ['CUDA_VISIBLE_DEVICES']"
        note = f"open({str(tmp_path / 'devices')!r}, 'w').write({shown})\n"
        single(Script(note + GOOD), tmp_path / "s", place=Place(devices=devices))
        assert (tmp_path / "devices").read_text() == wanted


class TestQueues:
    def test_sigterm_that_nobody_asked_for_is_the_queues(self, tmp_path):
        outcome = single(Script(TERM + WAIT), tmp_path / "s")
        assert (outcome.fate, outcome.blameless) == ("lost", True)
        assert outcome.cause == "ended by SIGTERM, as queues do"

    def test_sigterm_after_a_request_is_the_request(self, tmp_path):
        asked = f"open({str(tmp_path / 's' / 'running' / '0-1.end')!r}, 'w').close()\n"
        outcome = single(Script(asked + TERM + WAIT), tmp_path / "s")
        assert (outcome.fate, outcome.blameless) == ("stopped", False)

    def test_ctrl_c_of_a_driver_is_no_queue(self, tmp_path, monkeypatch):
        starts = tmp_path / "starts"

        def interrupted(*_):
            until(lambda: noted(starts))
            raise KeyboardInterrupt

        monkeypatch.setattr(start, "_taken", interrupted)
        with pytest.raises(KeyboardInterrupt):
            single(Script(noting(starts, WAIT)), tmp_path / "s")
        ((outcome, _),) = SegmentIndex(tmp_path / "s" / "segments", keep=False).poll()
        assert (outcome.fate, outcome.blameless) == ("stopped", False)
        assert not list((tmp_path / "s" / "running").iterdir())

    @pytest.mark.parametrize("name", QUEUES)
    def test_in_a_job_a_program_that_ends_just_before_our_sigterm_is_not_judged(
        self, tmp_path, monkeypatch, name
    ):
        monkeypatch.setenv(name, "7")
        outcome = single(Script(LATER + "sys.exit(1)"), tmp_path / "s")
        assert (outcome.fate, outcome.blameless) == ("lost", True)

    def test_one_that_dies_of_a_signal_in_a_job_without_ours_has_failed(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        outcome = single(Script("os.kill(os.getpid(), signal.SIGTERM)"), tmp_path / "s")
        assert outcome.fate == "failed"

    def test_outside_of_queues_an_end_is_judged_at_once(self, tmp_path):
        assert single(Script(LATER + "sys.exit(1)"), tmp_path / "s").fate == "failed"

    def test_what_a_program_left_that_ended_well_at_sigterm_is_not_read(self, tmp_path):
        outcome = single(Script(TERM + "time.sleep(0.1)\n" + GOOD), tmp_path / "s")
        assert (outcome.fate, outcome.blameless) == ("lost", True)

    @pytest.mark.parametrize("reading", ["fails", "ends well"])
    def test_sigterm_while_results_are_read(self, tmp_path, monkeypatch, reading):
        monkeypatch.setenv("PBS_JOBID", "7")

        class Reading(Script):
            def read(self, directory):
                if reading == "ends well":
                    os.kill(os.getpid(), signal.SIGTERM)
                    return super().read(directory)
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
                raise ValueError("half a file")

        outcome = single(Reading(), tmp_path / "s")
        wanted = {"fails": ("lost", True), "ends well": ("ok", False)}  # it had come to its end
        assert (outcome.fate, outcome.blameless) == wanted[reading]

    @pytest.mark.parametrize(("name", "blameless"), [("SIGTERM", True), ("SIGKILL", False)])
    def test_a_supervisor_that_a_signal_ended_before_it_began(
        self, tmp_path, monkeypatch, name, blameless
    ):
        monkeypatch.setattr(
            start, "BOOT", f"import os; os.kill(os.getpid(), {getattr(signal, name):d})"
        )
        outcome = single(Script(), tmp_path / "s")
        assert (outcome.fate, outcome.blameless) == ("lost", blameless)
        assert name in outcome.cause


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


class TestMemoryOfTheNode:
    @pytest.mark.parametrize(
        ("text", "count", "fate"),
        [
            (KILL, 4, "lost"),
            ("sys.exit(137)", 4, "lost"),
            (KILL, 3, "failed"),
            ("sys.exit(1)", 4, "failed"),
        ],
    )
    def test_a_program_killed_while_the_kernel_made_room(
        self, tmp_path, monkeypatch, text, count, fate
    ):
        counted = tmp_path / "vmstat"
        counted.write_text("pgfault 9\noom_kill 3\n")
        change = (
            "from pathlib import Path; from ensemblerl.supervisor import oom; "
            f"oom.PROC = Path({str(tmp_path)!r}); supervise()"
        )
        monkeypatch.setattr(start, "BOOT", start.BOOT.replace("supervise()", change))
        text = f"open({str(counted)!r}, 'w').write('oom_kill {count}')\n{text}"
        outcome = single(Script(text), tmp_path / "s")
        assert (outcome.fate, outcome.blameless) == (fate, False)
        assert ("the node ran out of memory" in outcome.cause) == (fate == "lost")
        assert (tmp_path / "s" / "kept" / "0-1" / "stderr").exists()

    @pytest.mark.parametrize(
        ("cgroup", "file", "content"),
        [
            ("0::/job_7/step", "job_7/step/memory.events", "low 0\noom 9\noom_kill 5\n"),
            ("4:memory:/a/b", "memory/a/b/memory.oom_control", "under_oom 0\noom_kill 5"),
            ("4:cpu,memory:/", "memory/memory.oom_control", "oom_kill 5"),
            ("4:cpu:/a\n0::/", "nowhere", ""),
        ],
    )
    def test_kills_are_counted_in_our_group_else_on_the_machine(
        self, tmp_path, monkeypatch, cgroup, file, content
    ):
        proc, groups = tmp_path / "proc", tmp_path / "groups"
        monkeypatch.setattr(oom, "PROC", proc)
        monkeypatch.setattr(oom, "CGROUPS", groups)
        assert oom.kills() == 0
        for path, text in (
            (proc / "self" / "cgroup", cgroup + "\n"),
            (proc / "vmstat", "oom_kill 2\n"),
            (groups / file, content),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert oom.kills() == (5 if content else 2)

    def test_a_real_one(self, tmp_path, monkeypatch):
        group = Path("/sys/fs/cgroup/memory") / f"ensemblerl-{os.getpid()}"
        if not (group.parent / "memory.limit_in_bytes").exists() or os.geteuid():
            pytest.skip("NOT TESTED: a full node (no control group of memory can be made here)")
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(str(150 * 2**20))
            join = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')"
            monkeypatch.setattr(start, "BOOT", f"{join}; {start.BOOT}")
            outcome = single(Script("x = b'1' * 2**28\n" + GOOD), tmp_path / "s")
            until(lambda: not (group / "cgroup.procs").read_text())
        finally:
            group.rmdir()
        assert (outcome.fate, outcome.blameless) == ("lost", False)
        assert "the node ran out of memory" in outcome.cause


SQUEUE = """#!/bin/sh
echo "$@" >> {log}
cat {steps} 2>/dev/null
"""
SCANCEL = """#!/bin/sh
echo scancel "$@" >> {log}
{then}
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A job of two nodes with two steps: what is asked of Slurm is in the file returned."""
    log, listed, shims = tmp_path / "log", tmp_path / "steps", tmp_path / "bin"
    shims.mkdir()
    listed.write_text("7.0\n7.batch\n7.12\n7.extern\n7.interactive\n")
    log.write_text("")
    given = {"log": log, "steps": listed, "then": f"echo 7.batch > {listed}"}
    for name, text in (("squeue", SQUEUE), ("scancel", SCANCEL)):
        (shims / name).write_text(text.format(**given))
        (shims / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(shims), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    return log


CANCELLED = "scancel --signal=KILL 7.0 7.12"


class TestStepsOnOtherNodes:
    def test_those_of_srun_are_killed_and_the_job_script_is_not(self, slurm):
        steps.end_steps()
        asked, cancelled, again = slurm.read_text().splitlines()
        assert "--steps" in asked
        assert "--jobs=7" in asked
        assert (cancelled, again) == (CANCELLED, asked)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("SLURM_JOB_NUM_NODES", "1"), ("SLURM_JOB_NUM_NODES", "x"), ("SLURM_JOB_ID", "")],
    )
    def test_one_node_needs_no_slurm(self, slurm, monkeypatch, name, value):
        monkeypatch.setenv(name, value)
        steps.end_steps()
        assert slurm.read_text() == ""

    @pytest.mark.parametrize("how", ["exit 1", "exec sleep 60", "kill -9 $$"])
    def test_a_slurm_that_does_not_answer_is_left_alone(self, slurm, monkeypatch, how):
        monkeypatch.setattr(steps, "ANSWER", 0.1)
        (slurm.parent / "bin" / "squeue").write_text(f"#!/bin/sh\necho 7.0\n{how}\n")
        steps.end_steps()
        assert slurm.read_text() == ""

    def test_without_slurms_programs_nothing_happens(self, slurm, monkeypatch):
        monkeypatch.setenv("PATH", "/nowhere")
        steps.end_steps()
        assert slurm.read_text() == ""

    def test_steps_that_do_not_end_are_given_up(self, slurm, monkeypatch):
        monkeypatch.setattr(steps, "LAST", 0.3)
        (slurm.parent / "bin" / "scancel").write_text(f'#!/bin/sh\necho scancel "$@" >> {slurm}\n')
        steps.end_steps()
        assert CANCELLED in slurm.read_text()

    @pytest.mark.parametrize(
        ("text", "place"),
        [("sys.exit(1)", Place()), (WAIT, Place(until=0.0)), (KILL, Place())],
    )
    def test_a_member_that_ended_badly_leaves_none(self, tmp_path, slurm, text, place):
        single(Script(text), tmp_path / "s", place=place)
        assert CANCELLED in slurm.read_text()

    def test_a_member_that_ended_well_does_not_bother_slurm(self, tmp_path, slurm):
        assert single(Script(), tmp_path / "s").fate == "ok"
        assert slurm.read_text() == ""

    def test_a_killed_supervisor_leaves_none(self, tmp_path, slurm):
        kill = "os.kill(os.getppid(), signal.SIGKILL)\n"
        assert single(Script(kill + WAIT), tmp_path / "s").fate == "lost"
        assert CANCELLED in slurm.read_text()


def waiting(job, *more, **given):
    command = [sys.executable, "-m", "ensemblerl.supervisor.linger", *more]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), linger.JOB: job}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **given
    )


@pytest.fixture
def sleeper():
    """Starts processes that look like supervisors of a job; ends them."""
    started = []

    def begin(job, text="# ensemblerl.supervisor.main"):
        command = [sys.executable, "-c", f"import time; time.sleep(60) {text}"]
        started.append(subprocess.Popen(command, env={**os.environ, linger.JOB: job}))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


class TestLingering:
    def test_a_real_supervisor_is_found(self, tmp_path, monkeypatch):
        starts = tmp_path / "starts"
        monkeypatch.setenv(linger.JOB, job := f"job-{os.getpid()}")
        simulation = Script(noting(starts, "open('ppid', 'w').write(str(os.getppid()))\n" + WAIT))
        thread = threading.Thread(target=single, args=(simulation, tmp_path / "s"), daemon=True)
        thread.start()
        path = tmp_path / "s" / "work" / "0-1" / "ppid"
        supervisor = int(until(lambda: path.exists() and path.read_text()))
        assert linger.supervisors(job) == [supervisor]
        assert linger.supervisors("another") == []
        process = waiting(job)
        assert process.stdout.readline().startswith(b"ensemblerl: waiting for 1 member that")
        Running(tmp_path / "s").end(0, 1)
        assert process.wait(30) == 0
        assert b"they have ended" in process.stdout.read()
        thread.join(30)

    def test_it_returns_at_once_when_there_is_none(self, sleeper):
        sleeper("another")
        sleeper("job", text="# something else")
        process = waiting("job")
        assert process.wait(30) == 0
        assert process.stdout.read() == b""
        assert waiting("").wait(30) == 0

    def test_it_waits_at_most_as_long_as_it_says(self, sleeper):
        sleeper("job")
        sleeper("job")
        process = waiting("job", "--until", "0.2")
        assert process.wait(30) == 1
        first, second = process.stdout.read().splitlines()
        assert b"waiting for 2 members that" in first
        assert b"2 members still running" in second

    def test_sigterm_ends_it_also_where_the_job_script_ignores_it(self, sleeper):
        sleeper("job")
        ignored = lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)  # noqa: E731
        process = waiting("job", preexec_fn=ignored)
        process.stdout.readline()
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM

    def test_it_loads_little(self):
        code = "import sys, ensemblerl.supervisor.linger; sys.exit('numpy' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)
