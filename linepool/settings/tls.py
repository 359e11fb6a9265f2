"""Settings: TLS. Pure."""

from __future__ import annotations

from attrs import frozen

from linepool.errors import SetupError
from linepool.settings import syntax
from linepool.settings.field import setting


@frozen(kw_only=True, slots=False)
class TlsSettings:
    """Whether connections are encrypted, and how."""

    tls_cert: tuple[str, ...] = setting(
        (),
        syntax.paths,
        "path",
        "file with the server's certificate and the chain above it, PEM: connections are encrypted, TLS 1.2"
        " or later; repeatable: the server name that a client sends (SNI) selects one, the first is for all"
        " others; read anew at each reload; empty: no TLS",
        per_listener=True,
    )
    tls_key: tuple[str, ...] = setting(
        (),
        syntax.paths,
        "path",
        "file with the private key of tls_cert, PEM, without a passphrase; of several certificates, in their"
        " order; read before the processes become user; empty: the files in tls_cert have it",
        per_listener=True,
    )
    tls_ca: str = setting(
        "",
        syntax.path,
        "path",
        "file, or directory made by openssl rehash, with the authorities that client certificates are"
        " verified against, PEM",
        per_listener=True,
    )
    tls_verify: str = setting(
        "auto",
        syntax.one_of("auto", "off", "optional", "required"),
        "",
        "client certificates; required: a client without a valid one is refused; optional: it may have none,"
        " but no invalid one; off: clients are not asked; auto: required if tls_ca is given, otherwise off",
        per_listener=True,
    )
    tls_min_version: str = setting(
        "1.2",
        syntax.one_of("1.2", "1.3"),
        "",
        "oldest version of TLS that clients may use",
        per_listener=True,
    )
    tls_ciphers: str = setting(
        "",
        syntax.text,
        "list",
        "ciphers of TLS 1.2, in the syntax of openssl ciphers; those of TLS 1.3 are fixed; empty:"
        " ECDHE+AESGCM:ECDHE+CHACHA20",
        per_listener=True,
    )
    tls_alpn: tuple[str, ...] = setting(
        (),
        syntax.protocol_names,
        "names",
        "names of application protocols to agree on by ALPN, the preferred one first; empty: no ALPN",
        per_listener=True,
    )
    tls_handshake_timeout: float = setting(
        10.0,
        syntax.seconds(0.01),
        "s",
        "how long a client may take for its TLS handshake, from its connect on",
        per_listener=True,
    )
    tls_max_handshakes: int = setting(
        256,
        syntax.whole(1, 100_000),
        "connections",
        "unfinished TLS handshakes of one worker; beyond this number, the oldest is closed",
        per_listener=True,
    )
    starttls: bool = setting(
        False,
        syntax.flag,
        "on or off",
        "connections begin in plain text, and a command of the app begins TLS, such as STARTTLS of SMTP",
        per_listener=True,
    )

    def check_tls(self) -> None:
        """Raise SetupError if two of these settings contradict each other."""
        keys, certificates = len(self.tls_key), len(self.tls_cert)
        if not certificates:
            for name in ("tls_key", "tls_ca", "starttls"):
                if getattr(self, name):
                    raise SetupError(f"{name} has no effect without tls_cert: give both")
            if self.tls_verify in ("optional", "required"):
                raise SetupError("tls_verify has no effect without tls_cert: give both")
        elif keys not in (0, certificates):
            raise SetupError(
                f"tls_key names {keys} files, tls_cert {certificates}: give one key for each certificate, in"
                " the same order, or none if each file in tls_cert has its key too"
            )
        if self.tls_verify in ("optional", "required") and not self.tls_ca:
            raise SetupError(
                f"tls_verify ({self.tls_verify}) needs tls_ca, the authorities of client certificates"
            )

    @property
    def asks_for_certificate(self) -> str:
        """The setting tls_verify, without ``auto``."""
        if self.tls_verify == "auto":
            return "required" if self.tls_ca else "off"
        return self.tls_verify

    @property
    def begins_with_tls(self) -> bool:
        """Whether a new connection begins with a TLS handshake."""
        return bool(self.tls_cert) and not self.starttls
