"""What a connection takes along to another process, and how long it stays in one. Runs in workers."""

from __future__ import annotations

import logging

from linepool.conversation import Conversation
from linepool.errors import LeaveNow
from linepool.failures import text_of
from linepool.ipc import channel

log = logging.getLogger("linepool")

_LIGHT_BYTES = 32768  # of a protocol's state
_STAY_PER_BYTE = 1e-5  # seconds: 10 s for a MiB, whose move takes 3 ms


def seconds_to_stay(state_bytes: int) -> float:
    """Return for how long a connection that was handed off stays where it is, unless it must move again.

    Because that grows with its state, all moves together cost in proportion to the bytes that come from
    the client, and not to their square.
    """
    return state_bytes * _STAY_PER_BYTE if state_bytes > _LIGHT_BYTES else 0.0


def portable_state(conversation: Conversation, max_bytes: int) -> tuple[bytes, bool] | None:
    """Return session and protocol as bytes, and whether no part of a request is among them.

    If they cannot be passed on, or are more than ``max_bytes``, that is logged, the conversation is
    pinned, and None is returned.
    """
    session = conversation.session
    try:
        data = channel.join_state(session.dump(), conversation.dump())
        at_boundary = conversation.protocol.at_boundary
        if len(data) > max_bytes:
            raise ValueError(f"its state is {len(data)} bytes long")
    except LeaveNow:
        raise
    except BaseException as error:  # noqa: BLE001 - the values and the protocol are the user's
        log.warning("connection cannot be handed off peer=%s why=%r", session.peer, text_of(error))
        conversation.pinned = True
        return None
    return data, at_boundary
