"""Rows to learn from without a campaign: rehearsed members of a policy, and a few lessons."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ensemblerl.agents.base import Learner, Policy, Rows
from ensemblerl.agents.policies.defended import Defended
from ensemblerl.agents.replay import Replay
from ensemblerl.records import AnyArray, Demands, Fate, FloatArray, Proposals, Results
from ensemblerl.testing.rehearsal import FATES, numbered

Reward = Callable[[FloatArray, np.random.Generator], FloatArray]
"""(n, ndim) points -> (n,) rewards; -inf for a member that fails."""
MIXED = np.array([0.6, 0.2, 0.2])
"""Chances of ok, failed and lost."""
RANKED = Demands(temperature=0.1, ranked=True)


class Lent(Replay):
    """A replay that lends its rows to be written to, and remembers to whom."""

    lent: list[Rows]

    def rows(self) -> Rows:
        """All rows, in arrays of their own."""
        own = Rows(**{name: np.array(column) for name, column in vars(super().rows()).items()})
        self.__dict__.setdefault("lent", []).append(own)
        return own


def slope(unit: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(n, ndim) -> (n,) better towards 0.8 everywhere, with noise."""
    return np.asarray(-np.abs(unit - 0.8).mean(axis=1) + 0.05 * rng.standard_normal(len(unit)))


def level(unit: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(n, ndim) -> (n,) the same for all."""
    return np.ones(len(unit))


def rehearse(
    memory: Replay,
    policy: Policy,
    n: int,
    rng: np.random.Generator,
    *,
    reward: Reward = slope,
    chances: FloatArray = MIXED,
    first: int = 0,
) -> None:
    """Add n members drawn from the policy, a fifth of them from the prior, to a memory.

    Parameters
    ----------
    memory : of the policy's shapes
    policy : what draws them
    n : how many
    rng : of draws, fates and rewards
    reward : of those that are ok
    chances : (3,) of ok, failed and lost
    first : number of the first
    """
    serving = Defended(policy, 0.2, 0.0)
    unit = serving.sample(n, None, rng)
    notes: dict[str, AnyArray] = {
        "log_prob": serving.log_prob(unit),
        "log_prob_steps": serving.steps(unit),
        "version": np.zeros(n, dtype=np.int64),
    }
    fate = FATES[rng.choice(3, size=n, p=chances)]
    value = np.where(fate == Fate.ok, reward(unit, rng), np.nan)
    members = numbered(Proposals(unit, notes), first, "rehearsed")
    memory.add(members, Results(value[:, None].copy(), fate, value))


def memory_of(
    policy: Policy, n: int, seed: int, *, reward: Reward = slope, chances: FloatArray = MIXED
) -> Lent:
    """A memory of n rehearsed members."""
    memory = Lent(policy.n_steps, policy.cube.ndim)
    rehearse(memory, policy, n, np.random.default_rng(seed), reward=reward, chances=chances)
    return memory


def taught(
    learner: Callable[[], Learner], *, lessons: int = 8, n: int = 400, seed: int = 0
) -> Callable[[Policy], Policy]:
    """What makes a policy that has learnt something out of an untrained one.

    Parameters
    ----------
    learner : makes one
    lessons : that it gives
    n : rehearsed members that it gives them on
    seed : of members and lessons
    """

    def learnt(policy: Policy) -> Policy:
        memory, one = memory_of(policy, n, seed), learner()
        for i in range(lessons):
            policy = one.learn(policy, memory, RANKED, np.random.default_rng([seed, i])).policy
        return policy

    return learnt
