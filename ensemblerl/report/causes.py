"""Failures grouped by cause."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_ADDRESS = re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE)
_DIRECTORY = re.compile(r"(?<![\w/])~?/(?:[^\s/'\":;,<>|()\[\]]+/)+")
"""The directories of an absolute path, up to its last part."""
_MADE_UP = re.compile(r"\btmp[a-z0-9_]{8}(?![a-z0-9_])")
"""How Python names temporary files and directories."""
_DIGEST = re.compile(r"\b(?=[0-9a-f-]*\d)(?=[0-9a-f-]*[a-f])[0-9a-f]{8}[0-9a-f-]*\b", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+]?\b(?:nan|inf)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Cause:
    """Members that ended alike.

    Parameters
    ----------
    count : how many
    fate : theirs
    cause : of the one with the lowest number, as it was told
    members : their numbers, rising
    """

    count: int
    fate: str
    cause: str
    members: tuple[int, ...]


def grouped(frame: pd.DataFrame) -> list[Cause]:
    """The causes of failures, most frequent first.

    Causes that differ only in numbers, addresses and the directories of paths are one.

    Parameters
    ----------
    frame : from ``ds.erl.failures()``: index ``member``, columns ``fate`` and ``cause``

    Examples
    --------
    >>> import pandas as pd
    >>> causes = ["boom at 1.5", "lost", "boom at 2e-3"]
    >>> grouped(pd.DataFrame({"fate": "failed", "cause": causes}))[0]
    Cause(count=2, fate='failed', cause='boom at 1.5', members=(0, 2))
    """
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for member, fate, cause in sorted(
        zip(frame.index.tolist(), map(str, frame["fate"]), map(str, frame["cause"]), strict=True)
    ):
        found.setdefault((fate, pattern(cause)), []).append((int(member), cause))
    groups = [
        Cause(len(alike), fate, alike[0][1], tuple(member for member, _ in alike))
        for (fate, _), alike in found.items()
    ]
    return sorted(groups, key=lambda group: (-group.count, group.members))


def pattern(cause: str) -> str:
    """A cause without what differs from member to member.

    Examples
    --------
    >>> pattern("no file '/scratch/tmpab12cd_3/m-17/out.csv' after 3.5e2 s at 0x7f1c")
    "no file '…/out.csv' after # s at @"
    """
    text = _DIRECTORY.sub("…/", _ADDRESS.sub("@", cause))
    text = _DIGEST.sub("#", _MADE_UP.sub("#", text))
    return _NUMBER.sub("#", text)
