"""What queues say is understood, and what they do not say is not made up; no queue is needed."""

import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ensemblerl.cluster.queues import commands, qstat
from ensemblerl.cluster.queues.base import (
    NoQueue,
    Queue,
    Queued,
    QueueSilent,
    Refused,
    queue_of,
    require,
    seconds,
)
from ensemblerl.cluster.queues.pbs import Pbs
from ensemblerl.cluster.queues.slurm import Slurm, parsed

SBATCH = "#!/bin/bash\n#SBATCH -J erl-1\n#SBATCH -t 5\nsleep 60\n"
QSUB = "#!/bin/bash\n#PBS -N erl-1\nsleep 60\n"

# Printed by Slurm 22.05: `squeue -h -v -a -t all -u 0 -O ...`, without most of what -v adds, and
# rows of several calls in one; 15 to 19 put together from what it prints for others.
SQUEUE = """\
-----------------------------
all         = true
users       = 0
-----------------------------


last_update_time=1795373269 records=15
1|FAILED|NonZeroExitCode|5:00|0:00|1795373201|n1|0|bad.sh|
2|COMPLETING|None|4:34|0:26|1795373268|n1|0|deaf.sh|
3|PENDING|PartitionConfig|5:00|0:00|N/A||0|ok.sh|
4|PENDING|Resources|1-00:00:00|0:00|N/A||0|a|b|
7|RUNNING|None|INVALID|1:00:00|1795373569|n[1-2]|0|deaf.sh|
8|RUNNING|None|UNLIMITED|0:00|NONE|n1|0|wrap|
11|COMPLETING|TimeLimit|0:00|1:19|1795373200|n1|0|deaf.sh|
12|NODE_FAIL|NodeDown|8:58|0:02|1795373268|n2|0|deaf.sh|
13|PENDING|BeginTime|9:00|0:00|1795373929||1|deaf.sh|
14|COMPLETING|job requeued in held state|9:00|0:00|1795373809|n1|1|deaf.sh|
15|SUSPENDED|None|8:58|0:02|1795373806|n1|0|deaf.sh|
16|CANCELLED|None|UNLIMITED|6:04|1795373266|n1|0|wrap|
17|TIMEOUT|TimeLimit|1:19|1:19|1795373200|n1|0|deaf.sh|
18|COMPLETING|None|4:34|0:26|1795373268|n1|1|deaf.sh|
19|COMPLETING|NonZeroExitCode|5:00|0:00|1795373268|n1|0|bad.sh|
"""
# Printed by the wrapper of Slurm 22.05: `qstat -f`.
WRAPPER = """\
Job Id:	5
	Job_Name = ok.sh
	Job_Owner = root@vm
	job_state = R
	queue = main
	qtime = Sun Nov 22 18:39:21 2026
	mtime = Sun Nov 22 18:39:21 2026
	ctime = Mon Nov 22 18:39:21 2027
	Priority = 0
	Resource_List.walltime = 71582788:15:00

Job Id:	7
	Job_Name = deaf.sh
	Job_Owner = root@vm
	job_state = {state}
	queue = main
	qtime = Sun Nov 22 18:41:41 2026
	mtime = {start}
	ctime = {end}
	exec_host = n1/1
	Priority = 4294901754
	euser = root(0)
	egroup = root(0)
	Resource_List.walltime = 00:05:00
	Resource_List.nodect = 1
	Resource_List.ncpus = 1

"""
# Not recorded: in the format of the PBS Professional reference guide, and of "Job exit status" in
# the Torque administrator guide. Lines are folded into lines that begin with a tab.
DOCUMENTED = """\
Job Id: 11.pbs01.example.org
    Job_Name = erl-1
    Job_Owner = ada@login1.example.org
    resources_used.walltime = 00:10:00
    job_state = {state}
    server = pbs01.example.org
    exec_host = n1/0*4+n1/1*4+n2/0*4
    Resource_List.walltime = 01:00:00
    stime = {start}
    comment = Job run at Sun Nov 22 at 18:40 on (n1:ncpus=4:mem=8388608kb)+(n2:
	ncpus=4:mem=8388608kb)
    Variable_List = PBS_O_HOME=/home/ada,PBS_O_WORKDIR=/home/ada,
	job_state = nonsense
    run_count = 2
{more}
Job Id: 12.pbs01.example.org
    Job_Name = erl-2
    Job_Owner = grace@login1.example.org
    job_state = Q
    server = pbs01.example.org
    comment = Not Running: Insufficient amount of resource: ncpus
    run_count = 1
"""
Shim = Callable[[str, str], Path]


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shim:
    """Puts a command of this name on PATH, before all others, that runs these lines of sh."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")

    def made(name: str, lines: str) -> Path:
        command = place / name
        command.write_text(f"#!/bin/sh\n{lines}\n")
        command.chmod(0o755)
        return command

    made("qselect", "echo qselect: not here >&2; exit 1")
    return made


def says(text: str, code: int = 0) -> str:
    """Lines of sh that print this."""
    return f"printf '%s' {shlex.quote(text)}; exit {code}"


def complains(text: str, code: int = 1) -> str:
    """Lines of sh that print this as an error."""
    return f"printf '%s\\n' {shlex.quote(text)} >&2; exit {code}"


def clock(ago: float) -> str:
    """The time so many seconds ago, as PBS writes it."""
    return time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(time.time() - ago))


def by_id(text: str) -> dict[str, Queued]:
    return {job.id: job for job in parsed(text)}


# Slurm


def test_every_job_that_squeue_prints_is_read() -> None:
    assert [int(id) for id in by_id(SQUEUE)] == [1, 2, 3, 4, 7, 8, *range(11, 20)]


@pytest.mark.parametrize(
    ("id", "state", "end"),
    [
        ("1", "ended", "failed"),
        ("2", "ended", "unknown"),  # going; which end it is comes when it is gone
        ("4", "pending", ""),
        ("7", "running", ""),
        ("11", "ended", "timeout"),  # going, and the reason tells
        ("12", "ended", "node_fail"),
        ("13", "pending", ""),
        ("14", "pending", ""),  # going, but put back: it comes again
        ("15", "running", ""),
        ("16", "ended", "cancelled"),
        ("17", "ended", "timeout"),
        ("18", "ended", "unknown"),  # was put back once, ran again, and goes for good
        ("19", "ended", "failed"),  # over in its first second
    ],
)
def test_a_state_of_slurm_is_one_of_three(id: str, state: str, end: str) -> None:
    job = by_id(SQUEUE)[id]
    assert (job.state, job.end) == (state, end)


def test_a_job_tells_its_name_reason_node_and_restarts() -> None:
    jobs = by_id(SQUEUE)
    assert jobs["4"].name == "a|b"
    assert (jobs["3"].reason, jobs["7"].reason) == ("PartitionConfig", "")
    assert (jobs["7"].node, jobs["3"].node) == ("n[1-2]", "")
    assert (jobs["13"].restarts, jobs["12"].restarts) == (1, 0)


def test_the_time_left_is_by_the_clock_of_the_controller() -> None:
    """Recorded on a machine whose clock is an hour ahead: TimeLeft says INVALID there."""
    assert by_id(SQUEUE)["7"].left == 300.0


def test_the_time_left_is_known_without_the_clock_of_the_controller() -> None:
    line = "7|RUNNING|None|{}|0:10|1795373569|n1|0|deaf.sh|\n"
    assert by_id(line.format("1-00:04:50"))["7"].left == 86690.0
    assert by_id(line.format("INVALID"))["7"].left == 0.0


def test_no_time_is_left_to_tell_of_jobs_that_do_not_run_or_have_no_limit() -> None:
    jobs = by_id(SQUEUE)
    assert [jobs[id].left for id in ("3", "8", "17")] == [None, None, None]


def test_a_job_over_its_time_has_none_left() -> None:
    assert by_id(SQUEUE.replace("1795373569", "1795373200"))["7"].left == 0.0


def test_one_squeue_answers_for_all_ids_and_unknown_ones_are_left_out(
    shim: Shim, tmp_path: Path
) -> None:
    shim("squeue", f"echo called >> {tmp_path}/calls; {says(SQUEUE)}")
    assert set(Slurm().jobs(["1", "7", "99"])) == {"1", "7"}
    assert (tmp_path / "calls").read_text() == "called\n"


def test_nothing_is_asked_about_no_jobs(shim: Shim) -> None:
    for command in ("squeue", "qstat", "scancel", "qdel"):
        shim(command, complains("unasked for"))
    for queue in (Slurm(), Pbs()):
        assert queue.jobs([]) == queue.find([]) == {}
        queue.cancel([])


def test_squeue_is_asked_in_plain_words_whatever_the_user_has_set(
    shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    shim("squeue", 'echo "1|PENDING|$LC_ALL$SQUEUE_PARTITION$SLURM_TIME_FORMAT|||||0|x|"')
    assert Slurm().jobs(["1"])["1"].reason == "C%s"


@pytest.mark.parametrize(
    "complaint",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "slurm_load_jobs error: Socket timed out on send/recv operation",
        "squeue: fatal: anything else",
    ],
)
def test_a_squeue_that_fails_knows_nothing(shim: Shim, complaint: str) -> None:
    shim("squeue", complains(complaint))
    with pytest.raises(QueueSilent, match=complaint.split(": ")[-1][:20]):
        Slurm().jobs(["1"])


def test_a_command_that_hangs_is_ended_with_what_it_started(
    shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "PATIENCE", 0.5)
    shim("squeue", f"sleep 100 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(QueueSilent, match=r"squeue gave no answer within 0\.5 s"):
        Slurm().jobs(["1"])
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while _lives(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_command_that_is_not_there_is_a_silent_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(QueueSilent, match="squeue could not be run"):
        Slurm().jobs(["1"])
    with pytest.raises(QueueSilent, match="scancel could not be run"):
        Slurm().cancel(["1"])


def test_the_newest_job_of_a_name_is_found_and_a_living_one_first(shim: Shim) -> None:
    rows = [(9, "FAILED"), (10, "FAILED"), (7, "PENDING"), (8, "RUNNING"), (11, "CANCELLED")]
    names = ["b", "b", "a", "a", "a"]
    lines = [f"{i}|{s}|||||0|0|{n}|" for (i, s), n in zip(rows, names, strict=True)]
    shim("squeue", says("\n".join(lines) + "\n"))
    found = Slurm().find(["a", "b", "c"])
    assert {name: job.id for name, job in found.items()} == {"a": "8", "b": "10"}


# submitting


def test_a_script_is_handed_in_as_a_file_that_stays(shim: Shim, tmp_path: Path) -> None:
    shim("sbatch", f'echo "$@" > {tmp_path}/said; echo "sbatch: welcome" >&2; echo "42;hal"')
    place = tmp_path / "jobs" / "100%j"
    assert Slurm().submit(SBATCH, place) == "42"
    assert (place / "erl-1.sh").read_text() == SBATCH
    said = (tmp_path / "said").read_text().split()
    assert said[-1] == str(place / "erl-1.sh")
    assert f"--output={tmp_path}/jobs/100%%j/erl-1.log" in said  # or Slurm would put in the id


def test_a_script_for_pbs_is_handed_in_as_a_file_that_stays(shim: Shim, tmp_path: Path) -> None:
    shim("qsub", f'echo "$@" > {tmp_path}/said; echo 42.pbs01')
    assert Pbs().submit(QSUB, tmp_path / "jobs") == "42.pbs01"
    said = (tmp_path / "said").read_text().strip()
    assert said == f"-N erl-1 -j oe -o {tmp_path}/jobs/erl-1.log {tmp_path}/jobs/erl-1.sh"


def test_a_directory_for_logs_gets_a_file_that_slurm_s_wrapper_can_write_too(
    shim: Shim, tmp_path: Path
) -> None:
    """As dask-jobqueue says it; the wrapper would take the directory for a file."""
    shim("qsub", f'echo "$@" > {tmp_path}/said; echo 42')
    head = QSUB.replace("sleep", "#PBS -e /x/logs/\n#PBS -o /x/logs/\nsleep")
    Pbs().submit(head, tmp_path)
    said = (tmp_path / "said").read_text().strip()
    assert said == f"-N erl-1 -j oe -o /x/logs/erl-1.log {tmp_path}/erl-1.sh"
    kept = (tmp_path / "erl-1.sh").read_text()
    assert kept == QSUB.replace("sleep", "#PBS -j oe\n#PBS -o /x/logs/\nsleep")
    for lines in ("#PBS -o /x/mine\n", "#PBS -e /x/errors/\n#PBS -o /x/logs/\n"):
        Pbs().submit(QSUB.replace("sleep", f"{lines}sleep"), tmp_path)
        assert (tmp_path / "said").read_text().strip() == f"-N erl-1 {tmp_path}/erl-1.sh"


@pytest.mark.parametrize("line", ["-e logs/%J.err", "--output=logs/x", "-t 5 -o logs/x"])
def test_a_script_that_says_where_its_output_goes_is_believed(
    shim: Shim, tmp_path: Path, line: str
) -> None:
    shim("sbatch", f'echo "$@" > {tmp_path}/said; echo 42')
    Slurm().submit(SBATCH.replace("#SBATCH -t 5", f"#SBATCH {line}"), tmp_path)
    assert "output" not in (tmp_path / "said").read_text()


def test_a_name_is_not_taken_for_an_option(shim: Shim, tmp_path: Path) -> None:
    shim("sbatch", f'echo "$@" > {tmp_path}/said; echo 42')
    Slurm().submit("#!/bin/bash\n#SBATCH -J run-o\n", tmp_path)
    assert f"--output={tmp_path}/run-o.log" in (tmp_path / "said").read_text()


@pytest.mark.parametrize(("queue", "wanted"), [(Slurm(), "#SBATCH -J NAME"), (Pbs(), "#PBS -N")])
def test_a_script_without_a_name_is_not_handed_in(
    shim: Shim, tmp_path: Path, queue: Queue, wanted: str
) -> None:
    shim("sbatch", f"touch {tmp_path}/called")
    shim("qsub", f"touch {tmp_path}/called")
    with pytest.raises(ValueError, match=wanted):
        queue.submit("#!/bin/bash\necho -J x -N x\n", tmp_path)
    assert not (tmp_path / "called").exists()


def test_a_refusal_is_the_queues_own_word_on_one_line(shim: Shim, tmp_path: Path) -> None:
    """As Slurm 22.05 wrote it, and its wrapper for PBS."""
    text = (
        "sbatch: error: invalid partition specified: none\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified"
    )
    wanted = (
        "invalid partition specified: none; "
        "Batch job submission failed: Invalid partition name specified"
    )
    shim("sbatch", complains(text))
    with pytest.raises(Refused) as refused:
        Slurm().submit(SBATCH, tmp_path)
    assert str(refused.value) == wanted
    wrapped = (
        "There was an error running the Slurm sbatch command.\nThe command was:\n"
        f"'/usr/bin/sbatch -p none {tmp_path}/x.sh 2>&1'\nand the output was:\n"
        f"'{text.replace(chr(10), chr(10) + ' ')}\n'\n"
    )
    shim("qsub", says(wrapped, 1))
    with pytest.raises(Refused) as refused:
        Pbs().submit(QSUB, tmp_path)
    assert str(refused.value) == wanted


def test_a_refusal_without_the_word_error_is_told_whole(shim: Shim, tmp_path: Path) -> None:
    shim("qsub", complains("qsub: Job exceeds queue resource limits\nqsub: by far", 188))
    with pytest.raises(Refused, match=r"^qsub: Job exceeds queue resource limits; qsub: by far$"):
        Pbs().submit(QSUB, tmp_path)


def test_a_machine_without_sbatch_has_no_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoQueue, match="no command sbatch here: run this where jobs are submitted"):
        Slurm().submit(SBATCH, tmp_path)
    with pytest.raises(NoQueue, match="no command qsub here"):
        Pbs().submit(QSUB, tmp_path)
    assert not issubclass(NoQueue, Refused | QueueSilent)  # nothing to mend, nor to wait for


def test_what_a_queue_is_spoken_to_with_can_be_asked_for(
    shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue in (Slurm(), Pbs()):
        for command in queue.commands:
            shim(command, "exit 0")
    monkeypatch.setenv("PATH", os.environ["PATH"].split(":")[0])
    require(*Slurm().commands, *Pbs().commands)
    with pytest.raises(NoQueue, match="no command bsub here"):
        require("sbatch", "bsub")


@pytest.mark.parametrize(
    "answer",
    [
        complains("sbatch: error: Batch job submission failed: Socket timed out on send/recv"),
        complains("sbatch: error: Batch job submission failed: Unable to contact slurm controller"),
        complains("qsub: cannot connect to server pbs01 (errno=111)"),
        says("welcome to hal"),
        says(""),
        "kill -9 $$",
    ],
)
def test_a_submission_whose_answer_is_lost_is_not_a_refusal(
    shim: Shim, tmp_path: Path, answer: str
) -> None:
    """Slurm 22.05 took a job, and ran it, whose sbatch had said "Socket timed out"."""
    shim("sbatch", answer)
    shim("qsub", answer)
    with pytest.raises(QueueSilent):
        Slurm().submit(SBATCH, tmp_path)
    with pytest.raises(QueueSilent):
        Pbs().submit(QSUB, tmp_path)


def test_a_submission_that_hangs_is_lost(
    shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "PATIENCE", 0.3)
    shim("sbatch", "sleep 100; echo 42")
    with pytest.raises(QueueSilent, match="no answer"):
        Slurm().submit(SBATCH, tmp_path)


def test_a_job_does_not_inherit_the_job_around_its_driver(
    shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "5")
    monkeypatch.setenv("SLURM_CONF", "/etc/x")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    shim("sbatch", f"env > {tmp_path}/env; echo 42")
    Slurm().submit(SBATCH, tmp_path)
    told = (tmp_path / "env").read_text().splitlines()
    assert {"SLURM_CONF=/etc/x", "LC_ALL=de_DE.UTF-8"} <= set(told)
    assert [line for line in told if line.startswith("SLURM_")] == ["SLURM_CONF=/etc/x"]


def test_an_interrupt_of_the_driver_does_not_reach_a_submission(shim: Shim, tmp_path: Path) -> None:
    """Ctrl-C goes to the group of processes in front; the answer of sbatch must still come."""
    shim("sbatch", "cut -d ' ' -f 5 /proc/$$/stat")
    assert int(Slurm().submit(SBATCH, tmp_path)) != os.getpgrp()


# cancelling


@pytest.mark.parametrize(
    ("command", "queue", "complaint"),
    [
        (
            "scancel",
            Slurm(),
            "scancel: error: Kill job error on job id 9: Invalid job id specified",
        ),
        ("qdel", Pbs(), "qdel: Unknown Job Id 9.pbs01"),
        ("qdel", Pbs(), "qdel: Job has finished 9.pbs01"),
        ("qdel", Pbs(), ""),  # the wrapper's way to say so
    ],
)
def test_cancelling_what_is_over_is_no_error(
    shim: Shim, tmp_path: Path, command: str, queue: Queue, complaint: str
) -> None:
    shim(command, f'echo "$@" > {tmp_path}/said; {complains(complaint)}')
    queue.cancel({"9", "10"})
    assert set((tmp_path / "said").read_text().split()) == {"9", "10"}


@pytest.mark.parametrize(("command", "queue"), [("scancel", Slurm()), ("qdel", Pbs())])
def test_a_cancel_that_may_not_have_come_through_is_told(
    shim: Shim, command: str, queue: Queue
) -> None:
    text = "Kill job error on job id 9: Unable to contact slurm controller\nUnknown Job Id 10"
    shim(command, complains(text))
    with pytest.raises(QueueSilent, match="Unable to contact"):
        queue.cancel(["9", "10"])


# PBS


def one(text: str) -> Queued:
    return qstat.job_of(next(qstat.blocks(text)))


def documented(state: str = "R", ago: float = 660.0, more: str = "") -> str:
    return DOCUMENTED.format(state=state, start=clock(ago), more=more)


def wrapper(state: str, start: float, end: float) -> str:
    return WRAPPER.format(state=state, start=clock(start), end=clock(end))


def test_documented_attributes_are_read_folded_lines_and_all() -> None:
    running, waiting = [qstat.job_of(attributes) for attributes in qstat.blocks(documented())]
    assert (running.id, running.name) == ("11.pbs01.example.org", "erl-1")
    assert (running.state, running.node, running.restarts) == ("running", "n1,n2", 1)
    assert running.reason.endswith("(n1:ncpus=4:mem=8388608kb)+(n2:ncpus=4:mem=8388608kb)")
    assert (waiting.state, waiting.restarts, waiting.left) == ("pending", 1, None)
    assert waiting.reason == "Not Running: Insufficient amount of resource: ncpus"


def test_what_is_left_under_pbs_is_by_our_clock_where_it_can_be_right() -> None:
    """The server counts the time used (600 s here) late; a clock that is off says nonsense."""
    assert one(documented(ago=660)).left == pytest.approx(3600 - 660, abs=30)
    assert one(documented(ago=660 + 3600)).left == 3600 - 600
    assert one(documented(ago=660 - 3600)).left == 3600 - 600


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ("    Exit_status = 0\n", "completed"),
        ("    Exit_status = 3\n", "failed"),
        ("    Exit_status = -29\n", "timeout"),
        ("    Exit_status = -27\n", "out_of_memory"),
        ("    Exit_status = -11\n", "failed"),
        ("    exit_status = -11\n", "timeout"),  # Torque, with a small letter
        ("    exit_status = -10\n", "out_of_memory"),
        ("    Exit_status = 271\n", "cancelled"),
        ("    Exit_status = 271\n    resources_used.walltime = 01:00:02\n", "timeout"),
        ("", "unknown"),
    ],
)
def test_the_documented_exit_status_tells_the_end(more: str, end: str) -> None:
    for letter in "FCE":
        job = one(documented(letter, more=more))
        assert (job.state, job.end, job.left) == ("ended", end, None)


def test_letters_of_pbs_are_states() -> None:
    states = {letter: one(documented(letter)).state for letter in "QHWTRSUBECFX"}
    assert states == dict.fromkeys("QHWT", "pending") | dict.fromkeys("RSUB", "running") | (
        dict.fromkeys("ECFX", "ended")
    )


def test_slurms_wrapper_is_read() -> None:
    unlimited, running = [qstat.job_of(a) for a in qstat.blocks(wrapper("R", 100, -200))]
    assert (running.id, running.name, running.node) == ("7", "deaf.sh", "n1")
    assert running.left == pytest.approx(200, abs=30)
    assert (unlimited.id, unlimited.state, unlimited.left) == ("5", "running", None)


def test_the_wrapper_tells_of_an_end_only_whether_the_time_was_over() -> None:
    long, short = wrapper("C", 500, 190), wrapper("C", 500, 400)
    ends = [qstat.job_of(list(qstat.blocks(text))[1]).end for text in (long, short)]
    assert ends == ["timeout", "unknown"]


def test_the_letter_for_all_other_ends_of_the_wrapper_is_an_end() -> None:
    """A job out of memory has the letter U there, which is suspended on a real server."""
    assert qstat.job_of(list(qstat.blocks(wrapper("U", 500, 400)))[1]).state == "ended"


def test_jobs_are_known_by_the_id_that_qsub_told(shim: Shim) -> None:
    shim("qstat", says(documented()))
    jobs = Pbs().jobs(["11.pbs01", "13.pbs01"])
    assert {id: job.id for id, job in jobs.items()} == {"11.pbs01": "11.pbs01"}


@pytest.mark.parametrize(
    "answer",
    [
        complains("qstat: Unknown Job Id 9.pbs01", 153),
        complains("qstat: 9.pbs01 Job has finished, use -x or -H to obtain history", 35),
        "exit 153",  # the wrapper
    ],
)
def test_an_unknown_job_is_an_answer_of_qstat(shim: Shim, answer: str) -> None:
    shim("qstat", answer)
    assert Pbs().jobs(["9"]) == {}


@pytest.mark.parametrize(
    "answer",
    [
        complains("qstat: cannot connect to server pbs01 (errno=15010)", 2),
        complains("Problem loading jobs.", 1),
        complains("qstat: Unknown Job Id 9\nqstat: cannot connect to server pbs02", 153),
        "exit 1",
    ],
)
def test_a_qstat_that_fails_knows_nothing(shim: Shim, answer: str) -> None:
    shim("qstat", answer)
    with pytest.raises(QueueSilent, match=r"^qstat: "):
        Pbs().jobs(["9"])


def test_jobs_that_have_finished_are_looked_up_in_the_history(shim: Shim, tmp_path: Path) -> None:
    ended = documented("F", more="    Exit_status = 0\n").split("Job Id: 12")[0]
    history = tmp_path / "history"
    history.write_text(ended)
    shim(
        "qstat",
        f'[ "$1" = -x ] && exec cat {history}\n{complains("qstat: 11 Job has finished", 35)}',
    )
    assert Pbs().jobs(["11.pbs01"])["11.pbs01"].end == "completed"


def test_a_qstat_without_history_is_not_asked_for_it_again(shim: Shim, tmp_path: Path) -> None:
    """The wrapper's answer to -x; what is missing then is not known."""
    calls = tmp_path / "calls"
    shim(
        "qstat",
        f'echo "$1" >> {calls}\n[ "$1" = -x ] || exit 153\n{complains("Unknown option: x", 2)}',
    )
    queue = Pbs()
    assert queue.jobs(["9"]) == queue.jobs(["9"]) == {}
    assert calls.read_text().split() == ["-f", "-x", "-f"]


def test_jobs_of_pbs_are_found_by_name_among_ones_own(
    shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemblerl.cluster.queues.pbs._user", lambda: "ada")
    shim("qselect", "").unlink()
    shim("qstat", says(documented()))
    assert list(Pbs().find(["erl-1", "erl-2"])) == ["erl-1"]


def test_qselect_finds_jobs_by_name_where_it_is(shim: Shim) -> None:
    """Torque's qselect knows no -x."""
    shim("qselect", '[ "$1" = -x ] && exit 2; [ "$4" = erl-1 ] && echo 11.pbs01; exit 0')
    shim("qstat", f'[ "$*" = "-f 11.pbs01" ] || exit 1; {says(documented())}')
    assert {name: job.id for name, job in Pbs().find(["erl-1", "z"]).items()} == {
        "erl-1": "11.pbs01"
    }


# both


def test_a_queue_is_had_by_its_name() -> None:
    assert [queue_of(name).name for name in ("slurm", "pbs")] == ["slurm", "pbs"]
    with pytest.raises(ValueError, match='scheduler: wanted "slurm" or "pbs", got \'sge\''):
        queue_of("sge")


def test_durations_of_slurm_and_pbs_are_seconds() -> None:
    texts = ["0:07", "5:00", "02:03:04", "1-00:00:00", "90", "100:00:00"]
    assert [seconds(text) for text in texts] == [7, 300, 7384, 86400, 90, 360000]
    assert [seconds(text) for text in ("UNLIMITED", "NOT_SET", "INVALID", "")] == [None] * 4


def test_a_submission_killed_half_way_is_lost(shim: Shim, tmp_path: Path) -> None:
    shim("sbatch", f"echo sbatch: error: no >&2; kill -{signal.SIGTERM} $$")
    with pytest.raises(QueueSilent, match="killed by signal 15"):
        Slurm().submit(SBATCH, tmp_path)


def test_the_name_that_a_job_is_found_by_counts_more_than_a_later_one(
    shim: Shim, tmp_path: Path
) -> None:
    shim("sbatch", f'echo "$@" > {tmp_path}/said; echo 42')
    script = "#!/bin/sh\n#SBATCH -J erl-1\n#SBATCH --mem=1G --job-name=foo\nsleep 1\n"
    assert Slurm().submit(script, tmp_path / "jobs") == "42"
    assert "--job-name=erl-1 " in (tmp_path / "said").read_text()
