"""What the answer must keep to, read off a result: ``"max_stress <= 250"``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemblerl.expressions import comparison
from ensemblerl.goals.reading import require, scalar
from ensemblerl.records import BoolArray, FloatArray

_WANTED = "wanted one comparison such as 'max_stress <= 250'"


class Constraint:
    """One comparison of two expressions over the variables of a result.

    Parameters
    ----------
    text : with one of ``<``, ``<=``, ``>``, ``>=``

    Attributes
    ----------
    names : the variables that it needs

    Raises
    ------
    TypeError, ValueError
        for anything else, an equality too

    Examples
    --------
    >>> Constraint("max_stress <= 250").violation({"max_stress": 262.0})
    12.0
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"subject_to: {_WANTED}, got {type(text).__name__}")
        self.text = text.strip()
        try:
            self._left, self._symbol, self._right = comparison(self.text)
        except ValueError as error:
            raise ValueError(f"subject_to: {_WANTED}; {error}") from None
        self.names = self._left.names | self._right.names
        if self._symbol in ("==", "!="):
            raise ValueError(
                f"subject_to {self.text!r}: wanted <, <=, > or >=, got {self._symbol}; computed "
                "numbers are hardly ever equal to the last digit: give a tolerance, such as "
                f"'abs({self._left} - ({self._right})) <= 0.01'"
            )
        if not self.names:
            raise ValueError(
                f"subject_to {self.text!r}: wanted a variable of the result, got numbers only"
            )

    def violation(self, there: Mapping[str, Any]) -> float:
        """By how much it is missed, in its own units; 0 or below where it holds.

        Raises
        ------
        ValueError
            for a variable that is not there, and for a side that is not one real number
        """
        what = f"subject_to {self.text!r}"
        require(what, self.names, there)
        left, right = scalar(what, self._left(there)), scalar(what, self._right(there))
        return left - right if self._symbol in ("<", "<=") else right - left

    def holds(self, violation: FloatArray) -> BoolArray:
        """(n,) violations -> (n,) whether it is kept; NaN is not."""
        # no difference of two floats is rounded to 0, so that < is told from <=
        return violation <= 0.0 if self._symbol in ("<=", ">=") else violation < 0.0

    def __repr__(self) -> str:
        return repr(self.text)


def constraints(given: str | Sequence[str]) -> tuple[Constraint, ...]:
    """What ``subject_to`` means: each constraint once.

    Raises
    ------
    TypeError, ValueError
        for anything but texts that are comparisons
    """
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Sequence):
        raise TypeError(f"subject_to: wanted a list of texts, got {type(given).__name__}")
    return tuple({c.text: c for c in map(Constraint, texts)}.values())
