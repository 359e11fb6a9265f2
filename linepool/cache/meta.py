"""The meta commands of memcached over a store: mg, ms, md, ma and me (protocol.txt)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import define, evolve

from linepool.cache.classic import (
    NON_NUMERIC,
    changed_by,
    expiry,
    extended,
    fresh,
    note_read,
    parse_counter,
    renumbered,
)
from linepool.cache.store import Change, Item, OutOfMemory, Store
from linepool.errors import ClientError, ServerError
from linepool.protocols.memcache.meta import Flags, Meta
from linepool.session import body

_CHANGING_FLAGS = frozenset("NRTE")  # with any of them, mg may change the item


@define
class _Outcome:
    """What a change did, for the reply.

    Attributes:
        item: The item to show, or None.
        code: The code of the reply.
        created: The item was absent.
        won: This client is asked to recache the item (flag W).
    """

    item: Item | None = None
    code: str = ""
    created: bool = False
    won: bool = False


def mg(store: Store, key: bytes, flags: Flags) -> Meta:
    """Return an item, or facts about it; create, touch or claim it if the flags say so."""
    now = time.time()
    outcome = _Outcome()
    (old,) = store.read((key,))
    if _CHANGING_FLAGS.isdisjoint(flags) and (old is None or not old.stale):
        outcome.item = old
        if old is not None and "u" not in flags:
            note_read(store, key, old, now)
    else:
        item = _update(store, key, lambda old: _got(old, flags, now, outcome))
        if outcome.item is not None and item is not None:
            outcome.item = evolve(outcome.item, cas=item.cas)
    item = outcome.item
    store.count("cmd_get")
    store.count("get_misses" if item is None or outcome.created else "get_hits")
    if "T" in flags:
        store.count("cmd_touch")
        store.count("touch_misses" if item is None else "touch_hits")
    if item is None:
        return Meta("EN")
    token_sent = item.won and not outcome.won
    marks = "Z" * token_sent + "X" * item.stale + "W" * outcome.won
    data = item.data if "v" in flags else None
    return Meta("HD" if data is None else "VA", data, _answers(item, flags, now), marks)


def _got(old: Item | None, flags: Flags, now: float, outcome: _Outcome) -> Item | None:
    """Return the item after an mg that may change it; note the outcome."""
    item = old
    if item is None:
        if "N" not in flags:
            return None
        outcome.created = outcome.won = True
        item = fresh(b"", 0, expiry(int(flags["N"]), now), now)
        if "E" in flags:
            item = evolve(item, cas=int(flags["E"]))
        outcome.item = evolve(item, won=True)
        return outcome.item
    if "T" in flags:
        item = evolve(item, expires_at=expiry(int(flags["T"]), now))
    if not item.won:
        soon = "R" in flags and 0 < item.expires_at < expiry(int(flags["R"]), now)
        outcome.won = item.stale or soon
    outcome.item = evolve(item, won=item.won or outcome.won)
    if "u" in flags:
        return outcome.item
    return evolve(outcome.item, fetched=True, last_access=int(now))


def _answers(item: Item, flags: Flags, now: float) -> dict[str, int]:
    """Return the numbers for the flags that ask for one."""
    answers: dict[str, int] = {}
    for letter in flags:
        if letter == "s":
            answers["s"] = len(item.data)
        elif letter == "t":
            answers["t"] = item.expires_at - int(now) if item.expires_at else -1
        elif letter == "c":
            answers["c"] = item.cas
        elif letter == "f":
            answers["f"] = item.flags
        elif letter == "l":
            answers["l"] = max(0, int(now) - item.last_access)
        elif letter == "h":
            answers["h"] = int(item.fetched)
    return answers


def ms(batch: Store, key: bytes, size: int, flags: Flags, data: bytes = body("size")) -> Meta:
    """Store an item in the mode of one of the classic commands."""
    now = time.time()
    mode = flags.get("M", b"S").upper().decode()
    outcome = _Outcome(code="NS")

    def change(old: Item | None) -> Item | None:
        return _set(old, mode, flags, data, now, outcome)

    batch.count("cmd_set")
    outcome.item = _update(batch, key, change)
    answers = {"c": 0}  # the unique number in the reply to a failure
    if outcome.code == "HD" and outcome.item is not None:
        answers = _answers(outcome.item, flags, now)
    answers = {letter: value for letter, value in answers.items() if letter in "cs"}
    return Meta(outcome.code, answers=answers)


def _set(
    old: Item | None, mode: str, flags: Flags, data: bytes, now: float, outcome: _Outcome
) -> Item | None:
    """Return the item after an ms; note the outcome."""
    expires_at = expiry(int(flags.get("T", b"0")), now)
    stale = False
    if "C" in flags and mode != "E":
        if old is None:
            if mode in "SR":
                outcome.code = "NF"
                return None
        elif old.cas != int(flags["C"]):
            # With I, an item with an older number is still stored, and marked as stale.
            if not ("I" in flags and int(flags["C"]) < old.cas):
                outcome.code = "EX"
                return old
            stale = True
    if mode == "E" and old is not None:
        return old
    if mode in "APR" and old is None:
        if mode == "R" or "N" not in flags:
            return None
        expires_at = expiry(int(flags["N"]), now)
    outcome.code = "HD"
    cas = int(flags.get("E", b"0"))
    if mode in "AP" and old is not None:
        return evolve(extended(old, "prepend" if mode == "P" else "append", data), cas=cas)
    client_flags = int(flags.get("F", b"0"))
    item = evolve(fresh(data, client_flags, expires_at, now), cas=cas)
    return _as_stale_as(old, item) if stale and old is not None else item


def _as_stale_as(old: Item, item: Item) -> Item:
    """Return an item that is stale and expires with the one that it replaces."""
    return evolve(item, stale=True, won=old.won, expires_at=old.expires_at)


def md(batch: Store, key: bytes, flags: Flags) -> Meta:
    """Delete an item, or mark it as stale."""
    now = time.time()
    outcome = _Outcome(code="NF")

    def change(old: Item | None) -> Item | None:
        if old is None:
            return None
        if "C" in flags and old.cas != int(flags["C"]):
            outcome.code = "EX"
            return old
        outcome.code = "HD"
        if "I" not in flags and "x" not in flags:
            return None
        item = old
        if "T" in flags:
            item = evolve(item, expires_at=expiry(int(flags["T"]), now))
        if "x" in flags:
            item = evolve(item, data=b"", flags=0)
        if "I" in flags:
            item = evolve(item, stale=True, won=False)
        return evolve(item, cas=int(flags.get("E", b"0")))

    batch.update(key, change)
    batch.count("delete_misses" if outcome.code == "NF" else "delete_hits")
    return Meta(outcome.code)


def ma(batch: Store, key: bytes, flags: Flags) -> Meta:
    """Add to a number, or subtract from it; create it if the flags say so."""
    now = time.time()
    up = flags.get("M", b"I") in (b"I", b"i", b"+")
    outcome = _Outcome(code="NF")

    def change(old: Item | None) -> Item | None:
        return _counted(old, flags, now, outcome, up=up)

    outcome.item = _update(batch, key, change)
    if outcome.code == NON_NUMERIC:
        raise ClientError(NON_NUMERIC.removeprefix("CLIENT_ERROR "))
    name = "incr" if up else "decr"
    batch.count(f"{name}_misses" if outcome.code == "NF" or outcome.created else f"{name}_hits")
    if outcome.code != "HD" or outcome.item is None:
        return Meta(outcome.code)
    answers = _answers(outcome.item, flags, now)
    if "v" in flags:
        return Meta("VA", outcome.item.data.rstrip(b" "), answers)
    return Meta("HD", None, answers)


def _counted(
    old: Item | None, flags: Flags, now: float, outcome: _Outcome, *, up: bool
) -> Item | None:
    """Return the item after an ma; note the outcome."""
    cas = int(flags.get("E", b"0"))
    if old is None:
        if "N" not in flags:
            return None
        outcome.code, outcome.created = "HD", True
        first = b"%d" % int(flags.get("J", b"0"))
        return evolve(fresh(first, 0, expiry(int(flags["N"]), now), now), cas=cas)
    if "C" in flags and old.cas != int(flags["C"]):
        outcome.code = "EX"
        return old
    value = parse_counter(old.data)
    if value is None:
        outcome.code = NON_NUMERIC
        return old
    outcome.code = "HD"
    item = renumbered(old, changed_by(value, int(flags.get("D", b"1")), up=up))
    if "T" in flags:
        item = evolve(item, expires_at=expiry(int(flags["T"]), now))
    return evolve(item, cas=cas)


def me(store: Store, key: bytes, flags: Flags) -> str | Meta:
    """Return all facts about an item, without its value."""
    now = int(time.time())
    (item,) = store.read((key,))
    if item is None:
        return Meta("EN")
    left = item.expires_at - now if item.expires_at else -1
    fetched = "yes" if item.fetched else "no"
    shown = flags.key.decode("latin-1")
    return (
        f"ME {shown} exp={left} la={max(0, now - item.last_access)} cas={item.cas}"
        f" fetch={fetched} cls=1 size={len(key) + len(item.data)}"
    )


def _update(store: Store, key: bytes, change: Change) -> Item | None:
    try:
        return store.update(key, change)
    except OutOfMemory:
        raise ServerError("out of memory storing object") from None


HANDLERS: dict[tuple[str, ...], Callable[..., Any]] = {
    ("mg",): mg,
    ("ms",): ms,
    ("md",): md,
    ("ma",): ma,
    ("me",): me,
}
