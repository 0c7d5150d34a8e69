"""A closed-form problem with every kind of parameter: eight of them, two conditional.

A caricature of tuning a network, with an optimum that is known exactly. ``sgd`` wins by a
margin, but only with its momentum right and a large rate; ``adam`` is the easy second best
(0.1), ``rmsprop`` (0.3) has no parameter of its own. The best width depends on the number of
layers, so the coordinates are not separable.

    loss = margin(optimizer)
         + 1/4 log10(rate / rate*(optimizer))^2        rate* = 0.1, 1e-3, 3e-3
         + (momentum - 0.9)^2 if sgd;  10 (beta - 0.95)^2 if adam
         + 1/10 (layers - 4)^2
         + 1/10 (log2(width) - 6 - (layers - 4) / 2)^2
         + 4 (dropout - 0.2)^2
         + 1/8 log2(batch / 64)^2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ensemblerl.records import FloatArray

if TYPE_CHECKING:
    from ensemblerl.space import Space

OPTIMIZERS = ("sgd", "adam", "rmsprop")
MARGIN = (0.0, 0.1, 0.3)
BEST_RATE = (0.1, 1e-3, 3e-3)
WIDTHS = (16, 32, 64, 128, 256)


def space() -> Space:
    """Real, log, integer, log integer, ordinal, choice, and two that depend on the choice."""
    from ensemblerl.parameters import Choice, Integer, Ordinal, Real
    from ensemblerl.space import Space

    return Space(
        optimizer=Choice(*OPTIMIZERS),
        rate=Real(1e-5, 1.0, log=True, long_name="learning rate"),
        momentum=Real(0.0, 0.99, when={"optimizer": ("sgd",)}),
        beta=Real(0.8, 0.999, when={"optimizer": ("adam",)}),
        layers=Integer(1, 8),
        width=Ordinal(*WIDTHS),
        dropout=Real(0.0, 0.5),
        batch=Integer(8, 512, log=True),
    )


def optimum() -> tuple[dict[str, Any], float]:
    """The best point (``beta`` is inactive there) and its loss, exactly 0."""
    point = {
        "optimizer": "sgd",
        "rate": 0.1,
        "momentum": 0.9,
        "layers": 4,
        "width": 64,
        "dropout": 0.2,
        "batch": 64,
    }
    return point, 0.0


def simulate_many(points: Mapping[str, ArrayLike]) -> FloatArray:
    """The loss of many points.

    Parameters
    ----------
    points : name -> (n,); ``momentum`` and ``beta`` are looked at where they are active only,
        and may be left out altogether when they are active nowhere

    Returns
    -------
    (n,) loss, 0 at best

    Raises
    ------
    ValueError
        An optimizer is none of `OPTIMIZERS`.
    """
    which = _which(np.atleast_1d(np.asarray(points["optimizer"])))
    rate, layers, width, dropout, batch = (
        np.atleast_1d(np.asarray(points[name], dtype=float))
        for name in ("rate", "layers", "width", "dropout", "batch")
    )
    momentum = np.atleast_1d(np.asarray(points.get("momentum", np.nan), dtype=float))
    beta = np.atleast_1d(np.asarray(points.get("beta", np.nan), dtype=float))
    loss = np.take(MARGIN, which) + np.log10(rate / np.take(BEST_RATE, which)) ** 2 / 4
    loss += np.where(which == 0, (momentum - 0.9) ** 2, 0.0)
    loss += np.where(which == 1, 10 * (beta - 0.95) ** 2, 0.0)
    loss += (layers - 4) ** 2 / 10 + (np.log2(width) - 6 - (layers - 4) / 2) ** 2 / 10
    return np.asarray(loss + 4 * (dropout - 0.2) ** 2 + np.log2(batch / 64) ** 2 / 8)


def simulate(
    optimizer: str,
    rate: float,
    layers: int,
    width: int,
    dropout: float,
    batch: int,
    momentum: float = np.nan,
    beta: float = np.nan,
) -> float:
    """The loss of one point.

    Examples
    --------
    >>> point, loss = optimum()
    >>> simulate(**point) == loss
    True
    >>> simulate(**{**point, "optimizer": "rmsprop", "rate": 3e-3})
    0.3
    """
    point = {name: np.array([value]) for name, value in locals().items()}
    return float(simulate_many(point)[0])


def _which(names: Any) -> Any:
    match = names[:, None] == np.array(OPTIMIZERS)
    if not match.any(axis=1).all():
        wrong = sorted({str(name) for name in names[~match.any(axis=1)]})
        raise ValueError(f"optimizer must be one of {OPTIMIZERS}, got {wrong}")
    return match.argmax(axis=1)
