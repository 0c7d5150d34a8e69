"""What people may give as a sampler, and what executors show of themselves."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ensemblerl.cluster.local import LocalDask
from ensemblerl.executors.futures import Futures
from ensemblerl.executors.serial import ByHand, Serial
from ensemblerl.executors.simulated import Simulated
from ensemblerl.parameters import Choice, Integer, Real
from ensemblerl.resolve import as_executor, as_sampler
from ensemblerl.samplers import Chain, LatinHypercube, Listed, Portfolio, Sobol, Uniform
from ensemblerl.space import Space

SPACE = Space(x=Real(0, 1), n=Integer(1, 4))


class Quota(Uniform):
    """Wants to know the number of members, by name."""

    def __init__(self, cube, *, n):
        super().__init__(cube, name="quota")
        self.n = n


class Optional(Uniform):
    def __init__(self, cube, *, n=7):
        super().__init__(cube, name="optional")
        self.n = n


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (None, Portfolio),
        ("sobol", Sobol),
        ("uniform", Uniform),
        ("lhs", LatinHypercube),
        (Sobol, Sobol),
        (LatinHypercube, LatinHypercube),
        (Sobol(SPACE.cube), Sobol),
        (lambda c: Chain([Sobol(c)]), Chain),
        (lambda cube, n: LatinHypercube(cube, n), LatinHypercube),
        (Quota, Quota),
    ],
)
def test_what_makes_a_sampler(given, kind):
    sampler = as_sampler(given, SPACE, 12)
    assert type(sampler) is kind
    assert sampler.cube is SPACE.cube
    assert getattr(sampler, "n", 12) == 12


def test_the_default_is_the_agent_sobol_and_a_plain_search():
    sampler = as_sampler(None, SPACE, 12)
    assert [part.name for part in sampler.parts] == ["agent", "sobol", "differential_evolution"]
    assert sampler.shares.tolist() == pytest.approx([0.85, 0.05, 0.1])
    assert sampler.credit


def test_an_n_with_a_default_is_not_the_number_of_members():
    assert as_sampler(Optional, SPACE, 12).n == 7


def test_one_hypercube_for_all_members():
    unit = as_sampler("lhs", SPACE, 8).ask(8, np.random.default_rng(0)).unit
    assert sorted((8 * unit[:, 0]).astype(int)) == list(range(8))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Listed, r"sampler: Listed\(.*missing a required argument: 'unit'; wanted .*lambda cube"),
        (lambda: None, "sampler: .*too many positional arguments"),
        (Chain, "parts: wanted a list of samplers, got Cube"),
        (Portfolio, "parts: wanted a list of samplers, got Cube"),
        (lambda cube: 3, "sampler: the callable gave no sampler but int"),
        (3, "sampler: wanted a sampler, a callable of the cube"),
    ],
)
def test_what_makes_none(given, message):
    with pytest.raises(TypeError, match=message):
        as_sampler(given, SPACE, 12)


def test_wrong_names_and_numbers():
    with pytest.raises(ValueError, match=r"sampler: wanted one of \['lhs', 'sobol', 'uniform'\]"):
        as_sampler("latin", SPACE, 12)
    with pytest.raises(ValueError, match="n_members: wanted a whole number >= 1, got 0"):
        as_sampler("lhs", SPACE, 0)


@pytest.mark.parametrize(
    ("other", "which"),
    [
        (Space(x=Real(0, 1)), "kinds, levels, edges, parents"),
        (Space(x=Real(0, 1), n=Integer(1, 5)), "levels, edges"),
        (Space(x=Real(0, 1), n=Integer(1, 4, log=True)), "edges"),
        (Space(x=Choice(1, 2, 3, 4), n=Integer(1, 4)), "kinds, levels, edges"),
    ],
)
def test_a_sampler_of_another_space(other, which):
    with pytest.raises(ValueError, match=rf"sampler: .*Sobol\(ndim=.*: {which} differ"):
        as_sampler(Sobol(other.cube), SPACE, 12)


def test_a_sampler_of_an_equal_space_and_one_without_a_cube():
    equal = Sobol(Space(x=Real(5, 9), n=Integer(2, 5)).cube)
    assert as_sampler(equal, SPACE, 12) is equal
    guest = Sobol(Space(x=Real(0, 1)).cube)
    del guest.cube
    assert as_sampler(guest, SPACE, 12) is guest


def test_own_points_go_first():
    space = Space(x=Real(0, 1), n=Integer(1, 4), start=[{"x": 0.25, "n": 2}])
    sampler = as_sampler("lhs", space, 12)
    assert sampler.ask(2, np.random.default_rng(0)).notes["proposer"].tolist() == [
        "start",
        "latin_hypercube",
    ]


def test_executors_show_what_was_given():
    assert repr(Serial()) == "Serial()"
    assert repr(ByHand()) == "ByHand()"
    assert repr(Simulated()) == "Simulated()"
    assert repr(Simulated(3, order="shuffled", seed=2)) == (
        "Simulated(n_workers=3, order='shuffled', seed=2)"
    )
    with ThreadPoolExecutor(2) as pool:
        assert repr(Futures(pool)) == "Futures(ThreadPoolExecutor, n_workers=2)"
    assert repr(as_executor(None)) == "LocalDask()"
    assert repr(LocalDask(2)) == "LocalDask(n_workers=2)"
