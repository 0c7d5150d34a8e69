"""Can the simulation be called with the points of this space? Found out before anything runs."""

from __future__ import annotations

import inspect
from typing import Any

from ensemblerl.protocols import Simulation
from ensemblerl.space import Space

GIVEN = ("seed", "member")
"""Arguments that a simulation gets beside the parameters, when it names them."""


def check_call(simulation: Simulation, space: Space) -> None:
    """Refuse a function whose arguments do not fit the parameters.

    Simulations that are no plain function are left alone, and functions whose signature cannot
    be read.

    Raises
    ------
    TypeError
        naming the arguments that no parameter gives, or the parameters that no argument takes
    """
    f = getattr(simulation, "f", None)
    try:
        arguments = inspect.signature(f).parameters if f is not None else {}
    except (TypeError, ValueError):
        return
    if f is None or "point" in arguments:
        return
    named = {n: p for n, p in arguments.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    always = {name for name in space.names if not space[name].when}
    needed = {name for name, p in named.items() if p.default is p.empty} - set(GIVEN)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in arguments.values())
    taken = set(space.names) if open_ended else set(named)
    _refuse(f, space, needed - set(space.names), "wants {}, which the space does not have")
    _refuse(f, space, set(space.names) - taken, "does not take {}, which the space has")
    _refuse(
        f, space, needed - always, "wants {}, which is not always active: give it a default value"
    )


def _refuse(f: Any, space: Space, names: set[str], why: str) -> None:
    if names:
        called = getattr(f, "__name__", repr(f))
        listed = why.format(", ".join(map(repr, sorted(names))))
        raise TypeError(
            f"simulation: {called} {listed}; parameters of the space: {', '.join(space.names)}"
        )
