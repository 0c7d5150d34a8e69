"""The driver that tests/test_kill.py kills: acknowledges each settled member on standard output."""

import os
import sys
import time

import ensemblerl as erl


def simulate(a, b, seed):
    time.sleep(0.02)
    return {"y": a - b + seed, "field": [a, b, a * b]}


SPACE = erl.Space(a=erl.Real(0.0, 1.0), b=erl.Normal(0.0, 1.0))
N = 200


def acknowledge():
    """Writes "number value" for what is settled, straight after the store's write returned."""
    seen = set()

    def watch(campaign):
        settled = campaign.ledger.settled
        for i in [i for i in range(campaign.ledger.n) if settled[i] and i not in seen]:
            seen.add(i)
            value = campaign.ledger["value"][i, 0]
            os.write(1, f"{i} {float(value).hex()}\n".encode())

    return watch


if __name__ == "__main__":
    path, how = sys.argv[1:]
    campaign = erl.prepare(
        simulate,
        SPACE,
        erl.Minimize("y"),
        n_members=N,
        store=path,
        seed=11,
        cluster="serial" if how == "serial" else None,
        # what the agent learns beside Dask workers depends on when they finish
        sampler="sobol" if how == "dask, Sobol'" else None,
        watch=acknowledge(),
    )
    campaign.run()
