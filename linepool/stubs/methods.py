"""From a command of a document to the methods that call it. Pure: no I/O, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from linepool.stubs.layout import Code, Group, docstring, flat, laid_out, text
from linepool.stubs.names import free, is_name
from linepool.stubs.said import said_of, with_section
from linepool.stubs.types import Schema, Types

_LONG_DEFAULT = 60  # characters


@frozen
class _Parameter:
    """One parameter of a method.

    Attributes:
        key: Its name for the server.
        name: Its name in the method.
        type: Its type.
        default: The expression for its default; empty: it must be given.
        kind: ``word``, ``many`` ...
        said: What the docstring says of it.
    """

    key: str
    name: str
    type: Code
    default: Code
    kind: str
    said: str

    @property
    def code(self) -> Code:
        """The parameter as the signature has it."""
        if self.kind == "many":
            return [f"*{self.name}: ", *self.type]
        if not self.default:
            return [f"{self.name}: ", *self.type]
        return [f"{self.name}: ", *self.type, " = ", *self.default]


@frozen
class Method:
    """What the methods for a command have in common.

    Attributes:
        name: Their name.
        constant: The name of the constant that has the command.
        command: The command's description.
        types: The types of the document.
    """

    name: str
    constant: str
    command: Schema
    types: Types

    @property
    def _parameters(self) -> list[_Parameter]:
        sizes = {one.get("size") for one in self.command["params"]}
        return [
            _parameter(one, self.constant, self.types)
            for one in self.command["params"]
            if one["name"] not in sizes
        ]

    @property
    def is_stream(self) -> bool:
        """Whether its values come one by one."""
        return bool(self.command["reply"].get("stream"))

    def definition(self) -> str:
        """Return the statement that makes the constant."""
        returns = self._returns()
        command = self.types.names.of("linepool.client", "Command")
        items: list[Code] = [[text(self.command["name"])], returns]
        if self.command.get("idempotent"):
            items.append(["idempotent=True"])
        if block := self._block():
            items.append([f"block={text(block.key)}"])
        generic = Group(f"{command}[", [returns], "]", has_comma=False)
        return laid_out([f"{self.constant} = ", generic, Group("(", items, ")")]) + "\n"

    def blocking(self) -> str:
        """Return the method of the client that blocks."""
        if self.is_stream:
            returns = self._iterator("Iterator")
            return self._method("def", returns, "return self.stream(", self._doc())
        call = "self.call(" if self._is_nothing() else "return self.call("
        return self._method("def", self._returns(), call, self._doc())

    def asynchronous(self) -> str:
        """Return the method of the client for asyncio."""
        if self.is_stream:
            returns = self._iterator("AsyncIterator")
            return self._method("def", returns, "return self.stream(", self._doc())
        call = "await self.call(" if self._is_nothing() else "return await self.call("
        return self._method("async def", self._returns(), call, self._doc())

    def pending(self) -> str:
        """Return the method of the pipelines."""
        pending = self.types.names.of("linepool.client", "Pending")
        returns: Code = [Group(f"{pending}[", [self._returns()], "]", has_comma=False)]
        first = self._description().partition("\n")[0]
        return self._method("def", returns, "return self.call(", first)

    def _method(self, word: str, returns: Code, call: str, doc: str) -> str:
        items: list[Code] = [["self"], *self._signature()]
        head = laid_out(
            [Group(f"{word} {self.name}(", items, ")"), " -> ", *returns, ":"], 1, from_first=True
        )
        body = laid_out([Group(call, [[self.constant], *self._arguments()], ")")], 2)
        return f"    {head}\n{docstring(doc, 2)}        {body}\n"

    def _signature(self) -> Iterator[Code]:
        has_star = has_default = False
        for one in self._parameters:
            is_named = one.kind in ("option", "flag") or (has_default and not one.default)
            if one.kind != "many" and not has_star and is_named:
                yield ["*"]
                has_star = True
            has_star = has_star or one.kind == "many"
            has_default = has_default or bool(one.default)
            yield one.code

    def _arguments(self) -> Iterator[Code]:
        unset = self.types.names.of("linepool.client", "UNSET")
        is_by_name = self._block() or any(
            one.kind in ("option", "flag") or flat(one.default) == unset for one in self._parameters
        )
        for one in self._parameters:
            if not is_by_name:
                yield [f"*{one.name}" if one.kind == "many" else one.name]
                continue
            if one.kind == "body" and (size := self._size(one.key)):
                is_hidden = any(other.name == "len" for other in self._parameters)
                yield [f"{size}={f'{one.name}.__len__()' if is_hidden else f'len({one.name})'}"]
            value = f"[*{one.name}]" if one.kind == "many" else one.name
            yield [
                f"{one.key}={value}" if one.key == one.name else f"**{{{text(one.key)}: {value}}}"
            ]

    def _block(self) -> _Parameter | None:
        return next((one for one in self._parameters if one.kind == "body"), None)

    def _size(self, key: str) -> str | None:
        sizes = (one.get("size") for one in self.command["params"] if one["name"] == key)
        return next(sizes, None)

    def _is_nothing(self) -> bool:
        return flat(self._returns()) == "None"

    def _returns(self) -> Code:
        reply = self.command["reply"]
        if self.is_stream:
            return self.types.list_of(self._item())
        return self.types.of(_open(reply.get("result", reply["schema"])))

    def _item(self) -> Code:
        return self.types.of(_open(self.command["reply"]["schema"]))

    def _iterator(self, name: str) -> Code:
        iterator = self.types.names.of("collections.abc", name)
        return [Group(f"{iterator}[", [self._item()], "]", has_comma=False)]

    def _doc(self) -> str:
        said = {one.name: one.said for one in self._parameters}
        return with_section(self._description(), "Args", said)

    def _description(self) -> str:
        return self.command["description"].strip() or f"Call the command {self.command['name']}."


def _open(schema: Any) -> Any:
    """Return the schema of a reply without marks of secrets, of which nothing follows for the caller."""
    if isinstance(schema, Mapping):
        return {key: _open(one) for key, one in schema.items() if key != "writeOnly"}
    return [_open(one) for one in schema] if isinstance(schema, list) else schema


def _parameter(param: Schema, constant: str, types: Types) -> _Parameter:
    schema = param["schema"]
    default: Code = []
    said = said_of(schema)
    if not param["required"] and param["kind"] != "many":
        default, rest = _default(param, types)
        said = " ".join(filter(None, [said, rest]))
    key = param["name"]
    if not is_name(key):
        raise ValueError(f"the parameter {key!r} cannot have this name in Python")
    name = free(key.lstrip("_") if key.startswith("__") else key, {"self", constant})
    return _Parameter(key, name, types.of(schema), default, param["kind"], said)


def _default(param: Schema, types: Types) -> tuple[Code, str]:
    """Return the expression for a parameter's default, and what is to be said of it."""
    found = None
    if "default" in param:
        found = types.expression(param["default"], param["schema"])
    if found and not found[1] and len(flat(found[0])) <= _LONG_DEFAULT:
        return found[0], ""
    shown = json.dumps(param.get("default"))
    shown = f", {shown}" if "default" in param and len(shown) <= _LONG_DEFAULT else ""
    unset = types.names.of("linepool.client", "UNSET")
    return [unset], f"Left out, it is the server's default{shown}."
