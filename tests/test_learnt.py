"""What an agent has learnt: versions of its policy, their draws, and pictures that can be read."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from student import Student
from test_plots import check_readable

import ensemblerl as erl
from ensemblerl.agents.maxent import MaxEnt
from ensemblerl.agents.policies.mixture import MixturePolicy
from ensemblerl.agents.policies.tokens import TokenPolicy
from ensemblerl.agents.snapshots import latest
from ensemblerl.events import Launched
from ensemblerl.policyfile import FOLDER, file_name, load
from ensemblerl.problems import mixed
from ensemblerl.report.lessons import proposers, running
from ensemblerl.report.ruled import ruled
from ensemblerl.report.together import SHARES, TINTS, regions
from ensemblerl.report.versions import DRAWS, gain, policy_of, prior
from ensemblerl.store.reading import read_events


def campaign(function, space, n, *, sampler, **options):
    return erl.explore(
        function, space, erl.Minimize(), n_members=n, sampler=sampler, seed=1, cluster="serial",
        progress=False, **options,
    )  # fmt: skip


def simulate(**point):
    return mixed.simulate(**point)


def learnt(path, sampler=None, n=80):
    return campaign(simulate, mixed.space(), n, sampler=sampler, store=path)


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    return learnt(tmp_path_factory.mktemp("explain") / "agent", sampler=None)


@pytest.mark.parametrize(("kind", "size"), [(MixturePolicy, {}), (TokenPolicy, {"hidden": 8})])
def test_a_version_is_the_policy_that_drew_the_members(tmp_path, kind, size):
    """With the share of the prior, its density is what the ledger has of them."""
    root = tmp_path / "s"
    learnt(root, lambda cube: MaxEnt(cube, policy=kind(cube, **size), critics=False), n=24)
    launched = [event.members for event in read_events(root) if isinstance(event, Launched)]
    seen = set()
    for members in launched:
        for unit, log, version in zip(
            members.unit, members.notes["log_prob"], members.notes["version"], strict=True
        ):
            snapshot = load(root / FOLDER / file_name(version))
            share = snapshot.meta["prior_share"]
            assert snapshot.meta["wide_share"] == 0
            density = np.exp(policy_of(snapshot).log_prob(unit[None]))
            np.testing.assert_allclose(np.log(share + (1 - share) * density), log, atol=1e-9)
            seen.add(version)
    assert len(seen) > 3


CUBE = mixed.space().cube


def mixture(mean, sd, first=(0.8, 0.1, 0.1)):
    """One component: normals of these on the probit scale, and a table of the optimizers."""
    policy = MixturePolicy(CUBE, components=1)
    weights = {**policy.weights, "table_0": np.array([first])}
    weights["mean"], weights["cov"] = np.array([mean]), np.diag(np.square(sd))[None]
    return policy.with_weights(weights)


MEAN = np.array([0.5, 0.0, -1.0, 0.3, -0.2, 0.0, 0.7])
SD = np.array([0.1, 0.5, 0.3, 0.2, 1.0, 0.05, 0.02])
"""Of rate, momentum, beta, layers, width, dropout, batch."""


def chance(policy, j, u):
    """P(coordinate j is below u), where it counts."""
    column = [c for c, kind in enumerate(CUBE.kinds) if kind != "categorical"].index(j)
    w = policy.weights
    return ndtr((ndtri(u) - w["mean"][0, column]) / np.sqrt(w["cov"][0, column, column]))


def test_what_is_learnt_of_each_parameter_is_its_divergence_from_the_prior(agent):
    policy = mixture(MEAN, SD)
    found = gain(CUBE, policy.sample(DRAWS, None, np.random.default_rng(0)))
    normal = -np.log(SD) + (SD**2 + MEAN**2 - 1) / 2
    share = np.array([0.8, 0.1, 0.1])
    assert abs(found[0] - share @ np.log(3 * share)) < 0.02
    expected = {1: normal[0], 2: 0.8 * normal[1], 3: 0.1 * normal[2], 6: normal[5]}
    for j, known in expected.items():
        assert abs(found[j] - known) < 0.03 + 0.02 * known, CUBE.kinds[j]
    for j in (4, 5, 7):  # by the cells
        p = np.diff(chance(policy, j, CUBE.edges[j]))
        known = np.sum(p[p > 0] * np.log(p[p > 0] / np.diff(CUBE.edges[j])[p > 0]))
        # the empirical entropy of B cells is too small by B / 2n
        assert abs(found[j] - known) < 0.03 + len(p) / DRAWS
    assert np.abs(gain(CUBE, prior(CUBE).unit)).max() < 0.03


@pytest.mark.parametrize("name", mixed.space().names)
def test_draws_are_counted_where_they_lie_in_units_of_the_parameter(agent, name):
    policy = mixture(MEAN, np.maximum(SD, 0.2))
    unit = policy.sample(DRAWS, None, np.random.default_rng(1))
    (axis,) = ruled(agent, [name])
    edges = axis.bins(60)
    places = axis.places(CUBE, unit)
    there = np.isfinite(places)
    np.testing.assert_array_equal(there, CUBE.active(unit)[:, axis.j])
    counts, n = np.histogram(places[there], edges)[0], there.sum()
    assert counts.sum() == n, "the axis is as wide as the prior"
    space = mixed.space()
    if name == "optimizer":
        p = np.array([0.8, 0.1, 0.1])
    elif axis.bounds is None:
        values = np.clip(axis.back(edges), space[name].low, space[name].high)
        p = np.diff(chance(policy, axis.j, space[name].transform.unit(values)))
    else:
        at = np.searchsorted(axis.bounds, edges)
        np.testing.assert_array_equal(axis.bounds[at], edges)
        p = np.diff(chance(policy, axis.j, CUBE.edges[axis.j][at]))
    assert (np.abs(counts - n * p) < 5 * np.sqrt(n * p) + 1).all()


def test_cells_of_whole_numbers_lie_half_a_step_around_them(agent):
    layers, batch = ruled(agent, ["layers", "batch"])
    np.testing.assert_allclose(layers.bounds, np.arange(0.5, 9))
    np.testing.assert_allclose(np.exp(batch.bounds), np.arange(7.5, 513))
    assert layers.bins(240).tolist() == layers.bounds.tolist()
    assert len(batch.bins(60)) <= 61


# ---- the pictures


def axes_of(figure):
    return [ax for ax in figure.axes if ax.get_visible()]


def test_the_policy_can_be_read_in_a_column(agent):
    figure = agent.erl.plot.policy()
    written = check_readable(figure)
    panels = axes_of(figure)
    assert len(panels) == 8 + 2
    ticks = [text.get_text() for text in panels[0].get_yticklabels()]
    assert ticks[:2] == ["prior", "4"]
    assert ticks[-1] == "80"
    assert len(ticks) == 5
    assert {"50 % of draws", "90 %", "99 %", "member", "best", "active"} <= set(written)
    labels = [ax.get_xlabel() for ax in panels[:8]]
    assert sorted(labels) == sorted(mixed.space().names)
    unit = policy_of(load(latest(agent.encoding["source"]))).sample(
        DRAWS, None, np.random.default_rng(9)
    )
    order = np.argsort(-gain(CUBE, unit))
    assert [mixed.space().names.index(name) for name in labels[:3]] == order[:3].tolist()
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("names", "options", "n"),
    [
        (["momentum"], {}, 1),
        (["optimizer", "rate"], {"n_versions": 1}, 3),
        (["momentum", "beta"], {}, None),
        (None, {"n_parameters": 3, "n_pairs": 1}, 4),
        (None, {"n_parameters": 2, "n_pairs": 0}, 2),
    ],
)
def test_some_of_the_policy(agent, names, options, n):
    figure = agent.erl.plot.policy(names, **options)
    check_readable(figure)
    panels = axes_of(figure)
    assert n is None or len(panels) == n
    if names:
        assert [ax.get_xlabel() for ax in panels[: len(names)]] == names


def test_what_is_never_active_together_is_no_pair(agent):
    """Momentum counts for one optimizer, beta for another."""
    assert len(axes_of(agent.erl.plot.policy(["momentum", "beta"]))) == 2


def test_of_a_part_the_members_shown_are_those(agent):
    two = agent.isel(member=[3, 5])
    (dots, *_) = axes_of(two.erl.plot.policy(["rate", "dropout"]))[-1].get_lines()
    assert sorted(dots.get_xdata()) in (sorted(two.rate.values), sorted(two.dropout.values))


def test_regions_hold_their_share_of_the_draws_and_no_cell_more():
    rng = np.random.default_rng(0)
    table = rng.multinomial(5000, rng.dirichlet(np.full(100, 0.3))).reshape(10, 10).astype(float)
    found = regions(table, 5000)
    for share, tint in zip(SHARES, TINTS, strict=True):
        inside = found >= tint
        held = table[inside].sum() / 5000
        assert held >= share
        assert held - table[inside].min() / 5000 < share
        assert table[inside].min() >= table[~inside].max()
    assert np.isnan(found[table == 0]).all()


def test_where_there_is_no_policy(agent, tmp_path):
    message = r"wanted a campaign in which an agent learnt, but .* no version .*policy/000001\.npz"
    space = erl.Space(x=erl.Real(0, 1))
    kept = campaign(lambda x: x, space, 4, sampler="sobol", store=tmp_path / "s")
    with pytest.raises(ValueError, match=message):
        kept.erl.plot.policy()
    with pytest.raises(ValueError, match="an agent learnt, none did in this one"):
        campaign(lambda x: x, space, 4, sampler="sobol").erl.plot.policy()
    with pytest.raises(ValueError, match="no agent learnt in this campaign"):
        kept.erl.plot.learning()
    gone = campaign(lambda x: x, space, 8, sampler=MaxEnt)
    with pytest.raises(ValueError, match=r"ask erl\.open\(store\)\.erl\.plot\.policy\(\)"):
        gone.erl.plot.policy()
    student = campaign(lambda x: x, space, 4, sampler=Student, store=tmp_path / "student")
    with pytest.raises(ValueError, match="a MixturePolicy or a TokenPolicy, the agent's is 'None'"):
        student.erl.plot.policy()
    with pytest.raises(ValueError, match=r"names: wanted parameters, got \['speed'\]"):
        agent.erl.plot.policy(["speed"])
    for wrong in ({"n_versions": 0}, {"n_parameters": 1.5}, {"n_pairs": -1}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name}: wanted a whole number >= "):
            agent.erl.plot.policy(**wrong)


def test_learning_can_be_read_in_a_column(agent):
    figure = agent.erl.plot.learning()
    written = check_readable(figure)
    panels = axes_of(figure)
    window = proposers(agent).window
    labels = ["best value", "entropy (nat)", "skill", "weight", f"share (last {window})"]
    assert [ax.get_ylabel() for ax in panels] == labels
    assert panels[-1].get_xlabel() == "members"
    lessons = agent.erl.learning()
    for ax, name in ((panels[1], "entropy"), (panels[2], "skill_quadratic")):
        line = ax.get_lines()[0]
        np.testing.assert_array_equal(line.get_xdata(), lessons.n_settled)
        np.testing.assert_array_equal(line.get_ydata(), lessons[name])
    assert panels[2].get_lines()[0].get_color() == panels[3].get_lines()[0].get_color()
    assert {"quadratic", "gp", "agent, drawn", "sobol"} <= set(written)


def test_what_was_not_told_has_no_panel():
    space = erl.Space(x=erl.Real(0, 1))
    alone = campaign(lambda x: x, space, 24, sampler=lambda cube: MaxEnt(cube, critics=False))
    labels = [ax.get_ylabel() for ax in axes_of(alone.erl.plot.learning())]
    assert labels == ["best value", "entropy (nat)", "share (last 8)"]
    student = campaign(lambda x: x, space, 8, sampler=Student).erl.plot.learning()
    assert [ax.get_ylabel() for ax in axes_of(student)] == ["best value", "share (last 8)"]


def test_shares_are_of_who_proposed_the_newest_members(agent):
    shares = proposers(agent)
    drawn = {"agent, drawn", "quadratic", "gp", "sobol"}
    assert drawn <= set(shares.names) <= drawn | {"differential_evolution"}
    np.testing.assert_allclose(shares.share.sum(axis=0), 1.0)
    newest = agent.isel(member=slice(-shares.window, None))
    for name in ("gp", "quadratic"):
        at = shares.share[shares.names.index(name), -1]
        assert at == pytest.approx(float((newest.note_critic == name).mean()))
    drawn = (newest.note_critic == "") & (newest.proposer == "agent")
    at = shares.share[shares.names.index("agent, drawn"), -1]
    assert at == pytest.approx(float(drawn.mean()))


def test_of_many_proposers_the_rarest_are_others(agent):
    names = np.array([f"p{i % 9}" if i < 72 else "p0" for i in range(80)])
    many = agent.drop_vars("note_critic").assign(proposer=("member", names))
    shares = proposers(many)
    assert len(shares.names) == 6
    assert (shares.names[0], shares.names[-1]) == ("p0", "others")
    np.testing.assert_allclose(shares.share.sum(axis=0), 1.0)


def test_a_running_share_begins_with_fewer():
    mine = np.random.default_rng(0).random((2, 30)) < 0.4
    found = running(mine, 7)
    for i in range(30):
        np.testing.assert_allclose(found[:, i], mine[:, max(0, i - 6) : i + 1].mean(axis=1))
