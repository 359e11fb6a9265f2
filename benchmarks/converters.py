"""A nested record of ten fields, in and out: linepool beside cattrs, msgspec and pydantic by hand.

Prints processor time per value in microseconds, and the ratio to linepool's, in and out; all in one
process, in turns, the least of several rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import attrs
import cattrs
import msgspec
import pydantic

from linepool.handlers.structured import DEFAULT
from linepool.values import json_text


class Kind(Enum):
    CARD = "card"
    WIRE = "wire"


@attrs.frozen
class Party:
    name: str
    country: str


@attrs.frozen
class Item:
    sku: str
    price: Decimal


@attrs.frozen
class Payment:
    id: UUID
    at: datetime
    amount: Decimal
    kind: Kind
    payer: Party
    payee: Party
    items: list[Item]
    note: str | None
    retries: int
    urgent: bool


class PartyStruct(msgspec.Struct):
    name: str
    country: str


class ItemStruct(msgspec.Struct):
    sku: str
    price: Decimal


class PaymentStruct(msgspec.Struct):
    id: UUID
    at: datetime
    amount: Decimal
    kind: Kind
    payer: PartyStruct
    payee: PartyStruct
    items: list[ItemStruct]
    note: str | None
    retries: int
    urgent: bool


class PartyModel(pydantic.BaseModel):
    name: str
    country: str


class ItemModel(pydantic.BaseModel):
    sku: str
    price: Decimal


class PaymentModel(pydantic.BaseModel):
    id: UUID
    at: datetime
    amount: Decimal
    kind: Kind
    payer: PartyModel
    payee: PartyModel
    items: list[ItemModel]
    note: str | None
    retries: int
    urgent: bool


PAYMENT = Payment(
    UUID(int=7),
    datetime(2026, 1, 31, 12, tzinfo=UTC),
    Decimal("12.50"),
    Kind.CARD,
    Party("ann", "DE"),
    Party("bob", "FR"),
    [Item("a1", Decimal("2.50")), Item("b2", Decimal("10.00"))],
    None,
    2,
    False,
)
Codec = tuple[Callable[[bytes], Any], Callable[[Any], bytes]]


def by_linepool() -> Codec:
    convert = DEFAULT.conversion(Payment)
    return lambda text: convert(json_text.loads(text)), json_text.dumps


def by_cattrs() -> Codec:
    converter = cattrs.Converter()
    for kind in (UUID, Decimal):
        converter.register_structure_hook(kind, lambda value, kind: kind(value))
        converter.register_unstructure_hook(kind, str)
    converter.register_structure_hook(datetime, lambda value, _: datetime.fromisoformat(value))
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    return (
        lambda text: converter.structure(json.loads(text), Payment),
        lambda value: json.dumps(converter.unstructure(value)).encode(),
    )


def by_msgspec() -> Codec:
    return msgspec.json.Decoder(PaymentStruct).decode, msgspec.json.Encoder().encode


def by_pydantic() -> Codec:
    return PaymentModel.model_validate_json, lambda value: value.model_dump_json().encode()


WAYS: dict[str, Callable[[], Codec]] = {
    "linepool": by_linepool,
    "cattrs and json": by_cattrs,
    "msgspec Struct": by_msgspec,
    "pydantic model": by_pydantic,
}


def microseconds(call: Callable[[], Any], times: int) -> float:
    begin = time.process_time_ns()
    for _ in range(times):
        call()
    return (time.process_time_ns() - begin) / times / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--times", type=int, default=2000, help="values per round")
    options = parser.parse_args()
    text = json_text.dumps(PAYMENT)
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for name, make in WAYS.items():
        read, write = make()
        value = read(text)
        calls[name, "in"] = lambda read=read: read(text)  # type: ignore[misc]
        calls[name, "out"] = lambda write=write, value=value: write(value)  # type: ignore[misc]
    library, _ = json_text._library()
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(options.rounds):
        for key, call in calls.items():
            least[key] = min(least[key], microseconds(call, options.times))
    print(f"JSON text in linepool by {'json' if library is None else 'msgspec'}; {len(text)} bytes")
    print(f"{'':18}{'in, µs':>8}{'ratio':>7}{'out, µs':>9}{'ratio':>7}")
    for name in WAYS:
        into, out = least[name, "in"], least[name, "out"]
        ratios = into / least["linepool", "in"], out / least["linepool", "out"]
        print(f"{name:18}{into:8.1f}{ratios[0]:7.2f}{out:9.1f}{ratios[1]:7.2f}")


if __name__ == "__main__":
    main()
