"""Checks of what a space is declared with: names, and the parents of conditional parameters."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemblerl.names import RESERVED
from ensemblerl.parameters import from_json
from ensemblerl.spaces.priors import Parameter


def named_once(
    parameters: Mapping[str, Parameter] | None, named: Mapping[str, Parameter]
) -> dict[str, Parameter]:
    """Name -> parameter, given as a dict or as keywords; ValueError for names that will not do."""
    first = {} if parameters is None else parameters
    if not isinstance(first, Mapping):
        raise ValueError(f"parameters: wanted a dict of name -> parameter, got {first!r}")
    for name in named:
        if name in first:
            raise ValueError(f"parameters: wanted every name once, got {name!r} twice")
    out = {**first, **named}
    if not out:
        raise ValueError("parameters: wanted at least one, got none")
    for name, parameter in out.items():
        _check_name(name)
        if not isinstance(parameter, Parameter):
            raise ValueError(f"{name}: wanted a parameter like Real(0, 1), got {parameter!r}")
    return out


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"parameters: wanted identifiers as names, got {name!r}")
    if name in RESERVED:
        raise ValueError(
            f"parameters: the name {name!r} is reserved, wanted none of "
            + ", ".join(sorted(RESERVED))
        )


def parents(parameters: dict[str, Parameter], name: str) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Coordinates and cells of the ``when`` of a parameter."""
    order = list(parameters)
    out = []
    for parent, values in (parameters[name].when or {}).items():
        if parent not in order[: order.index(name)]:
            raise ValueError(f"{name}: when must name a parameter declared before, got {parent!r}")
        edges = parameters[parent].edges
        if edges is None:
            raise ValueError(f"{name}: when must name a discrete parameter, got {parent!r}")
        unit = [float(parameters[parent].transform.unit(np.asarray([v]))[0]) for v in values]
        if np.isnan(unit).any():
            support = parameters[parent].support
            raise ValueError(f"{name}: when wants {parent!r} {support}, got {values!r}")
        cells = {int(np.searchsorted(edges[1:-1], u, side="right")) for u in unit}
        out.append((order.index(parent), tuple(sorted(cells))))
    return tuple(out)


def _parameter(name: str, data: Any) -> Parameter:
    try:
        return from_json(data)
    except ValueError as error:
        raise ValueError(f"parameters.{name}: {error}") from None


def read_parameters(data: Any) -> dict[str, Parameter]:
    """Name -> parameter, in their order, from ``parameters`` and ``order`` of a space's JSON."""
    known = {"parameters", "order", "constraints", "start"}
    if not isinstance(data, Mapping) or not set(data) <= known:
        raise ValueError(f"space: wanted a dict of {', '.join(sorted(known))}, got {data!r}")
    given = data.get("parameters")
    if not isinstance(given, Mapping):
        raise ValueError(f"space: parameters must be a dict by name, got {given!r}")
    order = data.get("order", list(given))
    if not isinstance(order, list) or set(order) != set(given) or len(order) != len(given):
        raise ValueError(f"space: order must hold the names {list(given)}, got {order!r}")
    return {name: _parameter(name, given[name]) for name in order}
