"""The format of the access log: its fields, and how a setting names them. Pure."""

from __future__ import annotations

import difflib
import string

FIELDS = {
    "time": "when the reply was complete: UTC, ISO 8601, to the millisecond",
    "id": "the request's id, as in the error reply and in the log",
    "client": "the client's address",
    "user": "`session.user` of the app",
    "listener": "the address that the client connected to",
    "app": "the name of the app that is served there",
    "command": "the command's first name; `(unknown)`: the app has no such command; `-`: it was not read",
    "request": "with `log_requests = line` the request's line, else as `command`",
    "result": "`ok`, `client_error`, `server_error`, `timeout`, `disconnected`, `refused`, `incomplete`,"
    " `killed` or `died`",
    "duration": "seconds from the beginning of the request in the worker until its reply was complete",
    "waited": "seconds from the arrival of its bytes until that beginning",
    "bytes_in": "bytes of the request",
    "bytes_out": "bytes of the reply",
    "pid": "of the worker",
}
"""The fields, and what each says."""

DEFAULT = (
    "{time} {client} {command} {result} duration={duration} waited={waited} in={bytes_in} out={bytes_out}"
    " id={id}"
)
JSON = "json"
OFF = "off"


def access_format(value: object) -> str:
    """Parse the format of the access log."""
    text = str(value)
    if text.lower() == JSON:
        return JSON
    about = "json, or one line with fields such as {command} and {duration}"
    if not text.isprintable():
        raise ValueError(about)
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError:
        raise ValueError(f"{about}; a brace of the text itself is doubled") from None
    names = [name for _, name, _, _ in parts if name is not None]
    if not names:
        raise ValueError(about)
    for _, name, spec, conversion in parts:
        if name is not None and name not in FIELDS:
            near = difflib.get_close_matches(name.lower(), FIELDS, n=1)
            hint = f"did you mean {{{near[0]}}}?" if near else f"the fields are {', '.join(FIELDS)}"
            raise ValueError(f"{about}; {{{name}}} is unknown: {hint}")
        if spec or conversion:
            raise ValueError(f"{about}; {{{name}}} takes nothing after its name")
    return text
