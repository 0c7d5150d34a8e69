"""Events as strict JSON, one line each; every float comes back bit for bit (but NaN payloads).

NaN is written ``null`` and infinities ``"Infinity"``, ``"-Infinity"``: JSON has neither. Columns
that hold only what `ensemblerl.ledger.FIXED` gives by default are left out, a note that is the
same for all rows is written once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemblerl.events import (
    Closed,
    Ended,
    Event,
    Extended,
    Held,
    Launched,
    Opened,
    Published,
    Relaunched,
    SchemaFixed,
    Settled,
)
from ensemblerl.ledger import FIXED
from ensemblerl.records import LINEAGE, AnyArray, Members, Outcome

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_COLUMNS = tuple((name, *FIXED[name]) for name in ("seed", "attempt", *LINEAGE))
_NAMES = {
    Opened: "opened",
    Extended: "extended",
    Launched: "launched",
    Relaunched: "relaunched",
    Ended: "ended",
    Settled: "settled",
    SchemaFixed: "schema",
    Published: "published",
    Held: "held",
    Closed: "closed",
}
_PLAIN: dict[str, type[Any]] = {
    _NAMES[kind]: kind for kind in (Opened, Extended, SchemaFixed, Published, Held, Closed)
}
_MAYBE_NAN = {"held": ("began", "connected", "ended", "walltime")}
"""Of plain events: fields that need not be numbers that JSON has a word for."""
_SPELT = {math.inf: "Infinity", -math.inf: "-Infinity"}


def dumps(content: Any) -> str:
    """Strict, compact JSON of anything made of dicts, lists, text and numbers."""
    try:
        return _encode(content)
    except ValueError:  # a float that JSON has no word for: rare, so looked for only now
        return _encode(spelt(content))


def spelt(content: Any) -> Any:
    """The same with NaN as None and infinities as text."""
    if isinstance(content, float):
        return content if math.isfinite(content) else _SPELT.get(content)
    if isinstance(content, Mapping):
        return {key: spelt(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [spelt(value) for value in content]
    return content


def number(spelling: Any) -> float:
    """The float of what `spelt` made of it."""
    return math.nan if spelling is None else float(spelling)


def encode(event: Event) -> str:
    """One event as JSON text without line ends."""
    record: dict[str, Any] = {"event": _NAMES[type(event)]}
    match event:
        case Launched(time=time, members=members):
            record |= {"number": _numbers(members.number), "time": time}
            record |= _members(members)
        case Relaunched(time=time, number=rows, attempt=attempt):
            record |= {"time": time, "number": rows.tolist(), "attempt": attempt.tolist()}
        case Ended() | Settled():
            record["time"] = event.time
            record["outcomes"] = [outcome_fields(o) for o in event.outcomes]
        case _:
            record |= vars(event)
    return dumps(record)


def decode(text: str | bytes) -> Event:
    """The event of a text made by `encode`.

    Raises
    ------
    ValueError
        for a kind of event that this version does not know
    """
    record = json.loads(text)
    kind = record.pop("event")
    if kind == "launched":
        return Launched(record["time"], _launched(record))
    if kind in ("settled", "ended"):
        outcomes = tuple([outcome(fields) for fields in record["outcomes"]])
        return (Settled if kind == "settled" else Ended)(record["time"], outcomes)
    if kind == "relaunched":
        return Relaunched(
            record["time"],
            np.array(record["number"], dtype=np.int64),
            np.array(record["attempt"], dtype=np.int64),
        )
    if kind not in _PLAIN:
        raise ValueError(
            f"event: wanted one of {sorted(_NAMES.values())}, got {kind!r}; was the store written "
            "by a newer version of ensemblerl? Then use that one"
        )
    for name in _MAYBE_NAN.get(kind, ()):
        record[name] = number(record[name])
    event: Event = _PLAIN[kind](**record)
    return event


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """JSON of an outcome without its record, and without what is there by default."""
    fields: dict[str, Any] = {
        "number": int(outcome.number),
        "attempt": int(outcome.attempt),
        "fate": str(outcome.fate),
    }
    if outcome.value:
        fields["value"] = [float(v) for v in outcome.value]
    if outcome.start:
        fields["start"] = float(outcome.start)
    if outcome.reward == outcome.reward:
        fields["reward"] = float(outcome.reward)
    if outcome.runtime:
        fields["runtime"] = float(outcome.runtime)
    for name in ("cause", "worker", "schema", "state"):
        text = getattr(outcome, name)
        if text:
            fields[name] = text
    if outcome.blameless:
        fields["blameless"] = True
    return fields


def outcome(fields: dict[str, Any]) -> Outcome:
    """The outcome of these fields."""
    if "value" in fields:
        fields["value"] = tuple([number(v) for v in fields["value"]])
    for name in ("start", "runtime", "reward"):
        if name in fields:
            fields[name] = number(fields[name])
    return Outcome(**fields)


def _numbers(numbers: AnyArray) -> int | list[int]:
    """The first number when they follow each other, else all of them."""
    n = len(numbers)
    if n and (n == 1 or (np.diff(numbers) == 1).all()):
        return int(numbers[0])
    out: list[int] = numbers.tolist()
    return out


def _members(members: Members) -> dict[str, Any]:
    n = len(members)
    fields: dict[str, Any] = {"unit": members.unit.tolist()}
    if not n:
        fields["ndim"] = members.unit.shape[1]
    for name, _, default in _COLUMNS:
        column = getattr(members, name).tolist()
        if column != [default] * n:
            fields[name] = column
    state = members.state.tolist()
    if any(state):
        fields["state"] = state
    fields["notes"] = {name: _note(name, values) for name, values in members.notes.items()}
    return fields


def _note(name: str, values: AnyArray) -> list[Any]:
    """[dtype, rows], [dtype, value] when all rows hold the same, [dtype, [], shape] when empty."""
    values = np.asarray(values)
    if values.dtype.kind not in "biufU":
        raise TypeError(f"notes[{name!r}]: wanted numbers or text, got dtype {values.dtype}")
    if not values.size:
        return [values.dtype.str, [], list(values.shape)]
    if values.ndim == 1 and _constant(values):
        return [values.dtype.str, values[0].item()]
    return [values.dtype.str, values.tolist()]


def _constant(values: AnyArray) -> bool:
    first = values[0]
    if len(values) == 1:
        return True
    same = np.isnan(values) if first != first else values == first
    return bool(same.all()) and not (values.dtype.kind == "f" and first == 0)  # -0.0 == 0.0


def _launched(record: dict[str, Any]) -> Members:
    rows = record["unit"]
    n = len(rows)
    ndim = len(rows[0]) if n else record["ndim"]
    first = record["number"]
    fixed: dict[str, Any] = {
        name: np.array(record[name], dtype=dtype)
        if name in record
        else _default(name, dtype, default, n)
        for name, dtype, default in _COLUMNS
    }
    return Members(
        number=np.arange(first, first + n) if isinstance(first, int) else np.array(first, "i8"),
        unit=np.array(rows, dtype=np.float64).reshape(n, ndim),
        points={},
        notes={name: _column(n, *note) for name, note in record["notes"].items()},
        state=np.array(record["state"]) if "state" in record else np.full(n, "", dtype="U1"),
        **fixed,
    )


def _column(n: int, dtype: str, data: Any, shape: Any = None) -> AnyArray:
    if isinstance(data, list):
        column = np.array(data, dtype=dtype)
        return column if shape is None else column.reshape(shape)
    return np.array([data], dtype=dtype) if n == 1 else np.full(n, data, dtype=dtype)


_defaults: dict[str, AnyArray] = {}


def _default(name: str, dtype: str, default: Any, n: int) -> AnyArray:
    """(n,) of a default, not to be written to: members are frozen, so they may share it."""
    column = _defaults.get(name)
    if column is None or n > len(column):
        column = _defaults[name] = np.full(max(n, 1024), default, dtype=dtype)
        column.flags.writeable = False
    return column[:n]
