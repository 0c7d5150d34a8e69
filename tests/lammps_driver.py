"""A campaign of real MPI programs, which tests/test_lammps.py kills: STORE NOTES N [CORES]."""

import sys
from pathlib import Path

import ensemblerl as erl

INPUT = """\
shell           "echo {{ number }} {{ attempt }} >> '{{ notes }}'"
units           lj
lattice         fcc {{ density }}
region          box block 0 4 0 4 0 4
create_box      1 box
create_atoms    1 box
mass            1 1.0
velocity        all create 1.0 {{ seed }}
pair_style      lj/cut 2.5
pair_coeff      1 1 1.0 1.0
fix             1 all nve
thermo          100
run             {{ steps }}
print           "final pressure $(press)"
"""
SPACE = erl.Space(density=erl.Real(0.5, 0.9))
READS = [
    erl.readers.Regex("log.lammps", r"^final pressure (?P<pressure>\S+)"),
    erl.readers.Regex("log.lammps", r"with (?P<ranks>\d+) MPI tasks x (?P<threads>\d+) OpenMP"),
]


def fluid(notes: Path, steps: int = 100, **given) -> erl.Command:
    return erl.Command(
        ["lmp", "-in", "in.fluid"],
        templates={"in.fluid": INPUT},
        constants={"notes": str(notes), "steps": steps},
        reads=READS,
        **given,
    )


def campaign(store, notes, n, steps=100, cluster=None, **given):
    return erl.explore(
        fluid(Path(notes), steps, **given),
        SPACE,
        erl.Minimize("pressure"),
        n_members=n,
        store=store,
        sampler="sobol",
        seed=3,
        cluster=cluster,
        progress=False,
    )


if __name__ == "__main__":
    campaign(sys.argv[1], sys.argv[2], int(sys.argv[3]), steps=1500)
