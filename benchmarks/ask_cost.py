"""What asking, telling and learning cost, in processor time, as the number of members grows.

The default of `explore`, and the agent with a token policy, both on the mixed problem in eight
dimensions (`ensemblerl.problems.mixed`). They learn in the background, as they do where members
run elsewhere, or inline. A campaign is driven by hand, so nothing but the sampler is between two
readings of the processor's clock. Points are asked for 16 at a time and results told one at a
time. At 100, 1,000, 10,000 and 100,000 members known:

* ask(1), ask(16): processor time of the driver for a point; medians
* tell: of the driver for a member, its launch and its result, with what the goal demands and
  what was learnt taken in; inline the lessons are in it
* sending: what the driver's other threads use for a member, to hand rows to the process that
  learns
* learning: processor time of that process for a member, its start left out, and until it is idle
* all: of all processes, asked for 16 at a time

between this number of members and the one before, and the version of the policy in the end. This
campaign asks for a thousand points a second, so the process that learns, which may use half a
core, gives fewer lessons than inline. Then the dispatch rate: members a second of
`explore` with a store on disk and workers on paper (`ensemblerl.Simulated`), the default learning
in the background against Sobol' points; as results come one by one, and 64 at a time.

Expected: ask(1) at 10,000 members takes 1 ms or less, and at 100,000 less than 1.5 times what it
takes at 100. Each row says what it is of both.

    python benchmarks/ask_cost.py [--sizes 100 1000 10000 100000] [--dispatch 20000]
        [--ways NAME ...] [--json PATH] [--quick]
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded, in all processes alike
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from _report import median_and_spread, save, show

import ensemblerl as erl
from ensemblerl.campaign import Campaign
from ensemblerl.events import Event
from ensemblerl.executors.serial import ByHand
from ensemblerl.problems import mixed
from ensemblerl.records import Cube
from ensemblerl.simulations.function import as_simulation
from ensemblerl.testing.memory import MemoryStore

SEED = 2026
SIZES = (100, 1_000, 10_000, 100_000)
BATCH = 16
WARM = 64
"""Members before the first reading, so that nothing is loaded any more."""
ASKS = 200
"""Readings of ask(1) at each size; of ask(16) a quarter."""
IN_FLIGHT = 64
WANTED_MS, WANTED_RATIO, AT = 1.0, 1.5, 10_000
IDLE, FIRST_IDLE, PATIENCE = 0.5, 3.0, 30.0
"""Seconds without work after which the learning process is idle, and at first, when it rests
from loading torch; the longest wait for it."""
DEFAULT = "default, background"

# Contestants: the cube -> a sampler ---------------------------------------------------------------


def default(cube: Cube, learning: str) -> Any:
    """What `explore` makes of nothing (`ensemblerl.resolve.default_sampler`)."""
    from ensemblerl.agents import MaxEnt
    from ensemblerl.samplers import Portfolio, Sobol

    return Portfolio([MaxEnt(cube, learning=learning), Sobol(cube)], shares=[1, 0], floor=0.05)


def tokens(cube: Cube, learning: str) -> Any:
    from ensemblerl.agents import MaxEnt, TokenPolicy

    return MaxEnt(cube, policy=TokenPolicy, learning=learning)


WAYS: dict[str, Callable[[Cube], Any]] = {
    DEFAULT: lambda cube: default(cube, "background"),
    "default, inline": lambda cube: default(cube, "inline"),
    "tokens, background": lambda cube: tokens(cube, "background"),
    "tokens, inline": lambda cube: tokens(cube, "inline"),
}

# The clock ----------------------------------------------------------------------------------------


class Clocked:
    """A sampler whose calls are timed; ``ask`` and everything else apart.

    Parameters
    ----------
    inner : the sampler, or a part of one
    spent : name -> seconds of this thread's processor time; parts and whole share it
    """

    def __init__(self, inner: Any, spent: dict[str, float]) -> None:
        self._inner, self._spent = inner, spent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in ("ask", "tell", "heed", "published", "telemetry"):
            return found

        def timed(*given: Any, **named: Any) -> Any:
            with clock(self._spent, "ask" if name == "ask" else "tell"):
                return found(*given, **named)

        return timed


@contextmanager
def clock(spent: dict[str, float], name: str) -> Iterator[None]:
    """Add the processor time of this thread to this name."""
    began = time.thread_time()
    yield
    spent[name] = spent.get(name, 0.0) + time.thread_time() - began


def children() -> float:
    """Processor time of the processes that this one started, seconds."""
    import psutil

    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return float(sum(one.user + one.system for one in times))


def children_idle(pause: float = IDLE) -> float:
    """The same, when they have done what they had to do and not moved for so long."""
    import psutil

    ends, now = time.monotonic() + PATIENCE, children()
    while psutil.Process().children() and time.monotonic() < ends:
        time.sleep(pause)
        before, now = now, children()
        if now <= before:
            break
    return now


# Costs --------------------------------------------------------------------------------------------


class Forgetful(MemoryStore):
    """A store that keeps nothing: what is measured is the sampler."""

    def append(self, *events: Event) -> None:
        """Forget them."""

    def keep(self, record: bytes) -> None:
        """Forget it."""

    def log(self, rows: Any, n_events: int) -> None:
        """Forget them."""

    def checkpoint(self, state: Any, n_events: int) -> None:
        """Forget it."""


def by_hand(**point: Any) -> float:
    raise RuntimeError("its results are made up here")


class Driven:
    """A campaign driven by hand, and what its sampler used."""

    def __init__(self, make: Callable[[Cube], Any], n_members: int) -> None:
        space = mixed.space()
        self.spent: dict[str, float] = {"ask": 0.0, "tell": 0.0}
        sampler = make(space.cube)
        if hasattr(sampler, "parts"):
            # hooks such as heed are called on the parts; their asks and tells are timed above
            sampler.parts = tuple(_Hooked(part, self.spent) for part in sampler.parts)
        self.campaign = Campaign(
            as_simulation(by_hand),
            space,
            erl.Minimize(),
            sampler=Clocked(sampler, self.spent),
            executor=ByHand(),
            store=Forgetful(),
            n_members=n_members,
            seed=SEED,
        )

    @property
    def known(self) -> int:
        """Members with a result."""
        return self.campaign.ledger.n_settled

    def step(self, n: int) -> None:
        """Ask for n points, tell the results one by one."""
        members = self.campaign.ask(n)
        results = mixed.simulate_many(members.points)
        for i, result in enumerate(results.tolist()):
            self.campaign.tell(members.take([i]), [result])

    def asks(self, n: int, times: int) -> float:
        """Seconds a point of asking for n at a time, a median; nothing becomes of the points."""
        each = []
        for i in range(times):
            before = self.spent["ask"]
            self.campaign.sampler.ask(n, np.random.default_rng([SEED, i]))
            each.append((self.spent["ask"] - before) / n)
        return statistics.median(each)


class _Hooked(Clocked):
    """A part: only what is not called by the whole is timed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name) if name in ("ask", "tell") else super().__getattr__(name)


def costs(
    make: Callable[[Cube], Any], sizes: list[int], times: int, rest: float
) -> list[dict[str, float]]:
    """Milliseconds at each size; first of all, it rests until nothing has moved for so long."""
    driven = Driven(make, sizes[-1])
    rows = []
    with driven.campaign:
        driven.step(WARM)
        children_idle(rest)
        for size in sizes:
            row = {"members": size, **stretch(driven, size)}
            version = driven.campaign.ledger.published
            row["ask_1"] = driven.asks(1, times)
            row[f"ask_{BATCH}"] = driven.asks(BATCH, max(times // 4, 1))
            in_ms = {k: v if k == "members" else 1e3 * v for k, v in row.items()}
            rows.append({**in_ms, "version": version})
    return rows


def stretch(driven: Driven, size: int) -> dict[str, float]:
    """Go on to this number of members; seconds a member on the way."""
    learnt, spent, n = children_idle(), dict(driven.spent), size - driven.known
    own, whole = time.thread_time(), time.process_time()
    while driven.known < size:
        driven.step(min(BATCH, size - driven.known))
    learning = children_idle() - learnt
    sending = (time.process_time() - whole) - (time.thread_time() - own)
    asking, telling = (driven.spent[name] - spent[name] for name in ("ask", "tell"))
    row = {"tell": telling, "sending": max(sending, 0.0), "learning": learning}
    return {name: value / n for name, value in {**row, "all": asking + sum(row.values())}.items()}


def verdict(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Of a way, from its costs at all sizes."""
    at = next((row["ask_1"] for row in rows if row["members"] == AT), math.nan)
    ratio = rows[-1]["ask_1"] / rows[0]["ask_1"]
    whole = rows[-1]["members"] >= 1000 * rows[0]["members"]
    return {
        "ask_at_10000": at,
        "ratio": ratio,
        "cheap": at <= WANTED_MS if math.isfinite(at) else None,
        "flat": ratio < WANTED_RATIO if whole else None,
    }


# Dispatch -----------------------------------------------------------------------------------------


def noop(**point: Any) -> float:
    return float(point["dropout"])


def lognormal(point: Any, rng: np.random.Generator) -> float:
    return 60.0 * math.exp(0.5 * rng.standard_normal())


DISPATCHED: dict[str, Callable[[Cube], Any]] = {
    "Sobol'": lambda cube: erl.samplers.Sobol(cube),
    DEFAULT: WAYS[DEFAULT],
}
ARRIVALS: dict[str, Any] = {"one by one": lognormal, f"{IN_FLIGHT} at a time": 60.0}


def rate(make: Callable[[Cube], Any], runtime: Any, n: int) -> float:
    """Members a second, all of `explore` but the wait for a process that learns to leave."""
    began = time.perf_counter()
    erl.explore(
        noop,
        mixed.space(),
        erl.Minimize(),
        n_members=n,
        n_pending=IN_FLIGHT,
        bundle=1,
        sampler=make,
        cluster=erl.Simulated(IN_FLIGHT, runtime=runtime, seed=SEED),
        seed=SEED,
        progress=False,
    )
    return n / (time.perf_counter() - began)


def rates(n: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Arrivals -> sampler -> members a second in each round, in turns."""
    out: dict[str, dict[str, list[float]]] = {
        a: {name: [] for name in DISPATCHED} for a in ARRIVALS
    }
    for _ in range(rounds):
        for arrivals, runtime in ARRIVALS.items():
            for name, make in DISPATCHED.items():
                out[arrivals][name].append(rate(make, runtime, n))
    return out


# What is reported ---------------------------------------------------------------------------------


def tell(result: dict[str, Any]) -> None:
    names = ["ask_1", f"ask_{BATCH}", "tell", "sending", "learning", "all"]
    rows = [
        [way, f"{row['members']:,}", *(float(row[k]) for k in names), row["version"]]
        for way, table in result["costs"].items()
        for row in table
    ]
    heading = ["ms a point or member", "members", "ask(1)", f"ask({BATCH})", *names[2:], "version"]
    show("Processor time", heading, rows)
    later = "full run only"
    rows = [
        [way, v["ask_at_10000"], v["ratio"], *(later if v[k] is None else v[k] for k in KINDS)]
        for way, v in result["verdicts"].items()
    ]
    show(
        f"ask(1): <= {WANTED_MS:g} ms at {AT:,} members; last size / first below {WANTED_RATIO:g}",
        ["way", f"ms at {AT:,}", "last / first", "cheap", "flat"],
        rows,
    )
    rows = []
    for arrivals, by_name in result["dispatch"]["rates"].items():
        base = statistics.median(by_name["Sobol'"])
        for name, each in by_name.items():
            middle, spread = median_and_spread(each)
            rows.append([f"{name}, {arrivals}", middle, spread, middle / base])
    members = result["dispatch"]["members"]
    show(
        f"Dispatch, {members:,} members, {IN_FLIGHT} in flight",
        ["sampler, arrivals", "members/s", "± half range", "to Sobol'"],
        rows,
    )


KINDS = ("cheap", "flat")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="hundreds of members, below 20 s")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--asks", type=int, default=ASKS, help="readings at each size")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--dispatch", type=int, default=20_000, help="members, for the rate")
    parser.add_argument("--rounds", type=int, default=3, help="of the dispatch rate")
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.asks, options.dispatch, options.rounds = [80, 160], 20, 100, 1
        options.ways = [DEFAULT, "tokens, inline"]
    sizes = sorted(set(options.sizes))
    if sizes[0] <= WARM or min(options.asks, options.dispatch, options.rounds) < 1:
        parser.error(f"wanted --sizes above {WARM}; --asks, --dispatch and --rounds of 1 or more")
    rest = IDLE if options.quick else FIRST_IDLE
    found = {way: costs(WAYS[way], sizes, options.asks, rest) for way in options.ways}
    result = {
        "sizes": sizes,
        "costs": found,
        "verdicts": {way: verdict(rows) for way, rows in found.items()},
        "dispatch": {
            "members": options.dispatch,
            "rates": rates(options.dispatch, options.rounds),
        },
    }
    tell(result)
    if options.json:
        save(options.json, result, seeds={"campaign": SEED})
    return result


if __name__ == "__main__":
    main()
