"""How a campaign is doing: a bar in a terminal; elsewhere nothing, but why workers are missing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ensemblerl.campaign import Campaign
from ensemblerl.loop.figures import duration as duration
from ensemblerl.loop.figures import figures as figures
from ensemblerl.loop.figures import line as line
from ensemblerl.loop.figures import note as note
from ensemblerl.loop.opening import called

if TYPE_CHECKING:
    from rich.console import Console

EVERY = 0.2
WIDE = 100
"""Columns of a terminal below which there is no bar, so that the figures fit."""
FIRST, APART = 5.0, 30.0
"""Seconds that workers are missing before a line says so, and between two such lines."""


class Progress:
    """Watches a campaign; a context manager around its run.

    Parameters
    ----------
    on : False shows nothing; True shows a bar where the error stream is a terminal, and elsewhere
        a line now and then as long as workers are missing
    console : where to write, for tests
    """

    def __init__(self, on: bool = True, *, console: Console | None = None) -> None:
        self._on, self._console = on, console
        self._bar: Any = None
        self._task: Any = None
        self._next = 0.0
        self._plain = Lines(self._write)

    def begin(self, campaign: Campaign) -> None:
        """Say what is about to run; workers may take seconds to start."""
        self._plain = Lines(self._write)
        if self._on and self._there().is_terminal:
            self._there().print(
                f"[bold]EnsembleRL[/] {campaign.n_members} members, {campaign.ledger.n_settled} "
                f"of them settled, seed {campaign.seed}; starting {called(campaign.executor)}",
                highlight=False,
            )

    def _there(self) -> Console:
        from rich.console import Console

        self._console = self._console or Console(stderr=True)
        return self._console

    def _write(self, text: str) -> None:
        """A line as it is. A stream that nobody reads any more is no reason to end a campaign, as
        it is to rich.
        """
        file = self._there().file
        if file is not None:  # there is none in a process without standard streams
            with suppress(OSError, ValueError):
                print(text, file=file, flush=True)

    def __call__(self, campaign: Campaign) -> None:
        """Show the campaign as it is now, a few times a second at most."""
        if not self._on:
            return
        if not self._there().is_terminal:
            self._plain(campaign)
            return
        now = time.monotonic()
        if now >= self._next or campaign.reason or self._bar is None:
            self._next = now + EVERY
            shown = figures(campaign)
            as_it_is = {
                "completed": shown["done"],
                "total": campaign.n_members,
                "line": line(shown),
                "note": note(campaign),
            }
            if self._bar is None:
                self._open(campaign, as_it_is)
            self._bar.update(self._task, **as_it_is)

    def _open(self, campaign: Campaign, as_it_is: dict[str, Any]) -> None:
        out = self._there()
        if not as_it_is["note"]:  # else they are to come, and that is said
            workers, pending = campaign.executor.n_workers, campaign.n_pending
            out.print(f"{workers} workers, at most {pending} members pending", highlight=False)
        self._bar = _bar(out)
        self._task = self._bar.add_task("", **as_it_is)
        self._bar.start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Lines:
    """Why workers are missing, as a line when that changes: for logs of drivers that run alone.

    Nothing is said of workers that come within seconds, and nothing twice.

    Parameters
    ----------
    write : takes a line
    clock : gives seconds
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._clock = write, clock
        self._said, self._due, self._last = "", math.inf, -math.inf

    def __call__(self, campaign: Campaign) -> None:
        """Look at the campaign, and say what there is to say."""
        why, now = note(campaign), self._clock()
        if not why:
            if self._said and not campaign.reason:  # one that ends has given its jobs back
                self._say(campaign, "all jobs are up")
            self._said, self._due = "", math.inf
            return
        if math.isinf(self._due):
            self._due = max(now + FIRST, self._last + APART)
        if why != self._said and now >= self._due:
            self._say(campaign, why)
            self._said, self._last, self._due = why, now, now + APART

    def _say(self, campaign: Campaign, text: str) -> None:
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        far = f"{campaign.ledger.n_settled} of {campaign.n_members} members"
        self._write(f"{when} EnsembleRL, {far}; {text}")


def _bar(console: Console) -> Any:
    """A bar with its figures; below, a note as long as there is one, over as many lines as it
    needs.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column
    from rich.text import Text

    class Noted(Bar):
        def get_renderables(self) -> Any:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if task.fields["note"]:
                    yield Text(task.fields["note"], overflow="fold")

    whole = Column(no_wrap=False, overflow="fold")
    columns: list[ProgressColumn] = [
        MofNCompleteColumn(),
        BarColumn(20),
        TextColumn("{task.fields[line]}", table_column=whole),
    ]
    if console.width < WIDE:
        del columns[1]
    return Noted(*columns, console=console)
