"""The fields of classes that are made of others: attrs, dataclasses, TypedDict and NamedTuple. Pure."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

import attrs
from attrs import evolve, frozen

from linepool.values.annotations import unwrapped

NOTHING = inspect.Parameter.empty
_CONTAINERS = (list, dict, set, frozenset, tuple)


@frozen
class Field:
    """One field of a class.

    Attributes:
        name: As the class has it.
        key: As JSON has it; an attrs class may have an alias for it, and ``_x`` is ``x``.
        hint: Its type.
        is_required: A value must be given for it.
        default: Its default; NOTHING: none, or one that is made anew for each object, and not empty.
        is_given: A value may be given for it; if not, the class makes the value.
    """

    name: str
    key: str
    hint: Any
    is_required: bool
    default: Any = NOTHING
    is_given: bool = True


def has_fields(hint: Any) -> bool:
    """Whether a type is such a class, or one with type arguments."""
    kind = get_origin(hint) or hint
    return inspect.isclass(kind) and (
        attrs.has(kind)
        or dataclasses.is_dataclass(kind)
        or is_typed_dict(kind)
        or is_named_tuple(kind)
    )


def is_typed_dict(kind: Any) -> bool:
    """Whether a class is a TypedDict, of ``typing`` or of ``typing_extensions``."""
    return inspect.isclass(kind) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def is_named_tuple(kind: Any) -> bool:
    """Whether a class is a NamedTuple."""
    return inspect.isclass(kind) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def is_plain_data(hint: Any) -> bool:
    """Whether a class with fields has nothing else: such values come from clients, others are the app's.

    That is so if a value is given for every field, none is private, and there are no public methods but
    properties, classmethods and staticmethods.
    """
    kind = get_origin(hint) or hint
    if not has_fields(kind):
        return False
    if is_typed_dict(kind) or is_named_tuple(kind):
        return True
    own = {name: one for base in reversed(kind.__mro__) for name, one in vars(base).items()}
    methods = [name for name, one in own.items() if inspect.isfunction(one)]
    fields = _declared(kind)
    return all(name.startswith("_") for name in methods) and all(
        one.is_given and not one.name.startswith("_") for one in fields
    )


def fields_of(hint: Any) -> list[Field]:
    """Return the fields of a class, or of one with type arguments, with their types resolved.

    Raises:
        TypeError: The type of a field is a name that is not known.
    """
    kind: Any = get_origin(hint) or hint
    try:
        hints = typing.get_type_hints(kind, localns={kind.__name__: kind}, include_extras=True)
    except NameError as error:
        raise TypeError(f"{kind.__name__}: {error}") from None
    given = dict(zip(getattr(kind, "__parameters__", ()), get_args(hint), strict=False))
    if is_typed_dict(kind):
        declared = [_key_of(kind, name, hint) for name, hint in hints.items()]
    else:
        declared = _declared(kind)
    return [
        evolve(field, hint=_filled(unwrapped(hints.get(field.name, field.hint)), given))
        for field in declared
    ]


def _key_of(kind: Any, name: str, hint: Any) -> Field:
    origin = get_origin(hint)  # which a class with annotations as text has not looked at
    is_required = origin is typing.Required or (
        origin is not typing.NotRequired and name in kind.__required_keys__
    )
    return Field(name, name, hint, is_required)


def _declared(kind: Any) -> list[Field]:
    """Return the fields of a class, with their types as far as the class itself knows them."""
    if attrs.has(kind):
        return [
            _field(one, one.alias or one.name, one.default, attrs.NOTHING)
            for one in attrs.fields(kind)
        ]
    if dataclasses.is_dataclass(kind):
        return [
            _field(one, one.name, _default(one), dataclasses.MISSING)
            for one in dataclasses.fields(kind)
        ]
    defaults = kind._field_defaults
    return [
        Field(name, name, Any, name not in defaults, defaults.get(name, NOTHING))
        for name in kind._fields
    ]


def _default(one: dataclasses.Field[Any]) -> Any:
    make: Any = one.default_factory
    return one.default if make is dataclasses.MISSING else attrs.Factory(make)


def _field(one: Any, key: str, default: Any, none: Any) -> Field:
    """Return a field of an attrs class or a dataclass; ``none``: its default if it has none."""
    is_required = one.init and default is none
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        make: Any = default.factory
        default = make() if (get_origin(make) or make) in _CONTAINERS else NOTHING
    elif default is none:
        default = NOTHING
    return Field(one.name, key, one.type, is_required, default, one.init)


def _filled(hint: Any, given: Mapping[Any, Any]) -> Any:
    """Return a type with type arguments in place of type variables."""
    if isinstance(hint, TypeVar):
        return given.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if inspect.isclass(hint) or not parameters or not given:
        return hint
    return hint[tuple(given.get(one, Any) for one in parameters)]
