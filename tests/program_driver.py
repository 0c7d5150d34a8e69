"""The driver that tests/test_supervisor.py kills: STORE HOW NOTES N [SECONDS]."""

import sys
from pathlib import Path

import ensemblerl as erl

sys.path.insert(0, str(Path(__file__).parent))
from programs import GOOD, Script, noting

SPACE = erl.Space(x=erl.Real(0.0, 1.0))

if __name__ == "__main__":
    store, how, notes, n, *seconds = sys.argv[1:]
    erl.explore(
        Script(noting(Path(notes), f"time.sleep({float(*seconds or (1.5,))})\n{GOOD}")),
        SPACE,
        erl.Minimize("y"),
        n_members=int(n),
        store=store,
        sampler="sobol",
        seed=3,
        cluster="serial" if how == "serial" else None,
        progress=False,
    )
