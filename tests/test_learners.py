"""Gradient learners: golden numbers, gradients by enumeration, and where they end up."""

import copy
import itertools
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp, softmax

from ensemblerl.agents.base import Learner, Rows
from ensemblerl.agents.learners.adam import Adam, clip_norm
from ensemblerl.agents.learners.minibatch import ratio
from ensemblerl.agents.learners.policy_gradient import PolicyGradient
from ensemblerl.agents.learners.trajectory_balance import (
    TrajectoryBalance,
    bounded,
    estimated_log_z,
    log_variance,
    trajectory_balance,
)
from ensemblerl.agents.learners.vtrace import BASELINE_COST, VTrace, on_the_way, vtrace
from ensemblerl.records import Cube, Demands

LEARNERS = {"balance": TrajectoryBalance, "vtrace": VTrace, "reinforce": PolicyGradient}
ALPHA = 0.5


def rng(seed=0):
    return np.random.default_rng(seed)


class Tree:
    """Every prefix of three ternary tokens has logits of its own.

    With ``gaps``, the second coordinate is inactive where the first is 0, the third where the
    first is 2: gaps in the middle and at the end.
    """

    trainable = ("logits",)
    n_steps = 3

    def __init__(self, logits=None, gaps=False):
        thirds = np.arange(4) / 3
        parents = ((), ((0, (1, 2)),), ((0, (0, 1)),)) if gaps else ()
        self.gaps = gaps
        self.cube = Cube(("categorical",) * 3, (3,) * 3, (thirds,) * 3, parents)
        self._weights = {
            "logits": np.zeros((13, 3)) if logits is None else np.array(logits),
            "shape": np.arange(3),
        }
        self.points = self.every_point()

    @property
    def weights(self):
        return dict(self._weights)

    def with_weights(self, weights):
        return Tree(weights["logits"], self.gaps)

    def every_point(self):
        tokens = np.array(list(itertools.product(range(3), repeat=3)))
        return np.unique(self.cube.canonical((tokens + 0.5) / 3), axis=0)

    def nodes(self, unit):
        """(n, 3) the prefix each token is chosen from, (n, 3) the tokens."""
        a = self.cube.cells(unit)
        return np.stack([0 * a[:, 0], 1 + a[:, 0], 4 + 3 * a[:, 0] + a[:, 1]], axis=1), a

    def torch_steps(self, weights, unit):
        nodes, a = self.nodes(unit)
        active = torch.tensor(self.cube.active(unit))
        log_pi = torch.log_softmax(weights["logits"], dim=1)[nodes, a]
        steps = torch.where(active, log_pi + np.log(3), 0.0)
        hidden = torch.nn.functional.one_hot(torch.tensor(nodes), 13).double()
        return steps, hidden, active

    def steps(self, unit, context=None):
        nodes, a = self.nodes(unit)
        log_pi = log_softmax(self._weights["logits"], axis=1)[nodes, a]
        return np.where(self.cube.active(unit), log_pi + np.log(3), 0.0)

    def log_prob(self, unit, context=None):
        return self.steps(unit).sum(axis=1)

    def prior(self):
        return 3.0 ** -self.cube.active(self.points).sum(axis=1)

    def mass(self):
        """(points,) probability of each."""
        return self.prior() * np.exp(self.log_prob(self.points))

    def sample(self, n, context, rng):
        return self.points[rng.choice(len(self.points), n, p=self.mass())]

    def widened(self):
        return self

    def describe(self):
        return {}


def random_tree(seed, gaps=False):
    return Tree(rng(seed).normal(size=(13, 3)), gaps)


def drawn(behaviour, unit, reward=0.0, weight=1.0):
    """Rows that ``behaviour`` has drawn."""
    n = len(unit)
    return Rows(
        number=np.arange(n),
        unit=unit,
        reward=np.broadcast_to(reward, n).astype(float),
        log_prob=behaviour.log_prob(unit),
        steps=behaviour.steps(unit),
        version=np.zeros(n, dtype=np.int64),
        weight=np.broadcast_to(weight, n).astype(float),
        critic=np.full(n, ""),
    )


def enumerated(behaviour):
    """Every point once, weighted by how often ``behaviour`` draws it: an exact expectation."""
    return drawn(behaviour, behaviour.points, weight=behaviour.mass())


def rewards(tree, seed=9):
    return rng(seed).normal(size=len(tree.points))


def gradient(learner, policy, rows, R, alpha=ALPHA):
    return learner.gradient(policy, policy.weights, rows, R, alpha)[0]


class Stand:
    """A memory of fixed rows, or of new draws of whatever policy learns."""

    def __init__(self, rows):
        self._rows, self.told = rows, []

    def rows(self):
        return self._rows

    def sample(self, n, rng):
        return self._rows.take(rng.integers(len(self._rows), size=n if len(self._rows) else 0))

    def reprioritise(self, number, priority):
        self.told.append((number, priority))

    def utility(self, rows, demands):
        return rows.reward


def soft_values(tree, R, alpha):
    """(13,) V and (13, 3) Q of each prefix under the tree's policy, and (13,) its visits.

    By dynamic programming over sets of points that share a prefix.
    """
    nodes, a = tree.nodes(tree.points)
    active, steps = tree.cube.active(tree.points), tree.steps(tree.points)
    mass, Q = tree.mass(), np.zeros((13, 3))
    to_go = R - alpha * steps[:, ::-1].cumsum(axis=1)[:, ::-1].T  # (3, points) G from each step
    seen, V = np.zeros((13, 3)), np.zeros(13)
    for s in range(3):
        for node, token in set(zip(nodes[active[:, s], s], a[active[:, s], s], strict=True)):
            here = active[:, s] & (nodes[:, s] == node) & (a[:, s] == token)
            seen[node, token] = mass[here].sum()
            Q[node, token] = np.average(to_go[s][here], weights=mass[here])
    visits = seen.sum(axis=1)
    met = visits > 0
    V[met] = (seen * Q).sum(axis=1)[met] / visits[met]
    return V, Q, visits


def policy_gradient_at(policy, R, alpha, visits):
    """(13, 3) sum_x d(x) sum_a grad pi(a|x) Q(x, a), in the logits."""
    V, Q, _ = soft_values(policy, R, alpha)
    return visits[:, None] * softmax(policy.weights["logits"], axis=1) * (Q - V[:, None])


# V-trace


def test_vtrace_gives_the_published_numbers():
    errors, q = vtrace(
        v=np.array([2.1, 1.1, -3.1, 0.0]),
        v_next=np.array([1.1, -3.1, 0.0, 8.4]),
        r=np.array([-1.3, -1.3, 2.3, 42.0]),
        discount=np.array([0.0, 0.89, 0.85, 0.99]),
        rho=np.array([0.5, 2.0, 1.2, 0.1]),
    )
    assert errors == pytest.approx([-1.7, 3.4534054, 9.67686, 5.0316005], abs=1e-6)
    assert q == pytest.approx([-1.3, 4.553406, 6.5768604, 50.316], abs=1e-6)


def test_vtrace_of_one_step_with_the_ratio_clipped():
    rho = ratio(np.log([0.7]), np.log([0.2]))
    assert rho == pytest.approx([3.5])
    v, r = np.array([0.3]), np.array([1.0])
    errors, q = vtrace(v, np.zeros(1), r, 1.0, rho)
    assert v + errors == pytest.approx([1.0], abs=1e-12)
    assert np.minimum(1.0, rho) * (q - v) == pytest.approx([0.7], abs=1e-12)


def test_the_two_clips_of_vtrace_are_told_apart():
    one = np.ones((1, 2))
    errors, q = vtrace(0 * one, 0 * one, one, 1.0, 3 * one, rho_bar=2.0, c_bar=1.5)
    assert errors.tolist() == [[2.0 + 1.5 * 2.0, 2.0]]
    assert q.tolist() == [[1.0 + 2.0, 1.0]]


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("stale", [False, True])
def test_vtrace_unclipped_follows_the_policy_gradient_in_the_states_of_the_behaviour(gaps, stale):
    policy = random_tree(1, gaps)
    behaviour = random_tree(2, gaps) if stale else policy
    R, learner = rewards(policy), VTrace(clip=None)
    learner.heads = {"critic": rng(5).normal(size=(3, 14))}  # any critic: its mean effect is 0
    critic = learner.heads["critic"][:, :-1] + learner.heads["critic"][:, -1:]
    got = gradient(learner, policy, enumerated(behaviour), R)
    visits = soft_values(behaviour, R, ALPHA)[2]
    expected = policy_gradient_at(policy, R, ALPHA, visits)
    np.testing.assert_allclose(-got["logits"], expected, atol=1e-12)
    # the mean target of the critic is the value of the policy, not of the behaviour
    at = level(np.arange(13)), np.arange(13)
    error = visits * (soft_values(policy, R, ALPHA)[0] - critic[at])
    np.testing.assert_allclose(-got["critic"][at], BASELINE_COST * error, atol=1e-12)


def level(nodes):
    return np.digitize(nodes, [1, 4])


@pytest.mark.parametrize("corrected", [True, False])
def test_vtrace_looks_at_the_behaviour_only_where_it_corrects(corrected):
    policy, R = random_tree(1), rewards(Tree())
    learner = VTrace(corrected=corrected)
    rows = enumerated(random_tree(2))
    other = replace(rows, steps=random_tree(3).steps(rows.unit))
    first, second = (gradient(learner, policy, one, R)["logits"] for one in (rows, other))
    assert np.array_equal(first, second) != corrected


def test_a_state_before_an_inactive_step_is_worth_what_the_state_after_it_is():
    v = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    active = np.array([[True, False, True], [True, False, False]])
    before, after = on_the_way(v, active, np.array([7.0, 8.0]))
    assert before.tolist() == [[1.0, 3.0, 3.0], [4.0, 8.0, 8.0]]
    assert after.tolist() == [[3.0, 3.0, 7.0], [8.0, 8.0, 8.0]]


class Felt(Tree):
    """A tree whose hidden states move with what it learns."""

    def torch_steps(self, weights, unit):
        steps, _, active = super().torch_steps(weights, unit)
        return steps, weights["logits"][self.nodes(unit)[0]], active


def test_the_critic_shapes_what_the_policy_decides_from():
    policy, learner = Felt(rng(1).normal(size=(13, 3))), VTrace(clip=None)
    R, head = rewards(policy), rng(5).normal(size=(3, 4))
    learner.heads = {"critic": head}
    got = gradient(learner, policy, enumerated(policy), R)
    value, _, visits = soft_values(policy, R, ALPHA)
    here = head[level(np.arange(13))]
    said = (policy.weights["logits"] * here[:, :3]).sum(axis=1) + here[:, 3]
    critic = BASELINE_COST * (visits * (value - said))[:, None] * here[:, :3]
    actor = policy_gradient_at(policy, R, ALPHA, visits)
    np.testing.assert_allclose(-got["logits"], actor + critic, atol=1e-12)
    assert np.abs(critic).max() > 0.01


def test_the_first_critic_says_the_mean_reward_everywhere():
    policy, learner = random_tree(1), VTrace()
    R = rewards(policy)
    gradient(learner, policy, enumerated(policy), R)
    assert learner.heads["critic"][:, :-1].tolist() == np.zeros((3, 13)).tolist()
    assert learner.heads["critic"][:, -1] == pytest.approx(policy.mass() @ R)


def test_vtrace_counts_the_active_steps_that_it_clips():
    policy, behaviour = random_tree(1, gaps=True), random_tree(2, gaps=True)
    rows, learner = enumerated(behaviour), VTrace(clip=1.3)
    metrics = learner.gradient(policy, policy.weights, rows, rewards(policy), ALPHA)[1].metrics
    active = policy.cube.active(policy.points)
    cut = policy.steps(policy.points) - behaviour.steps(policy.points) > np.log(1.3)
    assert 0 < cut.sum() < active.sum() < active.size
    assert metrics["clipped"] == pytest.approx(cut.sum() / active.sum())


# Policy gradient


@pytest.mark.parametrize("gaps", [False, True])
def test_the_corrected_policy_gradient_of_stale_rows_is_that_of_fresh_ones(gaps):
    policy, behaviour = random_tree(1, gaps), random_tree(2, gaps)
    R = rewards(policy)
    expected = policy_gradient_at(policy, R, ALPHA, soft_values(policy, R, ALPHA)[2])
    for source in (policy, behaviour):
        got = gradient(PolicyGradient(clip=None), policy, enumerated(source), R)["logits"]
        np.testing.assert_allclose(-got, expected, atol=1e-12)


def scores(policy):
    """(points, 39) gradient of log pi of every point in the logits."""
    (nodes, a), active = policy.nodes(policy.points), policy.cube.active(policy.points)
    out = np.zeros((len(policy.points), 13, 3))
    for s in range(3):
        rows = np.flatnonzero(active[:, s])
        out[rows, nodes[rows, s]] = -softmax(policy.weights["logits"], axis=1)[nodes[rows, s]]
        out[rows, nodes[rows, s], a[rows, s]] += 1.0
    return out


@pytest.mark.parametrize("clip", [1.0, 1.7])
def test_a_clipped_ratio_counts_as_the_clip(clip):
    policy, behaviour = random_tree(1), random_tree(2)
    R, pi, mu = rewards(policy), policy.mass(), behaviour.mass()
    G = R - ALPHA * policy.log_prob(policy.points)
    used = np.minimum(pi, clip * mu)
    expected = np.tensordot(used * (G - np.average(G, weights=used)), scores(policy), 1)
    learner = PolicyGradient(clip=clip)
    got, judged = learner.gradient(policy, policy.weights, enumerated(behaviour), R, ALPHA)
    np.testing.assert_allclose(-got["logits"], expected, atol=1e-12)
    assert judged.metrics["clipped"] == np.mean(pi > clip * mu)


def test_the_uncorrected_policy_gradient_takes_rows_as_its_own():
    policy, behaviour = random_tree(1), random_tree(2)
    R, mu = rewards(policy), behaviour.mass()
    G = R - ALPHA * policy.log_prob(policy.points)
    expected = np.tensordot(mu * (G - mu @ G), scores(policy), 1)
    learner = PolicyGradient(corrected=False)
    got, judged = learner.gradient(policy, policy.weights, enumerated(behaviour), R, ALPHA)
    np.testing.assert_allclose(-got["logits"], expected, atol=1e-12)
    assert judged.metrics["clipped"] == 0.0


# Trajectory balance


def optimal_tree(R, alpha, gaps=False):
    """The tree whose conditionals are those of p exp(R / alpha) / Z, and log Z."""
    tree = Tree(gaps=gaps)
    (nodes, a), active = tree.nodes(tree.points), tree.cube.active(tree.points)
    logits = np.zeros((13, 3))
    for node, token in itertools.product(range(13), range(3)):
        here = active & (nodes == node) & (a == token)
        if here.any():
            rows = here.any(axis=1)
            logits[node, token] = logsumexp(R[rows] / alpha, b=tree.prior()[rows])
    return Tree(logits, gaps), logsumexp(R / alpha, b=tree.prior())


@pytest.mark.parametrize("gaps", [False, True])
def test_at_the_exact_conditionals_the_variance_is_zero_and_log_z_is_right(gaps):
    R = rewards(Tree(gaps=gaps))
    tree, log_z = optimal_tree(R, ALPHA, gaps)
    if not gaps:
        assert log_z == pytest.approx(logsumexp(R / ALPHA) - 3 * np.log(3))
    log_pi, scaled = torch.tensor(tree.log_prob(tree.points)), torch.tensor(R / ALPHA)
    weight = torch.tensor(rng(3).uniform(size=len(R)))  # whoever drew them
    assert log_variance(log_pi, scaled, weight).item() == pytest.approx(0, abs=1e-25)
    assert estimated_log_z(log_pi, scaled, weight).item() == pytest.approx(log_z, abs=1e-12)
    balance = trajectory_balance(torch.tensor(log_z), log_pi, scaled)
    assert balance.numpy() == pytest.approx(0, abs=1e-25)


def test_the_log_variance_is_the_weighted_variance():
    log_pi, R, weight = (torch.tensor(rng(seed).uniform(size=7)) for seed in range(3))
    delta, w = (log_pi - R).numpy(), weight.numpy()
    variance = np.cov(delta, aweights=w, ddof=0)
    assert log_variance(log_pi, R, weight).item() == pytest.approx(float(variance), rel=1e-12)


@pytest.mark.parametrize("gaps", [False, True])
def test_the_on_policy_gradient_is_twice_that_of_the_reverse_kl(gaps):
    policy = random_tree(1, gaps)
    R = rewards(policy)
    logits = torch.tensor(policy.weights["logits"], requires_grad=True)
    log_pi = policy.torch_steps({"logits": logits}, policy.points)[0].sum(dim=1)
    pi = torch.tensor(policy.prior()) * log_pi.exp()
    kl = (pi * (log_pi - torch.tensor(R / ALPHA))).sum()  # and log Z, a constant
    expected = 2 * torch.autograd.grad(kl, logits)[0].numpy()
    for behaviour, learner in [
        (policy, TrajectoryBalance()),
        (random_tree(2, gaps), TrajectoryBalance(corrected=True, clip=None)),
    ]:
        got = gradient(learner, policy, enumerated(behaviour), R)["logits"]
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_the_balance_asks_who_drew_the_rows_only_where_it_is_told_to():
    policy, R = random_tree(1), rewards(Tree())
    rows = enumerated(random_tree(2))
    other = replace(rows, log_prob=random_tree(3).log_prob(rows.unit))
    for arguments, same in [({}, True), ({"corrected": True}, False)]:
        learner = TrajectoryBalance(**arguments)
        first, second = (gradient(learner, policy, one, R)["logits"] for one in (rows, other))
        assert np.array_equal(first, second) == same


def test_the_bound_makes_the_loss_linear_from_there_on():
    delta = torch.tensor([-5.0, -0.5, 0.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    out = bounded(delta**2, 2.0)
    assert out.tolist() == [16.0, 0.25, 0.0, 4.0, 8.0]
    slope = torch.autograd.grad(out.sum(), delta)[0]
    assert slope[[0, 1, 2, 4]].tolist() == [-4.0, -1.0, 0.0, 4.0]


def test_a_wide_bound_changes_nothing_and_a_narrow_one_does():
    policy, R = random_tree(1), rewards(Tree())
    rows = enumerated(policy)
    plain, wide, narrow = (
        gradient(TrajectoryBalance(delta_clip=bound), policy, rows, R)["logits"]
        for bound in (None, 1e6, 0.5)
    )
    np.testing.assert_allclose(wide, plain, atol=1e-12)
    assert np.abs(narrow - plain).max() > 0.05


# All of them


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_the_optimum_is_where_all_gradients_vanish_stale_and_clipped(learner):
    R = rewards(Tree(gaps=True))
    tree, _ = optimal_tree(R, ALPHA, gaps=True)
    one = learner(corrected=True)
    if learner is VTrace:
        values = soft_values(tree, R, ALPHA)[0]
        one.heads = {"critic": np.tile(np.append(values, 0.0), (3, 1))}
    got = gradient(one, tree, enumerated(random_tree(2, gaps=True)), R)
    assert max(np.abs(part).max() for part in got.values()) < 1e-12


class Fresh(Stand):
    """Hands out new draws of the policy it is told to ask."""

    def __init__(self, R):
        super().__init__(None)
        self.R, self.policy = R, None

    def sample(self, n, rng):
        unit = self.policy.sample(n, None, rng)
        index = (unit[:, None] == self.policy.points).all(axis=2).argmax(axis=1)
        return drawn(self.policy, unit, self.R[index])


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_it_moves_to_the_target(learner, gaps):
    policy = Tree(gaps=gaps)
    R = rewards(policy)
    memory, random = Fresh(R), rng(4)
    target = optimal_tree(R, ALPHA, gaps)[0].mass()
    one, distance = learner(updates=1), [np.abs(policy.mass() - target).sum() / 2]
    for one.optimiser.rate in (0.1, 0.02):
        for _ in range(80):
            memory.policy = policy
            policy = one.learn(policy, memory, Demands(temperature=ALPHA), random).policy
        distance.append(np.abs(policy.mass() - target).sum() / 2)
    assert distance[0] > 0.4
    # no statistical error is left over: at the target all rows agree, and every gradient is 0
    assert distance[-1] < 0.01


def memory_of(tree, n=40, failed=(), seed=7):
    unit = tree.sample(n, None, rng(seed))
    reward = rng(seed + 1).normal(size=n)
    reward[list(failed)] = -np.inf
    return Stand(drawn(tree, unit, reward))


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_a_restored_learner_goes_on_bit_for_bit(learner):
    memory, demands = memory_of(random_tree(2)), Demands(temperature=0.2)

    def lessons(one, policy, seeds):
        for seed in seeds:
            policy, metrics = one.learn(policy, memory, demands, rng(seed))
        return policy, metrics

    one = learner()
    half, _ = lessons(one, random_tree(1), [1, 2])
    state = copy.deepcopy(one.state_dict())
    whole, metrics = lessons(one, half, [3, 4])
    two = learner()
    two.load_state_dict(state)
    again, same = lessons(two, half, [3, 4])
    assert np.array_equal(whole.weights["logits"], again.weights["logits"])
    assert metrics == same
    anew, _ = lessons(learner(), half, [3, 4])
    assert not np.array_equal(whole.weights["logits"], anew.weights["logits"])


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_a_state_is_a_snapshot(learner):
    one, memory = learner(), memory_of(random_tree(2))
    policy = one.learn(random_tree(1), memory, Demands(), rng()).policy
    state = one.state_dict()
    before = copy.deepcopy(state)
    one.learn(policy, memory, Demands(), rng())
    np.testing.assert_equal(state, before)


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_a_lesson_is_told_what_it_needs_to_know(learner):
    one, memory, policy = learner(updates=3, batch=16), memory_of(random_tree(2)), random_tree(1)
    learnt, metrics = one.learn(policy, memory, Demands(temperature=0.2), rng())
    assert isinstance(one, Learner)
    assert np.array_equal(learnt.weights["shape"], policy.weights["shape"])
    assert np.abs(learnt.weights["logits"] - policy.weights["logits"]).max() > 0
    assert [len(number) for number, _ in memory.told] == [16] * 3
    for number, priority in memory.told:
        assert number.shape == priority.shape
        assert (np.isfinite(priority) & (priority >= 0)).all()
        assert priority.max() > 0
    assert {"loss", "norm", "entropy", "ess", "ratio", "clipped", "temperature"} <= set(metrics)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["temperature"] == 0.2
    json.dumps(one.describe())
    assert one.describe()["learner"] == learner.__name__
    assert one.describe()["updates"] == 3
    assert type(one)(**{k: v for k, v in one.describe().items() if k != "learner"}).batch == 16


def test_what_is_watched_is_estimated_for_the_policy():
    policy, behaviour = random_tree(1), random_tree(2)
    pi, learner = policy.mass(), PolicyGradient()
    rows, R = enumerated(behaviour), rewards(policy)
    metrics = learner.gradient(policy, policy.weights, rows, R, ALPHA)[1].metrics
    assert metrics["entropy"] == pytest.approx(-pi @ np.log(27 * pi))
    assert metrics["ratio"] == pytest.approx(1.0)
    assert metrics["ess"] == pytest.approx(1 / (pi @ pi))  # a row a point


def test_rows_without_a_density_tell_nothing_of_what_is_watched():
    """Neither what a critic picked, nor what another sampler proposed."""
    policy, learner = random_tree(1), PolicyGradient()
    rows, R = enumerated(random_tree(2)), rewards(policy)
    n = len(rows)

    def watched(**columns):
        changed = replace(rows, version=np.zeros(n, dtype=np.int64))
        changed = replace(changed, **columns)
        return learner.gradient(policy, policy.weights, changed, R, ALPHA)[1].metrics

    without = np.arange(n) % 3 == 0
    log_prob = np.where(without, 0.0, rows.log_prob)
    steps = np.where(without[:, None], 0.0, rows.steps)
    gone = watched(weight=np.where(without, 0.0, rows.weight))
    wrong = watched(log_prob=log_prob, steps=steps)
    picks = watched(log_prob=log_prob, steps=steps, critic=np.where(without, "gp", ""))
    others = watched(log_prob=log_prob, steps=steps, version=np.where(without, -1, 0))
    nothing = watched(critic=np.full(n, "gp"))
    for name in ("entropy", "ess", "ratio"):
        assert picks[name] == pytest.approx(gone[name])
        assert others[name] == pytest.approx(gone[name])
        assert wrong[name] != pytest.approx(gone[name])
        assert np.isnan(nothing[name])


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_a_temperature_of_nothing_counts_as_the_least(learner):
    memory, policy = memory_of(random_tree(2)), random_tree(1)
    zero, floor = (
        learner(least_temperature=0.05).learn(policy, memory, Demands(temperature=alpha), rng())
        for alpha in (0.0, 0.05)
    )
    assert np.array_equal(zero.policy.weights["logits"], floor.policy.weights["logits"])
    assert zero.metrics["temperature"] == 0.05


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_failed_members_count_as_the_worst_of_their_minibatch(learner):
    policy, failed = random_tree(1), memory_of(random_tree(2), failed=[3, 5])
    reward = failed.rows().reward
    low = np.where(np.isfinite(reward), reward, reward[np.isfinite(reward)].min())
    worst = Stand(replace(failed.rows(), reward=low))
    whole = learner(batch=400, updates=1)  # so many that the worst of all 40 is among them
    one, other = (
        copy.deepcopy(whole).learn(policy, memory, Demands(temperature=0.2), rng())
        for memory in (failed, worst)
    )
    assert np.array_equal(one.policy.weights["logits"], other.policy.weights["logits"])


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_failures_alone_teach_nothing_wrong(learner):
    memory = memory_of(Tree(), failed=range(40))
    metrics = learner().learn(random_tree(1), memory, Demands(temperature=0.2), rng()).metrics
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_nothing_is_learnt_frozen_or_from_nothing(learner):
    policy, memory = random_tree(1), memory_of(random_tree(2))
    one = learner()
    assert one.learn(policy, memory, Demands(frozen=True), rng()).policy is policy
    nothing = Stand(memory.rows().take(np.arange(0)))
    assert one.learn(policy, nothing, Demands(), rng()).policy is policy
    assert one.state_dict() == learner().state_dict()


def test_a_row_counts_by_its_weight():
    policy, rows = random_tree(1), memory_of(random_tree(2)).rows()
    twice = rows.take(np.array([*range(40), 0]))
    heavy = replace(rows, weight=np.where(np.arange(40) == 0, 2.0, 1.0))
    for learner in LEARNERS.values():
        one, other = (
            gradient(learner(), policy, some, some.reward)["logits"] for some in (twice, heavy)
        )
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
@pytest.mark.parametrize("shift", [-500.0, 500.0])
def test_ratios_beyond_all_bounds_stay_numbers(learner, shift):
    policy, rows = random_tree(1), memory_of(random_tree(2)).rows()
    far = replace(rows, log_prob=rows.log_prob + 3 * shift, steps=rows.steps + shift)
    one = learner(clip=None, corrected=True)
    learnt, metrics = one.learn(policy, Stand(far), Demands(temperature=0.2), rng())
    assert all(np.isfinite(value) for value in metrics.values())
    assert np.isfinite(learnt.weights["logits"]).all()


# The optimiser


def test_adam_takes_the_steps_of_torch():
    theta = rng(1).normal(size=(4, 3))
    parameter = torch.tensor(theta, requires_grad=True)
    theirs, ours, weights = torch.optim.Adam([parameter], lr=0.02), Adam(0.02), {"w": theta}
    for seed in range(5):
        g = rng(seed).normal(size=(4, 3)) * 10.0**-seed
        parameter.grad = torch.tensor(g)
        theirs.step()
        weights = ours.step(weights, {"w": g})
    np.testing.assert_allclose(weights["w"], parameter.detach().numpy(), rtol=1e-12)


def test_long_gradients_are_shrunk_and_short_ones_kept():
    g = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    short, norm = clip_norm(g, 10.0)
    assert norm == 5.0
    np.testing.assert_equal(short, g)
    shrunk, norm = clip_norm(g, 1.0)
    assert norm == 5.0
    np.testing.assert_allclose(shrunk["a"], [0.6, 0.0])
    np.testing.assert_allclose(shrunk["b"], [[0.8]])


@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
def test_a_lesson_shrinks_its_gradients(max_norm):
    policy, memory = random_tree(1), memory_of(random_tree(2))
    one = TrajectoryBalance(updates=1, max_norm=max_norm)
    norm = one.learn(policy, memory, Demands(temperature=0.2), rng()).metrics["norm"]
    assert 1e-3 < norm < 1e3
    m = one.state_dict()["optimiser"]["m"]["logits"]  # (1 - beta_1) of the first gradient
    assert np.linalg.norm(m) / 0.1 == pytest.approx(min(norm, max_norm))


# What is refused


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("updates", 0),
        ("updates", 1.5),
        ("updates", True),
        ("batch", -3),
        ("rate", 0.0),
        ("rate", float("nan")),
        ("max_norm", -1.0),
        ("max_norm", float("inf")),
        ("least_temperature", 0.0),
        ("clip", 0.5),
        ("clip", float("nan")),
        ("clip", float("inf")),
    ],
)
def test_a_wrong_argument_is_named(learner, name, value):
    with pytest.raises(ValueError, match=rf"^{name}: wanted .*, got {value!r}$"):
        learner(**{name: value})


def test_a_wrong_bound_of_delta_is_named():
    with pytest.raises(ValueError, match=r"^delta_clip: wanted a positive number, got 0$"):
        TrajectoryBalance(delta_clip=0)


def test_a_policy_without_a_gradient_is_refused():
    class Numb:
        pass

    with pytest.raises(ValueError, match=r"^policy: wanted .*torch_steps.*, got Numb$"):
        TrajectoryBalance().learn(Numb(), memory_of(Tree()), Demands(), rng())


def test_a_policy_of_another_shape_than_before_is_refused():
    optimiser = Adam(0.1)
    optimiser.step({"w": np.ones(3)}, {"w": np.ones(3)})
    with pytest.raises(
        ValueError, match=r"^policy: wanted w of shape \(3,\) as before, got \(1,\)"
    ):
        optimiser.step({"w": np.ones(1)}, {"w": np.ones(1)})


def test_learners_are_built_without_torch():
    code = (
        "import sys\n"
        "from ensemblerl.agents.learners.policy_gradient import PolicyGradient\n"
        "from ensemblerl.agents.learners.trajectory_balance import TrajectoryBalance\n"
        "from ensemblerl.agents.learners.vtrace import VTrace\n"
        "for one in (PolicyGradient(), TrajectoryBalance(), VTrace()):\n"
        "    one.load_state_dict(one.state_dict())\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
