"""What a proxy has said of a connection, as its worker publishes it for the master.

The kernel knows the proxy's address only. Used by workers, and by the master when it saves the connections
of a worker that it has killed.
"""

from __future__ import annotations

import ipaddress

from linepool.session import Session


def announcement(session: Session) -> bytes:
    """Return what is known of the client of a connection that came through a proxy; see ``announced``."""
    known = Session("", session.peer)
    known.pid, known.uid, known.gid = session.pid, session.uid, session.gid
    known.proxy = session.proxy
    return known.dump()


def announced(data: bytes) -> Session:
    """Return a session with what an ``announcement`` says: ``peer``, ``proxy``, and pid, uid and gid.

    Raises:
        ValueError: It is something else.
    """
    try:
        session = Session.load(data)
        if session.peer != "unix":
            host, _, port = session.peer.rpartition(":")
            ipaddress.ip_address(host.strip("[]"))
            int(port)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not what a proxy has said: {error}") from None
    return session
