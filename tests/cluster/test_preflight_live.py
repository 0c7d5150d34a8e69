"""A preflight on a real Slurm, and over real networks: each node in one of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from network import Network, ip, new_network
from slurm import PrivateSlurm, until

import ensemblerl as erl
from ensemblerl.cluster.finding import BAD, GOOD, Finding, Report

JOB = {"n_jobs": 1, "cores": 1, "memory": "500 MB", "walltime": "00:10:00"}


@pytest.fixture
def network() -> Iterator[Network]:
    """A network namespace that this machine reaches through one of two new interfaces."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("A NETWORK OF A NODE'S OWN WAS NOT TRIED: that takes root and the command ip")
    try:
        made = new_network()
        entered = made.__enter__()
    except OSError as error:
        pytest.skip(f"A NETWORK OF A NODE'S OWN WAS NOT TRIED: {error}")
    yield entered
    made.__exit__(None, None, None)


def about(report: Report, what: str) -> Finding:
    (found,) = [finding for finding in report.findings if finding.what == what]
    return found


def test_all_is_well_on_a_machine_where_all_is_well(slurm: PrivateSlurm, in_tmp: Path) -> None:
    cluster = erl.Cluster("slurm", **JOB)
    report = cluster.preflight(expected_runtime="1 min", segments=str(in_tmp / "run" / "segments"))
    assert report.ok, str(report)
    marks = {finding.what: finding.mark for finding in report.findings}
    expected = ["submit", "start", "network", "environment", "directory", "threads", "walltime"]
    expected += ["processors", "clock", "files", "TMPDIR"]
    assert sorted(marks) == sorted(expected)
    assert {marks[what] for what in [*expected[:7], "clock"]} == {GOOD}
    assert "9 members one after the other" in about(report, "walltime").found
    assert str(in_tmp / "run" / "jobs") in about(report, "directory").found
    assert list(in_tmp.iterdir()) == []
    until(lambda: not slurm.left_behind(), "nothing is left of the job")


def test_a_job_that_cannot_run_leaves_the_end_of_its_log_and_nothing_else(
    slurm: PrivateSlurm, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemblerl.cluster.probing.SETTLING", 1.0)  # this disk has no delays
    python = in_tmp / "python"
    python.write_text(f'#!/bin/sh\ncd /\nexec {sys.executable} -S -I "$@"\n')
    python.chmod(0o755)
    for scheduler in ("slurm", "pbs"):
        report = erl.Cluster(scheduler, **JOB, python=python).preflight()
        assert not report.ok
        found = about(report, "start")
        assert (found.mark, "No module named" in found.found) == (BAD, True), str(report)
        assert found.remedy.startswith("give python= of an environment with ensemblerl")
    assert [path.name for path in in_tmp.iterdir()] == ["python"]
    until(lambda: not slurm.left_behind(), "nothing is left of the jobs")


def test_a_job_that_waits_is_taken_back_with_the_queue_s_own_reason(
    slurm: PrivateSlurm, in_tmp: Path
) -> None:
    slurm.scontrol("update", "partitionname=main", "state=down")
    report = erl.Cluster("slurm", **JOB).preflight(timeout=4)
    assert about(report, "start").mark == BAD
    assert "PartitionDown" in about(report, "start").found
    assert slurm.squeue() == []
    assert list(in_tmp.iterdir()) == []


def test_the_interface_that_nodes_reach_is_named_where_the_first_is_not_it(
    slurm: PrivateSlurm, in_tmp: Path, network: Network
) -> None:
    """Row 19 of the faults."""
    python = network.command(sys.executable)
    cluster = erl.Cluster("slurm", **JOB, python=python, host=network.outside_address)
    report = cluster.preflight()
    found = about(report, "network")
    assert not report.ok
    assert found.mark == BAD
    assert found.found.startswith(
        f"nodes cannot reach {network.outside} {network.outside_address}, which would be used"
    )
    assert found.found.endswith(f"; {network.inside} {network.inside_address} works")
    assert found.remedy == f"give interface={network.inside!r}"

    mended = erl.Cluster("slurm", **JOB, python=python, interface=network.inside).preflight()
    assert mended.ok, str(mended)
    assert network.inside_address in about(mended, "network").found
    assert list(in_tmp.iterdir()) == []
    until(lambda: not slurm.left_behind(), "nothing is left of the jobs")


def test_what_would_be_used_by_default_is_tried_as_well(
    slurm: PrivateSlurm, in_tmp: Path, network: Network
) -> None:
    report = erl.Cluster("slurm", **JOB, python=network.command(sys.executable)).preflight()
    found = about(report, "network")
    assert "which would be used" in found.found, str(report)
    assert network.inside not in found.found.partition(", which")[0]
    assert found.remedy == f"give interface={network.inside!r}"


def test_an_address_is_recommended_where_the_node_has_no_interface_of_the_name(
    slurm: PrivateSlurm, in_tmp: Path, network: Network
) -> None:
    ip("-n", network.name, "link", "set", network.inside, "down")
    ip("-n", network.name, "link", "set", network.inside, "name", "theirs")
    ip("-n", network.name, "link", "set", "theirs", "up")
    python = network.command(sys.executable)
    report = erl.Cluster("slurm", **JOB, python=python, host=network.outside_address).preflight()
    assert about(report, "network").remedy == f"give host={network.inside_address!r}"
    report = erl.Cluster("slurm", **JOB, python=python, interface=network.inside).preflight()
    assert about(report, "network").mark == GOOD
    assert about(report, "interface").remedy == (
        f"give host={network.inside_address!r} in place of interface="
    )


def test_a_node_that_does_not_see_the_directory_tells_it_over_the_network(
    slurm: PrivateSlurm, in_tmp: Path
) -> None:
    """Its own empty disk lies over ours there, as where a path is local to each machine."""
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("A NODE WITHOUT OUR DISK WAS NOT TRIED: that takes root")
    python = in_tmp / "python"
    hide = f"mount -t tmpfs none {in_tmp / 'ours'}"
    python.write_text(
        f'#!/bin/sh\nexec unshare -m sh -c \'{hide} && exec "$0" "$@"\' {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    cluster = erl.Cluster("slurm", **JOB, python=python, directory=in_tmp / "ours")
    report = cluster.preflight()
    found = about(report, "directory")
    assert found.mark == BAD, str(report)
    assert "No such file or directory" in found.found
    assert found.remedy.startswith("give directory=")
    assert about(report, "network").mark == GOOD
    assert [path.name for path in in_tmp.iterdir()] == ["python"]
