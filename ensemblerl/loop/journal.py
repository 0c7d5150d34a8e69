"""Store, ledger and sampler in step: whatever happens is kept, then applied, then told.

A live campaign and a resumed one go through the same lines, so what a sampler knows after a
resume is what it knew before: the events of the ledger, in their order.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemblerl.events import Event, Launched, Opened, Published, Settled
from ensemblerl.ledger import Ledger
from ensemblerl.loop.hooks import Hooks
from ensemblerl.loop.timings import Timings
from ensemblerl.protocols import Goal, Sampler, Store
from ensemblerl.records import AnyArray, FloatArray, IntArray, Members, Results
from ensemblerl.space import Space

_SAMPLER, _STATE = "sampler", "state"
"""Of a checkpoint: whose it is, and what it says."""


def _no_points(unit: FloatArray) -> dict[str, AnyArray]:
    """Samplers see the cube only, never physical units."""
    return {}


class Journal:
    """What the campaign knows, on disk and in memory.

    Parameters
    ----------
    space, goal, sampler, store : parts of the campaign

    Attributes
    ----------
    ledger : the campaign as columns
    hooks : what a sampler that learns is offered besides
    timings : seconds of the driver by part
    lock : held while the ledger changes; other threads hold it to read
    """

    def __init__(self, space: Space, goal: Goal, sampler: Sampler, store: Store) -> None:
        self.space, self.sampler, self.store = space, sampler, store
        self.ledger = Ledger(space.ndim, goal.k)
        self.timings = Timings()
        self.hooks = Hooks(sampler, goal, store, self.ledger, self.timings)
        self.lock = threading.RLock()
        self._known, self._whole = 0, True

    def replay(self, in_process: bool = False) -> None:
        """Take in what the store holds; the sampler goes on from its newest checkpoint.

        Another sampler than the one of the checkpoint is told everything from the beginning.

        Parameters
        ----------
        in_process : members will run in the driver's own thread, or in virtual time
        """
        self.hooks.locate(in_process)
        restored = self.store.restored()
        if restored and restored[0].get(_SAMPLER) == self._sampler():
            state, self._known = restored
            self.sampler.load_state_dict(state[_STATE])
        for event in self.store.events():
            self._take(event)
            if isinstance(event, Published):
                self.hooks.forget(event.version)  # now: a long history holds many
        self.hooks.forget(self.ledger.published)

    def keep(self, *events: Event) -> None:
        """Store first, then ledger and sampler: what is known is on disk. Then what it learnt."""
        if events:
            self._keep(*events)
            self._publish()

    def _keep(self, *events: Event) -> None:
        with self.timings("store"):
            self.store.append(*events)
        for event in events:
            self._take(event)

    def drain(self, time: float) -> None:
        """Keep what the sampler learnt beside the events; ``time`` is now."""
        self.hooks.collect(time)
        self._publish()

    def _publish(self) -> None:
        """First the file, then the event: no event names a file that is not there."""
        for event in self.hooks.publish():
            self._keep(event)

    def begin(self, in_process: bool, time: float) -> None:
        """A session begins, its `Opened` is kept, and with it what the last driver had learnt but
        not published. The first version is published before anybody is drawn from it.
        """
        self.hooks.begin(in_process)
        self.hooks.collect(time)
        self.hooks.forget(self.ledger.published)
        self._publish()

    def checkpoint(self) -> None:
        """Keep the sampler's state as it is now; not when a tell was cut short: a replay is."""
        if self._whole:
            state = {_SAMPLER: self._sampler(), _STATE: self.sampler.state_dict()}
            self.store.checkpoint(state, self.ledger.n_events)

    def _sampler(self) -> str:
        return json.dumps(self.sampler.describe(), sort_keys=True)

    def members(self, number: Sequence[int] | IntArray) -> Members:
        """The members of these numbers, with their latest attempt."""
        return self.ledger.members(number, self.space.to_points)

    def _take(self, event: Event) -> None:
        with self.timings("ledger"), self.lock:
            self.ledger.apply(event)
        if self.ledger.n_events <= self._known:
            return
        match event:
            case Launched(time=time, members=members):
                pending = Results.pending(len(members), self.ledger.k)
                self._tell(members.number, pending, time)
            case Settled(time=time, outcomes=outcomes):
                number = np.array([o.number for o in outcomes], dtype=np.int64)
                self._tell(number, self.ledger.results(number), time)
            case Opened():
                self.hooks.heed()
            case _:
                pass

    def _tell(self, number: IntArray, results: Results, time: float) -> None:
        with self.timings("tell"):
            self.hooks.heed()
            members = self.ledger.members(number, _no_points)
            whole, self._whole = self._whole, False
            self.sampler.tell(members, results)
            self._whole = whole
            self.hooks.collect(time)

    def why(self, number: int) -> dict[str, Any]:
        """All that is known of one member: point, fate, cause, attempts.

        Raises
        ------
        ValueError
            for a number that was never launched
        """
        ledger = self.ledger
        if not 0 <= number < ledger.n:
            raise ValueError(f"member: wanted a number below {ledger.n}, got {number!r}")
        members = self.members([number])
        return {
            "member": number,
            "point": self.space.point(members.points, 0),
            "fate": str(ledger.fate[number]),
            "cause": ledger.causes.get(number, ""),
            "value": ledger["value"][number].tolist(),
            "reward": float(ledger["reward"][number]),
            "runtime": float(ledger["runtime"][number]),
            "attempt": int(members.attempt[0]),
            "seed": int(members.seed[0]),
            "worker": str(ledger.worker[number]),
            "notes": {name: column[0].tolist() for name, column in members.notes.items()},
            "earlier": [
                {"attempt": o.attempt, "fate": o.fate, "cause": o.cause, "worker": o.worker}
                for o in ledger.attempts.get(number, ())
            ],
        }
