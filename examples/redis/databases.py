"""Commands for whole databases, and for keys that move from one to another."""

from __future__ import annotations

from application import app
from client_notes import ClientNotes
from db import Db
from layout import DATABASES, parse_int

from linepool import ClientError, Connection, Resp, Session, Verb
from linepool.protocols.resp import OK, ClientId, Status
from linepool.protocols.resp.commands import reset as reset_protocol

_SYNTAX = "syntax error"
_NOT_INTEGER = "value is not an integer or out of range"
_SAME = "source and destination objects are the same"
_INT32 = range(-(2**31), 2**31)


def database(word: bytes, wrong: str = _NOT_INTEGER) -> int:
    """Return the number of a database.

    Raises:
        ClientError: There is none with it; ``wrong`` is the text if the word is not a number.
    """
    number = parse_int(word)
    if number is None:
        raise ClientError(wrong)
    if number not in _INT32:
        text = f"value is out of range, value must between {_INT32[0]} and {_INT32[-1]}"
        raise ClientError(text if wrong is _NOT_INTEGER else wrong)
    if not 0 <= number < DATABASES:
        raise ClientError("DB index is out of range")
    return number


@app.handler(flags="fast")
def select(
    index: bytes, db: Db, session: Session, client_id: ClientId, notes: ClientNotes
) -> Status:
    """Choose the database of this connection."""
    number = database(index)
    session["db"] = number
    notes.change(int(client_id), db=number)
    db.select(number)
    return OK


@app.handler(flags="noscript fast")
def reset(
    resp: Resp,
    session: Session,
    connection: Connection,
    db: Db,
    client_id: ClientId,
    notes: ClientNotes,
) -> Status:
    """Return to the state of a new connection."""
    session.pop("watched", None)
    session.pop("db", None)
    db.select(0)
    notes.change(int(client_id), name="", db=0, sub=0, psub=0, user="", resp=2)
    return reset_protocol(resp, session, connection)


@app.handler(flags="write fast")
def move(key: bytes, target: bytes, db: Db) -> int:
    """Move a key to another database, if it has none of that name."""
    number = database(target)
    if number == db.database:
        raise ClientError(_SAME)
    with db.write() as t:
        header = t.find(key)
        if header is None:
            return 0
        with t.within(number):
            if t.find(key):
                return 0
        t.unlink(header)
        with t.within(number):
            t.link(header, key)
        t.notify("move_from", key)
        with t.within(number):
            t.notify("move_to", key)
        return 1


@app.handler(flags="write denyoom", keys=(1, 2, 1))
def copy(key: bytes, target: bytes, *words: bytes, db: Db) -> int:
    """Copy a key's value: COPY key target [DB number] [REPLACE]."""
    number, replace = db.database, False
    options = list(words)
    while options:
        option = options.pop(0).upper()
        if option == b"REPLACE":
            replace = True
        elif option == b"DB" and options:
            number = database(options.pop(0))
        else:
            raise ClientError(_SYNTAX)
    if key == target and number == db.database:
        raise ClientError(_SAME)
    with db.write() as t:
        header = t.find(key)
        if header is None:
            return 0
        with t.within(number):
            if (old := t.find(target)) and not replace:
                return 0
            if old is not None:
                t.remove(old)
            t.link(t.copied(header), target)
            t.notify("copy_to", target)
        return 1


@app.handler(flags="write fast")
def swapdb(first: bytes, second: bytes, db: Db) -> Status:
    """Exchange the keys of two databases; connections stay with the number."""
    one = database(first, "invalid first DB index")
    other = database(second, "invalid second DB index")
    if one != other:
        with db.write() as t:
            t.swap(one, other)
    return OK


@app.handler(flags="readonly fast")
def dbsize(db: Db) -> int:
    """Count the keys."""
    with db.read() as t:
        return t.count()


@app.handler("FLUSHDB", "FLUSHALL", flags="write")
def flush(db: Db, verb: Verb, *modes: str) -> Status:
    """Delete all keys of the database; FLUSHALL: of all databases."""
    if len(modes) > 1 or (modes and modes[0].upper() not in ("SYNC", "ASYNC")):
        raise ClientError(_SYNTAX)
    with db.write() as t:
        if verb == "FLUSHALL":
            t.drop_all()
        else:
            t.drop_database()
    return OK
