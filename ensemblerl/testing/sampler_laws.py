"""The laws of `ensemblerl.protocols.Sampler`, one function a law."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import numpy as np

from ensemblerl.protocols import Sampler
from ensemblerl.records import Cube, Proposals
from ensemblerl.testing.core import global_state_untouched, plain_state, require, same
from ensemblerl.testing.cubes import example_cubes
from ensemblerl.testing.density_laws import density_law, no_density_law
from ensemblerl.testing.rehearsal import Rehearsal, play
from ensemblerl.testing.telling_laws import telling_laws

Make = Callable[[Cube], Sampler]


def check_sampler(
    make: Make, cube: Cube | None = None, *, n: int = 200, seed: int = 0, draws: int = 4000
) -> None:
    """Hold a sampler to every law it claims.

    Parameters
    ----------
    make : Cube -> Sampler, a fresh and equally built one at each call
    cube : the cube to try; None runs over `ensemblerl.testing.cubes.example_cubes`
    n : members of each rehearsed campaign
    seed : of everything random
    draws : points that the density is judged by

    Raises
    ------
    BrokenLawError
        An AssertionError that names the law and says what came.
    """
    for chosen in [cube] if cube is not None else example_cubes().values():
        declared_law(make, chosen)
        points_laws(make, chosen, n, seed)
        same_rng_law(make, chosen, n, seed)
        left_alone_law(make, chosen, n, seed)
        telling_laws(make, chosen, n, seed)
        restore_laws(make, chosen, n, seed)
        (density_law if make(chosen).has_density else no_density_law)(make, chosen, n, seed, draws)


def declared_law(make: Make, cube: Cube) -> None:
    """Name, capabilities and description are there, and the description is JSON."""
    one, two = make(cube), make(cube)
    law = "declares itself"
    require(isinstance(one, Sampler), law, f"{type(one).__name__} lacks parts of the protocol")
    require(isinstance(one.name, str) and one.name, law, f"name is {one.name!r}")
    flags = (one.has_density, one.order_free)
    require(all(isinstance(flag, bool) for flag in flags), law, f"capabilities are {flags}")
    told = json.dumps(one.describe(), sort_keys=True, allow_nan=False)
    require(told == json.dumps(two.describe(), sort_keys=True), law, "equal ones differ: " + told)


def points_laws(make: Make, cube: Cube, n: int, seed: int) -> None:
    """Every proposal of a campaign, and of asks of one and of many."""
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}

    def check(proposals: Proposals, size: int) -> None:
        came = f"{len(proposals)} points, asked for {size}"
        require(len(proposals) <= size, "at most n", came)
        point_laws(proposals, cube)
        notes_law(proposals, seen)

    sampler, game = make(cube), Rehearsal(cube.ndim, seed)
    play(sampler, game, np.random.default_rng(seed), n, check=check)
    for size in (1, 2, 7, 64):
        check(sampler.ask(size, np.random.default_rng([seed, game.ledger.n, size])), size)


def point_laws(proposals: Proposals, cube: Cube) -> None:
    """Shape, open cube, inactive coordinates and constraint of one ask."""
    unit = proposals.unit
    wanted = f"(n, {cube.ndim}) float64"
    fits = unit.ndim == 2 and unit.shape[1] == cube.ndim and unit.dtype == np.float64
    require(fits, "shape", f"unit is {unit.shape} {unit.dtype}, wanted {wanted}")
    outside = ~((unit > 0.0) & (unit < 1.0))
    require(not outside.any(), "open cube", f"coordinates {unit[outside][:3]}, wanted (0, 1)")
    idle = unit[~cube.active(unit)]
    require((idle == 0.5).all(), "inactive at 0.5", f"inactive coordinates at {idle[:3]}")
    kept = np.ones(len(unit), bool) if cube.feasible is None else cube.feasible(unit)
    require(kept.all(), "known constraint", f"{(~kept).sum()} of {len(unit)} are infeasible")


def notes_law(proposals: Proposals, seen: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """A row a point, numbers or text; a name keeps its kind and shape, as its column does."""
    n, law = len(proposals), "notes"
    for name, note in proposals.notes.items():
        require(isinstance(note, np.ndarray), law, f"{name} is a {type(note).__name__}")
        require(note.shape[:1] == (n,), law, f"{name} has shape {note.shape} for {n} points")
        require(note.dtype.kind in "biufU", law, f"{name} has dtype {note.dtype}")
        kind = (note.dtype.kind, note.shape[1:])
        first = seen.setdefault(name, kind)
        require(kind == first, law, f"{name} was {first} and became {kind}")


def same_rng_law(make: Make, cube: Cube, n: int, seed: int) -> None:
    """Two equal campaigns ask for equal points, whatever the global random state."""
    law = "same rng, same proposals"
    asked = []
    for other in (1, 2):
        np.random.seed(other)  # noqa: NPY002
        with global_state_untouched(law):
            rng = np.random.default_rng(seed)
            asked.append(play(make(cube), Rehearsal(cube.ndim, seed), rng, n))
    require(same(asked[0], asked[1]), law, "two equal campaigns parted")


def left_alone_law(make: Make, cube: Cube, n: int, seed: int) -> None:
    """Neither tell nor ask writes into the arrays that were told."""
    sampler, game = make(cube), Rehearsal(cube.ndim, seed)
    play(sampler, game, np.random.default_rng(seed), n)
    number = np.arange(game.ledger.n)
    told = game.members(number), game.known(number)
    before = copy.deepcopy(told)
    sampler.tell(*told)
    sampler.ask(5, np.random.default_rng([seed, game.ledger.n]))
    require(same(told, before), "told is left alone", "what was told was written to")


def restore_laws(make: Make, cube: Cube, n: int, seed: int) -> None:
    """A state is a plain snapshot, and a fresh sampler goes on from it exactly, learning on."""
    sampler, game = make(cube), Rehearsal(cube.ndim, seed)
    play(sampler, game, np.random.default_rng(seed), n)
    state = sampler.state_dict()
    wrong = plain_state(state)
    require(not wrong, "state is plain", wrong)
    kept, other, other_game = copy.deepcopy(state), make(cube), game.copy()
    asked = play(sampler, game, np.random.default_rng(seed + 1), 24, most=8)
    require(same(state, kept), "state is a snapshot", "it changed while the sampler went on")
    other.load_state_dict(copy.deepcopy(kept))
    again = play(other, other_game, np.random.default_rng(seed + 1), 24, most=8)
    first = next(
        (i for i, (a, b) in enumerate(zip(asked, again, strict=False)) if not same(a, b)), -1
    )
    parted = f"ask {first} after the restore was another"
    require(same(asked, again), "goes on exactly after a restore", parted)
