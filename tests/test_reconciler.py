"""The reconciler over a queue in memory: as many jobs as wanted, never two for one, none left."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_support import LONG, FakeQueue, Rig, StubCluster

from ensemblerl.cluster import ending
from ensemblerl.cluster.jobqueue import JobQueue
from ensemblerl.cluster.jobs import COMING, LOOKED, MISSING, NANNY
from ensemblerl.cluster.queues.base import QueueSilent
from ensemblerl.cluster.reconciler import (
    AHEAD,
    IDLE,
    LATER,
    SETTLING,
    SOON,
    STEADY,
    SUBMITTING,
    Reconciler,
)
from ensemblerl.cluster.register import Register
from ensemblerl.cluster.wish import Wish
from ensemblerl.store.running import process


@pytest.fixture
def make(tmp_path):
    return lambda n_jobs=2, **options: Rig(tmp_path, n_jobs, **options)


@pytest.fixture
def up(make):
    """Two jobs, both up for a while."""
    rig = make()
    rig.turn()
    rig.run()
    rig.turn(STEADY + 5)
    assert rig.states == ["up", "up"]
    return rig


class TestSubmitting:
    def test_so_many_as_wanted_are_submitted_and_no_more(self, make):
        rig = make(3)
        rig.turn()
        assert len(rig.living) == 3
        rig.turn(60)
        rig.run()
        rig.turn(600)
        assert rig.queue.submissions == len(rig.living) == 3
        assert rig.states == ["up"] * 3
        assert rig.reconciler.sentence == ""

    def test_no_two_jobs_have_a_name(self, make):
        rig = make(3)
        rig.turn()
        assert len({job.title for job in rig.living}) == 3
        assert len({job.worker for job in rig.living}) == 3
        assert all(job.title.startswith("camp-") for job in rig.living)

    def test_a_name_fits_into_the_queue(self, make):
        rig = make(1)
        rig.queue.name = "pbs"
        rig.cluster.new_spec["options"]["job_name"] = "a-very-long-name"
        rig.turn()
        (job,) = rig.living
        assert len(job.title) <= 15
        assert job.title.startswith("a")

    def test_nothing_is_submitted_without_members_on_their_way(self, make):
        rig = make()
        rig.load = 0
        rig.turn(60)
        assert rig.queue.submissions == 0
        rig.load = 1
        rig.turn()
        assert rig.queue.submissions == 2

    def test_the_script_is_edited_with_the_name_of_the_job(self, make):
        seen = []
        rig = make(1, edit=lambda script, title: seen.append((script, title)) or script)
        rig.turn()
        (job,) = rig.living
        ((script, title),) = seen
        assert script.startswith(f"#SBATCH -J {job.title}\n")
        assert title == job.title

    def test_refusals_are_repeated_ever_later(self, make):
        rig = make(1, limit=99)
        rig.queue.answers = ["refuse"] * 9
        times = []

        def note():
            if rig.queue.submissions > len(times):
                times.append(rig.queue.now)

        rig.turn(400, note)
        pauses = [b - a for a, b in itertools.pairwise(times)]
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert len(rig.living) == 1
        assert "no" in rig.reconciler.sentence

    def test_it_gives_up_with_the_word_of_the_queue(self, make):
        rig = make(2, limit=4)
        rig.queue.answers = ["refuse"] * 99
        rig.turn(200)
        assert rig.queue.submissions == 4
        assert rig.reconciler.error == (
            "4 times in a row: the queue refused a job: Batch job submission failed: no"
        )

    def test_the_next_campaign_tries_anew(self, make):
        rig = make(1, limit=2)
        rig.queue.answers = ["refuse"] * 2
        rig.turn(30)
        assert rig.reconciler.error
        rig.reconciler.hope()
        assert rig.reconciler.error == ""
        rig.turn()
        assert rig.states == ["waiting"]

    def test_no_failure_is_allowed_and_the_first_is_told(self, make):
        rig = make(1, limit=0)
        rig.turn()
        assert rig.reconciler.error == ""
        assert len(rig.living) == 1
        refused = make(1, limit=0)
        refused.queue.answers = ["refuse"]
        refused.turn(5)
        assert refused.reconciler.error.startswith("1 times in a row")

    def test_it_does_not_give_up_while_a_job_waits_or_works(self, make):
        rig = make(2, limit=2)
        rig.queue.limit = 1
        rig.turn(300)
        assert rig.reconciler.error == ""
        assert rig.states == ["new", "waiting"]
        rig.run()
        rig.turn(300)
        assert rig.reconciler.error == ""
        assert rig.states == ["new", "up"]
        assert "QOSMaxSubmitJobPerUserLimit" in rig.reconciler.sentence

    def test_under_a_limit_of_the_queue_it_goes_on_with_what_it_can_have(self, make):
        """Many refusals beside a job that works are none after it."""
        rig = make(3, limit=2)
        rig.queue.limit = 1
        rig.turn()
        for _ in range(4):
            rig.run(left=600.0)
            rig.turn(300)
            rig.end(rig.living[0], "timeout")
            rig.turn(90)
            assert rig.reconciler.error == ""
            assert len(rig.living) == 1
        rig.queue.limit = 3
        rig.turn(61)
        assert len(rig.living) == 3

    def test_a_script_that_cannot_be_written_is_a_failure_like_a_refusal(self, make):
        rig = make(1, limit=3)
        rig.queue.answers = [OSError(122, "Disk quota exceeded")] * 9
        rig.turn(60)
        assert "Disk quota exceeded" in rig.reconciler.error
        assert rig.queue.submissions == 3

    def test_a_wave_that_dies_counts_once(self, make):
        rig = make(4, limit=2)
        rig.turn()
        for job in rig.living:
            rig.end(job)
        rig.turn(20)
        assert rig.reconciler.error == ""
        assert len(rig.living) == 4

    def test_jobs_that_die_before_connecting_end_it_after_so_many_waves(self, make):
        rig, seen = make(2, limit=3), []

        def die():
            for job in rig.living:
                rig.end(job)
            seen.append(rig.queue.submissions)

        rig.turn(200, die)
        assert "died before connecting (failed)" in rig.reconciler.error
        assert rig.reconciler.error.startswith("3 times in a row")
        assert rig.queue.submissions == 6

    def test_jobs_that_die_three_times_and_then_work_are_forgiven(self, make):
        rig = make(2, limit=4)
        for _ in range(3):
            rig.turn(10)
            for job in rig.living:
                rig.end(job)
        rig.turn(10)
        rig.run()
        rig.turn(STEADY + 3)
        assert rig.states == ["up", "up"]
        assert rig.reconciler.sentence == ""
        rig.queue.answers = ["refuse"]
        rig.end(rig.living[0])
        before = rig.queue.submissions
        rig.turn(SOON + 2)
        assert rig.queue.submissions == before + 2  # a pause of one second
        for _ in range(3):  # counts from nothing again
            for job in rig.living:
                rig.end(job)
            rig.turn(10)
        assert rig.reconciler.error == ""

    def test_jobs_that_die_just_after_connecting_do_not_flood_the_queue(self, make):
        rig = make(1, limit=5)

        def crash():
            rig.run()
            for job in rig.living:
                if rig.addresses(job) and rig.reconciler.workers():
                    rig.end(job)

        rig.turn(300, crash)
        assert rig.queue.submissions == 5
        assert "after it had connected (failed)" in rig.reconciler.error

    def test_jobs_whose_workers_cannot_start_do_not_flood_the_queue(self, make):
        """A package is missing there: workers come and go, and nannies wait for a minute."""
        rig = make(2, limit=5)
        most, came = [0], {}

        def crash():
            rig.run()
            most[0] = max(most[0], len(rig.living))
            for job in rig.living:
                came.setdefault(job.id, rig.queue.now)
                if rig.queue.now - came[job.id] >= 1.0:
                    rig.lose(job)
                elif rig.queue.now - came[job.id] >= 0.5:
                    for address in rig.addresses(job):
                        status = rig.cluster.scheduler.workers[address].status
                        status.name = "closing"
                if rig.queue.now - came[job.id] > 60:
                    rig.end(job)

        rig.turn(300, crash)
        assert "5 times in a row: the workers of job " in rig.reconciler.error
        assert "after they had connected" in rig.reconciler.error
        assert most[0] <= 20
        assert rig.queue.submissions <= 20

    def test_a_worker_that_soon_dies_for_good_is_a_failure(self, make):
        rig = make(1)
        rig.turn()
        rig.run()
        rig.turn(3)
        rig.lose(rig.living[0])
        rig.turn(NANNY + 5)
        assert "the workers of job 100 left" in rig.reconciler.sentence
        assert rig.queue.submissions == 2

    def test_a_job_cancelled_just_after_it_connected_is_no_failure(self, make):
        """Its workers say goodbye before the queue says why."""
        rig = make(1, limit=1)
        rig.turn()
        rig.run()
        rig.turn(3)
        (job,) = rig.living
        for address in rig.addresses(job):
            rig.cluster.scheduler.workers[address].status.name = "closing"
        rig.turn()
        rig.end(job, "unknown")
        rig.turn(SOON + 1)
        job.end = "cancelled"
        rig.turn(20)
        assert rig.reconciler.error == ""
        assert rig.reconciler.sentence == "0 of 1 job: 1 pending (Resources)"
        assert rig.queue.submissions == 2

    def test_the_log_of_a_job_that_died_is_named(self, make, tmp_path):
        rig = make(1)
        rig.turn()
        (job,) = rig.living
        logs = tmp_path / "logs"
        logs.mkdir()
        (logs / f"{job.title}-{job.id}.err").write_text("no module named x")
        (logs / f"{job.title}-{job.id}.out").touch()
        (logs / f"{job.title}-{job.id}9.err").write_text("of another job")
        (tmp_path / f"{job.title}.sh").write_text("its script")
        rig.end(job)
        rig.turn(4)
        log = logs / f"{job.title}-{job.id}.err"
        assert f"died before connecting (failed), see {log}" in rig.reconciler.sentence


class TestLostAnswers:
    """A submission without an answer: nobody knows whether the queue took the job."""

    @pytest.mark.parametrize("later", [0.0, 5.0, SUBMITTING - 10])
    def test_a_job_that_was_taken_is_found_and_not_submitted_again(self, make, later):
        rig = make(1)
        rig.queue.answers, rig.queue.later = ["taken"], later
        rig.turn(SUBMITTING + 300)
        assert rig.queue.submissions == len(rig.living) == 1
        rig.run()
        rig.turn(30)
        assert rig.states == ["up"]

    def test_a_job_that_was_not_taken_is_submitted_again(self, make):
        rig = make(1)
        rig.queue.answers = ["silent"]
        rig.turn(SUBMITTING + 10)
        assert rig.queue.submissions == 2
        assert len(rig.living) == 1

    @pytest.mark.parametrize("later", [SUBMITTING + 10, LOOKED - 60])
    def test_a_job_that_turns_up_after_its_replacement_is_ended(self, make, later):
        rig = make(1)
        rig.queue.answers, rig.queue.later = ["taken"], later
        rig.turn(later)
        assert rig.queue.submissions == 2
        rig.turn(LATER + 1)
        assert len(rig.living) == 1
        assert rig.queue.jobs_["100"].end == "cancelled"
        rig.turn(LATER + 1)
        assert rig.queue.submissions == 2
        assert rig.reconciler.error == ""

    def test_the_silence_of_the_queue_does_not_count_as_its_word(self, make):
        """The controller stands still with the submission in its mail, and comes back."""
        rig = make(1)
        rig.queue.answers = ["taken"]
        rig.queue.later = LONG
        rig.turn(SUBMITTING / 2)
        rig.queue.down = True
        rig.turn(10 * SUBMITTING)
        rig.queue.down = False
        rig.turn(SOON + 1)  # it answers, and has not read its mail yet
        rig.queue.jobs_["100"].seen = 0.0
        rig.turn(60)
        assert rig.queue.submissions == len(rig.living) == 1

    def test_a_job_whose_worker_connects_is_there(self, make):
        rig = make(1)
        rig.queue.answers, rig.queue.later = ["taken"], LONG
        rig.turn(2)
        job = rig.queue.jobs_["100"]
        job.state = "running"
        rig.connect(job)
        rig.turn(SUBMITTING + 60)
        assert rig.states == ["up"]
        assert rig.queue.submissions == 1
        rig.lose(job)  # and now? no queue knows it
        rig.turn(NANNY + SUBMITTING + 20)
        assert rig.queue.submissions == 2
        assert rig.states == ["waiting"]

    def test_a_replaced_job_that_works_all_the_same_is_left_to_work(self, make):
        rig = make(1)
        rig.queue.answers, rig.queue.later = ["taken"], LONG
        rig.turn(SUBMITTING + 30)
        job = rig.queue.jobs_["100"]
        job.state, job.seen = "running", 0.0
        rig.connect(job)
        rig.turn(60)
        assert job.lives
        rig.reconciler.close()
        assert rig.living == []

    def test_while_the_queue_is_silent_nothing_is_submitted(self, make):
        rig = make(2)
        rig.queue.down = True
        rig.turn(300)
        assert rig.queue.submissions == 1
        assert "the queue does not answer" in rig.reconciler.sentence
        rig.queue.down = False
        rig.turn(SUBMITTING + 20)
        assert len(rig.living) == 2
        assert rig.reconciler.error == ""

    def test_a_silent_queue_is_not_asked_all_the_time(self, up):
        up.queue.down = True
        up.lose(up.living[0])
        del up.queue.asked[:]
        up.turn(30)
        assert len(up.queue.asked) <= 30 / SOON + 1

    def test_in_quiet_times_the_queue_is_left_alone(self, up):
        up.turn(LATER)
        del up.queue.asked[:]
        up.turn(10 * LATER)
        assert 8 <= len(up.queue.asked) <= 10


class TestReplacing:
    @pytest.mark.parametrize("end", ["failed", "cancelled", "node_fail", "timeout", "completed"])
    def test_a_job_that_ends_is_replaced(self, up, end):
        up.end(up.living[0], end)
        up.turn(SOON + 2)
        assert len(up.living) == 2
        assert up.queue.submissions == 3

    def test_a_job_that_vanishes_is_replaced(self, up):
        up.vanish(up.living[0])
        up.turn(LATER + 1)
        assert up.queue.submissions == 3
        assert up.states == ["up", "waiting"]

    def test_a_job_that_waits_and_vanishes_is_replaced(self, make):
        rig = make(1)
        rig.turn(MISSING + 1)
        rig.vanish(rig.living[0])
        rig.turn(LATER + 1)
        assert rig.queue.submissions == 2

    def test_a_new_job_may_be_unknown_for_a_moment(self, make):
        rig = make(1)
        rig.turn()
        rig.queue.jobs_["100"].seen = rig.queue.now + MISSING - 3
        rig.turn(60)
        assert rig.queue.submissions == 1
        assert rig.states == ["waiting"]

    def test_one_wrong_word_of_the_queue_costs_no_job_that_works(self, up):
        job = up.living[0]
        job.seen = up.queue.now + LATER + SOON
        up.turn(120)
        assert up.queue.submissions == 2
        assert up.states == ["up", "up"]

    def test_a_job_the_queue_takes_back_is_not_replaced(self, up):
        job = up.living[0]
        up.requeue(job)
        up.turn(120)
        assert up.queue.submissions == 2
        assert up.states == ["up", "waiting"]
        up.run()
        up.turn(30)
        assert up.states == ["up", "up"]

    def test_a_job_taken_back_at_the_end_of_its_time_is_not_replaced(self, up):
        job = up.living[0]
        up.told(job, left=90.0)
        up.needed = 10.0
        up.turn()
        up.requeue(job)
        up.turn(60)
        assert up.queue.submissions == 2

    def test_workers_of_a_job_taken_back_may_take_their_time_to_go(self, up):
        job = up.living[0]
        address = up.requeue(job)[0]
        up.connect(job)  # still there
        assert up.addresses(job) == [address]
        up.turn(30)
        assert up.states == ["up", "waiting"]
        up.lose(job)
        up.turn(5)
        up.run()
        up.turn(20)
        up.end(job, "cancelled")
        up.turn(5)
        mine = [h.cause for h in up.held if h.job == job.id]
        assert mine == ["requeued", "cancelled"]

    def test_a_worker_that_its_nanny_starts_again_is_no_loss(self, up):
        job = up.living[0]
        up.lose(job)
        up.turn(NANNY - 2)
        up.connect(job, port=1)
        up.turn(60)
        assert up.queue.submissions == 2
        assert up.states == ["up", "up"]

    def test_a_job_without_its_worker_is_replaced_and_goes_on_for_its_programs(self, up):
        job = up.living[0]
        up.lose(job)
        up.turn(NANNY + 5)
        assert up.states == ["alone", "up", "waiting"]
        assert job.lives
        assert "without a worker" in up.reconciler.sentence

    def test_a_replaced_job_that_the_queue_takes_back_is_ended(self, up):
        job = up.living[0]
        up.lose(job)
        up.turn(NANNY + 5)
        up.run()
        up.requeue(job)
        up.turn(LATER + 1)
        assert not job.lives
        assert len(up.living) == 2
        assert up.queue.submissions == 3

    def test_a_job_whose_workers_leave_is_replaced_at_once(self, up):
        job = up.living[0]
        up.told(job, draining=True)
        up.turn()
        assert up.queue.submissions == 3
        assert up.states == ["leaving", "up", "waiting"]

    def test_a_job_that_never_connects_is_ended_and_replaced(self, make):
        rig = make(1)
        rig.turn()
        (job,) = rig.living
        job.state = "running"
        rig.turn(COMING - 10)
        assert job.lives
        rig.turn(30)
        assert not job.lives
        assert len(rig.living) == 1

    def test_processes_of_one_job_are_one_job(self, make):
        rig = make(1)
        rig.turn()
        (job,) = rig.living
        job.state = "running"
        first = rig.connect(job, suffix="-0")
        rig.connect(job, suffix="-1", port=1)
        rig.turn(5)
        assert rig.states == ["up"]
        del rig.cluster.scheduler.workers[first]
        rig.turn(60)
        assert rig.states == ["up"]
        assert rig.reconciler.death(first) is not None


class TestWalltime:
    def test_a_job_is_replaced_ahead_of_its_end(self, make):
        rig = make(1)
        rig.needed = 100.0
        rig.turn()
        rig.run(left=3600.0)
        rig.turn(STEADY + 5)
        rig.told(rig.living[0], left=200.0)
        rig.turn()
        assert rig.queue.submissions == 1
        rig.told(rig.living[0], left=100.0)
        rig.turn()
        assert rig.queue.submissions == 2
        rig.turn(60)
        assert rig.queue.submissions == 2  # one for one

    @pytest.mark.parametrize("wait", [1.0, 9000.0])
    def test_long_members_and_long_queues_do_not_multiply_jobs(self, make, wait):
        """Each job has time for one member; in the queue they wait long, or not at all."""
        rig, most, born = make(2), [0], {}
        rig.needed = 0.9 * 3600.0

        def live():
            for job in rig.living:
                born.setdefault(job.id, rig.queue.now)
                if job.state == "pending" and rig.queue.now - born[job.id] >= wait:
                    rig.run(job.id, left=3600.0)
                    job.log.append(rig.queue.now)
                elif job.log:
                    left = 3600.0 - (rig.queue.now - job.log[0])
                    rig.told(job, left=left)
                    if left <= 0:
                        rig.end(job, "timeout")
            most[0] = max(most[0], len([job for job in rig.living if job.log]))

        rig.turn(4 * 3600 + wait, live)
        assert most[0] <= 4
        assert rig.queue.submissions >= 4

    def test_no_sooner_than_in_the_last_part_of_its_time(self, make):
        rig = make(1)
        rig.needed = 3000.0
        rig.turn()
        rig.run(left=3600.0)
        rig.turn(STEADY + 5)
        rig.told(rig.living[0], left=AHEAD * 3600.0 + 5)
        rig.turn(5)
        assert rig.queue.submissions == 1
        rig.told(rig.living[0], left=AHEAD * 3600.0 - 5)
        rig.turn(5)
        assert rig.queue.submissions == 2


class TestIdle:
    def test_while_workers_are_idle_nothing_is_replaced(self, up):
        one, other = up.living
        up.lose(other)
        up.connect(other, busy=0)
        up.turn(IDLE + 2)
        up.end(one)
        up.turn(60)
        assert up.queue.submissions == 2
        up.lose(other)
        up.connect(other, busy=4)
        up.turn(2)
        assert up.queue.submissions == 3

    def test_a_moment_without_work_is_not_idleness(self, up):
        one, other = up.living
        up.end(one)
        up.lose(other)
        up.connect(other, busy=0)
        up.turn(IDLE - 1)
        assert up.queue.submissions == 3

    def test_workers_that_leave_are_not_idle(self, up):
        for job in up.living:
            up.lose(job)
            up.connect(job, busy=0, draining=True)
        up.turn(IDLE + 5)
        assert up.queue.submissions == 4

    def test_at_the_end_of_a_campaign_nothing_is_replaced(self, up):
        up.load = 0
        for job in up.living:
            up.end(job)
        up.turn(60)
        assert up.living == []

    def test_nor_is_what_was_refused_submitted_then(self, make):
        rig = make(1)
        rig.queue.answers = ["refuse"]
        rig.turn()
        rig.load = 0
        rig.turn(60)
        assert rig.living == []


class TestBrought:
    """A cluster that somebody brought: its owner scales it, we keep it at that."""

    @pytest.fixture
    def rig(self, make):
        rig = make(owned=False)
        rig.cluster.scale(3)
        rig.turn()
        rig.run()
        rig.turn(STEADY + 5)
        assert rig.states == ["up"] * 3
        return rig

    def test_what_its_owner_has_submitted_is_taken_over(self, rig):
        assert rig.reconciler.wanted == 3
        assert rig.queue.submissions == 0

    def test_what_dies_is_replaced(self, rig):
        rig.end(rig.living[0])
        rig.turn(LATER)
        assert rig.queue.submissions == 1
        assert len(rig.living) == 3
        assert len(rig.cluster.worker_spec) == 3

    def test_what_could_not_be_submitted_is(self, make):
        rig = make(owned=False)
        rig.queue.limit = 0
        rig.cluster.scale(2)
        rig.queue.limit = 9
        rig.turn()
        assert len(rig.living) == 2
        assert {job.job_id for job in rig.cluster.workers.values()} == {j.id for j in rig.living}

    def test_what_dask_is_submitting_just_now_is_not_submitted_beside_it(self, make):
        rig = make(owned=False)
        rig.cluster.scale(2, submit=False)
        rig.turn(30)
        assert rig.reconciler.wanted == 2
        assert rig.queue.submissions == 0
        for name in rig.cluster.worker_spec:
            rig.cluster.submitted(name)
        rig.turn(30)
        assert rig.queue.submissions == 0
        assert rig.states == ["waiting"] * 2

    @pytest.mark.parametrize("n", [0, 1, 2, 5])
    def test_its_owner_scales_it_up_and_down(self, rig, n):
        rig.cluster.scale(n)
        rig.turn(60)
        rig.run()
        rig.turn(60)
        assert rig.reconciler.wanted == len(rig.living) == n
        assert rig.queue.submissions == 0
        assert rig.reconciler.sentence == ("" if n else "no jobs: the cluster is scaled to none")

    @pytest.mark.parametrize("n", [0, 1, 5])
    def test_its_owner_scales_it_while_one_is_missing(self, rig, n):
        """He says how many there are to be, not how many more."""
        rig.queue.answers = ["refuse"] * 3
        rig.end(rig.living[0])
        rig.turn(SOON + 1)
        rig.cluster.scale(n)
        rig.turn(90)
        assert rig.reconciler.wanted == len(rig.living) == n

    @pytest.mark.parametrize("n", [0, 1, 4])
    def test_its_owner_scales_it_while_nothing_can_be_submitted(self, rig, n):
        rig.queue.down = True
        job = rig.living[0]
        rig.lose(job)
        rig.turn(NANNY + 5)
        rig.queue.down = False
        rig.end(job)
        rig.cluster.scale(n)
        rig.turn(60)
        assert rig.reconciler.wanted == len(rig.living) == n

    def test_a_job_that_waits_and_is_scaled_away_is_no_failure(self, make):
        rig = make(owned=False)
        rig.cluster.scale(2)
        rig.turn()
        rig.cluster.scale(0)
        rig.turn(30)
        assert rig.living == []
        assert rig.reconciler.describe()["why"] == "no jobs: the cluster is scaled to none"

    def test_an_unsure_job_that_is_scaled_away_is_ended_when_it_comes(self, make):
        rig = make(owned=False)
        rig.cluster.scale(1)
        rig.turn()
        rig.queue.answers, rig.queue.later = ["taken"], 20.0
        rig.end(rig.living[0])
        rig.turn(5)
        rig.cluster.scale(0)
        rig.turn(60)
        assert rig.queue.submissions == 1
        assert rig.living == []

    def test_its_jobs_are_its_owners_in_the_end(self, rig):
        rig.reconciler.close(cancel=False)
        assert len(rig.living) == 3
        assert len(rig.cluster.workers) == 3

    def test_the_next_campaign_on_it_takes_its_jobs_over(self, rig, tmp_path):
        rig.end(rig.living[0])
        rig.turn(LATER)
        rig.reconciler.close(cancel=False)
        rig.jobqueue = JobQueue(rig.cluster)
        rig.reconciler = Reconciler(rig.jobqueue, rig.queue, tmp_path, rig.wish)
        rig.run()
        rig.turn(30)
        assert rig.states == ["up"] * 3
        rig.end(rig.living[0])
        rig.turn(LATER)
        assert len(rig.living) == 3
        assert len(rig.reconciler.jobs()) == 3  # no name was used twice


class TestDeath:
    @pytest.mark.parametrize(
        ("end", "blameless", "cut"),
        [
            ("cancelled", True, False),
            ("timeout", True, True),
            ("node_fail", True, False),
            ("preempted", True, False),
            ("unknown", True, False),
            ("failed", False, False),
            ("completed", False, False),
            ("out_of_memory", False, False),
        ],
    )
    def test_how_the_job_ended_says_whether_a_member_can_be_to_blame(self, up, end, blameless, cut):
        job = up.living[0]
        (address,) = up.addresses(job)
        assert up.reconciler.death(address) is None
        up.end(job, end)
        up.turn(15)
        death = up.reconciler.death(address)
        assert death == (f"job {job.id} on n{job.id} ended: {end}", blameless, cut)

    def test_a_job_that_vanished_is_nobodys_fault(self, up):
        (address,) = up.vanish(up.living[0])
        up.turn(LATER + 1)
        assert up.reconciler.death(address).blameless

    def test_a_worker_that_dies_in_a_job_that_runs_on_is_to_blame(self, up):
        job = up.living[0]
        (address,) = up.lose(job)
        up.turn()
        assert up.reconciler.death(address) is None  # first the queue is asked
        up.turn(SOON + SETTLING + 1)
        assert up.reconciler.death(address) is None  # and its nanny may start another
        other = up.connect(job, port=1)
        assert other != address
        up.turn(SOON + SETTLING + 1)
        death = up.reconciler.death(address)
        assert death == (f"its worker died, while job {job.id} on n{job.id} runs on", False, False)

    def test_when_all_workers_of_a_job_go_at_once_no_member_is_to_blame(self, up):
        """A node without power: its queue sees that minutes later."""
        job = up.living[0]
        (address,) = up.lose(job)
        up.turn(NANNY + SOON + SETTLING + 1)
        assert up.reconciler.death(address).blameless

    def test_nothing_is_said_before_the_queue_knows_how_it_ended(self, up):
        """Slurm calls it completing for a while."""
        (address,) = up.end(up.living[0], "unknown")
        up.turn(SOON + SETTLING + 2)
        assert up.reconciler.death(address) is None
        up.queue.jobs_["100"].end = "cancelled"
        up.turn(SOON + 1)
        assert up.reconciler.death(address).cause.endswith("ended: cancelled")

    def test_nothing_is_said_while_the_queue_is_silent(self, up):
        (address,) = up.end(up.living[0], "cancelled")
        up.queue.down = True
        up.turn(60)
        assert up.reconciler.death(address) is None
        up.queue.down = False
        up.turn(SOON + 1)
        assert up.reconciler.death(address).blameless

    def test_a_job_taken_back_is_nobodys_fault_but_what_comes_after_is(self, up):
        job = up.living[0]
        (first,) = up.requeue(job)
        up.turn(SOON + 1)
        assert up.reconciler.death(first) == (f"job 100 on n{job.id} ended: requeued", True, False)
        up.run()
        up.turn(30)
        (second,) = up.lose(job)
        assert second != first
        up.connect(job, port=1)
        up.turn(SOON + SETTLING + 1)
        assert not up.reconciler.death(second).blameless
        assert up.reconciler.death(first).blameless

    def test_an_address_that_comes_back_and_goes_is_asked_for_anew(self, up):
        job = up.living[0]
        (address,) = up.lose(job)
        up.turn(10)
        assert up.reconciler.death(address) is None
        up.connect(job)
        up.turn(60)
        up.end(job, "cancelled")
        assert up.reconciler.death(address) is None
        up.turn()
        assert up.reconciler.death(address) is None
        up.turn(SOON + 1)
        assert up.reconciler.death(address).blameless

    def test_of_a_worker_that_is_in_no_job_nothing_is_known(self, up):
        assert up.reconciler.death("tcp://else:1") == (
            "its worker (tcp://else:1) is gone",
            False,
            False,
        )

    def test_jobs_ended_at_the_close_are_nobodys_fault(self, up):
        (address,) = up.addresses(up.living[0])
        up.reconciler.close()
        assert up.reconciler.death(address).blameless


class TestAccounts:
    def test_each_run_of_a_job_is_accounted_for_once(self, up):
        one, other = up.living
        up.requeue(one)
        up.turn(SOON + 1)
        up.run()
        up.turn(20)
        up.end(other, "timeout")
        up.turn(SOON + 1)
        up.reconciler.close()
        up.held += up.reconciler.take_held()
        assert up.reconciler.take_held() == []
        up.reconciler.close()
        assert up.reconciler.take_held() == []
        causes = [(h.job, h.cause) for h in up.held]
        assert sorted(causes) == [
            (one.id, "closed"),
            (one.id, "requeued"),
            (other.id, "timeout"),
        ]
        for h in up.held:
            assert (h.slots, h.cores) == (4, 4)
            assert math.isnan(h.walltime)
            assert h.began <= h.connected
        first, second = sorted((h for h in up.held if h.job == one.id), key=lambda h: h.began)
        assert first.ended <= second.began

    def test_a_job_that_never_ran_has_cost_nothing(self, make):
        rig = make()
        rig.turn()
        rig.end(rig.living[0])
        rig.turn(5)
        rig.reconciler.close()
        assert rig.held + rig.reconciler.take_held() == []


class TestClose:
    def test_nothing_is_left_behind(self, make):
        rig = make(4)
        rig.queue.answers, rig.queue.later = ["ok", "ok", "taken"], 0.0
        rig.turn()
        assert len(rig.living) == 3
        rig.run("100")
        rig.turn()
        rig.reconciler.close()
        assert rig.living == []
        assert rig.reconciler.jobs() == []

    def test_a_queue_that_is_silent_is_asked_again(self, up, monkeypatch):
        monkeypatch.setattr(ending, "PAUSE", 0.01)
        cancel, calls = up.queue.cancel, []

        def second(ids):
            calls.append(ids)
            if len(calls) == 1:
                raise QueueSilent("timed out")
            cancel(ids)

        up.queue.cancel = second
        up.reconciler.close()
        assert up.living == []

    def test_jobs_of_a_queue_that_stays_silent_are_left_to_the_next_driver(
        self, up, monkeypatch, tmp_path
    ):
        monkeypatch.setattr(ending, "PAUSE", 0.01)
        monkeypatch.setattr(ending, "CLOSING", 0.05)
        up.queue.down = True
        up.reconciler.close()
        (path,) = tmp_path.glob("jobs-*.json")
        assert json.loads(path.read_text())["jobs"].keys() == {"100", "101"}

    def test_a_job_that_the_queue_may_start_again_is_ended_too(self, up):
        job = up.living[0]
        up.end(job, "node_fail")
        up.turn(SOON + 2)
        job.state = "pending"
        up.turn(60)
        up.reconciler.close()
        assert up.living == []

    def test_what_runs_is_left_running_where_that_is_wanted(self, make, tmp_path):
        rig = make(3)
        rig.turn()
        rig.run("100")
        rig.turn()
        rig.queue.jobs_["101"].state = "running"
        rig.turn(SOON)
        rig.reconciler.close(leave=True)
        assert [job.id for job in rig.living] == ["100", "101"]
        assert rig.queue.jobs_["102"].end == "cancelled"
        (path,) = tmp_path.glob("jobs-*.json")
        assert json.loads(path.read_text())["jobs"].keys() == {"100", "101"}
        # the cluster's own close ends nothing of it
        assert {job.job_id for job in rig.cluster.workers.values()} <= {"102"}

    def test_what_began_since_the_last_look_runs_too(self, make):
        rig = make(2)
        rig.turn()
        rig.run("100")
        rig.reconciler.close(leave=True)
        assert [job.id for job in rig.living] == ["100"]
        assert rig.queue.jobs_["101"].end == "cancelled"
        assert {job.job_id for job in rig.cluster.workers.values()} <= {"101"}

    def test_what_runs_is_left_running_by_a_queue_that_does_not_say_so(self, make, monkeypatch):
        monkeypatch.setattr(ending, "PAUSE", 0.01)
        monkeypatch.setattr(ending, "CLOSING", 0.05)
        rig = make(2)
        rig.turn()
        rig.run("100")
        rig.queue.down = True
        rig.reconciler.close(leave=True)
        assert [job.id for job in rig.living] == ["100", "101"]
        assert not {job.job_id for job in rig.cluster.workers.values()} & {"100", "101"}

    def test_without_jobs_the_queue_is_not_bothered(self, make):
        rig = make()
        rig.reconciler.close()
        assert rig.queue.asked == []

    def test_the_thread_goes_on_after_an_error_and_stops_at_the_close(self, make):
        rig = make()

        def broken():
            raise KeyError("scheduler")

        rig.reconciler._jobqueue.wanted = broken
        rig.reconciler.start()
        while not rig.reconciler.sentence:
            rig.reconciler.join(0.01)
        assert "KeyError" in rig.reconciler.sentence
        assert rig.reconciler.is_alive()
        rig.reconciler.close()
        assert not rig.reconciler.is_alive()

    def test_it_describes_its_jobs(self, up):
        up.told(up.living[0], draining=True)
        up.turn()
        about = up.reconciler.describe()
        assert about["wanted"] == 2
        assert about["jobs"] == {"leaving": 1, "up": 1, "waiting": 1}
        assert "1 pending (Resources)" in about["why"] or "1 pending" in about["why"]
        json.dumps(about)


def left_by(tmp_path, jobs, sent=(), **changes):
    """The file of a driver that was killed."""
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    about = {**process(), "pid": int(gone.stdout), "jobs": jobs, "sent": list(sent), **changes}
    path = tmp_path / "jobs-dead00.json"
    path.write_text(json.dumps(about))
    return path


class TestInherited:
    def submitted(self, rig, title):
        return rig.queue.take(f"#SBATCH -J {title}\nworker --name {title}\n")

    def test_what_waits_is_ended_and_what_runs_goes_on_till_the_end(self, make, tmp_path):
        rig = make(1)
        waits, runs = self.submitted(rig, "camp-old-1"), self.submitted(rig, "camp-old-2")
        runs.state = "running"
        path = left_by(tmp_path, {waits.id: waits.title, runs.id: runs.title, "9": "camp-old-9"})
        rig.reconciler.adopt()
        assert (waits.lives, runs.lives) == (False, True)
        assert not path.exists()
        (mine,) = tmp_path.glob("jobs-*.json")
        assert json.loads(mine.read_text())["jobs"].keys() >= {runs.id}
        rig.turn()
        rig.reconciler.close()
        assert rig.living == []
        assert not list(tmp_path.glob("jobs-*"))

    def test_a_job_that_a_driver_was_killed_over_is_found_by_its_name(self, make, tmp_path):
        rig = make(1)
        job = self.submitted(rig, "camp-old-1")
        left_by(tmp_path, {}, [job.title, "camp-old-2"])
        rig.reconciler.adopt()
        assert not job.lives

    def test_a_driver_notes_a_job_before_it_submits_it(self, make, tmp_path):
        rig, seen = make(1), []
        submit = rig.queue.submit

        def noted(script, directory):
            (path,) = tmp_path.glob("jobs-*.json")
            seen.append(json.loads(path.read_text())["sent"])
            return submit(script, directory)

        rig.queue.submit = noted
        rig.turn()
        assert seen == [[rig.living[0].title]]
        (path,) = tmp_path.glob("jobs-*.json")
        about = json.loads(path.read_text())
        assert (about["sent"], about["jobs"]) == ([], {"100": rig.living[0].title})

    def test_a_number_that_was_given_again_is_another_job(self, make, tmp_path):
        rig = make(1)
        other = self.submitted(rig, "somebody-elses")
        left_by(tmp_path, {other.id: "camp-old-1"})
        rig.reconciler.adopt()
        rig.reconciler.close()
        assert other.lives

    def test_a_queue_that_is_silent_is_asked_at_the_end(self, make, tmp_path):
        rig = make(1)
        job, unsure = self.submitted(rig, "camp-old-1"), self.submitted(rig, "camp-old-2")
        left_by(tmp_path, {job.id: job.title}, [unsure.title])
        rig.queue.down = True
        rig.reconciler.adopt()
        rig.queue.down = False
        rig.reconciler.close()
        assert rig.living == []

    def test_they_are_ended_where_the_cluster_is_not_ours(self, make, tmp_path):
        rig = make(owned=False)
        job = self.submitted(rig, "camp-old-1")
        job.state = "running"
        left_by(tmp_path, {job.id: job.title})
        rig.reconciler.adopt()
        rig.cluster.scale(1)
        rig.turn()
        rig.reconciler.close(cancel=False)
        assert not job.lives
        assert len(rig.living) == 1

    @pytest.mark.parametrize("changes", [{}, {"host": "elsewhere"}])
    def test_jobs_of_drivers_that_live_are_theirs(self, make, tmp_path, changes):
        rig = make(1)
        job = self.submitted(rig, "camp-old-1")
        pid = {} if changes else {"pid": os.getpid(), **process()}
        path = left_by(tmp_path, {job.id: job.title}, **pid, **changes)
        rig.reconciler.adopt()
        rig.reconciler.close()
        assert job.lives
        assert path.exists()

    def test_of_another_host_they_are_ours_where_nobody_else_can_be(self, tmp_path):
        left_by(tmp_path, {"7": "t"}, host="elsewhere")
        assert Register(tmp_path, "a").inherit() == ({}, [])
        assert Register(tmp_path, "b", alone=True).inherit() == ({"7": "t"}, [])

    def test_files_that_cannot_be_read_are_passed_over(self, tmp_path):
        for name, text in {"a": "{", "b": "[]", "c": '{"host": 3}'}.items():
            (tmp_path / f"jobs-{name}.json").write_text(text)
        assert Register(tmp_path, "mine", alone=True).inherit() == ({}, [])


KINDS = (
    "start",
    "connect",
    "die",
    "cancel",
    "requeue",
    "vanish",
    "lose",
    "down",
    "answers",
    "nothing",
)


class Chaos(Rig):
    """Anything may happen to any job, at any time."""

    def happen(self, kind, k, answer, later):
        living = self.living
        job = living[k % len(living)] if living else None
        if kind == "down":
            self.queue.down = not self.queue.down
        elif kind == "answers":
            self.queue.answers, self.queue.later = [answer], later
        elif job is None or job.seen > self.queue.now:
            return
        elif kind == "start" and job.state == "pending":
            job.state, job.node = "running", "n1"
            job.runs += 1
        elif kind == "connect" and job.state == "running" and not self.addresses(job):
            self.connect(job)
        elif kind in ("die", "cancel"):
            self.end(job, "failed" if kind == "die" else "cancelled")
        elif kind == "requeue" and job.state == "running":
            self.requeue(job)
        elif kind == "vanish":
            self.vanish(job)
        elif kind == "lose":
            self.lose(job)

    def calm(self):
        """The queue works again, and jobs with it: after a while all is as wanted."""
        self.queue.down, self.queue.answers = False, []

        def works():
            for job in self.living:
                if job.seen > self.queue.now:
                    continue
                if job.state == "pending":
                    self.run(job.id)
                elif not self.addresses(job) and self.queue.now - job.seen > 60:
                    self.end(job, "completed")  # nothing goes on in it
            for job in self.living:
                if job.state == "running" and self.addresses(job):
                    job.seen = self.queue.now

        self.turn(900, works)


@settings(max_examples=60)
@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.integers(0, 5),
            st.sampled_from(["refuse", "silent", "taken", "ok"]),
            st.sampled_from([0.0, 20.0, SUBMITTING + 20.0]),
            st.sampled_from([0.5, 3.0, 25.0, 70.0]),
        ),
        max_size=25,
    ),
)
def test_whatever_happens_there_are_in_the_end_as_many_jobs_as_wanted(tmp_path_factory, n, story):
    rig = Chaos(tmp_path_factory.mktemp("jobs"), n, limit=99)
    late = lambda: sum(job.seen > rig.queue.now for job in rig.living)  # noqa: E731

    def never_too_many():
        # those that wait and nobody knows of yet are ended as soon as they are seen
        fresh = [job for job in rig.living if job.state == "pending" and job.seen <= rig.queue.now]
        known = {job.id for job in rig.reconciler.jobs() if not job.unwanted}
        assert len([job for job in fresh if job.id in known]) <= n
        assert len([j for j in rig.reconciler.jobs() if j.state in ("new", "unsure")]) <= n

    rig.turn()
    for kind, k, answer, later, pause in story:
        rig.happen(kind, k, answer, later)
        rig.turn(pause, never_too_many)
    rig.calm()
    assert rig.reconciler.error == ""
    assert late() == 0
    assert len(rig.living) >= n
    workers = [job for job in rig.living if rig.addresses(job)]
    assert len(workers) >= n
    # more than wanted are only jobs that were given up and came to work all the same
    known = {job.id: job for job in rig.reconciler.jobs()}
    mine = [known[job.id] for job in rig.living if job.id in known]
    assert sum(not job.dropped for job in mine) <= n <= sum(not job.unwanted for job in mine)
    rig.reconciler.close()
    assert rig.living == []
    held = [(h.job, h.began) for h in rig.held + rig.reconciler.take_held()]
    assert len(held) == len(set(held))


def test_a_fake_is_like_the_real_thing():
    """What the tests above rest on."""
    queue = FakeQueue()
    cluster = StubCluster(queue)
    cluster.scale(2)
    assert {job.job_id for job in cluster.workers.values()} == {"100", "101"}
    assert Wish().load() == 1
