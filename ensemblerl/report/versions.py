"""The versions of a campaign's policy, as they lie in its store: which there are, and their draws.

Shapes: ``n`` points, ``ndim`` coordinates.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from ensemblerl.policyfile import FOLDER, file_name, load
from ensemblerl.records import Cube, FloatArray, Snapshot
from ensemblerl.store.kept import store_of
from ensemblerl.store.learning import KEPT
from ensemblerl.store.telemetry import read_rows

if TYPE_CHECKING:
    from ensemblerl.agents.base import Policy

DRAWS = 2**14
"""Of a version: a bin that holds a hundredth of them is right to a twelfth."""


class Version(NamedTuple):
    """Draws of one version of the policy.

    Parameters
    ----------
    number : of the version, -1 for the prior
    n_settled : members that were settled when it was learnt
    unit : (n, ndim)
    """

    number: int
    n_settled: int
    unit: FloatArray


def versions(ds: xr.Dataset, n_versions: int) -> tuple[Cube, list[Version]]:
    """The cube, and some versions, evenly from the first that was learnt to the last.

    Raises
    ------
    ValueError
        when the Dataset does not know its store, when that has no policy, and for a policy that is
        not one of `ensemblerl.agents`
    """
    if ds.encoding.get(KEPT) == []:
        raise ValueError("ds: wanted a campaign in which an agent learnt, none did in this one")
    root = store_of(ds, "plot.policy()")
    numbers = _there(root)
    if not numbers:
        raise ValueError(
            f"ds: wanted a campaign in which an agent learnt, but {root} has no version of a "
            f"policy ({FOLDER}/{file_name(1)} and on)"
        )
    learnt = numbers[1:] or numbers  # the first is the prior
    some = np.unique(np.linspace(0, len(learnt) - 1, n_versions).round().astype(np.int64))
    rows = [row for row in read_rows(root) if {"version", "n_settled"} <= row.keys()]
    settled = {int(row["version"]): int(row["n_settled"]) for row in rows}
    out = []
    for number in (learnt[i] for i in some[-n_versions:]):
        policy = policy_of(load(root / FOLDER / file_name(number)))
        known = max((n for version, n in settled.items() if version <= number), default=0)
        unit = policy.sample(DRAWS, None, np.random.default_rng(number))
        out.append(Version(number, known, unit))
    return policy.cube, out


def _there(root: Path) -> list[int]:
    """Numbers of the versions in a store."""
    folder = root / FOLDER
    names = [path.stem for path in folder.glob("*.npz")] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def policy_of(snapshot: Snapshot) -> Policy:
    """The policy that a version is of, without the shares of prior and widened policy.

    Raises
    ------
    ValueError
        for a policy that is not one of `ensemblerl.agents`
    """
    from ensemblerl.agents.policies.mixture import MixturePolicy
    from ensemblerl.agents.policies.tokens import TokenPolicy
    from ensemblerl.agents.snapshots import cube_of

    meta, name = snapshot.meta, str(snapshot.meta.get("policy"))
    if name == "MixturePolicy":
        mixture = MixturePolicy(cube_of(meta), components=meta["components"], rank=meta["rank"])
        return mixture.with_weights(snapshot.weights)
    if name == "TokenPolicy":
        spelling = {word: int(meta[word]) for word in ("base", "digits", "hidden", "seed")}
        return TokenPolicy(cube_of(meta), **spelling).with_weights(snapshot.weights)
    raise ValueError(f"ds: wanted a MixturePolicy or a TokenPolicy, the agent's is {name!r}")


def prior(cube: Cube) -> Version:
    """Draws of the prior, each coordinate evenly."""
    rng = np.random.default_rng(0)
    even = (np.arange(DRAWS) + 0.5) / DRAWS
    unit = np.stack([rng.permutation(even) for _ in range(cube.ndim)], axis=1)
    return Version(-1, 0, cube.canonical(unit))


def gain(cube: Cube, unit: FloatArray) -> FloatArray:
    """(n, ndim) draws -> (ndim,) nats that the policy has learnt of each coordinate.

    The Kullback-Leibler divergence of its marginal from the prior, times the share of draws for
    which it counts. Of coordinates without cells by spacings (Vasicek 1976,
    doi:10.1111/j.2517-6161.1976.tb01566.x).
    """
    active, cells, out = cube.active(unit), cube.cells(unit), np.zeros(cube.ndim)
    for j, edges in enumerate(cube.edges):
        u = unit[active[:, j], j]
        if len(u) and edges is None:
            out[j] = len(u) / len(unit) * _narrower(np.sort(u))
        elif len(u) and edges is not None:
            share = np.bincount(cells[active[:, j], j], minlength=len(edges) - 1) / len(u)
            there = share > 0
            ratio = np.log(share[there] / np.diff(edges)[there])
            out[j] = len(u) / len(unit) * float(share[there] @ ratio)
    return out


def _narrower(u: FloatArray) -> float:
    """(n,) sorted draws -> minus their differential entropy."""
    n = len(u)
    m = max(1, round(np.sqrt(n)))
    at = np.arange(n)
    wide = u[np.minimum(at + m, n - 1)] - u[np.maximum(at - m, 0)]
    inside = np.minimum(at + m, n - 1) - np.maximum(at - m, 0)
    return float(-np.log(np.maximum(wide, 1e-300) * n / np.maximum(inside, 1)).mean())
