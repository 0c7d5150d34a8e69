"""The risk of a failure beside an edge to which a search draws near."""

import numpy as np
import pytest

from ensemblerl.agents.critics import feasibility as feasibility_module
from ensemblerl.agents.critics.feasibility import Feasibility
from ensemblerl.testing.cubes import real_cube


def drawn_near(ndim, seed):
    """Beyond a slanted plane all fail; members anywhere, and nearer and nearer to one point of
    it, of these three times as many before it as beyond: the members, and points like them.
    """
    normal, rng = np.where(np.arange(ndim) == 0, 1.0, 0.5), np.random.default_rng(seed)

    def near(n):
        return 0.5 + 0.5 ** rng.uniform(2, 7, (n, 1)) * rng.standard_normal((n, ndim))

    def fails(unit):
        return ((unit - 0.5) @ normal > 0).astype(float)

    drawn = near(100)
    unit = np.concatenate([rng.random((120, ndim)), drawn[rng.random(100) > 0.7 * fails(drawn)]])
    asked = near(200)
    return Feasibility(real_cube(ndim), unit, fails(unit)), asked, fails(asked)


@pytest.mark.parametrize(("ndim", "most"), [(2, 0.2), (4, 0.335)])
def test_many_successes_before_an_edge_do_not_make_what_is_beyond_it_look_safe(ndim, most):
    """The mean log loss; were the odds of equally many of either fate moved by how many there
    are, and the members not weighted, it would be 0.22 and 0.36."""
    loss = []
    for seed in range(60):
        feasibility, asked, failed = drawn_near(ndim, seed)
        risk = feasibility.risk(asked)
        loss.append(-np.log(np.where(failed > 0, risk, 1.0 - risk)).mean())
        assert failed[risk < 0.05].mean() < 0.05
        assert failed[risk > 0.6].mean() > 0.9
    assert np.mean(loss) + 2.0 * np.std(loss) / np.sqrt(len(loss)) < most


@pytest.mark.parametrize("ndim", [10, 20])
def test_rare_failures_in_many_dimensions_are_worked_out_to_the_end(ndim, monkeypatch):
    """Weighted members take Newton's method more steps than equal ones."""
    rng = np.random.default_rng(ndim)
    unit, asked = rng.random((1000, ndim)), rng.random((200, ndim))
    asked[:100, 0] *= 0.06
    feasibility = Feasibility(real_cube(ndim), unit, (unit[:, 0] < 0.03).astype(float))
    found = feasibility.risk(asked)
    monkeypatch.setattr(feasibility_module, "STEPS", 40)
    wanted = Feasibility(feasibility.cube, unit, feasibility.failed).risk(asked)
    assert np.abs(found - wanted).max() < 0.1
    assert np.abs(found - wanted).mean() < 0.01
