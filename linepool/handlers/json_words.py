"""JSON in the requests of a protocol of words. Pure: no I/O, no clock.

All arguments of a request may come as one JSON value (``Request.values``), and a last parameter that is made
of others, such as a class or a list, takes the rest of the line as JSON.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, Union, get_args, get_origin

from attrs import evolve

from linepool.errors import SetupError
from linepool.handlers.converters import Convert
from linepool.handlers.from_json import json_converter
from linepool.handlers.signature import Signature, Word
from linepool.protocols.text import unquote
from linepool.values.json_text import loads
from linepool.values.scalars import scalar

_QUOTED = re.compile(rb"'(?:[^'\\]|\\.)*'")
_WITHOUT_TYPE = (Any, object, inspect.Parameter.empty)


def take_json(signature: Signature) -> None:
    """Have the parameters take JSON values too, and a last one that is made of others JSON text.

    Raises:
        SetupError: A parameter's type cannot come as JSON.
    """
    signature.words = [_with_values(word) for word in signature.words]
    signature.options = {name: _with_values(word) for name, word in signature.options.items()}
    if signature.many:
        signature.many = _with_values(signature.many)
    if signature.rest:
        signature.rest = _with_values(signature.rest)
    elif _takes_text(signature):
        signature.rest = _as_text(signature.words.pop())
        signature.count_required()


def _takes_text(signature: Signature) -> bool:
    """Whether the last parameter takes the rest of the line as JSON."""
    words = [] if signature.many or signature.options else signature.words
    return bool(words) and is_structured(words[-1].annotation)


def is_structured(hint: Any) -> bool:
    """Whether a type is made of others, so that a value of it is written as JSON."""
    if get_origin(hint) is Annotated:
        return is_structured(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return all(is_structured(arm) for arm in get_args(hint) if arm is not type(None))
    return hint not in _WITHOUT_TYPE and scalar(hint) is None


def _with_values(word: Word) -> Word:
    try:
        row = scalar(word.annotation)
        return evolve(word, from_value=row.value if row else json_converter(word.annotation)[0])
    except TypeError as error:
        raise SetupError(f"parameter {word.name}: {error}") from None


def _as_text(word: Word) -> Word:
    """Return a parameter that takes the rest of a line as JSON."""
    name = json_converter(word.annotation)[1].removesuffix("|null")
    assert word.from_value is not None
    convert = _of_text(word.from_value, name, is_secret=word.is_secret)
    return evolve(word, convert=convert, hint=f"{name}(JSON)", is_json=True)


def _of_text(convert: Convert, name: str, *, is_secret: bool) -> Callable[[bytes], Any]:
    """Return the converter of JSON text, which may be in single quotes: JSON never begins with one."""

    def of_text(text: bytes) -> Any:
        if _QUOTED.fullmatch(text):
            text = unquote(text)
        try:
            return convert(loads(text))
        except json.JSONDecodeError as error:
            what = f"; {error.msg.removesuffix(' delimiter')} at character {error.pos + 1}"
        except UnicodeDecodeError:
            what = " in UTF-8"
        except ValueError as error:
            what = str(error).removeprefix(name)  # of a structured type it quotes the value
        raise ValueError(f"JSON of {name}{what if not is_secret else ''}")

    return of_text
