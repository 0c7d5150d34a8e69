"""When a campaign asks for no more: stop rules and the limit on failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ensemblerl.expressions import Expression
from ensemblerl.ledger import FATE_CODE, Ledger
from ensemblerl.records import Fate, Outcome

StopRule = str | Callable[[Ledger], bool]

NAMES = {
    "members": "members settled",
    "ok": "members that are ok",
    "failed": "members settled that are not ok",
    "best_reward": "largest reward so far",
    "elapsed": "seconds since this call began",
    "no_gain": "members settled since the largest reward",
}
"""What a stop rule given as text may speak of."""


class CampaignFailed(RuntimeError):
    """Too many members failed; the last causes are in the message, all results are kept."""


def facts(ledger: Ledger, elapsed: float) -> dict[str, float]:
    """The values of `NAMES` now."""
    ok = int(ledger.counts[FATE_CODE[Fate.ok]])
    return {
        "members": ledger.n_settled,
        "ok": ok,
        "failed": ledger.n_settled - ok,
        "best_reward": ledger.best_reward,
        "elapsed": elapsed,
        "no_gain": ledger.no_gain,
    }


class Stop:
    """One or several stop rules; any of them stops the campaign.

    Parameters
    ----------
    rules : text over `NAMES` such as ``"best_reward >= 0.9 or elapsed > 3600"``, a callable of the
        ledger that returns True to stop, or a sequence of these

    Raises
    ------
    ValueError
        for text that does not parse or speaks of other names
    TypeError
        for anything else
    """

    def __init__(self, rules: StopRule | Sequence[StopRule] | None = None) -> None:
        several = rules if isinstance(rules, (list, tuple)) else [] if rules is None else [rules]
        self._rules = [self._rule(rule) for rule in several]

    @staticmethod
    def _rule(rule: Any) -> tuple[str, Any]:
        if isinstance(rule, str):
            expression = Expression(rule)
            unknown = sorted(expression.names - set(NAMES))
            if unknown:
                raise ValueError(
                    f"stop: wanted an expression over {', '.join(NAMES)}; {rule!r} speaks of "
                    f"{', '.join(unknown)}"
                )
            return rule, expression
        if callable(rule):
            return getattr(rule, "__name__", repr(rule)), rule
        raise TypeError(f"stop: wanted text or a callable of the ledger, got {rule!r}")

    def __call__(self, ledger: Ledger, elapsed: float) -> str:
        """The rule that holds, as text; "" when none does."""
        for text, rule in self._rules:
            holds = rule(facts(ledger, elapsed)) if isinstance(rule, Expression) else rule(ledger)
            if holds:
                return f"stop rule: {text}"
        return ""


class FailureLimit:
    """Counts failures as they are settled in this session (a resumed campaign starts anew: what
    made members fail may be mended).

    Parameters
    ----------
    limit : None (never stop), a whole number of consecutive failures, or a share of all settled
        members in (0, 1), looked at from ten settled members on
    """

    LEAST = 10

    def __init__(self, limit: float | None = None) -> None:
        whole = isinstance(limit, (int, np.integer)) and not isinstance(limit, bool)
        share = isinstance(limit, (float, np.floating)) and 0 < limit < 1
        if not (limit is None or share or (whole and limit >= 1)):
            raise ValueError(
                "max_failures: wanted a number of consecutive failures (1, 2, ...), a share in "
                f"(0, 1) or None; got {limit!r}"
            )
        self._limit, self._whole = limit, whole
        self._streak = self._failed = self._settled = 0

    def count(self, fates: Iterable[str]) -> None:
        """Take in fates in the order they were settled."""
        for fate in fates:
            self._settled += 1
            self._failed += fate != Fate.ok
            self._streak = 0 if fate == Fate.ok else self._streak + 1

    def exceeded(self) -> str:
        """Why the campaign has to stop; "" when it need not."""
        if self._limit is None:
            return ""
        if self._whole:
            many = self._streak >= self._limit
            return f"{self._streak} members failed one after the other" if many else ""
        many = self._settled >= self.LEAST and self._failed > self._limit * self._settled
        return f"{self._failed} of {self._settled} members failed" if many else ""


class LossLimit:
    """Ends a campaign that goes nowhere: losses are charged to nobody, so nothing else would."""

    MOST = 10
    """Attempts in a row that may be lost, for each member that may be pending."""

    def __init__(self) -> None:
        self._lost = 0

    def count(self, outcomes: Sequence[Outcome], settled: int, n_pending: int) -> None:
        """Take in outcomes, of which so many were settled.

        Raises
        ------
        RuntimeError
            after many attempts in a row that the infrastructure lost
        """
        gone = [o for o in outcomes if o.fate in (Fate.lost, Fate.stopped)]
        lost = [o for o in gone if not o.blameless]  # a queue may end many jobs in a row
        self._lost = 0 if settled else self._lost + len(lost)
        if lost and self._lost > self.MOST * max(self.MOST, n_pending):
            raise RuntimeError(
                f"the executor lost the last {self._lost} attempts, one after the other; the "
                f"store keeps what is done. The last cause: {lost[-1].cause}"
            )


def last_causes(ledger: Ledger, n: int = 3) -> str:
    """The newest n causes of failure, each with its member's number."""
    newest = list(ledger.causes)[-n:]
    return "\n".join(f"member {number}: {ledger.causes[number]}" for number in newest)


def all_failed(ledger: Ledger) -> str:
    """Says that no member is ok, where none is; else ""."""
    if not ledger.n_settled or ledger.counts[FATE_CODE[Fate.ok]]:
        return ""
    return f"none of {ledger.n_settled} members is ok; the last cause: {last_causes(ledger, 1)}"
