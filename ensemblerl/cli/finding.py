"""One line of a check."""

from __future__ import annotations

from typing import NamedTuple

GOOD, NOTE, WARN, BAD = "good", "note", "warn", "bad"


class Finding(NamedTuple):
    """One line: how good it is (`GOOD`, `NOTE`, `WARN`, `BAD`), what was found, the remedy."""

    mark: str
    what: str
    found: str
    remedy: str = ""
