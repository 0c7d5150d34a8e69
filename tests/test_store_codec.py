"""Events survive the trip through JSON; checkpoints survive the trip through npz."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_support import members

from ensemblerl.events import Launched, Settled
from ensemblerl.records import Outcome
from ensemblerl.store import checkpoint
from ensemblerl.store.codec import decode, encode
from ensemblerl.testing.events import plain_members, same_event, sample_events


@pytest.mark.parametrize("event", sample_events(), ids=lambda e: type(e).__name__)
def test_every_event_comes_back(event):
    text = encode(event)
    assert "\n" not in text
    assert same_event(decode(text), event)


@pytest.mark.parametrize("event", sample_events(), ids=lambda e: type(e).__name__)
def test_json_is_strict(event):
    def refuse(word):
        raise AssertionError(word)

    json.loads(encode(event), parse_constant=refuse)


@given(st.lists(st.floats(), min_size=1, max_size=5), st.floats(), st.booleans())
@settings(max_examples=100)
def test_floats_come_back_exactly(values, time, equal):
    n = len(values)
    notes = {"a": np.array(values[:1] * n if equal else values), "b": np.array([values])[:, :].T}
    event = Launched(1.5, replace(members(3, n), notes=notes))
    back = decode(encode(event)).members.notes
    for name, column in notes.items():
        assert back[name].dtype == column.dtype
        np.testing.assert_array_equal(back[name], column)
        nan = np.isnan(column)
        assert (np.signbit(back[name])[~nan] == np.signbit(column)[~nan]).all()
    outcome = Outcome(1, 1, "ok", value=tuple(values), runtime=0.25)
    told = decode(encode(Settled(2.5, (outcome,)))).outcomes[0]
    np.testing.assert_array_equal(told.value, values)


def test_defaults_and_repetitions_are_left_out():
    text = encode(Launched(1.0, plain_members(7, 4)))
    record = json.loads(text)
    assert set(record) == {"event", "number", "time", "unit", "seed", "notes"}
    assert record["number"] == 7
    notes = {"log_prob": np.full(4, np.nan), "proposer": np.full(4, "sobol")}
    record = json.loads(encode(Launched(1.0, replace(plain_members(7, 4), notes=notes))))
    assert record["notes"] == {"log_prob": ["<f8", None], "proposer": ["<U5", "sobol"]}


@pytest.mark.parametrize("n", [0, 1, 2])
def test_numbers_need_not_follow_each_other_nor_be_there(n):
    some = members(3, 5).take(np.array([4, 1])[:n])
    assert same_event(decode(encode(Launched(1.0, some))), Launched(1.0, some))


def test_a_note_that_cannot_be_written_is_named():
    wrong = replace(members(0, 1), notes={"thing": np.array([object()])})
    with pytest.raises(TypeError, match=r"thing.*dtype object"):
        encode(Launched(1.0, wrong))


def test_an_unknown_event_is_refused():
    with pytest.raises(ValueError, match="got 'exploded'"):
        decode('{"event": "exploded"}')


def test_checkpoint_keeps_types_and_values(tmp_path):
    path = tmp_path / "checkpoint.npz"
    state = {
        "a/b": {"": np.arange(3, dtype="i2"), "c": {"d": np.float32([[np.nan]])}},
        "generator": 2**127 + 1,
        "lr": 0.1 + 0.2,
        "inf": [float("inf"), float("nan"), -0.0],
        "words": ["x", "ü"],
        "none": None,
        "flag": True,
        "names": np.array(["u", "vw"]),
    }
    checkpoint.save(path, state, 12)
    back, n_events = checkpoint.load(path)
    assert n_events == 12
    assert list(back) == list(state)
    assert back["a/b"][""].dtype == np.int16
    assert back["a/b"]["c"]["d"].dtype == np.float32
    assert back["generator"] == 2**127 + 1
    assert back["lr"] == state["lr"]
    np.testing.assert_array_equal(back["inf"], state["inf"])
    assert back["flag"] is True
    assert back["none"] is None
    assert back["names"].tolist() == ["u", "vw"]


@pytest.mark.parametrize("wrong", [{"f": print}, {"o": np.array([None])}, {1: 2}])
def test_checkpoint_refuses_what_needs_a_pickle(tmp_path, wrong):
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, {"x": 1}, 1)
    with pytest.raises(TypeError, match="state"):
        checkpoint.save(path, wrong, 2)
    assert checkpoint.load(path) == ({"x": 1}, 1)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_torn_checkpoint_is_none(tmp_path, keep):
    path = tmp_path / "checkpoint.npz"
    assert checkpoint.load(path) is None
    checkpoint.save(path, {"x": np.arange(100)}, 1)
    path.write_bytes(path.read_bytes()[:keep])
    assert checkpoint.load(path) is None
