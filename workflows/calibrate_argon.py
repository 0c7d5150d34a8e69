"""Calibrate the Lennard-Jones potential of argon with LAMMPS, run as it comes.

A real code (LAMMPS, the program `lmp`) is run for many depths and diameters of the potential. One
run goes over four states of liquid argon and prints pressure and energy at each; the campaign
looks for the potential that gives the targets.

    python workflows/calibrate_argon.py [--members 320] [--out runs/calibrate_argon] [--quick]
    python workflows/calibrate_argon.py --noise    # only measures the noise of a run

Called again it goes on where it stopped, or just reports. It leaves behind, under --out, the
store, the dataset as NetCDF, the targets, the tables printed here as text, and three figures.

Twin. The targets of the campaign are a run of the same input, ten times as long and with a seed of
its own, at published values of the parameters: so the answer is known, and must be found again.
The values are those of L. A. Rowley, D. Nicholson and N. G. Parsonage, Journal of Computational
Physics 17 (1975) 401-414, doi 10.1016/0021-9991(75)90042-X.

Experiment. The same members are then compared with liquid argon as it was measured, without
another run: density, pressure and residual internal energy of the saturated liquid from the
equation of state of Ch. Tegeler, R. Span and W. Wagner, Journal of Physical and Chemical Reference
Data 28 (1999) 779-850, doi 10.1063/1.556037, as implemented in CoolProp 8.0.

Model. 256 atoms at the densities of the experiment, cut off at 2.5 diameters with LAMMPS's
corrections for what lies beyond, steps of 8 fs (A. Rahman, Physical Review 136 (1964) A405, took
10), a Nose-Hoover thermostat. Each state settles for 2.4 ps, the first for twice as long, and is
averaged over 4.8 ps. The seed of a member sets its initial velocities, so each member has noise of
its own; the misfit is chi-square per datum with the standard deviation of that noise.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import ensemblerl as erl

# Settings ---------------------------------------------------------------------------------------

N_MEMBERS = 320
SEED = 1975
OUT = "runs/calibrate_argon"

TRUTH = {"epsilon": 119.8, "sigma": 3.405}  # K, angstrom: Rowley, Nicholson and Parsonage
TRUTH_SEED = 1964
LONGER = 10  # times as many steps make the targets

EXPERIMENT = {  # the saturated liquid, K: (kg/m3, MPa, kJ/mol without the ideal gas's)
    120.0: (1162.82, 1.2130, -4.6679),
    110.0: (1242.77, 0.6653, -5.0333),
    100.0: (1313.70, 0.3238, -5.3737),
    90.0: (1378.63, 0.1335, -5.6994),
}
STATES = [{"temperature": t, "density": row[0]} for t, row in EXPERIMENT.items()]
TEMPERATURE = np.array(list(EXPERIMENT))
RUN = {"cells": 4, "cutoff": 2.5, "timestep": 0.008, "settle": 300, "steps": 600}
QUICK = {"cells": 3, "settle": 50, "steps": 100}

OBSERVABLES = {"pressure": "MPa", "energy": "kJ/mol"}
NOISE = {"pressure": 3.0, "energy": 0.015}  # standard deviation of one member: --noise
TOLERANCE = {"pressure": 3.0, "energy": 0.05}  # for the experiment: 1 % of an energy

NOISE_RUNS = 64
NEAR = 48  # members that the estimate is made of
ROUNDS = 3
BAR = {"epsilon": 3.0, "sigma": 1.0}  # per cent of the truth that the twin may be off

PUBLISHED = {  # fits of others: K, angstrom
    "Rahman 1964": (120.0, 3.4),
    "Rowley et al. 1975": (119.8, 3.405),
    "White 1999": (125.7, 3.345),
    "Vrabec et al. 2001": (116.79, 3.3952),
}
NEWEST = "Vrabec et al. 2001"  # fitted to the vapour-liquid equilibrium, as here

# The simulation ---------------------------------------------------------------------------------

PRINTED = erl.readers.Regex(
    "stdout",
    r"^state at \S+ K: (?P<pressure>\S+) MPa, (?P<energy>\S+) kJ/mol",
    which="all",
)


def lammps(**other) -> erl.Command:
    """One run over all states; other lengths and sizes than in RUN can be given."""
    return erl.Command(
        "lmp -in argon.in -log none -nocite",
        templates={"argon.in": Path(__file__).with_name("argon.in.j2")},
        constants={**RUN, "states": STATES, **other},
        reads=PRINTED,
        timeout=120,
    )


def noise(n: int) -> dict[str, np.ndarray]:
    """Name -> (run, state), of runs at the published values that differ in their seed."""
    runs = [lammps()(TRUTH, seed=seed) for seed in range(1, n + 1)]
    return {name: np.array([run[name] for run in runs]) for name in OBSERVABLES}


# The question -----------------------------------------------------------------------------------


def space() -> erl.Space:
    """Depth and diameter of the potential, from far too small to far too large."""
    return erl.Space(
        epsilon=erl.Real(80.0, 160.0, units="K", long_name="depth over Boltzmann's constant"),
        sigma=erl.Real(3.0, 3.8, units="angstrom", long_name="diameter"),
    )


class ChiSquare:
    """Misfit: mean square of (result - target) / standard deviation; one datum contributes 1."""

    def __init__(self, targets, deviation, noise=0.0) -> None:
        self.targets = {name: np.asarray(targets[name], dtype=float) for name in OBSERVABLES}
        self.deviation = deviation
        self.noise = noise  # variance of the targets, over that of a member

    def __call__(self, found) -> float:
        """Of one member."""
        terms = [(found[n] - self.targets[n]) / self.deviation[n] for n in OBSERVABLES]
        return float(np.mean(np.square(terms)))


def twin(out: Path, **other) -> ChiSquare:
    """The targets: a long run at the published values, made once and kept."""
    path = out / "targets.json"
    if not path.exists():
        steps = LONGER * {**RUN, **other}["steps"]
        found = lammps(**{**other, "steps": steps})(TRUTH, seed=TRUTH_SEED)
        path.write_text(json.dumps({name: found[name].tolist() for name in OBSERVABLES}))
    return ChiSquare(json.loads(path.read_text()), NOISE, 1 / LONGER)


def experiment() -> ChiSquare:
    """The other question: argon as it is."""
    _, pressure, energy = np.transpose(list(EXPERIMENT.values()))
    return ChiSquare({"pressure": pressure, "energy": energy}, TOLERANCE)


def calibrate(out: Path, question: ChiSquare, n_members: int, cluster, **other) -> xr.Dataset:
    """The campaign, or what is left of it."""
    ds = erl.explore(
        lammps(**other),
        space(),
        erl.Minimize(question),
        n_members=n_members,
        cluster=cluster,
        store=out / "store",
        seed=SEED,
    ).load()
    return labelled(ds)


def labelled(ds: xr.Dataset) -> xr.Dataset:
    """With the temperatures and units that the reader of a log cannot know."""
    dims = "member", "temperature"
    found = {name: (dims, ds[name].values, {"units": unit}) for name, unit in OBSERVABLES.items()}
    kelvin = ("temperature", TEMPERATURE, {"units": "K"})
    return ds.drop_vars(list(found)).assign(found).assign_coords(temperature=kelvin)


# The answer -------------------------------------------------------------------------------------


def best_member(ds: xr.Dataset) -> int:
    """The member with the least misfit."""
    return int(np.nanargmax(ds["reward"].values))


def best_point(ds: xr.Dataset) -> np.ndarray:
    """(2,) its parameters."""
    return np.array([float(ds[name][best_member(ds)]) for name in TRUTH])


def plane(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level (datum,) and slopes (datum, 2) of results y (run, datum) at points x (run, 2)."""
    level, *slopes = np.linalg.lstsq(np.c_[np.ones(len(x)), x], y, rcond=None)[0]
    return level, np.transpose(slopes)


def meet(x: np.ndarray, y: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2,) where the plane through results y at points x comes nearest to the target (datum,)."""
    level, slopes = plane(x, y)
    return np.linalg.lstsq(slopes, target - level, rcond=None)[0]


def estimate(ds: xr.Dataset, question: ChiSquare) -> tuple[np.ndarray, np.ndarray] | None:
    """(2,) parameters and their standard errors, from many members; None with too few.

    The best member was partly lucky. So results are taken to be linear in the logarithms of the
    parameters among the members that are nearest to the answer, which is found in a few rounds;
    each of them counts the same. Errors come from the jackknife and the noise of the targets.
    """
    ds = ds.isel(member=ds["fate"].values == "ok")
    if ds.sizes["member"] < 2 * NEAR:
        return None
    point = np.log(np.stack([ds[name].values for name in TRUTH], axis=1))
    y = np.concatenate([ds[n].values / question.deviation[n] for n in OBSERVABLES], axis=1)
    target = np.concatenate([question.targets[n] / question.deviation[n] for n in OBSERVABLES])
    width = np.ptp(np.log([[p.low, p.high] for p in space().values()]), axis=1)
    found = point[best_member(ds)]
    for _ in range(ROUNDS):
        near = np.argsort(np.sum(((point - found) / width) ** 2, axis=1))[:NEAR]
        x, data = point[near] - found, y[near]
        found = found + meet(x, data, target)
    left_out = [meet(np.delete(x, i, 0), np.delete(data, i, 0), target) for i in range(NEAR)]
    by_target = np.sum(np.linalg.pinv(plane(x, data)[1]) ** 2, axis=1) * question.noise
    error = np.sqrt((NEAR - 1) * np.var(left_out, axis=0) + by_target)
    return np.exp(found), np.exp(found) * error


def errors(point: np.ndarray) -> np.ndarray:
    """(2,) distance from the truth, per cent."""
    return 100 * np.abs(point / np.array(list(TRUTH.values())) - 1)


def scores(ds: xr.Dataset, fitted, real: xr.Dataset, fitted_real) -> dict[str, float]:
    """What is compared with EXPECTED."""
    misfit = -ds["reward"].values
    n = len(misfit)
    reached = {
        f"misfit, median of {n}": float(np.nanmedian(misfit)),
        **{f"misfit, best of {k}": float(np.nanmin(misfit[:k])) for k in (8, 64, n) if k <= n},
    }
    for name, found in ((f"best of {n}", best_point(ds)), (f"fit to {NEAR}", fitted)):
        if found is not None:
            point = found[0] if isinstance(found, tuple) else found
            for parameter, value in zip(TRUTH, errors(point), strict=True):
                reached[f"error of {parameter}, {name}, %"] = float(value)
    if fitted_real is not None:
        for parameter, value in zip(TRUTH, fitted_real[0], strict=True):
            reached[f"experiment, {parameter}, fit to {NEAR}"] = float(value)
    return reached


def table(title: str, *headings: str, left: int = 1, caption: str | None = None) -> Table:
    """An empty table, its first columns set left."""
    out = Table(title=title, caption=caption)
    for i, heading in enumerate(headings):
        out.add_column(heading, justify="left" if i < left else "right")
    return out


def with_errors(fitted) -> list[str]:
    """Depth and diameter, with standard errors where there are some; nothing for None."""
    if fitted is None:
        return ["", ""]
    return [
        f"{value:.{digits}f} ± {error:.{digits}f}"
        for value, error, digits in zip(*fitted, (2, 4), strict=True)
    ]


def parameter_table(ds: xr.Dataset, fitted, real: xr.Dataset, fitted_real) -> Table:
    """What was found in the twin and in the experiment, and what others found."""
    n = ds.sizes["member"]
    out = table(
        "Argon as a Lennard-Jones fluid",
        *("", "epsilon / kB, K", "sigma, angstrom", "error, %"),
        caption=f"fit: through the {NEAR} members nearest to it, ± one standard error",
    )

    def add(name, found, of_truth=True):
        texts = [f"{found[0]:.2f}", f"{found[1]:.4f}"]
        out.add_row(name, *texts, "{:.2f}, {:.2f}".format(*errors(found)) if of_truth else "")

    out.add_row("prior", *(f"{p.low:g} - {p.high:g}" for p in space().values()), "")
    out.add_row(
        "twin: truth", *map(str, TRUTH.values()), "bar " + ", ".join(map(str, BAR.values()))
    )
    add(f"twin: best of {n}", best_point(ds))
    if fitted is not None:
        out.add_row("twin: fit", *with_errors(fitted), "{:.2f}, {:.2f}".format(*errors(fitted[0])))
    out.add_section()
    add(f"experiment: best of {n}", best_point(real), of_truth=False)
    if fitted_real is not None:
        out.add_row("experiment: fit", *with_errors(fitted_real), "")
    for name, point in PUBLISHED.items():
        out.add_row(name, *map(str, point), "")
    return out


def state_table(ds: xr.Dataset, question: ChiSquare, real: xr.Dataset, wanted: ChiSquare) -> Table:
    """State by state: what was wanted, and what the best member has."""
    out = table(
        "Pressure, MPa, and energy, kJ/mol",
        *("K", "kg/m3", "observable", "twin", "best", "experiment", "best"),
        left=0,
        caption="standard deviation of a member: "
        + ", ".join(f"{NOISE[name]} {unit}" for name, unit in OBSERVABLES.items()),
    )
    pairs = (
        (question, ds.isel(member=best_member(ds))),
        (wanted, real.isel(member=best_member(real))),
    )
    for name, digits in zip(OBSERVABLES, (2, 3), strict=True):
        columns = [c for asked, best in pairs for c in (asked.targets[name], best[name].values)]
        for kelvin, *values in zip(EXPERIMENT, *columns, strict=True):
            texts = [f"{value:.{digits}f}" for value in values]
            out.add_row(f"{kelvin:.0f}", f"{EXPERIMENT[kelvin][0]:.1f}", name, *texts)
        out.add_section()
    return out


def score_table(reached: dict[str, float]) -> Table:
    """Reached and expected."""
    out = table(
        "Misfits, chi-square per datum, and distances from the truth",
        *("", "reached", "expected"),
        caption="the truth itself has a misfit of about 1, less for a lucky member",
    )
    for name, value in reached.items():
        wanted = f"{EXPECTED[name]:.5g}" if name in EXPECTED else ""
        out.add_row(name, f"{value:.5g}", wanted)
    return out


def noise_table(n: int) -> Table:
    """What --noise prints."""
    runs = noise(n)
    out = table(f"{n} runs at the published values", "K", "observable", "mean", "sd", left=0)
    for name in OBSERVABLES:
        for row in zip(TEMPERATURE, runs[name].mean(0), runs[name].std(0, ddof=1), strict=True):
            out.add_row(f"{row[0]:.0f}", name, f"{row[1]:.4f}", f"{row[2]:.4f}")
    return out


# The pictures -----------------------------------------------------------------------------------

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.45"


def history_figure(ds: xr.Dataset, path: Path) -> None:
    """The misfit of every member, and the best so far."""
    axes = Figure(figsize=(3.4, 2.5), layout="constrained").subplots()
    ds.erl.plot.history(axes)
    axes.axhline(1.0, color=GREY, lw=0.8, ls=(0, (4, 2)), zorder=0)
    axes.set(ylabel="misfit: chi-square per datum")
    axes.figure.savefig(path, dpi=200)


def parameter_figure(ds: xr.Dataset, fitted, real: xr.Dataset, fitted_real, path: Path) -> None:
    """Where the members lie: all of them, and the neighbourhood of the truth."""
    fig = Figure(figsize=(3.4, 5.4), layout="constrained")
    panels = fig.subplots(2, 1)
    misfit = np.log10(-ds["reward"].values)
    order = np.argsort(-misfit)
    for axes in panels:
        x, y = (ds[name].values[order] for name in TRUTH)
        dots = axes.scatter(x, y, c=misfit[order], s=9, cmap="cividis", vmin=0, vmax=4, lw=0)
        look = {"ls": "none", "mfc": "none", "mew": 1.3}
        axes.plot(*TRUTH.values(), "o", color=ORANGE, ms=11, label="truth of the twin", **look)
        axes.plot(*best_point(ds), "+", color=ORANGE, ms=8, label="best, twin", **look)
        axes.plot(*best_point(real), "x", color=BLUE, ms=7, label="best, experiment", **look)
        for found, colour, label in (
            (fitted, ORANGE, "fit, twin"),
            (fitted_real, BLUE, "fit, experiment"),
        ):
            if found is not None:
                axes.plot(*found[0], "D", color=colour, ms=5, label=label, **look)
        axes.plot(*PUBLISHED[NEWEST], "k^", ms=4.5, mfc="white", mew=0.8, ls="none", label=NEWEST)
        axes.set(xlabel="$\\epsilon / k_B$ / K", ylabel="$\\sigma$ / Å")
    low, high = np.transpose([[p.low, p.high] for p in space().values()])
    panels[0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    panels[1].set(xlim=(112, 126), ylim=(3.36, 3.44))
    panels[0].indicate_inset_zoom(panels[1], edgecolor="0.3")
    bar = fig.colorbar(dots, ax=panels, location="bottom", aspect=30, shrink=0.9, extend="both")
    bar.set_label("log$_{10}$ of the misfit in the twin")
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, fontsize=7, ncols=2, loc="outside upper center")
    fig.savefig(path, dpi=200)


def state_figure(
    ds: xr.Dataset, question: ChiSquare, real: xr.Dataset, wanted: ChiSquare, path: Path
) -> None:
    """The observables of the best members against what was wanted."""
    fig = Figure(figsize=(3.4, 4.4), layout="constrained")
    panels = fig.subplots(2, 1, sharex=True)
    for axes, (name, unit) in zip(panels, OBSERVABLES.items(), strict=True):
        for runs, asked, colour, marker, label, aside in (
            (ds, question, ORANGE, "o", "twin", -0.3),
            (real, wanted, BLUE, "s", "experiment", 0.3),
        ):
            kelvin = TEMPERATURE + aside
            best = runs[name].values[best_member(runs)]
            style = {"color": colour, "marker": marker, "ms": 5, "ls": "none", "mfc": "white"}
            axes.errorbar(kelvin, best, NOISE[name], color=colour, lw=1.3, capsize=2.5)
            axes.plot(kelvin, asked.targets[name], **style)
            axes.plot([], [], color=colour, lw=1.3, label=f"best member, {label}")
            axes.plot([], [], **style, label=f"target, {label}")
        axes.set(ylabel=f"{name} / {unit.replace('kJ/mol', 'kJ mol$^{-1}$')}")
    panels[1].set(xlabel="temperature / K", xticks=TEMPERATURE)
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, fontsize=7.5, ncols=2, loc="outside upper center")
    fig.savefig(path, dpi=200)


def figures(ds: xr.Dataset, question, fitted, real, wanted, fitted_real, out: Path) -> list[Path]:
    """All three, in files."""
    paths = [out / f"{name}.png" for name in ("misfit", "parameters", "states")]
    with mpl.rc_context({"font.size": 8, "axes.linewidth": 0.8}):
        history_figure(ds, paths[0])
        parameter_figure(ds, fitted, real, fitted_real, paths[1])
        state_figure(ds, question, real, wanted, paths[2])
    return paths


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Run, report, and say where everything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=N_MEMBERS)
    parser.add_argument("--out", type=Path, default=Path(OUT))
    parser.add_argument("--quick", action="store_true", help="8 short members, in this process")
    parser.add_argument("--noise", action="store_true", help="measure the noise of a member")
    options = parser.parse_args(argv)
    console = Console(record=True, width=100)
    if options.noise:
        console.print(noise_table(NOISE_RUNS))
        return {}
    n_members, cluster, other = options.members, None, {}
    if options.quick:
        n_members, cluster, other = 8, "serial", QUICK
    options.out.mkdir(parents=True, exist_ok=True)
    question, wanted = twin(options.out, **other), experiment()
    ds = calibrate(options.out, question, n_members, cluster, **other)
    if not (ds["fate"] == "ok").any():
        raise SystemExit(f"no member is ok; ensemblerl show --failures {options.out / 'store'}")
    real = ds.erl.reread(erl.Minimize(wanted))
    fitted, fitted_real = estimate(ds, question), estimate(real, wanted)
    reached = scores(ds, fitted, real, fitted_real)
    console.print(
        parameter_table(ds, fitted, real, fitted_real),
        state_table(ds, question, real, wanted),
        score_table(reached),
    )
    for path in figures(ds, question, fitted, real, wanted, fitted_real, options.out):
        console.print(f"figure   {path}")
    erl.export_netcdf(ds, options.out / "calibrate_argon.nc")
    console.print(f"dataset  xr.open_dataset({str(options.out / 'store')!r}, engine='ensemblerl')")
    console.print(f"NetCDF   xr.open_dataset({str(options.out / 'calibrate_argon.nc')!r})")
    console.save_text(str(options.out / "tables.txt"))
    return reached


# Scores -----------------------------------------------------------------------------------------
# With the settings above, LAMMPS 22 Jul 2025 (update 4). The agent learns beside the workers, so
# what it reaches varies from run to run with the order of arrival; the bar is 3 % and 1 %.

EXPECTED = {
    "misfit, median of 320": 2.1035,
    "misfit, best of 8": 263.3,
    "misfit, best of 64": 0.21469,
    "misfit, best of 320": 0.20379,
    "error of epsilon, best of 320, %": 0.12322,
    "error of sigma, best of 320, %": 0.014493,
    "error of epsilon, fit to 48, %": 0.12045,
    "error of sigma, fit to 48, %": 0.013641,
    "experiment, epsilon, fit to 48": 117.05,
    "experiment, sigma, fit to 48": 3.3966,
}

if __name__ == "__main__":
    main()
