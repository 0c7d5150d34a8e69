"""Stores of 100,000 members: how long opening takes, what they cost on the disk, how they grow.

A campaign of 100,000 members (10 parameters, one number as result) runs on workers on paper
(`ensemblerl.Simulated`), so its members a second are what loop, ledger and store cost. Opened are:

* running: with 98% of the members settled, the latest ones not in shards yet, the driver paused
* closed: after its end

each by ``erl.open`` and by ``xr.open_dataset(engine="ensemblerl")``; first: in a fresh
interpreter that has imported both packages and opened no store; again: median of five more in the
same one; read: loading reward and result of all members. The files are in the system's cache.

Expected, at 100,000 members: every opening in 2 s or less; 0.01 inodes a member or less. A store
has its few dozen directories whatever its size, so ``--quick`` (5,000 members) judges seconds
only.

    python benchmarks/store.py [--members 100000] [--json PATH] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _report import save, show

import ensemblerl as erl
from ensemblerl.store.manifest import Manifest

SEED = 2026
NDIM = 10
WORKERS = 64
WANTED_SECONDS = 2.0
WANTED_INODES = 0.01
WAYS = {
    "erl.open": "erl.open(path)",
    "xr.open_dataset": 'xr.open_dataset(path, engine="ensemblerl")',
}
READER = """
import json, statistics, sys, time
import xarray as xr
import ensemblerl as erl

path = sys.argv[1]

def seconds(do):
    began = time.perf_counter()
    out = do()
    return time.perf_counter() - began, out

def opened():
    return {opening}

first, _ = seconds(opened)
again = statistics.median(seconds(opened)[0] for _ in range(5))
ds = opened()
read, loaded = seconds(lambda: ds[["reward", "value"]].load())
told = int(loaded["reward"].notnull().sum()), int(loaded["value"].notnull().sum())
assert told[0] == told[1], told
print(json.dumps(dict(first=first, again=again, read=read, members=ds.sizes["member"], ok=told[0])))
"""


def simulate(**point: float) -> float:
    return point["x0"]


def openings(path: Path) -> dict[str, dict[str, float]]:
    """Way of opening -> seconds first, again and to read, and the members seen."""
    return {name: _opening(path, opening) for name, opening in WAYS.items()}


def _opening(path: Path, opening: str) -> dict[str, float]:
    code = READER.replace("{opening}", opening)
    run = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def campaign(path: Path, n: int) -> dict[str, Any]:
    """Members a second; what opening it near its end took, and the rows then in shards."""
    space = erl.Space(**{f"x{i}": erl.Real(0.0, 1.0) for i in range(NDIM)})
    began, paused = time.perf_counter(), 0.0
    running: dict[str, dict[str, float]] = {}
    in_shards = 0
    driver = erl.prepare(
        simulate,
        space,
        erl.Minimize(),
        n_members=n,
        sampler="sobol",
        cluster=erl.Simulated(WORKERS, runtime=60.0),
        store=path,
        seed=SEED,
    )
    with driver:
        for _ in driver.turns():
            if not running and driver.ledger.n_settled >= 0.98 * n:
                pause = time.perf_counter()
                running, in_shards = openings(path), Manifest.load(path).first
                paused = time.perf_counter() - pause
    rate = n / (time.perf_counter() - began - paused)
    return {"members_per_second": rate, "in_shards": in_shards, "running": running}


def disk(path: Path, n: int) -> dict[str, float]:
    """Files and directories, and bytes, to a member."""
    files = [path, *path.rglob("*")]
    sizes = {file: file.stat().st_size for file in files if file.is_file()}
    return {
        "inodes": len(files) / n,
        "bytes": sum(sizes.values()) / n,
        "ledger_bytes": sizes[path / "ledger.jsonl"] / n,
    }


def measured(n: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store"
        grown = campaign(path, n)
        running, closed = grown.pop("running"), openings(path)
        assert {found["ok"] for found in closed.values()} == {n}
        assert all(0.98 * n <= found["ok"] < n for found in running.values())
        seconds = {"running": running, "closed": closed}
        return {"members": n, **grown, "seconds": seconds, "disk": disk(path, n)}


def tell(result: dict[str, Any], *, judge_disk: bool) -> None:
    n = result["members"]
    rows = [
        [
            f"{way}, {state}",
            *(found[key] for key in ("first", "again", "read")),
            max(found["first"], found["again"]) <= WANTED_SECONDS,
        ]
        for state, ways in result["seconds"].items()
        for way, found in ways.items()
    ]
    columns = ["opening", "first, s", "again, s", "read, s", f"<= {WANTED_SECONDS:g} s"]
    show(f"Opening a store of {n:,} members", columns, rows)
    cost = result["disk"]
    reached = cost["inodes"] <= WANTED_INODES if judge_disk else "full run only"
    lines = [
        ["inodes a member", cost["inodes"], f"<= {WANTED_INODES}", reached],
        ["bytes a member", cost["bytes"], "", ""],
        ["of these, ledger", cost["ledger_bytes"], "", ""],
        ["members a second, workers on paper", result["members_per_second"], "", ""],
        ["members in shards when opened running", result["in_shards"], "", ""],
    ]
    show("Disk and growth", ["what", "measured", "wanted", "reached"], lines)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5,000 members, below 20 s")
    parser.add_argument("--members", type=int, default=100_000)
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    result = measured(5000 if options.quick else options.members)
    tell(result, judge_disk=not options.quick)
    if options.json:
        save(options.json, result, seeds={"campaign": SEED})
    return result


if __name__ == "__main__":
    main()
