"""Whether the kernel killed processes because the node, or the job's share of it, was full."""

from __future__ import annotations

import contextlib
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
KILLED = frozenset({-9, 137, 9})
"""Exit codes of a program that SIGKILL ended, of a shell's or srun's, and of Hydra's mpiexec that
say so of what they started.
"""


def kills() -> int:
    """How many processes the kernel has killed so far to get memory, as near to us as it counts.

    In our control group (``memory.events`` of version 2, ``memory.oom_control`` of version 1: a
    process counts in its own group, whoever's limit was reached), else on the whole machine. The
    kernel's documents cgroup-v2, cgroup-v1/memory, and vm_event_item.h name these.
    """
    for path in (*_of_our_group(), PROC / "vmstat"):
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _of_our_group() -> list[Path]:
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in (PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                found.append(CGROUPS / path.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                found.append(CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control")
    return found
