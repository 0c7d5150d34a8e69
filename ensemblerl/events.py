"""Whatever happens to a campaign is an event; here are all kinds.

The store appends events to a file, `ensemblerl.ledger.Ledger.apply` turns them into columns; a
resumed campaign is the same events applied again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ensemblerl.records import IntArray, Members, Outcome


@dataclass(frozen=True)
class Opened:
    """A driver began, or went on with, the campaign."""

    time: float
    version: str
    n_members: int
    host: str = ""
    pid: int = 0
    in_process: bool = False
    executor: str = ""
    sampler: str = ""


@dataclass(frozen=True)
class Extended:
    """The session goes on to another total."""

    time: float
    n_members: int


@dataclass(frozen=True)
class Launched:
    """New members are about to be submitted for the first time (written before they are)."""

    time: float
    members: Members


@dataclass(frozen=True)
class Relaunched:
    """Members launched before are about to be submitted again; point and seed are theirs."""

    time: float
    number: IntArray
    attempt: IntArray


@dataclass(frozen=True)
class Ended:
    """Attempts ended without settling their members; they will be run again."""

    time: float
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Settled:
    """Members have their final outcome: from here on acknowledged, never run again."""

    time: float
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class SchemaFixed:
    """The layout of the results: that of the first ok member settled."""

    digest: str
    layout: dict[str, Any]


@dataclass(frozen=True)
class Published:
    """A policy version was published: its file is in the store, members may carry it from now."""

    time: float
    version: int


@dataclass(frozen=True)
class Held:
    """A job of a queue has ended, or the driver leaves it: what it took of the machine.

    Times are seconds since the epoch by the driver's clock. What is told later of the same run of
    a job replaces what was told before (`ensemblerl.report.spending.runs`); a job that its queue
    starts again has another run.

    Parameters
    ----------
    time : of the event
    job : its id in the queue
    node : where it ran, "" where that is not known
    slots : members side by side
    cores : of the whole job
    began : when the queue started it; NaN: not known, or never
    connected : when its first worker came; NaN: never
    ended : when it ended, or was last seen
    walltime : seconds it was allowed; NaN: not known
    cause : of its end, such as "drained", "cancelled", "timeout", "node_fail", "closed"
    """

    time: float
    job: str
    node: str
    slots: int
    cores: int
    began: float
    connected: float
    ended: float
    walltime: float
    cause: str


@dataclass(frozen=True)
class Closed:
    """A driver left in good order, for this reason."""

    time: float
    reason: str


Event = (
    Opened
    | Extended
    | Launched
    | Relaunched
    | Ended
    | Settled
    | SchemaFixed
    | Published
    | Held
    | Closed
)
