"""The corpus stage: what it writes, the parts, the table of hashes; and manifests of the parts."""

import hashlib
import json

import pytest
import soundfile
from deepspeech2.cli import UserError
from deepspeech2.corpus import corpus, layouts
from helpers import assert_one_line_error, run_corpus, run_stage, tone, write_folder


def test_the_stage_converts_and_is_repeatable(tmp_path):
    folder = write_folder(tmp_path / "set")
    soundfile.write(folder / "u0.wav", tone(0.5, rate=8000, channels=2), 8000, subtype="FLOAT")
    result = run_corpus("folder", folder, tmp_path, "--text-case", "lower")
    assert result.returncode == 0, result.stderr
    assert "2 channels averaged" in result.stderr and "resampled from 8000 Hz" in result.stderr
    index = json.loads((tmp_path / "corpus.json").read_text())
    assert [u["transcript"] for u in index["utterances"]] == ["yes", "go on", "stop"]
    first = (tmp_path / "corpus.json").read_bytes()
    assert run_corpus("folder", folder, tmp_path, "--text-case", "lower").returncode == 0
    assert (tmp_path / "corpus.json").read_bytes() == first
    info = soundfile.info(tmp_path / "corpus/wav/u0.wav")
    assert (info.samplerate, info.channels) == (16000, 1)


def test_a_failed_corpus_leaves_nothing_behind(tmp_path):
    folder, out = write_folder(tmp_path / "set"), tmp_path / "out"
    out.mkdir()
    soundfile.write(folder / "u2.wav", tone()[:100], 16000)
    assert_one_line_error(run_corpus("folder", folder, out), "u2.wav", "too short")
    assert [path.name for path in out.iterdir()] == ["alphabet.json"]


def write_hashes(path, folder, **changes):
    """The table of hashes of a folder's recordings; some texts or hashes are changed by id."""
    rows = ["id\tsplit\tpcm_sha256\ttranscript"]
    for wav in sorted(folder.glob("*.wav")):
        samples, _ = soundfile.read(wav, dtype="int16")
        row = {
            "split": "train",
            "pcm_sha256": hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest(),
            "transcript": wav.with_suffix(".txt").read_text().strip(),
            **changes.get(wav.stem, {}),
        }
        rows.append("\t".join([wav.stem, *row.values()]))
    path.write_text("\n".join(rows) + "\n")
    return path


def refuse(folder, table, *words):
    identity, out = corpus.Identity(table), table.with_name("out")
    with pytest.raises(UserError) as error:
        corpus.write(layouts.create("folder", folder), out, "keep", identity)
    for word in (*words, str(folder)):
        assert word in str(error.value)


def test_any_layout_is_compared_with_a_table_of_hashes(tmp_path):
    folder, table = write_folder(tmp_path / "set"), tmp_path / "h.tsv"
    result = run_corpus("folder", folder, tmp_path, "--pcm-sha256", write_hashes(table, folder))
    assert result.returncode == 0, result.stderr
    entries = json.loads((tmp_path / "corpus.json").read_text())["utterances"]
    # Texts are compared as they are given, whatever is done to their letters.
    lower = corpus.Identity(table)
    found = corpus.write(layouts.create("folder", folder), tmp_path / "lower", "lower", lower)
    assert [u["transcript"] for u in found] == [u["transcript"].lower() for u in entries]
    refuse(folder, write_hashes(table, folder, u1={"pcm_sha256": "0" * 64}), "u1", "samples differ")
    refuse(folder, write_hashes(table, folder, u1={"transcript": "GO"}), "u1", "'GO ON'", "'GO'")
    refuse(folder, write_hashes(table, folder, u1={"split": "test"}), "u1", "the part train")
    write_hashes(table, folder)
    soundfile.write(folder / "u3.wav", tone(), 16000)
    (folder / "u3.txt").write_text("NO")
    refuse(folder, table, "u3 is not in")
    for name in ("u3.wav", "u3.txt", "u0.wav", "u0.txt"):
        (folder / name).unlink()
    refuse(folder, table, "1 of 3", "u0")


def write_manifest(folder, split):
    path = folder / f"{split}.json"
    result = run_stage(
        "corpus.manifest", "--index", folder / "corpus.json", "--corpus", folder / "corpus",
        "--split", split, "--manifest", path,
    )  # fmt: skip
    return path, result


def test_every_tenth_speaker_is_val(tmp_path):
    folder = write_folder(tmp_path / "set", ["YES"] * 12)
    table = folder / "t.tsv"
    rows = [f"u{n}.wav\tYES\t{chr(ord('a') + n % 11)}" for n in range(12)]
    table.write_text("\n".join(["path\ttranscript\tspeaker", *rows]) + "\n")
    assert run_corpus("tsv", table, tmp_path).returncode == 0
    found = {}
    for split in ("train", "val", "all"):
        path, result = write_manifest(tmp_path, split)
        assert result.returncode == 0, result.stderr
        found[split] = {sample["id"] for sample in json.loads(path.read_text())["samples"]}
    assert found["val"] == {"u0", "u11", "u10"}  # of speakers a and k, the first and eleventh
    assert found["train"] == found["all"] - found["val"] and len(found["all"]) == 12
    path, result = write_manifest(tmp_path, "test")
    assert_one_line_error(result, "the split 'test'", "choose another")
    assert not path.exists()


def test_one_speaker_alone_is_not_held_out(tmp_path):
    folder = write_folder(tmp_path / "set")
    table = folder / "t.tsv"
    table.write_text("path\ttranscript\tspeaker\nu0.wav\tYES\tme\nu1.wav\tGO\tme\n")
    assert run_corpus("tsv", table, tmp_path).returncode == 0
    path, result = write_manifest(tmp_path, "train")
    assert result.returncode == 0, result.stderr
    assert len(json.loads(path.read_text())["samples"]) == 2
    assert_one_line_error(write_manifest(tmp_path, "val")[1], "only one speaker")
