"""The description of a JSON-RPC service: OpenRPC 1.2.6 (spec.open-rpc.org), from its command table."""

from __future__ import annotations

import contextlib
import inspect
import math
import types
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

from linepool.protocols.base import Command, Parameter
from linepool.session import Range, Secret

_SIMPLE: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "string",
    Secret: "string",
    bytes: "string",
    bool: "boolean",
    list: "array",
    dict: "object",
    type(None): "null",
}


def described(title: str, commands: Iterable[Command]) -> dict[str, Any]:
    """Return the OpenRPC document of a service."""
    once = {id(command): command for command in commands}.values()
    classes = Classes()
    found = {
        "openrpc": "1.2.6",
        "info": {"title": title, "version": "1"},
        "methods": [_method(command, classes) for command in once],
    }
    if classes.schemas:
        found["components"] = {"schemas": classes.schemas}
    return found


class Classes:
    """The classes that a document refers to, which may refer to themselves.

    Attributes:
        schemas: Their JSON Schemas, by the name that references use.
    """

    def __init__(self) -> None:
        self.schemas: dict[str, dict[str, Any]] = {}
        self._names: dict[type, str] = {}

    def reference(self, kind: type) -> dict[str, Any]:
        """Return a reference to an attrs class, and describe the class if it is a new one."""
        if kind not in self._names:
            same = sum(known.__name__ == kind.__name__ for known in self._names)
            name = self._names[kind] = f"{kind.__name__}{same + 1 if same else ''}"
            self.schemas[name] = {}  # its place, ahead of the classes of its fields
            self.schemas[name] = self._described(kind)
        return {"$ref": f"#/components/schemas/{self._names[kind]}"}

    def _described(self, kind: type) -> dict[str, Any]:
        with contextlib.suppress(NameError):  # a class of a function may not find itself
            attrs.resolve_types(kind)
        fields = attrs.fields(kind)
        return {
            "type": "object",
            "properties": {field.name: schema(field.type, self) for field in fields},
            "required": [field.name for field in fields if field.default is attrs.NOTHING],
        }


def _method(command: Command, classes: Classes) -> dict[str, Any]:
    summary, _, description = command.doc.partition("\n")
    params = [_param(one, classes) for one in command.parameters]
    by_position = any(one.kind == "many" for one in command.parameters)
    method = {
        "name": command.names[0],
        "summary": summary,
        "description": description.strip(),
        "paramStructure": "by-position" if by_position else "either",
        "params": params,
        "result": {"name": "result", "schema": schema(command.returns, classes)},
    }
    return {key: value for key, value in method.items() if value != ""}


def _param(one: Parameter, classes: Classes) -> dict[str, Any]:
    found = {"name": one.name, "required": one.required, "schema": schema(one.annotation, classes)}
    if one.kind == "many":
        found["schema"] = {"type": "array", "items": found["schema"]}
    return found


def schema(hint: Any, classes: Classes) -> dict[str, Any]:
    """Return the JSON Schema of a type; for an unknown one the empty schema, which accepts anything."""
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(classes, *args)
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema(arm, classes) for arm in args]}
    if origin in (list, set, frozenset) or (origin is tuple and args[1:] == (...,)):
        return {"type": "array", "items": schema(args[0], classes)}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema(args[1], classes)}
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return {"enum": [_shown(member) for member in hint]}
    return classes.reference(hint) if inspect.isclass(hint) and attrs.has(hint) else {}


def _annotated(classes: Classes, hint: Any, *notes: Any) -> dict[str, Any]:
    found = schema(hint, classes)
    for note in notes:
        if isinstance(note, Range):
            bounds = {"minimum": note.min, "maximum": note.max}
            found |= {name: value for name, value in bounds.items() if _is_finite(value)}
    return found


def _is_finite(bound: float | None) -> bool:
    return bound is not None and math.isfinite(bound)


def _shown(member: Enum) -> Any:
    """Return how a client writes a member: its value, or its name if JSON has no form for that."""
    return member.value if isinstance(member.value, str | int | float) else member.name
