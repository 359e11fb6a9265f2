"""JSON-RPC's error objects, and JSON for values that it has no type for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time
from enum import Enum
from typing import Any

from linepool.errors import ReplyError, ServerError, UnknownCommand, UsageError
from linepool.protocols.text import as_own, record_fields, scalar_text

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000
# Known by their module, so that linepool imports none of them before the user does. Not the table of
# text.py: JSON-RPC has no form for a Fraction, and an IP network is a list of its addresses.
_MODULES_SENT_AS_STR = {"decimal", "uuid", "pathlib", "ipaddress"}


def error_object(error: ReplyError) -> dict[str, Any]:
    """Return the error object of a response."""
    text = str(error)
    if isinstance(error, UnknownCommand):
        code = METHOD_NOT_FOUND
        text = "Method not found"
    elif isinstance(error, UsageError):
        code = INVALID_PARAMS
        text = f"Invalid params: {text}"
    elif isinstance(error, ServerError):
        code = INTERNAL_ERROR
    else:
        code = SERVER_ERROR
    if isinstance(error.code, int):
        code = error.code
    found: dict[str, Any] = {"code": code, "message": text}
    if error.data is not None:
        found["data"] = error.data
    return found


def encoded(value: Any) -> bytes:
    """Return a value as JSON.

    Raises:
        TypeError, ValueError: JSON has no form for it.
    """
    try:
        return _dumps(value)
    except (
        TypeError
    ):  # perhaps because of the key of a dict, which json.dumps() does not let us convert
        return _dumps(_with_text_keys(value))


def _dumps(value: Any) -> bytes:
    return json.dumps(value, default=to_json, allow_nan=False, separators=(",", ":")).encode()


def _with_text_keys(value: Any) -> Any:
    """Return a value with the keys of its dicts as text."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {_key(key): _with_text_keys(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_keys(item) for item in value]
    if isinstance(value, Iterator):  # it was read when the value was encoded without this
        raise TypeError("cannot send an iterator beside a dict whose keys are not text")
    return _with_text_keys(to_json(value))


def _key(key: object) -> Any:
    if key is None or type(key) in (str, int, float, bool):
        return key
    if (text := scalar_text(key)) is None:
        raise TypeError(f"cannot send a {type(key).__name__} as a key in a JSON-RPC reply")
    return text.decode()


def to_json(value: Any) -> Any:
    """Return a value that JSON can hold for one that it cannot; ``json.dumps`` calls it.

    Raises:
        TypeError: JSON has no form for such a value.
    """
    if (fields := record_fields(value)) is not None:
        return dict(fields)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    if (own := as_own(value)) is not value:
        return own
    if isinstance(value, Iterable):
        return list(value)
    if type(value).__module__.partition(".")[0] in _MODULES_SENT_AS_STR:
        return str(value)
    raise TypeError(f"cannot send a {type(value).__name__} in a JSON-RPC reply")
