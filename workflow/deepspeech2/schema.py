"""The configuration's JSON schema for editors, and the explanations in config.yaml.

`python -m deepspeech2.schema` prints the schema (workflow/schemas), `manual_of` makes what
config.yaml says of each key; tests compare both with the models.
"""

from __future__ import annotations

import json
import textwrap
from typing import Any

from deepspeech2 import engines
from deepspeech2.config import Config, Entry
from deepspeech2.options import Option
from deepspeech2.scoring import decoders


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file. Nothing is required: files are merged."""
    found = _without_titles(Config.model_json_schema())
    for part in (found, *found["$defs"].values()):
        part.pop("required", None)
    for part, key, registry in (
        ("EngineEntry", "backend", _backends()),
        ("DecoderEntry", "kind", _decoders()),
    ):
        found["$defs"][part]["allOf"] = [
            {
                "if": {"properties": {key: {"const": name}}, "required": [key]},
                "then": {"properties": {"options": _options_schema(options)}},
            }
            for name, options in registry.items()
        ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _without_titles(node: Any) -> Any:
    """A schema without the titles that are made of names."""
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _without_titles(value)
        for key, value in node.items()
        if key != "title" or not isinstance(value, str)
    }


def _backends() -> dict[str, dict[str, Option]]:
    return {name: engines.backend_class(name).options for name in engines.BACKENDS}


def _decoders() -> dict[str, dict[str, Option]]:
    return {name: decoders.decoder_class(name).options for name in decoders.DECODERS}


def _options_schema(options: dict[str, Option]) -> dict[str, Any]:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    properties = {}
    for name, option in options.items():
        kind = kinds[option.kind]
        properties[name] = {
            "type": [kind, "null"] if option.optional else kind,
            "default": option.default,
            "description": option.help,
        }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def manual(entries: dict[str, tuple[str, Any]]) -> str:
    """Explanations (text, default) by key as the comments of config.yaml have them."""
    width = max(map(len, entries)) + 2
    lines = []
    for key, (text, default) in entries.items():
        shown = "" if default in (None, [], {}, ...) else f" [{json.dumps(default)}]"
        wrapped = textwrap.wrap(" ".join(text.split()) + shown, 96 - width, break_on_hyphens=False)
        lines += [f"#   {key:{width}}{wrapped[0]}", *(f"#   {'':{width}}{x}" for x in wrapped[1:])]
    return "\n".join(lines)


def manual_of(model: type[Entry]) -> str:
    """The manual of a part of the configuration."""
    entries = {}
    for name, field in model.model_fields.items():
        default = ... if field.is_required() or field.default_factory else field.default
        entries[name] = (field.description, default)
    return manual(entries)


def manual_of_options(name: str) -> str:
    """The manual of a backend's or decoder's options."""
    options = {**_backends(), **_decoders()}[name]
    return manual({name: (option.help, option.default) for name, option in options.items()})


if __name__ == "__main__":
    parts = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in schema().items()]
    print("{\n" + ",\n".join(parts) + "\n}")
