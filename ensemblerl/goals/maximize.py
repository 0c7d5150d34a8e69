"""The largest value of one objective."""

from __future__ import annotations

from ensemblerl.goals.extremum import Extremum


class Maximize(Extremum):
    """Find the point with the largest objective: reward is value, temperature goes to 0.

    Parameters
    ----------
    objective : name of a variable, an expression over variables, or a function of the mapping
        of variables; a simulation that returns a float has the variable ``"value"``
    keep : variables of the results to keep, None for all

    Raises
    ------
    TypeError, ValueError
        for another kind of objective, and where ``keep`` leaves out what it needs

    Examples
    --------
    >>> import numpy as np
    >>> goal = Maximize("2 * drag")
    >>> goal.value({"drag": np.array(0.25)})
    array([0.5])
    """

    sign = 1.0
