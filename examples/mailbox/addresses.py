"""The arguments of MAIL and RCPT: a path and parameters (RFC 5321, 4.1.2; RFC 6531, 3.3). Pure."""

from __future__ import annotations

import operator
import re

from attrs import frozen

from linepool import ClientError

_MOST_PATH_BYTES = 256
_MOST_LOCAL_BYTES = 64
_MOST_DOMAIN_BYTES = 255
_WIDE = "\u00a0-\U0010ffff"  # beyond ASCII
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_WIDE}-]+"
_LOCAL = rf'{_ATOM}(?:\.{_ATOM})*|"(?:[ !#-\[\]-~{_WIDE}]|\\[ -~])*"'
_LABEL = rf"[A-Za-z0-9{_WIDE}]+(?:-+[A-Za-z0-9{_WIDE}]+)*"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[[!-Z^-~]+\]"
_ROUTE = rf"(?:@(?:{_DOMAIN})(?:,@(?:{_DOMAIN}))*:)?"
_PATH = re.compile(
    rf"<(?:{_ROUTE}(?P<local>{_LOCAL})@(?P<domain>{_DOMAIN}|{_LITERAL})|(?P<alone>postmaster)|)>",
    re.I,
)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")


@frozen
class Path:
    """An address; the sender of a bounce has an empty one.

    Attributes:
        local: The local part, with its quotes and its case; "" in the empty path.
        domain: "" too if the path is ``<Postmaster>``.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}" if self.domain else self.local

    @property
    def name(self) -> str:
        """The local part without its quotes."""
        if not self.local.startswith('"'):
            return self.local
        return re.sub(r"\\(.)", r"\1", self.local[1:-1])


def parsed(text: str, keyword: str, code: str) -> tuple[Path, dict[str, str]]:
    """Return the path of ``FROM:<...>`` or ``TO:<...>``, and the parameters by name in upper case.

    A source route before the address is ignored (RFC 5321, appendix C).

    Args:
        text: What follows the command.
        keyword: FROM or TO.
        code: The code of a wrong address.

    Raises:
        ClientError: The syntax is wrong, or the path is too long.
    """
    head, colon, rest = text.partition(":")
    if not colon or head.rstrip().upper() != keyword:
        raise ClientError(f"Expected {keyword}:<user@domain>", code="501 5.5.4")
    rest = rest.lstrip()
    match = _PATH.match(rest)
    if match is None:
        raise ClientError(f"{keyword}: <user@domain> expected", code=code)
    local, domain = match["local"] or match["alone"] or "", match["domain"] or ""
    sizes = (len(text.encode()) for text in (match[0], local, domain))
    if any(map(operator.gt, sizes, (_MOST_PATH_BYTES, _MOST_LOCAL_BYTES, _MOST_DOMAIN_BYTES))):
        raise ClientError(
            f"The path is too long: at most {_MOST_PATH_BYTES} bytes, {_MOST_LOCAL_BYTES} before @",
            code=code,
        )
    return Path(local, domain), _parameters(rest[match.end() :])


def _parameters(text: str) -> dict[str, str]:
    if text and not text.startswith(" "):
        raise ClientError("A blank must follow the path", code="501 5.5.4")
    found: dict[str, str] = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if match is None or match[1].upper() in found:
            raise ClientError("Parameters are KEYWORD=VALUE, each once", code="501 5.5.4")
        found[match[1].upper()] = match[2] or ""
    return found
