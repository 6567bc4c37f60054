"""Draw the curves of a training run: loss, WER and CER on the development set, learning rate."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from deepspeech2 import figures, stage
from deepspeech2.files import replacing
from deepspeech2.stage import UserError, log

PANELS = (
    ("loss per character", {"train_loss": "training", "dev_loss": "development set"}),
    ("%", {"dev_wer": "WER, development set", "dev_cer": "CER, development set"}),
    ("learning rate", {"learning_rate": "learning rate"}),
)


def draw(curves: pd.DataFrame) -> Figure:
    """A figure over the epochs, from a table with a line for each."""
    best = curves.sort_values(["dev_wer", "dev_cer", "epoch"]).iloc[0]
    with matplotlib.rc_context(figures.STYLE):
        width, height = figures.SIZE
        figure = Figure(figsize=(width, 2 * height), layout="constrained")
        for axes, (what, columns) in zip(figure.subplots(len(PANELS), 1, sharex=True), PANELS):
            if "dev_wer" in columns:  # and that of each dataset, where there are several
                each = [c for c in curves.columns if c.startswith("dev_wer_")]
                columns = {**columns, **{c: f"WER, {c[8:]}" for c in each}}
            for colour, (name, label) in zip(figures.COLOURS, columns.items()):
                axes.plot(curves["epoch"], curves[name], color=colour, label=label)
            axes.axvline(best["epoch"], color=figures.PUBLISHED, linestyle=":", linewidth=1)
            axes.set_ylabel(what)
            axes.set_ylim(bottom=0)
            if len(columns) > 1:
                axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch (dotted: the one that was kept)")
    return figure


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--curves", required=True, help="table of the run (CSV)")
    parser.add_argument("--figure", required=True, help="figure to write (SVG)")
    args = stage.parse(parser, argv)

    try:
        curves = pd.read_csv(args.curves)
        figure = draw(curves)
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{args.curves}: not the curves of a training run ({error})") from None
    with replacing(Path(args.figure)) as temporary:
        figures.save(figure, temporary, transparent=False)  # it is looked at alone, on any page
    log.info("%d epochs", len(curves))


if __name__ == "__main__":
    stage.run(main)
