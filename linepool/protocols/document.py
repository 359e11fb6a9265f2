"""The description of an app's commands for programs: parameters, replies and types. Pure: no I/O, no clock.

``linepool schema`` prints it, and the command SCHEMA of the line protocol sends it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from linepool.protocols.base import Command, Parameter, Protocol
from linepool.protocols.shapes import MANY, is_stream
from linepool.values.records import NOTHING
from linepool.values.schema import Schemas, default_of

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MAPS_OF_SCHEMAS = {"properties", "patternProperties", "$defs", "dependentSchemas"}
_VALUES = {"default", "const", "enum", "examples", "required"}


class Document(dict[str, Any]):
    """The description of the commands of an app; values are those of JSON."""


def described(
    app: str, protocol: Protocol, commands: Iterable[Command], *, has_login: bool = False
) -> Document:
    """Return the description of commands.

    Args:
        app: The app's name.
        protocol: Its protocol.
        commands: Those to describe.
        has_login: Clients have to log in.
    """
    schemas = Schemas()
    found = [
        _command(command, protocol, schemas)
        | ({"public": True} if has_login and command.is_public else {})
        for command in commands
    ]
    document = Document(
        {
            "$schema": _DIALECT,
            "app": app,
            "protocol": type(protocol).__name__,
            **({"login": True} if has_login else {}),
            "digest": "",
            "commands": found,
            "$defs": schemas.classes,
        }
    )
    document["digest"] = _digest(document)
    return document


def for_one(whole: Document, protocol: Protocol, command: Command) -> Document:
    """Return the description of one command, with the app's name and digest from that of all."""
    has_login = whole.get("login", False)
    document = described(whole["app"], protocol, [command], has_login=has_login)
    document["digest"] = whole["digest"]
    return document


def _digest(document: Mapping[str, Any]) -> str:
    """Return a digest of what a client depends on: 16 hex digits; texts and times do not count.

    It is the same in all processes and on all machines as long as the code is.
    """
    commands = [
        {
            "names": [one["name"], *one["aliases"]],
            "params": [
                {key: value for key, value in _without_texts(param).items() if key != "type"}
                for param in one["params"]
            ],
            "reply": _without_texts(one["reply"]),
            **({"idempotent": True} if one["idempotent"] else {}),
            **({"public": True} if "public" in one else {}),
        }
        for one in sorted(document["commands"], key=lambda one: str(one["name"]))
    ]
    classes = {name: _without_texts(one) for name, one in document["$defs"].items()}
    depended = {"protocol": document["protocol"], "commands": commands, "$defs": classes}
    depended |= {"login": True} if "login" in document else {}
    import hashlib  # noqa: PLC0415 - only here

    text = json.dumps(depended, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _command(command: Command, protocol: Protocol, schemas: Schemas) -> dict[str, Any]:
    shape = protocol.shape(command)
    reply: dict[str, Any] = {"shape": shape.kind, "text": shape.text}
    if shape.form:
        reply["form"] = shape.form
    if shape.kind == MANY:
        reply["stream"] = is_stream(command.returns)
        reply["result"] = schemas.of(command.returns, reply=True)
    return {
        "name": command.names[0],
        "aliases": list(command.names[1:]),
        "description": command.doc,
        "usage": command.usage,
        "params": [_param(one, command, schemas) for one in command.parameters],
        "reply": {**reply, "schema": schemas.of(shape.value, reply=True)},
        "timeout": command.timeout,
        "idempotent": command.is_idempotent,
    }


def _param(one: Parameter, command: Command, schemas: Schemas) -> dict[str, Any]:
    found = {
        "name": one.name,
        "kind": one.kind,
        "type": one.shown,
        "required": one.required,
        "secret": one.is_secret,
        "schema": schemas.of(one.annotation),
    }
    if one.kind == "body" and command.size_word is not None:
        found["size"] = command.parameters[command.size_word].name
    if not one.required and one.kind != "many":
        found |= default_of(NOTHING if one.is_secret else one.default)
    return found


def _without_texts(schema: Any) -> Any:
    """Return a schema without what is for people."""
    if isinstance(schema, list):
        return [_without_texts(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for key, one in schema.items():
        if key in ("description", "title", "text"):
            continue
        if key in _MAPS_OF_SCHEMAS:
            found[key] = {name: _without_texts(inner) for name, inner in one.items()}
        else:
            found[key] = one if key in _VALUES else _without_texts(one)
    return found
