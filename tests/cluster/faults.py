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
from typing import Any, NamedTuple

import fault_rows_more as more
from fault_rig import Found, Rig, kill, wait_for
from slurm import PrivateSlurm

import ensemblerl as erl


def cancelled(rig: Rig) -> Found:
    """A job is cancelled under a running member."""
    cluster = rig.cluster()
    handle = rig.launch(cluster)
    rig.after(handle, 15)
    job = rig.job_of(rig.running()[0][2])
    with rig.fault(handle, cluster):
        rig.cancel(job)
    return rig.finish(handle)


def dies_before_connecting(rig: Rig) -> Found:
    """Three jobs die before they connect, then they work."""
    marks = rig.directory / "died"
    marks.mkdir()
    fail = 'echo "no such module"; exit 1'
    line = f"for i in 1 2 3; do mkdir {marks}/$i 2>/dev/null && {{ {fail}; }}; done; :"
    cluster = rig.cluster(n_jobs=1, cores=6, prologue=[line])
    began = time.monotonic()
    handle = rig.launch(cluster)
    said = set[str]()
    while not rig.workers(cluster) and not handle.done:
        said.add(handle.campaign.executor.note)
        time.sleep(0.2)
    rig.recovery = time.monotonic() - began
    assert len(list(marks.iterdir())) == 3, "the fault did not happen"
    assert any("died before connecting" in s and "see " in s for s in said), said
    return rig.finish(handle)


def not_submitted(rig: Rig) -> Found:
    """sbatch (qsub) fails three times in a row."""
    marks = rig.directory / "refused"
    marks.mkdir()
    command = {"slurm": "sbatch", "pbs": "qsub"}[rig.scheduler]
    script = (
        f"for i in 1 2 3; do mkdir {marks}/$i 2>/dev/null && "
        '{ echo "error: Batch job submission failed: Slurm temporarily unable" >&2; exit 1; }; '
        'done\nexec {real} "$@"\n'
    )
    with rig.shim(command, script):
        cluster = rig.cluster()
        began = time.monotonic()
        handle = rig.launch(cluster)
        wait_for(lambda: handle.done or len(rig.workers(cluster)) >= 3, "three workers", 120)
        rig.recovery = time.monotonic() - began
        assert len(list(marks.iterdir())) == 3, "the fault did not happen"
        return rig.finish(handle)


def node_down(rig: Rig) -> Found:
    """A node is set down under its jobs, and comes back."""
    cluster = rig.cluster()
    handle = rig.launch(cluster, 120)
    rig.after(handle, 15)
    node = rig.slurm.job(rig.job_of(rig.running()[0][2]))["NodeList"]
    with rig.fault(handle, cluster):
        rig.slurm.scontrol("update", f"nodename={node}", "state=down", "reason=fault")
        time.sleep(5)
        rig.slurm.scontrol("update", f"nodename={node}", "state=resume")
    return rig.finish(handle, 120)


def slurmd_killed(rig: Rig) -> Found:
    """kill -9 of a slurmd; Slurm gives the node up and starts its jobs elsewhere."""
    cluster = rig.cluster()
    handle = rig.launch(cluster, 150)
    rig.after(handle, 15)
    node = rig.slurm.job(rig.job_of(rig.running()[0][2]))["NodeList"]
    with rig.fault(handle, cluster, notice=45):
        rig.slurm.kill_node(node, jobs=True)
    rig.slurm.start_node(node)
    return rig.finish(handle, 150)


def generations(rig: Rig) -> Found:
    """The walltime is shorter than the campaign: several generations of workers."""
    space = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(3.0, 9.0))
    cluster = rig.cluster(walltime=60)
    handle = rig.launch(cluster, 120, space=space)
    rig.recovery = 0.0
    found = rig.finish(handle, 120, timeout=500)
    jobs = erl.open(rig.store).erl.hours()
    assert rig.jobs_used() > 3, "one generation was enough"
    cut = [o for a in handle.campaign.ledger.attempts.values() for o in a if o.fate == "lost"]
    remark = f"{rig.jobs_used()} jobs, {len(cut)} attempts cut off; {jobs.attrs['verdict']}"
    return found._replace(remarks=remark)


def killed_driver(rig: Rig) -> Found:
    """kill -9 of the driver while members run; the same script again."""
    driver = Path(__file__).with_name("fault_driver.py")
    command = [sys.executable, str(driver), str(rig.directory), rig.scheduler]
    first = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL)
    ledger = rig.store / "ledger.jsonl"
    try:
        wait_for(
            lambda: ledger.exists() and len(rig.events()) > 60 and rig.running(), "a start", 120
        )
    finally:
        first.kill()
        first.wait()
    running = rig.running()
    time.sleep(4)  # workers notice, and leave; what they started goes on
    second = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr[-3000:]
    adopted, rig.recovery = (float(word) for word in second.stdout.split()[-2:])
    found = rig.count(100, f"{len(running)} ran when it was killed, {adopted:.0f} adopted running")
    assert adopted > 0, "no member was adopted while it ran"
    return found


def killed_driver_epilog(rig: Rig) -> Found:
    """The same where the queue kills every process that carries the id of an ended job."""
    return killed_driver(rig)


def killed_worker(rig: Rig) -> Found:
    """kill -9 of a Dask worker, then of a nanny with its worker."""
    cluster = rig.cluster()
    handle = rig.launch(cluster, 120)
    rig.after(handle, 15)
    with rig.fault(handle, cluster):
        kill(rig.dask(rig.job_of(rig.running()[0][2]), "worker"))
    first = rig.recovery
    rig.after(handle, 50)
    job = rig.job_of(rig.running()[0][2])
    with rig.fault(handle, cluster):
        kill(rig.dask(job, "nanny") + rig.dask(job, "worker"))
    remark = f"recovery: worker {first:.0f} s, nanny {rig.recovery:.0f} s"
    return rig.finish(handle, 120)._replace(remarks=remark)


def controller_stopped(rig: Rig) -> Found:
    """slurmctld does not answer for 30 s, and a worker and its nanny die meanwhile."""
    space = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(1.0, 4.0))
    cluster = rig.cluster()
    handle = rig.launch(cluster, 140, space=space)
    rig.after(handle, 10)
    job = rig.job_of(rig.running()[0][2])
    rig.slurm.pause_controller(30)
    said = set[str]()
    with rig.fault(handle, cluster):
        kill(rig.dask(job, "nanny") + rig.dask(job, "worker"))
        began = time.monotonic()
        while time.monotonic() - began < 25 and not handle.done:
            said.add(handle.campaign.executor.note)
            time.sleep(0.5)
    assert any("does not answer" in note for note in said), said
    return rig.finish(handle, 140, remarks="it said that the queue does not answer")


def partition_down(rig: Rig) -> Found:
    """The partition is down: it waits and says so; then it is up again."""
    rig.slurm.scontrol("update", "partitionname=main", "state=down")
    cluster = rig.cluster()
    handle = rig.launch(cluster)
    wait_for(lambda: "PartitionDown" in handle.campaign.executor.note, "the sentence", 60)
    said = handle.campaign.executor.note
    rig.slurm.scontrol("update", "partitionname=main", "state=up")
    began = time.monotonic()
    wait_for(lambda: handle.done or len(rig.workers(cluster)) == 3, "workers", 120)
    rig.recovery = time.monotonic() - began
    return rig.finish(handle, remarks=f"it said: {said}")


def wrong_certificate(rig: Rig) -> Found:
    """A connection without the certificate is refused."""
    from distributed import Client, Security

    cluster = rig.cluster()
    handle = rig.launch(cluster)
    rig.after(handle, 5)
    address = cluster._pool.cluster.scheduler_address
    assert address.startswith("tls://"), address
    refused = 0
    strangers: list[tuple[str, Any]] = [
        (address, Security.temporary()),
        (address.replace("tls://", "tcp://"), None),
    ]
    for where, security in strangers:
        try:
            Client(where, security=security, timeout=3, set_as_default=False).close()
        except Exception:
            refused += 1
    assert refused == 2, "a stranger was let in"
    keys = [p for p in rig.store.glob("jobs/keys-*/*") if p.stat().st_mode & 0o077]
    assert not keys, "others may read the keys"
    rig.recovery = 0.0
    return rig.finish(handle, remarks="another certificate and none: both refused")


def queue_limit(rig: Rig) -> Found:
    """The queue takes two jobs of a user at most: the campaign keeps those."""
    script = (
        'n=$({squeue} -h --me 2>/dev/null | wc -l)\n[ "$n" -ge 2 ] && { echo "sbatch: error: '
        "QOSMaxSubmitJobPerUserLimit\" >&2; echo 'sbatch: error: Batch job submission failed: "
        'Job violates accounting/QOS policy\' >&2; exit 1; }\nexec {real} "$@"\n'
    ).replace("{squeue}", "squeue")
    with rig.shim("sbatch", script):
        cluster = rig.cluster()
        handle = rig.launch(cluster)
        wait_for(lambda: handle.done or "QOSMax" in handle.campaign.executor.note, "sentence", 60)
        said = handle.campaign.executor.note
        rig.recovery = 0.0
        return rig.finish(handle, remarks=f"it said: {said}")


def two_campaigns(rig: Rig) -> Found:
    """Two campaigns of one user: the first ends, the jobs of the second go on."""
    other = Rig(rig.slurm, rig.directory / "other", rig.scheduler)
    one, two = rig.cluster(n_jobs=2), other.cluster(n_jobs=2)
    long, short = rig.launch(one, 120), other.launch(two, 100)
    rig.after(long, 10)
    other.after(short, 10)
    before = {j.id for j in one._pool.reconciler.jobs()}
    short.stop()
    short.wait(60)
    time.sleep(6)
    after = {j.id for j in one._pool.reconciler.jobs()}
    assert before == after, (before, after)
    rig.recovery = 0.0
    return rig.finish(long, 120)


def preempted(rig: Rig) -> Found:
    """Preemption: scontrol requeue of a running job."""
    cluster = rig.cluster()
    handle = rig.launch(cluster, 120)
    rig.after(handle, 15)
    job = rig.job_of(rig.running()[0][2])
    with rig.fault(handle, cluster):
        rig.slurm.scontrol("requeue", job)
    return rig.finish(handle, 120)


class Row(NamedTuple):
    """A fault."""

    number: str
    run: Callable[[Rig], Found]
    pbs: bool = False
    epilog: bool = False


ROWS = [
    Row("1", cancelled, pbs=True),
    Row("2", dies_before_connecting),
    Row("3", not_submitted, pbs=True),
    Row("4", node_down),
    Row("5", slurmd_killed),
    Row("6", generations),
    Row("7", more.too_long),
    Row("8", more.checkpoints),
    Row("9", killed_driver, pbs=True),
    Row("9e", killed_driver_epilog, epilog=True),
    Row("10", killed_worker),
    Row("11", controller_stopped),
    Row("12", more.misbehaving),
    Row("13", more.mpi_over_nodes),
    Row("14", more.random_kills),
    Row("15", partition_down),
    Row("16", wrong_certificate),
    Row("17", queue_limit),
    Row("18", two_campaigns),
    Row("19", more.interfaces),
    Row("20", more.cores_and_devices),
    Row("21", preempted),
    Row("22", more.wrong_clock),
]


HEAD = "| row | fault | queue | acknowledged | lost | again | recovery | left | remarks |"


def title(row: Row) -> str:
    """What its function says of itself."""
    return (row.run.__doc__ or "").strip().rstrip(".")


def run_row(row: Row, scheduler: str, directory: Path) -> tuple[Found | None, str]:
    """One row on a Slurm of its own; what was found, or what went wrong."""
    with PrivateSlurm(epilog=row.epilog) as slurm:
        os.environ.update(slurm.variables)
        try:
            return row.run(Rig(slurm, directory, scheduler)), ""
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            traceback.print_exc()
            return None, f"{type(error).__name__}: {error}".splitlines()[0][:300]


def line(row: Row, scheduler: str, found: Found | None, wrong: str) -> str:
    """A line of the table."""
    if found is None:
        return f"| {row.number} | {title(row)} | {scheduler} | | | | | | FAILED: {wrong} |"
    recovery = "-" if math.isnan(found.recovery) else f"{found.recovery:.0f} s"
    cells = [row.number, title(row), scheduler, found.acknowledged, found.lost, found.again]
    remarks = found.remarks.replace("|", "/").replace("\n", " ")
    return "| " + " | ".join(map(str, [*cells, recovery, found.left, remarks])) + " |"


def main(wanted: list[str]) -> int:
    """Run rows; the exit status says whether all are as they must be."""
    rows = [row for row in ROWS if not wanted or row.number in wanted]
    lines, good = [], True
    for row in rows:
        for scheduler in ("slurm", "pbs") if row.pbs else ("slurm",):
            with tempfile.TemporaryDirectory(prefix="faults-") as directory:
                found, wrong = run_row(row, scheduler, Path(directory))
            good &= found is not None and not (found.lost or found.again or found.left)
            lines.append(line(row, scheduler, found, wrong))
            print(lines[-1], flush=True)
    if not wanted:
        write(lines)
    return 0 if good else 1


def write(lines: list[str]) -> None:
    """The table as a page."""
    import dask_jobqueue
    import distributed

    slurm = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, check=False)
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
