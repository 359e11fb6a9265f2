"""The source of the classes of a document: Enums, records and names of types. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from linepool.stubs import layout
from linepool.stubs.layout import Code, Group, docstring, flat, laid_out
from linepool.stubs.names import is_name
from linepool.stubs.said import said_of, with_section
from linepool.stubs.types import ALIAS, CLASS, NAMED_TUPLE, Schema, Types, literal

_LONG_DEFAULT = 40  # characters; a longer one would not be laid out as a formatter does it ...
_TOO_LONG_DEFAULT = 70  # ... nor in any other way


def classes(types: Types) -> Iterator[str]:
    """Yield the source of each class, in an order in which they can be made."""
    for name, schema in types.enums.items():
        yield _enum(name, schema, types)
    for name, schema in types.definitions.items():
        own = types.classes[name]
        if types.kind(name) == CLASS:
            with types.names.within(schema.get("properties", ())):
                yield _record(own, schema, types)
        elif types.kind(name) == NAMED_TUPLE:
            with types.names.within(one["title"] for one in schema["prefixItems"]):
                yield _named_tuple(own, schema, types)
    yield from _aliases(types)


def _enum(name: str, schema: Schema, types: Types) -> str:
    members = "".join(
        f"    {member} = {literal(value)}\n"
        for member, value in zip(schema["x-enum-varnames"], schema["enum"], strict=True)
    )
    return f"class {name}({types.names.of('enum', 'Enum')}):\n{members}"


def _record(name: str, schema: Schema, types: Types) -> str:
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = set(schema.get("required", ()))
    if not all(is_name(key) and not key.startswith("_") for key in properties):
        return _dict_by_call(name, properties, required, types)
    if schema.get("x-typed-dict"):
        fields = [
            (key, _key_type(one, types, is_required=key in required))
            for key, one in properties.items()
        ]
        base = f"({types.names.of('typing', 'TypedDict')})"
        return _class(name, base, schema, fields, properties)
    fields = [
        (key, [*types.of(one), *_assigned(one, types, is_required=key in required)])
        for key, one in properties.items()
    ]
    optional = [key not in required for key in properties]
    options = "frozen=True" if optional == sorted(optional) else "frozen=True, kw_only=True"
    decorator = f"@{types.names.of('dataclasses', 'dataclass')}({options})\n"
    return decorator + _class(name, "", schema, fields, properties)


def _class(
    name: str,
    base: str,
    schema: Schema,
    fields: Iterable[tuple[str, Code]],
    described: Mapping[str, Any],
) -> str:
    said = {key: said_of(one) for key, one in described.items()}
    text = schema.get("description", "") or (f"Data of type {name}." if any(said.values()) else "")
    doc = docstring(with_section(text, "Attributes", said), 1)
    lines = [f"    {laid_out([f'{key}: ', *code], 1)}\n" for key, code in fields]
    if doc and lines:
        doc += "\n"
    return f"class {name}{base}:\n{doc}{''.join(lines) or ('' if doc else '    pass' + chr(10))}"


def _assigned(schema: Any, types: Types, *, is_required: bool) -> Code:
    """Return what follows a field's type: its default, and whether it is shown."""
    is_secret = isinstance(schema, Mapping) and schema.get("writeOnly")
    options: list[Code] = []
    value: Code = []
    if not is_required:
        found = _default(schema, types)
        value, may_change = found or ([types.names.of("linepool.client", "UNSET")], False)
        options.append(["default_factory=lambda: " if may_change else "default=", *value])
        if not (is_secret or may_change or len(flat(value)) > _LONG_DEFAULT):
            return [" = ", *value]
    if is_secret:
        options.append(["repr=False"])
    if not options:
        return []
    return [" = ", Group(f"{types.names.of('dataclasses', 'field')}(", options, ")")]


def _default(schema: Any, types: Types) -> tuple[Code, bool] | None:
    """Return the default of a field and whether it may be changed; None: it is the server's alone."""
    if not isinstance(schema, Mapping) or "default" not in schema or schema.get("readOnly"):
        return None
    found = types.expression(schema["default"], schema)
    return found if found and len(flat(found[0])) <= _TOO_LONG_DEFAULT else None


def _key_type(schema: Any, types: Types, *, is_required: bool) -> Code:
    code = types.of(schema)
    if is_required:
        return code
    return [Group(f"{types.names.of('typing', 'NotRequired')}[", [code], "]", has_comma=False)]


def _dict_by_call(
    name: str, properties: Mapping[str, Any], required: set[str], types: Types
) -> str:
    """Return a TypedDict whose keys cannot be names."""
    keys = []
    for key, one in properties.items():
        kind = flat(_key_type(one, types, is_required=key in required))
        keys.append([f"{layout.text(key)}: {types.names.quoted(kind)}"])
    call = Group(
        f"{types.names.of('typing', 'TypedDict')}(",
        [[layout.text(name)], [Group("{", keys, "}")]],
        ")",
    )
    return laid_out([f"{name} = ", call]) + "\n"


def _named_tuple(name: str, schema: Schema, types: Types) -> str:
    items = schema["prefixItems"]
    defaults: list[Code] = []
    for one in reversed(items[schema.get("minItems", len(items)) :]):
        found = _default(one, types)
        if found is None or found[1] or len(flat(found[0])) > _LONG_DEFAULT:
            break
        defaults.insert(0, [" = ", *found[0]])
    without: list[Code] = [[]] * (len(items) - len(defaults))
    fields = [
        (one["title"], [*types.of(one), *default])
        for one, default in zip(items, [*without, *defaults], strict=True)
    ]
    base = f"({types.names.of('typing', 'NamedTuple')})"
    return _class(name, base, schema, fields, {one["title"]: one for one in items})


def _aliases(types: Types) -> Iterator[str]:
    """Yield the names of types, each behind those that it refers to."""
    waiting = {name: one for name, one in types.definitions.items() if types.kind(name) == ALIAS}
    while waiting:
        ready = [name for name, one in waiting.items() if not waiting.keys() & set(_referred(one))]
        for name in ready:
            code = types.of(waiting.pop(name))
            yield laid_out([_alias(types.classes[name], types), *code]) + "\n"
        if not ready:  # of those that refer to themselves, only type checkers know what they are
            yield _recursive(waiting, types)
            return


def _alias(name: str, types: Types) -> str:
    return f"{name}: {types.names.of('typing', 'TypeAlias')} = "


def _recursive(definitions: Mapping[str, Schema], types: Types) -> str:
    checked = "".join(
        f"    {_alias(types.classes[name], types)}{types.names.quoted(flat(types.of(one)))}\n"
        for name, one in definitions.items()
    )
    others = "".join(f"    {types.classes[name]} = {flat(types.any)}\n" for name in definitions)
    return f"if {types.names.of('typing', 'TYPE_CHECKING')}:\n{checked}else:\n{others}"


def _referred(schema: Any) -> Iterator[str]:
    """Yield the names of the definitions that a schema refers to."""
    if isinstance(schema, Mapping):
        if isinstance(reference := schema.get("$ref"), str):
            yield reference.removeprefix("#/$defs/")
        schema = list(schema.values())
    if isinstance(schema, list):
        for one in schema:
            yield from _referred(one)
