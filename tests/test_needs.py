"""How long a member is expected to need: careful, learnt, grown, never more than there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemblerl.cluster.needs import BEST, CAUTION, CHECKPOINTED, ENOUGH, KNOWN, MARGIN, Needs
from ensemblerl.records import Outcome

HOUR = 3600.0


def ended(*runtimes, fate="ok", first=0):
    return [Outcome(first + i, 1, fate, runtime=t) for i, t in enumerate(runtimes)]


def needs(*runtimes, longest=HOUR, **options):
    made = Needs(**options)
    if longest is not None:
        made.offer(longest)
    made.learn(ended(*runtimes))
    return made


def test_nothing_is_known_before_a_worker_says_how_long_it_has():
    assert needs(1.0, longest=None).seconds([3]) == 0.0


def test_it_is_careful_until_enough_is_known():
    assert needs().seconds() == CAUTION * HOUR
    assert needs(*[1.0] * (KNOWN - 1)).seconds() == CAUTION * HOUR
    assert needs(*[1.0] * KNOWN).seconds() == MARGIN + 1.0


def test_almost_all_members_are_to_finish():
    seen = np.random.default_rng(1).lognormal(3.0, 1.0, 500)
    usual = needs(*seen).seconds()
    assert 0.98 <= (seen < usual).mean() < 1.0 or usual > seen.max()
    assert usual == pytest.approx(MARGIN * np.quantile(seen, 0.99) + 1.0)


@pytest.mark.parametrize("fate", ["ok", "invalid", "timeout"])
def test_who_came_to_an_end_counts(fate):
    made = needs()
    made.learn(ended(*[10.0] * KNOWN, fate=fate))
    assert made.seconds() == 10.0 * MARGIN + 1.0


@pytest.mark.parametrize(
    ("fate", "runtime"),
    [("lost", 10.0), ("stopped", 10.0), ("ok", 0.0), ("failed", 10.0), ("out_of_memory", 10.0)],
)
def test_who_came_to_none_or_failed_does_not(fate, runtime):
    made = needs()
    made.learn(ended(*[runtime] * KNOWN, fate=fate))
    assert made.seconds() == CAUTION * HOUR


def test_the_users_word_counts_more_than_what_is_seen():
    assert needs(*[1.0] * 50, most=700.0).seconds() == 700.0
    assert needs(*[1000.0] * 50, most=700.0).seconds() == 700.0


def test_nobody_needs_more_than_the_timeout_of_the_simulation():
    assert needs(timeout=60.0).seconds() == 62.0
    assert needs(*[100.0] * KNOWN, timeout=60.0).seconds() == 62.0
    assert needs(*[10.0] * KNOWN, timeout=60.0).seconds() == 13.5


def test_no_more_is_asked_for_than_a_fresh_job_has():
    assert needs(*[HOUR] * KNOWN).seconds() == BEST * HOUR
    assert needs(most=HOUR).seconds() == BEST * HOUR
    made = needs(*[HOUR] * KNOWN)
    made.offer(2 * HOUR)
    assert made.longest == 2 * HOUR
    made.offer(10.0)  # a job near its end
    assert made.seconds() == MARGIN * HOUR + 1.0


class TestCutOff:
    def test_who_was_cut_off_is_given_more_and_nobody_else_is(self):
        made = needs(*[10.0] * KNOWN)
        made.cut(3, 300.0)
        assert made.seconds([3]) == 600.0
        assert made.seconds([4]) == 13.5
        assert made.seconds([4, 3, 5]) == 600.0
        made.cut(3, 100.0)  # less than it had before
        assert made.seconds([3]) == 600.0
        made.cut(3, 600.0)
        assert made.seconds([3]) == 1200.0
        assert made.had(3) == 600.0
        assert made.had(4) == 0.0

    def test_who_finishes_after_all_is_like_the_others(self):
        made = needs(*[10.0] * KNOWN)
        made.cut(3, 300.0)
        made.learn(ended(10.0, first=3))
        assert made.seconds([3]) == 13.5

    def test_it_is_hopeless_only_after_about_the_longest(self):
        made, tries = needs(*[10.0] * KNOWN), 0
        made.cut(3, 50.0)
        while not made.hopeless(3):
            given_ = made.seconds([3])
            made.cut(3, given_ - 2.0)  # it takes a moment to start
            tries += 1
            assert tries < 10
        assert made.had(3) >= ENOUGH * HOUR
        assert not made.hopeless(4)
        assert tries == 6  # 50 s double until they are 0.8 of an hour and more

    @given(st.floats(60.0, 1e5), st.floats(0.0, 0.05), st.floats(0.0, 1.0))
    def test_who_had_what_can_be_given_is_not_tried_for_ever(self, longest, start, jitter):
        """Each try takes a moment to start, and jobs tell of a little more or less time."""
        made = needs(longest=longest)
        for tries in range(40):
            if made.hopeless(3):
                break
            made.cut(3, made.seconds([3]) - start * longest)
            made.offer(longest + jitter * tries / 40)
        assert made.hopeless(3)
        assert made.had(3) > 0.7 * longest

    def test_nothing_is_hopeless_before_jobs_are_known(self):
        made = needs(longest=None)
        made.cut(3, HOUR)
        assert not made.hopeless(3)


class TestCheckpoints:
    def test_a_start_must_be_worth_its_cost(self):
        assert needs(checkpoint=True).seconds() == CHECKPOINTED * HOUR
        assert needs(*[HOUR] * KNOWN, checkpoint=True).seconds([1]) == CHECKPOINTED * HOUR

    def test_short_members_need_no_more_than_they_take(self):
        assert needs(*[10.0] * KNOWN, checkpoint=True).seconds() == 13.5
        assert needs(most=20.0, checkpoint=True).seconds() == 20.0

    def test_who_goes_on_later_does_not_grow_and_is_not_given_up(self):
        made = needs(*[HOUR] * KNOWN, checkpoint=True)
        made.cut(3, HOUR)
        assert made.seconds([3]) == CHECKPOINTED * HOUR
        assert not made.hopeless(3)
