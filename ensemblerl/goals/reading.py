"""One number read off a result, and what is said where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def require(what: str, names: Iterable[str], there: Mapping[str, Any]) -> None:
    """Refuse a result that lacks one of these variables.

    Parameters
    ----------
    what : who asks, for the message
    names : of the variables
    there : name -> array

    Raises
    ------
    ValueError
        naming those that are missing and those there are
    """
    if missing := sorted(set(names) - set(there)):
        raise ValueError(
            f"{what}: wanted variable {', '.join(missing)}, "
            f"there are: {', '.join(sorted(map(str, there))) or 'none'}"
        )


def scalar(what: str, value: Any) -> float:
    """One real number as a float.

    Parameters
    ----------
    what : who asks, for the message

    Raises
    ------
    ValueError
        for anything else
    """
    array = np.asarray(value)
    if array.shape != ():
        raise ValueError(f"{what}: wanted a scalar, got shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{what}: wanted a real number, got dtype {array.dtype}")
    return float(array)
