"""Can the simulation be called with the points of this space? Found out before anything runs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from ensemblerl.protocols import Simulation
from ensemblerl.space import Space

GIVEN = ("seed", "member")
"""Arguments that a simulation gets beside the parameters, when it names them."""


def check_call(simulation: Simulation, space: Space) -> None:
    """Refuse a function whose arguments, or a command whose templates do not fit the parameters.

    Other simulations are left alone, and functions whose signature cannot be read. A simulation
    with templates has ``uses()``, in words where -> the names looked up there, and ``gives()``,
    the names that are there without a parameter.

    Raises
    ------
    TypeError
        naming the arguments that no parameter gives, or the parameters that no argument takes
    """
    uses = getattr(simulation, "uses", None)
    if callable(uses):
        check_uses(uses(), getattr(simulation, "gives", frozenset)(), space)
        return
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


def check_uses(uses: Mapping[str, Iterable[str]], gives: Iterable[str], space: Space) -> None:
    """Refuse names that nothing gives, and parameters that nothing uses.

    Parameters
    ----------
    uses : in words where -> the names looked up there; ``point`` stands for all parameters
    gives : names that are there without a parameter
    space : the parameters

    Raises
    ------
    TypeError
        naming the place and the name, or the parameter
    """
    listed, given = ", ".join(space.names), set(gives)
    if both := sorted(given & set(space.names)):
        raise TypeError(
            f"simulation: a command gives {both[0]!r} itself, wanted another name for this "
            f"parameter of the space; it gives {', '.join(sorted(given))}"
        )
    for where, names in uses.items():
        for name in sorted(set(names) - given - set(space.names)):
            close = difflib.get_close_matches(name, [*space.names, *sorted(given)], n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise TypeError(
                f"simulation: {where} uses {name!r}, which the space does not have{hint}; "
                f"parameters of the space: {listed}"
            )
    used = _counted({name for names in uses.values() for name in names}, space)
    for name in space.names:
        if name not in used:
            raise TypeError(
                f"simulation: no template, argument or environment uses {name!r}; parameters of "
                f"the space: {listed}"
            )


def _counted(used: set[str], space: Space) -> set[str]:
    """What is used; a parameter that decides whether another one counts is used by that."""
    out = set(space.names) if "point" in used else set(used)
    for name in reversed(space.names):  # parents come before their children
        if name in out:
            out |= set(space[name].when or {})
    return out
