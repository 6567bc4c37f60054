"""Damage to files, by what knows their format. All of it is drawn from a seeded `random.Random`."""

import copy
import io
import json
import math
import pickletools
import re
import tarfile
import zipfile
from random import Random

from deepspeech2 import files

CANARY = "canary"  # the file that content which is executed would make
# What stands at the edges of what programs expect of a number, a text and a JSON value.
NUMBERS = (
    0,
    1,
    -1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFF,
    1 << 62,
    (1 << 64) - 1,
)
WORDS = (
    "", " ", "\0", "\ud800", "\u202e", "é", "../../canary", "/etc/passwd", "~", "nan", "-inf",
    "1e999", "9" * 400, "A" * 20_000, "$(touch canary)", "{{7*7}}", "<script>", "=1+1", "\t", "\r",
    "\n", '"', "\\",
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 0.5, 1e308, -1e-308, math.nan, math.inf, 1 << 70, [], {}, [[]],
    {"": {}}, [None] * 2000, {"a": 1, "b": [{}]}, *WORDS,
)  # fmt: skip
DEEP = 3000  # levels; more than Python's recursion limit


def any_bytes(data: bytes, random: Random, head: int = 0) -> bytes:
    """A few changes of any bytes, half of them within the first `head`."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        reach = head if head and random.random() < 0.5 else len(changed)
        place = random.randrange(max(1, min(reach, len(changed))))
        _change(changed, place, random)
    return bytes(changed)


def _change(changed: bytearray, place: int, random: Random) -> None:
    other = random.randrange(max(1, len(changed)))
    length = random.choice((1, 2, 4, 16, 300))
    kind = random.randrange(8)
    if kind == 0:
        del changed[place:]
    elif kind == 1:
        del changed[place : place + length]
    elif kind == 2:
        changed[place:place] = random.randbytes(length)
    elif kind == 3:
        changed[place : place + length] = changed[other : other + length]
    elif kind == 4:
        changed[place:place] = changed[other : other + length]
    elif kind == 5:
        size, order = random.choice((1, 2, 4, 8)), random.choice(("little", "big"))
        number = random.choice(NUMBERS) % (1 << 8 * size)
        changed[place : place + size] = number.to_bytes(size, order)
    elif changed:
        changed[min(place, len(changed) - 1)] ^= 1 << random.randrange(8)


def header(size: int, but=()):
    """Changes within the first `size` bytes alone, without those at `but`; the length stays."""

    def change(data: bytes, random: Random) -> bytes:
        start = bytearray(data[:size])
        for _ in range(random.choice((1, 1, 2, 4))):
            place = random.randrange(len(start))
            if random.random() < 0.5:
                start[place] ^= 1 << random.randrange(8)
            else:
                width = random.choice((1, 2, 4, 8))
                number = random.choice(NUMBERS) % (1 << 8 * width)
                piece = number.to_bytes(width, random.choice(("little", "big")))
                start[place : place + width] = piece[: len(start) - place]
        for place in but:
            start[place] = data[place]
        return bytes(start) + data[size:]

    return change


def lines(data: bytes, random: Random) -> bytes:
    """Lines and cells of a table or text: moved, repeated, lost, or hostile."""
    if random.random() < 0.25:
        return any_bytes(data, random)
    rows = data.split(b"\n")
    place = random.randrange(len(rows))
    cells = re.split(rb"([\t,| ])", rows[place])
    kind = random.randrange(6)
    if kind == 0:
        del rows[place]
    elif kind == 1:
        rows.insert(random.randrange(len(rows)), rows[place])
    elif kind == 2:
        rows[place] = rows[random.randrange(len(rows))]
    elif kind == 3:
        cells[random.randrange(len(cells))] = _encoded(random.choice(WORDS))
        rows[place] = b"".join(cells)
    elif kind == 4:
        del cells[random.randrange(len(cells))]
        rows[place] = b"".join(cells)
    else:
        found = list(re.finditer(rb"\d+(?:\.\d+)?", rows[place]))
        if found:
            start, end = random.choice(found).span()
            number = random.choice((b"-1", b"0", b"1e9", b"nan", b"9" * 30, b"0x10", b"", b"1,5"))
            rows[place] = rows[place][:start] + number + rows[place][end:]
    return b"\n".join(rows)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def value(data, random: Random):
    """A JSON value with one of its parts replaced, removed, repeated or renamed."""
    data = copy.deepcopy(data)
    places = []

    def walk(node, depth=0):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)) and depth < 10:
                walk(node[key], depth + 1)

    if isinstance(data, (dict, list)):
        walk(data)
    if not places or random.random() < 0.03:
        return random.choice(VALUES)
    node, key = random.choice(places)
    kind = random.randrange(8)
    if kind == 0:
        del node[key]
    elif kind == 1:
        other, name = random.choice(places)
        node[key] = copy.deepcopy(other[name]) if name in _keys(other) else None
    elif kind == 2 and isinstance(node, dict):
        node[random.choice(WORDS)] = node.pop(key)
    elif kind == 3 and isinstance(node, list):
        node.insert(key, copy.deepcopy(node[key]))
    elif kind == 4 and isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
        node[key] = random.choice((-node[key], node[key] + 1, node[key] * 1e9, node[key] / 3))
    else:
        node[key] = random.choice(VALUES)
    return data


def of_other_kinds(data: bytes, random: Random) -> bytes:
    """A sealed object with one value, at any depth, of another kind, and a seal that fits."""
    content = json.loads(data)
    del content[files.SEAL]
    places = [(content, key) for key in content]
    for node, key in places:
        if isinstance(node[key], (dict, list)):
            places += [(node[key], inner) for inner in _keys(node[key])]
    node, key = random.choice(places)
    kinds = (None, True, 3, -1, 0.5, "a", "", [], ["a"], [1, 2], {}, {"a": 1})
    node[key] = random.choice([v for v in kinds if type(v) is not type(node[key])])
    return json.dumps({**content, files.SEAL: files.seal(content)}).encode()


def _keys(node):
    return [*node] if isinstance(node, dict) else range(len(node))


def json_text(data: bytes, random: Random) -> bytes:
    """JSON, or lines of it: another value, another text, or nested too deeply."""
    kind = random.randrange(12)
    if kind < 2:
        return any_bytes(data, random)
    if kind == 2:
        return b'{"a":' * DEEP + b"1" + b"}" * DEEP
    rows = data.split(b"\n") if _is_lines(data) else [data]
    place = random.randrange(len(rows))
    if not rows[place].strip().startswith((b"{", b"[")):
        return lines(data, random)
    rows[place] = _encoded(json.dumps(value(json.loads(rows[place].decode("utf-8-sig")), random)))
    return b"\n".join(rows)


def _is_lines(data: bytes) -> bool:
    return b"\n{" in data.strip()


def pickled(data: bytes, random: Random) -> bytes:
    """A pickle with opcodes lost, repeated, exchanged or added; or a call of a program."""
    try:
        starts = [place for _, _, place in pickletools.genops(data)]
    except Exception:  # not one, or no more
        return any_bytes(data, random, 200)
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], starts[-1] + 1], strict=True)]
    rest = data[starts[-1] + 1 :]
    calls = (
        b"cos\nsystem\n(S'touch canary'\ntR", b"c__builtin__\neval\n(S'open(\"canary\",\"w\")'\ntR",
        b"cposix\nsystem\n", b"cbuiltins\ngetattr\n", b"ccollections\nOrderedDict\n)R",
    )  # fmt: skip
    for _ in range(random.choice((1, 1, 2, 3))):
        place = random.randrange(2, len(pieces))
        kind = random.randrange(6)
        if kind == 0:
            del pieces[place]
        elif kind == 1:
            pieces.insert(place, pieces[random.randrange(len(pieces))])
        elif kind == 2:
            other = random.randrange(2, len(pieces))
            pieces[place], pieces[other] = pieces[other], pieces[place]
        elif kind == 3:
            pieces.insert(place, random.choice(calls))
        elif kind == 4:
            opcodes = [o.code.encode("latin-1") for o in pickletools.opcodes]
            pieces[place] = random.choice(opcodes) + pieces[place][1:]
        else:
            pieces[place] = pieces[place][:1] + any_bytes(pieces[place][1:] or b"\0", random)
        if len(pieces) < 3:
            break
    return b"".join(pieces) + rest


def zipped(change=any_bytes):
    """A zip: its headers, its members' names and order, or by `change` the content of one."""

    def mutate(data: bytes, random: Random) -> bytes:
        if random.random() < 0.4:
            heads = [m.start() for m in re.finditer(rb"PK[\1\3\5][\2\4\6]", data)]
            changed = bytearray(data)
            _change(changed, random.choice(heads) + random.randrange(46), random)
            return bytes(changed)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(i.filename, archive.read(i)) for i in archive.infolist()]
        place = random.randrange(len(members))
        name, content = members[place]
        kind = random.randrange(6)
        if kind == 0:
            del members[place]
        elif kind == 1:
            members.append(members[place])
        elif kind == 2:
            word = re.sub("[\0\ud800]", "", random.choice(WORDS)) or "x"
            members[place] = (random.choice((word, f"../{CANARY}", name + word)), content)
        else:
            members[place] = (name, change(content, random))
        out = io.BytesIO()
        packing = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(out, "w", packing) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return out.getvalue()

    return mutate


def tarred(data: bytes, random: Random) -> bytes:
    """A tar: a header with a checksum that fits again, a member lost, repeated, or any bytes."""
    if random.random() < 0.3:
        return any_bytes(data, random, 512)
    changed, heads = bytearray(data), []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        heads = [(m.offset, m.offset_data + (m.size + 511) // 512 * 512) for m in archive]
    start, end = random.choice(heads)
    kind = random.randrange(5)
    if kind == 0:
        del changed[start:end]
    elif kind == 1:
        changed[start:start] = data[start:end]
    else:
        name, size, kinds = slice(0, 100), slice(124, 136), slice(156, 157)
        field = random.choice((name, size, kinds, slice(257, 265), slice(345, 500)))
        head = changed[start : start + 512]
        if field == name:
            word = random.choice((f"../{CANARY}", "/tmp/x", "a", *WORDS[:4]))
            head[name] = _encoded(word)[:100].ljust(100, b"\0")
        elif field == size:
            number = random.choice((0, 1, 511, 10_000, 1 << 32))
            head[size] = random.choice((b"%011o\0" % number, b"\x80" + number.to_bytes(11, "big")))
        elif field == kinds:
            head[kinds] = random.choice(
                (b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"L", b"x", b"S")
            )
        else:
            head[field.start + random.randrange(8)] ^= 1 << random.randrange(8)
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        changed[start : start + 512] = head
    return bytes(changed)


def tensors(data: bytes, random: Random) -> bytes:
    """safetensors: its header's JSON, the length of that, or any bytes."""
    if random.random() < 0.3:
        return any_bytes(data, random, 8)
    size = int.from_bytes(data[:8], "little")
    head = _encoded(json.dumps(value(json.loads(data[8 : 8 + size]), random)))
    length = len(head) if random.random() < 0.9 else random.choice(NUMBERS)
    return (length % (1 << 64)).to_bytes(8, "little") + head + data[8 + size :]
