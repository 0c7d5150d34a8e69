"""Search the hyperparameters of a small network that reads handwritten digits.

Many networks are trained on scikit-learn's digits (1,797 images of 8 x 8 pixels), each with other
hyperparameters: ten of them, three of which exist for one optimizer only. The search sees the log
loss on a validation part. What it chose is trained again from fresh seeds and scored on a test
part that no search has ever looked at.

    python workflows/hyperparameter_search.py [--members 256] [--out runs/hyperparameter_search]
        [--baselines] [--quick]

Called again it goes on where it stopped, or just reports. With --baselines it runs the same
number of members with Sobol' points and with random ones, several seeds each, and more seeds of
the agent. It leaves behind, under --out, the stores, the dataset as NetCDF, the tables printed
here as text, and a figure.

Data. E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository (1998), doi 10.24432/C50P49; scikit-learn ships its test set. The images stand writer
by writer; where one ends and the next begins is given in the chapter "Sample grouping" of the
scikit-learn course (inria.github.io/scikit-learn-mooc). The parts share no writer: with images
dealt at random a network would be tested on hands that it has seen, and look better than it is.

Training. A fixed number of epochs of cross-entropy with minibatches; the learning rate falls
linearly to zero, without which the last few steps decide the score. Point and seed determine
initial weights, order of images and dropout, hence the result on one machine. A network whose
loss is no number, or ends above twice that of guessing, has diverged: its member fails with that
cause.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import nn

import ensemblerl as erl

# Settings ---------------------------------------------------------------------------------------

N_MEMBERS = 256
N_PENDING = 16
SEEDS = (1998, 1999, 2000, 2001, 2002)  # the first is the search, the others for --baselines
OUT = "runs/hyperparameter_search"

SAMPLERS = {  # the first is the search: what `explore` takes when it is told nothing
    "agent": None,
    "Sobol'": erl.samplers.Sobol,
    "random": erl.samplers.Uniform,
}

EPOCHS = 12
FRESH = range(10**6, 10**6 + 8)  # seeds of the trainings after the search
CLASSES = 10
DIVERGED = 2 * math.log(CLASSES)  # twice the log loss of guessing

# fmt: off
WRITERS = (0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667, 1797)
# fmt: on
PARTS = {  # of the fourteen writers: every second one, and the others in turn
    "training": range(0, 14, 2),
    "validation": range(1, 14, 4),
    "test": range(3, 14, 4),
}

USUAL = {  # what one would try first
    "optimizer": "adam",
    "rate": 1e-3,
    "beta": 0.9,
    "layers": 2,
    "width": 64,
    "dropout": 0.0,
    "weight_decay": 1e-6,
    "batch": 32,
}

# The simulation ---------------------------------------------------------------------------------

_DIGITS = []  # a worker reads the images once


def rows(part):
    """(image,) numbers of the images of a part."""
    return np.concatenate([np.arange(*WRITERS[i : i + 2]) for i in PARTS[part]])


def images(part):
    """(image, 64) brightness from 0 to 1 and (image,) digits."""
    if not _DIGITS:
        pixels, digits = load_digits(return_X_y=True)
        _DIGITS.extend([torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)])
    return tuple(column[rows(part)] for column in _DIGITS)


def network(layers, width, dropout):
    """Layers of one width with dropout, and ten outputs."""
    parts, n = [], 64
    for _ in range(layers):
        parts += [nn.Linear(n, width), nn.ReLU(), nn.Dropout(dropout)]
        n = width
    return nn.Sequential(*parts, nn.Linear(n, CLASSES))


def optimizer_of(point, weights):
    """The optimizer with its own parameter."""
    usual = {"lr": point["rate"], "weight_decay": point["weight_decay"]}
    if point["optimizer"] == "sgd":
        return torch.optim.SGD(weights, momentum=point["momentum"], **usual)
    if point["optimizer"] == "adam":
        return torch.optim.Adam(weights, betas=(point["beta"], 0.999), **usual)
    return torch.optim.RMSprop(weights, alpha=point["decay"], **usual)


def score(model, part):
    """Mean log loss, and the share of digits that are read right."""
    pixels, digits = images(part)
    model.eval()
    with torch.no_grad():
        out = model(pixels)
    right = (out.argmax(dim=1) == digits).double().mean()
    return nn.functional.cross_entropy(out.double(), digits).item(), right.item()


def epoch(model, optimizer, schedule, batches):
    """The mean training loss of one pass over the images."""
    total = 0.0
    model.train()
    for pixels, digits in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pixels), digits)
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.detach() * len(digits)
    return float(total) / sum(len(digits) for _, digits in batches)


def train(point, seed):
    """A trained network and its (epoch,) training losses."""
    torch.set_num_threads(1)  # one core a member; and sums do not depend on the number of cores
    pixels, digits = images("training")
    with torch.random.fork_rng(devices=[]):  # leaves torch's own generator as it was
        torch.manual_seed(seed)
        model = network(point["layers"], point["width"], point["dropout"])
        optimizer = optimizer_of(point, model.parameters())
        n = EPOCHS * math.ceil(len(digits) / point["batch"])
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=n)
        losses = []
        for _ in range(EPOCHS):
            order = torch.randperm(len(digits)).split(point["batch"])
            batches = [(pixels[some], digits[some]) for some in order]
            losses.append(epoch(model, optimizer, schedule, batches))
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"diverged in epoch {len(losses)}: loss {losses[-1]}")
    return model, np.array(losses)


def simulate(point, seed):
    """One member: a network trained, and how it does on the validation part."""
    model, losses = train(point, seed)
    log_loss, accuracy = score(model, "validation")
    if not log_loss < DIVERGED:
        raise FloatingPointError(f"diverged: log loss {log_loss:.3g}, guessing has 2.3")
    return xr.Dataset(
        {
            "log_loss": ((), log_loss, {"units": "1", "long_name": "log loss, validation"}),
            "accuracy": ((), accuracy, {"units": "1", "long_name": "accuracy, validation"}),
            "training": ("epoch", losses, {"units": "1", "long_name": "log loss, training"}),
        },
        coords={"epoch": np.arange(1, EPOCHS + 1)},
    )


# The question -----------------------------------------------------------------------------------


def space() -> erl.Space:
    """Ten hyperparameters; an optimizer brings its own."""
    return erl.Space(
        optimizer=erl.Choice("sgd", "adam", "rmsprop"),
        rate=erl.Real(1e-5, 10.0, log=True, long_name="learning rate at the start"),
        momentum=erl.Real(0.0, 0.99, when={"optimizer": "sgd"}),
        beta=erl.Real(0.0, 0.99, when={"optimizer": "adam"}, long_name="memory of the mean"),
        decay=erl.Real(0.5, 0.999, when={"optimizer": "rmsprop"}, long_name="memory of squares"),
        layers=erl.Integer(1, 4, long_name="hidden layers"),
        width=erl.Integer(8, 128, log=True, long_name="width of hidden layers"),
        dropout=erl.Real(0.0, 0.7),
        weight_decay=erl.Real(1e-6, 0.1, log=True),
        batch=erl.Ordinal(16, 32, 64, 128, 256, long_name="images in a minibatch"),
    )


def goal() -> erl.Minimize:
    """The least log loss on the validation part; the test part stays closed."""
    return erl.Minimize("log_loss")


def search(store: Path, n_members: int, sampler=None, seed=SEEDS[0], cluster=None) -> xr.Dataset:
    """The campaign, or what is left of it."""
    return erl.explore(
        simulate,
        space(),
        goal(),
        n_members=n_members,
        n_pending=N_PENDING,
        sampler=sampler,
        cluster=cluster,
        store=store,
        seed=seed,
    ).load()


def searches(out: Path, n_members: int, baselines: bool, cluster=None) -> dict[str, list]:
    """Sampler -> datasets, one a seed; the search itself is the first of the first."""
    first, *others = SAMPLERS
    found = {first: [search(out / "store", n_members, SAMPLERS[first], SEEDS[0], cluster)]}
    if baselines:
        for name in (first, *others):
            folder = out / "baselines" / name.strip("'").lower()
            done = found.setdefault(name, [])
            for seed in SEEDS[len(done) :]:
                store = folder / str(seed)
                done.append(search(store, n_members, SAMPLERS[name], seed, cluster))
    return found


# The answer -------------------------------------------------------------------------------------


def best_member(ds: xr.Dataset) -> int:
    """The member with the least validation log loss."""
    return int(np.nanargmin(ds["log_loss"].values))


def chosen(ds: xr.Dataset) -> dict:
    """The point that was chosen, in physical values, without inactive parameters."""
    row = ds.isel(member=[best_member(ds)])
    columns = {name: row[name].values for name in space()}
    return space().point(columns, 0)


def fresh(point: dict) -> dict[str, np.ndarray]:
    """Part -> (seed, 2) log loss and accuracy of networks trained from seeds no search had."""
    models = [train(point, seed)[0] for seed in FRESH]
    return {
        part: np.array([score(model, part) for model in models]) for part in ("validation", "test")
    }


def incumbent(ds: xr.Dataset) -> np.ndarray:
    """(member,) the least validation log loss so far, NaN before the first."""
    return np.fmin.accumulate(ds["log_loss"].values)


def scores(found: dict[str, list], trained: dict[str, dict]) -> dict[str, float]:
    """What is compared with EXPECTED."""
    n = found["agent"][0].sizes["member"]
    reached = {}
    for name, runs in found.items():
        least = [float(incumbent(run)[-1]) for run in runs]
        if name == "agent":
            reached[f"validation, best of {n}"] = least[0]
        if len(runs) > 1:
            reached[f"validation, {name}, best of {n}, mean of {len(runs)}"] = float(np.mean(least))
    for name, parts in trained.items():
        reached[f"validation, {name}, fresh"] = float(parts["validation"][:, 0].mean())
        reached[f"test, {name}, fresh"] = float(parts["test"][:, 0].mean())
        reached[f"test accuracy, {name}, fresh"] = float(parts["test"][:, 1].mean())
    return reached


def table(title: str, *headings: str, caption: str | None = None) -> Table:
    """An empty table, its first column set left."""
    out = Table(title=title, caption=caption)
    for i, heading in enumerate(headings):
        out.add_column(heading, justify="right" if i else "left")
    return out


def shown(value) -> str:
    """A value of a parameter."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def present(values) -> list:
    """Those of a column that are of an active parameter."""
    return [value for value in values.tolist() if value == value and value != ""]


def spread(values: list) -> str:
    """From the smallest to the largest; of texts, how often each."""
    if values and isinstance(values[0], str):
        return ", ".join(f"{values.count(kind)} {kind}" for kind in sorted(set(values)))
    return f"{shown(min(values))} - {shown(max(values))}" if values else ""


def point_table(ds: xr.Dataset) -> Table:
    """What was chosen, and what the best members have in common."""
    top = np.argsort(ds["log_loss"].values)[: max(2, ds.sizes["member"] // 20)]
    out = table("Hyperparameters", "", "prior", "usual", "chosen", f"best {len(top)}")
    points = USUAL, chosen(ds)
    for name, parameter in space().items():
        prior = parameter.support.replace("'", "")
        values = [shown(point[name]) if name in point else "" for point in points]
        out.add_row(name, prior, *values, spread(present(ds[name].values[top])))
    return out


def score_table(reached: dict[str, float]) -> Table:
    """Reached and expected."""
    out = table(
        "Log loss, and accuracy on the test part",
        *("", "reached", "expected"),
        caption=f"fresh: mean over {len(FRESH)} seeds that no search had",
    )
    for name, value in reached.items():
        out.add_row(name, f"{value:.3f}", f"{EXPECTED[name]:.3f}" if name in EXPECTED else "")
    return out


def fate_line(ds: xr.Dataset) -> str:
    """How many members came to what."""
    fates, counts = np.unique(ds["fate"].values, return_counts=True)
    told = ", ".join(f"{n} {fate}" for fate, n in zip(fates, counts, strict=True))
    return f"members: {told}"


def figure(found: dict[str, list], path: Path) -> None:
    """Every member of the search, and the best so far: the search thick, other searches thin."""
    colours = {"agent": "#0072B2", "Sobol'": "#D55E00", "random": "0.45"}
    looks = {"sgd": "o", "adam": "s", "rmsprop": "^"}
    ds = found["agent"][0]
    n = np.arange(1, ds.sizes["member"] + 1)
    fig = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = fig.subplots()
    for kind, marker in looks.items():
        here = ds["optimizer"].values == kind
        style = {"marker": marker, "ms": 3, "ls": "none", "mew": 0.6, "mfc": "none"}
        axes.plot(n[here], ds["log_loss"].values[here], color="0.6", label=kind, **style)
    for name, runs in reversed(found.items()):
        for i, run in enumerate(runs):
            first = run is ds
            width = 2.0 if first else 0.9
            label = f"{name}, best so far" if i == 0 else None
            axes.step(n, incumbent(run), where="post", color=colours[name], lw=width, label=label)
    axes.axhline(math.log(CLASSES), color="0.25", lw=0.8, ls=(0, (4, 2)), label="guessing")
    axes.set(yscale="log", xlabel="members", ylabel="log loss, validation", xlim=(0, n[-1] + 1))
    ticks = [0.1, 0.2, 0.5, 1, 2]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    fig.legend(frameon=False, fontsize=8, ncols=4, loc="outside upper center", columnspacing=1)
    fig.savefig(path, dpi=200)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Run, report, and say where everything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=N_MEMBERS)
    parser.add_argument("--out", type=Path, default=Path(OUT))
    parser.add_argument("--baselines", action="store_true", help="Sobol' and random points too")
    parser.add_argument("--quick", action="store_true", help="8 members, in this process")
    options = parser.parse_args(argv)
    n_members, cluster = (8, "serial") if options.quick else (options.members, None)
    options.out.mkdir(parents=True, exist_ok=True)
    found = searches(options.out, n_members, options.baselines, cluster)
    ds = found["agent"][0]
    trained = {"usual": fresh(USUAL), f"chosen of {n_members}": fresh(chosen(ds))}
    reached = scores(found, trained)
    console = Console(record=True, width=100)
    console.print(point_table(ds), score_table(reached), fate_line(ds))
    with mpl.rc_context({"font.size": 9, "axes.linewidth": 0.8}):
        figure(found, options.out / "hyperparameter_search.png")
    erl.export_netcdf(ds, options.out / "hyperparameter_search.nc")
    console.print(f"\nfigure   {options.out / 'hyperparameter_search.png'}")
    console.print(f"dataset  xr.open_dataset({str(options.out / 'store')!r}, engine='ensemblerl')")
    console.print(f"NetCDF   xr.open_dataset({str(options.out / 'hyperparameter_search.nc')!r})")
    console.save_text(str(options.out / "tables.txt"))
    return reached


# Scores -----------------------------------------------------------------------------------------
# With the settings above, torch 2.13 on a CPU. The baselines are the usual hyperparameters, and
# searches of as many members by Sobol' points and by random ones (--baselines). The agent learns
# beside the workers, so what it reaches varies from run to run with the order of arrival.

EXPECTED = {
    "validation, best of 256": 0.116,
    "validation, agent, best of 256, mean of 5": 0.111,
    "validation, Sobol', best of 256, mean of 5": 0.150,
    "validation, random, best of 256, mean of 5": 0.158,
    "validation, usual, fresh": 0.431,
    "test, usual, fresh": 0.667,
    "test accuracy, usual, fresh": 0.818,
    "validation, chosen of 256, fresh": 0.138,
    "test, chosen of 256, fresh": 0.411,
    "test accuracy, chosen of 256, fresh": 0.9,
}

if __name__ == "__main__":
    main()
