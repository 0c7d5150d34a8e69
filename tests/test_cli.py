"""The command line: what it prints, what it writes, its exit codes, and errors in one line."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import time
import tomllib
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import ensemblerl as erl
from ensemblerl.cli import costs, demo
from ensemblerl.cli.checking import Examined, examine
from ensemblerl.cli.disk import disk
from ensemblerl.cli.errors import flat
from ensemblerl.cli.findings import findings
from ensemblerl.cli.main import COMMANDS, cli
from ensemblerl.cli.script import at_explore
from ensemblerl.cli.trial import Trial, difference
from ensemblerl.cli.units import amount, seconds
from ensemblerl.cli.waiting import waiting

ROOT = Path(__file__).parents[1]
HEAD = """
import os, random, sys, threading, time
import numpy as np
import ensemblerl as erl

SPACE = erl.Space(x=erl.Real(-1, 1, units="m"), mode=erl.Choice("a", "b"))


def ask(f, **options):
    given = {"n_members": 40, "store": "runs/one", "cluster": "serial", "seed": 3} | options
    return erl.explore(f, SPACE, erl.Minimize("f"), sampler="sobol", progress=False, **given)


"""
CAMPAIGN = """
def simulate(x, mode, seed):
    if x > 0.7:
        raise FloatingPointError(f"no convergence at x = {x:.3f}")
    if x < -0.95:
        return {"f": float("nan"), "profile": np.zeros(6)}
    return {"f": x**2 + (mode == "b"), "profile": np.random.default_rng(seed).normal(size=6)}


if __name__ == "__main__":
    ask(simulate)
"""


def write(folder: Path, text: str, name: str = "flow.py") -> str:
    (folder / name).write_text(HEAD + text)
    return name


def call(*arguments: object, columns: int = 100):
    return CliRunner().invoke(cli, [str(a) for a in arguments], env={"COLUMNS": str(columns)})


def line(done, what: str) -> str:
    """The line of a check about this."""
    found = [text for text in done.stdout.splitlines() if text[1:].strip().startswith(what)]
    assert found, done.output
    return found[0]


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A directory with flow.py and the campaign that it left in runs/one."""
    folder = tmp_path_factory.mktemp("cli")
    done = python(write(folder, CAMPAIGN), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def there(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


class TestCheck:
    def test_a_sound_workflow_passes_and_begins_no_campaign(self, in_tmp):
        name = write(in_tmp, CAMPAIGN.replace("0.7", "7"))
        argv, path, main = sys.argv, list(sys.path), sys.modules["__main__"]
        done = call("check", name)
        assert done.exit_code == 0, done.output
        assert line(done, "here").startswith("✓")
        assert "bit for bit" in line(done, "same result")
        assert "56 B a member, 2.2 kB for 40 members" in line(done, "output")
        assert "profile: float64 (profile_0 6)" in line(done, "variables")
        assert "runs/one can be written" in line(done, "store")
        assert "nothing would fail" in done.stdout
        assert [p.name for p in in_tmp.iterdir()] == [name]
        assert (sys.argv, sys.path, sys.modules["__main__"]) == (argv, path, main)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("raise FloatingPointError('no convergence')", "failed after"),
            ("return 'hello'", "invalid after"),
            ("return {'g': x}", "invalid after"),
        ],
    )
    def test_a_member_that_fails_is_told_and_is_exit_code_1(self, in_tmp, body, said):
        name = write(in_tmp, f"def simulate(x, mode):\n    {body}\n\nask(simulate)\n")
        done = call("check", name, "--no-worker")
        assert done.exit_code == 1
        assert line(done, "here").startswith("✗")
        assert said in line(done, "here")
        assert "1 would fail" in done.stdout
        assert "✗  worker" not in done.stdout

    def test_the_traceback_names_the_line_of_the_workflow(self, in_tmp):
        name = write(in_tmp, "def simulate(x, mode):\n    return 1 / (x - x)\n\nask(simulate)\n")
        done = call("check", name)
        assert "ZeroDivisionError" in line(done, "worker")
        assert "return 1 / (x - x)" in done.stdout

    def test_chance_that_does_not_come_from_the_seed_is_a_warning(self, in_tmp):
        text = "def simulate(x, mode):\n    return {'f': random.random()}\n\nask(simulate)\n"
        done = call("check", write(in_tmp, text))
        assert done.exit_code == 0
        assert line(done, "same result").startswith("!")
        assert "and between two runs here" in done.stdout
        assert "from the argument seed" in done.stdout

    def test_a_result_that_depends_on_the_process_is_told_from_chance(self, in_tmp):
        text = """
def simulate(x, mode):
    return {"f": float(threading.current_thread() is threading.main_thread())}

from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(2) as pool:
    ask(simulate, cluster=pool)
"""
        done = call("check", write(in_tmp, text))
        assert done.exit_code == 0
        assert line(done, "worker").startswith("✓"), "the pool of a with block is still open"
        assert "two runs here agree" in done.stdout

    def test_what_cannot_be_pickled_is_exit_code_1(self, in_tmp):
        text = """
LOCK = threading.Lock()

def simulate(x, mode):
    with LOCK:
        return {"f": x}

from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(1) as pool:
    ask(simulate, cluster=pool)
"""
        done = call("check", write(in_tmp, text))
        assert done.exit_code == 1
        assert line(done, "here").startswith("✓")
        assert "see job" in line(done, "worker")
        assert line(done, "job").startswith("✗")
        assert "inside the function" in done.stdout

    def test_a_member_that_ends_its_worker_is_not_run_here(self, tmp_path):
        text = (
            "def simulate(x, mode):\n    os.kill(os.getpid(), 9)\n\nask(simulate, cluster=None)\n"
        )
        done = python("-m", "ensemblerl", "check", write(tmp_path, text), cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert "·  here     not run: it ended the process of its worker" in done.stdout
        assert "✗  worker   failed: launched 3 times without an end" in done.stdout

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("print('hello')\n", "wanted a script that calls explore, launch or prepare"),
            ("sys.exit(3)\n", "but exit(3)"),
            ("x = 1\nraise KeyError('no input')\n", "flow.py, line 15: KeyError: 'no input'"),
            ("def f(y):\n    pass\n\nask(f)\n", "TypeError: simulation: f wants 'y'"),
            ("ask(lambda x, mode: x, stop='nonsense > 1')\n", "stop: wanted an expression"),
            ("ask(lambda x, mode: x, n_pending=0)\n", "n_pending: wanted a whole number"),
            ("ask(3)\n", "simulation: wanted a function"),
            ("erl.prepare(None, SPACE, erl.Minimize(), n_members=2, store='s')\n", "by hand"),
            ("def f(:\n", "flow.py, line 14: SyntaxError"),
        ],
    )
    def test_a_script_that_does_not_come_to_a_campaign(self, in_tmp, text, said):
        done = call("check", write(in_tmp, text))
        assert done.exit_code == 1
        assert said in done.stderr
        assert done.stderr.startswith("ensemblerl: ")
        assert len(done.stderr.splitlines()) == 1

    def test_a_script_that_catches_everything_is_stopped_all_the_same(self, in_tmp):
        text = """
def simulate(x, mode):
    return {"f": x}

for i in range(3):
    try:
        ask(simulate)
    except BaseException as error:
        print(type(error).__name__)
"""
        done = call("check", write(in_tmp, text))
        assert done.exit_code == 0, done.output
        assert done.stdout.count("Reached") == 3
        assert not (in_tmp / "runs").exists()

    def test_launch_is_watched_too_and_arguments_reach_the_script(self, in_tmp):
        text = """
import beside
n = int(sys.argv[2])
erl.launch(lambda x, mode: x, SPACE, erl.Minimize(), n_members=n, cluster="serial")
"""
        folder = in_tmp / "elsewhere"
        folder.mkdir()
        (folder / "beside.py").write_text("")
        write(folder, text)
        done = call("check", folder / "flow.py", "--", "--members", "17")
        assert done.exit_code == 0, done.output
        assert "for 17 members" in done.stdout
        assert "give store=" in done.stdout

    def test_a_store_of_another_campaign_is_refused(self, there):
        name = write(there, "ask(lambda x, mode: {'f': x}, n_members=50)\n", "same.py")
        assert "40 settled members already: the campaign goes on" in call("check", name).stdout
        write(there, "SPACE = erl.Space(x=erl.Real(0, 1))\nask(lambda x: {'f': x})\n", "other.py")
        done = call("check", "other.py")
        assert done.exit_code == 1
        assert "another space or goal: space." in done.stdout
        assert "→ Give another store=" in done.stdout
        assert line(done, "store").startswith("✗")
        assert "can be written" not in done.stdout

    def test_a_store_that_cannot_be_written(self, in_tmp):
        (in_tmp / "file").write_text("")
        name = write(in_tmp, "ask(lambda x, mode: {'f': x}, store='file/one')\n")
        done = call("check", name)
        assert done.exit_code == 1
        assert line(done, "store").startswith("✗")
        assert "choose a store= path" in done.stdout

    def test_on_local_workers_through_a_real_process(self, tmp_path):
        text = """
def simulate(x, mode, seed):
    ballast = np.ones(8 * 2**20)
    time.sleep(0.5)
    return {"f": x * float(ballast[0])}

ask(erl.Function(simulate, cores=2), cluster=None, n_members=5000)
"""
        name = write(tmp_path, text)
        done = python("-m", "ensemblerl", "check", name, cwd=tmp_path, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "✓  worker" in done.stdout
        assert "!  threads      OMP_NUM_THREADS=1, cores=2" in done.stdout
        grown = float(done.stdout.split("MB, ")[1].split(" MB more")[0])
        assert 50 < grown < 200, "the 67 MB that the member holds"
        assert not (tmp_path / "runs").exists()

    def test_of_a_program_the_memory_below_its_supervisor_counts(self, in_tmp):
        text = """
child = "import time; b = bytearray(2**26); time.sleep(0.6); print('f', 2 * {{ x }} - {{ x }})"
model = erl.Command(
    ["sh", "-c", f'"{sys.executable}" -c "{child}"; true'],
    reads=erl.readers.Regex("stdout", "f (?P<f>.*)"),
    timeout=60,
    memory="%s",
)
SPACE = erl.Space(x=erl.Real(-1, 1))
ask(model)
"""
        done = call("check", write(in_tmp, text % "85 MB"), "--no-worker")
        assert done.exit_code == 0, done.output
        assert "f: float64" in line(done, "variables")
        assert line(done, "memory").startswith("!"), "it is told when there is little room"
        assert "memory=85.0 MB" in line(done, "memory")
        assert "MiB" not in done.stdout
        held = float(line(done, "memory").split("memory")[1].split(" MB of the program")[0])
        assert 2**26 / 1e6 < held < 85, "no process of ours is counted"
        done = call("check", write(in_tmp, text % "40 MB"), "--no-worker")
        assert done.exit_code == 1
        assert "→ see memory" in done.stdout
        assert line(done, "memory").startswith("✗")

    def test_a_program_on_a_worker(self, tmp_path):
        text = """
model = erl.Command(
    [sys.executable, "-c", "import time; time.sleep(0.4); print('f', {{ x }} + {{ seed }})"],
    reads=erl.readers.Regex("stdout", "f (?P<f>.*)"),
    keep="all",
)
SPACE = erl.Space(x=erl.Real(-1, 1))
ask(model, cluster=None)
"""
        name = write(tmp_path, text)
        done = python("-m", "ensemblerl", "check", name, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "✓  here         ok in" in done.stdout
        assert "✓  worker       ok in" in done.stdout
        assert "bit for bit the same" in done.stdout
        assert "MB of the program" in line(done, "memory")
        assert done.stderr == "", "no sign of life where there is no terminal"
        assert [p.name for p in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize(
        ("script", "row", "todo", "below"),
        [
            (
                "echo one; echo seen {{ x }}",
                "got no match; its last line: seen",
                "→ mend reads=, or what the program writes; what was printed last is below",
                "one",
            ),
            (
                "echo in $PWD >&2; echo ERROR: no cells {{ x }} >&2; exit 3",
                "exit code 3: ERROR: no cells",
                "→ mend it, then check again; what was printed last is below",
                "in .",
            ),
        ],
    )
    def test_a_program_that_fails_is_told_once(self, in_tmp, script, row, todo, below):
        text = f"""
SPACE = erl.Space(x=erl.Real(-1, 1))
reads = erl.readers.Regex("stdout", "f (?P<f>.*)")
ask(erl.Command(["sh", "-c", {script!r}], reads=reads))
"""
        done = call("check", write(in_tmp, text), columns=200)
        assert done.exit_code == 1
        assert row in line(done, "here")
        assert row in line(done, "worker")
        assert done.stdout.count(todo) == 2
        rest = done.stdout.split("here and on the worker:")[1].splitlines()
        assert rest.count(below) == 1, "said once: nothing in it is of one attempt"
        assert "its files" not in done.stdout
        assert "traceback" not in done.stdout

    def test_a_missing_executable_is_told_with_one_path(self, in_tmp):
        text = """
SPACE = erl.Space(x=erl.Real(-1, 1))
ask(erl.Command(["no_such_code", "{{ x }}"], reads=erl.readers.Json("out.json")))
"""
        done = call("check", write(in_tmp, text), columns=200)
        assert done.exit_code == 1
        assert "'no_such_code', which is not on the PATH" in line(done, "here")
        assert done.stdout.count("→ install it there, load its module") == 2
        assert done.stdout.count("PATH: ") == 1
        assert "traceback" not in done.stdout

    def test_options_of_the_workflow_want_two_dashes(self, in_tmp):
        done = call("check", write(in_tmp, CAMPAIGN), "--members", "3")
        assert done.exit_code == 2
        assert "No such option '--members'; arguments of the workflow go after --" in done.stderr

    def test_of_several_campaigns_it_says_which_was_looked_at(self, in_tmp):
        text = """
from ensemblerl import launch as begin
erl.explore(lambda x, mode: x, SPACE, erl.Minimize(), n_members=5, cluster="serial", store="a")
begin(lambda x, mode: x, SPACE, erl.Minimize(), n_members=6, cluster="serial", store="b")
"""
        done = call("check", write(in_tmp, text))
        lines = Path("flow.py").read_text().splitlines()
        where = [i for i, s in enumerate(lines, 1) if "erl.explore(" in s or s.startswith("begin(")]
        assert len(where) == 3
        said = f"begins campaigns in lines {', '.join(map(str, where))}: the first"
        assert said in line(done, "workflow")
        assert "for 5 members" in done.stdout
        one = call("check", write(in_tmp, "ask(lambda x, mode: {'f': x})\n"))
        assert "begins campaigns" not in one.stdout

    def test_a_terminal_shows_what_is_waited_for(self, monkeypatch):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        monkeypatch.setattr(sys, "stderr", Terminal())
        with waiting() as say:
            say("one member on a worker")
        assert sys.stderr.getvalue() == "\r\x1b[2Kone member on a worker ...\r\x1b[2K"
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        with waiting() as say:
            say("one member on a worker")
        assert sys.stderr.getvalue() == ""

    def test_it_says_what_it_waits_for(self, in_tmp):
        said = []
        name = write(in_tmp, "ask(lambda x, mode: {'f': random.random()})\n")
        at_explore(Path(name), (), partial(examine, say=said.append))
        assert [text[:20] for text in said] == [
            "one member on a work",
            "one member here",
            "one member here once",
        ]


def examined(here=None, there=None, job_bytes=1000, store="nowhere/one", **given):
    """What a check found out, as far as a line needs it."""
    function = erl.Function(
        lambda x: x, **{k: given.pop(k) for k in ("cores", "timeout") if k in given}
    )
    standard = {"n_members": 100, "n_pending": None, "bundle": "auto", "in_process": False}
    told = SimpleNamespace(**{**standard, **given})
    told.simulation, told.store = function, Path(store)
    told.executor = SimpleNamespace(in_process=told.in_process)
    return Examined(told, {}, 1, here or "not run", there or "", job_bytes)


def tried(**about) -> Trial:
    notes = {"host": "h", "cpus": 8, "total": 2**34, "threads": "1", "before": 2**27, "peak": 2**28}
    notes |= about.pop("notes", {})
    standard = {"fate": "ok", "cause": "", "runtime": 1.0, "result": {}, "dims": {"value": "f8"}}
    standard |= {"member_bytes": 8, "worker": "h:1", "n_workers": 4, "startup": 1.0, "died": False}
    return Trial(**{**standard, **about}, notes=notes)


def found(lines, what: str):
    return next(f for f in lines if f.what == what)


class TestLines:
    def test_wall_clock_counts_the_rounds(self):
        got = found(costs.on_worker(examined(n_members=9), tried(runtime=10.0)), "wall-clock")
        assert (got.mark, got.found[:32]) == ("good", "about 30 s for 9 members, 4 at a")

    def test_too_few_pending_members_leave_workers_idle(self):
        got = found(costs.on_worker(examined(n_pending=3), tried()), "wall-clock")
        assert got.mark == "warn"
        assert got.remedy == "1 workers would have nothing to do: n_pending=4 or more"

    @pytest.mark.parametrize(
        ("options", "mark"),
        [
            ({}, "warn"),
            ({"n_pending": 80}, "good"),
            ({"bundle": 10}, "good"),
            ({"bundle": 2}, "warn"),
        ],
    )
    def test_short_members_should_travel_together(self, options, mark):
        lines = costs.on_worker(examined(n_members=5000, **options), tried(runtime=0.01))
        assert found(lines, "bundles").mark == mark

    @pytest.mark.parametrize("options", [{"in_process": True}, {"n_members": 10}])
    def test_bundles_are_no_matter_here_or_for_a_few(self, options):
        lines = costs.on_worker(examined(**{"n_members": 5000, **options}), tried(runtime=0.01))
        assert "bundles" not in {f.what for f in lines}

    def test_advice_on_pending_members_does_what_it_says(self):
        lines = costs.on_worker(examined(n_members=5000), tried(runtime=0.01))
        pending = int(found(lines, "bundles").remedy.split("n_pending=")[1].split()[0])
        again = costs.on_worker(examined(n_members=5000, n_pending=pending), tried(runtime=0.01))
        assert found(again, "bundles").mark == "good"

    def test_what_tasks_cost_is_in_the_wall_clock(self):
        quick = tried(runtime=1e-5)
        got = found(costs.on_worker(examined(n_members=2000), quick), "wall-clock").found
        assert got.startswith("about 6 s for 2000 members")
        assert "3 ms for each task" in got
        for options in ({"bundle": 200}, {"in_process": True}):
            got = found(costs.on_worker(examined(n_members=2000, **options), quick), "wall-clock")
            assert got.found.startswith("under 1 s")
        got = found(costs.on_worker(examined(n_members=2000), tried()), "wall-clock")
        assert "task" not in got.found, "it does not show"

    def test_memory_of_all_workers_must_fit(self):
        assert found(costs.memory(examined(), tried()), "memory").mark == "good"
        got = found(costs.memory(examined(), tried(notes={"peak": 8e9, "total": 16e9})), "memory")
        assert got.mark == "warn"
        assert "4 at once are 32.0 GB, h has 16.0 GB" in got.found
        assert "run 2 at a time" in got.remedy

    @pytest.mark.parametrize(
        ("fate", "held", "mark"),
        [
            ("ok", 50e6, "good"),
            ("ok", 90e6, "warn"),
            ("ok", 101e6, "bad"),
            ("out_of_memory", 60e6, "bad"),
            ("ok", 0, "note"),
        ],
    )
    def test_a_program_is_compared_with_its_memory(self, fate, held, mark):
        wanted = examined()
        wanted.given.simulation = SimpleNamespace(memory=100_000_000)
        lines = list(costs.memory(wanted, tried(fate=fate, notes={"program": held})))
        assert [f.mark for f in lines] == [mark, "good"]
        assert "memory=100.0 MB" in lines[0].found

    @pytest.mark.parametrize(
        ("threads", "cores", "mark"),
        [("1", 1, "good"), ("", 1, "warn"), ("", 8, "good"), ("4", 1, "warn"), ("1", 4, "warn")],
    )
    def test_threads_are_compared_with_cores(self, threads, cores, mark):
        lines = costs.on_worker(examined(cores=cores), tried(notes={"threads": threads}))
        assert found(lines, "threads").mark == mark

    def test_one_member_at_a_time_may_have_all_processors(self):
        lines = costs.on_worker(examined(), tried(n_workers=1, notes={"threads": ""}))
        assert found(lines, "threads").mark == "good"

    @pytest.mark.parametrize(
        ("fate", "ran", "mark"),
        [("ok", 1.0, "good"), ("ok", 6.0, "warn"), ("timeout", 10.0, "bad")],
    )
    def test_the_timeout_should_leave_room(self, fate, ran, mark):
        assert costs.timeout(examined(timeout=10.0), tried(fate=fate, runtime=ran)).mark == mark

    def test_a_large_job_is_a_warning(self):
        assert found(findings(examined(tried(), job_bytes=10**6)), "job").mark == "good"
        assert found(findings(examined(tried(), job_bytes=2 * 10**6)), "job").mark == "warn"

    def test_results_that_do_not_fit_on_the_disk(self, tmp_path):
        big = examined(tried(member_bytes=2**50), store=str(tmp_path / "one"))
        assert [f.mark for f in disk(big)] == ["bad"]
        small = examined(tried(), store=str(tmp_path / "one"))
        assert [f.mark for f in disk(small)] == ["good"]

    def test_a_store_that_the_worker_does_not_see(self, tmp_path):
        there = tried()._replace(notes={})
        lines = list(disk(examined(tried(), there, store=str(tmp_path / "one"))))
        assert [f.mark for f in lines] == ["good", "warn"]
        assert "through the driver" in lines[1].found

    def test_differences_are_relative_and_nan_is_like_nan(self):
        one = tried(result={"a": np.array([1.0, np.nan]), "b": np.array(2)})
        assert difference(one, one) == ("", 0.0)
        other = one._replace(result={"a": np.array([1.1, np.nan]), "b": np.array(2)})
        assert difference(one, other) == ("a", pytest.approx(0.1 / 1.1))
        assert difference(one, one._replace(result={"a": one.result["a"]})) == ("b", np.inf)

    def test_units(self):
        sizes = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_960: "1.0 MB", 2**20: "1.0 MB"}
        assert [amount(n) for n in sizes] == [*sizes.values()]
        assert [seconds(s) for s in (0.0994, 0.2, 9.9, 59)] == ["99 ms", "200 ms", "9.9 s", "59 s"]

    def test_lines_of_an_error_stay_apart(self):
        assert flat("these differ:\n  a\n  b\nMend them.") == "these differ: a; b; Mend them."


class TestShow:
    def test_question_members_best_and_answer(self, there):
        done = call("show", "runs/one", "--best", 2)
        assert done.exit_code == 0
        ds = erl.open("runs/one")
        counts = {str(k): int((ds.fate == k).sum()) for k in np.unique(ds.fate)}
        assert min(counts["failed"], counts["invalid"]) > 0
        wanted = f"40: {counts['ok']} ok, {counts['failed']} failed, {counts['invalid']} invalid"
        assert wanted in done.stdout
        assert "Minimize('f')" in done.stdout
        assert "x: Real(-1.0, 1.0) m" in done.stdout
        first, second = np.argsort(np.where(ds.fate == "ok", -ds.reward, np.inf))[:2]
        rows = [text.split() for text in done.stdout.splitlines()]
        assert [str(first), f"{float(ds.f[first]):.5g}", f"{float(ds.x[first]):.5g}"] in [
            row[:3] for row in rows
        ]
        assert str(second) in [row[0] for row in rows if row]
        assert str(ds.erl.answer().attrs["verdict"]) in done.stdout

    def test_failures_by_cause_the_most_frequent_first(self, there):
        done = call("show", "runs/one", "--failures")
        ds = erl.open("runs/one")
        heads = [
            text for text in done.stdout.splitlines() if "member" in text and text[0].isdigit()
        ]
        n = int((ds.fate == "failed").sum())
        assert heads[0].startswith(f"{n} failed")
        assert "FloatingPointError: no convergence" in done.stdout
        first = int(np.flatnonzero(ds.fate == "failed")[0])
        assert f"members {first}, " in heads[0]
        assert f"ensemblerl rerun runs/one {first}" in done.stdout

    def test_a_campaign_without_failures(self, tmp_path):
        erl.explore(
            abs_x, SPACE, erl.Minimize(), n_members=2, store=tmp_path / "s", cluster="serial"
        )
        assert (
            "no member that is settled has failed"
            in call("show", tmp_path / "s", "--failures").stdout
        )

    def test_many_parameters_are_rows(self, tmp_path):
        space = erl.Space({f"rate_{i}": erl.Real(0, 1, units="s-1") for i in range(9)})
        options = {"n_members": 4, "cluster": "serial", "sampler": "sobol"}
        erl.explore(total, space, erl.Maximize(), store=tmp_path / "s", **options)
        done = call("show", tmp_path / "s", columns=80)
        assert sum("rate_8 (s-1)" in text for text in done.stdout.splitlines()) == 1
        assert max(map(len, done.stdout.splitlines())) <= 80
        assert "and 1 more" in done.stdout

    @pytest.mark.parametrize("n", [1, 3, 8])
    def test_no_number_is_broken_over_lines(self, tmp_path, n):
        space = erl.Space({f"a_long_parameter_{i}": erl.Real(-1e-7, 0) for i in range(6)})
        options = {"n_members": 8, "cluster": "serial", "sampler": "sobol"}
        ds = erl.explore(total, space, erl.Maximize(), store=tmp_path / "s", **options)
        done = call("show", tmp_path / "s", "--best", n, columns=80)
        assert max(map(len, done.stdout.splitlines())) <= 80
        words = done.stdout.split()
        for name in space:
            assert {f"{v:.5g}" for v in ds.erl.best(n)[name].values} <= {*words}
        wide = call("show", tmp_path / "s", "--best", n, columns=250).stdout
        assert sum("a_long_parameter_0" in text for text in wide.splitlines()) == 2, "one row"

    def test_one_that_was_interrupted(self, tmp_path):
        path = tmp_path / "s"
        options = {"n_members": 4, "cluster": "serial", "sampler": "sobol"}
        campaign = erl.prepare(abs_x, SPACE, erl.Minimize(), store=path, **options)
        with campaign:
            time.sleep(0.05)
            campaign.stop("interrupted")
        shown = call("show", path).stdout
        assert "interrupted, 4 left; run the workflow again and it goes on" in shown
        assert "took 0 ms" not in shown
        erl.explore(abs_x, SPACE, erl.Minimize(), store=path, **options)
        shown = call("show", path).stdout
        assert "all members settled" in shown
        assert "left" not in shown

    def test_one_that_a_rule_stopped_is_left_alone(self, tmp_path):
        options = {"n_members": 9, "cluster": "serial", "sampler": "sobol", "stop": "ok >= 2"}
        erl.explore(abs_x, SPACE, erl.Minimize(), store=tmp_path / "s", **options)
        shown = call("show", tmp_path / "s").stdout
        assert "stop rule: ok >= 2" in shown
        assert "goes on" not in shown

    def test_a_campaign_that_runs(self, tmp_path):
        path = tmp_path / "s"
        options = {"n_members": 4, "cluster": "serial", "sampler": "sobol"}
        campaign = erl.prepare(abs_x, SPACE, erl.Minimize(), store=path, **options)
        with campaign:
            next(campaign.turns())
            shown = call("show", path).stdout
        assert "4: 1 ok, 3 not launched" in shown
        assert f"running: process {os.getpid()}" in shown
        assert "running" not in call("show", path).stdout

    def test_one_whose_driver_was_killed(self, tmp_path):
        text = "ask(lambda x, mode: os._exit(1))\n"
        assert python(write(tmp_path, text), cwd=tmp_path).returncode == 1
        shown = call("show", tmp_path / "runs" / "one").stdout
        assert "ended without a word" in shown
        assert "1 pending" in shown

    def test_a_goal_of_somebody_else(self, tmp_path):
        campaign = erl.prepare(
            abs_x, SPACE, Own(), n_members=1, store=tmp_path / "s", cluster="serial"
        )
        campaign.run()
        done = call("show", tmp_path / "s")
        assert done.exit_code == 0
        assert "Own(" in done.stdout
        assert "no answer here" in done.stdout


class Own(erl.Minimize):
    """A goal that only its author knows."""


SPACE = erl.Space(x=erl.Real(-1, 1))


def abs_x(x):
    return abs(x)


def total(**point):
    return sum(point.values())


class TestNoStore:
    def test_says_what_was_found(self, there):
        (there / "empty").mkdir(exist_ok=True)
        (there / "full").mkdir(exist_ok=True)
        (there / "full" / "notes.txt").write_text("")
        for path, said in {
            "nowhere": "there is nothing here",
            "flow.py": "this is a file",
            "empty": "this directory is empty",
            "full": "no campaign.json among its 1 entries (notes.txt)",
            "runs": "no campaign here, but in runs/one",
            ".": "no campaign here, but in runs/one",
        }.items():
            done = call("show", path)
            assert (done.exit_code, done.stdout) == (1, "")
            assert done.stderr.startswith(f"ensemblerl: {path}: ")
            assert said in done.stderr

    @pytest.mark.parametrize("command", ["plot", "export", "rerun"])
    def test_in_every_command(self, in_tmp, command):
        more = {"plot": [], "export": ["out.nc"], "rerun": ["1"]}[command]
        done = call(command, "nowhere", *more)
        assert done.exit_code == 1
        assert done.stderr.startswith("ensemblerl: nowhere: there is nothing here")


class TestPlot:
    def test_writes_both_pictures_and_says_so(self, there, tmp_path):
        pytest.importorskip("matplotlib")
        done = call("plot", "runs/one", "--out", tmp_path / "pictures")
        assert done.exit_code == 0, done.output
        files = [tmp_path / "pictures" / name for name in ("history.png", "parameters.png")]
        assert done.stdout.splitlines() == [str(file) for file in files]
        for file in files:
            assert file.read_bytes().startswith(b"\x89PNG")
            assert file.stat().st_size > 10_000


class TestExport:
    def test_netcdf_and_csv(self, there, tmp_path):
        import pandas as pd

        assert call("export", "runs/one", tmp_path / "out.nc").exit_code == 0
        with xr.open_dataset(tmp_path / "out.nc") as ds:
            assert ds.sizes == {"member": 40, "profile_0": 6}
        done = call("export", "runs/one", tmp_path / "out.csv")
        frame = pd.read_csv(tmp_path / "out.csv", index_col="member")
        assert np.allclose(frame["x"], erl.open("runs/one").x)
        assert "profile" not in frame
        assert "left out, not one number a member: profile" in done.stdout

    def test_replaces_a_file_only_when_told(self, there, tmp_path):
        target = tmp_path / "out.csv"
        target.write_text("mine")
        done = call("export", "runs/one", target)
        assert done.exit_code == 1
        assert "--force" in done.stderr
        assert target.read_text() == "mine"
        assert call("export", "runs/one", target, "--force").exit_code == 0
        assert target.read_text().startswith("member,")
        assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]

    def test_refuses_what_it_cannot_write(self, there, tmp_path):
        done = call("export", "runs/one", tmp_path / "out.xls")
        assert done.exit_code == 2
        assert "ends in .nc or .csv" in done.stderr
        done = call("export", "runs/one", tmp_path / "no" / "out.nc")
        assert done.exit_code == 1
        assert "no such directory" in done.stderr


class TestRerun:
    def fated(self, fate: str) -> int:
        return int(np.flatnonzero(erl.open("runs/one").fate == fate)[0])

    def test_agrees_by_the_script_of_the_campaign(self, there):
        done = call("rerun", "runs/one", self.fated("ok"))
        assert done.exit_code == 0, done.output
        assert "bit for bit" in done.stdout
        assert "profile" in done.stdout

    @pytest.mark.parametrize("fate", ["failed", "invalid"])
    def test_a_member_that_fails_again_agrees(self, there, fate):
        done = call("rerun", "runs/one", self.fated(fate))
        assert done.exit_code == 0, done.output
        assert f"it agrees with the store: {fate}" in done.stdout

    def test_other_code_is_told_and_is_exit_code_1(self, there):
        changed = CAMPAIGN.replace("x**2", "x**4").replace("x > 0.7", "x > 7")
        name = write(there, changed, "changed.py")
        done = call("rerun", "runs/one", self.fated("ok"), "--workflow", name)
        assert done.exit_code == 1
        assert "it differs from what the store holds; the simulation's code changed" in done.stdout
        done = call("rerun", "runs/one", self.fated("failed"), "--workflow", name)
        assert done.exit_code == 1
        assert "no convergence" in done.stdout

    def test_another_campaign_is_refused(self, there):
        text = "SPACE = erl.Space(x=erl.Real(0, 1))\nask(lambda x: {'f': x})\n"
        done = call("rerun", "runs/one", 0, "--workflow", write(there, text, "another.py"))
        assert done.exit_code == 1
        assert "another space or goal" in done.stderr

    def test_by_the_name_of_the_simulation(self, tmp_path, monkeypatch):
        (tmp_path / "mymodel.py").write_text("def model(x):\n    return {'value': x, 'n': 3}\n")
        monkeypatch.syspath_prepend(tmp_path)
        import mymodel

        options = {"n_members": 2, "cluster": "serial", "store": tmp_path / "s"}
        erl.explore(mymodel.model, SPACE, erl.Minimize(), sampler="sobol", **options)
        done = call("rerun", tmp_path / "s", 1)
        assert done.exit_code == 0, done.output
        assert "bit for bit" in done.stdout

    def test_numbers_that_are_not_there(self, there):
        done = call("rerun", "runs/one", 40)
        assert done.exit_code == 1
        assert "wanted one of the members 0 to 39, got 40" in done.stderr
        assert call("rerun", "runs/one", "three").exit_code == 2

    def test_without_any_way_to_the_simulation(self, tmp_path):
        options = {"n_members": 1, "cluster": "serial", "store": tmp_path / "s"}
        erl.explore(lambda x: x, SPACE, erl.Minimize(), sampler="sobol", **options)
        campaign = tmp_path / "s" / "campaign.json"
        campaign.write_text(campaign.read_text().replace(".py", ".gone"))
        done = call("rerun", tmp_path / "s", 0)
        assert done.exit_code == 1
        assert "--workflow" in done.stderr

    def test_a_program_that_fails_alike_is_told_once(self, in_tmp):
        text = """
SPACE = erl.Space(x=erl.Real(-1, 1))
reads = erl.readers.Regex("stdout", "f (?P<f>.*)")
script = "echo in $PWD >&2; echo ERROR: no cells {{ x }} >&2; exit 3"
ask(erl.Command(["sh", "-c", script], reads=reads), n_members=1, max_failures=None)
"""
        done = python(write(in_tmp, text), cwd=in_tmp)
        assert done.returncode == 0, done.stderr
        done = call("rerun", "runs/one", 0, columns=200)
        assert done.exit_code == 0, done.output
        assert "both times: ProgramFailed: exit code 3: ERROR: no cells" in done.stdout
        files = done.stdout.split("its files: ")[1].split()[0]
        assert Path(files).is_dir(), "those of the campaign are still there"
        assert "now:" not in done.stdout

    def test_leaves_the_store_alone(self, there):
        before = {p: p.stat().st_mtime_ns for p in (there / "runs" / "one").rglob("*")}
        call("rerun", "runs/one", 1)
        assert {p: p.stat().st_mtime_ns for p in (there / "runs" / "one").rglob("*")} == before


class TestDemo:
    def test_what_is_missing_is_named_with_its_extra(self, monkeypatch):
        monkeypatch.setattr(demo, "NEEDS", ("numpy", "no_such_code"))
        done = call("demo")
        assert done.exit_code == 1
        said = "ensemblerl: the demo needs no_such_code: pip install 'ensemblerl[sim,plot]'\n"
        assert done.stderr == said

    def test_workflows_are_found_wherever_the_package_is(self, tmp_path, monkeypatch, capsys):
        """As a module, where they are installed; else as a file beside the package."""
        monkeypatch.setattr(demo, "_there", lambda module: False)
        argv = sys.argv
        with pytest.raises(SystemExit) as ended:
            demo.run("calibrate_argon", ["--help"])
        assert ended.value.code == 0
        assert "--quick" in capsys.readouterr().out
        assert sys.argv is argv
        monkeypatch.undo()
        package = tmp_path / "ensemblerl_workflows"
        package.mkdir()
        (package / "small.py").write_text("import sys\nprint(__name__, sys.argv[1:])\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        monkeypatch.setattr(
            sys, "meta_path", [f for f in sys.meta_path if "editable" not in repr(f)]
        )
        for name in [name for name in sys.modules if name.startswith("ensemblerl_workflows")]:
            monkeypatch.delitem(sys.modules, name)
        demo.run("small", ["--out", "here"])
        assert capsys.readouterr().out == "__main__ ['--out', 'here']\n"

    def test_a_workflow_that_is_not_there(self):
        with pytest.raises(click.ClickException, match="no such workflow"):
            demo.run("nothing", [])

    def test_every_room_is_installed_and_the_workflows_are(self):
        given = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
        rooms = [p.parent.relative_to(ROOT) for p in (ROOT / "ensemblerl").rglob("__init__.py")]
        wanted = {".".join(room.parts) for room in rooms} | {"ensemblerl_workflows"}
        assert set(given["packages"]) == wanted, "packages in pyproject.toml"
        assert given["package-dir"] == {"ensemblerl_workflows": "workflows"}
        kinds = {Path(kind).suffix for kind in given["package-data"]["ensemblerl_workflows"]}
        files = [p for p in (ROOT / "workflows").rglob("*") if p.is_file()]
        needed = {p.suffix for p in files if "__pycache__" not in p.parts} - {".py", ".md"}
        assert needed <= kinds


class TestTerminal:
    def test_errors_are_one_line_and_debug_shows_where(self, tmp_path):
        (tmp_path / "campaign.json").write_text('{"format": 99}')
        done = python("-m", "ensemblerl", "show", ".", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("ensemblerl: .: format 99")
        assert len(done.stderr.splitlines()) == 1
        done = python("-m", "ensemblerl", "--debug", "show", ".", cwd=tmp_path)
        assert done.returncode == 1
        assert "Traceback" in done.stderr

    @pytest.mark.parametrize("arguments", [["nonsense"], ["show"], ["show", ".", "--nonsense"]])
    def test_a_wrong_call_is_exit_code_2(self, there, arguments):
        done = call(*arguments)
        assert done.exit_code == 2
        assert done.stderr.startswith("ensemblerl: ")
        assert "--help" in done.stderr

    def test_help_lists_the_commands_in_full(self):
        done = call("--help", columns=80)
        assert done.exit_code == 0
        assert [c for c in COMMANDS if f"\n  {c}" in done.stdout] == list(COMMANDS)
        assert not [text for text in done.stdout.splitlines()[1:] if text.endswith("...")]
        assert f"ensemblerl {erl.__version__}" in call("--version").stdout

    def test_help_is_quick(self):
        code = (
            "import sys\nfrom ensemblerl.cli.main import cli\n"
            "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
            "print([m for m in ('numpy', 'xarray', 'dask', 'rich') if m in sys.modules])"
        )
        assert python("-c", code, cwd=ROOT).stdout.splitlines()[-1] == "[]"

    def completed(self, words: str, place: int, cwd: Path) -> list[str]:
        environment = {"COMP_WORDS": words, "COMP_CWORD": str(place)}
        environment["_ENSEMBLERL_COMPLETE"] = "bash_complete"
        return python("-m", "ensemblerl", cwd=cwd, **environment).stdout.split()

    def test_completion(self, made):
        assert self.completed("ensemblerl ex", 1, made) == ["plain,export"]
        assert self.completed("ensemblerl show ru", 2, made) == ["dir,ru"]
        ds = erl.open(made / "runs" / "one")
        offered = self.completed("ensemblerl rerun runs/one ", 3, made)
        failed = np.flatnonzero(ds.fate != "ok").tolist()
        best = int(ds.erl.best().member[0])
        assert offered == [f"plain,{i}" for i in [*failed, best]]
        assert self.completed("ensemblerl rerun runs/one 3", 3, made) == [
            f"plain,{i}" for i in [3, *range(30, 40)]
        ]


def test_commands_have_a_module_each() -> None:
    for name in COMMANDS:
        tree = ast.parse((ROOT / "ensemblerl" / "cli" / f"{name}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
