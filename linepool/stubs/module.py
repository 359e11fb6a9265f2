"""The module that calls the commands of an app, from the app's description. Pure: no I/O, no clock."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from linepool.client.asynchronous import AsyncClient, AsyncPipeline
from linepool.client.blocking import Client, Pipeline
from linepool.stubs.classes import classes
from linepool.stubs.layout import docstring
from linepool.stubs.methods import Method
from linepool.stubs.names import Names, class_name, constant_name, is_name, method_name
from linepool.stubs.types import Schema, Types

_PROTOCOLS = {"JsonRpc": "jsonrpc"}  # as a description names them, and as a client does
_INHERITED = frozenset(
    name
    for kind in (Client, AsyncClient, Pipeline, AsyncPipeline)
    for name, _ in inspect.getmembers(kind)
    if not name.startswith("_")
)


def module(document: Schema, name: str = "") -> str:
    """Return the source of a module with the classes that call an app's commands.

    Args:
        document: The description of the app, as ``SCHEMA`` sends it.
        name: Of the class that blocks; "": from the app's name.

    Raises:
        ValueError: A name cannot be one in Python.
        KeyError, TypeError, AttributeError: It is not the description of an app.
    """
    name = name or _free_class(class_name(document["app"]), document)
    own = _Classes(name)
    methods: dict[str, str] = {}
    for command in document["commands"]:
        methods[method_name(command["name"], {*_INHERITED, *methods})] = command["name"]
    types = Types(document, own.all, methods)
    constants: list[str] = []
    for method in methods:
        constants.append(constant_name(method, constants))
    found = [
        Method(method, constant, command, types)
        for method, constant, command in zip(methods, constants, document["commands"], strict=True)
    ]
    parts = [*classes(types), "".join(one.definition() for one in found)]
    with types.names.within(methods):
        parts += _services(own, document, found, types.names)
    body = "\n\n".join(filter(None, parts))
    imports = types.names.imports(body)
    return f"{_head(own, document)}\nfrom __future__ import annotations\n\n{imports}\n\n{body}"


class _Classes:
    """The names of the classes that call commands."""

    def __init__(self, name: str) -> None:
        self.blocking = name
        self.asynchronous = f"Async{name}"
        self.calls = f"_{name}Calls"
        self.pipeline = f"{name}Pipeline"
        self.async_pipeline = f"Async{name}Pipeline"

    @property
    def all(self) -> Iterable[str]:
        return vars(self).values()


def _free_class(name: str, document: Schema) -> str:
    """Return a name for the class of an app that no class of its types has."""
    definitions = document.get("$defs", {})
    free = name
    while not is_name(free) or not definitions.keys().isdisjoint(_Classes(free).all):
        free = f"{free}Client"
    return free


def _head(own: _Classes, document: Schema) -> str:
    text = f"""\
Clients of {document["app"]}: ``{own.blocking}`` and, for asyncio, ``{own.asynchronous}``.

Made by ``linepool stub``; do not edit. The digest of the schema is {document["digest"]}."""
    return docstring(text, 0)


def _services(
    own: _Classes, document: Schema, methods: list[Method], names: Names
) -> Iterable[str]:
    client = names.of("linepool.client", "Client")
    async_client = names.of("linepool.client", "AsyncClient")
    protocol = _PROTOCOLS.get(document.get("protocol", ""), "line")
    speaks = [] if protocol == "line" else [f'    speaks = "{protocol}"\n']
    app = document["app"]
    yield _class(
        f"{own.blocking}({client})",
        f"Calls the commands of {app}. Its arguments are those of ``linepool.Client``.",
        [*speaks, *(one.blocking() for one in methods), _pipeline(own.pipeline)],
    )
    yield _class(
        f"{own.asynchronous}({async_client})",
        f"Calls the commands of {app}, for asyncio. Its arguments are those of ``linepool.AsyncClient``.",
        [*speaks, *(one.asynchronous() for one in methods), _pipeline(own.async_pipeline)],
    )
    yield _class(
        f"{own.calls}({names.of('linepool.client', 'PipelineCalls')})",
        "",
        [one.pending() for one in methods],
    )
    for kind, base in ((own.pipeline, "Pipeline"), (own.async_pipeline, "AsyncPipeline")):
        yield _class(
            f"{kind}({own.calls}, {names.of('linepool.client', base)})",
            "Calls that are sent together at the end of the block.",
            [],
        )


def _pipeline(kind: str) -> str:
    doc = "Return a block of calls that are sent together at its end, on one connection."
    return f"    def pipeline(self) -> {kind}:\n{docstring(doc, 2)}        return self._pipeline({kind})\n"


def _class(head: str, doc: str, members: list[str]) -> str:
    text = docstring(doc, 1)
    if not (text or members):
        return f"class {head}:\n    pass\n"
    return f"class {head}:\n{text}" + ("\n" if text and members else "") + "\n".join(members)
