"""TLS contexts as the settings want them, made once in the process that workers are forked from.

All workers of a generation have the same contexts, and so the same keys of session tickets: a client that
comes back resumes its session in any of them. A reload makes new ones; a context is never changed.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping

from attrs import frozen

from linepool.errors import SetupError
from linepool.settings.tls import TlsSettings
from linepool.tls.certificates import Certificate, examined, warnings
from linepool.tls.files import load_authorities, load_pair, reason_of
from linepool.tls.groups import limit_groups

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    "off": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2: with forward secrecy, and no CBC (Lucky 13)
_TICKETS = 1  # for each handshake of TLS 1.3; each takes 35 microseconds


@frozen
class ServerTls:
    """TLS of a listener.

    Attributes:
        context: With which a connection begins its handshake.
        certificates: Those of the server.
        keys: The files of their keys.
    """

    context: ssl.SSLContext
    certificates: tuple[Certificate, ...]
    keys: tuple[str, ...]

    def warnings(self) -> Iterator[str]:
        """Yield what is worth a warning."""
        for certificate, key in zip(self.certificates, self.keys, strict=True):
            yield from warnings(certificate, key)


class Contexts:
    """The contexts of one process, each made once: later its files may not be readable any more."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], ServerTls] = {}

    def of(self, settings: TlsSettings) -> ServerTls | None:
        """Return TLS for some settings; None: they want none.

        Raises:
            SetupError: A file cannot be used, or a value is wrong.
        """
        if not settings.tls_cert:
            return None
        wanted = (
            settings.tls_cert,
            settings.tls_key,
            settings.tls_ca,
            settings.asks_for_certificate,
            settings.tls_min_version,
            settings.tls_ciphers,
            settings.tls_alpn,
        )
        if wanted not in self._made:
            self._made[wanted] = _made(settings)
        return self._made[wanted]


def _made(settings: TlsSettings) -> ServerTls:
    keys = settings.tls_key or ("",) * len(settings.tls_cert)
    contexts = []
    certificates = []
    for certificate, key in zip(settings.tls_cert, keys, strict=True):
        context = _context(settings)
        load_pair(context, certificate, key)
        certificates.append(examined(context, certificate, context.minimum_version))
        if settings.tls_ca:
            load_authorities(context, settings.tls_ca)
        context.verify_mode = _VERIFY[settings.asks_for_certificate]
        contexts.append(context)
    by_name = {
        name.lower(): context
        for context, certificate in reversed(list(zip(contexts, certificates, strict=True)))
        for name in certificate.names
    }
    contexts[0].sni_callback = _Selection(by_name)
    files = tuple(
        key or certificate for certificate, key in zip(settings.tls_cert, keys, strict=True)
    )
    return ServerTls(contexts[0], tuple(certificates), files)


def _context(settings: TlsSettings) -> ssl.SSLContext:
    # Not create_default_context: it would write the secrets to a file that a variable of the environment
    # names, and load the system's authorities.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.tls_min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # A client that ends its side without TLS's own message (close_notify) still gets its replies.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    context.num_tickets = _TICKETS
    limit_groups(context)
    try:
        context.set_ciphers(settings.tls_ciphers or _CIPHERS)
    except ssl.SSLError as error:
        raise SetupError(
            f"tls_ciphers: OpenSSL refuses {settings.tls_ciphers!r}: {reason_of(error)};"
            " 'openssl ciphers -v' lists them"
        ) from None
    if settings.tls_alpn:
        context.set_alpn_protocols(list(settings.tls_alpn))
    return context


class _Selection:
    """Selects the certificate for the name of the server that a client wants (RFC 6066, section 3)."""

    def __init__(self, by_name: Mapping[str, ssl.SSLContext]) -> None:
        self._by_name = by_name

    def __call__(self, tls: ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
        if name is None:
            return
        name = name.lower()
        tls.server_name = name  # type: ignore[attr-defined]
        # A wildcard stands for one label (RFC 9525, section 6.3).
        by_name = self._by_name
        context = by_name.get(name) or by_name.get(f"*.{name.partition('.')[2]}", first)
        if context is not first:
            tls.context = context
