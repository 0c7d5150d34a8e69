"""A driver to be interrupted or killed: DIRECTORY and JSON with these entries, all optional.

``scheduler``; ``n`` members of ``seconds`` (from, to), with ``long`` true every tenth of `LONG`;
``cluster`` (arguments); ``there``, workers that can be had. At its end it prints JSON: why it
ended, which members it found running when it had opened (adopted), and after how many seconds its
workers were there.
"""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fault_log import MEMBER, some_long
from fault_rig import Rig

LONG = 15
"""Seconds of a member that outlives its driver by enough for the next one to find it running."""


def start(rig: Rig, **given: Any) -> "subprocess.Popen[str]":
    """This script as a process of its own, on the store of a rig."""
    told = json.dumps({"scheduler": rig.scheduler, **given})
    with (rig.directory / "driver.err").open("a") as errors:
        return subprocess.Popen(
            [sys.executable, __file__, str(rig.directory), told],
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def report(rig: Rig, driver: "subprocess.Popen[str]", timeout: float = 300.0) -> dict[str, Any]:
    """What a driver prints that comes to its end."""
    try:
        told, _ = driver.communicate(timeout=timeout)
    finally:
        driver.kill()
    said = (rig.directory / "driver.err").read_text()[-3000:]
    assert driver.returncode == 0, (driver.returncode, said)
    found: dict[str, Any] = json.loads(told)
    return found


def main(directory: str, given: dict[str, Any]) -> None:
    """One campaign; the same on every call."""
    import ensemblerl as erl

    rig: Any = Rig(None, Path(directory), given.get("scheduler", "slurm"))  # type: ignore[arg-type]
    space = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(*given.get("seconds", (0.4, 1.6))))
    cluster = rig.cluster(**given.get("cluster", {}))
    began = time.monotonic()
    told: dict[str, Any] = {"adopted": [], "ready": math.nan}
    there = given.get("there", cluster.settings.n_jobs)

    def watch(campaign: Any) -> None:
        if math.isnan(told["ready"]) and len(rig.workers(cluster)) >= there:
            told["ready"] = time.monotonic() - began

    campaign = erl.prepare(
        rig.program(some_long(LONG) if given.get("long") else MEMBER),
        space,
        erl.Minimize("y"),
        n_members=given.get("n", 100),
        cluster=cluster,
        store=str(rig.store),
        sampler="sobol",
        seed=7,
        watch=watch,
    )
    opens = campaign.open

    def opened() -> None:
        opens()  # members that are apart later may be this driver's own, of a worker that died
        told["adopted"] = [[int(n), int(attempt)] for n, attempt in campaign._arrivals.apart]

    campaign.open = opened  # type: ignore[method-assign]
    told["reason"] = campaign.run()
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
