"""Loading certificates and keys into a TLS context; what is wrong with a file is said in one sentence.

Used by loaders, and by ``linepool check``. Files are read here and nowhere else: afterwards the key is in
the memory of this process and of those that it forks.
"""

from __future__ import annotations

import os
import ssl
import stat
from typing import NoReturn

from linepool.errors import SetupError

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"
_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")  # RFC 5958; RFC 1421
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_DER = b"\x30"  # begins a file of ASN.1
_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a certificate with its chain and its key into a context.

    Args:
        context: It has no certificate yet.
        certificate: The file with the certificate and those above it, PEM.
        key: The file with the key; "": it is in the same file.

    Raises:
        SetupError: They cannot be used.
    """
    chain = _read("tls_cert", certificate)
    if _CERTIFICATE not in chain:
        raise SetupError(_not_pem("tls_cert", certificate, chain, "certificate"))
    with_key = _read("tls_key", key) if key else chain
    if _KEY not in with_key:
        if not key:
            raise SetupError(
                f"tls_cert: {certificate} has no private key in it: give the file of the key as tls_key"
            )
        raise SetupError(_not_pem("tls_key", key, with_key, "private key"))
    name, path = ("tls_key", key) if key else ("tls_cert", certificate)
    if any(mark in with_key for mark in _ENCRYPTED):
        raise SetupError(
            f"{name}: the key in {path} is encrypted, and nobody is asked for its passphrase: store it"
            f" without one ('openssl pkey -in {path} -out FILE', mode 600)"
        )
    try:
        context.load_cert_chain(certificate, key or None, password=_refuse)
    except ssl.SSLError as error:
        if getattr(error, "reason", "") in _MISMATCHES:
            raise SetupError(
                f"{name}: the key in {path} is not that of the certificate in {certificate}, which must be"
                " the first in its file"
            ) from None
        raise SetupError(
            f"{name}: OpenSSL cannot use {path}: {reason_of(error)}; is the file complete?"
        ) from None
    except OSError as error:  # it has changed meanwhile
        raise SetupError(f"{name}: cannot read {path}: {error.strerror}") from None


def load_authorities(context: ssl.SSLContext, path: str) -> None:
    """Have a context verify client certificates against those in a file or directory.

    Raises:
        SetupError: There are none.
    """
    try:
        if os.path.isdir(path):
            context.load_verify_locations(capath=path)
            return
        data = _read("tls_ca", path)
        if _CERTIFICATE not in data:
            raise SetupError(_not_pem("tls_ca", path, data, "certificate"))
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise SetupError(f"tls_ca: OpenSSL cannot use {path}: {reason_of(error)}") from None


def readable_by_others(path: str) -> bool:
    """Whether users who neither own a file nor are in its group can read it, or others change it."""
    try:
        return bool(os.stat(path).st_mode & _OTHERS)
    except OSError:
        return False


def reason_of(error: ssl.SSLError) -> str:
    """Return why OpenSSL failed, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    reason = getattr(error, "reason", None)  # which errors without OpenSSL's number do not have
    return reason.lower().replace("_", " ") if reason else str(error.args[-1])


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = "; it is read by the user that starts the server"
        raise SetupError(f"{name}: cannot read {path}: {error.strerror}{hint}") from None


def _not_pem(name: str, path: str, data: bytes, wanted: str) -> str:
    """Return what to say of a file that has something else than what is wanted."""
    if data.startswith(_DER):
        kind = "x509" if wanted == "certificate" else "pkey"
        return f"{name}: {path} is in the format DER; PEM is needed: openssl {kind} -in {path} -out FILE"
    if not data.strip():
        return f"{name}: {path} is empty"
    found = "a private key" if _KEY in data else "a certificate" if _CERTIFICATE in data else ""
    what = f"{found} and no {wanted}" if found else f"no {wanted} (PEM)"
    return f"{name}: {path} holds {what}"


def _refuse() -> NoReturn:
    """Refuse to be asked for a passphrase, for which OpenSSL would open the terminal."""
    raise SetupError("tls_key: the key is encrypted; store it without a passphrase")
