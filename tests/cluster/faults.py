"""The table of faults: each row injects a real one into a running campaign on a real Slurm.

    python tests/cluster/faults.py            all rows; the table goes to docs/faults.md
    python tests/cluster/faults.py 1 9 14     these rows; nothing is written

``again`` counts members that were started after they had come to their end; ``lost`` those
without an outcome at the end; ``left`` jobs, processes, key files there twenty seconds later.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import fault_rows_drivers as drivers
import fault_rows_jobs as jobs
import fault_rows_members as members
import fault_rows_random as randomly
import fault_rows_sites as sites
from fault_rig import Found, Rig
from slurm import PrivateSlurm


class Row(NamedTuple):
    """A fault."""

    number: str
    run: Callable[[Rig], Found]
    pbs: bool = False
    epilog: bool = False


ROWS = [
    Row("1", jobs.cancelled, pbs=True),
    Row("2", jobs.dies_before_connecting, pbs=True),
    Row("3", jobs.not_submitted, pbs=True),
    Row("4", jobs.node_down),
    Row("5", jobs.slurmd_killed),
    Row("6", jobs.generations),
    Row("7", members.too_long),
    Row("8", members.checkpoints),
    Row("9", drivers.killed_driver, pbs=True),
    Row("9e", drivers.killed_driver_epilog, epilog=True),
    Row("10", jobs.killed_worker),
    Row("11", jobs.controller_stopped),
    Row("12", members.misbehaving),
    Row("13", members.mpi_over_nodes),
    Row("14", randomly.random_kills),
    Row("15", sites.partition_down),
    Row("16", sites.wrong_certificate),
    Row("17", sites.queue_limit),
    Row("18", drivers.two_campaigns),
    Row("19", sites.interfaces),
    Row("20", members.cores_and_devices),
    Row("21", jobs.preempted),
    Row("22", sites.wrong_clock),
]
HEAD = "| row | fault | queue | acknowledged | lost | again | recovery | left | remarks |"


def title(row: Row) -> str:
    """What its function says of itself."""
    return (row.run.__doc__ or "").strip().rstrip(".")


def run_row(row: Row, scheduler: str, directory: Path) -> tuple[Found | None, str]:
    """One row on a Slurm of its own; what was found, or what went wrong."""
    with PrivateSlurm(epilog=row.epilog) as slurm:
        os.environ.update(slurm.variables)
        rig = Rig(slurm, directory, scheduler)
        try:
            found = row.run(rig)
        except Exception as error:  # a row that fails is a line of the table
            traceback.print_exc()
            said = str(error).splitlines() or [""]
            return None, f"{type(error).__name__}: {said[0]}"[:300]
        finally:
            rig.end()
    return found, found.wrong


def line(row: Row, scheduler: str, found: Found | None, wrong: str) -> str:
    """A line of the table."""
    if found is None:
        return f"| {row.number} | {title(row)} | {scheduler} | | | | | | FAILED: {wrong} |"
    recovery = "-" if math.isnan(found.recovery) else f"{found.recovery:.0f} s"
    lost = "-" if found.lost is None else found.lost
    cells = [row.number, title(row), scheduler, found.acknowledged, lost, found.again, recovery]
    remarks = (f"FAILED: {wrong}; " if wrong else "") + found.remarks
    remarks = remarks.replace("|", "/").replace("\n", " ")
    return "| " + " | ".join(map(str, [*cells, found.left, remarks])) + " |"


def main(wanted: list[str]) -> int:
    """Run rows; the exit status says whether all are as they must be."""
    unknown = set(wanted) - {row.number for row in ROWS}
    if unknown:
        known = ", ".join(row.number for row in ROWS)
        print(f"rows: wanted some of {known}; got {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    lines, good = [], True
    for row in ROWS:
        for scheduler in ("slurm", "pbs") if row.pbs else ("slurm",):
            if wanted and row.number not in wanted:
                continue
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="faults-") as directory:
                found, wrong = run_row(row, scheduler, Path(directory))
            good &= not wrong
            lines.append(line(row, scheduler, found, wrong))
            print(lines[-1], f"<!-- {time.monotonic() - began:.0f} s -->", flush=True)
    if not wanted:
        write(lines)
    return 0 if good else 1


def write(lines: list[str]) -> None:
    """The table as a page."""
    import dask_jobqueue
    import distributed

    slurm = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=False)
    versions = (
        f"{datetime.now(UTC):%Y-%m-%d}, `make faults`, Python {platform.python_version()}, "
        f"{slurm.stdout.strip()}, distributed {distributed.__version__}, "
        f"dask-jobqueue {dask_jobqueue.__version__}, {os.cpu_count()} cores"
    )
    page = Path(__file__).parents[2] / "docs" / "faults.md"
    text = page.read_text()
    begin, end = text.index("<!-- table -->"), text.index("<!-- end -->")
    rule = "|---|---|---|---|---|---|---|---|---|"
    table = "\n".join(["<!-- table -->", "", versions, "", HEAD, rule, *lines, "", ""])
    page.write_text(text[:begin] + table + text[end:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
