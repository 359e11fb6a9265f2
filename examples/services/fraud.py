"""Fraud scoring: a payment goes in as JSON, a score comes out, for one payment or for many.

    linepool run examples/services/fraud.py --bind 127.0.0.1:7000

The classes are the service's types: linepool checks what comes in against them, names the field that is
wrong, and writes what goes out. `linepool schema` shows them as JSON Schema.
"""

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from enum import Enum

from attrs import field, frozen

import linepool

app = linepool.App("fraud", protocol=linepool.Line(records="json"), max_line_bytes=1_000_000)


class Country(Enum):
    GERMANY = "de"
    FRANCE = "fr"
    SPAIN = "es"


class Verdict(Enum):
    ACCEPT = "accept"
    REVIEW = "review"
    REFUSE = "refuse"


@frozen
class Card:
    country: Country
    issued: date


@frozen
class Item:
    name: str
    price: Decimal
    count: int = 1


@frozen
class Payment:
    at: datetime
    ships_to: Country
    card: Card
    items: list[Item] = field(factory=list)

    @property
    def amount(self) -> Decimal:
        return sum((item.price * item.count for item in self.items), Decimal(0))


@frozen
class Score:
    verdict: Verdict
    points: int
    amount: Decimal
    reasons: list[str]


def reasons_for(payment: Payment) -> Iterator[tuple[int, str]]:
    """Yield what speaks against a payment, with its weight."""
    if payment.amount >= 1000:
        yield 30, f"amount {payment.amount}"
    if payment.card.country != payment.ships_to:
        yield 40, f"card from {payment.card.country.value}, ships to {payment.ships_to.value}"
    if (payment.at.date() - payment.card.issued).days < 7:
        yield 20, "new card"
    if payment.at.hour < 5:
        yield 15, "at night"


@app.handler
def score(payment: Payment) -> Score:
    """Score one payment."""
    found = list(reasons_for(payment))
    points = sum(weight for weight, _ in found)
    verdict = Verdict.REFUSE if points >= 70 else Verdict.REVIEW if points >= 40 else Verdict.ACCEPT
    return Score(verdict, points, payment.amount, [reason for _, reason in found])


@app.handler
def score_all(payments: list[Payment]) -> Iterator[Score]:
    """Score many payments; each score is sent when it is known."""
    yield from map(score, payments)


if __name__ == "__main__":
    linepool.run(app)
