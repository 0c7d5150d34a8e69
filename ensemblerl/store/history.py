"""Where in the ledger's file members were launched, and what sessions there were."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right

_LAUNCHED = re.compile(rb'\{"event":"launched","number":\[?(\d+)')
_PREAMBLE = (b'{"event":"opened"', b'{"event":"schema"')


class Offsets:
    """Offsets of the launches, in order of member numbers; texts of sessions and schema.

    Attributes
    ----------
    size : byte at which the next event will be
    """

    def __init__(self) -> None:
        self.size = 0
        self._numbers, self._launches = array("q"), array("q")
        self._kept: list[tuple[int, str]] = []

    def note(self, offset: int, text: bytes, stop: int) -> None:
        """Take in the event at this offset, which ends at ``stop``."""
        self.size = stop
        if launched := _LAUNCHED.match(text):
            self._numbers.append(int(launched[1]))
            self._launches.append(offset)
        elif text.startswith(_PREAMBLE):
            self._kept.append((offset, text.decode()))

    def offset(self, number: int) -> int:
        """Byte of the launch that holds this member, or of the last one before it."""
        place = bisect_right(self._numbers, number) - 1
        return self._launches[place] if place >= 0 else 0

    def preamble(self, offset: int) -> tuple[str, ...]:
        """Sessions and schema told before this byte."""
        return tuple(text for place, text in self._kept if place < offset)
