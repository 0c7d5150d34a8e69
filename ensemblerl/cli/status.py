"""How far a campaign is, from its store alone."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from ensemblerl.cli.units import seconds
from ensemblerl.events import Closed, Opened
from ensemblerl.ledger import FATE_CODE, FATES, Ledger
from ensemblerl.space import Space
from ensemblerl.store.codec import decode
from ensemblerl.store.eventlog import scan
from ensemblerl.store.lock import STALE_SECONDS
from ensemblerl.store.note import said
from ensemblerl.store.reading import LEDGER, read_ledger

SHOWN = 8
"""Parameters named."""
AGAIN = "run the workflow again and it goes on"
ON_PURPOSE = ("stop rule", "the sampler has no more points")
"""Reasons behind which the next run of the same workflow would not go on."""


class Status(NamedTuple):
    """A campaign as a reader finds it.

    Parameters
    ----------
    path : directory of its store
    ledger, kept : what it holds
    driver : who works on it, in words; "" when nobody does
    closed : when each session was closed in good order; NaN for one that was not
    """

    path: Path
    ledger: Ledger
    kept: dict[str, Any]
    driver: str
    closed: list[float]

    @classmethod
    def of(cls, path: Path) -> Self:
        """The campaign in this directory."""
        return cls(path, *read_ledger(path), holder(path), closings(path))

    def lines(self) -> Iterator[tuple[str, str]]:
        """(what, text) for a table."""
        yield "campaign", str(self.path)
        yield "goal", _goal(self.kept.get("goal") or {})
        yield "space", self._space()
        yield "members", self._members()
        if self.ledger.sessions:
            yield from self._sessions()
        yield "state", self._state()
        if note := noted(self.path, self.driver):
            yield "jobs", note

    def _space(self) -> str:
        """A line for each parameter."""
        if not self.kept.get("space"):
            return "unknown"
        space = Space.from_json({**self.kept["space"], "start": (), "constraints": ()})
        some = [f"{n}: {p.brief()} {p.units}".rstrip() for n, p in list(space.items())[:SHOWN]]
        more = [f"and {space.ndim - SHOWN} more"] if space.ndim > SHOWN else []
        return "\n".join([*some, *more])

    def _members(self) -> str:
        ledger = self.ledger
        total = max(ledger.n_members, ledger.n)
        fates = [*FATES[1:], FATES[0]]  # those on their way last
        counts = [(int(ledger.counts[FATE_CODE[fate]]), str(fate)) for fate in fates]
        counts.append((total - ledger.n, "not launched"))
        return f"{total}: " + ", ".join(f"{count} {what}" for count, what in counts if count)

    def _sessions(self) -> Iterator[tuple[str, str]]:
        ledger = self.ledger
        spans = [self._span(i) for i in range(len(ledger.sessions))]
        began = datetime.fromtimestamp(ledger.sessions[0].time).astimezone()
        last, some = ledger.sessions[-1], "sessions, the last" if len(spans) > 1 else "session"
        where = f"{len(spans)} {some} on {last.host} ({last.executor})"
        yield "run", f"{where}; begun {began:%Y-%m-%d %H:%M}, took {seconds(sum(spans))}"
        yield "run time", f"{seconds(float(np.nansum(ledger['runtime'])))} of all members together"

    def _state(self) -> str:
        if self.driver:
            return f"running: {self.driver}"
        if self.ledger.reason:
            return self.ledger.reason + self._left()
        if not self.ledger.sessions:
            return "not begun"
        return f"its driver ended without a word; {AGAIN}"

    def _left(self) -> str:
        """What to do about members that are left; nothing where they were left on purpose."""
        left = max(self.ledger.n_members, self.ledger.n) - self.ledger.n_settled
        if not left or self.ledger.reason.startswith(ON_PURPOSE):
            return ""
        return f", {left} left; {AGAIN}"

    def _span(self, session: int) -> float:
        """Seconds that a session took: until it was closed, or until now; where its driver was
        killed, until the last sign of it.
        """
        ledger, closed = self.ledger, self.closed[session]
        began = ledger.sessions[session].time
        if np.isfinite(closed):
            return max(0.0, closed - began)
        if self.driver and session == len(ledger.sessions) - 1:
            return max(0.0, time.time() - began)
        its = ledger["session"] == session
        signs = [began, *ledger["end"][its], *ledger["launch"][its]]
        return float(np.nanmax(signs)) - began


def closings(path: Path) -> list[float]:
    """Of each session, when it was closed; NaN where it was not."""
    out: list[float] = []
    file = path / LEDGER
    for _, text in scan(file) if file.exists() else ():
        if b'"opened"' in text or b'"closed"' in text:  # most lines are long, and neither
            match decode(text):
                case Opened():
                    out.append(float("nan"))
                case Closed(time=when) if out:
                    out[-1] = when
    return out


def holder(path: Path) -> str:
    """The driver that works on a store, in words; "" when there is none."""
    import psutil

    file = path / "lock"
    try:
        told = json.loads(file.read_text() or "{}")
        silent = time.time() - file.stat().st_mtime
    except (OSError, ValueError):
        return ""
    host, pid = told.get("host"), told.get("pid")
    here = host == platform.node()
    if not pid or (here and not psutil.pid_exists(pid)) or (not here and silent > STALE_SECONDS):
        return ""
    return _named(host, pid)


def noted(path: Path, driver: str) -> str:
    """Why workers are missing, and for how long that is so; "" when the driver says nothing.

    Both times are those of files, so that the clocks of machines do not matter; the lock's is
    the driver's last sign of life.

    Parameters
    ----------
    driver : as `holder` names it; what one that is gone has said is not so any more
    """
    note = said(path)
    if note is None or _named(note.host, note.pid) != driver:
        return ""
    try:
        age = (path / "lock").stat().st_mtime - note.since
    except OSError:
        age = 0.0
    return note.text + (f" (for {seconds(age)})" if age >= 1.0 else "")


def _named(host: Any, pid: Any) -> str:
    return f"process {pid} on {host}"


def _goal(described: dict[str, Any]) -> str:
    """The goal in short; a goal of somebody else by what it says of itself."""
    from ensemblerl.goals.known import goal_of

    try:
        return repr(goal_of(described))
    except ValueError:
        rest = {key: value for key, value in described.items() if key not in ("goal", "k")}
        said = ", ".join(f"{key}={value!r}" for key, value in rest.items())
        return f"{described.get('goal', 'unknown')}({said})"
