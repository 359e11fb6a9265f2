"""The command ``linepool config-schema``: a JSON Schema of the file with the settings, for editors."""

from __future__ import annotations

import argparse
import json
from typing import Any

from linepool.settings import FIELDS, PER_LISTENER, written
from linepool.settings.listeners import schema as schema_of_tables


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "config-schema",
        description="Print a JSON Schema (draft 7) of linepool.toml. Editors with a language server for TOML,"
        " such as taplo, complete and check a file whose first line is: #:schema ./linepool.schema.json",
        epilog="example:\n  linepool config-schema > linepool.schema.json",
    )
    parser.set_defaults(run=_run, parser=parser)


def schema() -> dict[str, Any]:
    """Return the schema: every setting in its natural form, and the table ``app``."""
    properties = {name: _property(name, field) for name, field in FIELDS.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "linepool.toml",
        "description": "The settings of a linepool server.",
        "type": "object",
        "properties": {
            **properties,
            "target": {
                "type": ["string", "array"],
                "items": {"type": "string"},
                "description": "what is served, if the command line names no TARGET",
            },
            "listener": schema_of_tables(properties, PER_LISTENER),
            "app": {"type": "object", "description": "settings of the app itself"},
        },
        "patternProperties": {
            f"^{name.replace('_', '-')}$": {"$ref": f"#/properties/{name}"}
            for name in FIELDS
            if "_" in name
        },
        "additionalProperties": False,
    }


def _property(name: str, field: Any) -> dict[str, Any]:
    unit, doc = field.metadata["unit"], field.metadata["doc"]
    found = {**field.metadata["parse"].schema, "description": f"{doc} ({unit})" if unit else doc}
    if name != "workers":  # its default depends on the machine
        found["default"] = _natural(name, field.default)
    return found


def _natural(name: str, value: object) -> object:
    """Return a value in the form that a file holds."""
    if isinstance(value, tuple):
        return list(value)
    text = written(name, value)
    plain = isinstance(value, bool | int | float) and text != "inherit"
    return value if plain and FIELDS[name].metadata["unit"] != "octal" else text


def _run(_options: argparse.Namespace) -> int:
    print(json.dumps(schema(), indent=2))
    return 0
