"""The agent finds what Sobol' points do not: the best value of a search with few members.

Three problems, each minimised with 256 members of which 16 are always in flight, on workers on
paper (`ensemblerl.Simulated`) whose run times are lognormal, so that results come out of order:

* mixed: eight parameters of every kind, two conditional; a formula (`ensemblerl.problems.mixed`)
* digits: ten hyperparameters of a network, three conditional; trained for real, and as noisy as
  training is (workflows/hyperparameter_search.py)
* calibration: source, rate and wind of a release, six parameters; a partial differential equation
  (`ensemblerl.problems.advection_diffusion`)

Contestants: what `explore` takes when it is told nothing (default), the agent alone, Sobol'
points, random points. A seed of ours is one campaign of each, so differences are paired.

Expected: agent and default find a smaller value than Sobol' points, by more than two standard
errors of the mean difference over ten seeds or more, on each problem.

    python benchmarks/search.py [--seeds 10] [--members 256] [--jobs 2] [--problems NAME ...]
        [--samplers NAME ...] [--json PATH] [--quick]
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded; --jobs is what uses cores

import functools
import importlib.util
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _report import save, show

import ensemblerl as erl
from ensemblerl.problems import advection_diffusion, mixed

SEED = 2026
N_MEMBERS = 256
N_PENDING = 16
QUICK = {"mixed": 64, "digits": 4, "calibration": 12}
WORKFLOW = Path(__file__).parents[1] / "workflows" / "hyperparameter_search.py"
RIVAL = "Sobol'"
CHALLENGERS = ("default", "agent")

# Problems: simulation, space, goal ----------------------------------------------------------------

Problem = tuple[Callable[..., Any], erl.Space, Any]


@functools.cache
def workflow() -> Any:
    """The workflow as a module; a process loads it once."""
    spec = importlib.util.spec_from_file_location(WORKFLOW.stem, WORKFLOW)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[WORKFLOW.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digits() -> Problem:
    search = workflow()
    return search.simulate, search.space(), search.goal()


def calibration() -> Problem:
    return advection_diffusion.simulate, advection_diffusion.space(), erl.Minimize("misfit")


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "mixed": lambda: (mixed.simulate, mixed.space(), erl.Minimize()),
    "digits": digits,
    "calibration": calibration,
}

# Contestants: what `explore` takes as its sampler -------------------------------------------------


def agent(cube: Any) -> Any:
    """The agent alone, without the designs that accompany it by default."""
    from ensemblerl.agents import MaxEnt

    return MaxEnt(cube)


SAMPLERS: dict[str, Any] = {
    "default": None,
    "agent": agent,
    "Sobol'": erl.samplers.Sobol,
    "uniform": erl.samplers.Uniform,
}


class Task(NamedTuple):
    """One campaign."""

    problem: str
    sampler: str
    seed: int
    n_members: int


class Found(NamedTuple):
    """What came of it: (n_members,) the least value among members 0 to i; and what it took."""

    incumbent: list[float]
    failed: int
    seconds: float


def lognormal(point: Any, rng: np.random.Generator) -> float:
    """Seconds on paper: median a minute, one in twenty takes more than two."""
    return 60.0 * math.exp(0.5 * rng.standard_normal())


def campaign(task: Task) -> Found:
    simulate, space, goal = PROBLEMS[task.problem]()
    began = time.perf_counter()
    ds = erl.explore(
        simulate,
        space,
        goal,
        n_members=task.n_members,
        n_pending=N_PENDING,
        bundle=1,
        sampler=SAMPLERS[task.sampler],
        cluster=erl.Simulated(N_PENDING, runtime=lognormal, seed=task.seed),
        seed=task.seed,
        progress=False,
    )
    least = -np.fmax.accumulate(ds["reward"].values)  # of Minimize: the value with its sign turned
    failed = int((ds["fate"] != "ok").sum())
    return Found(least.tolist(), failed, time.perf_counter() - began)


def campaigns(tasks: list[Task], jobs: int) -> Iterable[Found]:
    """What came of each, in their order."""
    if jobs == 1:
        return map(campaign, tasks)
    # a forked child would inherit the threads of the libraries loaded here in whatever state
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        return list(pool.map(campaign, tasks))


# What is reported ---------------------------------------------------------------------------------


def mean_and_error(values: Any) -> tuple[float, float]:
    """The mean, and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def figures_of(runs: list[Found]) -> dict[str, Any]:
    """A contestant on a problem, its runs in the order of the seeds."""
    best = [run.incumbent[-1] for run in runs]
    mean, error = mean_and_error(best)
    n = len(runs[0].incumbent)
    after = {str(k): mean_and_error([run.incumbent[k - 1] for run in runs]) for k in powers(n)}
    return {
        "best": best,
        "mean": mean,
        "error": error,
        "after": after,
        "failed": float(np.mean([run.failed for run in runs])),
        "seconds": float(np.mean([run.seconds for run in runs])),
    }


def powers(n: int) -> list[int]:
    """8, 16, ... as far as n."""
    return [2**k for k in range(3, 40) if 2**k <= n]


def compared(best: list[float], rival: list[float]) -> dict[str, Any]:
    """The paired difference; negative is better."""
    mean, error = mean_and_error(np.subtract(best, rival))
    return {"difference": mean, "error": error, "better": mean < -2 * error}


def measured(
    problems: list[str], samplers: list[str], seeds: list[int], members: dict[str, int], jobs: int
) -> dict[str, Any]:
    tasks = [Task(p, s, i, members[p]) for p in problems for i in seeds for s in samplers]
    found = dict(zip(tasks, campaigns(tasks, jobs), strict=True))
    values = {
        p: {s: figures_of([found[Task(p, s, i, members[p])] for i in seeds]) for s in samplers}
        for p in problems
    }
    against = {
        p: {
            s: compared(values[p][s]["best"], values[p][RIVAL]["best"])
            for s in CHALLENGERS
            if s in samplers and RIVAL in samplers
        }
        for p in problems
    }
    return {"members": members, "pending": N_PENDING, "values": values, "against": against}


def spread(figures: dict[str, Any]) -> list[float]:
    """Mean, its error, best and worst."""
    best = figures["best"]
    return [figures["mean"], figures["error"], min(best), max(best)]


def tell(result: dict[str, Any]) -> None:
    members = result["members"]
    rows = [
        [f"{p}, {members[p]}", s, *spread(f), f["failed"], f["seconds"]]
        for p, by_sampler in result["values"].items()
        for s, f in by_sampler.items()
    ]
    show(
        "Best value found, over seeds",
        ["problem, members", "sampler", "mean", "± SE", "best", "worst", "failed", "s a campaign"],
        rows,
    )
    rows = [
        [p, s, f["difference"], f["error"], f["better"]]
        for p, by_sampler in result["against"].items()
        for s, f in by_sampler.items()
    ]
    heading = ["problem", "sampler", "difference", "± SE", "better beyond 2 SE"]
    show(f"Paired difference to {RIVAL}; less is better", heading, rows)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few members, two seeds, below 20 s")
    parser.add_argument("--seeds", type=int, default=10, help="campaigns of each, two or more")
    parser.add_argument("--members", type=int, default=N_MEMBERS)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args(arguments)
    if options.seeds < 2 or options.jobs < 1:
        parser.error("wanted --seeds 2 or more and --jobs 1 or more")
    members = QUICK if options.quick else dict.fromkeys(PROBLEMS, options.members)
    seeds = [SEED + i for i in range(2 if options.quick else options.seeds)]
    result = measured(options.problems, options.samplers, seeds, members, options.jobs)
    tell(result)
    if options.json:
        save(options.json, result, seeds={"campaigns": seeds})
    return result


if __name__ == "__main__":
    main()
