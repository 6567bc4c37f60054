"""A stage's command line follows from its `main`; how stages fail and end."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from typing import Literal

import helpers
import pytest
from deepspeech2 import cli, lacks_memory
from deepspeech2.cli import Cores, Input, Output, Settings
from helpers import assert_one_line_error, run_stage, write_sealed
from test_structure import STAGES

seen = {}


def main(
    source: Input,
    many: list[Input],
    pairs: dict[str, Input],
    settings: Settings,
    extra: Input | None,
    result: Output,
    kind: Literal["one", "two"] = "one",
    share: float = 0.5,
    threads: Cores = 4,
    *,
    half: bool = False,
) -> None:
    """Command line.

    source: what is read
    many: several,
        on two lines
    pairs: by name
    settings: as JSON
    extra: if there is any
    result: what is written, 100 %
    kind: of two
    share: of all
    threads: of the host
    half: for people
    """
    seen.clear()
    seen.update(locals())


GIVEN = ["--source=-a b", "--many", "x", "y", "--pairs", "n=p=q", '--settings={"a": 1}',
         "--result=r"]  # fmt: skip


def test_parameters_are_options():
    cli.call(main, GIVEN)
    assert {k: v for k, v in seen.items() if k not in ("source", "result", "many", "pairs")} == {
        "settings": {"a": 1}, "extra": None, "kind": "one", "share": 0.5, "threads": 4,
        "half": False,
    }  # fmt: skip
    assert str(seen["source"]) == "-a b" and list(map(str, seen["many"])) == ["x", "y"]
    assert {k: str(v) for k, v in seen["pairs"].items()} == {"n": "p=q"}


def test_an_empty_option_is_not_given():
    """A rule hands over what it has; there may be nothing."""
    cli.call(main, [*GIVEN, "--extra=", "--kind=", "--share=", "--threads=", "--many", "--pairs"])
    assert seen["extra"] is None and seen["many"] == [] and seen["pairs"] == {}
    assert (seen["kind"], seen["share"], seen["threads"]) == ("one", 0.5, 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kind=three"], "argument --kind: 'three' is not one of one, two"),
        (["--threads=x"], "argument --threads: invalid Cores value: 'x'"),
        (["--settings=[]"], "argument --settings: not a JSON object"),
        (["--settings={"], "argument --settings: broken JSON"),
        (["--pairs", "x"], "argument --pairs: 'x' is not NAME=VALUE"),
        (["--hal"], "unrecognized arguments: --hal"),
        (["--source="], ""),
    ],
)
def test_wrong_options_are_one_line(arguments, words, capsys):
    if not words:
        cli.call(main, [*GIVEN, *arguments])  # a path may be empty for all the parser knows
        return
    with pytest.raises(SystemExit) as exit_:
        cli.call(main, [*GIVEN, *arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2 and line.startswith("error: ") and words in line


def test_what_is_needed_is_named(capsys):
    with pytest.raises(SystemExit):
        cli.call(main, [])
    assert "required: --source, --many, --pairs, --settings, --result" in capsys.readouterr().err


def test_help_has_every_option(capsys):
    with pytest.raises(SystemExit):
        cli.call(main, ["--help"])
    text = capsys.readouterr().out
    assert "how stages fail and end" in text and "several, on two lines" in text
    assert "100 %" in text and "(default: 0.5)" in text and "{one,two}" in text


@pytest.mark.parametrize("name", STAGES)
def test_help_teaches(name):
    result = run_stage(name, "--help")
    assert result.returncode == 0
    assert f"python -m deepspeech2.{name.removesuffix('.__main__')}" in result.stdout
    text = result.stdout.split("\n\n", 1)[1]
    assert len(text) > 200 and "--log" in text


def test_the_error_is_also_the_last_line_of_the_log(tmp_path):
    log = tmp_path / "x.log"
    arguments = ("--index", tmp_path / "no.json", "--corpus", tmp_path, "--split", "all")
    arguments += ("--manifest", tmp_path / "m.json", "--log", log)
    result = run_stage("corpus.manifest", *arguments)
    assert_one_line_error(result, "no.json")
    assert log.read_text().splitlines()[-1] == result.stderr.strip()


STAGE = "from __future__ import annotations\nfrom deepspeech2 import cli\nimport time\n" \
        "def main() -> None:\n    {}\ncli.run(main)"  # fmt: skip


def test_interruption_is_one_line():
    code = STAGE.format("print('ready', flush=True); time.sleep(60)")
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        # Programs that a shell started in the background ignore the signal.
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    }
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().strip() == "error: interrupted; run again to continue"
    assert process.returncode == 130


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_missing_right_is_one_line(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    (tmp_path / "c.json").write_text('{"utterances": []}')
    result = run_stage(
        "corpus.manifest", "--index", tmp_path / "c.json", "--corpus", tmp_path, "--split", "all",
        "--manifest", tmp_path / "m.json", "--log", tmp_path / "closed" / "x.log",
    )  # fmt: skip
    assert_one_line_error(result, "closed", "Permission denied")


def test_the_name_of_a_file_in_an_error_of_the_system_is_one_line():
    code = STAGE.format("raise OSError(28, 'No space left', 'a\\nb\\x1b[31m')")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert_one_line_error(result, r"a\nb\x1b[31m: No space left; make room")
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("end", ["None", "1 / 0"])
def test_what_a_stage_imported_is_not_looked_through_at_its_end(end):
    code = (
        "import atexit, gc\natexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
        + STAGE.format(end)
    )
    code = code.replace("from __future__ import annotations\n", "")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "True\n" and ("ZeroDivisionError" in result.stderr) == (end != "None")


def test_an_error_ends_the_processes_of_a_pool():
    start = time.monotonic()
    with pytest.raises(ZeroDivisionError), cli.pool(2) as pool:
        pool.submit(time.sleep, 60)
        raise ZeroDivisionError
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (MemoryError(), True),
        (ImportError("a.so: failed to map segment from shared object"), True),
        (OSError("libgomp.so.1: failed to map segment from shared object"), True),
        (RuntimeError("can't start new thread"), True),
        (SystemError("error return without exception set"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 MiB"), True),
        (ImportError("cannot import name 'memory' from 'torch'"), False),
        (ImportError("cannot import name 'memory_stats' from 'torch'"), False),
        (FileNotFoundError(2, "No such file or directory", "no memory.json"), False),
        (ValueError("no memory"), False),
    ],
)
def test_what_says_that_memory_is_short(error, known):
    assert lacks_memory(error) == known
    with pytest.raises(KeyError) as found:
        try:
            raise error
        finally:
            raise KeyError("another")
    assert lacks_memory(found.value) == known


@pytest.mark.parametrize("megabytes", [20, 30, 40, 50])
@pytest.mark.parametrize("stage", ["model.torchscript", "report.figures", "scoring.score"])
def test_memory_is_short_during_imports(stage, megabytes):
    """With a little more numpy's library for products aborts, and says so in its own words."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20,) * 2)

    result = run_stage(stage, preexec_fn=limit)
    if "the following arguments are required" not in result.stderr:
        assert_one_line_error(result, "out of memory; use")


def test_another_error_during_imports_shows_its_place(tmp_path):
    (tmp_path / "numpy.py").write_text("1 / 0")
    path = f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"
    result = run_stage("features.preprocess", env={**os.environ, "PYTHONPATH": path})
    assert result.returncode == 1 and "Traceback" in result.stderr
    assert result.stderr.strip().endswith("ZeroDivisionError: division by zero")


def test_a_value_of_another_kind_is_one_line_and_the_log_has_the_place(tmp_path):
    """In a file with a seal that fits; other faults of a stage keep their traceback."""
    write_sealed(tmp_path / "a.json", {"count": "7", "more": [{"count": 7}]})
    code = STAGE.replace("import time", "from deepspeech2.files import read_sealed").format("{}")
    use = "data = read_sealed('a.json'); {}"
    for text, key, why in (
        ("data['count'] + 1", "count", "TypeError"),
        ("data['count'].real", "count", "AttributeError"),
        ("data['more']['count']", "more", "TypeError"),
        ("data['more'][0]['count'][0]", "count", "TypeError"),
        ("data['more'][1]", "more", "IndexError"),
    ):
        words = [sys.executable, "-c", code.format(use.format(text)), "--log", "x.log"]
        result = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
        assert_one_line_error(
            result, "a.json: it, or a file", f"near '{key}': {why}", "rebuild it with"
        )
        lines = (tmp_path / "x.log").read_text().splitlines()
        assert lines[0].startswith("Traceback") and lines[-1] == result.stderr.strip()
    result = subprocess.run(
        [sys.executable, "-c", code.format("{}['a']")], capture_output=True, text=True
    )
    assert result.stderr.startswith("Traceback") and "KeyError" in result.stderr


def test_a_program_that_hangs_says_where(monkeypatch):
    """What the tests start has so much time, or the suite would hang with it."""
    monkeypatch.setattr(helpers, "LONGEST", 2)
    done = helpers.run_module(["timeit", "-n1", "-r1", "import time; time.sleep(60)"])
    assert done.returncode == 1
    assert "Timeout (0:00:02)!" in done.stderr and '"<timeit-src>"' in done.stderr
