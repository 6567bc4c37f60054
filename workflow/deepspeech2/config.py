"""The workflow's configuration as typed models, with its defaults and explanations."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from deepspeech2 import engines
from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts
from deepspeech2.corpus.manifest import SPLITS
from deepspeech2.corpus.perturb import NOISES
from deepspeech2.corpus.text import CASES
from deepspeech2.engines import verdicts
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.kinds import (
    MOST,
    BatchSizes,
    Count,
    FilePath,
    Image,
    Name,
    Names,
    Pair,
    Seed,
    Selection,
    Sha256,
    Share,
    Text,
    Widths,
    distinct,
)
from deepspeech2.report.limits import Limits
from deepspeech2.scoring import decoders
from deepspeech2.scoring.arpa import UNITS
from deepspeech2.scoring.normalisers import NORMALISERS


class Entry(BaseModel):
    """A part of the configuration. Unknown keys and values of other types are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key; known here are: {known}",
                    {"key": key, "known": ", ".join(cls.model_fields)},
                )
        return data


class Run(Entry):
    """What the table shows, by names of the registries below: every dataset with every model on
    every engine at every batch size, by every decoder. Results of other selections stay cached in
    results/.
    """

    datasets: Selection
    """names of datasets"""
    models: Selection
    """names of models"""
    engines: Selection
    """names of engines"""
    batch_sizes: BatchSizes
    """utterances in a batch; one row of the table for each"""
    decoders: Selection = ["greedy"]
    """names of decoders; one row of the table for each"""
    missing_engines: Literal["stop", "leave_out"] = "stop"
    """where an engine cannot run here: stop, or leave_out: go on without it, and say so"""


class Perturb(Entry):
    """What is done to a dataset's recordings, to see what that costs."""

    snr: Annotated[float, Field(ge=-60, le=120)] | None = None
    """dB of the speech above the noise, both over the whole utterance; null: no noise"""
    noise: Literal[NOISES] = "pink"
    """its colour"""
    reverberation: Annotated[float, Field(gt=0, le=10)] | None = None
    """seconds in which a synthetic room's sound falls by 60 dB; null: no room"""
    speed: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    """factor of the tempo, with the pitch"""
    telephone: bool = False
    """whether to cut to 300 to 3400 Hz, at 8 kHz"""
    seed: Seed = 0
    """of the noise and the room"""


class Dataset(Entry):
    """A corpus, by name. It needs a layout, and a path or urls."""

    layout: Literal[(layouts.AUTO, *layouts.LAYOUTS)]
    """auto: the one whose marks the path has; an4: AN4's archive (tar or zip; .raw, .sph or .wav
    inside) or its unpacked folder; folder: audio files, each with a .txt of the same name beside
    it; tsv: a table with the columns path and transcript (and speaker); table: one whose columns
    you name; manifest: deepspeech.pytorch's (JSON, or CSV); espeak: a table of texts that espeak-ng
    speaks (resources/synthetic/texts.tsv is one); librispeech, kaldi, ljspeech, hf_audiofolder: a
    folder of theirs; commonvoice, deepspeech_csv, nemo, stm, lhotse, parquet: a file of theirs, or
    a folder of such (docs/data.md)"""
    path: Text | None = None
    """the local archive, folder, table or manifest"""
    urls: list[Annotated[str, StringConstraints(pattern="^https?://")]] = []
    """mirrors of the archive, tried in this order, if there is no path"""
    sha256: Sha256 | None = None
    """only this very archive is taken from a mirror"""
    megabytes: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """the most that a mirror may send"""
    within: Text | None = None
    """where the corpus is in its archive (tar or zip), which is unpacked for the layout; null: the
    one folder that holds all"""
    columns: dict[Literal[layouts.COLUMNS], Text] = {}
    """of the layout table: the names of its columns for path, transcript, id, speaker, start, end,
    duration (s) and channel (counted from 0), those that it has"""
    split: Literal[SPLITS] = "all"
    """part to run on: the corpus's own, where it has such (an4, librispeech, commonvoice,
    hf_audiofolder, parquet); else val is every tenth speaker, and train the others"""
    text_case: Literal[tuple(CASES)] = "keep"
    """what to do to the letters of the transcripts"""
    digits: Literal["error", "words"] = "error"
    """words: spell numbers as English words (needs envs/text.txt); error: stop at digits"""
    unknown_characters: Literal["error", "drop"] = "error"
    """error: stop at characters outside the labels; drop: remove them"""
    labels: FilePath | None = None
    """the characters of the transcripts, the blank first (JSON); null is resources/labels.json"""
    pcm_sha256: FilePath | None = None
    """a table of hashes that the audio must match, whatever its packaging"""
    published: FilePath | None = None
    """a table of published figures to stand beside ours"""
    word_times: FilePath | None = None
    """when its words are said (CTM), to measure how good our times of words are"""
    skip: distinct(Literal[tuple(layouts.REASONS)]) = []
    """reasons for which files and rows may be left out, and counted: no_audio, no_text, empty_text,
    unreadable, duplicate, link, hidden, unsupported (docs/data.md); others stop the run"""
    allow_outside: bool = False
    """whether paths and links may lead out of the corpus's folder"""
    empty_references: Literal["error", "score"] = "error"
    """score: keep utterances whose transcript is empty, and count all that is written for them"""
    perturb: Perturb | None = None
    """what is done to its recordings, to see what that costs: see below"""
    shards: Annotated[int, Field(ge=1, le=1000)] = 1
    """parts of about equal length that its accuracy runs are computed in, each a job of its own on
    a cluster, whose features are removed when they were used (docs/clusters.md)"""


class Architecture(Entry):
    """A network's shape."""

    rnn_type: Literal["lstm", "gru", "rnn"] = "lstm"
    """kind of the recurrent layers"""
    hidden_size: Annotated[int, Field(ge=1, le=16384)] = 1024
    """units of each recurrent layer and direction"""
    hidden_layers: Annotated[int, Field(ge=1, le=64)] = 5
    """recurrent layers"""
    bidirectional: bool = True
    """whether the layers run in both directions"""
    lookahead_context: Annotated[int, Field(ge=1, le=1000)] = 20
    """frames that a network of one direction looks ahead"""

    def fields(self) -> dict[str, Any]:
        """The settings that matter: a network of both directions does not look ahead."""
        found = self.model_dump(include=set(Architecture.model_fields))
        return {
            k: v for k, v in found.items() if k != "lookahead_context" or not self.bidirectional
        }


class RandomWeights(Architecture):
    """Random weights instead of a checkpoint, to measure speed only."""

    seed: Seed = 0
    """of the weights"""
    labels: FilePath | None = None
    """the characters that it writes (JSON); null is resources/labels.json"""


class Checkpoint(Entry):
    """A model, by name: a checkpoint or random weights."""

    checkpoint: FilePath | None = None
    """path or address of deepspeech.pytorch's .ckpt or .pth, a state dict, or .safetensors"""
    labels: FilePath | None = None
    """the characters that it writes, the blank first (JSON), if the checkpoint does not say them"""
    spectrogram: dict[Literal[Spectrogram._fields], int | float | str] = {}
    """its sample_rate (Hz), window_size and window_stride (s) and window, those that the checkpoint
    does not say; hamming_symmetric is deepspeech.pytorch V1's and V2's window, hamming V3's"""
    random: RandomWeights | None = None
    """random weights instead, to measure the speed of an architecture: rows without accuracy"""
    sha256: Sha256 | None = None
    """only this very file is accepted; null trusts the first download and records it"""
    megabytes: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """the most that an address may send"""
    training_texts: FilePath | None = None
    """a file with the texts that it was trained on, one a line; others are scored apart, too"""


class EngineEntry(Entry):
    """A way to run a model, by name."""

    backend: str
    """what computes: torchscript (CPU, NVIDIA GPUs, Ascend NPUs by torch_npu), native (CPU),
    onnxruntime (CPU, GPUs, NPUs), openvino (CPU), torch_aie or acl_om (Ascend NPUs)"""
    device: str | None = None
    """where: cpu; cuda:0, cuda:1 ...; npu:0, npu:1 ...; cuda:* or npu:*, whichever is free; null is
    the backend's own"""
    precision: Literal[engines.PRECISIONS] | None = None
    """fp32; bf16 on the CPU, too, and int8 by native and onnxruntime; fp16 and bf16 on GPUs; fp16
    on NPUs, and bf16 by torchscript; null is the backend's own"""
    form: Literal[engines.FORMS] = "static"
    """static: order-free, without packed sequences; packed: the reference's"""
    padding: Literal[engines.PADDINGS] = "longest"
    """longest: every batch as wide as the set's longest utterance, as in the reference; batch: as
    wide as its own longest, and the last not filled up"""
    buckets: Widths = []
    """widths in frames instead: every batch as wide as the least that holds its longest utterance
    (the set's longest where none does); engines of fixed shapes compile one file for each"""
    python: Text | None = None
    """another interpreter for this engine's stages; null is the one that runs snakemake (a program
    that will be run: mind whose configuration you use)"""
    options: dict[str, Any] = {}
    """settings that only this backend has, below"""


class LanguageModel(Entry):
    """An n-gram for decoders, by name: built of texts, or an ARPA file."""

    texts: list[FilePath] = []
    """files to build it of, a sentence a line"""
    unit: Literal[UNITS] = "character"
    """what it is built of; with a model of words a decoder writes no other words"""
    order: Annotated[int, Field(ge=1, le=6)] = 6
    """units in its longest n-grams"""
    arpa: FilePath | None = None
    """an ARPA file instead, plain or gzipped; unit and order are its own then"""


class DecoderEntry(Entry):
    """A way to make text of posteriors, by name."""

    kind: Literal[tuple(decoders.DECODERS)]
    """greedy: the best label of each frame, repeats merged, blanks dropped; beam: beam search, with
    or without a language model (needs envs/beam.txt)"""
    language_model: Name | None = None
    """one of language_models"""
    tuning: FilePath | None = None
    """a file that `snakemake tune` wrote: the options that it chose"""
    options: dict[str, Any] = {}
    """settings that only this kind has, below; they count more than those of tuning"""


class Tune(Entry):
    """What `snakemake tune` does: it tries a grid of options on the part val of a dataset, and
    chooses those with the fewest word errors. Nothing is ever chosen on a part test.
    """

    decoder: Name | None = None
    """one of decoders"""
    dataset: Name | None = None
    """one of datasets; its split must be val"""
    model: Name = "embedded"
    """one of models, whose posteriors are decoded (the plain network's)"""
    grid: dict[Name, distinct(Any, min_length=1)] = {}
    """values to try, by option"""


class Score(Entry):
    """Scoring under a normaliser beside the strict figures."""

    normaliser: Literal[tuple(NORMALISERS)] | None = None
    """whisper: a second WER, references and hypotheses under Whisper's English rules (needs
    envs/text.txt)"""


class Accuracy(Entry):
    """The accuracy run. Its files are byte-identical from run to run."""

    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """threads of each accuracy job"""


class Timing(Entry):
    """The timing run takes all cores and runs alone. A row measured with less than the defaults is
    QUICK; one that breaks these rules is INVALID.
    """

    warmup_batches: Annotated[int, Field(ge=0, le=MOST)] = verdicts.WARMUP_BATCHES
    """batches that are dropped first"""
    min_batches: Annotated[int, Field(ge=1, le=MOST)] = verdicts.MIN_BATCHES
    """least timed batches; the set is repeated, whole, until both minima are reached"""
    min_seconds: Annotated[float, Field(ge=0, le=MOST)] = verdicts.MIN_SECONDS
    """least timed seconds"""
    multi: Annotated[int, Field(ge=1, le=MOST)] | None = None
    """exactly so many passes over the set instead, as the guide's --multi"""
    sample: Annotated[int, Field(ge=1, le=MOST)] = verdicts.SAMPLE
    """utterances that are timed of a larger dataset: the longest, and others of all lengths, always
    the same ones"""
    max_spread: Annotated[float, Field(gt=0)] = verdicts.MAX_SPREAD
    """largest coefficient of variation of the time per frame"""
    max_other_load: Share = verdicts.MAX_OTHER_LOAD
    """largest share of the cores that other programs may use, meanwhile or just before"""
    governors: list[Annotated[str, StringConstraints(pattern="^[a-z_]+$")]] | None = list(
        verdicts.GOVERNORS
    )
    """CPU frequency governors that are accepted, where readable; null: any"""


class Server(Entry):
    """The scenario server: utterances arrive at random, and nearly all have to be done in time."""

    latency_ms: Annotated[float, Field(gt=0, le=MOST)]
    """the most that it may take from an utterance's arrival to its transcript"""
    max_batch: Annotated[int, Field(ge=1, le=4096)] = 8
    """utterances in a batch, at most: as many as wait when the engine is free are taken"""
    max_wait_ms: Annotated[float, Field(ge=0, le=MOST)] = 0.0
    """how long an utterance waits for others, at most, while the engine is free"""
    seconds: Annotated[float, Field(gt=0, le=3600)] = verdicts.MIN_SECONDS
    """for how long utterances arrive at each rate, at least; 500 come anyway, by percentile 99"""
    percentile: Annotated[float, Field(ge=50, le=99.9)] = 99.0
    """how many percent of the utterances have to be in time"""


class Compare(Entry):
    """From where on `snakemake gate` fails a row against the baseline's."""

    confidence: Annotated[float, Field(ge=0.5, lt=1)] = Limits().confidence
    """of the speed's interval, and the share of the paired bootstrap's draws in which WER is
    higher. The interval excludes run-to-run drift; max_slowdown allows for it"""
    max_wer_increase: Annotated[float, Field(ge=0, le=1000)] = Limits().max_wer_increase
    """points that WER may rise by, however sure the rise is"""
    max_slowdown: Annotated[float, Field(ge=0, lt=1)] = Limits().max_slowdown
    """share of the baseline's speed that may be lost"""


class Augmentation(Entry):
    """How training utterances are changed, anew in every epoch."""

    speed: Annotated[Pair, Field(json_schema_extra={"items": {"minimum": 0.2, "maximum": 5}})] = [
        0.87,
        1.15,
    ]
    """lowest and highest factor, from 0.2 to 5"""
    gain: Annotated[float, Field(ge=0, le=60)] = 6.0
    """dB louder or softer, at most"""
    noise: Share = 0.5
    """share of the utterances that get noise, of any colour"""
    snr: Pair = [10.0, 40.0]
    """level of the speech above the noise in dB, lowest and highest, from -60 to 120"""
    vocal_tract: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    """largest stretch of the frequency axis, as a share"""
    frequency_masks: Count = 2
    """SpecAugment: masked bands"""
    frequency_width: Count = 24
    """bins of 50 Hz in each, at most"""
    time_masks: Count = 2
    """masked times"""
    time_width: Count = 20
    """frames in each, at most"""

    @model_validator(mode="after")
    def _bounds(self) -> Augmentation:
        for name, low, high in (("speed", 0.2, 5), ("snr", -60, 120)):
            for value in getattr(self, name):
                if not low <= value <= high:
                    raise PydanticCustomError(
                        "bounds", "{value} is not from {low} to {high}",
                        {"key": name, "value": value, "low": low, "high": high},
                    )  # fmt: skip
        return self


class Train(Entry):
    """What `snakemake train` does: it learns from the part train of its datasets and keeps the
    epoch with the lowest WER on the part val of `dev`. Every epoch is saved, and a run that was
    stopped goes on where it was.
    """

    name: Name = "network"
    """its results are in results/training/ under this name"""
    datasets: Names = []
    """datasets to learn from"""
    shares: dict[Name, Annotated[float, Field(gt=0, le=100)]] = {}
    """share of a dataset's utterances in every epoch, where it is not 1"""
    dev: Names = []
    """datasets to choose the epoch by; WER is the mean of theirs"""
    dev_utterances: Annotated[int, Field(ge=1)] = 150
    """utterances of each of them, at most"""
    architecture: Architecture = Field(default_factory=Architecture)
    """the network: rnn_type, hidden_size, hidden_layers, bidirectional, lookahead_context"""
    start: str | None = None
    """one of models, to go on from its weights; then its architecture counts. With architecture:
    {bidirectional: false} only its forward layers are taken, for a network that can stream"""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 60
    """epochs at most"""
    patience: Annotated[int, Field(ge=1)] = 20
    """epochs without a better WER on dev, after which it stops"""
    frames_per_batch: Annotated[int, Field(ge=100, le=10_000_000)] = 2600
    """frames of 10 ms in a batch, padding included; batches hold utterances of similar length"""
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    """of AdamW: rises for warmup_epochs, then falls as a cosine to zero"""
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    """epochs in which the learning rate rises"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """of AdamW"""
    clip: Annotated[float, Field(gt=0)] = 5.0
    """gradients longer than this are shortened to it"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """share of the recurrent layers' and the last layer's inputs that is left out"""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """decay a batch of the weights' moving average, which is kept; 0 averages nothing"""
    clean_epochs: Annotated[int, Field(ge=0)] = 3
    """epochs at the start without noise, vocal_tract and masks"""
    augmentation: Augmentation = Field(default_factory=Augmentation)
    """how utterances are changed, below"""
    spliced: Names = []
    """datasets in which utterances are put together anew from the words of their speaker"""
    splices: Share = 0.35
    """share of their utterances"""
    splices_from: Annotated[int, Field(ge=2)] = 12
    """first epoch with them: the network finds the words"""
    align_every: Annotated[int, Field(ge=1)] = 13
    """epochs after which it looks for the words again"""
    precision: Literal["bf16", "fp32"] = "bf16"
    """of the layers' computations"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where to train; cuda has had a short trial only"""
    seed: Seed = 0
    """of everything that is drawn"""


class Config(Entry):
    """Configuration of the workflow. config.yaml explains every key in place."""

    run: Run
    """what the table shows"""
    datasets: dict[Name, Dataset]
    """corpora, by name"""
    models: dict[Name, Checkpoint]
    """checkpoints, by name"""
    engines: dict[Name, EngineEntry]
    """ways to run a model, by name"""
    decoders: dict[Name, DecoderEntry]
    """ways to make text of posteriors, by name"""
    language_models: dict[Name, LanguageModel]
    """n-grams for decoders, by name"""
    score: Score = Field(default_factory=Score)
    """scoring under a normaliser beside the strict figures"""
    accuracy: Accuracy = Field(default_factory=Accuracy)
    """the accuracy run"""
    timing: Timing = Field(default_factory=Timing)
    """the timing run"""
    server: Server | None = None
    """the scenario server; null: it is not measured"""
    compare: Compare = Field(default_factory=Compare)
    """from where on `snakemake gate` fails a row"""
    baseline: FilePath | None = None
    """folder of another run's results, for `snakemake compare` and `snakemake gate`"""
    boards: list[FilePath] = []
    """submissions for `snakemake board`, the one to compare with first"""
    train: Train = Field(default_factory=Train)
    """what `snakemake train` does"""
    tune: Tune = Field(default_factory=Tune)
    """what `snakemake tune` does"""
    archive: Text | None = None
    """source of the one selected dataset, instead of its own"""
    checkpoint: Text | None = None
    """source of the one selected model, instead of its own"""
    container: Image | None = None
    """image of jobs under `snakemake --sdm apptainer`"""

    def engine(self, name: str) -> engines.Engine:
        """The engine of an entry, checked and completed by its backend."""
        try:
            json.dumps(self.engines[name].options, allow_nan=False, sort_keys=True)
            return engines.complete(self.engines[name].model_dump(exclude={"python"}))
        except (TypeError, ValueError) as error:
            raise UserError(f"config: engines.{name}.options: not plain JSON ({error})") from None
        except UserError as error:
            raise UserError(f"config: engines.{name}: {error}") from None

    def decoder(self, name: str) -> decoders.Settings:
        """Kind and options of a decoder's entry, checked; what it does not say is not there."""
        entry = self.decoders[name]
        try:
            json.dumps(entry.options, allow_nan=False, sort_keys=True)
            decoders.complete(entry.kind, entry.options)
        except (TypeError, ValueError) as error:
            raise UserError(f"config: decoders.{name}.options: not plain JSON ({error})") from None
        except UserError as error:
            raise UserError(f"config: decoders.{name}: {error}") from None
        return decoders.Settings(entry.kind, entry.options)
