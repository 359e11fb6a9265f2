"""The SMTP server of the mailbox; see README.md in this folder."""

import logging
import re
import time
from collections.abc import Iterator

import sasl
from addresses import Path, parsed
from store import Store, check, opened
from users import DOMAIN, Users, may_log_in, read, users

import linepool
from linepool import ClientError, Secret, Session

log = logging.getLogger("mailbox")
MAX_MAIL_BYTES = 10 * 2**20
MAX_RECIPIENTS = 100
MAX_HOPS = 100
_LONG_LINE = re.compile(rb"[^\r\n]{999}")  # 1000 bytes with CR LF (RFC 5321, 4.5.3.1.6)
_HOP = re.compile(rb"^Received:", re.I | re.M)

app = linepool.App(
    "smtp",
    protocol=linepool.Dialogue.smtp(f"220 {DOMAIN} ESMTP linepool", enhanced_codes=True),
    max_line_bytes=1100,  # 512 (RFC 5321, 4.5.3.1.4), and what the parameters of MAIL may add
    max_body_bytes=MAX_MAIL_BYTES,
    read_timeout=600,  # for a whole mail
)
GREETED = ("greeted", "mail", "rcpt")
Code = tuple[int, str]

app.on_start(check)
app.on_start(read)
app.resource(users)


@app.resource
def mailboxes() -> Iterator[Store]:
    """Open the store in each worker: an SQLite connection must not cross a fork."""
    yield from opened()


@app.handler("EHLO", to="greeted")
def ehlo(host: linepool.Rest, session: Session) -> tuple[int, list[str]]:
    """Identify the client, and list the extensions."""
    begin(session, host, "ESMTP")
    return 250, [
        f"{DOMAIN} greets {session['host']}",
        "PIPELINING",
        f"SIZE {MAX_MAIL_BYTES}",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        *(["STARTTLS"] if session.starttls else []),
        *([f"AUTH {sasl.MECHANISMS}"] if may_log_in(session) else []),
        "HELP",
    ]


@app.handler("HELO", to="greeted")
def helo(host: linepool.Rest, session: Session) -> Code:
    """Identify the client, without extensions."""
    begin(session, host, "SMTP")
    return 250, DOMAIN


def begin(session: Session, host: str, how: str) -> None:
    session["host"] = re.sub(r"[^\x21-\x7e]", "?", host)[:255]
    session["how"] = how
    session["from"], session["to"] = "", []


@app.handler("STARTTLS")
def starttls(session: Session) -> linepool.Reply:
    """Begin TLS (RFC 3207): the client says EHLO again then."""
    if session.tls is not None:
        raise ClientError("TLS is active already", code="503 5.5.1")
    if not session.starttls:
        raise ClientError("TLS is not available", code="502 5.5.1")
    return linepool.Reply((220, "2.0.0 Ready to start TLS"), start_tls=True)


@app.handler("AUTH", when="greeted", otherwise="503 5.5.1 AUTH comes after EHLO, not in a mail")
def auth(
    mechanism: str,
    session: Session,
    users: Users,
    answers: linepool.Answers,
    initial: Secret | None = None,
) -> Code | linepool.Ask:
    """Log in by a mechanism of SASL (RFC 4954)."""
    if session.user is not None:
        raise ClientError("You are logged in already", code="503 5.5.1")
    if not may_log_in(session):
        raise ClientError("A password needs TLS: send STARTTLS first", code="538 5.7.11")
    try:
        step = sasl.step(mechanism, initial, answers)
    except sasl.UnknownMechanismError:
        raise ClientError(f"The mechanisms are {sasl.MECHANISMS}", code="504 5.5.4") from None
    except ValueError:
        raise ClientError("That is not what the mechanism has", code="501 5.5.2") from None
    if isinstance(step, str):
        return linepool.Ask(f"334 {step}")
    session.user = users.logged_in(*step)
    if session.user is None:
        log.warning("log-in refused peer=%s user=%.64r", session.peer, step[0])
        raise ClientError("Authentication failed", code="535 5.7.8")
    return 235, "2.7.0 Authentication successful"


@app.handler(
    "MAIL", when="greeted", to="mail", otherwise="503 5.5.1 Send EHLO first, one mail at a time"
)
def mail(words: linepool.Rest, session: Session) -> Code:
    """Start a mail: MAIL FROM:<address>, or <> for a bounce."""
    path, parameters = parsed(words, "FROM", "501 5.1.7")
    if path.local and not path.domain:
        raise ClientError("FROM: the address has no domain", code="501 5.1.7")
    for name, value in parameters.items():
        check_parameter(name, value, session)
    session["utf8"] = "SMTPUTF8" in parameters
    require_ascii(path, session)
    session["from"], session["to"] = str(path), []
    return 250, "2.1.0 OK"


def require_ascii(path: Path, session: Session) -> None:
    """Refuse an address beyond ASCII, unless the mail has SMTPUTF8 (RFC 6531, 3.5)."""
    if not (session["utf8"] or str(path).isascii()):
        raise ClientError("Such an address needs SMTPUTF8", code="553 5.6.7")


def check_parameter(name: str, value: str, session: Session) -> None:
    """Refuse a parameter of MAIL that is wrong, or of an extension that EHLO has not named."""
    if name == "SIZE":  # RFC 1870
        if not (value.isdigit() and len(value) <= 20):
            raise ClientError("SIZE must be a number", code="501 5.5.4")
        if int(value) > MAX_MAIL_BYTES:
            raise ClientError("Message too large", code="552 5.3.4")
    elif name == "BODY":  # RFC 6152
        if value.upper() not in ("7BIT", "8BITMIME"):
            raise ClientError("BODY must be 7BIT or 8BITMIME", code="501 5.5.4")
    elif name == "SMTPUTF8":  # RFC 6531
        if value:
            raise ClientError("SMTPUTF8 has no value", code="501 5.5.4")
    elif not (name == "AUTH" and may_log_in(session)):  # accepted, and not passed on (RFC 4954, 5)
        raise ClientError(f"Unsupported parameter {name[:20]}", code="555 5.5.4")


@app.handler("RCPT", when=("mail", "rcpt"), to="rcpt", otherwise="503 5.5.1 Send MAIL first")
def rcpt(words: linepool.Rest, session: Session, users: Users) -> Code:
    """Add a recipient: RCPT TO:<address>."""
    path, parameters = parsed(words, "TO", "501 5.1.3")
    if parameters:
        raise ClientError("RCPT takes no parameters", code="555 5.5.4")
    require_ascii(path, session)
    user = recipient(path, users)
    if user not in session["to"]:
        if len(session["to"]) >= MAX_RECIPIENTS:
            raise ClientError("Too many recipients", code="452 4.5.3")
        session["to"] = [*session["to"], user]
    session["only"] = str(path) if len(session["to"]) == 1 else ""
    return 250, "2.1.5 OK"


def recipient(path: Path, users: Users) -> str:
    """Return the user whose mailbox an address is."""
    if not path.local:
        raise ClientError("TO: the address is empty", code="501 5.1.3")
    if path.domain.lower() not in ("", DOMAIN.lower()):
        raise ClientError(f"This server has mail for {DOMAIN} only", code="550 5.7.1")
    if path.name.lower() == "postmaster":
        return users.postmaster
    user = users.named(path.name)
    if user is None:
        raise ClientError(f"No user {path} here", code="550 5.1.1")
    return user


@app.handler(
    "DATA",
    when="rcpt",
    to="greeted",
    fails_to="greeted",  # a refused mail is discarded too (RFC 5321, 4.1.1.4)
    otherwise="503 5.5.1 Send RCPT first",
    prompt="354 End with a dot on a line",
)
def data(mailboxes: Store, session: Session, message: bytes = linepool.body()) -> Code:
    """Receive the mail; it ends with a dot on a line by itself."""
    if _LONG_LINE.search(message):
        raise ClientError("A line is longer than 1000 bytes", code="554 5.6.0")
    head = message.partition(b"\r\n\r\n")[0]
    if len(_HOP.findall(head)) > MAX_HOPS:  # RFC 5321, 6.3
        raise ClientError("The mail goes round in a loop", code="554 5.4.6")
    mailboxes.deliver(session["to"], trace(session).encode() + message)
    return 250, "2.0.0 OK: it is in the mailbox"


def trace(session: Session) -> str:
    """Return the header lines of the final delivery (RFC 5321, 4.4)."""
    how = session["how"]
    if how == "ESMTP":  # RFC 3848; RFC 6531, 4.3
        how = "UTF8SMTP" if session["utf8"] else how
        how += "S" * (session.tls is not None) + "A" * (session.user is not None)
    address = session.peer.rpartition(":")[0].strip("[]")
    literal = f"IPv6:{address}" if ":" in address else address
    client = f" ([{literal}])" if address else ""  # a unix socket has none
    only = f" for <{session['only']}>" if session["only"] else ""
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime())
    return (
        f"Return-Path: <{session['from']}>\r\n"
        f"Received: from {session['host']}{client}\r\n"
        f"\tby {DOMAIN} with {how} id {session.id}{only};\r\n\t{date}\r\n"
    )


@app.handler("RSET")
def rset(session: Session) -> Code:
    """Discard the current mail."""
    if session.get("state") in GREETED:
        session["state"] = "greeted"
    return 250, "2.0.0 OK"


@app.handler("VRFY")
def vrfy(address: linepool.Rest) -> Code:
    """Reveal nothing about users."""
    return 252, "2.5.0 Send some mail, I will try"


@app.handler("EXPN")
def expn(name: linepool.Rest) -> Code:
    """Say that there are no lists."""
    raise ClientError("There are no mailing lists", code="502 5.5.1")


@app.handler("HELP")
def help_(command: linepool.Rest | None = None) -> tuple[int, list[str]]:
    """List the commands."""
    commands = "EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET VRFY NOOP HELP QUIT"
    return 214, ["2.0.0 " + commands, "2.0.0 RFC 5321 says what they do"]


if __name__ == "__main__":
    linepool.run(app)
