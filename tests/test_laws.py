"""The laws hold for sound parts, and every broken control fails its own law."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ensemblerl.executors.futures import Futures
from ensemblerl.executors.serial import Serial
from ensemblerl.executors.simulated import Simulated
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.segments import encode, encode_layout
from ensemblerl.testing import BrokenLawError, check_executor, check_sampler, check_store
from ensemblerl.testing.broken import BROKEN
from ensemblerl.testing.broken_goals import check_least
from ensemblerl.testing.broken_stores import check_in_memory
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
        "check_least": 13,
        "check_in_memory": 11,
        "check_on_disk": 3,
        "check_inline": 9,
    }
    assert len({control.name for control in BROKEN}) == len(BROKEN) == 59
