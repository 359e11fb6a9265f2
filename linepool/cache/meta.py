"""The meta commands over a store: mg, ms, md, ma and me (memcached's protocol.txt)."""

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
    number,
    renumbered,
)
from linepool.cache.store import Change, Item, OutOfMemory, Store
from linepool.errors import ClientError, ServerError
from linepool.protocols.memcache.meta import Flags, Meta
from linepool.session import body

_CHANGES = frozenset("NRTE")


@define
class _Seen:
    """What a change found out, for the reply."""

    item: Item | None = None
    code: str = ""
    created: bool = False
    won: bool = False


def mg(store: Store, key: bytes, flags: Flags) -> Meta:
    """Give an item, or what is asked about it; create, touch or claim it on the way."""
    now = time.time()
    seen = _Seen()
    (old,) = store.read((key,))
    if _CHANGES.isdisjoint(flags) and (old is None or not old.stale):
        seen.item = old
        if old is not None and "u" not in flags:
            note_read(store, key, old, now)
    else:
        item = _update(store, key, lambda old: _got(old, flags, now, seen))
        if seen.item is not None and item is not None:
            seen.item = evolve(seen.item, cas=item.cas)
    item = seen.item
    store.count("cmd_get")
    store.count("get_misses" if item is None or seen.created else "get_hits")
    if "T" in flags:
        store.count("cmd_touch")
        store.count("touch_misses" if item is None else "touch_hits")
    if item is None:
        return Meta("EN")
    token_sent = item.won and not seen.won
    marks = "Z" * token_sent + "X" * item.stale + "W" * seen.won
    data = item.data if "v" in flags else None
    return Meta("HD" if data is None else "VA", data, _answers(item, flags, now), marks)


def _got(old: Item | None, flags: Flags, now: float, seen: _Seen) -> Item | None:
    """Return the item after an mg that may change it; note what the reply shows."""
    item = old
    if item is None:
        if "N" not in flags:
            return None
        seen.created = seen.won = True
        item = fresh(b"", 0, expiry(int(flags["N"]), now), now)
        if "E" in flags:
            item = evolve(item, cas=int(flags["E"]))
        seen.item = evolve(item, won=True)
        return seen.item
    if "T" in flags:
        item = evolve(item, expires_at=expiry(int(flags["T"]), now))
    if not item.won:
        soon = "R" in flags and 0 < item.expires_at < expiry(int(flags["R"]), now)
        seen.won = item.stale or soon
    seen.item = evolve(item, won=item.won or seen.won)
    if "u" in flags:
        return seen.item
    return evolve(seen.item, fetched=True, last_access=int(now))


def _answers(item: Item, flags: Flags, now: float) -> dict[str, int]:
    """Return what the flags that ask for something get."""
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


def ms(store: Store, key: bytes, size: int, flags: Flags, data: bytes = body("size")) -> Meta:
    """Store an item, in one of the modes of the classic commands."""
    now = time.time()
    mode = flags.get("M", b"S").upper().decode()
    seen = _Seen(code="NS")

    def change(old: Item | None) -> Item | None:
        return _set(old, mode, flags, data, now, seen)

    store.count("cmd_set")
    seen.item = _update(store, key, change)
    answers = {"c": 0}  # what a failure has for a number
    if seen.code == "HD" and seen.item is not None:
        answers = _answers(seen.item, flags, now)
    answers = {letter: value for letter, value in answers.items() if letter in "cs"}
    return Meta(seen.code, answers=answers)


def _set(
    old: Item | None, mode: str, flags: Flags, data: bytes, now: float, seen: _Seen
) -> Item | None:
    """Return the item after an ms."""
    expires_at = expiry(int(flags.get("T", b"0")), now)
    stale = False
    if "C" in flags and mode != "E":
        if old is None:
            if mode in "SR":
                seen.code = "NF"
                return None
        elif old.cas != int(flags["C"]):
            # With I, an older number still stores, and marks the item as stale.
            if not ("I" in flags and int(flags["C"]) < old.cas):
                seen.code = "EX"
                return old
            stale = True
    if mode == "E" and old is not None:
        return old
    if mode in "APR" and old is None:
        if mode == "R" or "N" not in flags:
            return None
        expires_at = expiry(int(flags["N"]), now)
    seen.code = "HD"
    number = int(flags.get("E", b"0"))
    if mode in "AP" and old is not None:
        return evolve(extended(old, "prepend" if mode == "P" else "append", data), cas=number)
    client_flags = int(flags.get("F", b"0"))
    item = evolve(fresh(data, client_flags, expires_at, now), cas=number)
    return _as_stale_as(old, item) if stale and old is not None else item


def _as_stale_as(old: Item, item: Item) -> Item:
    """Return an item that is valid for no longer than the one that it replaces."""
    return evolve(item, stale=True, won=old.won, expires_at=old.expires_at)


def md(store: Store, key: bytes, flags: Flags) -> Meta:
    """Drop an item, or mark it as stale."""
    now = time.time()
    seen = _Seen(code="NF")

    def change(old: Item | None) -> Item | None:
        if old is None:
            return None
        if "C" in flags and old.cas != int(flags["C"]):
            seen.code = "EX"
            return old
        seen.code = "HD"
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

    store.update(key, change)
    store.count("delete_misses" if seen.code == "NF" else "delete_hits")
    return Meta(seen.code)


def ma(store: Store, key: bytes, flags: Flags) -> Meta:
    """Add to a number, or take from it; create it on the way."""
    now = time.time()
    up = flags.get("M", b"I") in (b"I", b"i", b"+")
    seen = _Seen(code="NF")

    def change(old: Item | None) -> Item | None:
        return _counted(old, flags, now, seen, up=up)

    seen.item = _update(store, key, change)
    if seen.code == NON_NUMERIC:
        raise ClientError(NON_NUMERIC.removeprefix("CLIENT_ERROR "))
    name = "incr" if up else "decr"
    store.count(f"{name}_misses" if seen.code == "NF" or seen.created else f"{name}_hits")
    if seen.code != "HD" or seen.item is None:
        return Meta(seen.code)
    answers = _answers(seen.item, flags, now)
    if "v" in flags:
        return Meta("VA", seen.item.data.rstrip(b" "), answers)
    return Meta("HD", None, answers)


def _counted(old: Item | None, flags: Flags, now: float, seen: _Seen, *, up: bool) -> Item | None:
    """Return the item after an ma."""
    cas = int(flags.get("E", b"0"))
    if old is None:
        if "N" not in flags:
            return None
        seen.code, seen.created = "HD", True
        first = b"%d" % int(flags.get("J", b"0"))
        return evolve(fresh(first, 0, expiry(int(flags["N"]), now), now), cas=cas)
    if "C" in flags and old.cas != int(flags["C"]):
        seen.code = "EX"
        return old
    value = number(old.data)
    if value is None:
        seen.code = NON_NUMERIC
        return old
    seen.code = "HD"
    item = renumbered(old, changed_by(value, int(flags.get("D", b"1")), up=up))
    if "T" in flags:
        item = evolve(item, expires_at=expiry(int(flags["T"]), now))
    return evolve(item, cas=cas)


def me(store: Store, key: bytes, flags: Flags) -> str | Meta:
    """Tell all about an item but its value."""
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
