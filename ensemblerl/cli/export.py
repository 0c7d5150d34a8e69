"""``ensemblerl export``: a campaign as one file."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from ensemblerl.cli.paths import StorePath
from ensemblerl.cli.units import amount

KINDS = (".nc", ".csv")


@click.command()
@click.argument("path", type=StorePath())
@click.argument("target", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def export(path: Path, target: Path, force: bool) -> None:
    """Write a campaign to one file: OUT.nc (NetCDF) or OUT.csv.

    NetCDF holds everything. CSV holds one row a member, and only what is one number or text a
    member: parameters, scalar results, reward, fate, times.
    """
    if target.suffix not in KINDS:
        raise click.UsageError(f"OUT: wanted a name that ends in .nc or .csv, got {target}")
    if target.exists() and not force:
        raise click.ClickException(f"{target} is there already; --force replaces it")
    if not target.absolute().parent.is_dir():
        raise click.ClickException(f"{target.parent}: there is no such directory; make it first")
    left_out = _write(path, target)
    click.echo(f"{target} ({amount(target.stat().st_size)})")
    if left_out:
        click.echo(f"left out, not one number a member: {', '.join(left_out)}; .nc holds them")


def _write(path: Path, target: Path) -> list[str]:
    """Whole or not at all; names of the variables that have no place in it."""
    from ensemblerl.store.backend import export_netcdf, open_store

    ds, left_out = open_store(path), []
    with TemporaryDirectory(prefix=".ensemblerl-", dir=target.absolute().parent) as near:
        part = Path(near) / target.name
        if target.suffix == ".nc":
            export_netcdf(ds, part)
        else:
            frame = ds.erl.to_dataframe()
            frame.to_csv(part)
            left_out = list(frame.attrs["left_out"])
        part.replace(target)
    return left_out
