"""The search space: the only bridge between physical points and the cube."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np

from ensemblerl.declared import named_once, parents, read_parameters
from ensemblerl.records import AnyArray, BoolArray, Cube, FloatArray
from ensemblerl.spaces.columns import TYPES, absent, as_column, blanked
from ensemblerl.spaces.constraints import Constraint, Formula, read_constraints
from ensemblerl.spaces.described import COLUMNS, row
from ensemblerl.spaces.priors import Parameter, scalar
from ensemblerl.spaces.tables import html_table, text_table

_COLUMNS = ("name", "prior", "units", "long name", "when")


class Space(Mapping[str, Parameter]):
    """Named parameters, known constraints, and points of one's own to begin with.

    Parameters
    ----------
    parameters, **named : name -> parameter, in the order of the cube's coordinates
    constraints : texts like ``"a + b <= 1"``, or functions called ``f(**point)``; a text counts as
        satisfied where one of its parameters is inactive
    start : points to run first: dicts of physical values, without inactive parameters

    Raises
    ------
    ValueError
        Names that are taken, reserved or no identifiers; a ``when`` that is not about discrete
        parameters declared before; constraints about unknown parameters; start points that are
        incomplete, out of bounds or infeasible.

    Examples
    --------
    >>> from ensemblerl.parameters import Choice, Real
    >>> space = Space(
    ...     optimizer=Choice("sgd", "adam"), momentum=Real(0, 1, when={"optimizer": "sgd"})
    ... )
    >>> points = space.to_points(np.array([[0.2, 0.9], [0.7, 0.5]]))
    >>> points
    {'optimizer': array(['sgd', 'adam'], dtype='<U4'), 'momentum': array([0.9, nan])}
    >>> space.point(points, 1)
    {'optimizer': 'adam'}
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter] | None = None,
        /,
        *,
        constraints: Iterable[str | Callable[..., Any]] = (),
        start: Sequence[Mapping[str, Any]] = (),
        **named: Parameter,
    ) -> None:
        self._parameters = named_once(parameters, named)
        self._parents = tuple(parents(self._parameters, name) for name in self._parameters)
        self.constraints: tuple[Constraint, ...] = read_constraints(constraints, self.names)
        self._try_constraints()
        self._start, self._start_unit = self._read_start(start)

    @property
    def names(self) -> tuple[str, ...]:
        """(ndim,) in the order of the cube's coordinates."""
        return tuple(self._parameters)

    @property
    def ndim(self) -> int:
        """Number of parameters."""
        return len(self._parameters)

    @cached_property
    def cube(self) -> Cube:
        """The space as samplers see it."""
        parameters = self._parameters.values()
        return Cube(
            kinds=tuple(p.kind for p in parameters),
            levels=tuple(p.levels for p in parameters),
            edges=tuple(p.edges for p in parameters),
            parents=self._parents,
            feasible=self.feasible if self.constraints else None,
        )

    def to_points(self, unit: AnyArray) -> dict[str, AnyArray]:
        """(n, ndim) coordinates -> name -> (n,) physical values.

        float64, int64, bool or text by parameter; numbers of conditional parameters are float64,
        NaN where inactive, texts are "" there. ValueError for another shape, or coordinates
        outside the open interval (0, 1).
        """
        unit = self._checked(unit)
        active = self.cube.active(unit) if self.cube.conditional else None
        points = {}
        for j, (name, parameter) in enumerate(self._parameters.items()):
            column = parameter.transform.value(unit[:, j])
            if active is not None and parameter.when:
                column = blanked(column, active[:, j])
            points[name] = column
        return points

    def _checked(self, unit: AnyArray) -> FloatArray:
        out = np.asarray(unit, dtype=np.float64)
        if out.ndim != 2 or out.shape[1] != self.ndim:
            raise ValueError(f"unit: wanted shape (n, {self.ndim}), got {out.shape}")
        inside = (out > 0) & (out < 1)
        if not inside.all():
            came = out[~inside][0]
            raise ValueError(f"unit: wanted coordinates in the open interval (0, 1), got {came}")
        return out

    def to_unit(self, points: Mapping[str, Any]) -> FloatArray:
        """Name -> (n,) physical values -> (n, ndim) coordinates, a cell's centre where discrete.

        ValueError, naming row and parameter, for unknown or missing names, values outside the
        bounds, NaN or "" where a parameter is active, and values where it is not.
        """
        self._check_names(points, "points")
        columns = {
            name: as_column(name, points[name], p.transform.dtype) for name, p in self.items()
        }
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"points: wanted columns of one length, got {lengths}")
        return self._unit(columns, lambda row: f"points, row {row}")

    def _columns(self, given: Mapping[str, Any]) -> dict[str, AnyArray]:
        return {name: as_column(name, given[name], p.transform.dtype) for name, p in self.items()}

    def _unit(self, columns: dict[str, AnyArray], where: Callable[[int], str]) -> FloatArray:
        n = len(next(iter(columns.values())))
        unit = np.full((n, self.ndim), 0.5)
        for j, (name, parameter) in enumerate(self._parameters.items()):
            active = self.cube.active(unit)[:, j] if parameter.when else np.ones(n, dtype=np.bool_)
            found = parameter.transform.unit(columns[name])
            wrong = np.where(active, np.isnan(found), ~absent(columns[name]))
            if wrong.any():
                row = int(np.argmax(wrong))
                _refuse(where(row), name, parameter, columns[name][row], bool(active[row]))
            unit[:, j] = np.where(active, found, 0.5)
        return unit

    def _check_names(self, given: Mapping[str, Any], where: str) -> None:
        unknown = [str(name) for name in given if name not in self._parameters]
        missing = [name for name in self.names if name not in given]
        for what, names in (("unknown", unknown), ("missing", missing)):
            if names:
                raise ValueError(
                    f"{where}: {what} {', '.join(names)}; parameters are: {', '.join(self.names)}"
                )

    def point(self, points: Mapping[str, AnyArray], row: int) -> dict[str, Any]:
        """One point as the simulation gets it: Python's own types, without inactive parameters."""
        out = {}
        for name, parameter in self._parameters.items():
            value = points[name][row]
            if not (parameter.when and (value != value or value == "")):
                out[name] = TYPES[parameter.transform.dtype.kind](value)
        return out

    def feasible(self, unit: FloatArray) -> BoolArray:
        """(n, ndim) coordinates -> (n,) whether all known constraints hold."""
        points = self.to_points(unit)
        out = np.ones(len(unit), dtype=np.bool_)
        for constraint in self.constraints:
            out &= constraint(points, len(unit), lambda row: self.point(points, row))
        return out

    def _try_constraints(self) -> None:
        # Once at the centre: a text compared with a number is found now, not at the first ask.
        for constraint in self.constraints:
            if isinstance(constraint, Formula):
                constraint(self.to_points(np.full((1, self.ndim), 0.5)), 1, lambda row: {})

    def _read_start(self, start: Any) -> tuple[tuple[dict[str, Any], ...], FloatArray]:
        if isinstance(start, str | Mapping) or not isinstance(start, Sequence):
            raise ValueError(f"start: wanted a list of dicts, got {start!r}")
        read = [self._read_own(row, f"start[{i}]") for i, row in enumerate(start)]
        unit = np.array([unit for _, unit in read], dtype=np.float64)
        return tuple(point for point, _ in read), unit.reshape(-1, self.ndim)

    def _read_own(self, row: Any, where: str) -> tuple[dict[str, Any], FloatArray]:
        if not isinstance(row, Mapping):
            raise ValueError(f"{where}: wanted a dict of parameter values, got {row!r}")
        self._check_names({**dict.fromkeys(self.names), **row}, where)
        columns = {
            name: as_column(name, [row.get(name)], p.transform.dtype) for name, p in self.items()
        }
        unit = self._unit(columns, lambda _: where)
        point = self.point(columns, 0)
        for constraint in self.constraints:
            if constraint.known and not constraint(columns, 1, lambda _: point)[0]:
                raise ValueError(f"{where}: wanted a feasible point ({constraint}), got {point}")
        return point, unit[0]

    @property
    def start(self) -> tuple[dict[str, Any], ...]:
        """Points of one's own: dicts of physical values, inactive parameters left out."""
        return tuple(dict(point) for point in self._start)

    def start_unit(self) -> FloatArray:
        """(m, ndim) coordinates of the points of one's own."""
        return self._start_unit.copy()

    def unit_of(self, point: Mapping[str, Any]) -> FloatArray:
        """(ndim,) coordinates of one point, given as a dict without inactive parameters.

        ValueError, naming the parameter, for a point that is incomplete, out of bounds or
        infeasible.
        """
        return self._read_own(point, "point")[1]

    @property
    def casts(self) -> dict[str, str]:
        """Name -> "int" or "bool" where a conditional parameter's column is float64 for its NaN."""
        kinds = {"i": "int", "b": "bool"}
        return {
            name: kinds[p.transform.dtype.kind]
            for name, p in self._parameters.items()
            if p.when and p.transform.dtype.kind in kinds
        }

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __len__(self) -> int:
        return self.ndim

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self._text() == other._text()

    def __hash__(self) -> int:
        return hash(self._text())

    def _text(self) -> str:
        return json.dumps(self.to_json())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "cube"}

    def to_json(self) -> dict[str, Any]:
        """JSON; ``order`` keeps the order of the coordinates whatever sorts the keys."""
        return {
            "parameters": {name: p.to_json() for name, p in self._parameters.items()},
            "order": list(self.names),
            "constraints": [constraint.to_json() for constraint in self.constraints],
            "start": [dict(point) for point in self._start],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `to_json` described; ValueError for anything else."""
        parameters = read_parameters(data)
        return cls(parameters, constraints=data.get("constraints", ()), start=data.get("start", ()))

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """From a file with tables ``[parameters.NAME]``, ``constraints`` and ``start``."""
        try:
            return cls.from_json(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _title(self) -> str:
        sizes = self.ndim, len(self.constraints), len(self._start)
        counts = zip(sizes, ("parameter", "constraint", "start point"), strict=True)
        return "Space of " + ", ".join(f"{n} {what}{'s' * (n > 1)}" for n, what in counts if n)

    def _rows(self) -> list[tuple[str, ...]]:
        return [(name, p.brief(), p.units, p.long_name, p.condition) for name, p in self.items()]

    def __repr__(self) -> str:
        where = [f"  where {constraint}" for constraint in self.constraints]
        return "\n".join([self._title(), text_table(_COLUMNS, self._rows()), *where])

    def _repr_html_(self) -> str:
        where = "".join(f"<br>where {escape(str(c))}" for c in self.constraints)
        rows = [row(name, parameter) for name, parameter in self.items()]
        return f"<b>{self._title()}</b>{html_table(COLUMNS, rows)}{where}"


def _refuse(where: str, name: str, parameter: Parameter, value: Any, active: bool) -> NoReturn:
    value = scalar(value)
    if active:
        came = "nothing" if value != value or value == "" else repr(value)
        raise ValueError(f"{where}: {name!r} must be {parameter.support}, got {came}")
    raise ValueError(
        f"{where}: {name!r} must be left out, it counts only when {parameter.condition}; "
        f"got {value!r}"
    )
