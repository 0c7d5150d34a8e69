"""A campaign that runs beside you: for notebooks, and for campaigns of days."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemblerl.campaign import Campaign
from ensemblerl.front import prepare
from ensemblerl.progress import figures, line
from ensemblerl.protocols import Goal
from ensemblerl.resolve import whole
from ensemblerl.space import Space

if TYPE_CHECKING:
    import xarray as xr


class Handle:
    """A campaign running in a thread of this process; made by `launch`.

    ``await handle`` gives the Dataset when it is done.
    """

    def __init__(self, make: Callable[[int], Campaign], n_members: int) -> None:
        self._make = make
        self._error: BaseException | None = None
        self._begin(n_members)

    def _begin(self, n_members: int) -> None:
        self._error = None
        self.campaign = self._make(n_members)
        self._thread = threading.Thread(target=self._run, name="ensemblerl-campaign", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.campaign.run()
        except BaseException as error:
            self._error = error

    @property
    def ds(self) -> xr.Dataset:
        """The campaign as it stands, as one Dataset."""
        return self.campaign.store.open()

    @property
    def answer(self) -> xr.Dataset:
        """The goal's answer from what is known now."""
        return self.campaign.goal.estimate(self.campaign.ledger)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Ask no more; members on their way still finish."""
        self.campaign.stop()

    def extend(self, n: int) -> None:
        """N more members; a campaign that has ended begins again."""
        total = self.campaign.n_members + whole("n", n)
        self.campaign.n_members = total
        if self.done:
            self._begin(total)

    def why(self, member: int) -> dict[str, Any]:
        """All that is known of one member: point, fate, cause, attempts."""
        return self.campaign.journal.why(member)

    def wait(self, timeout: float | None = None) -> xr.Dataset:
        """Block until it has ended; gives the Dataset.

        Raises
        ------
        TimeoutError
            when it has not ended after ``timeout`` seconds
        CampaignFailed
            and whatever else ended it
        """
        self._thread.join(timeout)
        if not self.done:
            raise TimeoutError(f"the campaign is still running after {timeout} s")
        if self._error is not None:
            raise self._error
        return self.ds

    def __await__(self) -> Generator[Any, None, xr.Dataset]:
        return asyncio.to_thread(self.wait).__await__()

    def _summary(self) -> str:
        state = self.campaign.reason or "running"
        shown = figures(self.campaign)
        return f"{shown['done']:.0f} of {self.campaign.n_members} members, {state}: {line(shown)}"

    def __repr__(self) -> str:
        return f"<ensemblerl campaign, {self._summary()}>"

    def _repr_html_(self) -> str:
        goal = escape(repr(self.campaign.goal))
        return f"<p><b>ensemblerl</b> {goal}<br>{escape(self._summary())}</p>"


def launch(
    simulation: Callable[..., Any],
    space: Space,
    goal: Goal,
    *,
    n_members: int,
    store: str | Path,
    **options: Any,
) -> Handle:
    """`explore` without blocking: the same arguments, a `Handle` at once.

    A store is needed here: what runs for days should outlive its process.
    """

    def make(total: int) -> Campaign:
        return prepare(simulation, space, goal, n_members=total, store=store, **options)

    return Handle(make, n_members)
