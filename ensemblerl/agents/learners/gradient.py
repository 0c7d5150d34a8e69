"""Learners that follow a gradient: minibatches from the memory, a loss, Adam.

Torch is loaded by the first lesson, not before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemblerl.agents.base import Lesson, Memory, Policy, Rows, Weights
from ensemblerl.agents.learners.adam import Adam, clip_norm, copied
from ensemblerl.agents.learners.minibatch import (
    Differentiable,
    Judged,
    Seen,
    finite,
    ratio,
    watched,
)
from ensemblerl.protocols import State
from ensemblerl.records import Demands, FloatArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True, eq=False)
class GradientLearner(ABC):
    """Minibatches, gradient steps and bookkeeping; the loss is the subclass's.

    A temperature below ``least_temperature`` (0 is legal in `Demands`) counts as that: R / alpha
    must stay finite. The metric ``temperature`` says what was used. ``covering`` makes no
    difference: the target has every mode.

    Parameters
    ----------
    name : of the learner, in its description
    updates : minibatches a lesson
    batch : rows a minibatch
    rate : step size of Adam
    max_norm : longer gradients are shrunk to this
    least_temperature : floor of alpha, in units of R
    clip : largest ratio of policy to behaviour (rho-bar), at least 1; None for no bound
    corrected : use the ratios; without, rows count as if the policy had drawn them now

    Raises
    ------
    ValueError
        An argument is out of its range.
    """

    name: str = "gradient"
    updates: int = 4
    batch: int = 128
    rate: float = 3e-3
    max_norm: float = 10.0
    least_temperature: float = 0.01
    clip: float | None = 1.0
    corrected: bool = True
    heads: Weights = field(default_factory=dict, init=False, repr=False)
    optimiser: Adam = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check()
        self.optimiser = Adam(self.rate)

    def _check(self) -> None:
        for name in ("updates", "batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: wanted an integer of at least 1, got {value!r}")
        for name in ("rate", "max_norm", "least_temperature"):
            positive(name, getattr(self, name))
        if self.clip is not None and not 1 <= self.clip < np.inf:
            raise ValueError(f"clip: wanted a number of at least 1, or None, got {self.clip!r}")

    @property
    def rho_bar(self) -> float:
        """The clip as a number."""
        return np.inf if self.clip is None else self.clip

    @abstractmethod
    def loss(self, seen: Seen, heads: dict[str, Tensor]) -> Judged:
        """What to descend, in ``seen.steps`` and the heads."""

    def first_heads(self, seen: Seen) -> Weights:
        """Weights of the learner's own, made when it sees its first minibatch."""
        return {}

    def ratios(self, log_pi: FloatArray, log_mu: FloatArray) -> FloatArray:
        """(...) not yet clipped; 1 where the learner does not correct."""
        return ratio(log_pi, log_mu) if self.corrected else np.ones_like(log_pi)

    def learn(
        self, policy: Policy, memory: Memory, demands: Demands, rng: np.random.Generator
    ) -> Lesson:
        """``updates`` minibatches; nothing where the demands are frozen or nothing is known.

        Members that failed count as bad as the worst other row of their minibatch.

        Raises
        ------
        ValueError
            The policy has no ``torch_steps``, or other shapes than the one learnt before.
        """
        if not isinstance(policy, Differentiable):
            raise ValueError(
                "policy: wanted one with trainable and torch_steps, like TokenPolicy, "
                f"got {type(policy).__name__}"
            )
        alpha = max(demands.temperature, self.least_temperature)
        weights, found = dict(policy.weights), []
        for _ in range(0 if demands.frozen else self.updates):
            rows = memory.sample(self.batch, rng)
            if not len(rows):
                break
            R = finite(memory.utility(rows, demands))
            g, judged = self.gradient(policy, weights, rows, R, alpha)
            g, norm = clip_norm(g, self.max_norm)
            if not np.isfinite(norm):  # rewards whose squares are too large to hold
                continue
            moved = self.optimiser.step({**weights, **self.heads}, g)
            self.heads = {name: moved.pop(name) for name in self.heads}
            weights |= moved
            memory.reprioritise(rows.number, judged.priority)
            found.append({**judged.metrics, "loss": judged.loss.item(), "norm": norm})
        metrics = {key: float(np.mean([one[key] for one in found])) for key in (found or [{}])[0]}
        learnt = policy.with_weights(weights) if found else policy
        return Lesson(learnt, {**metrics, "temperature": alpha})

    def gradient(
        self, policy: Differentiable, weights: Weights, rows: Rows, R: FloatArray, alpha: float
    ) -> tuple[Weights, Judged]:
        """Of the loss in the trainable weights and the heads (name -> array), and the loss."""
        import torch

        tensors = {name: torch.tensor(array) for name, array in weights.items()}
        learnt = {name: tensors[name].requires_grad_() for name in policy.trainable}
        seen = Seen(rows, R, alpha, *policy.torch_steps(tensors, rows.unit))
        self.heads = self.heads or self.first_heads(seen)
        heads = {name: torch.tensor(array).requires_grad_() for name, array in self.heads.items()}
        judged = self.loss(seen, heads)
        learnt |= heads
        parts = torch.autograd.grad(judged.loss, list(learnt.values()), materialize_grads=True)
        g = {name: part.numpy() for name, part in zip(learnt, parts, strict=True)}
        return g, judged._replace(metrics={**watched(seen), **judged.metrics})

    def state_dict(self) -> State:
        """Of Adam, and the heads."""
        return {"optimiser": self.optimiser.state_dict(), "heads": copied(self.heads)}

    def load_state_dict(self, state: State) -> None:
        """Take them up."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.heads = copied(state["heads"])

    def describe(self) -> dict[str, Any]:
        """Class and arguments."""
        arguments = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        return {"learner": type(self).__name__, **arguments}


def positive(name: str, value: float) -> None:
    """ValueError unless it is a positive number."""
    if not 0 < value < np.inf:
        raise ValueError(f"{name}: wanted a positive number, got {value!r}")
