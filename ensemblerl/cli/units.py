"""Bytes and seconds as people write them."""

from __future__ import annotations

import math


def amount(n_bytes: float) -> str:
    """Bytes as text.

    Examples
    --------
    >>> amount(8), amount(2048), amount(3e9)
    ('8 B', '2.0 kB', '3.0 GB')
    """
    size, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]  # those of memory= and its causes
    while size >= 999.95 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def seconds(value: float) -> str:
    """Such as 3 ms, 1.24 s, 3 min.

    Examples
    --------
    >>> seconds(0.0031), seconds(1.236), seconds(200.0)
    ('3.1 ms', '1.2 s', '3 min')
    """
    if not math.isfinite(value):
        return "?"
    if value < 1.0:
        return f"{1000 * value:.2g} ms" if value < 0.0995 else f"{1000 * value:.0f} ms"
    return f"{value:.2g} s" if value < 9.95 else _long(value)


def _long(value: float) -> str:
    from ensemblerl.progress import duration

    return duration(value)
