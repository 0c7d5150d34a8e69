"""Variables from a JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemblerl.records import FloatArray
from ensemblerl.simulations.readers.base import Reader, floats, named
from ensemblerl.simulations.values import short


@dataclass(frozen=True)
class Json(Reader):
    """Numbers and arrays of a JSON document, as float64.

    ``NaN`` and ``Infinity``, as Python writes them, are numbers; ``null`` and text are none.

    Parameters
    ----------
    path : of the file in the working directory
    variables : variable -> place in the document, ``"results.energy"`` or ``"runs.0.energy"``;
        or a list of places; None: all numbers and lists of numbers at the top

    Raises
    ------
    ValueError
        for an argument that is none of these

    Examples
    --------
    >>> Json("out.json", {"energy": "results.energy"})
    Json(path='out.json', variables={'energy': 'results.energy'})
    """

    variables: Mapping[str, str] | Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "variables", named("variables", self.variables))

    def __call__(self, directory: Path) -> dict[str, FloatArray]:
        """Name -> number or array; InvalidResult where the file does not hold it."""
        document = self._document(self.text(directory))
        if isinstance(self.variables, Mapping):
            return {name: self._found(document, place) for name, place in self.variables.items()}
        out = {}
        for name, value in document.items():
            try:
                out[name] = floats(value)
            except TypeError:
                continue
        if not out:
            raise self.refuse("numbers at the top", short(document))
        return out

    def _document(self, text: str) -> dict[str, Any]:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.refuse(
                "JSON", f"{len(text)} characters that are none ({error}), ending in {text[-40:]!r}"
            ) from None
        if not isinstance(document, dict):
            raise self.refuse("a JSON object", short(document))
        return document

    def _found(self, document: Any, place: str) -> FloatArray:
        here = document
        for part in place.split("."):
            try:
                here = here[int(part)] if isinstance(here, list) else here[part]
            except (LookupError, TypeError, ValueError):
                names = ", ".join(here) if isinstance(here, dict) else short(here)
                raise self.refuse(f"{place!r}", f"nothing at {part!r}; there is {names}") from None
        try:
            return floats(here)
        except TypeError as error:
            raise self.refuse(f"a number or an array of numbers at {place!r}", str(error)) from None
