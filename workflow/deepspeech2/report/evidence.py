"""Compute a submission's figures again from its raw parts, and say what does not hold.

Every figure of its table is computed by the code that this version measures with: error rates,
intervals, alignments and agreement from the transcripts, speeds, latencies, spread and padding from
the times of every batch, verdicts from those and the rules, the records from all that, the table
from the records. docs/submission.md says what no check can see.
"""

from __future__ import annotations

import datetime
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deepspeech2 import cli
from deepspeech2.cli import UserError
from deepspeech2.corpus import archives
from deepspeech2.engines import PADDINGS, Engine, energy, proof, timing, verdicts
from deepspeech2.features import parts
from deepspeech2.features.batches import Batches, FeatureSet
from deepspeech2.files import read_sealed, read_text, sha256
from deepspeech2.report import published as published_figures
from deepspeech2.report import summary
from deepspeech2.report.columns import to_markdown, to_tsv
from deepspeech2.report.record import compose
from deepspeech2.report.rows import read_record
from deepspeech2.report.submission import FORMAT, INDEX
from deepspeech2.scoring import agreement, reliability, sclite, score
from deepspeech2.scoring import transcripts as transcripts_file
from deepspeech2.serving import arrivals
from deepspeech2.serving import server as served
from deepspeech2.serving.arrivals import Rule, Trial

LIMITS = archives.Limits(200_000, 1 << 30, 8 << 30, "a submission")
LONGEST_TEXT = 100_000  # characters: alignments take their square
TOLERANCE = 1e-9  # relative: the same sums by another version of a library
CLOCKS = 1.0  # seconds that two clocks of a machine may disagree by
THEN = "ask for it anew"


def differences(given: Any, derived: Any, where: str = "") -> Iterator[str]:
    """Where two values of JSON's kinds differ, and how."""
    if isinstance(given, dict) and isinstance(derived, dict):
        for key in sorted(given.keys() | derived.keys()):
            path = f"{where}.{key}" if where else str(key)
            if key not in given or key not in derived:
                yield f"{path}: {'missing' if key in derived else 'should not be there'}"
            else:
                yield from differences(given[key], derived[key], path)
    elif isinstance(given, list) and isinstance(derived, list) and len(given) == len(derived):
        for number, pair in enumerate(zip(given, derived)):
            yield from differences(*pair, f"{where}[{number}]")
    elif not _same(given, derived):
        yield f"{where}: {json.dumps(given):.80}, but {json.dumps(derived):.80} from its parts"


def _same(given: Any, derived: Any) -> bool:
    if float in (type(given), type(derived)) and {type(given), type(derived)} <= {int, float}:
        return math.isclose(given, derived, rel_tol=TOLERANCE, abs_tol=1e-12)
    return type(given) is type(derived) and given == derived


def plain(value: Any) -> Any:
    """A value as its readers have it: of JSON's kinds."""
    return json.loads(json.dumps(value))


class Submission:
    """An unpacked submission: its index, its rows, and what does not hold."""

    def __init__(self, folder: Path):
        self.folder, self.complaints, self.derived = folder, [], 0
        self.index = read_sealed(folder / INDEX, THEN)
        if not _same(self.index["format"], FORMAT):
            raise UserError(f"{INDEX}: format {self.index['format']!r:.40}; this reads {FORMAT}")
        rows, files, published = (self.index[key] for key in ("rows", "files", "published"))
        if not (
            all(isinstance(one, list) for one in (rows, published))
            and isinstance(files, dict)
            and rows
            and all(isinstance(text, str) for text in (*rows, *published, *files.values()))
            and all(map(_is_row, rows))
        ):
            raise UserError(f"{INDEX}: of another shape; {THEN}")

    def complain(self, where: str, what: str) -> None:
        """Note what does not hold."""
        self.complaints.append(f"{where}: {what.replace(f'{self.folder}/', '')}")

    def compare(self, where: str, given: Any, derived: Any) -> None:
        """Note where what is given differs from what was computed again."""
        self.derived += 1
        for line in differences(given, plain(derived)):
            self.complain(where, line)

    def require(self, holds: Any, where: str, what: str) -> None:
        """Note a rule that is broken."""
        self.derived += 1
        if not holds:
            self.complain(where, what)

    def sealed(self, name: str) -> dict:
        """A file of JSON with its seal."""
        return read_sealed(self.folder / name, THEN)

    def text(self, digest: str | None) -> Path | None:
        """A text that was given to the scoring, by its hash."""
        return None if digest is None else self.folder / "texts" / _name(digest)

    def files(self) -> None:
        """Every file is there with its hash, and no other is."""
        found = {
            path.relative_to(self.folder).as_posix(): path
            for path in self.folder.rglob("*")
            if path.is_file()
        }
        found.pop(INDEX)
        listed = self.index["files"]
        for name in sorted(found.keys() | listed.keys()):
            if name not in found or name not in listed:
                self.complain(name, "missing" if name in listed else f"not listed in {INDEX}")
            elif sha256(found[name]) != listed[name]:
                self.complain(name, f"not what {INDEX} lists")

    def run(self) -> None:
        """Check all of it. What is of another shape does not hold either."""
        self.files()
        rows = self.index["rows"]
        self.require(len(rows) == len(set(rows)), INDEX, "a row twice")
        for row in rows:
            self._guarded(row, lambda row=row: Row(self, row).run())
        self._guarded("table", self.table)

    def _guarded(self, where: str, check: Callable[[], None]) -> None:
        try:
            check()
        except UserError as error:
            self.complain(where, str(error))
        except (*cli.OF_VALUES, OSError, RecursionError) as error:
            self.complain(where, f"of another shape ({type(error).__name__}: {error!s:.200})")

    def table(self) -> None:
        """The table is that of the records, which are of the same data and models."""
        records = [read_record(self.folder / row / "record.json") for row in self.index["rows"]]
        for kind, key in (("dataset", "dataset"), ("model", "checkpoint")):
            for name in {record[kind] for record in records}:
                hashes = {r["hashes"][key] for r in records if r[kind] == name}
                self.require(len(hashes) == 1, f"{kind} {name}", "rows are of different ones")
        tables = {name: self.folder / "published" / f"{_name(name)}.tsv"
                  for name in self.index["published"]}  # fmt: skip
        figures, remarks = published_figures.read(tables)
        rows = summary.summarise(records, figures)
        made = {
            "table.tsv": to_tsv(summary.COLUMNS, rows),
            "table.md": to_markdown(summary.shown(rows), summary.notes(rows, remarks)),
        }
        for name, text in made.items():
            given = read_text(self.folder / name)
            if given != text:
                pairs = zip(given.splitlines(), text.splitlines())
                line = next((n for n, (a, b) in enumerate(pairs, 1) if a != b), "its end")
                self.complain(name, f"line {line}: not what the records say")
            self.derived += 1


def _is_row(text: str) -> bool:
    parts = text.split("/")
    return len(parts) == 5 and not {"", ".", ".."} & set(parts) and text.isprintable()


def _name(text: str) -> str:
    if Path(text).name != text or text in ("", ".", ".."):
        raise UserError(f"{text!r:.80}: not the name of a file")
    return text


class Row:
    """One row of a submission."""

    def __init__(self, submission: Submission, row: str):
        self.all, self.row = submission, row
        self.dataset, self.model, self.engine, self.batch, self.decoder = row.split("/")
        self.base = f"{self.dataset}/{self.model}"
        self.folder = submission.folder / row
        self.record = read_record(self.folder / "record.json")

    def run(self) -> None:
        """Check everything of it."""
        network = f"{self.base}/{self.engine}/{self.batch}"
        names = {
            "score": f"{self.row}/score.json",
            "agreement": f"{self.row}/agreement.json",
            "timing": f"{network}/timing.json",
            "posteriors_index": f"{network}/posteriors.json",
            "transcripts_index": f"{self.row}/transcripts.json",
            "decoding_time": f"{self.base}/eager/{self.decoder}/decoding_time.json",
            "corpus_index": f"datasets/{self.dataset}/corpus.json",
            "features_index": f"{self.base}/features.json",
            "single_stream": f"{self.base}/{self.engine}/single_stream.json",
        }
        if "zeros" in self.record:
            names["zeros"] = f"{network}/zeros.json"
        if "server" in self.record:
            names["server"] = f"{self.base}/{self.engine}/server/{self.decoder}/server.json"
        self.parts = {key: self.all.sealed(name) for key, name in names.items()}
        configuration = {
            key: value
            for key, value in self.record["configuration"].items()
            if key not in ("engine", "decoder")
        }
        composed = compose(self.row, configuration, self.parts)
        self.all.compare(f"{self.row}/record.json", self.record, composed)
        self.accuracy(self.all.folder / names["features_index"], configuration)
        timed = self.all.folder / self.base / "parts" / parts.SAMPLE / "features.json"
        features = timed if timed.exists() else self.all.folder / names["features_index"]
        of = self.parts["features_index"]["utterances"]
        for key, size, scenario, times in (
            ("timing", self.record["batch_size"], "offline", f"{network}/times.tsv"),
            ("single_stream", 1, "single_stream",
             f"{self.base}/{self.engine}/single_stream_times.tsv"),
        ):  # fmt: skip
            path = self.all.folder / times
            self.speed(names[key], self.parts[key], features, of, size, scenario, path)
        if "server" in names:
            self.server(names["server"], self.parts["server"], features)
        offline, stream = self.parts["timing"], self.parts["single_stream"]
        run = self.parts["posteriors_index"]["run"]
        self.all.compare(
            f"{network}/posteriors.json", {k: run[k] for k in ("engine", "batch_size")},
            {"engine": offline["engine"], "batch_size": self.record["batch_size"]},
        )  # fmt: skip
        same = ("engine", "checkpoint", "checkpoint_sha256", "parameters")
        self.all.compare(names["single_stream"], stream["code_sha256"], offline["code_sha256"])
        for key in ("single_stream", "server"):
            given = {k: self.parts[key][k] for k in same} if key in names else {}
            self.all.compare(names.get(key, ""), given, {k: offline[k] for k in given})
        decoding = self.parts["decoding_time"]
        self.all.require(
            decoding["utterances"] <= len(of) and decoding["ms_per_utterance"] > 0,
            names["decoding_time"], "more utterances than there are, or no time",
        )  # fmt: skip

    def accuracy(self, features_index: Path, configuration: dict) -> None:
        """Error rates, alignments and agreement are those of the transcripts."""
        given, where = self.parts["score"], f"{self.row}/score.json"
        path, index = self.folder / "transcripts.jsonl", self.folder / "transcripts.json"
        entries = self._transcripts(path, index)
        utterances = self.parts["features_index"]["utterances"]
        run = self.parts["posteriors_index"]
        self.all.require(
            run["run"]["features_sha256"] == sha256(features_index)
            and [u["id"] for u in run["utterances"]] == [u["id"] for u in utterances]
            and sum(part["utterances"] for part in run["files"]) == len(utterances)
            and run["classes"] == len(self.parts["features_index"]["labels"]),
            f"{self.base}/{self.engine}/{self.batch}/posteriors.json", "of other utterances",
        )  # fmt: skip
        digests = {
            name: given[f"{name}_sha256"]
            for name in ("training_texts", "language_model_texts", "word_times")
        }
        training, heard, times = map(self.all.text, digests.values())
        for name, path_of in zip(digests, (training, heard, times)):
            known = path_of is None or sha256(path_of) == digests[name]
            self.all.require(known, where, f"{name}: other texts")
        texts = map(transcripts_file.read_training_texts, (training, heard))
        derived = score.figures(entries, utterances, *texts)
        truth = reliability.read_ctm(times) if times else {}
        derived["times"] = reliability.start_errors(entries, truth)
        normaliser = configuration["score"]["normaliser"]
        if normaliser:
            derived["normalised"] = score.normalised(entries, normaliser)
        lines = [json.dumps(line, ensure_ascii=False) for line in score.aligned(entries)]
        alignments = self.folder / "alignments.jsonl"
        self.all.require(
            read_text(alignments) == "".join(f"{line}\n" for line in lines),
            f"{self.row}/alignments.jsonl", "not the alignments of the transcripts",
        )  # fmt: skip
        derived["alignments_sha256"] = sha256(alignments)
        derived["transcripts_sha256"] = sha256(path)
        about = {
            k: given[k] for k in ("code_sha256", "libraries", *(f"{d}_sha256" for d in digests))
        }
        self.all.compare(where, given, {**derived, **about})
        eager = self.all.folder / self.base / "eager" / self.decoder
        derived = agreement.transcripts_agree(
            entries, self._transcripts(eager / "transcripts.jsonl", eager / "transcripts.json")
        )
        by, eager_by = (
            {key: index[key] for key in ("decoder", "language_model", "tuning")}
            for index in (self.parts["transcripts_index"], read_sealed(eager / "transcripts.json"))
        )
        self.all.compare(f"{self.base}/eager/{self.decoder}/transcripts.json", eager_by, by)
        agreed = self.parts["agreement"]
        shared = {key: agreed[key] for key in derived}
        self.all.compare(f"{self.row}/agreement.json", shared, derived)
        self._sclite(entries)

    def _transcripts(self, path: Path, index: Path) -> dict[str, dict]:
        entries = transcripts_file.read(path, index)
        self.all.require(
            read_sealed(index)["utterances"] == len(entries),
            str(index), "another number of utterances",
        )  # fmt: skip
        for name, entry in entries.items():
            if max(len(entry["reference"]), len(entry["hypothesis"])) > LONGEST_TEXT:
                raise UserError(f"{path}: {name!r}: a text of more than {LONGEST_TEXT} characters")
        return entries

    def _sclite(self, entries: dict[str, dict]) -> None:
        """What sclite takes is the same transcripts, and so are the words' times."""
        names = sclite.plain_ids(list(entries))
        for name, side in (("ref.trn", "reference"), ("hyp.trn", "hypothesis")):
            lines = (f"{e[side]} ({n})\n" for n, e in zip(names, entries.values()))
            same = read_text(self.folder / name) == "".join(lines)
            self.all.require(same, f"{self.row}/{name}", "not the texts of the transcripts")
        words = [
            [name, word[0]]
            for name, entry in sorted(zip(names, entries.values()), key=lambda pair: pair[0])
            for word in entry.get("words", ())
        ]
        lines = read_text(self.folder / "hyp.ctm").splitlines()
        found = [[line.split()[0], line.split()[4]] for line in lines if line[:2] != ";;"]
        self.all.require(found == words, f"{self.row}/hyp.ctm", "not the words of the transcripts")

    def speed(
        self, where: str, given: dict, index: Path, of: list, size: int, scenario: str, path: Path
    ) -> None:
        """A timing file's figures are those of its batches' times, and its verdict the rules'."""
        times = timing.read_times(path)
        features = FeatureSet(index.parent / "features", index)
        timed = features.part(parts.sample(features.utterances, given["sample"]))
        engine = Engine(**given["engine"])
        batches = Batches(timed, size, engine.pad_to)
        settings = verdicts.Settings(**given["settings"])
        one_pass = timing.starts_of(batches, scenario)
        expected = []
        for start in one_pass:
            real = timed.utterances[start : start + size]
            rows = len(real) + batches.fill_up_rows(len(real))
            seconds, frames = (sum(u[key] for u in real) for key in ("seconds", "frames"))
            expected.append((len(real), seconds, frames, rows * batches.width(start), rows))
        for number, one in enumerate(times):
            if not all(map(_same, one[4:], expected[number % len(expected)])):
                self.all.complain(path.name, f"batch {number}: not the batch of these utterances")
                break
        passes, rest = divmod(len(times), len(one_pass))
        enough = len(times) >= settings.min_batches and (
            sum(t.forward for t in times) >= settings.min_seconds
        )
        self.all.require(
            not rest and (passes == settings.multi if settings.multi else enough),
            where, "not whole passes over the utterances, or fewer batches or seconds than set",
        )  # fmt: skip
        configured = self.configured_timing(where, given, len(of))
        self.all.compare(f"{where}: settings", given["settings"], configured)
        figures = timing.summarise(times, by_width=bool(engine.buckets))
        checked = given["proof"]
        outputs = passes * math.ceil(proof.SHARE * len(timed))
        self.proven(where, given, len(timed), checked["outputs"] == outputs)
        conditions = verdicts.Conditions(**{k: given[k] for k in verdicts.Conditions._fields})
        self.all.require(
            0 <= conditions.load_before <= 1 and 0 <= conditions.other_load <= 1, where, "load"
        )
        fake = given["verdict"] == "FAKE"
        derived = {
            **verdicts.verdict(figures, settings, conditions, fake, checked["wrong"]),
            **figures,
            "scenario": scenario,
            "batch_size": size,
            "sample": len(timed),
            "fill_up_rows": batches.fill_up_rows(),
            "padding_shares": {p: Batches(timed, size, p).padding_share() for p in PADDINGS},
            "times_sha256": sha256(path),
            "manifest": features.description["manifest"],
            "dataset_sha256": features.description["manifest_sha256"],
        }
        self.all.compare(where, {key: given[key] for key in derived}, derived)
        told = given["energy"]
        if told["sources"]:
            idle = energy.Reading({"all": told["idle_watts"]}, 1.0)
            used = energy.Reading({"all": told["joules"]}, told["seconds"])
            audio = sum(t.audio_seconds for t in times)
            derived = energy.figures(idle, used, figures["utterances"], audio)
            for key in ("joules_above_idle", "joules_per_utterance", "joules_per_audio_hour"):
                near = math.isclose(told[key], derived[key], rel_tol=1e-2, abs_tol=0.01)
                self.all.require(near, where, f"energy.{key}: not of its joules and idle watts")
        needed = sum(t.assemble + t.upload + t.forward + t.download for t in times)
        self.lasted(where, given, needed)

    def configured_timing(self, where: str, given: dict, count: int) -> dict:
        """The settings of a timing by the configuration; its sample of `count` is compared, too."""
        configured = self.record["configuration"]["timing"]
        sample = configured["sample"]
        self.all.compare(f"{where}: sample", given["sample"], min(sample, count))
        return {
            **configured,
            "governors": configured["governors"] or [],
            "sample": sample if sample < count else verdicts.SAMPLE,
        }

    def proven(self, where: str, given: dict, count: int, enough: bool) -> None:
        """What is told of a timed run's outputs is of a tenth of its `count` utterances."""
        checked, precision = given["proof"], given["engine"]["precision"]
        self.all.require(
            enough
            and checked["utterances"] == math.ceil(proof.SHARE * count)
            and checked["tolerance"] in (0.0, proof.TOLERANCES[precision])
            and (checked["largest_difference"] > checked["tolerance"]) == bool(checked["wrong"]),
            where, "proof: not of the outputs that the rules name",
        )  # fmt: skip

    def lasted(self, where: str, given: dict, needed: float) -> None:
        """A measurement took as long as what it timed, at least."""
        began, ended = (datetime.datetime.fromisoformat(given[k]) for k in ("started", "ended"))
        self.all.require(
            (ended - began).total_seconds() + CLOCKS >= needed,
            where, "its batches took longer than from its start to its end",
        )  # fmt: skip

    def server(self, where: str, given: dict, index: Path) -> None:
        """The rate is what the times lead to, of arrivals as they are drawn for each trial."""
        path = self.all.folder / Path(where).with_name("times.tsv")
        trials, rule = arrivals.read(path), Rule(**given["rule"])
        of = FeatureSet(index.parent / "features", index)
        timed = of.part(parts.sample(of.utterances, given["sample"]))

        def again(rate: float, count: int, seed: int) -> Trial:
            if seed >= len(trials) or count > arrivals.MOST:
                raise UserError(f"{path.name}: not the trials that the rules ask for")
            trial = trials[seed]
            arrived, _ = arrivals.draw(rate, count, seed, len(timed))
            came = len(trial.done)
            self.all.require(
                _same(trial.rate, rate)
                and trial.count == count >= came
                and np.allclose(trial.arrived, arrived[:came], rtol=TOLERANCE)
                and (came == count or trial.late(rule) > rule.allowed(count) >= 0)
                and _is_served(trial, rule),
                path.name, f"trial {seed}: not what the rules make of arrivals at that rate",
            )  # fmt: skip
            return trial

        found, made = arrivals.search(rule, given["capacity"], again)
        self.all.require(len(made) == len(trials), path.name, "more trials than the rules ask for")
        figures = served.summarise(rule, given["capacity"], found, trials)
        utterances = self.parts["features_index"]["utterances"]
        configured = self.configured_timing(where, given, len(utterances))
        names = ("warmup_batches", "max_other_load", "governors", "sample")
        settings = served.settings_of(rule, *(configured[name] for name in names))
        self.all.compare(f"{where}: settings", given["settings"], settings._asdict())
        self.proven(where, given, len(timed), given["proof"]["outputs"] > 0)
        by = self.parts["transcripts_index"]
        decoder = {**by["decoder"], **{key: by[key] for key in ("language_model", "tuning")}}
        self.all.compare(f"{where}: decoder", given["decoder"], decoder)
        rule_then = self.record["configuration"]["server"]
        self.all.compare(f"{where}: rule", given["rule"], rule_then)
        conditions = verdicts.Conditions(**{k: given[k] for k in verdicts.Conditions._fields})
        fake, wrong = given["verdict"] == "FAKE", given["proof"]["wrong"]
        derived = {
            **served.judge(figures, settings, conditions, fake, wrong),
            **figures,
            "audio_seconds": float(np.mean([u["seconds"] for u in timed.utterances])),
            "times_sha256": sha256(path),
            "manifest": of.description["manifest"],
            "dataset_sha256": of.description["manifest_sha256"],
        }
        self.all.compare(where, {key: given[key] for key in derived}, derived)
        self.lasted(where, given, sum(float(trial.done[-1]) for trial in trials))


def _is_served(trial: Trial, rule: Rule) -> bool:
    """Whether utterances were done in batches of the rule's, one after the other, once arrived."""
    steps = np.diff(trial.done, prepend=-1)
    lengths = np.diff(np.flatnonzero(steps), append=len(steps))
    return bool(
        np.array_equal(trial.sizes, np.repeat(lengths, lengths))
        and trial.sizes.max() <= rule.max_batch
        and (steps >= 0).all()
        and (trial.latencies > 0).all()
    )


@contextmanager
def checked(archive: Path) -> Iterator[Submission]:
    """A submission, unpacked for as long as the block runs, with what does not hold in it.

    Raises `UserError` for what is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        archives.unpack(archive, Path(folder), LIMITS)
        submission = Submission(Path(folder))
        submission.run()
        yield submission
