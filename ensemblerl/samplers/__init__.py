"""Samplers that need no network: designs, lists, and samplers made of samplers.

All are built on ``space.cube``, one algorithm a file:

* `Uniform`, `Sobol`, `LatinHypercube`: fixed designs, resumed from their own points alone
* `Listed`: points of one's own, ``Listed.of(space, rows)`` from dicts, tables and CSV files
* `Chain`: one sampler after the other
* `Portfolio`: several at once, by shares that may follow who finds what, with the density of
  their mixture
* `DifferentialEvolution`: a plain search
* `Cma`, `FromOptuna`: guests, from the packages `cma` and `optuna`
"""

from ensemblerl.samplers.chain import Chain
from ensemblerl.samplers.cma import Cma
from ensemblerl.samplers.differential_evolution import DifferentialEvolution
from ensemblerl.samplers.from_optuna import FromOptuna
from ensemblerl.samplers.latin_hypercube import LatinHypercube
from ensemblerl.samplers.listed import Listed
from ensemblerl.samplers.portfolio import Portfolio
from ensemblerl.samplers.sobol import Sobol
from ensemblerl.samplers.uniform import Uniform

__all__ = [
    "Chain",
    "Cma",
    "DifferentialEvolution",
    "FromOptuna",
    "LatinHypercube",
    "Listed",
    "Portfolio",
    "Sobol",
    "Uniform",
]


def __dir__() -> list[str]:
    return __all__
