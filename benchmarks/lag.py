"""What late results cost a learner: the reward it reaches with 0 to 4,096 results in flight.

One problem with an optimum that is known (`ensemblerl.problems.mixed`: eight parameters of every
kind, two conditional), its loss turned into a reward that is 0 for points of the prior, on
average, and 1 at the optimum. Members run on workers on paper (`ensemblerl.Simulated`): as many
workers as results are in flight, lognormal run times with a mean of one hour. With a lag of 0 a
point is drawn when all results before it are known.

Contestants at fixed temperatures, each with a tenth of its draws from the prior: MPO (mixture
policy); trajectory balance, V-trace, plain policy gradient (token policy); with clipped ratios,
without a clip, and uncorrected. A temperature fixes what there is to reach: the column *target*
is the mean reward of 0.9 pi* + 0.1 p with pi* ∝ p exp(R / alpha). A hot learner looks immune to
lag because there is little to lose; so losses are to be compared along a temperature. Default is
what `explore` takes when it is told nothing, with the annealing of `Maximize`.

Judged is the mean reward of the last quarter of the members to finish, the policy as learnt. The
mean over all members cannot but suffer: the first ``lag`` members are drawn before any result
is known, so about lag / n of what is reached is lost to arithmetic. It is reported beside.

Expected: the default loses 0.05 at most at 1,024 in flight, and 0.10 at 4,096.

    python benchmarks/lag.py [--members 16384] [--others 8192] [--seeds 5] [--jobs 2]
        [--learners NAME ...] [--temperatures T ...] [--lags L ...] [--cache PATH] [--json PATH]
        [--quick]

With ``--cache`` each run is a line of this file, and one that is there is not run again. The key
of a line is all that was given to the run, not the code: start a new file for new code.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded; --jobs is what uses cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _report import save, show

import ensemblerl as erl
from ensemblerl.campaign import Campaign
from ensemblerl.events import Event
from ensemblerl.problems import mixed
from ensemblerl.protocols import Sampler
from ensemblerl.records import Cube, Demands, FloatArray
from ensemblerl.resolve import default_sampler
from ensemblerl.simulations.function import as_simulation
from ensemblerl.testing.memory import MemoryStore

SEED = 2026
N_MEMBERS, N_OTHERS = 16_384, 8_192
LAGS = (0, 256, 1024, 4096)
TEMPERATURES = (0.25, 0.1, 0.05)
ANNEALED = -1.0
"""In place of a temperature: the goal's own."""
PRIOR_SHARE = 0.1
HOUR = 3600.0
SPREAD = 0.5
"""Of the logarithm of a run time."""
HALFWAY, WINDOW = 0.5, 256
"""The reward whose hour is noted, and the members to finish that it is a mean of."""
MEAN_LOSS = 2.3307
"""Of the prior, from 1e6 draws; its standard error is 0.0012."""
N_DRAWS = 1_000_000
ALLOWED = {1024: 0.05, 4096: 0.10}
DEFAULT = "default"

# The problem --------------------------------------------------------------------------------------


def simulate(**point: Any) -> float:
    """1 at the optimum, 0 on average over the prior."""
    return 1.0 - mixed.simulate(**point) / MEAN_LOSS


class Tempered(erl.Maximize):
    """The largest value, for an agent at one temperature: nothing is annealed."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def demands(self, ledger: Any, n_members: int) -> Demands:
        """The same from the first member to the last."""
        return Demands(temperature=self.temperature, prior_share=PRIOR_SHARE, ranked=False)


def goal_of(temperature: float) -> erl.Maximize:
    return erl.Maximize() if temperature == ANNEALED else Tempered(temperature)


def prior_rewards(n: int = N_DRAWS) -> FloatArray:
    """(n,) rewards of draws from the prior; they say whether `MEAN_LOSS` is right."""
    space = mixed.space()
    unit = np.random.default_rng(SEED).random((n, space.ndim))
    points = space.to_points(space.cube.canonical(unit))
    reward = 1.0 - mixed.simulate_many(points) / MEAN_LOSS
    assert abs(reward.mean()) < 5 * reward.std() / math.sqrt(n), reward.mean()
    return np.asarray(reward)


def target(reward: FloatArray, temperature: float) -> float:
    """Mean reward of p exp(R / alpha) with the prior's share, from (n,) rewards of the prior."""
    weight = np.exp((reward - reward.max()) / temperature)
    return float((1 - PRIOR_SHARE) * (weight @ reward) / weight.sum())


def runtime(point: Any, rng: np.random.Generator) -> float:
    """Seconds on paper, one hour on average."""
    return HOUR * math.exp(SPREAD * rng.standard_normal() - SPREAD**2 / 2)


# Contestants: the cube -> a sampler ---------------------------------------------------------------


def mixture(**given: Any) -> Callable[[Cube], Sampler]:
    from ensemblerl.agents import MPO, MaxEnt

    return lambda cube: MaxEnt(cube, learner=MPO(**given))


def tokens(name: str, **given: Any) -> Callable[[Cube], Sampler]:
    from ensemblerl import agents

    learner = getattr(agents, name)(**given)
    return lambda cube: agents.MaxEnt(cube, policy=agents.TokenPolicy(cube), learner=learner)


LEARNERS: dict[str, Callable[[], Callable[[Cube], Sampler]]] = {
    DEFAULT: lambda: default_sampler,
    "MPO": lambda: mixture(),
    "MPO, uncorrected": lambda: mixture(corrected=False),
    "trajectory balance": lambda: tokens("TrajectoryBalance"),
    "V-trace": lambda: tokens("VTrace"),
    "V-trace, no clip": lambda: tokens("VTrace", clip=None),
    "actor-critic, uncorrected": lambda: tokens("VTrace", corrected=False),
    "policy gradient": lambda: tokens("PolicyGradient"),
    "policy gradient, uncorrected": lambda: tokens("PolicyGradient", corrected=False),
}

# One run ------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """One campaign; ``lag`` results are in flight when a point is drawn."""

    learner: str
    temperature: float
    lag: int
    n_members: int
    seed: int

    @property
    def key(self) -> str:
        """All arguments as JSON, the learner's own among them."""
        made = LEARNERS[self.learner]()(mixed.space().cube).describe()
        return json.dumps([*self, made, goal_of(self.temperature).describe()], sort_keys=True)


class Found(NamedTuple):
    """What came of it.

    Parameters
    ----------
    overall, late : mean reward of all members, and of the last quarter of them to finish
    rate : reward an hour, on the clock of the workers
    hours : of the whole campaign, on this clock
    halfway : hours until the mean of so many that finish one after the other is 0.5, NaN for never
    curve : (16,) mean reward of each sixteenth of the members, as they finish
    version : of the policy, in the end
    seconds : it took, truly
    """

    overall: float
    late: float
    rate: float
    hours: float
    halfway: float
    curve: list[float]
    version: int
    seconds: float


class Forgetful(MemoryStore):
    """A store that keeps nothing: no run here is resumed."""

    def append(self, *events: Event) -> None:
        """Forget them."""

    def keep(self, record: bytes) -> None:
        """Forget it."""

    def log(self, rows: Any, n_events: int) -> None:
        """Forget them."""

    def checkpoint(self, state: Any, n_events: int) -> None:
        """Forget it."""


def run(task: Task) -> Found:
    space, workers = mixed.space(), max(1, task.lag)
    began = time.perf_counter()
    campaign = Campaign(
        as_simulation(simulate),
        space,
        goal_of(task.temperature),
        sampler=LEARNERS[task.learner]()(space.cube),
        executor=erl.Simulated(workers, runtime=runtime, seed=task.seed),
        store=Forgetful(),
        n_members=task.n_members,
        n_pending=workers,
        bundle=1,
        seed=task.seed,
    )
    campaign.run()
    ledger = campaign.ledger
    order = np.argsort(ledger["end"], kind="stable")
    version = int(ledger["version"].max())
    return found(
        ledger["reward"][order],
        ledger["end"][order] / HOUR,
        version,
        time.perf_counter() - began,
    )


def found(reward: FloatArray, hour: FloatArray, version: int, seconds: float) -> Found:
    """Of (n,) rewards and when they came, in this order."""
    n, hours = len(reward), float(hour[-1])
    assert np.isfinite(reward).all()
    return Found(
        overall=float(reward.mean()),
        late=float(reward[-(n // 4) :].mean()),
        rate=float(reward.sum()) / hours,
        hours=hours,
        halfway=halfway(reward, hour),
        curve=[float(part.mean()) for part in np.array_split(reward, 16)],
        version=version,
        seconds=seconds,
    )


def halfway(reward: FloatArray, hour: FloatArray) -> float:
    """The hour at which the moving mean reaches one half, NaN when it does not."""
    width = min(WINDOW, len(reward) // 8)
    total = np.cumsum(np.concatenate([[0.0], reward]))
    there = np.flatnonzero((total[width:] - total[:-width]) / width >= HALFWAY)
    return float(hour[there[0] + width - 1]) if len(there) else math.nan


# Many runs ----------------------------------------------------------------------------------------


def runs(tasks: list[Task], jobs: int, cache: Path | None) -> dict[Task, Found]:
    """What came of each; those in the cache are not run again."""
    known = dict(kept(cache)) if cache else {}
    done = {task: known[task.key] for task in tasks if task.key in known}
    for task, result in finished([task for task in tasks if task not in done], jobs):
        done[task] = result
        if cache:
            with cache.open("a") as file:
                file.write(json.dumps({"key": task.key, "found": result._asdict()}) + "\n")
            print(f"{len(done)} of {len(tasks)}: {tuple(task)} {result.late:.3f}", flush=True)
    return done


def finished(tasks: list[Task], jobs: int) -> Iterator[tuple[Task, Found]]:
    """Each with what came of it, as they finish."""
    if jobs == 1:
        yield from ((task, run(task)) for task in tasks)
        return
    # a forked child would inherit the threads of the libraries loaded here in whatever state
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting: dict[Future[Found], Task] = {pool.submit(run, task): task for task in tasks}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def kept(cache: Path) -> Iterator[tuple[str, Found]]:
    """Key and what came of it, of the whole lines: a last one may be cut off."""
    for line in cache.read_text().splitlines() if cache.exists() else ():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        yield one["key"], Found(**one["found"])


# What is reported ---------------------------------------------------------------------------------


def mean_and_error(values: Any) -> tuple[float, float]:
    """The mean, and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def at_lag(group: list[Found], fresh: list[Found], lag: int, n: int) -> dict[str, Any]:
    """A learner at a lag, and at none; both in the order of their seeds."""
    late = [one.late for one in group]
    halves = [one.halfway if math.isfinite(one.halfway) else math.inf for one in group]
    return {
        "late": mean_and_error(late),
        "overall": mean_and_error([one.overall for one in group]),
        "rate": mean_and_error([one.rate for one in group]),
        "halfway": float(np.median(halves)),
        "loss": mean_and_error([b.late - a.late for a, b in zip(group, fresh, strict=True)]),
        "overall_loss": mean_and_error(
            [b.overall - a.overall for a, b in zip(group, fresh, strict=True)]
        ),
        "floor": lag / n * float(np.mean([one.late for one in fresh])),
        "curve": np.mean([one.curve for one in group], axis=0).tolist(),
        "seconds": float(np.mean([one.seconds for one in group])),
        "each": late,
    }


def measured(
    grid: list[tuple[str, float, int]], lags: list[int], seeds: list[int], options: Any
) -> dict[str, Any]:
    """Of every learner at a temperature, with a number of members."""
    # by seeds: when it is cut off, there is a whole table of fewer seeds
    tasks = [Task(name, T, lag, n, s) for s in seeds for name, T, n in grid for lag in lags]
    done = runs(tasks, options.jobs, Path(options.cache) if options.cache else None)
    reward = prior_rewards(N_DRAWS // 10 if options.quick else N_DRAWS)
    table = []
    for name, T, n in grid:
        by_lag = {lag: [done[Task(name, T, lag, n, s)] for s in seeds] for lag in lags}
        table.append(
            {
                "learner": name,
                "temperature": None if T == ANNEALED else T,
                "members": n,
                "target": None if T == ANNEALED else target(reward, T),
                "lags": {lag: at_lag(by_lag[lag], by_lag[0], lag, n) for lag in lags},
            }
        )
    return {"lags": lags, "table": table, "mean_loss": MEAN_LOSS, "verdicts": verdicts(table)}


def verdicts(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the default, where something is asked of it."""
    rows = [row for row in table if row["learner"] == DEFAULT]
    return [
        {"lag": lag, "loss": at["loss"], "allowed": ALLOWED[lag], "reached": at["loss"][0] <= most}
        for row in rows
        for lag, at in row["lags"].items()
        if (most := ALLOWED.get(lag)) is not None
    ]


def pair(value: tuple[float, float]) -> str:
    return f"{value[0]:.3f} ± {value[1]:.3f}"


def tell(result: dict[str, Any]) -> None:
    lags, table = result["lags"], result["table"]

    def rows(cell: Callable[[dict[str, Any]], Any], some: list[int]) -> list[list[Any]]:
        return [
            [
                row["learner"],
                "annealed" if row["temperature"] is None else f"{row['temperature']:g}",
                "" if row["target"] is None else f"{row['target']:.3f}",
                *(cell(row["lags"][lag]) for lag in some),
            ]
            for row in table
        ]

    first, late = ["learner", "alpha", "target"], [lag for lag in lags if lag]
    members = " and ".join(f"{n:,}" for n in sorted({row["members"] for row in table}))
    show(
        f"Mean reward of the last quarter of {members} members, by results in flight",
        [*first, *(f"{lag:,}" for lag in lags)],
        rows(lambda at: pair(at["late"]), lags),
    )
    show(
        "What is lost of it, against none in flight",
        [*first, *(f"{lag:,}" for lag in late)],
        rows(lambda at: pair(at["loss"]), late),
    )
    show(
        "Lost of the mean over all members (in brackets: what arithmetic takes)",
        [*first, *(f"{lag:,}" for lag in late)],
        rows(lambda at: f"{pair(at['overall_loss'])} ({at['floor']:.3f})", late),
    )
    show(
        "Reward an hour of the workers' clock; in brackets: hours to a moving mean of 0.5",
        [*first, *(f"{lag:,}" for lag in lags)],
        rows(lambda at: f"{at['rate'][0]:.3g} ({at['halfway']:.3g})", lags),
    )
    show(
        f"The {DEFAULT}",
        ["in flight", "lost", "at most", "reached"],
        [[f"{v['lag']:,}", pair(v["loss"]), v["allowed"], v["reached"]] for v in result["verdicts"]]
        or [["", "", "", "full run only"]],
    )


def gridded(options: Any) -> list[tuple[str, float, int]]:
    """(learner, temperature, members), the default at its own temperature."""
    return [
        (name, T, options.members if name == DEFAULT else options.others)
        for name in options.learners
        for T in ([ANNEALED] if name == DEFAULT else options.temperatures)
    ]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few of everything, below 20 s")
    parser.add_argument("--members", type=int, default=N_MEMBERS, help="of the default")
    parser.add_argument("--others", type=int, default=N_OTHERS, help="members of the others")
    parser.add_argument("--seeds", type=int, default=5, help="campaigns of each, two or more")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--learners", nargs="+", choices=list(LEARNERS), default=list(LEARNERS))
    parser.add_argument("--temperatures", nargs="+", type=float, default=list(TEMPERATURES))
    parser.add_argument("--lags", nargs="+", type=int, default=list(LAGS), help="0 among them")
    parser.add_argument("--cache", metavar="PATH", help="a line a run; none is run twice")
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args(arguments)
    if options.quick:
        options.members, options.others, options.seeds = 96, 96, 2
        options.learners, options.temperatures = [DEFAULT, "trajectory balance"], [0.1]
        options.lags, options.jobs = [0, 16], 1
    least = max(options.lags, default=0)
    if options.seeds < 2 or options.jobs < 1 or 0 not in options.lags:
        parser.error("wanted --seeds 2 or more, --jobs 1 or more, and 0 among --lags")
    if min(options.members, options.others) <= least:
        parser.error(f"wanted more members than --lags, which go up to {least}")
    seeds = [SEED + i for i in range(options.seeds)]
    result = measured(gridded(options), sorted(set(options.lags)), seeds, options)
    tell(result)
    if options.json:
        save(options.json, result, seeds={"campaigns": seeds})
    return result


if __name__ == "__main__":
    main()
