"""A campaign that runs beside you: for notebooks, and for campaigns of days."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ensemblerl.campaign import Campaign
from ensemblerl.front import prepare
from ensemblerl.loop.figures import campaign_html, figures, line, note
from ensemblerl.loop.stopping import StopRule
from ensemblerl.progress import Progress
from ensemblerl.protocols import Goal
from ensemblerl.resolve import whole
from ensemblerl.space import Space
from ensemblerl.store.learning import in_memory
from ensemblerl.store.running import own

if TYPE_CHECKING:
    import xarray as xr


DONE = ("all members settled", "left")
"""Reasons of a campaign that nothing has stopped."""


class Handle:
    """A campaign running in a thread of this process; made by `launch`.

    ``await handle`` gives the Dataset when it is done.

    Parameters
    ----------
    make : total number of members -> a campaign that is ready, on the same store each time
    n_members : total to begin with
    watch : shows progress
    scratch : a temporary directory that the store is in, kept as long as the handle is
    """

    def __init__(
        self,
        make: Callable[[int], Campaign],
        n_members: int,
        *,
        watch: Progress,
        scratch: TemporaryDirectory[str] | None = None,
    ) -> None:
        self._make, self._wanted = make, n_members
        self._watch, self._scratch = watch, scratch
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._error: BaseException | None = None
        self._over = False
        self.campaign = self._make(self._wanted)
        self._thread = threading.Thread(target=self._run, name="ensemblerl-campaign", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                with self._watch:
                    self._watch.begin(self.campaign)
                    self.campaign.run()
                with self._lock:
                    # `extend` may have come when the loop had ended already
                    self._over = self._complete()
                    if self._over:
                        return
                    self.campaign = self._make(self._wanted)
        except BaseException as error:
            self._error = error
        finally:
            self._over = True

    def _complete(self) -> bool:
        ended = self.campaign.reason not in DONE
        return ended or self.campaign.ledger.n_settled >= self._wanted

    @property
    def ds(self) -> xr.Dataset:
        """The campaign as it stands, as one Dataset."""
        ds = self.campaign.store.open()
        return ds if self._scratch is None else in_memory(ds)

    @property
    def answer(self) -> xr.Dataset:
        """The goal's answer from what is known now."""
        if getattr(self.campaign.goal, "noisy", False):  # it wants the space, and a critic
            answer: xr.Dataset = self.ds.erl.answer()
            return answer
        with self.campaign.journal.lock:
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
        more = whole("n", n)
        with self._lock:
            self._wanted += more
            self.campaign.n_members = self._wanted
            over = self._over
        if over:
            self._thread.join()
            self._begin()

    def why(self, member: int) -> dict[str, Any]:
        """All that is known of one member: point, fate, cause, attempts."""
        with self.campaign.journal.lock:
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
        with self.campaign.journal.lock:
            shown = figures(self.campaign)
        text = "; ".join(filter(None, [line(shown), note(self.campaign)]))
        return f"{shown['done']:.0f} of {self.campaign.n_members} members, {state}: {text}"

    def __repr__(self) -> str:
        return f"<ensemblerl campaign, {self._summary()}>"

    def _repr_html_(self) -> str:
        return campaign_html(self.campaign)


def launch(
    simulation: Callable[..., Any],
    space: Space,
    goal: Goal,
    *,
    n_members: int,
    sampler: Any = None,
    warm_start: Any = None,
    cluster: Any = None,
    store: str | Path | None = None,
    n_pending: int | None = None,
    stop: StopRule | Sequence[StopRule] | None = None,
    max_failures: float | None = None,
    bundle: int | str = "auto",
    seed: int | None = None,
    accept_version: bool = False,
    tags: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Handle:
    """`explore` without blocking: the same arguments, a `Handle` at once.

    Without a ``store`` the data last as long as the handle: what runs for days wants one.
    """
    scratch = TemporaryDirectory(prefix="ensemblerl-") if store is None else None
    if scratch is not None:
        own(Path(scratch.name))
    watch = Progress(progress)
    path = Path(scratch.name) / "store" if scratch is not None else store

    def make(total: int) -> Campaign:
        return prepare(
            simulation,
            space,
            goal,
            n_members=total,
            sampler=sampler,
            warm_start=warm_start,
            cluster=cluster,
            store=path or "",
            n_pending=n_pending,
            stop=stop,
            max_failures=max_failures,
            bundle=bundle,
            seed=seed,
            accept_version=accept_version,
            tags=tags,
            watch=watch,
        )

    return Handle(make, n_members, watch=watch, scratch=scratch)
