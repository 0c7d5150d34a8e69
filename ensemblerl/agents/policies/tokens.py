"""A policy that builds a point token by token: every shape of density, on every cube."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ensemblerl.agents.base import Context, Weights
from ensemblerl.agents.policies.alphabet import Alphabet, whole
from ensemblerl.agents.policies.network import (
    NUMPY,
    TRAINABLE,
    Strings,
    draw,
    forward,
    initial_weights,
    torch_maths,
)
from ensemblerl.records import BoolArray, Cube, FloatArray

if TYPE_CHECKING:
    import torch

WIDE = 0.5
"""What a policy's learnt logits are multiplied by when it is widened."""
PRODUCT = 2**18
"""Multiplications per matrix product. Up to so many OpenBLAS starts no threads of its own, which
on a machine that is busy with simulations would wait for each other much longer than they work;
and the hidden units of a block of points stay in the cache."""


class TokenPolicy:
    """An autoregressive density over the tokens that spell a point.

    One token after the other, the most significant of all coordinates first, each with exact
    probabilities given those before; uniform within the finest cell (see `alphabet.Alphabet`
    for the spelling, `network` for the formulas). Tokens of inactive coordinates are passed
    over. Untrained it is the prior. Known constraints are not its business.

    Parameters
    ----------
    cube : where the points lie
    base : letters of a digit
    digits : of a real coordinate: the finest cells are 1 / base**digits wide
    hidden : units of the network
    seed : of its random features

    Raises
    ------
    ValueError
        for arguments that make no policy, naming them

    Examples
    --------
    >>> import numpy as np
    >>> from ensemblerl.records import Cube
    >>> policy = TokenPolicy(Cube(("real",) * 2, (0, 0), (None, None)))
    >>> unit = policy.sample(3, None, np.random.default_rng(0))
    >>> unit.shape, policy.n_steps, policy.log_prob(unit).tolist()
    ((3, 2), 6, [0.0, 0.0, 0.0])
    """

    trainable = TRAINABLE

    def __init__(
        self, cube: Cube, *, base: int = 8, digits: int = 3, hidden: int = 64, seed: int = 0
    ) -> None:
        self.cube = cube
        self.hidden = whole("hidden", hidden, least=1)
        self.seed = whole("seed", seed, least=0)
        self.alphabet = Alphabet(cube, base=base, digits=digits)
        self.n_steps = self.alphabet.n_tokens
        self._weights = kept(initial_weights(self.alphabet, self.hidden, self.seed))

    @property
    def weights(self) -> Weights:
        """The arrays it consists of, read-only."""
        return dict(self._weights)

    def sample(self, n: int, context: Context, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) points."""
        u = rng.random((n, self.n_steps))
        letters = np.empty(u.shape, dtype=np.int64)
        for rows in self._blocks(n):
            letters[rows] = draw(self._weights, self.alphabet, u[rows])
        return self.alphabet.decode(letters, rng)

    def log_prob(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """(n, ndim) -> (n,) log density with respect to the cube."""
        return np.asarray(self.steps(unit, context).sum(axis=1))

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """(n, ndim) -> (n, T) log of each token's probability over the prior's; 0 if inactive."""
        out = np.empty((len(unit), self.n_steps))
        for rows in self._blocks(len(unit)):
            out[rows] = forward(NUMPY, self._weights, self._strings(unit[rows]))[0].T
        return out

    def torch_steps(
        self, weights: Mapping[str, torch.Tensor], unit: FloatArray
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same, to be differentiated.

        Parameters
        ----------
        weights : some of its weights as tensors of one dtype on one device; it has the others
        unit : (n, ndim)

        Returns
        -------
        steps : (n, T)
        hidden : (n, T, H), g_t: what the policy knows before token t, for a value to be read off
        active : (n, T) bool
        """
        import torch

        like = next(iter(weights.values()), torch.empty(0, dtype=torch.float64))
        own = {name: array for name, array in self._weights.items() if name not in weights}
        w = {name: like.new_tensor(array) for name, array in own.items()}
        s = self._strings(unit)
        place, letter, active = (torch.as_tensor(a, device=like.device) for a in s[:3])
        strings = Strings(place, letter, active, like.new_tensor(s.prior))
        steps, g = forward(torch_maths(), {**w, **weights}, strings)
        return steps.T, g.transpose(0, 1), active.T

    def widened(self) -> Self:
        """The same policy with half of what it learnt in its logits."""
        return self.with_weights({**self._weights, "heat": WIDE * self._weights["heat"]})

    def with_weights(self, weights: Weights) -> Self:
        """One of the same shape with other arrays; they are copied.

        Raises
        ------
        ValueError
            for arrays that are not exactly those of this policy, naming one
        """
        check(weights, self._weights)
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__, _weights=kept(weights))
        return new

    def describe(self) -> dict[str, Any]:
        """Class and arguments."""
        spelling = {"base": self.alphabet.base, "digits": self.alphabet.digits}
        network = {"hidden": self.hidden, "seed": self.seed}
        return {"policy": type(self).__name__, **spelling, **network}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(ndim={self.cube.ndim}, n_steps={self.n_steps})"

    def _blocks(self, n: int) -> Iterator[slice]:
        """Pieces of n rows that are small enough."""
        size = max(PRODUCT // self.hidden**2, 8)
        return (slice(first, first + size) for first in range(0, n, size))

    def _strings(self, unit: FloatArray) -> Strings:
        active: BoolArray = self.alphabet.active(unit)
        place = np.arange(self.n_steps)[:, None]
        letters = self.alphabet.encode(unit)
        return Strings(place, letters.T, active.T, self.alphabet.log_prior[:, None])


def check(weights: Weights, wanted: Weights) -> None:
    """Same names, same shapes."""
    if weights.keys() != wanted.keys():
        raise ValueError(f"weights: wanted {sorted(wanted)}, got {sorted(weights)}")
    for name, array in wanted.items():
        shape = np.shape(weights[name])
        if shape != array.shape:
            raise ValueError(f"weights[{name!r}]: wanted the shape {array.shape}, got {shape}")


def kept(weights: Weights) -> Weights:
    """Read-only float64 copies."""
    out = {name: np.array(array, dtype=np.float64) for name, array in weights.items()}
    for array in out.values():
        array.flags.writeable = False
    return out
