"""Conversion of JSON values to types that are made of others: lists, dicts, unions, TypedDicts ...

Pure: no I/O, no clock. A conversion raises ``Expected`` for a value of the wrong kind, and ``Mistakes`` for
one with something wrong within it.
"""

from __future__ import annotations

import collections
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    Sequence,
    Set,
)
from contextvars import ContextVar
from typing import (
    Annotated,
    Any,
    Literal,
    get_args,
    get_origin,
)

from linepool.handlers.mistakes import Found, Mistakes, at, each, found_in, given, missing, unknown
from linepool.session import Secret
from linepool.values.annotations import is_union, name_of, unnamed, unwrapped
from linepool.values.constraints import bounded, constraints
from linepool.values.records import fields_of, has_fields, is_named_tuple, is_typed_dict
from linepool.values.scalars import scalar, unchanged
from linepool.values.words import Expected

Convert = Callable[[Any], Any]
Make = Callable[[Any], Convert]
"""From a type to its conversion; raises TypeError if there is none."""

OBJECT = "a JSON object"
_LIST = "a list"
_ANY = (Any, object)
_LISTS: dict[Any, Convert] = {
    **dict.fromkeys((list, Sequence, MutableSequence, Collection, Iterable), unchanged),
    **dict.fromkeys((set, Set, MutableSet), set),
    frozenset: frozenset,
    collections.deque: collections.deque,
}
_DICTS: dict[Any, Convert] = {
    **dict.fromkeys((dict, Mapping, MutableMapping), unchanged),
    collections.OrderedDict: collections.OrderedDict,
    collections.defaultdict: lambda made: collections.defaultdict(None, made),
    collections.Counter: collections.Counter,
}


def conversion(hint: Any, make: Make) -> Convert | None:
    """Return the conversion of JSON values to a type, or None: it is not a type of this module.

    Args:
        hint: The type.
        make: From the type of a part to its conversion.

    Raises:
        TypeError: A part cannot be converted, or a constraint is not known.
    """
    if hint in _ANY:
        return unchanged
    if (row := scalar(hint)) is not None:
        return _hidden(row.value, row.name) if hint is Secret else row.value
    if (base := unwrapped(unnamed(hint))) is not hint:
        return make(base)
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        return _annotated(*args, make=make)
    if is_union(hint):
        return _union(args, make)
    if is_typed_dict(origin):
        return _typed_dict(hint, make)
    if is_named_tuple(origin):
        return _named_tuple(hint, make)
    return _container(origin, args, make)


def _container(origin: Any, args: tuple[Any, ...], make: Make) -> Convert | None:
    if origin in _LISTS:
        return _list(_LISTS[origin], make(args[0] if args else Any))
    if origin is tuple:
        return _tuple(args, make)
    if origin in _DICTS:
        if origin is collections.Counter:
            args = (*args, int) if args else (Any, int)
        return _dict(_DICTS[origin], *(args or (Any, Any)), make=make)
    return None


def _annotated(hint: Any, *notes: Any, make: Make) -> Convert:
    convert = bounded(make(hint), name_of(hint), constraints(hint, notes))
    return _hidden(convert, name_of(hint)) if Secret in notes else convert


def _hidden(convert: Convert, name: str) -> Convert:
    """Return the conversion to a secret: no error quotes the value."""

    def hidden(value: Any) -> Any:
        try:
            return convert(value)
        except Exception:  # noqa: BLE001 - the text may quote the value
            raise Mistakes([("", f"must be {name}")]) from None

    return hidden


def is_secret(hint: Any) -> bool:
    """Whether an annotation says that values of it, or of a part, are not to be shown."""
    return hint is Secret or any(map(is_secret, get_args(hint)))


# -- lists and dicts


def _list(finish: Convert, item: Convert) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is not list:
            raise Expected(_LIST)
        if item is unchanged:
            return finish(value)
        made: list[Any] = []
        try:
            for one in value:
                made.append(item(one))  # noqa: PERF401 - how many are right says which is wrong
        except Exception as error:  # noqa: BLE001 - a class's own checks raise anything
            wrong = len(made)
            found = at(f"[{wrong}]", found_in(error, value[wrong]))
            # No part of a value is gone through twice: of one that is nested, that doubles at each level.
            rest = enumerate(value[wrong + 1 :], wrong + 1)
            each(((f"[{index}]", item, other) for index, other in rest), found)
        return finish(made)

    return convert


def _tuple(args: tuple[Any, ...], make: Make) -> Convert:
    if not args or args[1:] == (...,):
        return _list(tuple, make(args[0] if args else Any))
    items = [] if args == ((),) else [make(one) for one in args]
    paths = [f"[{index}]" for index in range(len(items))]
    expected = f"a list of {len(items)}"

    def convert(value: Any) -> tuple[Any, ...]:
        _check_length(value, len(items), len(items), expected)
        return tuple(each(zip(paths, items, value, strict=True)))

    return convert


def _check_length(value: Any, least: int, most: int, expected: str) -> None:
    if type(value) is not list:
        raise Expected(expected)
    if not least <= len(value) <= most:
        raise Mistakes([("", f"must be {expected}, not of {len(value)}")])


def _named_tuple(hint: Any, make: Make) -> Convert:
    kind = get_origin(hint) or hint
    fields = fields_of(hint)
    items = [make(one.hint) for one in fields]
    paths = [f"[{index}]" for index in range(len(items))]
    least = sum(one.is_required for one in fields)
    expected = f"a list of {least}" + f" to {len(items)}" * (least < len(items))

    def convert(value: Any) -> Any:
        _check_length(value, least, len(items), expected)
        return kind(*each(zip(paths, items, value, strict=False)))

    return convert


def _dict(finish: Convert, key_hint: Any, item_hint: Any, *, make: Make) -> Convert:
    key, item = _named_key(_key(key_hint)), make(item_hint)

    def convert(value: Any) -> Any:
        if type(value) is not dict:
            raise Expected(OBJECT)
        keys = value if key is unchanged else each(("", key, name) for name in value)
        items = each((_of_key(name), item, one) for name, one in value.items())
        return finish(dict(zip(keys, items, strict=True)))

    return convert


def _of_key(name: str) -> str:
    return f".{name}" if name.isidentifier() and len(name) < 64 else f"[{given(name)}]"


def _named_key(key: Convert) -> Convert:
    if key is unchanged:
        return key

    def convert(name: Any) -> Any:
        try:
            return key(name)
        except ValueError as error:
            raise Mistakes([("", f"must have keys of {error}, not {given(name)}")]) from None

    return convert


def _key(hint: Any) -> Convert:
    """Return the conversion of the keys of a dict, which are words.

    Raises:
        TypeError: Such a key cannot be a word.
    """
    if hint is str or hint in _ANY:
        return unchanged
    if (row := scalar(hint)) is not None:
        word = row.word
        return lambda name: word(name.encode("utf-8", "surrogatepass"))
    if (base := unnamed(hint)) is not hint:
        return _key(base)
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        return bounded(_key(inner), name_of(inner), constraints(inner, notes))
    if is_union(hint):
        return _first([_key(arm) for arm in get_args(hint)], name_of(hint))
    raise TypeError(f"unsupported type of keys: {name_of(hint)}")


def _typed_dict(hint: Any, make: Make) -> Convert:
    fields = fields_of(hint)
    converts = {one.key: make(one.hint) for one in fields}
    required = [one.key for one in fields if one.is_required]

    def convert(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise Expected(OBJECT)
        found: Found = [missing(name) for name in required if name not in value]
        found += [unknown(name, converts) for name in value if name not in converts]
        known = [(name, one) for name, one in value.items() if name in converts]
        made = each(((f".{name}", converts[name], one) for name, one in known), found)
        return dict(zip((name for name, _ in known), made, strict=True))

    return convert


# -- unions


def _union(args: tuple[Any, ...], make: Make) -> Convert:
    arms = [arm for arm in args if arm is not type(None)]
    converts = [make(arm) for arm in arms]
    name = " or ".join(map(_named, arms))
    tag = _tag(arms) if len(arms) > 1 else None
    if tag is None:
        convert = converts[0] if len(arms) == 1 else _first(converts, name)
    else:
        key, values = tag
        convert = _by_tag(key, {value: converts[at] for value, at in values.items()})
    if len(arms) == len(args):
        return convert

    def optional(value: Any) -> Any:
        if value is None:
            return None
        try:
            return convert(value)
        except Expected as error:
            raise Expected(f"{error} or null") from None

    return optional


def _named(hint: Any) -> str:
    row = scalar(hint)
    return name_of(hint) if row is None else row.name.replace("|", " or ")


_Results = dict[tuple[int, int], tuple[Any, Any, ValueError | None]]
_tried: ContextVar[_Results | None] = ContextVar("tried", default=None)
"""What unions have made of the lists and objects within a value, by union and value: the value, and
what it was converted to, or the error. Otherwise one in nested unions would be gone through twice at
each level."""


def _once(convert: Convert, value: Any) -> Any:
    """Convert a value, unless that was done within the present outermost union."""
    results = _tried.get()
    if results is None:
        token = _tried.set({})
        try:
            return convert(value)
        finally:
            _tried.reset(token)
    key = id(convert), id(value)
    if key not in results:
        try:
            results[key] = value, convert(value), None
        except ValueError as error:
            results[key] = value, None, error
    _, made, failure = results[key]
    if failure is not None:
        raise failure
    return made


def _first(converts: list[Convert], name: str) -> Convert:
    """Return the conversion by the first of several that takes a value."""

    def try_each(value: Any) -> Any:
        within: list[Mistakes] = []
        for one in converts:
            try:
                return one(value)
            except Mistakes as mistakes:
                within.append(mistakes)
            except ValueError:
                continue
        if len(within) == 1:  # only one takes values of this kind
            raise within[0]
        raise Expected(name)

    def convert(value: Any) -> Any:
        return _once(try_each, value) if type(value) in (list, dict) else try_each(value)

    return convert


def _by_tag(key: str, converts: dict[tuple[type, Any], Convert]) -> Convert:
    """Return the conversion of objects that one of their fields tells apart."""
    expected = " or ".join(str(value) for _, value in converts)

    def convert(value: Any) -> Any:
        if type(value) is not dict:
            raise Expected(OBJECT)
        if key not in value:
            raise Mistakes([missing(key)])
        tag = value[key]
        one = converts.get((type(tag), tag)) if isinstance(tag, str | int) else None
        if one is None:
            raise Mistakes([(f".{key}", f"must be {expected}, not {given(tag)}")])
        return one(value)

    return convert


def _tag(arms: list[Any]) -> tuple[str, dict[tuple[type, Any], int]] | None:
    """Return the field whose Literal tells classes apart, and which class each value means."""
    found = [_literals(arm) for arm in arms]
    for key in found[0]:
        values = [(value, index) for index, one in enumerate(found) for value in one.get(key, ())]
        indices = dict(values)
        if len(indices) == len(values) and {*indices.values()} == {*range(len(arms))}:
            return key, indices
    return None


def _literals(kind: Any) -> dict[str, list[tuple[type, Any]]]:
    """Return the JSON values of a class's fields that are Literals, by key."""
    if not has_fields(kind):
        return {}
    try:
        fields = fields_of(kind)
    except TypeError:  # which is refused where the class is converted
        return {}
    rows = {one.key: scalar(one.hint) for one in fields if get_origin(one.hint) is Literal}
    return {
        key: [(type(value), value) for value in row.schema["enum"]]
        for key, row in rows.items()
        if row is not None
    }
