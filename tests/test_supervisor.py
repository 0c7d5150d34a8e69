"""Members that are programs: supervised to the end, whoever else ends."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from program_driver import SPACE
from programs import GOOD, Script, noted, noting, until

import ensemblerl as erl
from ensemblerl.executors.base import Lost
from ensemblerl.loop.arrivals import Arrivals
from ensemblerl.records import Answer, Outcome
from ensemblerl.store.running import BIRTH, SILENT, Running, born, orphaned, own
from ensemblerl.supervisor.tree import GRACE
from ensemblerl.supervisor.watch import LOOK
from ensemblerl.worker import run_bundle

DRIVER = Path(__file__).parent / "program_driver.py"


def campaign(simulation, store, n=1, **given):
    given = {"cluster": erl.Serial(), "seed": 3, "sampler": "sobol", **given}
    goal = erl.Minimize("y")
    return erl.explore(simulation, SPACE, goal, n_members=n, store=store, progress=False, **given)


def launched(simulation, store, n=1, **given):
    given = {"cluster": erl.Serial(), "sampler": "sobol", **given}
    goal = erl.Minimize("y")
    return erl.launch(simulation, SPACE, goal, n_members=n, store=store, progress=False, **given)


def one(text, store, **arguments):
    """(fate, cause) of a single member."""
    with pytest.warns(UserWarning, match="none of 1 members is ok"):
        ds = campaign(Script(text, **arguments), store)
    return str(ds.fate.values[0]), str(ds.cause.values[0])


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TestOneMember:
    def test_results_are_those_of_the_program_and_nothing_else_is_left(self, tmp_path):
        ds = campaign(Script(), tmp_path / "s", n=3).load()
        assert (ds.fate == "ok").all()
        np.testing.assert_array_equal(ds.y, 2 * ds.x)
        np.testing.assert_array_equal(ds.field, np.repeat(ds.x.values[:, None], 3, axis=1))
        assert (ds.attempt == 1).all()
        assert (ds.runtime > 0).all()
        left = {p.name for p in (tmp_path / "s").rglob("*") if p.parent.name in ("work", "running")}
        assert left == set()
        assert not (tmp_path / "s" / "kept").exists()

    def test_threads_and_dask_processes_give_the_same(self, tmp_path):
        here = campaign(Script(), tmp_path / "a", n=4).load()
        with ThreadPoolExecutor(2) as pool:
            threads = campaign(Script(), tmp_path / "b", n=4, cluster=pool).load()
        dask = campaign(Script(), tmp_path / "c", n=4, cluster=None).load()
        for other in (threads, dask):
            np.testing.assert_array_equal(here.y, other.y)
            np.testing.assert_array_equal(here.field, other.field)

    def test_without_a_store(self):
        ds = campaign(Script(), None, n=2)
        assert (ds.fate == "ok").all()

    def test_an_exit_code_is_a_failure_with_the_last_words(self, tmp_path):
        text = "print('on standard output')\nprint('no such atom', file=sys.stderr)\nsys.exit(3)"
        fate, cause = one(text, tmp_path / "s")
        assert fate == "failed"
        assert "exit code 3" in cause
        assert "no such atom" in cause
        kept = tmp_path / "s" / "kept" / "0-1"
        assert str(kept) in cause
        assert (kept / "stderr").read_text() == "no such atom\n"
        assert (kept / "stdout").read_text() == "on standard output\n"
        assert (kept / "program.py").exists()

    def test_of_a_failure_inputs_and_logs_are_kept_not_the_rest(self, tmp_path):
        text = (
            "os.mkdir('d'); open('d/large', 'w').close(); open('large', 'w').close(); sys.exit(1)"
        )
        one(text, tmp_path / "s")
        kept = {p.name for p in (tmp_path / "s" / "kept" / "0-1").rglob("*")}
        assert kept == {"program.py", "stdout", "stderr"}

    @pytest.mark.parametrize(("keep", "there"), [("nothing", set()), ("all", {"0-1", "1-1"})])
    def test_what_is_kept_can_be_said(self, tmp_path, keep, there):
        text = GOOD + "\nsys.exit(number)"
        ds = campaign(Script(text, keep=keep), tmp_path / "s", n=2)
        assert ds.fate.values.tolist() == ["ok", "failed"]
        kept = tmp_path / "s" / "kept"
        assert {p.name for p in kept.glob("*")} == there
        assert not there or (kept / "0-1" / "out.json").exists()

    def test_a_segmentation_fault(self, tmp_path):
        fate, cause = one("os.kill(os.getpid(), signal.SIGSEGV)", tmp_path / "s")
        assert fate == "failed"
        assert "segmentation fault" in cause

    def test_a_result_that_is_not_there(self, tmp_path):
        fate, cause = one("pass", tmp_path / "s")
        assert fate == "failed"
        assert "out.json" in cause

    def test_a_program_that_cannot_be_started(self, tmp_path):
        class Missing(Script):
            def prepare(self, point, **given):
                return super().prepare(point, **given)._replace(arguments=("/nowhere/lmp",))

        with pytest.warns(UserWarning, match="none of 1"):
            ds = campaign(Missing(), tmp_path / "s")
        assert "/nowhere/lmp" in str(ds.cause.values[0])

    def test_inputs_that_cannot_be_made(self, tmp_path):
        class Broken(Script):
            def prepare(self, point, **given):
                raise ValueError("template: no such name")

        with pytest.warns(UserWarning, match="none of 1"):
            ds = campaign(Broken(), tmp_path / "s")
        assert str(ds.cause.values[0]).startswith("ValueError: template: no such name")
        assert not list((tmp_path / "s" / "work").iterdir())

    def test_a_failure_is_run_again_as_often_as_it_says(self, tmp_path):
        text = GOOD + "\nsys.exit(attempt < 3)"
        ds = campaign(Script(text, retries=2), tmp_path / "s")
        assert ds.fate.values.tolist() == ["ok"]
        assert ds.attempt.values.tolist() == [3]

    def test_scratch_is_where_it_says(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FAST", str(tmp_path))
        text = (
            "json.dump({'y': float(os.getcwd().startswith(sys.argv[0][:0] + %r))}, open(%r, 'w'))"
        )
        simulation = Script(text % (str(tmp_path / "disk"), "out.json"), scratch="$FAST/disk")
        ds = campaign(simulation, tmp_path / "s")
        assert ds.y.values.tolist() == [1.0]
        assert not list((tmp_path / "disk").iterdir())

    def test_scratch_that_no_worker_knows(self, tmp_path):
        fate, cause = one(GOOD, tmp_path / "s", scratch="$NO_SUCH_THING/x")
        assert fate == "failed"
        assert "scratch: wanted variables that are set on host" in cause


STUBBORN = """
child = '''
import os, signal, sys, time
os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\\\n")
time.sleep(600)
'''
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", child, NOTES])
while not os.path.exists(NOTES) or open(NOTES).read().count(chr(10)) < 2:
    time.sleep(0.01)
"""
"""Forks children that leave the session and ignore SIGTERM; goes on when both are there."""


def stubborn(notes: Path, then: str) -> str:
    return f"NOTES = {str(notes)!r}\n{STUBBORN}\n{then}"


def pids(notes: Path) -> list[int]:
    return [int(line) for line in notes.read_text().split()]


class TestEnding:
    def test_a_time_out_leaves_nothing_of_the_tree(self, tmp_path):
        notes = tmp_path / "pids"
        fate, cause = one(stubborn(notes, "time.sleep(600)"), tmp_path / "s", timeout=4.0)
        assert (fate, "took longer than 4 s" in cause) == ("timeout", True)
        assert len(pids(notes)) == 2
        assert not any(alive(pid) for pid in pids(notes))

    def test_memory_over_its_share(self, tmp_path):
        # the child holds it, not the program itself
        text = "subprocess.run([sys.executable, '-c', 'x = bytearray(2**28); input()'], stdin=%s)"
        hold = "r, w = os.pipe()\n" + text % "r"
        fate, cause = one(hold, tmp_path / "s", memory=2**27, timeout=60.0)
        assert fate == "out_of_memory"
        assert "more than its memory of 134 MB" in cause

    def test_what_the_program_leaves_behind_is_ended_when_it_is_done(self, tmp_path):
        notes = tmp_path / "pids"
        ds = campaign(Script(stubborn(notes, GOOD)), tmp_path / "s")
        assert ds.fate.values.tolist() == ["ok"]
        assert len(pids(notes)) == 2
        assert not any(alive(pid) for pid in pids(notes))

    def test_it_takes_less_than_two_seconds_by_its_own_clocks(self):
        assert LOOK + GRACE < 2.0

    def test_asked_to_end_it_ends_with_its_whole_tree_and_runs_again(self, tmp_path):
        notes, starts = tmp_path / "pids", tmp_path / "starts"
        text = f"if attempt == 2:\n    {GOOD}\n    sys.exit()\n"
        text = noting(starts, text + stubborn(notes, "time.sleep(600)"))
        handle = launched(Script(text), tmp_path / "s")
        until(lambda: notes.exists() and len(pids(notes)) == 2)
        Running(tmp_path / "s").end(0, 1)
        until(lambda: not any(alive(pid) for pid in pids(notes)))
        ds = handle.wait(60)
        assert ds.attempt.values.tolist() == [2]

    def test_closing_a_campaign_ends_its_programs(self, tmp_path):
        starts = tmp_path / "starts"
        text = noting(starts, "time.sleep(600)")
        driven = erl.prepare(
            Script(text),
            SPACE,
            erl.Minimize("y"),
            n_members=2,
            store=tmp_path / "s",
            sampler="sobol",
        )
        with driven:
            turns = driven.turns()
            thread = threading.Thread(target=next, args=(turns,), daemon=True)
            thread.start()
            until(lambda: len(noted(starts)) == 2)
            driven.stop()
            thread.join(30)
        until(lambda: not any(alive(pid) for _, _, pid in noted(starts)))

    def test_a_program_does_not_outlive_a_killed_supervisor(self, tmp_path):
        notes, starts = tmp_path / "pids", tmp_path / "starts"
        text = f"if attempt == 2:\n    {GOOD}\n    sys.exit()\n"
        text = noting(starts, text + stubborn(notes, "time.sleep(600)"))
        handle = launched(Script(text), tmp_path / "s")
        until(lambda: notes.exists() and len(pids(notes)) == 2)
        (_, _, pid) = noted(starts)[0]
        psutil.Process(pid).parent().kill()
        until(lambda: not any(alive(p) for p in (pid, *pids(notes))))
        ds = handle.wait(60)
        assert (ds.fate.values[0], ds.attempt.values[0]) == ("ok", 2)
        assert not list((tmp_path / "s" / "work").iterdir())
        assert "ended without a word" in handle.why(0)["earlier"][0]["cause"]


class TestReading:
    @pytest.mark.parametrize(
        ("reading", "arguments", "fate", "cause"),
        [
            (
                "time.sleep(600)",
                {"timeout": 3.0},
                "timeout",
                "of which its results were being read",
            ),
            ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(600)", {}, "ok", ""),
        ],
    )
    def test_reading_that_hangs_is_ended(self, tmp_path, reading, arguments, fate, cause):
        names = {"time": time, "os": os, "signal": signal, "flag": tmp_path / "flag"}

        class Reading(Script):
            def read(self, directory):
                if fate == "timeout" or not (tmp_path / "flag").exists():
                    (tmp_path / "flag").touch()
                    exec(reading, names)
                return super().read(directory)

        if fate == "ok":
            ds = campaign(Reading(**arguments), tmp_path / "s")
            assert (ds.fate.values[0], ds.attempt.values[0]) == ("ok", 2)
            return
        with pytest.warns(UserWarning, match="none of 1"):
            ds = campaign(Reading(**arguments), tmp_path / "s")
        assert str(ds.fate.values[0]) == fate
        assert cause in str(ds.cause.values[0])

    def test_what_reading_starts_is_ended_too(self, tmp_path):
        notes = tmp_path / "pids"

        class Reading(Script):
            def read(self, directory):
                process = subprocess.Popen(["sleep", "600"], start_new_session=True)
                notes.write_text(f"{process.pid}\n")
                return super().read(directory)

        campaign(Reading(), tmp_path / "s")
        assert not any(alive(pid) for pid in pids(notes))


class TestPrograms:
    def test_signals_are_as_from_a_shell(self, tmp_path):
        text = "y = float(signal.getsignal(signal.SIGHUP) == signal.SIG_DFL)"
        text += " + 2 * float(signal.getsignal(signal.SIGINT) == signal.default_int_handler)\n"
        ds = campaign(Script(text + GOOD.replace("2 * x", "y")), tmp_path / "s")
        assert ds.y.values.tolist() == [3.0]

    def test_run_time_is_the_programs_own(self, tmp_path):
        ds = campaign(Script("time.sleep(0.5)\n" + GOOD), tmp_path / "s")
        assert ds.runtime.values[0] >= 0.5

    def test_long_logs_are_cut_in_the_middle(self, tmp_path):
        text = "print('begin'); print('x' * 5 * 10**6); print('end'); sys.exit(1)"
        one(text, tmp_path / "s")
        log = (tmp_path / "s" / "kept" / "0-1" / "stdout").read_text()
        assert len(log) < 3 * 10**6
        assert log.startswith("begin")
        assert "bytes are left out here" in log
        assert log.endswith("end\n")

    def test_a_chain_of_processes_that_fork_and_leave_is_ended(self, tmp_path):
        notes = tmp_path / "pids"
        text = (
            f"notes = {str(notes)!r}\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    while True:\n"
            "        if os.fork(): os._exit(0)\n"
            "        open(notes, 'w').write(str(os.getpid()))\n"
            "time.sleep(600)"
        )
        fate, _ = one(text, tmp_path / "s", timeout=2.0)
        assert fate == "timeout"
        last = notes.read_text()
        time.sleep(0.3)
        assert notes.read_text() == last

    def test_kernels_that_cannot_tell_of_an_end_are_asked(self, tmp_path):
        code = (
            "import os, sys; from pathlib import Path\n"
            "def no(pid, flags=0): raise OSError(38, 'no')\n"
            "os.pidfd_open = no\n"
            "from ensemblerl.records import Program; from ensemblerl.supervisor.tree import Tree\n"
            "program = Program(('/bin/sh', '-c', 'sleep 0.2; exit 3'), {})\n"
            f"tree = Tree(program, Path({str(tmp_path)!r}), 'mark')\n"
            "first = tree.wait(0.01)\n"
            "print(first, tree.wait(20))"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["None", "3"]


class TestLives:
    @pytest.mark.parametrize("good", [True, False], ids=["leaves", "dies"])
    def test_it_runs_once_when_its_worker(self, tmp_path, good):
        from distributed import Client, LocalCluster

        starts = tmp_path / "starts"
        options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(processes=True, **options) as cluster, Client(cluster) as client:
            simulation = Script(noting(starts, "time.sleep(4)\n" + GOOD))
            handle = launched(simulation, tmp_path / "s", cluster=client)
            (_, _, pid) = until(lambda: noted(starts))[0]
            worker = psutil.Process(pid).parent().parent().pid
            if good:  # then Dask sends its bundle to the other worker
                pids = client.run(os.getpid)
                leaves = next(address for address, number in pids.items() if number == worker)
                leave = {"address": leaves, "stimulus_id": "test", "expected": True}
                cluster.sync(cluster.scheduler.remove_worker, **leave)
            else:
                psutil.Process(worker).kill()
            ds = handle.wait(60)
        assert (ds.fate.values[0], ds.attempt.values[0]) == ("ok", 1)
        assert len(noted(starts)) == 1

    def test_without_a_store_programs_end_with_their_driver(self, tmp_path):
        starts = tmp_path / "starts"
        script = tmp_path / "driver.py"
        script.write_text(
            f"import sys; sys.path.insert(0, {str(DRIVER.parent)!r})\n"
            "import ensemblerl as erl\n"
            "from programs import Script, noting\n"
            "from pathlib import Path\n"
            "from program_driver import SPACE\n"
            f"simulation = Script(noting(Path({str(starts)!r}), 'time.sleep(600)'))\n"
            "erl.explore(simulation, SPACE, erl.Minimize('y'), n_members=1, cluster='serial')\n"
        )
        driver = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
        (_, _, pid) = until(lambda: noted(starts))[0]
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        until(lambda: not alive(pid))

    def test_a_record_written_before_its_supervisor_was_killed_counts(self, tmp_path):
        driven = erl.prepare(
            Script(),
            SPACE,
            erl.Minimize("y"),
            n_members=1,
            store=tmp_path / "s",
            cluster="serial",
            sampler="sobol",
        )
        with driven:
            members = driven.ask(1)
            (ok,) = run_bundle(driven.job, members).outcomes
            future = Future()
            future.set_result(Answer([Outcome(0, 1, "lost", "its supervisor was killed")], {}))
            (outcome,) = Arrivals(driven.journal, driven.goal, 0).outcomes(future, members)
            assert (outcome.fate, outcome.value) == ("ok", ok.value)

    def test_a_member_outlives_its_worker(self, tmp_path):
        starts = tmp_path / "starts"
        simulation = Script(noting(starts, "time.sleep(3)\n" + GOOD))
        handle = launched(simulation, tmp_path / "s", n=2, cluster=None)
        until(lambda: len(noted(starts)) == 2)
        for _, _, pid in noted(starts):
            worker = psutil.Process(pid).parent().parent()
            assert worker.pid != os.getpid()
            worker.kill()
        ds = handle.wait(60)
        assert (ds.fate == "ok").all()
        assert (ds.attempt == 1).all()
        assert len(noted(starts)) == 2

    @pytest.mark.parametrize("how", ["serial", "dask"])
    def test_a_resumed_campaign_adopts_what_runs_and_what_has_finished(self, tmp_path, how):
        starts, store = tmp_path / "starts", tmp_path / "s"
        n = 6
        command = [sys.executable, str(DRIVER), str(store), how, str(starts), str(n)]
        for kill_at in (2, 4):
            driver = subprocess.Popen(command, start_new_session=True)
            until(lambda: len(noted(starts)) >= kill_at)  # noqa: B023
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        subprocess.run(command, check=True, timeout=60)
        times = Counter(number for number, _, _ in noted(starts))
        assert times == dict.fromkeys(range(n), 1)
        ds = erl.open(store).load()
        assert (ds.fate == "ok").all()
        assert how == "dask" or (ds.attempt == 1).all()  # it queues one more than it runs
        np.testing.assert_array_equal(ds.y, 2 * ds.x)

    def test_finished_while_nobody_was_there(self, tmp_path):
        starts, store = tmp_path / "starts", tmp_path / "s"
        command = [sys.executable, str(DRIVER), str(store), "serial", str(starts), "2"]
        driver = subprocess.Popen(command, start_new_session=True)
        until(lambda: noted(starts))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        until(lambda: not Running(store).all())
        assert not alive(noted(starts)[0][2])
        subprocess.run(command, check=True, timeout=60)
        assert sorted(number for number, _, _ in noted(starts)) == [0, 1]


class TestBundles:
    def test_of_a_lost_bundle_who_runs_on_is_waited_for_and_who_came_after_is_not_charged(
        self, tmp_path
    ):
        driven = erl.prepare(
            None, SPACE, erl.Minimize("y"), n_members=4, store=tmp_path / "s", sampler="sobol"
        )
        with driven:
            members = driven.ask(4)
            for running, wanted in (
                ({(1, 1)}, {0: "lost", 2: "stopped", 3: "stopped"}),
                ({(0, 1)}, {1: "stopped", 2: "stopped", 3: "stopped"}),
                ({(0, 7)}, {0: "lost", 1: "stopped", 2: "stopped", 3: "stopped"}),
            ):
                driven.store.running = lambda: running  # noqa: B023
                arrivals = Arrivals(driven.journal, driven.goal, 0)
                future = Future()
                future.set_exception(Lost("its worker died"))
                outcomes = arrivals.outcomes(future, members)
                assert {o.number: o.fate for o in outcomes} == wanted
                assert len(arrivals.apart) == 4 - len(wanted)


class TestFullDisks:
    @pytest.fixture
    def small(self, tmp_path):
        """A file system of 64 kB."""
        disk = tmp_path / "disk"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("NOT TESTED: a full disk (a small file system cannot be mounted here)")
        yield disk
        subprocess.run(["umount", str(disk)], check=True)

    def test_a_full_scratch_is_a_failure_of_the_member(self, tmp_path, small):
        text = "open('large', 'w').write('x' * 10**6)"
        fate, cause = one(text, tmp_path / "s", scratch=str(small))
        assert fate == "failed"
        assert "no space left on the disk of the working directory" in cause
        assert not list(small.iterdir())

    def test_a_full_store_loses_nothing_that_was_acknowledged(self, tmp_path, small):
        good = "json.dump({'y': x, 'field': [x] * 300}, open('out.json', 'w'))"
        simulation = Script(good, scratch=str(tmp_path), keep="nothing")
        with pytest.raises(OSError, match="disk is full: free some space and run again"):
            campaign(simulation, small / "s", n=100)
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        ds = campaign(simulation, small / "s", n=20).load()
        assert (ds.fate == "ok").all()
        np.testing.assert_array_equal(ds.field[:, 0], ds.x)


class TestSignsOfLife:
    @pytest.fixture
    def running(self, tmp_path):
        return Running(tmp_path)

    @pytest.fixture
    def clock(self, monkeypatch):
        """Seconds that pass for this process, at will."""
        passed = [1000.0]
        clock = SimpleNamespace(monotonic=lambda: passed[0])
        monkeypatch.setattr("ensemblerl.store.running.time", clock)
        return passed

    def elsewhere(self, running, name):
        path = running.directory / name
        path.write_text('{"host": "elsewhere", "pid": 1, "born": "1"}')
        return path

    def test_who_is_expected_counts_as_running_while_its_worker_lives(self, running, clock):
        assert running.expect(3, 1)
        assert running.all() == {(3, 1)}
        clock[0] += 3600.0
        assert running.all() == {(3, 1)}
        assert not running.expect(3, 1)

    def test_who_is_expected_by_a_dead_worker_has_a_moment_to_appear(self, running, clock):
        running.expect(3, 1)
        path = running.directory / "3-1"
        path.write_text(path.read_text().replace('"born": "', '"born": "other'))
        assert running.all() == {(3, 1)}
        (running.store / "work" / "3-1").mkdir(parents=True)
        clock[0] += BIRTH - 1.0
        assert running.all() == {(3, 1)}
        clock[0] += 2.0
        assert running.all() == set()
        assert not list(running.directory.iterdir())
        assert not list((running.store / "work").iterdir())
        assert running.expect(3, 1)

    def test_a_trace_cut_short_counts_for_a_moment(self, running, clock):
        running.expect(3, 1)
        (running.directory / "3-1").write_text('{"host"')
        assert running.all() == {(3, 1)}
        clock[0] += BIRTH + 1.0
        assert running.all() == set()

    def test_a_process_of_this_machine_is_known_by_its_number_and_birth(self, running, clock):
        running.expect(1, 2)
        running.begin(1, 2)
        assert running.all() == {(1, 2)}
        clock[0] += 3600.0
        assert running.all() == {(1, 2)}
        path = running.directory / "1-2"
        path.write_text(path.read_text().replace('"born": "', '"born": "other'))
        assert running.all() == set()

    def test_births_do_not_move_with_the_clock(self, monkeypatch):
        before, by_the_clock = born(os.getpid()), psutil.Process().create_time()
        step = psutil._pslinux.boot_time() + 1.0
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: step)
        assert psutil.Process().create_time() == pytest.approx(by_the_clock + 1.0)
        assert before is not None
        assert born(os.getpid()) == before
        assert born(2**22 + 1) is None

    @pytest.mark.parametrize("off", [-3600.0, 0.0, 3600.0])
    def test_processes_of_other_hosts_are_known_by_their_beat_whatever_their_clock(
        self, running, clock, off
    ):
        running.expect(1, 1)
        path = self.elsewhere(running, "1-1")
        beat = time.time() + off
        for _ in range(5):
            os.utime(path, (beat, beat))
            assert running.all() == {(1, 1)}
            clock[0] += SILENT - 1.0
            assert running.all() == {(1, 1)}
            beat += SILENT - 1.0
        clock[0] += 2.0
        assert running.all() == set()
        assert not list(running.directory.iterdir())

    def test_who_comes_anew_watches_before_it_holds_anybody_for_dead(self, running, clock):
        running.expect(1, 1)
        path = self.elsewhere(running, "1-1")
        os.utime(path, (1.0, 1.0))
        assert running.all() == {(1, 1)}
        clock[0] += SILENT + 1.0
        resumed = Running(running.store)
        assert resumed.all() == {(1, 1)}
        running.beat(1, 1)
        assert running.all() == {(1, 1)}
        clock[0] += SILENT + 1.0
        assert resumed.all() == {(1, 1)}  # it had not looked since: the beat is new to it
        clock[0] += SILENT + 1.0
        assert resumed.all() == set()

    def test_a_number_used_again_is_watched_anew(self, running, clock):
        running.expect(1, 1)
        os.utime(self.elsewhere(running, "1-1"), (1.0, 1.0))
        running.all()
        running.over(1, 1)
        running.all()
        clock[0] += SILENT + 1.0
        os.utime(self.elsewhere(running, "1-1"), (1.0, 1.0))
        assert running.all() == {(1, 1)}

    def test_a_file_server_that_does_not_answer_ends_nobody(self, running, clock, monkeypatch):
        running.expect(1, 1)
        self.elsewhere(running, "1-1")

        def stale(path, *_):
            raise OSError(errno.ESTALE, "Stale file handle")

        with monkeypatch.context() as patched:
            patched.setattr(Path, "open", stale)
            for _ in range(2):
                assert running.all() == {(1, 1)}
                clock[0] += 3600.0
        assert running.all() == {(1, 1)}

    def test_who_was_asked_to_end_before_it_began_does_not_begin(self, tmp_path):
        starts = tmp_path / "starts"
        driven = erl.prepare(
            Script(noting(starts)),
            SPACE,
            erl.Minimize("y"),
            n_members=2,
            store=tmp_path / "s",
            cluster="serial",
            sampler="sobol",
        )
        with driven:
            members = driven.ask(2)
            driven.store.end(1, 1)
            answer = run_bundle(driven.job, members)
            assert [o.fate for o in answer.outcomes] == ["ok", "stopped"]
            assert [number for number, _, _ in noted(starts)] == [0]

    def test_requests_are_forgotten_when_all_is_settled(self, tmp_path):
        campaign(Script(), tmp_path / "s")
        Running(tmp_path / "s").end(0, 7)
        campaign(Script(), tmp_path / "s", n=2)
        assert not list((tmp_path / "s" / "running").iterdir())

    def test_a_program_ends_when_its_store_is_removed(self, tmp_path):
        starts, store = tmp_path / "starts", tmp_path / "s"
        command = [sys.executable, str(DRIVER), str(store), "serial", str(starts), "1", "600"]
        driver = subprocess.Popen(command, start_new_session=True)
        (_, _, pid) = until(lambda: noted(starts))[0]
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert alive(pid)
        shutil.rmtree(store)
        until(lambda: not alive(pid))
        assert not store.exists()

    def test_a_temporary_store_without_its_driver_is_orphaned(self, tmp_path):
        store = tmp_path / "store"
        assert not orphaned(store)
        own(tmp_path)
        assert not orphaned(store)
        text = (tmp_path / "driver").read_text()
        (tmp_path / "driver").write_text(text.replace('"born": "', '"born": "other'))
        assert orphaned(store)
