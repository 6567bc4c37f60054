"""AN4's packagings, made small, and hostile or damaged archives."""

import bz2
import gzip
import hashlib
import io
import lzma
import random
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from deepspeech2.cli import UserError
from deepspeech2.corpus import archives, corpus, layouts
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


PACKED = {"none": bytes, "gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def told(path):
    """All that comes out of an archive: part, speaker, text and samples by id."""
    layout, sounds = layouts.create("an4", path), {}
    utterances = layout.read(lambda name, sound: sounds.setdefault(name, sound.samples.tobytes()))
    parts = layout.parts_of(utterances)
    return {u.id: (parts[u.id], u.speaker, u.text, sounds[u.id]) for u in utterances}


def same_or_refused(path, data, expected):
    """Whether it is refused, in a line that names the file; all else must be as in the whole."""
    path.write_bytes(data)
    try:
        assert told(path) == expected
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return True
    return False


def with_lists(suffix="raw"):
    lists = {
        f"an4/etc/an4_{part}.fileids": "".join(
            f"{folder}/{speaker}/{name}\n"
            for name, (folder, speaker, _) in UTTERANCES.items()
            if an4.SPLITS[folder] == part
        ).encode()
        for part in ("train", "test")
    }
    return {**lists, **files(suffix)}


def flipped(data, at, random):
    return data[:at] + bytes([data[at] ^ random.randrange(1, 256)]) + data[at + 1 :]


@pytest.mark.parametrize("packing", PACKED)
def test_a_damaged_tar_gives_the_same_or_one_line(tmp_path, packing):
    """Headers flipped, cut at every member and at seeded places, under every compression."""
    chance, pack = random.Random(packing), PACKED[packing]
    path = write_tar(tmp_path / "whole.tar.gz", with_lists())
    plain, expected = gzip.decompress(path.read_bytes()), told(path)
    with tarfile.open(path) as archive:
        headers = [member.offset for member in archive]
    whole = pack(plain)
    assert not same_or_refused(path, whole, expected)
    inner = [plain[:at] for at in headers[1:]]
    inner += [plain[: at + 300] for at in headers]
    inner += [flipped(plain, at + chance.randrange(500), chance) for at in headers * 20]
    zeroed = [plain[:at] + bytes(512) + plain[at + 512 :] for at in headers]
    refused = sum(same_or_refused(path, pack(data), expected) for data in inner + zeroed)
    assert refused > 0.95 * len(inner + zeroed)  # a checksum's last byte does not matter
    outer = [whole[: chance.randrange(len(whole))] for _ in range(50)]
    if packing != "none":  # a tar has checksums of its headers only
        outer += [flipped(whole, chance.randrange(len(whole)), chance) for _ in range(200)]
    refused = sum(same_or_refused(path, data, expected) for data in outer)
    assert refused > 0.8 * len(outer)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_gives_the_same_or_one_line(tmp_path, method):
    path, chance = tmp_path / "a.zip", random.Random(method)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in with_lists().items():
            archive.writestr(name, data)
        headers, index = [one.header_offset for one in archive.infolist()], archive.start_dir
    whole, expected = path.read_bytes(), told(path)
    places = [at + chance.randrange(30) for at in headers * 10]
    places += [chance.randrange(len(whole)) for _ in range(200)]
    places += range(index, len(whole))
    cuts = [*headers[1:], *(chance.randrange(len(whole)) for _ in range(50))]
    for data in [whole[:at] for at in cuts] + [flipped(whole, at, chance) for at in places]:
        same_or_refused(path, data, expected)


def test_a_zip_whose_index_hides_members_is_refused(tmp_path):
    """The comment of one entry is as long as the next entry."""
    path = write_zip(tmp_path / "a.zip", files())
    whole = path.read_bytes()
    entries = []
    at = whole.find(b"PK\x01\x02")
    while at >= 0:
        entries.append(at)
        at = whole.find(b"PK\x01\x02", at + 4)
    data = bytearray(whole)
    data[entries[0] + 32 : entries[0] + 34] = (entries[2] - entries[1]).to_bytes(2, "little")
    path.write_bytes(data)
    refuse(path, None, "members found")


def test_bytes_behind_the_end(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz", files())
    plain, expected = gzip.decompress(path.read_bytes()), told(path)
    assert not same_or_refused(path, plain + bytes(1 << 20), expected)
    assert same_or_refused(path, plain + b"x", expected)
    assert same_or_refused(path, gzip.compress(plain) + b"more", expected)
    assert same_or_refused(path, gzip.compress(plain + plain), expected)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(plain)
        for _ in range(an4.LIMITS.total_bytes >> 20):
            file.write(bytes(1 << 20))
    refuse(path, None, "unpacks to far more")


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    inner = write_zip(tmp_path / "a.zip", {"b": b"c"}).read_bytes()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("a.zip")
        member.size = len(inner)
        archive.addfile(member, io.BytesIO(inner))
    found = archives.members(tmp_path / "a.tar", an4.LIMITS)
    assert [name for name, chunks in found if b"".join(chunks)] == ["a.zip"]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize(
    ("size", "count", "chained"),
    [(3_000_000, 3, False), (1_000_000, 150, False), (4_000, 25_000, False), (50_000, 1_000, True)],
)
def test_all_that_is_inflated_counts(tmp_path, kind, size, count, chained):
    """Names and extended headers: before a member each, or all of them before one."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        body = bytes(b"a" * (size - 1) + b"\0")
    else:
        body = (b"%d comment=" % size).ljust(size - 1, b"a") + b"\n"
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = kind, size
    one = head.tobuf() + body + bytes(-size % 512)
    one += b"" if chained else tarfile.TarInfo("x").tobuf()
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(count):
            file.write(one)
        file.write(bytes(1024))
    code = f"""
import time
from pathlib import Path
from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts
begin = time.process_time()
try:
    layouts.create("an4", Path({str(path)!r})).read(lambda *a: None)
except UserError as error:
    print(error)
status = Path("/proc/self/status").read_text()
print(time.process_time() - begin, status.split("VmHWM:")[1].split()[0])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    line, figures = result.stdout.splitlines()
    seconds, kilobytes = map(float, figures.split())
    assert str(path) in line and kilobytes < 300_000 and seconds < 5, figures


@pytest.mark.parametrize("suffix", ["wav", "sph"])
@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24", "PCM_U8", "ULAW"])
def test_samples_of_another_format_are_refused(tmp_path, suffix, subtype):
    container = {"wav": "WAV", "sph": "NIST"}[suffix]
    if not soundfile.check_format(container, subtype):
        return
    content, name = files(suffix), "an3-fcaw-b"
    buffer = io.BytesIO()
    soundfile.write(buffer, samples(name) / 32768, 16000, format=container, subtype=subtype)
    content[f"an4/wav/an4test_clstk/fcaw/{name}.{suffix}"] = buffer.getvalue()
    refuse(write_tar(tmp_path / "a.tar.gz", content), None, name, subtype)


@pytest.mark.parametrize("suffix", ["wav", "sph"])
def test_half_a_recording_is_refused(tmp_path, suffix):
    content, name = files(suffix), f"an4/wav/an4test_clstk/fcaw/an3-fcaw-b.{suffix}"
    content[name] = content[name][: len(content[name]) // 2]
    refuse(write_tar(tmp_path / "a.tar.gz", content), None, "an3-fcaw-b", "cut short")


def test_lists_and_recordings_agree(tmp_path):
    whole = with_lists()
    listed = "an4/etc/an4_train.fileids"
    assert told(write_tar(tmp_path / "a.tar.gz", whole)).keys() == UTTERANCES.keys()
    fewer = {**whole, listed: b"an4_clstk/fash/an1-fash-b\n"}
    refuse(write_tar(tmp_path / "a.tar.gz", fewer), None, "do not list an4_clstk/fbbh/an2-fbbh-b")
    more = {**whole, listed: whole[listed] + b"an4_clstk/fbbh/an9-fbbh-b\n"}
    refuse(write_tar(tmp_path / "a.tar.gz", more), None, "1 no_audio", "an9-fbbh-b")
    other = {**whole, "b/" + listed: whole[listed][:-2]}
    refuse(write_tar(tmp_path / "a.tar.gz", other), None, "an4_train.fileids: a second list")
    again = {**whole, "b/" + listed: whole[listed]}
    assert told(write_tar(tmp_path / "a.tar.gz", again)).keys() == UTTERANCES.keys()
    second = {**whole, "b/etc/an4_test.transcription": b"GO (an3-fcaw-b)\n"}
    refuse(write_tar(tmp_path / "a.tar.gz", second), None, "an4_test.transcription: a second list")


def test_the_collected_archives(shared):
    for path in sorted((shared / "cases/an4_damage_accepted").glob("*.tar*")):
        if path.name == "good.tar.gz":
            assert len(told(path)) == 4
        else:
            refuse(path, None, path.name)
