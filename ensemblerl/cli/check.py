"""``ensemblerl check``: before thousands are queued."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ensemblerl.cli.finding import Finding

STYLES = {"good": "green", "note": "dim", "warn": "yellow", "bad": "red"}


class Check(click.Command):
    """Says where options of the workflow belong."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As ever."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            said = error.format_message().rstrip(".")
            rule = "arguments of the workflow go after --, as in check flow.py -- --members 3"
            raise click.UsageError(f"{said}; {rule}", ctx) from error


@click.command(cls=Check)
@click.argument("workflow", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--no-worker", is_flag=True, help="Run one member here, and none on a worker.")
@click.option("--queue", is_flag=True, help="Submit a small job to the queue of its Cluster.")
def check(workflow: Path, arguments: tuple[str, ...], no_worker: bool, queue: bool) -> int:
    """Try one member here and one on a worker, and say what would fail.

    WORKFLOW is a script that calls explore, launch or prepare. It runs until there, and no
    further: no campaign is begun; of several calls the first is looked at. Its own arguments go
    after --. Where its cluster= is a Cluster, nothing is queued: --queue submits one small job,
    in place of the member on a worker, and says what would keep jobs from working.

    Exit code 1 when something would fail, 0 when there are warnings only.
    """
    from ensemblerl.cli.checking import examine
    from ensemblerl.cli.finding import BAD, WARN
    from ensemblerl.cli.findings import details, findings
    from ensemblerl.cli.script import at_explore
    from ensemblerl.cli.tables import console
    from ensemblerl.cli.waiting import waiting

    with waiting() as say:
        tried = partial(examine, worker=not no_worker, queue=queue, say=say)
        examined = at_explore(workflow, arguments, tried)
    found = [*findings(examined), *examined.queued, *_others(workflow)]
    out = console()
    point = ", ".join(f"{name} = {_short(value)}" for name, value in examined.point.items())
    out.print(f"[bold]{workflow}[/], one member: {point}, seed {examined.seed}", highlight=False)
    out.print(_table(found))
    for text, where in details(examined).items():
        out.print(f"{where}:\n{text}", style="dim", markup=False, highlight=False)
    bad, warned = (sum(f.mark == mark for f in found) for mark in (BAD, WARN))
    told = [f"{bad} would fail" if bad else "nothing would fail"]
    told += [f"{warned} warning{'s' * (warned > 1)}"] if warned else []
    out.print(", ".join(told), style="red" if bad else "yellow" if warned else "green")
    return 1 if bad else 0


def _others(workflow: Path) -> Iterator[Finding]:
    """Calls in the workflow beside the first that it came to."""
    from ensemblerl.cli.calls import calls
    from ensemblerl.cli.finding import NOTE, Finding

    if len(lines := calls(workflow)) > 1:
        where = ", ".join(map(str, lines))
        found = f"begins campaigns in lines {where}: the first that it came to was looked at"
        yield Finding(NOTE, "workflow", found, "the others are not checked")


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(found: list[Finding]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from ensemblerl.cli.finding import SIGNS

    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 1))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        text = Text(finding.found)
        if finding.remedy:
            text.append(f"\n→ {finding.remedy}", style="bold")
        sign = Text(SIGNS[finding.mark], style=STYLES[finding.mark])
        table.add_row(sign, finding.what, text)
    return table
