"""Parameters in the words of a table: kind, range, prior."""

from __future__ import annotations

import re
from typing import Any

from ensemblerl.spaces.priors import Parameter

COLUMNS = ("name", "kind", "range", "units", "prior", "when", "long name")
_DIGITS = re.compile(r"\d+\.\d{7,}(?:e[-+]?\d+)?")
SHOWN = 8
"""Options that are listed; of more, the first ones."""


def row(name: str, parameter: Parameter) -> tuple[str, ...]:
    """What a table says of a parameter, in the order of `COLUMNS`."""
    return (
        name,
        parameter.name_in_json,
        span(parameter),
        parameter.units,
        prior(parameter),
        parameter.condition,
        parameter.long_name,
    )


def span(parameter: Any) -> str:
    """The values that it takes, in short; empty for a distribution without ends."""
    if hasattr(parameter, "options"):
        more = ", ..." if len(parameter.options) > SHOWN else ""
        return ", ".join(map(str, parameter.options[:SHOWN])) + more
    if hasattr(parameter, "low"):
        step = getattr(parameter, "step", None)
        return f"{parameter.low} to {parameter.high}" + (f", steps of {step}" if step else "")
    return ""


def prior(parameter: Any) -> str:
    """How its values are distributed, before anything is known."""
    if hasattr(parameter, "options") or parameter.name_in_json in ("real", "integer"):
        return "uniform in the logarithm" if getattr(parameter, "log", False) else "uniform"
    return _DIGITS.sub(lambda found: f"{float(found[0]):.6g}", parameter.brief())
