"""Choose a decoder's options: try a grid of them on a validation part, and keep the best line.

Chosen are the options with the fewest word errors, of those the fewest character errors, of those
the first. Nothing is chosen on what is reported: other parts than val are refused. The line that
was chosen stands in the result with its hash, the whole grid beside it.
"""

from __future__ import annotations

import csv
import functools
import itertools
from pathlib import Path
from typing import NamedTuple

from deepspeech2 import cli, files
from deepspeech2.cli import Cores, Input, Output, UserError, log
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.scoring import arpa, decoders
from deepspeech2.scoring.alignment import TOKENS, count_errors
from deepspeech2.scoring.arpa import LanguageModel

MAX_LINES = 10_000  # of a grid


class Trial(NamedTuple):
    """A line of the grid, and what it is tried on."""

    settings: decoders.Settings
    labels: tuple[str, ...]
    model: LanguageModel | None
    posteriors: tuple[Path, Path]


def attempt(trial: Trial) -> list[str]:
    """The texts of all utterances."""
    decoder = decoders.create(trial.settings, trial.labels, trial.model)
    return [decoder(posteriors).text for _, posteriors in _read(*trial.posteriors)]


@functools.cache
def _read(paths: tuple[Path, ...], index: Path) -> list:
    return list(posteriors_file.read(paths, index))


def main(
    posteriors: list[Input],
    posteriors_index: Input,
    features_index: Input,
    language_model_index: Input | None,
    decoder: decoders.Settings,
    dataset: str,
    grid: cli.Settings,
    tuning: Output,
    table: Output,
    processes: Cores = 1,
) -> None:
    """Command line.

    posteriors: posteriors of the validation part, one file or its shards' in order
    posteriors_index: their index (JSON)
    features_index: index of the features, for references (JSON)
    language_model_index: index of the decoder's language model (JSON)
    decoder: what to tune: JSON with kind and options
    dataset: its name
    grid: values to try, by option (JSON)
    tuning: what was chosen, to write (JSON)
    table: errors of each line of the grid, to write (TSV)
    processes: processes that try
    """
    features = files.read_sealed(features_index)
    if not features["manifest"].endswith("_val_manifest.json"):
        raise UserError(
            f"{features_index}: of {features['manifest']}, which is no part val; nothing may be "
            "chosen on what is reported"
        )
    whole_files = files.read_sealed(posteriors_index)["files"]
    model, about = arpa.read(language_model_index)
    references = {u["id"]: u["reference"] for u in features["utterances"]}
    paths = (tuple(posteriors), posteriors_index)
    names = [name for name, _ in _read(*paths)]
    lines = [dict(zip(grid, values)) for values in itertools.islice(
        itertools.product(*grid.values()), MAX_LINES + 1
    )]  # fmt: skip
    if not all(name in references for name in names):
        raise UserError(
            f"{posteriors_index}: of other utterances; {files.remedy(posteriors_index)}"
        )
    if len(lines) > MAX_LINES:
        raise UserError(f"--grid: more than {MAX_LINES} lines; name fewer values")
    trials = [
        Trial(
            decoders.complete(decoder.kind, {**decoder.options, **options}),
            tuple(features["labels"]),
            model,
            paths,
        )
        for options in lines
    ]
    with cli.pool(processes) as pool:
        for line, texts in zip(
            lines, cli.progress(pool.map(attempt, trials), len(trials), "tune", "line")
        ):
            for measure, tokens in TOKENS.items():
                pairs = [(tokens(references[n]), tokens(t)) for n, t in zip(names, texts)]
                errors = count_errors(pairs)
                line[f"{measure}_errors"], line[measure] = errors.count, round(errors.rate, 3)
    best = min(lines, key=lambda line: (line["wer_errors"], line["cer_errors"]))
    chosen = {
        "options": {name: best[name] for name in grid},
        **{key: value for key, value in best.items() if key not in grid},
    }
    with files.replacing(table) as path, open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, lines[0], dialect="excel-tab", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    files.write_json(
        tuning,
        {
            "decoder": decoder._asdict(),
            "language_model": about,
            "dataset": dataset,
            "utterances": len(names),
            "posteriors_sha256": " ".join(whole["sha256"] for whole in whole_files),
            "grid_sha256": files.sha256(table),
            "chosen": chosen,
            "chosen_sha256": files.seal(chosen),
        },
    )
    log.info("%s: WER %s %%", chosen["options"], chosen["wer"])


if __name__ == "__main__":
    cli.run(main)
