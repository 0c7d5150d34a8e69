"""What the rows are worth to a policy that is to become the target: the E-step.

The target of the one formula is  pi*(x) ∝ p(x) exp(R(x) / alpha).  From the policy as it is, the
geometric path to it is  q_beta ∝ pi^(1 - alpha beta) (p exp(R / alpha))^(alpha beta),  that is,
with densities over the prior's,

    q_beta(x) ∝ pi(x)^(1 - alpha beta) exp(beta R(x)),        0 <= beta <= 1 / alpha.

beta = 1 / alpha is the target itself; alpha = 0 leaves the step of policy improvement that MPO
takes (Abdolmaleki et al. 2018, arXiv:1806.06920, equation 5: eta = 1 / beta). A row drawn from
b(x) counts  w = min(1, pi^(1 - alpha beta) / b) exp(beta R): the ratio is to the density *at the
draw*, so that a stale row counts by where it lies and not by when it was drawn, and it is
truncated as in V-trace (Espeholt et al. 2018, arXiv:1802.01561, equation 1).

The step beta is as long as the evidence allows: the largest one for which the effective sample
size of the weights is ``least`` or more. Late results shorten the step; they do not bend it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ensemblerl.records import FloatArray

HALVINGS = 40
RANGE = (1e-4, 1e6)
"""Smallest and largest beta: no step at all, over the spread of R; the best rows alone, over the
distance of the best from the median."""


class Worth(NamedTuple):
    """(n,) weights, their sum the effective sample size; the step; share of truncated ratios."""

    weight: FloatArray
    beta: float
    ess: float
    clipped: float


def effective_size(weight: FloatArray) -> float:
    """(n,) weights -> (sum w)^2 / sum w^2 (Kish 1965); 0 when all are 0."""
    square = float((weight**2).sum())
    return float(weight.sum()) ** 2 / square if square > 0 else 0.0


def log_weights(
    beta: float,
    alpha: float,
    log_pi: FloatArray,
    log_b: FloatArray,
    R: FloatArray,
    clip: float | None = 1.0,
    corrected: bool = True,
) -> tuple[FloatArray, FloatArray]:
    """(n,) log of w, and (n,) whether its ratio was truncated at ``clip``."""
    ratio = (1.0 - alpha * beta) * log_pi - log_b if corrected else np.zeros_like(R)
    if clip is None:
        return ratio + beta * R, np.zeros(len(R), dtype=np.bool_)
    most = np.log(clip)
    return np.minimum(ratio, most) + beta * R, ratio > most


def worth(
    log_pi: FloatArray,
    log_b: FloatArray,
    R: FloatArray,
    alpha: float,
    least: float,
    clip: float | None = 1.0,
    corrected: bool = True,
) -> Worth:
    """The rows' weights at the longest step that the evidence allows.

    Parameters
    ----------
    log_pi, log_b : (n,) log densities over the prior's: of the policy now, and at the draw
    R : (n,) utility; -inf for rows that count for nothing
    alpha : temperature >= 0
    least : effective sample size to keep
    clip : bound of the ratio, None for none
    corrected : False takes every ratio for 1 (for contrast)
    """

    def at(beta: float) -> tuple[FloatArray, FloatArray]:
        log_w, cut = log_weights(beta, alpha, log_pi, log_b, R, clip, corrected)
        return np.exp(log_w - np.max(log_w)), cut

    ok = np.isfinite(R)
    if not ok.any():
        return Worth(np.zeros(len(R)), 0.0, 0.0, 0.0)
    low, high = _range(R[ok], alpha)
    beta = high
    if effective_size(at(high)[0]) < least:
        for _ in range(HALVINGS):
            beta = float(np.sqrt(low * high))
            low, high = (beta, high) if effective_size(at(beta)[0]) >= least else (low, beta)
        beta = low
    weight, cut = at(beta)
    size = effective_size(weight)
    return Worth(weight * (size / weight.sum()), beta, size, float(cut.mean()))


def _range(R: FloatArray, alpha: float) -> tuple[float, float]:
    """(m,) finite utilities -> smallest and largest beta, whatever the unit of R."""
    spread, top = float(np.ptp(R)) or 1.0, float(R.max() - np.median(R)) or 1.0
    high = min(RANGE[1] / top, 1.0 / alpha if alpha > 0 else np.inf)
    return min(RANGE[0] / spread, high), high
