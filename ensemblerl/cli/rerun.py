"""``ensemblerl rerun``: one member once more."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemblerl.cli.paths import Member, StorePath

if TYPE_CHECKING:
    from ensemblerl.cli.again import Again, Kept
    from ensemblerl.records import AnyArray

FEW = 4
"""Numbers of an array that are shown."""


@click.command()
@click.argument("path", type=StorePath())
@click.argument("member", type=Member())
@click.option(
    "--workflow",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Script whose simulation is run; else it is found by its name in the store, or "
    "by the script that began the campaign.",
)
def rerun(path: Path, member: int, workflow: Path | None) -> int:
    """Run one member again, here and now, with its own point and seed.

    Prints the result beside what the store holds; the store is not changed. A script is run until
    it calls explore, and no further. Exit code 1 when the two differ.
    """
    from ensemblerl.cli.again import Kept, again
    from ensemblerl.cli.tables import console, table
    from ensemblerl.cli.units import seconds

    kept, out = Kept.of(path, member), console()
    ran = again(kept, workflow)
    seed = int(kept.ledger["seed"][member])
    point = ", ".join(f"{name} = {value}" for name, value in kept.point.items())
    out.print(f"member {member}: {point}, seed {seed}", markup=False)
    shown = table()
    for head in ("", "now", "in the store", "differs"):
        shown.add_column(head, overflow="fold")
    shown.add_row("fate", ran.outcome.fate, ran.fate, "" if _same_fate(ran) else "yes")
    shown.add_row("run time", seconds(ran.outcome.runtime), seconds(_runtime(kept)), "")
    for v in ran.variables:
        shown.add_row(v.name, brief(v.now), brief(v.kept), _by(ran, v.by))
    out.print(shown)
    causes = {"now": ran.outcome.cause, "in the store": ran.cause}
    if ran.same_cause:
        causes = {"both times": ran.cause}
    for when, cause in causes.items():
        if cause:
            out.print(f"{when}: {cause}", markup=False, style="dim")
    out.print(_verdict(ran), style="green" if ran.agrees else "red")
    return 0 if ran.agrees else 1


def _runtime(kept: Kept) -> float:
    return float(kept.ledger["runtime"][kept.member])


def _same_fate(ran: Again) -> bool:
    return ran.fate in (ran.outcome.fate, "pending")


def _by(ran: Again, share: float) -> str:
    if share == 0.0 or ran.fate != ran.outcome.fate:
        return ""
    return f"by {share:.1g}" if math.isfinite(share) else "yes"


def _verdict(ran: Again) -> str:
    """In words."""
    code = f"; the simulation's code changed: {ran.changed}" if ran.changed else ""
    if ran.fate == "pending":
        return f"the store has no result of it yet{code}"
    if not ran.agrees:
        why = code or "; does it take all its random numbers from seed, with the same libraries?"
        return f"it differs from what the store holds{why}"
    if ran.fate != "ok":
        return f"it agrees with the store: {ran.fate}{code}"
    exact = all(v.by == 0.0 for v in ran.variables)
    return f"it agrees with the store, {'bit for bit' if exact else 'but for rounding'}{code}"


def brief(array: AnyArray | None) -> str:
    """A scalar, or the first numbers of an array with its shape.

    Examples
    --------
    >>> import numpy as np
    >>> brief(np.array(0.1)), brief(np.arange(6.0)), brief(None)
    ('0.1', '0 1 2 3 … (6)', '')
    """
    if array is None:
        return ""
    if array.shape == ():
        return f"{array.item():.10g}" if array.dtype.kind in "biuf" else str(array.item())
    first = " ".join(
        f"{x:.5g}" if array.dtype.kind in "biuf" else str(x) for x in array.ravel()[:FEW].tolist()
    )
    dots = " …" if array.size > FEW else ""
    return f"{first}{dots} ({', '.join(map(str, array.shape))})"
