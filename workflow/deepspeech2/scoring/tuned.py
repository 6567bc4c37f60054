"""The options of a decoder that scoring.tune has chosen."""

from __future__ import annotations

from pathlib import Path

from deepspeech2.cli import UserError
from deepspeech2.files import read_sealed, seal
from deepspeech2.scoring import decoders

THEN = "tune again: snakemake tune"


def applied(
    settings: decoders.Settings, path: Path | None, model: dict | None
) -> tuple[decoders.Settings, dict | None]:
    """Settings with the options that were chosen, below those that are given, and what a record
    tells of the choice. It must have been made with this kind of decoder and language model.
    """
    defaults = decoders.complete(settings.kind, settings.options)
    if path is None:
        return defaults, None
    found = read_sealed(path, THEN)
    line = found["chosen"]
    if seal(line) != found["chosen_sha256"]:
        raise UserError(f"{path}: altered since it was written; {THEN}")
    theirs = (found["decoder"]["kind"], (found["language_model"] or {}).get("sha256"))
    if theirs != (settings.kind, (model or {}).get("sha256")):
        raise UserError(
            f"{path}: chosen for another decoder or language model; {THEN}, or name the options"
        )
    # What the entry says counts more; the stage is handed what the entry says alone.
    merged = {**found["decoder"]["options"], **line["options"], **settings.options}
    about = {key: found[key] for key in ("dataset", "chosen_sha256")}
    return decoders.complete(settings.kind, merged), {**about, "wer": line["wer"]}
