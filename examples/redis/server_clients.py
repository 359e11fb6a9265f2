"""CLIENT: the connections of all workers, those that are parked among them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sockets
from application import app
from client_notes import ClientNotes
from key_store import Store
from layout import parse_int
from sockets import Socket
from unblocking import FAILED, TIMED_OUT, WAITS, unblock_topic

from linepool import ClientError, Reply, Resp, Session, SetupError, Waiters, server_status
from linepool.protocols.resp import OK, ClientId, Status, Verbatim
from linepool.protocols.resp import clients as resp_clients

_SYNTAX = "syntax error"
_KINDS = ("normal", "master", "replica", "pubsub")
_LONGEST_PAUSE_MS = 366 * 24 * 3600 * 1000
_NO_RIGHT = (
    "the kernel does not let this server end connections of its other processes"
    " (kernel.yama.ptrace_scope, or the limits of a container)"
)
_KEEP_AFTER = 4096  # notes: with more, those of clients that are no more are looked for


@app.resource
def notes() -> Iterator[ClientNotes]:
    """Open the notes about clients in each worker."""
    notes = ClientNotes(os.environ["REDIS_DIR"])
    yield notes
    notes.close()


class Client:
    """A connection, and what is known of its client."""

    def __init__(self, socket: Socket, facts: Mapping[str, Any]) -> None:
        self.socket = socket
        self.facts = facts

    @property
    def user(self) -> str:
        return str(self.facts.get("user") or "default")

    @property
    def kind(self) -> str:
        return "pubsub" if self.facts.get("sub") or self.facts.get("psub") else "normal"

    @property
    def age_s(self) -> int:
        """How long it has been connected, as far as is known."""
        begun = self.facts.get("at")
        known = int(time.time()) - begun if begun else 0
        return int(max(known, self.socket.idle_s))

    def described(self) -> str:
        """Return the line of CLIENT LIST."""
        one, facts = self.socket, self.facts
        shown = {
            "id": one.number,
            "addr": one.addr,
            "laddr": one.laddr,
            "fd": 0,
            "name": facts.get("name", ""),
            "age": self.age_s,
            "idle": one.idle_s,
            "flags": "P" if self.kind == "pubsub" else "N",
            "db": facts.get("db", 0),
            "sub": facts.get("sub", 0),
            "psub": facts.get("psub", 0),
            "ssub": 0,
            "multi": facts.get("multi", -1),
            "qbuf": one.unread_bytes,
            "qbuf-free": 0,
            "argv-mem": 0,
            "multi-mem": 0,
            "rbs": 0,
            "rbp": 0,
            "obl": 0,
            "oll": 0,
            "omem": one.unsent_bytes,
            "tot-mem": 0,
            "events": "r",
            "cmd": facts.get("cmd", "NULL"),
            "user": self.user,
            "redir": -1,
            "resp": facts.get("resp", 2),
            "lib-name": facts.get("lib-name", ""),
            "lib-ver": facts.get("lib-ver", ""),
        }
        return " ".join(f"{name}={value}" for name, value in shown.items())


def own_facts(resp: Resp, session: Session) -> dict[str, Any]:
    """Return what the connection itself knows."""
    return {
        "name": resp.name,
        "resp": resp.version,
        "db": session.get("db", 0),
        "user": session.user or "",
        "session": session.id,
    }


def _queued(resp: Resp) -> int:
    """Return how many commands are queued since MULTI; -1: there was none."""
    return -1 if resp.queue is None else len(resp.queue)


def _everyone(
    resp: Resp, session: Session, own: int, notes: ClientNotes, verb: str
) -> list[Client]:
    """Return all clients, by their numbers; the one that asks is there in any case."""
    try:
        addresses = [one["address"] for one in server_status()["listeners"]]
    except SetupError:
        addresses = []
    found = sockets.connections([*addresses, session.listener])
    known = notes.all()
    if len(known) > _KEEP_AFTER and found:
        notes.keep({one.number for one in found})
    if own not in {one.number for one in found}:
        found.append(Socket(own, 0, session.peer, session.listener))
    mine = {**known.get(own, {}), **own_facts(resp, session), "multi": _queued(resp), "cmd": verb}
    found.sort(key=lambda one: one.number)
    return [Client(one, mine if one.number == own else known.get(one.number, {})) for one in found]


@app.handler("CLIENT|INFO")
def describe_self(
    resp: Resp, session: Session, client_id: ClientId, notes: ClientNotes
) -> Verbatim:
    """Describe the connection."""
    own = int(client_id)
    notes.change(own, **own_facts(resp, session))
    socket = Socket(own, 0, session.peer, session.listener)
    facts = {**notes.of(own), "multi": _queued(resp), "cmd": "client|info"}
    return Verbatim(Client(socket, facts).described() + "\n")


@app.handler("CLIENT|LIST")
def list_clients(
    resp: Resp, session: Session, client_id: ClientId, notes: ClientNotes, *words: bytes
) -> Verbatim:
    """List the connections of all workers: all, or TYPE type, or ID number ..."""
    wanted = _selection(words)
    everyone = _everyone(resp, session, int(client_id), notes, "client|list")
    return Verbatim("".join(f"{one.described()}\n" for one in everyone if wanted(one)))


def _selection(words: tuple[bytes, ...]) -> Callable[[Client], bool]:
    """Return which clients the words of CLIENT LIST choose."""
    option = words[0].upper() if words else b""
    if not words:
        return lambda _one: True
    if option == b"TYPE" and len(words) == 2:
        kind = _kind(words[1])
        return lambda one: one.kind == kind
    if option == b"ID" and len(words) > 1:
        if not all(word.isdigit() for word in words[1:]):
            raise ClientError("Invalid client ID")
        numbers = set(map(int, words[1:]))
        return lambda one: one.socket.number in numbers
    raise ClientError(_SYNTAX)


def _kind(word: bytes) -> str:
    name = word.decode("utf-8", "replace")
    kind = "replica" if name.lower() == "slave" else name.lower()
    if kind not in _KINDS:
        raise ClientError(f"Unknown client type '{name}'")
    return kind


@app.handler("CLIENT|KILL")
def kill(
    resp: Resp, session: Session, client_id: ClientId, notes: ClientNotes, *words: bytes
) -> Status | int | Reply:
    """End connections of any worker.

    By the address of the client alone; or ID number, ADDR address, LADDR address, TYPE type, USER
    name, MAXAGE seconds, SKIPME yes or no.
    """
    if not words:
        raise ClientError("wrong number of arguments for 'client|kill' command")
    own = int(client_id)
    is_old = len(words) == 1
    pairs = [(b"ADDR", words[0]), (b"SKIPME", b"NO")] if is_old else _pairs(words)
    skips_me, conditions = _conditions(pairs)
    everyone = _everyone(resp, session, own, notes, "client|kill")
    doomed = [one for one in everyone if all(condition(one) for condition in conditions)]
    is_mine = any(one.socket.number == own for one in doomed) and not skips_me
    others = [one.socket for one in doomed if one.socket.number != own]
    try:
        ended = sockets.end(others)
    except PermissionError:
        raise ClientError(_NO_RIGHT) from None
    count = ended + is_mine
    if is_old and not count:
        raise ClientError("No such client")
    return Reply(OK if is_old else count, close=is_mine)


def _pairs(words: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
    if len(words) % 2:
        raise ClientError(_SYNTAX)
    return list(zip([word.upper() for word in words[::2]], words[1::2], strict=True))


def _conditions(
    pairs: list[tuple[bytes, bytes]],
) -> tuple[bool, list[Callable[[Client], bool]]]:
    """Return whether the own connection is left out, and the conditions that all must hold."""
    skips_me = True
    conditions: list[Callable[[Client], bool]] = []
    for option, value in pairs:
        text = value.decode("utf-8", "replace")
        if option == b"SKIPME" and text.lower() in ("yes", "no"):
            skips_me = text.lower() == "yes"
        else:
            conditions.append(_condition(option, text, value))
    return skips_me, conditions


def _condition(option: bytes, text: str, value: bytes) -> Callable[[Client], bool]:
    if option in (b"ID", b"MAXAGE"):
        if not text.isdigit() or int(text) < 1:
            what = "client-id" if option == b"ID" else "maxage"
            raise ClientError(f"{what} should be greater than 0")
        number = int(text)
        if option == b"ID":
            return lambda one: one.socket.number == number
        return lambda one: one.age_s >= number
    if option == b"ADDR":
        return lambda one: one.socket.addr == text
    if option == b"LADDR":
        return lambda one: one.socket.laddr == text
    if option == b"TYPE":
        kind = _kind(value)
        return lambda one: one.kind == kind
    if option == b"USER":
        if text != "default":
            raise ClientError(f"No such user '{text}'")
        return lambda one: one.user == text
    raise ClientError(_SYNTAX)


@app.handler("CLIENT|ID")
def get_id(resp: Resp, session: Session, client_id: ClientId, notes: ClientNotes) -> int:
    """Return the number of the connection."""
    notes.change(int(client_id), **own_facts(resp, session))
    return int(client_id)


@app.handler("CLIENT|UNBLOCK")
def unblock(
    number: int, store: Store, notes: ClientNotes, waiters: Waiters, reason: str = "TIMEOUT"
) -> int:
    """End the wait of a client's blocking command: as if its TIMEOUT was up, or with an ERROR."""
    if reason.upper() not in ("TIMEOUT", "ERROR"):
        raise ClientError("CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    client = str(notes.of(number).get("session", ""))
    if store.blocked[client] != WAITS:
        return 0
    store.blocked[client] = FAILED if reason.upper() == "ERROR" else TIMED_OUT
    waiters.publish(unblock_topic(client))
    return 1


@app.handler("CLIENT|SETNAME")
def set_name(
    resp: Resp, session: Session, client_id: ClientId, notes: ClientNotes, name: bytes
) -> Status:
    """Give the connection a name."""
    said = resp_clients.set_name(resp, name)
    notes.change(int(client_id), **own_facts(resp, session))
    return said


@app.handler("CLIENT|SETINFO")
def set_info(
    resp: Resp,
    session: Session,
    client_id: ClientId,
    notes: ClientNotes,
    attribute: bytes,
    value: bytes,
) -> Status:
    """Say which client library is used: LIB-NAME name or LIB-VER version."""
    name = resp_clients.check_info(attribute, value)
    notes.change(int(client_id), **own_facts(resp, session), **{name: value.decode()})
    return OK


@app.handler("CLIENT|PAUSE")
def pause(timeout: bytes, store: Store, mode: str = "ALL") -> Status:
    """Hold the commands that use keys, or those that write (WRITE), for some milliseconds."""
    milliseconds = parse_int(timeout)
    if milliseconds is None:
        raise ClientError("timeout is not an integer or out of range")
    if milliseconds < 0:
        raise ClientError("timeout is negative")
    if mode.upper() not in ("ALL", "WRITE"):
        raise ClientError("CLIENT PAUSE mode must be WRITE or ALL")
    store.pause.begin(min(milliseconds, _LONGEST_PAUSE_MS), reads_too=mode.upper() == "ALL")
    return OK


@app.handler("CLIENT|UNPAUSE")
def end_pause(store: Store) -> Status:
    """End a pause."""
    store.pause.end()
    return OK


@app.handler("CLIENT|TRACKING")
def track(mode: bytes, *options: bytes) -> Status:
    """Switch tracking OFF; it cannot be switched on."""
    if mode.upper() == b"OFF":
        return OK
    if mode.upper() == b"ON":
        raise ClientError("client tracking is not served")
    raise ClientError(_SYNTAX)


@app.handler("CLIENT|TRACKINGINFO")
def tracking_info() -> dict[str, Any]:
    """Say that tracking is off."""
    return {"flags": {"off"}, "redirect": -1, "prefixes": []}


@app.handler("CLIENT|CACHING")
def cache_next(mode: bytes) -> Status:
    """Refuse, for there is no tracking."""
    raise ClientError(
        "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT"
        " mode enabled"
    )


@app.handler("CLIENT|GETREDIR")
def tracking_target() -> int:
    """Say that tracking is off: -1."""
    return -1
