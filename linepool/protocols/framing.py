r"""Framed requests of the line protocol: a line that begins with ``@``, and replies that say what they are.

    request = "@" [attribute *("," attribute)] " " line        attribute = letter ["=" value]
    reply   = [ "@" id " " ] ( value | "*" EOL *value ( "." EOL | error ) )
    value   = "= " JSON EOL  |  "$ " size EOL bytes EOL  |  error
    error   = "- " JSON EOL
    push    = "> " JSON EOL

The attributes concern this request alone, so a connection has no state of it. An attribute in a small
letter that is not known is ignored; one in a capital is an error: a client needs it to be understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import define

from linepool.errors import ClientError, ReplyError, ServerError, UsageError
from linepool.protocols.base import Request, printable
from linepool.protocols.text import one_line, record_fields, scalar_text
from linepool.values.json_text import dumps, loads

MOST_BYTES = 127
"""Of the attributes: a line of that many bytes is on the board, from where a killed worker's is answered."""

AT = b"@"
_ATTRIBUTE = re.compile(rb"([A-Za-z])(?:=([^\s,]*))?")
_ID = re.compile(rb"[0-9A-Za-z._-]{1,32}")
_GIVEN_ID = re.compile(rb"@(?:[^\s,]*,)*r=([0-9A-Za-z._-]{1,32})(?=[\s,]|\Z)")
_MILLISECONDS = re.compile(rb"[0-9]{1,9}")
_ONE = (str, int, float, type(None), dict)
_BYTES = (bytes, bytearray, memoryview)


@define
class Framed(Request):
    """A request whose reply is framed.

    Attributes:
        head: What precedes the reply: its id, or nothing; empty once the reply has begun.
        given_id: The request's id for logs and errors, as its client has given it; "": it has not.
        trace: The client's ``traceparent`` (W3C Trace Context); b"": it has given none.
    """

    head: bytes = b""
    most_ns: int = 0  # type: ignore[misc]  # of others it is always 0
    given_id: str = ""
    trace: bytes = b""

    def __attrs_post_init__(self) -> None:
        if self.given_id:
            self._id = self.given_id


@define
class Head:
    """The word with which a framed request begins, read.

    Attributes:
        head: What precedes the reply.
        problem: What is wrong with the word; "": nothing.
        has_values: The arguments are one JSON value.
        most_ns: How long the client waits for the reply, in ns; 0: it has not said.
        given_id: As of the request.
        trace: Likewise.
    """

    head: bytes = b""
    problem: str = ""
    has_values: bool = False
    most_ns: int = 0
    given_id: str = ""
    trace: bytes = b""

    def of_request(self) -> tuple[bytes, int, str, bytes]:
        """Return the last fields of the request."""
        return self.head, self.most_ns, self.given_id, self.trace

    def take(self, name: bytes, value: bytes | None) -> str:
        """Take an attribute, whose value may be missing; return what is wrong with it, or ""."""
        if name in (b"i", b"r"):
            if value is None or not _ID.fullmatch(value):
                return f"{name.decode()} must be 1 to 32 letters, digits, '.', '_' or '-'"
            if name == b"i":
                self.head = b"@%b " % value
            else:
                self.given_id = value.decode()
        elif name == b"p":
            self.trace = value or b""  # whether it is one is for telemetry to find out
        elif name == b"t":
            if value is None or not _MILLISECONDS.fullmatch(value):
                return "t must be milliseconds, in up to 9 digits"
            self.most_ns = int(value) * 1_000_000 or 1
        elif name == b"j":
            if value is not None:
                return "j takes no value"
            self.has_values = True
        elif name.isupper():
            return f"attribute {name.decode()} is unknown"
        return ""


def read_head(word: bytes) -> Head:
    """Read the word with which a framed request begins."""
    found = Head()
    if len(word) > MOST_BYTES:
        found.problem = f"the attributes after @ may hold {MOST_BYTES - 1} bytes at most"
        return found
    for one in word[1:].split(b",") if len(word) > 1 else ():
        if match := _ATTRIBUTE.fullmatch(one):
            problem = found.take(*match.groups())
        else:
            problem = f"'{printable(one)}' after @ is not an attribute such as i=7"
        found.problem = found.problem or problem
    return found


def read_values(text: bytes) -> list[Any] | dict[str, Any]:
    """Return the arguments that follow the command as one JSON value.

    Raises:
        ValueError: They are not; the text says why.
    """
    try:
        values = loads(text)
    except json.JSONDecodeError as error:
        what = f"{error.msg.removesuffix(' delimiter')} at character {error.pos + 1}"
    except ValueError as error:
        what = str(error)
    else:
        if isinstance(values, list | dict):
            return values
        what = "they are another value"
    raise ValueError(f"the arguments must be a JSON list or object; {what}")


def size_in(request: Request, number: int) -> bytes | None:
    """Return the size of the data block that follows, which is an argument; None: it is missing."""
    values = request.values
    if values is None:
        return request.words[number] if number < len(request.words) else None
    if isinstance(values, dict):
        size = values.get(request.command.parameters[number].name)
    else:
        size = values[number] if number < len(values) else None
    return None if size is None else str(size).encode()


def given_id(line: bytes) -> str:
    """Return the id that a client gives a request in its line, which may be cut; "": none."""
    match = _GIVEN_ID.match(line)
    return match[1].decode() if match else ""


def head_of(request: Request) -> bytes | None:
    """Return what precedes the reply to a request; None: the reply is not framed.

    The request may also be one that was made of a line on the board, which may be cut.
    """
    if isinstance(request, Framed):
        return request.head
    if request.line[:1] == AT:
        return read_head(request.line.split(None, 1)[0]).head
    return None


def reply(value: Any, request: Framed) -> bytes:
    """Return the reply for what a handler returned.

    Raises:
        TypeError, ValueError: The value cannot be sent.
    """
    eol = request.eol
    if not isinstance(value, _ONE) and is_several(value):
        items = b"".join(_value(item, eol) for item in value)
        return b"%b*%b%b.%b" % (request.head, eol, items, eol)
    return request.head + _value(value, eol)


def stream(items: Iterator[Any], request: Framed) -> Iterator[bytes]:
    """Yield the parts of the reply while a generator handler yields its items."""
    eol = request.eol
    opening = b"%b*%b" % (request.head, eol)
    for item in items:
        part = opening + _value(item, eol)
        opening = request.head = b""
        yield part
    yield b"%b.%b" % (opening, eol)


def push(value: object, eol: bytes) -> bytes:
    """Return what is sent ahead of a reply."""
    return b"> %b%b" % (dumps(value), eol)


def error_reply(error: ReplyError, request: Request | None, head: bytes, eol: bytes) -> bytes:
    """Return the reply to a request that has failed."""
    facts: dict[str, Any] = {"error": error_word(error)}
    if error.code is not None:
        facts["code"] = error.code
    number = getattr(request, "_id", "")  # if it was made
    if not number and request is not None:
        number = given_id(request.line)  # of one that was made of a line on the board
    if number:
        facts["id"] = number
    if problem := getattr(error, "problem", ""):
        facts["why"] = problem
    if isinstance(error, UsageError):
        facts["text"] = one_line(Exception.__str__(error).rstrip(".")).decode()
        if error.usage:
            facts["usage"] = error.usage
    else:
        facts["text"] = one_line(str(error)).decode()
    if error.data is not None:
        facts["data"] = error.data
    try:
        text = dumps(facts)
    except (TypeError, ValueError):  # JSON has no form for what the app has added
        text = dumps({"error": facts["error"], "text": facts["text"]})
    return b"%b- %b%b" % (head, text, eol)


def error_word(error: ReplyError) -> str:
    """Return the word with which memcached begins an error of this kind."""
    if isinstance(error, ClientError):
        return "CLIENT_ERROR"
    return "SERVER_ERROR" if isinstance(error, ServerError) else "ERROR"


def is_several(value: object) -> bool:
    """Whether a value is sent item by item."""
    return (
        isinstance(value, Iterable)
        and not isinstance(value, Mapping)
        and scalar_text(value) is None
        and record_fields(value) is None
    )


def _value(value: object, eol: bytes) -> bytes:
    if isinstance(value, _BYTES):
        return b"$ %d%b%b%b" % (len(data := bytes(value)), eol, data, eol)
    return b"= %b%b" % (dumps(value), eol)
