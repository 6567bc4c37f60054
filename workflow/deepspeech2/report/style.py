"""The look of all figures, and how they are saved: SVG with its text as text, for papers."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

INK = "#1b1b1b"  # of text and axes; the report replaces it by the page's colour
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "deepspeech2",  # the same figures give the same bytes
    "text.parse_math": False,  # names are not formulas
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#8c8c8c",
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
}
SIZE = (4.6, 3.2)  # inches; a phone shows it about as large
# Okabe and Ito's colours, told apart by colour-blind readers, on white and on black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
PUBLISHED = "#7f7f7f"


def save(figure: Figure, path: Path, transparent: bool = True) -> None:
    """Write a figure as SVG, the same bytes for the same figure."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, format="svg", transparent=transparent, metadata=nothing)
