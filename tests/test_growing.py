"""The Gaussian process grows: its factor with the members, and what is known of candidates with
every pick."""

import numpy as np
import pytest
from scipy.linalg import LinAlgError
from test_critics import CUBES, bowl, certain, lessons, points, rng, rows_of

from ensemblerl.agents.critics import factor as factor_module
from ensemblerl.agents.critics import gaussian_process, improvement
from ensemblerl.agents.critics.committee import Committee
from ensemblerl.agents.critics.factor import BLOCK, factored, root
from ensemblerl.agents.critics.improvement import Improvement, log_improvement
from ensemblerl.agents.critics.kernel import JITTER, correlation
from ensemblerl.testing.core import same
from ensemblerl.testing.cubes import real_cube

SIZE, NOISE = 1.7, 1e-4


def process_of(cube, n=60, noise=0.1):
    unit = points(cube, n)
    return gaussian_process.fit(cube, unit, bowl(unit) + noise * rng(1).standard_normal(len(unit)))


class TestFactor:
    x = rng(3).random((3 * BLOCK + 17, 4))

    def test_is_that_of_the_covariance(self):
        noise = rng(4).uniform(1e-4, 1e-2, len(self.x))
        found = factored(self.x, SIZE, noise)
        K = SIZE * correlation(self.x, self.x) + np.diag(noise + JITTER * SIZE)
        np.testing.assert_allclose(found.lower, np.linalg.cholesky(K), atol=1e-9)
        y = rng(5).standard_normal(len(K))
        np.testing.assert_allclose(K @ found.solved(y), y, atol=1e-8)

    @pytest.mark.parametrize("steps", [(1,), (7, 8, 9), (BLOCK,), (5, BLOCK + 1)])
    def test_is_the_same_bit_for_bit_however_it_grew(self, steps):
        whole, grown, n, i = factored(self.x, SIZE, NOISE), None, 0, 0
        while n < len(self.x):
            n, i = min(n + steps[i % len(steps)], len(self.x)), i + 1
            grown = factored(self.x[:n], SIZE, NOISE, grown)
        assert same(grown.lower, whole.lower)

    @pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 2 * BLOCK + 5, 3 * BLOCK + 16])
    @pytest.mark.parametrize("what", ["place", "noise"])
    def test_what_changed_in_the_list_is_worked_out_anew(self, at, what):
        noise = np.full(len(self.x), NOISE)
        before = factored(self.x, SIZE, noise)
        x, other = self.x.copy(), noise.copy()
        if what == "place":
            x[at] += 0.1
        else:
            other[at] *= 3.0
        found = factored(x, SIZE, other, before)
        assert same(found.lower, factored(x, SIZE, other).lower)
        assert not same(found.lower, before.lower)
        for size, columns in ((2.0 * SIZE, 4), (SIZE, 3)):
            anew = factored(x[:, :columns], size, other)
            assert same(factored(x[:, :columns], size, other, before).lower, anew.lower)

    def test_where_rounding_leaves_no_covariance_a_little_is_added(self):
        """Coincident points, in a process of next to no noise."""
        x = np.repeat(rng(6).random((9, 40)), 30, axis=0) + 1e-9 * rng(7).random((270, 40))
        found = factored(x * 100.0, 50.0, 1e-8)
        assert np.isfinite(found.solved(np.ones(270))).all()
        flat = np.ones((5, 5))
        np.testing.assert_allclose(root(flat) @ root(flat).T, flat, atol=1e-5)
        np.testing.assert_array_equal(root(np.eye(3)), np.eye(3))
        with pytest.raises(LinAlgError):
            root(-np.eye(3))

    def test_a_shorter_list_is_its_beginning(self):
        whole = factored(self.x, SIZE, NOISE)
        for n in (0, 1, BLOCK, 100):
            short = factored(self.x[:n], SIZE, NOISE, whole)
            assert same(short.lower, factored(self.x[:n], SIZE, NOISE).lower)


def test_where_in_a_cell_a_point_was_drawn_is_of_no_account():
    cube = CUBES["mixed"]
    unit, other = (points(cube, 40, seed=n) for n in (0, 5))
    discrete = [j for j, edges in enumerate(cube.edges) if edges is not None]
    moved, cells = unit.copy(), cube.cells(unit)
    for j in discrete:
        edges = cube.edges[j]
        share = rng(j).uniform(0.05, 0.95, len(unit))
        low, high = edges[cells[:, j]], edges[cells[:, j] + 1]
        moved[:, j] = low + share * (high - low)
    assert len(discrete) > 1
    assert not same(moved, unit)
    one, two = (gaussian_process.fit(cube, u, bowl(cube.centred(unit))) for u in (unit, moved))
    assert same(one.theta, two.theta)
    for found, wanted in zip(one.bent(other), two.bent(other), strict=True):
        assert same(found, wanted)
    assert same(one.bent(unit)[0], one.bent(moved)[0])


class TestPicks:
    @pytest.mark.parametrize("name", ["mixed", "real, 5-d", "conditional", "choices"])
    def test_believing_picks_one_by_one_is_what_the_process_would_believe(self, name):
        cube = CUBES[name]
        process = process_of(cube).believing(points(cube, 5, seed=7))
        candidates, new = points(cube, 50, seed=8), points(cube, 20, seed=9)
        search = Improvement(process, candidates, 0.0, certain)
        for unit in points(cube, 4, seed=10):
            search.believe(unit)
            process = process.believing(unit[None])
            for found, wanted in zip(search.bent(new), process.bent(new), strict=True):
                np.testing.assert_allclose(found, wanted, atol=2e-6)
            spread = search._spread(search._left)
            np.testing.assert_allclose(spread, process.bent(candidates)[1], atol=2e-6)

    def test_the_deviation_on_the_way_uphill_is_by_the_nearest(self, monkeypatch):
        process = process_of(real_cube(2), 80)
        search = Improvement(process, points(real_cube(2), 30, seed=5), 0.0, certain)
        search.believe(np.array([0.45, 0.45]))
        z = process.scaled(np.array([[0.44, 0.46]]))[0]
        every = search.slope(z, np.arange(2), *search.near(z))
        monkeypatch.setattr(improvement, "NEAREST", 12)
        near = search.near(z)
        apart = ((np.concatenate([process.x, search._picks]) - z) ** 2).sum(axis=1)
        np.testing.assert_allclose(
            np.sort(((near[0] - z) ** 2).sum(axis=1)), np.sort(apart)[:12], atol=1e-12
        )
        assert apart[-1] <= np.sort(apart)[11]  # what was picked is among them
        few = search.slope(z, np.arange(2), *near)
        assert few[0] >= every[0] - 1e-9  # fewer members leave more to learn
        assert few[0] == pytest.approx(every[0], abs=1.0)

    def test_what_is_found_by_the_nearest_is_judged_by_all(self, monkeypatch):
        cube = real_cube(3)
        process, candidates = process_of(cube, 80), points(cube, 60, seed=6)
        top = float(process.y.max())
        worth = log_improvement(*process.bent(candidates), top)
        monkeypatch.setattr(improvement, "NEAREST", 9)
        found = Improvement(process, candidates, top, certain).best()
        gain = log_improvement(*process.bent(found[None]), top)[0]
        assert gain > worth.max()

    def test_what_was_dropped_is_not_found(self):
        cube = CUBES["choices"]
        process, candidates = process_of(cube, 30), points(cube, 40, seed=2)
        search = Improvement(process, candidates, float(process.y.max()), certain)
        first = search.best()
        search.drop((candidates == first).all(axis=1))
        assert not same(search.best(), first)
        search.drop(np.ones(len(candidates), dtype=bool))
        assert search.best() is None
        nobody = Improvement(process, candidates[:0], 0.0, certain)
        assert nobody.best() is None

    def test_each_candidate_is_asked_once_for_its_chance(self):
        process, candidates = process_of(real_cube(2)), points(real_cube(2), 200, seed=2)
        asked = []

        def chance(unit):
            asked.extend(row.tobytes() for row in unit if (candidates == row).all(axis=1).any())
            return -40.0 * unit[:, 0]

        search = Improvement(process, candidates, float(process.y.max()), chance)
        for _ in range(3):
            search.believe(search.best())
        # beside these, the best candidate is among what is judged at the end
        assert 0 < len(set(asked)) <= len(asked) <= len(set(asked)) + 3


class TestCommittee:
    def test_members_come_to_the_process_in_the_order_in_which_they_came(self, monkeypatch):
        alike, seen = factor_module._alike, []

        def spy(x, size, noise, before):
            seen.append((len(before.x), alike(x, size, noise, before)))
            return seen[-1][1]

        monkeypatch.setattr(factor_module, "_alike", spy)
        committee, tuned = Committee(real_cube(2)), []
        for rows in lessons(180, size=3):
            seen.clear()
            last = committee._tuned
            gp = committee.learn(rows).gp
            ok = rows.take(rows.ok)
            assert sorted(map(bytes, gp.members)) == sorted(map(bytes, ok.unit))
            tuned.append(committee._tuned != last)
            if not tuned[-1] and seen:
                assert seen[0][0] == seen[0][1]  # all that was known is taken from before
        assert 5 < sum(tuned) < len(tuned) / 2

    def test_a_committee_that_was_restored_has_the_same_process(self):
        committee, restored = Committee(real_cube(2)), None
        for i, rows in enumerate(lessons(240, size=4)):
            if i == 40:
                restored = Committee(real_cube(2))
                restored.load_state_dict(committee.state_dict())
            gp = committee.learn(rows).gp
            if restored is not None:
                other = restored.learn(rows).gp
                assert same(gp.factor.lower, other.factor.lower)
                assert same(gp.weight, other.weight)
                assert same(gp.members, other.members)

    def test_beyond_its_number_the_best_half_and_others_remain(self, monkeypatch):
        monkeypatch.setattr(gaussian_process, "MEMBERS", 60)
        monkeypatch.setattr("ensemblerl.agents.critics.committee.MORE", 20)
        committee, sizes = Committee(real_cube(2)), []
        unit = points(real_cube(2), 400)
        reward = bowl(unit)
        for end in range(40, 400, 4):
            gp = committee.learn(rows_of(np.arange(end), unit[:end], reward[:end])).gp
            sizes.append(len(gp.members))
            assert len(np.unique(gp.members, axis=0)) == len(gp.members)
            best = unit[np.argsort(-reward[:end])[:20]]
            held = {row.tobytes() for row in gp.members}
            assert all(row.tobytes() in held for row in best)
            newest = unit[end - 4 : end]
            if sizes[-1] > 60:
                assert all(row.tobytes() in held for row in newest)
        assert max(sizes) == 80
        assert sizes[-1] >= 60
        assert sizes.count(60) > 3
