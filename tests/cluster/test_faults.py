"""A part of the table of faults (`make faults` runs all of it), on the Slurm of all tests."""

import faults
import pytest
from fault_rig import Rig

QUICK = ("1", "2", "3", "4", "9", "12", "16")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", QUICK)
def test_nothing_is_lost_nothing_is_run_twice_nothing_is_left(number, slurm, tmp_path):
    row = next(row for row in faults.ROWS if row.number == number)
    found = row.run(Rig(slurm, tmp_path / "row"))
    print(faults.line(row, "slurm", found, ""))
    assert found.acknowledged >= 100
    assert (found.lost, found.again, found.left) == (0, 0, 0)


@pytest.mark.timeout(300)
def test_a_cancelled_job_of_pbs_is_made_good(slurm, tmp_path):
    found = faults.cancelled(Rig(slurm, tmp_path / "row", "pbs"))
    assert found.acknowledged >= 100
    assert (found.lost, found.again, found.left) == (0, 0, 0)
