"""What all pictures share: sizes, type, colours, and that they show themselves in a notebook.

Figures are made without pyplot: nothing pops up, nothing global is changed. Colours are those of
Okabe and Ito and the map cividis, which people with colour vision deficiencies can tell apart;
markers differ besides.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemblerl.records import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 3.3
"""Width of a figure in inches: a column of a journal."""
SMALL, NORMAL = 7.0, 7.5
"""Sizes of type in points: ticks, and the rest."""
DPI = 150
"""Pixels an inch in a notebook."""
BLUE, RED, GREY = "#0072B2", "#D55E00", "#767676"
HUES = (BLUE, RED, "#009E73", "#E69F00", "#56B4E9", "#CC79A7")
"""For lines and areas that are named: Okabe and Ito's."""
MAP = "cividis_r"
"""Dark is good, also on paper."""
SPAN = 100.0
"""Ratio of the largest to the smallest value from which on an axis is logarithmic."""


def require() -> None:
    """See that matplotlib is there.

    Raises
    ------
    ImportError
        saying how to install it
    """
    if find_spec("matplotlib") is None:
        raise ImportError(
            "plot: wanted matplotlib, which is not installed; pip install 'ensemblerl[plot]'"
        )


def figure(height: float) -> Figure:
    """An empty figure, as wide as a column, of this height in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    near = ConstrainedLayoutEngine(
        w_pad=0.02, h_pad=0.02, wspace=0.03, hspace=0.03, rect=(0, 0, 0.985, 0.985)
    )  # a name may be a little wider than its panel
    out = Figure(figsize=(COLUMN, height), dpi=DPI, layout=near)
    shown(out, out)
    return out


def shown(what: Any, where: Figure) -> None:
    """Have a notebook show the figure when this object is the last thing in a cell."""
    vars(what)["_repr_png_"] = partial(_png, where)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def tidy(ax: Axes) -> None:
    """Type that can be read in a column, and no frame on the open sides."""
    ax.tick_params(labelsize=SMALL, length=2.5, pad=2)
    ax.spines[["top", "right"]].set_visible(False)
    ax.xaxis.label.set_fontsize(NORMAL)
    ax.yaxis.label.set_fontsize(NORMAL)
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_offset_text().set_fontsize(SMALL)


def spread(values: FloatArray) -> bool:
    """Whether an axis of these values is better logarithmic."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) and finite.min() > 0 and finite.max() >= SPAN * finite.min())


def off_scale(n: int) -> str:
    """What a legend says of the triangles."""
    return f"off the scale ({n})"
