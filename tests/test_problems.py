"""The built-in problems are what their docstrings say."""

import subprocess
import sys

import numpy as np
import pytest

from ensemblerl.problems import advection_diffusion as plume
from ensemblerl.problems import lorenz96 as ring
from ensemblerl.problems import mixed


class TestRing:
    def test_equal_to_the_formula_with_indices(self):
        x = np.random.default_rng(0).normal(size=7)
        by_hand = [(x[(i + 1) % 7] - x[i - 2]) * x[i - 1] - x[i] + 8.0 for i in range(7)]
        np.testing.assert_allclose(ring.tendency(x, 8.0), by_hand, rtol=1e-14)

    def test_members_do_not_touch_each_other(self):
        x = np.random.default_rng(1).normal(size=(8, 5))
        forcing = np.arange(5.0)
        together = ring.step(x, forcing)
        alone = [ring.step(x[:, k], forcing[k]) for k in range(5)]
        np.testing.assert_array_equal(together, np.array(alone).T)

    def test_advection_conserves_energy(self):
        x = np.random.default_rng(2).normal(size=(40, 6))
        rate = ring.tendency(x, 0.0, damping=0.0, coupling=1.7)
        assert np.abs(np.sum(x * rate, axis=0)).max() < 1e-12

    def test_energy_budget_along_a_trajectory(self):
        def budget(x):  # dE/dt = -2 d E + F sum x
            return np.sum(x * ring.tendency(x, 8.0, damping=0.9))

        x = ring.initial_state()
        expected = -0.9 * np.sum(x**2) + 8.0 * np.sum(x)
        assert budget(x) == pytest.approx(expected, rel=1e-12)

    def test_fixed_point_is_forcing_over_damping(self):
        x = np.full((8, 1), 8.0 / 1.25)
        moved = ring.step(x, 8.0, damping=1.25) - x
        assert np.abs(moved).max() < 1e-13

    def test_without_advection_it_relaxes_exponentially_to_fourth_order(self):
        errors = []
        for n in (10, 20):
            x = np.ones((8, 1))
            for _ in range(n):
                x = ring.step(x, 3.0, 1.0 / n, coupling=0.0)
            errors.append(abs(x[0, 0] - (3.0 - 2.0 * np.exp(-1.0))))
        assert np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.2)

    def test_agrees_with_scipy(self):
        from scipy.integrate import solve_ivp

        start = ring.initial_state()
        reference = solve_ivp(
            lambda t, x: ring.tendency(x, 8.0), (0, 1.5), start, rtol=1e-11, atol=1e-11
        ).y[:, -1]
        x = start
        for _ in range(1500):
            x = ring.step(x, 8.0, 1e-3)
        np.testing.assert_allclose(x, reference, atol=1e-7)
        states = ring.trajectories({**ring.truth(), "bump": 0.0})
        assert np.abs(states[-1, :, 0] - reference).max() < 0.1  # at the standard step

    def test_truth_fits_to_noise_and_others_do_not(self):
        n = ring.observations().size
        at_truth = ring.simulate(**ring.truth())["misfit"]
        assert abs(at_truth - 1.0) < 4 / np.sqrt(2 * n)
        for name in ring.truth():
            off = {**ring.truth(), name: 1.15 * ring.truth()[name] + 0.3}
            assert ring.simulate(**off)["misfit"] > 1.5 * at_truth, name

    def test_one_is_a_row_of_many(self):
        rng = np.random.default_rng(3)
        points = {name: value * rng.uniform(0.9, 1.1, 20) for name, value in ring.truth().items()}
        many = ring.simulate_many(points)
        assert many["misfit"].shape == (20,)
        assert many["final"].shape == (20, ring.SIZE)
        one = ring.simulate(**{name: column[7] for name, column in points.items()})
        assert one["misfit"] == pytest.approx(many["misfit"][7], rel=1e-12)
        np.testing.assert_array_equal(one["final"], many["final"][7])

    def test_unknown_parameter_is_named(self):
        with pytest.raises(ValueError, match="bump"):
            ring.simulate_many({"forcing": 8.0})


def gaussian(x, y, variance, cells):
    return plume.footprint(x, y, cells=cells, radius=np.sqrt(variance))


class TestPlume:
    @pytest.mark.parametrize(("wind", "angle"), [(2.0, 30.0), (1.5, 200.0)])
    def test_gaussian_puff_in_uniform_wind(self, wind, angle):
        # exact: the puff moves with the wind, its variance grows by 2 K t
        diffusivity, time, variance = 15.0, 150.0, 90.0**2
        towards = np.deg2rad(angle)
        x, y = (1000.0 + wind * time * f for f in (np.cos(towards), np.sin(towards)))
        errors = []
        for cells in (40, 80):
            u, v = plume.wind_field(wind, angle, cells=cells, shear=0.0)
            got = plume.solve(
                gaussian(1000.0, 1000.0, variance, cells),
                0.0, u, v, diffusivity, plume.LENGTH / cells, [time],
            )[0]  # fmt: skip
            exact = gaussian(x, y, variance + 2 * diffusivity * time, cells)
            errors.append(np.abs(got - exact).sum() / exact.sum())
        assert errors[1] < 0.025
        assert np.log2(errors[0] / errors[1]) > 1.7  # second order, but for the limiter at the top

    def test_centre_and_spread_of_a_sheared_puff(self):
        # moments in u = s (y - L/2), exact: mean stays, var_y = v0 + 2Kt, cov = s (v0 t + K t^2)
        shear, diffusivity, time, variance, cells = 1e-3, 10.0, 300.0, 100.0**2, 100
        u, v = plume.wind_field(0.0, 0.0, cells=cells, shear=shear)
        dx = plume.LENGTH / cells
        start = gaussian(1000.0, 1000.0, variance, cells)
        c = plume.solve(start, 0.0, u, v, diffusivity, dx, [time])[0]
        centre = (np.arange(cells) + 0.5) * dx - 1000.0
        weight = c / c.sum()
        assert weight.sum(axis=0) @ centre == pytest.approx(0.0, abs=0.5)
        assert weight.sum(axis=1) @ centre**2 == pytest.approx(
            variance + 2 * diffusivity * time, rel=0.01
        )
        cov = centre @ weight @ centre
        assert cov == pytest.approx(shear * (variance * time + diffusivity * time**2), rel=0.02)

    def test_mass_is_what_was_released(self):
        fields = plume.run(**{**plume.truth(), "wind": 0.5, "source_x": 1000.0})
        mass = fields.sum(axis=(1, 2)) * (plume.LENGTH / plume.CELLS) ** 2
        expected = plume.truth()["rate"] * np.array(plume.TIMES)
        np.testing.assert_allclose(mass, expected, rtol=1e-3)

    def test_mass_leaves_but_never_comes_in(self):
        cells = 20
        u, v = plume.wind_field(5.0, 0.0, cells=cells)
        start = np.ones((cells, cells))
        c = plume.solve(start, 0.0, u, v, 5.0, plume.LENGTH / cells, [100.0, 200.0, 800.0])
        mass = c.sum(axis=(1, 2))
        assert np.all(np.diff([start.sum(), *mass]) < 0)
        assert mass[-1] < 1e-6 * start.sum()

    def test_never_negative_and_never_unstable(self):
        rng = np.random.default_rng(4)
        for _ in range(12):
            cells = 16
            u = rng.normal(0, 10 ** rng.uniform(-2, 2), (cells, cells + 1))
            v = rng.normal(0, 10 ** rng.uniform(-2, 2), (cells + 1, cells))
            diffusivity = 10 ** rng.uniform(-3, 3)
            spikes = (rng.uniform(size=(cells, cells)) > 0.8).astype(float)
            span = 40 * plume.stable_step(u, v, diffusivity, 100.0)
            c = plume.solve(spikes, 0.0, u, v, diffusivity, 100.0, [span])
            assert c.min() >= -1e-15
            assert c.sum() <= spikes.sum() * (1 + 1e-12)

    def test_still_air_only_collects(self):
        still = np.zeros((4, 5)), np.zeros((5, 4))
        c = plume.solve(np.zeros((4, 4)), np.full((4, 4), 2.0), *still, 0.0, 1.0, [3.0])
        np.testing.assert_allclose(c[0], 6.0)

    def test_mirrored_wind_gives_the_mirrored_field(self):
        right, left = (
            plume.wind_field(3.0, 20.0, shear=0.0),
            plume.wind_field(3.0, 160.0, shear=0.0),
        )
        s = plume.footprint(700.0, 900.0), plume.footprint(plume.LENGTH - 700.0, 900.0)
        zero, dx = np.zeros((plume.CELLS,) * 2), plume.LENGTH / plume.CELLS
        a = plume.solve(zero, s[0], *right, 10.0, dx, [60.0])[0]
        b = plume.solve(zero, s[1], *left, 10.0, dx, [60.0])[0]
        np.testing.assert_allclose(a, b[:, ::-1], atol=1e-12 * a.max())

    def test_truth_fits_to_noise_and_others_do_not(self):
        n = plume.observations().size
        at_truth = float(plume.simulate(**plume.truth())["misfit"])
        assert abs(at_truth - 1.0) < 4 / np.sqrt(2 * n)
        for name, by in {
            "source_x": 100,
            "source_y": 60,
            "rate": 0.6,
            "wind": 0.7,
            "angle": 8,
        }.items():
            off = {**plume.truth(), name: plume.truth()[name] + by}
            assert plume.simulate(**off)["misfit"] > 1.3 * at_truth, name

    def test_results_are_the_same_in_another_process(self):
        code = (
            "from ensemblerl.problems import advection_diffusion as p;"
            "print(float(p.simulate(**p.truth())['misfit']).hex())"
        )
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert other.stdout.strip() == float(plume.simulate(**plume.truth())["misfit"]).hex()

    def test_result_is_small_and_plain(self):
        result = plume.simulate(**plume.truth())
        assert {name: array.shape for name, array in result.items()} == {
            "misfit": (),
            "concentration": (5, 9),
            "plume": (plume.CELLS // 2, plume.CELLS // 2),
        }
        assert sum(array.nbytes for array in result.values()) < 10_000

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"times": [2.0, 1.0]}, "times"), ({"diffusivity": -1.0}, "diffusivity")],
    )
    def test_bad_input_is_named(self, change, message):
        wanted = {
            "initial": np.zeros((4, 4)), "source": 0.0, "u": np.zeros((4, 5)),
            "v": np.zeros((5, 4)), "diffusivity": 1.0, "dx": 1.0, "times": [1.0],
        }  # fmt: skip
        with pytest.raises(ValueError, match=message):
            plume.solve(**{**wanted, **change})


def random_points(n, rng):
    which = rng.choice(mixed.OPTIMIZERS, n)
    return {
        "optimizer": which,
        "rate": 10 ** rng.uniform(-5, 0, n),
        "momentum": np.where(which == "sgd", rng.uniform(0, 0.99, n), np.nan),
        "beta": np.where(which == "adam", rng.uniform(0.8, 0.999, n), np.nan),
        "layers": rng.integers(1, 9, n),
        "width": rng.choice(mixed.WIDTHS, n),
        "dropout": rng.uniform(0, 0.5, n),
        "batch": rng.integers(8, 513, n),
    }


class TestMixed:
    def test_optimum_is_the_least(self):
        point, loss = mixed.optimum()
        assert mixed.simulate(**point) == loss == 0.0
        values = mixed.simulate_many(random_points(20_000, np.random.default_rng(5)))
        assert np.isfinite(values).all()
        assert values.min() > 0.0

    def test_one_is_a_row_of_many(self):
        points = random_points(30, np.random.default_rng(6))
        many = mixed.simulate_many(points)
        rows = [
            mixed.simulate(**{name: column[i] for name, column in points.items()})
            for i in range(30)
        ]
        np.testing.assert_array_equal(rows, many)

    def test_inactive_parameters_do_not_count(self):
        point, _ = mixed.optimum()
        assert mixed.simulate(**point, beta=0.3) == 0.0
        adam = {**point, "optimizer": "adam", "rate": 1e-3, "beta": 0.95}
        assert mixed.simulate(**adam) == mixed.simulate(**{**adam, "momentum": 0.1}) == 0.1

    def test_missing_active_parameter_is_nan_and_wrong_name_raises(self):
        point, _ = mixed.optimum()
        assert np.isnan(mixed.simulate(**{**point, "momentum": np.nan}))
        with pytest.raises(ValueError, match="lbfgs"):
            mixed.simulate(**{**point, "optimizer": "lbfgs"})


@pytest.mark.parametrize("problem", [ring, plume, mixed])
def test_space_draws_points_the_problem_can_run(problem):
    space = problem.space()
    unit = np.random.default_rng(7).uniform(size=(40, space.cube.ndim))
    points = space.to_points(space.cube.canonical(unit))
    if problem is plume:
        values = [plume.simulate(**{k: float(v[0]) for k, v in points.items()})["misfit"]]
    else:
        values = problem.simulate_many(points)
        values = values["misfit"] if problem is ring else values
    assert np.isfinite(values).all()
    known = mixed.optimum()[0] if problem is mixed else problem.truth()
    assert set(known) <= set(points)
