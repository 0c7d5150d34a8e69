"""A program as a simulation, for the tests of what supervises it: a text of Python, x and y."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemblerl.goals.minimize import Minimize
from ensemblerl.protocols import Job
from ensemblerl.records import Place, Program
from ensemblerl.simulations.points import Task
from ensemblerl.supervisor import start

ANYWHERE = Place()
GOOD = "json.dump({'y': 2 * x, 'field': [x, x, x]}, open('out.json', 'w'))"


@dataclass
class Script:
    """Runs ``text`` with ``x``, ``seed``, ``number`` and ``attempt`` defined; reads out.json."""

    text: str = GOOD
    timeout: float | None = None
    memory: int | None = None
    scratch: str | None = None
    keep: str = "failures"
    checkpoint: bool = False
    retries: int = 0
    cores: int = 1
    version: str | None = "1"
    max_result_bytes: int = 2**20

    def prepare(self, point, *, seed, member, directory):
        given = {"x": point["x"], "seed": seed}
        given |= {"number": member["number"], "attempt": member["attempt"]}
        lines = ["import json, os, signal, subprocess, sys, time", f"globals().update({given!r})"]
        (directory / "program.py").write_text("\n".join([*lines, self.text]))
        return Program((sys.executable, "program.py"), dict(os.environ))

    def read(self, directory: Path):
        found = json.loads((directory / "out.json").read_text())
        return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}

    def __call__(self, point, *, seed, member=None):
        raise AssertionError("a program runs under its supervisor")

    def describe(self):
        return {"name": "Script", "text": self.text}


def noting(file: Path, text: str = GOOD) -> str:
    """A program that appends "number attempt pid" to a file when it begins."""
    note = f"os.write(os.open({str(file)!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "
    return note + "f'{number} {attempt} {os.getpid()}\\n'.encode())\n" + text


def noted(file: Path) -> list[list[int]]:
    """[number, attempt, pid] of each start."""
    if not file.exists():
        return []
    return [[int(n) for n in line.split()] for line in file.read_text().splitlines()]


def single(simulation, store: Path, *, number=0, attempt=1, place=ANYWHERE):
    """Outcome of one attempt, run here as a worker does; the store is made where it is missing."""
    store.mkdir(exist_ok=True)
    (store / "campaign.json").touch()
    job = Job(simulation, Minimize("y"), str(store / "segments"), driver=os.getpid())
    member = {"number": number, "attempt": attempt}
    return start.run(job, Task(number, attempt, {"x": 0.5}, 7, member), place).outcome


def until(holds, seconds=30.0):
    """Wait for something to be true; what it gave."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found
