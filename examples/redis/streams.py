"""Commands for the entries of streams."""

from __future__ import annotations

from collections.abc import Iterator

from application import app
from attrs import define
from db import Db
from layout import STREAM, parse_int
from stream_data import Stream
from stream_group import Group
from stream_ids import parse_bound, parse_id, parse_partial, shown

from linepool import ClientError, Verb
from linepool.protocols.resp import OK, NullArray, Status

_SYNTAX = "syntax error"
_NOT_INTEGER = "value is not an integer or out of range"
_MOST_NODES = 100  # that near trimming removes at once without LIMIT
_MOST_TRIMMED = 1_000_000  # likewise
Row = list[object]


def integer(word: bytes, complaint: str = _NOT_INTEGER) -> int:
    """Return an integer.

    Raises:
        ClientError: The word is not an integer.
    """
    number = parse_int(word)
    if number is None:
        raise ClientError(complaint)
    return number


def wrong_words(command: str) -> ClientError:
    """Return the error for words that a subcommand, such as ``XGROUP|CREATE``, does not have."""
    name, _, subcommand = command.partition("|")
    return ClientError(
        f"unknown subcommand or wrong number of arguments for '{subcommand}'. Try {name} HELP."
    )


def rows(entries: list[tuple[int, list[bytes]]]) -> list[Row]:
    """Return entries for a reply."""
    return [[shown(number), fields] for number, fields in entries]


def options_in(words: tuple[bytes, ...], *names: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the options of a command, in upper case, each with its value.

    Raises:
        ClientError: There is another one, or one without a value.
    """
    for at in range(0, len(words), 2):
        name = words[at].upper()
        if name not in names or at + 1 == len(words):
            raise ClientError(_SYNTAX)
        yield name, words[at + 1]


@define
class Trimming:
    """The options of XADD and XTRIM.

    Attributes:
        by: "MAXLEN", "MINID", or "" for none.
        threshold: The length or the ID.
        is_near: Only whole nodes of entries are removed.
        limit: The most entries that are removed; 0: all; None: not given.
        makes: The key is made if it does not exist.
        at: The position of the word behind the options.
    """

    by: str = ""
    threshold: int = 0
    is_near: bool = False
    limit: int | None = None
    makes: bool = True
    at: int = 0

    def parse(self, words: tuple[bytes, ...], *, adds: bool) -> None:
        """Read the options; those of XADD end before the ID.

        Raises:
            ClientError: An option is wrong.
        """
        while self.at < len(words):
            option = words[self.at].upper()
            has_more = self.at + 1 < len(words)
            if option in (b"MAXLEN", b"MINID") and has_more:
                self._parse_threshold(option.decode(), words)
            elif option == b"LIMIT" and has_more:
                self.limit = integer(words[self.at + 1])
                if self.limit < 0:
                    raise ClientError("The LIMIT argument must be >= 0.")
                self.at += 1
            elif adds and option == b"NOMKSTREAM":
                self.makes = False
            elif adds:
                break
            else:
                raise ClientError(_SYNTAX)
            self.at += 1

    def _parse_threshold(self, option: str, words: tuple[bytes, ...]) -> None:
        if self.by:
            raise ClientError(
                "syntax error, MAXLEN and MINID options at the same time are not compatible"
            )
        self.by = option
        self.is_near = words[self.at + 1] == b"~"
        if words[self.at + 1] in (b"~", b"=") and self.at + 2 < len(words):
            self.at += 1
        else:
            self.is_near = False
        self.at += 1
        if option == "MINID":
            self.threshold = parse_id(words[self.at])
            return
        self.threshold = integer(words[self.at])
        if self.threshold < 0:
            raise ClientError("The MAXLEN argument must be >= 0.")

    def check(self, *, adds: bool) -> None:
        """Raise ClientError for options that are missing, or exclude each other."""
        if self.limit and not self.by:
            raise ClientError(
                "syntax error, LIMIT cannot be used without specifying a trimming strategy"
            )
        if not adds and not self.by:
            raise ClientError("syntax error, XTRIM must be called with a trimming strategy")
        if self.limit is not None and not self.is_near:
            raise ClientError("syntax error, LIMIT cannot be used without the special ~ option")

    def apply(self, stream: Stream) -> int:
        """Remove the first entries; return how many."""
        if self.by == "MAXLEN":
            excess = max(0, stream.length - self.threshold)
            ids = stream.ids(count=self._removed(stream, excess))
        elif self.by and self.threshold:
            ids = stream.ids(last=self.threshold - 1)
            ids = ids[: self._removed(stream, len(ids))]
        else:
            return 0
        for number in ids:
            stream.delete(number)
        return len(ids)

    def _removed(self, stream: Stream, excess: int) -> int:
        """Return how many of the entries too many are removed; near ones only as whole nodes.

        Where nodes end depends on the entries ever added, as in Redis if none was deleted in the middle.
        """
        if not self.is_near:
            return excess
        node = stream.node_entries
        most = min(_MOST_NODES * node, _MOST_TRIMMED) if self.limit is None else self.limit
        most = min(excess, most) if most else excess
        if most == stream.length:
            return most
        ahead = (stream.entries_added - stream.length) % node
        return max(0, (ahead + most) // node * node - ahead)


@app.handler(flags="write denyoom fast")
def xadd(
    key: bytes, first: bytes, second: bytes, third: bytes, *more: bytes, db: Db
) -> bytes | None:
    """Add an entry: XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] n [LIMIT n]] *|id field value ..."""
    words = (first, second, third, *more)
    options = Trimming()
    options.parse(words, adds=True)
    wanted: int | None = None
    partial = False
    if options.at < len(words) and words[options.at] != b"*":
        wanted, partial = parse_partial(words[options.at])
    options.check(adds=True)
    fields = words[options.at + 1 :]
    if not fields or len(fields) % 2:
        raise ClientError("wrong number of arguments for 'xadd' command")
    if wanted == 0 and not partial:
        raise ClientError("The ID specified in XADD must be greater than 0-0")
    with db.write() as t:
        stream = Stream.made(t, key) if options.makes else Stream.find(t, key)
        if stream is None:
            return None
        number = stream.next_id(wanted, partial=partial)
        stream.append(number, fields)
        trimmed = options.apply(stream)
        stream.save()
        t.notify("xadd", key)
        if trimmed:
            t.notify("xtrim", key)
        Group.wake_all(stream)
    return shown(number)


@app.handler(flags="write")
def xtrim(key: bytes, first: bytes, second: bytes, *more: bytes, db: Db) -> int:
    """Remove the first entries: XTRIM key MAXLEN|MINID [=|~] n [LIMIT n]; return how many."""
    options = Trimming()
    options.parse((first, second, *more), adds=False)
    options.check(adds=False)
    with db.write() as t:
        stream = Stream.find(t, key)
        count = options.apply(stream) if stream else 0
        if stream and count:
            stream.save()
            t.notify("xtrim", key)
        return count


@app.handler(flags="readonly fast")
def xlen(key: bytes, db: Db) -> int:
    """Count the entries."""
    with db.read() as t:
        header = t.typed(key, STREAM)
        return header.count if header else 0


@app.handler("XRANGE", "XREVRANGE", flags="readonly")
def xrange_(
    key: bytes, start: bytes, end: bytes, *words: bytes, db: Db, verb: Verb
) -> list[Row] | NullArray:
    """Return the entries of an interval of IDs: XRANGE key start end [COUNT n]; XREVRANGE: backwards."""
    reverse = verb == "XREVRANGE"
    if reverse:
        start, end = end, start
    first, last = parse_bound(start, upper=False), parse_bound(end, upper=True)
    count: int | None = None
    for _, value in options_in(words, b"COUNT"):
        count = max(0, integer(value))
    with db.read() as t:
        stream = Stream.find(t, key)
        if stream is None:
            return []
        if count == 0:
            return NullArray()
        return rows(stream.entries(first, last, count, reverse=reverse))


@app.handler(flags="write fast")
def xdel(key: bytes, first: bytes, *more: bytes, db: Db) -> int:
    """Delete entries; return how many there were."""
    with db.write() as t:
        stream = Stream.find(t, key)
        if stream is None:
            return 0
        ids = [parse_id(one) for one in (first, *more)]
        deleted = [one for one in ids if stream.delete(one)]
        if deleted:
            stream.max_deleted_id = max(stream.max_deleted_id, *deleted)
            stream.save()
            t.notify("xdel", key)
        return len(deleted)


@app.handler(flags="write denyoom fast")
def xsetid(key: bytes, last_id: bytes, *words: bytes, db: Db) -> Status:
    """Set the last ID: XSETID key id [ENTRIESADDED n] [MAXDELETEDID id]."""
    last = parse_id(last_id)
    added: int | None = None
    deleted = 0
    for name, value in options_in(words, b"ENTRIESADDED", b"MAXDELETEDID"):
        if name == b"ENTRIESADDED":
            added = integer(value)
            if added < 0:
                raise ClientError("entries_added must be positive")
        else:
            deleted = parse_id(value)
            if last < deleted:
                raise ClientError(
                    "The ID specified in XSETID is smaller than the provided max_deleted_entry_id"
                )
    with db.write() as t:
        stream = Stream.find(t, key)
        if stream is None:
            raise ClientError("no such key")
        _check_last_id(stream, last, added)
        stream.last_id = last
        stream.entries_added = stream.entries_added if added is None else added
        stream.max_deleted_id = deleted or stream.max_deleted_id
        stream.save()
        t.notify("xsetid", key)
    return OK


def _check_last_id(stream: Stream, last: int, added: int | None) -> None:
    if last < stream.max_deleted_id:
        raise ClientError("The ID specified in XSETID is smaller than current max_deleted_entry_id")
    if not stream.length:
        return
    if last < stream.top_id():
        raise ClientError("The ID specified in XSETID is smaller than the target stream top item")
    if added is not None and added < stream.length:
        raise ClientError(
            "The entries_added specified in XSETID is smaller than the target stream length"
        )
