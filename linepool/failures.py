"""Requests that have failed: the replies to them, and what the log says."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from types import TracebackType
from typing import Protocol as Interface

from linepool import forked
from linepool.errors import (
    DeadlineError,
    LeaveNow,
    NotRunError,
    ReplyError,
    RequestTimeout,
    ServerError,
)
from linepool.faults import reference
from linepool.handlers.compile import CALL_FILE
from linepool.protocols.base import Protocol, Request, printable
from linepool.resources import Resources
from linepool.resources.opened import Opened
from linepool.service import Service
from linepool.session import Session

log = logging.getLogger("linepool")

timed_out: Callable[[RequestTimeout, str, Request], None] | None = None
"""Is called with each RequestTimeout that has ended a request, and its client's address; None: nothing is."""

_OURS = (os.path.dirname(__file__) + os.sep, CALL_FILE)

OK, CLIENT_ERROR, SERVER_ERROR, TIMEOUT = "ok", "client_error", "server_error", "timeout"
DISCONNECTED, REFUSED, INCOMPLETE = "disconnected", "refused", "incomplete"
KILLED, DIED = "killed", "died"
"""How a request has ended: with a reply of one of these kinds; with its connection; the client was refused as
one of another protocol; it has not arrived completely; with its worker, which the master has killed, or which
has died."""


class Failing(Interface):
    """A conversation, as far as its failures are concerned; see there."""

    service: Service
    session: Session
    protocol: Protocol
    resources: Resources
    held: Opened | None
    armed: bool
    errors: int
    timeouts: int
    result: str


def result_of(error: ReplyError) -> str:
    """Return how a request has ended whose reply is this error."""
    return SERVER_ERROR if isinstance(error, ServerError) else CLIENT_ERROR


def error_reply(conversation: Failing, error: BaseException, request: Request) -> bytes:
    """Return the reply to a request whose handler has raised something; raises LeaveNow again."""
    if isinstance(error, LeaveNow):
        raise error
    if isinstance(error, RequestTimeout):
        failure = _timed_out(conversation, error, request)
    elif isinstance(error, ReplyError):
        count_error(conversation, error)
        failure = error
    else:
        failure = failed(conversation, error, request)
    conversation.result = TIMEOUT if isinstance(error, RequestTimeout) else result_of(failure)
    return encoded(conversation, failure, request)


def encoded(conversation: Failing, error: ReplyError, request: Request | None) -> bytes:
    """Return the reply of an error; one that the app has raised may have no text, or a code of any kind."""
    try:
        return conversation.protocol.encode_error(error, request)
    except LeaveNow:
        raise
    except BaseException as failure:  # noqa: BLE001 - logged
        return conversation.protocol.encode_error(failed(conversation, failure, request), request)


def count_error(conversation: Failing, error: ReplyError) -> None:
    """Count the reply to a request if it is SERVER_ERROR; if it was run, resources are checked then."""
    if isinstance(error, ServerError):
        conversation.errors += 1
        if not isinstance(error, NotRunError):
            conversation.resources.suspect(conversation.held)


def failed(conversation: Failing, error: BaseException, request: Request | None) -> ServerError:
    """Log an exception under an id, and return the error that names the id; no request: in a hook.

    The id is the request's. Unless that was made before, it begins as all ids of the same fault do;
    otherwise this beginning is the ``fault``.
    """
    conversation.errors += 1
    made = reference(error)
    number = request.identified(lambda: made) if request else made
    fault = "" if number == made else made[:4]
    command = _named(request) if request else "on_connect"
    facts = [number, command, conversation.session.peer, *([fault] if fault else [])]
    event = "handler failed id=%s command=%s peer=%s" + " fault=%s" * bool(fault)
    log.error(event, *facts, exc_info=_shown(error))
    report(conversation, error, request)
    return ServerError(f"internal error, id {number}" + f", fault {fault}" * bool(fault))


def report(conversation: Failing, error: BaseException, request: Request | None) -> None:
    """Call the app's ``on_error`` hooks with an exception that is not a reply; have resources checked.

    The hooks run in the time of the request; if they exceed it, RequestTimeout is raised in them. What one of
    them raises is logged.
    """
    conversation.resources.suspect(conversation.held)
    hooks = conversation.service.on_error
    if not hooks:
        return
    was_armed = conversation.armed
    for hook in hooks:
        try:
            with forked.contained():
                conversation.armed = request is not None
                try:
                    hook(error, request, conversation)
                finally:
                    conversation.armed = False
        except LeaveNow:
            raise
        except BaseException as failure:
            log.exception("on_error failed peer=%s", conversation.session.peer)
            if isinstance(failure, RequestTimeout) and was_armed:
                raise  # it is raised once; the request is a part of another one that has no time left
    conversation.armed = was_armed


def _timed_out(conversation: Failing, error: RequestTimeout, request: Request) -> ReplyError:
    """Log where the handler was at its deadline, and return the error."""
    conversation.errors += 1
    conversation.timeouts += 1
    service = conversation.service
    words = service.logged(request.line).words if service.log_lines else _named(request)
    event = "request overdue command=%s peer=%s why=%r id=%s"
    peer = conversation.session.peer
    log.warning(event, words, peer, str(error), request.id, exc_info=_shown(error))
    if timed_out is not None:
        timed_out(error, peer, request)
    report(conversation, error, request)
    return DeadlineError(str(error))


def _shown(
    error: BaseException,
) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return an exception for the log, with its traceback from the first frame of the app's code on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return type(error), error, trace or error.__traceback__


def text_of(error: BaseException) -> str:
    """Return an exception's text, or only its type if it cannot be had."""
    try:
        return str(error)
    except LeaveNow:
        raise
    except BaseException:  # noqa: BLE001 - its __str__ is the app's
        return type(error).__name__


def _named(request: Request) -> str:
    """Return the command's name, for the log; other words of a client are not for it."""
    is_known = request.command is not None and request.command.names
    return printable(request.verb) if is_known else "(unknown)"
