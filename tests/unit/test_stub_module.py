"""Stubs of descriptions that an app of this Python may not give: of other versions, or hostile."""

from __future__ import annotations

import subprocess
import sys
import types
import typing
from typing import Any

import pytest

from linepool.stubs.module import module
from linepool.values.json_text import dumps

TEXTS = [
    "Plain.",
    'With "quotes"',
    '"Quoted"',
    "Ends with a backslash \\",
    'Three """ quotes\\""" and \\',
    "Tab\there\n\n    indented\n  less\n",
    "é\x1b[31m\u2028 \x00 \udc80",
    "A long " + "line " * 40,
    "one-word-" * 30,
    "ninety-four columns, which with its quotes just fits, or rather does not, and so is split.... ",
]
JSON = {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#/$defs/Json"}}]}


def described(
    *params: dict[str, Any], definitions: dict[str, Any] | None = None, **command: Any
) -> dict[str, Any]:
    """Return the description of an app with one command, DO."""
    plain = {"kind": "word", "type": "any", "required": True, "secret": False}
    whole = {
        "name": "DO",
        "aliases": [],
        "description": "",
        "params": [{**plain, **one} for one in params],
        "reply": {"shape": "unknown", "text": "", "schema": {}},
        **command,
    }
    return {"app": "odd", "digest": "0", "commands": [whole], "$defs": definitions or {}}


def made(document: dict[str, Any]) -> Any:
    """Return the module of a description."""
    found = types.ModuleType("odd_client")
    sys.modules[found.__name__] = found
    try:
        exec(compile(module(document), "odd_client", "exec"), vars(found))
    finally:
        del sys.modules[found.__name__]
    return found


def test_a_type_may_refer_to_itself():
    one = {"name": "a", "schema": {"$ref": "#/$defs/Json"}}
    reply = {"shape": "unknown", "text": "", "schema": {"$ref": "#/$defs/Json"}}
    source = module(described(one, definitions={"Json": JSON}, reply=reply))
    assert 'if TYPE_CHECKING:\n    Json: TypeAlias = "int | list[Json]"\n' in source
    assert made(described(one, definitions={"Json": JSON}, reply=reply)).Json is Any


def test_types_are_in_an_order_in_which_they_can_be_made():
    definitions = {
        "A": {"anyOf": [{"$ref": "#/$defs/B"}, {"type": "null"}]},
        "B": {"type": "array", "items": {"$ref": "#/$defs/C"}},
        "C": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}},
    }
    found = made(described(definitions=definitions))
    assert typing.get_args(typing.get_args(found.A)[0]) == (found.C,)
    assert typing.get_type_hints(found.C, vars(found)) == {"a": found.A}


@pytest.mark.parametrize("name", ["a b", "x=1):\n    import os\n    def f(self, y", "class", ""])
def test_a_parameter_that_cannot_be_one_is_refused(name):
    with pytest.raises(ValueError, match="cannot have this name in Python"):
        module(described({"name": name, "schema": {}}))


def test_names_cannot_hold_code():
    code = 'x"\n\nimport os\nos.abort()\n"""'
    enum = {"enum": [code], "title": code, "x-enum-varnames": ["A"]}
    properties = {code: {"type": "string", "default": code}, "b": {**enum, "default": code}}
    definitions = {code: {"type": "object", "properties": properties, "description": code}}
    document = described(
        {"name": "a", "schema": {"$ref": f"#/$defs/{code}"}, "default": code, "required": False},
        {"name": "b", "schema": enum, "default": code, "required": False},
        definitions=definitions,
        name=code,
        description=code,
    )
    document["app"] = document["digest"] = code
    assert "os" not in vars(made(document))


def test_what_is_left_out_is_not_sent():
    properties = {
        "a": {"type": "integer"},
        "b": {"$ref": "#/$defs/One"},
        "c": {"type": "integer", "readOnly": True},
    }
    one = {"type": "object", "properties": properties, "required": ["a"]}
    found = made(described(definitions={"One": one}))
    assert dumps(found.One(1)) == b'{"a":1}'
    assert dumps(found.One(1, found.One(2))) == b'{"a":1,"b":{"a":2}}'
    assert repr(found.One(1).b) == "UNSET"


def test_a_formatter_leaves_texts_as_they_are(tmp_path):
    for number, text in enumerate(TEXTS):
        one = {"type": "object", "description": text, "properties": {"a": {"description": text}}}
        document = described(
            {"name": "a", "schema": {"description": text, "enum": [text[:40], 1, None]}},
            {"name": "b", "schema": {"type": "string"}, "default": text, "required": False},
            description=text,
            definitions={"One": one},
        )
        source = module(document)
        (tmp_path / f"client_{number}.py").write_text(source, encoding="utf-8")
        made(document)
    for width in (88, 100, 120):
        words = "format", "--isolated", "--diff", "--line-length", str(width)
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
