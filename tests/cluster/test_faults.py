"""A part of the table of faults (`make faults` runs all of it), on the Slurm of all tests."""

import math

import fault_tools
import faults
import pytest
from fault_rig import Found, Rig
from fault_traces import NoFault

QUICK = ("1", "2", "3", "4", "9", "12", "16")
GOOD = Found(members=100, acknowledged=100, lost=0, again=0, recovery=3.0, left=0)


@pytest.fixture
def rig(slurm, tmp_path):
    made = Rig(slurm, tmp_path / "row")
    yield made
    made.end()


def row(number):
    return next(row for row in faults.ROWS if row.number == number)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", QUICK)
def test_nothing_is_lost_nothing_is_run_twice_nothing_is_left(number, rig):
    found = row(number).run(rig)
    print(faults.line(row(number), "slurm", found, found.wrong))
    assert found.wrong == ""
    assert found.members >= 100


@pytest.mark.timeout(300)
def test_a_cancelled_job_of_pbs_is_made_good(rig):
    rig.scheduler = "pbs"
    assert row("1").run(rig).wrong == ""


@pytest.mark.timeout(120)
def test_a_fault_that_did_not_happen_shows_nothing(rig, monkeypatch):
    monkeypatch.setattr(Rig, "cancel", lambda rig, job: None)
    with pytest.raises(NoFault, match=r"is RUNNING, wanted CANCELLED|no worker was lost"):
        row("1").run(rig)


@pytest.mark.timeout(120)
def test_a_fault_that_took_no_worker_shows_nothing(rig):
    cluster = rig.cluster(n_jobs=1)
    handle = rig.launch(cluster)
    with pytest.raises(NoFault, match="no worker was lost"), rig.fault(handle, cluster, notice=1.0):
        pass


def test_a_kill_needs_somebody():
    with pytest.raises(RuntimeError, match="the fault was not injected"):
        fault_tools.kill([])


def test_a_row_that_there_is_not_is_an_error(capsys):
    assert faults.main(["1", "99"]) == 2
    assert "got 99" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({}, ""),
        ({"acknowledged": 0, "lost": None}, ""),
        ({"acknowledged": 99}, "acknowledged 99 of 100"),
        ({"acknowledged": 99, "lost": 1}, "acknowledged 99 of 100, lost 1"),
        ({"again": 2}, "again 2"),
        ({"left": 1}, "left 1"),
        ({"recovery": math.nan}, "no recovery was seen"),
    ],
)
def test_only_a_row_in_which_all_is_right_is_good(changed, wrong):
    assert GOOD._replace(**changed).wrong == wrong


def test_the_table_is_as_good_as_its_rows(monkeypatch, capsys):
    class NoSlurm:
        def __init__(self, epilog):
            self.variables = {}

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    found = GOOD

    def fine(rig):
        """Fine."""
        return found

    def fails(rig):
        """Fails."""
        raise AssertionError("no")

    def leaves(rig):
        """Leaves."""
        raise SystemExit(3)

    monkeypatch.setattr(faults, "PrivateSlurm", NoSlurm)
    monkeypatch.setattr(faults, "ROWS", [faults.Row("1", fine), faults.Row("2", fails)])
    assert faults.main(["1"]) == 0
    assert faults.main(["2"]) == 1
    assert "FAILED: AssertionError: no" in capsys.readouterr().out
    found = GOOD._replace(left=1)
    assert faults.main(["1"]) == 1
    assert "FAILED: left 1" in capsys.readouterr().out
    monkeypatch.setattr(faults, "ROWS", [faults.Row("3", leaves)])
    with pytest.raises(SystemExit):
        faults.main(["3"])
