"""Asking an app without a server: what a client would read that sends some bytes and ends its stream."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import AnyStr

from attrs import evolve

from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.faults import traceback_of_app
from linepool.resources import Resources
from linepool.service import Service
from linepool.session import Session

_CODEC = ("utf-8", "surrogateescape")  # so that a str can hold the bytes of any reply


def ask(
    service: Service,
    worker: AbstractContextManager[Resources],
    data: AnyStr,
    *,
    user: str | None = None,
    raise_errors: bool = False,
) -> AnyStr:
    """Return the reply to a client's data, of the same type; see ``App.ask``.

    Raises:
        TypeError: The data is neither str nor bytes.
    """
    if isinstance(data, str):
        encoded = data.encode(*_CODEC)
        return _asked(service, worker, encoded, user, raise_errors).decode(*_CODEC)
    if isinstance(data, bytes):
        return _asked(service, worker, data, user, raise_errors)
    raise TypeError(
        f"App.ask() takes str or bytes, not {type(data).__name__}: app.ask('...') or app.ask(b'...')"
    )


def _asked(
    service: Service,
    worker: AbstractContextManager[Resources],
    data: bytes,
    user: str | None,
    raise_errors: bool,
) -> bytes:
    """Return the reply; if the data lacks the end of its last line, that of the reply is left out too."""
    ending = service.protocol.line_end
    if not data or not ending or data.endswith(b"\n"):
        return replies_to(service, worker, data, user=user, raise_errors=raise_errors)
    reply = replies_to(service, worker, data + ending, user=user, raise_errors=raise_errors)
    return reply.removesuffix(b"\n").removesuffix(b"\r")


def replies_to(
    service: Service,
    worker: AbstractContextManager[Resources],
    data: bytes,
    *,
    user: str | None = None,
    raise_errors: bool = False,
) -> bytes:
    """Return the bytes that a client would read that sends exactly these, and ends its stream."""
    failures: list[BaseException] = []

    def note(error: BaseException, _request: object, conversation: Conversation) -> None:
        failures.append(error)
        conversation.closing = True  # the requests behind it are not run

    if raise_errors:
        service = evolve(service, on_error=(note, *service.on_error))
    with worker as resources:
        session = Session("ask", "ask", "ask")
        session.user = user
        conversation = Conversation(service, session, resources)
        greeting = conversation.greet()
        parts = [conversation.take_pushed(), greeting]
        conversation.feed(data)
        parts.extend(answers(conversation))
        parts.append(conversation.eof_reply())
        conversation.run_disconnect_hooks()
        parts.append(conversation.take_pushed())
    # Not in the worker: its resources are ended as after any other request.
    for failure in failures[:1]:
        raise failure.with_traceback(traceback_of_app(failure))
    return b"".join(parts)
