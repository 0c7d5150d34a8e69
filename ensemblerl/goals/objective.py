"""The number that a goal is about, read off a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ensemblerl.expressions import Expression
from ensemblerl.goals.reading import require, scalar
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
    >>> Objective("2 * drag")({"drag": 0.25})
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
        return scalar(self._what, self._read(there))

    def _read(self, there: Mapping[str, Any]) -> Any:
        if not isinstance(self.given, str):
            return self.given(there)
        if self.given in there:
            return there[self.given]
        require(self._what, self.names, there)
        assert self._expression is not None
        return self._expression(there)

    @property
    def _what(self) -> str:
        return f"objective {self.given if isinstance(self.given, str) else name_of(self.given)!r}"

    def describe(self) -> Any:
        """The text, or what the callable is: JSON."""
        return self.given if isinstance(self.given, str) else described(self.given)

    def __repr__(self) -> str:
        if isinstance(self.given, str):
            return repr(self.given)
        return name_of(self.given)
