"""The end of a batch, the requests that one turn of a connection answers together.

Their replies stay with the connection until what they share, the resources of the scope ``batch``, has
been ended. If that fails, none of these replies is true: an error goes out in their place, and the
connection ends, for a client could not tell which of its requests the error is about.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from typing import Protocol as Interface

from linepool.errors import LeaveNow, ReplyError, ServerError
from linepool.failures import count_error, encoded, report
from linepool.faults import reference
from linepool.protocols.base import Bad, Protocol, Request
from linepool.resources import Resources
from linepool.resources.opened import Opened
from linepool.service import Service
from linepool.session import Connection, Session

log = logging.getLogger("linepool")


class Owner(Interface):
    """The owner of a conversation's bytes."""

    def open_handle(self) -> Connection:
        """Return the live connection for handlers."""

    def retract(self, reply: bytes) -> None:
        """Send a reply in place of all those that have not been sent."""


class Batched(Interface):
    """A conversation, as far as its batches are concerned; see there."""

    service: Service
    protocol: Protocol
    session: Session
    resources: Resources
    held: Opened | None
    armed: bool
    closing: bool
    errors: int
    timeouts: int
    result: str
    refusal: str
    retracted: bytes

    def answer(self, request: Request) -> bytes | Generator[bytes, None, None]:
        """Return the reply to one request, or its parts."""

    def refuse(self, bad: Bad) -> bytes:
        """Return the reply to bytes that are not a request."""

    def take_pushed(self) -> bytes:
        """Return what was pushed since the last call."""

    def retract(self, reply: bytes) -> None:
        """Send a reply in place of all those that have not been sent."""

    def disarmed(self) -> AbstractContextManager[None]:
        """Hold RequestTimeout back."""


def end_batch(conversation: Batched) -> bool:
    """End the resources of the batch, before its replies are sent; return whether these stand."""
    try:
        conversation.resources.end_batch()
    except LeaveNow:
        raise
    except ReplyError as error:
        failure: ReplyError = error
        count_error(conversation, error)
    except BaseException as error:
        number = reference(error)
        log.exception("batch failed id=%s peer=%s", number, conversation.session.peer)
        report(conversation, error, None)
        failure = ServerError(f"internal error, id {number}")
        conversation.errors += 1
    else:
        return True
    conversation.closing = True
    conversation.retract(encoded(conversation, failure, None))
    return False


def end_early(conversation: Batched) -> None:
    """End the batch in the middle of a handler, because others are about to learn of what was done.

    Raises:
        ServerError: It could not be ended; the connection is to end.
    """
    if conversation.resources.is_open:
        with conversation.disarmed():
            stands = end_batch(conversation)
        if not stands:
            raise ServerError("an earlier request has failed")


def answers(conversation: Batched) -> Iterator[bytes]:
    """Yield the replies to all that a conversation without an owner was fed, in parts.

    For where time is not limited. What handlers push comes ahead of their replies.
    """
    held: list[bytes] = []  # until the batch has ended
    while (
        not conversation.closing and (request := conversation.protocol.next_request()) is not None
    ):
        reply = _reply(conversation, request)
        if isinstance(reply, bytes) and conversation.resources.is_open:
            held.append(conversation.take_pushed() + reply)
            continue
        yield from _settled(conversation, held)
        for part in [reply] if isinstance(reply, bytes) else reply:
            yield conversation.take_pushed() + part
    yield from _settled(conversation, held)


def _reply(conversation: Batched, request: Request | Bad) -> bytes | Generator[bytes, None, None]:
    if isinstance(request, Bad):
        return conversation.refuse(request)
    return conversation.answer(request)


def _settled(conversation: Batched, held: list[bytes]) -> Iterator[bytes]:
    """End the batch, and yield its replies or the one in their place, if there are any."""
    if conversation.resources.is_open:
        end_batch(conversation)
    replies = conversation.retracted or b"".join(held)
    held.clear()
    conversation.retracted = b""
    if replies:
        yield replies
