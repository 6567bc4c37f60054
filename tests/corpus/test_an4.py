"""AN4's packagings, made small, and hostile or damaged archives."""

import bz2
import gzip
import hashlib
import io
import lzma
import resource
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from deepspeech2.cli import UserError
from deepspeech2.corpus import corpus, layouts
from deepspeech2.corpus.layouts import an4
from helpers import tone

UTTERANCES = {  # id: (folder, speaker, transcription line)
    "an1-fash-b": ("an4_clstk", "fash", "<s> YES </s> (an1-fash-b)"),
    "an2-fbbh-b": ("an4_clstk", "fbbh", "GO (an2-fbbh-b)"),
    "an3-fcaw-b": ("an4test_clstk", "fcaw", "RUBOUT G M (an3-fcaw-b)"),
}


def samples(name):
    return (tone(0.3, seed=len(name) + ord(name[2])) * 20000).astype(np.int16)


def encode(name, suffix):
    if suffix == "raw":
        return samples(name).astype(">i2").tobytes()
    buffer = io.BytesIO()
    container = {"wav": "WAV", "sph": "NIST"}[suffix]
    soundfile.write(buffer, samples(name), 16000, format=container, subtype="PCM_16")
    return buffer.getvalue()


def files(suffix="raw", root="an4/"):
    content = {}
    for part in ("train", "test"):
        folder = {"train": "an4_clstk", "test": "an4test_clstk"}[part]
        lines = [line for place, _, line in UTTERANCES.values() if place == folder]
        text = "\n".join(lines) + "\n"
        content[f"{root}etc/an4_{part}.transcription"] = text.encode()
    for name, (folder, speaker, _) in UTTERANCES.items():
        content[f"{root}wav/{folder}/{speaker}/{name}.{suffix}"] = encode(name, suffix)
    return content


def write_tar(path, content, extra=()):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return path


def write_zip(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def write_folder(path, content):
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def hashes(path, **changes):
    rows = ["split\tid\tsamples\tpcm_sha256\ttranscript"]
    for name, (folder, _, line) in UTTERANCES.items():
        digest = hashlib.sha256(samples(name).astype("<i2").tobytes()).hexdigest()
        text = line.replace("<s>", "").replace("</s>", "").partition("(")[0].strip()
        rows.append(f"{an4.SPLITS[folder]}\t{name}\t4800\t{changes.get(name, digest)}\t{text}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("suffix", ["raw", "sph", "wav"])
@pytest.mark.parametrize("packing", ["tar", "zip", "folder", "github"])
def test_every_packaging_gives_the_same_corpus(tmp_path, suffix, packing):
    root = {"github": "an4-master/", "folder": ""}.get(packing, "an4/")
    content = files(suffix, root)
    write = {"zip": write_zip, "folder": write_folder}.get(packing, write_tar)
    source = write(tmp_path / "corpus", content)
    utterances = read(source, hashes(tmp_path / "hashes.tsv"), tmp_path / "out")
    keys = ("id", "split", "speaker", "transcript")
    assert [tuple(u[key] for key in keys) for u in utterances] == [
        ("an1-fash-b", "val", "fash", "YES"),
        ("an2-fbbh-b", "train", "fbbh", "GO"),
        ("an3-fcaw-b", "test", "fcaw", "RUBOUT G M"),
    ]
    for name in UTTERANCES:
        found, rate = soundfile.read(tmp_path / f"out/wav/{name}.wav", dtype="int16")
        assert rate == 16000
        np.testing.assert_array_equal(found, samples(name))


def read(source, table, folder):
    """What the corpus stage writes, compared with a table of hashes where there is one."""
    layout = layouts.create("an4", source)
    return corpus.write(layout, folder, "keep", corpus.Identity(table))


def refuse(source, table, *words):
    with pytest.raises(UserError) as error, tempfile.TemporaryDirectory() as folder:
        read(source, table, Path(folder))
    for word in words:
        assert word in str(error.value)


def test_one_changed_sample_is_found(tmp_path):
    content = files()
    name = "an4/wav/an4test_clstk/fcaw/an3-fcaw-b.raw"
    data = bytearray(content[name])
    data[100] ^= 1
    source = write_tar(tmp_path / "a.tar.gz", {**content, name: bytes(data)})
    refuse(source, hashes(tmp_path / "h.tsv"), "an3-fcaw-b", "samples differ", "fetch")


def test_missing_and_foreign_utterances_are_named(tmp_path):
    content = files()
    table = hashes(tmp_path / "h.tsv")
    partial = {k: v for k, v in content.items() if "an2" not in k}
    refuse(write_tar(tmp_path / "a.tar.gz", partial), table, "1 no_audio", "an2-fbbh-b")
    lines = {k: v.replace(b"GO (an2-fbbh-b)\n", b"") for k, v in partial.items()}
    refuse(write_tar(tmp_path / "a.tar.gz", lines), table, "1 of 3", "an2-fbbh-b")
    foreign = {**content, "an4/wav/an4_clstk/fash/an9-fash-b.raw": encode("an1-fash-b", "raw")}
    refuse(write_tar(tmp_path / "b.tar.gz", foreign), table, "an9-fash-b")


def test_a_second_recording_of_an_utterance_is_refused(tmp_path):
    content = {**files(), **files("wav")}
    refuse(write_tar(tmp_path / "a.tar.gz", content), None, "second recording")


def test_a_changed_transcript_is_found(tmp_path):
    content = files()
    name = "an4/etc/an4_test.transcription"
    content[name] = b"RUBOUT G N (an3-fcaw-b)\n"
    refuse(write_tar(tmp_path / "a.tar.gz", content), hashes(tmp_path / "h.tsv"), "RUBOUT G N")


@pytest.mark.parametrize(
    ("line", "word"),
    [(b"", "no transcript"), (b" (an3-fcaw-b)\n", "no transcript"), (b"GO\n", "line 1")],
)
def test_bad_transcription_files_are_named(tmp_path, line, word):
    content = {**files(), "an4/etc/an4_test.transcription": line}
    refuse(write_tar(tmp_path / "a.tar.gz", content), None, word)


@pytest.mark.parametrize("size", [0, 3, 100])
def test_a_cut_or_too_short_recording_is_refused(tmp_path, size):
    name = "an4/wav/an4test_clstk/fcaw/an3-fcaw-b.raw"
    content = {**files(), name: bytes(range(size))}
    refuse(write_tar(tmp_path / "a.tar.gz", content), None, "an3-fcaw-b")


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "an4/../../evil", "C:\\evil"])
def test_a_member_that_leaves_the_folder_is_refused(tmp_path, name):
    for write in (write_tar, write_zip):
        source = write(tmp_path / "a", {**files(), name: b"x"})
        refuse(source, None, "outside")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("an4/wav/an4_clstk/fash/an5-fash-b.raw")
    member.type, member.linkname = kind, "/etc/passwd"
    refuse(write_tar(tmp_path / "a.tar.gz", files(), [member]), None, "link or device")


def test_a_link_that_leaves_an_unpacked_folder_is_refused(tmp_path):
    source = write_folder(tmp_path / "corpus", files(root=""))
    secret = tmp_path / "secret.raw"
    secret.write_bytes(encode("an1-fash-b", "raw"))
    (source / "wav/an4_clstk/fash/an5-fash-b.raw").symlink_to(secret)
    refuse(source, None, "link that leaves")


def test_bombs_are_refused_before_they_unpack(tmp_path):
    big = tarfile.TarInfo("an4/wav/an4_clstk/fash/an5-fash-b.raw")
    big.size = 1 << 40
    path = tmp_path / "declared.tar.gz"
    path.write_bytes(gzip.compress(big.tobuf()))  # declares a terabyte, holds nothing
    refuse(path, None, "unpacks to far more")
    zeros = {f"an4/junk{i}": bytes(4 << 20) for i in range(130)}
    refuse(write_tar(tmp_path / "zeros.tar.gz", zeros), None, "unpacks to far more")
    many = {f"an4/junk{i}": b"" for i in range(an4.LIMITS.members + 1)}
    refuse(write_tar(tmp_path / "many.tar.gz", many), None, "unpacks to far more")


def test_damaged_archives_are_refused(tmp_path):
    whole = write_tar(tmp_path / "whole.tar.gz", files()).read_bytes()
    table = hashes(tmp_path / "h.tsv")
    for number, data in enumerate((b"", b"no archive", whole[: len(whole) // 2], whole[:-3000])):
        path = tmp_path / f"{number}.tar.gz"
        path.write_bytes(data)
        refuse(path, table, str(path))
    refuse(tmp_path / "absent.tar.gz", None, "no such")
    refuse(write_tar(tmp_path / "empty.tar.gz", {}), None, "no AN4 audio")


def test_a_zip_link_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", files())
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("an4/wav/an4_clstk/fash/an5-fash-b.raw")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    refuse(path, None, "is a link")


def test_a_long_name_cannot_fill_the_memory(tmp_path):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 3 << 30
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf() + bytes(1 << 20)))
    refuse(path, None, "a.tar.gz", "header")


def test_a_zip_that_lies_about_a_size(tmp_path):
    name = "an4/wav/an4_clstk/fash/an5-fash-b.raw"
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(50 << 20))
    data = path.read_bytes()
    path.write_bytes(data.replace((50 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    refuse(path, None, "a.zip")


@pytest.mark.parametrize("flag", [(6, 1), (8, 99)])
def test_encrypted_and_unknown_zips(tmp_path, flag):
    path = write_zip(tmp_path / "a.zip", files())
    data = bytearray(path.read_bytes())
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = data.find(signature)
        while at >= 0:
            data[at + flag[0] + shift] = flag[1]
            at = data.find(signature, at + 4)
    path.write_bytes(data)
    refuse(path, None, "a.zip", "not a whole tar or zip")


def test_a_transcription_line_of_spaces_is_read_at_once(tmp_path):
    content = {**files(), "an4/etc/an4_test.transcription": b"A" + b" " * 1_000_000 + b"B"}
    refuse(write_tar(tmp_path / "a.tar.gz", content), None, "line 1")


def test_an_utterance_in_the_wrong_split_and_other_rates(tmp_path):
    content = files("wav")
    moved = {k.replace("an4test_clstk", "an4_clstk"): v for k, v in content.items()}
    table = hashes(tmp_path / "h.tsv")
    refuse(write_tar(tmp_path / "a.tar.gz", moved), table, "in the part train, but in test")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples("an3-fcaw-b"), 8000, format="WAV", subtype="PCM_16")
    content["an4/wav/an4test_clstk/fcaw/an3-fcaw-b.wav"] = buffer.getvalue()
    refuse(write_tar(tmp_path / "b.tar.gz", content), None, "8000 Hz")


def test_a_table_of_hashes_that_is_none(tmp_path):
    source = write_tar(tmp_path / "a.tar.gz", files())
    for text in ("id\tpcm_sha256\nan1-fash-b\tx\n", "x" * 200_000 + "\n1\n"):
        (tmp_path / "h.tsv").write_text(text)
        refuse(source, tmp_path / "h.tsv", "h.tsv: line 1: needs the headings")


def test_a_fetched_archive_that_is_damaged_names_the_command(tmp_path):
    (tmp_path / "archive").write_bytes(b"\x1f\x8bx")
    refuse(tmp_path / "archive", None, f"--force {tmp_path}/archive")


CASES = {  # damaged archives of which no table of hashes is given
    "gz_bitflip.tar.gz": "CRC check failed",
    "gz_no_trailer.tar.gz": "ended before",
    "header.tar": "damaged header",
    "cut_at_member.tar": "cut short",
    "wav_cut.tar": "cut short",
    "sph_cut.tar": "cut short",
    "float.tar": "samples as float32",
    "dup_etc.tar": "duplicate",
}


@pytest.mark.parametrize("name", CASES)
def test_the_cases_of_damage(shared, name):
    folder = shared / "cases" / "an4_damage_accepted"
    assert len(layouts.create("an4", folder / "good.tar.gz").read(lambda *_: None)) == 4
    with pytest.raises(UserError, match=CASES[name]):
        layouts.create("an4", folder / name).read(lambda *_: None)


OPENED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", OPENED)
def test_every_cut_and_every_damaged_header_is_refused(tmp_path, suffix):
    whole = gzip.decompress(write_tar(tmp_path / "whole", files("raw")).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        heads = [member.offset for member in archive]
    packed = OPENED[suffix](whole)
    end = len(packed if suffix else whole.rstrip(b"\0"))  # zeros fill up the last block
    cuts = [packed[: end * place // 40] for place in range(1, 40)]
    cuts += [OPENED[suffix](whole[:head]) for head in heads]
    damaged = []
    for head in heads:  # a checksum, a name and a size
        for place in (head + 150, head + 3, head + 130):
            data = bytearray(whole)
            data[place] ^= 1
            damaged.append(OPENED[suffix](bytes(data)))
    path = tmp_path / f"an4.tar{suffix}"
    for data in (*cuts, *damaged):
        path.write_bytes(data)
        with pytest.raises(UserError):
            layouts.create("an4", path).read(lambda *_: None)


@pytest.mark.parametrize("behind", [b"\0" * 20_000, b"x", b"x" * 10_240])
def test_what_is_behind_an_archives_end(tmp_path, behind):
    whole = gzip.decompress(write_tar(tmp_path / "whole", files("raw")).read_bytes())
    path = tmp_path / "an4.tar"
    path.write_bytes(whole + behind)
    if behind.strip(b"\0"):
        with pytest.raises(UserError, match="behind its end"):
            layouts.create("an4", path).read(lambda *_: None)
    else:
        assert len(layouts.create("an4", path).read(lambda *_: None)) == 3


@pytest.mark.parametrize("size", [(4 << 20) - 512, (1 << 20) - 512])
def test_long_names_are_counted(tmp_path, size):
    """Six gigabytes of names in some megabytes."""
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = b"L", size
    member = name.tobuf(tarfile.GNU_FORMAT) + b"n" * (size - 1) + bytes(1 + -size % 512)
    member += tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)
    one = gzip.compress(member * 16)
    path = tmp_path / "an4.tar.gz"
    path.write_bytes(one * ((6 << 30) // len(member) // 16))
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="larger than any"):
        layouts.create("an4", path).read(lambda *_: None)
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def test_recordings_that_only_the_lists_name(tmp_path):
    content = files()
    content["an4/etc/an4_train.fileids"] = b"an4_clstk/fash/an1-fash-b\nan4_clstk/fash/an9-fash-b\n"
    source = write_tar(tmp_path / "an4.tar.gz", content)
    with pytest.raises(UserError, match="no_audio.*an9-fash-b"):
        layouts.create("an4", source).read(lambda *_: None)
