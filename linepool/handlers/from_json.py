"""From a JSON value to a value of the annotated type. Pure: no I/O, no clock.

The counterpart of ``converters``, for protocols whose arguments have types already. A function made
here raises ValueError with what the value must be ("int", "red or green").
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from linepool.session import Range, Rest

Accept = Callable[[Any], Any]


def accepter(hint: Any) -> tuple[Accept, str]:
    """Return the function from a JSON value to the annotated type, and the type's name for texts.

    Raises:
        TypeError: A JSON value cannot become that type.
    """
    if hint in (Any, object, inspect.Parameter.empty):
        return _as_it_is, "any"
    if hint in _PLAIN:
        return _plain(*_PLAIN[hint])
    origin = get_origin(hint)
    if origin is Annotated:
        return _annotated(*get_args(hint))
    if origin is Literal:
        return _choice({value: value for value in get_args(hint)})
    if origin in (Union, types.UnionType):
        return _union(get_args(hint))
    if inspect.isclass(hint) and issubclass(hint, Enum):
        members = {member.value: member for member in hint}
        return _choice({**members, **{member.name: member for member in hint}}, list(members))
    return _structured(hint)


def _as_it_is(value: Any) -> Any:
    return value


_PLAIN: dict[Any, tuple[str, type, Accept]] = {
    int: ("int", int, _as_it_is),
    float: ("float", float, float),
    str: ("str", str, _as_it_is),
    Rest: ("str", str, Rest),
    bytes: ("str", str, str.encode),
    bool: ("bool", bool, _as_it_is),
    list: ("list", list, _as_it_is),
    dict: ("dict", dict, _as_it_is),
    type(None): ("null", type(None), _as_it_is),
}


def _plain(shown: str, kind: type, make: Accept) -> tuple[Accept, str]:
    kinds = (int, float) if kind is float else (kind,)

    def accept(value: Any) -> Any:
        if type(value) not in kinds:  # a bool is no number here
            raise ValueError(shown)
        try:
            return make(value)
        except (OverflowError, UnicodeEncodeError):
            raise ValueError(shown) from None

    return accept, shown


def _annotated(hint: Any, *notes: Any) -> tuple[Accept, str]:
    accept, shown = accepter(hint)
    for note in notes:
        if isinstance(note, Range):
            accept, shown = _bounded(accept, shown, note), f"{shown}({note})"
    return accept, shown


def _bounded(accept: Accept, shown: str, bounds: Range) -> Accept:
    def bounded(value: Any) -> Any:
        found = accept(value)
        above = bounds.min is None or found >= bounds.min
        below = bounds.max is None or found <= bounds.max
        if not (above and below):
            raise ValueError(f"{shown} in {bounds}")
        return found

    return bounded


def _choice(values: dict[Any, Any], named: list[Any] | None = None) -> tuple[Accept, str]:
    shown = "|".join(str(value) for value in (named or values))

    def choose(value: Any) -> Any:
        for known, chosen in values.items():
            if type(known) is type(value) and known == value:
                return chosen
        raise ValueError(shown.replace("|", " or "))

    return choose, shown


def _union(arms: tuple[Any, ...]) -> tuple[Accept, str]:
    found = [accepter(arm) for arm in arms]
    shown = "|".join(name for _, name in found)

    def first_that_fits(value: Any) -> Any:
        for accept, _ in found:
            try:
                return accept(value)
            except ValueError:
                continue
        raise ValueError(shown.replace("|", " or "))

    return first_that_fits, shown


_FROM_TEXT = {"decimal.Decimal", "uuid.UUID", "fractions.Fraction"}


def _structured(hint: Any) -> tuple[Accept, str]:
    """Return the function for a type that is made of others, or from a text.

    Raises:
        TypeError: cattrs does not know it, or is not installed.
    """
    name = hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "")
    if inspect.isclass(hint) and issubclass(hint, date):
        return _from_text(hint.fromisoformat, name, (str,))
    if inspect.isclass(hint) and f"{hint.__module__}.{hint.__qualname__}" in _FROM_TEXT:
        kind: Any = hint
        return _from_text(lambda value: kind(str(value)), name, (str, int, float))
    try:
        import cattrs  # noqa: PLC0415 - heavy, and wanted by few
        from cattrs.preconf.json import make_converter  # noqa: PLC0415
    except ImportError:
        raise TypeError(
            f"a value cannot become {name}; for such types install cattrs (pip install linepool[cattrs])"
        ) from None
    structurer = make_converter()
    for plain in (int, float, str, bool):
        accept, _ = accepter(plain)
        structurer.register_structure_hook(plain, lambda value, _, accept=accept: accept(value))
    try:
        structure = structurer.get_structure_hook(hint)
    except cattrs.errors.StructureHandlerNotFoundError:
        raise TypeError(f"a value cannot become {name}, and cattrs cannot structure it") from None

    def structured(value: Any) -> Any:
        try:
            return structure(value, hint)
        except Exception as error:  # noqa: BLE001 - cattrs raises what the type's own checks raise
            what = "; ".join(cattrs.transform_error(error, path="value"))
            raise ValueError(f"{name} ({what})") from None

    return structured, name


def _from_text(make: Accept, name: str, kinds: tuple[type, ...]) -> tuple[Accept, str]:
    def from_text(value: Any) -> Any:
        if type(value) in kinds:
            try:
                return make(value)
            except (ValueError, ArithmeticError):
                pass
        raise ValueError(name)

    return from_text, name
