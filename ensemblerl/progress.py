"""The line that shows how a campaign is doing, in a terminal; elsewhere nothing is printed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ensemblerl.campaign import Campaign
from ensemblerl.loop.figures import duration as duration
from ensemblerl.loop.figures import figures as figures
from ensemblerl.loop.figures import line as line
from ensemblerl.protocols import Executor

if TYPE_CHECKING:
    from rich.console import Console

EVERY = 0.2
WIDE = 100
"""Columns of a terminal below which there is no bar, so that the figures fit."""


class Progress:
    """Watches a campaign; a context manager around its run.

    Parameters
    ----------
    on : False shows nothing; True shows it where the error stream is a terminal
    console : where to write, for tests
    """

    def __init__(self, on: bool = True, *, console: Console | None = None) -> None:
        self._on, self._console = on, console
        self._bar: Any = None
        self._task: Any = None
        self._next = 0.0

    def begin(self, campaign: Campaign) -> None:
        """Say what is about to run; workers may take seconds to start."""
        from rich.console import Console

        self._console = self._console or Console(stderr=True)
        self._on = self._on and self._console.is_terminal
        self._say(
            f"[bold]EnsembleRL[/] {campaign.n_members} members, {campaign.ledger.n_settled} of "
            f"them settled, seed {campaign.seed}; starting {called(campaign.executor)}"
        )

    def _say(self, text: str) -> None:
        if self._on and self._console is not None:
            self._console.print(text, highlight=False)

    def __call__(self, campaign: Campaign) -> None:
        """Show the campaign as it is now, a few times a second at most."""
        if not self._on:
            return
        if self._bar is None:
            self._open(campaign)
        now = time.monotonic()
        if now >= self._next or campaign.reason:
            self._next = now + EVERY
            shown = figures(campaign)
            note = getattr(campaign.executor, "note", "")
            text = " · ".join(filter(None, [line(shown), note]))
            self._bar.update(
                self._task, completed=shown["done"], total=campaign.n_members, line=text
            )

    def _open(self, campaign: Campaign) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
        from rich.progress import Progress as Bar

        workers, pending = campaign.executor.n_workers, campaign.n_pending
        if not getattr(campaign.executor, "note", ""):  # else they are to come, and that is said
            self._say(f"{workers} workers, at most {pending} members pending")
        columns: list[ProgressColumn] = [
            MofNCompleteColumn(),
            BarColumn(20),
            TextColumn("{task.fields[line]}"),
        ]
        if self._console is not None and self._console.width < WIDE:
            del columns[1]
        self._bar = Bar(*columns, console=self._console)
        self._task = self._bar.add_task("", total=campaign.n_members, line="")
        self._bar.start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def called(executor: Executor) -> str:
    """What to call an executor in a line: its ``title`` if it has one."""
    return str(getattr(executor, "title", "") or type(executor).__name__)
