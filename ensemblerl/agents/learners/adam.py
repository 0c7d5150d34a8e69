"""Adam on named arrays, with a state that is plain."""

from __future__ import annotations

import numpy as np

from ensemblerl.agents.base import Weights
from ensemblerl.protocols import State
from ensemblerl.records import AnyArray


def clip_norm(g: Weights, max_norm: float) -> tuple[Weights, float]:
    """The gradient shrunk to a norm of at most ``max_norm``, and the norm it had.

    Pascanu, Mikolov & Bengio 2013, arXiv 1211.5063, algorithm 1.
    """
    norm = float(np.sqrt(sum(float(np.sum(part**2)) for part in g.values())))
    scale = max_norm / norm if norm > max_norm else 1.0
    return {name: scale * part for name, part in g.items()}, norm


def adam(
    theta: AnyArray,
    g: AnyArray,
    m: AnyArray,
    v: AnyArray,
    t: int,
    *,
    alpha: float,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """(...) theta, m and v after step t >= 1. Kingma & Ba 2015, arXiv 1412.6980, algorithm 1."""
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    m_hat = m / (1 - beta_1**t)
    v_hat = v / (1 - beta_2**t)
    return theta - alpha * m_hat / (np.sqrt(v_hat) + epsilon), m, v


class Adam:
    """The moments of every array it has moved.

    Parameters
    ----------
    rate : step size, alpha of the paper
    """

    def __init__(self, rate: float) -> None:
        self.rate, self.t = rate, 0
        self.m: Weights = {}
        self.v: Weights = {}

    def step(self, weights: Weights, g: Weights) -> Weights:
        """The weights that have a gradient, moved; the gradient has their names and shapes.

        Raises
        ------
        ValueError
            An array had another shape before.
        """
        self.t += 1
        moved = {}
        for name, part in g.items():
            m, v = self.m.get(name, np.zeros_like(part)), self.v.get(name, np.zeros_like(part))
            if m.shape != part.shape:
                raise ValueError(
                    f"policy: wanted {name} of shape {m.shape} as before, got {part.shape}"
                )
            moved[name], self.m[name], self.v[name] = adam(
                weights[name], part, m, v, self.t, alpha=self.rate
            )
        return moved

    def state_dict(self) -> State:
        """Number of steps and moments."""
        return {"t": self.t, "m": copied(self.m), "v": copied(self.v)}

    def load_state_dict(self, state: State) -> None:
        """Take them up."""
        self.t, self.m, self.v = int(state["t"]), copied(state["m"]), copied(state["v"])


def copied(weights: Weights) -> Weights:
    """The same in arrays of its own."""
    return {name: np.array(array) for name, array in weights.items()}
