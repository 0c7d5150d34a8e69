"""A simulation and a goal of a few lines, for laws and tests; importable on any worker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemblerl.ledger import Ledger
from ensemblerl.records import AnyArray, Demands, Fate, FloatArray

if TYPE_CHECKING:
    import xarray as xr


class Square:
    """x -> x**2; fails where x is negative, sleeps ``nap`` seconds first when the point says so."""

    cores = 1
    timeout: float | None = None
    retries = 0
    version: str | None = None
    max_result_bytes = 2**20

    def __call__(
        self, point: Mapping[str, Any], *, seed: int, member: Mapping[str, Any] | None = None
    ) -> float:
        """The square."""
        time.sleep(float(point.get("nap", 0.0)))
        if point["x"] < 0:
            raise ArithmeticError(f"no root of {float(point['x'])}")
        return float(point["x"]) ** 2

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"simulation": type(self).__name__}


class Least:
    """Wants the smallest ``value``: the sound twin of the broken goals."""

    k = 1

    def reduce(self, result: Any) -> Any:
        """A mapping as it is, a number as ``value``."""
        return result if isinstance(result, Mapping) else {"value": np.asarray(result)}

    def value(self, reduced: Mapping[str, AnyArray]) -> FloatArray:
        """(1,)."""
        return np.array([reduced["value"]], dtype=np.float64).reshape(1)

    def rewards(self, values: FloatArray, fates: AnyArray) -> FloatArray:
        """(n, 1), (n,) -> (n,)."""
        return np.where(fates == Fate.ok, -values[:, 0], np.nan)

    def demands(self, ledger: Ledger, n_members: int) -> Demands:
        """Nothing special."""
        return Demands()

    def estimate(self, ledger: Ledger) -> xr.Dataset:
        """The best member."""
        import xarray as xr

        return xr.Dataset({"best_member": ledger.best_member})

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"goal": type(self).__name__}
