"""What `Minimize` and `Maximize` share: everything but the sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ensemblerl.goals.objective import Given, Objective
from ensemblerl.ledger import FATE_CODE, Ledger
from ensemblerl.records import AnyArray, Demands, Fate, FloatArray

if TYPE_CHECKING:
    import xarray as xr

PICKED = 0.8
"""Share of the points that critics may pick: the others keep a density, and find what critics do
not think of."""


class Extremum:
    """The best value of one objective.

    Parameters
    ----------
    objective : name of a variable, an expression over variables, or a function of the mapping
        of variables; a simulation that returns a float has the variable ``"value"``
    keep : variables of the results to keep, None for all

    Raises
    ------
    TypeError, ValueError
        for another kind of objective, and where ``keep`` leaves out what it needs
    """

    k = 1
    sign: ClassVar[float]

    def __init__(self, objective: Given = "value", *, keep: Sequence[str] | None = None) -> None:
        self.objective = Objective(objective)
        self.keep = None if keep is None else _names(keep)
        missing = [] if keep is None else sorted(self.objective.names - set(self.keep or ()))
        if missing:
            raise ValueError(f"keep: wanted also {missing}, which the objective needs, got {keep}")

    def reduce(self, result: Any) -> Any:
        """All of a result, or the variables to keep.

        Raises
        ------
        ValueError
            for a result that lacks one of these, naming those there are
        """
        if self.keep is None:
            return result
        named = _named(result)
        missing = [name for name in self.keep if name not in named]
        if missing:
            there = ", ".join(sorted(map(str, named))) or "none"
            raise ValueError(f"keep: wanted variable {', '.join(missing)}, there are: {there}")
        if hasattr(named, "data_vars"):
            return named[list(self.keep)]
        return {name: named[name] for name in self.keep}

    def value(self, reduced: Mapping[str, AnyArray]) -> FloatArray:
        """(1,) the objective."""
        return np.array([self.objective(_named(reduced))])

    def signed(self, value: FloatArray) -> FloatArray:
        """(...) -> (...) so that larger is better; its own inverse."""
        return self.sign * value

    def rewards(self, values: FloatArray, fates: AnyArray) -> FloatArray:
        """(n, 1), (n,) -> (n,) signed values, NaN where not ok."""
        return np.where(fates == Fate.ok, self.signed(values[:, 0]), np.nan)

    def demands(self, ledger: Ledger, n_members: int) -> Demands:
        """Rank utility at a temperature from 0.1 (about the best tenth) down to 0.

        It falls with the square of the share of members not launched yet; a tenth of the draws is
        the prior's. Critics may pick four fifths of the points.
        """
        left = max(0.0, 1.0 - len(ledger) / max(n_members, 1))
        temperature = 0.1 * left**2
        return Demands(temperature, prior_share=0.1, ranked=True, picked_share=PICKED)

    def estimate(self, ledger: Ledger) -> xr.Dataset:
        """The best member of all settled, and how the best came about.

        Returns
        -------
        Dataset of ``best_member`` (-1 when there is none), ``best_value``, ``n_ok``,
        ``n_failed``, and ``incumbent`` (member): the best value among members 0 to i, for the
        leading members up to the first that is not settled, so that quick members do not show
        before slow ones. ``attrs["verdict"]`` says it in words.
        """
        import xarray as xr

        reward = ledger["reward"]
        best = int(np.nanargmax(reward)) if np.isfinite(reward).any() else -1
        value = float(ledger["value"][best, 0]) if best >= 0 else np.nan
        n_ok = int(ledger.counts[FATE_CODE[Fate.ok]])
        n_failed = ledger.n_settled - n_ok
        incumbent = self.incumbent(reward, ledger.settled)
        about = {"long_name": f"{type(self).__name__} {self.objective!r}"}
        return xr.Dataset(
            {
                "best_member": best,
                "best_value": ((), value, about),
                "n_ok": n_ok,
                "n_failed": n_failed,
                "incumbent": ("member", incumbent, about),
            },
            coords={"member": np.arange(len(incumbent))},
            attrs={"verdict": self._verdict(best, value, n_ok, n_failed)},
        )

    def incumbent(self, reward: FloatArray, settled: AnyArray) -> FloatArray:
        """(n,), (n,) -> (m,) best value so far over the leading settled members, NaN before one."""
        leading = len(settled) if settled.all() else int(np.argmin(settled))
        return self.signed(np.fmax.accumulate(reward[:leading]))

    def _verdict(self, best: int, value: float, n_ok: int, n_failed: int) -> str:
        failed = f", {n_failed} not ok" if n_failed else ""
        if best < 0:
            return f"no answer yet: no member is ok{failed}"
        least = "smallest" if self.sign < 0 else "largest"
        return f"{least} {self.objective!r}: {value:.6g}, member {best}, of {n_ok} ok{failed}"

    def describe(self) -> dict[str, Any]:
        """Class, objective and variables kept: JSON."""
        return {
            "goal": type(self).__name__,
            "objective": self.objective.describe(),
            "keep": None if self.keep is None else list(self.keep),
        }

    def __repr__(self) -> str:
        keep = "" if self.keep is None else f", keep={list(self.keep)}"
        return f"{type(self).__name__}({self.objective!r}{keep})"


def _names(keep: Sequence[str]) -> tuple[str, ...]:
    if isinstance(keep, str) or not all(isinstance(name, str) for name in keep):
        raise TypeError(f"keep: wanted a list of variable names, got {keep!r}")
    return tuple(dict.fromkeys(keep))


def _named(result: Any) -> Any:
    """Name -> array, of whatever a simulation may return."""
    if isinstance(result, Mapping):
        return result
    if hasattr(result, "to_dataset"):
        return {str(result.name) if result.name is not None else "value": result}
    return {"value": result}
