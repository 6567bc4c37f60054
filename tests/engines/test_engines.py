"""Entries of engines: their backend completes them, and wrong ones are refused in one line."""

import json
from argparse import ArgumentTypeError

import pytest
from deepspeech2 import cli, engines
from deepspeech2.cli import UserError
from deepspeech2.engines import Engine, Option, infer
from helpers import assert_one_line_error, run_stage


def test_a_backend_completes_an_entry():
    engine = Engine.parse("torchscript")
    assert engine == ("torchscript", "cpu", "fp32", "static", "longest", [], {})
    assert engine.pad_to == "longest" and engine.export == ("torchscript", "static", 17, False)
    engine = engines.complete({"backend": "torchscript", "device": "cuda:0", "buckets": [9, 5, 9]})
    assert engine.options == {"cuda_graphs": False, "tf32": False}
    assert engine.buckets == engine.pad_to == [5, 9]
    engine = engines.complete({"backend": "torch_aie", "options": {"min_block_size": 7}})
    assert (engine.device, engine.precision) == ("npu:0", "fp16")
    assert engine.options["min_block_size"] == 7 and engine.options["need_compile"] is False
    assert Engine.parse(engine.text()) == engine


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tensorrt", "neither a backend nor JSON"),
        ("[]", "not a JSON object with backend, device"),
        ('{"backend": "native", "speed": 1}', "not a JSON object with backend, device"),
        ('{"backend": "tensorrt"}', "unknown backend 'tensorrt'; known are: torchscript, native"),
        ('{"device": "cpu"}', "unknown backend ''"),
        ('{"backend": "native", "precision": "fp64"}', "precision: 'fp64' is not one of fp32"),
        ('{"backend": "native", "padding": "none"}', "padding: 'none' is not one of longest"),
        ('{"backend": "native", "form": "loose"}', "form: 'loose' is not one of static, packed"),
        ('{"backend": "native", "buckets": [0]}', "buckets: must be whole numbers of frames"),
        ('{"backend": "native", "buckets": [true]}', "buckets: must be whole numbers of frames"),
        ('{"backend": "native", "padding": "batch", "buckets": [5]}', "not together with padding"),
        ('{"backend": "native", "options": {"x": 1}}', "has no option 'x'; known are: none"),
    ],
)
def test_wrong_entries_are_refused(text, words):
    with pytest.raises(ArgumentTypeError, match="(?s)" + words):
        Engine.parse(text)


@pytest.mark.parametrize("entry", [{"buckets": 5}, {"options": [1]}, {"device": 5}])
def test_entries_of_wrong_types_are_one_line(entry):
    text = json.dumps({"backend": "torchscript", **entry})
    assert_one_line_error(run_stage("engines.infer", "--engine", text), "--engine", "wrong type")


OPTIONS = {
    "flag": Option(False, ""),
    "number": Option(3, "", 1, 5),
    "text": Option("A1", "", pattern="[A-Z][0-9]"),
    "texts": Option([], "", pattern=r"\w+::\w+"),
    "choice": Option(None, "", pattern="A|B", optional=True),
}


@pytest.mark.parametrize(
    ("name", "good", "bad", "rule"),
    [
        ("flag", [True, False], [1, None, "true"], "must be true or false"),
        ("number", [1, 5], [0, 6, True, 2.0, None], "must be a whole number from 1 to 5"),
        ("text", ["B2"], ["B22", "", None, 1], "must be a text that matches"),
        ("texts", [[], ["a::b"]], ["a::b", ["a"], [1], None], "must be a list of texts that match"),
        ("choice", [None, "A"], ["C", "AB", 0], "must be a text that matches A|B"),
    ],
)
def test_options_say_what_values_they_have(name, good, bad, rule):
    for value in good:
        OPTIONS[name].check(name, value)
    for value in bad:
        with pytest.raises(UserError) as error:
            OPTIONS[name].check(name, value)
        assert str(error.value).startswith(f"{name} {value!r}: {rule}")


def test_the_stages_take_an_engine_as_text():
    parser = cli.parser_of(infer.main)
    (action,) = (one for one in parser._actions if one.dest == "engine")
    assert action.type('{"backend": "native", "precision": "int8"}').precision == "int8"
