"""REINFORCE on whole points: the plain policy gradient, for contrast.

The objective ``E_pi[R - alpha log pi/p]`` is largest at ``p exp(R / alpha) / Z``. Its gradient is
``E_pi[(G - b) grad log pi]`` with ``G = R - alpha log pi/p``: the gradient of the log within G
has mean 0. Rows that mu drew are averaged with pi / mu. At the optimum G is the same at every
point, so clipping the ratios changes the way there, not the end of it.

Williams 1992, doi 10.1007/BF00992696, eq. 4 (REINFORCE with a baseline b).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemblerl.agents.learners.gradient import GradientLearner
from ensemblerl.agents.learners.minibatch import Judged, Seen
from ensemblerl.records import FloatArray

if TYPE_CHECKING:
    from torch import Tensor


def soft_return(R: FloatArray, log_pi: FloatArray, alpha: float) -> FloatArray:
    """(n,) G: the reward less what it costs to depart from the prior."""
    return R - alpha * log_pi


def reinforce(log_pi: Tensor, advantage: Tensor, weight: Tensor, rho: Tensor) -> Tensor:
    """() the loss whose negative gradient is the weighted mean of rho (G - b) grad log pi."""
    return -(weight * rho * advantage * log_pi).sum() / weight.sum()


@dataclass(kw_only=True, eq=False)
class PolicyGradient(GradientLearner):
    """REINFORCE; the baseline is the minibatch's mean of G under the (clipped) ratios.

    The ratio is that of whole points, taken with the density noted at the draw, clipped from
    above by ``clip``; ``corrected=False`` takes it as 1. See `GradientLearner` for arguments.
    """

    name: str = "policy_gradient"

    def loss(self, seen: Seen, heads: dict[str, Tensor]) -> Judged:
        """REINFORCE's; a row's priority is the size of its advantage."""
        log_pi, weight = seen.log_pi, seen.rows.weight
        fixed = log_pi.detach().numpy()
        rho = self.ratios(fixed, seen.rows.log_prob)
        used = np.minimum(rho, self.rho_bar)
        G = soft_return(seen.R, fixed, seen.alpha)
        advantage = G - np.average(G, weights=weight * used)
        new = seen.steps.new_tensor
        loss = reinforce(log_pi, new(advantage), new(weight), new(used))
        metrics = {"clipped": float(np.mean(rho > self.rho_bar)), "return": float(G.mean())}
        return Judged(loss, np.abs(advantage), metrics)
