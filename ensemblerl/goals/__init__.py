"""Goals: the question as a reward and a temperature, and the estimator of its answer.

* `Minimize`, `Maximize`: the best value of a variable, an expression or a callable,
  among the members that keep to constraints
"""

from ensemblerl.goals.maximize import Maximize
from ensemblerl.goals.minimize import Minimize

__all__ = ["Maximize", "Minimize"]
