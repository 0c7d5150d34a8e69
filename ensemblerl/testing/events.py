"""One of every event, with every column and the awkward values that a file must bring back."""

from __future__ import annotations

import numpy as np

from ensemblerl.events import (
    Closed,
    Ended,
    Event,
    Extended,
    Held,
    Launched,
    Opened,
    Published,
    Relaunched,
    SchemaFixed,
    Settled,
)
from ensemblerl.records import AnyArray, Fate, Members, Outcome
from ensemblerl.testing.core import same

NAN, INF = float("nan"), float("inf")
AWKWARD = 'quote " backslash \\ newline \n tab \t nul \0 line \u2028 ünïcode 氷 🧊 half \udc80'
LAYOUT = {
    "variables": {"h": {"dims": ["y"], "dtype": "<f8", "shape": [3], "attrs": {"units": "m"}}},
    "coords": {"y": {"dims": ["y"], "dtype": "<f8", "shape": [3], "attrs": {}, "data": [0, 1, 2]}},
    "attrs": {"title": AWKWARD},
}


def awkward_notes(n: int) -> dict[str, AnyArray]:
    """Name -> (n, ...) notes of every dtype and of odd shapes."""
    rng = np.random.default_rng(7)
    version = np.arange(n) - 1
    return {
        "log_prob": np.where(np.arange(n) % 2, rng.standard_normal(n), np.nan),
        "version": version,
        "proposer": np.array(["sobol", "", "ünï", AWKWARD][:n]),
        "matrix": rng.standard_normal((n, 2, 3)),
        "column": np.full((n, 1), np.inf),
        "nothing": np.empty((n, 0)),
        "flag": version > 0,
        "big": np.full(n, 2**62),
        "whole": np.zeros(n),
    }


def awkward_members(first: int = 0) -> Members:
    """Three members with every column away from its default."""
    n, tiny = 3, float(np.nextafter(0.0, 1.0))
    number = np.arange(first, first + n)
    return Members(
        number=number,
        unit=np.array([[0.1 + 0.2, 0.5], [tiny, 1 - 2**-53], [1 / 3, 2**-40]]),
        points={"x": np.array([1.0, np.nan, 3.0])},
        seed=np.array([1, 12345, 2**31 - 1]),
        notes=awkward_notes(n),
        attempt=np.array([1, 2, 3]),
        group=number + 5,
        cycle=np.array([0, 1, 2]),
        task=np.array([4, 0, 4]),
        fidelity=np.array([0, 0, 9]),
        parent=np.array([-1, 0, 1]),
        state=np.array(["", "runs/état 1.npz", "s3://bucket/a b"]),
    )


def plain_members(first: int, n: int = 2) -> Members:
    """Members with every column at its default."""
    zero = np.zeros(n, dtype=np.int64)
    return Members(
        number=np.arange(first, first + n),
        unit=np.full((n, 2), 0.25),
        points={},
        seed=zero + 1,
        notes={},
        attempt=zero + 1,
        group=zero,
        cycle=zero,
        task=zero,
        fidelity=zero,
        parent=zero - 1,
        state=np.full(n, ""),
    )


def outcomes() -> tuple[Outcome, ...]:
    """Every field away from its default; values that JSON has no word for."""
    return (
        Outcome(
            0,
            1,
            str(Fate.ok),
            "",
            (0.1 + 0.2, -1e-300),
            1.7e9,
            0.25,
            "ñode-1",
            "ab" * 8,
            "st ate",
            -2.5,
        ),
        Outcome(1, 2, str(Fate.failed), AWKWARD, (), 1.7e9 + 1e-6, 1e-7, "node 2"),
        Outcome(2, 3, str(Fate.invalid), "inf", (float("inf"), float("-inf")), 0.0, 0.0, "w"),
    )


def sample_events() -> list[Event]:
    """Every type, in an order that a campaign could have had."""
    ended = (Outcome(1, 1, str(Fate.lost), "worker killed", start=3.5, runtime=1.0, worker="w"),)
    return [
        Opened(1.7e9 + 0.125, "1.2-β", 500, "höst", 4711, True, "Serial"),
        Extended(1.7e9 + 0.5, 600),
        Launched(1.7e9 + 1.1, awkward_members()),
        Ended(1.7e9 + 2.2, ended),
        Relaunched(1.7e9 + 3.3, np.array([1]), np.array([2])),
        SchemaFixed("ab" * 8, LAYOUT),
        Settled(1.7e9 + 4.4, outcomes()),
        Launched(1.7e9 + 5.5, plain_members(3)),
        Published(1.7e9 + 6.6, 17),
        Held(1.7e9 + 7.3, "47[1].ü", "nöde", 3, 12, NAN, NAN, 1.7e9 + 7.1, INF, AWKWARD),
        Held(1.7e9 + 7.4, "48", "", 1, 1, 0.1 + 0.2, 1 / 3, 1.7e9 + 7.2, NAN, "timeout"),
        Closed(1.7e9 + 7.7, "budget ✓"),
    ]


def same_event(one: Event, two: Event) -> bool:
    """Equal but for physical points and segment records, which a ledger does not keep."""
    return same(one, two, skip=("points", "record"))
