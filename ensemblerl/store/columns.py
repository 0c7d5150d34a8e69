"""The small columns of the dataset, from the ledger; and what the results' layout asks for.

The same functions feed the shards and the dataset of a running campaign, so both say the same.
Text is held as variable-length strings; times are seconds since the epoch with CF units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.ledger import Ledger
from ensemblerl.names import FILES, uncoded
from ensemblerl.records import LINEAGE, AnyArray, FloatArray
from ensemblerl.store.shards import DIM, TEXT, Spec

_TIME = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
_STANDING = {"log_prob": "log_prob", "version": "policy_version", "proposer": "proposer"}
_ABOUT: dict[str, dict[str, str]] = {
    "member": {"long_name": "member number"},
    "reward": {"long_name": "reward, larger is better"},
    "fate": {"long_name": "what became of the member"},
    "cause": {"long_name": "why the member is not ok"},
    "runtime": {"long_name": "time the member ran", "units": "s"},
    "worker": {"long_name": "worker that ran the member"},
    "attempt": {"long_name": "number of the attempt, from 1"},
    "log_prob": {"long_name": "log density of the draw with respect to the unit cube"},
    "policy_version": {"long_name": "version of the policy that drew the member, -1 for none"},
    "proposer": {"long_name": "sampler that proposed the member"},
    "launch_time": {"long_name": "time of launch", **_TIME},
    "start_time": {"long_name": "time at which the run began", **_TIME},
    "end_time": {"long_name": "time at which the member was settled", **_TIME},
    "seed": {"long_name": "seed given to the simulation"},
    "group": {"long_name": "group"},
    "cycle": {"long_name": "cycle"},
    "task": {"long_name": "task"},
    "fidelity": {"long_name": "fidelity"},
    "parent": {"long_name": "number of the member it started from, -1 for none"},
    "state": {"long_name": "reference to the state it started from"},
    "left_state": {"long_name": "reference to the state it left behind"},
    "simulation_version": {"long_name": "version of the simulation's code"},
}
TIMES = ("launch_time", "start_time", "end_time")


class Series(NamedTuple):
    """A column: what it is, and its rows."""

    spec: Spec
    data: AnyArray
    coord: bool = False


_MISSED = {"long_name": "by how much the constraint is missed, 0 or below where it holds"}
_SUBJECT = {"long_name": "constraint on the results"}


class Points:
    """What a provenance says of the columns: the parameters of rows of the cube, and the goal's
    constraints.

    Without a space there are no parameters.

    Attributes
    ----------
    constraints : texts of the goal's constraints; its values after the first are by how much
        each is missed
    """

    def __init__(self, provenance: Mapping[str, Any]) -> None:
        self._space: Any = None
        goal = provenance.get("goal") or {}
        subject_to = list(goal.get("subject_to") or ())
        # another's goal may mean something else by it
        self.constraints = subject_to if goal.get("k") == 1 + len(subject_to) else []
        if provenance.get("space"):
            from ensemblerl.space import Space

            given = provenance["space"]  # constraints and start points are of no account here
            self._space = Space.from_json({key: given[key] for key in ("parameters", "order")})

    @property
    def ndim(self) -> int | None:
        """Coordinates of the cube, None where there is no space."""
        return None if self._space is None else int(self._space.ndim)

    @property
    def names(self) -> list[str]:
        """Names of the coordinates of the dataset."""
        return [] if self._space is None else list(self._space.names)

    def series(self, unit: FloatArray) -> dict[str, Series]:
        """(n, ndim) -> coordinate name -> (n,)."""
        if self._space is None:
            return {}
        points = self._space.to_points(unit)
        return {
            name: _series(points[name], _attrs(self._space[name]), coord=True)
            for name in self._space.names
        }


def _attrs(parameter: Any) -> dict[str, Any]:
    told = {name: getattr(parameter, name, None) for name in ("long_name", "units")}
    return uncoded({name: value for name, value in told.items() if value})


def columns(ledger: Ledger, rows: slice, points: Points, *, first: int = 0) -> dict[str, Series]:
    """Every small column over these rows.

    Parameters
    ----------
    ledger : whose row 0 is member ``first``
    rows : slice with start and stop
    points : the parameters
    """
    members = ledger.members(np.arange(rows.start, rows.stop), lambda _: {})
    number = members.number + first
    out = {"member": _known("member", number, coord=True)}
    out |= points.series(members.unit)
    for name, data in _values(ledger, rows).items():
        out[name] = _known(name, data)
    if points.constraints:
        violation, constraint = added(ledger.schema.layout if ledger.schema else None, points)
        out[violation] = _series(ledger["value"][rows, 1:], _MISSED, dims=(constraint,))
    for name, note in _STANDING.items():
        if name in members.notes:
            out[note] = _known(note, members.notes[name])
    for name in ("seed", *LINEAGE):
        out[name] = _known(name, getattr(members, name))
    out["state"] = _known("state", members.state)
    for name, data in members.notes.items():
        if name not in _STANDING and name not in LINEAGE:
            out[f"note_{name}"] = _note(f"note_{name}", data)
    return out


def note_dtypes(ledger: Ledger) -> dict[str, np.dtype[Any]]:
    """Name in the dataset -> dtype of what samplers note: it widens when they note more."""
    return {
        _STANDING.get(name, f"note_{name}"): kept(data[:0]).dtype
        for name, data in ledger.notes.items()
        if name not in LINEAGE
    }


def _values(ledger: Ledger, rows: slice) -> dict[str, AnyArray]:
    numbers = range(rows.start, rows.stop)
    return {
        "reward": ledger["reward"][rows],
        "fate": ledger.fates(rows),
        "cause": text([ledger.causes.get(i, "") for i in numbers]),
        "runtime": ledger["runtime"][rows],
        "worker": ledger.worker[rows],
        "attempt": ledger["attempt"][rows],
        "launch_time": ledger["launch"][rows],
        "start_time": ledger["start"][rows],
        "end_time": ledger["end"][rows],
        "left_state": text([ledger.left.get(i, "") for i in numbers]),
        "simulation_version": ledger.version[rows],
    }


def _known(name: str, data: AnyArray, *, coord: bool = False) -> Series:
    return _series(data, _ABOUT[name], coord=coord)


def _note(name: str, data: AnyArray) -> Series:
    return _series(data, {}, dims=tuple(f"{name}_{i}" for i in range(data.ndim - 1)))


def _series(
    data: AnyArray, attrs: Mapping[str, Any], *, coord: bool = False, dims: tuple[str, ...] = ()
) -> Series:
    data = kept(data)
    return Series(Spec((DIM, *dims), data.shape[1:], data.dtype, dict(attrs)), data, coord)


def kept(data: AnyArray) -> AnyArray:
    """The same in a dtype that the arrays on disk know."""
    if data.dtype.kind in "UOT":
        return text(data)
    if data.dtype.kind == "f" and data.dtype.itemsize > 8:
        return data.astype(np.float64)
    return data


def text(values: Any) -> AnyArray:
    """Variable-length strings; half characters, which no file takes, become question marks."""
    try:
        return np.array(values, dtype=TEXT)
    except (UnicodeEncodeError, TypeError):
        clean = [str(v).encode("utf-8", "replace").decode() for v in np.ravel(values)]
        return np.array(clean, dtype=TEXT).reshape(np.shape(values))


def field_names(variables: Iterable[str], parameters: Iterable[str] = ()) -> dict[str, str]:
    """Name of each variable of the results in the dataset, different ones for different ones.

    Those that are taken (by small columns, parameters or files of the store) get as many
    prefixes ``result_`` as it takes, whatever the order in which they come.

    Examples
    --------
    >>> field_names(["rmse", "reward", "x"], parameters=["x"])
    {'rmse': 'rmse', 'reward': 'result_reward', 'x': 'result_x'}
    >>> field_names(["x", "result_x"], parameters=["x"])
    {'x': 'result_result_x', 'result_x': 'result_x'}
    """
    out = {name: name for name in variables}
    taken = {*_ABOUT, *FILES, *(f"{name}.part" for name in FILES), *parameters}
    used = taken | set(out)
    for name in sorted(name for name in out if name in taken or name.startswith("note_")):
        while out[name] in used:
            out[name] = f"result_{out[name]}"
        used.add(out[name])
    return out


class Field(NamedTuple):
    """A variable of the results as it is kept: its name there, and its array."""

    source: str
    spec: Spec


class Layout:
    """What the results' layout asks of the dataset.

    Names are those of `field_names`; dimensions and coordinates give way to variables. Floats and
    complex numbers keep their dtype; other numbers become float64, since the rows of members that
    are not ok hold NaN.

    Parameters
    ----------
    layout : of the campaign's results, None when none was ok
    points : the parameters

    Attributes
    ----------
    fields : name in the dataset -> `Field`
    statics : name in the dataset -> coordinate without members
    member_bytes : size of one member's row
    """

    def __init__(self, layout: Mapping[str, Any] | None, points: Points | None) -> None:
        given = layout or {"variables": {}, "coords": {}}
        self._names = _names(given, points.names if points else [])
        self.fields = {
            self._names[name]: Field(name, self._spec(about, (DIM,), _promoted(about["dtype"])))
            for name, about in given["variables"].items()
        }
        self.statics = {
            self._names[name]: self._static(about) for name, about in given["coords"].items()
        }
        if points and points.constraints:
            data, name = text(points.constraints), added(layout, points)[1]
            spec = Spec((name,), data.shape, data.dtype, dict(_SUBJECT))
            self.statics[name] = Series(spec, data, True)
        self.member_bytes = sum(
            field.spec.dtype.itemsize * int(np.prod(field.spec.shape, dtype=np.int64))
            for field in self.fields.values()
        )

    def _spec(self, about: Mapping[str, Any], dims: tuple[str, ...], dtype: Any) -> Spec:
        own = tuple(self._names[dim] for dim in about["dims"])
        return Spec((*dims, *own), tuple(about["shape"]), dtype, dict(about.get("attrs", {})))

    def _static(self, about: Mapping[str, Any]) -> Series:
        import xarray as xr

        dtype = np.dtype(about["dtype"])
        data = np.array(about["data"], dtype=None if dtype.kind in "mM" else dtype)
        if dtype.kind in "mM":
            data = data.astype("i8").view(dtype) if data.dtype.kind == "i" else data.astype(dtype)
        spec = self._spec(about, (), dtype)
        variable = xr.Variable(spec.dims, kept(data.reshape(spec.shape)), spec.attrs)
        if dtype.kind in "mM":
            variable = xr.conventions.encode_cf_variable(variable)
        attrs = {key: _plain(value) for key, value in variable.attrs.items()}
        return Series(Spec(spec.dims, spec.shape, variable.dtype, attrs), variable.values, True)


def _names(layout: Mapping[str, Any], parameters: list[str]) -> dict[str, str]:
    """Name in the dataset of every variable, coordinate and dimension of the results."""
    out = field_names(layout["variables"], parameters)
    every = [*layout["variables"].values(), *layout["coords"].values()]
    others = {*layout["coords"], *(dim for about in every for dim in about["dims"])} - out.keys()
    return out | field_names(sorted(others), [*parameters, *out.values()])


def added(layout: Mapping[str, Any] | None, points: Points) -> tuple[str, str]:
    """Names in the dataset of the violations and of their dimension: where parameters or results
    have them, with as many prefixes ``goal_`` as it takes.
    """
    given = layout or {"variables": {}, "coords": {}}
    taken = {*points.names, *_names(given, points.names).values()}

    def free(name: str) -> str:
        return free(f"goal_{name}") if name in taken else name

    return free("violation"), free("constraint")


def _promoted(dtype: str) -> np.dtype[Any]:
    kind = np.dtype(dtype)
    if kind.kind == "c" or (kind.kind == "f" and kind.itemsize <= 8):
        return kind.newbyteorder("=")
    return np.dtype(np.float64)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
