"""TLS of one connection: its handshake, and the transport that follows.

Runs in workers. OpenSSL works on memory only: the bytes go through the client's socket as those of a plain
connection do, and nothing here waits for the client except ``wait_sent``. The state of TLS cannot be passed
to another process, so from the first byte on the connection stays in its worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import time
from typing import Any

from linepool.encryption import Tls
from linepool.errors import ClientError
from linepool.ipc.board import SEALED
from linepool.kernel.sockets import CHUNK, DONTWAIT
from linepool.protocols.strangers import FirstBytes
from linepool.service import Service
from linepool.tls.certificates import common_names
from linepool.tls.files import reason_of
from linepool.worker.transport import UNSENT_BYTES, Transport

_HANDSHAKE_RECORD = 0x16  # RFC 8446, section 5.1
_MOST_IN_RECORD = 16384  # bytes of data (RFC 8446, section 5.1)
_SEAL_BYTES = 65536  # that are encrypted at once, while nothing is unsent
_MOST_IN_VAIN = 65536  # bytes without data for the app; a record has a quarter of that
CLIENT_LEFT = "the client left"
_PLAIN_TEXT = "the client sent plain text"
_NEEDS_TLS = "this port is for TLS: connect with TLS, as to tls://HOST:PORT"
_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "domainComponent": "DC",
    "userId": "UID",
}


class HandshakeError(Exception):
    """A handshake has failed; the text says why."""


class Handshake:
    """The handshake of one connection.

    Args:
        sock: The client's.
        context: With which it begins.
        write_timeout: As of ``Transport``.
        service: Says in its protocol to a client without TLS that this port has it; None: nothing says so.

    Attributes:
        has_begun: Bytes of the client have been read, so it cannot begin in another process.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        write_timeout: float,
        service: Service | None = None,
    ) -> None:
        self.has_begun = False
        self._service = service
        self._sock = sock
        self._context = context
        self._write_timeout = write_timeout
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = (
            None  # a client that sends nothing costs no memory of OpenSSL
        )

    def step(self) -> TlsTransport | None:
        """Go on with what has arrived; return the connection's transport if that was the last step.

        Raises:
            HandshakeError: There will be no connection.
        """
        try:
            data = self._sock.recv(CHUNK, DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise HandshakeError(f"the connection failed: {error.strerror}") from None
        if not data:
            raise HandshakeError(CLIENT_LEFT)
        if self._tls is None:
            self.has_begun = True
            if data[0] != _HANDSHAKE_RECORD:
                self._refuse_plain_text(data)
                raise HandshakeError(_PLAIN_TEXT)
            self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return None
        except ssl.SSLError as error:
            with contextlib.suppress(HandshakeError):
                self._send()  # the alert
            raise HandshakeError(_why(error)) from None
        self._send()
        try:
            return TlsTransport(
                self._sock, self._write_timeout, self._tls, self._incoming, self._outgoing
            )
        except ssl.SSLError as error:  # what came with the end of the handshake cannot be decrypted
            raise HandshakeError(_why(error)) from None

    def _refuse_plain_text(self, data: bytes) -> None:
        """Send an error in plain text, unless the client may be a browser, or a proxy."""
        if self._service is None or FirstBytes().reason(data, self._service.find) != "":
            return
        with contextlib.suppress(Exception):  # the protocol may be the user's
            reply = self._service.open_protocol().encode_error(ClientError(_NEEDS_TLS), None)
            self._sock.send(reply, DONTWAIT)

    def _send(self) -> None:
        """Send what OpenSSL has to say; a client that has read nothing yet has room for that."""
        data = self._outgoing.read()
        try:
            if data and self._sock.send(data, DONTWAIT) != len(data):
                raise HandshakeError("the client does not read")
        except OSError as error:
            raise HandshakeError(f"the connection failed: {error.strerror}") from None


def _why(error: ssl.SSLError) -> str:
    reason = reason_of(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate of the client: {reason}"
    _, is_alert, alert = reason.partition("alert ")
    return f"the client refused: {alert}" if is_alert else reason


class TlsTransport(Transport):
    """A client's socket with TLS, after the handshake.

    ``recv`` returns all that can be decrypted: epoll does not see what OpenSSL keeps. What is unsent is
    encrypted as far as it is in ``unsent``; what follows is not yet.

    Attributes:
        tls: What is known of it.
    """

    __slots__ = (
        "_ahead",
        "_has_ended",
        "_in_vain",
        "_incoming",
        "_is_cut",
        "_is_last",
        "_outgoing",
        "_ssl",
        "tls",
    )

    tls: Tls
    may_move = False
    mark = SEALED

    def __init__(
        self,
        sock: socket.socket,
        write_timeout: float,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        super().__init__(sock, write_timeout)
        self.recv = self._recv
        self._later = []
        self._later_bytes = 0
        self._ssl = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._has_ended = False  # the client's side, by TLS's own message
        self._is_last = False  # the connection has seen the end, and has one more reply at most
        self._is_cut = False  # it ends without that message of ours
        self._in_vain = 0  # bytes that came since the last data
        self.tls = _facts(tls)
        self._ahead = self._decrypted()  # what has come with the end of the handshake

    def recv_more(self) -> bytes:
        """Return b"": what is left is with the kernel, which reports it again."""
        return b""

    def _recv(self, size: int, flags: int) -> bytes:
        """As ``recv`` of a socket; raises ssl.SSLError, an OSError, if the client breaks the rules."""
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        if self._has_ended:
            self._is_last = True
            return b""
        received = self.socket.recv(size, flags)
        if received:
            self._incoming.write(received)
        else:
            self._is_last = True
            self._incoming.write_eof()
        data = self._decrypted()
        if self._outgoing.pending:  # nothing is unsent while the client is read
            answer = (
                self._outgoing.read()
            )  # of OpenSSL: to an update of keys, or to a renegotiation
            if self.socket.send(answer, DONTWAIT) != len(answer):
                raise ssl.SSLError("the client does not read")
        if data:
            self._in_vain = 0
        elif received and not self._has_ended:
            self._in_vain += len(received)
            if self._in_vain > _MOST_IN_VAIN:
                raise ssl.SSLError("records without data")
            raise BlockingIOError  # an incomplete record, or one that was for OpenSSL
        else:
            self._is_last = True
        return data

    def _decrypted(self) -> bytes:
        """Return all data that has arrived."""
        parts = []
        try:
            while part := self._ssl.read(_MOST_IN_RECORD):
                parts.append(part)
                if not (self._incoming.pending or self._ssl.pending()):
                    break  # else read() would raise SSLWantReadError, which takes as long as to decrypt
            else:
                self._has_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._has_ended = True
        if self._has_ended and parts:
            # So that the kernel reports the end too, of which it knows nothing.
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RD)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def flush(self) -> bool:
        """As ``Transport.flush``."""
        replies = self.replies
        data = replies[0] if len(replies) == 1 else b"".join(replies)
        replies.clear()
        if self.unsent:
            self._later.append(data)
            self._later_bytes += len(data)
            if self.unsent_bytes > UNSENT_BYTES:
                raise TimeoutError("the client does not keep up")
            return False
        if not data:
            if self._is_last:
                self.end()
            return True
        if len(data) <= _SEAL_BYTES:
            self._ssl.write(data)
        else:
            self._later.append(data)
            self._later_bytes += len(data)
            self._seal_later()
        self.unsent = self._outgoing.read()
        if self.send_unsent():
            if self._is_last:
                self.end()
            return True
        self.write_by = time.monotonic() + self._write_timeout
        return False

    def _take_later(self) -> bytes:
        """Return the next part of what is unsent, encrypted."""
        self._seal_later()
        return self._outgoing.read()

    def _seal_later(self) -> None:
        """Encrypt the next part of what waits."""
        if not self._later_bytes:
            return
        data = memoryview(self._later[0] if len(self._later) == 1 else b"".join(self._later))
        part, rest = data[:_SEAL_BYTES], data[_SEAL_BYTES:]
        self._ssl.write(part)
        self._later = [rest] if rest else []
        self._later_bytes = len(rest)

    def abort(self, *, was_reset: bool = False) -> None:
        """As ``Transport.abort``."""
        super().abort(was_reset=was_reset)
        self._is_cut = True

    def end(self) -> None:
        """Tell the client that no more comes, so that it can tell the end from a cut."""
        if self.unsent or self._is_cut:
            return
        with contextlib.suppress(OSError):
            self._ssl.unwrap()  # which would wait for the client's own message
        with contextlib.suppress(OSError):
            self.socket.send(self._outgoing.read(), DONTWAIT)


def _facts(tls: ssl.SSLObject) -> Tls:
    """Return what is known of a connection after its handshake."""
    certificate: dict[str, Any] = tls.getpeercert() or {}
    encoded = tls.getpeercert(binary_form=True) if certificate else None
    cipher = tls.cipher()
    return Tls(
        version=tls.version() or "",
        cipher=cipher[0] if cipher else "",
        server_name=getattr(tls, "server_name", ""),
        alpn=tls.selected_alpn_protocol() or "",
        subject=", ".join(
            f"{_SHORT.get(name, name)}={value}"
            for part in certificate.get("subject", ())
            for name, value in part
        ),
        common_name=next(iter(common_names(certificate)), ""),
        names=tuple(f"{kind}:{name}" for kind, name in certificate.get("subjectAltName", ())),
        fingerprint=hashlib.sha256(encoded).hexdigest() if encoded else "",
    )
