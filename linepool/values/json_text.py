"""JSON text of values, and values of JSON text. Pure: no I/O, no clock.

JSON is UTF-8 on one line, compact. The text is read and written by msgspec if that is installed, and by
the standard library otherwise and wherever msgspec refuses, so both give the same values. NaN and
Infinity are not JSON, and a number that would become Infinity is refused. Of two equal keys the second
counts. Text that holds a lone surrogate is written in ASCII, with escapes.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

from linepool.values.plain import NESTED, plain


def loads(text: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is not JSON; the text says why, and where.
    """
    decode, _ = _library()
    if decode is not None:
        try:
            return decode(text)
        except Exception:  # noqa: BLE001, S110 - what is wrong, and whether, the standard library says
            pass
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from None
    except RecursionError:
        raise ValueError(NESTED) from None
    except ValueError as error:
        if str(error).startswith(_DIGITS):
            raise ValueError(_TOO_LARGE) from None
        raise


def dumps(value: Any) -> bytes:
    """Return the JSON text of a value: of those of JSON, and of all that ``plain`` takes.

    Raises:
        TypeError: JSON has no form for the value.
        ValueError: It holds NaN, Infinity or itself.
    """
    value = plain(value)
    _, encode = _library()
    try:
        return _ENCODER.encode(value).encode() if encode is None else encode(value)
    except UnicodeEncodeError:  # a lone surrogate
        return _ESCAPING.encode(value).encode()


def load_library() -> None:
    """Import msgspec now, if it is installed: before workers are forked, which then share it."""
    _library()


@functools.cache
def _library() -> tuple[Callable[[Any], Any] | None, Callable[[Any], bytes] | None]:
    try:
        library = importlib.import_module("msgspec.json")
    except ImportError:
        return None, None
    return library.Decoder().decode, library.Encoder().encode


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(_TOO_LARGE)
    return value


_TOO_LARGE = "a number is too large"
_DIGITS = "Exceeds the limit ("  # of digits, Python says
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_ESCAPING = json.JSONEncoder(separators=(",", ":"))
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
