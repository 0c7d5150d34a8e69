"""Results that are there already: a store of ours, a Dataset of one, or anybody's table."""

from __future__ import annotations

import csv
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ensemblerl.protocols import Goal
from ensemblerl.records import AnyArray, Fate, FloatArray, Hints
from ensemblerl.samplers.tables import TRUTH
from ensemblerl.space import Space
from ensemblerl.store.backend import open_store
from ensemblerl.store.columns import field_names
from ensemblerl.store.reading import is_store
from ensemblerl.warm.ranked import Table, ranked

EMPTY = ("", "nan", "na", "null", "none")
"""Cells of a CSV file that hold nothing, in small letters."""
BYTES = 2**26
"""Of a variable of a campaign, that are read at once."""


class Earlier:
    """Results from a table that is no store of ours, for ``warm_start=``.

    Parameters
    ----------
    table : path of a CSV file with a header, pandas DataFrame, list of dicts, mapping of columns,
        or xarray Dataset of variables over one dimension. Columns with the names of parameters
        hold physical values; empty cells are unknown.
    value : column of what the goal is about: of the objective for `Minimize` and `Maximize`. None:
        the goal reads its variables from the columns of their names, constraints included

    Raises
    ------
    TypeError
        for another kind of table, or a ``value`` that is no name

    Examples
    --------
    >>> Earlier([{"x": 0.5, "rmse": 1.2}, {"x": 0.7, "rmse": 0.9}], value="rmse")
    Earlier(list, value='rmse')
    """

    def __init__(self, table: Any, *, value: str | None = None) -> None:
        if value is not None and not isinstance(value, str):
            raise TypeError(f"value: wanted the name of a column, got {value!r}")
        self.table, self.value = table, value
        dicts = isinstance(table, Sequence) and all(isinstance(row, Mapping) for row in table)
        columns = hasattr(table, "columns") or hasattr(table, "data_vars")
        if not (isinstance(table, str | Path | Mapping) or columns or dicts):
            raise TypeError(
                "table: wanted the path of a CSV file, a pandas DataFrame, a list of dicts or an "
                f"xarray Dataset, got {type(table).__name__}"
            )

    def identity(self) -> dict[str, Any]:
        """What it is known by when a campaign goes on: JSON."""
        if isinstance(self.table, str | Path):
            source = str(Path(self.table).expanduser().absolute())
        else:
            source = f"{type(self.table).__name__} {_digest(_columns(self.table))}"
        return {"kind": "table", "source": source, "value": self.value}

    def hints(self, space: Space, goal: Goal) -> tuple[Hints, dict[str, Any]]:
        """What it says of this space, and what became of its rows.

        Raises
        ------
        ValueError
            naming the column or the row that does not fit
        """
        on_disk = isinstance(self.table, str | Path)
        columns = _read(Path(self.table), space, self.value) if on_disk else _columns(self.table)
        if not columns or not len(next(iter(columns.values()))):
            raise ValueError(f"warm_start: wanted a table with rows, got none in {self!r}")
        return ranked(Table(columns, _rewards(columns, self.value, goal)), space)

    def __repr__(self) -> str:
        path = isinstance(self.table, str | Path)
        shown = repr(str(self.table)) if path else type(self.table).__name__
        return f"Earlier({shown}, value={self.value!r})"


class Campaigned:
    """Results of a campaign of ours: the path of its store, or its Dataset.

    Parameters
    ----------
    given : one of these
    """

    def __init__(self, given: Any) -> None:
        self.given = given
        if isinstance(given, str | Path):
            self.path: Path | None = Path(given).expanduser()
        elif hasattr(given, "data_vars"):
            self.path = None
            missing = [n for n in ("reward", "fate") if n not in given.variables]
            if missing:
                raise ValueError(
                    f"warm_start: wanted the Dataset of a campaign, this one has no {missing[0]!r};"
                    " a table of other results goes in as Earlier(table, value=...)"
                )

    def identity(self) -> dict[str, Any]:
        """What it is known by when a campaign goes on: JSON."""
        if self.path is not None:
            return {"kind": "store", "source": str(self.path.absolute())}
        ds = self.given
        there = {
            str(n): np.asarray(ds[n].values) for n in [*ds.coords, "reward"] if ds[n].ndim == 1
        }
        return {"kind": "dataset", "source": f"{ds.attrs.get('title', '')} {_digest(there)}"}

    def hints(self, space: Space, goal: Goal) -> tuple[Hints, dict[str, Any]]:
        """What its members say of this space: by this goal's value of their results where these
        have what it needs, else by the rewards that they had.

        Raises
        ------
        ValueError
            where there is no store, no parameter of this space, or no member that is of use
        """
        if self.path is not None and not is_store(self.path):
            raise ValueError(
                f"warm_start: wanted the path of a store, there is none at {self.path}; a table "
                "goes in as Earlier(table, value=...)"
            )
        ds = self.given if self.path is None else open_store(self.path)
        names = [str(n) for n, c in ds.coords.items() if c.dims == ("member",)]
        columns = {n: np.asarray(ds[n].values) for n in names if n in space.names}
        reward, by = _regarded(ds, goal)
        if not columns:
            columns = {n: np.asarray(ds[n].values) for n in names}  # the error names them
        return ranked(Table(columns, reward, {"ranked_by": by}), space)


def _regarded(ds: Any, goal: Goal) -> tuple[FloatArray, str]:
    """(n,) rewards by this goal, NaN where not ok, and whose they are in words."""
    own = np.asarray(ds["reward"].values, dtype=np.float64)
    ok = np.asarray(ds["fate"].values).astype(np.str_) == str(Fate.ok)
    own = np.where(ok, own, np.nan)
    if _same_goal(ds.attrs.get("goal"), goal):
        return own, "this goal"
    reward, there = np.full(len(own), np.nan), Variables(ds)
    for count, i in enumerate(np.flatnonzero(ok).tolist()):
        try:
            value = np.asarray(goal.value(there.at(i)), dtype=np.float64)
        except (ValueError, KeyError) as error:
            if count == 0:  # its results lack what the goal is about: they all do
                warnings.warn(
                    f"warm_start: ranked by the rewards that its members had: {_line(error)}",
                    stacklevel=2,
                )
                return own, f"its own rewards ({_line(error)})"
            continue
        reward[i] = goal.rewards(value[None, :], np.array([str(Fate.ok)]))[0]
    return reward, "this goal"


def _same_goal(text: Any, goal: Goal) -> bool:
    try:
        then = json.loads(text)
    except (TypeError, ValueError):
        return False
    now = json.loads(json.dumps(goal.describe()))
    return isinstance(then, dict) and {k: v for k, v in then.items() if k != "k"} == {
        k: v for k, v in now.items() if k != "k"
    }


class Variables(Mapping[str, AnyArray]):
    """Results of one member at a time, under the names that the simulation gave them.

    They are read when they are asked for, of some members at once.

    Parameters
    ----------
    ds : of a campaign
    """

    def __init__(self, ds: Any) -> None:
        parameters = [str(name) for name in ds.coords]
        there = {str(name) for name, v in ds.data_vars.items() if v.dims[:1] == ("member",)}
        plain = {n.removeprefix("result_") for n in there} | there
        named = {n: field_names([n], parameters)[n] for n in sorted(plain, key=len, reverse=True)}
        own = {kept: n for n, kept in named.items() if kept in there}  # the shorter one last
        self._names = {n: kept for kept, n in own.items()}
        self._ds, self._row = ds, 0
        self._read: dict[str, tuple[int, AnyArray]] = {}

    def at(self, row: int) -> Self:
        """Of this member from now on."""
        self._row = row
        return self

    def __getitem__(self, name: str) -> AnyArray:
        variable = self._ds[self._names[name]]
        rows = max(1, BYTES * len(variable) // max(1, variable.nbytes))
        block, row = divmod(self._row, rows)
        if self._read.get(name, (-1,))[0] != block:
            piece = variable.isel(member=slice(block * rows, (block + 1) * rows))
            self._read[name] = block, np.asarray(piece.values)
        return np.asarray(self._read[name][1][row])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _rewards(columns: Mapping[str, Any], value: str | None, goal: Goal) -> FloatArray:
    """(n,) rewards of the rows of a table; NaN where there is no value."""
    n = len(next(iter(columns.values())))
    if value is None:
        rows = np.array([_valued(columns, i, goal) for i in range(n)])
    else:
        if value not in columns:
            raise ValueError(
                f"warm_start: wanted a column {value!r} (value=), there are: "
                f"{', '.join(map(str, columns))}"
            )
        if goal.k != 1:
            raise ValueError(
                f"warm_start: {goal!r} wants {goal.k} values a row, got one column {value!r}; "
                "leave value= out, and give the columns the names of its variables"
            )
        rows = _numbers(columns[value], value)[:, None]
    told = np.isfinite(rows).all(axis=1)
    fates = np.where(told, str(Fate.ok), str(Fate.failed))
    return np.asarray(goal.rewards(rows, fates), dtype=np.float64)


def _valued(columns: Mapping[str, Any], i: int, goal: Goal) -> FloatArray:
    """(k,) the goal's value of one row, NaN where it cannot be read."""
    row = {str(n): np.asarray(np.nan if c[i] is None else c[i]) for n, c in columns.items()}
    try:
        return np.asarray(goal.value(row), dtype=np.float64)
    except (ValueError, KeyError) as error:
        if i == 0:
            raise ValueError(
                f"warm_start: {goal!r} cannot read its value from the columns: {_line(error)}; "
                "say which column it is by value="
            ) from error
        return np.full(goal.k, np.nan)


def _numbers(column: Any, name: str) -> FloatArray:
    """(n,) as float64, NaN for None."""
    out = np.full(len(column), np.nan)
    for i, value in enumerate(column):
        try:
            out[i] = np.nan if value is None or value == "" else float(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"warm_start: row {i}: wanted a number in column {name!r}, got {value!r}"
            ) from None
    return out


def _columns(table: Any) -> dict[str, Any]:
    """Name -> (n,) values of whatever holds them in memory."""
    if hasattr(table, "data_vars"):
        flat = {str(n): v for n, v in table.variables.items() if v.ndim == 1}
        dims = {v.dims for v in flat.values()}
        if len(dims) != 1:
            raise ValueError(
                "warm_start: wanted a Dataset of variables over one dimension, got "
                f"{sorted(d[0] for d in dims)}"
            )
        return {n: np.asarray(v.values) for n, v in flat.items()}
    if hasattr(table, "columns") or isinstance(table, Mapping):
        _once([str(name) for name in table], type(table).__name__)
        out = {str(name): _column(str(name), table[name]) for name in table}
        if len({len(column) for column in out.values()}) > 1:
            lengths = {name: len(column) for name, column in out.items()}
            raise ValueError(f"warm_start: wanted columns of one length, got {lengths}")
        return out
    names = dict.fromkeys(str(name) for row in table for name in row)
    return {name: [row.get(name) for row in table] for name in names}


def _column(name: str, values: Any) -> AnyArray:
    """(n, ...) values of a column."""
    try:
        column = np.asarray(values)
    except ValueError:
        raise ValueError(
            f"warm_start: wanted values of one shape in column {name!r}, got several"
        ) from None
    if column.ndim == 0:
        raise ValueError(
            f"warm_start: wanted a list of values as column {name!r}, got {values!r}; one row "
            "alone goes in as a list of one dict"
        )
    if column.dtype.kind == "O" and hasattr(values, "isna"):  # pandas has a sign of its own
        column = np.where(values.isna(), np.array(None), column)
    return column


def _once(names: Sequence[str], where: str) -> None:
    """Refuse a column that is there twice: which of them counts cannot be known."""
    again = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if again:
        raise ValueError(
            f"warm_start: {where}: wanted each column once, got {', '.join(again)} more than once"
        )


def _read(path: Path, space: Space, value: str | None) -> dict[str, Any]:
    """The columns of a CSV file: parameters as their own types, the value as a number, others as
    numbers if they can.
    """
    path = path.expanduser()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows, names = list(reader), [str(n).strip() for n in reader.fieldnames or []]
    except OSError as error:
        raise ValueError(f"warm_start: the table {path} cannot be read: {error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"warm_start: wanted a CSV file, in UTF-8, with commas; {path} is none: {error}"
        ) from error
    _once(names, str(path))
    kinds = {} if value is None else {value: "f"}
    kinds |= {name: space[name].transform.dtype.kind for name in names if name in space.names}
    cells = [{str(n).strip(): t for n, t in row.items() if isinstance(t, str)} for row in rows]
    return {
        name: [
            _cell(row.get(name, ""), kinds.get(name, ""), f"{path}, row {i}: {name}")
            for i, row in enumerate(cells)
        ]
        for name in names
    }


def _cell(text: str, kind: str, where: str) -> Any:
    """A cell as a parameter's own type; as a number where it is one for other columns."""
    text = text.strip()
    if text.lower() in EMPTY and not (kind == "U" and text):
        return None
    if kind == "U":
        return text
    try:
        return TRUTH[text.lower()] if kind == "b" else float(text)
    except (ValueError, KeyError):
        if not kind:
            return text
        wanted = "true or false" if kind == "b" else "a number"
        raise ValueError(f"warm_start: {where}: wanted {wanted}, got {text!r}") from None


def _digest(columns: Mapping[str, Any]) -> str:
    """16 hex digits of a table in memory."""
    plain = {n: [_same(v) for v in np.asarray(c).tolist()] for n, c in sorted(columns.items())}
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


def _same(value: Any) -> str:
    """A cell in words, 0 and 0.0 in the same."""
    return repr(float(value) if isinstance(value, int | float) else value)


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
