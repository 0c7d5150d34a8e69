"""The event with which a session begins: who runs what, where."""

from __future__ import annotations

import json
import os
import platform

from ensemblerl.events import Opened
from ensemblerl.protocols import Executor, Sampler, Simulation


def called(executor: Executor) -> str:
    """What to call an executor in a line: its ``title`` if it has one."""
    return str(getattr(executor, "title", "") or type(executor).__name__)


def opened(executor: Executor, simulation: Simulation, sampler: Sampler, n_members: int) -> Opened:
    """That a session of this process begins now."""
    return Opened(
        time=executor.time(),
        version=simulation.version or "",
        n_members=n_members,
        host=platform.node(),
        pid=os.getpid(),
        in_process=executor.in_process,
        executor=called(executor),
        sampler=json.dumps(sampler.describe()),
    )
