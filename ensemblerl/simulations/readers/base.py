"""What the readers share: a file of the working directory, as text, and its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemblerl.records import FloatArray
from ensemblerl.simulations.layouts import InvalidResult
from ensemblerl.simulations.values import short
from ensemblerl.simulations.workdir import contents, inside, printable


@dataclass(frozen=True)
class Reader:
    """Reads variables from one file that a program left in its working directory.

    Parameters
    ----------
    path : of the file in the working directory; ``"stdout"`` and ``"stderr"`` are what it printed
    """

    path: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", inside("path", self.path))

    def __call__(self, directory: Path) -> Any:
        """Name -> number or array, or an `xarray.Dataset`.

        Raises
        ------
        InvalidResult
            naming the file, what was wanted and what came
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Which reader, and its arguments: JSON."""
        return {"reader": type(self).__name__, **vars(self)}

    def refuse(self, wanted: str, came: str) -> InvalidResult:
        """The error for a file that does not hold what was wanted."""
        return InvalidResult(f"file {self.path!r}: wanted {wanted}, got {printable(came)}")

    def file(self, directory: Path) -> Path:
        """Its path; InvalidResult where the program did not write it."""
        path = directory / self.path
        if not path.is_file():
            raise InvalidResult(
                f"file {self.path!r}: wanted it from the program, which did not write it; in "
                f"its directory: {contents(directory)}"
            )
        return path

    def text(self, directory: Path) -> str:
        """What is in it, as UTF-8."""
        return self.file(directory).read_text(encoding="utf-8", errors="replace")


def named(argument: str, wanted: Any) -> dict[str, str] | None:
    """Variable -> what it is called in the file, from a mapping, from names, or from one name.

    Raises
    ------
    ValueError
        for anything else

    Examples
    --------
    >>> named("columns", ["T", "p"])
    {'T': 'T', 'p': 'p'}
    """
    if wanted is None:
        return None
    given = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(given, Mapping) and isinstance(given, Iterable):
        names = list(given)
        given = dict(zip(names, names, strict=True)) if _texts(names) else None
    if not isinstance(given, Mapping) or not given or not _texts([*given, *given.values()]):
        raise ValueError(
            f"{argument}: wanted names, or a mapping variable -> name in the file, got {wanted!r}"
        )
    return dict(given)


def _texts(names: list[Any]) -> bool:
    return all(isinstance(name, str) and name for name in names)


def number(text: str) -> float:
    """A number as programs print it; ValueError for anything else.

    Examples
    --------
    >>> number("-1.5e3"), number("nan"), number("1.25D-02")
    (-1500.0, nan, 0.0125)
    """
    try:
        return float(text)
    except ValueError:  # Fortran's double precision
        return float(text.strip().lower().replace("d", "e", 1))


def floats(value: Any) -> FloatArray:
    """(...) numbers, and lists of them, as float64; TypeError for anything else.

    Whole numbers as well: a program that prints 1 in one member and 1.5 in the next has one layout.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise TypeError(short(value))
    return array.astype(np.float64)
