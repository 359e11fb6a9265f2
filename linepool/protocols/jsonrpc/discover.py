"""The description of a JSON-RPC service: OpenRPC 1.2.6 (spec.open-rpc.org), from its command table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from linepool.protocols.base import Command, Parameter
from linepool.values.records import NOTHING
from linepool.values.schema import Schemas, default_of


def described(title: str, commands: Iterable[Command]) -> dict[str, Any]:
    """Return the OpenRPC document of a service."""
    once = {id(command): command for command in commands}.values()
    schemas = Schemas("#/components/schemas/")
    found = {
        "openrpc": "1.2.6",
        "info": {"title": title, "version": "1"},
        "methods": [_method(command, schemas) for command in once],
    }
    if schemas.classes:
        found["components"] = {"schemas": schemas.classes}
    return found


def _method(command: Command, schemas: Schemas) -> dict[str, Any]:
    summary, _, description = command.doc.partition("\n")
    by_position = any(one.kind == "many" for one in command.parameters)
    method: dict[str, Any] = {
        "name": command.names[0],
        "summary": summary,
        "description": description.strip(),
        "paramStructure": "by-position" if by_position else "either",
        "params": [_param(one, schemas) for one in command.parameters],
        "result": {
            "name": "result",
            "schema": {} if command.returns is None else schemas.of(command.returns, reply=True),
        },
    }
    if command.is_idempotent:
        method["x-idempotent"] = (
            True  # the specification reserves names that begin so for extensions
        )
    return {key: value for key, value in method.items() if value != ""}


def _param(one: Parameter, schemas: Schemas) -> dict[str, Any]:
    schema = schemas.of(one.annotation)
    if one.kind == "many":
        schema = {"type": "array", "items": schema}
    elif not one.required:
        schema |= default_of(NOTHING if one.is_secret else one.default)
    return {"name": one.name, "required": one.required, "schema": schema}
