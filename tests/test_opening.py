"""From arguments to a cluster without jobs: what cannot be had here, and the script to look at."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import pytest
from programs import Script

from ensemblerl.cluster.batch import Cluster
from ensemblerl.cluster.queues.base import NoQueue
from ensemblerl.protocols import Job
from ensemblerl.simulations.function import Function
from ensemblerl.testing.toys import Least

GIVEN: dict[str, Any] = {"n_jobs": 3, "cores": 4, "memory": "8 GB", "walltime": "02:00:00"}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to be in, on a machine whose queue does nothing."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for command in ("sbatch", "squeue", "scancel", "qsub", "qstat", "qdel"):
        (tools / command).write_text("#!/bin/sh\nexit 1\n")
        (tools / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(scheduler: str = "slurm", **arguments: Any) -> Cluster:
    return Cluster(scheduler, **GIVEN | arguments)


def job(simulation: Any) -> Job:
    return Job(simulation, Least(), "", os.getpid())


def add(a: float) -> float:
    return a


def known_later(text: str) -> str:
    """Without what only a campaign knows: address, keys, the worker's name."""
    for pattern, times in {
        r"(tls|tcp)://[\d.:]+": (1,),
        r"keys-\w+": (0, 3),
        r"(?<=--name )\S+(?=-r\$)": (1,),
    }.items():
        text, n = re.subn(pattern, "...", text)
        assert n in times, (pattern, text)
    return text


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
@pytest.mark.parametrize(
    ("encrypted", "program", "cores"), [(True, True, 1), (True, False, 2), (False, False, 1)]
)
def test_the_script_that_is_shown_is_what_a_campaign_submits(
    scheduler: str, encrypted: bool, program: bool, cores: int, nowhere: Path
) -> None:
    directory = nowhere / "here"
    cluster = made(scheduler, encrypted=encrypted, directory=directory, interface="lo")
    pool = cluster._take(job(Script(cores=cores) if program else Function(add, cores=cores)))
    name, title = pool.jobqueue.add(), "ensemblerl-1"
    submitted = pool.reconciler.wish.edit(pool.jobqueue.script(name, title), title)
    cluster.close()
    shown = cluster.job_script(member_cores=cores, program=program)
    assert ("keys-RUN/tls_worker_key.pem" in shown) == encrypted
    assert known_later(shown.replace("DRIVER:PORT", "10.0.0.1:1")) == known_later(submitted)
    assert shown.count("--nthreads") == shown.count("--memory-limit") == 1


def test_a_machine_with_neither_interface_nor_directory_nor_queue_can_show_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/none")
    text = made(interface="ib9", directory="/proc/nope").job_script()
    assert " --interface ib9 " in text
    assert "#SBATCH -o /proc/nope/logs/" in text


def test_a_script_for_members_that_have_no_room_in_a_job_is_not_shown() -> None:
    with pytest.raises(ValueError, match=r"a member needs 6 .* a job has 4"):
        made().job_script(member_cores=6)
    with pytest.raises(ValueError, match=r"member_cores: wanted a whole number >= 1, got 0"):
        made().job_script(member_cores=0)


@pytest.mark.parametrize(
    ("given", "cores", "message"),
    [
        ({"interface": "ib9"}, 1, r"^interface: wanted one of this machine .*lo.*got 'ib9'"),
        ({"host": "192.0.2.77"}, 1, r"^host: wanted an address .*127.0.0.1.*'192.0.2.77'.*ssign"),
        ({"directory": "/proc/nope"}, 1, r"^directory: .*'/proc/nope', which is not to be used"),
        ({"dashboard": True}, 1, r"^dashboard: wanted bokeh .*pip install bokeh"),
        ({"dashboard": ":8787"}, 1, r"^dashboard: wanted bokeh beside dashboard=':8787'"),
        ({}, 6, r"^cores: a member needs 6 .* a job has 4"),
    ],
)
def test_what_cannot_be_had_here_is_named_and_nothing_is_left(
    given: dict[str, Any], cores: int, message: str, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    without = lambda name, *a: None if name == "bokeh" else find(name, *a)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", without)
    before = {path for path in nowhere.rglob("*") if path.is_file()}
    cluster = made(**given)
    with pytest.raises(ValueError, match=message):
        cluster._take(job(Function(add, cores=cores)))
    assert {path for path in nowhere.rglob("*") if path.is_file()} == before
    assert not list(nowhere.rglob("keys-*"))


def test_bokeh_is_no_matter_where_nobody_asks_for_a_dashboard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    without = lambda name, *a: None if name == "bokeh" else find(name, *a)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", without)
    cluster = made()
    cluster._take(job(Function(add)))
    cluster.close()


@pytest.mark.parametrize(("scheduler", "command"), [("slurm", "scancel"), ("pbs", "qsub")])
def test_a_machine_without_the_queue_s_commands_is_told_before_anything_is_opened(
    scheduler: str, command: str, nowhere: Path
) -> None:
    (nowhere / "tools" / command).unlink()
    cluster = made(scheduler, directory=nowhere / "here")
    with pytest.raises(NoQueue, match=rf"^there is no command {command} here: run this where"):
        cluster._take(job(Function(add)))
    assert not (nowhere / "here").exists()
