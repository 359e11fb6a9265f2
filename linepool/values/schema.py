"""JSON Schema (draft 2020-12) of annotations. Pure: no I/O, no clock.

A schema describes the form in which a client is to send a value, and in which a reply has it. Some
values are read in other forms too: a Decimal as a number, a member of an Enum by its name.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Annotated, Any, get_args, get_origin

from linepool.session import Secret
from linepool.values.annotations import is_alias, is_foreign, is_union, unnamed
from linepool.values.constraints import Constraint, constraints
from linepool.values.plain import plain
from linepool.values.records import (
    NOTHING,
    Field,
    fields_of,
    has_fields,
    is_named_tuple,
    is_typed_dict,
)
from linepool.values.scalars import scalar

_OWN = (bool, int, float, str, bytes)  # whose subclasses are sent as they are


class Schemas:
    """JSON Schemas of types, and of the classes that they refer to.

    Args:
        prefix: Of references to classes.
        closed: Whether unknown keys of an object are refused.

    Attributes:
        classes: The schemas of the classes, by name.
    """

    def __init__(self, prefix: str = "#/$defs/", *, closed: bool = True) -> None:
        self.classes: dict[str, dict[str, Any]] = {}
        self._names: dict[Any, str] = {}
        self._adopted_names: dict[tuple[str, str], str] = {}
        self._prefix = prefix
        self._closed = closed

    def of(self, hint: Any, *, reply: bool = False) -> dict[str, Any]:
        """Return the schema of a type; ``{}``, which accepts anything, if it is not known.

        Args:
            hint: The type.
            reply: Whether values of it are sent, not read; the schemas of foreign models may differ.
        """
        if is_alias(hint):
            return self._alias(hint, reply=reply)
        hint = unnamed(hint)
        if get_origin(hint) is Annotated:
            inner, *notes = get_args(hint)
            return _noted(self.of(inner, reply=reply), inner, notes)
        if (row := _row(hint)) is not None:
            return dict(row) if hint is not Secret else {**row, "writeOnly": True}
        origin, arguments = get_origin(hint) or hint, get_args(hint)
        if is_union(hint):
            return {"anyOf": [self.of(arm, reply=reply) for arm in arguments]}
        if not inspect.isclass(origin) or origin is object:
            return {}
        if is_foreign(origin):
            return self._foreign(origin, reply=reply)
        if has_fields(origin):
            return self._reference(hint, reply=reply)
        return self._container(origin, arguments, reply=reply)

    def _container(self, kind: type, arguments: tuple[Any, ...], *, reply: bool) -> dict[str, Any]:
        """Return the schema of a type that holds others, or that is like one of Python's own."""
        for own in _OWN:
            if issubclass(kind, own):
                return dict(_row(own) or {})
        inner = [self.of(one, reply=reply) for one in arguments if one is not ...]
        if issubclass(kind, Mapping):
            return _object(arguments, inner)
        if issubclass(kind, tuple) and arguments and ... not in arguments:
            return _row_of(inner)
        if not issubclass(kind, Iterable):
            return {}
        found: dict[str, Any] = {"type": "array"}
        if inner and inner[0]:
            found["items"] = inner[0]
        return {**found, "uniqueItems": True} if issubclass(kind, Set) else found

    def _reference(self, hint: Any, *, reply: bool) -> dict[str, Any]:
        """Return a reference to a class with fields, and describe the class if it is a new one."""
        if hint not in self._names:
            kind = get_origin(hint) or hint
            name = self._names[hint] = self._free(_name(hint))
            self.classes[name] = {}  # its place, ahead of the classes of its fields
            try:
                fields = fields_of(hint)
            except TypeError:
                return {"$ref": self._prefix + name}
            described = self._as_row if is_named_tuple(kind) else self._as_object
            self.classes[name] = described(kind, fields, reply=reply)
        return {"$ref": self._prefix + self._names[hint]}

    def _alias(self, hint: Any, *, reply: bool) -> dict[str, Any]:
        """Return a reference to a type with a name, which may refer to itself."""
        if hint not in self._names:
            name = self._names[hint] = self._free(_name(hint))
            self.classes[name] = {}
            self.classes[name] = self.of(hint.__value__, reply=reply)
        return {"$ref": self._prefix + self._names[hint]}

    def _as_object(self, kind: Any, fields: Sequence[Field], *, reply: bool) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "object", **_described(kind)}
        if is_typed_dict(kind):
            found["x-typed-dict"] = True
        found["properties"] = {
            one.key: _with_default(self.of(one.hint, reply=reply), one) for one in fields
        }
        if required := [one.key for one in fields if one.is_required]:
            found["required"] = required
        return {**found, "additionalProperties": False} if self._closed else found

    def _as_row(self, kind: Any, fields: Sequence[Field], *, reply: bool) -> dict[str, Any]:
        items = [
            {"title": one.name, **_with_default(self.of(one.hint, reply=reply), one)}
            for one in fields
        ]
        least = sum(one.is_required for one in fields)
        return {**_row_of(items), **_described(kind), "minItems": least}

    def _foreign(self, kind: type, *, reply: bool) -> dict[str, Any]:
        """Return the schema that a model's own library makes."""
        if not hasattr(kind, "__pydantic_validator__"):
            template = self._prefix + "{name}"
            (found,), inner = sys.modules["msgspec.json"].schema_components(
                [kind], ref_template=template
            )
            return self._adopted(found, inner)
        found = (
            sys.modules["pydantic"]
            .TypeAdapter(kind)
            .json_schema(
                mode="serialization" if reply else "validation",
                ref_template=self._prefix + "{model}",
            )
        )
        inner = found.pop("$defs", {})
        if "$ref" not in found:  # the class itself is not among its definitions
            inner = {kind.__name__: found, **inner}
            found = {"$ref": self._prefix + kind.__name__}
        return self._adopted(found, inner)

    def _adopted(self, found: dict[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
        """Add the classes of a foreign schema; one has another name if that name is taken."""
        new = {}
        for name, one in inner.items():
            known = (name, json.dumps(one, sort_keys=True, default=str))
            if known not in self._adopted_names:
                self._adopted_names[known] = self._free(name)
                self.classes[self._adopted_names[known]] = {}
            new[name] = self._adopted_names[known]
        renamed = {
            self._prefix + name: self._prefix + other
            for name, other in new.items()
            if name != other
        }
        self.classes.update((new[name], _renamed(one, renamed)) for name, one in inner.items())
        own: dict[str, Any] = _renamed(found, renamed)
        return own

    def _free(self, name: str) -> str:
        """Return a name that no other class has."""
        free, number = name, 1
        while free in self.classes:
            number += 1
            free = f"{name}{number}"
        return free


def _row(hint: Any) -> Mapping[str, Any] | None:
    try:
        row = scalar(hint)
    except TypeError:  # an Enum without members
        return None
    return None if row is None else row.schema


def _name(hint: Any) -> str:
    """Return the name of a class, with those of its type arguments, as a word."""
    kind = get_origin(hint) or hint
    parts = [kind.__name__, *(_name(one) for one in get_args(hint))]
    return "_".join(re.sub(r"\W+", "_", str(part)) for part in parts)


def _described(kind: type) -> dict[str, Any]:
    """Return the description of a class, unless it was generated."""
    own = vars(kind).get("__doc__")
    if not isinstance(own, str) or own.startswith(f"{kind.__name__}("):
        return {}
    return {"description": inspect.cleandoc(own)}


def _with_default(schema: dict[str, Any], field: Field) -> dict[str, Any]:
    if not field.is_given:
        return {**schema, "readOnly": True}
    return {**schema, **default_of(field.default)}


def default_of(value: Any) -> dict[str, Any]:
    """Return the keyword for a default; none if there is no default, or JSON has no form for it."""
    if value is NOTHING:
        return {}
    try:
        return {"default": plain(value)}
    except (TypeError, ValueError):
        return {}


def _object(arguments: tuple[Any, ...], inner: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of a dict; its keys are words."""
    found: dict[str, Any] = {"type": "object"}
    if len(inner) != 2:
        return found
    keys = inner[0]
    if keys.get("type") == "integer":
        found["propertyNames"] = {"pattern": "^[+-]?[0-9]+$"}
    elif keys.get("type") == "string" and len(keys) > 1:
        found["propertyNames"] = {name: one for name, one in keys.items() if name != "type"}
    elif "enum" in keys:
        found["propertyNames"] = {"enum": [str(one) for one in keys["enum"]]}
    return {**found, "additionalProperties": inner[1]} if inner[1] else found


def _row_of(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of a tuple of fixed length."""
    if not items:
        return {"type": "array", "maxItems": 0}
    return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}


def _noted(schema: dict[str, Any], hint: Any, notes: Iterable[Any]) -> dict[str, Any]:
    """Return the schema of ``Annotated[hint, *notes]``, given that of ``hint``."""
    keywords: dict[str, Any] = {}
    for note in notes:
        text = getattr(note, "documentation", None) or getattr(note, "description", None)
        if note is Secret:
            keywords["writeOnly"] = True
        elif isinstance(text, str) and not inspect.isclass(note):
            keywords["description"] = text
    for constraint in _known(hint, notes):
        keywords |= constraint.schema
    return {**schema, **keywords}


def _known(hint: Any, notes: Iterable[Any]) -> list[Constraint]:
    try:
        return constraints(hint, notes)
    except TypeError:  # of a reply, whose values are not checked
        return []


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """Return a schema with other references."""
    if not names:
        return schema
    if isinstance(schema, dict):
        return {
            key: names.get(one, one) if key == "$ref" else _renamed(one, names)
            for key, one in schema.items()
        }
    return [_renamed(one, names) for one in schema] if isinstance(schema, list) else schema
