"""Draw the curves of a training run: loss, WER and CER on the development set, learning rate."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import replacing
from deepspeech2.report import style

PANELS = (
    ("loss per character", {"train_loss": "training", "dev_loss": "development set"}),
    ("%", {"dev_wer": "WER, development set", "dev_cer": "CER, development set"}),
    ("learning rate", {"learning_rate": "learning rate"}),
)


def draw(curves: pd.DataFrame) -> Figure:
    """A figure over the epochs, from a table with a line for each."""
    best = curves.sort_values(["dev_wer", "dev_cer", "epoch"]).iloc[0]
    with matplotlib.rc_context(style.STYLE):
        width, height = style.SIZE
        figure = Figure(figsize=(width, 2 * height), layout="constrained")
        for axes, (what, columns) in zip(figure.subplots(len(PANELS), 1, sharex=True), PANELS):
            if "dev_wer" in columns:  # and that of each dataset, where there are several
                each = [c for c in curves.columns if c.startswith("dev_wer_")]
                columns = {**columns, **{c: f"WER, {c[8:]}" for c in each}}
            for colour, (name, label) in zip(style.COLOURS, columns.items()):
                axes.plot(curves["epoch"], curves[name], color=colour, label=label)
            axes.axvline(best["epoch"], color=style.PUBLISHED, linestyle=":", linewidth=1)
            axes.set_ylabel(what)
            axes.set_ylim(bottom=0)
            if len(columns) > 1:
                axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch (dotted: the one that was kept)")
    return figure


def main(
    curves: Input,
    figure: Output,
) -> None:
    """Command line.

    curves: table of the run (CSV)
    figure: figure to write (SVG)
    """
    try:
        table = pd.read_csv(curves)
        drawn = draw(table)
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{curves}: not the curves of a training run ({error})") from None
    with replacing(figure) as temporary:
        style.save(drawn, temporary, transparent=False)  # it is looked at alone, on any page
    log.info("%d epochs", len(table))


if __name__ == "__main__":
    cli.run(main)
