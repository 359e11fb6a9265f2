"""TLS for both clients: a socket's bytes go through OpenSSL in memory, so waiting stays the socket's matter.

Imported only if a client uses TLS, as ``ssl`` takes longer to import than the whole client.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import Any

from linepool.client.sockets import TlsError, TlsOptions

_CHUNK = 64 * 1024
# Of OpenSSL's x509_vfy.h.
_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN, _NO_ISSUER = 18, 19, 20
_OTHER_HOST, _OTHER_IP = 62, 64
_NOT_TLS = {
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "HTTP_REQUEST",
}
_NEEDS_CERTIFICATE = "CERTIFICATE_REQUIRED"
_SEEN = "does it speak TLS on this port?"


def context_of(options: TlsOptions) -> ssl.SSLContext:
    """Return the context of a client's connections.

    Raises:
        ValueError: A file cannot be used; the text says which.
    """
    if isinstance(options.tls, ssl.SSLContext):
        if options.has_files:
            raise ValueError("give an SSLContext or tls_ca, tls_cert and tls_key, not both")
        return options.tls
    context = ssl.create_default_context()
    if options.ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with _named("tls_ca", options.ca, "certificates of CAs, as PEM"):
            if os.path.isdir(options.ca):
                context.load_verify_locations(capath=options.ca)
            else:
                context.load_verify_locations(cafile=options.ca)
    if options.cert is not None:
        with _named("tls_cert", options.cert, "a certificate and its key, as PEM, or give tls_key"):
            context.load_cert_chain(options.cert, options.key, _refuse_password)
    elif options.key is not None:
        raise ValueError("tls_key is the key of tls_cert: give both")
    return context


@contextlib.contextmanager
def _named(name: str, path: Any, holds: str) -> Any:
    try:
        yield
    except ssl.SSLError:
        raise ValueError(f"{name}: {os.fspath(path)!r} must hold {holds}") from None
    except OSError as error:
        raise ValueError(f"{name}: cannot read {os.fspath(path)!r}: {error.strerror}") from None


def _refuse_password() -> str:
    raise ValueError(
        "tls_key: the key has a password; load it into an SSLContext, and give that as tls"
    )


class TlsWire:
    """A connection with TLS over one without, with the methods of either client's."""

    def __init__(self, wire: Any, context: ssl.SSLContext, host: str) -> None:
        self._wire = wire
        self._host = host
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._is_cut = False  # inside a record that was sent in part

    async def shake_hands(self, deadline: float) -> None:
        """Do the handshake.

        Raises:
            TlsError: It has failed, and would again; the text says what would be right.
            OSError: The connection has failed; TimeoutError at the deadline.
        """
        is_done = False
        while not is_done:
            failure: OSError | None = None
            try:
                self._tls.do_handshake()
                is_done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                failure = TlsError(_reason(error, self._host))
            try:
                if data := self._outgoing.read():  # also the alert that says why it has failed
                    await self._wire.send(data, deadline)
                if failure is None and not is_done:
                    self._take(await self._wire.recv(deadline))
            except ConnectionError:
                if failure is None:
                    raise
            if failure is not None:
                raise failure
            if self._incoming.eof:
                raise ConnectionError(
                    f"the server closed the connection during the TLS handshake: {_SEEN}"
                )

    async def send(self, data: bytes, deadline: float) -> None:
        """Send bytes; as of the connection without TLS."""
        self._is_cut = True
        await self._wire.send(self._encrypted(data), deadline)
        self._is_cut = False

    async def recv(self, deadline: float) -> bytes:
        """Return the next bytes; as of the connection without TLS."""
        while (data := self._decrypted()) is None:
            self._take(await self._wire.recv(deadline))
        return data

    def send_now(self, data: bytes, deadline: float) -> None:
        """Send bytes; in the blocking client."""
        self._is_cut = True
        self._wire.send_now(self._encrypted(data), deadline)
        self._is_cut = False

    def receive(self, deadline: float) -> bytes:
        """Return the next bytes; in the blocking client."""
        while (data := self._decrypted()) is None:
            self._take(self._wire.receive(deadline))
        return data

    def is_quiet(self) -> bool:
        """Whether the stream has not ended and nothing waits to be read."""
        return self._decrypted() is None and self._wire.is_quiet()

    def close(self) -> None:
        """Close the socket; say so to the server (RFC 8446, 6.1) if that takes no time."""
        if not self._is_cut:
            with contextlib.suppress(OSError, ValueError):
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()
                self._wire.send_at_once(self._outgoing.read())
        self._wire.close()

    def forget(self) -> None:
        """Close this process's copy of the socket, after a fork."""
        self._wire.forget()

    def _encrypted(self, data: bytes) -> bytes:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        return self._outgoing.read()

    def _decrypted(self) -> bytes | None:
        """Return the next bytes, b"" at the end; None: more must be received."""
        if not self._incoming.pending and not self._incoming.eof:
            return None  # a record is read as a whole, so OpenSSL holds nothing back
        try:
            return self._tls.read(_CHUNK)
        except ssl.SSLWantReadError:
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except ssl.SSLError as error:
            raise ConnectionError(_reason(error, self._host)) from None

    def _take(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


def _reason(error: ssl.SSLError, host: str) -> str:
    """Return why a connection cannot be secured, and what would be right."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error, host)
    reason = error.reason or ""
    if reason in _NOT_TLS:
        return "the server does not speak TLS on this port; connect without TLS, or to its port for TLS"
    if reason.endswith(_NEEDS_CERTIFICATE):
        return "the server requires a client certificate: give tls_cert and tls_key"
    if "ALERT" in reason:
        said = reason.rpartition("ALERT_")[2].replace("_", " ").lower()
        return f"the server refused the TLS handshake: {said}"
    return f"TLS failed: {reason.replace('_', ' ').lower() or error}"


def _untrusted(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in (_OTHER_HOST, _OTHER_IP):
        return f"the server's certificate is not for {host}: connect by a name that the certificate has"
    if error.verify_code in (_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN, _NO_ISSUER):
        return (
            f"the server's certificate is not trusted ({error.verify_message}):"
            " give the certificate of the CA that has signed it with tls_ca"
        )
    return f"the server's certificate is not valid: {error.verify_message}"
