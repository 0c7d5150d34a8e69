"""The laws hold for sound parts, and every broken control fails its own law."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from ensemblerl.agents.learners.mpo import MPO
from ensemblerl.agents.learners.policy_gradient import PolicyGradient
from ensemblerl.agents.learners.trajectory_balance import TrajectoryBalance
from ensemblerl.agents.learners.vtrace import VTrace
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.executors.futures import Futures
from ensemblerl.executors.serial import Serial
from ensemblerl.executors.simulated import Simulated
from ensemblerl.records import Cube
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.segments import encode, encode_layout
from ensemblerl.testing import (
    BrokenLawError,
    check_executor,
    check_learner,
    check_policy,
    check_sampler,
    check_store,
    taught,
)
from ensemblerl.testing.box_policy import BoxMover, BoxPolicy
from ensemblerl.testing.broken import BROKEN
from ensemblerl.testing.broken_goals import check_least
from ensemblerl.testing.broken_stores import check_in_memory
from ensemblerl.testing.cubes import conditional_cube
from ensemblerl.testing.density_laws import pooled
from ensemblerl.testing.events import LAYOUT, outcomes
from ensemblerl.testing.learner import BoxLearner
from ensemblerl.testing.memory import InlineExecutor, MemoryStore
from ensemblerl.testing.toys import Least


@pytest.mark.parametrize("seed", [0, 1])
def test_the_sound_learner_keeps_the_laws(seed):
    check_sampler(BoxLearner, seed=seed)


def test_the_sound_goal_keeps_the_laws():
    check_least(Least)


def open_store(path):
    if path.exists():
        return DirectoryStore.resume(path)
    space = {"parameters": {}, "order": []}
    return DirectoryStore.create(path, {"space": space, "goal": {"k": 2}})


def test_the_store_keeps_the_laws():
    layout = {**LAYOUT, "coords": {}}
    head, rows = encode_layout("ab" * 8, layout), {"h": np.arange(3.0)}
    records = [
        (head + encode(o, rows, ["h"]) if o.schema else encode(o, {}, []), o) for o in outcomes()
    ]
    check_store(open_store, records=records)


@pytest.mark.parametrize(
    "make",
    [Serial, Simulated, lambda: Simulated(3, order="shuffled", seed=5)],
    ids=["serial", "simulated", "shuffled"],
)
def test_executors_keep_the_laws(make):
    check_executor(make)


def test_threads_keep_the_laws():
    with ThreadPoolExecutor(3) as pool:
        check_executor(lambda: Futures(pool))


def test_the_memory_store_keeps_the_laws():
    check_in_memory(MemoryStore)


def test_the_inline_executor_keeps_the_laws():
    check_executor(InlineExecutor)


TOKENS = partial(TokenPolicy, hidden=8, base=4, digits=2)


def shaken(policy):
    """Other logits, so that every token counts."""
    rng, weights = np.random.default_rng(3), policy.weights
    for name in ("V", "b"):
        weights[name] = 0.2 * rng.standard_normal(weights[name].shape)
    return policy.with_weights(weights)


def fine_cube():
    """An ordinal of 300 levels, and a choice of which one is rare: cells nobody is drawn in."""
    edges = np.linspace(0.0, 1.0, 301), np.array([0.0, 1e-5, 0.6, 1.0])
    return Cube(("ordinal", "categorical"), (300, 3), edges)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_sound_policy_and_its_learner_keep_the_laws(seed):
    check_policy(BoxPolicy, learnt=taught(BoxMover), seed=seed)
    check_learner(BoxMover, BoxPolicy, seed=seed)


@pytest.mark.parametrize(
    ("make", "learnt"),
    [
        (MixturePolicy, taught(MPO)),
        (partial(MixturePolicy, rank=1), taught(MPO)),
        (TOKENS, shaken),
    ],
    ids=["mixture", "rank 1", "tokens"],
)
@pytest.mark.parametrize("cube", [None, fine_cube()], ids=["examples", "fine"])
def test_policies_keep_the_laws(make, learnt, cube):
    check_policy(make, cube, learnt=learnt)


def test_the_mixture_learner_keeps_the_laws():
    check_learner(MPO, MixturePolicy)


@pytest.fixture
def one_thread():
    """Threads of matrices this small wait for each other much longer than they work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("make", [TrajectoryBalance, VTrace, PolicyGradient])
def test_gradient_learners_keep_the_laws(make):
    learner = partial(make, updates=2, batch=32, rate=0.03)
    check_learner(learner, TOKENS, conditional_cube(), lessons=16)


def test_the_laws_are_imported_without_torch():
    code = "import sys, ensemblerl.testing.broken; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_cells_too_fine_to_be_counted_go_together():
    assert pooled(np.linspace(0.0, 1.0, 5)) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert len(pooled(np.linspace(0.0, 1.0, 301))) == 9
    assert pooled(np.array([0.0, 1e-5, 0.6, 0.99, 1.0])) == [0.0, 0.6, 1.0]


@pytest.mark.parametrize("control", BROKEN, ids=[c.name for c in BROKEN])
def test_every_broken_control_fails_its_law(control):
    with pytest.raises(BrokenLawError) as caught:
        control.check(control.make)
    assert caught.value.law == control.law
    assert f'law "{control.law}"' in str(caught.value)


def test_no_control_disappears():
    kinds = Counter(control.check.__name__ for control in BROKEN)
    assert kinds == {
        "check_sampler": 23,
        "check_box_policy": 17,
        "check_box_mover": 14,
        "check_least": 13,
        "check_in_memory": 11,
        "check_on_disk": 3,
        "check_inline": 9,
    }
    assert len({control.name for control in BROKEN}) == len(BROKEN) == 90
