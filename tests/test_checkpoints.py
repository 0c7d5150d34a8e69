"""Programs that write checkpoints: the next attempt goes on where the last one was cut off."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from programs import GOOD, Script, noted, noting, single, until

import ensemblerl as erl
from ensemblerl.records import Outcome
from ensemblerl.store.running import Running
from ensemblerl.supervisor import directories
from ensemblerl.supervisor.directories import leave, take
from ensemblerl.supervisor.main import Supervisor

NOTE = "open('state', 'a').write(f'{attempt} ')\nprint('this is', attempt, flush=True, end='')\n"
LOST = "os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)"
"""The program's parent is its supervisor: so a queue ends both."""


def goes_on(then: dict[int, str]) -> str:
    """Notes its attempt in "state", and does as is said of it, else copies "state" and ends."""
    text = NOTE
    for attempt, what in then.items():
        text += f"if attempt == {attempt}:\n    {what}\n"
    return text


def copied(to: Path) -> str:
    return f"import shutil; shutil.copytree('.', {str(to)!r}); {GOOD}"


def work(store: Path) -> set[str]:
    return {path.name for path in (store / "work").iterdir()}


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture(params=["in the store", "on a disk of the node"])
def disk(request, tmp_path):
    """Arguments for working directories here or there, and where nothing is to be left."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return ({} if request.param == "in the store" else {"scratch": str(scratch)}), scratch


class TestAttempts:
    def test_the_next_attempt_finds_what_the_lost_one_left(self, tmp_path, disk):
        given, scratch = disk
        store, seen = tmp_path / "s", tmp_path / "seen"
        text = goes_on({1: LOST, 2: LOST, 3: copied(seen)})
        simulation = Script(text, checkpoint=True, **given)
        for attempt in (1, 2):
            outcome = single(simulation, store, attempt=attempt)
            assert (outcome.fate, outcome.blameless) == ("lost", True)
            assert work(store) == {f"0-{attempt}"}
            assert not list(scratch.iterdir())
        assert single(simulation, store, attempt=3).fate == "ok"
        assert (seen / "state").read_text() == "1 2 3 "
        assert (seen / "stdout").read_text() == "this is 1\nthis is 2\nthis is 3"
        assert "'attempt': 3" in (seen / "program.py").read_text()
        assert not work(store)
        assert not list(scratch.iterdir())
        assert not (store / "kept").exists()

    def test_without_checkpoints_each_attempt_begins_anew(self, tmp_path):
        simulation = Script(goes_on({1: LOST, 2: copied(tmp_path / "seen")}))
        single(simulation, tmp_path / "s")
        assert not work(tmp_path / "s")
        single(simulation, tmp_path / "s", attempt=2)
        assert (tmp_path / "seen" / "state").read_text() == "2 "

    @pytest.mark.parametrize(
        ("failure", "arguments"),
        [("sys.exit(1)", {}), ("time.sleep(600)", {"timeout": 1.0}), ("pass", {})],
    )
    def test_after_a_failure_the_next_attempt_begins_anew(self, tmp_path, failure, arguments, disk):
        given, scratch = disk
        store = tmp_path / "s"
        text = goes_on({1: LOST, 2: failure, 3: copied(tmp_path / "seen")})
        simulation = Script(text, checkpoint=True, **arguments, **given)
        single(simulation, store)
        assert single(simulation, store, attempt=2).fate in ("failed", "timeout")
        assert not work(store)
        assert not list(scratch.iterdir())
        # of earlier checkpoints, which may be large, nothing is kept
        assert names(store / "kept" / "0-2") == {"program.py", "stdout", "stderr"}
        single(simulation, store, attempt=3)
        assert (tmp_path / "seen" / "state").read_text() == "3 "

    def test_a_stopped_attempt_is_gone_on_with(self, tmp_path):
        store = tmp_path / "s"
        asked = f"open({str(store / 'running' / '0-1.end')!r}, 'w').close(); time.sleep(600)"
        simulation = Script(goes_on({1: asked, 2: copied(tmp_path / "seen")}), checkpoint=True)
        assert single(simulation, store).fate == "stopped"
        single(simulation, store, attempt=2)
        assert (tmp_path / "seen" / "state").read_text() == "1 2 "

    def test_a_killed_supervisor_leaves_its_directory(self, tmp_path, disk):
        given, scratch = disk
        kill = "os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)"
        simulation = Script(
            goes_on({1: kill, 2: copied(tmp_path / "seen")}), checkpoint=True, **given
        )
        assert single(simulation, tmp_path / "s").fate == "lost"
        assert work(tmp_path / "s") == {"0-1"}
        single(simulation, tmp_path / "s", attempt=2)
        assert (tmp_path / "seen" / "state").read_text() == "1 2 "
        assert not list(scratch.iterdir())

    def test_a_program_has_time_to_save_when_it_is_ended(self, tmp_path):
        save = "(time.sleep(1.0), open('saved', 'w').close(), os._exit(0))"
        text = f"signal.signal(signal.SIGTERM, lambda *_: {save})\n"
        single(Script(text + goes_on({1: LOST}), checkpoint=True), tmp_path / "s")
        assert (tmp_path / "s" / "work" / "0-1" / "saved").exists()

    def test_a_campaign_goes_on_with_a_lost_member(self, tmp_path):
        store, seen = tmp_path / "s", tmp_path / "seen"
        simulation = Script(goes_on({1: LOST, 2: copied(seen)}), checkpoint=True)
        ds = erl.explore(
            simulation,
            erl.Space(x=erl.Real(0.0, 1.0)),
            erl.Minimize("y"),
            n_members=1,
            store=store,
            sampler="sobol",
            cluster=erl.Serial(),
            progress=False,
        )
        assert (ds.fate.values[0], ds.attempt.values[0]) == ("ok", 2)
        assert (seen / "state").read_text() == "1 2 "
        assert not work(store)


class TestDirectories:
    def test_the_copy_in_the_store_stays_while_the_next_attempt_runs(self, tmp_path):
        store, scratch = tmp_path / "s", tmp_path / "scratch"
        (store / "work" / "0-3").mkdir(parents=True)
        (store / "work" / "0-3" / "state").write_text("3")
        simulation = Script(checkpoint=True, scratch=str(scratch))
        path = take(simulation, (0, 5), store)
        assert path.parent == scratch
        assert (path / "state").read_text() == "3"
        assert work(store) == {"0-3"}
        (path / "state").write_text("5")
        os.mkfifo(path / "pipe")
        (path / "link").symlink_to("/nowhere")
        leave(path, (0, 5), store)
        assert work(store) == {"0-5"}
        assert names(store / "work" / "0-5") == {"state", "link"}
        assert not path.exists()

    def test_of_several_the_newest_is_taken_and_none_of_another_member(self, tmp_path):
        for name in ("0-1", "0-2", "0-7", "10-3"):
            (tmp_path / "work" / name).mkdir(parents=True)
            (tmp_path / "work" / name / "state").write_text(name)
        path = take(Script(checkpoint=True), (0, 4), tmp_path)
        assert path == tmp_path / "work" / "0-4"
        assert (path / "state").read_text() == "0-2"
        assert work(tmp_path) == {"0-4", "0-7", "10-3"}

    def test_a_copy_that_fails_leaves_the_earlier_one_and_no_half(self, tmp_path, monkeypatch):
        (tmp_path / "work" / "0-1").mkdir(parents=True)
        (tmp_path / "work" / "0-1" / "state").write_text("1")
        scratch = tmp_path / "scratch"
        simulation = Script(checkpoint=True, scratch=str(scratch))
        path = take(simulation, (0, 2), tmp_path)

        def full(source, target):
            (target / "half").write_text("")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(directories, "_copy", full)
        leave(path, (0, 2), tmp_path)
        assert work(tmp_path) == {"0-1"}
        assert not path.exists()
        with pytest.raises(OSError, match="No space left"):
            take(simulation, (0, 3), tmp_path)
        assert not list(scratch.iterdir())

    @pytest.mark.parametrize(("fate", "left"), [("failed", False), ("lost", True), ("ok", True)])
    def test_before_anybody_hears_of_a_failure_its_directory_is_gone(self, tmp_path, fate, left):
        directory = tmp_path / "work" / "0-1"
        directory.mkdir(parents=True)
        (tmp_path / "campaign.json").touch()
        given = {"directory": str(directory), "store": str(tmp_path), "number": 0, "attempt": 1}
        given |= {"checkpoint": True, "keep": "nothing"}
        Supervisor(given, -1).settle(Outcome(0, 1, fate))
        assert directory.exists() == left

    def test_a_dead_attempts_directory_stays_until_all_is_settled(self, tmp_path):
        running = Running(tmp_path)
        for number, checkpoint in ((0, True), (1, False), (2, True)):
            running.expect(number, 1, checkpoint=checkpoint)
            running.begin(number, 1, checkpoint=checkpoint)
            (tmp_path / "work" / f"{number}-1").mkdir(parents=True)
        for number in (0, 1):
            path = running.directory / f"{number}-1"
            path.write_text(path.read_text().replace('"born": "', '"born": "other'))
        assert running.all() == {(2, 1)}
        assert work(tmp_path) == {"0-1", "2-1"}
        running.clear()
        assert work(tmp_path) == {"2-1"}

    def test_who_was_held_for_dead_ends_when_the_next_attempt_has_its_directory(self, tmp_path):
        store, starts = tmp_path / "s", tmp_path / "starts"
        simulation = Script(noting(starts, NOTE + "time.sleep(600)"), checkpoint=True)
        found = []
        thread = threading.Thread(
            target=lambda: found.append(single(simulation, store)), daemon=True
        )
        thread.start()
        until(lambda: noted(starts) and (store / "work" / "0-1" / "state").exists())
        take(simulation, (0, 2), store)
        thread.join(30)
        (outcome,) = found
        assert outcome.fate == "stopped"
        assert (store / "work" / "0-2" / "state").read_text() == "1 "


class TestCommands:
    """`Command(checkpoint=True)`."""

    def command(self, **given):
        code = '[ "$1" = False ] || cp -r . "$2"; echo $1 >> mine; kill -TERM $PPID; sleep 600'
        template = {"run.sh": f"#!/bin/sh\n{code}\n# {{{{ restarted }}}} {{{{ x }}}}\n"}
        data = given.pop("data")
        return erl.Command(
            ["./run.sh", "{{ restarted }}", str(given.pop("seen"))],
            templates=template,
            files=[data],
            reads=erl.readers.Json("out.json"),
            **given,
        )

    @pytest.mark.parametrize("checkpoint", [True, False])
    def test_templates_know_that_there_are_files_of_an_earlier_attempt(self, tmp_path, checkpoint):
        data, seen, store = tmp_path / "data", tmp_path / "seen", tmp_path / "s"
        data.write_text("1")
        data.chmod(0o444)  # so is the copy, which is written again all the same
        command = self.command(data=data, seen=seen, checkpoint=checkpoint)
        single(command, store)
        data.chmod(0o644)
        data.write_text("2")
        outcome = single(command, store, attempt=2)
        assert outcome.fate == "lost"
        assert seen.exists() == checkpoint
        if checkpoint:
            assert (seen / "mine").read_text() == "False\n"
            assert (seen / "data").read_text() == "2"
            assert "# True 0.5" in (seen / "run.sh").read_text()

    def test_inputs_and_logs_are_no_files_of_an_earlier_attempt(self, tmp_path):
        data, place = tmp_path / "data", tmp_path / "place"
        data.write_text("1")
        command = self.command(data=data, seen=tmp_path / "seen", checkpoint=True)
        place.mkdir()
        for name in ("run.sh", "stdout", "stderr"):
            (place / name).touch()
        (tmp_path / "linked").write_text("not to be written over")
        (place / "data").symlink_to(tmp_path / "linked")
        (place / "empty").mkdir()
        point = {"x": 1.0}
        found = command.prepare(point, seed=1, member={}, directory=place)
        assert found.arguments[1] == "False"
        assert (place / "data").read_text() == "1"
        assert (tmp_path / "linked").read_text() == "not to be written over"
        (place / "empty" / "mine").touch()
        found = command.prepare(point, seed=1, member={}, directory=place)
        assert found.arguments[1] == "True"

    def test_it_tells_a_run_apart_and_is_told(self):
        same = {"reads": erl.readers.Json("out.json")}
        plain, going_on = (
            erl.Command("echo 1", **same),
            erl.Command("echo 1", checkpoint=True, **same),
        )
        assert plain.version != going_on.version
        assert going_on.describe()["arguments"]["checkpoint"] is True
        assert repr(going_on) == "Command('echo 1', checkpoint=True)"
        with pytest.raises(ValueError, match=r"^checkpoint: wanted True or False, got 'no'$"):
            erl.Command("echo 1", checkpoint="no", **same)
        with pytest.raises(ValueError, match=r"constants: wanted names .* got 'restarted'"):
            erl.Command("echo 1", constants={"restarted": 1}, **same)
