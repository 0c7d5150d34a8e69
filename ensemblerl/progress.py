"""The line that shows how a campaign is doing, in a terminal; elsewhere nothing is printed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemblerl.campaign import Campaign
from ensemblerl.ledger import FATE_CODE
from ensemblerl.records import Fate

if TYPE_CHECKING:
    from rich.console import Console

EVERY = 0.2
WIDE = 100
"""Columns of a terminal below which there is no bar, so that the figures fit."""
RECENT = 100
"""Members that the rate is taken over."""


def figures(campaign: Campaign) -> dict[str, float]:
    """What the line shows: counts, the best value, members a second, share of worker time used,
    seconds left.
    """
    ledger, now = campaign.ledger, campaign.executor.time()
    session = ledger["session"] == len(ledger.sessions) - 1
    done = session & ledger.settled & ~np.isnan(ledger["runtime"])
    ends, starts = ledger["end"][done], ledger["start"][done]
    since = np.min(starts, initial=now)
    recent = min(RECENT, len(ends))
    if recent == RECENT:
        since = np.partition(ends, -RECENT)[-RECENT]
    rate = recent / max(now - since, 1e-9) if recent else 0.0
    left = campaign.n_members - ledger.n_settled
    capacity = max(now - np.min(starts, initial=now), 1e-9) * max(1, campaign.executor.n_workers)
    busy = float(np.sum(ledger["runtime"][done])) / capacity
    ok = int(ledger.counts[FATE_CODE[Fate.ok]])
    best = ledger["value"][ledger.best_member, 0] if ledger.best_member >= 0 else np.nan
    return {
        "done": ledger.n_settled,
        "running": campaign.in_flight,
        "failed": ledger.n_settled - ok,
        "best": float(best),
        "rate": float(rate),
        "utilisation": min(1.0, busy),
        "left": left / rate if rate > 0 else float("nan"),
    }


def duration(seconds: float) -> str:
    """Text such as 4 s, 3 min, 2.5 h.

    Examples
    --------
    >>> duration(4.2), duration(200.0), duration(9000.0), duration(float("nan"))
    ('4 s', '3 min', '2.5 h', '?')
    """
    if not np.isfinite(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def line(shown: dict[str, float]) -> str:
    """The figures as text."""
    parts = [f"{shown['running']:.0f} running", f"{shown['failed']:.0f} failed"]
    if np.isfinite(shown["best"]):
        parts.append(f"best {shown['best']:.4g}")
    parts.append(f"{shown['rate']:.3g}/s")
    parts.append(f"{100 * shown['utilisation']:.0f} % used")
    parts.append(f"{duration(shown['left'])} left")
    return " · ".join(parts)


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
            f"them settled, seed {campaign.seed}; starting {type(campaign.executor).__name__}"
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
            self._bar.update(
                self._task, completed=shown["done"], total=campaign.n_members, line=line(shown)
            )

    def _open(self, campaign: Campaign) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
        from rich.progress import Progress as Bar

        workers, pending = campaign.executor.n_workers, campaign.n_pending
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
