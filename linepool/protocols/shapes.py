"""The shape of a command's replies, from its return annotation. Pure: no I/O, no clock.

With it a client knows how far to read, and HELP, ``linepool check`` and the schema say it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
from attrs import frozen

from linepool.questions import Ask
from linepool.session import Reply
from linepool.values.annotations import arms, is_foreign, name_of

NONE, ONE, MANY, FIELDS, UNKNOWN = "none", "one", "many", "fields", "unknown"
TEXT, ROW, JSON = "text", "row", "json"

_STREAMS = (Generator, Iterable, Iterator)
_SCALARS = (str, bytes, bytearray, memoryview, int, float, Enum)


@frozen
class Shape:
    """How a reply is laid out.

    Attributes:
        kind: ``none``: nothing but that it is done; ``one``: a value; ``many``: any number of values, one
            after the other; ``fields``: a value whose names and values are one after the other;
            ``unknown``: the annotation does not say it.
        value: The type of the value, of each of many, or of all that may come; Any: not known.
        form: How a value is written, in a protocol of lines: ``text``; ``row``: words with blanks
            between them; or ``json``. "": not known, or the protocol has its own form.
        text: The shape in words, as HELP shows it; "": not known.
    """

    kind: str
    value: Any = Any
    form: str = ""
    text: str = ""


def shape_of(hint: Any) -> Shape:
    """Return the shape of the replies of a handler with a return annotation; None: it has none."""
    if hint is None:
        return Shape(UNKNOWN)
    kinds = {_kind(arm) for arm in arms(hint)}
    if UNKNOWN in kinds:
        return Shape(UNKNOWN)
    if kinds == {MANY}:
        return Shape(MANY, _joined(item_of(arm) for arm in arms(hint)), text=name_of(hint))
    if kinds == {NONE}:
        return Shape(NONE, type(None), text="nothing")
    return Shape(ONE, hint, text=name_of(hint))


def shape_in_lines(hint: Any, *, as_json: bool) -> Shape:
    """Return the shape of replies that are lines, with END behind several.

    Args:
        hint: The return annotation; None: there is none.
        as_json: Whether mappings and classes are JSON, and not lines of their names and values.
    """
    if hint is None:
        return Shape(UNKNOWN)
    found = [_shape_of_arm(arm, as_json=as_json) for arm in arms(hint)]
    kinds = {shape.kind for shape in found}
    if UNKNOWN in kinds:
        return Shape(UNKNOWN)
    text = _described(found)
    if kinds == {NONE}:
        return Shape(NONE, type(None), text=text)
    if len(kinds - {NONE}) > 1 or (NONE in kinds and ONE not in kinds):
        # Which of them a reply is cannot be seen by its first line.
        return Shape(UNKNOWN, hint, text=text)
    forms = {shape.form for shape in found if shape.kind != NONE}
    kind = (kinds - {NONE}).pop()
    value = hint if kind in (ONE, FIELDS) else _joined(shape.value for shape in found)
    return Shape(kind, value, forms.pop() if len(forms) == 1 else "", text)


def is_stream(hint: Any) -> bool:
    """Whether all values of a type are iterators, or may be: they are made one by one."""
    return all((get_origin(arm) or arm) in _STREAMS for arm in arms(hint))


def item_of(hint: Any) -> Any:
    """Return the type of the items of an iterable type; Any: it is not known."""
    arguments = get_args(hint)
    if get_origin(hint) is tuple and arguments[1:] != (...,):
        return _joined(arguments)
    if arguments:
        return arguments[0]
    if inspect.isclass(hint) and hasattr(hint, "_fields"):  # a NamedTuple
        return _joined(typing.get_type_hints(hint, include_extras=True).values())
    return Any


def is_row(hint: Any) -> bool:
    """Whether a line of a reply holds the items of such a value, as words."""
    kind = get_origin(hint) or hint
    return inspect.isclass(kind) and issubclass(kind, list | tuple)


def is_record(hint: Any) -> bool:
    """Whether a type is a mapping, or a class with fields."""
    kind = get_origin(hint) or hint
    return inspect.isclass(kind) and (
        issubclass(kind, Mapping)
        or typing.is_typeddict(kind)
        or attrs.has(kind)
        or hasattr(kind, "__dataclass_fields__")
        or is_foreign(kind)
    )


def is_scalar(hint: Any) -> bool:
    """Whether a value of a type is one word: a number, a text, a date ..., or a member of an Enum."""
    kind = get_origin(hint) or hint
    if kind is Literal:
        return True
    if not inspect.isclass(kind) or is_record(kind):
        return False
    if issubclass(kind, _SCALARS) or not issubclass(kind, Iterable):
        return True
    return kind.__module__ == "ipaddress"  # a network can be iterated, and is one text


def _kind(hint: Any) -> str:
    """Return the kind of shape of one type."""
    if hint is type(None):
        return NONE
    kind = get_origin(hint) or hint
    if hint in (Any, object, Reply, Ask) or isinstance(hint, TypeVar):
        return UNKNOWN
    if kind is Literal or not inspect.isclass(kind):
        return ONE
    is_many = issubclass(kind, Iterable) and not (is_scalar(kind) or is_record(kind))
    return MANY if is_many else ONE


def _shape_of_arm(hint: Any, *, as_json: bool) -> Shape:
    kind = _kind(hint)
    if kind == MANY:
        item = item_of(hint)
        return Shape(MANY, item, _form(item))
    if kind == ONE and is_record(hint) and not as_json:
        return Shape(FIELDS, hint, TEXT)
    if kind == ONE:
        return Shape(ONE, hint, TEXT if is_scalar(hint) else JSON)
    return Shape(kind, hint)


def _form(item: Any) -> str:
    """Return how the items of a reply of several lines are written; "": not all in the same form."""
    forms = {
        ROW if is_row(arm) else TEXT if is_scalar(arm) or arm is type(None) else JSON
        for arm in arms(item)
        if arm not in (Any, object)
    }
    return forms.pop() if len(forms) == 1 else ""


def _described(shapes: Sequence[Shape]) -> str:
    """Return the shapes of the types of a union in words; what is one line comes first."""
    lines = [_line(shape) for shape in shapes if shape.kind in (ONE, NONE)]
    several = [f"{_line(shape)}, one a line, then END" for shape in shapes if shape.kind == MANY]
    several += [_fields(shape) for shape in shapes if shape.kind == FIELDS]
    return "; or ".join([*([" or ".join(lines)] if lines else []), *several])


def _line(shape: Shape) -> str:
    """Return what stands in one line of a reply."""
    if shape.kind == NONE:
        return "OK"
    if shape.form == JSON:
        return f"JSON of {name_of(shape.value)}"
    return _row(shape.value) if shape.form == ROW else name_of(shape.value)


def _row(hint: Any) -> str:
    """Return the words of a line that holds a list or a tuple."""
    if hasattr(hint, "_fields"):  # a NamedTuple
        return " ".join(map(name_of, typing.get_type_hints(hint).values()))
    arguments = get_args(hint)
    if get_origin(hint) is tuple and ... not in arguments:
        return " ".join(map(name_of, arguments))
    return f"{name_of(item_of(hint))} ..."


def _fields(shape: Shape) -> str:
    arguments = get_args(shape.value)
    if len(arguments) == 2:
        return f"{name_of(arguments[0])} {name_of(arguments[1])}, one a line, then END"
    whose = (
        ""
        if get_origin(shape.value) or shape.value in (dict, Mapping)
        else f" of {name_of(shape.value)}"
    )
    return f"name and value of each field{whose}, one a line, then END"


def _joined(hints: Iterable[Any]) -> Any:
    """Return the union of types, in their order."""
    once = list(dict.fromkeys(hints))
    if not once or Any in once:
        return Any
    return Union[tuple(once)]  # noqa: UP007 - of a tuple
