"""``ensemblerl plot``: the pictures of a campaign."""

from __future__ import annotations

from pathlib import Path

import click

from ensemblerl.cli.paths import StorePath

DPI = 200


@click.command()
@click.argument("path", type=StorePath())
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="Directory for the pictures; the current one when left out.",
)
def plot(path: Path, out: Path) -> None:
    """Draw history.png and parameters.png.

    The first shows the best value so far against the members, the second which points were tried
    and how good they are.
    """
    from ensemblerl.report.figures import require
    from ensemblerl.store.backend import open_store

    require()
    import matplotlib as mpl

    mpl.use("Agg")  # no display is needed
    draw = open_store(path).erl.plot
    out.mkdir(parents=True, exist_ok=True)
    figures = {"history.png": draw.history().figure, "parameters.png": draw.parameters()}
    for name, figure in figures.items():
        figure.savefig(out / name, dpi=DPI)
        click.echo(out / name)
