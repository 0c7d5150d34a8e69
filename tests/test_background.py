"""Learning in a process of its own: it comes along, gets in nobody's way, and leaves with us."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import pytest

import ensemblerl as erl
from ensemblerl.agents import background, pupil
from ensemblerl.agents.base import Lesson
from ensemblerl.agents.core import Core
from ensemblerl.agents.learners.mpo import MPO
from ensemblerl.agents.learners.trajectory_balance import TrajectoryBalance
from ensemblerl.agents.maxent import MaxEnt
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.agents.replay import Replay
from ensemblerl.agents.telemetry import LAG_EDGES, lag_counts
from ensemblerl.events import Launched, Published
from ensemblerl.records import Demands, Proposals, Results
from ensemblerl.store.reading import read_events
from ensemblerl.testing.cubes import conditional_cube, real_cube
from ensemblerl.testing.rehearsal import Rehearsal

CUBE = real_cube(2)
LONG = 60.0
"""Seconds that anything may take that comes at all."""


def rng(seed=0):
    return np.random.default_rng(seed)


def until(ready, what):
    """Poll, for as long as a busy machine may need."""
    end = time.monotonic() + LONG
    while not (found := ready()):
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.01)
    return found


def gone(pid):
    """Whether a process has ended; one that nobody waited for has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class School:
    """An agent that learns in the background, members for it, and all versions that came."""

    def __init__(self, *, cube=CUBE, begin=True, **options):
        self.agent = MaxEnt(cube, learning="background", **{"learning_share": 1.0} | options)
        self.game, self.versions, self.rows = Rehearsal(cube.ndim, 0), [], []
        if begin:
            self.agent.begin(in_process=False, last=None)
            self.look()

    @property
    def pid(self):
        return self.agent._mind._process.pid

    def look(self):
        came = self.agent.published()
        self.versions += came
        self.rows += self.agent.telemetry()
        return came

    def tell(self, n=8):
        """Ask for members, launch them and settle them at once."""
        proposals = self.agent.ask(n, rng(self.game.ledger.n))
        number = self.game.launch(proposals, "agent")
        members = self.game.members(number)
        self.agent.tell(members, Results.pending(n))
        reward = -((members.unit[:, 0] - 0.3) ** 2)
        self.agent.tell(members, Results(reward[:, None], np.full(n, "ok"), reward))
        return proposals

    def learn(self, more=1):
        """Go on until so many versions more have come."""
        wanted = len(self.versions) + more
        self.tell()

        def ready():
            if not self.look():
                self.tell(1)
            return len(self.versions) >= wanted

        until(ready, "a version")


@pytest.fixture
def schools():
    """Makes them, and sees that none leaves a process behind."""
    made = []

    def make(**options):
        made.append(School(**options))
        return made[-1]

    yield make
    pids = [s.pid for s in made if s.agent._mind and s.agent._mind._process]
    for school in made:
        school.agent.close()
    assert all(gone(pid) for pid in pids)


class Sleepy(MPO):
    """Says that its lesson has begun, then takes its time."""

    def __init__(self, file, nap=3.0):
        super().__init__()
        self.file, self.nap = str(file), nap

    def learn(self, policy, memory, demands, rng):
        Path(self.file).touch()
        time.sleep(self.nap)
        return super().learn(policy, memory, demands, rng)


class Failing(MPO):
    """Its lessons end in an error of the operating system."""

    def learn(self, policy, memory, demands, rng):
        raise FileNotFoundError("a learner's own file")


class Remembering(MPO):
    """Counts its lessons in its state, which the driver never touches."""

    lessons = 0

    def learn(self, policy, memory, demands, rng):
        self.lessons += 1
        policy, metrics = super().learn(policy, memory, demands, rng)
        return Lesson(policy, {**metrics, "lessons": float(self.lessons)})

    def state_dict(self):
        return {"lessons": self.lessons}

    def load_state_dict(self, state):
        self.lessons = int(state["lessons"])


class TestVersions:
    def test_rows_go_out_and_versions_come_back(self, schools):
        school = schools()
        assert [s.version for s in school.versions] == [0]
        school.learn(4)
        assert [s.version for s in school.versions] == list(range(len(school.versions)))
        first, last = school.versions[0], school.versions[-1]
        assert not np.array_equal(first.weights["cov"], last.weights["cov"])
        assert [row["version"] for row in school.rows] == [s.version for s in school.versions[1:]]
        assert school.rows[-1]["n_settled"] <= school.game.ledger.n
        assert school.rows[-1]["ess"] > 0

    def test_points_come_from_the_last_version_that_was_handed_out(self, schools):
        school = schools()
        school.tell(8)
        connection = school.agent._mind._connection
        until(lambda: connection.poll(0), "a version")
        before = school.agent.ask(20, rng())
        assert (before.notes["version"] == 0).all()
        assert (before.notes["log_prob"] == 0.0).all()
        school.look()
        after = school.agent.ask(20, rng())
        assert (after.notes["version"] == school.versions[-1].version).all()
        assert school.versions[-1].version > 0
        policy = MixturePolicy(CUBE).with_weights(school.versions[-1].weights)
        wanted = np.log(0.1 + 0.9 * np.exp(policy.log_prob(after.unit)))
        np.testing.assert_allclose(after.notes["log_prob"], wanted)

    def test_an_agent_of_tokens(self, schools):
        school = schools(
            cube=conditional_cube(),
            policy=lambda cube: TokenPolicy(cube, base=4, digits=2, hidden=8),
            learner=TrajectoryBalance(updates=1, batch=8),
        )
        school.learn(2)
        last = school.versions[-1].weights
        changed = [k for k in last if not np.array_equal(last[k], school.versions[0].weights[k])]
        assert changed
        assert school.agent.ask(3, rng()).notes["log_prob_steps"].shape[0] == 3

    def test_a_learner_of_ones_own_goes_along_with_its_state(self, schools):
        school = schools(learner=Remembering())
        school.learn(3)
        assert school.rows[-1]["lessons"] == len(school.rows)
        assert school.agent.state_dict()["core"]["learner"]["learner"] == {
            "lessons": len(school.rows)
        }

    def test_other_shares_come_as_a_version_also_when_nothing_is_learnt(self, schools):
        school = schools()
        school.learn()
        school.agent.heed(Demands(prior_share=0.4, wide_share=0.1, frozen=True))
        until(lambda: school.look() and school.versions[-1].meta["prior_share"] == 0.4, "the share")
        asked = school.agent.ask(50, rng())
        assert (asked.notes["version"] == school.versions[-1].version).all()
        assert np.exp(-asked.notes["log_prob"]).max() <= 1 / 0.4 + 1e-9

    def test_frozen_there_are_no_more_lessons(self, schools):
        school = schools()
        school.learn()
        school.agent.heed(Demands(prior_share=0.1, ranked=True, frozen=True))
        school.agent.heed(Demands(prior_share=0.2, ranked=True, frozen=True))
        until(lambda: school.look() and school.versions[-1].meta["prior_share"] == 0.2, "the share")
        n, known = len(school.rows), school.versions[-1].version
        for _ in range(10):
            school.tell(8)
        school.agent.heed(Demands(prior_share=0.3, ranked=True, frozen=True))
        until(lambda: school.look() and school.versions[-1].meta["prior_share"] == 0.3, "the share")
        # messages arrive in order: what was told before was not learnt from
        assert school.versions[-1].version == known + 1
        assert len(school.rows) == n


class TestDispatch:
    def test_neither_ask_nor_tell_waits_for_a_lesson(self, schools, tmp_path):
        school = schools(learner=Sleepy(tmp_path / "began"))
        school.tell(8)
        until((tmp_path / "began").exists, "the lesson")
        # 400 members while it sleeps: 2 MB, more than a pipe holds
        for _ in range(50):
            proposals = school.tell(8)
            assert school.look() == []
            assert (proposals.notes["version"] == 0).all()
        until(school.look, "the version")
        assert school.versions[-1].version == 1

    def test_one_that_is_asleep_is_closed_all_the_same(self, schools, tmp_path, monkeypatch):
        monkeypatch.setattr(background, "PATIENCE", 0.2)
        school = schools(learner=Sleepy(tmp_path / "began", nap=10 * LONG))
        school.tell(8)
        until((tmp_path / "began").exists, "the lesson")
        for _ in range(100):
            school.tell(64)  # the pipe is full, and a thread of ours hangs in it
        pid, threads = school.pid, school.agent._mind._postman
        school.agent.close()
        assert gone(pid)
        assert not threads.is_alive()


class TestDeath:
    def test_it_is_started_again_with_all_that_was_known(self, schools):
        school = schools(learner=Remembering())
        school.learn(2)
        pid, known, told = school.pid, school.versions[-1].version, school.game.ledger.n
        os.kill(pid, signal.SIGKILL)
        with pytest.warns(UserWarning, match=r"ended by itself \(exit code -9\).*started again"):
            until(lambda: school.look() or school.agent._mind._process.pid != pid, "the news")
        school.learn(2)
        versions = [s.version for s in school.versions]
        assert versions == list(range(len(versions)))
        assert versions[-1] > known
        assert school.rows[-1]["n_settled"] > told  # the rows of before, too
        assert school.rows[-1]["lessons"] == len(school.rows)

    def test_the_new_one_knows_what_the_goal_asks_now(self, schools):
        school = schools()
        school.learn()
        school.agent.heed(Demands(prior_share=0.1, ranked=True, temperature=0.77))
        pid = school.pid
        os.kill(pid, signal.SIGKILL)
        with pytest.warns(UserWarning, match="started again"):
            until(lambda: school.look() or school.agent._mind._process.pid != pid, "the news")
        before = len(school.rows)
        school.learn(2)
        assert {row["goal_temperature"] for row in school.rows[before + 1 :]} == {0.77}

    def test_after_too_many_the_last_version_stays(self, schools):
        school = schools()
        school.learn()
        for death in range(background.RESTARTS + 1):
            pid = school.pid
            os.kill(pid, signal.SIGKILL)
            last = death == background.RESTARTS
            with pytest.warns(UserWarning, match="stays the last one" if last else "again"):
                until(
                    lambda pid=pid: (
                        school.look() or getattr(school.agent._mind._process, "pid", 0) != pid
                    ),
                    "the news",
                )
        assert school.agent._mind._process is None
        for _ in range(3):
            proposals = school.tell(8)
            assert school.look() == []
        assert (proposals.notes["version"] == school.versions[-1].version).all()

    def test_an_error_in_a_lesson_is_an_end(self, schools, capfd):
        """Also one that a broken pipe could have raised."""
        school = schools(learner=Failing())
        school.tell(8)
        with pytest.warns(
            UserWarning, match=r"the learner raised .*a learner's own file.* version 0 stays"
        ):
            until(lambda: school.look() or school.agent._mind._process is None, "the news")
        school.tell(8)
        assert school.look() == []
        assert "a learner's own file" in capfd.readouterr().err
        assert school.agent.ask(2, rng()).notes["version"].tolist() == [0, 0]

    def test_an_interrupt_of_the_terminal_leaves_it_alive(self, schools):
        school = schools()
        school.learn()
        pid = school.pid
        os.kill(pid, signal.SIGINT)
        school.learn(2)
        assert school.pid == pid


class TestEnd:
    def test_close_leaves_nothing_behind(self, schools):
        before = {p.pid for p in psutil.Process().children(recursive=True)}
        school = schools()
        school.learn()
        pid = school.pid
        assert pid in {p.pid for p in psutil.Process().children(recursive=True)}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            school.agent.close()
            school.agent.close()
        assert gone(pid)
        assert {p.pid for p in psutil.Process().children(recursive=True)} <= before
        assert (school.agent.ask(2, rng()).notes["version"] == school.versions[-1].version).all()

    def test_closed_before_it_began_is_no_harm(self, schools):
        school = schools(begin=False)
        school.agent.locate(False)
        assert school.agent.ask(2, rng()).notes["version"].tolist() == [0, 0]
        school.agent.close()

    def test_a_child_of_ours_that_holds_the_pipe_open_keeps_nothing_alive(self, schools):
        school = schools()
        school.learn()
        ready, end = os.pipe()
        child = os.fork()
        if child == 0:  # a worker forked meanwhile: it has all of our files
            os.close(end)
            os.read(ready, 1)
            os._exit(0)
        os.close(ready)
        try:
            process = school.agent._mind._process
            school.agent.close()
            assert process.returncode == 0
        finally:
            os.close(end)
            os.waitpid(child, 0)

    @pytest.mark.parametrize("forks", [False, True])
    def test_when_the_driver_is_killed_it_leaves_by_itself(self, tmp_path, forks):
        """Also where a worker that the driver forked lives on, and holds the pipe open."""
        script = tmp_path / "driver.py"
        script.write_text(textwrap.dedent(DRIVER))
        driver = subprocess.Popen(
            [sys.executable, str(script), str(int(forks))], stdout=subprocess.PIPE, text=True
        )
        pid, worker = map(int, driver.stdout.readline().split())
        try:
            assert not gone(pid)
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            until(lambda: gone(pid), "the end")
            assert not forks or not gone(worker)
        finally:
            driver.stdout.close()
            if worker:
                os.kill(worker, signal.SIGKILL)

    def test_parts_of_a_script_go_along(self, tmp_path):
        """A learner defined in ``__main__``, without a guard, which must not run again."""
        script = tmp_path / "driver.py"
        script.write_text(textwrap.dedent(SCRIPT))
        run = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, timeout=LONG, check=True
        )
        assert run.stdout.split() == ["started", "mine"]


COMMON = """
    import os, sys, time
    import numpy as np
    from ensemblerl.agents.learners.mpo import MPO
    from ensemblerl.agents.maxent import MaxEnt
    from ensemblerl.testing.cubes import real_cube
    from ensemblerl.testing.rehearsal import Rehearsal, play
"""
DRIVER = (
    COMMON
    + """
    agent = MaxEnt(real_cube(2), learning="background")
    agent.begin(in_process=False, last=None)
    agent.published()
    play(agent, Rehearsal(2, 0), np.random.default_rng(0), 16)
    while not agent.published():
        time.sleep(0.01)
    worker = 0
    if sys.argv[1] == "1":
        worker = os.fork()
        if worker == 0:
            os.close(1)
            time.sleep(600)
    print(agent._mind._process.pid, worker, flush=True)
    time.sleep(600)
"""
)
SCRIPT = (
    COMMON
    + """
    print("started", flush=True)

    class Mine(MPO):
        def learn(self, policy, memory, demands, rng):
            policy, metrics = super().learn(policy, memory, demands, rng)
            return policy, {**metrics, "mine": 1.0}

    agent = MaxEnt(real_cube(2), learner=Mine(), learning="background")
    agent.begin(in_process=False, last=None)
    agent.published()
    play(agent, Rehearsal(2, 0), np.random.default_rng(0), 16)
    while not (agent.published() and (rows := agent.telemetry())):
        time.sleep(0.01)
    print("mine" if rows[0]["mine"] == 1.0 else "not mine")
    agent.close()
"""
)


class TestResume:
    def test_the_state_goes_on_in_another_process(self, schools):
        one = schools(learner=Remembering())
        one.learn(3)
        one.agent.close()
        state = one.agent.state_dict()
        last = one.versions[-1]
        two = schools(begin=False, learner=Remembering())
        two.agent.load_state_dict(state)
        two.game = one.game
        two.agent.begin(in_process=False, last=last)
        came = two.look()
        assert [s.version for s in came] == [last.version]  # the same as the one in the store
        np.testing.assert_array_equal(came[0].weights["mean"], last.weights["mean"])
        two.learn(2)
        assert two.versions[1].version == last.version + 1
        assert two.rows[0]["n_settled"] > one.rows[-1]["n_settled"]
        assert two.rows[0]["lessons"] == one.rows[-1]["lessons"] + 1

    def test_another_policy_than_the_one_published_has_a_number_of_its_own(self, schools):
        one = schools()
        one.learn(2)
        two = schools(begin=False)
        two.agent.begin(in_process=False, last=one.versions[-1])
        (fresh,) = two.look()
        assert fresh.version == one.versions[-1].version + 1
        assert (two.agent.ask(3, rng()).notes["version"] == fresh.version).all()
        assert (two.agent.ask(3, rng()).notes["log_prob"] == 0.0).all()

    def test_what_is_told_in_a_replay_is_known_to_the_process(self, schools):
        school = schools(begin=False)
        school.agent.locate(False)
        school.tell(40)
        school.agent.begin(in_process=False, last=None)
        until(lambda: school.look() and school.rows, "a lesson")
        assert school.rows[0]["n_settled"] == 40

    def test_a_campaign_with_other_processes(self, tmp_path):
        space = erl.Space(x=erl.Real(0.0, 1.0), y=erl.Real(0.0, 1.0))
        agents = []

        def make(cube):
            agents.append(MaxEnt(cube, learning_share=1.0))
            return agents[-1]

        def watch(campaign):
            """Somewhere in the middle the simulations wait until something was learnt."""
            if len(campaign.ledger) % 60 >= 30:
                mind = agents[-1]._mind
                until(lambda: mind.version > first or mind._connection.poll(0), "a version")

        for n in (60, 120):
            first = max(versions_in(tmp_path / "s"), default=0) if n > 60 else 0
            prepared = erl.prepare(
                square,
                space,
                erl.Minimize(),
                sampler=make,
                n_members=n,
                seed=1,
                cluster=ThreadPoolExecutor(3),
                watch=watch,
                store=tmp_path / "s",
            )
            prepared.run()
            assert agents[-1]._mind._process is None
        known, launched = [], 0
        for event in read_events(tmp_path / "s"):
            if isinstance(event, Published):
                known.append(event.version)
            if isinstance(event, Launched):
                launched += len(event.members)
                assert set(event.members.notes["version"].tolist()) <= set(known)
        assert known == list(range(len(known)))
        assert len(known) > 2
        assert launched == 120


def square(x, y):
    return x * x + y


def versions_in(path):
    return [event.version for event in read_events(path) if isinstance(event, Published)]


class Clock:
    """Time that passes only where it is made to, for `pupil.time`."""

    def __init__(self):
        self.wall = self.used = 0.0

    def monotonic(self):
        return self.wall

    def process_time(self):
        return self.used

    def work(self, seconds):
        self.wall += seconds
        self.used += seconds


class Pipe:
    """The driver's end on paper: rows at given times, then nothing, and the end."""

    def __init__(self, clock, given, arrivals, end):
        self.clock, self.arrivals, self.end = clock, list(arrivals), end
        self.first, self.sent, self.polls = ("begin", cloudpickle.dumps(given)), [], 0

    def recv(self):
        if self.first:
            first, self.first = self.first, None
            return first
        return self.arrivals.pop(0)[1]

    def poll(self, timeout):
        self.polls += 1
        self.clock.work(1e-5)
        if self.clock.wall > self.end:
            raise EOFError
        waits = self.arrivals[0][0] - self.clock.wall if self.arrivals else np.inf
        self.clock.wall += max(0.0, min(timeout, waits))
        return waits <= timeout

    def send(self, message):
        self.sent.append((self.clock.wall, message))


class Costly(MPO):
    """A lesson takes half a second of the clock."""

    clock = None

    def learn(self, policy, memory, demands, rng):
        type(self).clock.work(0.5)
        return super().learn(policy, memory, demands, rng)


def pupil_at_work(monkeypatch, share, arrivals, end, every=4):
    clock = Clock()
    Costly.clock = clock
    monkeypatch.setattr(pupil, "time", clock)
    policy, learner = MixturePolicy(CUBE), Costly()
    core = Core(policy, learner, Replay(1, 2), every=every, share=0.0)
    core.heed(Demands(prior_share=0.1, ranked=True))
    given = {
        "policy": policy,
        "learner": learner,
        "every": every,
        "name": "agent",
        "lesson_share": 0.0,
        "machine_share": share,
        "state": {"core": core.progress(), "memory": core.memory.state_dict()},
    }
    pipe = Pipe(clock, given, arrivals, end)
    with pytest.raises(pupil.Gone):
        pupil.Pupil(pipe, os.getppid()).run()
    return clock, pipe


def rows_at(times, each=4):
    """Messages with so many rows."""
    game, out = Rehearsal(2, 0), []
    policy = MixturePolicy(CUBE)
    for i, at in enumerate(times):
        unit = policy.sample(each, None, rng(i))
        number = game.launch(Proposals(unit, {"log_prob": np.zeros(each)}), "agent")
        members, reward = game.members(number), unit[:, 0]
        out.append((at, ("tell", members, Results(reward[:, None], np.full(each, "ok"), reward))))
    return out


class TestShare:
    @pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 1.0])
    def test_work_is_that_share_of_the_time(self, monkeypatch, share):
        """Rows come faster than they could be learnt from."""
        end = 100.0
        clock, _ = pupil_at_work(monkeypatch, share, rows_at(np.arange(0.0, end, 0.5)), end)
        lesson = 0.5 / clock.wall
        assert clock.used / clock.wall <= share + 2 * lesson
        assert clock.used / clock.wall >= 0.9 * share - 2 * lesson

    def test_lessons_come_at_once_when_there_is_time(self, monkeypatch):
        times = np.arange(0.0, 100.0, 10.0)
        _, pipe = pupil_at_work(monkeypatch, 0.25, rows_at(times), 120.0)
        sent = np.array([at for at, _ in pipe.sent])
        np.testing.assert_allclose(sent, times + 0.5, atol=0.01)
        assert [len(message[0]) for _, message in pipe.sent] == [1] * 10

    def test_rest_while_nothing_is_due_counts(self, monkeypatch):
        """2 s after a lesson of 0.5 s at a fifth of the machine the next one may begin.

        The first lesson, which loads libraries, is not counted.
        """
        for third, wanted in ((2.0, 4.0), (3.4, 4.0), (3.6, 4.1)):
            _, pipe = pupil_at_work(monkeypatch, 0.2, rows_at([0.0, 1.0, third]), 20.0)
            assert [at for at, _ in pipe.sent] == pytest.approx([0.5, 1.5, wanted], abs=0.05)

    def test_idle_it_hardly_looks(self, monkeypatch):
        clock, pipe = pupil_at_work(monkeypatch, 0.5, rows_at([0.0]), 600.0)
        assert pipe.polls < 2 * 600.0 / pupil.WATCH
        assert clock.used < 0.52

    def test_rows_are_taken_in_while_it_rests(self, monkeypatch):
        _, pipe = pupil_at_work(monkeypatch, 0.1, rows_at([0.0, 1.0, 2.0, 3.0, 4.0]), 60.0)
        assert [m[1][0]["n_settled"] for _, m in pipe.sent] == [4, 8, 20]
        assert pipe.arrivals == []


class TestLags:
    def test_counts_are_from_each_edge_to_below_the_next(self):
        lags = np.array([0, 1, 2, 3, 4, 7, 8, 31, 32, 63, 64, 10_000])
        assert lag_counts(lags) == [1, 1, 2, 2, 1, 1, 2, 2]
        assert len(lag_counts(lags)) == len(LAG_EDGES)
        assert lag_counts(np.array([], dtype=np.int64)) == [0] * 8

    def test_a_draw_from_the_future_has_no_lag(self):
        assert lag_counts(np.array([-3, 0])) == [2, 0, 0, 0, 0, 0, 0, 0]
