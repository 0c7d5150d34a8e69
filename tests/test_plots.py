"""The pictures of ``ds.erl.plot``: what they show, and that it can be read in a column."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import ensemblerl as erl
from ensemblerl.problems import mixed
from ensemblerl.report.coordinates import Coordinate, coordinates
from ensemblerl.report.naming import _crowded, settle, width
from ensemblerl.report.panels import _name
from ensemblerl.report.view import view

pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib")

ALL = ["optimizer", "rate", "momentum", "beta", "layers", "width", "dropout", "batch"]


def simulate(**point):
    if point["optimizer"] == "rmsprop" and point["layers"] > 6:
        raise RuntimeError("diverged")
    return xr.Dataset({"loss": ((), mixed.simulate(**point), {"units": "nat"})})


@pytest.fixture(scope="module")
def ds():
    return erl.explore(
        simulate, mixed.space(), erl.Minimize("loss"), n_members=120, sampler="sobol", seed=1,
        cluster="serial", progress=False,
    )  # fmt: skip


def campaign(space, function, n=40, goal=None, **options):
    return erl.explore(
        function, space, goal or erl.Minimize(), n_members=n, sampler="sobol", seed=1,
        cluster="serial", progress=False, **options,
    )  # fmt: skip


def panels(figure):
    """Axes with a name on them or data in them, without the colour bar."""
    return [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]


def texts(figure):
    """(text, box, size) of everything that is written when it is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas, found, draw = FigureCanvasAgg(figure), {}, Text.draw

    def noted(text, renderer, *args, **kwargs):
        found[id(text)] = text
        return draw(text, renderer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", noted)
        canvas.draw()
    return [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()), text.get_fontsize())
        for text in found.values()
        if text.get_visible() and text.get_text().strip()
    ]


def check_readable(figure):
    assert figure.get_figwidth() == 3.3
    written = texts(figure)
    assert len(written) > 4
    for text, box, size in written:
        assert size >= 7, f"{text}: {size} points"
        assert box.x0 >= -1, f"{text} leaves the figure at the left"
        assert box.y0 >= -1, f"{text} leaves the figure at the bottom"
        assert box.x1 <= figure.bbox.x1 + 1, f"{text} leaves the figure at the right"
        assert box.y1 <= figure.bbox.y1 + 1, f"{text} leaves the figure at the top"
    for (one, a, _), (two, b, _) in itertools.combinations(written, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide < 1 or high < 1, f"{one!r} lies on {two!r}"
    return [text for text, _, _ in written]


@pytest.mark.parametrize(
    "names",
    [
        *(None, ["optimizer"], ["rate", "dropout"], ALL[:3], ALL[:5]),
        *(["layers", "width", "dropout", "batch", "momentum", "rate"], ALL[1:]),
    ],
)
def test_parameters_can_be_read_in_a_column(ds, names):
    check_readable(ds.erl.plot.parameters(names))


@pytest.mark.parametrize("n", [2, 4, 6, 7])
def test_long_names_are_shortened(n):
    long = {
        f"thermal_conductivity_of_layer_{i}": erl.Real(1e-9, 2e-9, units="W m-1 K-1")
        for i in range(n - 1)
    }
    space = erl.Space(long, way=erl.Choice("the first way", "the second way", "another"))
    data = campaign(space, lambda **point: 1e7 * sum(v for v in point.values() if v != v or v == 0))
    check_readable(data.erl.plot.parameters())


def test_many_options_are_thinned():
    space = erl.Space(
        a=erl.Choice(*(f"option {i}" for i in range(30))),
        b=erl.Ordinal(*range(30)),
        c=erl.Real(0, 1),
    )
    data = campaign(space, lambda a, b, c: b + c)
    check_readable(data.erl.plot.parameters())
    check_readable(data.erl.plot.parameters(["a"]))


def test_history_can_be_read_in_a_column(ds):
    check_readable(ds.erl.plot.history().figure)


def test_history_shows_dots_failures_and_the_best_so_far(ds):
    ax = ds.erl.plot.history()
    dots, best, failed = ax.get_lines()
    ok = ds.fate.values == "ok"
    np.testing.assert_array_equal(dots.get_xdata(), np.flatnonzero(ok))
    np.testing.assert_array_equal(dots.get_ydata(), ds.loss.values[ok])
    np.testing.assert_array_equal(failed.get_xdata(), np.flatnonzero(~ok))
    np.testing.assert_array_equal(best.get_ydata(), ds.erl.answer().incumbent)
    assert best.get_drawstyle() == "steps-post"
    assert ax.get_ylabel() == "loss (nat)"
    assert ax.get_xlabel() == "member, in launch order"
    assert failed.get_label() == f"not ok ({(~ok).sum()})"
    assert len({line.get_marker() for line in (dots, best, failed)}) == 3
    at_bottom = ax.transLimits.inverted().transform((0, failed.get_ydata()[0]))
    assert at_bottom[1] < np.nanmin(ds.loss)


def test_history_of_a_part_in_another_order_is_in_launch_order(ds):
    part = ds.isel(member=ds.fate.values == "ok").isel(member=[7, 3, 11])
    dots, best = part.erl.plot.history().get_lines()
    assert dots.get_xdata().tolist() == sorted(part.member.values.tolist())
    by_number = part.sortby("member").loss.values
    np.testing.assert_array_equal(best.get_ydata(), np.minimum.accumulate(by_number))


def test_history_draws_on_axes_of_yours_and_leaves_their_style(ds):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    size = ax.xaxis.label.get_fontsize()
    assert ds.erl.plot.history(ax) is ax
    assert ax.xaxis.label.get_fontsize() == size
    assert ax.spines["top"].get_visible()
    assert len(ax.get_lines()) == 3


def test_the_line_ends_before_the_first_member_that_is_pending(tmp_path):
    with erl.prepare(
        None, erl.Space(x=erl.Real(0, 1)), erl.Maximize(), n_members=6, store=tmp_path / "s",
        sampler="sobol",
    ) as running:  # fmt: skip
        members = running.ask(6)
        running.tell(members.take([0, 1, 4]), [1.0, 3.0, 9.0])
        dots, best = erl.open(tmp_path / "s").erl.plot.history().get_lines()
    assert dots.get_ydata().tolist() == [1.0, 3.0, 9.0]
    assert best.get_ydata().tolist() == [1.0, 3.0]


@pytest.mark.parametrize(("power", "scale"), [(1, "linear"), (8, "log")])
def test_the_axis_is_logarithmic_where_values_differ_a_hundredfold(power, scale):
    space = erl.Space(x=erl.Real(2, 4))
    data = campaign(space, lambda x: x**power)
    assert data.erl.plot.history().get_yscale() == scale
    assert data.erl.plot.parameters().axes[0].get_yscale() == scale
    shifted = data.erl.reread(erl.Minimize(f"value - 3 ** {power}"))
    assert shifted.erl.plot.history().get_yscale() == "linear"


def test_pictures_answer_the_goal_of_a_reread(ds):
    again = ds.erl.reread(erl.Maximize("2 * loss"))
    ax = again.erl.plot.history()
    ok = ds.fate.values == "ok"
    assert ax.get_ylabel() == "2 * loss"
    running = np.fmax.accumulate(np.where(ok, 2 * ds.loss, np.nan))
    np.testing.assert_array_equal(ax.get_lines()[1].get_ydata(), running)


def test_a_goal_that_is_not_known_shows_its_reward(ds):
    other = ds.assign_attrs(goal='{"goal": "Guess"}')
    ax = other.erl.plot.history()
    assert ax.get_ylabel() == "reward"
    ok = ds.fate.values == "ok"
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), ds.reward.values[ok])


def test_a_triangle_of_pairs_for_up_to_six_parameters(ds):
    figure = ds.erl.plot.parameters(["rate", "momentum", "width", "optimizer"])
    grid = [ax for ax in panels(figure) if ax.collections and ax.get_subplotspec()]
    assert len(grid) == 6
    rate_momentum = grid[0]
    assert rate_momentum.get_xscale() == "log"
    active = (ds.fate.values == "ok") & np.isfinite(ds.momentum.values)
    shown = np.ma.filled(rate_momentum.collections[0].get_offsets(), np.nan)
    shown = shown[np.isfinite(shown).all(1)]
    both = np.stack([ds.rate.values, ds.momentum.values], 1)[active]
    assert sorted(map(tuple, shown)) == sorted(map(tuple, both)), "inactive ones are left out"
    bottom = grid[3:]
    assert [ax.get_xlabel() for ax in bottom] == ["rate", "momentum", "width"]
    assert [t.get_text() for t in bottom[0].get_yticklabels()] == list(mixed.OPTIMIZERS)
    assert [ax.get_ylabel() for ax in grid if ax.get_ylabel()] == ["momentum", "width", "optimizer"]


def test_the_best_is_marked_and_dark(ds):
    ax = ds.erl.plot.parameters(["rate", "dropout"]).axes[0]
    star = next(line for line in ax.get_lines() if line.get_marker() == "*")
    best = ds.erl.best()
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (best.rate.item(), best.dropout.item())
    dots = ax.collections[0]
    order = np.argsort(-ds.loss.values[ds.fate.values == "ok"])
    rates = ds.rate.values[ds.fate.values == "ok"][order]
    np.testing.assert_array_equal(dots.get_offsets()[:, 0], rates)
    assert (np.diff(dots.get_array()) > 0).all(), "by rank, the best last and on top"
    dark = dots.cmap([0.0, 0.5, 1.0])[:, :3].sum(1)
    assert (np.diff(dark) < 0).all()


def test_failures_are_crosses_where_they_happened(ds):
    ax = ds.erl.plot.parameters(["rate", "dropout"]).axes[0]
    failed = next(line for line in ax.get_lines() if line.get_marker() == "x")
    rows = ds.fate.values != "ok"
    np.testing.assert_array_equal(np.sort(failed.get_xdata()), np.sort(ds.rate.values[rows]))


def test_options_stand_in_their_order_and_keep_members_apart(ds):
    ax = ds.erl.plot.parameters(["width", "optimizer"]).axes[0]
    place = np.asarray(ax.collections[0].get_offsets())
    told = ds.isel(member=ds.fate.values == "ok").sortby("loss", ascending=False)
    assert np.rint(place[:, 0]).tolist() == [mixed.WIDTHS.index(w) for w in told.width]
    assert np.rint(place[:, 1]).tolist() == [mixed.OPTIMIZERS.index(o) for o in told.optimizer]
    assert len(np.unique(place[:, 0])) == len(np.unique(place[:, 1])) == len(place)


def test_a_panel_for_each_of_many_parameters_with_units(ds):
    figure = ds.erl.plot.parameters()
    drawn = panels(figure)
    assert [ax.get_xlabel() for ax in drawn] == ALL
    momentum = drawn[2].collections[0].get_offsets()
    assert np.isfinite(np.ma.filled(momentum, np.nan)).all(1).sum() == np.sum(
        (ds.fate.values == "ok") & np.isfinite(ds.momentum.values)
    )
    assert figure.get_supylabel() == "loss (nat)"
    space = erl.Space(T=erl.Real(80, 300, units="K"), f=erl.LogNormal.from_median(2, factor=3))
    axes = campaign(space, lambda T, f: T * f).erl.plot.parameters().axes
    assert axes[0].get_xlabel() == "T (K)"
    assert axes[0].get_yscale() == "log"


def test_what_is_no_parameter(ds):
    with pytest.raises(ValueError, match=r"names: wanted parameters, got \['rat'\]; .*: optimizer"):
        ds.erl.plot.parameters(["rat"])
    for wrong in ("rate", []):
        with pytest.raises(ValueError, match="names: wanted a list of parameters, got"):
            ds.erl.plot.parameters(wrong)
    with pytest.raises(ValueError, match="with its space in the attributes"):
        ds.drop_attrs().erl.plot.parameters()
    with pytest.raises(ValueError, match="with 'member' in it"):
        xr.Dataset({"a": 1}).erl.plot.history()


def test_campaigns_with_nothing_to_show_make_empty_pictures(ds, tmp_path):
    none = ds.isel(member=ds.fate.values != "ok")
    assert len(none.erl.plot.history().get_lines()) == 3
    for names in (None, ["rate"], ["rate", "beta", "momentum"]):
        check_readable(none.erl.plot.parameters(names))
        check_readable(ds.isel(member=[]).erl.plot.parameters(names))
    assert ds.isel(member=0).erl.plot.history().get_lines()[0].get_xdata().tolist() == [0]


def test_of_a_file(ds, tmp_path):
    erl.export_netcdf(ds, tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as again:
        assert again.erl.plot.history().get_ylabel() == "loss (nat)"
        assert len(again.erl.plot.parameters(["optimizer", "rate"]).axes[0].collections) == 1


def test_they_show_themselves_in_a_notebook(ds):
    png = b"\x89PNG"
    ax = ds.erl.plot.history()
    assert ax._repr_png_().startswith(png)
    assert ds.erl.plot.parameters(["rate", "dropout"])._repr_png_().startswith(png)


def test_drawing_needs_no_pyplot_and_changes_nothing_global(tmp_path):
    code = (
        "import ensemblerl as erl, sys\n"
        "ds = erl.explore(lambda x, y: x * y, erl.Space(x=erl.Real(0, 1), y=erl.Real(0, 1)),\n"
        "    erl.Minimize(), n_members=5, cluster='serial', sampler='sobol', progress=False)\n"
        "print('matplotlib' in sys.modules)\n"
        "import matplotlib as mpl\n"
        "before = mpl.rcParams.copy()\n"
        "ds.erl.plot.history(); ds.erl.plot.parameters().savefig('a.png')\n"
        "print('matplotlib.pyplot' in sys.modules)\n"  # first: asking for "backend" loads it
        "print(all(mpl.rcParams[k] == before[k] for k in before if k != 'backend'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.split() == ["False", "False", "True"], done.stderr


def test_without_matplotlib_it_says_how_to_get_it(ds, monkeypatch):
    monkeypatch.setattr("ensemblerl.report.figures.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"matplotlib.*pip install 'ensemblerl\[plot\]'"):
        ds.erl.plot  # noqa: B018


XYZ = {name: erl.Real(0, 1) for name in "xyz"}


def dots_of(figure):
    return figure.axes[0].collections[0]


def legend_of(ax):
    legend = ax.get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


@pytest.mark.parametrize("names", [["x"], ["x", "y", "z"]])
def test_equal_values_have_one_colour_and_no_star(names):
    figure = campaign(erl.Space(XYZ), lambda x, y, z: 3.0).erl.plot.parameters(names)
    assert set(dots_of(figure).get_array().tolist()) == {0.5}
    assert not [line for line in figure.axes[0].get_lines() if line.get_marker() == "*"]
    written = check_readable(figure)
    assert "best" not in written
    assert written.count("3") == (len(names) > 1)
    assert figure.axes[0].get_position().width > 0.3, "the panels have their room"


def test_ties_share_the_mean_of_their_ranks():
    ds = campaign(erl.Space(XYZ), lambda x, y, z: np.floor(2 * x), n=8)
    figure = ds.erl.plot.parameters(["x", "y"])
    low = np.asarray(dots_of(figure).get_offsets())[:, 0] < 0.5
    shown = dots_of(figure).get_array()
    n = np.count_nonzero(~low)  # these are worse: ranks 0 to n - 1, of 0 to 7
    np.testing.assert_allclose(shown[~low], (n - 1) / 2 / 7)
    np.testing.assert_allclose(shown[low], (n + 7) / 2 / 7)
    assert [line for line in figure.axes[0].get_lines() if line.get_marker() == "*"]


def test_where_all_failed_there_are_no_values_on_axes_or_bar(ds):
    none = ds.isel(member=ds.fate.values != "ok")
    for names in (["rate", "beta"], ["rate", "beta", "width"]):
        figure = none.erl.plot.parameters(names)
        assert "<colorbar>" not in {ax.get_label() for ax in figure.axes}
        assert not [text for text, _, _ in texts(figure) if "nan" in text]
    ax = none.erl.plot.history()
    across = {tick.get_text() for tick in ax.get_xticklabels()}
    words = {"member, in launch order", "loss (nat)", f"not ok ({none.sizes['member']})"}
    assert {text for text, _, _ in texts(ax.figure)} <= across | words
    assert legend_of(ax) == [f"not ok ({none.sizes['member']})"]
    assert not none.erl.plot.parameters(["rate"]).axes[0].get_yticks().size


def test_empty_axes_of_yours_show_failures_only_and_filled_ones_keep_their_ticks(ds):
    from matplotlib.figure import Figure

    left, right = Figure().subplots(1, 2, sharey=True)
    ds.erl.plot.history(left)
    before = left.get_ylim()
    ds.isel(member=ds.fate.values != "ok").erl.plot.history(right)
    assert left.get_ylim()[0] >= before[0] - 1
    assert [t for t in left.get_yticklabels() if t.get_visible() and t.get_text()]
    assert not right.yaxis.get_tick_params()["left"]
    ds.isel(member=[]).erl.plot.history(left)
    assert left.yaxis.get_tick_params().get("left", True)


def test_a_long_objective_is_shortened():
    goal = erl.Minimize("abs(mean_of_the_pressure - 12.5) / 3.75 + 100 * abs(flux_at_outlet - y)")
    ds = campaign(
        erl.Space(x=erl.Real(0, 1)),
        lambda x: {"mean_of_the_pressure": 10 * x, "flux_at_outlet": x, "y": 0.25},
        n=8, goal=goal,
    )  # fmt: skip
    ax = ds.erl.plot.history()
    check_readable(ax.figure)
    assert "…" in ax.get_ylabel()
    assert (ax.get_ylabel()[:4], ax.get_ylabel()[-4:]) == ("abs(", "- y)")
    assert len(ax.get_ylabel()) > 20
    figure = ds.erl.plot.parameters()
    check_readable(figure)
    assert "…" in figure.get_supylabel()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_members_have_whole_numbers_below_and_a_line_to_see(ds, n):
    some = ds.isel(member=np.flatnonzero(ds.fate.values == "ok")[:n])
    ax = some.erl.plot.history()
    check_readable(ax.figure)
    places = [p for p in ax.get_xticks() if ax.get_xlim()[0] <= p <= ax.get_xlim()[1]]
    assert places
    assert all(p == round(p) for p in places)
    assert (ax.get_lines()[1].get_marker() == "_") == (n == 1)


def test_one_value_alone_after_failures_has_a_dash(ds):
    failed, ok = (np.flatnonzero((ds.fate.values == "ok") == is_ok) for is_ok in (False, True))
    last = ok[ok > failed[0]][0]
    _, best, _ = ds.isel(member=[failed[0], last]).erl.plot.history().get_lines()
    assert best.get_marker() == "_"


@pytest.mark.parametrize(("far", "at"), [(-1e30, "v"), (1e30, "^")])
def test_one_value_far_away_does_not_flatten_the_others(far, at):
    ds = campaign(erl.Space(XYZ), lambda x, y, z: far if 0.3 < x < 0.33 else 1 + x + y)
    there = ds.value.values
    rest = there[there != far]
    assert len(rest) == len(there) - 1
    ax = ds.erl.plot.history()
    low, high = ax.get_ylim()
    assert low < rest.min()
    assert rest.max() < high
    assert (rest.max() - rest.min()) / (high - low) > 0.5
    assert ax.get_yscale() == "linear"
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), there)
    (mark,) = [line for line in ax.get_lines() if line.get_marker() == at]
    assert mark.get_xdata().tolist() == np.flatnonzero(there == far).tolist()
    assert legend_of(ax)[-1] == "off the scale (1)"
    check_readable(ax.figure)

    figure = ds.erl.plot.parameters(["x"])
    panel = figure.axes[0]
    np.testing.assert_allclose(panel.get_ylim(), (low, high))
    edge = panel.collections[1].get_offsets()
    np.testing.assert_allclose(edge, [[ds.x.values[there == far][0], {"v": 0.03, "^": 0.97}[at]]])
    (star,) = [line for line in panel.get_lines() if line.get_marker() == "*"]
    np.testing.assert_allclose(star.get_ydata()[0], low if far < 0 else rest.min())
    assert "off the scale (1)" in check_readable(figure)


def test_axes_of_yours_that_are_filled_keep_all_in_sight():
    from matplotlib.figure import Figure

    ds = campaign(erl.Space(XYZ), lambda x, y, z: -1e30 if 0.3 < x < 0.33 else x + y)
    ax = Figure().subplots()
    ax.plot([0, 40], [-5e29, 0])
    assert ds.erl.plot.history(ax).get_ylim()[0] < -1e30


@pytest.mark.parametrize(
    ("values", "limited"),
    [
        (np.arange(100.0), False),
        (np.random.default_rng(0).standard_cauchy(200), False),
        (np.geomspace(1e-30, 1e30, 60), False),
        (np.r_[np.full(50, 2.0), -1e30], False),
        ([1.0, 2.0, -1e30], False),
        (np.r_[np.arange(20.0), np.full(3, -1e30)], False),
        (np.r_[np.arange(200.0), np.full(3, -1e30)], True),
        (np.r_[np.geomspace(1, 1e4, 50), 1e300], True),
        (np.r_[np.arange(20.0), -1e308, np.nan], True),
        ([], False),
    ],
)
def test_only_a_few_values_far_away_are_left_beyond(values, limited):
    seen = view(np.asarray(values, dtype=float))
    assert (seen.limits is not None) == limited
    assert (seen.beyond > 0) == limited
    assert seen.beyond <= 3
    assert seen.log == (np.ptp(values) > 1e3 and np.min(values) > 0 if len(values) else False)


def test_what_cannot_be_drawn_on(ds):
    for wrong in (3, ds.erl.plot.history().figure):
        with pytest.raises(TypeError, match=r"ax: wanted matplotlib Axes, such as .*, got "):
            ds.erl.plot.history(ax=wrong)


CATEGORIES = {
    "method": erl.Choice("adam", "stochastic gradient descent", "rmsprop"),
    "r": erl.Real(0, 1),
    "other": erl.Choice("adam", "sgd with momentum", "rms"),
    "k": erl.Ordinal(1, 2, 3),
}


@pytest.mark.parametrize("names", [["method", "r"], ["r", "method"], None])
def test_long_options_do_not_touch_and_leave_room_for_the_panels(names):
    ds = campaign(erl.Space(CATEGORIES), lambda method, r, other, k: r + k)
    figure = ds.erl.plot.parameters(names)
    shown = check_readable(figure)
    drawn = {ax.get_position().width * ax.get_position().height for ax in panels(figure)}
    assert max(drawn) > 0.03
    assert [text for text in shown if text[:3] + text[-3:] == "stoent"], shown


def test_neighbours_of_one_long_option_have_their_own_place():
    """Their sum fits the axis, yet each needs its cell."""
    method = erl.Choice("adam", "gradient descent, conjugate", "sgd")
    ds = campaign(erl.Space(method=method), lambda method: float(len(method)))
    for wide in (2.6, 3.2):
        figure = ds.erl.plot.parameters()
        figure.set_figwidth(wide)
        settle(figure, lambda f=figure: _name(np.array(panels(f)), coordinates(ds, None)))
        boxes = [box for text, box, _ in texts(figure) if text[:2] in ("ad", "gr", "sg")]
        assert len(boxes) == 3
        boxes.sort(key=lambda box: box.x0)
        assert all(a.x1 + 2 < b.x0 for a, b in itertools.pairwise(boxes))


def test_an_option_that_would_stick_out_into_the_next_panel_is_crowded():
    two = Coordinate("way", np.array([]), (-0.5, 1.5), options=("conjugate gradient", "b"))
    marks = [(0.0, two.options[0]), (1.0, two.options[1])]
    wide = width(two.options[0])
    assert not _crowded(two, marks, 2.4 * wide)
    assert _crowded(two, marks, 1.8 * wide), "its cell is narrower, though b is far"
