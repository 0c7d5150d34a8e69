"""Jobs of a queue as a machine of states: what is heard of them, and what is to be done."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemblerl.cluster.jobs import (
    COMING,
    MISSING,
    NANNY,
    SAYING,
    Backoff,
    Job,
    Policy,
    Worker,
    overdue,
    see_queue,
    see_workers,
    sentence,
    shortage,
    useful,
)
from ensemblerl.cluster.queues.base import Queued

PENDING = Queued("7", "t-7", "pending", reason="Resources")
RUNNING = Queued("7", "t-7", "running", node="n1")
AGAIN = RUNNING._replace(restarts=1)
ENDED = Queued("7", "t-7", "ended", "failed", node="n1")
SOMEHOW = ENDED._replace(end="unknown")
POLICY = Policy(wanted=1, ahead=60.0)


def worker(address="tcp://n1:1", left=None, draining=False):
    return Worker("c-e7", address, 4, 1, left, draining)


ONE, DRAINING, OTHER = worker(), worker(draining=True), worker("tcp://n2:1")


def played(*heard, state="waiting"):
    """A job submitted at 0, and what was heard of it: (time, what the queue says or who is there).

    A list are the workers; anything else is the queue's word, None: it does not know the job.
    """
    job = Job("c-e7", "t-7", id="7", state=state, submitted=0.0)
    for now, word in heard:
        if isinstance(word, list):
            see_workers(job, word, now)
        else:
            see_queue(job, word, now)
    return job


@pytest.mark.parametrize(
    ("heard", "state"),
    [
        ([], "waiting"),
        ([(3, PENDING)], "waiting"),
        ([(3, RUNNING)], "starting"),
        ([(3, RUNNING), (6, [])], "starting"),
        ([(3, RUNNING), (6, [ONE])], "up"),
        ([(3, [ONE])], "up"),
        ([(3, [ONE]), (6, RUNNING)], "up"),
        ([(3, [ONE]), (6, [])], "up"),
        ([(3, [ONE]), (6, []), (6 + NANNY, [])], "up"),
        ([(3, [ONE]), (6, []), (7 + NANNY, [])], "alone"),
        ([(3, [ONE]), (6, []), (7, [OTHER]), (8 + NANNY, [])], "up"),
        ([(3, [ONE]), (6, []), (7 + NANNY, []), (90, [OTHER])], "up"),
        ([(3, [DRAINING])], "leaving"),
        ([(3, [ONE, DRAINING])], "up"),
        ([(3, [DRAINING]), (4, [])], "alone"),
        ([(3, [ONE]), (6, []), (7 + NANNY, []), (99, RUNNING)], "alone"),
        # the queue ends it
        ([(3, ENDED)], "over"),
        ([(3, [ONE]), (6, ENDED)], "over"),
        ([(3, [ONE]), (6, SOMEHOW)], "alone"),
        ([(3, [ONE]), (6, SOMEHOW), (7, [ONE])], "alone"),
        ([(3, [DRAINING]), (6, SOMEHOW)], "leaving"),
        ([(3, [ONE]), (6, SOMEHOW), (9, ENDED)], "over"),
        ([(3, [ONE]), (6, SOMEHOW), (6 + SAYING, SOMEHOW)], "alone"),
        ([(3, [ONE]), (6, SOMEHOW), (7 + SAYING, SOMEHOW)], "over"),
        # the queue does not know it
        ([(MISSING, None)], "waiting"),
        ([(MISSING + 1, None)], "over"),
        ([(3, RUNNING), (6, None)], "over"),
        ([(3, [ONE]), (6, None)], "up"),
        ([(3, [ONE]), (6, None), (9, RUNNING), (9 + MISSING, None)], "up"),
        ([(3, [ONE]), (6, None), (7 + MISSING, None)], "over"),
        ([(3, [ONE]), (6, []), (7, None)], "over"),
        ([(3, [DRAINING]), (4, []), (5, None)], "over"),
        # the queue takes it back
        ([(3, RUNNING), (6, PENDING)], "waiting"),
        ([(3, [ONE]), (6, PENDING)], "waiting"),
        ([(3, [ONE]), (6, PENDING), (7, [ONE])], "waiting"),
        ([(3, [ONE]), (6, PENDING), (7, [ONE]), (9, AGAIN), (9, [ONE])], "starting"),
        ([(3, [ONE]), (6, PENDING), (9, AGAIN), (9, [OTHER])], "up"),
        ([(3, [ONE]), (6, PENDING), (7, [OTHER])], "up"),
        ([(3, [ONE]), (6, SOMEHOW), (9, PENDING)], "waiting"),
        ([(3, [ONE]), (6, []), (7 + NANNY, []), (30, AGAIN)], "starting"),
    ],
)
def test_what_is_heard_makes_the_state(heard, state):
    assert played(*heard).state == state


@pytest.mark.parametrize("state", ["new", "unsure", "missing"])
def test_of_a_job_without_an_id_the_queue_says_nothing(state):
    assert played((99, None), (99, ENDED), state=state).state == state


def test_workers_come_before_the_answer_to_a_submission():
    assert played((9, [ONE]), state="unsure").state == "up"
    assert played((9, [ONE]), state="missing").state == "up"


def test_the_times_of_a_job_are_kept():
    job = played((3, RUNNING), (6, [ONE]), (9, [ONE]), (60, ENDED))
    assert (job.began, job.connected, job.ended, job.cause) == (3, 6, 60, "failed")
    assert job.node == "n1"
    assert job.came
    assert not played((3, RUNNING)).came


def test_a_job_put_back_starts_from_nothing_and_remembers_its_runs():
    job = played((3, RUNNING), (6, [worker(left=30.0)]), (40, PENDING))
    assert job.before == [(3, 6, 40)]
    assert job.left is None
    assert useful(job, POLICY)  # it comes again, with all its time
    assert not job.came
    see_workers(job, [ONE], 41)  # its old worker is not gone yet
    assert job.before == [(3, 6, 40)]
    assert not job.came
    see_queue(job, PENDING, 42)
    assert job.before == [(3, 6, 40)]
    see_queue(job, AGAIN, 50)
    see_workers(job, [ONE, OTHER], 55)
    see_queue(job, ENDED._replace(end="cancelled"), 60)
    assert (job.began, job.connected, job.ended, job.cause) == (50, 55, 60, "cancelled")
    assert job.before == [(3, 6, 40)]
    assert job.past == {"tcp://n1:1"}


def test_the_time_left_is_that_of_the_worker_with_least():
    job = played((3, [worker("a", 50.0), worker("b", 40.0), worker("c")]))
    assert job.left == 40.0
    see_workers(job, [], 4)
    assert job.left == 40.0


def test_a_job_that_runs_for_long_without_a_worker_is_overdue():
    job = played((3, RUNNING))
    assert not overdue(job, 3 + COMING)
    assert overdue(job, 4 + COMING)
    see_workers(job, [ONE], 9)
    assert not overdue(job, 4 + COMING)


@pytest.mark.parametrize(
    ("state", "left", "counts"),
    [
        ("new", None, True),
        ("unsure", None, True),
        ("missing", None, False),
        ("waiting", None, True),
        ("starting", None, True),
        ("up", None, True),
        ("up", 60.0, False),
        ("up", 60.1, True),
        ("leaving", 900.0, False),
        ("alone", None, False),
        ("over", None, False),
    ],
)
def test_who_counts_among_the_wanted(state, left, counts):
    job = Job("a", state=state, left=left, steady=True)
    assert useful(job, POLICY) == counts
    assert shortage([job], Policy(3, 60.0)) == 3 - counts
    job.unwanted = True
    assert not useful(job, POLICY)


@pytest.mark.parametrize("state", ["leaving", "alone"])
def test_a_job_that_has_not_worked_is_replaced_when_its_failure_is_counted(state):
    assert useful(Job("a", state=state), POLICY)
    assert not useful(Job("a", state=state, failed=True), POLICY)


def test_more_than_wanted_is_no_shortage():
    assert shortage([Job("a"), Job("b")], POLICY) == 0


WORDS = st.one_of(
    st.none(),
    st.lists(
        st.builds(
            worker,
            st.sampled_from(["a", "b"]),
            st.none() | st.floats(0, 100),
            st.booleans(),
        ),
        max_size=2,
        unique_by=lambda w: w.address,
    ),
    st.builds(
        Queued,
        st.just("7"),
        st.just("t-7"),
        st.sampled_from(["pending", "running", "ended"]),
        st.sampled_from(["", "unknown", "failed", "cancelled"]),
        restarts=st.integers(0, 3),
    ),
)


@given(
    st.lists(st.tuples(st.floats(0.1, 20.0), st.integers(0, 2), WORDS), max_size=40),
    st.lists(st.sampled_from(["unsure", "missing", "waiting"]), min_size=3, max_size=3),
    st.integers(0, 4),
)
def test_whatever_is_heard_no_job_is_lost_track_of(story, states, wanted):
    jobs = [Job(f"c-e{k}", id=str(k), state=state, submitted=0.0) for k, state in enumerate(states)]
    policy, now = Policy(wanted, 30.0), 0.0
    for pause, k, word in story:
        now += pause
        job, before = jobs[k], jobs[k].state
        if isinstance(word, list):
            see_workers(job, word, now)
        else:
            see_queue(job, word, now)
        lives = isinstance(word, Queued) and word.state != "ended"
        assert before != "over" or job.state == "over"
        # only the queue ends a job, and not with the words that it lives
        assert job.state != "over" or before == "over" or not (lives or isinstance(word, list))
        assert (job.state == "over") == (not math.isnan(job.ended))
        assert all(began <= ended or math.isnan(began) for began, _, ended in job.before)
        assert 0 <= shortage(jobs, policy) <= wanted
        assert sum(useful(j, policy) for j in jobs) + shortage(jobs, policy) >= wanted


class TestBackoff:
    def test_it_grows_and_has_an_end(self):
        backoff, now, pauses = Backoff(), 0.0, []
        for _ in range(9):
            backoff.failed("no", now, now)
            pauses.append(backoff.until - now)
            now = backoff.until
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert (backoff.failures, backoff.message) == (9, "no")

    def test_jobs_that_fail_together_count_once(self):
        backoff = Backoff()
        for k in range(8):
            backoff.failed(f"job {k}", submitted=5.0 + k / 10, now=20.0 + k)
        assert (backoff.failures, backoff.until, backoff.message) == (1, 21.0, "job 7")
        backoff.failed("the next wave", submitted=21.0, now=30.0)
        assert (backoff.failures, backoff.until) == (2, 32.0)

    def test_it_forgets_when_a_job_works(self):
        backoff = Backoff()
        backoff.failed("no", 0.0, 100.0)
        backoff.worked()
        assert backoff.failures == 0
        assert backoff.until < 0
        backoff.failed("again", 50.0, 200.0)
        assert (backoff.failures, backoff.until) == (1, 201.0)


class TestSentence:
    def test_nothing_is_said_when_all_are_there(self):
        assert sentence([Job("a", state="up")], 1, {"trouble": ""}) == ""

    def test_it_says_why_workers_are_missing(self):
        jobs = [
            Job("a", state="up"),
            Job("b", state="waiting", reason="Resources"),
            Job("c", state="waiting", reason="Priority"),
            Job("d", state="starting", reason="None"),
            Job("e", state="alone"),
        ]
        trouble = {"job 7 died before connecting (failed)": "see /tmp/log"}
        assert sentence(jobs, 6, trouble) == (
            "1 of 6 jobs: 2 pending (Priority, Resources); 1 starting; 1 without a worker; "
            "job 7 died before connecting (failed), see /tmp/log"
        )
