"""``ds.erl`` on every Dataset that comes from a store: lessons, answers, tables, other goals."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from student import SPACE, Student, prepare, square

import ensemblerl as erl
from ensemblerl.goals.extremum import Extremum
from ensemblerl.goals.known import goal_of
from ensemblerl.report import rereading
from ensemblerl.report.causes import grouped, pattern
from ensemblerl.store import fields

VERSIONS = [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("accessor") / "s"
    prepare(path).run()
    return path


def explored(**options):
    options = {"n_members": 8, "seed": 3, "cluster": "serial", "progress": False} | options
    return erl.explore(square, SPACE, erl.Minimize(), **options)


def test_of_an_opened_store(path):
    lessons = erl.open(path).erl.learning()
    assert lessons.version.values.tolist() == VERSIONS
    assert lessons.sizes["lesson"] == 8


def test_of_a_part_in_memory(path):
    ds = erl.open(path).load().isel(member=slice(3))
    assert ds.erl.learning().version.values.tolist() == VERSIONS


def test_of_the_engine_in_a_fresh_process(path):
    """Whoever opens a store by its engine has it, and loads nothing heavy for it."""
    code = (
        "import sys, xarray as xr\n"
        f"ds = xr.open_dataset({str(path)!r}, engine='ensemblerl')\n"
        "print(ds.erl.learning().version.values.tolist())\n"
        "print([m for m in ('torch', 'distributed', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(VERSIONS), "[]"]


def test_of_a_store_that_was_temporary():
    ds = explored(sampler=Student)
    assert ds.erl.learning().version.values.tolist() == VERSIONS
    assert ds.isel(member=0).erl.learning().sizes["lesson"] == 8


def test_of_a_handle_that_is_gone():
    handle = erl.launch(
        square,
        SPACE,
        erl.Minimize(),
        n_members=8,
        seed=3,
        cluster="serial",
        sampler=Student,
        progress=False,
    )
    ds = handle.wait(60)
    handle._scratch.cleanup()
    assert ds.erl.learning().version.values.tolist() == VERSIONS


def test_it_is_that_of_now(tmp_path):
    campaign = prepare(tmp_path / "s")
    with campaign:
        turns = campaign.turns()
        for _ in range(2):
            next(turns)
        ds = erl.open(tmp_path / "s")
        assert ds.erl.learning().sizes["lesson"] == 2
        for _ in turns:
            pass
        assert ds.erl.learning().sizes["lesson"] == 8


def test_a_dataset_with_lessons_goes_into_a_file(path, tmp_path):
    ds = explored(sampler=Student)
    erl.export_netcdf(ds, tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as again:
        np.testing.assert_array_equal(again.value, ds.value)
        with pytest.raises(ValueError, match=r"its store .*a\.nc is gone; keep.*store="):
            again.erl.learning()


def test_where_no_agent_learnt(tmp_path):
    for options in ({}, {"store": tmp_path / "s"}):
        with pytest.raises(ValueError, match="no agent learnt in this campaign"):
            explored(sampler="sobol", **options).erl.learning()


def test_of_a_dataset_from_elsewhere():
    with pytest.raises(ValueError, match=r"ds: wanted a Dataset as it was opened.*store="):
        xr.Dataset({"a": 1}).erl.learning()


# ---- a campaign with failures, fields, whole numbers, and names that are taken

THROWN = erl.Space(
    speed=erl.Real(1, 20, units="m/s"),
    way=erl.Choice("high", "low"),
    turns=erl.Integer(0, 9, when={"way": "high"}),
)


def throw(speed, way, turns=-1, seed=0):
    if speed > 18:
        raise RuntimeError(f"broke at {speed} in /tmp/run-{seed}/log")
    if speed < 2 and way == "low":
        return {"range": np.nan, "height": np.zeros(3), "bounces": np.array(0), "reward": 0.0}
    height = speed * np.arange(3.0) - (way == "low")
    return {"range": speed**2, "height": height, "bounces": np.array(turns), "reward": -speed}


def thrown(goal=None, **options):
    options = {"n_members": 64, "seed": 5, "cluster": "serial", "sampler": "sobol"} | options
    return erl.explore(throw, THROWN, goal or erl.Maximize("range"), progress=False, **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("thrown") / "s"
    thrown(store=path)
    return path


@pytest.fixture(scope="module", params=["store", "memory"])
def ds(request, store):
    return erl.open(store) if request.param == "store" else thrown()


def test_the_answer_is_the_goals(ds):
    answer = ds.erl.answer()
    fate = ds.fate.values
    best = int(np.nanargmax(ds["range"].values))
    assert int(answer.best_member) == best
    assert float(answer.best_value) == float(ds["range"][best])
    assert int(answer.n_ok) == (fate == "ok").sum()
    assert int(answer.n_failed) == (fate != "ok").sum() > 0
    assert answer.attrs["verdict"].startswith(f"largest 'range': {float(answer.best_value):.6g}")
    running = np.fmax.accumulate(np.where(fate == "ok", ds["range"], np.nan))
    np.testing.assert_array_equal(answer.incumbent, running)


def test_the_answer_is_about_the_members_that_the_dataset_holds(ds):
    first = ds.isel(member=slice(10))
    rest = ds.isel(member=ds.member.values != int(ds.erl.answer().best_member))
    assert int(first.erl.answer().best_member) == int(np.nanargmax(first["range"]))
    assert int(first.erl.answer().n_ok) + int(first.erl.answer().n_failed) == 10
    second = int(np.nanargmax(rest["range"]))
    assert int(rest.erl.answer().best_member) == int(rest.member[second])
    assert int(ds.isel(member=0).erl.answer().n_ok) == 1


def test_a_snapshot_answers_as_it_was(tmp_path):
    with erl.prepare(
        throw, THROWN, erl.Maximize("range"), n_members=12, store=tmp_path / "s", seed=5,
        sampler="sobol", cluster="serial",
    ) as campaign:  # fmt: skip
        turns = campaign.turns()
        for _ in range(4):
            next(turns)
        early = erl.open(tmp_path / "s").load()
        for _ in turns:
            pass
    assert int(early.erl.answer().n_ok) + int(early.erl.answer().n_failed) == 4
    assert len(erl.open(tmp_path / "s").erl.answer().incumbent) == 12


def test_the_answer_of_an_objective_that_is_a_function():
    goal = erl.Minimize(lambda there: abs(there["range"] - 100.0))
    ds = thrown(goal)
    answer = ds.erl.answer()
    assert float(answer.best_value) == pytest.approx(float(abs(ds["range"] - 100).min()))
    assert "<lambda>" in answer.attrs["verdict"]
    known = goal_of(goal.describe())
    with pytest.raises(ValueError, match=r"lambda.*wanted the function itself.*reread"):
        known.value({"range": np.array(1.0)})


class Nearest(Extremum):
    """Somebody else's goal, with a name of its own."""

    sign = -1.0

    def __init__(self, target):
        super().__init__("range")
        self.target = target

    def value(self, reduced):
        return abs(super().value(reduced) - self.target)

    def describe(self):
        return {"goal": "Nearest", "target": self.target}


def test_a_goal_of_somebody_else_is_reread():
    ds = thrown(Nearest(50.0))
    with pytest.raises(ValueError, match=r"Nearest in the store is not known.*reread\(goal\)"):
        ds.erl.answer()
    again = ds.erl.reread(Nearest(50.0))
    np.testing.assert_array_equal(again.reward, ds.reward)
    best = int(np.nanargmin(abs(ds["range"].values - 50)))
    assert int(again.erl.answer().best_member) == best == int(again.erl.best().member[0])


def test_goals_come_back_from_their_descriptions():
    for goal in (erl.Minimize("2 * a", keep=["a", "b"]), erl.Maximize("a")):
        again = goal_of({**goal.describe(), "k": 1})
        assert type(again) is type(goal)
        assert again.describe() == goal.describe()
    for other in ({}, {"goal": "Minimize"}, {**erl.Minimize().describe(), "weight": 2}):
        with pytest.raises(ValueError, match=r"goal: .* in the store is not known"):
            goal_of(other)


def test_the_best_come_first_and_keep_their_numbers(ds):
    best = ds.erl.best(3)
    order = np.argsort(-np.nan_to_num(ds["range"].values, nan=-1.0))[:3]
    assert best.member.values.tolist() == order.tolist()
    assert best.sizes == {**ds.sizes, "member": 3}
    assert ds.erl.best().sizes["member"] == 1
    assert set(ds.erl.best(1000).fate.values) == {"ok"}
    for wrong in (0, -1, 1.5, "2", True):
        with pytest.raises(ValueError, match="n: wanted a whole number >= 1, got"):
            ds.erl.best(wrong)
    with pytest.raises(ValueError, match=r"a member that is ok, none of \d+ is.*failures\(\)"):
        ds.isel(member=ds.fate.values != "ok").erl.best()


def test_of_equals_the_first_one_is_best():
    ds = erl.explore(
        lambda x: 1.0, SPACE, erl.Minimize(), n_members=5, cluster="serial", sampler="sobol",
        progress=False,
    )  # fmt: skip
    assert ds.isel(member=[3, 1, 4]).erl.best(3).member.values.tolist() == [1, 3, 4]


def test_failures_have_fate_cause_attempts_and_point(ds):
    frame = ds.erl.failures()
    assert list(frame.columns) == ["fate", "cause", "attempts", "speed", "way", "turns"]
    assert frame.index.name == "member"
    assert frame.index.tolist() == np.flatnonzero(ds.fate != "ok").tolist()
    assert set(frame.fate) == {"failed", "invalid"}
    broke = frame[frame.fate == "failed"]
    assert (broke.speed > 18).all()
    assert all(c.startswith("RuntimeError: broke at") for c in broke.cause)
    assert set(frame.attempts) == {1}
    assert frame.attrs["units"] == {"speed": "m/s"}


def test_failures_leave_out_the_pending_and_a_parameter_may_be_called_attempts(tmp_path):
    space = erl.Space(attempts=erl.Real(0, 1, units="1"))
    with erl.prepare(
        None, space, erl.Minimize(), n_members=3, store=tmp_path / "s", sampler="sobol"
    ) as campaign:
        members = campaign.ask(3)
        campaign.tell(members.take([1]), [RuntimeError("no")])
        frame = erl.open(tmp_path / "s").erl.failures()
    assert frame.index.tolist() == [1]
    assert frame.attempts.tolist() == [1]
    assert frame.parameter_attempts.tolist() == [members.points["attempts"][1]]
    assert frame.attrs["units"] == {"parameter_attempts": "1"}


def test_the_frame_has_scalars_and_names_what_it_leaves_out(ds):
    frame = ds.erl.to_dataframe()
    first = ["speed", "way", "turns", "bounces", "range", "result_reward", "reward", "fate"]
    assert list(frame.columns)[:8] == first
    assert frame.index.tolist() == ds.member.values.tolist()
    assert {"launch_time", "runtime", "seed", "proposer"} <= set(frame.columns)
    assert frame.attrs["left_out"] == {"height": ["height_0"]}
    assert frame.attrs["units"]["runtime"] == "s"
    np.testing.assert_array_equal(frame["range"], ds["range"])
    one = ds.isel(member=3).erl.to_dataframe()
    assert one.index.tolist() == [3]
    assert one.speed.tolist() == [float(ds.speed[3])]


def test_the_frame_of_a_file(ds, tmp_path):
    """What needs nothing but the Dataset works on a file as well."""
    erl.export_netcdf(ds, tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as again:
        pd.testing.assert_frame_equal(again.erl.failures(), ds.erl.failures())
        assert list(again.erl.to_dataframe().columns) == list(ds.erl.to_dataframe().columns)
        assert again.erl.best(2).member.values.tolist() == ds.erl.best(2).member.values.tolist()
        with pytest.raises(ValueError, match=r"is gone; keep.*erl\.answer\(\)"):
            again.erl.answer()


def test_causes_that_differ_in_numbers_addresses_and_directories_are_one(ds):
    frame = ds.erl.failures()
    groups = grouped(frame)
    broke = frame.index[frame.fate == "failed"].tolist()
    assert [(g.count, g.fate) for g in groups] == sorted(
        ((int((frame.fate == f).sum()), f) for f in ("failed", "invalid")), reverse=True
    )
    one = next(g for g in groups if g.fate == "failed")
    assert one.members == tuple(broke)
    assert one.cause == frame.cause[broke[0]]
    assert grouped(frame.iloc[:0]) == []


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("at 0x7f3a line 12", "at 0xbeef line 9"),
        ("no '/scratch/a1/m-3/out.csv'", "no '/home/me/x/out.csv'"),
        ("no /tmp/tmpab12cd_3", "no /tmp/tmpzzzzzzzz"),
        ("got nan", "got -inf"),
        ("x = -1.5e-3", "x = 12"),
        ("job 8f3a91bc-11d2 lost", "job 77aa0c1d-9e0f lost"),
    ],
)
def test_patterns_that_are_alike(one, two):
    assert pattern(one) == pattern(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("no '/a/in.csv'", "no '/a/out.csv'"),
        ("ValueError: low", "ValueError: high"),
        ("infinite loop", "finite loop"),
        ("a/b failed", "a/c failed"),
        ("defaced wall", "effaced wall"),
    ],
)
def test_patterns_that_are_not(one, two):
    assert pattern(one) != pattern(two)


def test_the_commonest_cause_comes_first_and_fates_are_kept_apart():
    frame = pd.DataFrame(
        {"fate": ["lost", "failed", "failed", "failed"], "cause": ["a", "b 2", "a", "b 1"]},
        index=[7, 4, 5, 2],
    )
    assert [(g.fate, g.cause, g.members) for g in grouped(frame)] == [
        ("failed", "b 1", (2, 4)),
        ("failed", "a", (5,)),
        ("lost", "a", (7,)),
    ]


# ---- another goal


def test_another_goal_on_an_old_ledger(ds):
    again = ds.erl.reread(erl.Minimize("range + 10 * bounces"))
    ok = ds.fate.values == "ok"
    cost = (ds["range"] + 10 * ds.bounces).values
    np.testing.assert_array_equal(again.reward, np.where(ok, -cost, np.nan))
    np.testing.assert_array_equal(again.fate, ds.fate)
    np.testing.assert_array_equal(again.cause, ds.cause)
    answer = again.erl.answer()
    best = int(np.nanargmin(np.where(ok, cost, np.nan)))
    assert int(answer.best_member) == best == int(again.erl.best().member[0])
    assert answer.attrs["verdict"].startswith("smallest 'range + 10 * bounces'")
    assert json.loads(again.attrs["goal"])["goal"] == "Minimize"
    assert again.reward.attrs == ds.reward.attrs
    assert again.sizes == ds.sizes
    assert ds.erl.answer().attrs["verdict"].startswith("largest 'range'"), "the old is as it was"


def test_rereading_the_same_goal_changes_nothing(ds):
    again = ds.erl.reread(erl.Maximize("range"))
    xr.testing.assert_identical(again, ds)
    xr.testing.assert_identical(again.erl.answer(), ds.erl.answer())


def test_members_without_a_finite_value_are_invalid(ds):
    again = ds.erl.reread(erl.Minimize("1 / (bounces > 0)"))
    ok, many = ds.fate.values == "ok", ds.bounces.values > 0
    np.testing.assert_array_equal(again.fate.values == "ok", ok & many)
    assert set(again.fate.values[ok & ~many]) == {"invalid"}
    assert all("wanted a finite number, got inf" in c for c in again.cause.values[ok & ~many])
    assert np.isnan(again.reward.values[ok & ~many]).all()
    assert int(again.erl.answer().n_ok) == (ok & many).sum()
    back = again.erl.reread(erl.Maximize("range"))
    np.testing.assert_array_equal(back.reward, ds.reward)
    np.testing.assert_array_equal(back.fate, ds.fate)


def test_an_error_of_some_members_is_their_cause(ds):
    def few(there):
        if there["bounces"] < 0:
            raise KeyError("none")
        return there["range"]

    again = ds.erl.reread(erl.Maximize(few))
    hit = (ds.fate == "ok").values & (ds.bounces < 0).values
    assert hit.any()
    assert set(again.fate.values[hit]) == {"invalid"}
    assert all(cause.startswith("KeyError: 'none'") for cause in again.cause.values[hit])


def test_a_function_gets_the_names_and_dtypes_of_the_simulation(ds):
    seen = {}

    def look(there):
        seen.update({name: there[name].dtype.str for name in there})
        assert len(there) == 4
        return there["height"].max() - there["reward"]

    again = ds.erl.reread(erl.Maximize(look))
    assert seen == {"range": "<f8", "height": "<f8", "bounces": "<i8", "reward": "<f8"}
    wanted = ds.height.max("height_0") - ds.result_reward
    ok = ds.fate.values == "ok"
    np.testing.assert_allclose(again.reward.values[ok], wanted.values[ok])
    assert "look" in again.erl.answer().attrs["verdict"]


def test_what_is_kept_passes_through_reduce(ds):
    goal = erl.Maximize(lambda there: float(sorted(there) == ["range"]), keep=["range"])
    assert set(ds.erl.reread(goal).reward.dropna("member").values) == {1.0}


def test_a_part_is_reread_as_a_part(ds):
    part = ds.isel(member=[9, 2, 30])
    again = part.erl.reread(erl.Minimize("range"))
    assert again.member.values.tolist() == [9, 2, 30]
    np.testing.assert_array_equal(again.reward, -part["range"].where(part.fate == "ok"))
    assert int(again.erl.answer().best_member) in (9, 2, 30)


def test_what_cannot_be_reread(ds):
    with pytest.raises(ValueError, match=r"wants variable weight; kept were: bounces, height, ra"):
        ds.erl.reread(erl.Minimize("range + weight"))
    with pytest.raises(ValueError, match="wants variable range; kept were: bounces, height, rew"):
        ds.drop_vars("range").erl.reread(erl.Minimize("range"))
    with pytest.raises(ValueError, match=r"fails for each of \d+ members.*KeyError: 'no'") as error:
        ds.erl.reread(erl.Minimize(lambda there: there["no"]))
    assert "variables that were kept: bounces, height" in str(error.value)
    for wrong in (erl.Minimize, "range", None):
        with pytest.raises(TypeError, match="goal: wanted a goal such as"):
            ds.erl.reread(wrong)
    with pytest.raises(ValueError, match=r"which store.*erl\.reread\(goal\)"):
        xr.Dataset({"a": 1}).erl.reread(erl.Minimize("a"))
    with pytest.raises(ValueError, match="with 'fate' in it, there is: "):
        ds[["range"]].erl.reread(erl.Minimize("range"))


def test_it_reads_a_few_members_at_a_time_and_only_what_is_asked_for(store, monkeypatch):
    monkeypatch.setattr(rereading, "CHUNK_BYTES", 400)  # of 48 bytes a member
    asked = []
    read = fields.Results.read

    def spied(self, name, field, rows, inner):
        asked.append((name, len(rows)))
        return read(self, name, field, rows, inner)

    monkeypatch.setattr(fields.Results, "read", spied)
    again = erl.open(store).erl.reread(erl.Minimize("bounces"))
    assert {name for name, _ in asked} == {"bounces"}
    assert max(n for _, n in asked) == 8
    assert sum(n for _, n in asked) == int((again.fate == "ok").sum())


def test_a_campaign_without_results_can_be_asked(tmp_path):
    def broken(x):
        raise RuntimeError("never")

    with pytest.warns(UserWarning, match="none of 3 members is ok"):
        ds = erl.explore(
            broken, SPACE, erl.Minimize(), n_members=3, cluster="serial", sampler="sobol",
            progress=False,
        )  # fmt: skip
    assert ds.erl.answer().attrs["verdict"] == "no answer yet: no member is ok, 3 not ok"
    again = ds.erl.reread(erl.Maximize("x"))
    assert again.fate.values.tolist() == ["failed"] * 3
    assert [g.count for g in grouped(ds.erl.failures())] == [3]


def test_what_was_in_memory_can_be_pickled():
    ds = thrown()
    again = pickle.loads(pickle.dumps(ds))
    assert again.erl.answer().identical(ds.erl.answer())


# ---- in a notebook


def test_a_campaign_shows_itself_with_everything_escaped(tmp_path):
    space = erl.Space(way=erl.Choice("<i>", "b"), x=erl.Real(0, 1, units="<u>", long_name="<s>"))
    handle = erl.launch(
        lambda way, x: {"a": x}, space, erl.Minimize("a<0.5"), n_members=4, seed=1,
        sampler="sobol", cluster="serial", progress=False,
    )  # fmt: skip
    handle.wait(60)
    html = handle._repr_html_()
    assert "Minimize(&#x27;a&lt;0.5&#x27;)" in html
    assert "4 of 4 members, all members settled" in html
    assert "<progress value='4' max='4'>" in html
    assert ">4 ok<" in html
    assert "best so far" in html
    told = html + space._repr_html_()
    assert "way = &lt;i&gt;" in told or "way = b" in told
    assert not any(tag in told for tag in ("<i>", "<u>", "<s>", "http", "<script", "color"))


def test_a_space_shows_kind_range_prior_and_condition():
    html = THROWN._repr_html_()
    for cell in ("real", "1.0 to 20.0", "m/s", "high, low", "0 to 9", "way = high", "uniform"):
        assert f"<td>{cell}</td>" in html
    many = erl.Space(
        rate=erl.Real(1e-3, 1, log=True), step=erl.Real(0, 1, step=0.25),
        one=erl.Choice(*range(20)), noise=erl.LogNormal.from_median(3, factor=2),
    )._repr_html_()  # fmt: skip
    assert "<td>uniform in the logarithm</td>" in many
    assert "<td>0.0 to 1.0, steps of 0.25</td>" in many
    assert "<td>0, 1, 2, 3, 4, 5, 6, 7, ...</td>" in many
    assert "<td>LogNormal(1.09861, 0.693147)</td>" in many


def test_it_says_what_it_can_do(ds):
    """Every public method and property, as it is called, with the first line about it."""
    from ensemblerl.report.accessor import Erl, Plots

    said = repr(ds.erl)
    for name in (name for name in vars(Erl) if not name.startswith("_")):
        assert f"\n  .{name}" in said
    assert re.search(r"\.best\(n=1\) +The n members with the largest rewards, best first", said)
    assert ".reread(goal) " in said
    assert "self" not in said
    shown = repr(Plots(ds))
    assert ".history(ax=None) " in shown
    assert ".parameters(names=None) " in shown
    assert max(map(len, f"{said}\n{shown}".splitlines())) <= 115
