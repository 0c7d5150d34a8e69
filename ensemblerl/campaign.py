"""The loop, and nothing else: knows no Dask, no torch, no concrete part.

Ask, launch, wait, settle; every arrival is settled and told at once, the next point asked at
once, with no barrier.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Self

import numpy as np

from ensemblerl.events import Closed, Extended, Launched, Relaunched
from ensemblerl.executors.base import Unavailable, attempts
from ensemblerl.loop.arrivals import LOOK, Arrivals
from ensemblerl.loop.beside import Beside
from ensemblerl.loop.bundling import Bundling
from ensemblerl.loop.figures import campaign_html
from ensemblerl.loop.interrupts import Interrupts, Terminated
from ensemblerl.loop.journal import Journal
from ensemblerl.loop.numbering import number
from ensemblerl.loop.opening import opened
from ensemblerl.loop.reruns import Reruns
from ensemblerl.loop.stopping import (
    CampaignFailed,
    FailureLimit,
    LossLimit,
    Stop,
    StopRule,
    all_failed,
    last_causes,
)
from ensemblerl.protocols import Detached, Executor, Goal, Job, Sampler, Simulation, Store
from ensemblerl.records import Answer, Members, Outcome
from ensemblerl.space import Space
from ensemblerl.worker import deliver

COMPACT_EVERY, CHECKPOINT_EVERY = 2.0, 60.0


class Campaign:
    """A campaign: ``run()`` it, or go through its ``turns()``, or ``ask`` and ``tell`` by hand.

    Parameters
    ----------
    simulation, space, goal : what is run, where, and the question
    sampler : chooses points
    executor : runs them
    store : keeps events and results
    n_members : total number of members, those of earlier sessions included
    seed : of the campaign; members' seeds and every random choice follow from it
    n_pending : members in flight at most; the workers plus a tenth when None
    stop : see `ensemblerl.loop.stopping.Stop`
    max_failures : see `ensemblerl.loop.stopping.FailureLimit`
    bundle : members to a task, "auto" by their run time
    watch : called with the campaign after each turn (progress)

    Attributes
    ----------
    ledger : the campaign as columns
    reason : why it asks for no more; "" while it does
    timings : seconds of the driver by part
    """

    def __init__(
        self,
        simulation: Simulation,
        space: Space,
        goal: Goal,
        *,
        sampler: Sampler,
        executor: Executor,
        store: Store,
        n_members: int,
        seed: int,
        n_pending: int | None = None,
        stop: StopRule | Sequence[StopRule] | None = None,
        max_failures: float | None = None,
        bundle: int | str = "auto",
        watch: Callable[[Campaign], None] | None = None,
    ) -> None:
        self.simulation, self.space, self.goal = simulation, space, goal
        self.sampler, self.executor, self.store = sampler, executor, store
        self.n_members, self.seed, self.reason, self.began = n_members, seed, "", 0.0
        self.journal = Journal(space, goal, sampler, store)
        self.ledger, self.timings = self.journal.ledger, self.journal.timings
        self._n_pending, self._watch = n_pending, watch
        self._stop, self._limit = Stop(stop), FailureLimit(max_failures)
        self._bundling = Bundling(bundle)
        self._arrivals = Arrivals(self.journal, goal, simulation.retries)
        self._flying: dict[Future[Answer], Members] = {}
        self._in_flight, self._losses = 0, LossLimit()
        self._again = Reruns(self._arrivals.suspect, executor.in_process)
        self._beside = Beside(executor)
        self._inline = bool(getattr(executor, "inline", False))
        self._detached = isinstance(simulation, Detached)
        self._halted = self._open = self._closed = self._disowned = False
        self._compacted = self._saved = time.monotonic()

    @property
    def n_pending(self) -> int:
        """Members in flight at most: the workers plus a tenth, or one where it runs right here."""
        if self._n_pending is not None:
            return self._n_pending
        workers = self.executor.n_workers
        alone = workers == 1 and self.executor.in_process
        return 1 if alone else -(-11 * workers // 10)

    @property
    def job(self) -> Job:
        """What a worker needs besides the members."""
        casts = self.space.casts
        return Job(self.simulation, self.goal, self.store.segments, os.getpid(), casts)

    @property
    def in_flight(self) -> int:
        """Members on their way now."""
        return self._in_flight + len(self._arrivals.apart)

    @property
    def elapsed(self) -> float:
        """Seconds since this session began, in the executor's time."""
        return self.executor.time() - self.began

    def stop(self, reason: str = "stopped") -> None:
        """Ask no more; members on their way still finish. Safe from any thread or signal."""
        first = not self._halted
        self.reason, self._halted = self.reason or reason, True
        if first:  # a wait that is woken again and again would give nothing back
            self.executor.wake()

    def run(self) -> str:
        """Go on until all members are settled or a rule stops it; gives the reason.

        Raises
        ------
        CampaignFailed
            when ``max_failures`` is exceeded; everything is kept
        KeyboardInterrupt
            at the second Ctrl-C; everything that arrived is kept
        """
        try:
            with Interrupts(self.stop):
                self.open()
                for _ in self.turns():
                    pass
        except (OSError, Terminated, Unavailable):  # no fault of what runs: it goes on
            self._disowned = True
            raise
        finally:
            self.close()
        if failure := self._limit.exceeded():
            causes = last_causes(self.ledger)
            raise CampaignFailed(f"{failure} (max_failures); the last causes:\n{causes}")
        if warning := all_failed(self.ledger):
            warnings.warn(warning, stacklevel=3)
        return self.reason

    def __repr__(self) -> str:
        state = self.reason or ("running" if self._open else "not begun")
        done = f"{self.ledger.n_settled} of {self.n_members} members"
        return f"<Campaign: {self.goal!r}, {done}, {state}>"

    def _repr_html_(self) -> str:
        return campaign_html(self)

    def load(self) -> None:
        """Take up what the store holds; ``open`` does it when it was not done before."""
        if not self.ledger.n_events:
            self.journal.replay(self._inline)

    def open(self) -> None:
        """Begin a session: start the executor, adopt what workers finished, queue what was left.

        Does nothing when all members are settled, but for a last compaction that was cut off.
        """
        self.load()
        if self.ledger.n_settled >= self.n_members:
            self._open = self.store.unfinished(self.ledger)
            return
        self.executor.start(self.job)
        self.began, self._open = self.executor.time(), True
        crashed = any(s.in_process for s in self.ledger.sessions[-1:]) and not self.ledger.reason
        self.journal.keep(opened(self.executor, self.simulation, self.sampler, self.n_members))
        self.journal.begin(self._inline, self.began)
        self._beside.begin(self.ledger)
        self._settle(self._arrivals.adopted())
        left, waiting = self._arrivals.abandoned(crashed and not self._detached)
        self._again.add(waiting)
        self._settle(left)

    def close(self) -> None:
        """Save everything and release executor and store; again does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self._end_what_runs()
            self.executor.close()
            if self._open:
                self._leave()
        finally:
            try:
                self.journal.hooks.close()
            finally:
                self.store.close()

    def _end_what_runs(self) -> None:
        """Whoever closes a campaign early wants nothing of it to go on: programs neither."""
        if self._disowned:
            self._beside.disown()
        elif self._detached:
            for pair in [*self._arrivals.apart, *attempts(self._flying.values())]:
                self.store.end(*pair)

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:  # nobody calls __exit__ then
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _leave(self) -> None:
        done = self.ledger.n_settled >= self.n_members
        self.reason = self.reason or ("all members settled" if done else "left")
        self.journal.drain(self.executor.time())
        self._beside.tend(self.journal)
        self.journal.keep(Closed(self.executor.time(), self.reason))
        self.journal.checkpoint()
        with self.timings("compact"):
            self.store.compact(self.ledger, final=True)
        if self._watch:
            self._watch(self)

    # ---- the loop

    def turns(self) -> Iterator[list[int]]:
        """Go on until done; yields the numbers settled at each turn."""
        while self._fill() or self.in_flight:
            with self.timings("wait"):
                done = self.executor.wait(1.0)
                if self._arrivals.apart and not self._in_flight:
                    time.sleep(LOOK)
            settled = self._arrive(done)
            self._look()
            yield settled

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Run, and give each member as it is settled (see `Journal.why`)."""
        import asyncio

        with self:
            turns, turn = self.turns(), None
            try:
                while True:
                    turn = asyncio.ensure_future(asyncio.to_thread(next, turns, None))
                    settled = await asyncio.shield(turn)
                    if settled is None:
                        return
                    for i in settled:
                        yield self.journal.why(i)
            finally:
                # a thread cannot be cancelled: nothing is closed under its hands
                if turn is not None and not turn.done():
                    self.executor.wake()
                    await asyncio.wait([turn])

    def _fill(self) -> bool:
        """Launch what there is room for; True while there may be more to come."""
        if self.n_members != self.ledger.n_members:
            self.journal.keep(Extended(self.executor.time(), self.n_members))
        self._rerun()
        if self.reason or self.ledger.n >= self.n_members:
            return bool(self._again) and not self._halted
        if self._again.alone(self.in_flight):
            return True
        workers = self.executor.n_workers
        taken = self._beside.taken(self._in_flight, self.in_flight)
        room = self._bundling.room(self.n_pending, workers, taken)
        members = self.ask(room) if room else None
        if members is not None:
            for bundle in members.split(self._bundling.size(self.n_pending, workers)):
                self._submit(bundle)
            if not self.in_flight:
                self.reason = "the sampler has no more points"
                return False
        return True

    def _rerun(self) -> None:
        """Launch again what was lost, stopped or is retried."""
        while self._again and not self._halted and self.in_flight < max(1, self.n_pending):
            if (i := self._again.next(self.in_flight)) is None:
                return
            self._relaunch(i)

    def ask(self, n: int) -> Members:
        """Up to n new members, entered in the ledger and told to the sampler as pending; no more
        than ``n_members`` in all.
        """
        n = min(n, self.n_members - self.ledger.n)
        rng = np.random.default_rng([self.seed, self.ledger.n])
        self.journal.drain(self.executor.time())
        with self.timings("ask"):
            proposals = self.sampler.ask(n, rng).noted(self.sampler.name)
            members = number(proposals, self.space, self.ledger, self.seed)
        self.journal.drain(self.executor.time())  # what it learnt in ask: before its members
        if len(members):
            self.journal.keep(Launched(self.executor.time(), members))
        return members

    def waiting(self) -> Members:
        """Members launched and not settled: those to run when the loop is driven by hand."""
        pending = np.flatnonzero(~self.ledger.settled)
        attempt = self.ledger["attempt"][pending]
        pairs = zip(pending.tolist(), attempt.tolist(), strict=True)
        again = np.array([self.ledger.ended(i, k) for i, k in pairs], dtype=np.bool_)
        if again.any():
            when = self.executor.time()
            self.journal.keep(Relaunched(when, pending[again], attempt[again] + 1))
        return self.journal.members(pending)

    def tell(self, members: Members, results: Sequence[Any]) -> list[str]:
        """Settle members that were run by hand; gives their fates. Those settled before stay
        what they are.

        Parameters
        ----------
        members : (n,) from ``ask``
        results : (n,) what the simulation returned, or the exception that it raised

        Raises
        ------
        ValueError
            for another number of results
        """
        if len(results) != len(members):
            raise ValueError(f"results: wanted {len(members)}, got {len(results)}")
        open_ones = [row for row, i in enumerate(members.number) if self.ledger.pending(int(i))]
        told = [results[row] for row in open_ones]
        self._settle(self._arrivals.read(deliver(self.job, members.take(open_ones), told)))
        return [str(fate) for fate in self.ledger.fates(members.number)]

    def _submit(self, bundle: Members) -> None:
        with self.timings("submit"):
            future = self.executor.submit(bundle.luggage())
        self._flying[future] = bundle
        self._in_flight += len(bundle)

    def _relaunch(self, i: int) -> None:
        """Run a member again, alone: it may be the one that ended its worker."""
        if self.ledger.pending(i):
            attempt = self.ledger["attempt"][[i]] + 1
            self.journal.keep(Relaunched(self.executor.time(), np.array([i]), attempt))
            self._submit(self.journal.members([i]))

    def _arrive(self, futures: Iterable[Future[Answer]]) -> list[int]:
        outcomes: list[Outcome] = []
        with self.timings("receive"):
            for future in futures:
                bundle = self._flying.pop(future)
                self._in_flight -= len(bundle)
                self._again.landed(int(bundle.number[0]))
                outcomes += self._arrivals.outcomes(future, bundle)
            outcomes += self._arrivals.ended_apart()
        return self._settle(outcomes)

    def _settle(self, outcomes: list[Outcome]) -> list[int]:
        """Decide, keep, tell; gives the numbers that are settled now."""
        verdict = self._arrivals.settle(outcomes, self.executor.time())
        self._again.add(verdict.again)
        self._bundling.learn(outcomes)
        self._beside.learn(outcomes)
        self._limit.count(self.ledger.fates(verdict.settled))
        self._losses.count(outcomes, len(verdict.settled), self.n_pending)
        return verdict.settled

    def _look(self) -> None:
        """Stop rules, failures, progress and housekeeping; once a turn."""
        if failed := self._limit.exceeded():
            self.reason, self._halted = self.reason or failed, True
        self.reason = self.reason or self._stop(self.ledger, self.elapsed)
        if self._watch:
            self._watch(self)
        self._beside.tend(self.journal, self._halted)
        if time.monotonic() - self._compacted > COMPACT_EVERY:
            with self.timings("compact"):
                self.store.compact(self.ledger)
            self._compacted = time.monotonic()
        if time.monotonic() - self._saved > CHECKPOINT_EVERY:
            self.journal.checkpoint()
            self._saved = time.monotonic()
