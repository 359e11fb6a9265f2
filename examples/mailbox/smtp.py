"""The SMTP server of the mailbox; see README.md in this folder."""

import re
from collections.abc import Iterator

from store import Store, check, opened, stamp, users

import linepool

MAX_MAIL_BYTES = 10 * 2**20
MAX_RECIPIENTS = 100
DOMAIN = "mail.example"
app = linepool.App(
    "smtp",
    protocol=linepool.Dialogue.smtp(f"220 {DOMAIN} linepool"),
    max_line_bytes=1000,
    max_body_bytes=MAX_MAIL_BYTES,
)
GREETED = ("greeted", "mail", "rcpt")
_PATH = re.compile(
    r'(FROM|TO): ?<(?:@[^:>]*:)?((?:"(?:[^"\\]|\\.)*"|[^<>\s"@]+)(?:@[^<>\s]+)?|)>((?: .*)?)\Z',
    re.I,
)


app.on_start(check)


@app.resource
def mailboxes() -> Iterator[Store]:
    """Open the store in each worker: an SQLite connection must not cross a fork."""
    yield from opened()


@app.handler("EHLO", to="greeted")
def ehlo(host: linepool.Rest, session: linepool.Session) -> tuple[int, list[str]]:
    """Identify the client."""
    begin(session, host)
    return 250, [
        f"{DOMAIN} greets {printable(host)}",
        f"SIZE {MAX_MAIL_BYTES}",
        "8BITMIME",
        "PIPELINING",
    ]


@app.handler("HELO", to="greeted")
def helo(host: linepool.Rest, session: linepool.Session) -> tuple[int, str]:
    """Identify the client, without extensions."""
    begin(session, host)
    return 250, DOMAIN


def begin(session: linepool.Session, host: str) -> None:
    session["host"] = printable(host)
    session["from"] = ""
    session["to"] = []


def printable(text: str) -> str:
    """Return text that is safe in a reply and in a header."""
    return re.sub(r"[^\x21-\x7e]", "?", text)[:255]


def path(words: str, keyword: str) -> tuple[str, dict[str, str]]:
    """Return the address in ``FROM:<...>`` or ``TO:<...>``, and the parameters after it.

    Raises:
        ClientError: The syntax is wrong.
    """
    match = _PATH.match(words)
    if match is None or match[1].upper() != keyword:
        raise linepool.ClientError(f"expected {keyword}:<user@domain>", code=501)
    found = {}
    for word in match[3].split():
        name, _, value = word.partition("=")
        found[name.upper()] = value
    return match[2], found


@app.handler(
    "MAIL", when="greeted", to="mail", otherwise="503 Send EHLO first, and finish the current mail"
)
def mail(words: linepool.Rest, session: linepool.Session) -> tuple[int, str]:
    """Start a mail: MAIL FROM:<address>."""
    address, parameters = path(words, "FROM")
    for name, value in parameters.items():
        if name not in ("SIZE", "BODY"):
            raise linepool.ClientError(f"unsupported parameter {printable(name)}", code=555)
        if name == "SIZE" and not value.isdigit():
            raise linepool.ClientError("SIZE must be a number", code=501)
        if name == "SIZE" and int(value) > MAX_MAIL_BYTES:
            raise linepool.ClientError("Message too large", code=552)
    session["from"] = address
    session["to"] = []
    return 250, "OK"


@app.handler("RCPT", when=("mail", "rcpt"), to="rcpt", otherwise="503 Send MAIL first")
def rcpt(words: linepool.Rest, session: linepool.Session) -> tuple[int, str]:
    """Add a recipient: RCPT TO:<address>."""
    address, parameters = path(words, "TO")
    if parameters:
        raise linepool.ClientError("RCPT takes no parameters", code=555)
    user = address.rpartition("@")[0].lower() or address.lower()
    if user not in users():
        raise linepool.ClientError(f"no user {printable(address)} here", code=550)
    if len(session["to"]) >= MAX_RECIPIENTS:
        raise linepool.ClientError("too many recipients", code=452)
    session["to"] = list(dict.fromkeys([*session["to"], user]))
    return 250, "OK"


@app.handler(
    "DATA",
    when="rcpt",
    to="greeted",
    otherwise="503 Send RCPT first",
    prompt="354 End with a dot on a line",
)
def data(
    mailboxes: Store, session: linepool.Session, message: bytes = linepool.body()
) -> tuple[int, str]:
    """Receive the mail; it ends with a dot on a line by itself."""
    head = (
        f"Return-Path: <{session['from']}>\r\n"
        f"Received: from {session['host']} ({session.peer})\r\n\tby {DOMAIN}; {stamp()}\r\n"
    )
    mailboxes.deliver(session["to"], head.encode() + message)
    return 250, "OK: it is in the mailbox"


@app.handler("RSET")
def rset(session: linepool.Session) -> tuple[int, str]:
    """Discard the current mail."""
    if session.get("state") in GREETED:
        session["state"] = "greeted"
    return 250, "OK"


@app.handler("VRFY")
def vrfy(address: linepool.Rest) -> tuple[int, str]:
    """Reveal nothing about users."""
    return 252, "Send some mail, I will try"


@app.handler("HELP")
def help_(command: linepool.Rest | None = None) -> tuple[int, str]:
    """List the commands."""
    return 214, "EHLO HELO MAIL RCPT DATA RSET VRFY NOOP HELP QUIT"


if __name__ == "__main__":
    linepool.run(app)
