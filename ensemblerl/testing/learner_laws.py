"""The laws of `ensemblerl.agents.base.Learner`, one function a law."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy

import numpy as np

from ensemblerl.agents.base import Learner, Lesson, Memory, Policy, Weights
from ensemblerl.agents.replay import Replay
from ensemblerl.records import Cube, Demands, FloatArray, cubes_differ
from ensemblerl.testing.core import global_state_untouched, plain_state, require, same
from ensemblerl.testing.cubes import example_cubes, real_cube
from ensemblerl.testing.lessons import RANKED, level, memory_of, rehearse, slope

Make = Callable[[], Learner]
MakePolicy = Callable[[Cube], Policy]
DEMANDS = {
    "ranked": RANKED,
    "the best alone": Demands(),
    "covering": Demands(temperature=1.0, covering=True),
}
SURE = 3.0
"""Standard errors by which the mean reward has to rise."""


def check_learner(
    make: Make,
    policy: MakePolicy,
    cube: Cube | None = None,
    *,
    n: int = 200,
    lessons: int = 24,
    seed: int = 0,
) -> None:
    """Hold a learner to every law, on a policy that it can teach.

    Parameters
    ----------
    make : a fresh and equally built learner at each call
    policy : Cube -> Policy, untrained
    cube : the cube to try; None runs over `ensemblerl.testing.cubes.example_cubes`
    n : rehearsed members that it learns from; some failed, some were lost
    lessons : after which the policy must have got better on a problem of one dimension
    seed : of everything random

    Raises
    ------
    BrokenLawError
        An AssertionError that names the law and says what came.
    """
    declared_law(make)
    for chosen in [cube] if cube is not None else example_cubes().values():
        for demands in DEMANDS.values():
            lesson_laws(make, policy(chosen), n, seed, demands)
        same_rng_law(make, policy(chosen), n, seed)
        restore_laws(make, policy(chosen), n, seed)
        hard_rows_law(make, policy(chosen), n, seed)
    better_law(make, policy(real_cube(1)), lessons, seed)


def declared_law(make: Make) -> None:
    """Name and description are there, and the description is JSON."""
    one, two, law = make(), make(), "declares itself"
    require(isinstance(one, Learner), law, f"{type(one).__name__} lacks parts of the protocol")
    require(isinstance(one.name, str) and one.name, law, f"name is {one.name!r}")
    told = json.dumps(one.describe(), sort_keys=True, allow_nan=False)
    require(told == json.dumps(two.describe(), sort_keys=True), law, "equal ones differ: " + told)


def lesson_laws(make: Make, policy: Policy, n: int, seed: int, demands: Demands) -> None:
    """What comes of a lesson, and what must not: the rows and the old policy stay as they are."""
    learner, memory = make(), memory_of(policy, n, seed)
    rows = deepcopy(Replay.rows(memory))
    for i in range(2):
        before = deepcopy(policy.weights)
        lesson = learner.learn(policy, memory, demands, np.random.default_rng([seed, i]))
        same_shape_law(lesson, policy)
        metrics_law(lesson)
        require(same(policy.weights, before), "the old policy stays", "its weights changed")
        kept = all(same(lent, rows) for lent in (*memory.__dict__.get("lent", ()), memory.rows()))
        require(kept, "rows are left alone", "a lesson wrote to the rows of the memory")
        policy = lesson.policy


def same_shape_law(lesson: Lesson, policy: Policy) -> None:
    """A policy of the same cube and shapes, all of it finite."""
    law, new = "a policy of the same shape", lesson.policy
    require(isinstance(new, Policy), law, f"a {type(new).__name__}, wanted a policy")
    other = cubes_differ(new.cube, policy.cube)
    require(not other, law, f"its cube has other {other}")
    came, wanted = (_shapes(p.weights) for p in (new, policy))
    require(came == wanted, law, f"weights of shapes {came}, wanted {wanted}")
    _finite(new, "finite weights", "after rehearsed rows")


def metrics_law(lesson: Lesson) -> None:
    """Name -> finite float, of rows that tell something."""
    for name, value in lesson.metrics.items():
        fits = isinstance(name, str) and isinstance(value, float) and np.isfinite(value)
        require(fits, "metrics", f"{name!r} is {value!r}, wanted a finite float")


def same_rng_law(make: Make, policy: Policy, n: int, seed: int) -> None:
    """Same state, rows and generator, same policy bit for bit, whatever the global state."""
    law, came = "same rng, same lesson", []
    for other in (1, 2):
        np.random.seed(other)  # noqa: NPY002
        with global_state_untouched(law):
            came.append(_taught(make(), policy, memory_of(policy, n, seed), seed).weights)
    require(same(came[0], came[1]), law, "two equal lessons parted")


def restore_laws(make: Make, policy: Policy, n: int, seed: int) -> None:
    """A state is a plain snapshot, and a fresh learner goes on from it exactly."""
    learner, memory = make(), memory_of(policy, n, seed)
    policy = _taught(learner, policy, memory, seed)
    state = learner.state_dict()
    wrong = plain_state(state)
    require(not wrong, "state is plain", wrong)
    kept, given, again, other = deepcopy(state), deepcopy(state), deepcopy(memory), make()
    first = _taught(learner, policy, memory, seed + 1)
    require(same(state, kept), "state is a snapshot", "it changed while the learner went on")
    other.load_state_dict(given)
    second = _taught(other, policy, again, seed + 1)
    law = "goes on exactly after a restore"
    require(same(first.weights, second.weights), law, "lessons after the restore were others")
    require(same(learner.state_dict(), other.state_dict()), law, "the states after it are others")
    require(same(given, kept), "state is a snapshot", "the one taken up was written to")


def hard_rows_law(make: Make, policy: Policy, n: int, seed: int) -> None:
    """Rows that tell little: all failed, all alike, one alone. Nothing raises, all stays finite."""
    law, failed = "rows that tell little", np.array([0.0, 0.9, 0.1])
    sure = np.array([1.0, 0.0, 0.0])
    for what, memory in {
        "all failed": memory_of(policy, n, seed, chances=failed),
        "equal rewards": memory_of(policy, n, seed, reward=level, chances=sure),
        "one row": memory_of(policy, 1, seed, chances=sure),
    }.items():
        for asked, demands in DEMANDS.items():
            where = f"{what}, demands {asked}"
            try:
                new = _taught(make(), policy, memory, seed, demands)
            except Exception as error:
                require(False, law, f"{where}: {error!r}")
            _finite(new, law, where)


def better_law(make: Make, policy: Policy, lessons: int, seed: int) -> None:
    """On a slope of one dimension the mean reward of the draws rises."""
    learner, memory, start = make(), Replay(policy.n_steps, policy.cube.ndim), policy
    for i in range(lessons):
        rng = np.random.default_rng([seed, i])
        rehearse(memory, policy, 32, rng, first=32 * i)
        policy = learner.learn(policy, memory, RANKED, rng).policy
    before, after = (_rewards(p, seed) for p in (start, policy))
    gain = float(after.mean() - before.mean())
    error = float(np.sqrt((before.var() + after.var()) / len(after)))
    came = f"mean reward {gain:+.4f} after {lessons} lessons, wanted more than {SURE * error:.4f}"
    require(gain > SURE * error, "the mean reward rises", came)


def _taught(
    learner: Learner, policy: Policy, memory: Memory, seed: int, demands: Demands = RANKED
) -> Policy:
    """After two lessons."""
    for i in range(2):
        policy = learner.learn(policy, memory, demands, np.random.default_rng([seed, i])).policy
    return policy


def _rewards(policy: Policy, seed: int) -> FloatArray:
    """(2000,) of draws."""
    rng = np.random.default_rng([seed, 10**6])
    return slope(policy.sample(2000, None, rng), rng)


def _finite(policy: Policy, law: str, where: str) -> None:
    """Weights, and the density anywhere."""
    wrong = [name for name, array in policy.weights.items() if not np.isfinite(array).all()]
    require(not wrong, law, f"{where}: {', '.join(wrong)} not finite")
    rng = np.random.default_rng(0)
    log_prob = policy.log_prob(policy.sample(64, None, rng))
    require(np.isfinite(log_prob).all(), law, f"{where}: log_prob of its draws not finite")


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(array) for name, array in weights.items()}
