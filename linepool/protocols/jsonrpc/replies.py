"""JSON-RPC's error objects."""

from __future__ import annotations

from typing import Any

from linepool.errors import DeadlineError, ReplyError, ServerError, UnknownCommand, UsageError

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000
AUTHENTICATION_REQUIRED = -32001
AUTHENTICATION_FAILED = -32002


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
    if isinstance(error.code, int) and not isinstance(error.code, bool):
        code = error.code
    found: dict[str, Any] = {"code": code, "message": text}
    if error.data is not None:
        found["data"] = error.data
    elif isinstance(error, DeadlineError):
        found["data"] = {"why": error.problem}
    return found
