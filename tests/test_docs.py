"""The code on the pages runs: each page is one script, in an empty directory, as a reader would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN += sorted((ROOT / "docs" / "howto").glob("*.md"))
BENCHMARK = ".venv/bin/python "
ELSEWHERE = ("make ", "pip install ", BENCHMARK)
"""Beginnings of lines that others run: the Makefile's targets, and tests/test_benchmarks.py."""
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """(line of the first line of code, the fence's info, code) of each fenced block."""
    text = page.read_text()
    return [
        (text.count("\n", 0, found.start("body")) + 1, found["info"].strip(), found["body"])
        for found in FENCE.finditer(text)
    ]


def script(page: Path) -> str:
    """The page's python blocks, on the lines where they stand, so that errors name the line."""
    lines: list[str] = []
    for first, info, body in blocks(page):
        if info == "python":
            lines += [""] * (first - 1 - len(lines)) + body.splitlines()
    return "\n".join(lines) + "\n"


def commands(page: Path) -> str:
    """The page's shell blocks, without lines that others run."""
    lines = [line for _, info, body in blocks(page) if info == "sh" for line in body.splitlines()]
    return "\n".join(line for line in lines if not line.startswith(ELSEWHERE))


RUNNING = [page for page in RUN if script(page).strip()]
SHELL = [page for page in RUN if commands(page).strip()]


@pytest.mark.parametrize("page", sorted({*RUNNING, *SHELL}), ids=lambda page: page.stem)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    file = tmp_path / f"page_{page.stem}.py"  # never called like a module it imports
    file.write_text(script(page))
    bin_directory = str(Path(sys.executable).parent)
    for command in ([sys.executable, file.name], ["sh", "-e", "-c", commands(page)]):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}",
            },
            check=False,
        )
        assert done.returncode == 0, f"{page}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_benchmarks_on_the_pages_are_there() -> None:
    lines = [line for page in RUN for _, _, body in blocks(page) for line in body.splitlines()]
    named = {line.split()[1] for line in lines if line.startswith(BENCHMARK)}
    assert {f"benchmarks/{path.name}" for path in ROOT.glob("benchmarks/[a-z]*.py")} <= named
    assert all((ROOT / name).is_file() for name in named)


def test_targets_on_the_pages_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        line.split()[1]
        for page in RUN
        for _, info, body in blocks(page)
        for line in body.splitlines()
        if info == "sh" and line.startswith("make ")
    }
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_blocks_that_do_not_run_are_sound_and_say_why(page: Path) -> None:
    for first, info, body in blocks(page):
        if info.startswith("{code-block} python"):
            head, _, code = body.partition("\n\n")
            assert head == ":class: no-run", f"{page}:{first}: a block that runs is ```python"
            compile(code, f"{page}:{first}", "exec")
        else:
            assert "python" not in info or info == "python", f"{page}:{first}: {info}"


def test_pages_are_run() -> None:
    names = {page.stem for page in RUNNING}
    assert {"README", "quickstart", "concepts", "sampler", "goal", "resume"} <= names
    assert {"dask", "failures", "results", "executable"} <= names
    assert {"quickstart", "cluster", "command-line"} <= {page.stem for page in SHELL}


def test_every_room_has_an_api_page() -> None:
    documented = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    rooms = {path.parent.name for path in (ROOT / "ensemblerl").glob("*/__init__.py")}
    assert {room for room in rooms if f"ensemblerl.{room}\n" not in documented} == set()
