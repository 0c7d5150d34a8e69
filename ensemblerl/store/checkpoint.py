"""A sampler's state in one npz file: arrays as arrays, the rest as JSON; no pickle."""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ensemblerl.protocols import State
from ensemblerl.records import AnyArray
from ensemblerl.store.errors import failure
from ensemblerl.store.files import write_aside

_TREE = "state.json"
_KINDS = "biufcUSMm"


def save(path: Path, state: State, n_events: int) -> None:
    """Write aside and rename.

    Raises
    ------
    TypeError
        for a state that holds anything but dicts, lists, arrays, numbers and text
    StoreError
        when it cannot be written; the checkpoint before it is still there
    """
    arrays: dict[str, AnyArray] = {}
    tree = {"n_events": n_events, "state": _flat(state, "state", arrays)}
    arrays[_TREE] = np.frombuffer(json.dumps(tree, allow_nan=False).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_aside(path, buffer.getvalue())


def load(path: Path) -> tuple[State, int] | None:
    """(state, events it knew), or None when there is no whole checkpoint."""
    try:
        with np.load(path, allow_pickle=False) as file:
            tree = json.loads(file[_TREE].tobytes())
            state: State = _deep(tree["state"], file)
            return state, int(tree["n_events"])
    except (FileNotFoundError, zipfile.BadZipFile, EOFError, KeyError, ValueError):
        return None
    except OSError as error:
        raise failure(error, path, "read the checkpoint") from error


def _flat(value: Any, name: str, arrays: dict[str, AnyArray]) -> Any:
    """JSON in which dicts, lists, arrays and odd floats are wrapped by what they are."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _KINDS:
            raise TypeError(f"{name}: wanted numbers or text, got dtype {value.dtype}")
        arrays[name] = value
        return {"array": name}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {
            "dict": [[_key(k, name), _flat(v, f"{name}/{k}", arrays)] for k, v in value.items()]
        }
    if isinstance(value, list | tuple):
        return {"list": [_flat(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{name}: wanted dicts, lists, arrays, numbers or text, got {type(value)}")


def _key(key: Any, name: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{name}: wanted text as keys, got {key!r}")
    return key


def _deep(value: Any, file: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return file[content]
    if kind == "float":
        return float(content)
    if kind == "list":
        return [_deep(v, file) for v in content]
    return {k: _deep(v, file) for k, v in content}
