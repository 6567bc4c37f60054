"""The backend `native`: equal to the plain network, and the same bits whatever is beside it."""

import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from deepspeech2 import engines
from deepspeech2.cli import UserError
from deepspeech2.engines import Engine
from deepspeech2.engines.native import (
    instructions,
    kernels,
    layout,
    packing,
    session,
    tiles,
    vectors,
)
from deepspeech2.model.architecture import Architecture
from helpers import LABELS, run_stage, stages_to_features, tiny_description, write_safetensors
from networks import ARCHITECTURES, batch, make, run, valid

ENGINE = Engine("native", "cpu", "fp32", "static", "batch", (), {})
# Largest difference of a posterior of tiny networks, seen: 7e-8, 3e-4, 1.4e-3.
TOLERANCES = {"fp32": 2e-7, "bf16": 1e-3, "int8": 4e-3}


def open_session(folder, architecture, precision="fp32", threads=1):
    description = tiny_description(architecture)
    if architecture.classes != len(LABELS):
        description["labels"] = LABELS[: architecture.classes]
        description["spectrogram"]["window_size"] = 2 * (architecture.bins - 1) / 16000
    weights = write_safetensors(folder / "model.safetensors", architecture, None, description)
    backend = engines.create(ENGINE._replace(precision=precision))
    backend.prepare()
    artefact = folder / precision
    if not artefact.exists():
        artefact.mkdir()
        backend.compile(weights, [], artefact)
    return backend.open(artefact, threads)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_it_computes_what_the_network_computes(tmp_path, architecture, precision):
    net = make(architecture, "static")
    session = open_session(tmp_path, architecture, precision)
    for size, frames in ((1, 161), (3, 77), (16, 140), (3, 1), (1, 2)):
        x, lengths = batch(size, frames, architecture.bins, ordered=False)
        with torch.inference_mode():
            expected = valid(net(x, lengths))
        found = valid(run(session, x, lengths))
        for one, other in zip(found, expected, strict=True):
            assert np.abs(one - other.numpy()).max() <= TOLERANCES[precision]


@pytest.mark.parametrize("precision", TOLERANCES)
def test_an_utterance_is_the_same_bits_in_any_company(tmp_path, precision):
    """Alone or in a batch, at another place, with more padding, with more threads."""
    architecture = Architecture(161, 29, "lstm", 24, 2, True)
    x, lengths = batch(40, 90, ordered=False)
    whole = valid(run(open_session(tmp_path, architecture, precision), x, lengths))
    wider = torch.nn.functional.pad(x, (0, 33))
    for threads in (1, 2, 3, 4):
        session = open_session(tmp_path, architecture, precision, threads)
        for found in (run(session, x, lengths), run(session, wider, lengths)):
            assert all((a == b).all() for a, b in zip(valid(found), whole, strict=True))
        back = valid(run(session, x.flip(0), lengths.flip(0)))[::-1]
        assert all((a == b).all() for a, b in zip(back, whole, strict=True))
        for n in range(3):
            (alone,) = valid(run(session, x[n : n + 1, ..., : lengths[n]], lengths[n : n + 1]))
            assert (alone == whole[n]).all()
        session.close()


def test_threads_get_equally_much():
    lengths = np.sort(np.random.default_rng(0).integers(50, 600, 64))[::-1]
    order = np.arange(64)
    for count in (1, 2, 3, 4):
        parts = session.deal_by_length(order, count)
        assert sorted(np.concatenate(parts)) == order.tolist()
        assert all((np.diff(part) > 0).all() for part in parts)  # still longest first
        sums = [lengths[part].sum() for part in parts]
        if 64 % (2 * count) == 0:  # else the last round is not a whole one
            assert max(sums) - min(sums) < 100
    assert [part.tolist() for part in session.deal_by_length(order[:2], 4)] == [[0], [1]]


def test_what_a_session_returned_stays(tmp_path):
    session = open_session(tmp_path, Architecture(161, 29, "lstm", 8, 2, True))
    x, lengths = batch(3, 50)
    first = run(session, x, lengths)[0]
    kept = first.copy()
    run(session, x * 2, lengths)
    assert (first == kept).all()


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("rows", [*range(1, layout.ROWS + 1), 7, 15, 16, 17, 31, 32])
@pytest.mark.parametrize("inputs", [16, 64, 144])
def test_a_tile_is_a_product(precision, rows, inputs):
    """Against float64 (int8: exactly), with the extreme values of each type."""
    chosen = instructions.sequence(precision)
    if rows > tiles.rows_of(chosen, layout.PANEL_VECTORS):
        pytest.skip(f"{chosen.name} takes fewer rows: AMX alone takes so many")
    random = np.random.default_rng(rows)
    columns, dtype = layout.PANEL, layout.TYPES[precision]
    if precision == "int8":
        a = random.integers(0, 256, (rows, inputs))
        w = random.integers(-128, 128, (columns, inputs))
        a[0], w[0], w[1] = 255, 127, -128
        stored_a, stored_w = a.astype(np.uint8), w.astype(np.int8)
    else:
        a = random.standard_normal((rows, inputs)).astype("f4")
        w = random.standard_normal((columns, inputs)).astype("f4")
        stored_a, stored_w = a, w
        if precision == "bf16":
            stored_a, stored_w = packing.to_bf16(a), packing.to_bf16(w)
            a = (stored_a.astype(np.uint32) << 16).view(np.float32)
            w = (stored_w.astype(np.uint32) << 16).view(np.float32)
    out = np.zeros(layout.SUMS, np.int32 if precision == "int8" else np.float32)
    packed = packing.interleave(stored_w, precision, layout.PANEL_VECTORS)
    flat = np.ascontiguousarray(stored_a, dtype).reshape(-1)
    kernels.multiply_panel(
        rows, flat, out.ctypes.data, flat.ctypes.data, inputs * flat.itemsize, packed.ctypes.data,
        inputs * flat.itemsize // 4, packed.ctypes.data,
    )  # fmt: skip
    a = a - instructions.sequence(precision).offset
    expected = a.astype(np.float64) @ w.astype(np.float64).T
    found = out[: rows * columns].reshape(rows, columns)
    error = np.abs(found - expected).max()
    assert error == 0 if precision == "int8" else error < 2e-5
    assert (out[rows * columns :] == 0).all()


AVX2 = "+avx2,+fma"
AVX512 = f"{AVX2},+avx512f,+avx512bw,+avx512dq,+avx512vl"
CPUS = {  # by the instruction sets of SEQUENCES that such a CPU has
    "AMX": ("haswell", f"{AVX512},+avx512vnni,+amx-tile,+amx-int8"),
    "AVX-512 VNNI": ("haswell", f"{AVX512},+avx512vnni"),
    "AVX-512": ("haswell", AVX512),
    "AVX-VNNI": ("haswell", f"{AVX2},+avxvnni"),
    "AVX2": ("haswell", AVX2),
    "plain": ("x86-64", "+sse2"),
}
OLDEST, NEEDED = "AVX2", {"avx2", "fma"}
if platform.machine() == "aarch64":
    CPUS = {
        "NEON I8MM": ("generic", "+neon,+i8mm"),
        "NEON DotProd": ("generic", "+neon,+dotprod"),
        "NEON BF16": ("generic", "+neon,+bf16"),
        "NEON": ("generic", "+neon"),
    }
    OLDEST, NEEDED = "NEON", {"neon"}
PRODUCTS = """
import hashlib, sys
import numpy as np
from deepspeech2.engines.native import instructions, kernels, layout, tiles
random, total = np.random.default_rng(0), hashlib.sha256()
for precision, dtype in layout.TYPES.items():
    sizes = 37 * 80, 80 * 4 * 64
    if precision == "int8":
        a, w = (random.integers(0, 256, n) for n in sizes)
        a[:80], w[:128] = 255, 128
    elif precision == "bf16":
        floats = (random.standard_normal(n).astype("f4") for n in sizes)
        a, w = (x.view("u4") >> 16 for x in floats)
    else:
        a, w = (random.standard_normal(n) for n in sizes)
    a, w = a.astype(dtype), w.astype(dtype)
    lost = w[: 80 * 64].view("i1").reshape(20, 64, -1).sum((0, 2), dtype="i4")
    chosen, stride = instructions.sequence(precision), 80 * a.itemsize
    most = tiles.rows_of(chosen, layout.PANEL_VECTORS)
    for rows in (*range(1, 7), 16, 20, 37):
        for row in range(0, rows, most):
            count = min(most, rows - row)
            out = np.zeros(layout.SUMS, np.int32 if precision == "int8" else np.float32)
            kernels.multiply_panel(
                count, a, out.ctypes.data, a.ctypes.data + row * stride, stride, w.ctypes.data,
                stride // 4, w.ctypes.data,
            )
            out = out[: count * 64].reshape(count, 64)
            if precision == "int8":
                out += lost * chosen.offset
            total.update(out.tobytes())
names = [instructions.sequence(precision).name for precision in layout.TYPES]
print(total.hexdigest(), *names, sep="\\n")
"""
NETWORK = """
import hashlib, sys
import numpy as np
from deepspeech2.engines import Engine
from deepspeech2 import engines
from pathlib import Path
total = hashlib.sha256()
for folder in sys.argv[1:]:
    engine = Engine("native", "cpu", Path(folder).name, "static", "batch", (), {})
    session = engines.create(engine).open(Path(folder), 1)
    x = np.random.default_rng(0).standard_normal((3, 1, 161, 70)).astype("f4")
    found, _ = session.download(session.forward(session.upload(x, np.array([70, 40, 9]))))
    total.update(found.tobytes())
print(total.hexdigest())
"""


def run_for(cpu, code, place, *arguments):
    """What a program prints whose machine code is for another CPU."""
    environment = dict(os.environ)
    if cpu:
        name, features = CPUS[cpu]
        environment |= {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
        environment["NUMBA_CACHE_DIR"] = str(place)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


@pytest.mark.parametrize("cpu", CPUS)
def test_every_instruction_set_makes_the_same_bits(tmp_path, cpu):
    needed = {name[1:] for name in CPUS[cpu][1].split(",")}
    if not needed <= instructions.features():
        missing = ", ".join(sorted(needed - instructions.features()))
        pytest.skip(f"this CPU lacks {missing}, or Linux does not let a process use it")
    ours, *_ = run_for(None, PRODUCTS, tmp_path)
    theirs, *names = run_for(cpu, PRODUCTS, tmp_path)
    assert cpu in names
    assert theirs == ours


def test_amx_is_used_where_linux_lets_it(monkeypatch):
    monkeypatch.setattr(instructions, "_listed", lambda: "+amx-tile,+amx-int8,+avx512vnni")
    for granted, name in ((True, "AMX"), (False, "AVX-512 VNNI")):
        monkeypatch.setattr(instructions, "_may_use_tiles", lambda granted=granted: granted)
        assert instructions.sequence("int8").name == name


@pytest.mark.skipif(
    not NEEDED.issubset(instructions.features()), reason=f"needs a CPU with {OLDEST}"
)
def test_a_network_is_the_same_bits_on_older_cpus(tmp_path):
    """All precisions and kinds of cells, whose machine code is for the OLDEST."""
    folders = []
    for architecture in ARCHITECTURES[:3]:
        for precision in TOLERANCES:
            place = tmp_path / architecture.rnn_type
            place.mkdir(exist_ok=True)
            open_session(place, architecture, precision)
            folders.append(place / precision)
    ours = run_for(None, NETWORK, tmp_path, *folders)
    assert run_for(OLDEST, NETWORK, tmp_path / "cache", *folders) == ours


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_where_machine_code_is_kept(tmp_path, variable):
    """Not in a read-only checkout; by the hash of all the files that it is made from."""
    code = (
        "import os; os.access = lambda *_: False; import numpy as np; "
        "from deepspeech2.engines.native import kernels; "
        "print(kernels.magnitude(np.float32([1, -3, 2])))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, variable: str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "3.0\n", done.stderr
    (kept,) = tmp_path.rglob("kernels.magnitude*.nbc")
    assert kept.parts[-3] == kernels.KEPT.name


def test_two_processes_compile_into_one_empty_folder(tmp_path):
    """At once, as two jobs of a first run do: the same bits, and nothing is compiled again."""
    place, kept = tmp_path / "own", tmp_path / "cache"
    place.mkdir()
    kept.mkdir()
    open_session(place, Architecture(161, 29, "lstm", 8, 1, True))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(kept)}
    command = [sys.executable, "-c", NETWORK, str(place / "fp32")]

    def start():
        return subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True)

    def content():
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in kept.rglob("*") if p.is_file()}

    said = [process.communicate() for process in (start(), start())]
    made = content()
    said.append(start().communicate())
    assert said == [said[0]] * 3 and len(said[0][0].strip()) == 64 and not said[0][1], said
    assert made and content() == made
    assert {path.suffix for path in made} == {".nbc", ".nbi"}  # nothing half written is left


def test_the_exponential_is_good_to_two_units():
    x = np.linspace(-40, 40, 1 << 16, dtype=np.float32)
    found = x.copy()
    for n in range(0, len(found), layout.LANES):
        exponential_of(found[n : n + layout.LANES])
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(found - exact) / exact).max() < 2.5e-7


def exponential_of(values):
    from numba import njit

    if not hasattr(exponential_of, "compiled"):

        @njit
        def compiled(values):
            vectors.exponential(values.ctypes.data, values.ctypes.data)

        exponential_of.compiled = compiled
    exponential_of.compiled(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda:0"}, "serves the device cpu"),
        ({"precision": "fp16"}, "computes int8, bf16, fp32, not 'fp16'"),
        ({"form": "packed"}, "has no form packed"),
        ({"options": {"a": 1}}, "has no option 'a'"),
    ],
)
def test_settings_that_it_cannot_serve(changes, message):
    with pytest.raises(UserError, match=message):
        engines.create(ENGINE._replace(**changes))


def test_weights_of_int8_keep_their_sums():
    """`zero` undoes that activations are stored with 128 for 0.0."""
    rows = np.random.default_rng(0).standard_normal((8, 32)).astype("f4")
    elements, zero, scale = packing.quantise(rows, "int8", layout.ZERO_POINT)
    stored = np.full(32, layout.ZERO_POINT)
    assert ((elements.astype(int) @ stored + zero) == 0).all()
    assert np.abs(elements * scale[:, None] - rows).max() <= scale.max() / 2 + 1e-7


def test_int8_keeps_an4s_words(shared, an4_archive, tmp_path):
    """The embedded model on AN4 test: at most one of 773 words more wrong, at two batch sizes."""
    embedded = ROOT / "resources/checkpoints/embedded.safetensors"
    for stage, *arguments in stages_to_features(embedded, an4_archive):
        result = run_stage(stage, *arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    wrong = {}
    for precision in ("fp32", "bf16", "int8"):
        entry = {"backend": "native", "precision": precision, "padding": "batch"}
        engine = ("--engine", json.dumps(entry))
        for size in ("16", "64"):
            name = f"{precision}-{size}"
            for stage, *arguments in (
                ("engines.compile", "--source", "m.safetensors", "--source-index", "m.json",
                 "--features-index", "features.json", "--batch-size", size, *engine,
                 "--artefact", name, "--index", f"{name}.json"),
                ("engines.infer", "--features", "features", "--features-index", "features.json",
                 "--artefact", name, "--artefact-index", f"{name}.json", "--batch-size", size,
                 *engine, "--threads", "2", "--posteriors", f"{name}.bin",
                 "--index", f"{name}.p.json"),
                ("scoring.decode", "--posteriors", f"{name}.bin",
                 "--posteriors-index", f"{name}.p.json", "--features-index", "features.json",
                 "--transcripts", f"{name}.jsonl", "--index", f"{name}.t.json"),
                ("scoring.score", "--transcripts", f"{name}.jsonl",
                 "--transcripts-index", f"{name}.t.json",
                 "--features-index", "features.json", "--score", f"{name}.score.json",
                 "--alignments", f"{name}.a.jsonl"),
            ):  # fmt: skip
                result = run_stage(stage, *arguments, cwd=tmp_path)
                assert result.returncode == 0, result.stderr
            score = json.loads((tmp_path / f"{name}.score.json").read_text())["wer"]
            wrong[precision] = sum(
                score[key] for key in ("substitutions", "deletions", "insertions")
            )
        sizes = [(tmp_path / f"{precision}-{size}.bin").read_bytes() for size in ("16", "64")]
        assert sizes[0] == sizes[1]
    assert wrong["fp32"] == 45
    assert wrong["bf16"] <= 46 and wrong["int8"] <= 46, wrong
