"""SUBSCRIBE and its kin as the protocol has them; CLIENT LIST then knows who has subscribed."""

from __future__ import annotations

from application import app
from client_notes import ClientNotes

from linepool import Connection, Reply, Resp, Verb
from linepool.protocols.resp import ClientId
from linepool.protocols.resp import pubsub as resp_pubsub


def _note(connection: Connection, verb: Verb, client_id: ClientId, notes: ClientNotes) -> None:
    sub, psub = (len(connection.subscriptions(pattern=one)) for one in (False, True))
    notes.change(int(client_id), sub=sub, psub=psub, cmd=verb.lower())


@app.handler("SUBSCRIBE", "PSUBSCRIBE")
def subscribe(
    channel: bytes,
    *channels: bytes,
    connection: Connection,
    resp: Resp,
    verb: Verb,
    client_id: ClientId,
    notes: ClientNotes,
) -> Reply:
    """Subscribe to channels, or to patterns of names."""
    try:
        return resp_pubsub.subscribe(
            channel, *channels, connection=connection, resp=resp, verb=verb
        )
    finally:
        _note(connection, verb, client_id, notes)


@app.handler("UNSUBSCRIBE", "PUNSUBSCRIBE")
def unsubscribe(
    *channels: bytes,
    connection: Connection,
    resp: Resp,
    verb: Verb,
    client_id: ClientId,
    notes: ClientNotes,
) -> Reply:
    """Cancel subscriptions; all of them if none is named."""
    reply = resp_pubsub.unsubscribe(*channels, connection=connection, resp=resp, verb=verb)
    _note(connection, verb, client_id, notes)
    return reply
