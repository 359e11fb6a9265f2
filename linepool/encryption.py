"""What an app sees of TLS, and when TLS may begin. Pure: no I/O, no clock."""

from __future__ import annotations

from typing import Protocol as Interface

from attrs import frozen

from linepool.errors import ClientError


@frozen
class Tls:
    """What is known of a connection that is encrypted: ``session.tls``.

    Attributes:
        version: ``TLSv1.3`` or ``TLSv1.2``.
        cipher: As OpenSSL names it.
        server_name: The name that the client has asked for (SNI), in lower case; "": none.
        alpn: The application protocol that was agreed on; "": none.
        subject: Of the client's certificate, which is verified: ``CN=alice, O=Example``; "": it has
            none, as in the attributes below.
        common_name: The common name in it.
        names: The other names of the client: ``DNS:host``, ``email:alice@example.org``,
            ``URI:spiffe://example.org/shop``.
        fingerprint: The SHA-256 of that certificate, in hexadecimal.
    """

    version: str
    cipher: str = ""
    server_name: str = ""
    alpn: str = ""
    subject: str = ""
    common_name: str = ""
    names: tuple[str, ...] = ()
    fingerprint: str = ""


class _Session(Interface):
    """What is to be known of a session before TLS begins."""

    tls: Tls | None
    starttls: bool


class _Protocol(Interface):
    """What is to be known of a protocol before TLS begins."""

    @property
    def at_boundary(self) -> bool:
        """Whether no byte of a further request has arrived."""


def may_start_tls(session: _Session, protocol: _Protocol) -> bool:
    """Return True if a connection may begin TLS after the reply to the present request.

    Raises:
        ClientError: It must not; the connection is to end.
    """
    if session.tls is not None:
        raise ClientError("the connection is encrypted already")
    if not session.starttls:
        raise ClientError("TLS is not available")
    if not protocol.at_boundary:
        raise followed()
    return True


def followed() -> ClientError:
    """Return the error for a client that has sent more behind the command that begins TLS.

    An attacker may have put it there, for the client to have sent it encrypted (CVE-2011-0411).
    """
    return ClientError("nothing may follow this command before TLS has begun")
