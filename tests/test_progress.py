"""What somebody sees of a campaign: in a terminal, in the log of a driver, in a notebook."""

from __future__ import annotations

import io
import json
import os
import re
import threading
import time

import pytest
from click.testing import CliRunner
from rich.console import Console

import ensemblerl as erl
from ensemblerl import progress
from ensemblerl.cli.main import cli
from ensemblerl.cluster.batch import Cluster
from ensemblerl.executors.serial import Serial
from ensemblerl.loop.opening import called
from ensemblerl.progress import APART, FIRST, Lines, Progress
from ensemblerl.store.note import NAME, Note, said
from ensemblerl.store.reading import read_ledger

SPACE = erl.Space(a=erl.Real(0.0, 1.0))
LOG = "/scratch/ada/a/rather/long/path/runs/coast/jobs/logs/ensemblerl-a1b2c3-0-4711.out"
WHY = f"1 of 3 jobs: 1 pending (Resources); job 4711 died before connecting (failed), see {LOG}"


class Missing(Serial):
    """Workers of which some are missing, as long as ``note`` says so."""

    title = "3 jobs of slurm"
    note = WHY


def same(a):
    return {"y": a}


def prepared(path, executor=None, n=4, **given):
    return erl.prepare(
        same,
        SPACE,
        erl.Minimize("y"),
        n_members=n,
        store=path,
        sampler="sobol",
        seed=3,
        cluster=executor or Missing(),
        **given,
    )


def terminal(width):
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def screen(console):
    """What was written, a frame after the other, without a terminal's commands."""
    if console is None:  # the error stream was looked at
        return ""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    return text.replace("\r", "\n")


def watched(campaign, console, on=True):
    """Two looks at a campaign in which a member is done; gives what was written."""
    with Progress(on, console=console) as watch, campaign:
        watch.begin(campaign)
        next(campaign.turns())
        watch(campaign)
        campaign.reason = "left"  # a look that no pause between two looks leaves out
        watch(campaign)
    return screen(console)


class TestInATerminal:
    @pytest.mark.parametrize("width", [80, 60, 140])
    def test_nothing_of_the_note_and_of_the_figures_is_cut_off(self, tmp_path, width):
        text = watched(prepared(tmp_path / "s"), terminal(width))
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        assert WHY.replace(" ", "") in re.sub(r"\s", "", text)
        assert re.search(r"1/4 .*in flight", text)
        assert re.search(r"\? left|\d+ \w+ left", re.sub(r"\s+", " ", text))

    def test_the_note_has_lines_of_its_own(self, tmp_path):
        lines = watched(prepared(tmp_path / "s"), terminal(80)).splitlines()
        assert any(line.startswith("1 of 3 jobs: 1 pending (Resources)") for line in lines)

    def test_a_note_is_no_markup(self, tmp_path):
        executor = Missing()
        executor.note = "the queue refused a job: [/b] [red]no such account"
        assert executor.note in watched(prepared(tmp_path / "s", executor), terminal(80))

    def test_it_names_what_starts_and_workers_that_are_there(self, tmp_path):
        text = watched(prepared(tmp_path / "s"), terminal(80))
        assert "starting 3 jobs of slurm" in text
        assert "1 workers" not in text
        text = watched(prepared(tmp_path / "t", Serial()), terminal(80))
        assert "starting Serial" in text
        assert "1 workers, at most 1 members pending" in text

    def test_a_campaign_that_goes_on_begins_with_what_is_settled(self, tmp_path):
        prepared(tmp_path / "s", n=3).run()
        text = watched(prepared(tmp_path / "s", n=9), terminal(80))
        assert "9 members, 3 of them settled" in text
        assert not re.search(r"\b0/", text)
        assert "4/9" in text

    def test_off_is_off(self, tmp_path):
        assert watched(prepared(tmp_path / "s"), terminal(80), on=False) == ""


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class TestWithoutATerminal:
    """Lines for the log of a driver that runs alone."""

    @pytest.fixture
    def looked(self, tmp_path):
        """Gives (look, lines): a look at a campaign after so many seconds, with this note."""
        campaign, clock, lines = prepared(tmp_path / "s"), Clock(), []
        watch = Lines(lines.append, clock)

        def look(seconds, note):
            clock.now += seconds
            campaign.executor.note = note
            watch(campaign)
            return [line.partition("; ")[2] for line in lines]

        look.campaign, look.lines = campaign, lines
        with campaign:
            yield look

    def test_why_workers_are_missing_is_said_once_and_that_it_is_over(self, looked):
        assert looked(0, "a") == []
        assert looked(FIRST, "a") == ["a"]
        assert looked(APART, "a") == ["a"]
        assert looked(1, "") == ["a", "all jobs are up"]
        assert looked(100, "") == ["a", "all jobs are up"]
        assert "EnsembleRL, 0 of 4 members; a" in looked.lines[0]
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", looked.lines[0])

    def test_workers_that_come_at_once_are_no_news(self, looked):
        looked(0, "a")
        assert looked(FIRST / 2, "") == []
        assert looked(100, "") == []

    def test_what_changes_often_is_said_now_and_then(self, looked):
        looked(0, "a")
        looked(FIRST, "a")
        assert looked(APART / 2, "b") == ["a"]
        assert looked(APART / 2 - 1, "c") == ["a"]
        assert looked(1, "d") == ["a", "d"]
        assert looked(APART - 1, "e") == ["a", "d"]

    def test_workers_that_come_and_go_neither(self, looked):
        looked(0, "a")
        looked(FIRST, "a")
        looked(1, "")
        assert looked(1, "b") == ["a", "all jobs are up"]
        assert looked(FIRST, "b") == ["a", "all jobs are up"]
        assert looked(APART, "b") == ["a", "all jobs are up", "b"]

    def test_a_campaign_that_ends_does_not_say_that_its_jobs_are_up(self, looked):
        looked(0, "a")
        looked(FIRST, "a")
        looked.campaign.reason = "all members settled"
        assert looked(1, "") == ["a"]

    def test_it_is_one_line_whatever_the_queue_said(self, looked):
        looked(0, "refused:\n  no such\taccount")
        assert looked(FIRST, "refused:\n  no such\taccount") == ["refused: no such account"]

    @pytest.fixture
    def at_once(self, monkeypatch):
        monkeypatch.setattr(progress, "FIRST", 0.0)

    def test_it_comes_whole_on_the_error_stream(self, tmp_path, at_once, capsys):
        watched(prepared(tmp_path / "s"), None)
        out, err = capsys.readouterr()
        assert out == ""
        assert [line.partition("; ")[2] for line in err.splitlines()] == [WHY]

    def test_other_campaigns_and_quiet_ones_print_nothing(self, tmp_path, at_once, capsys):
        watched(prepared(tmp_path / "s", Serial()), None)
        watched(prepared(tmp_path / "t"), None, on=False)
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("stream", ["closed", "broken", "none"])
    def test_a_stream_that_nobody_reads_does_not_end_it(
        self, tmp_path, at_once, stream, monkeypatch
    ):
        file = {"closed": io.StringIO(), "broken": Broken(), "none": None}[stream]
        if stream == "closed":
            file.close()
        monkeypatch.setattr("sys.stderr", file)
        campaign = prepared(tmp_path / "s")
        with Progress() as watch, campaign:
            watch.begin(campaign)
            for _ in campaign.turns():
                watch(campaign)
        assert campaign.ledger.n_settled == 4


class Broken(io.StringIO):
    """The error stream of a driver whose terminal is gone."""

    def write(self, text):
        raise BrokenPipeError(text)


class TestElsewhere:
    """Where somebody looks who does not see the driver's terminal."""

    def shown(self, path):
        done = CliRunner().invoke(cli, ["show", str(path)], env={"COLUMNS": "80"})
        assert done.exit_code == 0, done.output
        assert max(map(len, done.stdout.splitlines())) <= 80
        return re.sub(r"\s+", " ", done.stdout)

    def driven(self, path, seconds=0.0):
        """A campaign that runs, whose driver has said for so long why workers are missing."""
        campaign = prepared(path)
        campaign.open()
        note = Note(campaign.store.segments)
        note.say(WHY)
        then = time.time() - seconds
        os.utime(path / NAME, (then, then))
        return campaign, note

    def test_show_says_why_workers_are_missing_and_for_how_long(self, tmp_path):
        campaign, note = self.driven(tmp_path / "s", 600.0)
        with campaign:
            text = self.shown(tmp_path / "s")
            told = text.replace(" ", "")
            assert ("jobs " + WHY + "(for 10 min)").replace(" ", "") in told
            assert "on " in text
            assert "(3 jobs of slurm)" in text
            note.say("")
            assert "1 of 3 jobs" not in self.shown(tmp_path / "s")
        assert not (tmp_path / "s" / NAME).exists()

    def test_clocks_of_machines_do_not_count(self, tmp_path):
        """The file's time and that of the lock come from one clock; here it is an hour ahead."""
        campaign, _ = self.driven(tmp_path / "s", -3600.0)
        with campaign:
            ahead = time.time() + 3600.0 + 20.0
            os.utime(tmp_path / "s" / "lock", (ahead, ahead))
            assert "(for 20 s)" in self.shown(tmp_path / "s")

    def test_what_a_driver_said_that_is_gone_is_not_so_any_more(self, tmp_path):
        campaign, _ = self.driven(tmp_path / "s")
        with campaign:
            about = json.loads((tmp_path / "s" / NAME).read_text())
            (tmp_path / "s" / NAME).write_text(json.dumps({**about, "pid": about["pid"] + 1}))
            text = self.shown(tmp_path / "s")
            assert "running: process" in text
            assert "1 of 3 jobs" not in text
            (tmp_path / "s" / NAME).write_text(json.dumps(about))
            assert "1 of 3 jobs" in self.shown(tmp_path / "s")
        assert "1 of 3 jobs" not in self.shown(tmp_path / "s")

    def test_a_driver_removes_what_one_before_it_said(self, tmp_path):
        campaign, _ = self.driven(tmp_path / "s")
        with campaign:
            assert said(tmp_path / "s").text == WHY
            Note(campaign.store.segments).say("")
            assert said(tmp_path / "s") is None

    def test_a_note_is_written_only_when_it_changes_and_into_a_store_only(self, tmp_path):
        campaign, note = self.driven(tmp_path / "s", 600.0)
        with campaign:
            before = said(tmp_path / "s")
            note.say(WHY)
            assert said(tmp_path / "s") == before
            note.say("another")
            after = said(tmp_path / "s")
            assert (after.text, after.pid) == ("another", os.getpid())
            assert after.since > before.since
        Note("").say("nowhere")
        Note(str(tmp_path / "gone" / "segments")).say("nowhere")
        assert not (tmp_path / "gone").exists()

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"text": "a"}'])
    def test_a_note_that_cannot_be_read_is_none(self, tmp_path, text):
        (tmp_path / NAME).write_text(text)
        assert said(tmp_path) is None
        assert said(tmp_path / "nowhere") is None

    def test_the_session_is_kept_under_what_the_executor_is_called(self, tmp_path):
        for name, executor, wanted in [
            ("a", Missing(), "3 jobs of slurm"),
            ("b", Serial(), "Serial"),
        ]:
            prepared(tmp_path / name, executor).run()
            ledger, _ = read_ledger(tmp_path / name)
            assert ledger.sessions[-1].executor == called(executor) == wanted

    def test_a_handle_says_it_in_python_and_in_a_notebook(self, tmp_path):
        go, executor = threading.Event(), Missing()

        def held(a):
            go.wait(20)
            return {"y": a}

        given = {"n_members": 2, "cluster": executor, "sampler": "sobol", "progress": False}
        handle = erl.launch(held, SPACE, erl.Minimize("y"), store=tmp_path / "s", **given)
        try:
            assert re.match(
                r"<ensemblerl campaign, 0 of 2 members, running: \d in flight · ", repr(handle)
            )
            assert repr(handle).endswith(f"left; {WHY}>")
            assert WHY in handle._repr_html_()
            executor.note = ""
            assert repr(handle).endswith("left>")
        finally:
            go.set()
            handle.wait(30)


class TestCluster:
    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            ({}, ["3 jobs of slurm", "4 cores", "members side by side: 4 of one core\n"]),
            ({"n_jobs": 1, "cores": 1, "gpus": 1}, ["1 job of slurm", "1 core,", "1 GPU,"]),
            ({"members_per_job": 2}, ["members side by side: 2\n"]),
            ({"nodes": 2}, ["members side by side: 1\n"]),
        ],
    )
    def test_it_describes_itself_in_numbers(self, arguments, parts):
        given = {"n_jobs": 3, "cores": 4, "memory": "8 GB", "walltime": "02:00:00"}
        cluster = Cluster("slurm", **{**given, **arguments})
        for part in parts:
            assert part in cluster.describe()
        assert cluster.describe().startswith(called(cluster.executor()))
