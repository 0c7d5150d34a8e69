"""How a campaign on a real Slurm ends, and what is left behind then: nothing that nobody wants."""

import json
import signal
import time
from pathlib import Path

import fault_driver
import pytest
from fault_rig import Rig
from fault_tools import wait_for
from fault_traces import cancelled_waiting

import ensemblerl as erl

SHORT = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(0.1, 0.4))
NODE = {"n_jobs": 1, "cores": 8, "members_per_job": 2}
"""A job that has a node for itself."""
OURS = """\
#!/bin/bash
#SBATCH --job-name=coast
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=2 --mem=1G --time=00:10:00
export FROM_OUR_FILE=yes

{worker}
"""


@pytest.fixture
def rig(slurm, tmp_path):
    made = Rig(slurm, tmp_path / "row")
    yield made
    made.end()


class Driver:
    """A driver in a process of its own, whose members take seconds."""

    def __init__(self, rig, **given):
        self.rig = rig
        self.process = fault_driver.start(rig, **{"seconds": (2.0, 4.0), "cluster": NODE, **given})

    def busy(self):
        """Wait until members run."""
        there = lambda: self.process.poll() is not None or len(self.rig.running()) == 2  # noqa: E731
        wait_for(there, "running members", 60)
        assert self.process.poll() is None, self.errors()

    def send(self, number):
        self.process.send_signal(number)

    def ended(self, timeout=30):
        """Its exit status, within seconds, and what it printed."""
        told, _ = self.process.communicate(timeout=timeout)
        return self.process.returncode, json.loads(told or "{}")

    def errors(self):
        return (self.rig.directory / "driver.err").read_text()


@pytest.fixture
def drivers():
    made = []

    def drive(rig, **given):
        made.append(Driver(rig, **given))
        return made[-1]

    yield drive
    for driver in made:
        driver.process.kill()
        driver.process.communicate()


def fates(rig):
    return erl.open(rig.store).fate.values.tolist()


@pytest.mark.timeout(120)
def test_after_ctrl_c_those_that_run_finish_and_jobs_are_ended(rig, drivers):
    driver = drivers(rig)
    driver.busy()
    running = {number for number, _, _ in rig.running()}
    driver.send(signal.SIGINT)
    status, told = driver.ended()
    assert (status, told["reason"]) == (0, "interrupted")
    assert {fates(rig)[number] for number in running} == {"ok"}
    assert rig.starts().keys() == {i for i, fate in enumerate(fates(rig)) if fate == "ok"}
    assert rig.left() == 0


@pytest.mark.timeout(120)
def test_after_ctrl_c_twice_nothing_goes_on(rig, drivers):
    driver = drivers(rig, seconds=(40.0, 60.0))
    driver.busy()
    driver.send(signal.SIGINT)
    wait_for(lambda: "once more to leave now" in driver.errors(), "what it says", 10)
    driver.send(signal.SIGINT)
    status, _ = driver.ended()
    assert status != 0
    assert "KeyboardInterrupt" in driver.errors()
    assert rig.left() == 0
    assert rig.running() == []
    assert set(fates(rig)) == {"pending"}


@pytest.mark.timeout(120)
def test_ctrl_c_while_all_jobs_wait_ends_at_once(rig, drivers, slurm):
    slurm.scontrol("update", "partitionname=main", "state=down")
    driver = drivers(rig)
    waits = lambda: [job.reason for job in slurm.squeue()] == ["PartitionDown"]  # noqa: E731
    wait_for(lambda: driver.process.poll() is not None or waits(), "a job that waits", 60)
    assert driver.process.poll() is None, driver.errors()
    driver.send(signal.SIGINT)
    status, told = driver.ended(20)
    assert (status, told["reason"]) == (0, "interrupted")
    assert rig.starts() == {}
    assert rig.left() == 0


@pytest.mark.timeout(120)
def test_after_sigterm_running_members_go_on_and_are_adopted(rig, drivers, slurm):
    for node in ("n2", "n3"):  # a second job has to wait
        slurm.scontrol("update", f"nodename={node}", "state=drain", "reason=test")
    given = {"n": 3, "seconds": (18.0, 19.0), "cluster": {**NODE, "n_jobs": 2}}
    driver = drivers(rig, **given)
    driver.busy()
    running = rig.running()
    (waiting,) = (job.id for job in slurm.squeue() if job.state == "PENDING")
    driver.send(signal.SIGTERM)
    status, _ = driver.ended(12)  # well before the members
    assert status == 128 + signal.SIGTERM
    cancelled_waiting(slurm, waiting)
    assert rig.running() == running
    for node in ("n2", "n3"):
        slurm.scontrol("update", f"nodename={node}", "state=resume")
    told = fault_driver.report(rig, drivers(rig, **given).process, 90)
    assert told["adopted"] == sorted([number, attempt] for number, attempt, _ in running)
    assert fates(rig) == ["ok"] * 3
    assert set(rig.starts().values()) == {1}
    assert rig.left() == 0


@pytest.mark.timeout(120)
def test_an_exception_in_a_with_block_ends_jobs_and_members(rig):
    def rule(ledger):
        if rig.running() and ledger.n_settled:
            raise LookupError("mine")
        return False

    def campaigns():
        space = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Choice(0.5, 60.0))
        goal, store = erl.Minimize("y"), str(rig.store)
        given = {"n_members": 100, "sampler": "sobol", "seed": 7, "progress": False}
        with rig.cluster(**NODE) as cluster:
            erl.explore(
                rig.program(), space, goal, cluster=cluster, store=store, stop=rule, **given
            )

    with pytest.raises(LookupError, match="mine"):
        campaigns()
    assert rig.left() == 0
    assert rig.running() == []


@pytest.mark.timeout(120)
def test_an_exception_between_campaigns_ends_the_jobs(rig, slurm):
    def campaigns():
        with rig.cluster(n_jobs=1) as cluster:
            rig.launch(cluster, 4, space=SHORT).wait(60)
            time.sleep(1.0)
            assert [job.state for job in slurm.squeue()] == ["RUNNING"]
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        campaigns()
    assert rig.left() == 0


@pytest.mark.timeout(120)
def test_a_campaign_runs_through_somebodys_own_batch_file(rig, slurm):
    ours = Path(rig.directory / "ours.sh")
    ours.write_text(OURS)
    text = '#!/bin/sh\necho "start {{ number }} {{ attempt }} $$" >> {{ log }}\n'
    text += 'sleep {{ seconds }}\n[ "$FROM_OUR_FILE" = yes ] && echo "y = {{ x }}"\n'
    handle = rig.launch(
        rig.cluster(n_jobs=2, walltime="00:10:00", custom=str(ours)),
        12,
        rig.program(text),
        SHORT,
    )
    ds = handle.wait(90)
    assert (ds.fate == "ok").all(), ds.cause.values.tolist()
    assert ds.y.values.tolist() == ds.x.values.tolist()
    names = [job.name for job in slurm.squeue("all")]
    assert not [name for name in names if name == "coast"]
    assert rig.left() == 0
