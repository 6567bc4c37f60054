"""The report, its figures and tables, of a run on hostile data; and the page in a real browser."""

import csv
import html
import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import ROOT, copy_project
from deepspeech2.cli import UserError
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.files import SEAL, read_sealed, sha256, write_json
from deepspeech2.report import errors, figures, listing, media, page
from deepspeech2.report.reliability_figure import reliability
from deepspeech2.report.rows import Row
from deepspeech2.serving import arrivals, server
from helpers import (
    TINY,
    assert_one_line_error,
    run_stage,
    snakemake,
    tiny_description,
    tone,
    write_safetensors,
    write_transcripts,
)

CHARACTERS = "_<>/=\"'& ()[]{}!;:-1scriptale"
TEXTS = {
    "<img src=x onerror=alert(1)>": "<script>alert(1)</script>",
    "größe $x_1$": "\"'&& ;: []{}",
    "a&amp;b": "<!-- script",
    "plain": "alert   (1)",
}
SPEAKERS = ("<b>bold</b>", 'x" onload="alert(1)', "größe", "")
ENGINES = ("cpu-fp32", "cpu-fp32-packed")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A finished run: hostile names, speakers, texts and labels, two engines, two batch sizes."""
    folder = copy_project(tmp_path_factory.mktemp("report") / "a checkout")
    assert len(set(CHARACTERS)) == len(CHARACTERS) == TINY.classes
    (folder / "labels.json").write_text(json.dumps(list(CHARACTERS)))
    description = {**tiny_description(), "labels": list(CHARACTERS)}
    write_safetensors(folder / "tiny.safetensors", description=description)
    lines = ["path\ttranscript\tspeaker"]
    for number, ((name, text), speaker) in enumerate(zip(TEXTS.items(), SPEAKERS)):
        rate, more = (8000, "ZZ") if name == "plain" else (16000, "")
        sound = tone(0.5 + 0.1 * number, number, rate)
        soundfile.write(folder / f"{name}.wav", sound, rate)
        lines.append(f"{name}.wav\t{text}{more}\t{speaker}")
    lines.append("absent.wav\tscript\t")
    (folder / "corpus.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {
        "run": {"datasets": ["own"], "models": ["tiny"], "engines": list(ENGINES),
                "batch_sizes": [1, 3]},
        "datasets": {"own": {
            "layout": "auto", "path": "corpus.tsv", "labels": "labels.json",
            "skip": ["no_audio"], "unknown_characters": "drop",
        }},
        "models": {"tiny": {"checkpoint": "tiny.safetensors"}},
        "timing": {"warmup_batches": 0, "min_batches": 1, "min_seconds": 0},
    }  # fmt: skip
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    snakemake(folder, "--cores", 1, "--configfile", "own.yaml")
    return folder


# What is drawn of any rows; one more where some have noise.
DRAWN = [name for name in figures.FIGURES if name not in ("noise", "server")]
# Files, as addresses from the page.
BESIDE = re.compile(r"(own|logs/own)/tiny/[\w./-]+|figures/\w+\.svg|table\.tsv")


class Page(HTMLParser):
    """Collects what a page could load or run, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.handlers, self.texts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action", "srcset", "poster", "data"):
                self.addresses.append(value)
            if name.startswith("on"):
                self.handlers.append((tag, name))

    def handle_data(self, data):
        self.texts.append(data)


def test_nothing_of_the_data_becomes_markup(project):
    text = (project / "results/report.html").read_text(encoding="utf-8")
    found = Page(text)
    assert found.tags.count("script") == 1 and not found.handlers and "b" in found.tags
    assert found.addresses
    for address in found.addresses:
        assert BESIDE.fullmatch(address) or address.startswith(
            ("data:audio/mpeg", "data:image/webp", "#")
        )
        assert not BESIDE.fullmatch(address) or (project / "results" / address).is_file(), address
    assert "default-src 'none'" in text and "url(http" not in text
    shown = "".join(found.texts)
    for part in (*TEXTS, *SPEAKERS, "<script>alert(1)</script>"):
        assert " ".join(part.split()) in " ".join(shown.split()), part
    assert "<img src=x" not in text and "<script>a" not in text and "<b>bold" not in text
    assert text.count("<img") == found.tags.count("img") == found.tags.count("audio") <= 8


def test_what_of_the_corpus_was_not_used_as_it_is_stands_everywhere(project):
    record = json.loads((project / "results/own/tiny/cpu-fp32/bs1/greedy/record.json").read_text())
    corpus = record["corpus"]
    note = "resampled from 8000 Hz: nothing above 4000 Hz"
    assert (corpus["skipped"], corpus["dropped"]) == ({"no_audio": 1}, {"Z": [2, 1]})
    assert corpus["notes"][note] == 1 and corpus["layout"] == "tsv"
    for name in ("table.md", "report.html", "table.tsv"):
        text = html.unescape((project / "results" / name).read_text()).replace("\\", "")
        assert "scored 4 of 5 utterances: 1 skipped (1 no_audio)" in text, name
        assert f"1 of 4 recordings {note}" in text and "'Z' 2 times in 1" in text, name


def test_every_misrecognised_utterance_is_listed_once_for_all_its_rows(project):
    with open(project / "results/tables/errors.tsv", newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    assert {e["utterance"] for e in found} == set(TEXTS)  # random weights get none right
    row = project / "results/own/tiny/cpu-fp32/bs3/greedy"
    lines = (row / "transcripts.jsonl").read_text(encoding="utf-8").splitlines()
    for line in map(json.loads, lines):
        matches = [e for e in found if e["utterance"] == line["id"]
                   and e["hypothesis"] == line["hypothesis"]]  # fmt: skip
        assert len(matches) == 1 and "cpu-fp32 at" in matches[0]["rows"]
        assert matches[0]["reference"] == line["reference"]
    counts = [int(e["errors"]) for e in found]
    assert counts == sorted(counts, reverse=True)


def test_the_tables(project):
    tables = {}
    for name in errors.COLUMNS:
        with open(project / f"results/tables/{name}.tsv", newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, delimiter="\t")
            tables[name] = list(reader)
            assert reader.fieldnames == errors.COLUMNS[name].split()
    assert len(tables["agreement"]) == 4 and len(tables["engines"]) == 2
    for line in tables["engines"]:
        assert (line["engine"], line["against"]) == (ENGINES[1], ENGINES[0])
        assert float(line["speed_ratio"]) > 0
        assert float(line["wer_difference"]) == 0 == float(line["p_worse"])
    speakers = {p["name"]: p["utterances"] for p in tables["parts"] if p["kind"] == "speaker"}
    assert speakers == dict.fromkeys(filter(None, SPEAKERS), "1")
    for row in (
        r for e in ENGINES for r in (f"own/tiny/{e}/bs1/greedy", f"own/tiny/{e}/bs3/greedy")
    ):
        score = json.loads((project / "results" / row / "score.json").read_text())
        counted = sum(
            int(c["count"]) for c in tables["confusions"]
            if c["kind"] == "words" and f"own/tiny/{c['engine']}/bs{c['batch_size']}/greedy" == row
        )  # fmt: skip
        wer = score["wer"]
        assert counted == wer["substitutions"] + wer["deletions"] + wer["insertions"]


def test_the_figures_are_whole_and_the_same_every_time(project, tmp_path):
    rows = [f"own/tiny/{engine}/bs{n}/greedy" for engine in ENGINES for n in (1, 3)]
    result = run_stage(
        "report.figures", "--records", *(project / "results" / row / "record.json" for row in rows),
        "--published", "--figures", *(tmp_path / f"{name}.svg" for name in DRAWN),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for name in DRAWN:
        path = project / f"results/figures/{name}.svg"
        texts = "".join(ElementTree.parse(path).getroot().itertext())
        assert "http" not in texts
        if name == "reliability":  # of decoders
            assert "calibration error" in texts
            continue
        assert "batch size" in texts or name == "single"
        assert path.read_bytes() == (tmp_path / f"{name}.svg").read_bytes()
        if name not in ("padding", "phases"):
            assert all(engine in texts for engine in ENGINES)


def test_figures_show_the_records_values(project):
    """The line of the throughput figure goes through the table's values."""
    folder = project / "results/own/tiny/cpu-fp32"
    records = [json.loads((folder / f"bs{n}/greedy/record.json").read_text()) for n in (1, 3)]
    published = {"own": {1: {"published_utterances_per_s": 2.5}, 4: {}}}
    (axes,) = figures.draw("throughput", records, published).axes
    lines = [line.get_xydata().tolist() for line in axes.lines]
    speeds = [r["offline"]["utterances_per_s"] for r in records]
    assert [[0.0, speeds[0]], [1.0, speeds[1]]] in lines and [[0.0, 2.5]] in lines
    (axes,) = figures.draw("rtfx", records, published).axes
    mean = records[0]["offline"]["rtfx"] / speeds[0]  # seconds of an utterance
    (shown,) = (y for line in axes.lines for x, y in line.get_xydata().tolist()[:1]
                if line.get_linestyle() == "--")  # fmt: skip
    assert shown == pytest.approx(2.5 * mean)
    (axes,) = figures.draw("wer", records, {"own": {1: {"published_wer": 9.5}}}).axes
    wer = records[0]["accuracy"]["wer"]
    low, high = axes.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((wer["low"], wer["high"]))
    assert [0.0, 9.5] in [line.get_xydata().tolist()[0] for line in axes.lines]


def test_what_is_invariant_shows_at_a_glance(project):
    """A tile for each row: its WER, how many transcripts agree; its colour says whether all do."""
    folder = project / "results/own/tiny/cpu-fp32"
    records = [json.loads((folder / f"bs{n}/greedy/record.json").read_text()) for n in (1, 3)]
    for record, agreed in zip(records, (4, 3)):
        record["agreement"].update(identical_transcripts=agreed, utterances=4)
        record["accuracy"]["wer"]["percent"] = 12.345
    records[1]["configuration"]["model"]["random"] = {"seed": 0}
    (axes,) = figures.draw("invariance", records, {}).axes
    assert [text.get_text() for text in axes.texts] == ["12.35\n4/4", "3/4"]
    assert len({tile.get_facecolor() for tile in axes.patches}) == len(axes.patches) == 2


def test_a_servers_figure_shows_the_rates_that_hold(project):
    path = project / "results/own/tiny/cpu-fp32/bs1/greedy/record.json"
    record, ones = json.loads(path.read_text()), np.ones(500)
    rule = arrivals.Rule(100.0, 4, 0.0, 1.0)
    times = ((10.0, 0.02), (20.0, 0.08), (20.0, 0.06), (30.0, 0.2), (5.0, 0.01))
    trials = [arrivals.Trial(rate, 500, 0 * ones, done * ones, ones) for rate, done in times]
    for found, lines in (
        (20.0, [[5, 10], [10, 20], [20, 70]]), (None, []),
    ):  # fmt: skip
        record["server"] = server.summarise(rule, 40.0, found, trials)
        (axes,) = figures.draw("server", [record], {}).axes
        drawn = [line.get_xydata().tolist() for line in axes.lines]
        assert drawn.count(lines) == 2  # of the median and of the 99th percentile, here the same
        assert [30.0, 120.0] in [points[0] for points in drawn if points]  # a cross at the top
        assert [[0.0, 100.0], [1.0, 100.0]] in drawn


def test_engines_side_by_side(project):
    """Each at its fastest batch size, with a line through those that none beats; single latency."""
    records = [
        json.loads((project / f"results/own/tiny/{engine}/bs{n}/greedy/record.json").read_text())
        for engine in ENGINES
        for n in (1, 3)
    ]
    for record, speed, wer in zip(records, (10.0, 20.0, 40.0, 30.0), (50.0, 50.0, 60.0, 60.0)):
        record["offline"]["utterances_per_s"] = speed
        record["accuracy"]["wer"].update(percent=wer, low=wer - 5, high=wer + 5)
    figure = figures.draw("pareto", records, {})
    (axes,) = figure.axes
    assert [[20.0, 50.0], [40.0, 60.0]] in [x.get_xydata().tolist() for x in axes.lines]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["cpu-fp32, batch size 3", "cpu-fp32-packed, batch size 1"]
    (axes,) = figures.draw("single", records, {}).axes
    times = records[0]["single_stream"]["end_to_end_batch_ms"]
    expected = [[np.percentile(times, p), 1.0] for p in (50, 90)]  # the first engine is on top
    assert expected in [line.get_xydata().tolist() for line in axes.lines]
    for record in records:
        record["configuration"]["model"]["random"] = {"seed": 0}
    assert figures.draw("pareto", records, {}).axes[0].lines[:] == []


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([(1, 5)], [(1, 5)]),
        ([(1, 5), (2, 5)], [(2, 5)]),
        ([(3, 9), (1, 5), (2, 7), (2, 8), (1, 6)], [(1, 5), (2, 7), (3, 9)]),
        ([(2, 5), (2, 5)], [(2, 5)]),
    ],
)
def test_the_front(points, best):
    assert figures.front(points) == best


def test_what_batch_size_changes(tmp_path):
    """Texts by batch size, of the utterances that have several, and of engines that have them."""

    class Found:
        def __init__(self, engine, size, texts):
            self.dataset, self.model, self.engine, self.batch_size = "d", "m", engine, size
            self.decoder = "greedy"
            self.texts = {name: {"hypothesis": text} for name, text in texts.items()}
            self.record = {"hashes": {"transcripts": str(texts)}}

        def transcripts(self):
            return self.texts

    same, other = {"u": "A", "v": "B"}, {"u": "A", "v": ""}
    rows = [Found("x", 1, same), Found("x", 16, other), Found("x", 4, same), Found("y", 1, same)]
    lines = listing.batch_sizes([*rows, Found("y", 4, same)])
    assert [tuple(line.values()) for line in lines] == [
        ("d", "m", "x", "greedy", "v", "1, 4", "B"),
        ("d", "m", "x", "greedy", "v", "16", ""),
    ]


def test_captions_and_rules_name_what_the_stages_make():
    rules = (ROOT / "workflow/rules/report.smk").read_text()
    for names, stage_names in (("FIGURES", DRAWN), ("TABLES", errors.COLUMNS)):
        found = re.search(rf'^{names} = "(.*)".split\(\)$', rules, re.M).group(1)
        assert found.split() == list(stage_names)
        for name in stage_names:
            assert len((ROOT / f"workflow/report/{name}.rst").read_text()) > 40


def test_snakemakes_own_report_has_everything_with_captions(project):
    snakemake(project, "--report", "all.html", "--configfile", "own.yaml")
    text = (project / "all.html").read_text(encoding="utf-8")
    for name in (*DRAWN, *errors.COLUMNS):
        assert f"{name}." in text
        caption = (ROOT / f"workflow/report/{name}.rst").read_text().split(".")[0]
        assert " ".join(caption.split())[:40] in " ".join(text.split()), name


def test_sound_and_picture(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.5, 1), 16000)
    sound = media.sound(path)
    (tmp_path / "a.mp3").write_bytes(sound)
    samples, rate = soundfile.read(tmp_path / "a.mp3")
    assert rate == 16000 and len(samples) >= 1.4 * 16000 and np.abs(samples).max() > 0.01
    assert len(sound) < path.stat().st_size / 4
    random = np.random.default_rng(0)
    posteriors = random.dirichlet(np.full(29, 0.05), 76).astype(np.float32)
    labels = ["_", *"$\\<>&", *map(chr, range(0x3B1, 0x3B1 + 23))]
    drawn = media.picture(
        random.standard_normal((161, 151)).astype("f4"), posteriors, labels, Spectrogram()
    )
    assert drawn[:4] == b"RIFF" and drawn[8:12] == b"WEBP" and 1000 < len(drawn) < 200_000


ROW = "own/tiny/cpu-fp32/bs1/greedy"
MANIFEST = "datasets/own/own_all_manifest.json"


def test_the_page_stays_small(project, monkeypatch):
    """Sound and pictures stop at the limit; the errors are listed all the same."""
    rows = [Row(project / "results" / ROW / "record.json")]
    manifests = {"own": project / "results" / MANIFEST}
    found = listing.errors(rows)
    assert page.add_media(found, manifests, 1) == 4
    size = sum(len(e["sound"]) + len(e["picture"]) for e in found) * 3 // 4
    found = listing.errors(rows)
    monkeypatch.setattr(page, "MEDIA_BYTES", size // 2)
    heard = page.add_media(found, manifests, 1)
    assert 0 < heard < 4 and ["sound" in e for e in found] == [i < heard for i in range(4)]
    monkeypatch.setattr(page, "MEDIA_BYTES", 1 << 30)
    monkeypatch.setattr(page, "MAX_HEARD", 2)
    assert page.add_media(listing.errors(rows), manifests, 1) == 2


def test_doubtful_words_are_marked(project, tmp_path):
    """By a number and a colour, where the confidence is low; what tells none has no mark."""
    results = project / "results"
    path = results / ROW / "record.json"
    words = [e["words"] for e in listing.errors([Row(path)])]
    sure = [c for steps in words for _, _, new, c in steps if new]
    assert sure and all(0 <= c <= 1 for c in sure)
    assert {c for steps in words for _, _, new, c in steps if not new} <= {None}
    text = (results / "report.html").read_text(encoding="utf-8")
    doubtful = sum(c < 0.9 for e in words for *_, c in e if c is not None)
    assert doubtful and text.count('class="doubtful"') == text.count('class="confidence"')
    assert 'title="confidence 0.' in text
    assert listing.sure([("equal", "A", "A"), ("delete", "B", "")], []) == [
        ("equal", "A", "A", None), ("delete", "B", "", None)
    ]  # fmt: skip


def calibration(low, high):
    bins = [{"low": n / 10, "high": (n + 1) / 10, "words": 0, "confidence": None, "right": 0}
            for n in range(10)]  # fmt: skip
    bins[4].update(words=10, confidence=0.45, right=low)
    bins[9].update(words=90, confidence=0.95, right=high)
    return {"words": 100, "expected_calibration_error": 0.125, "bins": bins}


def test_the_reliability_diagram():
    records = [
        {"dataset": "d", "model": "m", "engine": engine, "decoder": decoder, "batch_size": size,
         "accuracy": accuracy, "configuration": {"model": {}}}
        for engine, decoder, size, accuracy in (
            ("e", "greedy", 1, {"confidence": calibration(5, 81)}),
            ("e", "greedy", 16, {"confidence": calibration(5, 81)}),
            ("e", "beam", 1, {"confidence": calibration(0, 90)}),
            ("old", "greedy", 1, {}),
            ("e", "none", 1, {"confidence": None}),
        )
    ]  # fmt: skip
    figure = reliability(records, [1, 16], {})
    (axes,) = figure.axes
    lines = [line.get_xydata().tolist() for line in axes.lines]
    assert lines == [[[0, 0], [1, 1]], [[0.45, 0.5], [0.95, 0.9]], [[0.45, 0.0], [0.95, 1.0]]]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "greedy: calibration error 12.5 %", "beam: calibration error 12.5 %"
    ]  # fmt: skip
    assert not reliability([], [], {}).legends


@pytest.mark.parametrize("name", ["transcripts", "alignments"])
def test_altered_transcripts_are_refused(project, tmp_path, name):
    results = tmp_path / "results"
    shutil.copytree(project / "results", results)
    path = results / ROW / f"{name}.jsonl"
    path.write_text(path.read_text().replace("alert", "ALERT"))
    result = run_stage(
        "report.errors", "--records", results / ROW / "record.json",
        "--tables", tmp_path / "errors.tsv",
    )  # fmt: skip
    assert_one_line_error(result, f"{name}.jsonl: altered")
    assert not (tmp_path / "errors.tsv").exists()


def page_arguments(results, drawn, out):
    """Options of the page of a row, by name."""
    return {
        "records": [results / ROW / "record.json"],
        "published": [],
        "manifests": [f"own={results / MANIFEST}"],
        "figures": [drawn / f"{name}.svg" for name in DRAWN],
        "template": [ROOT / "workflow/report/report.html.j2"],
        "report": [out],
    }


def run(stage, **options):
    """Run a stage with options by name, each with its values."""
    pairs = ((f"--{name.replace('_', '-')}", *values) for name, values in options.items())
    return run_stage(stage, *(argument for pair in pairs for argument in pair))


def test_altered_and_broken_audio_is_refused(project, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(project / "results", results)
    wav = results / "datasets/own/corpus/wav/plain.wav"
    wav.write_bytes(b"no audio")
    options = page_arguments(results, results / "figures", tmp_path / "r.html")
    assert_one_line_error(run("report.page", **options), "plain.wav: altered")
    manifest = results / MANIFEST
    content = json.loads(manifest.read_text())
    del content["seal"]
    for sample in content["samples"]:
        del sample["wav_sha256"]  # as another program writes it
    manifest.write_text(json.dumps(content))
    result = run("report.page", **options)
    assert_one_line_error(result, "plain.wav: cannot be read as audio")


def test_a_long_list_stops_at_its_size(project, monkeypatch, tmp_path):
    monkeypatch.setattr(page, "LIST_BYTES", 2 * page.CARD_BYTES)
    results = project / "results"
    page.main(
        [results / ROW / "record.json"],
        {},
        {"own": results / MANIFEST},
        [results / f"figures/{name}.svg" for name in DRAWN],
        ROOT / "workflow/report/report.html.j2",
        tmp_path / "r.html",
    )
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count('class="error"') == 1 and "of which the 1 with most errors are listed" in text


@pytest.mark.parametrize("kind", ["all empty", "all right", "one utterance"])
def test_extreme_results(project, tmp_path, kind):
    """Scores, records, tables, figures and report of results that have nothing, or everything."""
    results = tmp_path / "results"
    shutil.copytree(project / "results", results)
    folder = results / ROW
    path = folder / "transcripts.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        del line["words"], line["characters"]
        line["hypothesis"] = line["reference"] if kind == "all right" else ""
    lines = lines[:1] if kind == "one utterance" else lines
    write_transcripts(path, {line.pop("id"): line for line in lines})
    options = page_arguments(results, tmp_path / "figures", tmp_path / "r.html")
    rows = {"records": options["records"]}
    published = {"published": []}
    own = {
        "score": folder / "score.json",
        "agreement": folder / "agreement.json",
        "timing": folder.parent / "timing.json",
        "posteriors_index": folder.parent / "posteriors.json",
        "transcripts_index": path.with_suffix(".json"),
        "decoding_time": results / "own/tiny/eager/greedy/decoding_time.json",
        "single_stream": folder.parents[1] / "single_stream.json",
    }

    def succeed(stage, **options):
        result = run(stage, **options)
        assert result.returncode == 0, result.stderr

    succeed(
        "scoring.score", transcripts=[path], transcripts_index=[path.with_suffix(".json")],
        features_index=[results / "own/tiny/features.json"],
        training_texts=[""], score=[folder / "score.json"],
        alignments=[folder / "alignments.jsonl"],
    )  # fmt: skip
    succeed(
        "report.record", row=[ROW], configuration=["{}"], record=rows["records"],
        **{name: [file] for name, file in own.items()},
        corpus_index=[results / "datasets/own/corpus.json"],
        features_index=[results / "own/tiny/features.json"],
    )  # fmt: skip
    succeed("report.table", **rows, **published, tsv=[tmp_path / "t"], md=[tmp_path / "m"])
    succeed("report.figures", **rows, **published, figures=options["figures"])
    tables = [tmp_path / f"tables/{name}.tsv" for name in errors.COLUMNS]
    succeed("report.errors", **rows, tables=tables)
    succeed("report.page", **options)
    score = json.loads((folder / "score.json").read_text())
    wrong = 0 if kind == "all right" else len(lines)
    assert score["wer"]["percent"] == (100 if wrong else 0)
    assert score["coverage"] == {"scored": len(lines), "of": 4, "empty": wrong}
    for table in tables:  # what has no lines has its columns all the same
        header = table.read_text(encoding="utf-8").splitlines()[0]
        assert header.split("\t") == errors.COLUMNS[table.stem].split()
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"{wrong} misrecognised utterances" in text and text.count("<audio") == wrong
    told = (tmp_path / "m").read_text()
    assert f"scored {len(lines)} of 5 utterances: 1 skipped" in told and f"empty {wrong}" in told


def chromium():
    """Path of the browser, and playwright; without them the test skips, or fails in CI."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if path is None:
        reason = "needs a headless browser (Debian: apt-get install chromium)"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture
def browser():
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=path,
            # Containers have no sandbox of their own; the page is ours.
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        yield found
        found.close()


@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(390, 844, "dark"), (1280, 900, "light")], ids=["phone", "desk"]
)
def test_the_page_in_a_browser(project, browser, tmp_path, width, height, scheme):
    """From disk, with the network off: no error, no request, it sorts, filters, searches, plays."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    )
    tab = context.new_page()
    complaints, requests = [], []
    tab.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda r: requests.append(r.url) if r.url[:5] != "data:" else None)
    tab.goto((project / "results/report.html").as_uri())
    assert len(requests) == 1

    cards = tab.locator(".error:visible")
    total = cards.count()
    assert total >= len(TEXTS)

    def values(key):
        return cards.evaluate_all("(cards, key) => cards.map(c => c.dataset[key])", key)

    for key in ("errors", "seconds", "rate"):
        tab.select_option("#sort", key)
        found = list(map(float, values(key)))
        assert found == sorted(found, reverse=True)
    tab.select_option("#sort", "name")
    assert len(set(values("name"))) == len(TEXTS)
    tab.select_option(".filter[data-key=speaker]", SPEAKERS[1])
    assert set(values("speaker")) == {SPEAKERS[1]}
    assert tab.locator("#count").inner_text() == f"{cards.count()} shown"
    tab.select_option(".filter[data-key=speaker]", "")
    tab.fill("#search", "<SCRIPT>alert(1)")
    assert set(values("name")) == {next(iter(TEXTS))}
    tab.fill("#search", "no such text")
    assert cards.count() == 0
    tab.fill("#search", "")
    assert cards.count() == total

    tab.check("#open")
    ended = tab.locator("audio").first.evaluate(
        """audio => new Promise((resolve, reject) => {
            audio.onended = () => resolve([audio.ended, audio.duration]);
            audio.onerror = () => reject(audio.error.message);
            audio.play().catch(reject);
        })"""
    )
    assert ended[0] and ended[1] > 0.4
    pictures = tab.locator(".error img")
    for number in range(pictures.count()):
        pictures.nth(number).scroll_into_view_if_needed()
    tab.wait_for_function("[...document.querySelectorAll('.error img')].every(i => i.complete)")
    widths = pictures.evaluate_all("images => images.map(i => [i.naturalWidth, i.clientWidth])")
    assert all(natural > 300 and 200 < shown <= width for natural, shown in widths)
    # Nothing but what scrolls by itself is wider than the screen.
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    svg = tab.locator("figure svg").first.bounding_box()
    assert svg["width"] <= width and svg["height"] > 150
    background = tab.evaluate("getComputedStyle(document.querySelector('figure text')).fill")
    ink = [int(n) for n in re.findall(r"\d+", background)[:3]]
    assert min(ink) > 150 if scheme == "dark" else max(ink) < 100
    shot = tab.screenshot(path=tmp_path / "page.png", full_page=True)
    assert len(shot) > 20_000
    assert not complaints and len(requests) == 1
    context.close()


def test_the_table_is_explored(project, browser):
    """By mouse and keyboard, from disk; what is shown stands in the address, and comes back."""
    context = browser.new_context(offline=True, accept_downloads=True)
    tab = context.new_page()
    complaints = []
    tab.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    page = (project / "results/report.html").as_uri()
    tab.goto(page)
    rows = tab.locator("#table tbody tr")
    total = rows.count()
    assert total >= 2 and tab.url == page

    def column(title):
        heads = tab.locator("#table thead th").all_inner_texts()
        return [line.split("\t")[heads.index(title)] for line in rows.all_inner_texts()]

    sorter = tab.locator("#table thead").get_by_role("button", name="utterances/s", exact=True)
    sorter.click()
    speeds = list(map(float, column("utterances/s")))
    assert speeds == sorted(speeds, reverse=True)
    sorter.focus()
    tab.keyboard.press("Enter")
    assert list(map(float, column("utterances/s"))) == sorted(speeds)
    head = sorter.locator("..")
    assert head.get_attribute("aria-sort") == "ascending"
    tab.locator("#table .columns summary").click()
    tab.get_by_label("RTFx", exact=True).uncheck()
    tab.locator("#table .bar input[type=search]").fill(f"{speeds[0]:.2f}")
    assert tab.locator("#table tbody tr:visible").count() == 1
    assert tab.locator("#table output").inner_text() == f"1 of {total} rows"
    with tab.expect_download() as download:
        tab.locator("#table").get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "table.csv"
    with open(download.value.path(), newline="") as file:
        [line] = csv.DictReader(file)
    assert line["utterances/s"] == f"{speeds[0]:.2f}" and "RTFx" not in line
    address = tab.url
    assert address.startswith(f"{page}#table?") and "hide=" in address
    again = context.new_page()
    again.goto(address)
    assert again.locator("#table tbody tr:visible").count() == 1
    assert not again.locator("#table thead").get_by_text("RTFx", exact=True).is_visible()
    for hostile in (
        "sort=99&hide=77.x",
        "sort=-1",
        "find=%3Cimg src=x onerror=alert(1)%3E",
        "sort=",
    ):
        again.goto(f"{page}#table?{hostile}")
        again.reload()
        assert again.locator("#table tbody tr").count() == total
    assert not complaints
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_from_reading_it(project, browser, scheme):
    """As far as axe-core finds out."""
    context = browser.new_context(offline=True, color_scheme=scheme, bypass_csp=True)
    tab = context.new_page()
    tab.goto((project / "results/report.html").as_uri())
    assert barriers(tab) == []
    context.close()


def barriers(tab):
    """What axe-core finds in a page."""
    axe = pytest.importorskip("axe_playwright_python", reason="needs envs/oracles.txt")
    tab.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text())
    found = tab.evaluate("axe.run()")["violations"]
    return [(one["impact"], one["id"], one["nodes"][0]["html"]) for one in found]


def test_two_rows_side_by_side(project, browser, tmp_path):
    """One of the run and one of its baseline, which heard markup and fewer words."""
    results = project / "results"
    folder = tmp_path / "old" / ROW
    shutil.copytree(results / ROW, folder)
    lines = [json.loads(line) for line in (folder / "transcripts.jsonl").read_text().splitlines()]
    for line, text in zip(lines, ("<img src=x onerror=alert(1)></script>", "")):
        line["hypothesis"] = text
        del line["words"], line["characters"]
    entries = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "transcripts.jsonl").write_text(entries)
    record = read_sealed(folder / "record.json")
    record["hashes"]["transcripts"] = sha256(folder / "transcripts.jsonl")
    write_json(folder / "record.json", dict(record))
    page.main(
        [results / ROW / "record.json"],
        {},
        {"own": results / MANIFEST},
        [results / f"figures/{name}.svg" for name in DRAWN],
        ROOT / "workflow/report/report.html.j2",
        tmp_path / "r.html",
        baseline=[folder / "record.json"],
    )
    context = browser.new_context(offline=True, bypass_csp=True)
    tab = context.new_page()
    complaints = []
    tab.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    tab.goto((tmp_path / "r.html").as_uri())
    assert barriers(tab) == []
    section = tab.locator("#pairs")
    rows = section.locator("[name=right] option").all_inner_texts()
    assert rows == ["cpu-fp32 at 1", "baseline: cpu-fp32 greedy at 1"]
    items = section.locator(".pairs li")
    # Texts that are out of sight are not laid out, so not of `inner_text`.
    assert sorted(item.locator("b").text_content() for item in items.all()) == sorted(
        line["id"] for line in lines[:2]
    )
    assert "onerror=alert(1)" in section.locator(".pairs").text_content()
    assert not section.locator("img").count()
    said = section.locator("output").inner_text()
    assert re.fullmatch(
        r"Fewer word errors left: \d, right: \d; as many, but other words: \d; the same text: "
        rf"{len(lines) - 2}\.", said,
    )  # fmt: skip
    assert sum(map(int, re.findall(r": (\d)[,;]", said))) == 2
    section.locator("[name=right]").select_option("0")
    assert items.count() == 0 and f"the same text: {len(lines)}." in (
        section.locator("output").inner_text()
    )
    section.locator("[name=right]").select_option("1")
    buttons = section.get_by_role("button", name="Show with its sound")
    if buttons.count():
        buttons.first.click()
        assert tab.locator("#list .error[open]").count() == 1
    assert not complaints
    context.close()


def test_what_is_altered_by_hand_is_refused(project, tmp_path):
    """Every index has its seal, and every other file of a row its hash in an index."""
    folder = tmp_path / "a copy"
    shutil.copytree(project, folder, symlinks=True)
    indexes = [path for path in (folder / "results").rglob("*.json") if path.name != "labels.json"]
    assert len({path.name for path in indexes}) >= 12
    for path in indexes:
        read_sealed(path)
        text = path.read_text(encoding="utf-8")
        altered = re.sub(r"(?<=[a-z0-9])(?=[a-z0-9\"])", "7", text.replace(SEAL, "\0"), count=1)
        path.write_text(altered.replace("\0", SEAL), encoding="utf-8")
        with pytest.raises(UserError, match="altered since it was written; rebuild it with"):
            read_sealed(path)
        path.write_text(text, encoding="utf-8")
    row = folder / "results" / ROW
    for name in ("alignments.jsonl", "score.json", "transcripts.jsonl"):
        text = (row / name).read_text(encoding="utf-8")
        (row / name).write_text(re.sub(r"\d|[a-z]", "1", text, count=9), encoding="utf-8")
        result = snakemake(folder, "--cores", 1, "--configfile", "own.yaml", check=False)
        assert result.returncode and f"{name}: altered" in result.stdout + result.stderr, name
        (row / name).write_text(text, encoding="utf-8")
