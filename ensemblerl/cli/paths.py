"""What stands behind PATH and MEMBER: checked when they are given, completed while typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ensemblerl.cli.units import amount

MANY = 50
"""Completions offered at most."""
DEEP = 3
"""Directories down that a campaign is looked for."""


class StorePath(click.Path):
    """The directory of a campaign; anything else is refused, saying what is there instead."""

    name = "path"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path of a store."""
        path = Path(value).expanduser()
        if wrong := not_a_store(path):
            raise click.ClickException(wrong)
        return path

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Directories, by the shell itself."""
        return [CompletionItem(incomplete, type="dir")]


class Member(click.IntRange):
    """A member's number; those that failed are offered first."""

    name = "member"

    def __init__(self) -> None:
        super().__init__(min=0)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Members that are not ok, then the best one; those that begin with what is typed."""
        path = ctx.params.get("path")
        if not isinstance(path, Path):
            return []
        from ensemblerl.store.reading import read_ledger

        ledger, _ = read_ledger(path)
        fates = ledger.fate.tolist()
        failed = [i for i, fate in enumerate(fates) if fate not in ("ok", "pending")]
        best = [ledger.best_member] if ledger.best_member >= 0 else []
        offered = [*failed, *best] if not incomplete else range(ledger.n)
        numbers = [i for i in offered if str(i).startswith(incomplete)][:MANY]
        return [
            CompletionItem(str(i), help=_about(ledger.causes.get(i), fates[i])) for i in numbers
        ]


def _about(cause: str | None, fate: str) -> str:
    return f"{fate}: {cause.splitlines()[0][:60]}" if cause else fate


def not_a_store(path: Path) -> str:
    """What is there in place of a store, and the remedy; "" where there is one."""
    from ensemblerl.store.reading import CAMPAIGN, is_store

    if is_store(path):
        return ""
    if not path.exists():
        return f"{path}: there is nothing here; wanted the directory of a campaign (store=)"
    if not path.is_dir():
        size = amount(path.stat().st_size)
        return f"{path}: this is a file ({size}); wanted the directory of a campaign (store=)"
    entries = sorted(entry.name for entry in path.iterdir())
    if near := _below(path, CAMPAIGN):
        more = f" and {len(near) - 3} more" if len(near) > 3 else ""
        return f"{path}: no campaign here, but in {', '.join(near[:3])}{more}"
    if not entries:
        return f"{path}: this directory is empty; wanted the directory of a campaign (store=)"
    some = ", ".join(entries[:3]) + (", ..." if len(entries) > 3 else "")
    return f"{path}: no campaign here: no {CAMPAIGN} among its {len(entries)} entries ({some})"


def _below(path: Path, name: str) -> list[str]:
    """The nearest directories below that hold a file of this name, at most `DEEP` down."""
    for depth in range(1, DEEP + 1):
        if found := sorted(str(file.parent) for file in path.glob("*/" * depth + name)):
            return found
    return []
