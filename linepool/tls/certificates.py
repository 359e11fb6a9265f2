"""What a certificate says, and whether a context with it works: by a handshake with itself.

Used by loaders, and by ``linepool check``.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from linepool.errors import SetupError
from linepool.tls.files import readable_by_others, reason_of

_DAY = 86400.0  # seconds
_SOON = 14 * _DAY
_SLOW_BITS = 4096  # a handshake with an RSA key of so many takes 6 ms, one with P-256 0.3 ms
_STEPS = 10  # of a handshake, more than any takes
# X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which Python has no name: what has expired can be read too.
_NO_CHECK_TIME = 0x200000
# A public key of RSA: its algorithm (RFC 8017, appendix C), then a bit string with the modulus in it.
_RSA_KEY = re.compile(
    rb"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\0\x03\x82..\0\x30\x82..\x02\x82(..)", re.DOTALL
)


@frozen
class Certificate:
    """A certificate of the server.

    Attributes:
        path: Its file.
        names: For which it was issued: DNS names and IP addresses; without any, its common name.
        begins: When it becomes valid, in seconds since 1970 (UTC) ...
        ends: ... and when it expires.
        rsa_bits: The length of its key; 0: it is not one of RSA.
    """

    path: str
    names: tuple[str, ...]
    begins: float
    ends: float
    rsa_bits: int

    def __str__(self) -> str:
        names = " ".join(self.names) or "no names"
        return f"{self.path}: {names}, valid until {_date(self.ends)}"


def examined(context: ssl.SSLContext, path: str, oldest: ssl.TLSVersion) -> Certificate:
    """Return what the certificate of a context says, once handshakes with it have succeeded.

    Args:
        context: It does not verify clients.
        path: The file of its certificate.
        oldest: The oldest version that it speaks.

    Raises:
        SetupError: Clients could not connect.
    """
    found: dict[str, Any] = {}
    encoded = b""
    for version in {ssl.TLSVersion.TLSv1_3, oldest}:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.minimum_version = client.maximum_version = version
        client.load_verify_locations(cafile=path)
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
        try:
            shaken = _shaken(context, client)
        except ssl.SSLError as error:
            shown = "1.3" if version == ssl.TLSVersion.TLSv1_3 else "1.2"
            hint = " (does tls_ciphers fit the key?)" if "cipher" in reason_of(error) else ""
            raise SetupError(
                f"tls_cert: a client of TLS {shown} cannot connect with {path}: {reason_of(error)}{hint}"
            ) from None
        found, encoded = shaken.getpeercert() or {}, shaken.getpeercert(binary_form=True) or b""
    return Certificate(
        path,
        tuple(_names(found)),
        ssl.cert_time_to_seconds(str(found["notBefore"])),
        ssl.cert_time_to_seconds(str(found["notAfter"])),
        _rsa_bits(encoded),
    )


def warnings(certificate: Certificate, key: str, now: float | None = None) -> Iterator[str]:
    """Yield what is worth a warning of a certificate and of the file with its key.

    ``now``: in seconds since 1970; None: the present.
    """
    now = time.time() if now is None else now
    path, left = certificate.path, certificate.ends - now
    if left <= 0:
        yield f"tls_cert: {path} expired on {_date(certificate.ends)}: clients that verify it refuse it"
    elif left < _SOON:
        yield f"tls_cert: {path} expires on {_date(certificate.ends)}, in {left / _DAY:.0f} days"
    if certificate.begins > now:
        yield f"tls_cert: {path} is not valid before {_date(certificate.begins)}"
    if not certificate.names:
        yield f"tls_cert: {path} names no server"
    if certificate.rsa_bits >= _SLOW_BITS:
        yield (
            f"tls_cert: {path} has an RSA key of {certificate.rsa_bits} bits: each new client holds its"
            " worker for 5 ms or more; one of P-256 takes a twentieth of that"
        )
    if readable_by_others(key):
        yield f"tls_key: other users can read or change {key}: chmod 600 {key}"


def _shaken(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> ssl.SSLObject:
    """Shake hands in memory; return the client's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    undone = [client, server]
    for _ in range(_STEPS):
        for side in list(undone):
            try:
                side.do_handshake()
                undone.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not undone:
            return client
    raise ssl.SSLError("the handshake does not end")


def _names(certificate: dict[str, Any]) -> Iterator[str]:
    names = [
        name
        for kind, name in certificate.get("subjectAltName", ())
        if kind in ("DNS", "IP Address")
    ]
    yield from names or common_names(certificate)


def common_names(certificate: dict[str, Any]) -> list[str]:
    """Return the common names of the subject of a certificate that ``getpeercert()`` has returned."""
    return [
        value
        for part in certificate.get("subject", ())
        for name, value in part
        if name == "commonName"
    ]


def _rsa_bits(encoded: bytes) -> int:
    found = _RSA_KEY.search(encoded)
    return 8 * (int.from_bytes(found[1], "big") - 1) if found else 0


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
