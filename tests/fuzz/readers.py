"""What is read of what people bring and of what the workflow wrote, each with inputs to damage.

A reader makes its inputs in a folder, damages one of `files`, and reads. It returns what figures
depend on: where `keeps` is set, that must not change without a refusal or another note.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import mutators as m
import numpy as np
import yaml
from corpus import test_an4, test_audio_files, test_corpora
from deepspeech2 import cli, configure, files
from deepspeech2.corpus import audio, corpus, folders, labels, layouts, manifest
from deepspeech2.engines import timing
from deepspeech2.features.batches import FeatureSet
from deepspeech2.report import compare, published, record, table
from deepspeech2.scoring import (
    agreement,
    arpa,
    decode,
    decoders,
    language_model,
    reliability,
    score,
    transcripts,
    trn,
    tuned,
)
from deepspeech2.serving import arrivals, server
from helpers import (
    LABELS,
    ROW_FILES,
    posteriors_of,
    row_content,
    tone,
    write_folder,
    write_row,
    write_safetensors,
    write_sealed,
    write_transcripts,
)


class Reader(NamedTuple):
    """See the module."""

    make: Callable[[Path], list[Path]]  # files to damage, of the inputs that it makes
    read: Callable[[Path], Any]  # what the folder's inputs say
    damage: Callable[[bytes, Random], bytes]
    keeps: bool = False
    needs: str = ""  # an optional module


READERS: dict[str, Reader] = {}


# Audio: a header's damage may not change how much is heard.
def _sound(name, form, codec, head, but=(), change=lambda content: content) -> None:
    def make(folder: Path) -> list[Path]:
        path = folder / f"a.{name.split()[0]}"
        path.write_bytes(change(test_audio_files.encoded(form, codec)))
        return [path]

    def length(folder: Path):
        samples, notes = audio.read(next(folder.glob("a.*")))
        return "told" if notes else len(samples)

    READERS[f"{name}: header"] = Reader(make, length, m.header(head, but), keeps=True)
    READERS[f"{name}: any"] = Reader(make, length, m.any_bytes)


for _name, *_about in (
    ("wav", "WAV", "PCM_16", 44),
    ("wav float", "WAV", "FLOAT", 80),
    ("wav gsm", "WAV", "GSM610", 56),  # a length of a stream, which follows, is a block more
    ("wav adpcm", "WAV", "IMA_ADPCM", 60),
    ("rf64", "RF64", "PCM_16", 80),
    ("w64", "W64", "PCM_16", 104),
    ("aiff", "AIFF", "PCM_16", 54),
    # Nothing else tells of the codec, nor of where the sound begins if its length is unknown.
    ("au", "AU", "PCM_16", 24, (*range(4, 8), *range(12, 16))),
    ("sph", "NIST", "PCM_16", 400),
    ("caf", "CAF", "PCM_16", 60),
    ("flac", "FLAC", "PCM_16", 42),
    ("ogg", "OGG", "VORBIS", 300),
    ("opus", "OGG", "OPUS", 300),
    ("mp3", "MP3", "MPEG_LAYER_III", 60),
    # Nothing else tells of its first frame's bits a second.
    ("mp3 plain", "MP3", "MPEG_LAYER_III", 20, (2,), test_audio_files.without_table),
):
    _sound(_name, *_about)


def _ffmpeg(suffix: str, container: str, codec: str) -> None:
    def make(folder: Path) -> list[Path]:
        import av

        path = folder / f"a{suffix}"
        rate = 8000 if suffix == ".amr" else 16000
        wave = (tone(1.0, rate=rate) * 20000).astype("i2")
        with av.open(str(path), "w", format=container) as out:
            stream = out.add_stream(codec, rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
            frame.rate = rate
            for packet in (*stream.encode(frame), *stream.encode(None)):
                out.mux(packet)
        return [path]

    def length(folder: Path):
        return len(audio.read(next(folder.glob("a.*"))).samples)

    READERS[f"{suffix[1:]}: any"] = Reader(make, length, m.any_bytes, needs="av")


for _args in (
    (".m4a", "ipod", "aac"),
    (".webm", "webm", "libopus"),
    (".aac", "adts", "aac"),
):
    _ffmpeg(*_args)


# Corpora: whatever a table holds, each recording is used or counted.
def _read_corpus(name: str, source: Path) -> dict:
    layout = layouts.create(name, source)
    heard = {}
    found = layout.read(lambda key, sound: heard.__setitem__(key, len(sound.samples)))
    assert heard.keys() == {u.id for u in found}, "what is kept is not what is told"
    root = source if source.is_dir() else source.parent
    recordings = {p for p in root.rglob("*") if folders.kind(p.name) == "audio"}
    lost = recordings - {Path(u.audio) for u in found}
    # A table without a folder of its own tells of the recordings that it names alone.
    if source.is_dir() and lost and not layout.passed_over:
        raise AssertionError(f"not told: {sorted(p.name for p in lost)}")
    return {u.id: (u.text, u.speaker, heard[u.id]) for u in found}


def _corpus(key: str, make_source: Callable[[Path], Path], damage) -> None:
    name = key.split()[0]

    def make(folder: Path) -> list[Path]:
        source = make_source(folder / "c")
        (folder / "source").write_text(str(source.relative_to(folder)))
        kinds = ("audio",) if damage is not m.any_bytes else ()
        found = [p for p in (folder / "c").rglob("*") if p.is_file()]
        return [p for p in found if folders.kind(p.name) not in kinds]

    def read(folder: Path):
        return _read_corpus(name, folder / (folder / "source").read_text())

    needs = "pyarrow" if name == "parquet" else ""
    READERS[f"corpus {key}"] = Reader(make, read, damage, needs=needs)


DAMAGE = {"nemo": m.json_text, "lhotse": m.any_bytes, "lhotse cuts": m.json_text,
          "parquet": m.any_bytes}  # fmt: skip
for _key, (_make, _) in test_corpora.CORPORA.items():
    _corpus(_key, _make, DAMAGE.get(_key, m.lines))
_corpus("kaldi segments", lambda root: test_corpora.kaldi(root, segments=True), m.lines)
_corpus("hf_audiofolder json", lambda root: test_corpora.hf_audiofolder(root, "jsonl"), m.json_text)


def _tsv(root: Path) -> Path:
    write_folder(root)
    return test_corpora.write(
        root / "t.tsv", "path\ttranscript\tspeaker\nu0.wav\tYES\tme\nu1.wav\tGO ON\tyou\n"
    )


def _deepspeech_manifest(root: Path) -> Path:
    write_folder(root)
    samples = [{"wav_path": f"u{i}.wav", "transcript_path": f"u{i}.txt"} for i in range(3)]
    files_ = {"root_path": ".", "samples": samples}
    return test_corpora.write(root / "m.json", json.dumps(files_))


_corpus("tsv", _tsv, m.lines)
_corpus("manifest json", _deepspeech_manifest, m.json_text)


# Archives of AN4 and of folders.
def _an4(folder: Path, packing: str) -> Path:
    content = test_an4.files("wav")
    path = folder / f"an4.{packing}"
    if packing == "zip":
        return test_an4.write_zip(path, content)
    with tarfile.open(path, "w:gz" if packing == "tar.gz" else "w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def _read_archive(folder: Path):
    alphabet = folder / "labels.json"
    alphabet.write_text(json.dumps(LABELS))
    source = next(folder.glob("an4.*"))
    corpus.main(
        *("auto" if source.suffix != ".zip" else "an4", source, None, None, "keep", alphabet, None),
        folder / "corpus", folder / "corpus.json", folder / "copy.json",
    )  # fmt: skip
    index = files.read_sealed(folder / "corpus.json")
    return [(u["id"], u["split"], u["transcript"], u["wav_sha256"]) for u in index["utterances"]]


for _packing, _damage in (("tar", m.tarred), ("tar.gz", m.any_bytes), ("zip", m.zipped())):
    READERS[f"archive {_packing}"] = Reader(
        lambda folder, packing=_packing: [_an4(folder, packing)], _read_archive, _damage,
        keeps=_packing == "tar.gz",
    )  # fmt: skip


# Checkpoints.
def _checkpoint(folder: Path):
    from deepspeech2.model import convert

    source = next(folder.glob("a.*"))
    convert.main(source, None, None, None, folder / "w.safetensors", folder / "m.json")
    return files.read_sealed(folder / "m.json")["weights_sha256"]


def _v3(folder: Path) -> list[Path]:
    import torch
    from helpers import v3_content

    torch.save(v3_content(), folder / "a.ckpt")
    return [folder / "a.ckpt"]


def _old(folder: Path) -> list[Path]:
    import torch
    from helpers import v3_content

    torch.save(v3_content(), folder / "a.pth", _use_new_zipfile_serialization=False)
    return [folder / "a.pth"]


READERS["checkpoint zip"] = Reader(_v3, _checkpoint, m.zipped(), keeps=False)
READERS["checkpoint pickle"] = Reader(_v3, _checkpoint, m.zipped(m.pickled))
READERS["checkpoint old"] = Reader(_old, _checkpoint, m.pickled)
READERS["safetensors"] = Reader(
    lambda folder: [write_safetensors(folder / "a.safetensors")], _checkpoint, m.tensors
)


# The configuration.
def _configuration(folder: Path):
    given = json.loads((folder / "c.json").read_text(encoding="utf-8", errors="surrogatepass"))
    if isinstance(given, dict):  # Snakemake refuses all else
        configure.complete(given)


def _configured(folder: Path) -> list[Path]:
    write_folder(folder / "own")
    given = {
        **yaml.safe_load((configure.ROOT / "config.yaml").read_text(encoding="utf-8")),
        "baseline": None,
    }
    given["datasets"]["own"] = {"layout": "folder", "path": str(folder / "own")}
    given["models"]["tiny"] = {"random": {"hidden_size": 8, "hidden_layers": 1}}
    given["run"].update(datasets=["own"], models=["tiny"], batch_sizes=[1, 2])
    (folder / "c.json").write_text(json.dumps(given))
    return [folder / "c.json"]


READERS["configuration"] = Reader(
    _configured, _configuration,
    lambda data, random: json.dumps(m.value(json.loads(data), random)).encode(),
)  # fmt: skip


# What people write for a workflow: labels, published figures, training texts.
READERS["labels"] = Reader(
    lambda folder: [test_corpora.write(folder / "l.json", json.dumps(LABELS))],
    lambda folder: labels.read(folder / "l.json"), m.json_text,
)  # fmt: skip
READERS["published"] = Reader(
    lambda folder: [
        test_corpora.write(folder / "p.tsv", "# ours\nbatch_size\twer\tspeed\n1\t9.5\t3\n4\t/\t8\n")
    ],
    lambda folder: published.read({"own": folder / "p.tsv"}), m.lines,
)  # fmt: skip
READERS["training texts"] = Reader(
    lambda folder: [test_corpora.write(folder / "t.txt", "GO ON\nSTOP\n")],
    lambda folder: transcripts.read_training_texts(folder / "t.txt"), m.lines,
)  # fmt: skip
READERS["word times"] = Reader(
    lambda folder: [test_corpora.write(folder / "t.ctm", "u 1 0.5 0.25 GO\nu 1 1 0.5 ON 0.9\n")],
    lambda folder: reliability.read_ctm(folder / "t.ctm"), m.lines,
)  # fmt: skip


# What the workflow wrote: any edit is refused by its seal. Another version has other keys, and a
# seal that fits.
def _of_another_version(data: bytes, random: Random) -> bytes:
    content = json.loads(data)
    del content[files.SEAL]
    places = [content]
    for place in places:
        inner = place.values() if isinstance(place, dict) else place
        places += [value for value in inner if value and isinstance(value, (dict, list))]
    place = random.choice([place for place in places if isinstance(place, dict)])
    del place[random.choice([*place])]
    return json.dumps({**content, files.SEAL: files.seal(content)}).encode()


# One value of another kind, and a seal that fits: a stage names its file (tests/faults, too).
def _own(name: str, make: Callable, read: Callable[[Path], Any], *, of_kinds=True) -> None:
    READERS[f"{name}: edited"] = Reader(make, read, m.json_text, keeps=True)
    READERS[f"{name}: another version"] = Reader(make, read, _of_another_version)

    def stage(folder: Path):
        with cli.naming_used():
            return read(folder)

    if of_kinds:
        READERS[f"{name}: other kinds"] = Reader(make, stage, m.of_other_kinds)


def _run(folder: Path) -> None:
    """What comes before a score: features, posteriors and transcripts of three utterances."""
    spoken = {"a": "YES", "b": "GO ON", "c": "STOP"}
    (folder / "features/spect").mkdir(parents=True)
    utterances = []
    for number, (name, text) in enumerate(spoken.items(), 1):
        path = folder / f"features/spect/data{number}.bin"
        path.write_bytes(bytes(4 * 3 * 9))
        utterances.append(
            {"id": name, "reference": text, "seconds": 1.5, "frames": 9, "speaker": "me",
             "spect_sha256": files.sha256(path)}
        )  # fmt: skip
    about = {"labels": LABELS, "bins": 3, "frames_max": 9, "versions": {}, "dropped": {}}
    about["spectrogram"] = {"window_stride": 0.01}
    write_sealed(folder / "features.json", {**about, "utterances": utterances})
    from deepspeech2.model import posteriors

    spelled = ((name, posteriors_of("_".join(text))) for name, text in spoken.items())
    run = {"versions": {"torch": "2.13.0"}}
    posteriors.write(folder / "p.bin", folder / "p.json", spelled, run)
    decode.main(*(folder / n for n in ("p.bin", "p.json", "features.json", "t.jsonl", "t.json")))


def _of_run(*names: str):
    def make(folder: Path) -> list[Path]:
        _run(folder)
        return [folder / name for name in names]

    return make


def _decoded(folder: Path):
    inputs = (folder / n for n in ("p.bin", "p.json", "features.json"))
    decode.main(*inputs, folder / "new.jsonl", folder / "new.json")
    return (folder / "new.jsonl").read_text()


def _scored(folder: Path):
    inputs = (folder / n for n in ("t.jsonl", "t.json", "features.json"))
    score.main(*inputs, None, None, None, folder / "score.json", folder / "aligned.jsonl")
    return (folder / "score.json").read_text()


def _agreed(folder: Path):
    ours = [folder / n for n in ("t.jsonl", "t.json", "p.bin", "p.json")]
    agreement.main(*ours, *ours, folder / "agreement.json")
    return (folder / "agreement.json").read_text()


def _spectrograms(folder: Path):
    found = FeatureSet(folder / "features", folder / "features.json")
    found.verify()
    return [u["id"] for u in found.utterances], [float(found.load(i).sum()) for i in range(3)]


_own("posteriors' index", _of_run("p.json"), _decoded)
_own("features' index", _of_run("features.json"), _decoded)
_own("features", _of_run("features.json"), _spectrograms)
_own("transcripts' index", _of_run("t.json"), _scored)
_own("agreement's inputs", _of_run("p.json", "t.json"), _agreed)
READERS["posteriors"] = Reader(_of_run("p.bin"), _decoded, m.any_bytes, keeps=True)
READERS["spectrograms"] = Reader(
    _of_run("features/spect/data2.bin"), _spectrograms, m.any_bytes, keeps=True
)
READERS["transcripts: edited"] = Reader(_of_run("t.jsonl"), _scored, m.json_text, keeps=True)


def _reindexed(folder: Path):
    write_sealed(folder / "t.json", {"sha256": files.sha256(folder / "t.jsonl")})
    return _scored(folder)


READERS["transcripts: resealed"] = Reader(_of_run("t.jsonl"), _reindexed, m.json_text)
ROW = "own/tiny/cpu/bs1/greedy"


def _row(folder: Path) -> list[Path]:
    write_row(folder / "results", ROW)
    return [(folder / "results" / ROW / name).resolve() for name in ROW_FILES]


def _recorded(folder: Path):
    place = folder / "results" / ROW
    record.main(
        *(place / name for name in ROW_FILES), ROW,
        {"dataset": {"split": "all"}}, folder / "new.json",
    )  # fmt: skip
    table.main([place / "record.json"], {}, folder / "table.tsv", folder / "table.md")
    return json.loads((folder / "new.json").read_text()), (folder / "table.tsv").read_text()


def _tabled(folder: Path):
    path = folder / "results" / ROW / "record.json"
    table.main([path], {}, folder / "table.tsv", folder / "table.md")
    return (folder / "table.tsv").read_text(), (folder / "table.md").read_text()


def _with_record(folder: Path) -> list[Path]:
    _row(folder)
    return [folder / "results" / ROW / "record.json"]


def _with_baseline(folder: Path) -> list[Path]:
    texts = {n: {"duration": 1.0, "reference": "GO ON", "hypothesis": "GO"} for n in "abc"}
    engine = {"backend": "torchscript", "device": "cpu"}
    for place in ("results", "before"):
        write_transcripts(folder / "t.jsonl", texts)
        digest = files.sha256(folder / "t.jsonl")
        changes = {"score": {"transcripts_sha256": digest}, "timing": {"engine": engine}}
        path = write_row(folder / place, ROW, **changes)
        shutil.copy(folder / "t.jsonl", path.parent / "transcripts.jsonl")
    return [folder / "before" / ROW / "record.json"]


def _compared(folder: Path):
    outputs = (folder / f"comparison.{suffix}" for suffix in ("tsv", "md", "json"))
    compare.main(
        [folder / "results" / ROW / "record.json"], folder / "before", 0.95, 0.5, 0.05, *outputs
    )
    return (folder / "comparison.tsv").read_text()


_own("a row's files", _row, _recorded, of_kinds=False)  # slow
_own("record", _with_record, _tabled, of_kinds=False)
_own("baseline", _with_baseline, _compared)
assert row_content().keys() == set(ROW_FILES)


def _manifest(folder: Path) -> list[Path]:
    write_folder(folder / "c")
    (folder / "labels.json").write_text(json.dumps(LABELS))
    corpus.main(
        "folder", folder / "c", None, None, "keep", folder / "labels.json", None,
        folder / "corpus", folder / "corpus.json", folder / "copy.json",
    )  # fmt: skip
    return [folder / "corpus.json"]


def _read_manifest(folder: Path):
    manifest.main(folder / "corpus.json", folder / "corpus", "all", folder / "m.json")
    return [tuple(map(str, sample)) for sample in manifest.read(folder / "m.json")]


def _made_manifest(folder: Path) -> list[Path]:
    _manifest(folder)
    _read_manifest(folder)
    return [folder / "m.json"]


_own("corpus index", _manifest, _read_manifest)
_own(
    "manifest", _made_manifest,
    lambda folder: [tuple(map(str, sample)) for sample in manifest.read(folder / "m.json")],
)  # fmt: skip


def _trn(folder: Path):
    trn.main(folder / "t.jsonl", folder / "t.json", folder / "ref.trn", folder / "hyp.trn")
    return (folder / "ref.trn").read_text(), (folder / "hyp.trn").read_text()


def _times(folder: Path) -> list[Path]:
    random = Random(0)
    batches = [timing.Times(*(random.random() for _ in range(4)), 1, 2.0, 9, 9, 1)] * 3
    timing.write_times(folder / "batches.tsv", batches)
    parts = np.linspace(0.1, 1, 8), np.linspace(0.2, 2, 8), np.ones(8, int)
    arrivals.write(folder / "arrivals.tsv", [arrivals.Trial(9.0, 8, *parts)] * 2)
    return [folder / "batches.tsv", folder / "arrivals.tsv"]


def _read_times(folder: Path):
    """Figures of them: what is no table is refused."""
    trials, rule = arrivals.read(folder / "arrivals.tsv"), arrivals.Rule(9.0, 1, 0.0, 1.0)
    served = server.summarise(rule, 9.0, trials[0].rate, trials)
    return timing.summarise(timing.read_times(folder / "batches.tsv")), served


READERS["times"] = Reader(_times, _read_times, m.lines)
READERS["trn"] = Reader(_of_run("t.jsonl"), _trn, m.json_text, keeps=True)


def _arpa(folder: Path) -> list[Path]:
    (folder / "texts").write_text("GO ON\nGO\nSTOP IT NOW\n")
    paths = (folder / name for name in ("given.arpa", "given.json", "known.txt"))
    language_model.main([folder / "texts"], None, "character", 3, *paths)
    return [folder / "given.arpa"]


def _of_arpa(folder: Path):
    paths = (folder / name for name in ("m.arpa", "m.json", "k.txt"))
    language_model.main([], folder / "given.arpa", "word", 3, *paths)
    model, _ = arpa.read(folder / "m.json")
    settings = decoders.complete("beam", {"beam_width": 3})
    return decoders.create(settings, LABELS, model)(posteriors_of("G_O_ _O_N")).text


READERS["ARPA"] = Reader(_arpa, _of_arpa, m.lines, needs="flashlight")


def _texts(folder: Path) -> list[Path]:
    (folder / "texts").write_text("GO ON\nGO\nSTOP IT NOW\n")
    return [folder / "texts"]


def _of_texts(folder: Path):
    paths = (folder / name for name in ("m.arpa", "m.json", "k.txt"))
    language_model.main([folder / "texts"], None, "character", 3, *paths)
    return (folder / "m.arpa").read_text()


READERS["texts of a language model"] = Reader(_texts, _of_texts, m.lines)


def _tuning(folder: Path) -> list[Path]:
    line = {"options": {"beam_width": 7}, "wer": 1.0}
    content = {"decoder": {"kind": "beam", "options": {"alpha": 0.5}}, "language_model": None}
    content |= {"dataset": "v", "chosen": line, "chosen_sha256": files.seal(line)}
    return [write_sealed(folder / "tuning.json", content)]


def _of_tuning(folder: Path):
    settings = decoders.Settings("beam", {})
    return tuned.applied(settings, folder / "tuning.json", None)


_own("tuning", _tuning, _of_tuning)
