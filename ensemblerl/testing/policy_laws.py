"""The laws of `ensemblerl.agents.base.Policy`, one function a law."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import cloudpickle
import numpy as np

from ensemblerl.agents.base import Policy, Weights
from ensemblerl.agents.policies.defended import Defended
from ensemblerl.records import Cube, FloatArray, cubes_differ
from ensemblerl.testing.core import global_state_untouched, require, same
from ensemblerl.testing.cubes import example_cubes
from ensemblerl.testing.density_laws import SIGMAS, weights_law

Make = Callable[[Cube], Policy]
Learnt = Callable[[Policy], Policy]
SOME = 64
"""Points where laws without statistics are looked at."""


def check_policy(
    make: Make,
    cube: Cube | None = None,
    *,
    learnt: Learnt | None = None,
    draws: int = 4000,
    seed: int = 0,
) -> None:
    """Hold a policy to every law.

    Parameters
    ----------
    make : Cube -> Policy, a fresh and equally built one at each call
    cube : the cube to try; None runs over `ensemblerl.testing.cubes.example_cubes`
    learnt : Policy -> the same with other weights, which is held to the laws as well: an untrained
        policy is often the prior, where little can be wrong. `ensemblerl.testing.taught` makes
        one of a learner.
    draws : points that the density is judged by
    seed : of everything random

    Raises
    ------
    BrokenLawError
        An AssertionError that names the law and says what came.
    """
    for chosen in [cube] if cube is not None else example_cubes().values():
        declared_law(make, chosen)
        for policy in [make(chosen)] if learnt is None else [make(chosen), learnt(make(chosen))]:
            points_law(policy, chosen, seed)
            same_rng_law(policy, seed)
            steps_law(policy, seed)
            weights_laws(policy, seed)
            immutable_law(policy, seed)
            pickle_law(policy, seed)
            density_law(policy, draws, seed)
            widened_law(policy, draws, seed)


def declared_law(make: Make, cube: Cube) -> None:
    """Its parts are there, its cube is the one given, and its description is JSON."""
    one, two, law = make(cube), make(cube), "declares itself"
    require(isinstance(one, Policy), law, f"{type(one).__name__} lacks parts of the protocol")
    other = cubes_differ(one.cube, cube)
    require(not other, law, f"its cube has other {other} than the one given")
    whole = isinstance(one.n_steps, int) and one.n_steps >= 1
    require(whole, law, f"n_steps is {one.n_steps!r}, wanted a whole number >= 1")
    told = json.dumps(one.describe(), sort_keys=True, allow_nan=False)
    require(told == json.dumps(two.describe(), sort_keys=True), law, "equal ones differ: " + told)
    require(same(one.weights, two.weights), law, "equal ones have other weights")


def points_law(policy: Policy, cube: Cube, seed: int) -> None:
    """Draws: float64 of their shape, in the open cube, inactive coordinates at 0.5."""
    for n in (0, 1, 7, 10 * SOME):
        unit = policy.sample(n, None, np.random.default_rng([seed, n]))
        came, wanted = f"{unit.shape} {unit.dtype}", (n, cube.ndim)
        require(unit.shape == wanted and unit.dtype == np.float64, "shape", f"unit is {came}")
        outside = ~((unit > 0.0) & (unit < 1.0))
        require(not outside.any(), "open cube", f"coordinates {unit[outside][:3]}, wanted (0, 1)")
        idle = unit[~cube.active(unit)]
        require((idle == 0.5).all(), "inactive at 0.5", f"inactive coordinates at {idle[:3]}")


def same_rng_law(policy: Policy, seed: int) -> None:
    """Draws are a function of the weights and the generator."""
    law, drawn = "same rng, same draws", []
    for other in (1, 2):
        np.random.seed(other)  # noqa: NPY002
        with global_state_untouched(law):
            drawn.append(policy.sample(SOME, None, np.random.default_rng(seed)))
            policy.log_prob(drawn[-1])
    require(same(drawn[0], drawn[1]), law, "two equal draws parted")


def steps_law(policy: Policy, seed: int) -> None:
    """(n, T) steps that sum to (n,) log_prob: 0 where inactive, each row for itself.

    Looked at where the policy draws and where the prior does. Which steps decide about which
    coordinate is the policy's affair; one with a step or more for each of them has as many zeros
    as coordinates are inactive.
    """
    rng = np.random.default_rng(seed)
    anywhere = policy.cube.canonical(np.maximum(rng.random((SOME, policy.cube.ndim)), 1e-12))
    for unit in (policy.sample(SOME, None, rng), anywhere, anywhere[:0]):
        log_prob, steps = policy.log_prob(unit), policy.steps(unit)
        for name, found, shape in (
            ("log_prob", log_prob, (len(unit),)),
            ("steps", steps, (len(unit), policy.n_steps)),
        ):
            fits = found.shape == shape and found.dtype == np.float64
            wanted = f"wanted {shape} float64"
            require(fits, "shape", f"{name} is {found.shape} {found.dtype}, {wanted}")
        sound = (log_prob < np.inf).all() and (unit is anywhere or np.isfinite(log_prob).all())
        require(sound, "density", f"log_prob {log_prob[~np.isfinite(log_prob)][:3]}")
        total = steps.sum(axis=1)
        came = f"{total[:3]} for log_prob {log_prob[:3]}"
        require(_near(total, log_prob), "steps sum to log_prob", came)
        if policy.n_steps >= policy.cube.ndim:
            idle, zero = (~policy.cube.active(unit)).sum(axis=1), (steps == 0.0).sum(axis=1)
            came = f"{zero[zero < idle][:3]} zeros, {idle[zero < idle][:3]} coordinates inactive"
            require((zero >= idle).all(), "inactive steps are 0", came)
        alone = np.array([policy.log_prob(row[None])[0] for row in unit[:5]])
        came = f"{alone[:3]} alone, {log_prob[:3]} among others"
        require(_near(alone, log_prob[:5]), "each row for itself", came)


def density_law(policy: Policy, draws: int, seed: int) -> None:
    """Importance weights undo the policy: the weighted draws are uniform in all cells.

    Half of the draws are the prior's, so that no weight is beyond 2 however narrow the policy is;
    see `ensemblerl.testing.density_laws.weights_law`. A known constraint makes no difference:
    policies ignore it.
    """
    half = Defended(policy, 0.5, 0.0)
    unit = half.sample(draws, None, np.random.default_rng(seed))
    weights_law(np.exp(-half.log_prob(unit)), unit, policy.cube)


def widened_law(policy: Policy, draws: int, seed: int) -> None:
    """The widened policy is a sound one of the same shape, and no narrower."""
    wide, law = policy.widened(), "widened is wider"
    require(isinstance(wide, Policy), law, f"a {type(wide).__name__}, wanted a policy")
    points_law(wide, policy.cube, seed)
    steps_law(wide, seed)
    density_law(wide, draws, seed)
    each = [-p.log_prob(p.sample(draws, None, np.random.default_rng(seed))) for p in (policy, wide)]
    gain = float(each[1].mean() - each[0].mean())
    error = float(np.sqrt((each[0].var() + each[1].var()) / draws))
    require(
        gain >= -SIGMAS * error - 1e-9, law, f"its entropy is {gain:+.3g} away, error {error:.3g}"
    )


def weights_laws(policy: Policy, seed: int) -> None:
    """Weights make the same policy again, are its own, and fit or are refused."""
    given = copy.deepcopy(policy.weights)
    again = policy.with_weights(given)
    before = _seen(policy, seed)
    law = "weights are the policy"
    require(type(again) is type(policy), law, f"with_weights gave a {type(again).__name__}")
    require(same(_seen(again, seed), before), law, "one of the same weights is another")
    law = "weights are its own"
    for arrays in (given, again.weights):
        for name, array in arrays.items():
            if array.flags.writeable:
                array[...] = array + 1
            arrays[name] = array + 1
    require(same(_seen(again, seed), before), law, "it changed with arrays given or handed out")
    for wrong, what in _misfits(policy.weights):
        refused_law(policy, wrong, what)


def refused_law(policy: Policy, wrong: Weights, what: str) -> None:
    """A ValueError for weights that are not its own."""
    law = "wrong weights are refused"
    try:
        policy.with_weights(wrong)
    except ValueError:
        return
    except Exception as error:
        require(False, law, f"{what}: {error!r}, wanted a ValueError")
    require(False, law, f"{what}: accepted, wanted a ValueError")


def immutable_law(policy: Policy, seed: int) -> None:
    """Drawing, asking for a density and widening change neither the policy nor the points."""
    law, before = "nothing changes it", copy.deepcopy(policy.weights)
    unit = policy.sample(SOME, None, np.random.default_rng(seed))
    kept = unit.copy()
    first = policy.log_prob(unit)
    policy.steps(unit)
    policy.widened()
    policy.sample(3, None, np.random.default_rng(seed))
    require(same(policy.weights, before), law, "its weights changed by use")
    require(same(unit, kept), law, "it wrote to the points it was given")
    require(same(policy.log_prob(unit), first), law, "the same points have another density")


def pickle_law(policy: Policy, seed: int) -> None:
    """It goes to another process, as the learning one, and is the same there."""
    law = "pickles"
    try:
        other = cloudpickle.loads(cloudpickle.dumps(policy))
    except Exception as error:
        require(False, law, repr(error))
    require(same(_seen(other, seed), _seen(policy, seed)), law, "it came back as another")


def _seen(policy: Policy, seed: int) -> tuple[Weights, FloatArray, FloatArray]:
    """All that can be seen of it, bit for bit."""
    unit = policy.sample(SOME, None, np.random.default_rng(seed))
    return copy.deepcopy(policy.weights), unit, policy.steps(unit)


def _misfits(weights: Weights) -> list[tuple[Weights, str]]:
    """Weights of other names and shapes."""
    name = max(weights, key=lambda key: weights[key].size)
    less = {key: array for key, array in weights.items() if key != name}
    longer = np.concatenate([np.atleast_1d(weights[name])] * 2)
    return [
        (less, f"without {name}"),
        ({**weights, "of_nobody": np.zeros(1)}, "with one more array"),
        ({**less, name: longer}, f"{name} of shape {longer.shape}"),
        ({**less, name: weights[name][None]}, f"{name} with one more axis"),
    ]


def _near(one: FloatArray, two: FloatArray) -> bool:
    """Equal but for rounding."""
    return bool(np.allclose(one, two, rtol=1e-8, atol=1e-8))
