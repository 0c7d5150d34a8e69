"""How long `import ensemblerl` takes, beside `import xarray`: wanted at most 1.3 times as long.

Medians of alternating repeats in fresh interpreters. "Face used" also touches every name of the
face, which is what a campaign's script pays before it begins.

    python benchmarks/import_time.py [--repeats 15] [--json PATH] [--quick]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from _report import median_and_spread, save, show

WAYS = {
    "python": "pass",
    "import xarray": "import xarray",
    "import ensemblerl": "import ensemblerl",
    "face used": "import ensemblerl as erl; [getattr(erl, name) for name in erl.__all__]",
}
WANTED = 1.3


def seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    repeats = 3 if given.quick else given.repeats
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, code in WAYS.items():
            times[way].append(seconds(code))
    found = {way: median_and_spread(values) for way, values in times.items()}
    xarray = found["import xarray"][0]
    rows = [[way, 1e3 * m, 1e3 * s, m / xarray] for way, (m, s) in found.items()]
    show("Import time", ["what", "ms", "+-", "x import xarray"], rows)
    ratio = found["import ensemblerl"][0] / xarray
    print(f"import ensemblerl / import xarray = {ratio:.2f}, wanted <= {WANTED}")
    if given.json:
        figures = {way: {"median_s": m, "spread_s": s} for way, (m, s) in found.items()}
        save(given.json, {"repeats": repeats, "ratio": ratio, "times": figures}, seeds={})


if __name__ == "__main__":
    main()
