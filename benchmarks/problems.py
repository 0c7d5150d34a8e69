"""How fast the problems are that come with the package, alone and in a campaign.

* lorenz96.simulate_many: points a second, 10,000 of them at once, on one core
* advection_diffusion.simulate: ms a run, over points of its own space
* a campaign on lorenz96: members a second on workers on paper (`ensemblerl.Simulated`), one point
  at a time; beside it lorenz96.simulate alone, so that the difference is what the campaign costs

Expected: 10,000 points a second or more; 25 to 100 ms a run (about 50).

    python benchmarks/problems.py [--repeats 5] [--json PATH] [--quick]
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _report import median_and_spread, save, show

import ensemblerl as erl
from ensemblerl.problems import advection_diffusion, lorenz96

SEED = 2026
AT_ONCE = 10_000
WANTED_RATE = 1e4
WANTED_MS = (25.0, 100.0)


def seconds(do: Callable[[], Any]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def points(space: erl.Space, n: int) -> dict[str, Any]:
    """Name -> (n,) points drawn from the prior."""
    return space.to_points(np.random.default_rng(SEED).random((n, space.ndim)))


def many(repeats: int) -> list[float]:
    """Points a second, of so many repeats."""
    batch = points(lorenz96.space(), AT_ONCE)
    lorenz96.simulate_many(batch)
    return [AT_ONCE / seconds(lambda: lorenz96.simulate_many(batch)) for _ in range(repeats)]


def one_by_one(problem: Any, n: int) -> list[float]:
    """Milliseconds of each of n runs."""
    space = problem.space()
    columns = points(space, n)
    problem.simulate(**problem.truth())
    rows = [space.point(columns, row) for row in range(n)]
    return [1e3 * seconds(lambda row=row: problem.simulate(**row)) for row in rows]


def campaign(n: int) -> float:
    """Members a second of a whole campaign, its store and dataset included."""

    def run(path: Path) -> None:
        ds = erl.explore(
            lorenz96.simulate,
            lorenz96.space(),
            erl.Minimize("misfit"),
            n_members=n,
            sampler="sobol",
            cluster=erl.Simulated(64, runtime=60.0),
            store=path,
            seed=SEED,
            progress=False,
        )
        assert (ds["fate"] == "ok").all()

    with tempfile.TemporaryDirectory() as directory:
        return n / seconds(lambda: run(Path(directory) / "store"))


def campaigns(n: int, repeats: int) -> list[float]:
    """Members a second of each of so many; a small one that does not count warms up."""
    campaign(50)
    return [campaign(n) for _ in range(repeats)]


def measured(*, repeats: int, runs: int, members: int) -> dict[str, Any]:
    figures = {
        "lorenz96.simulate_many, points/s": median_and_spread(many(repeats)),
        "advection_diffusion.simulate, ms": median_and_spread(
            one_by_one(advection_diffusion, runs)
        ),
        "lorenz96.simulate alone, points/s": median_and_spread(
            [1e3 / ms for ms in one_by_one(lorenz96, 20 * runs)]
        ),
        "campaign on lorenz96, members/s": median_and_spread(campaigns(members, repeats)),
    }
    return {
        "repeats": repeats,
        "runs": runs,
        "members": members,
        "medians": {name: median for name, (median, _) in figures.items()},
        "spread": {name: spread for name, (_, spread) in figures.items()},
    }


def tell(result: dict[str, Any]) -> None:
    medians, spread = result["medians"], result["spread"]
    many, run, *_ = medians.values()
    low, high = WANTED_MS
    goals = [
        (f">= {WANTED_RATE:g}", many >= WANTED_RATE),
        (f"{low:g} to {high:g}", low <= run <= high),
        ("", ""),
        ("", ""),
    ]
    named = zip(medians, goals, strict=True)
    rows = [
        [name, medians[name], spread[name], wanted, reached] for name, (wanted, reached) in named
    ]
    show("Problems", ["what", "median", "± half range", "wanted", "reached"], rows)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few of each, below 20 s")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args(arguments)
    few = {"repeats": 2, "runs": 10, "members": 300}
    full = {"repeats": options.repeats, "runs": 100, "members": 3000}
    result = measured(**(few if options.quick else full))
    tell(result)
    if options.json:
        save(options.json, result, seeds={"campaign": SEED, "points": SEED})
    return result


if __name__ == "__main__":
    main()
