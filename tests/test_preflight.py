"""Preflight without a queue: what each thing that can be wrong is called, and what to do then."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ensemblerl as erl
from ensemblerl.cli.main import cli
from ensemblerl.cluster import preflight as module
from ensemblerl.cluster import probe, probing, verdicts
from ensemblerl.cluster.finding import BAD, GOOD, NOTE, WARN, Finding, Report
from ensemblerl.cluster.interfaces import Interface, Listener, interfaces, network
from ensemblerl.cluster.probing import script_of
from ensemblerl.cluster.queues.base import Queued, QueueSilent, Refused
from ensemblerl.cluster.settings import Settings
from ensemblerl.cluster.verdicts import Asked

JOB: dict[str, Any] = {"n_jobs": 1, "cores": 1, "memory": "500 MB", "walltime": "01:00:00"}
CUSTOM = """#!/bin/bash
#SBATCH --job-name=mine
#SBATCH -t 10
echo loading modules
{worker}
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"EVERY": 0.05, "SETTLING": 0.5, "ENDING": 0.5, "TICK": 0.02}.items():
        monkeypatch.setattr(probing, name, seconds)
    monkeypatch.setattr("ensemblerl.cluster.scratch.PATIENCE", 0.0)


class Waiting:
    """A queue that takes a job and does nothing with it."""

    name = "slurm"
    commands: tuple[str, ...] = ()

    def __init__(self, reason: str = "Resources") -> None:
        self.reason, self.cancelled, self.titles = reason, [], dict[str, str]()
        self.script = ""

    def submit(self, script: str, directory: Path) -> str:
        self.script = script
        title = next(line for line in script.splitlines() if "#SBATCH -J " in line).split()[-1]
        self.titles["7"] = title
        self.begin(script, directory)
        return "7"

    def begin(self, script: str, directory: Path) -> None:
        pass

    def now(self, id: str) -> Queued:
        return Queued(id, self.titles[id], "pending", reason=self.reason)

    def jobs(self, ids: Collection[str]) -> dict[str, Queued]:
        gone = lambda i: Queued(i, self.titles[i], "ended", "cancelled")  # noqa: E731
        return {i: gone(i) if i in self.cancelled else self.now(i) for i in ids}

    def find(self, names: Collection[str]) -> dict[str, Queued]:
        return {t: self.jobs([i])[i] for i, t in self.titles.items() if t in names}

    def cancel(self, ids: Collection[str]) -> None:
        self.cancelled += ids

    def left(self, id: str) -> float | None:
        return None


class Running(Waiting):
    """Runs the script right here."""

    def begin(self, script: str, directory: Path) -> None:
        (directory / "job.sh").write_text(script)
        with (directory / "job.log").open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", directory / "job.sh"], stdout=log, stderr=log, start_new_session=True
            )

    def now(self, id: str) -> Queued:
        state = "running" if self.process.poll() is None else "ended"
        end = "" if state == "running" else "failed"
        left = 3500.0 if state == "running" else None
        return Queued(id, self.titles[id], state, end, node="n1", left=left)

    def cancel(self, ids: Collection[str]) -> None:
        super().cancel(ids)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Elsewhere(Waiting):
    """Runs the probe in this process, and makes another machine of its report."""

    def __init__(self, change: Callable[[dict[str, Any]], None], *, shared: bool = True) -> None:
        super().__init__()
        self._change, self._shared = change, shared

    def begin(self, script: str, directory: Path) -> None:
        words = shlex.split(next(line for line in script.splitlines() if module.PROBE in line))
        file, port = Path(words[3]), int(words[words.index("--port") + 1])
        key, at = words[words.index("--key") + 1], words[words.index("--at") + 1 :]
        report = probe.around(directory) | {"heard": probe.heard_everywhere(at, port, key)}
        report |= {"marked": "", "unwritten": "", "left": 3590.0}
        self._change(report)
        if self._shared:
            assert probe.written(file, report) == ""
        else:
            assert probe.delivered((at[0], port), key, report)

    def now(self, id: str) -> Queued:
        return Queued(id, self.titles[id], "running", node="n1")


def about(findings: Report | list[Finding], what: str) -> Finding:
    lines = findings.findings if isinstance(findings, Report) else findings
    (found,) = [finding for finding in lines if finding.what == what]
    return found


def tried(queue: Any, cluster: dict[str, Any] | None = None, **arguments: Any) -> Report:
    """A preflight that leaves nothing in the current directory."""
    before = sorted(Path.cwd().iterdir())
    settings = Settings("slurm", **(JOB if cluster is None else cluster))
    report = module.preflight(settings, queue=queue, **arguments)
    assert sorted(Path.cwd().iterdir()) == before
    return report


def told(**changes: Any) -> dict[str, Any]:
    """The report of a good node of one processor."""
    report = probe.around(Path.cwd()) | {"node": "n1", "affinity": 1, "marked": "", "unwritten": ""}
    report |= {"variables": {}, "left": 3590.0, "devices": 0}
    return report | changes


def asked(*, member_cores: int = 1, runtime: float | None = None, **cluster: Any) -> Asked:
    return Asked(Settings("slurm", **JOB | cluster), member_cores, runtime, "/here", "")


def test_a_job_that_works_gets_ticks_only_and_is_ended(in_tmp: Path) -> None:
    queue = Running()
    report = tried(queue, expected_runtime="10 min", timeout=60)
    assert report.ok, str(report)
    for what in ("submit", "start", "network", "environment", "directory", "clock", "walltime"):
        assert about(report, what).mark == GOOD, str(report)
    assert about(report, "start").found.startswith("it ran on n1 within ")
    assert "00:58:20 left" in about(report, "walltime").found  # the queue's, shorter than the job's
    assert queue.cancelled == ["7"]
    assert queue.process.poll() == -signal.SIGKILL  # it had stayed, to be seen running


def test_a_refused_job_is_told_in_the_queue_s_words_with_the_argument_to_mend(
    in_tmp: Path,
) -> None:
    class Refusing(Waiting):
        def begin(self, script: str, directory: Path) -> None:
            raise Refused("Invalid account or account/partition combination specified")

    queue = Refusing()
    report = tried(queue)
    (only,) = report.findings
    assert not report.ok
    assert "Invalid account or account/partition combination" in only.found
    assert only.remedy == "mend account= or queue= as it says"
    assert queue.cancelled == []


NODE = "Batch job submission failed: Requested node configuration is not available"


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (f"Memory specification can not be satisfied; {NODE}", "memory="),
        (f"CPU count per node can not be satisfied; {NODE}", "cores="),
        ("Invalid generic resource (gres) specification", "gpus="),
        ("Node count specification invalid", "nodes="),
        (NODE, "cores= or memory= or nodes= or gpus="),
        ("it is not your day", "queue= or account= or options="),
    ],
)
def test_the_remedy_of_a_refusal_names_what_the_queue_named(
    in_tmp: Path, words: str, remedy: str
) -> None:
    class Refusing(Waiting):
        def begin(self, script: str, directory: Path) -> None:
            raise Refused(words)

    assert about(tried(Refusing()), "submit").remedy == f"mend {remedy} as it says"


def test_a_machine_without_the_queue_s_commands_is_told_and_nothing_is_started(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Absent(Waiting):
        commands = ("sh", "no-such-sbatch")

    monkeypatch.setattr(module, "opened", None)
    (only,) = tried(Absent()).findings
    wanted = "there is no command no-such-sbatch here: run this where jobs are submitted"
    assert (only.mark, only.what, only.remedy) == (BAD, "submit", "")
    assert only.found.startswith(wanted)


def test_members_that_have_no_room_in_a_job_are_told_before_anything_is_queued(
    in_tmp: Path,
) -> None:
    queue = Waiting()
    (only,) = tried(queue, JOB | {"cores": 2}, member_cores=6).findings
    assert (only.mark, only.what, queue.script) == (BAD, "cores", "")
    assert only.found.startswith("a member needs 6 (cores= of the simulation), a job has 2")


@pytest.mark.parametrize(
    ("reason", "remedy"), [("Resources", "the machine is busy"), ("AssocGrpLimit", "see what the")]
)
def test_a_job_that_waits_for_ever_is_told_with_its_reason_and_taken_back(
    in_tmp: Path, reason: str, remedy: str
) -> None:
    queue = Waiting(reason)
    report = tried(queue, timeout=0.3)
    assert not report.ok
    assert about(report, "start").found == f"it did not start: the queue says {reason}"
    assert about(report, "start").remedy.startswith(remedy)
    assert queue.cancelled == ["7"]


def test_a_job_that_dies_before_its_probe_is_told_with_its_log(in_tmp: Path) -> None:
    report = tried(Running(), JOB | {"python": "/opt/gone/python"}, timeout=60)
    found = about(report, "start")
    assert (found.mark, report.ok) == (BAD, False)
    assert "ended (failed) on n1" in found.found
    assert "/opt/gone/python: No such file or directory" in found.found
    assert found.remedy.startswith("give python= with an interpreter that nodes have")
    report = tried(Running(), JOB | {"python": f"{sys.executable} -S -I"}, timeout=60)
    assert about(report, "start").remedy.startswith("give python= of an environment")
    report = tried(Running(), JOB | {"prologue": "exit 3"}, timeout=60)
    assert about(report, "start").remedy.startswith("it left no log, as where nodes do not see")


def test_a_job_that_hangs_before_its_probe_is_given_up_and_ended(in_tmp: Path) -> None:
    queue = Running()
    report = tried(queue, JOB | {"prologue": "sleep 600"}, timeout=0.5)
    assert about(report, "start").remedy.startswith("look into prologue=")
    assert queue.process.poll() == -signal.SIGKILL


def test_a_job_of_a_batch_file_of_one_s_own_has_a_name_of_its_own(in_tmp: Path) -> None:
    cluster = {"n_jobs": 1, "cores": 1, "memory": "1 GB", "custom": CUSTOM}
    text = script_of(
        CUSTOM.replace("{worker}", "ensemblerl_worker py -m distributed.cli.dask_worker tls://a:1"),
        "title",
        "slurm",
        ["a.b", "two words"],
    )
    assert text == (
        "#!/bin/bash\n#SBATCH --job-name=title\n#SBATCH -t 10\necho loading modules\n"
        "py -m a.b 'two words'\n"
    )
    nameless = cluster | {"custom": CUSTOM.replace("#SBATCH --job-name=mine\n", "")}
    queue = Running()
    report = tried(queue, nameless, timeout=60)
    assert report.ok, str(report)
    assert queue.script.splitlines()[1].startswith("#SBATCH -J ensemblerl-probe-")
    with pytest.raises(ValueError, match="wanted one that starts a Dask worker"):
        script_of("#!/bin/sh\necho\n", "title", "slurm", ["a"])


def test_a_submission_without_an_answer_is_looked_for_by_name(in_tmp: Path) -> None:
    class Deaf(Waiting):
        def begin(self, script: str, directory: Path) -> None:
            raise QueueSilent("sbatch gave no answer within 20 s")

    queue = Deaf()
    report = tried(queue, timeout=0.3)
    assert about(report, "submit").mark == GOOD
    assert queue.cancelled == ["7"]
    lost = Deaf()
    lost.find = lambda names: {}  # type: ignore[method-assign]
    report = tried(lost, timeout=5)
    assert about(report, "submit").found.startswith("slurm gave no answer to the submission")


def test_a_job_is_ended_when_somebody_presses_ctrl_c(in_tmp: Path) -> None:
    class Interrupted(Running):
        def now(self, id: str) -> Queued:
            if not hasattr(self, "pressed"):
                self.pressed = True
                raise KeyboardInterrupt
            return super().now(id)

    queue = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        tried(queue)
    assert queue.cancelled == ["7"]
    assert list(in_tmp.iterdir()) == []


def test_a_job_that_cannot_be_ended_is_told(in_tmp: Path) -> None:
    class Stubborn(Waiting):
        def cancel(self, ids: Collection[str]) -> None:
            raise QueueSilent("scancel: Unable to contact slurm controller")

    report = tried(Stubborn(), timeout=0.2)
    assert about(report, "clean-up").found == (
        "job 7 could not be ended: scancel: Unable to contact slurm controller"
    )
    assert not report.ok


def test_other_versions_on_the_node_are_crosses_where_members_would_not_travel() -> None:
    ours = probe.environment()
    for change, mark, words in (
        ({"python": "3.9.2"}, BAD, "Python 3.9.2 there, "),
        ({"versions": ours["versions"] | {"numpy": "1.0"}}, WARN, "numpy 1.0 there, "),
        ({"versions": ours["versions"] | {"ensemblerl": "9"}}, BAD, "ensemblerl 9 there, "),
        (
            {"versions": ours["versions"] | {"distributed": "ImportError: libssl.so.1"}},
            BAD,
            "distributed cannot be imported there (ImportError: libssl.so.1)",
        ),
    ):
        (found,) = verdicts.same_environment(ours | change, ours)
        assert (found.mark, words in found.found) == (mark, True), found
        assert found.remedy.startswith("give python= of the same environment")
    (patch,) = verdicts.same_environment(ours | {"python": "3.11.99"}, ours | {"python": "3.11.1"})
    assert patch.mark == WARN
    same, path = verdicts.same_environment(ours | {"path": "/old/ensemblerl"}, ours)
    assert (same.mark, path.mark, "/old/ensemblerl" in path.found) == (GOOD, NOTE, True)


def test_a_whole_preflight_tells_what_the_node_said(in_tmp: Path) -> None:
    def change(report: dict[str, Any]) -> None:
        report["versions"]["cloudpickle"] = "0.1"
        report["now"] += 3600
        report["room"] = {"files": 12, "bytes": 10**12}

    report = tried(Elsewhere(change), expected_runtime=7200)
    assert "cloudpickle 0.1 there" in about(report, "environment").found
    clock = about(report, "clock")
    assert (clock.mark, "01:00:0" in clock.found, "ahead" in clock.found) == (NOTE, True, True)
    assert about(report, "files").mark == BAD
    assert about(report, "files").found.startswith("12 files and 1000.0 GB fit")
    assert about(report, "walltime").mark == BAD
    assert about(report, "walltime").remedy == "give walltime= of more than 02:01:00"
    assert not report.ok
    page = report._repr_html_()
    assert page.count("<tr>") == len(report.findings)
    assert "✗" in page


@pytest.mark.parametrize(
    ("unwritten", "words"),
    [("Permission denied", "cannot write in"), ("", "is another disk than here")],
)
def test_a_node_that_cannot_write_where_we_read_is_heard_all_the_same(
    in_tmp: Path, unwritten: str, words: str
) -> None:
    def change(report: dict[str, Any]) -> None:
        report["unwritten"] = unwritten

    report = tried(Elsewhere(change, shared=False))
    found = about(report, "directory")
    assert (found.mark, words in found.found, unwritten in found.found) == (BAD, True, True)
    assert found.remedy.startswith("give directory= on a disk that all nodes share")


def test_a_store_that_the_node_does_not_see_is_a_warning(in_tmp: Path) -> None:
    cluster = JOB | {"directory": in_tmp / "scratch"}
    store = in_tmp / "store" / "segments"
    report = tried(Running(), cluster, segments=str(store), timeout=60)
    assert about(report, "store").mark == GOOD
    hidden = Elsewhere(lambda report: report.update(marked="not to be seen there"))
    report = tried(hidden, cluster, segments=str(store))
    assert about(report, "store").mark == WARN
    assert f"cannot use {in_tmp / 'store'}" in about(report, "store").found
    inside = tried(Running(), segments=str(store), timeout=60)
    assert "store" not in [finding.what for finding in inside.findings]


def test_the_probe_says_what_it_cannot_write(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert probe.marked(mark) == "not to be seen there"
    mark.touch()
    assert probe.marked(mark) == ""
    assert list(tmp_path.iterdir()) == [mark]
    assert probe.marked(Path("/proc/version")) != ""  # nobody can make a file there
    assert probe.written(Path("/proc/report.json"), {}) != ""
    assert probe.written(tmp_path / "not" / "there.json", {}) == "No such file or directory"


def test_an_interface_that_does_not_work_is_told_with_one_that_does() -> None:
    eth, ib = Interface("eth0", "10.1.0.1"), Interface("ib0", "10.2.0.1")
    lo = Interface("lo", "127.0.0.1")
    heard = {
        eth.address: {"error": "timed out"},
        ib.address: {"word": "w", "own": "10.2.0.9"},
        lo.address: {"word": "somebody else's"},
    }
    report = {"heard": heard, "node": "n1", "interfaces": ["eth0", "ib0", "lo"]}

    def verdict(used: str, interface: str = "", **changes: Any) -> list[Finding]:
        return list(network(report | changes, [eth, ib, lo], used, "w", interface))

    (good,) = verdict(ib.address)
    assert good == Finding(
        GOOD, "network", "n1 reaches ib0 10.2.0.1, which is used (from 10.2.0.9)"
    )
    (bad,) = verdict(eth.address)
    assert bad == Finding(
        BAD,
        "network",
        "nodes cannot reach eth0 10.1.0.1, which would be used (timed out); ib0 10.2.0.1 works",
        "give interface='ib0'",
    )
    (other,) = verdict(lo.address)
    assert "127.0.0.1, which would be used (somebody else answers)" in other.found
    (elsewhere,) = verdict(eth.address, interfaces=["hsn0", "lo"])
    assert elsewhere.remedy == "give host='10.2.0.1'"
    (none,) = verdict(eth.address, heard={eth.address: {"error": "timed out"}})
    assert "nor any other address" in none.found
    good, missing = verdict(ib.address, "ib7")
    assert (good.mark, missing.mark) == (GOOD, BAD)
    assert missing.remedy == "give host='10.2.0.1' in place of interface="


def test_the_listener_answers_on_every_address_but_not_to_everybody() -> None:
    with Listener() as listener:
        here = [interface.address for interface in interfaces()]
        heard = probe.heard_everywhere(here, listener.port, listener.key)
        assert {answer.get("word") for answer in heard.values()} == {listener.word}
        link = ("127.0.0.1", listener.port)
        assert probe.heard_at(link, "wrong")["word"] == ""
        assert not probe.delivered(link, "wrong", {"a": 1})
        assert listener.report is None
        assert probe.delivered(link, listener.key, {"a": 1})
        assert listener.report is not None
        assert listener.report["a"] == 1
    with socket.socket() as free:  # bound, and nobody listens
        free.bind(("127.0.0.1", 0))
        answer = probe.heard_at(("127.0.0.1", free.getsockname()[1]), "key")
    assert answer == {"error": "Connection refused"}


def test_an_interface_that_this_machine_does_not_have_is_told_before_anything_is_queued(
    in_tmp: Path,
) -> None:
    queue = Waiting()
    report = tried(queue, JOB | {"interface": "ib9"})
    assert about(report, "scheduler").mark == BAD
    found = about(report, "scheduler").found
    assert "interface: wanted one of this machine (" in found
    assert "lo" in found
    assert "got 'ib9'. Where only nodes have it, give host= besides" in found
    assert queue.script == ""


def test_an_address_that_this_machine_does_not_have_is_told_before_anything_is_queued(
    in_tmp: Path,
) -> None:
    queue = Waiting()
    report = tried(queue, JOB | {"host": "192.0.2.77"})
    found = about(report, "scheduler").found
    assert "host: wanted an address of this machine (" in found
    assert "127.0.0.1" in found
    assert "got '192.0.2.77', where the Dask scheduler does not start" in found
    assert queue.script == ""


def test_an_interface_of_nodes_alone_is_fine_beside_an_address(in_tmp: Path) -> None:
    queue = Waiting()
    report = tried(queue, JOB | {"interface": "ib9", "host": "127.0.0.1"}, timeout=0.2)
    assert about(report, "submit").mark == GOOD
    assert "--interface ib9" not in queue.script  # that of the worker, which is not in a probe


def test_a_directory_that_cannot_be_made_is_told(in_tmp: Path) -> None:
    (in_tmp / "file").touch()
    queue = Waiting()
    report = tried(queue, JOB | {"directory": in_tmp / "file" / "below"})
    assert about(report, "directory").mark == BAD
    assert queue.script == ""


def test_processors_and_threads_are_those_that_the_job_has() -> None:
    few, _ = verdicts.processors(told(affinity=1), asked(cores=4))
    assert (few.mark, "cores= asks for 4" in few.found) == (WARN, True)
    by_queue, _ = verdicts.processors(
        told(affinity=8, variables={"SLURM_CPUS_ON_NODE": "2"}), asked(cores=4)
    )
    assert (by_queue.mark, "2 by the queue's word" in by_queue.found) == (WARN, True)
    spread, _ = verdicts.processors(told(affinity=2), asked(cores=4, nodes=2))
    assert spread.mark == GOOD
    free, _ = verdicts.processors(
        told(affinity=8, variables={"SLURM_CPUS_ON_NODE": "4"}), asked(cores=4)
    )
    assert (free.mark, "not kept to its own" in free.found) == (GOOD, True)
    site = told(variables={"OMP_NUM_THREADS": "8"})
    _, threads = verdicts.processors(site, asked(member_cores=2))
    assert (threads.mark, threads.remedy) == (WARN, 'give prologue=["export OMP_NUM_THREADS=2"]')
    _, threads = verdicts.processors(site, asked(cores=8, member_cores=8))
    assert threads.mark == GOOD


def test_gpus_are_counted_where_they_were_asked_for() -> None:
    assert list(verdicts.gpus(told(), asked())) == []
    two = asked(cores=2, gpus=2)
    (none,) = verdicts.gpus(told(), two)
    assert (none.mark, none.found) == (BAD, "0 of 2 on n1")
    (given,) = verdicts.gpus(told(variables={"CUDA_VISIBLE_DEVICES": "0,1"}), two)
    assert given.mark == GOOD
    (hidden,) = verdicts.gpus(told(variables={"CUDA_VISIBLE_DEVICES": ""}, devices=2), two)
    assert hidden.mark == BAD
    (unset,) = verdicts.gpus(told(devices=2), two)
    assert (unset.mark, "is not set" in unset.found) == (WARN, True)
    (half,) = verdicts.gpus(
        told(variables={"CUDA_VISIBLE_DEVICES": "0"}), asked(cores=2, gpus=2, nodes=2)
    )
    assert half.mark == GOOD


@pytest.mark.parametrize(
    ("left", "queue_left", "runtime", "cluster", "mark", "words"),
    [
        (3590.0, None, 600.0, {}, GOOD, "00:59:50 left for the job as it began: 5 members"),
        (3590.0, None, None, {}, GOOD, "00:59:50 left for the job as it began"),
        (3590.0, 1700.0, None, {}, WARN, "asked for were 01:00:00: the queue cuts it"),
        (3590.0, None, 3560.0, {}, BAD, "a member of 00:59:20 would be cut off"),
        (1000.0, None, 10.0, {"max_runtime": 1200}, BAD, "a member of 00:20:00 would be cut off"),
        (None, None, 10.0, {}, WARN, "neither the job nor the queue says when it ends"),
        (None, 3600.0, 10.0, {}, GOOD, "01:00:00 left"),
    ],
)
def test_the_shorter_of_what_job_and_queue_say_is_what_members_have(
    left: float | None,
    queue_left: float | None,
    runtime: float | None,
    cluster: dict[str, Any],
    mark: str,
    words: str,
) -> None:
    (found,) = verdicts.walltime(told(left=left), queue_left, asked(runtime=runtime, **cluster))
    assert (found.mark, words in found.found) == (mark, True), found


def test_a_clock_behind_is_harmless_and_a_late_report_is_no_wrong_clock() -> None:
    (behind,) = verdicts.clocks(told(now=1000.0), 1090.0)
    assert (behind.mark, "00:01:30 behind" in behind.found) == (NOTE, True)
    (late,) = verdicts.clocks(told(now=1000.0), 1003.0)
    assert late.mark == GOOD


@pytest.mark.parametrize(
    ("files", "size", "mark"),
    [
        (-1, -1, GOOD),
        (10**6, 10**12, GOOD),
        (10**4, 10**12, WARN),
        (999, 10**12, BAD),
        (0, 10**12, BAD),
        (10**6, 10**8 - 1, BAD),
        (-1, 10**9 - 1, WARN),
    ],
)
def test_a_disk_that_is_nearly_full_is_told(files: int, size: int, mark: str) -> None:
    found, _ = verdicts.room(told(room={"files": files, "bytes": size}), asked())
    assert found.mark == mark
    assert bool(found.remedy) == (mark != GOOD)


def test_a_place_for_temporary_files_that_is_not_there_or_small_is_told() -> None:
    tmp = {"path": "/tmp", "files": -1, "bytes": 10**11}
    _, good = verdicts.room(told(temporary=tmp, variables={"TMPDIR": "/tmp/"}), asked())
    assert good.mark == GOOD
    _, lost = verdicts.room(told(temporary=tmp, variables={"TMPDIR": "/local/7"}), asked())
    assert (lost.mark, "/local/7 cannot be used there" in lost.found) == (WARN, True)
    _, small = verdicts.room(told(temporary=tmp | {"bytes": 10**8}), asked())
    assert small.mark == WARN


def test_room_counts_what_a_disk_does_not_count_as_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = probe.room(tmp_path)
    assert real["bytes"] > 0
    none = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: none)
    assert probe.room(tmp_path) == {"bytes": -1, "files": -1}


def test_a_report_shows_signs_and_remedies_under_each_other() -> None:
    report = Report((Finding(GOOD, "submit", "yes"), Finding(BAD, "net", "no\nlog", "give <x>")))
    assert str(report) == "✓ submit  yes\n✗ net     no\n          log\n          → give <x>"
    assert "give &lt;x&gt;" in report._repr_html_()
    assert not report.ok
    assert Report((Finding(WARN, "a", "b"), Finding(NOTE, "c", "d"))).ok


def test_arguments_that_make_no_sense_are_named(in_tmp: Path) -> None:
    settings = Settings("slurm", **JOB)
    for argument, value in {
        "member_cores": 0,
        "expected_runtime": "soon",
        "timeout": -1,
    }.items():
        with pytest.raises(ValueError, match=f"{argument}: wanted"):
            module.preflight(settings, queue=Waiting(), **{argument: value})


def test_a_misspelt_argument_of_a_preflight_is_told_the_near_one() -> None:
    cluster = erl.Cluster("slurm", **JOB)
    for argument, near in {"runtime": "expected_runtime", "time_out": "timeout"}.items():
        with pytest.raises(TypeError, match=rf"^{argument}: no such argument; .* {near}\?"):
            cluster.preflight(**{argument: 5})
    with pytest.raises(TypeError, match=r"^settings: no such argument"):
        cluster.preflight(settings=5)


WORKFLOW = """
import ensemblerl as erl

if __name__ == "__main__":
    erl.explore(lambda x: x, erl.Space(x=erl.Real(0, 1)), erl.Minimize(), n_members=4, seed=1,
                sampler="sobol", progress=False, cluster={cluster})
"""


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[Running]:
    """The queues that a preflight was given by name."""
    made: list[Running] = []

    def queue_of(scheduler: str) -> Running:
        made.append(Running())
        return made[-1]

    monkeypatch.setattr(module, "queue_of", queue_of)
    return made


def test_check_submits_nothing_unless_it_is_asked_to(
    in_tmp: Path, submitted: list[Running]
) -> None:
    (in_tmp / "site.toml").write_text(
        'scheduler = "slurm"\nn_jobs = 1\ncores = 2\nmemory = "1 GB"\nwalltime = "01:00:00"\n'
    )
    (in_tmp / "flow.py").write_text(WORKFLOW.format(cluster='"site.toml"'))
    done = CliRunner().invoke(cli, ["check", "flow.py"], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    assert "slurm was not tried" in done.stdout
    assert "check it with --queue" in done.stdout
    assert "for 4 members, 2 at a time in 1 jobs of 2, once these run" in done.stdout
    assert submitted == []
    done = CliRunner().invoke(cli, ["check", "flow.py", "--queue"], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    assert "slurm takes a job (7)" in done.stdout
    assert "members one after the other" in done.stdout
    assert submitted[0].cancelled == ["7"]
    assert sorted(path.name for path in in_tmp.iterdir()) == ["flow.py", "site.toml"]


@pytest.mark.parametrize("queue", [[], ["--queue"]])
def test_check_says_that_a_member_has_no_room_in_a_job(
    in_tmp: Path, submitted: list[Running], queue: list[str]
) -> None:
    cluster = 'erl.Cluster("slurm", n_jobs=1, cores=2, memory="1 GB", walltime="1 h")'
    text = WORKFLOW.format(cluster=cluster).replace("lambda x: x", "erl.Function(f, cores=6)")
    (in_tmp / "flow.py").write_text(text.replace("if __name__", "def f(x): return x\nif __name__"))
    done = CliRunner().invoke(cli, ["check", "flow.py", *queue], env={"COLUMNS": "200"})
    assert done.exit_code == 1, done.output
    assert "a member needs 6 (cores= of the simulation), a job has 2" in done.stdout
    assert not [queue for queue in submitted if queue.script]


def test_check_says_that_there_is_no_queue_to_try(in_tmp: Path, submitted: list[Running]) -> None:
    (in_tmp / "flow.py").write_text(WORKFLOW.format(cluster='"serial"'))
    done = CliRunner().invoke(cli, ["check", "flow.py", "--queue"], env={"COLUMNS": "120"})
    assert "takes no jobs from a queue" in done.stdout
    assert submitted == []
    done = CliRunner().invoke(cli, ["check", "flow.py"], env={"COLUMNS": "120"})
    assert "queue" not in done.stdout


def test_a_cluster_hands_its_settings_to_the_preflight(
    in_tmp: Path, submitted: list[Running]
) -> None:
    report = erl.Cluster("slurm", **JOB).preflight(expected_runtime=60, timeout=None)
    assert report.ok, str(report)
    assert submitted[0].cancelled == ["7"]
