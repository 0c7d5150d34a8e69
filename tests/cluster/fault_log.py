"""What members of a row write when they begin and end, and who runs just now by that."""

from __future__ import annotations

import random
import sys
import time
from contextlib import suppress
from pathlib import Path

from fault_tools import alive, job_of

MEMBER = """\
#!/bin/sh
echo "start {{ number }} {{ attempt }} $$" >> {{ log }}
sleep {{ seconds }} || exit 1
echo "end {{ number }} {{ attempt }} $$" >> {{ log }}
echo "y = {{ x }}"
"""
EVERY = 10
"""Of members of which some are long, which are."""


def some_long(seconds: float) -> str:
    """`MEMBER`, of which every tenth takes so many seconds: time enough for a fault to meet it."""
    long = f"{seconds} if number % {EVERY} == 0 else seconds"
    return MEMBER.replace("{{ seconds }}", f"{{{{ {long} }}}}")


class MemberLog:
    """The file that members write to.

    Parameters
    ----------
    log : its path; it is made
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.log.touch()

    def events(self) -> list[tuple[str, int, int, int]]:
        """(what, number, attempt, process) in order."""
        out = []
        for line in self.log.read_text().splitlines():
            what, *numbers = line.split()
            number, attempt, pid = (int(n) for n in numbers)
            out.append((what, number, attempt, pid))
        return out

    def starts(self) -> dict[int, int]:
        """Number -> how often this member was started."""
        out: dict[int, int] = {}
        for what, number, _, _ in self.events():
            out[number] = out.get(number, 0) + (what == "start")
        return out

    def running(self) -> list[tuple[int, int, int]]:
        """(number, attempt, process) of members that have begun and not ended, and live."""
        begun = {}
        for what, number, attempt, pid in self.events():
            if what == "start":
                begun[number, attempt] = pid
            else:
                begun.pop((number, attempt), None)
        return [(*key, pid) for key, pid in begun.items() if alive(pid)]

    def newest(self) -> tuple[int, int, int] | None:
        """(number, attempt, process) of the member that began last, if it still runs."""
        events = self.events()
        what, *member = events[-1] if events else ("", 0, 0, 0)
        number, attempt, pid = member
        return (number, attempt, pid) if what == "start" and alive(pid) else None

    def just_begun(self, every: int = 1, timeout: float = 30.0) -> tuple[int, int, int]:
        """The next member that begins: it has nearly all of its time before it.

        Parameters
        ----------
        every : its number is a multiple of this
        """
        deadline = time.monotonic() + timeout
        while (member := self.newest()) is None or member[0] % every:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no such member began in {timeout:g} s")
            time.sleep(0.02)
        return member

    def job_in_use(self, draw: random.Random | None = None, timeout: float = 30.0) -> str:
        """A job that runs a member just now: a random one, or one whose long member has begun."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with suppress(OSError, IndexError):
                return job_of((draw.choice(self.running()) if draw else self.just_begun(EVERY))[2])
            time.sleep(0.05)
        raise TimeoutError(f"no job ran a member in {timeout:g} s")

    def job_of_the_next_end(self, timeout: float = 30.0) -> str:
        """The job of the member that ends next, as soon as it has."""
        deadline, jobs = time.monotonic() + timeout, {}
        while time.monotonic() < deadline:
            for number, attempt, pid in self.running():
                with suppress(OSError):
                    jobs[number, attempt] = job_of(pid)
            running = {(number, attempt) for number, attempt, _ in self.running()}
            for key in jobs.keys() - running:
                return jobs[key]
            time.sleep(0.005)
        raise TimeoutError(f"no member ended in {timeout:g} s")

    def members_in(self, job: str) -> list[int]:
        """Numbers of the members that run in a job."""
        out = []
        for number, _, pid in self.running():
            with suppress(OSError):
                out += [number] if job_of(pid) == job else []
        return out

    def again(self) -> int:
        """Members that were started after they had come to their end."""
        ended: set[int] = set()
        again: set[int] = set()
        for what, number, _, _ in self.events():
            if what == "end":
                ended.add(number)
            elif number in ended:
                again.add(number)
        for number in again:
            print("RUN AGAIN", [e for e in self.events() if e[1] == number], file=sys.stderr)
        return len(again)
