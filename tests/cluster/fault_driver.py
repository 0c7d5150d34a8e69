"""A driver to be killed: DIRECTORY SCHEDULER. Prints how many running members it adopted, and the
seconds until its workers were there.
"""

import sys
import time
from pathlib import Path

from fault_rig import Rig
from slurm import PrivateSlurm


def main() -> None:
    """One campaign; the same on every call."""
    import ensemblerl as erl

    rig = Rig(PrivateSlurm.__new__(PrivateSlurm), Path(sys.argv[1]), sys.argv[2])
    space = erl.Space(x=erl.Real(0.0, 1.0), seconds=erl.Real(2.0, 12.0))
    cluster = rig.cluster()
    began = time.monotonic()
    handle = rig.launch(cluster, 100, space=space)
    adopted, ready = 0, float("nan")
    while not handle.done:
        adopted = max(adopted, len(handle.campaign._arrivals.apart))
        if ready != ready and len(rig.workers(cluster)) == 3:
            ready = time.monotonic() - began
        time.sleep(0.05)
    handle.wait()
    print(adopted, ready)


if __name__ == "__main__":
    main()
