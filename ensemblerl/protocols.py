"""The contracts between the rooms, each with its law in the docstring.

`ensemblerl.testing` holds the laws as functions; a part of your own passes them or says which
it does not claim (``has_density``, ``order_free``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from ensemblerl.events import Event
from ensemblerl.ledger import Ledger
from ensemblerl.records import (
    Answer,
    AnyArray,
    Demands,
    FloatArray,
    Hints,
    Members,
    Program,
    Proposals,
    Results,
    Snapshot,
)

if TYPE_CHECKING:
    import xarray as xr


Metrics = Mapping[str, float]
State = dict[str, Any]
"""A nested dict of arrays, numbers and strings (and lists of numbers or strings)."""


@runtime_checkable
class Sampler(Protocol):
    """Chooses points of the cube.

    Laws (`ensemblerl.testing.check_sampler`): points lie in the open cube, inactive coordinates
    at 0.5, known constraints honoured, ``len <= n``; what is proposed is a function of the rng
    and of the *set* of (member, result) told: telling twice, in another order or in other batches
    changes nothing (``order_free``); a launch is told as pending and the outcome overrides it;
    ``load_state_dict(state_dict())`` goes on exactly; where ``has_density``, ``log_prob`` agrees
    with the draws. One that learns may have any of the methods of `Learning` too.
    """

    name: str
    has_density: bool
    order_free: bool

    def ask(
        self, n: int, rng: np.random.Generator, context: Mapping[str, Any] | None = None
    ) -> Proposals:
        """At most n points; none, with nothing in flight, ends the campaign."""

    def tell(self, members: Members, results: Results) -> Metrics:
        """Add to what is known, keyed by member number; pending members too.

        ``members.points`` is empty: a sampler sees the cube only, ``members.unit``.
        """

    def state_dict(self) -> State:
        """All that ``load_state_dict`` of an equally built sampler needs to go on exactly."""

    def load_state_dict(self, state: State) -> None:
        """Take up a state."""

    def describe(self) -> dict[str, Any]:
        """What it is and its arguments, for the provenance: JSON."""


class Learning(Protocol):
    """What a sampler that learns may have besides, any part of it; the campaign looks for it.

    A method that is not there is looked for in the sampler's ``parts``, down to the leaves: what
    is made of samplers hands nothing on itself, unless it wants to.

    Laws: ``ask`` draws from policies that ``published`` has handed out, and from no others;
    versions grow, and go on from the last one where the policy is not the one published under
    it. Then a member's version has its file and its event before its launch.
    """

    def warm(self, hints: Hints | None) -> None:
        """Before all else: what somebody knew beforehand, the same in every session of a
        campaign; None where nobody did, which undoes what an earlier campaign told.

        Hints say where to begin and nothing more: they are no members, and no density is
        corrected for them, because every draw is noted with the one it had.
        """

    def locate(self, in_process: bool) -> None:
        """Before the replay: where members will run, in case that learning depends on it.

        Parameters
        ----------
        in_process : in the driver's own thread, or in virtual time: learn there too
        """

    def heed(self, demands: Demands) -> None:
        """What the goal asks now: when a session opens and before each ``tell``, in a replay too.

        So it is a function of the events.
        """

    def begin(self, *, in_process: bool, last: Snapshot | None) -> None:
        """A session begins: after the replay, before anything else; a process may be started.

        Parameters
        ----------
        in_process : as for ``locate``
        last : the newest version that was published, None before there is one
        """

    def published(self) -> list[Snapshot]:
        """Versions not handed out yet, the untrained one included; asked after each ``tell`` and
        before each ``ask``. What comes in a replay, or right after ``begin``, and is in the store
        already, is dropped.
        """

    def telemetry(self) -> list[dict[str, Any]]:
        """Rows not handed out yet: name -> number, text, or list of numbers; asked at the same
        moments. A row that a replay gives once more is dropped.
        """

    def close(self) -> None:
        """The session is over, also after an error; ``begin`` may never have been called."""


@runtime_checkable
class Simulation(Protocol):
    """Runs one member. Pure: point and seed determine the result.

    What belongs to a run sits here; a bare function is wrapped by
    `ensemblerl.simulations.function.Function`.
    """

    @property
    def cores(self) -> int:
        """Processor cores that one run uses."""

    @property
    def timeout(self) -> float | None:
        """Seconds that a run may take, None for any number."""

    @property
    def retries(self) -> int:
        """How often a run that failed is run again."""

    @property
    def version(self) -> str | None:
        """Of the code; None where it is not known."""

    @property
    def max_result_bytes(self) -> int:
        """Larger results are invalid."""

    def __call__(
        self, point: Mapping[str, Any], *, seed: int, member: Mapping[str, Any] | None = None
    ) -> Any:
        """A float (becomes ``"value"``), a mapping of arrays, or an `xarray.Dataset`.

        ``member`` holds ``number``, ``attempt``, the lineage and ``state``. A text under the key
        ``"state"`` of a mapping is a reference to what the member leaves for its children.
        """

    def describe(self) -> dict[str, Any]:
        """Name, module, file, arguments, for the provenance: JSON."""


@runtime_checkable
class Detached(Protocol):
    """What a `Simulation` has besides that is a program with its own life.

    A supervisor process runs it, reads its result and writes that into the store. It outlives the
    worker that started it, and the driver: a resumed campaign adopts it, finished or running.
    """

    @property
    def memory(self) -> int | None:
        """Bytes that all processes of one run may hold together, None for any number."""

    @property
    def scratch(self) -> str | None:
        """Directory for the working directories, None for one in the store; ``$NAME`` is taken
        from the worker's environment.
        """

    @property
    def keep(self) -> str:
        """What is left of a working directory: that of ``"failures"``, of ``"all"``, of none
        (``"nothing"``).
        """

    @property
    def checkpoint(self) -> bool:
        """Whether the program writes files from which it can go on: the working directory of an
        attempt that was lost is then handed to the next one.
        """

    def prepare(
        self,
        point: Mapping[str, Any],
        *,
        seed: int,
        member: Mapping[str, Any],
        directory: Path,
    ) -> Program:
        """On the worker: fill the working directory, and say what to start in it.

        It is empty, or with ``checkpoint`` as an earlier attempt left it: inputs are then written
        again, and everything else stays.
        """

    def read(self, directory: Path) -> Any:
        """In the supervisor, after the program ended with exit code 0: its result.

        Standard output and error are the files ``stdout`` and ``stderr`` of the directory.
        """


@runtime_checkable
class Goal(Protocol):
    """The question: a reward, a temperature, and an estimator of the answer.

    Laws (`ensemblerl.testing.check_goal`): ``value`` is pure and gives ``k`` floats; ``rewards``
    is vectorised over rows, NaN exactly where the fate is not ok, the same row by row and in one
    call; describes itself in JSON, equal for equal goals; the object survives pickling.
    """

    k: int

    def reduce(self, result: Any) -> Any:
        """What is kept of a result (on the worker)."""

    def value(self, reduced: Mapping[str, AnyArray]) -> FloatArray:
        """(k,) the numbers the question is about (on the worker)."""

    def rewards(self, values: FloatArray, fates: AnyArray) -> FloatArray:
        """(n, k), (n,) -> (n,) larger is better, NaN where not ok; -inf for an ok member that is
        never the answer.
        """

    def demands(self, ledger: Ledger, n_members: int) -> Demands:
        """What it asks of an agent now."""

    def estimate(self, ledger: Ledger) -> xr.Dataset:
        """The answer with its uncertainty, from the ledger alone."""

    def describe(self) -> dict[str, Any]:
        """What it is and its arguments: JSON; a store refuses another goal by this."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs besides the members.

    Parameters
    ----------
    simulation, goal : the two that run on the worker
    segments : directory of the store's segment files, as seen from the worker
    driver : process id of the driver; a worker in another process ignores SIGINT
    casts : name -> "int" or "bool" for conditional parameters of these kinds, whose columns are
        float64 because inactive rows hold NaN
    """

    simulation: Simulation
    goal: Goal
    segments: str
    driver: int = 0
    casts: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Executor(Protocol):
    """Runs bundles of members somewhere.

    Laws (`ensemblerl.testing.check_executor`): every future submitted is returned by ``wait``
    exactly once, done; futures of one call come in the order of submission; a bundle's future
    gives an `Answer`, or raises when the infrastructure lost it.

    One whose ``wait`` runs members itself, in the driver's thread and in an order that is always
    the same, may say so by an attribute ``inline = True``: learners learn inline there. One whose
    workers come and go may have ``learn(outcomes)``, told how every attempt ended, those of
    earlier sessions first; ``held()``, `ensemblerl.events.Held` of jobs that are over, each once;
    and ``note``, one sentence that says why workers are missing, "" when none is. ``elsewhere =
    True`` says that members which go on without a worker take no place from those it starts.
    ``recall()`` takes back what no worker has begun, when no more is wanted; ``disown()`` comes
    before a ``close`` that is to leave running what runs.
    """

    n_workers: int
    in_process: bool

    def start(self, job: Job) -> None:
        """Get ready to run members of this job."""

    def submit(self, bundle: Members) -> Future[Answer]:
        """Run these members, one after the other, on one worker."""

    def wait(self, timeout: float | None = None) -> Sequence[Future[Answer]]:
        """Block until something is done (or ``wake`` is called, or the time is over)."""

    def wake(self) -> None:
        """Make a running ``wait`` return now; safe in a signal handler."""

    def time(self) -> float:
        """Seconds since the epoch, virtual where time is."""

    def cancel(self, number: int) -> None:
        """Stop this member if that can be done; its future still ends."""

    def close(self) -> None:
        """Release everything that ``start`` took."""

    def describe(self) -> dict[str, Any]:
        """What it is, for the provenance: JSON."""


@runtime_checkable
class Store(Protocol):
    """Keeps a campaign.

    Laws (`ensemblerl.testing.check_store`): an event whose ``append`` returned is among
    ``events`` of whoever opens the store later, in order, whatever was killed when; a torn tail
    is no event; records of results are found again by member number and attempt; so are
    snapshots by version, exactly; telemetry comes back in order, none of it twice.
    """

    segments: str

    def append(self, *events: Event) -> None:
        """Keep these events, in one write; on return they are acknowledged."""

    def events(self) -> Iterator[Event]:
        """Every event kept, in order."""

    def found(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """(`Outcome`, layout) of every result in the segments that came since the last call."""

    def keep(self, record: bytes) -> None:
        """Write a result record that a worker could not write."""

    def running(self) -> set[tuple[int, int]]:
        """(number, attempt) of members that run in processes of their own just now, whoever
        started them: their records will be ``found`` when they are not running any more.
        """

    def end(self, number: int, attempt: int) -> None:
        """Ask for the end of such a process; if it has not begun yet, it shall not begin."""

    def checkpoint(self, state: State, n_events: int) -> None:
        """Keep a sampler's state as it was after so many events."""

    def restored(self) -> tuple[State, int] | None:
        """The newest whole checkpoint, if any."""

    def publish(self, snapshot: Snapshot) -> None:
        """Keep a version of a policy, whole or not at all."""

    def snapshot(self, version: int) -> Snapshot | None:
        """The one published under this version, if any."""

    def log(self, rows: Iterable[Mapping[str, Any]], n_events: int) -> None:
        """Keep telemetry that came when so many events were known, a number that never falls.

        Rows of a replay that an earlier driver kept are left out: those of fewer events than its
        last one, and as many of the same number of events as it kept.
        """

    def logged(self) -> Iterator[dict[str, Any]]:
        """All telemetry, in order, with ``n_events``."""

    def compact(self, ledger: Ledger, *, final: bool = False) -> None:
        """Move complete blocks of settled members into shards; all there is when ``final``."""

    def unfinished(self, ledger: Ledger) -> bool:
        """Whether ``compact(ledger, final=True)`` has anything left to do; cheap."""

    def open(self) -> xr.Dataset:
        """The campaign as it stands, lazily."""

    def close(self) -> None:
        """Flush, release the lock."""
