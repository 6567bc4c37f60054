"""The layout `an4`: CMU's alphanumeric speech corpus (1991), in any of its packagings.

948 training utterances of 74 speakers and 130 test utterances of 10 others: spelled names,
addresses, numbers, dates and commands, 16 kHz, 16 bit, mono. The archive holds `etc/` with file
lists and transcriptions and `wav/<split>/<speaker>/<id>`, as headerless big-endian samples
(`.raw`), NIST Sphere (`.sph`) or RIFF (`.wav`). What identifies the corpus in every packaging is
the SHA-256 of each utterance's samples (little-endian int16).

Archives are never unpacked: audio leaves this module as samples under an id of letters, digits and
dashes, so no member can choose where it is written.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from deepspeech2.cli import UserError
from deepspeech2.corpus import OTHER, archives, audio, folders, layouts
from deepspeech2.corpus.utterance import Utterance, held_out

SPLITS = {"an4_clstk": "train", "an4test_clstk": "test"}
# The largest packaging has about 1,200 members; the longest utterance has 0.2 MB, the largest list
# 41 kB, all audio 92 MB.
LIMITS = archives.Limits(20_000, 4 << 20, 512 << 20, "AN4")
FORM = ("PCM_16", audio.SAMPLE_RATE, 1)  # of its recordings
LOOKED_AT = 50  # members of an archive in which `claims` looks

AUDIO_MEMBER = re.compile(
    r"(?:^|/)wav/(an4_clstk|an4test_clstk)/([A-Za-z0-9]+)/([A-Za-z0-9-]+)\.(raw|sph|wav)$"
)
AUDIO_FOLDER = re.compile(r"(?:^|/)wav/(?:an4_clstk|an4test_clstk)/[A-Za-z0-9]+/[^./][^/]*$")
TEXT_MEMBER = re.compile(r"(?:^|/)etc/an4_(?:train|test)\.transcription$")
LIST_MEMBER = re.compile(r"(?:^|/)etc/an4_(?:train|test)\.fileids$")
LISTED = re.compile(r"^((?:an4_clstk|an4test_clstk)/[A-Za-z0-9]+/[A-Za-z0-9-]+)\s*$", re.M)
UTTERANCE_ID = re.compile(r"[A-Za-z0-9-]+\)")
MAX_LINE = 10_000  # characters; the longest transcription has about 100


class Layout(layouts.Layout):
    """See the module. An utterance's `audio` is the member's name, which says its part."""

    parts = ("train", "val", "test")
    may_have_test = True
    reads_archives = True

    @classmethod
    def claims(cls, source: Path) -> str | None:
        if source.is_dir():
            found = source.glob("etc/*.transcription"), source.glob("*/etc/*.transcription")
            names = (path.relative_to(source).as_posix() for path in itertools.chain(*found))
        else:
            names = _first_names(source) if source.is_file() else ()
        return next(filter(TEXT_MEMBER.search, names), None)

    def read(self, keep: layouts.Keep) -> list[Utterance]:
        source, texts, lists = self.source, {}, {}
        utterances: dict[str, Utterance] = {}
        recorded, listed = set(), set()  # folder/speaker/id
        self.passed_over.clear()
        for name, data in _members(source):
            where = f"{source}: {name}"
            if data is None:
                lost = AUDIO_FOLDER.search(name) and folders.kind(name) == "audio"
                self.pass_over("unreadable" if lost else OTHER, where)
                continue
            match = AUDIO_MEMBER.search(name)
            if not match and lists.setdefault(name.rpartition("/")[2], data) != data:
                raise UserError(f"{where}: a second list of this name, which differs; remove one")
            if LIST_MEMBER.search(name):
                listed.update(LISTED.findall(data.decode("utf-8", "replace")))
                self.pass_over(OTHER, where)
                continue
            if not match:
                for utterance, text in _transcripts(data, where):
                    if texts.setdefault(utterance, text) != text:
                        self.pass_over("duplicate", f"{where}: a second transcript of {utterance}")
                continue
            folder, speaker, utterance, suffix = match.groups()
            recorded.add(f"{folder}/{speaker}/{utterance}")
            if utterance in utterances:
                raise UserError(f"{where}: a second recording of utterance {utterance}")
            keep(utterance, audio.Audio(_samples(data, suffix, where), []))
            utterances[utterance] = Utterance(utterance, name, speaker=speaker)
        if not utterances:
            raise UserError(
                f"{source}: no AN4 audio in it (looked for wav/an4_clstk/<speaker>/<id>.raw, .sph, "
                ".wav); give AN4's archive or its unpacked folder"
            )
        with_list = {place.partition("/")[0] for place in listed}
        for place in sorted(recorded - listed):
            if place.partition("/")[0] in with_list:
                raise UserError(f"{source}: etc/*.fileids do not list {place}; fetch it again")
        expected = texts.keys() | {place.rpartition("/")[2] for place in listed}
        for name in sorted(expected - utterances.keys()):
            self.pass_over("no_audio", f"utterance {name}")
        found = []
        for name, utterance in utterances.items():
            if name not in texts:
                self.pass_over("no_text", f"utterance {name}, which has no transcript in etc/")
            elif not (texts[name] or self.rules.empty_references):
                self.pass_over("empty_text", f"utterance {name}, which has no transcript in etc/")
            else:
                found.append(utterance._replace(text=texts[name]))
        self.require_allowed()
        return found

    def files(self) -> list[Path]:
        source = self.source
        return layouts.regular(_files(source) if source.is_dir() else [source])

    def parts_of(self, utterances: Sequence[Utterance]) -> dict[str, str]:
        parts = {u.id: SPLITS[AUDIO_MEMBER.search(u.audio).group(1)] for u in utterances}
        val = held_out(u.speaker for u in utterances if parts[u.id] == "train")
        for utterance in utterances:
            if parts[utterance.id] == "train" and utterance.speaker in val:
                parts[utterance.id] = "val"
        return parts


Members = Iterator[tuple[str, Optional[bytes]]]  # names and contents


def _matters(name: str) -> bool:
    return any(kind.search(name) for kind in (AUDIO_MEMBER, TEXT_MEMBER, LIST_MEMBER))


def _members(source: Path) -> Members:
    """Name and bytes of each regular file, None where they do not matter.

    Every unsafe member is refused.
    """
    if source.is_dir():
        yield from _folder_members(source)
        return
    for name, chunks in archives.members(source, LIMITS, _matters):
        yield name, None if chunks is None else b"".join(chunks)


def _folder_members(source: Path) -> Members:
    guard = archives.Guard(source, LIMITS)
    for folder, files, refused in folders.walk(source):
        for path in (folder / name for name in refused):
            raise UserError(f"{path}: a link that leaves the folder, or leads nowhere")
        for path in (folder / name for name in files):
            name = path.relative_to(source).as_posix()
            if _matters(name) and path.is_file():
                guard(name, path.stat().st_size)
                yield name, path.read_bytes()
            else:
                yield name, None


def _files(source: Path) -> list[Path]:
    return [folder.path / name for folder in folders.walk(source) for name in folder.files]


def _first_names(archive: Path) -> list[str]:
    """Names of the first members, as far as it is an archive."""
    try:
        return [name for name, _ in itertools.islice(_members(archive), LOOKED_AT)]
    except UserError:
        return []


def _samples(data: bytes, suffix: str, where: str) -> np.ndarray:
    """int16 samples (n,) of one recording."""
    if suffix == "raw":
        if len(data) % 2:
            raise UserError(f"{where}: cut short (an odd number of bytes); fetch the archive again")
        samples = np.frombuffer(data, ">i2").astype(np.int16)
    else:
        samples = _decode(data, suffix, where)
    audio.check(samples, where)
    if len(samples) < audio.MIN_SAMPLES:
        raise UserError(f"{where}: only {len(samples)} samples long; fetch the archive again")
    return samples


def _decode(data: bytes, suffix: str, where: str) -> np.ndarray:
    import soundfile  # not needed for the raw packaging

    with tempfile.NamedTemporaryFile(suffix=f".{suffix}") as file:
        file.write(data)
        file.flush()
        try:
            with soundfile.SoundFile(file.name) as sound:
                form = sound.subtype, sound.samplerate, sound.channels
            if form != FORM:
                raise UserError("{}, {} Hz, {} channels: not AN4".format(*form))
            return audio.read(file.name).samples
        except (UserError, soundfile.LibsndfileError, RuntimeError) as error:
            reason = str(error).replace(f"{file.name}: ", "")
            raise UserError(f"{where}: not readable as AN4's audio ({reason})") from None


def _transcripts(data: bytes, where: str) -> Iterator[tuple[str, str]]:
    """Id and transcript of lines like `<s> YES </s> (an251-fash-b)`, with or without the tags."""
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{where}: not a text file") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        text, _, utterance = line[:MAX_LINE].strip().rpartition("(")
        if not UTTERANCE_ID.fullmatch(utterance):
            raise UserError(f"{where}: line {number}: expected `TEXT (id)`, found {line[:60]!r}")
        words = [word for word in text.split() if word not in ("<s>", "</s>")]
        yield utterance[:-1], " ".join(words)
