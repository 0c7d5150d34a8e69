"""What a learning sampler is offered: in which order, once, in a replay, and at the end."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from student import SPACE, Student, prepare, square

import ensemblerl as erl
from ensemblerl.events import Launched, Opened, Published
from ensemblerl.loop.hooks import having
from ensemblerl.policyfile import FOLDER, file_name
from ensemblerl.records import Demands
from ensemblerl.samplers.chain import Chain
from ensemblerl.samplers.portfolio import Portfolio
from ensemblerl.samplers.sobol import Sobol
from ensemblerl.samplers.uniform import Uniform
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.learning import read
from ensemblerl.store.merging import merged
from ensemblerl.store.reading import read_events
from ensemblerl.store.telemetry import NAME, LearningLog, read_rows

CUBE = SPACE.cube


def told(path):
    """Rows of the telemetry, but for when they came."""
    return [
        {key: value for key, value in row.items() if key not in ("time", "n_events")}
        for row in read_rows(Path(path))
    ]


def check_order(path):
    """Every member's version was published before it was launched; each version once."""
    published: list[int] = []
    for event in read_events(Path(path)):
        if isinstance(event, Published):
            published.append(event.version)
        if isinstance(event, Launched):
            assert set(event.members.notes["version"].tolist()) <= {-1, *published}
    assert published == list(range(len(published)))
    return published


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("hooks") / "whole"
    prepare(path).run()
    return path


class TestPublishing:
    def test_the_file_is_there_before_its_event(self, tmp_path, monkeypatch):
        append, seen = DirectoryStore.append, []

        def spy(store, *events):
            for event in events:
                if isinstance(event, Published):
                    file = store.path / FOLDER / file_name(event.version)
                    seen.append((event.version, file.exists()))
            append(store, *events)

        monkeypatch.setattr(DirectoryStore, "append", spy)
        prepare(tmp_path / "s").run()
        assert seen == [(version, True) for version in range(5)]

    def test_events_come_before_the_members_that_carry_the_version(self, undisturbed):
        assert check_order(undisturbed) == [0, 1, 2, 3, 4]
        versions = erl.open(undisturbed).policy_version.values.tolist()
        assert versions == [0, 0, 1, 1, 2, 2, 3, 3]

    def test_the_untrained_policy_comes_right_after_the_opening(self, undisturbed):
        kinds = [type(event) for event in read_events(undisturbed)]
        assert kinds[:2] == [Opened, Published]

    def test_what_was_learnt_in_ask_comes_before_its_members(self, tmp_path):
        class Eager(Student):
            def ask(self, n, rng, context=None):
                self.version += 1
                self.snapshots.append(self._snapshot())
                return super().ask(n, rng, context)

        prepare(tmp_path / "s", Eager(CUBE)).run()
        assert len(check_order(tmp_path / "s")) > 8

    def test_what_came_late_is_kept_when_the_session_ends(self, tmp_path):
        class Slow(Student):
            """Hands out what was ready one call before, as a process beside would."""

            def published(self):
                ready, self.ready = getattr(self, "ready", []), super().published()
                return ready

        prepare(tmp_path / "s", Slow(CUBE, every=4)).run()
        published = [e for e in read_events(tmp_path / "s") if isinstance(e, Published)]
        assert [event.version for event in published] == [0, 1, 2]

    def test_readers_still_take_many_launches_at_once(self, undisturbed):
        events = [*read_events(undisturbed)]
        assert sum(isinstance(e, Launched) for e in merged(events)) == 2

    def test_several_members_in_flight(self, tmp_path):
        prepare(
            tmp_path / "s", cluster=erl.Simulated(4, order="shuffled", seed=1), n_members=40
        ).run()
        assert check_order(tmp_path / "s") == list(range(21))

    def test_a_version_with_other_weights_is_refused(self, tmp_path):
        two = Portfolio([Student(CUBE), Student(CUBE, name="second", every=3)])
        with pytest.raises(
            ValueError, match=r"version: wanted one above \d.*one agent, or erl\.fork"
        ):
            prepare(tmp_path / "s", two).run()

    def test_the_same_version_again_is_no_harm(self, tmp_path):
        class Repeating(Student):
            def published(self):
                return [*super().published(), self._snapshot()]

            def _snapshot(self):
                self.last = getattr(self, "last", {})
                return self.last.setdefault(self.version, super()._snapshot())

        prepare(tmp_path / "s", Repeating(CUBE)).run()
        assert check_order(tmp_path / "s") == [0, 1, 2, 3, 4]


class TestReplay:
    def test_a_campaign_cut_anywhere_goes_on_as_if_nothing_had_been(self, undisturbed, tmp_path):
        lines = (undisturbed / "ledger.jsonl").read_bytes().splitlines(keepends=True)
        whole = erl.open(undisturbed).load()
        for cut in range(len(lines)):
            path = tmp_path / str(cut)
            shutil.copytree(undisturbed, path)
            for name in ("checkpoint.npz", "compacted.json", "zarr.json"):  # these came last
                (path / name).unlink()
            (path / "ledger.jsonl").write_bytes(b"".join(lines[:cut]))
            prepare(path).run()
            assert check_order(path) == [0, 1, 2, 3, 4], cut
            assert told(path) == told(undisturbed), cut
            ds = erl.open(path)
            for name in ("policy_version", "x", "value"):
                np.testing.assert_array_equal(ds[name], whole[name])

    def test_a_kill_before_the_telemetry_loses_none_of_it(self, undisturbed, tmp_path):
        shutil.copytree(undisturbed, tmp_path / "s")
        (tmp_path / "s" / "checkpoint.npz").unlink()
        file = tmp_path / "s" / NAME
        rows = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(rows[:3]) + rows[3][:10])
        prepare(tmp_path / "s", n_members=10).run()
        assert told(tmp_path / "s")[:8] == told(undisturbed)
        assert len(told(tmp_path / "s")) == 10

    def test_from_a_checkpoint_versions_and_telemetry_go_on(self, undisturbed, tmp_path):
        shutil.copytree(undisturbed, tmp_path / "s")
        prepare(tmp_path / "s", n_members=12).run()
        assert check_order(tmp_path / "s") == list(range(7))
        assert told(tmp_path / "s")[:8] == told(undisturbed)
        assert [row["version"] for row in told(tmp_path / "s")[8:]] == [5, 5, 6, 6]

    def test_what_a_replay_publishes_otherwise_is_dropped(self, tmp_path):
        """The agent was changed, or learns in the background where it learnt inline before."""
        prepare(tmp_path / "s", n_members=9).run()
        (tmp_path / "s" / "checkpoint.npz").unlink()
        folder = tmp_path / "s" / FOLDER
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        other = Student(CUBE, every=3)
        with prepare(tmp_path / "s", other, n_members=10):
            assert other.version == 3  # published after the last version that the store knows
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        assert check_order(tmp_path / "s") == [0, 1, 2, 3, 4]

    def test_a_version_that_lost_its_event_gets_it_before_the_session_begins(
        self, undisturbed, tmp_path
    ):
        shutil.copytree(undisturbed, tmp_path / "s")
        (tmp_path / "s" / "checkpoint.npz").unlink()
        events = [type(event) for event in read_events(undisturbed)]
        second = [i for i, kind in enumerate(events) if kind is Published][2]
        file = tmp_path / "s" / "ledger.jsonl"
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines[:second]))
        student = Student(CUBE)
        prepare(tmp_path / "s", student).run()
        assert student.calls[0] == ("begin", True, 2)

    def test_demands_are_those_of_the_events(self, undisturbed, tmp_path, monkeypatch):
        def falling(goal, ledger, n_members):
            return Demands(temperature=1 - len(ledger) / n_members)

        monkeypatch.setattr(erl.Minimize, "demands", falling)
        shutil.copytree(undisturbed, tmp_path / "s")
        (tmp_path / "s" / "checkpoint.npz").unlink()
        live, again = Student(CUBE), Student(CUBE)
        prepare(tmp_path / "live", live).run()
        prepare(tmp_path / "s", again).close()
        assert again.heard == live.heard
        temperatures = [demands.temperature for demands in live.heard]
        assert temperatures[:4] == [1.0, 1 - 1 / 8, 1 - 1 / 8, 1 - 2 / 8]
        assert temperatures[-1] == 0.0


class TestWhoIsCalled:
    def test_parts_of_parts_get_the_hooks(self, tmp_path):
        student = Student(CUBE)
        inner = Portfolio([Sobol(CUBE), student])
        prepare(tmp_path / "s", Chain([inner, Uniform(CUBE)])).run()
        assert student.calls == [("begin", True, -1), "close"]
        assert len(student.heard) > 8
        assert check_order(tmp_path / "s") == [0, 1, 2, 3, 4]
        assert {row["proposer"] for row in told(tmp_path / "s")} == {"student"}

    def test_what_has_the_hook_itself_hides_its_parts(self):
        whole = Portfolio([Student(CUBE), Sobol(CUBE)])
        assert [part.name for part in having(whole, "heed")] == ["student"]
        whole.heed = print
        assert having(whole, "heed") == [whole]

    def test_demands_are_computed_for_those_who_heed_only(self, tmp_path, monkeypatch):
        asked = []
        demands = erl.Minimize.demands
        monkeypatch.setattr(
            erl.Minimize, "demands", lambda *args: asked.append(1) or demands(*args)
        )
        prepare(tmp_path / "one", Sobol(CUBE)).run()
        assert not asked
        prepare(tmp_path / "two").run()
        assert asked

    @pytest.mark.parametrize("inline", [True, False])
    def test_where_members_run(self, tmp_path, inline):
        with ThreadPoolExecutor(1) as pool:
            for name, cluster in {"a": "serial", "b": erl.Simulated(3), "c": pool}.items():
                if (name != "c") == inline:
                    student = Student(CUBE)
                    prepare(tmp_path / name, student, cluster=cluster).run()
                    assert student.calls[0] == ("begin", inline, -1)
                    assert student.located == (inline, 0)

    def test_by_hand_is_inline(self, tmp_path):
        student = Student(CUBE)
        campaign = erl.prepare(
            None, SPACE, erl.Minimize(), n_members=4, store=tmp_path / "s", sampler=student
        )
        with campaign:
            for _ in range(4):
                members = campaign.ask(1)
                campaign.tell(members, [square(*members.points["x"])])
        assert student.calls == [("begin", True, -1), "close"]
        assert check_order(tmp_path / "s") == [0, 1, 2]

    def test_begin_knows_the_newest_version(self, undisturbed, tmp_path):
        shutil.copytree(undisturbed, tmp_path / "s")
        student = Student(CUBE)
        prepare(tmp_path / "s", student, n_members=9).run()
        assert student.calls == [("begin", True, 4), "close"]

    @pytest.mark.parametrize("checkpoint", [True, False])
    def test_locate_comes_before_anything_is_known(self, undisturbed, tmp_path, checkpoint):
        shutil.copytree(undisturbed, tmp_path / "s")
        if not checkpoint:
            (tmp_path / "s" / "checkpoint.npz").unlink()
        student = Student(CUBE)
        prepare(tmp_path / "s", student).close()
        assert student.seen == 8
        assert student.located == (True, 0)

    def test_one_that_catches_up_in_begin_publishes_what_is_new(self, undisturbed, tmp_path):
        class Other(Student):
            def begin(self, *, in_process, last):
                self.total += 99.0  # its versions are not those in the store
                self.snapshots = [
                    replace(self._snapshot(), version=i) for i in range(last.version + 2)
                ]
                self.version = last.version + 1

        shutil.copytree(undisturbed, tmp_path / "s")
        before = (undisturbed / FOLDER / file_name(2)).read_bytes()
        prepare(tmp_path / "s", Other(CUBE, every=99), n_members=9).run()
        assert check_order(tmp_path / "s") == [0, 1, 2, 3, 4, 5]
        assert (tmp_path / "s" / FOLDER / file_name(2)).read_bytes() == before


class TestClosing:
    def test_after_an_error_in_tell(self, tmp_path):
        class Failing(Student):
            def tell(self, members, results):
                raise RuntimeError("no more")

        student = Failing(CUBE)
        with pytest.raises(RuntimeError, match="no more"):
            prepare(tmp_path / "s", student).run()
        assert student.calls == [("begin", True, -1), "close"]

    def test_after_an_error_in_begin(self, tmp_path):
        class Unable(Student):
            def begin(self, *, in_process, last):
                raise RuntimeError("no process")

        student = Unable(CUBE)
        with pytest.raises(RuntimeError, match="no process"), prepare(tmp_path / "s", student):
            pytest.fail("it was opened")
        assert student.calls == ["close"]
        DirectoryStore.resume(tmp_path / "s").close()

    def test_without_a_session(self, undisturbed, tmp_path):
        shutil.copytree(undisturbed, tmp_path / "s")
        student = Student(CUBE)
        prepare(tmp_path / "s", student).run()
        assert student.calls == ["close"]

    def test_one_that_raises_keeps_no_other_from_closing(self, tmp_path):
        class Stuck(Student):
            def close(self):
                super().close()
                raise RuntimeError("stuck")

        parts = [Stuck(CUBE, every=99), Student(CUBE, name="b", every=99), Stuck(CUBE, name="c")]
        for part in parts[1:]:
            part.snapshots = []
        campaign = prepare(tmp_path / "s", Portfolio(parts), n_members=1)
        with pytest.raises(RuntimeError, match="stuck"):
            campaign.run()
        assert [part.calls[-1] for part in parts] == ["close"] * 3
        DirectoryStore.resume(tmp_path / "s").close()


class TestTelemetry:
    def test_it_is_readable_while_the_campaign_runs(self, tmp_path):
        seen = []

        def watch(campaign):
            if campaign.ledger.n_settled >= 4 and not seen:
                seen.append(read(tmp_path / "s"))

        prepare(tmp_path / "s", watch=watch).run()
        assert seen[0].version.values.tolist() == [1, 1, 2, 2]
        assert read(tmp_path / "s").version.values.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]

    def test_columns_say_what_they_are(self, undisturbed):
        ds = read(undisturbed)
        assert ds.loss.dims == ("lesson",)
        assert ds.lag_counts.dims == ("lesson", "lag_counts_bin")
        assert ds.lag_counts.values[3].tolist() == [4, 1, 1]
        assert ds.time.dtype.kind == "M"
        assert ds.version.dtype.kind == "i"
        assert ds.temperature.attrs == {
            "long_name": "temperature alpha, in units of the utility",
            "units": "1",
        }
        assert all(variable.attrs["long_name"] for variable in ds.variables.values())

    def test_rows_that_differ_are_filled_up(self, tmp_path):
        log = LearningLog(tmp_path / NAME, 0)
        log.append([{"a": 1, "b": [1.0, np.nan]}, {"a": np.inf, "c": "x", "b": np.arange(3)}], 1)
        log.append([{}], 2)
        log.close()
        from ensemblerl.store.learning import dataset

        ds = dataset(list(read_rows(tmp_path)))
        np.testing.assert_array_equal(ds.a, [1, np.inf, np.nan])
        np.testing.assert_array_equal(
            ds.b, [[1, np.nan, np.nan], [0, 1, 2], [np.nan, np.nan, np.nan]]
        )
        assert ds.c.values.tolist() == ["", "x", ""]

    def test_every_line_is_strict_json(self, tmp_path):
        log = LearningLog(tmp_path / NAME, 0)
        log.append([{"loss": np.nan, "ess": np.float64(2.5), "n": np.int64(3)}], 7)
        log.close()
        (line,) = (tmp_path / NAME).read_text().splitlines()
        assert json.loads(line) == {"loss": None, "ess": 2.5, "n": 3, "n_events": 7}

    def test_a_torn_tail_is_passed_over_and_cut_off(self, tmp_path):
        log = LearningLog(tmp_path / NAME, 0)
        log.append([{"i": 0}], 1)
        log.append([{"i": 1}], 2)
        log.close()
        data = (tmp_path / NAME).read_bytes()
        (tmp_path / NAME).write_bytes(data + b'{"i": 2, "n_ev')
        assert [row["i"] for row in read_rows(tmp_path)] == [0, 1]
        LearningLog(tmp_path / NAME, 9).close()
        assert (tmp_path / NAME).read_bytes() == data

    def test_rows_of_events_that_were_lost_are_cut_off(self, tmp_path):
        log = LearningLog(tmp_path / NAME, 0)
        for i in range(4):
            log.append([{"i": i}], i)
        log.close()
        log = LearningLog(tmp_path / NAME, 1)
        log.append([{"i": 1}], 1)
        log.append([{"i": "new"}], 2)
        log.close()
        assert [row["i"] for row in read_rows(tmp_path)] == [0, 1, "new"]

    @pytest.mark.parametrize("entry", [None, [[1.0]], {"a": 1}, [1, "a"], 1j])
    def test_other_entries_are_refused_by_name(self, tmp_path, entry):
        log = LearningLog(tmp_path / NAME, 0)
        with pytest.raises(TypeError, match=r"telemetry\['loss'\]: wanted a number"):
            log.append([{"loss": entry}], 1)
        assert not (tmp_path / NAME).exists()
