"""How a campaign is doing, in figures: as a line of text, and as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemblerl.ledger import FATE_CODE, FATES
from ensemblerl.records import Fate

if TYPE_CHECKING:
    from ensemblerl.campaign import Campaign

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
        "in_flight": campaign.in_flight,
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
    parts = [f"{shown['in_flight']:.0f} in flight", f"{shown['failed']:.0f} failed"]
    if np.isfinite(shown["best"]):
        parts.append(f"best {shown['best']:.4g}")
    return " · ".join([*parts, *pace(shown)])


def pace(shown: dict[str, float]) -> list[str]:
    """How fast it goes, how busy the workers are, how long it will take."""
    return [
        f"{shown['rate']:.3g}/s",
        f"{100 * shown['utilisation']:.0f} % used",
        f"{duration(shown['left'])} left",
    ]


def campaign_html(campaign: Campaign) -> str:
    """The campaign as HTML for a notebook: goal, how far it is, fates, the best so far.

    Without styles of its own, so that it has the notebook's colours. Safe from any thread.
    """
    with campaign.journal.lock:
        shown = figures(campaign)
        rows = _rows(campaign, shown)
    done, total = f"{shown['done']:.0f}", str(campaign.n_members)
    state = escape(campaign.reason or ("running" if campaign.began else "not begun"))
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in [*rows, ("pace", " · ".join(pace(shown)))]
    )
    return (
        f"<div><b>ensemblerl</b> {escape(repr(campaign.goal))}<br>"
        f"<progress value='{done}' max='{total}'></progress> {done} of {total} members, {state}"
        f"<table>{body}</table></div>"
    )


def _rows(campaign: Campaign, shown: dict[str, float]) -> list[tuple[str, str]]:
    """(what, text) of the fates that there are, and of the best member with its point."""
    ledger = campaign.ledger
    counts = zip(FATES, ledger.counts.tolist(), strict=True)
    rows = [("members", ", ".join(f"{n} {fate}" for fate, n in counts if n) or "none yet")]
    best = ledger.best_member
    if best >= 0:
        members = campaign.journal.members([best])
        point = campaign.space.point(members.points, 0).items()
        at = ", ".join(f"{name} = {short(value)}" for name, value in point)
        rows.append(("best so far", f"{short(shown['best'])}, member {best}: {at}"))
    if said := note(campaign):
        rows.append(("jobs", said))
    return rows


def note(campaign: Campaign) -> str:
    """Why workers are missing, in one line; "" when none is, or nobody knows. From any thread."""
    return " ".join(str(getattr(campaign.executor, "note", "") or "").split())


def short(value: Any) -> str:
    """A value of a parameter, numbers with four digits.

    Examples
    --------
    >>> short(0.123456), short(64), short("adam")
    ('0.1235', '64', 'adam')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)
