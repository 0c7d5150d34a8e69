"""Normal components on the probit scale, times categorical factors."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from ensemblerl.agents.base import Context, Weights
from ensemblerl.agents.policies import gaussian
from ensemblerl.records import BoolArray, Cube, FloatArray, IntArray

WIDER = 2.0
"""What the standard deviations of the widened policy are multiplied by."""
EVIDENCE = 4
"""Effective points for each coordinate that one more component needs."""
ALIVE = 0.5
"""Effective points, those of the anchor among them, below which a component is given up."""
LEAST, MOST = 2.0**-1022, 1.0 - 2.0**-53


class MixturePolicy:
    """A mixture of components with full or low-rank covariance, each times categorical factors.

    Real and ordinal coordinates are taken to the real line by y = Phi^-1(u), where a component
    is a multivariate normal; a categorical coordinate has a table of probabilities in every
    component. So each component is normalised exactly on the open cube, whatever its covariance
    (a truncated normal with a full covariance has no such constant), and the untrained policy,
    N(0, 1) and the cells' own widths, is the prior. What is inactive is integrated out: exact
    for normals.

    It begins with one component and takes another for every ``4 ndim`` effective points. One that
    explains less than half a point is given up, and its place is free for a new one.

    Parameters
    ----------
    cube : where it lives
    components : at most so many
    rank : common factors of a covariance (D + W W', W of this many columns); None: full
    weights : arrays of an equal policy; the prior when None

    Raises
    ------
    ValueError
        naming the argument, what was wanted and what came

    Examples
    --------
    >>> import numpy as np
    >>> policy = MixturePolicy(Cube(("real",) * 2, (0, 0), (None, None)))
    >>> policy.log_prob(np.array([[0.2, 0.9]]))
    array([0.])
    """

    n_steps = 1

    def __init__(
        self,
        cube: Cube,
        *,
        components: int = 4,
        rank: int | None = None,
        weights: Weights | None = None,
    ) -> None:
        for name, value in (("components", components), ("rank", rank)):
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not whole and (name, value) != ("rank", None):
                raise ValueError(f"{name}: wanted a whole number >= 1, got {value!r}")
        self.cube, self.components, self.rank = cube, components, rank
        kinds = np.array(cube.kinds)
        self._normal = np.flatnonzero(kinds != "categorical")
        self._tables = np.flatnonzero(kinds == "categorical").tolist()
        self._widths = {j: np.diff(edges_of(cube, j)) for j in self._tables}
        self._weights = _prior(cube, components, len(self._normal))
        if weights is not None:
            self._weights = _checked(weights, self._weights)
        self._factors = np.linalg.cholesky(self._weights["cov"])

    @property
    def weights(self) -> Weights:
        """``share`` (K,), ``mean`` (K, C), ``cov`` (K, C, C), ``table_j`` (K, levels) each."""
        return dict(self._weights)

    def with_weights(self, weights: Weights) -> Self:
        """One of the same shape with other arrays.

        Raises
        ------
        ValueError
            for names or shapes that are not its own
        """
        return type(self)(self.cube, components=self.components, rank=self.rank, weights=weights)

    def sample(self, n: int, context: Context, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) points."""
        w = self._weights
        k = _chosen(np.cumsum(w["share"]), rng.random(n))
        z = rng.standard_normal((n, len(self._normal)))
        y = w["mean"][k] + np.einsum("nij,nj->ni", self._factors[k], z)
        unit = np.empty((n, self.cube.ndim))
        # Phi rounds to 1 beyond 8.2, of which means below 4 leave about 1 draw in 100,000
        unit[:, self._normal] = np.clip(ndtr(y), LEAST, MOST)
        for j in self._tables:
            edges = edges_of(self.cube, j)
            cell = _chosen(np.cumsum(w[f"table_{j}"], axis=1)[k], rng.random(n))
            inside = 1e-9 + (1.0 - 2e-9) * rng.random(n)
            unit[:, j] = edges[cell] + self._widths[j][cell] * inside
        return self.cube.canonical(unit)

    def log_prob(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """(n, ndim) -> (n,) log density."""
        return np.asarray(logsumexp(self._joint(unit), axis=1))

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """(n, ndim) -> (n, 1): the point is drawn in one step."""
        return self.log_prob(unit, context)[:, None]

    def _joint(self, unit: FloatArray) -> FloatArray:
        """(n, ndim) -> (n, K) log of share times density."""
        w, active = self._weights, self.cube.active(unit)
        used = w["share"] > 0
        out = np.full((len(unit), len(used)), -np.inf)
        y, seen = self._line(unit, active)
        out[:, used] = gaussian.log_ratio(y, seen, w["mean"][used], w["cov"][used])
        cells = self.cube.cells(unit)
        for j in self._tables:
            ratio = np.log(w[f"table_{j}"] / self._widths[j])
            out += np.where(active[:, [j]], ratio.T[cells[:, j]], 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(out + np.log(w["share"]))

    def _line(self, unit: FloatArray, active: BoolArray) -> tuple[FloatArray, BoolArray]:
        """(n, C) on the real line, (n, C) whether they count."""
        return ndtri(unit[:, self._normal]), active[:, self._normal]

    def widened(self) -> Self:
        """Standard deviations doubled (at most the prior's), tables half way to the prior's."""
        w = self.weights
        sd = np.sqrt(np.diagonal(w["cov"], axis1=1, axis2=2))
        factor = np.maximum(np.minimum(WIDER * sd, gaussian.SD_LIMITS[1]), sd) / sd
        w["cov"] = w["cov"] * factor[:, :, None] * factor[:, None, :]
        for j in self._tables:
            w[f"table_{j}"] = 0.5 * (w[f"table_{j}"] + self._widths[j])
        return self.with_weights(w)

    # ---- learning

    def fitted(
        self,
        unit: FloatArray,
        weight: FloatArray,
        anchor: float,
        rng: np.random.Generator,
        iterations: int = 3,
    ) -> Self:
        """Maximum of  sum_i weight_i log pi(x_i) - anchor KL(self || pi), by expectation and
        maximisation from itself.

        The second term is the trust region of weighted maximum likelihood: for components taken
        one by one it adds ``anchor`` points spread as the policy is now, so the maximum stays in
        closed form.

        Parameters
        ----------
        unit : (n, ndim)
        weight : (n,) >= 0; their sum is the number of points they are worth
        anchor : number of points that the policy as it is counts for
        rng : places a component that is new
        iterations : of expectation and maximisation
        """
        old = self._grown(unit, weight, rng)
        new = old
        for _ in range(iterations):
            new = new._step(old, unit, weight, anchor)
        return new

    def _step(self, old: Self, unit: FloatArray, weight: FloatArray, anchor: float) -> Self:
        """One iteration; ``old`` is what it is anchored at."""
        joint = self._joint(unit)
        part = np.exp(joint - logsumexp(joint, axis=1, keepdims=True)) * weight[:, None]
        active, w, count = self.cube.active(unit), old._weights, anchor * old._weights["share"]
        y, seen = self._line(unit, active)
        sums = gaussian.moments(y, seen, part, self._weights["mean"], self._weights["cov"])
        sums = gaussian.anchored(sums, count, w["mean"], w["cov"])
        mean, cov = gaussian.fitted(sums, self.rank)
        dead = sums.total < min(ALIVE, sums.total.max())
        share = np.where(dead, 0.0, sums.total)
        new: Weights = {"share": share / share.sum(), "mean": mean, "cov": cov}
        cells = self.cube.cells(unit)
        for j in self._tables:
            table = count[:, None] * w[f"table_{j}"]
            for cell in range(table.shape[1]):
                table[:, cell] += part[active[:, j] & (cells[:, j] == cell)].sum(axis=0)
            new[f"table_{j}"] = _normalised(table, w[f"table_{j}"])
        for name, prior in _prior(self.cube, self.components, len(self._normal)).items():
            if name != "share":
                new[name][dead] = prior[dead]
        return self.with_weights(new)

    def _grown(self, unit: FloatArray, weight: FloatArray, rng: np.random.Generator) -> Self:
        """One more component, at a point drawn by weight, once there is evidence for it."""
        w = self.weights
        free = np.flatnonzero(w["share"] == 0)
        used = self.components - len(free)
        worth = float(weight.sum()) / (EVIDENCE * max(len(self._normal), 1))
        if not len(free) or worth < used + 1:
            return self
        new = free[0]
        i = rng.choice(len(unit), p=weight / weight.sum())
        y, seen = self._line(unit[[i]], self.cube.active(unit[[i]]))
        mother = int(np.argmax(self._joint(unit[[i]])[0]))
        grown = {name: array.copy() for name, array in w.items()}
        grown["share"][new] = grown["share"][mother] = w["share"][mother] / 2
        grown["cov"][new] = w["cov"][mother]
        at = np.where(seen[0], y[0], w["mean"][mother])
        half = 0.5 * (at + w["mean"][mother])
        grown["mean"][new] = np.clip(half, -gaussian.MEAN_LIMIT, gaussian.MEAN_LIMIT)
        for j in self._tables:
            grown[f"table_{j}"][new] = w[f"table_{j}"][mother]
        return self.with_weights(grown)

    def describe(self) -> dict[str, Any]:
        """Class, number of components and rank."""
        return {
            "policy": type(self).__name__,
            "components": self.components,
            "rank": self.rank,
        }

    def __repr__(self) -> str:
        used = int((self._weights["share"] > 0).sum())
        return f"MixturePolicy(ndim={self.cube.ndim}, {used} of {self.components} components)"


def _prior(cube: Cube, K: int, C: int) -> Weights:
    share = np.zeros(K)
    share[0] = 1.0
    out: Weights = {"share": share, "mean": np.zeros((K, C)), "cov": np.tile(np.eye(C), (K, 1, 1))}
    for j, kind in enumerate(cube.kinds):
        if kind == "categorical":
            out[f"table_{j}"] = np.tile(np.diff(edges_of(cube, j)), (K, 1))
    return out


def edges_of(cube: Cube, j: int) -> FloatArray:
    """(levels + 1,) edges of a discrete coordinate's cells."""
    edges = cube.edges[j]
    assert edges is not None
    return edges


def _checked(weights: Weights, like: Weights) -> Weights:
    if set(weights) != set(like):
        raise ValueError(f"weights: wanted {sorted(like)}, got {sorted(weights)}")
    out = {}
    for name, model in like.items():
        array = np.array(weights[name], dtype=np.float64)
        if array.shape != model.shape:
            raise ValueError(f"weights: wanted {name} of shape {model.shape}, got {array.shape}")
        array.setflags(write=False)
        out[name] = array
    return out


def _chosen(cumulative: FloatArray, at: FloatArray) -> IntArray:
    """(m,) or (n, m) cumulative shares, (n,) in [0, 1) -> (n,) which of m, none without share."""
    top = cumulative[..., -1]
    rising = np.broadcast_to(cumulative, (len(at), cumulative.shape[-1]))
    return np.asarray((rising <= (at * top)[:, None]).sum(axis=1))


def _normalised(table: FloatArray, otherwise: FloatArray) -> FloatArray:
    """(K, levels) rows that sum to 1, no letter below 1e-6 of them; empty rows as they were."""
    total = table.sum(axis=1, keepdims=True)
    out = np.where(total > 1e-9, table / np.maximum(total, 1e-9), otherwise)
    out = np.maximum(out, 1e-6)
    return np.asarray(out / out.sum(axis=1, keepdims=True))
