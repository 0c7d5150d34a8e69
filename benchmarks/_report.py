"""What benchmarks share: a table on the terminal, the same figures as JSON, and where they ran."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("ensemblerl", "dask", "distributed", "numpy", "scipy", "xarray", "zarr", "torch")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Package -> version of those that are installed, Python's included."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, system, load."""
    import psutil
    from dask.system import cpu_count

    return {
        "processor": _processor(),
        "cores": cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def median_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Median, and half the distance from the smallest to the largest."""
    return statistics.median(values), (max(values) - min(values)) / 2


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; the first column is text, the others are numbers or text."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(_text, row))
    console = Console()
    console.print(table) if console.is_terminal else Console(width=110).print(table)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def save(path: str | Path, figures: Mapping[str, Any], *, seeds: Mapping[str, Any]) -> None:
    """Write the figures as strict JSON, with versions, seeds and machine."""
    whole = {**figures, "seeds": dict(seeds), "versions": versions(), "machine": machine()}
    Path(path).write_text(json.dumps(_strict(whole), indent=1, allow_nan=False) + "\n")


def _strict(value: Any) -> Any:
    """The same without numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
