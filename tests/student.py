"""A sampler that learns next to nothing, but has every hook of `ensemblerl.protocols.Learning`."""

from __future__ import annotations

import numpy as np

import ensemblerl as erl
from ensemblerl.records import Fate, Proposals, Snapshot
from ensemblerl.samplers.uniform import Uniform

SPACE = erl.Space(x=erl.Real(0.0, 1.0))


def square(x):
    return x * x


class Student:
    """A new version after every ``every`` settled members: the mean of their points."""

    has_density = True
    order_free = False

    def __init__(self, cube, *, name="student", every=2):
        self.cube, self.name, self.every = cube, name, every
        self.seen, self.total, self.version = 0, 0.0, 0
        self.snapshots, self.rows = [self._snapshot()], []
        self.heard, self.calls = [], []

    def _snapshot(self):
        weights = {"mean": np.array([self.total / max(1, self.seen)])}
        return Snapshot(self.version, weights, {"name": self.name})

    def ask(self, n, rng, context=None):
        unit = Uniform(self.cube).ask(n, rng).unit
        return Proposals(
            unit, {"log_prob": np.zeros(n), "version": np.full(n, self.version, dtype=np.int64)}
        )

    def log_density(self, unit):
        return np.zeros(len(unit))

    def tell(self, members, results):
        for unit, fate in zip(members.unit, results.fate, strict=True):
            if fate != Fate.pending:
                self.seen, self.total = self.seen + 1, self.total + float(unit[0])
                if self.seen % self.every == 0:
                    self.version += 1
                    self.snapshots.append(self._snapshot())
                    self.rows += [self._row(part) for part in range(2)]
        return {}

    def _row(self, part):
        heard = self.heard[-1].temperature if self.heard else np.nan
        return {
            "version": self.version,
            "loss": self.total / self.seen + part,
            "temperature": heard,
            "lag_counts": [self.seen, part, 1],
        }

    def heed(self, demands):
        self.heard.append(demands)

    def locate(self, in_process):
        self.located = (in_process, self.seen)

    def begin(self, *, in_process, last):
        self.calls.append(("begin", in_process, -1 if last is None else last.version))

    def published(self):
        out, self.snapshots = self.snapshots, []
        return out

    def telemetry(self):
        out, self.rows = self.rows, []
        return out

    def close(self):
        self.calls.append("close")

    def state_dict(self):
        return {"seen": self.seen, "total": self.total, "version": self.version}

    def load_state_dict(self, state):
        self.seen, self.total, self.version = state["seen"], state["total"], state["version"]
        self.snapshots, self.rows = [], []

    def describe(self):
        return {"sampler": type(self).__name__, "name": self.name, "every": self.every}


def prepare(path, sampler=None, **options):
    """A campaign with a student."""
    options = {"n_members": 8, "seed": 3, "cluster": "serial"} | options
    sampler = Student(SPACE.cube) if sampler is None else sampler
    return erl.prepare(square, SPACE, erl.Minimize(), sampler=sampler, store=path, **options)
