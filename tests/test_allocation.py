"""What a worker knows of its job, and deals out: time, processors, GPUs."""

from __future__ import annotations

import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemblerl.cluster import allocation
from ensemblerl.cluster.allocation import (
    BEGAN,
    LEAST,
    MOST,
    SHARE,
    WALLTIME,
    Allocation,
    job_id,
    time_left,
    uptime,
)


@pytest.fixture
def eight(monkeypatch):
    """A process that the queue keeps to eight processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 5, 6, 7, 8, 9, 10})
    return {"SLURM_CPUS_ON_NODE": "8"}


def places(given_, n):
    """What n members that run side by side are given."""
    held = [given_.place(1.0) for _ in range(n)]
    dealt = [one.__enter__() for one in held]
    for one in held:
        one.__exit__(None, None, None)
    return dealt


class TestTime:
    @pytest.mark.parametrize(
        ("left", "margin"),
        [(100.0, LEAST), (1000.0, SHARE * 1000.0), (1e6, MOST), (3.0, 3.0), (-5.0, -5.0)],
    )
    def test_members_are_to_be_over_before_the_job(self, left, margin):
        given_ = Allocation(1, environment={}, left=left)
        assert given_.left == pytest.approx(left - margin, abs=2.0)
        assert given_.told()["left"] == pytest.approx(left - margin, abs=2.0)

    def test_the_script_of_the_job_says_when_it_began(self):
        environment = {WALLTIME: "2000", BEGAN: str(uptime() - 1000.0)}
        assert time_left(environment) == pytest.approx(1000.0, abs=2.0)
        given_ = Allocation(1, environment=environment)
        assert given_.left == pytest.approx(1000.0 - SHARE * 1000.0, abs=2.0)
        assert given_.told()["draining"] is False

    @pytest.mark.parametrize("environment", [{}, {WALLTIME: "600"}, {WALLTIME: "x", BEGAN: "1"}])
    def test_where_it_says_nothing_there_is_no_end(self, environment):
        given_ = Allocation(1, environment=environment)
        assert (given_.until, given_.left) == (None, None)
        with given_.place(5.0) as place:
            assert (place.until, place.needed) == (None, 5.0)

    def test_a_job_is_known_by_its_queue(self):
        assert job_id({"SLURM_JOB_ID": "7"}) == "7"
        assert job_id({"PBS_JOBID": "7.server"}) == "7.server"
        assert job_id({}) == ""


class TestProcessors:
    def test_members_side_by_side_share_no_processor(self, eight):
        dealt = places(Allocation(4, 2, eight), 4)
        assert [place.cores for place in dealt] == [(3, 4), (5, 6), (7, 8), (9, 10)]

    def test_a_place_is_dealt_again_when_it_is_free(self, eight):
        given_ = Allocation(2, 4, eight)
        with given_.place(0.0) as first:
            with given_.place(0.0) as second:
                assert first.cores == (3, 4, 5, 6)
                assert second.cores == (7, 8, 9, 10)
                with given_.place(0.0) as third:  # no more room: nothing of its own
                    assert third.cores == ()
            with given_.place(0.0) as again:
                assert again.cores == second.cores

    def test_a_place_is_free_again_after_an_error(self, eight):
        given_ = Allocation(1, 8, eight)
        for _ in range(2):
            with pytest.raises(ValueError, match="sim"), given_.place(0.0) as place:  # noqa: PT012
                assert len(place.cores) == 8
                raise ValueError("sim")

    @pytest.mark.parametrize(
        "environment",
        [{}, {"SLURM_CPUS_ON_NODE": "4"}, {"NCPUS": "4"}, {"SLURM_CPUS_ON_NODE": "4(x2)"}],
    )
    def test_where_the_queue_does_not_confine_jobs_nobody_is_pinned(self, eight, environment):
        assert [place.cores for place in places(Allocation(2, 1, environment), 2)] == [(), ()]

    def test_where_there_are_too_few_nobody_is_pinned(self, eight):
        assert [place.cores for place in places(Allocation(3, 3, eight), 3)] == [(), (), ()]

    def test_pbs_says_it_in_its_own_word(self, eight):
        assert places(Allocation(2, 4, {"NCPUS": "8"}), 1)[0].cores == (3, 4, 5, 6)

    @given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(0, 3))
    def test_whatever_the_numbers_processors_are_disjoint(self, slots, cores, n, index):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "sched_getaffinity", lambda pid: set(range(n)))
            environment = {"SLURM_CPUS_ON_NODE": str(n)}
            name = f"c-e1-r99-{index}"
            dealt = places(Allocation(slots, cores, environment, name=name), slots)
        taken = [core for place in dealt for core in place.cores]
        assert len(taken) == len(set(taken))
        assert all(len(place.cores) in (0, cores) for place in dealt)
        assert set(taken) <= set(range(n))
        assert bool(taken) == ((index + 1) * slots * cores <= n)

    def test_threads_share_no_processor(self, eight):
        given_, clash, used = Allocation(4, 2, eight), [], set()
        lock = threading.Lock()

        def members():
            for _ in range(40):
                with given_.place(0.0) as place:
                    with lock:
                        clash.extend(used & set(place.cores))
                        used.update(place.cores)
                    time.sleep(0.0002)
                    with lock:
                        used.difference_update(place.cores)

        threads = [threading.Thread(target=members) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert clash == []


class TestDevices:
    @pytest.mark.parametrize(
        ("devices", "slots", "wanted"),
        [
            ("0,1", 2, [("0",), ("1",)]),
            ("4,5,6,7", 2, [("4", "5"), ("6", "7")]),
            ("0,1,2", 2, [("0",), ("1",)]),
            ("0,1", 4, [("0",), ("1",), ("0",), ("1",)]),
            ("MIG-a,MIG-b", 2, [("MIG-a",), ("MIG-b",)]),
            ("0,1", 1, [None]),
            ("", 2, [None, None]),
            (None, 2, [None, None]),
        ],
    )
    def test_members_side_by_side_share_a_gpu_only_where_there_are_too_few(
        self, devices, slots, wanted
    ):
        environment = {} if devices is None else {"CUDA_VISIBLE_DEVICES": devices}
        dealt = places(Allocation(slots, 1, environment), slots)
        assert [place.devices for place in dealt] == wanted


class TestSeveralProcesses:
    """Functions run in a process for each slot of the job: each worker has one."""

    @pytest.mark.parametrize("job", ["f3-e12-r1700000000", "SLURMCluster-0", "f3-e2"])
    def test_each_has_processors_and_a_gpu_of_its_own(self, eight, job):
        environment = {**eight, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}
        made = [Allocation(1, 2, environment, name=f"{job}-{k}") for k in range(4)]
        dealt = [places(one, 1)[0] for one in made]
        assert [place.cores for place in dealt] == [(3, 4), (5, 6), (7, 8), (9, 10)]
        assert [place.devices for place in dealt] == [("0",), ("1",), ("2",), ("3",)]

    def test_those_for_whom_nothing_is_left_are_told_nothing_wrong(self, eight):
        place = places(Allocation(1, 2, eight, name="f3-e12-r17-4"), 1)[0]
        assert (place.cores, place.devices) == ((), None)

    def test_gpus_go_round_where_there_are_fewer(self):
        environment = {"CUDA_VISIBLE_DEVICES": "5,6"}
        made = [Allocation(1, 1, environment, name=f"c-e1-r9-{k}") for k in range(3)]
        assert [places(one, 1)[0].devices for one in made] == [("5",), ("6",), ("5",)]

    @pytest.mark.parametrize("name", ["f3-e12-r1700000000", "SLURMCluster-3", "17", ""])
    def test_a_worker_that_is_alone_in_its_job_has_all_of_it(self, eight, name):
        environment = {**eight, "CUDA_VISIBLE_DEVICES": "0,1"}
        place = places(Allocation(1, 8, environment, name=name), 1)[0]
        assert (len(place.cores), place.devices) == (8, None)

    def test_a_process_with_one_slot_keeps_to_its_gpu(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        Allocation(1, 1, name="f3-e12-r17-1").claim()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"

    @pytest.mark.parametrize(("slots", "name"), [(2, "f3-e12-r17"), (1, "f3-e12-r17")])
    def test_a_process_that_is_alone_keeps_them_all(self, monkeypatch, slots, name):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        Allocation(slots, 1, name=name).claim()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_uptime_is_what_the_kernel_says():
    assert allocation.uptime() == pytest.approx(
        float(open("/proc/uptime").read().split()[0]),  # noqa: PTH123, SIM115
        abs=2.0,
    )
