"""The log-in of a connection's client, and what it may do before.

A connection whose app has an ``authenticate`` function is locked until ``session.user`` is not None, whatever
has set that; then its session moves along with it, and no other state is needed.
"""

from __future__ import annotations

import logging
from typing import Protocol as Interface

from linepool.errors import ClientError
from linepool.protocols.base import Protocol, Request
from linepool.service import Service
from linepool.session import Session

log = logging.getLogger("linepool")

MOST_FAILURES = 10
"""How many failed log-ins in a row end a connection."""

_MOST_SHOWN = 64  # characters of a user's name, in the log


class Locked(Interface):
    """A conversation, as far as log-ins are concerned; see there."""

    service: Service
    session: Session
    protocol: Protocol
    request: Request
    closing: bool


def check_lock(conversation: Locked) -> None:
    """Have the protocol know whether its client has yet to log in."""
    protocol = conversation.protocol
    is_locked = conversation.session.user is None
    if is_locked != protocol.is_locked:
        protocol.lock(conversation.service.limits, is_locked=is_locked)


def refuse_if_locked(conversation: Locked, request: Request) -> None:
    """Raise the protocol's error if a request may not be run before a log-in."""
    command = request.command
    if conversation.session.user is None and (command is None or not command.is_public):
        raise conversation.protocol.locked_error(request)


def log_in(conversation: Locked, user: str, password: str) -> None:
    """Ask the app whether a password is right, and note whose the connection is then.

    Raises:
        ClientError: The password is wrong, or the client has failed too often.
    """
    session, authenticate = conversation.session, conversation.service.authenticate
    assert authenticate is not None
    refused = conversation.protocol.login_error()
    if session.failed_logins >= MOST_FAILURES:  # in a row of requests that have one reply
        raise refused
    try:
        answer = authenticate(user, "".join(password), conversation)  # a Secret is shown as ***
        if answer is None or answer is False:
            raise refused
    except ClientError:
        _note_failure(conversation, user)
        raise
    if answer is not True and not isinstance(answer, str):
        raise TypeError(
            f"authenticate must return True, False, None or the user's name, not {type(answer).__name__}"
        )
    session.user = "".join(user if answer is True else answer)
    session.failed_logins = 0


def _note_failure(conversation: Locked, user: str) -> None:
    session = conversation.session
    session.failed_logins += 1
    conversation.closing |= session.failed_logins >= MOST_FAILURES
    event = "log-in refused peer=%s listener=%s user=%r failures=%d"
    name = user[:_MOST_SHOWN].encode("ascii", "backslashreplace").decode()
    log.warning(event, session.peer, session.listener, name, session.failed_logins)
