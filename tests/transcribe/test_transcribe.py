"""The transcriber as people use it: real recordings and the embedded model."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import tarfile
import termios
import time

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from deepspeech2.cli import UserError
from deepspeech2.corpus import audio
from deepspeech2.features import spectrogram
from deepspeech2.model.architecture import Architecture
from deepspeech2.scoring.alignment import count_errors
from deepspeech2.transcribe import engine as engines
from deepspeech2.transcribe.recognise import segments
from helpers import (
    LABELS,
    assert_one_line_error,
    python_without,
    run_stage,
    tone,
    write_safetensors,
)

SAMPLE = ROOT / "resources" / "sample" / "audio"
FIRST = SAMPLE / "sample-001.flac"


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """A cache of these tests' own, which they share."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "deepspeech2"


@pytest.fixture(scope="module")
def network(cache):
    chosen = engines.engine_of("native-int8")
    with engines.ready(engines.checkpoint_of("embedded"), chosen) as folder:
        network = engines.Network(chosen, folder)
        yield network
        network.close()


def decoder(network):
    from deepspeech2.scoring import decoders

    return decoders.create(decoders.Settings("greedy", {}), network.labels)


def text_of(network, samples):
    found = segments(iter([samples]), network, decoder(network))
    return " ".join(segment.text for _, segment in found if segment)


def sound(path):
    return audio.to_float(audio.read(path).samples)


def test_a_short_recording_has_the_transcript_of_the_table(network):
    """What the workflow's stages compute of an utterance, unless it pauses for half a second."""
    same, paths = 0, sorted(SAMPLE.glob("*.flac"))
    for path in paths:
        features = spectrogram.compute(sound(path), network.spectrogram)
        (posteriors,) = network.posteriors([features])
        table = decoder(network)(posteriors).text
        same += text_of(network, sound(path)).split() == table.split()
    assert same >= 0.9 * len(paths)


def test_words_have_the_times_of_the_recording(network):
    samples = sound(FIRST)
    ((_, alone),) = segments(iter([samples]), network, decoder(network))
    later = np.concatenate([np.zeros(20 * 16000, "f4"), samples, np.zeros(5 * 16000, "f4")])
    ((end, moved),) = segments(iter([later]), network, decoder(network))
    assert moved.text == alone.text and 20 < end <= 25
    for one, other in zip(alone.words, moved.words):
        assert other.start == pytest.approx(one.start + 20, abs=0.1)
        assert other.end == pytest.approx(one.end + 20, abs=0.1)
        assert 19.5 < moved.start <= other.start < other.end <= moved.end


def test_one_recording_has_the_words_of_its_utterances(network, an4_archive):
    """AN4 test in one recording of six minutes: within a point of its utterances by themselves."""
    texts, sounds = [], []
    with tarfile.open(an4_archive) as archive:
        files = {member.name: member for member in archive.getmembers()}
        folder = next(name for name in files if name.endswith("etc/an4_test.transcription"))
        for line in archive.extractfile(files[folder]).read().decode().splitlines():
            words = line.upper().replace("<S>", "").replace("</S>", "").split()
            name = line.rpartition("(")[2].rstrip(")")
            path = next(n for n in files if n.endswith(f"/{name}.raw"))
            samples = np.frombuffer(archive.extractfile(files[path]).read(), ">i2")
            texts.append(words[:-1])
            sounds.append(audio.to_float(samples.astype("i2")))
    alone = [text_of(network, samples).split() for samples in sounds]
    together = text_of(network, np.concatenate(sounds)).split()
    one = count_errors([([word for text in texts for word in text], together)])
    each = count_errors(zip(texts, alone))
    assert one.length == 773 and each.rate < 7
    assert one.rate <= each.rate + 1


def test_windows_are_joined_without_a_seam(network, monkeypatch):
    """What is cut in windows, for want of pauses, has the words of what is cut nowhere."""
    from deepspeech2.transcribe import segments as cutting

    parts = [sound(SAMPLE / f"sample-{n:03}.flac") for n in (1, 2, 3, 5, 6)]
    samples = np.concatenate(parts)
    monkeypatch.setattr(cutting, "is_speech", lambda level, before: np.ones(len(level), bool))
    whole = text_of(network, samples).split()
    monkeypatch.setattr(cutting, "MOST", 6 * cutting.PER_SECOND)
    monkeypatch.setattr(cutting, "USUAL", 5 * cutting.PER_SECOND)
    monkeypatch.setattr(cutting, "OVERLAP", cutting.PER_SECOND)
    joined = text_of(network, samples).split()
    found = [segment for _, segment in segments(iter([samples]), network, decoder(network))]
    assert len(found) == 1  # one chain
    assert count_errors([(whole, joined)]).rate < 25


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_blocks_are_what_the_corpus_reads(tmp_path, rate, channels, suffix):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, tone(5, 1, rate, channels), rate)
    expected = sound(path)
    found = np.concatenate(list(audio.blocks(path)))
    assert abs(len(found) - len(expected)) <= 1  # resampling rounds
    shared = min(len(found), len(expected))
    np.testing.assert_allclose(found[:shared], expected[:shared], atol=1e-6)


def test_formats_and_outputs(tmp_path):
    for kind, suffix in (("text", "txt"), ("json", "json"), ("srt", "srt"), ("ctm", "ctm")):
        done = run_stage("transcribe", FIRST, "--format", kind)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        assert "S" in done.stdout
        output = tmp_path / kind
        output.mkdir()
        assert run_stage("transcribe", FIRST, "--format", kind, "--output", output).stdout == ""
        assert (output / f"sample-001.{suffix}").read_text() == done.stdout
    file = tmp_path / "new" / "x.vtt"
    assert run_stage("transcribe", FIRST, "--format", "vtt", "--output", file).returncode == 0
    assert file.read_text().startswith("WEBVTT\n\n00:")


def test_standard_input_and_folders(tmp_path):
    with open(FIRST, "rb") as file:
        piped = run_stage("transcribe", "-", "--format", "json", stdin=file)
    assert json.loads(piped.stdout)["file"] == "standard input"
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "d.flac").write_bytes(FIRST.read_bytes())
    (tmp_path / "b" / ".hidden.flac").write_bytes(b"")
    (tmp_path / "b" / "notes.txt").write_text("no recording")
    (tmp_path / "b" / "loop").symlink_to("..")
    done = run_stage("transcribe", tmp_path, "--output", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    written = [p.relative_to(tmp_path) for p in (tmp_path / "o").rglob("*") if p.is_file()]
    assert [str(path) for path in written] == ["o/b/c/d.txt"]


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path):
    bad = tmp_path / "a\x1b[31m.wav"
    bad.write_text("text")
    (tmp_path / "empty.wav").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    (tmp_path / "none.wav").symlink_to("nowhere")
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan), 16000, "FLOAT")
    (tmp_path / "z.flac").write_bytes(FIRST.read_bytes())
    done = run_stage("transcribe", tmp_path)
    assert done.returncode == 1
    assert [line.rpartition(": ")[0] for line in done.stdout.splitlines()] == [
        str(tmp_path / "z.flac")
    ]
    lines = done.stderr.splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[-1] == "error: 6 of 8 recordings could not be transcribed; see above"
    assert sum(line.startswith("error: ") for line in lines) == 7
    assert f"{tmp_path / 'silence.wav'}: no speech was found" in lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.wav"], ["missing.wav", "no such"]),
        (["empty"], ["empty", "no recordings"]),
        (["a.wav", "--model", "nix"], ["nix", "embedded"]),
        (["a.wav", "--model", "a.wav"], ["a.wav", "safetensors"]),
        (["a.wav", "--model", "an4-v3"], ["address"]),
        (["a.wav", "--engine", "nix"], ["nix"]),
        (["a.wav", "--output", "a.wav"], ["one of the recordings"]),
        (["a.wav", "--output", "/dev/null"], ["not a file"]),
        (["a.wav", "b/a.wav", "--output", "empty"], ["both"]),
        (["a.wav", "b/a.wav", "--format", "srt"], ["--output"]),
        (["a.wav", "--language-model", "nix.json"], ["nix.json"]),
        (["a.wav", "--stream", "--format", "srt"], ["--stream"]),
        (["-"], ["standard input"]),
    ],
)
def test_mistakes(tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "b").mkdir()
    for path in ("a.wav", "b/a.wav"):
        soundfile.write(tmp_path / path, tone(0.5), 16000)
    options = {"stdin": subprocess.DEVNULL} if arguments == ["-"] else {}
    done = run_stage("transcribe", *arguments, cwd=tmp_path, **options)
    assert_one_line_error(done, *words)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "b", "empty"]


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A recording of half an hour, which begins with another of three minutes."""
    parts = [audio.read(path).samples for path in sorted(SAMPLE.glob("*.flac"))]
    folder = tmp_path_factory.mktemp("long")
    for name, minutes in (("short", 3), ("long", 30)):
        with soundfile.SoundFile(folder / f"{name}.wav", "w", 16000, 1, "PCM_16") as file:
            while file.frames < minutes * 60 * 16000:
                for part in parts:
                    file.write(part)
    return folder


def test_memory_does_not_grow_with_the_recording(long):
    most = []
    for name in ("short", "long"):
        command = [sys.executable, "-m", "deepspeech2.transcribe", str(long / f"{name}.wav")]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        assert status == 0
        most.append(used.ru_maxrss / 1024)
    assert most[1] - most[0] < 80, most  # MiB; the samples alone are 110 MiB as float32


def test_interrupting_leaves_whole_lines(long):
    names = [str(long / f"{number}.wav") for number in range(50)]
    for name in names:  # so many that they are not done before this process has its turn
        os.link(long / "long.wav", name)
    command = [sys.executable, "-m", "deepspeech2.transcribe", *names]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # What a shell starts in the background ignores it, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    first = child.stdout.readline()
    child.send_signal(signal.SIGINT)
    rest, errors = child.communicate()
    assert child.returncode == 130 and errors.startswith("error: interrupted")
    assert first.endswith("\n") and (rest.endswith("\n") or not rest)


def on_terminal(*arguments):
    """What the transcriber shows on a terminal, and its exit status."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "deepspeech2.transcribe", *map(str, arguments)]
    child = subprocess.Popen(command, stdout=its, stderr=its)
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    return shown.decode(), child.wait()


def test_on_a_terminal(long, tmp_path):
    shown, status = on_terminal(FIRST)
    assert status == 0 and shown.endswith("S M Y T H\r\n")
    shown, status = on_terminal(long / "long.wav", "--output", tmp_path / "text")
    assert status == 0 and (tmp_path / "text").read_text().count("\n") > 100
    assert "long.wav:" in shown and "/18" in shown  # the progress bar, in seconds of sound
    checkpoint = tmp_path / "w.safetensors"
    write_safetensors(checkpoint, Architecture(161, len(LABELS), "lstm", 12, 2, False, 20))
    shown, status = on_terminal(FIRST, "--stream", "--model", checkpoint)
    assert status == 0 and "\r\x1b[K" in shown and "error" not in shown


def test_a_reader_may_go_away(long):
    command = f"{sys.executable} -m deepspeech2.transcribe {long / 'long.wav'} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_the_native_engine_starts_without_torch():
    code = f"""
import sys
from deepspeech2 import cli
from deepspeech2.transcribe.__main__ import main
cli.call(main, [{str(FIRST)!r}])
"""
    done = python_without(["torch", "librosa", "snakemake"], code)
    assert done.returncode == 0 and done.stdout == "S M Y T H\n", done.stderr


def test_other_engines_and_checkpoints():
    for engine in ("cpu-fp32", '{"backend": "torchscript", "form": "packed", "buckets": [900]}'):
        done = run_stage("transcribe", FIRST, "--engine", engine)
        assert done.stdout == "S M Y T H\n", done.stderr
    checkpoint = ROOT / "resources/checkpoints/embedded.safetensors"
    assert run_stage("transcribe", FIRST, "--model", checkpoint).stdout == "S M Y T H\n"


def test_what_is_kept_is_used_only_where_it_is_right(cache, network):
    entry, chosen = engines.checkpoint_of("embedded"), engines.engine_of("native-int8")
    with engines.ready(entry, chosen) as folder:
        artefact = folder / engines.ARTEFACT / "weights.safetensors"
        before = artefact.stat()
        content = artefact.read_bytes()
    with engines.ready(entry, chosen):
        assert artefact.stat() == before
    artefact.write_bytes(content[:-1] + b"x")
    with engines.ready(entry, chosen):
        assert artefact.read_bytes() == content
    cache.chmod(0o777)
    try:
        assert engines.cache() is None
        with engines.ready(entry, chosen) as folder:
            assert cache not in folder.parents
        assert not folder.exists()
    finally:
        cache.chmod(0o700)


def test_a_checkpoint_that_changes_is_read_again(tmp_path):
    path = tmp_path / "w.safetensors"
    texts = []
    for content in (ROOT / "resources/checkpoints/embedded.safetensors", None):
        path.write_bytes(content.read_bytes()) if content else write_safetensors(path)
        texts.append(run_stage("transcribe", FIRST, "--model", path).stdout)
        time.sleep(0.01)
    assert texts[0] == "S M Y T H\n" != texts[1]
    with pytest.raises(UserError, match="neither a file nor"):
        engines.checkpoint_of(str(tmp_path / "nix"))
