"""``ensemblerl show``: what a campaign has found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ensemblerl.cli.paths import StorePath

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

    from ensemblerl.ledger import Ledger

LISTED = 8
"""Members of a cause whose numbers are listed."""


@click.command()
@click.argument("path", type=StorePath())
@click.option("--failures", is_flag=True, help="Failed members by cause, most frequent first.")
@click.option(
    "--best",
    "n",
    default=3,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="How many of the best members to show.",
)
def show(path: Path, failures: bool, n: int) -> None:
    """Show a campaign: the question, the members, the answer.

    Works on a campaign that is running, and shows what is known by now.
    """
    from ensemblerl.cli.tables import console
    from ensemblerl.store.backend import open_store

    ds, out = open_store(path), console()
    if failures:
        for block in _causes(ds, path):
            out.print(block)
        return
    out.print(_about(path))
    for block in _best(ds, n, out):
        out.print(block)
    out.print(_verdict(ds), style="bold", markup=False, highlight=False)


def _about(path: Path) -> Any:
    """The question, and how far the campaign is."""
    from rich.table import Table

    from ensemblerl.cli.status import Status

    status = Status.of(path)
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in [*status.lines(), *_jobs(status.ledger)]:
        table.add_row(name, text)
    return table


def _jobs(ledger: Ledger) -> Iterator[tuple[str, str]]:
    """What the jobs of a queue were spent on; nothing where there were none."""
    from ensemblerl.report.hours import amount, shares
    from ensemblerl.report.spending import spent

    if ledger.held and (told := spent(ledger)).total:
        digits, unit = amount(told)
        yield unit, f"{digits}: {shares(told)}"


def _best(ds: xr.Dataset, n: int, out: Console) -> list[Any]:
    """The best members with their parameters: as rows, or as columns where these fit better."""
    from ensemblerl.report.answers import axis
    from ensemblerl.report.tables import parameters, ranked

    if not n or not len(ranked(ds)):
        return []
    top, about = ds.erl.best(n), axis(ds)
    names = parameters(ds)
    heads = ["member", about.label, *(_labelled(ds, name) for name in names)]
    values = about.signed(top["reward"].values.astype(float))
    columns = [top["member"].values, values, *(top[name].values for name in names)]
    rows = [[_text(column[i]) for column in columns] for i in range(top.sizes["member"])]
    wide = _grid(["best member", *heads[1:]], rows)
    return [wide] if _fits(wide, out) else _turned(heads[1:], rows, out)


def _turned(heads: list[str], rows: list[list[str]], out: Console) -> list[Any]:
    """One row a quantity, one column a member; as many tables as the width wants."""

    def part(first: int, size: int) -> Any:
        some = rows[first : first + size]
        body = [[head, *(row[i + 1] for row in some)] for i, head in enumerate(heads)]
        return _grid(["best members", *(row[0] for row in some)], body)

    size = len(rows)
    while size > 1 and not all(_fits(part(i, size), out) for i in range(0, len(rows), size)):
        size -= 1
    return [part(first, size) for first in range(0, len(rows), size)]


def _fits(table: Any, out: Console) -> bool:
    """Whether nothing in it must be broken."""
    wide = out.options.update(max_width=10**6)
    return bool(out.measure(table, options=wide).maximum <= out.width)


def _grid(heads: list[str], rows: list[list[str]]) -> Any:
    from ensemblerl.cli.tables import table

    out = table()
    for i, head in enumerate(heads):
        out.add_column(head, justify="right" if i else "left", overflow="fold")
    for row in rows:
        out.add_row(*row)
    return out


def _labelled(ds: xr.Dataset, name: str) -> str:
    from ensemblerl.report.answers import labelled

    return labelled(name, ds[name].attrs)


def _text(value: Any) -> str:
    """A value as a table shows it; nothing for a parameter that is inactive."""
    if isinstance(value, float):
        return f"{value:.5g}" if value == value else ""
    return str(value)


def _verdict(ds: xr.Dataset) -> str:
    """The answer in words."""
    try:
        return str(ds.erl.answer().attrs.get("verdict", "the goal gives no verdict"))
    except ValueError as error:
        return f"no answer here: {error}"


def _causes(ds: xr.Dataset, path: Path) -> list[Any]:
    """A block for each cause."""
    from rich.padding import Padding
    from rich.text import Text

    from ensemblerl.report.causes import grouped

    out: list[Any] = []
    causes = grouped(ds.erl.failures())
    for cause in causes:
        head = Text(f"{cause.count} {cause.fate}", style="bold")
        head.append(f"   member{'s' * (cause.count > 1)} {_numbers(cause.members)}", style="dim")
        out += [head, Padding(Text(cause.cause or "no cause is known"), (0, 0, 1, 4))]
    if not causes:
        return ["no member that is settled has failed"]
    again = f"run one again: ensemblerl rerun {path} {causes[0].members[0]}"
    return [*out, Text(again, style="dim")]


def _numbers(members: tuple[int, ...]) -> str:
    """The first ones.

    Examples
    --------
    >>> _numbers((3, 5)), _numbers(tuple(range(20)))
    ('3, 5', '0, 1, 2, 3, 4, 5, 6, 7 and 12 more')
    """
    more = f" and {len(members) - LISTED} more" if len(members) > LISTED else ""
    return ", ".join(map(str, members[:LISTED])) + more
