"""A neural autoregressive distribution estimator (NADE) over token strings.

Larochelle and Murray 2011, The neural autoregressive distribution estimator, PMLR 15:29-37, with
a residual layer above theirs. For the tokens x_1 ... x_T of a string, with prior p,

    a_1 = c,    a_{t+1} = a_t + E[t, x_t]                    (nothing is added if x_t is inactive)
    h_t = tanh(a_t),    g_t = h_t + tanh(h_t U + d)
    q(x_t | x_<t)  ∝  p(x_t) exp( heat (g_t V_t + b_t)[x_t] )

V and b start at 0: the untrained policy is the prior. Below, T comes before n, so that one
product per token does all points. The maths are written once, for numpy and torch arrays alike.

Shapes: ``n`` strings, ``T`` tokens, ``K`` letters, ``H`` hidden units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.agents.base import Weights
from ensemblerl.agents.policies.alphabet import Alphabet
from ensemblerl.records import AnyArray, FloatArray, IntArray

TRAINABLE = ("c", "E", "U", "d", "V", "b")
"""The weights a learner optimises; ``heat`` is not among them."""


class Maths(NamedTuple):
    """What numpy and torch do not both understand in the same words, and what they do.

    ``logsumexp`` is over the last axis; ``gather(x, i)`` picks x[..., i[...]] of it.
    """

    tanh: Callable[..., Any]
    cumsum: Callable[..., Any]
    concatenate: Callable[..., Any]
    zeros_like: Callable[..., Any]
    logsumexp: Callable[..., Any]
    gather: Callable[..., Any]


class Strings(NamedTuple):
    """``place`` (T, 1) counts tokens, ``letter`` and ``active`` are (T, n), ``prior`` (T, 1, K)."""

    place: Any
    letter: Any
    active: Any
    prior: Any


def initial_weights(alphabet: Alphabet, hidden: int, seed: int) -> Weights:
    """Random features, no learnt part: c (H,), E (T, K, H), U (H, H), d (H,), V, b, heat (1,)."""
    rng = np.random.default_rng(seed)
    T, K = alphabet.log_prior.shape
    return {
        # a_T has variance 2 or so, whatever T: neither linear nor saturated.
        "c": rng.normal(size=hidden),
        "E": rng.normal(size=(T, K, hidden)) / np.sqrt(T),
        "U": rng.normal(size=(hidden, hidden)) / np.sqrt(hidden),
        "d": rng.normal(size=hidden),
        "V": np.zeros((T, hidden, K)),
        "b": np.zeros((T, K)),
        "heat": np.ones(1),
    }


def forward(m: Maths, w: dict[str, Any], s: Strings) -> tuple[Any, Any]:
    """(T, n) log q / p of each token, 0 where inactive, and (T, n, H) g_t that it came from."""
    g = features(m, w, activations(m, w, s))
    part = learnt(w, g, w["V"], w["b"][:, None])
    # The second term is 0 but for rounding; without it the untrained policy would not be.
    log_z = m.logsumexp(s.prior + part) - m.logsumexp(s.prior)
    return (m.gather(part, s.letter) - log_z) * s.active, g


def activations(m: Maths, w: dict[str, Any], s: Strings) -> Any:
    """(T, n, H) a_t: what the tokens before t add up to."""
    added = w["E"][s.place, s.letter] * s.active[..., None]
    before = m.concatenate((m.zeros_like(added[:1]), added[:-1]))
    return w["c"] + m.cumsum(before, 0)


def features(m: Maths, w: dict[str, Any], a: Any) -> Any:
    """(..., H) a -> (..., H) g."""
    h = m.tanh(a)
    return h + m.tanh(h @ w["U"] + w["d"])


def learnt(w: dict[str, Any], g: Any, V: Any, b: Any) -> Any:
    """(..., n, H) g -> (..., n, K) what the policy adds to the log prior."""
    return w["heat"] * (g @ V + b)


def draw(w: Weights, alphabet: Alphabet, u: FloatArray) -> IntArray:
    """(n, T) uniform numbers -> (n, T) letters, token after token; inactive ones mean nothing."""
    letters = np.zeros(u.shape, dtype=np.int64)
    active = np.ones((len(u), alphabet.cube.ndim), dtype=np.bool_)
    a = np.tile(w["c"], (len(u), 1))
    E, V, b, prior = w["E"], w["V"], w["b"], alphabet.log_prior
    for t, j in enumerate(alphabet.coordinate.tolist()):
        conditional = bool(alphabet.cube.parents[j])
        if conditional:
            alphabet.decide(j, letters, active)
            if not active[:, j].any():
                continue
        part = learnt(w, features(NUMPY, w, a), V[t], b[t])
        letters[:, t] = inverse(prior[t] + part, u[:, t])
        added = E[t, letters[:, t]]
        a += added * active[:, j, None] if conditional else added
    return letters


def inverse(logits: FloatArray, u: FloatArray) -> IntArray:
    """(n, K), (n,) in [0, 1) -> (n,) the letter in whose share of the probability u falls."""
    share = np.exp(logits - logits.max(axis=-1, keepdims=True)).cumsum(axis=-1)
    # A letter without probability is never chosen: its sum is that of the letter before.
    return np.asarray((share <= (u * share[:, -1])[:, None]).sum(axis=-1))


def log_sum_exp(x: FloatArray) -> FloatArray:
    """(..., K) -> (...)."""
    top = x.max(axis=-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(x - top).sum(axis=-1)))


def picked(x: AnyArray, index: IntArray) -> AnyArray:
    """(..., K), (...) -> (...)."""
    return np.take_along_axis(x, index[..., None], axis=-1)[..., 0]


NUMPY = Maths(np.tanh, np.cumsum, np.concatenate, np.zeros_like, log_sum_exp, picked)


def torch_maths() -> Maths:
    """The same of torch, imported here and not before."""
    import torch

    return Maths(
        torch.tanh,
        torch.cumsum,
        torch.concatenate,
        torch.zeros_like,
        lambda x: torch.logsumexp(x, -1),
        lambda x, index: x.gather(-1, index[..., None])[..., 0],
    )
