"""Names and texts from everywhere: each works and is escaped wherever it is shown, or is refused.

One table of places and payloads is the test. A whole run has hostile paths and ids; its results are
then filled with every payload, and what is shown of them has the elements, columns and lines of the
same results with a plain text. No program of a payload runs (it would make the file CANARY).
"""

import json
import re
import shutil
import unicodedata
from collections import Counter
from html.parser import HTMLParser

import pytest
import soundfile
import yaml
from conftest import ROOT, copy_project
from deepspeech2 import cli, files
from deepspeech2.cli import UserError
from deepspeech2.configure import complete
from deepspeech2.corpus import corpus, labels, layouts, manifest
from deepspeech2.report import compare, errors, figures, page, published, table
from helpers import LABELS, run_module, snakemake, tone, write_safetensors

PAYLOADS = {
    # Programs
    "substitution": "$(touch CANARY)",
    "backticks": "`touch CANARY`",
    "semicolon": ";touch CANARY;",
    "pipe": "| touch CANARY",
    "ampersand": "& touch CANARY &",
    "quote": "'; touch CANARY; '",
    "double quote": '"; touch CANARY; "',
    "second line": "a\ntouch CANARY\n",
    # Templates
    "jinja": "{{7*7}}",
    "statement": "{% for x in y %}",
    "format": "{x} {0.__class__}",
    "percent": "%s %(x)d %n",
    "wildcards": "{wildcards.dataset}",
    # Pages
    "script": "<script>alert(1)</script>",
    "handler": "<img src=x onerror=alert(1)>",
    "title": "</title></style></pre></svg><b>",
    "attribute": '" onload="alert(1)" x="',
    "other attribute": "' onload='alert(1)' x='",
    "entity": "&lt;b&gt; &amp; &#x3c;",
    "comment": "<!-- x --> ]]> -->",
    # Markdown
    "columns": "a | b || c",
    "link": "[x](javascript:alert(1))",
    "picture": "![x](http://example.org/x.png)",
    "code": "```` x ``",
    "heading": "# x",
    "item": "- x",
    "stars": "*a* __b__ ~~c~~ \\",
    # Spreadsheets
    "formula": "=cmd|'/C calc'!A0",
    "plus": "+1+1",
    "minus": "-1+1",
    "at": "@SUM(1)",
    "tab": "\t=1+1",
    "return": "\r=1+1",
    "cells": 'a\tb"\t=1',
    "blank formula": " =1+1",
    "wide formula": "\uff1d1+1",
    # What shows as nothing, or as something else
    "nul": "a\0b",
    "terminal": "\x1b[31mred\x07",
    "override": "a\u202egpj.exe",
    "isolate": "\u2066a\u2069 \u200fb",
    "no width": "a\u200bb\ufeffc\u00ad",
    "lines": "a\u2028b\u2029c\x85d",
    "arabic": "\u0639\u0631\u0628\u064a",
    "long": "long" * 75,
    # Paths
    "dash": "-rf",
    "option": "--log=CANARY",
    "parent": "../CANARY",
    "parents": "a/../../../CANARY",
    "absolute": "/tmp/CANARY",
    "home": "~absent",
}
PLAIN = "plain"
KEPT = {"\n"}  # of what is no character


def unseen(text):
    """Characters that are not seen, or turn others around, as they are in a text."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return {c for c in text if unicodedata.category(c) in kinds} - KEPT


def refused(act):
    """Whether it is refused, in one line that a terminal can show."""
    try:
        act()
    except UserError as error:
        line = str(error)
        assert "\n" not in line and not unseen(line) and len(line) < 1100, line
        return True
    return False


def no_canary(folder):
    assert not [path for path in folder.rglob("*CANARY") if path.name == "CANARY"]


class Skeleton(HTMLParser):
    """Elements with the names of their attributes, and the texts of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.scripts, self.within = Counter(), [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found[tag, tuple(name for name, _ in attrs)] += 1
        self.within = tag
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href"):
                # Nothing with a scheme, and nothing outside.
                here = re.fullmatch(r"(?!/)[\w./%~-]+", value) and ".." not in value
                assert here or value.startswith(("#", "data:")), value

    def handle_endtag(self, tag):
        self.found["/", tag] += 1
        self.within = None

    def handle_comment(self, data):
        self.found["comment"] += 1

    def handle_data(self, data):
        if self.within in ("script", "style"):
            self.scripts.append(data)


def require_safe_table(text, columns):
    """No cell that is computed, and in each line as many as there are headings."""
    lines = text.removesuffix("\n").split("\n")
    for line in lines:
        cells = line.split("\t")
        assert len(cells) == columns, line
        for cell in cells:
            plain = cell.strip('"').lstrip()
            number = cell.replace(".", "").replace("-", "").replace("+", "").replace("e", "")
            assert not plain.startswith(tuple("=+-@\uff1d")) or number.isdigit(), cell
    assert not unseen(text.replace("\t", ""))


def hostile_run(folder, names):
    """A whole run in which every path that a user names is hostile; `names` are those."""
    folder = copy_project(folder)
    data, checkpoint, alphabet, published, texts = (folder / name for name in names[:5])
    data.mkdir()
    lines = ["path\ttranscript\tspeaker"]
    for number, (name, text) in enumerate(zip(names[5:], ("YES", "GO ON", "STOP", "RUN"))):
        soundfile.write(data / f"{name}.wav", tone(0.4 + 0.1 * number, number), 16000)
        lines.append(f"{name}.wav\t{text}\t{name}")
    (data / "corpus.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_safetensors(checkpoint.with_name(f"{checkpoint.name}.safetensors"))
    alphabet.write_text(json.dumps(LABELS))
    published.write_text("# t\nbatch_size\tutterances_per_s\n1\t3\n")
    texts.write_text("YES\n")
    config = {
        "run": {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu-fp32"],
                "batch_sizes": [1]},
        "datasets": {"own": {"layout": "tsv", "path": f"{names[0]}/corpus.tsv",
                             "labels": names[2], "published": names[3]}},
        "models": {"tiny": {"checkpoint": f"{names[1]}.safetensors", "training_texts": names[4]}},
        "timing": {"warmup_batches": 0, "min_batches": 1, "min_seconds": 0},
    }  # fmt: skip
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its results, and its parent folder."""
    place = tmp_path_factory.mktemp("names")
    names = [
        "$(touch CANARY)", "`touch CANARY`", "; touch CANARY;", "| touch CANARY &",
        "' touch CANARY '", "=1+1", "$(touch CANARY)", "-rf", "[x](y) <img onerror=x>",
    ]  # fmt: skip
    folder = hostile_run(place / "a $(touch CANARY) checkout", names)
    snakemake(folder, "--cores", 1, "--configfile", "own.yaml")
    baseline = folder / '"; touch CANARY; "'
    shutil.copytree(folder / "results", baseline)
    content = yaml.safe_load((folder / "own.yaml").read_text())
    (folder / "own.yaml").write_text(yaml.safe_dump({**content, "baseline": baseline.name}))
    snakemake(folder, "--cores", 1, "--configfile", "own.yaml", "--", "compare")
    no_canary(place)
    return folder


def test_a_run_with_hostile_paths(run):
    results = run / "results"
    assert (results / "comparison.md").exists() and (results / "report.html").exists()
    for path in [*results.glob("*.tsv"), *results.glob("tables/*.tsv")]:
        text = path.read_text()
        require_safe_table(text, text.partition("\n")[0].count("\t") + 1)
    assert "'=1+1" in (results / "tables/errors.tsv").read_text()
    text = (results / "report.html").read_text()
    assert "<img onerror" not in text and not unseen(text)
    before = {path.name for path in ROOT.iterdir()}
    assert {path.name for path in run.iterdir()} - before <= {
        "$(touch CANARY)", "`touch CANARY`.safetensors", "; touch CANARY;", "| touch CANARY &",
        "' touch CANARY '", '"; touch CANARY; "', "own.yaml", "results", ".snakemake",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["second line", "jinja", "percent", "override", "dash", "tab"])
def test_plans_with_hostile_paths(tmp_path, kind):
    """Paths that Snakemake, its formats or a shell could take apart: a corpus is made, or not."""
    names = [f"{PAYLOADS[kind]}{number}" for number in range(5)]
    folder = hostile_run(tmp_path / "checkout", [*names, "u"])
    target = "results/datasets/own/own_all_manifest.json"
    words = ["snakemake", "--cores", "1", "--configfile", "own.yaml", "--", target]
    result = run_module(words, folder)
    text = result.stdout + result.stderr
    assert "Traceback" not in text and not unseen(text.replace("\t", "")) - {"\x1b"}, text
    assert (folder / target).exists() == (result.returncode == 0)
    no_canary(tmp_path)


# Places of a record, each with how a text is put there.
def _set(*keys):
    def change(record, text):
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = text

    return change


def _key(value, *keys):
    return lambda record, text: _set(*keys)(record, {text: value})


def _list(*keys):
    return lambda record, text: _set(*keys)(record, [text])


RECORD = {
    "cpu": _set("environment", "cpu"),
    "governor": _set("environment", "governor"),
    "system": _set("environment", "system"),
    "version": lambda record, text: _key(text, "environment", "versions")(record, text),
    "outside": lambda record, text: _key(text, "environment", "outside")(record, text),
    "eager version": _key("1", "accuracy_environment", "eager_versions"),
    "stream cpu": _set("single_stream", "environment", "cpu"),
    "checkpoint": _set("checkpoint"),
    "manifest": _set("manifest"),
    "dataset path": _set("configuration", "dataset", "path"),
    "engine option": lambda record, text: _key(text, "configuration", "engine", "options")(
        record, text
    ),
    "verdict": _set("offline", "verdict"),
    "reasons": _list("offline", "reasons"),
    "disturbed": _list("offline", "disturbed"),
    "stream reasons": _list("single_stream", "reasons"),
    "left to torch": _list("offline", "compile_notes", "left_to_torch"),
    "skipped": _key(1, "corpus", "skipped"),
    "note": _key(1, "corpus", "notes"),
    "dropped": _key([2, 1], "corpus", "dropped"),
    "git": _set("environment", "git_revision"),
    "largest in": _set("agreement", "largest_posterior_difference_in"),
    "differing": lambda record, text: _set("agreement", "first_differing")(
        record, [{"id": text, "reference": text, "hypothesis": text, "eager": text}]
    ),
    "part": lambda record, text: record["accuracy"]["parts"]["speaker"][0].update(name=text),
    "confusion": lambda record, text: record["accuracy"].update(
        confusions={"words": [[text, text, 3]], "characters": [[text, "", 2]]}
    ),
}


def fill(run, folder, text):
    """A copy of the run's results with a text in all places; the row's record."""
    shutil.copytree(run / "results", folder / "results")
    row = folder / "results/own/tiny/cpu-fp32/bs1/greedy"
    record = json.loads((row / "record.json").read_text())
    for number, change in enumerate(RECORD.values()):
        change(record, f"{text} ~{number}~")
    index = json.loads((row.parents[2] / "features.json").read_text())
    entries, aligned = [], []
    for number, utterance in enumerate(index["utterances"]):
        name = f"{text} ~id{number}~"
        utterance.update(id=name, speaker=f"{text} ~speaker{number}~")
        said = {"reference": f"{text} ~ref~", "hypothesis": f"{text} ~hyp~"}
        entries.append({"id": name, **said})
        words = [["substitution", said["reference"], said["hypothesis"]]]
        aligned.append({"id": name, "errors": 1, "reference_words": 1, "words": words})
    for name, lines in (("transcripts", entries), ("alignments", aligned)):
        path = row / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    record["hashes"]["transcripts"] = files.sha256(row / "transcripts.jsonl")
    record["accuracy"]["alignments_sha256"] = files.sha256(row / "alignments.jsonl")
    for path, content in ((row / "record.json", record), (row.parents[2] / "features.json", index)):
        files.write_json(path, {k: v for k, v in content.items() if k != files.SEAL})
    known = folder / "published.tsv"
    remark = " ".join(text.split()).replace("\0", "")
    known.write_text(f"# {remark} ~remark~\nbatch_size\twer\n1\t3\n", encoding="utf-8")
    return row / "record.json", known


@pytest.fixture
def shown(run, monkeypatch):
    """What is shown of results with a text everywhere, by file."""
    monkeypatch.setattr(page, "add_media", lambda *arguments: 0)

    def show(folder, text):
        folder.mkdir()
        record, figures_of = fill(run, folder, text)
        out = folder / "out"
        known = {"own": figures_of}
        table.main([record], known, out / "table.tsv", out / "table.md")
        names = [out / f"{name}.tsv" for name in errors.COLUMNS]
        errors.main([record], names)
        drawn = [out / f"{name}.svg" for name in ("throughput", "wer")]
        figures.main([record], known, drawn)
        template = ROOT / "workflow/report/report.html.j2"
        page.main([record], known, {}, drawn, template, out / "report.html")
        baseline = folder / "baseline"
        shutil.copytree(run / "results", baseline)
        compared = [out / f"comparison.{suffix}" for suffix in ("tsv", "md", "json")]
        limits = (0.95, 1.0, 0.1)
        try:  # a verdict of its own is no verdict
            compare.main([record], baseline, *limits, *compared)
        except UserError as error:
            assert "offline.verdict" in str(error) and not unseen(str(error))
        return {path.name: path.read_text(encoding="utf-8") for path in out.iterdir()}

    return show


def test_texts_are_shown_and_never_more(shown, tmp_path):
    """Every payload in every place of the results, against a plain text there."""
    plain = shown(tmp_path / "plain", PLAIN)
    expected = Skeleton(plain["report.html"])
    columns = {name: text.partition("\n")[0].count("\t") + 1 for name, text in plain.items()}
    marks = [f"~{number}~" for number, place in enumerate(RECORD)]
    hidden = [mark for mark in marks if mark not in plain["report.html"]]
    assert len(hidden) <= 4, hidden  # reasons that only some verdicts show
    for kind, payload in PAYLOADS.items():
        found = shown(tmp_path / kind.replace(" ", "-"), payload)
        text = found["report.html"]
        skeleton = Skeleton(text)
        assert skeleton.found == expected.found, kind
        assert skeleton.scripts == expected.scripts, kind
        assert not unseen(text), (kind, unseen(text))
        assert all(mark in text for mark in marks if mark not in hidden), kind
        for name, content in found.items():
            if name.endswith(".tsv"):
                require_safe_table(content, columns[name])
            if name.endswith(".md"):
                require_plain_markdown(content, plain[name], kind)
    no_canary(tmp_path)


def require_plain_markdown(text, plain, kind):
    """The lines and columns of the plain one, and nothing that Markdown takes for its own."""
    assert not unseen(text), kind
    lines, others = (t.split("\n") for t in (text, plain))
    assert len(lines) == len(others), kind
    bare = text
    for sign in "\\`*~|[]_#-+":
        bare = bare.replace(f"\\{sign}", "")
    for line, other in zip(bare.split("\n"), others):
        for sign in "|`[]<":
            assert line.count(sign) == other.replace("\\|", "").count(sign), (kind, sign, line)
        assert line.startswith("- ") == other.startswith("- ")
        assert not line.startswith(("- # ", "- - ", "- + ")), line
    assert "://" not in bare


@pytest.mark.parametrize("place", ["datasets", "models", "engines", "train"])
def test_names_of_the_configuration(tmp_path, monkeypatch, place):
    """Names become folders and wildcards: all payloads are refused there."""
    monkeypatch.chdir(tmp_path)
    for payload in PAYLOADS.values():
        if place == "train":
            given = {"train": {"name": payload}}
        else:
            entry = {"datasets": {"layout": "folder", "path": "."}, "engines": {
                "backend": "torchscript"}, "models": {"random": {}}}[place]  # fmt: skip
            given = {place: {payload: entry}, "run": {place: [payload]}}
        assert refused(lambda given=given: complete(given)), payload
        assert refused(lambda p=payload: complete({"run": {"datasets": [p]}})), payload


@pytest.mark.parametrize("key", ["path", "labels", "published", "pcm_sha256", "within", "urls"])
def test_paths_of_the_configuration(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    for payload in PAYLOADS.values():
        entry = {"layout": "folder", "path": "absent", key: [payload] if key == "urls" else payload}
        given = {"datasets": {"own": entry}, "run": {"datasets": ["own"]}}
        assert refused(lambda given=given: complete(given)), payload
    no_canary(tmp_path)


@pytest.mark.parametrize("key", ["archive", "checkpoint", "baseline"])
def test_sources_of_the_configuration(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    for payload in PAYLOADS.values():
        assert refused(lambda p=payload: complete({key: p})), payload


def make(place, layout, source, out):
    """Run the corpus stage and the manifest's as programs do; what it logs."""
    (place / "labels.json").write_text(json.dumps(LABELS))
    log = place / "log.txt"
    argv = [
        "--layout", layout, "--source", source, "--text-case", "keep",
        "--labels", place / "labels.json", "--corpus", out / "corpus",
        "--index", out / "corpus.json", "--labels-copy", out / "labels.json", "--log", log,
        "--rules", json.dumps({"skip": [*layouts.REASONS], "allow_outside": False}),
    ]  # fmt: skip
    made = refused(lambda: cli.call(corpus.main, list(map(str, argv))))
    if not made:
        target = out / "manifest.json"
        made = refused(
            lambda: manifest.main(out / "corpus.json", out / "corpus", "all", target)
        ) or refused(lambda: [sample.read() for sample in manifest.read(target)])
    text = log.read_text(encoding="utf-8")
    assert not unseen(text), text
    return not made


@pytest.mark.parametrize("place", ["file", "row", "speaker", "transcript", "json"])
def test_what_a_corpus_holds(tmp_path, place):
    """Ids, speakers and texts; only the corpus's own folder is written."""
    works = 0
    for number, payload in enumerate(PAYLOADS.values()):
        folder = tmp_path / str(number)
        (folder / "in").mkdir(parents=True)
        sound, layout, source = folder / "in/u.wav", "tsv", folder / "in/t.tsv"
        soundfile.write(sound, tone(), 16000)
        cells = ["u.wav", "YES", "s"]
        if place == "file":
            if "/" in payload or "\0" in payload or len(payload) > 250:
                continue
            sound.rename(folder / f"in/{payload}.wav")
            (folder / f"in/{payload}.txt").write_text("YES\n")
            layout, source = "folder", folder / "in"
        elif place == "json":
            layout, source = "nemo", folder / "in/m.json"
            entry = {
                "audio_filepath": "u.wav",
                "text": payload,
                "duration": 0.5,
                "speaker": payload,
            }
            source.write_text(json.dumps(entry) + "\n")
        else:
            cells[("row", "transcript", "speaker").index(place)] = payload
        if layout == "tsv":
            source.write_text("path\ttranscript\tspeaker\n" + "\t".join(cells) + "\n")
        before = {path for path in folder.rglob("*") if path.name != "log.txt"}
        out = folder / "out"
        works += make(folder, layout, source, out)
        new = set(folder.rglob("*")) - before
        own = {folder / "labels.json", folder / "log.txt", out}
        assert all(path in own or out in path.parents for path in new)
    assert works > 5 or place in ("row",)
    no_canary(tmp_path)


def test_labels(tmp_path):
    for payload in PAYLOADS.values():
        assert refused(lambda p=payload: labels.check(["_", p], "x"))
        for character in payload:
            refused(lambda c=character: labels.check(["_", "\u00e9", c], "x"))


def test_messages_and_logs_are_one_line(tmp_path):
    for payload in PAYLOADS.values():
        assert not unseen(str(UserError(payload)))
        log = tmp_path / "log.txt"

        def main() -> None:
            """See above."""
            cli.log.info("%s", payload)  # noqa: B023

        cli.call(main, ["--log", str(log)])
        text = log.read_text(encoding="utf-8")
        assert text.count("\n") == 1 and not unseen(text)


def test_a_published_table_whose_cells_are_texts(tmp_path):
    path = tmp_path / "p.tsv"
    for payload in PAYLOADS.values():
        for line in (f"1\t{payload}\n", f"{payload}\t1\n"):
            path.write_text(f"batch_size\twer\n{line}", encoding="utf-8", newline="")
            if not refused(lambda: published.read({"d": path})):
                assert set(published.read({"d": path})[0]["d"]) <= {1, 2}
