"""How the commands write to a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """Standard output as it is now, as wide as it is."""
    import sys

    from rich.console import Console

    return Console(file=sys.stdout, soft_wrap=False, highlight=False)


def table() -> Any:
    """An empty table in the looks of all of them."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False)
