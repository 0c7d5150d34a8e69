"""What the loop costs: no-op members on two local worker processes, against plain Dask.

Five ways, repeated in turn on one LocalCluster of two processes with one thread each:

* raw map: ``client.map`` and one ``gather``; no loop at all
* plain loop: ``as_completed`` with 64 tasks in flight, ``future.result()`` and one new task for
  each that ends; and the same with ``with_results=True``, which saves some of the round trips
* ours, unbundled: ``explore`` with Sobol points in 10 dimensions, 64 in flight, one member to a
  task; ledger, segments and compaction on disk, the dataset opened at the end
* ours, bundled: the same with ``bundle="auto"`` and 512 in flight

Expected: ours unbundled at 0.9 times the plain loops' rate or more, ours bundled at 8 times raw
map's or more; with ``--memory``, a driver (the scheduler in it) below 1 GB at 200,000 members.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _report import median_and_spread, save, show

import ensemblerl as erl

SEED = 2026
NDIM = 10
WINDOW = 64
BUNDLED_WINDOW = 512
GOALS = {
    "ours, unbundled / plain loop": 0.9,
    "ours, unbundled / plain loop, with_results": 0.9,
    "ours, bundled / raw map": 8.0,
}

Way = Callable[[Any, int], dict[str, float]]
"""(client, n members) -> seconds of the driver by part, empty where nobody counts."""


def noop(x: float) -> float:
    return x


def simulate(**point: float) -> float:
    return point["x0"]


def raw_map(client: Any, n: int) -> dict[str, float]:
    client.gather(client.map(noop, range(n), pure=False))
    return {}


def plain_loop(*, with_results: bool) -> Way:
    def way(client: Any, n: int) -> dict[str, float]:
        from distributed import as_completed

        first = min(WINDOW, n)
        tasks = [client.submit(noop, i, pure=False) for i in range(first)]
        flying = as_completed(tasks, with_results=with_results)
        submitted, results = first, []
        for item in flying:
            results.append(item[1] if with_results else item.result())
            if submitted < n:
                flying.add(client.submit(noop, submitted, pure=False))
                submitted += 1
        assert len(results) == n
        return {}

    return way


def ours(n_pending: int, bundle: int | str) -> Way:
    def way(client: Any, n: int) -> dict[str, float]:
        space = erl.Space(**{f"x{i}": erl.Real(0.0, 1.0) for i in range(NDIM)})
        with tempfile.TemporaryDirectory() as directory:
            campaign = erl.prepare(
                simulate,
                space,
                erl.Minimize(),
                n_members=n,
                sampler=erl.samplers.Sobol,
                cluster=client,
                store=Path(directory) / "store",
                n_pending=n_pending,
                bundle=bundle,
                seed=SEED,
            )
            campaign.run()
            ds = campaign.store.open()
            assert set(ds["fate"].values.tolist()) == {"ok"}
            assert ds.sizes["member"] == n
            ds.close()
            return dict(campaign.timings)

    return way


WAYS: dict[str, tuple[Way, int]] = {
    "raw map": (raw_map, 1),
    "plain loop": (plain_loop(with_results=False), 1),
    "plain loop, with_results": (plain_loop(with_results=True), 1),
    "ours, unbundled": (ours(WINDOW, 1), 1),
    "ours, bundled": (ours(BUNDLED_WINDOW, "auto"), 8),
}
"""name -> (way, how many times the members to give it)"""


def measured(client: Any, n: int, repeats: int) -> list[dict[str, Any]]:
    """One record a way and repeat, in turn; a first round that does not count warms up."""
    records = []
    for repeat in range(-1, repeats):
        for name, (way, times) in WAYS.items():
            members = times * (n if repeat >= 0 else 100)
            began = time.perf_counter()
            parts = way(client, members)
            seconds = time.perf_counter() - began
            if repeat >= 0:
                ms = 1e3 * seconds / members
                parts = {part: 1e3 * spent / members for part, spent in parts.items()}
                record = {"way": name, "repeat": repeat, "members": members}
                records.append({**record, "ms_per_member": ms, "parts_ms_per_member": parts})
    return records


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over repeats, ratios of rates, and the driver's time by part."""
    ms, spread, parts = {}, {}, {}
    for name in WAYS:
        mine = [record for record in records if record["way"] == name]
        ms[name], spread[name] = median_and_spread([r["ms_per_member"] for r in mine])
        names = dict.fromkeys(part for r in mine for part in r["parts_ms_per_member"])
        parts[name] = {
            part: median_and_spread([r["parts_ms_per_member"].get(part, 0.0) for r in mine])[0]
            for part in names
        }
    ratios = {pair: _rate_ratio(ms, *pair.split(" / ")) for pair in GOALS}
    return {"ms_per_member": ms, "spread": spread, "rate_ratios": ratios, "parts": parts}


def _rate_ratio(ms: dict[str, float], ours: str, theirs: str) -> float:
    return ms[theirs] / ms[ours]


def tell(result: dict[str, Any]) -> None:
    ms, spread = result["ms_per_member"], result["spread"]
    rows = [(n, ms[n], spread[n], 1e3 / ms[n], ms["raw map"] / ms[n]) for n in WAYS]
    columns = ["way", "ms per member", "± half range", "members/s", "rate / raw map"]
    show("Loop overhead, no-op members, two worker processes (medians)", columns, rows)
    kept = [(name, result["rate_ratios"][name], goal) for name, goal in GOALS.items()]
    rows = [(name, ratio, goal, ratio >= goal) for name, ratio, goal in kept]
    show("Rates", ["ratio", "measured", "wanted", "reached"], rows)
    for name, parts in result["parts"].items():
        if parts:
            ordered = sorted(parts.items(), key=lambda item: -item[1])
            show(f"{name}: the driver by part", ["part", "ms per member"], ordered)


def peak_memory(client: Any, n: int) -> dict[str, float]:
    """Largest resident memory of this process, scheduler included, while n members run (MB)."""
    import psutil

    process, over, peaks = psutil.Process(), threading.Event(), [0.0]

    def watch() -> None:
        while not over.wait(0.05):
            peaks[0] = max(peaks[0], process.memory_info().rss / 1e6)

    before = process.memory_info().rss / 1e6
    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        ours(BUNDLED_WINDOW, "auto")(client, n)
    finally:
        over.set()
        watcher.join()
    seconds = time.perf_counter() - began
    return {"members": n, "before_mb": before, "peak_mb": peaks[0], "seconds": seconds}


def tell_memory(memory: dict[str, float]) -> None:
    columns = ["members", "before, MB", "peak, MB", "below 1000", "s"]
    row = [int(memory["members"]), memory["before_mb"], memory["peak_mb"]]
    row += [memory["peak_mb"] < 1000, memory["seconds"]]
    show("Driver and scheduler memory, bundled", columns, [row])


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer members, below 20 s")
    parser.add_argument("--members", type=int, default=2000, help="eightfold for bundled")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="also the memory, 200,000 members")
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args(arguments)
    n, repeats = (300, 3) if options.quick else (options.members, options.repeats)

    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
        ) as cluster,
        Client(cluster) as client,
    ):
        records = measured(client, n, repeats)
        result = summary(records) | {"records": records}
        tell(result)
        if options.memory:
            result["memory"] = peak_memory(client, 5000 if options.quick else 200_000)
            tell_memory(result["memory"])
    if options.json:
        save(options.json, result, seeds={"campaign": SEED})
    return result


if __name__ == "__main__":
    main()
