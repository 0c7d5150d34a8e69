"""A policy moved towards weighted points, whatever policy it is: weighted maximum likelihood.

Sought is the maximum of

    sum_i weight_i log pi(x_i)  -  anchor KL(old || pi),

MPO's M-step (Abdolmaleki et al. 2018, arXiv:1806.06920). Some policies have it in closed form;
others climb to it by a few steps of Adam. There the second term is an average over draws z of the
old policy, by the estimator  r - 1 - log r,  r = pi(z) / old(z)  (Schulman 2020, Approximating KL
divergence): without bias, never negative, and of slope exactly 0 at the old policy, whatever the
draws. So the anchor alone moves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemblerl.agents.base import Policy, Weights
from ensemblerl.agents.learners.adam import Adam
from ensemblerl.agents.learners.minibatch import LARGEST, Differentiable
from ensemblerl.agents.learners.mpo import Fitted
from ensemblerl.records import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 6
"""Of Adam: the work of a call is bounded."""
RATE, SHORTER = 0.02, 0.25
"""Of Adam, and what it is multiplied by after a step that went too far."""
DRAWS = 128
"""Of the old policy, that the divergence is estimated from."""


def towards(
    policy: Policy, unit: FloatArray, weight: FloatArray, anchor: float, rng: np.random.Generator
) -> Policy:
    """The policy moved towards points: in closed form where it is `Fitted`, by gradient where it is
    `Differentiable`; any other one is given back as it is.

    A function of its arguments and of the generator alone. Torch is loaded by the gradient's way.

    Parameters
    ----------
    policy : the old one
    unit : (n, ndim) points
    weight : (n,) >= 0; their sum is the number of points they are worth. Where all are 0 the
        policy is given back as it is
    anchor : number of points that the policy as it is counts for
    rng : of a new component, or of the draws for the divergence

    Raises
    ------
    ValueError
        for weights that are negative, not finite, or not one for each point, and an anchor that
        is not positive
    """
    weight = np.asarray(weight, dtype=np.float64)
    if weight.shape != (len(unit),):
        raise ValueError(f"weight: wanted the shape {(len(unit),)}, got {weight.shape}")
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise ValueError("weight: wanted finite numbers >= 0")
    if not 0 < anchor < np.inf:
        raise ValueError(f"anchor: wanted a number > 0, got {anchor!r}")
    if not weight.any():
        return policy
    if isinstance(policy, Fitted):
        return policy.fitted(unit, weight, anchor, rng)
    if isinstance(policy, Differentiable):
        return _climbed(policy, unit, weight, anchor, rng)
    return policy


def _climbed(
    policy: Differentiable,
    unit: FloatArray,
    weight: FloatArray,
    anchor: float,
    rng: np.random.Generator,
) -> Policy:
    """By steps of Adam, whose moments begin anew each time, for what is sought is another. A step
    that makes it worse is taken back, and the next ones are a quarter as long.
    """
    drawn = policy.sample(DRAWS, None, rng)
    sought = Sought(unit, weight, anchor, drawn, policy.log_prob(drawn))
    adam, best = Adam(RATE), dict(policy.weights)
    least, g = sought.loss(policy, best)
    for _ in range(STEPS):
        weights = {**best, **adam.step(best, g)}
        loss, slope = sought.loss(policy, weights)
        if loss < least:
            best, least, g = weights, loss, slope
        else:
            adam.rate *= SHORTER
    return policy.with_weights(best)


class Sought(NamedTuple):
    """What is sought, with its sign turned: ``unit`` (n, ndim), ``weight`` (n,), and ``drawn``
    (m, ndim) from the old policy, with ``before`` (m,) their log densities there.
    """

    unit: FloatArray
    weight: FloatArray
    anchor: float
    drawn: FloatArray
    before: FloatArray

    def loss(self, policy: Differentiable, weights: Weights) -> tuple[float, Weights]:
        """Its value at these weights, and its gradient in those that learn."""
        import torch

        n = len(self.unit)
        tensors = {name: torch.tensor(array) for name, array in weights.items()}
        learnt = {name: tensors[name].requires_grad_() for name in policy.trainable}
        both = np.concatenate([self.unit, self.drawn])
        log_pi = policy.torch_steps(tensors, both)[0].sum(dim=1)
        apart = divergence(log_pi[n:] - torch.tensor(self.before))
        loss = self.anchor * apart - torch.tensor(self.weight) @ log_pi[:n]
        parts = torch.autograd.grad(loss, list(learnt.values()), materialize_grads=True)
        g = {name: part.numpy() for name, part in zip(learnt, parts, strict=True)}
        return loss.item(), g


def divergence(log_ratio: Tensor) -> Tensor:
    """(m,) log of new over old at draws of the old -> () estimate of KL(old || new), never below
    0.
    """
    ratio = log_ratio.clamp(max=LARGEST).exp()
    return (ratio - 1.0 - log_ratio).mean()
