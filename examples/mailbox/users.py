"""The users of the mailbox. MAIL_USERS names a file with hashes of their passwords; this adds a line:

python users.py ann >> users.txt
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import hmac
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

import linepool
from linepool import Secret, SetupError

DOMAIN = os.environ.get("MAIL_DOMAIN", "mail.example")
_IN_PLAIN_TEXT = os.environ.get("MAIL_PLAIN_AUTH", "off") == "on"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,62}[A-Za-z0-9])?")
_SALT_BYTES = 16
_HASH_BYTES = 32
# Without a file there are ann and bob, with the password "secret".
_EXAMPLES = (
    "ann:yuiO80jZ0vyhUEYHgMDN4w==:qxf+tAFx7lDZ6b7mUIGn5Yy0SOHaj/daGhQ97r1KQdU=",
    "bob:K8wpRkHEKQ4x7oPkPXXNXg==:3N3YtVWEi8mMdsHJAaW/uNG1R4Z9pEe9SEUMkdQ0K78=",
)


class Users:
    """The names of the users, and the salts and hashes of their passwords.

    Args:
        hashes: From the name to the salt and the hash.
    """

    def __init__(self, hashes: Mapping[str, tuple[bytes, bytes]]) -> None:
        self._hashes = hashes
        self._nobody = os.urandom(_SALT_BYTES), os.urandom(_HASH_BYTES)
        self._by_lower: dict[str, str] = {}
        for name in hashes:
            self._by_lower.setdefault(name.lower(), name)

    def named(self, name: str) -> str | None:
        """Return the user with this name; in any case, if none is written exactly like it."""
        return name if name in self._hashes else self._by_lower.get(name.lower())

    @property
    def postmaster(self) -> str:
        """The user who reads mail to the postmaster, which there must be (RFC 5321, 4.5.1)."""
        return self.named("postmaster") or next(iter(self._hashes))

    def logged_in(self, login: str, password: Secret) -> str | None:
        """Return the user with a name, or an address, and a password; None: one of them is wrong.

        It takes as long if there is no such user.
        """
        name, at, domain = login.partition("@")
        user = None if at and domain.lower() != DOMAIN else self.named(name)
        salt, expected = self._hashes.get(user or "", self._nobody)
        return user if hmac.compare_digest(_hash(password.reveal(), salt), expected) else None


def _hash(password: str, salt: bytes) -> bytes:
    text = unicodedata.normalize("NFKC", password)
    return hashlib.scrypt(text.encode(), salt=salt, n=2**14, r=8, p=1, dklen=_HASH_BYTES)


def line(name: str, password: str) -> str:
    """Return the line of a user for the file."""
    salt = os.urandom(_SALT_BYTES)
    fields = (base64.b64encode(one).decode() for one in (salt, _hash(password, salt)))
    return ":".join([name, *fields])


def read() -> Users:
    """Return the users that MAIL_USERS names.

    Raises:
        SetupError: There is no such file, or it has a line that is not one of a user.
    """
    path = os.environ.get("MAIL_USERS")
    if path is None:
        return Users(dict(map(_parsed, _EXAMPLES)))
    try:
        lines = Path(path).read_text("utf-8").splitlines()
        hashes = dict(_parsed(one) for one in lines if one and not one.startswith("#"))
    except OSError as error:
        raise SetupError(f"MAIL_USERS: cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise SetupError(f"MAIL_USERS: a line of {path} is not NAME:SALT:HASH") from None
    if not hashes:
        raise SetupError(f"MAIL_USERS: {path} has no user: python users.py NAME >> {path}")
    return Users(hashes)


def _parsed(text: str) -> tuple[str, tuple[bytes, bytes]]:
    name, salt, expected = text.split(":")
    if not _NAME.fullmatch(name):
        raise ValueError(name)
    return name, (base64.b64decode(salt, validate=True), base64.b64decode(expected, validate=True))


def users() -> Iterator[Users]:
    """Read the users in each worker; ``linepool reload`` reads them again."""
    yield read()


def may_log_in(session: linepool.Session) -> bool:
    """Whether a client may send its password: under TLS, or if MAIL_PLAIN_AUTH is ``on``."""
    return session.tls is not None or _IN_PLAIN_TEXT


if __name__ == "__main__":
    if len(sys.argv) != 2 or not _NAME.fullmatch(sys.argv[1]):
        sys.exit("usage: python users.py NAME\nNAME is 1 to 64 letters, digits and . _ + -")
    print(line(sys.argv[1], getpass.getpass(f"Password of {sys.argv[1]}: ")))
