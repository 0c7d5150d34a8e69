"""Members that are to run again, and in whose company: one of them may end the process it is in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable


class Reruns:
    """A queue of member numbers; suspects leave it one at a time.

    Where members run in the driver's own process, a suspect runs with nothing else on its way:
    should the driver end, it is known who was to blame.

    Parameters
    ----------
    suspect : number -> whether it may be one that ends its process
    in_process : members run in the driver's own process
    """

    def __init__(self, suspect: Callable[[int], bool], in_process: bool) -> None:
        self._suspect, self._in_process = suspect, in_process
        self._waiting: deque[int] = deque()
        self._out = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, numbers: Iterable[int]) -> None:
        """Queue these, each once."""
        self._waiting.extend(i for i in numbers if i not in self._waiting)

    def next(self, in_flight: int) -> int | None:
        """The next one to launch now, None when there is none that may go."""
        if self.alone(in_flight):
            return None
        for i in self._waiting:
            suspect = self._suspect(i)
            if suspect and (self._out or (self._in_process and in_flight)):
                continue
            self._waiting.remove(i)
            self._out = self._out or suspect
            return i
        return None

    def landed(self, number: int) -> None:
        """A launched bundle that begins with this member is back."""
        if self._out and self._suspect(number):
            self._out = False

    def alone(self, in_flight: int) -> bool:
        """Whether a suspect is on its way that could take this process along."""
        return self._out and self._in_process and in_flight > 0
