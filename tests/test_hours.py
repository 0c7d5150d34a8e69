"""Worker time by what became of it, and what jobs of another length would have cost."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from store_support import Rehearsed, members, small_blocks

import ensemblerl as erl
from ensemblerl.cli.show import show
from ensemblerl.events import Ended, Held, Launched, Opened, Relaunched, Settled
from ensemblerl.ledger import Ledger
from ensemblerl.records import Outcome
from ensemblerl.report.hours import amount, shares, table
from ensemblerl.report.joblengths import Pool, pool, replay, replays, sentence
from ensemblerl.report.spending import PARTS, runs, runtimes, spent
from ensemblerl.store.codec import decode, encode

T, NAN = 1e9, math.nan


def held(job="1", began=0.0, connected=0.0, ended=0.0, **changes):
    """A job; times count from T."""
    given = {"node": "n1", "slots": 2, "cores": 4, "walltime": 3600.0, "cause": "drained"}
    times = {"began": T + began, "connected": T + connected, "ended": T + ended}
    return Held(time=T + ended + 5.0, job=job, **(given | times | changes))


def ledger_of(*events):
    ledger = Ledger(3)
    for event in (Opened(T, "v", 10), *events):
        ledger.apply(event)
    return ledger


def ok(number, runtime, attempt=1):
    return Outcome(number, attempt, "ok", "", (0.0,), T, runtime, "w")


def again(when, number, attempt):
    return Relaunched(T + when, np.array([number]), np.array([attempt]))


CAMPAIGN = [
    Launched(T + 50, members(0, 3)),
    Launched(T + 600, members(3, 1)),
    Ended(T + 300, (Outcome(2, 1, "failed", "exit code 1", (), T, 50.0, "w"),)),
    again(300, 2, 2),
    Settled(T + 950, (ok(0, 800.0), ok(2, 150.0, attempt=2))),
    Ended(T + 980, (ok(2, 60.0, attempt=1),)),
    Settled(T + 990, (Outcome(1, 1, "invalid", "NaN", (), T, 40.0, "w"),)),
    held("8", 200, NAN, 300, cause="cancelled"),
    Ended(T + 1100, (Outcome(3, 1, "lost", "cut off by the end of its job", blameless=True),)),
    held("7", 0, 100, 1100, cause="timeout"),
    again(1101, 3, 2),
]
"""Two jobs of two slots: 2 * 1100 s and 2 * 100 s. Starting: 2 * 100 s and all of the second."""
WANTED = {
    "useful": 950.0,
    "repeated": 60.0,
    "lost to walltime": 500.0,
    "lost otherwise": 0.0,
    "failed": 90.0,
    "stopped": 0.0,
    "starting": 400.0,
    "waiting": 400.0,
}


def test_each_second_goes_to_its_part():
    told = spent(ledger_of(*CAMPAIGN))
    assert told.seconds == pytest.approx(WANTED)
    assert told.total == pytest.approx(2400.0)
    assert told.cores == pytest.approx(2.0)
    assert told.measured
    assert told.beyond == 0.0


def test_in_words():
    told = spent(ledger_of(*CAMPAIGN))
    assert amount(told) == ("1.3", "core-hours")  # 2400 s of slots with 2 cores
    wanted = "40 % useful, 2 % repeated, 21 % lost to walltime, 4 % failed, "
    assert shares(told) == wanted + "17 % starting, 17 % waiting"


def test_a_loss_before_the_walltime_is_another_part():
    events = [
        Launched(T, members(0, 2)),
        Ended(T + 10, (Outcome(0, 1, "lost", "node down", (), 0.0, 7.0, ""),)),
        Ended(T + 10, (Outcome(1, 1, "stopped", "worker gone"),)),
        held("7", 0, 0, 20),
    ]
    told = spent(ledger_of(*events)).seconds
    assert told["lost otherwise"] == 7.0  # what was measured counts more than the span of 10 s
    assert (told["lost to walltime"], told["stopped"], told["waiting"]) == (0.0, 0.0, 33.0)


@pytest.mark.parametrize(
    ("cause", "end", "job", "part"),
    [
        ("cut off after 7 s: its job ended", 500, "cancelled", "lost to walltime"),
        ("job 7 on n1 ended: timeout", 500, "cancelled", "lost to walltime"),
        ("ended by SIGTERM, as queues do", 1000, "timeout", "lost to walltime"),
        ("ended by SIGTERM, as queues do", 500, "timeout", "lost otherwise"),
        ("ended by SIGTERM, as queues do", 1000, "cancelled", "lost otherwise"),
    ],
)
def test_the_queue_knows_who_was_lost_to_walltime(cause, end, job, part):
    events = [
        Launched(T, members(0, 1)),
        Ended(T + end, (Outcome(0, 1, "lost", cause, (), 0.0, 7.0, "w"),)),
        held("7", 0, 0, 1030, cause=job),
        held("8", 0, 0, 5000, cause="cancelled"),
    ]
    assert spent(ledger_of(*events)).seconds[part] == 7.0


def test_a_member_that_was_launched_before_its_job_came_is_lost_from_then_on():
    lost = Outcome(0, 1, "lost", "walltime")
    events = [
        held("6", 0, 10, 500),
        Launched(T, members(0, 1)),
        Ended(T + 1002, (lost,)),
        held("7", 600, 700, 1000),
    ]
    assert spent(ledger_of(*events)).seconds["lost to walltime"] == pytest.approx(302.0)


def test_an_attempt_told_of_too_late_has_no_span():
    lost = Outcome(0, 1, "lost", "walltime")
    events = [Launched(T, members(0, 1)), again(5, 0, 2), Ended(T + 9, (lost,)), held("7", 0, 0, 9)]
    assert spent(ledger_of(*events)).seconds["lost to walltime"] == 0.0


def test_a_member_lost_once_too_often_has_failed_and_took_its_time():
    failed = Outcome(0, 1, "failed", "launched 3 times without an end")
    told_of = Outcome(1, 1, "failed", "no such file", (), T, 0.0, "w")
    events = [Launched(T + 1, members(0, 2)), Settled(T + 9, (failed, told_of)), held("7", 0, 0, 9)]
    assert spent(ledger_of(*events)).seconds["failed"] == 8.0


def test_what_is_guessed_never_takes_more_than_is_left():
    lost = tuple(Outcome(i, 1, "lost", cause) for i, cause in enumerate(("walltime", "?", "?")))
    events = [Launched(T, members(0, 3)), Ended(T + 30, lost), held("7", 0, 0, 30)]
    told = spent(ledger_of(*events)).seconds
    assert told["lost to walltime"] == pytest.approx(20.0)
    assert told["lost otherwise"] == pytest.approx(40.0)
    assert told["waiting"] == 0.0


def test_members_of_jobs_that_have_not_ended_count_by_their_run_time():
    events = [Launched(T, members(0, 1)), Settled(T + 90, (ok(0, 90.0),)), held("7", 0, 10, 30)]
    ledger = ledger_of(*events)
    told = spent(ledger)
    assert told.total == pytest.approx(110.0)  # 90 s, and 20 s of starting
    assert told.beyond == pytest.approx(50.0)
    assert told.seconds["waiting"] == 0.0
    assert "jobs that have not ended" in table(ledger).attrs["verdict"]


def test_the_last_word_on_a_run_of_a_job_counts():
    first = held("7", 0, 10, 50, cause="closed")
    told = [first, held("7", 0, 10, 80), held("8", 0, 10, 60), held("7", 200, 210, 300)]
    ends = sorted((run.job, run.ended - T) for run in runs(told))
    assert ends == [("7", 80.0), ("7", 300.0), ("8", 60.0)]  # job 7 was started twice
    assert runs([first, held("7", NAN, 10, 70)])[0].ended == T + 70
    assert len(runs([first, held("7", NAN, 60, 70)])) == 2


def test_a_job_that_never_began_costs_nothing():
    told = spent(ledger_of(held("7", NAN, NAN, 50, cause="cancelled")))
    assert told.total == 0.0
    data = table(ledger_of(held("7", NAN, NAN, 50)))
    assert data.attrs["verdict"] == "no worker time is known yet"
    assert float(data.share.sum()) == 0.0


def test_without_jobs_there_is_the_run_time_alone():
    events = [Launched(T + 10, members(0, 2)), Settled(T + 100, (ok(0, 80.0), ok(1, 70.0)))]
    told = spent(ledger_of(*events))
    assert told.total == 150.0
    assert not told.measured
    assert amount(told) == ("0.042", "hours of run time")
    told = spent(ledger_of(*events), n_workers=2)
    assert told.seconds["waiting"] == pytest.approx(50.0)  # 2 * 100 s of the session
    assert told.measured
    data = table(ledger_of(*events), n_workers=2)
    assert data.attrs["verdict"] == "0.056 hours of worker time: 75 % useful, 25 % waiting"
    assert np.isnan(data.core_hours).all()
    assert "replayed_hours" not in data


def test_more_workers_than_were_said():
    events = [Launched(T, members(0, 2)), Settled(T + 80, (ok(0, 80.0), ok(1, 80.0)))]
    told = table(ledger_of(*events), n_workers=1).attrs["verdict"]
    assert told.endswith("n_workers= could have had them, there were more")


def test_sessions_count_without_the_time_between_them():
    events = [
        Launched(T + 10, members(0, 1)),
        Settled(T + 40, (ok(0, 30.0),)),
        Opened(T + 9000, "v", 10),
        Launched(T + 9000, members(1, 1)),
        Settled(T + 9020, (ok(1, 20.0),)),
    ]
    assert spent(ledger_of(*events), n_workers=1).total == pytest.approx(60.0)


seconds = st.floats(0.0, 1e4)
fates = st.sampled_from(["ok", "failed", "invalid", "timeout", "out_of_memory", "stopped", "lost"])
times = st.one_of(st.just(NAN), seconds)
jobs = st.lists(st.tuples(st.sampled_from("789"), times, times, times, st.integers(1, 4)))
ends = st.lists(st.tuples(fates, st.sampled_from(["", "walltime"]), times, seconds), max_size=8)


@given(jobs, ends, st.sampled_from([None, 1, 5]))
@settings(max_examples=200, deadline=None)
def test_parts_add_up_to_what_the_jobs_took(jobs, ends, n_workers):
    ledger = ledger_of(Launched(T, members(0, 1 + len(ends))))
    for i, (fate, cause, runtime, when) in enumerate(ends):
        outcome = Outcome(i, 1, fate, cause, runtime=0.0 if math.isnan(runtime) else runtime)
        ledger.apply(Ended(T + when, (outcome,)))
        if fate != "lost" and i % 2:
            ledger.apply(Settled(T + when, (outcome._replace(attempt=2),)))
    for job, began, connected, ended, slots in jobs:
        ledger.apply(held(job, began, connected, ended, slots=slots))
    told = spent(ledger, n_workers=n_workers)
    assert set(told.seconds) == set(PARTS)
    assert all(part >= 0.0 for part in told.seconds.values())
    if jobs:
        lengths = []
        for run in runs(ledger.held):
            begin = [t for t in (run.began, run.connected, run.ended) if t == t]
            length = run.ended - begin[0] if run.ended == run.ended else 0.0
            lengths.append(run.slots * max(0.0, length))
        assert told.total == pytest.approx(sum(lengths) + told.beyond)
        assert told.beyond == 0.0 or told.seconds["waiting"] == 0.0


# ---- jobs of another length


ONE = Pool(jobs=1, slots=1, startup=10.0, walltime=100.0)


def test_a_replay_counted_by_hand():
    """Two slots, 10 s to start, 100 s: a job takes (50, 30) and (40, 40) and leaves after 90 s.

    Of the rest (60, 20) the second slot waits for the first, until 70 s.
    """
    two = ONE._replace(slots=2)
    assert replay([50, 40, 40, 30, 60, 20], two, 30) == 2 * 90 + 2 * 70
    side_by_side = two._replace(jobs=2)  # (50), (40), (40), (30, 60 up to 100), (20 on the third)
    assert replay([50, 40, 40, 30, 60, 20], side_by_side, 30) == 2 * 70 + 2 * 100


def test_a_member_begins_only_where_it_is_expected_to_finish():
    assert replay([40, 40, 40], ONE, 40) == 90 + 50
    assert replay([40, 40, 40], ONE, 51) == 3 * 50


def test_a_member_that_is_cut_off_is_run_again():
    assert replay([40, 60], ONE, 40) == 100 + 70


def test_a_member_that_never_finishes_has_no_cost():
    assert math.isnan(replay([40, 91], ONE, 40))
    assert math.isnan(replay([40], ONE, 91))
    assert replay([90], ONE, 90) == 100


def test_members_that_just_fit_do_finish():
    """However the times are rounded: no job is begun for ever."""
    tight = Pool(2, 3, 0.1, 0.1 + 0.7)
    fits = tight.walltime - tight.startup
    assert replay([fits] * 24, tight, fits) == pytest.approx(8 * 3 * 0.8)


@given(
    st.lists(st.floats(0.1, 90.0), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(1, 4),
    st.floats(0.0, 90.0),
)
@settings(max_examples=200, deadline=None)
def test_no_replay_is_cheaper_than_its_run_times(runtimes, n_jobs, slots, needed):
    cost = replay(runtimes, Pool(n_jobs, slots, 10.0, 100.0), needed)
    assert sum(runtimes) < cost
    assert cost <= 100.0 * slots * (n_jobs + 2 * len(runtimes))


def test_the_pool_is_what_was_seen():
    seen = [held(str(i), 100 * i, 100 * i + 20, 100 * i + 220, slots=4) for i in range(6)]
    seen += [held("x", 0, NAN, 5000), held("y", 0, 4000, 4001, slots=4, walltime=NAN)]
    # connected for 200 s each, one more every 100 s: two side by side
    assert pool(seen) == Pool(jobs=2, slots=4, startup=20.0, walltime=3600.0)
    assert pool(seen[6:7]) is None


def test_longer_jobs_save_what_short_ones_waste():
    """1 h, 6 min to start, members of 20 min: a job takes two and costs 46 min; with 30 min one in
    26 min, with 2 h five in 106 min, with 4 h eleven in 226 min. (Needed: a quarter more than
    20 min, but for the 30 min, in which nobody would begin then.)
    """
    hourly = Pool(1, 1, 360.0, 3600.0)
    costs = replays([1200.0] * 110, hourly)
    minutes = {length / 3600: cost / 60 for length, cost in costs.items()}
    assert minutes == pytest.approx({0.5: 110 * 26, 1: 55 * 46, 2: 22 * 106, 4: 10 * 226})
    assert sentence(costs, 3600.0) == "jobs of 4 h instead of 1 h would have cost 11 % less"


def test_half_a_job_may_hold_a_member():
    assert replays([1200.0], Pool(1, 1, 200.0, 3600.0))[1800.0] == 1400.0


def test_shorter_jobs_can_be_the_better_ones():
    told = "jobs of 30 min instead of 1 h would have cost 40 % less"
    assert sentence({1800.0: 3.0, 3600.0: 5.0}, 3600.0) == told


def test_of_lengths_that_cost_the_same_the_shortest_is_named():
    told = "jobs of 2 h instead of 1 h would have cost 25 % less"
    assert sentence({1800.0: 5.0, 3600.0: 4.0, 7200.0: 3.0, 14400.0: 2.99}, 3600.0) == told


def test_nothing_is_said_of_what_is_not_known():
    assert sentence({}, NAN) == ""
    assert sentence({1800.0: 1.0, 3600.0: NAN, 7200.0: 1.0}, 3600.0) == ""
    assert replays([], ONE) == {}
    assert replays([1.0], ONE._replace(walltime=NAN)) == {}


def test_run_times_are_the_last_known_ones():
    events = [
        Launched(T, members(0, 4)),
        Ended(T, (Outcome(0, 1, "failed", runtime=5.0), Outcome(0, 2, "failed", runtime=6.0))),
        Ended(T, (Outcome(1, 1, "failed", runtime=7.0), Outcome(3, 1, "lost", runtime=9.0))),
        Settled(T, (ok(1, 8.0), ok(2, 1.0))),
    ]
    assert runtimes(ledger_of(*events)).tolist() == [6.0, 8.0, 1.0]


def test_the_table_says_it_all():
    data = table(ledger_of(*CAMPAIGN))
    assert data.part.values.tolist() == list(PARTS)
    worker = dict(zip(PARTS, (3600 * data.worker_hours).values, strict=True))
    assert worker == pytest.approx(WANTED)
    np.testing.assert_allclose(data.core_hours, 2 * data.worker_hours)
    assert float(data.share.sum()) == pytest.approx(1.0)
    assert data.walltime.values.tolist() == [0.5, 1.0, 2.0, 4.0]
    assert data.replayed_hours.attrs["units"] == "h"
    verdict = data.attrs["verdict"]
    assert verdict.startswith("1.3 core-hours: 40 % useful, ")
    assert verdict.endswith("; jobs of another length would have cost no less")


# ---- in a store


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A closed campaign of 40 members of 0.5 s, its first blocks in shards, and two jobs."""
    small_blocks(monkeypatch)
    driver = Rehearsed(tmp_path / "s")
    driver.launch(20)
    driver.keep(held("7", 0, 2, 12))
    driver.settle(range(20))
    driver.compact()
    driver.launch(20)
    driver.settle(range(20, 40))
    driver.keep(held("8", 10, 12, 22, cause="closed"))
    driver.close()
    return tmp_path / "s"


def test_of_a_store(path):
    ds = erl.open(path)
    data = ds.erl.hours()
    told = dict(zip(PARTS, (3600 * data.worker_hours).values, strict=True))
    failed = sum(i % 7 == 3 for i in range(40))
    assert told["failed"] == pytest.approx(0.5 * failed)
    assert told["useful"] == pytest.approx(0.5 * (40 - failed))
    assert told["starting"] == pytest.approx(8.0)
    assert sum(told.values()) == pytest.approx(48.0)
    assert ds.isel(member=[0]).erl.hours().identical(data)  # the whole campaign's
    assert ds.sizes["member"] == 40


def test_a_resumed_driver_knows_the_jobs(path):
    again = Rehearsed(path)
    assert [run.job for run in again.ledger.held] == ["7", "8"]
    again.store.close()


def test_show_tells_of_jobs(path, tmp_path):
    done = CliRunner().invoke(show, [str(path)])
    assert done.exit_code == 0, done.output
    line = next(line for line in done.output.splitlines() if line.startswith("core-hours"))
    assert line.split(maxsplit=1)[1].startswith("0.027: 35 % useful, 6 % failed, 17 % starting")
    driver = Rehearsed(tmp_path / "bare")
    driver.launch(4)
    driver.settle(range(4))
    driver.close()
    bare = CliRunner().invoke(show, [str(tmp_path / "bare")]).output
    assert "run time" in bare
    assert "useful" not in bare


def test_of_a_campaign_that_was_run_here():
    space = erl.Space(x=erl.Real(0, 1))
    options = {"n_members": 4, "cluster": "serial", "sampler": "sobol", "progress": False}
    ds = erl.explore(lambda x: x, space, erl.Minimize(), **options)
    data = ds.erl.hours(n_workers=1)
    assert "hours of worker time" in data.attrs["verdict"]
    assert "hours of run time" in ds.erl.hours().attrs["verdict"]
    with pytest.raises(ValueError, match="n_workers: wanted a whole number >= 1, got 0"):
        ds.erl.hours(n_workers=0)


def test_times_that_are_not_known_are_null_in_the_file():
    event = held("7", NAN, NAN, 3.0, walltime=math.inf)
    record = json.loads(encode(event))
    assert (record["event"], record["began"], record["walltime"]) == ("held", None, "Infinity")
    back = decode(encode(event))
    assert math.isnan(back.began)
    assert back.walltime == math.inf
    assert back.ended == T + 3.0


def test_older_code_refuses_events_it_does_not_know():
    with pytest.raises(ValueError, match=r"got 'beheld'.*a newer version of ensemblerl"):
        decode(encode(held()).replace("held", "beheld"))
