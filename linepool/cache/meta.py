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
    parse_counter,
    renumbered,
)
from linepool.cache.store import Change, Item, OutOfMemory, Store
from linepool.errors import ClientError, ServerError
from linepool.protocols.memcache.meta import Flags, Meta
from linepool.session import body

_CHANGING_FLAGS = frozenset("NRT")  # with any of them, mg may change the item


@define
class _Outcome:
    """What a change did, for the reply.

    Attributes:
        item: The item to show, or None.
        code: The code of the reply.
        created: The item was absent.
        won: This client is asked to recache the item (flag W).
        expired_at: When the item expired before; flags in front of T and N see that.
    """

    item: Item | None = None
    code: str = ""
    created: bool = False
    won: bool = False
    expired_at: int | None = None


def mg(store: Store, key: bytes, flags: Flags) -> Meta:
    """Return an item, or facts about it; create, touch or claim it if the flags say so."""
    now = time.time()
    outcome = _looked_up(store, key, flags, now)
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
    is_known = "C" in flags and item.cas == int(flags["C"])  # the client has this value
    data = item.data if "v" in flags and not is_known else None
    return Meta("HD" if data is None else "VA", data, _answers(item, flags, now, outcome), marks)


def _looked_up(store: Store, key: bytes, flags: Flags, now: float) -> _Outcome:
    """Find the item of an mg, and change it if the flags or its state say so."""
    outcome = _Outcome()
    item = None
    if _CHANGING_FLAGS.isdisjoint(flags):
        (item,) = store.read((key,)) if "u" in flags else store.fetch((key,), int(now))
        if item is None or item.won or not item.stale:
            outcome.item = item
            return outcome
    changed = _update(store, key, lambda old: _got(old, flags, now, outcome))
    if outcome.item is not None and changed is not None:
        outcome.item = evolve(outcome.item, cas=changed.cas)
        if item is not None:  # as it was before this command
            outcome.item = evolve(outcome.item, fetched=item.fetched, last_access=item.last_access)
    return outcome


def _got(old: Item | None, flags: Flags, now: float, outcome: _Outcome) -> Item | None:
    """Return the item after an mg that may change it; note the outcome."""
    item = old
    if item is None:
        if "N" not in flags:
            return None
        outcome.created = outcome.won = True
        outcome.expired_at = 0
        item = fresh(b"", 0, _expiry(flags, outcome, now), now)
        if "E" in flags:
            item = evolve(item, cas=int(flags["E"]))
        outcome.item = evolve(item, won=True)
        return evolve(outcome.item, fetched="u" not in flags)
    outcome.expired_at = item.expires_at
    is_soon = False
    for letter in flags:
        if letter == "T":
            item = evolve(item, expires_at=expiry(int(flags["T"]), now))
        elif letter == "R":
            is_soon = 0 < item.expires_at < expiry(int(flags["R"]), now)
    if not item.won:
        outcome.won = item.stale or is_soon
    outcome.item = evolve(item, won=item.won or outcome.won)
    if "u" in flags:
        return outcome.item
    return evolve(outcome.item, fetched=True, last_access=int(now))


def _expiry_after(letter: str, flags: Flags, expires_at: int, created: bool, now: float) -> int:
    """Return when an item expires after a flag: T sets that, and so does N if it has created the item."""
    if letter == "T" or (letter == "N" and created):
        return expiry(int(flags[letter]), now)
    return expires_at


def _expiry(flags: Flags, outcome: _Outcome, now: float) -> int:
    """Return when an item expires after all flags."""
    expires_at = outcome.expired_at or 0
    for letter in flags:
        expires_at = _expiry_after(letter, flags, expires_at, outcome.created, now)
    return expires_at


def _answers(
    item: Item, flags: Flags, now: float, outcome: _Outcome | None = None
) -> dict[str, int]:
    """Return the numbers for the flags that ask for one; t sees what the flags in front of it have done."""
    answers: dict[str, int] = {}
    expires_at = item.expires_at
    if outcome is not None and outcome.expired_at is not None:
        expires_at = outcome.expired_at
    for letter in flags:
        if outcome is not None and letter in "TN":
            expires_at = _expiry_after(letter, flags, expires_at, outcome.created, now)
        elif letter == "s":
            answers["s"] = len(item.data)
        elif letter == "t":
            answers["t"] = expires_at - int(now) if expires_at else -1
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
    answers = {"c": 0, "s": len(data)}  # in the reply to a failure
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
            if not (mode in "SR" and "I" in flags and int(flags["C"]) < old.cas):
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
        return evolve(extended(old, "prepend" if mode == "P" else "append", data, now), cas=cas)
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
        return _left(old, flags, now)

    batch.update(key, change)
    if outcome.code != "HD":
        batch.count("delete_misses")
    elif "I" not in flags:
        batch.count("delete_hits")
    return Meta(outcome.code)


def _left(item: Item, flags: Flags, now: float) -> Item:
    """Return what an md with the flags I or x leaves of an item."""
    cas = int(flags.get("E", b"0"))
    if "x" in flags:
        cas = cas or item.cas
        item = Item(b"", 0, 0, cas, item.last_access)
    if "T" in flags:
        item = evolve(item, expires_at=expiry(int(flags["T"]), now))
    if "I" in flags:
        item = evolve(item, stale=True, won=False, cas=int(flags.get("E", b"0")))
    return item


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
    if outcome.code == "NF":
        batch.count(f"{name}_misses")
    elif outcome.code == "HD" and not outcome.created:
        batch.count(f"{name}_hits")
    if outcome.code != "HD" or outcome.item is None:
        return Meta(outcome.code)
    answers = _answers(outcome.item, flags, now, outcome)
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
        outcome.code, outcome.created, outcome.expired_at = "HD", True, 0
        first = b"%d" % int(flags.get("J", b"0"))
        return evolve(fresh(first, 0, _expiry(flags, outcome, now), now), cas=cas)
    if old.data and "C" in flags and old.cas != int(flags["C"]):
        outcome.code = "EX"
        return old
    value = parse_counter(old.data)
    if value is None:
        outcome.code = NON_NUMERIC
        return old
    outcome.code, outcome.expired_at = "HD", old.expires_at
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
        store.count("store_no_memory")
        raise ServerError("out of memory storing object") from None


HANDLERS: dict[tuple[str, ...], Callable[..., Any]] = {
    ("mg",): mg,
    ("ms",): ms,
    ("md",): md,
    ("ma",): ma,
    ("me",): me,
}
