"""From JSON Schemas to types of Python, and from values of JSON to expressions. Pure: no I/O, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from linepool.stubs.layout import Code, Group, data, flat, text
from linepool.stubs.names import BUILTINS, Names, class_name, free, is_name
from linepool.values.durations import duration
from linepool.values.scalars import scalar

Schema = Mapping[str, Any]
CLASS, NAMED_TUPLE, ENUM, ALIAS = "class", "named tuple", "enum", "alias"
_PLAIN = {"integer": "int", "number": "float", "string": "str", "boolean": "bool"}
_FORMATS: Mapping[str, tuple[str, str]] = {
    "date-time": ("datetime", "datetime"),
    "date": ("datetime", "date"),
    "time": ("datetime", "time"),
    "duration": ("datetime", "timedelta"),
    "uuid": ("uuid", "UUID"),
    "decimal": ("decimal", "Decimal"),
    "fraction": ("fractions", "Fraction"),
    "path": ("pathlib", "Path"),
    **{
        f"ipv{version}{form}".removesuffix("address"): (
            "ipaddress",
            f"IPv{version}{form.capitalize()}",
        )
        for version in (4, 6)
        for form in ("address", "network", "interface")
    },
}
_INT_KEYS = {"pattern": "^[+-]?[0-9]+$"}
_NOT_MEMBERS = ("mro", "name", "value")  # which Enum has itself
_LITERALS = (str, int, bool, type(None))


class Types:
    """The types of a document.

    Args:
        document: The description of an app.
        reserved: Names that no class can have.
        methods: Names that no class can have either.

    Attributes:
        definitions: The schemas of the document's classes, by the names that they have there.
        enums: The schemas of Enums, by the names of their classes.
        classes: The names of the classes of definitions.
        names: The names of what is imported.
    """

    def __init__(self, document: Schema, reserved: Iterable[str], methods: Iterable[str]) -> None:
        self.definitions: Mapping[str, Schema] = document.get("$defs", {})
        self.enums: dict[str, Schema] = {}
        self.classes: dict[str, str] = {}
        self._enum_names: dict[str, str] = {}
        members = {*methods, *_fields_in(self.definitions.values())}
        own: set[str] = set(reserved)
        for schema in _enums_in([document["commands"], self.definitions]):
            key = _key(schema)
            if key not in self._enum_names:
                name = self._enum_names[key] = _class_name(schema["title"], {*own, *members})
                own.add(name)
                self.enums[name] = schema
        for key, schema in self.definitions.items():
            name = self._enum_names.get(_key(schema)) or _class_name(key, {*own, *members})
            own.add(name)
            self.classes[key] = name
        self.names = Names(own)

    def kind(self, name: str) -> str:
        """Return what a definition becomes: a class with fields, a NamedTuple, an Enum, a name of a type."""
        schema = self.definitions[name]
        if _key(schema) in self._enum_names:
            return ENUM
        if "properties" in schema and not schema.get("additionalProperties"):
            return ALIAS if "" in schema["properties"] else CLASS
        items = schema.get("prefixItems", ())
        if items and all(_is_field(one.get("title")) for one in items):
            return NAMED_TUPLE
        return ALIAS

    def of(self, schema: Any) -> Code:
        """Return the type of a schema; Any for one that says nothing, or too much."""
        if not isinstance(schema, Mapping):
            return self.any
        found = self._of(schema)
        if not schema.get("writeOnly") or flat(found) == flat(self.any):
            return found
        annotated, secret = (
            self.names.of("typing", "Annotated"),
            self.names.of("linepool", "Secret"),
        )
        return [Group(f"{annotated}[", [found, [secret]], "]")]

    @property
    def any(self) -> Code:
        """The type of all values."""
        return [self.names.of("typing", "Any")]

    def list_of(self, item: Code) -> Code:
        """Return the type of lists of a type."""
        return self._single("list", item)

    def _of(self, schema: Schema) -> Code:
        if "$ref" in schema:
            name = self.classes.get(str(schema["$ref"]).removeprefix("#/$defs/"))
            return self.any if name is None else [name]
        if "enum" in schema or "const" in schema:
            return self._choice(schema)
        if arms := _arms(schema):
            return self.union([self.of(one) for one in arms])
        kind = schema.get("type")
        if kind == "array":
            return self._array(schema)
        if kind == "object":
            return self._object(schema)
        return self._scalar(kind, schema)

    def union(self, types: Iterable[Code]) -> Code:
        """Return the union of types."""
        once = {flat(one): one for one in types}
        if flat(self.any) in once or not once:
            return self.any
        arms = list(once.values())
        if len(arms) == 1:
            return arms[0]
        union = self.names.of("typing", "Union")
        return [Group("", arms, "", " | ", long_open=f"{union}[", long_close="]")]

    def _choice(self, schema: Schema) -> Code:
        if (key := _key(schema)) in self._enum_names:
            return [self._enum_names[key]]
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        literals = [one for one in values if isinstance(one, _LITERALS) and one is not None]
        types = [self._of_value(one) for one in values if one is None or one not in literals]
        if literals:
            name = self.names.of("typing", "Literal")
            items: list[Code] = [[literal(one)] for one in literals]
            types.insert(0, [Group(f"{name}[", items, "]", has_comma=len(items) > 1)])
        return self.union(types)

    def _of_value(self, value: Any) -> Code:
        if value is None:
            return ["None"]
        return [self._builtin("float")] if isinstance(value, float) else self.any

    def _builtin(self, name: str) -> str:
        return self.names.of("builtins", name)

    def _scalar(self, kind: Any, schema: Schema) -> Code:
        if kind == "null":
            return ["None"]
        if kind not in _PLAIN:
            return self.any
        if kind == "string" and schema.get("contentEncoding") == "base64":
            return [self._builtin("bytes")]
        if kind == "string" and schema.get("format") in _FORMATS:
            return [self.names.of(*_FORMATS[schema["format"]])]
        return [self._builtin(_PLAIN[kind])]

    def _array(self, schema: Schema) -> Code:
        if (items := schema.get("prefixItems")) is not None:
            if schema.get("items") is False or schema.get("maxItems") == len(items):
                of = self._builtin("tuple")
                parts = [self.of(one) for one in items]
                return [Group(f"{of}[", parts, "]", has_comma=len(parts) > 1)]
            return self.list_of(self.any)
        if schema.get("maxItems") == 0:
            return [f"{self._builtin('tuple')}[()]"]
        return self._single(
            "set" if schema.get("uniqueItems") else "list", self.of(schema.get("items"))
        )

    def _single(self, kind: str, item: Code) -> Code:
        return [Group(f"{self._builtin(kind)}[", [item], "]", has_comma=False)]

    def _object(self, schema: Schema) -> Code:
        keys = schema.get("propertyNames", {})
        if keys == _INT_KEYS:
            key: Code = [self._builtin("int")]
        elif "enum" in keys:
            key = [self._builtin("str")]
        else:
            key = self._scalar("string", keys)
        values = schema.get("additionalProperties")
        return [Group(f"{self._builtin('dict')}[", [key, self.of(values)], "]")]

    # -- values

    def expression(self, value: Any, schema: Any) -> tuple[Code, bool] | None:
        """Return the expression for a value of JSON, and whether its object may be changed.

        None: the value does not fit the schema, or has no expression.
        """
        if not isinstance(schema, Mapping):
            return None
        if "$ref" in schema:
            return self._of_class(value, str(schema["$ref"]).removeprefix("#/$defs/"))
        if "enum" in schema or "const" in schema:
            return self._member(value, schema)
        for arm in _arms(schema):
            if (found := self.expression(value, arm)) is not None:
                return found
        kind = schema.get("type")
        if kind == "array" and isinstance(value, list):
            return self._items(value, schema)
        if kind == "object" and isinstance(value, dict):
            return self._entries(value, schema)
        if kind == "string" and isinstance(value, str):
            made = self._text(value, schema)
            return None if made is None else ([made], False)
        fits = {
            "null": value is None,
            "boolean": isinstance(value, bool),
            "integer": type(value) is int,
            "number": type(value) in (int, float),
        }
        return ([literal(value)], False) if fits.get(str(kind)) else None

    def _member(self, value: Any, schema: Schema) -> tuple[Code, bool] | None:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        at = next((at for at, one in enumerate(values) if _key(one) == _key(value)), None)
        if at is None:
            return None
        name = self._enum_names.get(_key(schema))
        if name is None:
            return [literal(value)], False
        return [f"{name}.{self.enums[name]['x-enum-varnames'][at]}"], False

    def _text(self, value: str, schema: Schema) -> str | None:
        """Return the expression for a text, which may be that of a date, a number ..."""
        made = flat(self._scalar("string", schema))
        try:
            if schema.get("contentEncoding") == "base64":
                row = scalar(bytes)
                return None if row is None else data(row.value(value))
            if schema.get("format") == "duration":
                length = duration(value)
                parts = {
                    name: getattr(length, name) for name in ("days", "seconds", "microseconds")
                }
                return f"{made}({', '.join(f'{name}={one}' for name, one in parts.items() if one)})"
        except ValueError:
            return None
        if schema.get("format") not in _FORMATS:
            return text(value)
        if schema["format"] in ("date-time", "date", "time"):
            made = f"{made}.fromisoformat"
        return f"{made}({text(value)})"

    def _items(self, values: list[Any], schema: Schema) -> tuple[Code, bool] | None:
        kind = flat(self._array(schema))
        schemas = schema.get("prefixItems") or [schema.get("items", {})] * len(values)
        if len(schemas) != len(values):
            return None
        found = [self.expression(one, of) for one, of in zip(values, schemas, strict=True)]
        items = [one[0] for one in found if one is not None]
        if len(items) != len(values):
            return None
        if "prefixItems" in schema or schema.get("maxItems") == 0:
            return [Group("(", items, ",)" if len(items) == 1 else ")", long_close=")")], False
        if not schema.get("uniqueItems"):
            return [Group("[", items, "]")], True
        return [Group("{", items, "}")] if items else [f"{kind.partition('[')[0]}()"], True

    def _entries(self, values: dict[str, Any], schema: Schema) -> tuple[Code, bool] | None:
        if values and (schema.get("propertyNames") or "additionalProperties" not in schema):
            return None
        items: list[Code] = []
        for key, value in values.items():
            if (found := self.expression(value, schema["additionalProperties"])) is None:
                return None
            items.append([f"{text(key)}: ", *found[0]])
        return [Group("{", items, "}")], True

    def _of_class(self, value: Any, name: str) -> tuple[Code, bool] | None:
        if name not in self.classes or self.kind(name) not in (ENUM, ALIAS):
            return None
        return self.expression(value, self.definitions[name])


def literal(value: Any) -> str:
    """Return the literal of a str, an int, a float, a bool or None."""
    return text(value) if isinstance(value, str) else repr(value)


def _arms(schema: Schema) -> list[Any]:
    """Return the schemas of a union; none if it is not one."""
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            return list(schema[keyword])
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return [{**schema, "type": kind} for kind in kinds]
    parts = schema.get("allOf")
    return list(parts) if isinstance(parts, list) and len(parts) == 1 else []


def _class_name(name: str, taken: set[str]) -> str:
    public = name.lstrip("_")
    return free(public if is_name(public) else class_name(name), taken | BUILTINS)


def _fields_in(definitions: Iterable[Schema]) -> Iterator[str]:
    for one in definitions:
        yield from one.get("properties", ())
        yield from (str(item.get("title")) for item in one.get("prefixItems", ()))


def _enums_in(value: Any) -> Iterator[Schema]:
    """Yield the schemas of Enums that can be classes, wherever they are within a value of JSON."""
    if isinstance(value, Mapping):
        if _is_enum(value):
            yield value
        for one in value.values():
            yield from _enums_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from _enums_in(one)


def _is_enum(schema: Schema) -> bool:
    names, values = schema.get("x-enum-varnames"), schema.get("enum")
    return (
        isinstance(names, list)
        and isinstance(values, list)
        and len(names) == len(values)
        and isinstance(schema.get("title"), str)
        and all(is_name(one) and one not in _NOT_MEMBERS and one[0] != "_" for one in names)
    )


def _is_field(title: Any) -> bool:
    """Whether a title can be the name of a field of a NamedTuple, which has the methods of a tuple."""
    return isinstance(title, str) and is_name(title) and title[0] != "_" and title not in dir(tuple)


def _key(schema: Any) -> str:
    """Return what two schemas, or two values, have in common if they are the same Enum or value."""
    if isinstance(schema, Mapping):
        schema = [schema.get(one) for one in ("title", "enum", "const")]
    return json.dumps(schema)
