"""The replay: what is known as rows, drawn by priority from a tree of sums."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemblerl.agents.base import Rows
from ensemblerl.agents.replay import LEAST, Replay
from ensemblerl.agents.sumtree import SumTree
from ensemblerl.records import Demands, Fate, Proposals, Results
from ensemblerl.testing.core import plain_state, same
from ensemblerl.testing.rehearsal import Rehearsal, numbered

N, NDIM, STEPS = 200, 3, 5
RANKED = Demands(ranked=True)
INFRASTRUCTURE = (Fate.lost, Fate.stopped)


def rng(seed=0):
    return np.random.default_rng(seed)


def proposals(n, ndim=NDIM, n_steps=STEPS, seed=1):
    draw = rng(seed)
    notes = {
        "log_prob": draw.normal(size=n),
        "version": draw.integers(0, 9, n),
        "log_prob_steps": draw.normal(size=(n, n_steps)),
    }
    return Proposals(draw.random((n, ndim)), notes)


def members(n, first=0, notes=None, ndim=NDIM, n_steps=STEPS):
    """Members first, first + 1, ... ; with other notes than an agent's where asked."""
    points = proposals(n, ndim, n_steps)
    return numbered(points if notes is None else replace(points, notes=notes), first, "agent")


def results(reward, fate=Fate.ok):
    """(n,) rewards and a fate or (n,) fates -> results."""
    reward = np.asarray(reward, dtype=float)
    fate = np.broadcast_to(np.asarray(fate, dtype="U13"), reward.shape)
    return Results(reward[:, None], fate, reward)


def told(reward, fate=Fate.ok, **options):
    """A replay of members 0, 1, ... with these rewards."""
    replay = Replay(STEPS, NDIM, **options)
    replay.add(members(len(reward)), results(reward, fate))
    return replay


class Telling:
    """A campaign on paper of 200 members, 30 of which are on their way, told in many ways."""

    def __init__(self, shard=16):
        self.game, self.shard = Rehearsal(NDIM, 4), shard
        self.number = self.game.launch(proposals(N), "agent")
        self.pending = np.isin(self.number, rng(2).permutation(N)[:30])

    def plain(self):
        return self.tell([(self.number, self.pending)])

    def tell(self, batches):
        replay = Replay(STEPS, NDIM, shard=self.shard)
        for number, pending in batches:
            replay.add(self.game.members(number), self.game.results(number, pending))
        return replay

    def pieces(self, number, pending, seed):
        """Random order, random pieces, some of them of one member, some empty."""
        draw = rng(seed)
        order = draw.permutation(len(number))
        cuts = np.sort(draw.integers(0, len(number) + 1, draw.integers(0, 2 * len(number))))
        return [(number[rows], pending[rows]) for rows in np.split(order, cuts)]

    def launches(self, seed):
        return self.pieces(self.number, np.ones(N, dtype=bool), seed)

    def outcomes(self, seed):
        return self.pieces(self.number, self.pending, seed)


def seen(replay, seed=3):
    """All that a learner can see, and what it would draw."""
    return {
        "rows": replay.rows(),
        "waiting": replay.waiting(),
        "counts": [replay.n_told, replay.n_settled, replay.n_rows, replay.pending],
        "ranks": replay.utility(replay.rows(), RANKED),
        "sample": replay.sample(64, rng(seed)),
        "state": replay.state_dict(),
    }


class TestTheSumTree:
    def test_agrees_with_brute_force_under_random_updates(self):
        draw, tree, values = rng(1), SumTree(1), np.zeros(700)
        for step in range(400):
            n = int(draw.integers(0, 40)) if step % 50 else 600
            index = draw.integers(0, min(700, 3 * step + 5), n)
            # sums of small integers are exact in any order
            value = draw.integers(0, 9, n).astype(float)
            tree.set(index, value)
            for i, v in zip(index, value, strict=True):
                values[i] = v
            if step % 3 and values.any():
                assert tree.total == values.sum()
                assert tree.least == values[values > 0].min()
                mass = np.append(draw.integers(0, values.sum(), 30), [0, values.sum() - 1])
                wanted = np.searchsorted(np.cumsum(values), mass, side="right")
                np.testing.assert_array_equal(tree.find(mass.astype(float)), wanted)
        assert len(tree) == 1024

    def test_keeps_its_values_when_it_grows(self):
        tree = SumTree(1)
        tree.set(np.array([0]), np.array([0.25]))
        tree.set(np.array([300]), np.array([2.0]))
        assert (tree.total, tree.least, len(tree)) == (2.25, 0.25, 512)
        assert tree.find(np.array([0.2, 0.25])).tolist() == [0, 300]

    def test_does_not_drift(self):
        draw, tree = rng(2), SumTree(100)
        for _ in range(300):
            index = draw.integers(0, 100, 7)
            tree.set(index, 10.0 ** draw.uniform(-12, 12, 7))
            assert tree.total >= 0.0
        last = draw.random(100)
        tree.set(np.arange(100), last)
        fresh = SumTree(100)
        fresh.set(np.arange(100)[::-1], last[::-1])
        assert tree.total == fresh.total
        assert tree.least == last.min()
        tree.set(np.arange(100), np.zeros(100))
        assert (tree.total, tree.least) == (0.0, np.inf)

    def test_many_sets_before_the_sums_are_asked_for(self):
        tree, values = SumTree(4096), np.zeros(4096)
        for i in range(700):
            index = np.array([(37 * i) % 4096])
            tree.set(index, np.array([1.0 + i]))
            values[index] = 1.0 + i
        assert tree.total == values.sum()
        np.testing.assert_array_equal(
            tree.find(np.cumsum(values)[values > 0] - 0.5), np.flatnonzero(values)
        )

    def test_never_finds_a_leaf_of_value_zero(self):
        tree = SumTree(8)
        tree.set(np.array([1, 2, 4]), np.array([0.1, 0.2, 0.3]))
        edges = np.array([0.0, 0.1, 0.1 + 0.2, tree.total, np.nextafter(tree.total, 0.0), 99.0])
        assert set(tree.find(edges)) <= {1, 2, 4}
        assert tree.find(edges)[[0, 3, 5]].tolist() == [1, 4, 4]

    def test_the_last_of_an_index_that_comes_twice_counts(self):
        tree = SumTree(4)
        tree.set(np.array([2, 2, 2]), np.array([5.0, 1.0, 3.0]))
        assert (tree.total, tree.least) == (3.0, 3.0)

    def test_the_masses_handed_in_stay_as_they_are(self):
        tree, mass = SumTree(4), np.array([1.5, 2.5])
        tree.set(np.arange(3), np.ones(3))
        assert tree.find(mass).tolist() == [1, 2]
        assert mass.tolist() == [1.5, 2.5]

    def test_says_what_is_wrong(self):
        tree = SumTree(4)
        with pytest.raises(ValueError, match="capacity: wanted at least 1, got 0"):
            SumTree(0)
        for bad in (-1.0, np.nan, np.inf):
            with pytest.raises(ValueError, match=rf"value: wanted finite .* >= 0, got {bad}"):
                tree.set(np.array([0, 1]), np.array([1.0, bad]))
        with pytest.raises(ValueError, match="index: wanted at least 0, got -2"):
            tree.set(np.array([1, -2]), np.ones(2))
        with pytest.raises(ValueError, match="wanted a value above 0"):
            tree.find(np.array([0.0]))


class TestFates:
    def test_failures_are_rows_of_reward_minus_infinity(self):
        fates = [Fate.ok, Fate.failed, Fate.invalid, Fate.timeout, Fate.out_of_memory]
        # a failure has no reward, whatever stands there
        replay = told([1.5, np.nan, 7.0, np.nan, np.nan], fates)
        assert replay.rows().reward.tolist() == [1.5, *[-np.inf] * 4]
        assert replay.rows().ok.tolist() == [True, *[False] * 4]
        assert (replay.n_told, replay.n_settled, replay.n_rows, replay.pending) == (5, 5, 5, 0)

    def test_infrastructure_says_nothing_about_the_simulation(self):
        replay = told([0.0, 1.0, 2.0, 3.0], [Fate.ok, Fate.lost, Fate.stopped, Fate.ok])
        assert replay.rows().number.tolist() == [0, 3]
        assert set(replay.sample(50, rng()).number) == {0, 3}
        assert (replay.n_told, replay.n_settled, replay.n_rows, replay.pending) == (4, 4, 2, 0)

    def test_every_fate_has_a_meaning(self):
        replay = told(np.arange(len(Fate)), list(Fate))
        assert replay.pending == 1
        assert replay.n_rows == len(Fate) - 1 - len(INFRASTRUCTURE)

    @pytest.mark.parametrize("reward", [np.nan, np.inf, -np.inf])
    def test_ok_without_a_finite_reward_is_a_failure(self, reward):
        assert told([0.0, reward]).rows().reward.tolist() == [0.0, -np.inf]

    def test_a_launch_is_remembered_until_the_outcome_comes(self):
        replay, all_of_them = Replay(STEPS, NDIM), members(6)
        assert replay.add(all_of_them, Results.pending(6)) == 0
        assert (replay.n_told, replay.n_settled, replay.pending) == (6, 0, 6)
        assert len(replay.rows()) == 0
        waiting = replay.waiting()
        assert np.isnan(waiting.reward).all()
        np.testing.assert_array_equal(waiting.unit, all_of_them.unit)
        np.testing.assert_array_equal(waiting.steps, all_of_them.notes["log_prob_steps"])
        replay.add(replace(all_of_them, unit=np.full((6, NDIM), 0.5)), Results.pending(6))
        assert same(replay.waiting(), waiting)
        some = [4, 1]
        assert replay.add(all_of_them.take(some), results([4.0, 1.0], [Fate.ok, Fate.lost])) == 2
        assert replay.waiting().number.tolist() == [0, 2, 3, 5]
        assert replay.rows().number.tolist() == [4]
        assert replay.pending == 4

    def test_a_batch_may_hold_launch_and_outcome_of_one_member(self):
        for order in ([0, 1, 1], [1, 0, 1], [1, 1, 0]):
            replay = Replay(STEPS, NDIM)
            fate = np.where(np.arange(3) == order.index(0), Fate.ok, Fate.pending)
            one = members(1).take([0, 0, 0])
            assert replay.add(one, results([2.0, 2.0, 2.0], fate)) == 1
            assert (replay.n_told, replay.pending, replay.n_rows) == (1, 0, 1)
            assert replay.rows().reward.tolist() == [2.0]

    def test_the_first_outcome_stays(self):
        replay = told([1.0, 2.0], [Fate.ok, Fate.lost])
        assert replay.add(members(2), results([8.0, 9.0])) == 0
        assert replay.rows().reward.tolist() == [1.0]
        assert replay.n_settled == 2


class TestNotes:
    def test_columns_hold_what_was_noted(self):
        own = members(7)
        rows = told(np.arange(7.0)).rows()
        np.testing.assert_array_equal(rows.unit, own.unit)
        np.testing.assert_array_equal(rows.log_prob, own.notes["log_prob"])
        np.testing.assert_array_equal(rows.steps, own.notes["log_prob_steps"])
        np.testing.assert_array_equal(rows.version, own.notes["version"])
        assert rows.weight.tolist() == [1.0] * 7
        kinds = [rows.number.dtype.kind, rows.version.dtype.kind, rows.reward.dtype.kind]
        assert kinds == ["i", "i", "f"]

    @pytest.mark.parametrize(
        "notes",
        [
            {},
            {
                "log_prob": np.full(4, np.nan),
                "version": np.full(4, -1),
                "log_prob_steps": np.full((4, STEPS), np.nan),
            },
            {"version": np.full(4, np.nan)},
        ],
        ids=["none", "filled in by the ledger", "as a float"],
    )
    def test_what_is_missing_is_the_prior(self, notes):
        replay, others = Replay(STEPS, NDIM), members(4, notes=notes)
        # without what the rehearsal adds of its own
        replay.add(replace(others, notes=notes), results(np.arange(4)))
        rows = replay.rows()
        assert rows.log_prob.tolist() == [0.0] * 4
        assert rows.version.tolist() == [-1] * 4
        assert rows.steps.tolist() == [[0.0] * STEPS] * 4

    def test_a_gap_in_the_steps_is_filled_alone(self):
        note = np.array([[1.0, np.nan, 3.0, 4.0, 5.0]])
        replay = Replay(STEPS, NDIM)
        replay.add(members(1, notes={"log_prob_steps": note}), results([0.0]))
        assert replay.rows().steps.tolist() == [[1.0, 0.0, 3.0, 4.0, 5.0]]

    def test_one_step_is_the_whole_draw(self):
        log_prob = np.array([0.5, np.nan, -2.0])
        without = {"log_prob": log_prob}
        # a ledger adds the column when somebody else notes steps: the same must come of it
        filled = {**without, "log_prob_steps": np.array([[np.nan], [np.nan], [7.0]])}
        for notes, last in ((without, -2.0), (filled, 7.0)):
            replay = Replay(1, NDIM)
            replay.add(members(3, notes=notes), results([0.0, 1.0, 2.0]))
            assert replay.rows().steps.tolist() == [[0.5], [0.0], [last]]
            assert replay.rows().log_prob.tolist() == [0.5, 0.0, -2.0]


class TestTheSetIsAllThatCounts:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 16, 4096]))
    def test_order_batches_and_repetition_are_of_no_account(self, seed, shard):
        telling = Telling(shard)
        once = telling.outcomes(seed)
        ways = {
            "batches": once,
            "launches first": telling.launches(seed + 1) + once,
            "launches late": once + telling.launches(seed + 1),
            "twice": once + telling.outcomes(seed + 2),
        }
        base = seen(telling.plain())
        for way, batches in ways.items():
            assert same(seen(telling.tell(batches)), base), way

    def test_asking_in_between_is_of_no_account(self):
        telling = Telling(shard=8)
        replay, base = telling.tell([]), seen(telling.plain())
        for number, pending in telling.launches(5) + telling.outcomes(6):
            replay.add(telling.game.members(number), telling.game.results(number, pending))
            before = replay.rows()
            assert (np.diff(before.number) > 0).all()
            assert len(replay.utility(before, RANKED)) == replay.n_rows
            if replay.n_rows:
                replay.sample(3, rng())
        assert same(seen(replay), base)

    def test_rows_that_were_handed_out_stay(self):
        telling = Telling()
        replay, kept = telling.tell([]), []
        for number, pending in telling.outcomes(7):
            replay.add(telling.game.members(number), telling.game.results(number, pending))
            rows = replay.rows()
            kept.append((rows, rows.take(np.arange(len(rows)))))
        assert len(kept) > 5
        assert all(same(rows, copy) for rows, copy in kept)

    def test_rows_are_made_once(self):
        replay = told([1.0, 2.0])
        rows = replay.rows()
        replay.add(members(2), results([1.0, 2.0]))
        replay.add(members(1, first=5), Results.pending(1))
        assert replay.rows() is rows
        replay.add(members(1, first=5), results([3.0]))
        assert replay.rows().number.tolist() == [0, 1, 5]
        assert rows.number.tolist() == [0, 1]

    def test_rows_are_not_to_be_written_to(self):
        rows = told([1.0, 2.0]).rows()
        with pytest.raises(ValueError, match="read-only"):
            rows.reward[0] = 3.0

    def test_what_is_told_is_copied(self):
        replay, own, came = Replay(STEPS, NDIM), members(3), results([1.0, 2.0, 3.0])
        replay.add(own, came)
        before = replay.rows().take(np.arange(3))
        own.unit[:], came.reward[:], own.notes["log_prob"][:] = 0.9, 9.0, 9.0
        replay.add(members(1, first=3), results([0.0]))
        assert same(replay.rows().take(np.arange(3)), before)

    def test_the_number_of_newly_settled(self):
        telling = Telling()
        replay, counts = telling.tell([]), []
        for number, pending in telling.outcomes(8) + telling.outcomes(9):
            own = telling.game.members(number), telling.game.results(number, pending)
            counts.append(replay.add(*own))
        assert sum(counts) == replay.n_settled == (~telling.pending).sum()


class TestShards:
    def test_gaps_in_the_numbers_cost_their_shards_alone(self):
        first = [0, 10**12, 8192, 40, 4090, 10**6]
        replay, reward = Replay(STEPS, NDIM), {}
        for start in first:
            own = members(10, first=start)
            replay.add(own, results(np.arange(10.0) + start))
            reward.update(zip(own.number.tolist(), np.arange(10.0) + start, strict=True))
        rows = replay.rows()
        assert rows.number.tolist() == sorted(reward)
        assert rows.reward.tolist() == [reward[i] for i in sorted(reward)]
        assert set(replay.sample(2000, rng()).number) == set(reward)
        # shards 0, 1, 2 and two far ones: room for eight
        assert max(len(c) for c in replay.state_dict().values() if np.ndim(c)) == 60
        assert replay._shards.columns["unit"].shape == (8 * 4096, NDIM)

    def test_priorities_move_with_their_shards(self):
        replay = Replay(STEPS, NDIM, shard=4, exponent=1.0)
        replay.add(members(2, first=40), results([0.0, 1.0]))
        replay.reprioritise(np.array([40, 41]), np.array([0.0, 5.0]))
        replay.sample(1, rng())
        for start in (90, 20, 60, 4):
            replay.add(members(1, first=start), results([2.0]))
            replay.reprioritise(np.array([start]), np.array([0.0]))
        assert np.mean(replay.sample(400, rng()).number == 41) > 0.9
        replay.reprioritise(np.array([60, 41]), np.array([5.0, 0.0]))
        assert np.mean(replay.sample(400, rng()).number == 60) > 0.9

    def test_a_column_grows_in_steps_of_shards(self):
        replay = Replay(1, 1, shard=8)
        for start in range(0, 400, 5):
            replay.add(members(5, first=start, ndim=1, n_steps=1), results(np.full(5, start)))
            assert replay.n_rows == len(replay.rows()) == start + 5
        wanted = np.repeat(np.arange(0.0, 400.0, 5.0), 5)
        assert replay.rows().reward.tolist() == wanted.tolist()


class TestPrioritisedDraws:
    def eight(self, **options):
        replay = told(np.arange(8.0), **options)
        replay.reprioritise(np.arange(8), np.arange(1.0, 9.0))
        return replay

    def test_golden_weights(self):
        """Priorities 1 ... 8, alpha 0.6, beta 0.4: i^-0.24."""
        batch = self.eight().sample(500, rng())
        assert set(batch.number) == set(range(8))
        wanted = np.array(
            [
                1.0,
                0.846745312363,
                0.768229356394,
                0.716977624008,
                0.679590343089,
                0.650494606346,
                0.626868533500,
                0.607097442198,
            ]
        )
        np.testing.assert_allclose(batch.weight, wanted[batch.number], rtol=0, atol=1e-12)
        np.testing.assert_allclose(batch.weight, (batch.number + 1.0) ** -0.24, rtol=1e-14)

    def test_weights_are_normalised_by_the_largest_of_all_rows(self):
        """Not by the largest of the minibatch, which would change from batch to batch."""
        replay = self.eight()
        for seed in range(20):
            batch = replay.sample(2, rng(seed))
            np.testing.assert_allclose(batch.weight, (batch.number + 1.0) ** -0.24, rtol=1e-14)

    @pytest.mark.parametrize("exponent", [0.0, 0.6, 1.5])
    def test_frequencies_are_the_probabilities(self, exponent):
        n, replay = 40_000, self.eight(exponent=exponent)
        share = np.bincount(replay.sample(n, rng(11)).number, minlength=8) / n
        wanted = np.arange(1.0, 9.0) ** exponent
        wanted /= wanted.sum()
        error = np.sqrt(wanted * (1.0 - wanted) / n)
        assert (np.abs(share - wanted) < 4.0 * error).all()

    @pytest.mark.parametrize("correction", [0.0, 1.0])
    def test_full_correction_makes_the_mean_that_of_all_rows(self, correction):
        replay = self.eight(correction=correction)
        batch = replay.sample(40_000, rng(12))
        mean = np.average(batch.reward, weights=batch.weight)
        error = batch.reward.std() / np.sqrt(len(batch))
        assert (abs(mean - 3.5) < 4.0 * error) == (correction == 1.0)

    def test_rows_that_are_drawn_are_whole(self):
        replay = self.eight()
        batch, rows = replay.sample(30, rng(2)), replay.rows()
        assert isinstance(batch, Rows)
        whole = replace(rows.take(batch.number), weight=batch.weight)
        assert same(batch, whole)
        batch.reward[:] = 0.0
        assert rows.reward.tolist() == list(range(8))

    def test_new_rows_get_the_largest_priority_so_far(self):
        replay = told([0.0, 1.0], exponent=1.0, correction=1.0)
        assert set(replay.sample(20, rng()).weight) == {1.0}
        replay.reprioritise(np.array([0, 1]), np.array([6.0, 2.0]))
        replay.reprioritise(np.array([0]), np.array([0.5]))
        replay.add(members(1, first=2), results([2.0]))
        batch = replay.sample(300, rng())
        np.testing.assert_allclose(batch.weight, np.array([1.0, 0.25, 0.5 / 6.0])[batch.number])
        assert set(batch.number) == {0, 1, 2}

    def test_a_late_outcome_gets_its_priority_when_it_comes(self):
        replay = told([0.0, 1.0], [Fate.ok, Fate.pending], exponent=1.0, correction=1.0)
        replay.reprioritise(np.array([0]), np.array([4.0]))
        assert set(replay.sample(20, rng()).number) == {0}
        replay.add(members(2), results([0.0, 1.0]))
        batch = replay.sample(40, rng())
        assert set(batch.number) == {0, 1}
        assert set(batch.weight) == {1.0}

    def test_telling_again_leaves_priorities_alone(self):
        replay = self.eight()
        before = replay.sample(40, rng(5))
        replay.add(members(8), results(np.arange(8.0)))
        assert same(replay.sample(40, rng(5)), before)

    def test_a_row_of_priority_zero_is_drawn_a_hundredth_as_often_as_the_largest(self):
        replay = self.eight()
        replay.reprioritise(np.arange(7), np.zeros(7))
        batch, p = replay.sample(4000, rng()), 1 / (1 + 7 * LEAST)
        share = np.mean(batch.number == 7)
        assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / 4000)
        weight = {7: LEAST**0.4}
        assert batch.weight == pytest.approx([weight.get(i, 1.0) for i in batch.number])

    def test_rows_that_taught_nothing_come_again_beside_new_ones(self):
        replay = Replay(STEPS, NDIM)
        replay.add(members(24), results(np.zeros(24)))
        replay.reprioritise(np.arange(24), np.zeros(24))
        replay.add(members(80, first=24), results(np.arange(80.0)))
        assert (replay.sample(4000, rng()).number < 24).any()

    def test_with_all_priorities_zero_the_draw_is_uniform(self):
        replay = told([0.0, 1.0, 2.0], [Fate.ok, Fate.lost, Fate.ok])
        replay.reprioritise(np.array([0, 2]), np.zeros(2))
        batch = replay.sample(50, rng())
        assert set(batch.number) == {0, 2}
        assert set(batch.weight) == {1.0}

    def test_the_draw_comes_from_the_generator_handed_in(self):
        replay = self.eight()
        assert same(replay.sample(40, rng(1)), replay.sample(40, rng(1)))
        assert not same(replay.sample(40, rng(1)), replay.sample(40, rng(2)))
        assert len(replay.sample(0, rng())) == 0


class TestUtility:
    def test_is_the_reward(self):
        replay = told([3.0, 1.0, np.nan])
        assert replay.utility(replay.rows(), Demands()).tolist() == [3.0, 1.0, -np.inf]

    def test_is_the_rank_among_all(self):
        replay = told([30.0, -5.0, 7.0, 8.0])
        assert replay.utility(replay.rows(), RANKED).tolist() == [7 / 8, 1 / 8, 3 / 8, 5 / 8]

    def test_ties_share_the_mean_rank_and_failures_are_lowest_together(self):
        fates = [Fate.ok, Fate.failed, Fate.ok, Fate.ok, Fate.timeout, Fate.lost, Fate.ok]
        replay = told([2.0, np.nan, 5.0, 2.0, np.nan, 99.0, 2.0], fates)
        # six rows: two failed at (0, 1), three ties at (2, 3, 4), the best at 5
        wanted = [3.5 / 6, 1 / 6, 5.5 / 6, 3.5 / 6, 1 / 6, 3.5 / 6]
        np.testing.assert_allclose(replay.utility(replay.rows(), RANKED), wanted, rtol=1e-15)

    def test_a_minibatch_has_its_ranks_among_all(self):
        replay = Telling().plain()
        rows, whole = replay.rows(), replay.utility(replay.rows(), RANKED)
        batch = replay.sample(50, rng())
        place = np.searchsorted(rows.number, batch.number)
        np.testing.assert_array_equal(replay.utility(batch, RANKED), whole[place])
        assert ((whole > 0.0) & (whole < 1.0)).all()
        np.testing.assert_allclose(whole.mean(), 0.5)

    def test_follows_what_is_told(self):
        replay = told([1.0, 2.0])
        first = replay.rows()
        assert replay.utility(first, RANKED).tolist() == [0.25, 0.75]
        replay.add(members(2, first=2), results([0.0, -1.0]))
        assert replay.utility(first, RANKED).tolist() == [5 / 8, 7 / 8]

    def test_is_the_callers_own(self):
        replay = told([1.0, 2.0])
        for demands in (Demands(), RANKED):
            replay.utility(replay.rows(), demands)[:] = 0.0
            assert replay.utility(replay.rows(), demands)[1] > 0.5
        assert replay.rows().reward.tolist() == [1.0, 2.0]

    def test_of_nothing_is_nothing(self):
        replay = Replay(STEPS, NDIM)
        assert len(replay.utility(replay.rows(), RANKED)) == 0


class TestTheState:
    def played(self):
        """Told most of a campaign, with priorities set in between."""
        telling = Telling(shard=8)
        replay, batches = telling.tell([]), telling.launches(1)[:20] + telling.outcomes(2)
        for i, (number, pending) in enumerate(batches[:-3]):
            replay.add(telling.game.members(number), telling.game.results(number, pending))
            if replay.n_rows and i % 3 == 0:
                batch = replay.sample(16, rng(i))
                replay.reprioritise(batch.number, rng(i + 1).gamma(0.5, size=16))
        assert replay.pending
        return telling, replay, batches[-3:]

    def test_goes_on_exactly(self):
        telling, one, rest = self.played()
        two = Replay(STEPS, NDIM, shard=8)
        two.add(members(3, first=5000), results([1.0, 2.0, 3.0]))
        two.load_state_dict(one.state_dict())
        assert same(seen(two), seen(one))
        for number, pending in rest:
            for replay in (one, two):
                replay.add(telling.game.members(number), telling.game.results(number, pending))
            assert same(seen(two), seen(one))
            batch = one.sample(8, rng(4))
            for replay in (one, two):
                replay.reprioritise(batch.number, np.abs(batch.log_prob))
        assert same(seen(two), seen(one))

    def test_remembers_the_largest_priority(self):
        one, two = told([0.0]), Replay(STEPS, NDIM)
        one.reprioritise(np.array([0]), np.array([9.0]))
        one.reprioritise(np.array([0]), np.array([1.0]))
        two.load_state_dict(one.state_dict())
        for replay in (one, two):
            replay.add(members(1, first=1), results([1.0]))
        assert one.sample(9, rng()).weight.min() == pytest.approx(9.0**-0.24)
        assert same(one.sample(9, rng()), two.sample(9, rng()))

    def test_is_plain_and_its_own(self):
        _, replay, _ = self.played()
        state, base = replay.state_dict(), seen(replay)
        assert plain_state(state) == ""
        other = Replay(STEPS, NDIM, shard=8)
        other.load_state_dict(state)
        for column in state.values():
            if isinstance(column, np.ndarray):
                column[:] = 1
        assert same(seen(replay), base)
        assert same(seen(other), base)

    def test_of_nothing(self):
        two = told([1.0])
        two.load_state_dict(Replay(STEPS, NDIM).state_dict())
        assert (two.n_told, two.n_settled, two.n_rows, len(two.rows())) == (0, 0, 0, 0)
        two.add(members(1), results([4.0]))
        assert two.rows().reward.tolist() == [4.0]

    def test_of_another_shape_is_refused(self):
        state = told([1.0, 2.0]).state_dict()
        with pytest.raises(ValueError, match=r"unit: wanted shape \(2, 4\), got \(2, 3\)"):
            Replay(STEPS, 4).load_state_dict(state)
        with pytest.raises(ValueError, match=r"steps: wanted shape \(2, 6\), got \(2, 5\)"):
            Replay(6, NDIM).load_state_dict(state)


class TestErrors:
    @pytest.mark.parametrize("name", ["n_steps", "ndim", "shard"])
    def test_sizes(self, name):
        with pytest.raises(ValueError, match=f"{name}: wanted at least 1, got 0"):
            Replay(**{"n_steps": 1, "ndim": 1, name: 0})

    @pytest.mark.parametrize("name", ["exponent", "correction"])
    @pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
    def test_powers(self, name, bad):
        with pytest.raises(ValueError, match=rf"{name}: wanted a finite number >= 0, got {bad}"):
            Replay(1, 1, **{name: bad})

    def test_columns_of_another_shape(self):
        replay = Replay(STEPS, NDIM)
        with pytest.raises(ValueError, match=r"members.unit: wanted shape \(2, 3\), got \(2, 4\)"):
            replay.add(members(2, ndim=4), results([1.0, 2.0]))
        with pytest.raises(ValueError, match=r"log_prob_steps: wanted shape \(2, 5\), got \(2, 6"):
            replay.add(members(2, n_steps=6), results([1.0, 2.0]))
        with pytest.raises(ValueError, match="results: wanted 2 rows, one a member, got 3"):
            replay.add(members(2), results([1.0, 2.0, 3.0]))

    def test_fates_and_numbers(self):
        replay = Replay(STEPS, NDIM)
        with pytest.raises(ValueError, match=r"results.fate: wanted one of pending, .*, got 'odd'"):
            replay.add(members(1), results([1.0], "odd"))
        with pytest.raises(ValueError, match=r"members.number: wanted at least 0, got -3"):
            replay.add(members(5, first=-3), results(np.arange(5)))
        assert (replay.n_told, len(replay.rows())) == (0, 0)

    def test_draws(self):
        with pytest.raises(ValueError, match="sample: wanted a settled member, got none of 2 told"):
            told([1.0, 2.0], [Fate.lost, Fate.pending]).sample(1, rng())
        with pytest.raises(ValueError, match="n: wanted at least 0, got -1"):
            told([1.0]).sample(-1, rng())

    def test_priorities(self):
        replay = told([1.0, 2.0, 3.0], [Fate.ok, Fate.pending, Fate.ok])
        before = replay.sample(9, rng())
        for bad in (-1.0, np.nan, np.inf):
            with pytest.raises(ValueError, match=f"priority: wanted finite .*, got {bad}"):
                replay.reprioritise(np.array([0, 2]), np.array([2.0, bad]))
        with pytest.raises(ValueError, match=r"priority: wanted shape \(2,\), got \(3,\)"):
            replay.reprioritise(np.array([0, 2]), np.ones(3))
        for stranger in (1, 3, 10**9, -1):
            with pytest.raises(ValueError, match=f"number: wanted numbers .*, got {stranger}$"):
                replay.reprioritise(np.array([0, stranger]), np.array([5.0, 5.0]))
        assert same(replay.sample(9, rng()), before)


def test_needs_no_torch():
    code = "import sys, ensemblerl.agents.replay; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
