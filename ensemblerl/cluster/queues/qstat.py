"""Read what ``qstat -f`` prints, by Torque, PBS Professional or Slurm's wrapper."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress

from ensemblerl.cluster.queues.base import Queued, seconds

Attributes = dict[str, str]
"""Name, in small letters -> text; with ``id``."""
STATES = {"R": "running", "S": "running", "U": "running", "B": "running"}
STATES |= dict.fromkeys("ECFX", "ended")
"""Letter -> state; all others wait. An exiting job (E) has no worker any more."""
ENDS = {"0": "completed", "-27": "out_of_memory", "-29": "timeout"}
"""``Exit_status`` of PBS Professional: JOB_EXEC_KILL_MEM, JOB_EXEC_KILL_WALLTIME."""
TORQUE = {"0": "completed", "-10": "out_of_memory", "-11": "timeout"}
"""``exit_status`` of Torque 6: JOB_EXEC_OVERLIMIT_MEM, JOB_EXEC_OVERLIMIT_WT."""
SIGNALLED = {"265", "271", "137", "143"}
"""Ended by SIGKILL or SIGTERM, counted from 256 or from 128."""
WAITING = {"H": "held", "W": "waiting for its time", "T": "moving"}
NEVER = 10 * 365 * 86400.0
"""Seconds: a walltime longer than this is none (the wrapper prints 8,171 years for unlimited)."""
LAG = 300.0
"""Seconds by which a server may be late with the time used: two of its longest polls."""


def blocks(text: str) -> Iterator[Attributes]:
    """The jobs of ``qstat -f``: indented attributes, folded at any place into lines further in."""
    for block in re.split(r"^Job Id:", text, flags=re.MULTILINE)[1:]:
        first, *lines = block.splitlines()
        attributes = {"id": first.strip()}
        indent, name = "", ""
        for line in filter(str.strip, lines):
            indent = indent or line[: len(line) - len(line.lstrip())]
            begins = re.match(rf"{indent}(\S+) = ?(.*)", line)
            if begins:
                name = begins[1].lower()
                attributes[name] = begins[2]
                if begins[1] == "exit_status":  # PBS Professional writes it with a capital
                    attributes["torque"] = "yes"
            elif name:
                attributes[name] += line.lstrip()
        yield {"job_owner": "", **attributes}


def job_of(attributes: Attributes) -> Queued:
    """The job that these attributes describe."""
    letter = attributes.get("job_state", "Q")
    # the wrapper's "U" is any end it has no letter for; a real server names itself
    state = "ended" if letter == "U" and _wrapped(attributes) else STATES.get(letter, "pending")
    return Queued(
        id=attributes["id"],
        name=attributes.get("job_name", ""),
        state=state,
        end=_end(attributes) if state == "ended" else "",
        reason=attributes.get("comment", WAITING.get(letter, "")),
        node=_nodes(attributes.get("exec_host", "")),
        left=_left(attributes) if state == "running" else None,
        restarts=_restarts(attributes, state),
    )


def _wrapped(attributes: Attributes) -> bool:
    return "server" not in attributes


def _end(attributes: Attributes) -> str:
    status = attributes.get("exit_status", "")
    ends = TORQUE if "torque" in attributes else ENDS
    if status in ends:
        return ends[status]
    limit, used = _limit(attributes), _used(attributes)
    if limit is not None and used is not None and used >= limit:
        return "timeout"
    if status in SIGNALLED:
        return "cancelled"
    return "failed" if status else "unknown"


def _limit(attributes: Attributes) -> float | None:
    limit = seconds(attributes.get("resource_list.walltime", ""))
    return None if limit is None or limit > NEVER else limit


def _used(attributes: Attributes) -> float | None:
    if _wrapped(attributes):  # its mtime is the start and its ctime the end
        start, end = _time(attributes, "mtime"), _time(attributes, "ctime")
        return None if start is None or end is None else end - start
    return seconds(attributes.get("resources_used.walltime", ""))


def _left(attributes: Attributes) -> float | None:
    """By the server's count of the time used, which is late, and our clock where they agree."""
    limit = _limit(attributes)
    if limit is None:
        return None
    used = None if _wrapped(attributes) else _used(attributes)
    names = ("mtime",) if _wrapped(attributes) else ("stime", "start_time")
    start = next((t for name in names if (t := _time(attributes, name)) is not None), None)
    past = None if start is None else time.time() - start
    if past is None or (used is not None and not used <= past <= used + LAG):
        past = used
    return None if past is None else min(limit, max(0.0, limit - past))


def _time(attributes: Attributes, name: str) -> float | None:
    """Seconds since the epoch of an attribute such as "Fri Aug 29 14:55:55 2008"."""
    with suppress(ValueError, KeyError, OverflowError):
        return time.mktime(time.strptime(attributes[name].strip(), "%a %b %d %H:%M:%S %Y"))
    return None


def _nodes(hosts: str) -> str:
    """The names in "n1/0*4+n2/0*4"."""
    return ",".join(dict.fromkeys(host.partition("/")[0] for host in hosts.split("+") if host))


def _restarts(attributes: Attributes, state: str) -> int:
    """Runs before this one; a job that waits has none of its own yet."""
    runs = attributes.get("run_count", attributes.get("start_count", "0")).strip()
    return max(0, int(runs) - (state != "pending")) if runs.isdigit() else 0
