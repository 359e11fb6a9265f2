"""What converters of words and converters of JSON values share. Pure: no I/O, no clock.

A converter turns one value of a request into a value of the annotated type. It raises ValueError
with what the value must be ("int", "red or green"); the caller adds the parameter's name and the
value that was sent.
"""

from __future__ import annotations

import inspect
import json
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Union, get_args, get_origin

from attrs import has

from linepool.session import Range

Convert = Callable[[Any], Any]
Converter = tuple[Convert, str]
"""The conversion, and the name of its type in usage texts: ``int``, ``red|green``."""

# By name, so that their modules are imported only if an annotation uses them.
_WRITTEN_AS_TEXT = {"decimal.Decimal", "uuid.UUID", "fractions.Fraction"}
_NUMBERS_AS_TEXT = {"decimal", "fractions"}
_MAX_EXPONENT = 4300  # as many digits as int() takes; to write out 1e1000000000 would take minutes
_SHOWN_ERRORS = 10  # of a structured value
_MAX_EXPLAINED_ITEMS = 1000  # of a structured value, beyond which only its type is named


def unchanged(value: Any) -> Any:
    """Return the value as it is."""
    return value


def is_written_as_text(hint: Any) -> bool:
    """Whether a type is one whose values are made from their text (``Decimal("1.5")``)."""
    return inspect.isclass(hint) and f"{hint.__module__}.{hint.__qualname__}" in _WRITTEN_AS_TEXT


def from_text(make: Convert) -> Convert:
    """Return the conversion of a text to a number, an id or a date, without what only Python accepts.

    That is digits of other scripts and ``1_000``; from bytes, int and float do not take them either. A
    number's exponent is bounded: what is done with the number costs as much as its digits.
    """
    is_number = getattr(make, "__module__", "") in _NUMBERS_AS_TEXT

    def convert(text: str) -> Any:
        if "_" in text or not text.isascii():
            raise ValueError
        if is_number:
            _, mark, exponent = text.lower().rpartition("e")
            if mark and not -_MAX_EXPONENT <= int(exponent) <= _MAX_EXPONENT:
                raise ValueError
        return make(text)

    return convert


def type_name(hint: Any) -> str:
    """Return how texts name a type."""
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "")


def within(converter: Converter, hint: Any, notes: Iterable[Any]) -> Converter:
    """Return the converter for ``Annotated[hint, *notes]``, given that of ``hint``.

    Raises:
        TypeError: A note is a Range, but the type is not a number.
    """
    convert, shown = converter
    for note in notes:
        if isinstance(note, Range):
            if not _is_number(hint):
                raise TypeError(f"a Range bounds numbers, not {shown}")
            convert, shown = _bounded(convert, shown, note), f"{shown}({note})"
    return convert, shown


def _is_number(hint: Any) -> bool:
    """Whether all values of a type are numbers, or None."""
    if get_origin(hint) in (Union, types.UnionType):
        return all(arm is type(None) or _is_number(arm) for arm in get_args(hint))
    kind = getattr(hint, "__supertype__", hint)  # of a NewType
    if not inspect.isclass(kind) or issubclass(kind, bool):
        return False
    return issubclass(kind, numbers.Number)


def _bounded(convert: Convert, shown: str, bounds: Range) -> Convert:
    def bounded(value: Any) -> Any:
        number = convert(value)
        if number is None:  # the type is X | None
            return None
        try:
            # A NaN compares as false, so it is neither above a minimum nor below a maximum.
            above = bounds.min is None or number >= bounds.min
            below = bounds.max is None or number <= bounds.max
        except ArithmeticError:  # Decimal refuses to compare NaN
            above = below = False
        if not (above and below):
            raise ValueError(f"{shown} in {bounds}")
        return number

    return bounded


def choice(find: Convert, names: Iterable[object]) -> Converter:
    """Return the converter for a fixed set of values.

    Args:
        find: From the request's value to the one meant; raises KeyError if it is none of them, or
            TypeError if it cannot be one.
        names: How the values are written, for texts.
    """
    shown = "|".join(map(str, names))

    def choose(value: Any) -> Any:
        try:
            return find(value)
        except (KeyError, TypeError):
            raise ValueError(_alternatives(shown)) from None

    return choose, shown


def union(arms: Sequence[Converter]) -> Converter:
    """Return the converter that tries others in turn."""
    if len(arms) == 1:
        return arms[0]
    shown = "|".join(name for _, name in arms)

    def first_that_fits(value: Any) -> Any:
        for convert, _ in arms:
            try:
                return convert(value)
            except ValueError:
                continue
        raise ValueError(_alternatives(shown))

    return first_that_fits, shown


def _alternatives(shown: str) -> str:
    return shown.replace("|", " or ")


def made_by(make: Convert, shown: str, expected: str = "") -> Converter:
    """Return the converter that calls a type's own constructor.

    Args:
        make: The constructor; its ValueError and ArithmeticError (Decimal) mean a wrong value.
        shown: The name of the type.
        expected: What the value must be, if the name of the type does not say enough.
    """

    def construct(value: Any) -> Any:
        try:
            return make(value)
        except (ValueError, ArithmeticError):
            raise ValueError(expected or shown) from None

    return construct, shown


def _prepared(structurer: Any, plain: Mapping[Any, Convert]) -> Any:
    """Return one of cattrs' converters with the strict conversions of plain types."""
    for kind, convert in plain.items():
        structurer.register_structure_hook(kind, _hook(convert))
    structurer.register_structure_hook_factory(
        _has_number_keys, lambda kind: _number_keys(kind, structurer.get_structure_hook)
    )
    return structurer


def structured(
    hint: Any,
    plain: Mapping[Any, Convert],
    load: Convert = unchanged,
    prefix: str = "",
) -> Converter:
    """Return the converter for a type that only cattrs can structure.

    Args:
        hint: The annotation.
        plain: Converters for the plain types within it, in place of cattrs' own.
        load: From the request's value to the JSON value that cattrs takes.
        prefix: Precedes the type's name in the message about a wrong value.

    Raises:
        TypeError: cattrs cannot structure it either, or is not installed.
    """
    name = type_name(hint)
    try:
        import cattrs  # noqa: PLC0415 - heavy, and rarely needed
        from cattrs.preconf.json import make_converter  # noqa: PLC0415
    except ImportError:
        raise TypeError(
            f"type {name} needs cattrs; install it with: pip install 'linepool[cattrs]'"
        ) from None
    # To collect all errors of a large value would take seconds, and the text would be as large.
    structurer = _prepared(make_converter(detailed_validation=False), plain)
    explainer = _prepared(make_converter(), plain)
    try:
        structure = structurer.get_structure_hook(hint)
        explain = explainer.get_structure_hook(hint)
    except cattrs.errors.StructureHandlerNotFoundError as error:
        path = _path_to(error.type_, hint)
        field = f": field {path} ({type_name(error.type_)})" if path else ""
        raise TypeError(f"unsupported type {name}{field}") from None
    except NameError as error:  # a class that was defined in a function refers to itself
        raise TypeError(f"unsupported type {name}: {error}") from None

    def from_json(value: Any) -> Any:
        loaded = None
        try:
            loaded = load(value)
            return structure(loaded, hint)
        except json.JSONDecodeError:
            raise ValueError(f"{prefix}{name}") from None
        except Exception:  # noqa: BLE001 - cattrs raises what the type's own checks raise
            raise ValueError(f"{prefix}{name}{_explained(explain, loaded, hint)}") from None

    return from_json, name


def _explained(structure: Callable[[Any, Any], Any], value: Any, hint: Any) -> str:
    """Return which items of a value are wrong, in parentheses; "" if it is too large to say."""
    from cattrs import transform_error  # noqa: PLC0415 - as above

    if not _is_small(value):
        return ""
    try:
        structure(value, hint)
    except Exception as error:  # noqa: BLE001 - as above
        what = transform_error(error, "value", _without_internals)
        more = ["..."] if len(what) > _SHOWN_ERRORS else []
        return f" ({'; '.join(what[:_SHOWN_ERRORS] + more)})"
    return ""


def _without_internals(error: BaseException, kind: Any) -> str:
    """Return cattrs' text for an error within a value, but never the text of a Python exception."""
    from cattrs.v import format_exception  # noqa: PLC0415 - as above

    if not isinstance(error, KeyError | ValueError):
        error = ValueError()  # for which it says what is expected
    return format_exception(error, kind)


def _is_small(value: Any) -> bool:
    """Whether a JSON value holds few enough items for each to be named in an error."""
    items, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, list | dict | str):  # a str may be taken for a list of its characters
            items += len(one)
            if items > _MAX_EXPLAINED_ITEMS:
                return False
            if not isinstance(one, str):
                left += one.values() if isinstance(one, dict) else one
    return True


def _hook(convert: Convert) -> Callable[[Any, Any], Any]:
    return lambda value, _: convert(value)


def _has_number_keys(hint: Any) -> bool:
    return get_origin(hint) is dict and get_args(hint)[0] in (int, float)


def _number_keys(hint: Any, hook_for: Callable[[Any], Callable[[Any, Any], Any]]) -> Any:
    """Return cattrs' hook for a dict whose keys are numbers, which JSON writes as strings."""
    key_type, value_type = get_args(hint)
    make_key, structure = from_text(key_type), hook_for(value_type)

    def from_object(value: Any, _: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise TypeError
        return {make_key(key): structure(item, value_type) for key, item in value.items()}

    return from_object


def _path_to(kind: Any, hint: Any, seen: tuple[Any, ...] = ()) -> str:
    """Return the path to a field of some type within another type; "": no field has that type."""
    if hint in seen:
        return ""
    seen += (hint,)
    inner: list[tuple[str, Any]] = [("", argument) for argument in get_args(hint)]
    if inspect.isclass(hint) and (has(hint) or is_dataclass(hint)):
        inner = list(typing.get_type_hints(hint).items())
    for name, annotation in inner:
        if name and annotation == kind:
            return name
        if path := _path_to(kind, annotation, seen):
            return f"{name}.{path}" if name else path
    return ""
