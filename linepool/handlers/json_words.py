"""JSON in the requests of a protocol of words. Pure: no I/O, no clock.

All arguments of a request may come as one JSON value (``Request.values``), and a last parameter that is made
of others, such as a class or a list, takes the rest of the line as JSON.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, Union, get_args, get_origin

from attrs import evolve

from linepool.errors import SetupError
from linepool.handlers.converters import Convert
from linepool.handlers.from_json import json_converter, usage_name
from linepool.handlers.from_words import of_json
from linepool.handlers.signature import Signature, Word
from linepool.handlers.structured import Structures
from linepool.protocols.text import unquote
from linepool.values.scalars import scalar

_QUOTED = re.compile(rb"'(?:[^'\\]|\\.)*'")
_WITHOUT_TYPE = (Any, object, inspect.Parameter.empty)


def take_json(signature: Signature, structures: Structures) -> None:
    """Have the parameters take JSON values too, and a last one that is made of others JSON text.

    Args:
        signature: It is changed.
        structures: Makes the values.

    Raises:
        SetupError: A parameter's type cannot come as JSON.
    """

    def with_values(word: Word) -> Word:
        return _with_values(word, structures)

    signature.words = [*map(with_values, signature.words)]
    signature.options = {name: with_values(word) for name, word in signature.options.items()}
    if signature.many:
        signature.many = with_values(signature.many)
    if signature.rest:
        signature.rest = with_values(signature.rest)
    elif _takes_text(signature, structures):
        signature.rest = _as_text(signature.words.pop())
        signature.count_required()


def _takes_text(signature: Signature, structures: Structures) -> bool:
    """Whether the last parameter takes the rest of the line as JSON."""
    words = [] if signature.many or signature.options else signature.words
    return bool(words) and _is_structured(words[-1].annotation, structures)


def _is_structured(hint: Any, structures: Structures) -> bool:
    """Whether a type is made of others, so that a value of it is written as JSON."""
    if get_origin(hint) is Annotated:
        return _is_structured(get_args(hint)[0], structures)
    if get_origin(hint) in (Union, types.UnionType):
        arms = [arm for arm in get_args(hint) if arm is not type(None)]
        return all(_is_structured(arm, structures) for arm in arms)
    if hasattr(hint, "__supertype__"):
        return _is_structured(hint.__supertype__, structures)
    if hint in _WITHOUT_TYPE or structures.has_own(hint):
        return False
    return scalar(hint) is None


def _with_values(word: Word, structures: Structures) -> Word:
    try:
        return evolve(word, from_value=json_converter(word.annotation, structures)[0])
    except TypeError as error:
        raise SetupError(f"parameter {word.name}: {error}") from None


def _as_text(word: Word) -> Word:
    """Return a parameter that takes the rest of a line as JSON."""
    name = usage_name(word.annotation).removesuffix("|null")
    assert word.from_value is not None
    convert = _of_text(word.from_value, name)
    return evolve(word, convert=convert, hint=f"{name}(JSON)", is_json=True)


def _of_text(convert: Convert, name: str) -> Callable[[bytes], Any]:
    """Return the converter of JSON text, which may be in single quotes: JSON never begins with one."""
    of_text = of_json(convert, name)
    return lambda text: of_text(unquote(text) if _QUOTED.fullmatch(text) else text)
