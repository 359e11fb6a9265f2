"""The description of a JSON-RPC service: OpenRPC 1.2.6 (spec.open-rpc.org), from its command table."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

from linepool.protocols.base import Command, Parameter
from linepool.session import Range

_SIMPLE: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bytes: "string",
    bool: "boolean",
    list: "array",
    dict: "object",
    type(None): "null",
}


def described(title: str, commands: Iterable[Command]) -> dict[str, Any]:
    """Return the OpenRPC document of a service."""
    once = {id(command): command for command in commands}.values()
    return {
        "openrpc": "1.2.6",
        "info": {"title": title, "version": "1"},
        "methods": [_method(command) for command in once],
    }


def _method(command: Command) -> dict[str, Any]:
    summary, _, description = command.doc.partition("\n")
    params = [_param(one) for one in command.parameters]
    by_position = any(one.kind == "many" for one in command.parameters)
    method = {
        "name": command.names[0],
        "summary": summary,
        "description": description.strip(),
        "paramStructure": "by-position" if by_position else "either",
        "params": params,
        "result": {"name": "result", "schema": schema(command.returns)},
    }
    return {key: value for key, value in method.items() if value != ""}


def _param(one: Parameter) -> dict[str, Any]:
    found = {"name": one.name, "required": one.required, "schema": schema(one.annotation)}
    if one.kind == "many":
        found["schema"] = {"type": "array", "items": found["schema"]}
    return found


def schema(hint: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type; for an unknown one the empty schema, which accepts anything."""
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(*args)
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema(arm) for arm in args]}
    if origin in (list, set, frozenset) or (origin is tuple and args[1:] == (...,)):
        return {"type": "array", "items": schema(args[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema(args[1])}
    return _class(hint) if inspect.isclass(hint) else {}


def _annotated(hint: Any, *notes: Any) -> dict[str, Any]:
    found = schema(hint)
    for note in notes:
        if isinstance(note, Range):
            bounds = {"minimum": note.min, "maximum": note.max}
            found |= {name: value for name, value in bounds.items() if value is not None}
    return found


def _class(hint: type) -> dict[str, Any]:
    if issubclass(hint, Enum):
        return {"enum": [member.value for member in hint]}
    if attrs.has(hint):
        fields = attrs.fields(attrs.resolve_types(hint))
        return {
            "type": "object",
            "properties": {field.name: schema(field.type) for field in fields},
            "required": [field.name for field in fields if field.default is attrs.NOTHING],
        }
    return {}
