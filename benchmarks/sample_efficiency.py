"""How much a campaign finds with few members, on functions whose optimum is known.

The functions are those of BBOB (`ioh`; Hansen et al. 2009, INRIA RR-6829), minimised in
[-5, 5]^d with results out of order: as many members as are pending are always in flight, their
run times are lognormal. An instance of a function is one campaign of each contestant, with the
same seed and the same run times.

Contestants: ours (`_peers.OURS`: what `explore` takes when it is told nothing, and the agent with
every point drawn from its policy); random points, scrambled Sobol' points, cma, Optuna's TPE with
and without the constant liar; with ``--cache``, on the named subset alone, Optuna's GPSampler.

Figures, of the least regret so far by the number of evaluations that have *arrived*:

* area: under the anytime ECDF, 51 targets from 1e2 to 1e-8, evaluations / d on a log scale
* score: mean over functions of the median over instances of log10 of the final regret, floored
  at 1e-8
* ratio: of the median final regret to that of random points, geometric mean over functions
  without f1, which some can solve exactly
* score and ratio once more without f1 and f10: a quadratic model flatters itself on these

Ours are compared with each peer by a paired bootstrap over instances: the differences of scores
(less is better) and of areas (more is better), with 95 % intervals.

Expected of the default, on the named subset (the default arguments): score 0.0 at most, ratio
0.09 at most, ahead of every peer also without f1 and f10; with ``--budgets 400 --pending 8 64``,
64 pending cost 0.25 decades at most against 8.

    python benchmarks/sample_efficiency.py [--functions F ...] [--dimensions D ...]
        [--budgets N | Nd ...] [--pending P ...] [--instances 15] [--contestants NAME ...]
        [--full] [--jobs 2] [--cache PATH] [--json PATH] [--quick]

A budget of "40d" is 40 evaluations a dimension. With ``--cache`` each run of a peer is a line of
this file, by its settings and the versions of the packages, and is not run again; ours always
run. ``--full``: all 24 functions, d = 2, 5, 10, 20, 40d and 100d, 8, 64 and 256 pending.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded; --jobs is what uses cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import time
from typing import Any, NamedTuple

import numpy as np
from _figures import (
    Floats,
    decades,
    difference,
    difference_of_means,
    ecdf_area,
    improvements,
    least_after,
    ratio,
    score,
)
from _peers import (
    OURS,
    PEERS,
    SLOW,
    Problem,
    campaign,
    key_of,
    require,
    runs,
    seed_of,
    versions_of_peers,
)
from _report import save, show

import ensemblerl as erl

SEED = 2026
SUBSET = (1, 3, 8, 10, 13, 15, 20, 21)
LEFT_OUT = (1, 10)
"""In the second pair of figures: what a quadratic model is the truth of, or nearly."""
WANTED_SCORE, WANTED_RATIO, WANTED_COST = 0.0, 0.09, 0.25
N_MOMENTS = 8
"""Of the score along the way."""


class Cell(NamedTuple):
    """What is compared in one table."""

    d: int
    budget: int
    pending: int

    def __str__(self) -> str:
        return f"d = {self.d}, {self.budget} evaluations, {self.pending} pending"


NAMED = Cell(5, 200, 8)


class Task(NamedTuple):
    """One campaign."""

    contestant: str
    function: int
    instance: int
    cell: Cell

    @property
    def key(self) -> str | None:
        """Under which it is kept."""
        return key_of(f"sample_efficiency, {SEED}", self, ["ioh"])


def problem_of(function: int, instance: int, d: int) -> Problem:
    import ioh

    bbob = ioh.get_problem(function, instance, d, ioh.ProblemClass.BBOB)
    space = erl.Space({f"x{i}": erl.Real(-5.0, 5.0) for i in range(d)})

    def value(point: Any) -> float:
        return float(bbob([point[f"x{i}"] for i in range(d)]))

    return Problem(
        space,
        lambda point, seed: value(point),
        lambda point: value(point) - float(bbob.optimum.y),
    )


def run(task: Task) -> dict[str, Any]:
    """Steps of the least regret so far, and the seconds that the campaign took, truly."""
    d, budget, pending = task.cell
    problem = problem_of(task.function, task.instance, d)
    seed = seed_of(SEED, task.function, task.instance, d)
    began = time.perf_counter()
    history = campaign(task.contestant, problem, budget, pending, seed)
    seconds = time.perf_counter() - began
    return {"steps": improvements(history.regret), "seconds": seconds}


# What is reported ---------------------------------------------------------------------------------


class Sample(NamedTuple):
    """A contestant in a cell: runs by function, each list in the order of the instances."""

    functions: list[int]
    found: list[list[dict[str, Any]]]
    budget: int

    def after(self, n: int) -> Floats:
        """(functions, instances) least regret after n evaluations."""
        return np.array([[least_after(one["steps"], n) for one in row] for row in self.found])

    def without(self, *some: int) -> Sample:
        """The same on the other functions."""
        rows = [i for i, f in enumerate(self.functions) if f not in some]
        picked = [self.functions[i] for i in rows], [self.found[i] for i in rows]
        return Sample(*picked, self.budget)

    @property
    def final(self) -> Floats:
        """(functions, instances) least regret in the end."""
        return self.after(self.budget)

    @property
    def areas(self) -> Floats:
        """(functions, instances) under the anytime ECDF."""
        return np.array([[ecdf_area(r["steps"], self.budget) for r in row] for row in self.found])


def figures_of(sample: Sample, random: Sample | None) -> dict[str, Any]:
    """All figures of a contestant in a cell; NaN where no function or no random run is left."""
    rest = sample.without(*LEFT_OUT)

    def against(*some: int) -> float:
        one = sample.without(*some)
        if random is None or not one.functions:
            return float("nan")
        return ratio(one.final, random.without(*some).final)

    each = sample.final
    moments = np.unique(np.geomspace(1, sample.budget, N_MOMENTS).astype(int))
    return {
        "area": float(sample.areas.mean()),
        "score": score(each),
        "ratio": against(1),
        "area_rest": float(rest.areas.mean()) if rest.functions else float("nan"),
        "score_rest": score(rest.final) if rest.functions else float("nan"),
        "ratio_rest": against(*LEFT_OUT),
        "along": {int(n): score(sample.after(int(n))) for n in moments},
        "by_function": dict(
            zip(sample.functions, np.median(decades(each), axis=1).tolist(), strict=True)
        ),
        "each": each.tolist(),
        "seconds": float(np.mean([one["seconds"] for row in sample.found for one in row])),
    }


def compared(one: Sample, two: Sample) -> dict[str, Any]:
    """Scores with their interval, on all functions and without those left out; areas."""
    wider, low, high = difference_of_means(one.areas, two.areas)
    told: dict[str, Any] = {
        "area": {"difference": wider, "interval": [low, high], "ahead": low > 0}
    }
    for name, some in (("all", ()), ("rest", LEFT_OUT)):
        a, b = one.without(*some), two.without(*some)
        if a.functions:
            found, low, high = difference(a.final, b.final)
            told[name] = {"difference": found, "interval": [low, high], "ahead": high < 0}
    return told


def measured(cells: list[Cell], tasks: list[Task], options: Any) -> dict[str, Any]:
    done = runs(tasks, run, jobs=options.jobs, cache=options.cache, key=lambda task: task.key)
    instances = range(1, options.instances + 1)

    def sample(contestant: str, cell: Cell) -> Sample:
        functions = [
            f for f in options.functions if Task(contestant, f, instances[0], cell) in done
        ]
        found = [[done[Task(contestant, f, i, cell)] for i in instances] for f in functions]
        return Sample(functions, found, cell.budget)

    samples = {
        cell: {c: s for c in options.contestants if (s := sample(c, cell)).functions}
        for cell in cells
    }
    return {
        "cells": [
            cell._asdict() | in_cell(by_contestant) for cell, by_contestant in samples.items()
        ],
        "cost": costs(samples),
        "verdicts": verdicts(samples),
        "peers": versions_of_peers(),
    }


def in_cell(samples: dict[str, Sample]) -> dict[str, Any]:
    """Figures of a table: of each contestant, and of ours against each peer where both ran."""
    random = samples.get("random")
    figures = {name: figures_of(sample, random) for name, sample in samples.items()}
    against = {
        ours: {
            peer: compared(common(sample, samples[peer]), common(samples[peer], sample))
            for peer in samples
            if peer in PEERS and set(samples[peer].functions) & set(sample.functions)
        }
        for ours, sample in samples.items()
        if ours in OURS
    }
    return {"contestants": figures, "against": against}


def common(one: Sample, other: Sample) -> Sample:
    """One on the functions that both have."""
    return one.without(*(set(one.functions) - set(other.functions)))


def costs(samples: dict[Cell, dict[str, Sample]]) -> list[dict[str, Any]]:
    """What more pending members cost each contestant, against the fewest with equal budgets."""
    told = []
    for cell, by_contestant in samples.items():
        fewest = min(c.pending for c in samples if c[:2] == cell[:2])
        if cell.pending == fewest:
            continue
        for name, sample in by_contestant.items():
            base = samples[cell._replace(pending=fewest)].get(name)
            if base is not None:
                lost, low, high = difference(common(sample, base).final, common(base, sample).final)
                told.append(
                    cell._asdict()
                    | {"against": fewest, "contestant": name, "cost": lost, "interval": [low, high]}
                )
    return told


def verdicts(samples: dict[Cell, dict[str, Sample]]) -> list[list[Any]]:
    """What is asked of the default: what, found, wanted, reached; on the subset only."""
    rows: list[list[Any]] = []
    subset = {cell: of for cell, of in samples.items() if cell.d == NAMED.d and "default" in of}
    if NAMED in subset and tuple(subset[NAMED]["default"].functions) == SUBSET:
        default, others = subset[NAMED]["default"], subset[NAMED]
        figures = figures_of(default, others.get("random"))
        rows.append(["score", figures["score"], WANTED_SCORE, figures["score"] <= WANTED_SCORE])
        rows.append(["ratio", figures["ratio"], WANTED_RATIO, figures["ratio"] <= WANTED_RATIO])
        for peer in (name for name in others if name in PEERS):
            for what, told in compared(default, others[peer]).items():
                if what == "area":
                    continue
                title = f"score less {peer}'s" + (", without f1 and f10" if what == "rest" else "")
                rows.append([title, interval(told), "below 0", told["ahead"]])
    for cost in costs(subset):
        if cost["contestant"] == "default" and (cost["against"], cost["pending"]) == (8, 64):
            rows.append(
                [
                    f"cost of 64 pending at {cost['budget']}",
                    cost["cost"],
                    WANTED_COST,
                    cost["cost"] <= WANTED_COST,
                ]
            )
    return rows


def interval(told: dict[str, Any], key: str = "difference", digits: int = 2) -> str:
    low, high = told["interval"]
    return f"{told[key]:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def tell(result: dict[str, Any]) -> None:
    for cell in result["cells"]:
        title = str(Cell(cell["d"], cell["budget"], cell["pending"]))
        columns = ["contestant", "area", "score", "ratio", "area*", "score*", "ratio*", "s a run"]
        names = ("area", "score", "ratio", "area_rest", "score_rest", "ratio_rest", "seconds")
        show(
            f"{title}; * without f1 and f10",
            columns,
            [[c, *(figures[n] for n in names)] for c, figures in cell["contestants"].items()],
        )
        tell_functions(title, cell["contestants"])
        rows = [
            [
                ours,
                peer,
                interval(told["all"]),
                interval(told["rest"]) if "rest" in told else "",
                interval(told["area"], digits=3),
            ]
            for ours, by_peer in cell["against"].items()
            for peer, told in by_peer.items()
        ]
        if rows:
            heading = ["ours", "peer", "score", "score*", "area"]
            show(f"{title}: ours less the peer's, 95 % interval", heading, rows)
    rows = [
        [
            c["contestant"],
            f"{c['d']}, {c['budget']}",
            c["against"],
            c["pending"],
            interval(c, "cost"),
        ]
        for c in result["cost"]
    ]
    if rows:
        heading = ["contestant", "d, evaluations", "fewest", "pending", "decades lost"]
        show("What more pending members cost", heading, rows)
    show(
        "The default, on the named subset",
        ["figure", "found", "wanted", "reached"],
        result["verdicts"] or [["", "", "", "full subset only"]],
    )


def tell_functions(title: str, contestants: dict[str, Any]) -> None:
    functions = sorted({f for figures in contestants.values() for f in figures["by_function"]})
    show(
        f"{title}: median log10 of regret",
        ["function", *contestants],
        [
            [f"f{f}", *(figures["by_function"].get(f, "") for figures in contestants.values())]
            for f in functions
        ],
    )


# The command --------------------------------------------------------------------------------------


def planned(options: Any) -> tuple[list[Cell], list[Task]]:
    """Cells and tasks; where all would be drawn before the first result there is no cell."""
    cells = [
        Cell(d, evaluations(budget, d), pending)
        for d in options.dimensions
        for budget in options.budgets
        for pending in options.pending
        if pending < evaluations(budget, d)
    ]
    # by instances: when it is cut off, the cache has whole tables of fewer
    tasks = [
        Task(contestant, function, instance, cell)
        for instance in range(1, options.instances + 1)
        for cell in cells
        for function in options.functions
        for contestant in options.contestants
        if contestant != SLOW or (cell == NAMED and function in SUBSET)
    ]
    return cells, tasks


def evaluations(budget: str, d: int) -> int:
    """Of "200", or of "40d" in d dimensions."""
    return int(budget[:-1]) * d if budget.endswith("d") else int(budget)


def budget_of(text: str) -> str:
    """The text, if it is a budget."""
    if evaluations(text, 1) < 2:
        raise ValueError(text)
    return text


def asked(parser: argparse.ArgumentParser, arguments: list[str] | None) -> Any:
    options = parser.parse_args(arguments)
    if options.contestants is None:
        names = [*OURS, *PEERS]
        options.contestants = [n for n in names if n != SLOW or options.cache]
    if options.full:
        options.functions, options.dimensions = list(range(1, 25)), [2, 5, 10, 20]
        options.budgets, options.pending = ["40d", "100d"], [8, 64, 256]
    if options.quick:
        options.functions, options.dimensions, options.budgets = [1, 8], [2], ["16"]
        options.pending, options.instances, options.jobs, options.cache = [2, 4], 2, 1, None
        options.contestants = [n for n in options.contestants if n != SLOW]
    if min(options.instances, options.jobs, *options.pending, *options.dimensions) < 1:
        parser.error("wanted 1 or more of --instances, --jobs, --pending and --dimensions")
    if not set(options.functions) <= set(range(1, 25)) or min(options.dimensions) < 2:
        parser.error("wanted --functions from 1 to 24 and --dimensions 2 or more")
    for name in ("functions", "dimensions", "budgets", "pending"):
        setattr(options, name, list(dict.fromkeys(getattr(options, name))))
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    names = [*OURS, *PEERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few of everything, below 20 s")
    parser.add_argument("--full", action="store_true", help="everything; takes days")
    parser.add_argument("--functions", nargs="+", type=int, default=list(SUBSET))
    parser.add_argument("--dimensions", nargs="+", type=int, default=[5])
    parser.add_argument("--budgets", nargs="+", type=budget_of, default=["40d"])
    parser.add_argument("--pending", nargs="+", type=int, default=[8])
    parser.add_argument("--instances", type=int, default=15, help="of each function")
    parser.add_argument("--contestants", nargs="+", choices=names)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--cache", metavar="PATH", help="a line a run of a peer; none runs twice")
    parser.add_argument("--json", metavar="PATH")
    options = asked(parser, arguments)
    require(parser, options.contestants, "ioh")
    cells, tasks = planned(options)
    if not tasks:
        parser.error("nothing to run: wanted --budgets above --pending")
    result = measured(cells, tasks, options)
    tell(result)
    if options.json:
        seeds = {"root": SEED, "instances": list(range(1, options.instances + 1))}
        save(options.json, result, seeds=seeds)
    return result


if __name__ == "__main__":
    main()
