"""What `Minimize` and `Maximize` share: everything but the sign."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ensemblerl.goals.constraint import constraints
from ensemblerl.goals.objective import Given, Objective
from ensemblerl.ledger import FATE_CODE, Ledger
from ensemblerl.records import AnyArray, BoolArray, Demands, Fate, FloatArray, IntArray

if TYPE_CHECKING:
    import xarray as xr

Posterior = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray, IntArray]]
"""(n, ndim) points, (n,) noisy draws at them, larger is better -> (n,) means and (n,) standard
deviations of what is drawn from, at the same points, and (n,) how many of the draws are there."""

PICKED = 0.8
"""Share of the points that critics may pick: the others keep a density, and find what critics do
not think of."""


class Extremum:
    """The best value of one objective, among the members that keep to all constraints.

    Its values are the objective, then by how much each constraint is missed (0 or below where it
    holds). A member that misses one is ok, for its result is what it should be, but has the reward
    -inf: in the formula it has no weight, and agents see it as they see failures.

    Parameters
    ----------
    objective : name of a variable, an expression over variables, or a function of the mapping
        of variables; a simulation that returns a float has the variable ``"value"``
    subject_to : constraints on the results, such as ``["max_stress <= 250"]``: each is one
        comparison of two expressions over variables, with ``<``, ``<=``, ``>`` or ``>=``
    noisy : another run of the same point would give another value: the answer is the member
        with the best posterior mean, not the luckiest draw, and the search goes by it
    replicate : share of the agent's points that are run again, for noisy goals: those where
        another draw is worth most to say which member is the best
    keep : variables of the results to keep, None for all

    Attributes
    ----------
    k : values, one more than constraints

    Raises
    ------
    TypeError, ValueError
        for another kind of objective or constraint, where ``keep`` leaves out what it needs, and
        for a share outside of [0, 1), or of a goal that is not noisy
    """

    sign: ClassVar[float]

    def __init__(
        self,
        objective: Given = "value",
        *,
        subject_to: str | Sequence[str] = (),
        noisy: bool = False,
        replicate: float = 0.0,
        keep: Sequence[str] | None = None,
    ) -> None:
        self.objective = Objective(objective)
        self.subject_to = constraints(subject_to)
        self.k = 1 + len(self.subject_to)
        if not isinstance(noisy, bool):
            raise TypeError(f"noisy: wanted True or False, got {noisy!r}")
        self.noisy = noisy
        self.replicate = _share(replicate, noisy)
        self.keep = None if keep is None else _names(keep)
        if self.keep is None:
            return
        bounded = frozenset[str]().union(*(c.names for c in self.subject_to))
        for names, who in (
            (self.objective.names, "the objective needs"),
            (bounded, "subject_to needs"),
        ):
            if missing := sorted(names - set(self.keep)):
                raise ValueError(f"keep: wanted also {missing}, which {who}, got {keep}")

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
        """(k,) the objective, and by how much each constraint is missed."""
        there = _named(reduced)
        return np.array([self.objective(there), *(c.violation(there) for c in self.subject_to)])

    def signed(self, value: FloatArray) -> FloatArray:
        """(...) -> (...) so that larger is better; its own inverse."""
        return self.sign * value

    def feasible(self, values: FloatArray) -> BoolArray:
        """(n, k) -> (n, k - 1) whether each constraint holds; not where the value is NaN."""
        columns = [c.holds(values[:, 1 + i]) for i, c in enumerate(self.subject_to)]
        return np.array(columns, dtype=np.bool_).reshape(self.k - 1, len(values)).T

    def rewards(self, values: FloatArray, fates: AnyArray) -> FloatArray:
        """(n, k), (n,) -> (n,) signed objective, -inf where a constraint is missed, NaN where not
        ok.
        """
        allowed = np.where(self.feasible(values).all(axis=1), self.signed(values[:, 0]), -np.inf)
        return np.where(fates == Fate.ok, allowed, np.nan)

    def demands(self, ledger: Ledger, n_members: int) -> Demands:
        """Rank utility at a temperature from 0.1 (about the best tenth) down to 0.

        It falls with the square of the share of members not launched yet; a tenth of the draws is
        the prior's. Critics may pick four fifths of the points.
        """
        left = max(0.0, 1.0 - len(ledger) / max(n_members, 1))
        temperature = 0.1 * left**2
        return Demands(
            temperature,
            prior_share=0.1,
            ranked=True,
            picked_share=PICKED,
            noisy=self.noisy,
            replicated_share=self.replicate,
        )

    def estimate(self, ledger: Ledger, *, posterior: Posterior | None = None) -> xr.Dataset:
        """The best member of all settled, and how the best came about.

        Parameters
        ----------
        ledger : the campaign
        posterior : what a noisy goal sees through its noise with; without one it can only name
            the best draw, and says so

        Returns
        -------
        Dataset of ``best_member`` (-1 when there is none), ``best_value``, ``n_ok``,
        ``n_failed``, and ``incumbent`` (member): the best value among members 0 to i, for the
        leading members up to the first that is not settled, so that quick members do not show
        before slow ones. With constraints also ``n_violating``, the ok members that miss one, and
        ``n_missed`` (constraint), those that miss each. Of a noisy goal also ``best_mean`` and
        ``best_sd``, the posterior of the objective at the best member, and ``n_draws``, the members
        at its point; ``best_value`` and ``incumbent`` are single draws. ``attrs["verdict"]`` says
        it in words.
        """
        import xarray as xr

        best = self._best(ledger, posterior if self.noisy else None)
        incumbent = self.incumbent(ledger["reward"], ledger.settled)
        about = {"long_name": f"{type(self).__name__} {self.objective!r}"}
        out = xr.Dataset(
            {
                "best_member": best.member,
                "best_value": ((), best.value, about),
                **self._counts(ledger),
                "incumbent": ("member", incumbent, about),
            },
            coords={"member": np.arange(len(incumbent))},
        )
        if self.subject_to:
            missed = (~self.feasible(ledger["value"]) & _ok(ledger)[:, None]).sum(axis=0)
            out = out.assign(n_missed=("constraint", missed))
            out = out.assign_coords(constraint=[c.text for c in self.subject_to])
        if self.noisy:
            out = out.assign(best_mean=((), best.mean, about), best_sd=((), best.sd, about))
            out = out.assign(n_draws=best.draws)
        return out.assign_attrs(verdict=self._verdict(best, self._counts(ledger)))

    def _best(self, ledger: Ledger, posterior: Posterior | None) -> _Best:
        reward, value = ledger["reward"], ledger["value"]
        rows = np.flatnonzero(np.isfinite(reward))
        if not len(rows):
            return _Best()
        if posterior is None:
            best = int(rows[np.argmax(reward[rows])])
            return _Best(best, float(value[best, 0]))
        mean, sd, draws = posterior(ledger["unit"][rows], reward[rows])
        row = int(np.argmax(mean))
        best = int(rows[row])
        draw, signed = float(value[best, 0]), self.sign * float(mean[row])
        return _Best(best, draw, signed, float(sd[row]), int(draws[row]))

    def _counts(self, ledger: Ledger) -> dict[str, int]:
        n_ok = int(ledger.counts[FATE_CODE[Fate.ok]])
        counts = {"n_ok": n_ok, "n_failed": ledger.n_settled - n_ok}
        if self.subject_to:
            missed = ~self.feasible(ledger["value"]).all(axis=1)
            counts["n_violating"] = int(np.count_nonzero(missed & _ok(ledger)))
        return counts

    def incumbent(self, reward: FloatArray, settled: AnyArray) -> FloatArray:
        """(n,), (n,) -> (m,) best value so far over the leading settled members, NaN before one."""
        leading = len(settled) if settled.all() else int(np.argmin(settled))
        best = np.fmax.accumulate(reward[:leading])
        return self.signed(np.where(np.isneginf(best), np.nan, best))

    def _verdict(self, best: _Best, counts: Mapping[str, int]) -> str:
        violating, failed = counts.get("n_violating", 0), counts["n_failed"]
        rest = f", {failed} not ok" if failed else ""
        if best.member < 0 and violating:
            return f"no answer yet: all {violating} ok members violate a constraint{rest}"
        if best.member < 0:
            return f"no answer yet: no member is ok{rest}"
        if violating:
            rest = f", {violating} violate{'s' * (violating == 1)} a constraint{rest}"
        what = "smallest" if self.sign < 0 else "largest"
        value = f"{best.value:.6g}"
        if self.noisy:
            seen = np.isfinite(best.sd)
            what += " posterior mean of" if seen else " single draw of"
            if seen:
                value = f"{best.mean:.6g} ± {best.sd:.2g}"
                rest += f", {best.draws} draw{'s' * (best.draws != 1)} at its point"
        among = f"member {best.member}, of {counts['n_ok']} ok{rest}"
        return f"{what} {self.objective!r}: {value}, {among}"

    def describe(self) -> dict[str, Any]:
        """Class, objective and variables kept, and what else was asked for: JSON."""
        out: dict[str, Any] = {
            "goal": type(self).__name__,
            "objective": self.objective.describe(),
            "keep": None if self.keep is None else list(self.keep),
        }
        if self.subject_to:
            out["subject_to"] = [c.text for c in self.subject_to]
        if self.noisy:
            out["noisy"] = True
        if self.replicate:
            out["replicate"] = self.replicate
        return out

    def __repr__(self) -> str:
        parts = [repr(self.objective)]
        if self.subject_to:
            parts.append(f"subject_to={list(self.subject_to)}")
        if self.noisy:
            parts.append("noisy=True")
        if self.replicate:
            parts.append(f"replicate={self.replicate}")
        if self.keep is not None:
            parts.append(f"keep={list(self.keep)}")
        return f"{type(self).__name__}({', '.join(parts)})"


class _Best(NamedTuple):
    """The answer: a member, its draw, the posterior of its objective, draws at its point."""

    member: int = -1
    value: float = np.nan
    mean: float = np.nan
    sd: float = np.nan
    draws: int = 0


def _ok(ledger: Ledger) -> BoolArray:
    """(n,)"""
    return np.asarray(ledger["fate_code"] == FATE_CODE[Fate.ok])


def _share(replicate: float, noisy: bool) -> float:
    if isinstance(replicate, bool) or not isinstance(replicate, Real):
        raise TypeError(f"replicate: wanted a share in [0, 1), got {replicate!r}")
    if not 0.0 <= replicate < 1.0:
        raise ValueError(f"replicate: wanted a share in [0, 1), got {replicate!r}")
    if replicate and not noisy:
        raise ValueError(
            "replicate: wanted noisy=True with it, for without noise another run tells nothing "
            f"new, got {replicate!r} alone"
        )
    return float(replicate)


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
