"""The loop: the same over every way of running, nothing lost, stopping, resuming."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import ensemblerl as erl
from ensemblerl.records import Proposals
from ensemblerl.samplers.sobol import Sobol

SPACE = erl.Space(
    a=erl.Real(0.0, 1.0, units="m"),
    b=erl.Real(1e-3, 1e3, log=True),
    c=erl.Integer(1, 5),
    kind=erl.Choice("x", "y"),
    d=erl.Real(0.0, 1.0, when={"kind": "x"}),
)
TIMES = {"launch_time", "start_time", "end_time", "runtime", "worker"}


def simulate(a, b, c, kind, d=0.0, seed=0):
    noise = np.random.default_rng(seed).normal()
    return {"rmse": (a - 0.3) ** 2 + c + d + noise, "field": np.arange(3) * a}


def run(**options):
    options = {"n_members": 40, "seed": 7, "sampler": "sobol", "progress": False} | options
    return erl.explore(simulate, SPACE, erl.Minimize("rmse"), **options)


def same(one: xr.Dataset, two: xr.Dataset) -> None:
    xr.testing.assert_identical(
        one.drop_vars(TIMES).drop_attrs().load(), two.drop_vars(TIMES).drop_attrs().load()
    )


@pytest.fixture(scope="module")
def serial():
    return run(cluster="serial")


EXECUTORS = {
    "threads": lambda: concurrent.futures.ThreadPoolExecutor(4),
    "processes": lambda: concurrent.futures.ProcessPoolExecutor(2),
    "simulated": lambda: erl.Simulated(5, runtime=lambda p, rng: rng.lognormal(), seed=3),
    "shuffled": lambda: erl.Simulated(5, order="shuffled", seed=3, loss_rate=0.1),
}


@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.parametrize("bundle", [1, "auto", 7])
def test_every_way_of_running_gives_the_same_dataset(serial, name, bundle):
    other = run(cluster=EXECUTORS[name](), n_pending=12, bundle=bundle)
    if name == "shuffled":
        serial, other = serial.drop_vars("attempt"), other.drop_vars("attempt")
    same(serial, other)


def test_dask_processes_give_the_same_dataset(serial):
    same(serial, run())


@pytest.mark.parametrize("sampler", ["sobol", None])
def test_serial_twice_is_the_same_bit_for_bit(sampler):
    same(run(cluster="serial", sampler=sampler), run(cluster="serial", sampler=sampler))


def test_what_the_dataset_holds(serial):
    assert serial.sizes["member"] == 40
    assert serial.a.attrs["units"] == "m"
    assert (serial.fate == "ok").all()
    np.testing.assert_array_equal(serial.reward, -serial.rmse)
    inactive = serial.kind == "y"
    assert serial.d.isnull()[inactive].all()
    assert serial.d.notnull()[~inactive].all()
    assert (serial.log_prob == 0).all()
    assert serial.field.shape == (40, 3)
    point = {name: serial[name][3].item() for name in ("a", "b", "c", "kind", "d")}
    if point["kind"] == "y":
        del point["d"]
    assert simulate(**point, seed=int(serial.seed[3]))["rmse"] == serial.rmse[3]


def test_resume_goes_on_where_it_stopped(tmp_path, serial):
    path = tmp_path / "run"
    run(cluster="serial", n_members=11, store=path)
    again = run(cluster="serial", n_members=11, store=path)
    assert again.sizes["member"] == 11
    same(serial, run(cluster="serial", store=path))


def test_resume_without_a_seed_takes_the_one_in_the_store(tmp_path):
    path = tmp_path / "run"
    run(cluster="serial", n_members=5, store=path, seed=None)
    assert run(cluster="serial", n_members=9, store=path, seed=None).sizes["member"] == 9
    with pytest.raises(erl.Mismatch, match=r"seed: .* was begun with seed"):
        run(cluster="serial", n_members=10, store=path, seed=1)


def test_resume_refuses_another_space_or_goal(tmp_path):
    path = tmp_path / "run"
    run(cluster="serial", n_members=3, store=path)
    others = {name: SPACE[name] for name in SPACE if name != "a"}
    other = erl.Space(others, a=erl.Real(0.0, 2.0))
    with pytest.raises(erl.Mismatch, match=r"(?s)another space or goal.*high: 1.0 in the store"):
        erl.explore(simulate, other, erl.Minimize("rmse"), n_members=5, store=path)
    with pytest.raises(erl.Mismatch, match=r"(?s)goal.*erl\.fork"):
        erl.explore(simulate, SPACE, erl.Maximize("rmse"), n_members=5, store=path)


def test_changed_code_asks_for_a_word(tmp_path):
    path = tmp_path / "run"

    def go(version, **more):
        simulation = erl.Function(simulate, version=version)
        return erl.explore(
            simulation, SPACE, erl.Minimize("rmse"), store=path, cluster="serial", **more
        )

    go("1.0", n_members=3)
    with pytest.raises(erl.Mismatch, match=r"'1.0' in the store, '1.1' now.*accept_version"):
        go("1.1", n_members=5)
    ds = go("1.1", n_members=5, accept_version=True)
    assert ds.simulation_version.values.tolist() == ["1.0"] * 3 + ["1.1"] * 2


@pytest.mark.parametrize(
    ("rule", "members"),
    [
        ("members >= 6", 6),
        (lambda ledger: ledger.n_settled >= 5, 5),
        (["best_reward > 100", "ok >= 4"], 4),
        ("no_gain >= 3", None),
    ],
)
def test_stop_rules(rule, members):
    ds = run(cluster="serial", stop=rule)
    assert ds.sizes["member"] < 40
    if members:
        assert ds.sizes["member"] == members
    else:
        best = int(ds.reward.values.argmax())
        assert ds.sizes["member"] == best + 4
    assert "stop rule" in ds.attrs["reason"]


def test_elapsed_is_in_the_executors_time():
    ds = run(cluster=erl.Simulated(2, runtime=10.0), stop="elapsed >= 50", n_pending=2)
    assert 8 <= ds.sizes["member"] <= 12


@pytest.mark.parametrize(
    ("rule", "error"),
    [("speed > 3", "stop: .*speed"), ("members >", "members >"), (3, "stop: wanted text")],
)
def test_bad_stop_rules(rule, error):
    with pytest.raises((ValueError, TypeError), match=error):
        run(cluster="serial", stop=rule)


def half(a, **rest):
    if a > 0.5:
        raise RuntimeError(f"a is {a:.3f}")
    return {"rmse": a}


def test_a_failing_simulation_never_stops_the_campaign():
    ds = erl.explore(half, SPACE, erl.Minimize("rmse"), n_members=30, cluster="serial", seed=1)
    assert ((ds.fate == "failed") == (ds.a > 0.5)).all()
    assert ds.reward.isnull()[ds.a.values > 0.5].all()
    cause = ds.cause[ds.a.values > 0.5][0].item()
    assert "RuntimeError: a is" in cause


def never(**point):
    raise RuntimeError("no licence")


@pytest.mark.parametrize(("limit", "many"), [(3, 3), (0.5, 10)])
def test_max_failures_stops_it_with_the_causes(tmp_path, limit, many):
    go = {"cluster": "serial", "seed": 1, "store": tmp_path / "s", "n_members": 40}
    with pytest.raises(erl.CampaignFailed, match=r"(?s)max_failures.*no licence"):
        erl.explore(never, SPACE, erl.Minimize("rmse"), max_failures=limit, **go)
    assert erl.open(tmp_path / "s").sizes["member"] == many


@pytest.mark.parametrize("limit", [0, -1, 1.5, 0.0, True, "3"])
def test_bad_max_failures(limit):
    with pytest.raises((ValueError, TypeError), match="max_failures"):
        run(cluster="serial", max_failures=limit)


def flaky(member, **point):
    if member["attempt"] < 3:
        raise OSError("licence server busy")
    return {"rmse": float(member["attempt"])}


@pytest.mark.filterwarnings("ignore:none of 4 members is ok")
@pytest.mark.parametrize(("retries", "fate"), [(2, "ok"), (1, "failed")])
def test_retries_belong_to_the_simulation(retries, fate):
    simulation = erl.Function(flaky, retries=retries)
    ds = erl.explore(simulation, SPACE, erl.Minimize("rmse"), n_members=4, cluster="serial")
    assert (ds.fate == fate).all()
    assert (ds.attempt == retries + 1).all()


def changing(a, **rest):
    return {"rmse": a, "extra": 1.0} if rest["c"] == 3 else {"rmse": a}


def test_changed_variables_are_invalid():
    ds = erl.explore(changing, SPACE, erl.Minimize("rmse"), n_members=40, cluster="serial", seed=5)
    odd = ds.c.values == 3
    first = odd[0]
    assert ((ds.fate.values == "ok") == (odd == first)).all()
    assert "variables changed" in ds.cause.values[odd != first][0]


def test_losses_are_run_again_and_never_charged():
    ds = run(cluster=erl.Simulated(4, seed=1, loss_rate=0.2), n_members=200)
    lost = ds.attempt > 1
    assert 0.1 < float(lost.mean()) < 0.35
    share = float((ds.fate == "ok").mean())
    assert share > 0.95
    thrice = ds.fate == "failed"
    assert (ds.attempt[thrice] == 3).all()
    assert all("launched 3 times" in cause for cause in ds.cause.values[thrice])


def test_a_store_that_is_none_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = set()

    def look(ledger):
        seen.update(path.name for path in tmp_path.iterdir())

    run(cluster="serial", n_members=3, stop=look)
    assert [name.startswith("ensemblerl-") for name in seen] == [True]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"n_members": 0}, "n_members: wanted a whole number >= 1, got 0"),
        ({"n_members": 2.5}, "n_members: .* got 2.5"),
        ({"n_pending": 0}, "n_pending"),
        ({"bundle": "big"}, "bundle: .*'big'"),
        ({"sampler": "best"}, "sampler: wanted one of .* got 'best'"),
        ({"sampler": 3}, "sampler: .*int"),
        ({"cluster": "slurm"}, "cluster: .*'slurm'"),
        ({"cluster": 3}, "cluster: .*int"),
        ({"seed": -1}, "seed: .*-1"),
        ({"store": 3}, "store: wanted a path, got 3"),
        ({"store": ""}, "store: wanted a path, got ''"),
        ({"seed": 2**63}, "seed: .*below"),
        ({"tags": ["a"]}, "tags: wanted a dict of text to text"),
    ],
)
def test_bad_arguments_are_named(options, error):
    with pytest.raises((ValueError, TypeError), match=error):
        run(**({"cluster": "serial"} | options))


def test_start_points_go_first():
    start = [{"a": 0.25, "b": 1.0, "c": 2, "kind": "y"}]
    space = erl.Space({name: SPACE[name] for name in SPACE}, start=start)
    ds = erl.explore(simulate, space, erl.Minimize("rmse"), n_members=5, cluster="serial", seed=1)
    assert ds.proposer[0] == "start"
    assert set(ds.proposer.values[1:].tolist()) <= {"agent", "sobol", "differential_evolution"}
    assert ds.a[0] == pytest.approx(0.25, abs=1e-12)
    assert np.isnan(ds.log_prob[0])


class Cycles:
    """Two generations: each member of the second starts from the state its parent left."""

    name, has_density, order_free = "cycles", False, True

    def __init__(self, cube, size=6):
        self.cube, self.size, self.first = cube, size, Sobol(cube)
        self.told, self.asked = {}, 0

    def ask(self, n, rng, context=None):
        if self.asked < self.size:
            n = min(n, self.size - self.asked)
            unit = self.first.ask(n, rng).unit
            cycle, parent = np.zeros(n, int), np.full(n, -1)
        else:
            ready = [i for i, (fate, unit) in self.told.items() if fate == "ok" and i < self.size]
            ready = ready[self.asked - self.size :][:n] if len(ready) == self.size else []
            unit = np.array([self.told[i][1] for i in ready]).reshape(-1, self.cube.ndim)
            cycle, parent = np.ones(len(ready), int), np.array(ready, dtype=int)
        self.asked += len(unit)
        return Proposals(unit, {"cycle": cycle, "parent": parent, "group": parent * 0 + 3})

    def tell(self, members, results):
        self.first.tell(members, results)
        for i, unit, fate in zip(members.number, members.unit, results.fate, strict=True):
            self.told[int(i)] = (str(fate), unit)
        return {}

    def state_dict(self):
        return {"asked": self.asked}

    def load_state_dict(self, state):
        self.asked = int(state["asked"])

    def describe(self):
        return {"sampler": "Cycles"}


def restarting(a, member, **rest):
    before = float(Path(member["state"]).read_text()) if member["state"] else 0.0
    path = Path(os.environ["STATES"]) / f"{member['number']}.txt"
    path.write_text(str(before + a))
    return {"rmse": before + a, "state": str(path)}


def test_two_cycles_in_which_members_start_from_their_parents_state(tmp_path, monkeypatch):
    monkeypatch.setenv("STATES", str(tmp_path))
    ds = erl.explore(
        restarting,
        SPACE,
        erl.Minimize("rmse"),
        n_members=12,
        sampler=Cycles,
        cluster=concurrent.futures.ThreadPoolExecutor(3),
        store=tmp_path / "s",
    ).load()
    assert ds.cycle.values.tolist() == [0] * 6 + [1] * 6
    assert sorted(ds.parent.values[6:]) == list(range(6))
    assert (ds.group == 3).all()
    children = ds.isel(member=slice(6, None))
    parents = ds.isel(member=children.parent.values)
    np.testing.assert_array_equal(children.rmse, children.a.values + parents.a.values)
    assert children.left_state.values[0].endswith("6.txt")


def slow(a, **rest):
    time.sleep(0.05)
    return {"rmse": a}


def test_first_interrupt_finishes_what_runs_and_second_leaves(tmp_path):
    def press(after):
        for seconds in after:
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGINT)

    go = {"n_members": 200, "cluster": "serial", "seed": 1, "progress": False, "sampler": "sobol"}
    threading.Thread(target=press, args=([0.5],)).start()
    ds = erl.explore(slow, SPACE, erl.Minimize("rmse"), store=tmp_path / "a", **go)
    assert 0 < ds.sizes["member"] < 200
    assert (ds.fate == "ok").all()
    assert ds.attrs["reason"] == "interrupted"
    threading.Thread(target=press, args=([0.5, 0.01],)).start()
    with pytest.raises(KeyboardInterrupt):
        erl.explore(slow, SPACE, erl.Minimize("rmse"), store=tmp_path / "b", **go)
    ds = erl.open(tmp_path / "b").load()
    assert (ds.fate == "pending").sum() <= 1
    go["n_members"] = ds.sizes["member"] + 2
    ds = erl.explore(slow, SPACE, erl.Minimize("rmse"), store=tmp_path / "b", **go)
    assert (ds.fate == "ok").all()


def test_launch_does_not_block(tmp_path):
    handle = erl.launch(
        slow, SPACE, erl.Minimize("rmse"), n_members=6, store=tmp_path / "s", cluster="serial"
    )
    assert "of 6 members" in repr(handle)
    assert handle.wait(30).sizes["member"] == 6
    assert int(handle.answer.best_member) == int(handle.ds.reward.values.argmax())
    handle.extend(3)
    assert asyncio.run(_awaited(handle)).sizes["member"] == 9
    assert handle.why(2)["fate"] == "ok"
    assert "<b>ensemblerl</b>" in handle._repr_html_()
    handle.extend(500)
    time.sleep(0.3)
    handle.stop()
    assert 9 < handle.wait(30).sizes["member"] < 200
    with pytest.raises(ValueError, match="member: wanted a number below"):
        handle.why(10_000)


def test_extending_a_campaign_that_is_about_to_end_is_never_lost(tmp_path):
    rng = np.random.default_rng(3)
    for i in range(8):
        handle = erl.launch(
            lambda a, **rest: {"rmse": a},
            SPACE,
            erl.Minimize("rmse"),
            n_members=3,
            store=tmp_path / f"s{i}",
            cluster="serial",
        )
        time.sleep(rng.uniform(0, 0.06))
        handle.extend(4)
        ds = handle.wait(30)
        assert ds.sizes["member"] == 7
        assert (ds.fate == "ok").all()


def test_launch_and_explore_take_the_same_arguments():
    def arguments(f):
        return dict(inspect.signature(f).parameters)

    assert arguments(erl.launch) == arguments(erl.explore)
    own = {"progress", "watch", "store"}
    common = set(arguments(erl.explore)) - own
    assert set(arguments(erl.prepare)) - own == common


def test_launch_without_a_store():
    handle = erl.launch(slow, SPACE, erl.Minimize("rmse"), n_members=3, cluster="serial")
    assert (handle.wait(30).fate == "ok").all()


async def _awaited(handle):
    return await handle


def test_driven_by_hand(tmp_path):
    def make():
        return erl.prepare(
            None, SPACE, erl.Minimize("rmse"), n_members=9, store=tmp_path / "s", seed=4
        )

    with make() as campaign:
        members = campaign.ask(4)
        results = [{"rmse": float(a)} for a in members.points["a"]]
        results[1] = RuntimeError("power cut")
        assert campaign.tell(members, results) == ["ok", "failed", "ok", "ok"]
        campaign.ask(2)
    with make() as campaign:
        waiting = campaign.waiting()
        assert waiting.number.tolist() == [4, 5]
        campaign.tell(waiting, [{"rmse": 1.0}, {"rmse": 2.0}])
    ds = erl.open(tmp_path / "s").load()
    assert ds.fate.values.tolist() == ["ok", "failed", "ok", "ok", "ok", "ok"]
    assert "power cut" in ds.cause.values[1]


def test_asking_by_hand_for_more_than_there_are(tmp_path):
    go = {"n_members": 3, "store": tmp_path / "s"}
    with erl.prepare(None, SPACE, erl.Minimize("rmse"), **go) as campaign:
        members = campaign.ask(10)
        assert len(members) == 3
        with pytest.raises(ValueError, match="results: wanted 3, got 1"):
            campaign.tell(members, [1.0])
        assert "0 of 3 members" in repr(campaign)


def test_async_iterator(tmp_path):
    async def go():
        campaign = erl.prepare(
            slow, SPACE, erl.Minimize("rmse"), n_members=5, store=tmp_path / "s", cluster="serial"
        )
        return [row["member"] async for row in campaign]

    assert asyncio.run(go()) == [0, 1, 2, 3, 4]


def test_rerun_gives_the_same_result(tmp_path):
    ds = run(cluster="serial", n_members=5, store=tmp_path / "s").load()
    again = erl.rerun(tmp_path / "s", 3)
    assert again["rmse"] == ds.rmse.values[3]
    with pytest.raises(ValueError, match="member"):
        erl.rerun(tmp_path / "s", 99)


def test_fork_starts_from_the_old_data(tmp_path):
    old = run(cluster="serial", n_members=20, store=tmp_path / "old").load()
    space = erl.Space({name: SPACE[name] for name in SPACE if name != "a"}, a=erl.Real(0.0, 0.5))
    erl.fork(tmp_path / "old", tmp_path / "new", space=space)
    kept = old.a.values <= 0.5
    ds = erl.open(tmp_path / "new").load()
    assert ds.sizes["member"] == kept.sum()
    np.testing.assert_array_equal(ds.rmse.values, old.rmse.values[kept])
    np.testing.assert_array_equal(ds.field.values, old.field.values[kept])
    assert (ds.proposer == "fork").all()
    assert ds.log_prob.isnull().all()
    more = erl.explore(
        simulate,
        space,
        erl.Minimize("rmse"),
        n_members=30,
        store=tmp_path / "new",
        cluster="serial",
    )
    assert more.sizes["member"] == 30
    assert (more.simulation_version[0] == more.simulation_version).all()
    np.testing.assert_array_equal(ds.seed.values, old.seed.values[kept])
    np.testing.assert_array_equal(ds.note_origin.values, np.flatnonzero(kept))
    assert float(more.a.max()) <= 0.5
