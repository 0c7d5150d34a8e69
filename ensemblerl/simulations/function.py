"""A Python function as a simulation, with what belongs to a run."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from types import GeneratorType
from typing import Any

from ensemblerl.protocols import Simulation
from ensemblerl.sources import described, file_of, name_of, version_of

OURS = ("point", "seed", "member")
"""Parameters of a function that are not the space's: these names are reserved."""
ARGUMENTS = ("cores", "timeout", "retries", "isolate", "max_result_bytes")


@dataclass(frozen=True, repr=False)
class Function:
    """A function that runs one member.

    Its parameters say how it is called: ``f(point, seed)`` when it has a parameter ``point``,
    else ``f(**point)``, and ``seed=`` and ``member=`` where it names them. It returns a number,
    a mapping of numbers and arrays, or an `xarray.Dataset`; a generator function yields
    intermediate results, the last one is the result.

    Parameters
    ----------
    f : the function, a partial or a callable object
    cores : processor cores that one run uses
    timeout : seconds a run may take; when given, runs are isolated (only a process can be ended)
    retries : how often a run that failed is run again
    version : of the code; a hash of the source when None
    isolate : run in a process of its own: a crash costs one member and no worker
    max_result_bytes : larger results (after ``Goal.reduce``) are invalid

    Raises
    ------
    TypeError, ValueError
        naming the argument, what was wanted and what came

    Examples
    --------
    >>> square = Function(lambda x: x**2, version="1")
    >>> square({"x": 3.0}, seed=1)
    9.0
    """

    f: Callable[..., Any]
    _: KW_ONLY
    cores: int = 1
    timeout: float | None = None
    retries: int = 0
    version: str | None = None
    isolate: bool = False
    max_result_bytes: int = 2**28
    _takes: tuple[str, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "_takes", _taken(self.f))
        if self.version is None:
            object.__setattr__(self, "version", version_of(self.f))

    @property
    def isolated(self) -> bool:
        """Whether runs have a process of their own."""
        return self.isolate or self.timeout is not None

    def __call__(
        self, point: Mapping[str, Any], *, seed: int, member: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one member, here or in a process of its own."""
        if not self.isolated:
            return self.here(point, seed=seed, member=member)
        from ensemblerl.simulations import isolate

        return isolate.run(self, point, seed, member)

    def here(
        self, point: Mapping[str, Any], *, seed: int, member: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one member in this process, whatever ``isolate`` says."""
        if not self._takes:
            result = self.f(**point)
        else:
            given = {"point": point, "seed": seed, "member": member or {}}
            ours = {name: given[name] for name in self._takes}
            result = self.f(**ours) if "point" in ours else self.f(**point, **ours)
        return _last(result) if type(result) is GeneratorType else result

    def describe(self) -> dict[str, Any]:
        """Name, module, hash of the source, file, version, arguments: JSON."""
        return {
            **described(self.f),
            "file": file_of(self.f),
            "version": self.version,
            "arguments": {name: getattr(self, name) for name in ARGUMENTS},
        }

    def __repr__(self) -> str:
        values = {name: getattr(self, name) for name in ARGUMENTS}
        given = [f"{name}={v!r}" for name, v in values.items() if v != getattr(Function, name)]
        if self.version not in (None, version_of(self.f)):
            given.append(f"version={self.version!r}")
        return f"{type(self).__name__}({', '.join([name_of(self.f), *given])})"


def as_simulation(obj: Any) -> Simulation:
    """A simulation stays what it is, a callable becomes a `Function`.

    Raises
    ------
    TypeError
        when it is neither
    """
    if isinstance(obj, Simulation) and not inspect.isclass(obj):
        return obj
    if callable(obj):
        return Function(obj)
    raise TypeError(f"simulation: wanted a function or a Simulation, got {obj!r}")


def _last(results: GeneratorType[Any, Any, Any]) -> Any:
    result = none = object()
    for result in results:  # noqa: B007
        pass
    if result is none:
        raise ValueError("the generator yielded nothing; wanted the result as its last yield")
    return result


def _taken(f: Callable[..., Any]) -> tuple[str, ...]:
    """Which of our parameters f names (those bound by a partial stay bound)."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (ValueError, TypeError):
        return ()
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    fixed = f.keywords if isinstance(f, functools.partial) else {}
    taken = tuple(name for name in OURS if name in names and name not in fixed)
    others = [name for name in names if name not in OURS and name not in fixed]
    if "point" in taken and others:
        raise ValueError(
            f"f: a function with a parameter 'point' gets the point whole, wanted (point, seed), "
            f"got also {', '.join(others)}"
        )
    return taken


def _check(function: Function) -> None:
    if not callable(function.f):
        raise TypeError(f"f: wanted a callable, got {function.f!r}")
    for name, least in (("cores", 1), ("retries", 0), ("max_result_bytes", 1)):
        value = getattr(function, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: wanted a whole number >= {least}, got {value!r}")
    timeout = function.timeout
    if timeout is not None and not (_is_number(timeout) and 0.0 < timeout < math.inf):
        raise ValueError(f"timeout: wanted seconds > 0 or None, got {timeout!r}")
    if not isinstance(function.isolate, bool):
        raise ValueError(f"isolate: wanted True or False, got {function.isolate!r}")
    if function.version is not None and not isinstance(function.version, str):
        raise ValueError(f"version: wanted text or None, got {function.version!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
