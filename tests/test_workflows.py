"""Every workflow states its scores; the demo runs, resumes, and gives the scores it states."""

import ast
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


@pytest.fixture(scope="module")
def demo():
    pytest.importorskip("cantera", reason="the demo's simulation needs cantera")
    pytest.importorskip("matplotlib", reason="the demo draws its figure with matplotlib")
    spec = importlib.util.spec_from_file_location(
        "methane_ignition", FOLDER / "methane_ignition.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["methane_ignition"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["methane_ignition"]


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
