"""Members that end processes, drivers that end under members: who is charged, who is run again."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

import ensemblerl as erl
from ensemblerl.events import Settled
from ensemblerl.executors.base import Lost
from ensemblerl.loop.reruns import Reruns
from ensemblerl.records import Outcome
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.segments import encode

SPACE = erl.Space(x=erl.Real(0.0, 1.0))

DRIVER = """
import concurrent.futures, os, sys, time
import numpy as np
import ensemblerl as erl
path, how, mode = sys.argv[1:]

def simulate(x, member):
    number, attempt = member["number"], member["attempt"]
    with open(path + ".runs", "a") as file:
        file.write(f"{number} {attempt}\\n")
    if mode == "killer" and number == 2:
        time.sleep(0.1)
        os._exit(9)
    if mode.startswith("flaky") and number == 1 and attempt == 1:
        raise ValueError("flaky")
    if mode == "flaky then killed" and number == 1:
        os._exit(9)
    time.sleep(0.01)
    return {"y": x, "field": np.full(3, x)}

cluster = {
    "serial": lambda: "serial",
    "threads": lambda: concurrent.futures.ThreadPoolExecutor(4),
    "simulated": lambda: erl.Simulated(6, runtime=lambda p, rng: rng.exponential(), seed=1),
}[how]()
simulation = erl.Function(simulate, retries=1 if mode.startswith("flaky") else 0, version="1")
erl.explore(
    simulation, erl.Space(x=erl.Real(0.0, 1.0)), erl.Minimize("y"), n_members=int(40),
    n_pending=12, store=path, seed=1, cluster=cluster,
)
"""


def drive(path, how, mode, kill_after=None):
    command = [sys.executable, "-c", DRIVER, str(path), how, mode]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    if kill_after is not None:
        ledger, began = path / "ledger.jsonl", time.monotonic()
        while not ledger.exists() and time.monotonic() - began < 20:
            time.sleep(0.01)
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors.decode()


def settled_once(path, n):
    store = DirectoryStore.resume(path)
    events = [e for e in store.events() if isinstance(e, Settled)]
    store.close()
    times = Counter(o.number for event in events for o in event.outcomes)
    assert set(times) == set(range(n))
    assert set(times.values()) == {1}


@pytest.mark.parametrize("how", ["serial", "threads"])
def test_only_the_member_that_ends_its_driver_is_failed(tmp_path, how):
    path = tmp_path / "s"
    lives = 1
    while drive(path, how, "killer")[0] != 0:
        lives += 1
        assert lives < 8
    ds = erl.open(path).load()
    assert np.flatnonzero(ds.fate.values != "ok").tolist() == [2]
    assert "launched 3 times without an end" in ds.cause.values[2]
    assert lives > 2
    settled_once(path, 40)


def test_a_retry_whose_driver_dies_is_not_charged_with_the_first_failure(tmp_path):
    path = tmp_path / "s"
    assert drive(path, "serial", "flaky then killed")[0] == 9
    assert drive(path, "serial", "flaky")[0] == 0
    ds = erl.open(path).load()
    assert (ds.fate == "ok").all()
    assert ds.attempt.values[1] == 3
    np.testing.assert_array_equal(ds.field.values[:, 0], ds.x.values)
    runs = (tmp_path / "s.runs").read_text().split("\n")
    assert runs.count("1 1") == 1


@pytest.mark.parametrize("how", ["threads", "simulated"])
def test_killed_drivers_make_nobody_fail(tmp_path, how):
    """Whoever was on its way a dozen times when the driver was killed is innocent."""
    path, rng = tmp_path / "s", random.Random(3)
    for _ in range(8):
        drive(path, how, "plain", kill_after=rng.uniform(0.0, 0.1))
    assert drive(path, how, "plain")[0] == 0
    ds = erl.open(path).load()
    assert (ds.fate == "ok").all(), ds.cause.values[ds.fate.values != "ok"]
    np.testing.assert_array_equal(ds.field.values[:, 2], ds.x.values)
    settled_once(path, 40)


def ends_its_worker(x, member):
    if member["number"] == 7:
        os._exit(9)
    time.sleep(0.05)
    return x


def test_a_killer_on_a_users_cluster_takes_no_innocent_along():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        ds = erl.explore(
            ends_its_worker, SPACE, erl.Minimize(), n_members=20, n_pending=8, cluster=client
        )
    assert np.flatnonzero(ds.fate.values != "ok").tolist() == [7]


def test_an_executor_that_loses_everything_ends_the_campaign(tmp_path):
    class Hopeless(erl.Simulated):
        def wait(self, timeout=None):
            for flight in self._flying.values():
                flight.future.set_exception(Lost("no licence server", begun=False))
            done = [flight.future for flight in self._flying.values()]
            self._flying.clear()
            return done

    go = {"n_members": 9, "cluster": Hopeless(3), "store": tmp_path / "s"}
    with pytest.raises(RuntimeError, match=r"lost the last 1\d\d attempts.*no licence server"):
        erl.explore(lambda x: x, SPACE, erl.Minimize(), **go)
    go["cluster"] = "serial"
    ds = erl.explore(lambda x: x, SPACE, erl.Minimize(), accept_version=True, **go)
    assert (ds.fate == "ok").all()


def test_a_store_whose_last_compaction_was_cut_off_is_finished_on_resume(tmp_path, monkeypatch):
    import xarray as xr

    def go():
        erl.explore(lambda x: x, SPACE, erl.Minimize(), n_members=9, cluster="serial", store=path)

    path = tmp_path / "s"
    compact = DirectoryStore.compact

    def cut_off(self, ledger, *, final=False):
        if final:
            raise KeyboardInterrupt
        compact(self, ledger)

    monkeypatch.setattr(DirectoryStore, "compact", cut_off)
    with pytest.raises(KeyboardInterrupt):
        go()
    monkeypatch.undo()
    go()
    ds = xr.open_zarr(path)
    assert ds.sizes["member"] == 9
    assert (ds.fate == "ok").all()


def test_suspects_run_again_one_at_a_time():
    """Where members run elsewhere, others go on beside a suspect; here, nothing does."""
    elsewhere, here = (Reruns(lambda i: i < 10, in_process) for in_process in (False, True))
    for reruns in (elsewhere, here):
        reruns.add([1, 2, 30, 1])
    assert [elsewhere.next(0), elsewhere.next(1), elsewhere.next(2)] == [1, 30, None]
    elsewhere.landed(30)
    assert elsewhere.next(1) is None
    elsewhere.landed(1)
    assert [elsewhere.next(0), elsewhere.next(1), bool(elsewhere)] == [2, None, False]
    assert [here.next(1), here.next(1)] == [30, None]
    assert [here.next(0), here.next(1), here.alone(1)] == [1, None, True]
    here.landed(1)
    assert [here.next(0), here.next(0)] == [2, None]


@pytest.mark.parametrize("launched", [1, 3])
def test_the_end_of_a_driver_is_charged_to_nobody_in_company(tmp_path, launched):
    go = {"n_members": 5, "store": tmp_path / "s", "cluster": erl.Serial()}
    with erl.prepare(lambda x: x, SPACE, erl.Minimize(), **go) as campaign:
        campaign.ask(launched)
        for in_process in (True, False):
            left, _ = campaign._arrivals.abandoned(in_process)
            charged = in_process and launched == 1
            assert {o.fate for o in left} == {"lost" if charged else "stopped"}
            assert len(left) == launched


def test_a_failure_seen_early_is_not_told_again_when_its_retry_is_lost(tmp_path):
    """Another bundle's loss makes the head read a failure whose answer is still on its way."""
    simulation = erl.Function(lambda x: x, retries=1)
    go = {"n_members": 1, "store": tmp_path / "s", "cluster": erl.Serial()}
    with erl.prepare(simulation, SPACE, erl.Minimize("y"), **go) as campaign:
        members, arrivals = campaign.ask(1), campaign._arrivals
        failed = Outcome(0, 1, "failed", "flaky")
        campaign.store.keep(encode(failed, {}, []))
        assert arrivals.adopted() == [failed]
        assert arrivals.settle([failed], 0.0).again == [0]
        future = concurrent.futures.Future()
        future.set_exception(Lost("worker gone"))
        retry = campaign.waiting()
        assert retry.attempt.tolist() == [2]
        assert [(o.attempt, o.fate) for o in arrivals.outcomes(future, retry)] == [(2, "lost")]
        campaign.tell(members, [{"y": 1.0}])


def test_told_by_hand_after_a_failure(tmp_path):
    simulation = erl.Function(lambda x: x, retries=1)
    go = {"n_members": 2, "store": tmp_path / "s", "cluster": erl.Serial()}
    with erl.prepare(simulation, SPACE, erl.Minimize("y"), **go) as campaign:
        members = campaign.ask(2)
        campaign.tell(members, [RuntimeError("power cut"), {"y": 2.0}])
        waiting = campaign.waiting()
        assert waiting.number.tolist() == [0]
        assert waiting.attempt.tolist() == [2]
        assert campaign.tell(members, [{"y": 1.0}, {"y": 5.0}]) == ["ok", "ok"]
    ds = erl.open(tmp_path / "s").load()
    assert ds.y.values.tolist() == [1.0, 2.0]


def test_breaking_off_the_async_iterator_leaves_other_files_alone(tmp_path):
    import asyncio

    class Slow(erl.Serial):
        busy, closed_while_busy = False, None

        def wait(self, timeout=None):
            self.busy = True
            time.sleep(0.2)
            done = super().wait(timeout)
            self.busy = False
            return done

        def close(self):
            self.closed_while_busy = self.busy
            super().close()

    pool = Slow()

    async def some():
        go = {"n_members": 500, "store": tmp_path / "s"}
        campaign = erl.prepare(lambda x: x, SPACE, erl.Minimize(), cluster=pool, **go)
        async with asyncio.timeout(0.5):
            async for _ in campaign:
                pass

    with pytest.raises(TimeoutError):
        asyncio.run(some())
    assert pool.closed_while_busy is False
    with contextlib.ExitStack() as files:
        others = [tmp_path / f"mine{i}" for i in range(8)]
        for path in others:
            files.enter_context(path.open("w+"))
        time.sleep(0.3)
        assert all(not path.read_text() for path in others)
    assert 0 < erl.open(tmp_path / "s").sizes["member"] < 500


def test_reading_a_running_campaign_from_another_thread(tmp_path):
    handle = erl.launch(
        lambda x: x,
        SPACE,
        erl.Minimize(),
        n_members=4000,
        n_pending=8,
        store=tmp_path / "s",
        cluster=erl.Simulated(8),
        progress=False,
    )
    while not handle.done:
        repr(handle)
        if handle.campaign.ledger.n:
            assert handle.why(0)["member"] == 0
            handle.answer.load()
        time.sleep(0.001)  # a reader that never sleeps keeps the interpreter for itself
    assert (handle.wait(60).fate == "ok").all()
