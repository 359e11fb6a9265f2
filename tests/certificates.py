"""Certificates for tests of TLS, made anew by openssl(1)."""

from __future__ import annotations

import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


class Authority:
    """A CA with its files in a directory.

    Attributes:
        path: Its certificate, PEM.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._name = name
        self.path = directory / f"{name}.pem"
        self._openssl(
            *("req", "-x509", *_KEY, "-subj", f"/CN={name}", "-out", self.path),
            *("-keyout", directory / f"{name}.key"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),  # as Python 3.13 wants it
        )

    def certificate(self, name: str, *alternatives: str) -> Path:
        """Return the path of a new certificate with its key, PEM.

        Args:
            name: Of the file, and the common name.
            alternatives: For what it is, such as DNS:localhost or IP:127.0.0.1.
        """
        path = self._directory / f"{name}.pem"
        names = ("-addext", f"subjectAltName={','.join(alternatives)}") if alternatives else ()
        authority = ("-CA", self.path, "-CAkey", self._directory / f"{self._name}.key")
        key = self._directory / f"{name}.key"
        basic = ("-addext", "basicConstraints=critical,CA:FALSE")
        self._openssl(
            *("req", "-x509", *_KEY, "-subj", f"/CN={name}", *authority, *names, *basic),
            *("-out", path, "-keyout", key),
        )
        path.write_bytes(path.read_bytes() + key.read_bytes())
        return path

    @staticmethod
    def _openssl(*words: str | Path) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)
