"""Points of one's own, in their order."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ensemblerl.records import Cube, FloatArray
from ensemblerl.samplers.base import FixedDesign
from ensemblerl.samplers.position import Position
from ensemblerl.samplers.tables import columns_of

if TYPE_CHECKING:
    from ensemblerl.space import Space


class Listed(FixedDesign):
    """These points one after the other, then none. A list has no density: ``log_prob`` is NaN.

    Parameters
    ----------
    cube : where the points lie
    unit : (m, ndim) points in the open cube; inactive coordinates are set to 0.5
    name : its name in ``proposer``

    Raises
    ------
    ValueError
        for another shape, coordinates outside (0, 1), and infeasible points, naming the row

    Examples
    --------
    >>> import numpy as np
    >>> from ensemblerl.records import Cube
    >>> listed = Listed(Cube(("real",), (0,), (None,)), [[0.25], [0.75]])
    >>> listed.ask(5, np.random.default_rng(0)).unit[:, 0].tolist()
    [0.25, 0.75]
    """

    has_density = False
    log_prob = np.nan

    def __init__(self, cube: Cube, unit: Any, *, name: str = "listed") -> None:
        super().__init__(cube, name=name)
        self.unit = _checked(cube, unit)
        # The key tells this list from another one under the same name, which was another list.
        self._checksum = zlib.crc32(self.unit.tobytes())
        self._at = Position("design", self._checksum)

    @classmethod
    def of(cls, space: Space, rows: Any, *, name: str = "listed") -> Self:
        """From physical points: dicts, a pandas DataFrame, an xarray Dataset, or a CSV file.

        Parameters
        ----------
        space : where the points lie
        rows : list of dicts (inactive parameters left out), DataFrame, Dataset of columns over
            one dimension, or path of a CSV file with a header. Other columns than the
            parameters are ignored, except in dicts. Empty cells stand for inactive parameters.
        name : its name in ``proposer``

        Raises
        ------
        TypeError, ValueError
            for anything else, missing or unknown parameters, and values outside the space
        """
        return cls(space.cube, space.to_unit(columns_of(space, rows)), name=name)

    def candidates(self, key: int, first: int, n: int) -> FloatArray:
        """(n, ndim), fewer at the end of the list."""
        return self.unit[first : first + n].copy()

    @property
    def spent(self) -> bool:
        """True when no point is left."""
        return self.place >= len(self.unit)

    def describe(self) -> dict[str, Any]:
        """Class, name, number of points and their checksum."""
        return {**super().describe(), "points": len(self.unit), "checksum": self._checksum}

    def __repr__(self) -> str:
        points = f"{len(self.unit)} point{'s' * (len(self.unit) != 1)}"
        return f"{type(self).__name__}({points}, ndim={self.cube.ndim}, name={self.name!r})"


def _checked(cube: Cube, unit: Any) -> FloatArray:
    out = np.array(unit, dtype=np.float64)
    if out.size == 0:
        out = out.reshape(0, cube.ndim)
    if out.ndim != 2 or out.shape[1] != cube.ndim:
        raise ValueError(f"unit: wanted shape (m, {cube.ndim}), got {out.shape}")
    outside = ~((out > 0.0) & (out < 1.0)).all(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(f"unit: wanted points in (0, 1), got {out[row]} in row {row}")
    out = cube.canonical(out)
    if cube.feasible is not None and len(out) and not (held := cube.feasible(out)).all():
        row = int((~held).argmax())
        raise ValueError(f"unit: wanted feasible points, row {row} breaks the known constraint")
    return out
