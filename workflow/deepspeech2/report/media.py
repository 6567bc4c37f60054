"""Sound and pictures of single utterances, small enough to lie in a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib
import numpy as np
import soundfile
from matplotlib.figure import Figure

from deepspeech2.corpus.labels import BLANK
from deepspeech2.features.spectrogram import Spectrogram

COMPRESSION = 0.9  # of MP3, from 0 (best) to 1 (smallest)
GREY = "#7d7d7d"  # readable on a white and on a black page
DPI = 110
STYLE = {
    "text.parse_math": False,  # labels are not formulas
    "font.size": 8,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY
    ),
}
SHOWN = 0.1  # labels that never are more probable than this are not drawn


def data_uri(kind: str, content: bytes) -> str:
    """Content as an address that holds it all."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def sound(path: str | Path) -> bytes:
    """An audio file as MP3, which every browser plays."""
    samples, rate = soundfile.read(path, dtype="int16")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="MP3", compression_level=COMPRESSION)
    return buffer.getvalue()


def picture(
    features: np.ndarray, posteriors: np.ndarray, labels: list[str], settings: Spectrogram
) -> bytes:
    """Spectrogram (bins, frames) above posteriors (T', classes) over time, as WebP."""
    seconds = features.shape[1] * settings.window_stride
    top = settings.sample_rate / 2000  # kHz
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.3))
        figure.subplots_adjust(left=0.075, right=0.995, top=0.98, bottom=0.12, hspace=0.08)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1.3])
        above.imshow(
            features, origin="lower", aspect="auto", extent=(0, seconds, 0, top), cmap="magma"
        )
        above.set_ylabel("kHz")
        times = (np.arange(len(posteriors)) + 0.5) * seconds / len(posteriors)
        for label in np.flatnonzero(posteriors.max(axis=0) > SHOWN):
            if label != BLANK:
                below.plot(times, posteriors[:, label], linewidth=0.9)
        best = posteriors.argmax(axis=1)
        starts = np.flatnonzero((best != BLANK) & (np.diff(best, prepend=-1) != 0))
        for start in starts:
            label = labels[best[start]]
            text = "\u2423" if label == " " else label
            height = posteriors[start, best[start]]
            below.text(times[start], height, text, ha="center", va="bottom")
        below.set_ylim(0, 1.25)
        below.set_yticks([0, 1])
        below.set_ylabel("posteriors")
        below.set_xlabel("s", labelpad=1)
        buffer = io.BytesIO()
        figure.savefig(
            buffer,
            format="webp",
            dpi=DPI,
            transparent=True,
            pil_kwargs={"quality": 60, "method": 1},
        )
    return buffer.getvalue()
