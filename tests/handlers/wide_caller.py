"""Calls every command of ``wide`` by the stub that is made of it, with types that are asserted.

It is given the address of the server.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Any, assert_type
from uuid import UUID

import pytest
import wide_client as wide
from wide_client import AsyncWideShopClient, Colour, Level, Node, Odd, Pair, WideShopClient

from linepool import ClientError, ServerError
from linepool.client import Pending

SCALARS = (
    *(1, 2.5, True, b"\xff\n", datetime(2026, 1, 31, tzinfo=UTC), time(12), timedelta(hours=1)),
    *(UUID(int=5), Fraction(1, 3), IPv4Address("192.0.2.1"), IPv6Network("2001:db8::/32")),
    *("key", Path("/tmp")),
)


def names(shop: WideShopClient) -> None:
    assert assert_type(shop.list(), list[str]) == ["a", "b"]
    assert assert_type(shop.set("k", b"\0 \xff", ex=1.5), str) == "k b'\\x00 \\xff' 1.5 False"
    assert shop.set("k", b"", nx=True).endswith("None True")
    assert assert_type(shop.date(date(2026, 1, 31)), date) == date(2026, 2, 1)
    assert shop.close_() == "closed"
    assert assert_type(shop.pipeline_(3), int) == 3
    assert shop.call_("x", 2) == "CALL x 2"
    assert assert_type(shop.class_(1, async_=True), list[Any]) == [1, 2, True]
    assert assert_type(shop.config_get(), dict[str, str]) == {"pattern": "*"}
    assert shop.config_get_() == 2
    assert assert_type(shop.command_2fa(1234), bool)
    assert shop.command(a=2, b=3) == 5
    shop.init()
    assert shop.größe(2) == 4.0
    assert shop.import_("x") == "x"


def parameters(shop: WideShopClient) -> None:
    shop.nothing()
    assert shop.anything({"a": [1, None]}) == {"a": [1, None]}
    assert assert_type(shop.mean(1, 2, 6), float) == 3.0
    assert shop.say(text="two  blanks") == "two  blanks"
    assert shop.say(2, text="x") == "xx"
    assert shop.put("a", data=b"one\ntwo\r\n\xff") == "a 10 5 b'one\\ntwo\\r\\n\\xff'"
    assert shop.put("a", 7, data=b"") == "a 0 7 b''"
    given = shop.defaults()
    assert given[:7] == ['say "hi"', "12.50", "GREEN", "HALF", "[1, 2]", "x", "0000"]
    assert given[7:] == ["None", "10", "None", "on", "90"]
    given = shop.defaults(
        *("ann", Decimal(1), Colour.RED, Odd.PAIR, [3], Node("y"), "1234", 5, 1, date(2026, 1, 31)),
        mode=None,
        text="",
    )
    assert given[:7] == ["ann", "1", "RED", "PAIR", "[3]", "y", "1234"]
    assert given[7:] == ["5", "1", "2026-01-31", "None", "0"]
    table = {"a": {"b": [Colour.RED, Level.HIGH, None]}}
    said = shop.keywords(needed=Path("/tmp"), another_parameter_with_a_long_name=table)
    assert said.startswith("a {'a': {'b': [<Colour.RED: 'red'>, <Level.HIGH: 2>, None]}}")
    assert shop.scalars(*SCALARS) == SCALARS


def classes(shop: WideShopClient) -> None:
    grown = assert_type(shop.grow(Node("leaf"), times=2), Node)
    assert grown.children[0].children == [Node("leaf")]
    assert grown.parent == Node("parent")
    box = shop.boxes(wide.Box_int(3, [1, 2]))
    assert (box.held, box.more) == (Node("3"), [None, None])
    filled = shop.filled(wide.Defaults(5))
    assert (filled.hidden, filled.made, filled.total, filled.pin) == (5, [7], 9, "0000")
    assert (filled.colour, filled.day, filled.data) == (
        Colour.GREEN,
        date(2026, 1, 31),
        b"\xff\"'\n",
    )
    assert (filled.wait, filled.box) == (timedelta(hours=1, seconds=0.5), wide.Box_int(3))
    assert "pin" not in repr(filled)
    assert assert_type(filled.list, list[int]) == [1, 2]
    named = wide.Named(second="b", int=1.5)
    assert shop.named(named) == named
    assert shop.pairs(Pair("a"), [Pair("b", 2)]) == [Pair("b", 2), Pair("a")]
    assert assert_type(shop.pair(), Pair) == Pair("tea", 2, date(2026, 1, 31))
    keys: wide.Keys = {"class": 1, "a-b": [{"class": 2, "x": "z"}], "x": "y"}
    assert assert_type(shop.keyed(keys), wide.Keys) == keys
    assert assert_type(shop.options({"depth": 0}, keys), wide.Options | None) is None
    assert shop.options({"colour": Colour.RED}, keys) == {"colour": Colour.RED}
    assert shop.shapes(wide.Circle("circle", 1.5)) == wide.Circle("circle", 1.5)
    assert shop.shapes({"type": "square"}) == {"type": "square", "side-length": 1.5}
    model = shop.modelled({"_id": 3, "shade": Colour.GREEN, "nested": {"_id": 4}})
    assert (model["_id"], model.get("shade"), model.get("tags")) == (3, Colour.GREEN, set())
    pets = assert_type(
        shop.pets(wide.Cat("cat"), wide.Dog("dog", "rex")), list[wide.Cat | wide.Dog]
    )
    assert pets == [wide.Cat("cat", 9), wide.Dog("dog", "rex")]
    assert shop.counted(("tea", 2), "a") == (("tea", 2), "a")
    both = shop.commanded(wide.Command("a", Decimal(1)), wide.WideShop(3))
    assert assert_type(both, tuple[wide.Command, wide.WideShop])[1].x == 3


def results(shop: WideShopClient) -> None:
    table = shop.tables({1: Decimal("1.5"), 2: Decimal(2)}, {UUID(int=1): {1, 2}}, {"red": 4})
    assert assert_type(table, dict[int, Decimal]) == {3: Decimal(6)}
    assert assert_type(shop.unique({1, 2}), set[int]) == {1, 2}
    assert assert_type(shop.photo(), bytes) == b"a\n\xff"
    assert assert_type(shop.either(0), int | list[int] | None) is None
    assert (shop.either(-1), shop.either(1)) == (-1, [1])
    assert assert_type(shop.found("12"), Decimal | None) == Decimal(12)
    assert shop.found("x") is None
    assert_type(shop.nodes(2), Iterator[Node])
    assert [one.name for one in shop.nodes(2)] == ["2", "1"]
    assert list(assert_type(shop.countdown(3), Iterator[int])) == [3, 2, 1]
    assert list(shop.rows()) == [("a", Colour.RED), ("b", Colour.GREEN)]
    assert list(shop.untyped()) == [1]


def errors(shop: WideShopClient) -> None:
    with pytest.raises(ClientError, match="not so") as not_so:
        shop.fails("client")
    assert not_so.value.code == 404
    with pytest.raises(ServerError) as failed:
        shop.fails("server")
    assert failed.value.id
    with shop.pipeline() as pipeline:
        node = assert_type(pipeline.grow(Node("leaf")), Pending[Node])
        wrong = pipeline.fails("client")
        nodes = assert_type(pipeline.nodes(2), Pending[list[Node]])
        done = assert_type(pipeline.nothing(), Pending[None])
        block = pipeline.put("a", data=b"x\ny")
    assert (node.result().name, [one.name for one in nodes.result()]) == ("root", ["2", "1"])
    assert (done.result(), block.result()) == (None, "a 3 5 b'x\\ny'")
    with pytest.raises(ClientError, match="not so"):
        wrong.result()


async def asynchronous(address: str) -> None:
    async with AsyncWideShopClient(address) as shop:
        assert assert_type(await shop.list(), list[str]) == ["a", "b"]
        await shop.nothing()
        assert await shop.scalars(*SCALARS) == SCALARS
        assert await shop.put("a", data=b"x\ny") == "a 3 5 b'x\\ny'"
        assert assert_type(await shop.either(1), int | list[int] | None) == [1]
        assert [one async for one in assert_type(shop.nodes(1), AsyncIterator[Node])] == [Node("1")]
        async with shop.pipeline() as pipeline:
            pair = assert_type(pipeline.pair(), Pending[Pair])
        assert pair.result().name == "tea"


def main(address: str) -> None:
    with WideShopClient(address, timeout=20) as shop:
        for check in (names, parameters, classes, results, errors):
            check(shop)
        assert shop.with_options(timeout=5).größe(1) == 2.0
    asyncio.run(asynchronous(address))
    print("all called")


if __name__ == "__main__":
    main(sys.argv[1])
