"""SORT: the elements of a list or set in an order that other keys may give."""

from __future__ import annotations

import math
from typing import Any

from application import app
from attrs import define, field
from db import Db
from layout import HASH, LIST, SET, STRING, ZSET, parse_int
from transaction import Txn

from linepool import ClientError

_SYNTAX = "syntax error"


@define
class Order:
    """The options of a SORT.

    Attributes:
        by: The pattern of the keys by whose values elements are sorted; None: by themselves.
        get: The patterns of the keys whose values are returned; ``#``: the element.
        start: The first element that is returned.
        count: How many are returned; negative: all.
    """

    by: bytes | None = None
    get: list[bytes] = field(factory=list)
    start: int = 0
    count: int = -1
    desc: bool = False
    alpha: bool = False
    store: bytes | None = None

    def parse(self, words: tuple[bytes, ...], *, may_store: bool) -> None:
        """Read the options; raises ClientError."""
        left = list(words)
        while left:
            option = left.pop(0).upper()
            if option in (b"ASC", b"DESC"):
                self.desc = option == b"DESC"
            elif option == b"ALPHA":
                self.alpha = True
            elif option == b"LIMIT" and len(left) >= 2:
                numbers = [parse_int(word) for word in left[:2]]
                if numbers[0] is None or numbers[1] is None:
                    raise ClientError("value is not an integer or out of range")
                self.start, self.count = numbers[0], numbers[1]
                del left[:2]
            elif option == b"BY" and left:
                self.by = left.pop(0)
            elif option == b"GET" and left:
                self.get.append(left.pop(0))
            elif option == b"STORE" and left and may_store:
                self.store = left.pop(0)
            else:
                raise ClientError(_SYNTAX)

    @property
    def is_by_nothing(self) -> bool:
        """Whether the elements keep their order: the pattern names one key for all of them."""
        return self.by is not None and b"*" not in self.by

    def limited(self, elements: list[bytes]) -> list[bytes]:
        """Return the elements within the limits."""
        start = max(0, self.start)
        return elements[start:] if self.count < 0 else elements[start : start + self.count]

    def sorted(self, t: Txn, elements: list[bytes]) -> list[bytes]:
        """Return the elements in order; raises ClientError if they must be numbers, and are not."""
        weights = {one: one if self.by is None else looked_up(t, self.by, one) for one in elements}
        if self.alpha:
            ranks: dict[bytes, Any] = {
                one: (weight is not None, weight or b"") for one, weight in weights.items()
            }
        else:
            ranks = {one: (number(weight), one) for one, weight in weights.items()}
        return sorted(elements, key=ranks.__getitem__, reverse=self.desc)


def number(text: bytes | None) -> float:
    """Return the number in a text, 0 if there is none.

    Raises:
        ClientError: It has something else.
    """
    if not text:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    is_too_large = math.isinf(value) and b"inf" not in text.lower()
    if math.isnan(value) or is_too_large or b"_" in text or text != text.rstrip():
        raise ClientError("One or more scores can't be converted into double")
    return value


def looked_up(t: Txn, pattern: bytes, element: bytes) -> bytes | None:
    """Return the value of the key, or the field ``key->field``, that a pattern names for an element."""
    if pattern == b"#":
        return element
    before, star, after = pattern.partition(b"*")
    if not star:
        return None
    name, arrow, field_name = after.partition(b"->")
    if not field_name:
        name, arrow = after, b""
    header = t.find(before + element + name)
    if header is None or header.kind != (HASH if arrow else STRING):
        return None
    return t.get(header, field_name) if arrow else header.value


def elements_of(t: Txn, key: bytes) -> list[bytes]:
    """Return the elements of a list, a set or a sorted set; of the latter in the order of the scores."""
    header = t.find(key)
    if header is None:
        return []
    if header.kind == SET:
        return sorted(t.members(header))
    if header.kind == ZSET:
        return [member for member, _ in t.ranked(header)]
    header = t.typed(key, LIST)
    assert header is not None
    return t.slice(header, 0, header.count - 1)


def in_order(t: Txn, key: bytes, order: Order) -> list[bytes | None]:
    """Return what a SORT returns."""
    elements = elements_of(t, key)
    if not order.is_by_nothing:
        elements = order.sorted(t, elements)
    elif order.desc:
        elements.reverse()
    found = order.limited(elements)
    if not order.get:
        return list(found)
    return [looked_up(t, pattern, one) for one in found for pattern in order.get]


@app.handler("SORT", flags="write denyoom")
def sort(key: bytes, *words: bytes, db: Db) -> list[bytes | None] | int:
    """Sort: SORT key [BY pattern] [LIMIT start count] [GET pattern ...] [DESC] [ALPHA] [STORE target]."""
    order = Order()
    order.parse(words, may_store=True)
    if order.store is None:
        with db.read() as t:
            return in_order(t, key, order)
    with db.write() as t:
        found = in_order(t, key, order)
        header = t.emptied(order.store, LIST)
        t.replace_list(header, [one or b"" for one in found])
        t.save(header)
        if found:
            t.notify("sortstore", order.store)
            t.came(header, len(found))
    return len(found)


@app.handler(flags="readonly")
def sort_ro(key: bytes, *words: bytes, db: Db) -> list[bytes | None]:
    """Sort a list or a set without STORE."""
    order = Order()
    order.parse(words, may_store=False)
    with db.read() as t:
        return in_order(t, key, order)
