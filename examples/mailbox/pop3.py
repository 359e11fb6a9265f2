"""The POP3 server of the mailbox; see README.md in this folder."""

import sqlite3
from collections.abc import Iterator
from typing import Annotated

import sasl
from store import Maildrop, Message, Store, check, opened
from users import Users, may_log_in, read, users

import linepool
from linepool import ClientError, Login, Secret, Session

app = linepool.App(
    "pop3",
    protocol=linepool.Dialogue.pop3("+OK mailbox"),
    max_line_bytes=512,
    idle_timeout=600,  # at least ten minutes (RFC 1939, 3)
)
OPEN = "open"
Step = str | linepool.Ask

app.on_start(check)
app.on_start(read)
app.resource(users)


@app.resource
def store() -> Iterator[Store]:
    """Open the store in each worker: an SQLite connection must not cross a fork."""
    yield from opened()


@app.resource(scope="connection")
def maildrop(store: Store) -> Iterator[Maildrop]:
    """Unlock the mailbox, however the connection ends."""
    drop = Maildrop(store)
    yield drop
    drop.close()


@app.authenticate
def authenticate(user: str, password: Secret, users: Users) -> str | None:
    """Return the user of that name, or address, and password."""
    return users.logged_in(user, password)


@app.handler(public=True)
def capa(session: Session) -> list[str]:
    """List the supported extensions (RFC 2449)."""
    offered = ["USER", f"SASL {sasl.MECHANISMS}"] if may_log_in(session) else []
    if session.starttls and session.user is None:
        offered.append("STLS")
    always = ("TOP", "UIDL", "UTF8", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING")
    return [*offered, *always, "EXPIRE NEVER", "IMPLEMENTATION linepool"]


@app.handler(when="start", public=True)
def stls(session: Session) -> linepool.Reply:
    """Begin TLS (RFC 2595)."""
    if session.tls is not None or not session.starttls:
        raise ClientError("TLS is not available")
    return linepool.Reply("begin TLS", start_tls=True)


@app.handler(when="start", public=True)
def utf8(session: Session) -> str:
    """Allow headers beyond ASCII (RFC 6856, 2.1)."""
    session["utf8"] = True
    return "UTF-8 it is"


@app.handler(when="start", public=True)
def user(name: str, session: Session) -> str:
    """Name the user."""
    require_tls(session)
    session["name"] = name
    return "now the password"


@app.handler(when="start", to=OPEN, public=True)
def pass_(
    password: Annotated[linepool.Rest, Secret], session: Session, login: Login, maildrop: Maildrop
) -> str:
    """Check the password, and open the mailbox."""
    name = session.pop("name", None)
    if name is None:
        raise ClientError("say USER first")
    return enter(name, Secret(password), session, login, maildrop)


@app.handler(when="start", to=OPEN, public=True)
def auth(
    mechanism: str,
    session: Session,
    login: Login,
    maildrop: Maildrop,
    answers: linepool.Answers,
    initial: Secret | None = None,
) -> Step:
    """Log in by a mechanism of SASL, and open the mailbox (RFC 5034)."""
    require_tls(session)
    try:
        step = sasl.step(mechanism, initial, answers)
    except sasl.UnknownMechanismError:
        raise ClientError(f"the mechanisms are {sasl.MECHANISMS}") from None
    except ValueError:
        raise ClientError("that is not what the mechanism has", code="AUTH") from None
    if isinstance(step, str):
        return linepool.Ask(f"+ {step}")
    return enter(*step, session, login, maildrop)


def require_tls(session: Session) -> None:
    if not may_log_in(session):
        raise ClientError("a password needs TLS: say STLS first")


def enter(name: str, password: Secret, session: Session, login: Login, maildrop: Maildrop) -> str:
    """Log a user in, and open the mailbox."""
    login(name, password)
    if session.user is None or not maildrop.open(session.user):
        session.user = None
        raise ClientError("the mailbox is open elsewhere", code="IN-USE")
    return f"{len(maildrop.messages)} messages"


def chosen(maildrop: Maildrop, number: int) -> Message:
    """Return the message with a number."""
    message = maildrop.message(number)
    if message is None:
        raise ClientError("no such message")
    return message


def read_message(maildrop: Maildrop, message: Message, session: Session) -> bytes:
    """Return a message; one that came by SMTPUTF8 is for clients that have sent UTF8 (RFC 6856, 4)."""
    data = maildrop.data(message)
    head = data.partition(b"\r\n\r\n")[0]
    if not (session.get("utf8") or head.isascii()) and b" with UTF8SMTP" in head:
        raise ClientError("its header is UTF-8: send UTF8 before the log-in", code="UTF8")
    return data


@app.handler(when=OPEN)
def stat(maildrop: Maildrop) -> str:
    """Count the messages and their bytes."""
    found = maildrop.listed()
    return f"{len(found)} {sum(message.size for _, message in found)}"


@app.handler("LIST", when=OPEN)
def list_(maildrop: Maildrop, number: int | None = None) -> str | tuple[str, list[str]]:
    """List the sizes of the messages, or of one."""
    if number is not None:
        return f"{number} {chosen(maildrop, number).size}"
    found = maildrop.listed()
    return f"{len(found)} messages", [f"{at} {message.size}" for at, message in found]


@app.handler(when=OPEN)
def uidl(maildrop: Maildrop, number: int | None = None) -> str | tuple[str, list[str]]:
    """List the unique ids of the messages, or of one."""
    if number is not None:
        return f"{number} {chosen(maildrop, number).id}"
    return "unique ids", [f"{at} {message.id}" for at, message in maildrop.listed()]


@app.handler(when=OPEN)
def retr(number: int, maildrop: Maildrop, session: Session) -> tuple[str, bytes]:
    """Send a message."""
    message = chosen(maildrop, number)
    return f"{message.size} octets", read_message(maildrop, message, session)


@app.handler(when=OPEN)
def top(number: int, lines: int, maildrop: Maildrop, session: Session) -> tuple[str, bytes]:
    """Send a message's header and the first lines of its body."""
    if lines < 0:
        raise ClientError("lines must be 0 or more")
    data = read_message(maildrop, chosen(maildrop, number), session)
    head, gap, body = data.partition(b"\r\n\r\n")
    rows = body.split(b"\r\n", lines)[:lines]
    return "top", head + gap + b"".join(row + b"\r\n" for row in rows)


@app.handler(when=OPEN)
def dele(number: int, maildrop: Maildrop) -> str:
    """Mark a message as deleted."""
    chosen(maildrop, number)
    maildrop.mark(number)
    return f"message {number} will be deleted at QUIT"


@app.handler(when=OPEN)
def rset(maildrop: Maildrop) -> str:
    """Remove all deletion marks."""
    maildrop.unmark()
    return f"{len(maildrop.messages)} messages"


@app.handler(public=True)
def quit_(maildrop: Maildrop, connection: linepool.Connection) -> str:
    """Delete the marked messages, and close the connection (RFC 1939, 6)."""
    connection.close()
    try:
        maildrop.delete_marked()
    except sqlite3.Error:
        raise linepool.ServerError("no message was deleted") from None
    finally:
        maildrop.close()  # before the client reads the reply
    return "bye"


if __name__ == "__main__":
    linepool.run(app)
