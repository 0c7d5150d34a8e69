"""Deep-RL agents: a policy with a density, a learner, and what holds them together.

`MaxEnt` assembles them; it is what `explore` uses unless told otherwise. Policies and the replay
need no torch: an agent loads it for the first lesson of a learner that follows a gradient.

* policies: `MixturePolicy` (normal components times categorical factors, for hundreds of members),
  `TokenPolicy` (an autoregressive network over digits and categories, for thousands)
* learners: `MPO` for mixtures; `TrajectoryBalance`, `VTrace`, `PolicyGradient` for tokens
* critics: `Guided`, a learner whose policy also improves on what critics imagine
* `Replay`: what is known, by member number, drawn by priority
"""

from ensemblerl.agents.learners.guided import Guided
from ensemblerl.agents.learners.mpo import MPO
from ensemblerl.agents.learners.policy_gradient import PolicyGradient
from ensemblerl.agents.learners.trajectory_balance import TrajectoryBalance
from ensemblerl.agents.learners.vtrace import VTrace
from ensemblerl.agents.maxent import MaxEnt
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.agents.replay import Replay

__all__ = [
    "MPO",
    "Guided",
    "MaxEnt",
    "MixturePolicy",
    "PolicyGradient",
    "Replay",
    "TokenPolicy",
    "TrajectoryBalance",
    "VTrace",
]


def __dir__() -> list[str]:
    return __all__
