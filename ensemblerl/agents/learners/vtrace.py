"""V-trace actor-critic on the points' steps.

A point is an episode: the state ``x_s`` is what the steps before s have fixed, the action a_s the
token of step s, the discount 1. Every step costs ``r_s = -alpha log pi(a_s|x_s)/p(a_s|x_s)``, and
the finished point is worth R. So the value of a state is the expected soft return,

    V(x_s) = E_pi[R - alpha sum_{t >= s} log pi(a_t|x_t)/p(a_t|x_t)],

and no policy has a larger V at the empty point than ``p exp(R / alpha) / Z``. With that policy
and its V, ``r_s + V(x_{s+1}) - V(x_s)`` is 0 for every token in every state: all advantages
vanish, whatever multiplies them. So clipping changes the way there, not the end of it. (The
gradient of the log pi inside r_s has mean 0 and is left out.)

Ratios are those of single steps, so the states are weighed as the behaviour met them, as in the
paper: unclipped, the mean gradient is ``sum_x d_mu(x) sum_a grad pi(a|x) Q(x, a)``.

Espeholt et al. 2018, arXiv 1802.01561, eq. 1 and section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemblerl.agents.base import Weights
from ensemblerl.agents.learners.gradient import GradientLearner
from ensemblerl.agents.learners.minibatch import Judged, Seen
from ensemblerl.records import BoolArray, FloatArray

if TYPE_CHECKING:
    from torch import Tensor

BASELINE_COST = 0.5


def vtrace(
    v: FloatArray,
    v_next: FloatArray,
    r: FloatArray,
    discount: FloatArray | float,
    rho: FloatArray,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """Errors v_s - V(x_s) and the q_s = r_s + gamma_s v_{s+1} of the policy gradient.

    Parameters
    ----------
    v, v_next : (..., T) V(x_s) and V(x_{s+1}); the last of v_next is where it bootstraps from
    r : (..., T) rewards
    discount : (..., T) or a number: gamma
    rho : (..., T) pi / mu of each step
    rho_bar, c_bar : bounds of the ratio in delta and in the trace; infinite for none

    Returns
    -------
    (..., T) errors, (..., T) q. Targets are v + errors, advantages min(rho_bar, rho) (q - v).
    """
    gamma = np.broadcast_to(discount, r.shape)
    c = np.minimum(c_bar, rho)
    delta = np.minimum(rho_bar, rho) * (r + gamma * v_next - v)
    errors, q, later = np.empty_like(delta), np.empty_like(delta), np.zeros_like(delta[..., 0])
    for s in reversed(range(delta.shape[-1])):
        q[..., s] = r[..., s] + gamma[..., s] * (v_next[..., s] + later)
        later = delta[..., s] + gamma[..., s] * c[..., s] * later
        errors[..., s] = later
    return errors, q


def on_the_way(v: FloatArray, active: BoolArray, end: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n, T), (n, T), (n,) -> V(x_s) and V(x_{s+1}); the finished point is worth ``end``.

    An inactive step decides nothing: the state before it is worth what the state after it is.
    """
    before, after, later = np.empty_like(v), np.empty_like(v), end
    for s in reversed(range(v.shape[1])):
        after[:, s] = later
        later = before[:, s] = np.where(active[:, s], v[:, s], later)
    return before, after


def linear(hidden: Tensor, head: Tensor) -> Tensor:
    """(n, T, H), (T, H + 1) -> (n, T) one linear map a step, the last number its constant."""
    return (hidden * head[:, :-1]).sum(dim=2) + head[:, -1]


@dataclass(kw_only=True, eq=False)
class VTrace(GradientLearner):
    """Actor and critic; the critic is linear in what the policy decides from.

    Both shape these features, as in the paper: without the critic's gradient they say too little
    of the value, and the actor follows the critic's errors. ``clip`` is rho-bar and c-bar at once;
    ``corrected=False`` is the plain actor-critic, which takes every ratio as 1. See
    `GradientLearner` for arguments.
    """

    name: str = "vtrace"

    def first_heads(self, seen: Seen) -> Weights:
        """A critic that says the minibatch's mean reward everywhere."""
        _, T, H = seen.hidden.shape
        head = np.zeros((T, H + 1))
        head[:, -1] = np.average(seen.R, weights=seen.rows.weight)
        return {"critic": head}

    def loss(self, seen: Seen, heads: dict[str, Tensor]) -> Judged:
        """The actor's and half of the critic's; a row's priority is its mean absolute error."""
        steps, active = seen.steps.detach().numpy(), seen.active.numpy()
        V = linear(seen.hidden, heads["critic"])
        v, v_next = on_the_way(V.detach().numpy(), active, seen.R)
        rho = self.ratios(steps, seen.rows.steps)
        errors, q = vtrace(v, v_next, -seen.alpha * steps, 1.0, rho, self.rho_bar, self.rho_bar)
        advantage = np.minimum(self.rho_bar, rho) * (q - v)
        new, mean = seen.steps.new_tensor, seen.rows.weight[:, None] / seen.rows.weight.sum()
        actor = -(new(mean * advantage) * seen.steps).sum()
        critic = 0.5 * (new(mean * active) * (new(v + errors) - V) ** 2).sum()
        n_active = max(active.sum(), 1)
        metrics = {
            "clipped": float((active & (rho > self.rho_bar)).sum() / n_active),
            "critic": critic.item(),
        }
        priority = (active * np.abs(errors)).mean(axis=1)
        return Judged(actor + BASELINE_COST * critic, priority, metrics)
