"""Numbers from a log, by a regular expression."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemblerl.records import FloatArray
from ensemblerl.simulations.readers.base import Reader, number
from ensemblerl.simulations.workdir import last_lines

WHICH = ("last", "first", "all")
LINES = 5
"""Last lines of the file that the message shows where nothing was found."""


@dataclass(frozen=True)
class Regex(Reader):
    r"""Named groups of a regular expression as float64.

    ``^`` and ``$`` stand for begin and end of a line (``re.MULTILINE``). Catch a number with
    ``\S+``: it takes "nan" and "inf" too, so that a run that blew up does not pass for an earlier
    line of its own log.

    Parameters
    ----------
    path : of the file in the working directory; ``"stdout"`` is what the program printed
    pattern : text or compiled, with a group ``(?P<name>...)`` for each variable
    which : the ``"last"`` match, the ``"first"``, or ``"all"``: then (match,) arrays

    Raises
    ------
    ValueError
        for a pattern that is none or names no group, and another ``which``

    Examples
    --------
    >>> Regex("stdout", r"^Total energy: (?P<energy>\S+)").names
    ('energy',)
    """

    pattern: str | re.Pattern[str]
    which: str = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            compiled = re.compile(self.pattern, 0 if self._is_compiled() else re.MULTILINE)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"pattern: wanted a regular expression, got {self.pattern!r}: {error}"
            ) from None
        if not compiled.groupindex:
            raise ValueError(
                f"pattern: wanted a named group (?P<name>...), got {self.pattern!r} without"
            )
        if self.which not in WHICH:
            raise ValueError(f"which: wanted one of {', '.join(WHICH)}, got {self.which!r}")
        object.__setattr__(self, "pattern", compiled)

    def _is_compiled(self) -> bool:
        return isinstance(self.pattern, re.Pattern)

    @property
    def names(self) -> tuple[str, ...]:
        """The variables: names of the groups."""
        return tuple(re.compile(self.pattern).groupindex)

    def __call__(self, directory: Path) -> Mapping[str, FloatArray]:
        """Name -> number, or (match,); InvalidResult where the file does not hold it."""
        matches = list(re.compile(self.pattern).finditer(self.text(directory)))
        if not matches:
            tail = "\n".join(last_lines(directory / self.path, LINES))
            came = f"no match; its last lines:\n{tail}" if tail else "an empty file"
            raise self.refuse(f"{self._text()!r}", came)
        if self.which == "all":
            return {n: np.array([self._number(m, n) for m in matches]) for n in self.names}
        match = matches[0 if self.which == "first" else -1]
        return {name: np.array(self._number(match, name)) for name in self.names}

    def _number(self, match: re.Match[str], name: str) -> float:
        found = match[name]
        try:
            return number(found or "")
        except ValueError:
            raise self.refuse(
                f"a number for {name!r} in {self._text()!r}", f"{found!r} in {match[0]!r}"
            ) from None

    def _text(self) -> str:
        return re.compile(self.pattern).pattern

    def describe(self) -> dict[str, Any]:
        """Which reader, and its arguments: JSON."""
        flags = re.compile(self.pattern).flags
        return {**super().describe(), "pattern": self._text(), "flags": int(flags)}

    def __repr__(self) -> str:
        return f"Regex({self.path!r}, {self._text()!r}, which={self.which!r})"
