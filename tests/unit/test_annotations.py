"""Annotations that are evaluated late: as text, and from Python 3.14 on when they are asked for."""

import sys
from typing import Any

import pytest

from linepool import App, JsonRpc, SetupError
from linepool.client.request import described
from linepool.testing import client

HEADS = {"as text": "from __future__ import annotations\n"}
if sys.version_info >= (3, 14):
    HEADS["when asked for"] = ""
BELOW = """
def norm(point: Point) -> int:
    return abs(point.x) + abs(point.y)
def store() -> Iterator[Store]:
    yield Store()
def kept(store: Store, number: int) -> int:
    return number + store.first
class Store:
    first = 1
@dataclass
class Point:
    x: int
    y: int
"""
TREES = """
def depth(node: Node) -> int:
    return 1 + max([depth(one) for one in node.below], default=0)
@{}
class Node:
    below: list[Node]
    mark: Mark | None = None
@dataclass
class Mark:
    text: str
"""
FOR_CHECKERS = """
if TYPE_CHECKING:
    from decimal import Decimal
def total(*amounts: Decimal) -> int: ...
def begin() -> Decimal: ...
def report(error: Decimal, request: Decimal, session: Decimal) -> None: ...
def around(request: Decimal, session: Decimal, call_next: Decimal): return call_next()
"""


@pytest.fixture(params=HEADS.values(), ids=list(HEADS))
def head(request: pytest.FixtureRequest) -> str:
    return (
        f"{request.param}from collections.abc import Iterator\n"
        "from dataclasses import dataclass\nfrom typing import TYPE_CHECKING\nimport attrs\n"
    )


def module(source: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a module with this source, which has no statement of this one's."""
    made = type(sys)("late")
    monkeypatch.setitem(sys.modules, "late", made)
    exec(compile(source, "late.py", "exec", dont_inherit=True), vars(made))
    return made


def test_handlers_and_resources_may_name_classes_that_are_defined_below_them(
    head: str, monkeypatch: pytest.MonkeyPatch
):
    late = module(head + BELOW, monkeypatch)
    app = App()
    app.handler(late.norm)
    app.resource(late.store)
    app.handler(late.kept)
    with client(app) as caller:
        assert caller.call(late.norm, late.Point(1, -2)) == 3
        assert caller.call(late.kept, number=4) == 5


@pytest.mark.parametrize("decorator", ["dataclass", "attrs.define"])
def test_the_fields_of_a_class_may_name_itself_and_classes_that_are_defined_below_it(
    head: str, monkeypatch: pytest.MonkeyPatch, decorator: str
):
    late = module(head + TREES.format(decorator), monkeypatch)
    app = App(protocol=JsonRpc())
    app.handler(late.depth)
    leaf = {"below": [], "mark": {"text": "here"}}
    with client(app) as caller:
        assert caller.call("depth", {"below": [leaf, {"below": [leaf]}]}) == 3


def test_a_handler_that_names_what_is_there_for_type_checkers_only_is_refused_with_that_name(
    head: str, monkeypatch: pytest.MonkeyPatch
):
    app = App()
    app.handler(module(head + FOR_CHECKERS, monkeypatch).total)
    with pytest.raises(SetupError, match="annotation: name 'Decimal' is not defined"):
        app.freeze()


@pytest.mark.parametrize(("kind", "name"), [("on_error", "report"), ("middleware", "around")])
def test_a_hook_for_requests_that_names_it_is_refused_likewise(
    head: str, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
):
    app = App()
    getattr(app, kind)(getattr(module(head + FOR_CHECKERS, monkeypatch), name))
    with pytest.raises(SetupError, match=f"{kind} {name} .*: annotation: name 'Decimal' is not"):
        app.freeze()


def test_hooks_of_the_server_and_clients_may_name_it(head: str, monkeypatch: pytest.MonkeyPatch):
    late = module(head + FOR_CHECKERS, monkeypatch)
    app = App()
    app.on_start(late.begin)
    app.freeze()
    assert described(late.total).name == b"total"
