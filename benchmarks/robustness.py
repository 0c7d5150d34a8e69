"""What goes wrong in practice: failures, noise, jumps, idle parameters, ties, wide ranges.

Each problem has an optimum that is known, 200 members of which 8 are always pending, results out
of order. A seed is one campaign of each contestant with equal run times, so differences are
paired. Judged is the noise-free value at the member that is reported as the best.

* edge: a fifth of the space fails and holds the naive optimum; the best is at its edge
* basin: the same, but the best is a second basin, far from it
* noise: a tenth of the standard deviation of the values
* jump: a step across two parameters, the optimum beside it
* idle: ten parameters, five of them without effect
* ties: all values are equal
* levels: a choice of 50, only one of them best, and three real parameters that depend on it
* decades: three parameters over twelve decades, values over as many
* wide: 30 parameters, ten of them active, with noise; 1,500 members, 64 pending; against TPE

Contestants: ours (`_peers.OURS`) against Sobol' points, all through `explore`; on "wide" also
against Optuna's TPE with and without the constant liar.

Expected: no campaign ends with an error. The median regret of the default is above the rival's
nowhere by more than two standard errors of the paired difference, in decades; the rival is Sobol',
and the better TPE on "wide". Of the members that finish in the last quarter at most half as many
fail as of those in the first.

    python benchmarks/robustness.py [--problems NAME ...] [--seeds 10] [--contestants NAME ...]
        [--jobs 2] [--cache PATH] [--json PATH] [--quick]

With ``--cache`` each run of TPE is a line of this file, by the version of Optuna; ours always run.
Start a new file after a change of a problem.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded; --jobs is what uses cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from _figures import decades, mean_and_error
from _peers import (
    OURS,
    Problem,
    campaign,
    explored,
    key_of,
    require,
    runs,
    seed_of,
    versions_of_peers,
)
from _report import save, show

import ensemblerl as erl

SEED = 2026
SOBOL = "Sobol'"
TPES = ("TPE", "TPE, no liar")
CONTESTANTS = [*OURS, SOBOL, *TPES]
N_LEVELS = 50
N_ACTIVE, N_WIDE = 10, 30


class Failed(ArithmeticError):
    """The simulation of this point does not come to an end."""


# Problems -----------------------------------------------------------------------------------------


def reals(n: int) -> erl.Space:
    """x0, x1, ... in [0, 1]."""
    return erl.Space({f"x{i}": erl.Real(0.0, 1.0) for i in range(n)})


def vector(point: Mapping[str, Any]) -> Any:
    """(n,) of such a point; by name, since guests have an order of their own."""
    return np.array([point[f"x{i}"] for i in range(len(point))], dtype=np.float64)


def exact(space: erl.Space, value: Callable[[Any], float], least: float = 0.0) -> Problem:
    """A problem without noise."""
    return Problem(space, lambda point, seed: value(point), lambda point: value(point) - least)


def noisy(space: erl.Space, value: Callable[[Any], float], deviation: float) -> Problem:
    """One whose least value is 0, with normal noise, a function of the member's seed."""

    def observe(point: Any, seed: int) -> float:
        return value(point) + deviation * float(np.random.default_rng(seed).standard_normal())

    return Problem(space, observe, value)


FAILING = math.sqrt(0.2)
"""Side of the corner of two parameters that fails: a fifth of the space."""


def fails(x: Any) -> bool:
    return bool(x[0] < FAILING and x[1] < FAILING)


def edge() -> Problem:
    """A bowl around (0.3, 0.36, 0.6, 0.6): the best that does not fail has x1 at the edge."""

    def value(point: Any) -> float:
        x = vector(point)
        if fails(x):
            raise Failed("the corner fails")
        return float(((x - [0.3, 0.36, 0.6, 0.6]) ** 2).sum())

    return exact(reals(4), value, (FAILING - 0.36) ** 2)


def basin() -> Problem:
    """The deepest of two basins is in the corner that fails."""
    shallow = 0.2

    def value(point: Any) -> float:
        x = vector(point)
        if fails(x):
            raise Failed("the corner fails")
        deep = 4.0 * ((x - [0.2, 0.2, 0.4, 0.6]) ** 2).sum()
        other = shallow + 4.0 * ((x - [0.75, 0.7, 0.6, 0.3]) ** 2).sum()
        return float(min(deep, other))

    # of the deep basin nothing below 4 (0.447 - 0.2)^2 = 0.245 is left
    return exact(reals(4), value, shallow)


def bowl(x: Any) -> float:
    """A narrow bent valley on five parameters: 0 at 0.3, 0.7, 0.3, 0.7, 0.3."""
    z = x - np.where(np.arange(len(x)) % 2, 0.7, 0.3)
    bent = z[1:] - z[:-1] ** 2
    return float((z**2).sum() + 4.0 * (bent**2).sum())


BOWL_DEVIATION = 1.885
"""Of `bowl` over the cube of five parameters, from 4e5 points."""


def noise() -> Problem:
    return noisy(reals(5), lambda point: bowl(vector(point)), 0.1 * BOWL_DEVIATION)


def jump() -> Problem:
    """A bowl around 0.6, and one more for all beyond a line that passes it at 0.02."""

    def value(point: Any) -> float:
        x = vector(point)
        beyond = x[0] + x[1] > 1.2 + 0.02 * math.sqrt(2.0)
        return float(((x - 0.6) ** 2).sum()) + (1.0 if beyond else 0.0)

    return exact(reals(4), value)


def idle() -> Problem:
    return exact(reals(10), lambda point: bowl(vector(point)[::2]))


def ties() -> Problem:
    return exact(reals(4), lambda point: 1.0, 1.0)


def levels() -> Problem:
    """Each level has an offset and an optimum of its own; that of level 0 is the least."""
    rng = np.random.default_rng(SEED)
    best = rng.uniform(0.2, 0.8, (N_LEVELS, 3))
    offset = np.concatenate([[0.0], rng.uniform(0.1, 1.0, N_LEVELS - 1)])
    names = [f"level {i:02d}" for i in rng.permutation(N_LEVELS)]
    kind = erl.Choice(*sorted(names))
    space = erl.Space({"kind": kind} | {f"x{i}": erl.Real(0.0, 1.0) for i in range(3)})

    def value(point: Any) -> float:
        i = names.index(point["kind"])
        x = np.array([point[f"x{j}"] for j in range(3)])
        return float(offset[i] + 2.0 * ((x - best[i]) ** 2).sum())

    return exact(space, value)


def over_decades() -> Problem:
    """How far each is from its best, as a factor; the sum of three less 3."""
    best = np.array([3e-4, 2.0, 5e3])
    space = erl.Space({f"x{i}": erl.Real(1e-6, 1e6, log=True) for i in range(3)})

    def value(point: Any) -> float:
        factor = vector(point) / best
        return float(np.maximum(factor, 1.0 / factor).sum() - 3.0)

    return exact(space, value)


def wide() -> Problem:
    """The valley on ten of 30 parameters, scattered among the idle ones."""
    active = np.sort(np.random.default_rng(SEED).permutation(N_WIDE)[:N_ACTIVE])
    return noisy(reals(N_WIDE), lambda point: bowl(vector(point)[active]), 0.1 * WIDE_DEVIATION)


WIDE_DEVIATION = 2.984
"""Of `bowl` over the cube of ten parameters, from 4e5 points."""


class Setting(NamedTuple):
    """A problem, how long its campaigns are, and who is to be caught up with."""

    make: Callable[[], Problem]
    n_members: int = 200
    n_pending: int = 8
    rivals: tuple[str, ...] = (SOBOL,)
    fails: bool = False


PROBLEMS: dict[str, Setting] = {
    "edge": Setting(edge, fails=True),
    "basin": Setting(basin, fails=True),
    "noise": Setting(noise),
    "jump": Setting(jump),
    "idle": Setting(idle),
    "ties": Setting(ties),
    "levels": Setting(levels),
    "decades": Setting(over_decades),
    "wide": Setting(wide, 1500, 64, (SOBOL, *TPES)),
}


QUICK = ("edge", "noise", "ties", "levels", "wide")


class Task(NamedTuple):
    """One campaign."""

    contestant: str
    problem: str
    seed: int
    n_members: int
    n_pending: int

    @property
    def key(self) -> str | None:
        """Under which it is kept."""
        return key_of(f"robustness, {SEED}", self)


def run(task: Task) -> dict[str, Any]:
    """The regret reported, NaN for none; shares of failures by quarter; seconds; the error."""
    problem = PROBLEMS[task.problem].make()
    seed = seed_of(SEED, list(PROBLEMS).index(task.problem), task.seed)
    began = time.perf_counter()
    try:
        if task.contestant == SOBOL:  # as ours: the same front door, and the same best reported
            sampler = erl.samplers.Sobol
            history = explored(sampler, problem, task.n_members, task.n_pending, seed)
        else:
            history = campaign(task.contestant, problem, task.n_members, task.n_pending, seed)
    except Exception as error:  # whatever it is, it is what is looked for here
        return {
            "regret": math.inf,
            "failures": [],
            "seconds": time.perf_counter() - began,
            "error": f"{type(error).__name__}: {error}",
        }
    quarters = np.array_split(np.isnan(history.observed), 4)
    found = history.regret[history.reported] if history.reported >= 0 else math.inf
    return {
        "regret": float(found),
        "failures": [float(quarter.mean()) for quarter in quarters],
        "seconds": time.perf_counter() - began,
        "error": "",
    }


# What is reported ---------------------------------------------------------------------------------


def measured(problems: dict[str, Setting], options: Any) -> dict[str, Any]:
    tasks = [
        Task(contestant, name, seed, setting.n_members, setting.n_pending)
        for seed in range(options.seeds)
        for name, setting in problems.items()
        for contestant in options.contestants
        if contestant in OURS or contestant in setting.rivals
    ]
    done = runs(tasks, run, jobs=options.jobs, cache=options.cache, key=lambda task: task.key)
    told = {}
    for name, setting in problems.items():
        found = {
            contestant: [done[t] for t in tasks if (t.problem, t.contestant) == (name, contestant)]
            for contestant in options.contestants
        }
        told[name] = of_problem({c: runs for c, runs in found.items() if runs}, setting)
    return {"problems": told, "verdicts": verdicts(told, problems), "peers": versions_of_peers()}


def of_problem(found: dict[str, list[dict[str, Any]]], setting: Setting) -> dict[str, Any]:
    """Figures of each, its runs in the order of the seeds, and of ours against the rivals."""
    return {
        "members": setting.n_members,
        "pending": setting.n_pending,
        "contestants": {c: figures_of(runs) for c, runs in found.items()},
        "against": {
            ours: {
                rival: compared(*([one["regret"] for one in found[c]] for c in (ours, rival)))
                for rival in setting.rivals
                if rival in found
            }
            for ours in found
            if ours in OURS
        },
    }


def figures_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    regret = [one["regret"] for one in runs]
    quarters = [one["failures"] for one in runs if one["failures"]]
    return {
        "median": float(np.median(regret)),
        "regret": regret,
        "failures": np.mean(quarters, axis=0).tolist() if quarters else [],
        "errors": [one["error"] for one in runs if one["error"]],
        "seconds": float(np.mean([one["seconds"] for one in runs])),
    }


def compared(regret: list[float], rival: list[float]) -> dict[str, Any]:
    """In decades: the difference of the medians, the mean paired difference, and its error."""
    mine, other = decades(regret), decades(rival)
    mean, error = mean_and_error(mine - other)
    apart = float(np.median(mine) - np.median(other))
    return {"medians": apart, "difference": mean, "error": error, "level": apart <= 2 * error}


def verdicts(told: dict[str, Any], problems: dict[str, Setting]) -> list[dict[str, Any]]:
    """Of each of ours on each problem: whether what is expected was found."""
    rows = []
    for name, setting in problems.items():
        for ours, against in told[name]["against"].items():
            figures = told[name]["contestants"][ours]
            rivals = [r for r in against if r in TPES] or list(against)
            first, *_, last = figures["failures"] or [math.nan, math.nan]
            rows.append(
                {
                    "problem": name,
                    "contestant": ours,
                    "no_error": not figures["errors"],
                    "level": all(against[rival]["level"] for rival in rivals),
                    "halved": bool(last <= first / 2) if setting.fails else None,
                }
            )
    return rows


def tell(result: dict[str, Any]) -> None:
    problems = result["problems"]
    show(
        "Noise-free regret at what is reported as the best, median over seeds",
        ["problem, members", "contestant", "regret", "s a run", "failed, by quarters"],
        [
            [
                f"{name}, {told['members']}",
                contestant,
                figures["median"],
                figures["seconds"],
                " ".join(f"{share:.2f}" for share in figures["failures"]),
            ]
            for name, told in problems.items()
            for contestant, figures in told["contestants"].items()
        ],
    )
    show(
        "Against the rivals, in decades; less is better",
        ["problem", "ours", "rival", "medians", "paired", "± SE", "within 2 SE"],
        [
            [name, ours, rival, *(of[k] for k in ("medians", "difference", "error", "level"))]
            for name, told in problems.items()
            for ours, by_rival in told["against"].items()
            for rival, of in by_rival.items()
        ],
    )
    show(
        "What is expected",
        ["problem", "ours", "no error", "not behind", "failures halved"],
        [
            [
                row["problem"],
                row["contestant"],
                row["no_error"],
                row["level"],
                "" if row["halved"] is None else row["halved"],
            ]
            for row in result["verdicts"]
        ],
    )
    for name, told in problems.items():
        for contestant, figures in told["contestants"].items():
            for error in dict.fromkeys(figures["errors"]):
                print(f"{name}, {contestant}: {error}")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few of everything, below 20 s")
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=10, help="campaigns of each, two or more")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--cache", metavar="PATH", help="a line a run of TPE; none runs twice")
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args(arguments)
    problems = {name: PROBLEMS[name] for name in options.problems}
    if options.quick:
        some = [name for name in QUICK if name in problems] or options.problems[:1]
        problems = {n: problems[n]._replace(n_members=16, n_pending=4) for n in some}
        options.seeds, options.jobs, options.cache = 2, 1, None
    if options.seeds < 2 or options.jobs < 1:
        parser.error("wanted --seeds 2 or more and --jobs 1 or more")
    require(parser, options.contestants)
    result = measured(problems, options)
    tell(result)
    if options.json:
        save(options.json, result, seeds={"root": SEED, "campaigns": options.seeds})
    return result


if __name__ == "__main__":
    main()
