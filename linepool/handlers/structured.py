"""Conversion of JSON values to any type, classes by cattrs. Pure: no I/O, no clock.

cattrs is imported for the first class of attrs or dataclasses, or if the app has a converter of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import TYPE_CHECKING, Any, get_args, get_origin

import attrs

from linepool.handlers.composed import (
    OBJECT,
    Convert,
    conversion,
    is_secret,
)
from linepool.handlers.foreign import foreign
from linepool.handlers.mistakes import Found, Mistakes, at, found_in, missing, unknown
from linepool.values.annotations import name_of
from linepool.values.records import Field, fields_of, has_fields
from linepool.values.row import Scalar
from linepool.values.scalars import scalar
from linepool.values.words import Expected

if TYPE_CHECKING:
    from cattrs import Converter
    from cattrs.errors import ClassValidationError

_BASES = (str, int, float, bytes)  # cattrs has hooks for them that come before those of predicates


class _UnsupportedError(TypeError):
    """A type cannot be converted to.

    Attributes:
        kind: The type.
        why: The reason; "": nothing is known of such a type.
    """

    def __init__(self, kind: Any, why: str = "") -> None:
        super().__init__(kind, why)
        self.kind = kind
        self.why = why


class _Later:
    """The conversion to a type that is still being made."""

    convert: Convert

    def __call__(self, value: Any) -> Any:
        return self.convert(value)


class Structures:
    """Makes values of types of JSON values.

    Args:
        own: The app's own converter; it is not changed, and its hooks come before all others.
    """

    def __init__(self, own: Converter | None = None) -> None:
        self._own = own
        self._making: dict[int, _Later] = {}

    def scalar(self, hint: Any) -> Scalar | None:
        """Return the row of a type in the table of scalars, unless the app's converter has its own."""
        return None if self.has_own(hint) else scalar(hint)

    def has_own(self, hint: Any) -> bool:
        """Whether the app's converter has a hook for a type."""
        if self._own is None:
            return False
        classes, predicates = _hooks_of(self._own)
        return hint in classes or any(predicate(hint) for predicate in predicates)

    def conversion(self, hint: Any) -> Convert:
        """Return the conversion of JSON values to a type; it raises Expected, or Mistakes if it is composed.

        Raises:
            TypeError: There is none; the text names the field of the type that has none.
        """
        try:
            convert = self._make(hint)
        except _UnsupportedError as error:
            path = _path_to(error.kind, hint)
            raise TypeError(_refusal(hint, path, error)) from None
        except NameError as error:  # a class that was defined in a function refers to itself
            raise TypeError(f"unsupported type {name_of(hint)}: {error}") from None
        return convert if self.scalar(hint) is not None else _with_mistakes(convert)

    def _make(self, hint: Any) -> Convert:
        if self._own is None:
            return self._made(hint)
        hook = self._cattrs.get_structure_hook(hint, cache_result=False)
        return getattr(hook, "convert", None) or (lambda value: hook(value, hint))

    def _made(self, hint: Any) -> Convert:
        """Return the conversion by linepool's own rules."""
        if id(hint) in self._making:  # a type that refers to itself
            return self._making[id(hint)]
        later = self._making[id(hint)] = _Later()
        try:
            found = conversion(hint, self._make) or foreign(hint, self._make) or self._class(hint)
        except _UnsupportedError:
            raise
        except TypeError as error:
            raise _UnsupportedError(hint, str(error)) from None
        finally:
            del self._making[id(hint)]
        later.convert = found
        return found

    def _class(self, hint: Any) -> Convert:
        """Return the conversion to a class of attrs or dataclasses."""
        kind = get_origin(hint) or hint
        if not has_fields(kind):
            raise _UnsupportedError(hint)
        from cattrs.errors import ClassValidationError, StructureHandlerNotFoundError  # noqa: PLC0415
        from cattrs.gen import make_dict_structure_fn  # noqa: PLC0415 - heavy, and rarely needed

        _resolve_types(kind)
        try:
            structure = make_dict_structure_fn(
                hint,
                self._cattrs,
                _cattrs_forbid_extra_keys=True,
                _cattrs_use_alias=True,
                _cattrs_detailed_validation=True,
            )
        except StructureHandlerNotFoundError as error:
            raise error.__cause__ or _UnsupportedError(error.type_) from None
        explain = functools.partial(_explained, fields_of(hint))

        def convert(value: Any) -> Any:
            if type(value) is not dict:
                raise Expected(OBJECT)
            try:
                return structure(value, kind)
            except ClassValidationError as error:
                raise Mistakes(explain(error, value)) from None

        return convert

    @functools.cached_property
    def _cattrs(self) -> Converter:
        from cattrs import Converter  # noqa: PLC0415 - as above
        from cattrs.errors import StructureHandlerNotFoundError  # noqa: PLC0415

        def hook(hint: Any) -> Any:
            try:
                convert = self._made(hint)
            except _UnsupportedError as error:  # an attribute with a converter needs no hook
                text = f"unsupported type {name_of(error.kind)}"
                raise StructureHandlerNotFoundError(text, error.kind) from error

            def structure(value: Any, _: Any) -> Any:
                return convert(value)

            structure.convert = convert  # type: ignore[attr-defined]
            return structure

        made = Converter()
        made.register_structure_hook_factory(lambda _: True, hook)
        of_kind = functools.cache(self._made)
        for base in _BASES:
            made.register_structure_hook(base, lambda value, kind: of_kind(kind)(value))
        if self._own is not None:
            _add_hooks(self._own, made)
        return made


def _resolve_types(kind: Any) -> None:
    """Have the fields of a class know their types, also those that were not defined when it was made.

    Raises:
        NameError: One is not known now either.
    """
    known = {kind.__name__: kind}
    if attrs.has(kind):
        attrs.resolve_types(kind, localns=known)
    elif dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, localns=known, include_extras=True)
        for field in dataclasses.fields(kind):
            field.type = hints[field.name]


def _with_mistakes(convert: Convert) -> Convert:
    def converted(value: Any) -> Any:
        try:
            return convert(value)
        except Exception as error:  # noqa: BLE001 - a class's own checks raise anything
            raise Mistakes(found_in(error, value)) from None

    return converted


DEFAULT = Structures()
"""For apps without a converter of their own."""


def _hooks_of(own: Converter) -> tuple[dict[Any, Any], list[Any]]:
    """Return the hooks that a user has registered with a converter: by class, and predicates."""
    hooks = own._structure_func
    registered = hooks._single_dispatch.registry.items()
    classes = {kind: hook for kind, hook in registered if hook != own._structure_call}
    classes.pop(object, None)  # what is not registered
    pairs = hooks._function_dispatch._handler_pairs[: -own._struct_copy_skip]
    return classes, [predicate for predicate, *_ in pairs]


def _add_hooks(own: Converter, made: Converter) -> None:
    """Put the hooks that a user has registered with a converter before those of another one."""
    ours = made._structure_func._function_dispatch
    own._structure_func._function_dispatch.copy_to(ours, own._struct_copy_skip)
    for kind, hook in _hooks_of(own)[0].items():
        made.register_structure_hook(kind, hook)


def _explained(fields: list[Field], error: ClassValidationError, value: dict[str, Any]) -> Found:
    """Return the mistakes of an object, given the fields of its class and what cattrs raised."""
    from cattrs.errors import ForbiddenExtraKeysError  # noqa: PLC0415 - as above

    keys = {one.name: one.key for one in fields if one.is_given}
    found: Found = []
    of_fields, others = error.group_exceptions()
    for one, note in of_fields:
        key = keys.get(note.name, note.name)
        if key not in value:
            found.append(missing(key))
        else:
            found += at(f".{key}", found_in(one, value[key]))
    for one in others:
        if isinstance(one, ForbiddenExtraKeysError):
            found += [unknown(name, keys.values()) for name in sorted(one.extra_fields)]
        elif any(is_secret(field.hint) for field in fields):  # the class's own check may quote one
            found.append(("", "is not valid"))
        else:
            found += found_in(one, value)
    return found


def _refusal(hint: Any, path: str, error: _UnsupportedError) -> str:
    if not path:
        return error.why or f"unsupported type {name_of(hint)}"
    where = f"unsupported type {name_of(hint)}: field {path}"
    return f"{where}: {error.why}" if error.why else f"{where} ({name_of(error.kind)})"


def _path_to(kind: Any, hint: Any, seen: tuple[Any, ...] = ()) -> str:
    """Return the path to a field of some type within another type; "": no field has that type."""
    if hint in seen:
        return ""
    seen += (hint,)
    inner: list[tuple[str, Any]] = [("", argument) for argument in get_args(hint)]
    if has_fields(hint):
        inner = [(one.name, one.hint) for one in fields_of(hint)]
    for name, annotation in inner:
        if name and annotation == kind:
            return name
        if path := _path_to(kind, annotation, seen):
            return f"{name}.{path}" if name else path
        if name and annotation != hint and kind in get_args(annotation):
            return name
    return ""
