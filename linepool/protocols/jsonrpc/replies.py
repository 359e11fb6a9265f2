"""JSON-RPC's error objects, and JSON for values that it has no type for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, time
from enum import Enum
from typing import Any

from linepool.errors import ReplyError, ServerError, UnknownCommand, UsageError
from linepool.protocols.text import as_own, record_fields

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
