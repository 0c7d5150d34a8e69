"""Losses that are nobody's fault, and what a campaign tells an executor whose jobs come and go."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from store_support import members

import ensemblerl as erl
from ensemblerl.events import Ended, Held, Launched, Opened, Relaunched, Settled
from ensemblerl.executors.base import Lost
from ensemblerl.ledger import Ledger
from ensemblerl.loop import beside
from ensemblerl.loop.beside import Beside, remembered
from ensemblerl.loop.reruns import Reruns
from ensemblerl.loop.settling import LAUNCHES, LOSSES, Judge
from ensemblerl.loop.stopping import LossLimit
from ensemblerl.records import Outcome
from ensemblerl.store.reading import read_events
from ensemblerl.testing.toys import Least

T = 1e9


def lost(number=0, attempt=1, blameless=True, **changes):
    given = {"cause": "its job was cancelled", "blameless": blameless, **changes}
    return Outcome(number, attempt, "lost", **given)


def ledger_of(*events, n=10):
    ledger = Ledger(3)
    for event in (Opened(T, "v", n), *events):
        ledger.apply(event)
    return ledger


class Sorting:
    """A member of a ledger, and what is decided when it is lost."""

    def __init__(self, retries=0):
        self.ledger = ledger_of(Launched(T, members(0, 1)))
        self.judge = Judge(self.ledger, Least(), retries)
        self.attempt = 1

    def lost(self, blameless, fate="lost"):
        """Whether it runs again; its cause if not."""
        outcome = Outcome(0, self.attempt, fate, "gone", blameless=blameless)
        verdict = self.judge.sort([outcome], T)
        for event in verdict.events:
            self.ledger.apply(event)
        if verdict.again:
            self.attempt += 1
            self.ledger.apply(Relaunched(T, np.array([0]), np.array([self.attempt])))
            return True
        ((settled,),) = (e.outcomes for e in verdict.events if isinstance(e, Settled))
        assert (settled.fate, settled.blameless) == ("failed", False)
        return settled.cause


class TestLosses:
    def test_three_launches_without_an_end_fail_a_member(self):
        member = Sorting()
        assert [member.lost(False) is True for _ in range(LAUNCHES)] == [True, True, False]

    def test_losses_that_are_nobodys_fault_have_a_larger_budget(self):
        member = Sorting()
        assert all(member.lost(True) is True for _ in range(LOSSES - 1))
        assert member.lost(True) == (
            f"lost {LOSSES} times with its job, its node or its worker (gone)"
        )

    def test_neither_counts_for_the_other(self):
        member = Sorting()
        kinds = [True, False, True, True, False, True, True]
        assert all(member.lost(blameless) is True for blameless in kinds)
        assert "launched 3 times without an end" in member.lost(False)

    def test_neither_counts_for_the_retries_of_the_simulation(self):
        member = Sorting(retries=1)
        assert member.lost(True) is True
        assert member.lost(False) is True
        assert member.lost(False, "failed") is True
        assert member.lost(True) is True
        assert member.lost(False, "failed") == "gone"

    def test_what_did_not_begin_is_not_counted_at_all(self):
        member = Sorting()
        assert all(member.lost(False, "stopped") is True for _ in range(2 * LOSSES))


class TestLossLimit:
    def test_a_campaign_whose_jobs_are_ended_goes_on(self):
        limit = LossLimit()
        for attempt in range(1000):
            limit.count([lost(attempt=attempt)] * 10, settled=0, n_pending=4)

    def test_one_that_goes_nowhere_ends(self):
        limit = LossLimit()
        most = limit.MOST * limit.MOST
        limit.count([lost(blameless=False)] * most, settled=0, n_pending=4)
        with pytest.raises(RuntimeError, match="its job was cancelled"):
            limit.count([lost(blameless=False)], settled=0, n_pending=4)

    def test_what_was_settled_in_between_starts_the_count_anew(self):
        limit = LossLimit()
        most = limit.MOST * limit.MOST
        for _ in range(3):
            limit.count([lost(blameless=False)] * most, settled=0, n_pending=4)
            limit.count([lost(blameless=False)], settled=1, n_pending=4)

    def test_blameless_ones_among_the_others_do_not_raise_by_themselves(self):
        limit = LossLimit()
        most = limit.MOST * limit.MOST
        limit.count([lost(blameless=False)] * most, settled=0, n_pending=4)
        limit.count([lost()] * most, settled=0, n_pending=4)


class Jobs(erl.Serial):
    """Serial, with jobs that come and go: loses members as told, and writes down what it hears."""

    in_process = False

    def __init__(self, losses=0, blameless=True, held=()):
        super().__init__()
        self.losses, self.blameless = losses, blameless
        self.launches, self.heard, self.order = defaultdict(int), [], []
        self._left = list(held)

    def submit(self, bundle):
        self.order += [("submit", n) for n in bundle.number.tolist()]
        for n in bundle.number.tolist():
            self.launches[n] += 1
        future = super().submit(bundle)
        if self.launches[int(bundle.number[0])] <= self.losses:
            future.set_exception(Lost("its job was cancelled", blameless=self.blameless))
        return future

    def learn(self, outcomes):
        outcomes = list(outcomes)
        self.heard += outcomes
        self.order += [("learn", outcome.number) for outcome in outcomes]

    def held(self):
        left, self._left = self._left, []
        return left


class TestCampaign:
    SPACE = erl.Space(a=erl.Real(0.0, 1.0))

    def run(self, executor, **options):
        given = {"n_members": 6, "sampler": "sobol", "seed": 3, "progress": False, "bundle": 1}
        return erl.explore(
            lambda a: a, self.SPACE, erl.Minimize("value"), cluster=executor, **(given | options)
        )

    def test_jobs_that_end_cost_no_member_anything(self):
        undisturbed = self.run(Jobs())
        executor = Jobs(losses=2 * LAUNCHES)
        ds = self.run(executor)
        assert (ds.fate == "ok").all()
        assert (ds.attempt == 2 * LAUNCHES + 1).all()
        np.testing.assert_array_equal(ds.value, undisturbed.value)

    @pytest.mark.filterwarnings("ignore:none of 6 members is ok")
    def test_the_same_losses_without_an_excuse_do(self):
        ds = self.run(Jobs(losses=2 * LAUNCHES, blameless=False))
        assert (ds.fate == "failed").all()
        assert (ds.attempt == LAUNCHES).all()

    @pytest.mark.filterwarnings("ignore:none of 2 members is ok")
    def test_a_member_whose_jobs_always_end_is_given_up(self):
        executor = Jobs(losses=10 * LOSSES)
        ds = self.run(executor, n_members=2)
        assert (ds.fate == "failed").all()
        assert (ds.attempt == LOSSES).all()
        assert "lost 100 times with its job" in ds.cause.values[0]

    @pytest.mark.parametrize("blameless", [True, False])
    def test_only_who_may_be_to_blame_is_a_suspect(self, monkeypatch, blameless):
        suspects = []
        asked = Reruns.next

        def noted(self, in_flight):
            number = asked(self, in_flight)
            if number is not None:
                suspects.append(self._suspect(number))
            return number

        monkeypatch.setattr(Reruns, "next", noted)
        self.run(Jobs(losses=2, blameless=blameless), n_pending=4)
        assert set(suspects) == {not blameless}

    def test_the_executor_hears_how_every_attempt_ended(self):
        executor = Jobs(losses=1)
        self.run(executor)
        fates = defaultdict(list)
        for outcome in executor.heard:
            fates[outcome.number].append((outcome.fate, outcome.blameless))
        assert dict(fates) == {n: [("lost", True), ("ok", False)] for n in range(6)}
        assert all(o.runtime > 0 for o in executor.heard if o.fate == "ok")

    def test_a_resumed_campaign_tells_earlier_run_times_before_anything_else(self, tmp_path):
        first = Jobs()
        self.run(first, store=tmp_path / "run")
        second = Jobs()
        self.run(second, store=tmp_path / "run", n_members=8)
        assert second.order[:6] == [("learn", n) for n in range(6)]
        assert second.order[6] == ("submit", 6)
        known = {o.number: (o.fate, o.runtime) for o in first.heard}
        assert {o.number: (o.fate, o.runtime) for o in second.heard[:6]} == known

    def test_accounts_of_jobs_are_kept_in_the_store(self, tmp_path):
        job = Held(T, "17", "n1", 4, 4, T - 9, T - 8, T - 1, 3600.0, "timeout")
        executor = Jobs(held=[job])
        self.run(executor, store=tmp_path / "run")
        assert [e for e in read_events(tmp_path / "run") if isinstance(e, Held)] == [job]

    def test_an_executor_without_jobs_is_left_alone(self):
        quiet = Beside(erl.Serial())
        quiet.begin(ledger_of())
        quiet.learn([lost()])
        quiet.tend(None, halted=True)
        quiet.disown()


class TestRemembered:
    def test_run_times_of_settled_members_with_their_fates(self):
        ledger = ledger_of(
            Launched(T, members(0, 4)),
            Settled(T, (Outcome(2, 1, "ok", "", (0.0,), T, 5.0, "w"),)),
            Settled(T, (Outcome(0, 1, "timeout", "", (), T, 7.0, "w"),)),
            Settled(T, (Outcome(1, 1, "failed", "no word", runtime=math.nan),)),
        )
        told = [(o.number, o.fate, o.runtime) for o in remembered(ledger)]
        assert told == [(0, "timeout", 7.0), (2, "ok", 5.0)]

    def test_of_members_that_run_again_who_was_cut_off_and_when(self):
        """So they are given more time than they had."""
        ledger = ledger_of(
            Launched(T, members(0, 3)),
            Ended(T, (lost(0, runtime=50.0), lost(1, runtime=math.nan))),
            Ended(T, (Outcome(2, 1, "stopped", "", runtime=3.0),)),
            Relaunched(T, np.array([0]), np.array([2])),
        )
        assert [(o.number, o.runtime, o.blameless) for o in remembered(ledger)] == [(0, 50.0, True)]

    def test_what_a_settled_member_lost_before_is_of_no_use(self):
        ledger = ledger_of(
            Launched(T, members(0, 1)),
            Ended(T, (lost(0, runtime=50.0),)),
            Settled(T, (Outcome(0, 2, "ok", "", (0.0,), T, 60.0, "w"),)),
        )
        assert [o.runtime for o in remembered(ledger)] == [60.0]

    def test_only_the_newest_are_told(self, monkeypatch):
        monkeypatch.setattr(beside, "REMEMBERED", 2)
        ledger = ledger_of(
            Launched(T, members(0, 4)),
            Settled(T, tuple(Outcome(i, 1, "ok", "", (0.0,), T, 1.0 + i, "w") for i in range(4))),
        )
        assert [o.number for o in remembered(ledger)] == [2, 3]
