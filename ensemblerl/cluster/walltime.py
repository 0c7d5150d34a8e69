"""Lengths of time as people and batch systems write them."""

from __future__ import annotations

import math
import re
from typing import Any

UNITS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60}
UNITS |= {"h": 3600, "hr": 3600, "hour": 3600, "d": 86400, "day": 86400}
PIECE = r"(\d+(?:\.\d+)?)\s*([a-z]+)"
CLOCK = re.compile(r"(?:(\d+)-)?(\d+(?::\d+){0,2})")
WANTED = (
    'wanted hours, minutes and seconds such as "02:00:00" (or "1-12:00:00" with days, "30:00" '
    'without hours), text with units such as "90 min", or seconds as a number'
)


def duration(name: str, value: Any) -> float | None:
    """Seconds, or None for None.

    Raises
    ------
    ValueError
        for anything else than a length of time above 0; also for text of digits alone, which
        Slurm takes for minutes and PBS for seconds

    Examples
    --------
    >>> [duration("walltime", t) for t in ("02:00:00", "1-12:00:00", "30:00", "1 h 30 min", 90)]
    [7200.0, 129600.0, 1800.0, 5400.0, 90.0]
    """
    if value is None:
        return None
    found = _read(value.strip().lower()) if isinstance(value, str) else value
    if isinstance(found, int | float) and not isinstance(found, bool) and 0.0 < found < math.inf:
        return float(found)
    hint = ""
    if isinstance(value, str) and value.strip().isdigit():
        hint = " (minutes to Slurm, seconds to PBS: say which)"
    raise ValueError(f"{name}: {WANTED}; got {value!r}{hint}")


def clock(seconds: float) -> str:
    """Whole seconds, rounded up, as a batch system takes them.

    Examples
    --------
    >>> clock(5400), clock(129600.2)
    ('01:30:00', '36:00:01')
    """
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def _read(text: str) -> float | None:
    """Seconds; None for what cannot be read."""
    if found := CLOCK.fullmatch(text):
        return _clocked(found[1], [int(part) for part in found[2].split(":")])
    if not re.fullmatch(rf"{PIECE}(\s*{PIECE})*", text):
        return None
    total = 0.0
    for number, unit in re.findall(PIECE, text):
        size = UNITS.get(unit) or UNITS.get(unit.removesuffix("s"))
        if size is None:
            return None
        total += float(number) * size
    return total


def _clocked(days: str | None, parts: list[int]) -> float | None:
    """Days first, if any; then hours come next, else two parts are minutes and seconds."""
    if days is not None:
        parts = [int(days), *parts, 0, 0][:4]
    elif len(parts) == 1:
        return None
    else:
        parts = [0] * (4 - len(parts)) + parts
    # only the largest that is given may be larger than its kind
    over = [n >= most for n, most in zip(parts[1:], (24, 60, 60), strict=True)]
    first = next((i for i, n in enumerate(parts) if n), 0)
    if any(large and i + 1 > first for i, large in enumerate(over)):
        return None
    d, h, m, s = parts
    return float(((d * 24 + h) * 60 + m) * 60 + s)
