"""What a preflight runs in a job: looks around on the node, writes a file, calls back, ends.

Called as ``python -m ensemblerl.cluster.probe FILE --key KEY --port PORT --at ADDRESS ...``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ensemblerl.cluster.allocation import time_left

PATIENCE = 2.0
"""Seconds for one connection."""
STAY = 20.0
"""Seconds for which the job stays when all is told: the queue says of a running one when it ends.
Whoever started it ends it sooner."""
MODULES = ("ensemblerl", "numpy", "dask", "distributed", "cloudpickle")
"""What must be the same on both sides: members and results travel through these."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TOLD = (*THREADS, "SLURM_CPUS_ON_NODE", "NCPUS", "CUDA_VISIBLE_DEVICES", "TMPDIR")
"""Variables that are reported."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Look around on a node.")
    parser.add_argument("file", type=Path, help="where the report goes")
    parser.add_argument("--key", required=True, help="what the listener wants to hear")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--at", nargs="+", default=[], help="addresses of the listener")
    parser.add_argument("--mark", type=Path, help="a file that should be seen here too")
    parser.add_argument("--stay", type=float, default=STAY, help="seconds to wait for the end")
    chosen = parser.parse_args(arguments)
    heard = heard_everywhere(chosen.at, chosen.port, chosen.key)
    report = around(chosen.file.parent) | {"heard": heard}
    report["marked"] = "" if chosen.mark is None else marked(chosen.mark)
    report["unwritten"] = written(chosen.file, report)
    for address, answer in heard.items():
        if answer.get("word") and delivered((address, chosen.port), chosen.key, report):
            break
    time.sleep(chosen.stay)
    return 0


def heard_everywhere(addresses: Sequence[str], port: int, key: str) -> dict[str, dict[str, str]]:
    """What is answered at each of these addresses, asked all at once."""
    with ThreadPoolExecutor(max(1, len(addresses))) as pool:
        answers = pool.map(lambda address: heard_at((address, port), key), addresses)
        return dict(zip(addresses, answers, strict=True))


def heard_at(link: tuple[str, int], key: str) -> dict[str, str]:
    """What is answered there: ``word`` and ``own``, our address on the way; or ``error``."""
    try:
        with socket.create_connection(link, PATIENCE) as peer:
            peer.sendall(f"{key}\n".encode())
            with peer.makefile("r") as lines:
                return {"word": lines.readline(256).strip(), "own": peer.getsockname()[0]}
    except (OSError, UnicodeDecodeError) as error:
        return {"error": getattr(error, "strerror", None) or str(error)}


def delivered(link: tuple[str, int], key: str, report: dict[str, Any]) -> bool:
    """Tell the listener there everything: it may not see our disk."""
    try:
        with socket.create_connection(link, PATIENCE) as peer, peer.makefile("r") as lines:
            peer.sendall(f"{key}\n".encode())
            lines.readline(256)
            peer.sendall(f"{json.dumps(report | {'now': time.time()})}\n".encode())
            return lines.readline(256).strip() == "taken"
    except (OSError, UnicodeDecodeError):
        return False


def written(path: Path, report: dict[str, Any]) -> str:
    """Leave the report in a file, complete or not at all; why that failed, or ""."""
    part = path.with_suffix(".part")
    try:
        part.write_text(json.dumps(report))
        part.replace(path)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def marked(mark: Path) -> str:
    """Whether this file is seen, and another can be written beside it: why not, or ""."""
    beside = mark.with_name(f"{mark.name}.node")
    if not mark.exists():
        return "not to be seen there"
    try:
        beside.write_text("")
        beside.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def around(directory: Path) -> dict[str, Any]:
    """What there is on this machine: JSON."""
    from ensemblerl.cluster.interfaces import interfaces

    temporary = tempfile.gettempdir()
    return {
        "node": platform.node(),
        **environment(),
        "affinity": len(os.sched_getaffinity(0)),
        "processors": os.cpu_count(),
        "variables": {name: os.environ[name] for name in TOLD if name in os.environ},
        "devices": len(list(Path("/dev").glob("nvidia[0-9]*"))),
        "interfaces": sorted({interface.name for interface in interfaces()}),
        "left": time_left(os.environ),
        "room": room(directory),
        "temporary": {"path": temporary, **room(Path(temporary))},
        "now": time.time(),
    }


def environment() -> dict[str, Any]:
    """Python and the modules, as they are found by who runs this."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "versions": {name: version(name) for name in MODULES},
        "path": str(Path(__file__).resolve().parents[1]),
    }


def version(name: str) -> str:
    """Of a module that is imported for it; what went wrong where it cannot be."""
    try:
        return str(getattr(importlib.import_module(name), "__version__", "?"))
    except Exception as error:  # whatever a broken installation may throw
        return f"{type(error).__name__}: {error}"


def room(directory: Path) -> dict[str, int]:
    """Bytes and files that still fit on the disk, as far as it counts them; -1: it does not."""
    try:
        told = os.statvfs(directory)
    except OSError:
        return {"bytes": -1, "files": -1}
    return {
        "bytes": told.f_bavail * told.f_frsize if told.f_blocks else -1,
        "files": told.f_favail if told.f_files else -1,
    }


if __name__ == "__main__":
    sys.exit(main())
