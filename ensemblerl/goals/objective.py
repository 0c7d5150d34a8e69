"""The number that a goal is about, read off a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ensemblerl.expressions import Expression
from ensemblerl.sources import described, name_of

Given = str | Callable[[Mapping[str, Any]], Any]


class Objective:
    """A variable, an expression over variables, or a callable on the mapping of variables.

    Parameters
    ----------
    given : name of a variable; text like ``"cost + 10 * weight"``; or a function of the mapping
        name -> array. A text that names a variable of the result means that variable.

    Raises
    ------
    TypeError, ValueError
        for anything else, and for a text that is neither a name nor an expression

    Examples
    --------
    >>> Objective("2 * drag")({"drag": np.array(0.25)})
    0.5
    """

    def __init__(self, given: Given) -> None:
        self.given, self._expression = given, None
        if isinstance(given, str):
            self.given = text = given.strip()
            self._expression = None if text.isidentifier() else Expression(text)
        elif not callable(given):
            raise TypeError(
                "objective: wanted the name of a variable, an expression or a callable, "
                f"got {type(given).__name__}"
            )

    @property
    def names(self) -> frozenset[str]:
        """Variables that it needs, as far as they can be known."""
        if not isinstance(self.given, str):
            return frozenset()
        return self._expression.names if self._expression else frozenset([self.given])

    def __call__(self, reduced: Any) -> float:
        """The number.

        Raises
        ------
        ValueError
            for a variable that is not there, and for anything but one real number
        """
        there = reduced if isinstance(reduced, Mapping) else {"value": reduced}
        return _scalar(self.given, self._read(there))

    def _read(self, there: Mapping[str, Any]) -> Any:
        if not isinstance(self.given, str):
            return self.given(there)
        if self.given in there:
            return there[self.given]
        missing = sorted(self.names - set(there))
        if missing:
            raise ValueError(
                f"objective {self.given!r}: wanted variable {', '.join(missing)}, "
                f"there are: {', '.join(sorted(map(str, there))) or 'none'}"
            )
        assert self._expression is not None
        return self._expression(there)

    def describe(self) -> Any:
        """The text, or what the callable is: JSON."""
        return self.given if isinstance(self.given, str) else described(self.given)

    def __repr__(self) -> str:
        if isinstance(self.given, str):
            return repr(self.given)
        return name_of(self.given)


def _scalar(given: Given, value: Any) -> float:
    array = np.asarray(value)
    what = given if isinstance(given, str) else name_of(given)
    if array.shape != ():
        raise ValueError(f"objective {what!r}: wanted a scalar, got shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"objective {what!r}: wanted a real number, got dtype {array.dtype}")
    return float(array)
