"""The smallest value of one objective."""

from __future__ import annotations

from ensemblerl.goals.extremum import Extremum


class Minimize(Extremum):
    """Find the point with the smallest objective: reward is -value, temperature goes to 0.

    Parameters
    ----------
    objective : name of a variable, an expression over variables, or a function of the mapping
        of variables; a simulation that returns a float has the variable ``"value"``
    subject_to : constraints on the results, such as ``["max_stress <= 250"]``: each is one
        comparison of two expressions over variables, with ``<``, ``<=``, ``>`` or ``>=``. A
        member that misses one is ok, but never the answer.
    noisy : another run of the same point would give another value: the answer is the member
        with the best posterior mean, not the luckiest draw, and the search goes by it
    replicate : share of the agent's points that are run again, for noisy goals: those where
        another draw is worth most to say which member is the best
    keep : variables of the results to keep, None for all

    Raises
    ------
    TypeError, ValueError
        for another kind of objective or constraint, where ``keep`` leaves out what it needs, and
        for a share outside of [0, 1), or of a goal that is not noisy

    Examples
    --------
    >>> import numpy as np
    >>> goal = Minimize("2 * drag")
    >>> goal.value({"drag": np.array(0.25)})
    array([0.5])

    The values of a goal with constraints: the objective, and by how much each is missed.

    >>> goal = Minimize("mass", subject_to=["stress <= 250"])
    >>> goal.value({"mass": np.array(3.0), "stress": np.array(262.0)})
    array([ 3., 12.])
    """

    sign = -1.0
