"""The house around the code: versions agree, imports stay light, contracts hold."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINT = "from importlinter.cli import lint_imports_command as lint; lint()"
HEAVY = ("torch", "distributed", "dask_jobqueue", "scipy.stats")


def names(requirements: list[str]) -> set[str]:
    """Normalised package names of requirements."""
    return {re.split(r"[\s<>=!~;\[]", text, maxsplit=1)[0].lower() for text in requirements}


def pins() -> dict[str, str]:
    """Name -> version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    rows = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(row) == 2 for row in rows)
    return {name.lower(): version for name, version in rows}


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def sources() -> list[Path]:
    """Text files of the project that a reader gets."""
    kinds = {".py", ".md", ".toml", ".txt", ".svg", ".cfg", ""}
    places = ["ensemblerl", "tests", "docs", "benchmarks", "workflows", ".ci"]
    files = [f for place in places for f in sorted((ROOT / place).rglob("*")) if f.is_file()]
    files += [f for f in sorted(ROOT.iterdir()) if f.is_file()]
    skipped = {"__pycache__", "_build", "generated"}
    return [f for f in files if f.suffix in kinds and not skipped & set(f.parts)]


def test_importing_the_face_is_light() -> None:
    code = f"import sys, ensemblerl; print([m for m in {HEAVY} if m in sys.modules])"
    assert python(code) == "[]"


def test_using_the_face_is_light() -> None:
    """Looking at every name of the face (completion does) loads no torch either."""
    code = (
        "import sys, ensemblerl as erl\n"
        "[getattr(erl, name) for name in erl.__all__]\n"
        "print([m for m in ('torch', 'dask_jobqueue') if m in sys.modules])"
    )
    assert python(code) == "[]"


def test_no_module_takes_the_place_of_a_name_of_the_face() -> None:
    """Importing a module ``ensemblerl.explore`` would put it where the function was."""
    code = "import ensemblerl; print(*(set(ensemblerl.__all__) - {'agents', 'samplers'}))"
    modules = {path.stem for path in (ROOT / "ensemblerl").iterdir()}
    assert "readers" in python(code).split()  # a room of `simulations`: no module may come there
    assert set(python(code).split()) & modules == set()


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["version"]
    assert python("import ensemblerl; print(ensemblerl.__version__)") == version
    assert metadata.version("ensemblerl") == version
    newest = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_core_dependencies_are_the_agreed_ones() -> None:
    arrays = {"xarray", "numpy", "scipy", "zarr", "torch"}
    running = {"dask", "distributed", "dask-jobqueue", "psutil", "cryptography"}
    assert names(PROJECT["dependencies"]) == arrays | running | {"rich", "jinja2", "click"}


def test_extras_are_there_and_repeat_no_core_dependency() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == {"test", "sim", "peers", "plot", "docs", "dev", "cma", "optuna"}
    core = names(PROJECT["dependencies"])
    for extra, requirements in extras.items():
        assert not names(requirements) & core, extra


def test_everything_is_pinned() -> None:
    wanted = names(PROJECT["dependencies"])
    for requirements in PROJECT["optional-dependencies"].values():
        wanted |= names(requirements)
    assert wanted <= set(pins())
    assert pins()["torch"] == "2.13.0"
    assert "torch==2.13.0" in (ROOT / "Makefile").read_text()


def test_licence() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("BSD 3-Clause License")
    assert "EnsembleRL contributors" in text
    assert PROJECT["license"] == "BSD-3-Clause"


def test_typed_marker_and_entry_point() -> None:
    assert (ROOT / "ensemblerl" / "py.typed").exists()
    found = metadata.entry_points(group="xarray.backends", name="ensemblerl")
    assert len(found) == 1
    assert next(iter(found)).load().__name__ == "EnsembleBackend"


def test_make_lists_its_targets() -> None:
    if shutil.which("make") is None:
        pytest.skip("no make here")
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "demo", "test", "lint", "docs", "bench-quick", "clean", "check"):
        assert f"make {target} " in shown


def test_ci_runs_tests_linters_and_pages() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert all(f"make {target}" in text for target in ("test", "lint", "docs"))
    assert script.stat().st_mode & 0o111


def test_import_contracts() -> None:
    pytest.importorskip("importlinter")
    done = subprocess.run(
        # without the cache, which remembers modules that were not there yet
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def imported(file: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    out: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            out |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return out


def test_distributed_has_no_back_door() -> None:
    """`dask.distributed` is distributed under a name that the import contracts cannot see."""
    outside = [
        file
        for file in (ROOT / "ensemblerl").rglob("*.py")
        if "cluster" not in file.relative_to(ROOT).parts
    ]
    assert [f for f in outside if "dask.distributed" in imported(f)] == []


def test_nothing_unpickles_files() -> None:
    """Files we read hold no pickle: no allow_pickle=True, no pickle.load of a file."""
    pattern = re.compile(r"allow_pickle\s*=\s*True|pickle\.load\(")
    found = [f for f in (ROOT / "ensemblerl").rglob("*.py") if pattern.search(f.read_text())]
    assert found == []


def test_modules_are_small() -> None:
    sizes = {f: len(f.read_text().splitlines()) for f in (ROOT / "ensemblerl").rglob("*.py")}
    assert {str(f): n for f, n in sizes.items() if n > 400} == {}
    assert sorted(sizes.values())[len(sizes) // 2] <= 200


def test_files_speak_of_the_project_only() -> None:
    """No machine's paths, no registry's host, no scaffolding of a work place."""
    forbidden = ["/wo" + "rk/", "/tm" + "p/venv", "/ro" + "ot/", "/op" + "t/pypi", "pypi" + ".org"]
    forbidden += ["pythonhosted" + ".org", "shared/" + "design", "shared/" + "field"]
    found = [
        f"{file.relative_to(ROOT)}: {word}"
        for file in sources()
        for word in forbidden
        if word in file.read_text(errors="ignore")
    ]
    assert found == []
